//! The reservations in memory: in places with small numbers, found by id.

use hashbrown::HashTable;

use super::{kept::Kept, presharded::PiecewiseVec};

/// The tables that the index is divided into. When one grows it looks at all that it has, each in another place of memory: with as many
/// tables, that is a few hundred for a million reservations.
const TABLES: usize = 4096;

/// A `u128` in two halves, which needs no place that is aligned to 16 bytes.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Id([u64; 2]);

impl Id {
    fn new(id: u128) -> Self {
        let [low, high] = [id, id >> 64].map(|half| half & u128::from(u64::MAX));
        Self([low, high].map(|half| u64::try_from(half).unwrap_or_default()))
    }

    fn number(self) -> u128 {
        let Self([low, high]) = self;
        u128::from(high) << 64 | u128::from(low)
    }

    /// An id is random or a hash, but for its first byte.
    const fn hash(self) -> u64 {
        let Self([low, _]) = self;
        low
    }

    /// The bits that choose the table are neither the lowest, with which that chooses a place, nor the highest, with which it
    /// distinguishes neighbours.
    fn table(self) -> usize {
        usize::try_from(self.hash() >> 32).unwrap_or_default() % TABLES
    }
}

struct Place {
    id: Id,
    kept: Kept,
}

/// The reservations in memory. A map of them would keep half of its size free, or more; this keeps that much only of numbers.
pub(super) struct Reservations {
    tables: Vec<HashTable<u32>>,
    places: PiecewiseVec<Place>,
    free: Vec<u32>,
}

impl Default for Reservations {
    fn default() -> Self {
        let tables = (0..TABLES).map(|_| HashTable::new()).collect();
        Self { tables, places: PiecewiseVec::default(), free: Vec::new() }
    }
}

/// Whether the place `number` has `id`.
fn has(places: &PiecewiseVec<Place>, number: u32, id: Id) -> bool {
    places.place(number as usize).and_then(Option::as_ref).is_some_and(|place| place.id == id)
}

impl Reservations {
    fn find(&self, id: Id) -> Option<u32> {
        let table = self.tables.get(id.table())?;
        table.find(id.hash(), |number| has(&self.places, *number, id)).copied()
    }

    pub(super) fn get(&self, id: u128) -> Option<&Kept> {
        let number = self.find(Id::new(id))?;
        self.places.place(number as usize)?.as_ref().map(|place| &place.kept)
    }

    /// The reservation, and the number of its place.
    pub(super) fn get_mut(&mut self, id: u128) -> Option<(u32, &mut Kept)> {
        let number = self.find(Id::new(id))?;
        let place = self.places.place_mut(number as usize)?.as_mut()?;
        Some((number, &mut place.kept))
    }

    /// The reservation in a place, and its id.
    pub(super) fn at_mut(&mut self, number: u32) -> Option<(u128, &mut Kept)> {
        let place = self.places.place_mut(number as usize)?.as_mut()?;
        Some((place.id.number(), &mut place.kept))
    }

    /// Keeps a reservation. Returns the number of its place, and the one that had the id before; `None` if there are 2^32.
    pub(super) fn insert(&mut self, id: u128, kept: Kept) -> Option<(u32, Option<Kept>)> {
        let id = Id::new(id);
        if let Some(number) = self.find(id) {
            let before = self.places.place_mut(number as usize)?.replace(Place { id, kept });
            return Some((number, before.map(|place| place.kept)));
        }
        let number = self.free.pop().or_else(|| u32::try_from(self.places.places()).ok())?;
        if self.places.places() <= number as usize {
            self.places.add_place();
        }
        *self.places.place_mut(number as usize)? = Some(Place { id, kept });
        let Self { tables, places, .. } = self;
        let hash = |number: &u32| {
            let place = places.place(*number as usize).and_then(Option::as_ref);
            place.map_or(0, |place| place.id.hash())
        };
        tables.get_mut(id.table())?.insert_unique(id.hash(), number, hash);
        Some((number, None))
    }

    pub(super) fn remove(&mut self, id: u128) -> Option<Kept> {
        let id = Id::new(id);
        let Self { tables, places, free } = self;
        let entry = tables.get_mut(id.table())?.find_entry(id.hash(), |number| has(places, *number, id));
        let (number, _) = entry.ok()?.remove();
        free.push(number);
        places.place_mut(number as usize)?.take().map(|place| place.kept)
    }

