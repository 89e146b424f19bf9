//! What reservations of one kind have in common, as it is kept aside in Redis: their terms.
//!
//! Terms are found by a hash of their content, so whatever wrote them wrote the same. A script never writes a record whose terms are
//! missing: it says that they are wanted, and gets them (`records.lua`). So nothing has to be known for certain here, and what was
//! forgotten costs a call at most.

use std::{
    collections::HashMap,
    hash::Hash,
    mem,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::record::{shared, unshared};
use crate::{
    domain::{
        counter::{CounterKey, CounterKind},
        holds::{Term, Terms},
    },
    store::{ReservationId, Reserve, StoreError},
};

/// The layout of terms in Redis.
const VERSION: u8 = 1;
/// The most terms of a generation that are remembered: each takes about a kilobyte.
const MOST: usize = 8192;

/// Tells terms from all others: so many that two alike are out of the question.
pub(super) type TermsHash = [u8; 12];

/// Terms that Redis has, or is to have.
#[derive(Debug)]
pub(super) struct Known {
    pub(super) hash: TermsHash,
    pub(super) terms: Arc<Terms>,
    /// What Redis keeps of them.
    pub(super) body: Bytes,
    /// Whether Redis had them when it was last asked. Only a guess: a relaxed load and store.
    is_written: AtomicBool,
}

/// One counter among terms. Names are packed as those of holds are.
#[derive(Serialize, Deserialize)]
struct PackedTerm<'a> {
    shared: usize,
    rest: &'a str,
    period: u32,
    kind: CounterKind,
    limit: u64,
    class: u16,
}

impl Known {
    fn new(terms: &Arc<Terms>) -> Result<Self, StoreError> {
        let mut before = "";
        let pack = |term: &'_ Term| (term.counter.period(), term.kind, term.limit, term.class);
        let mut packed = Vec::with_capacity(terms.iter().len());
        for term in terms.iter() {
            let (shared, rest) = shared(term.counter.name(), &mut before);
            let (period, kind, limit, class) = pack(term);
            packed.push(PackedTerm { shared, rest, period, kind, limit, class });
        }
        let body =
            postcard::to_extend(&(packed, terms.note()), vec![VERSION]).map_err(|_| StoreError::Corrupt)?;
        Ok(Self {
            hash: hash_of(&body),
            terms: Arc::clone(terms),
            body: body.into(),
            is_written: AtomicBool::new(false),
        })
    }

    /// Reads what Redis keeps under `hash`.
    fn read(hash: TermsHash, body: &[u8]) -> Result<Self, StoreError> {
        let (version, packed) = body.split_first().ok_or(StoreError::Corrupt)?;
        if *version != VERSION || hash_of(body) != hash {
            return Err(StoreError::Corrupt);
        }
        let (packed, note): (Vec<PackedTerm<'_>>, Bytes) =
            postcard::from_bytes(packed).map_err(|_| StoreError::Corrupt)?;
        let mut name = String::new();
        let unpack = |packed: PackedTerm<'_>| {
            unshared(&mut name, packed.shared, packed.rest)?;
            let counter = CounterKey::new(name.as_str()).in_period(packed.period);
            Ok(Term { counter, kind: packed.kind, limit: packed.limit, class: packed.class })
        };
        let terms = packed.into_iter().map(unpack).collect::<Result<Vec<_>, StoreError>>()?;
        let (terms, body) = (Arc::new(Terms::new(terms, note)), Bytes::copy_from_slice(body));
        Ok(Self { hash, terms, body, is_written: AtomicBool::new(true) })
    }

    #[cfg(test)]
    pub(super) fn for_tests(hash: TermsHash, terms: &Arc<Terms>) -> Self {
        Self { hash, ..Self::new(terms).unwrap() }
    }

    /// Whether Redis is likely to have them.
    pub(super) fn is_written(&self) -> bool {
        self.is_written.load(Ordering::Relaxed)
    }

    /// Takes note of whether Redis has them.
    pub(super) fn set_written(&self, is_written: bool) {
        self.is_written.store(is_written, Ordering::Relaxed);
    }
}

fn hash_of(body: &[u8]) -> TermsHash {
    let mut hasher = blake3::Hasher::new();
    hasher.update(body);
    let mut hash = TermsHash::default();
    hasher.finalize_xof().fill(&mut hash);
    hash
}

/// Entries that were used lately: at least the last `most`, at most twice as many.
#[derive(Debug)]
pub(super) struct Lately<K, V> {
    present: HashMap<K, V>,
    before: HashMap<K, V>,
    most: usize,
}

