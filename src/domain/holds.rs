//! What a reservation takes from all its counters: the terms, which reservations of one kind share, and the amounts of this one.

use std::{
    fmt,
    hash::{Hash as _, Hasher},
    sync::Arc,
};

use bytes::Bytes;
use smallvec::SmallVec;

use super::counter::{CounterKey, CounterKind, Hold};

/// Amounts of one reservation: one for each request, one for its size and one for its cost.
const USUAL_CLASSES: usize = 3;

/// What reservations of one kind have in common: the counters, how they count, their bounds, and a note.
#[derive(Debug, PartialEq, Eq)]
pub struct Terms {
    /// Compared first, as terms that differ nearly always differ in it.
    hash: u64,
    classes: u16,
    terms: Box<[Term]>,
    note: Bytes,
}

/// One counter among [`Terms`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Term {
    /// Which counter.
    pub counter: CounterKey,
    /// How it accounts for amounts.
    pub kind: CounterKind,
    /// The bound on usage, as in [`Hold::limit`].
    pub limit: u64,
    /// Counters of one class are held by the same amount.
    pub class: u16,
}

/// What one reservation takes from each counter of a class.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Amount {
    /// The part that stays until settled.
    pub kept: u64,
    /// The part that expires by itself.
    pub expiring: u64,
}

/// The holds of one reservation. Cheap to clone.
#[derive(Clone, Default)]
pub struct Holds {
    terms: Arc<Terms>,
    /// By class.
    amounts: SmallVec<[Amount; USUAL_CLASSES]>,
}

impl FromIterator<Term> for Terms {
    /// Terms without a note.
    fn from_iter<I: IntoIterator<Item = Term>>(terms: I) -> Self {
        Self::new(terms, Bytes::new())
    }
}

impl Terms {
    /// These terms with a note.
    pub fn new(terms: impl IntoIterator<Item = Term>, note: Bytes) -> Self {
        let terms: Box<[Term]> = terms.into_iter().collect();
        let mut mixer = Mixer(0);
        for Term { counter, kind, limit, class } in &terms {
            counter.hash(&mut mixer);
            for value in [kind.slot_ms(), *limit, u64::from(*class)] {
                mixer.write_u64(value);
            }
        }
        mixer.write(&note);
        let classes = terms.iter().map(|term| term.class.saturating_add(1)).max().unwrap_or(0);
        Self { hash: mixer.finish(), classes, terms, note }
    }
}

impl Default for Terms {
    fn default() -> Self {
        Self::from_iter([])
    }
}

impl Terms {
    /// The same for equal terms, and well spread. Computed once, so that a store that shares equal terms finds them quickly.
    #[must_use]
    pub const fn content_hash(&self) -> u64 {
        self.hash
    }

    /// What callers of the store keep once for all reservations on these terms; opaque to the store. At most
    /// [`crate::store::MAX_NOTE`] bytes.
    #[must_use]
    pub const fn note(&self) -> &Bytes {
        &self.note
    }

    /// How many amounts reservations on these terms have.
    #[must_use]
    pub const fn classes(&self) -> u16 {
        self.classes
    }

    /// The counters, in order.
    pub fn iter(&self) -> std::slice::Iter<'_, Term> {
        self.terms.iter()
    }
}

impl<'a> IntoIterator for &'a Terms {
    type Item = &'a Term;
    type IntoIter = std::slice::Iter<'a, Term>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

/// Mixes numbers, of which one for each counter is the hash of its name: far quicker than a general hash.
struct Mixer(u64);

impl Hasher for Mixer {
    fn finish(&self) -> u64 {
        // The highest bits depend on all numbers, the lowest only on the lowest of each.
        self.0 ^ (self.0 >> 32)
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_u64(u64::from(*byte)));
    }

    fn write_u64(&mut self, value: u64) {
        // An odd number without a pattern: 2^64 divided by the golden ratio.
        self.0 = (self.0.rotate_left(23) ^ value).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
}

impl Holds {
    /// Holds on the counters of `terms`, of nothing yet.
    #[must_use]
    pub fn new(terms: Arc<Terms>) -> Self {
        let classes = usize::from(terms.classes);
        Self { terms, amounts: SmallVec::from_elem(Amount::default(), classes) }
    }

    /// Holds on the counters of `terms`, with the amounts of the classes in their order: one for each class.
    #[must_use]
    pub fn with_amounts(terms: Arc<Terms>, amounts: impl IntoIterator<Item = Amount>) -> Self {
        let mut amounts: SmallVec<_> = amounts.into_iter().collect();
        amounts.resize(usize::from(terms.classes), Amount::default());
        Self { terms, amounts }
    }

    /// The same holds, on terms of their own with `note`.
    #[must_use]
    pub fn noted(self, note: Bytes) -> Self {
        let terms = Terms::new(self.terms.iter().cloned(), note);
        Self { terms: Arc::new(terms), ..self }
    }

    /// Holds `amount` on each counter of `class`; a class that no counter is of is left alone.
    pub fn set(&mut self, class: u16, amount: Amount) {
        if let Some(own) = self.amounts.get_mut(usize::from(class)) {
            *own = amount;
        }
    }

    /// What those of one kind share.
    #[must_use]
    pub const fn terms(&self) -> &Arc<Terms> {
        &self.terms
    }

    /// The amounts of the classes, in their order.
    #[must_use]
    pub fn amounts(&self) -> &[Amount] {
        &self.amounts
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.terms.terms.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.terms.terms.is_empty()
    }

    /// The hold at `index`.
    #[must_use]
    pub fn get(&self, index: usize) -> Option<Hold<&CounterKey>> {
        self.terms.terms.get(index).map(|term| self.of(term))
    }

