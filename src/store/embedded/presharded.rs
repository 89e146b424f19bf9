//! Maps for keys that need no hashing, and that grow without a long pause.

use std::{
    borrow::Borrow,
    collections::HashMap,
    hash::{BuildHasher, BuildHasherDefault, Hash, Hasher},
};

/// Passes on keys that are already well spread: a counter key writes the hash of its name, a reservation id is random or a hash.
#[derive(Default)]
pub(super) struct PreshardedHasher(u64);

impl Hasher for PreshardedHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }

    fn write_u64(&mut self, value: u64) {
        self.0 ^= value;
    }

    fn write_u128(&mut self, value: u128) {
        let [low, high] = [value, value >> 64].map(|v| v & u128::from(u64::MAX));
        self.0 ^= u64::try_from(low ^ high).unwrap_or_default();
    }
}

/// A map whose keys need no hashing.
pub(super) type PreshardedMap<K, V> = HashMap<K, V, BuildHasherDefault<PreshardedHasher>>;

/// The same in pieces: when a map grows it moves everything it holds, which for a million entries takes far longer than anything
/// else under the store's lock. A piece moves 1/256 of that.
pub(super) struct PiecewiseMap<K, V>(Vec<PreshardedMap<K, V>>);

const PIECES: usize = 256;

impl<K, V> Default for PiecewiseMap<K, V> {
    fn default() -> Self {
        Self((0..PIECES).map(|_| PreshardedMap::default()).collect())
    }
}

impl<K: Hash + Eq, V> PiecewiseMap<K, V> {
    /// The bits of the hash that choose the piece are neither its lowest, with which a map chooses a place, nor its highest, with
    /// which it distinguishes neighbours.
    fn number<Q: Hash>(key: &Q) -> usize {
        let [_, _, _, number, ..] = BuildHasherDefault::<PreshardedHasher>::new().hash_one(key).to_le_bytes();
        usize::from(number)
    }

    pub(super) fn get<Q: Hash + Eq>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        self.0.get(Self::number(key))?.get(key)
    }

    pub(super) fn get_mut<Q: Hash + Eq>(&mut self, key: &Q) -> Option<&mut V>
    where
        K: Borrow<Q>,
    {
        self.0.get_mut(Self::number(key))?.get_mut(key)
    }

    pub(super) fn insert(&mut self, key: K, value: V) -> Option<V> {
        self.0.get_mut(Self::number(&key))?.insert(key, value)
    }

    pub(super) fn remove<Q: Hash + Eq>(&mut self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
    {
        self.0.get_mut(Self::number(key))?.remove(key)
    }

    /// Removes what `keep` refuses from one piece, and returns the number of the next.
    pub(super) fn take_from(
        &mut self,
        piece: usize,
        most: usize,
        is_over: impl FnMut(&K, &mut V) -> bool,
    ) -> (Vec<V>, usize) {
        let taken =
            self.0.get_mut(piece).map(|piece| piece.extract_if(is_over).take(most).map(|(_, value)| value));
        let taken: Vec<_> = taken.into_iter().flatten().collect();
        let next = if taken.len() < most { (piece + 1) % PIECES } else { piece };
        (taken, next)
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.0.iter().map(HashMap::len).sum()
    }
}

/// A vector of places that may be empty, in pieces of [`PIECE`], so it grows without moving its contents.
pub(super) struct PiecewiseVec<T>(Vec<Vec<Option<T>>>);

const PIECE: usize = 1024;

impl<T> Default for PiecewiseVec<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T> PiecewiseVec<T> {
    /// The number of places.
    pub(super) fn places(&self) -> usize {
        self.0.last().map_or(0, |last| (self.0.len() - 1) * PIECE + last.len())
    }

    pub(super) fn place(&self, number: usize) -> Option<&Option<T>> {
        self.0.get(number / PIECE)?.get(number % PIECE)
    }

    pub(super) fn place_mut(&mut self, number: usize) -> Option<&mut Option<T>> {
        self.0.get_mut(number / PIECE)?.get_mut(number % PIECE)
    }

    /// Adds an empty place.
    pub(super) fn add_place(&mut self) {
        match self.0.last_mut().filter(|last| last.len() < PIECE) {
            Some(last) => last.push(None),
            None => {
                let mut piece = Vec::with_capacity(PIECE);
                piece.push(None);
                self.0.push(piece);
            }
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Option<T>> {
        self.0.iter().flatten()
    }
}
