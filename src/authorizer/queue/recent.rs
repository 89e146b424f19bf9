//! What was released recently, for requests that asked first and join a line afterwards.

use std::hash::{BuildHasher as _, BuildHasherDefault, DefaultHasher};

use crate::domain::counter::CounterKey;

/// Counters whose hashes meet share a place. One settlement releases about ten, so during the few milliseconds of a question
/// a place is seldom shared; if it is, one question is asked in vain. 64 KiB.
const PLACES: usize = 8192;

/// When something was last released at each counter, by a count that goes up with each release. Never misses one.
#[derive(Debug)]
pub(super) struct Recent {
    places: Box<[u64]>,
    now: u64,
}

impl Default for Recent {
    fn default() -> Self {
        Self { places: vec![0; PLACES].into_boxed_slice(), now: 0 }
    }
}

impl Recent {
    /// The count.
    pub(super) const fn now(&self) -> u64 {
        self.now
    }

    pub(super) fn note(&mut self, counter: &CounterKey) {
        self.now = self.now.saturating_add(1);
        if let Some(place) = self.places.get_mut(place_of(counter)) {
            *place = self.now;
        }
    }

    /// Whether something was released at `counter` after the count was `since`.
    pub(super) fn has(&self, counter: &CounterKey, since: u64) -> bool {
        self.places.get(place_of(counter)).is_some_and(|at| *at > since)
    }
}

fn place_of(counter: &CounterKey) -> usize {
    let hash = BuildHasherDefault::<DefaultHasher>::default().hash_one(counter);
    usize::try_from(hash % PLACES as u64).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_crowd_of_other_settlements_is_not_taken_for_one_of_ours() {
        let (mut recent, ours) = (Recent::default(), CounterKey::new("ours"));
        recent.note(&ours);
        let since = recent.now();
        // 30 settlements of ten counters each used to be more than were remembered.
        let others = (0..300).map(|i| CounterKey::new(format!("other/{i}")));
        others.filter(|other| place_of(other) != place_of(&ours)).for_each(|other| recent.note(&other));
        assert!(!recent.has(&ours, since));
        recent.note(&ours);
        assert!(recent.has(&ours, since));
        assert!(!recent.has(&ours, recent.now()));
    }
}