impl<K: Copy + Eq + Hash, V> Lately<K, V> {
    pub(super) fn new(most: usize) -> Self {
        Self { present: HashMap::new(), before: HashMap::new(), most }
    }

    pub(super) fn get(&mut self, key: K) -> Option<&V> {
        if let Some(value) = self.before.remove(&key) {
            self.insert(key, value);
        }
        self.present.get(&key)
    }

    pub(super) fn insert(&mut self, key: K, value: V) {
        if self.present.len() >= self.most {
            self.before = mem::take(&mut self.present);
        }
        // Else the earlier value would come back.
        self.before.remove(&key);
        self.present.insert(key, value);
    }

    pub(super) fn remove(&mut self, key: K) -> Option<V> {
        let before = self.before.remove(&key);
        self.present.remove(&key).or(before)
    }
}

/// The terms of requests, by where they are in memory. They are kept alive here, so no others come to be there.
#[derive(Debug)]
enum Seen {
    /// By one request, which may be tried again. Most terms of which there is one request only are never seen again, and Redis need not
    /// keep them.
    Once(Arc<Terms>, ReservationId),
    Again(Arc<Known>),
}

/// The terms that this process knows. The lock is held for a look-up, or to encode terms once.
#[derive(Debug)]
pub(super) struct TermsMemory(Mutex<Memory>);

#[derive(Debug)]
struct Memory {
    seen: Lately<usize, Seen>,
    known: Lately<TermsHash, Arc<Known>>,
}

impl TermsMemory {
    pub(super) fn new() -> Self {
        Self(Mutex::new(Memory { seen: Lately::new(MOST), known: Lately::new(MOST) }))
    }

    /// The terms that a record of `reserve` is to refer to, if it is not the first of its kind.
    pub(super) fn of(&self, reserve: &Reserve) -> Result<Option<Arc<Known>>, StoreError> {
        let terms = reserve.holds.terms();
        let address = Arc::as_ptr(terms).addr();
        let memory = &mut *self.lock();
        match memory.seen.get(address) {
            None => {
                memory.seen.insert(address, Seen::Once(Arc::clone(terms), reserve.id));
                Ok(None)
            }
            Some(Seen::Again(known)) => Ok(Some(Arc::clone(known))),
            Some(Seen::Once(_, id)) if *id == reserve.id => Ok(None),
            Some(Seen::Once(terms, _)) => {
                let known = Arc::new(Known::new(terms)?);
                memory.seen.insert(address, Seen::Again(Arc::clone(&known)));
                memory.known.insert(known.hash, Arc::clone(&known));
                Ok(Some(known))
            }
        }
    }

    /// The terms with this hash.
    pub(super) fn known(&self, hash: TermsHash) -> Option<Arc<Known>> {
        self.lock().known.get(hash).cloned()
    }

    /// Takes in what Redis has under a hash.
    pub(super) fn learn(&self, hash: TermsHash, body: &[u8]) -> Result<Arc<Known>, StoreError> {
        let known = Arc::new(Known::read(hash, body)?);
        self.lock().known.insert(hash, Arc::clone(&known));
        Ok(known)
    }

    fn lock(&self) -> MutexGuard<'_, Memory> {
        // Nothing panics while it is held.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_that_are_used_stay() {
        let mut lately = Lately::new(2);
        for key in 0..6 {
            lately.insert(key, key);
            assert_eq!(lately.get(0), Some(&0));
        }
        assert_eq!(lately.get(1), None);
        assert_eq!(lately.get(5), Some(&5));
        assert_eq!(lately.remove(0), Some(0));
        assert_eq!(lately.get(0), None);
    }

    #[test]
    fn terms_are_read_as_they_were_written_and_as_no_others() {
        let term = |name: &str, class| Term {
            counter: CounterKey::new(name).in_period(20_261_101),
            kind: CounterKind::Budget { slot_ms: 7 },
            limit: 9,
            class,
        };
        let note = Bytes::from_static(b"what they share");
        let terms = Arc::new(Terms::new([term("team/a|usd", 2), term("team/a|tokens", 0)], note));
        let written = Known::new(&terms).unwrap();
        let read = Known::read(written.hash, &written.body).unwrap();
        assert_eq!((&read.terms, &read.body), (&terms, &written.body));
        assert!(matches!(Known::read([0; 12], &written.body), Err(StoreError::Corrupt)));
    }
}
