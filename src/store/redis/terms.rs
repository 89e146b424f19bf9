//! What reservations of one kind have in common, as it is kept aside in Redis: their terms, and what their notes share.
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
    store::{Reserve, StoreError},
};

/// The layout of terms in Redis.
const VERSION: u8 = 1;
/// The most terms of a generation that are remembered: each takes about a kilobyte.
const MOST: usize = 8192;
/// A shorter end of a note is not worth its place.
const LEAST_TAIL: usize = 4;

/// Tells terms from all others: so many that two alike are out of the question.
pub(super) type TermsHash = [u8; 12];

/// Terms that Redis has, or is to have.
#[derive(Debug)]
pub(super) struct Known {
    pub(super) hash: TermsHash,
    pub(super) terms: Arc<Terms>,
    pub(super) note: NoteForm,
    /// What Redis keeps of them.
    pub(super) body: Bytes,
    /// Whether Redis had them when it was last asked. Only a guess: a relaxed load and store.
    is_written: AtomicBool,
}

/// What notes of one kind share: a beginning, and an end that has a few bytes behind it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct NoteForm {
    head: Bytes,
    tail: Bytes,
    /// The bytes behind the tail.
    behind: usize,
}

impl NoteForm {
    /// What two notes of one kind share.
    fn of(one: &Bytes, other: &Bytes) -> Self {
        let head = one.iter().zip(other).take_while(|(a, b)| a == b).count();
        let rest = (one.len() - head).min(other.len() - head);
        let pairs = one.iter().rev().zip(other.iter().rev()).take(rest);
        // The longest run of bytes that are the same, counted from the end.
        let (mut from, mut best) = (0, (0, 0));
        for (at, (a, b)) in pairs.enumerate() {
            if a != b {
                from = at + 1;
            } else if at + 1 - from > best.1 {
                best = (from, at + 1 - from);
            }
        }
        let head = one.slice(..head);
        match best {
            (behind, length) if length >= LEAST_TAIL => {
                let end = one.len() - behind;
                Self { head, tail: one.slice(end - length..end), behind }
            }
            _ => Self { head, ..Self::default() },
        }
    }