    /// All of them, in the order of the terms.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = Hold<&CounterKey>> + ExactSizeIterator + Clone {
        self.terms.terms.iter().map(|term| self.of(term))
    }

    /// Their counters.
    pub fn counters(&self) -> impl ExactSizeIterator<Item = &CounterKey> + Clone {
        self.terms.terms.iter().map(|term| &term.counter)
    }

    fn of<'t>(&self, term: &'t Term) -> Hold<&'t CounterKey> {
        let Amount { kept, expiring } =
            self.amounts.get(usize::from(term.class)).copied().unwrap_or_default();
        Hold { counter: &term.counter, kind: term.kind, limit: term.limit, kept, expiring }
    }
}

impl FromIterator<Hold> for Holds {
    /// Terms of their own. A class holds one amount, so there are as many as different amounts: at most
    /// [`crate::store::MAX_HOLDS`].
    fn from_iter<I: IntoIterator<Item = Hold>>(holds: I) -> Self {
        let mut amounts = SmallVec::<[Amount; USUAL_CLASSES]>::new();
        let mut term = |Hold { counter, kind, limit, kept, expiring }| {
            let amount = Amount { kept, expiring };
            let known = amounts.iter().position(|known| *known == amount);
            let class = known.unwrap_or_else(|| {
                amounts.push(amount);
                amounts.len() - 1
            });
            Term { counter, kind, limit, class: u16::try_from(class).unwrap_or(u16::MAX) }
        };
        let terms: Terms = holds.into_iter().map(&mut term).collect();
        Self { terms: Arc::new(terms), amounts }
    }
}

impl From<Vec<Hold>> for Holds {
    fn from(holds: Vec<Hold>) -> Self {
        holds.into_iter().collect()
    }
}

impl<const N: usize> From<[Hold; N]> for Holds {
    fn from(holds: [Hold; N]) -> Self {
        holds.into_iter().collect()
    }
}

/// The same holds with the same note, however they are divided into terms and amounts.
impl PartialEq for Holds {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter()) && self.terms.note == other.terms.note
    }
}

impl Eq for Holds {}

impl fmt::Debug for Holds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hold(name: &str, kept: u64, expiring: u64) -> Hold {
        let kind = CounterKind::Window { slot_ms: 1 };
        Hold { counter: CounterKey::new(name), kind, limit: 9, kept, expiring }
    }

    #[test]
    fn holds_are_those_that_they_were_made_of() {
        let all = vec![hold("a", 0, 1), hold("b", 2, 3), hold("c", 0, 1), hold("d", 5, 0), hold("e", 0, 4)];
        let holds = Holds::from(all.clone());
        assert_eq!(holds.amounts.len(), 4, "one for each different amount");
        assert!(holds.iter().eq(all.iter().map(Hold::by_ref)));
        assert_eq!((holds.len(), holds.get(3), holds.get(5)), (5, Some(all[3].by_ref()), None));
    }

    #[test]
    fn more_holds_than_a_reservation_can_have_are_told_apart() {
        let all: Vec<_> = (0..300).map(|n| hold("a", 0, n)).collect();
        assert!(Holds::from(all.clone()).iter().eq(all.iter().map(Hold::by_ref)));
    }

    #[test]
    fn equal_terms_have_one_hash_and_others_have_others() {
        let all = vec![hold("a", 0, 1), hold("b", 2, 3), hold("c", 0, 1)];
        let hash = |holds: Vec<Hold>| Holds::from(holds).terms.content_hash();
        assert_eq!(hash(all.clone()), hash(all.clone()));
        let mut others = vec![all[..2].to_vec(), all.iter().rev().cloned().collect(), Vec::new()];
        for at in 0..3 {
            let mut limit = all.clone();
            limit[at].limit += 1;
            let mut period = all.clone();
            period[at].counter = period[at].counter.in_period(20_261_101);
            let mut kind = all.clone();
            kind[at].kind = CounterKind::Window { slot_ms: 2 };
            others.extend([limit, period, kind]);
        }
        let mut hashes: Vec<_> = others.into_iter().chain([all]).map(hash).collect();
        hashes.sort_unstable();
        hashes.dedup();
        assert_eq!(hashes.len(), 13);
    }

    #[test]
    fn terms_and_holds_with_another_note_are_others() {
        let holds = Holds::from([hold("a", 0, 1)]);
        let noted = holds.clone().noted(Bytes::from_static(b"note"));
        assert!(holds.iter().eq(noted.iter()) && &**noted.terms().note() == b"note");
        assert_ne!(holds, noted);
        assert_ne!(holds.terms().content_hash(), noted.terms().content_hash());
        assert_eq!(noted, Holds::from([hold("a", 0, 1)]).noted(Bytes::from_static(b"note")));
    }

    #[test]
    fn one_set_of_terms_serves_many_amounts() {
        let term = |name, class| {
            let Hold { counter, kind, limit, .. } = hold(name, 0, 0);
            Term { counter, kind, limit, class }
        };
        let mut holds = Holds::new(Arc::new([term("a", 0), term("b", 2)].into_iter().collect()));
        let other = holds.clone();
        holds.set(2, Amount { kept: 1, expiring: 2 });
        holds.set(3, Amount { kept: 7, expiring: 7 });
        assert_eq!(holds, Holds::from([hold("a", 0, 0), hold("b", 1, 2)]));
        assert_eq!(other, Holds::from([hold("a", 0, 0), hold("b", 0, 0)]));
        assert!(Arc::ptr_eq(&holds.terms, &other.terms));
    }
}