    /// Removes those that `keep` refuses.
    pub(super) fn retain(&mut self, mut keep: impl FnMut(&Kept) -> bool) {
        let gone = self.places.iter().flatten().filter(|place| !keep(&place.kept));
        let gone: Vec<_> = gone.map(|place| place.id.number()).collect();
        for id in gone {
            self.remove(id);
        }
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.tables.iter().map(HashTable::len).sum()
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::HashMap, sync::Arc};

    use super::*;
    use crate::{
        domain::{
            Timestamp,
            counter::{CounterKey, CounterKind},
            holds::{Amount, Holds, Term},
        },
        store::embedded::kept::{Own, Version, VersionState},
    };

    fn kept(seq: u64) -> Kept {
        let holds = Holds::default();
        let own = Own::new((0, Timestamp(0)), (0, 0), &holds, b"");
        let version = Version { terms: Arc::clone(holds.terms()), state: VersionState::Open(own) };
        Kept { seq, version, dirty: true, was_written_open: false }
    }

    /// The bytes that the allocator (`mimalloc`) takes for a few hundred: it has four sizes between two powers of two.
    fn allocated(bytes: usize) -> usize {
        let step = (bytes.next_power_of_two() / 8).max(8);
        bytes.next_multiple_of(step)
    }

    #[test]
    fn an_open_reservation_takes_no_more_than_250_bytes() {
        assert_eq!([1, 64, 65, 129, 144, 161].map(allocated), [8, 64, 80, 160, 160, 192]);
        let term = |class| Term {
            counter: CounterKey::new(format!("limit {class}")),
            kind: CounterKind::Window { slot_ms: 1_000 },
            limit: 1_000_000,
            class,
        };
        let mut holds = Holds::new(Arc::new((0..3).map(term).collect()));
        holds.set(0, Amount { kept: 0, expiring: 1 });
        holds.set(1, Amount { kept: 0, expiring: 9_000 });
        holds.set(2, Amount { kept: 1_500_000, expiring: 0 });
        // A ticket of a key, of a model with a long name.
        let note = [0; 110];
        let own = Own::new((u64::MAX, Timestamp(1_795_428_000_000)), (600_000, 86_400_000), &holds, &note);
        let own = allocated(own.bytes().len());
        // In the worst case, just after the tables grew, they have sixteen places for seven numbers, each with a byte that marks it.
        let index = (size_of::<u32>() + 1) * 16 / 7 + 1;
        let changed = 2 * size_of::<u32>();
        let all = size_of::<Option<Place>>() + own + index + changed;
        assert!(all <= 250, "{all}");
        assert_eq!((size_of::<Option<Place>>(), own), (56, 160));
    }

    #[test]
    fn it_is_a_map_of_ids() {
        let (mut expected, mut reservations) = (HashMap::new(), Reservations::default());
        let mut random = 7_u64;
        let mut roll = |sides| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (random >> 33) % sides
        };
        for seq in 0..40_000 {
            let id = u128::from(roll(3_000)) << 60 | u128::from(roll(2));
            if roll(3) == 0 {
                assert_eq!(reservations.remove(id).map(|kept| kept.seq), expected.remove(&id));
            } else {
                let (number, before) = reservations.insert(id, kept(seq)).unwrap();
                assert_eq!(before.map(|kept| kept.seq), expected.insert(id, seq));
                assert_eq!(reservations.at_mut(number).map(|(id, kept)| (id, kept.seq)), Some((id, seq)));
            }
            let other = u128::from(roll(3_000)) << 60;
            assert_eq!(reservations.get(other).map(|kept| kept.seq), expected.get(&other).copied());
            assert_eq!(reservations.len(), expected.len());
        }
        assert!(reservations.places.places() <= 6_000, "places are used again");
        reservations.retain(|kept| kept.seq % 2 == 0);
        expected.retain(|_, seq| *seq % 2 == 0);
        assert_eq!(reservations.len(), expected.len());
        assert!(expected.keys().all(|id| reservations.get(*id).is_some()));
    }
}