    /// How much of the head `note` begins with, whether it has the tail, and what it has of its own: before the tail, and behind it.
    pub(super) fn without<'n>(&self, note: &'n [u8]) -> (usize, bool, [&'n [u8]; 2]) {
        let head = note.iter().zip(&self.head).take_while(|(a, b)| a == b).count();
        let rest = note.get(head..).unwrap_or_default();
        let with_tail =
            rest.split_at_checked(rest.len().wrapping_sub(self.behind)).and_then(|(front, behind)| {
                let own = front.strip_suffix(&*self.tail)?;
                (!self.tail.is_empty()).then_some([own, behind])
            });
        (head, with_tail.is_some(), with_tail.unwrap_or([rest, &[]]))
    }

    /// The inverse of [`Self::without`].
    pub(super) fn with(&self, head: usize, has_tail: bool, own: &[u8]) -> Result<Bytes, StoreError> {
        let head = self.head.get(..head).ok_or(StoreError::Corrupt)?;
        if !has_tail {
            return Ok([head, own].concat().into());
        }
        let at = own.len().checked_sub(self.behind).ok_or(StoreError::Corrupt)?;
        let (before, behind) = own.split_at_checked(at).ok_or(StoreError::Corrupt)?;
        Ok([head, before, &self.tail, behind].concat().into())
    }
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
    fn new(terms: &Arc<Terms>, note: NoteForm) -> Result<Self, StoreError> {
        let mut before = "";
        let pack = |term: &'_ Term| (term.counter.period(), term.kind, term.limit, term.class);
        let mut packed = Vec::with_capacity(terms.iter().len());
        for term in terms.iter() {
            let (shared, rest) = shared(term.counter.name(), &mut before);
            let (period, kind, limit, class) = pack(term);
            packed.push(PackedTerm { shared, rest, period, kind, limit, class });
        }
        let body = postcard::to_extend(&(packed, &note), vec![VERSION]).map_err(|_| StoreError::Corrupt)?;
        Ok(Self {
            hash: hash_of(&body),
            terms: Arc::clone(terms),
            note,
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
        let (packed, note): (Vec<PackedTerm<'_>>, NoteForm) =
            postcard::from_bytes(packed).map_err(|_| StoreError::Corrupt)?;
        let mut name = String::new();
        let unpack = |packed: PackedTerm<'_>| {
            unshared(&mut name, packed.shared, packed.rest)?;
            let counter = CounterKey::new(name.as_str()).in_period(packed.period);
            Ok(Term { counter, kind: packed.kind, limit: packed.limit, class: packed.class })
        };
        let terms = packed.into_iter().map(unpack).collect::<Result<Terms, StoreError>>()?;
        let (terms, body) = (Arc::new(terms), Bytes::copy_from_slice(body));
        Ok(Self { hash, terms, note, body, is_written: AtomicBool::new(true) })
    }

    #[cfg(test)]
    pub(super) fn for_tests(hash: TermsHash, terms: &Arc<Terms>, head: &'static [u8]) -> Self {
        let note = NoteForm { head: Bytes::from_static(head), ..NoteForm::default() };
        Self { hash, ..Self::new(terms, note).unwrap() }
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
    /// Once, with this note. Most terms of which there is one request only are never seen again, and Redis need not keep them.
    Once(Arc<Terms>, Bytes),
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
                memory.seen.insert(address, Seen::Once(Arc::clone(terms), reserve.note.clone()));
                Ok(None)
            }
            Some(Seen::Again(known)) => Ok(Some(Arc::clone(known))),
            Some(Seen::Once(terms, note)) => {
                let known = Arc::new(Known::new(terms, NoteForm::of(note, &reserve.note))?);
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
    fn notes_are_made_of_what_they_share_and_their_own() {
        let note = |own: &[u8], end: &[u8]| Bytes::from([b"the head ", own, b" and the tail", end].concat());
        let form = NoteForm::of(&note(b"12", b"abcdefgh"), &note(b"3456", b"ijklmnop"));
        assert_eq!((&*form.head, &*form.tail, form.behind), (&b"the head "[..], &b" and the tail"[..], 8));
        let others = [
            (note(b"", b"abcdefgh"), 8),
            (note(b"12", b"abcdefgh"), 10),
            (note(b" and the tail", b"01234567"), 21),
            (note(b"12", b"short"), 20),
            (Bytes::from_static(b"the tail"), 4),
            (Bytes::from_static(b"none"), 4),
            (Bytes::new(), 0),
        ];
        for (note, own) in others {
            let (head, has_tail, parts) = form.without(&note);
            assert_eq!(form.with(head, has_tail, &parts.concat()), Ok(note.clone()), "{note:?}");
            assert_eq!(parts.concat().len(), own, "{note:?}");
        }
        assert_eq!(form.with(99, false, b""), Err(StoreError::Corrupt));
        assert_eq!(form.with(0, true, b"short"), Err(StoreError::Corrupt));
        for same in [Bytes::new(), note(b"", b"")] {
            let form = NoteForm::of(&same, &same);
            assert_eq!(form.without(&same), (same.len(), false, [&b""[..], &[]]));
        }
    }

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
        let terms = Arc::new([term("team/a|usd", 2), term("team/a|tokens", 0)].into_iter().collect());
        let written = Known::new(&terms, NoteForm::default()).unwrap();
        let read = Known::read(written.hash, &written.body).unwrap();
        assert_eq!((&read.terms, &read.note, &read.body), (&terms, &written.note, &written.body));
        assert!(matches!(Known::read([0; 12], &written.body), Err(StoreError::Corrupt)));
    }
}
