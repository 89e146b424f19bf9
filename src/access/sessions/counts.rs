//! Which sessions this replica has seen lately, and which it has seen end.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use crate::domain::Timestamp;

/// The most sessions that are counted, and the most ended ones that are remembered: far more than an organization has operators.
const MAX: usize = 10_000;

/// Sessions are kept by browsers, so this is what requests have shown. Both maps are of session ids, each with when to forget it.
#[derive(Debug, Default)]
pub struct SessionCounts(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    seen: HashMap<String, Timestamp>,
    ended: HashMap<String, Timestamp>,
}

impl SessionCounts {
    /// Counts a session until `until`, unless there are too many.
    pub(super) fn see(&self, id: String, now: Timestamp, until: Timestamp) {
        put(&mut self.lock().seen, id, now, until);
    }

    /// Remembers that a session has ended, until its cookie would be refused anyway.
    pub(super) fn end(&self, id: String, now: Timestamp, until: Timestamp) {
        let mut known = self.lock();
        known.seen.remove(&id);
        put(&mut known.ended, id, now, until);
    }

    /// Whether a session has ended here.
    pub(super) fn has_ended(&self, id: &str) -> bool {
        self.lock().ended.contains_key(id)
    }

    /// How many sessions made a request to this replica within the last `console_session_timeout`; at most 10,000.
    #[must_use]
    pub fn count(&self, now: Timestamp) -> u64 {
        self.lock().seen.values().filter(|until| now < **until).count() as u64
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Known> {
        // A panic while holding the lock leaves only whole entries behind.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn put(map: &mut HashMap<String, Timestamp>, id: String, now: Timestamp, until: Timestamp) {
    if map.len() >= MAX && !map.contains_key(&id) {
        map.retain(|_, until| now < *until);
        if map.len() >= MAX {
            return;
        }
    }
    map.insert(id, until);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sessions_are_counted_for_a_while_and_within_a_bound() {
        let counts = SessionCounts::default();
        let at = Timestamp;
        counts.see("a".to_owned(), at(0), at(10));
        counts.see("a".to_owned(), at(1), at(11));
        counts.see("b".to_owned(), at(1), at(20));
        assert_eq!([0, 10, 11, 20].map(|now| counts.count(at(now))), [2, 2, 1, 0]);
        counts.end("b".to_owned(), at(2), at(100));
        assert_eq!((counts.count(at(2)), counts.has_ended("b"), counts.has_ended("a")), (1, true, false));
        for number in 0..2 * MAX {
            counts.see(format!("{number}"), at(50), at(60));
        }
        assert_eq!(counts.count(at(50)), MAX as u64);
        counts.see("late".to_owned(), at(60), at(70));
        assert_eq!(counts.count(at(60)), 1);
    }
}
