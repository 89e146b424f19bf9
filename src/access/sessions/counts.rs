//! Which sessions this replica has seen lately, and which it has seen end.
//!
//! A session is kept by its browser, so one that has ended is remembered here until its cookie would be refused anyway. Past
//! [`MAX`] of them, the half with the oldest sessions is replaced by one instant: every session that began by then is over. So what has
//! ended never comes back, memory is bounded, and what it costs is that people with a session as old sign in once more.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use tracing::warn;

use crate::domain::Timestamp;

/// The most sessions that are counted, and the most ended ones that are remembered: far more than an organization has operators.
const MAX: usize = 10_000;

/// Sessions are kept by browsers, so this is what requests have shown.
#[derive(Debug, Default)]
pub struct SessionCounts(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    /// By id, when to forget it.
    seen: HashMap<String, Timestamp>,
    /// By id.
    ended: HashMap<String, Ended>,
    /// Sessions that began by then are over.
    over: Option<Timestamp>,
}

/// A session that has ended.
#[derive(Clone, Copy, Debug)]
struct Ended {
    began: Timestamp,
    /// When to forget it.
    until: Timestamp,
}

impl SessionCounts {
    /// Counts a session until `until`, unless there are too many.
    pub(super) fn see(&self, id: String, now: Timestamp, until: Timestamp) {
        let seen = &mut self.lock().seen;
        if seen.len() >= MAX && !seen.contains_key(&id) {
            seen.retain(|_, until| now < *until);
            if seen.len() >= MAX {
                return;
            }
        }
        seen.insert(id, until);
    }

    /// Remembers that a session, which began at `began`, has ended, until its cookie would be refused anyway.
    pub(super) fn end(&self, id: String, began: Timestamp, now: Timestamp, until: Timestamp) {
        let mut known = self.lock();
        known.seen.remove(&id);
        if known.ended.len() >= MAX && !known.ended.contains_key(&id) {
            known.ended.retain(|_, ended| now < ended.until);
        }
        if known.ended.len() >= MAX && !known.ended.contains_key(&id) {
            known.draw_line();
        }
        known.ended.insert(id, Ended { began, until });
    }

    /// Whether a session, which began at `began`, has ended here.
    pub(super) fn has_ended(&self, id: &str, began: Timestamp) -> bool {
        let known = self.lock();
        known.over.is_some_and(|over| began <= over) || known.ended.contains_key(id)
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

impl Known {
    /// Ends all sessions that are as old as the older half of those that have ended, which then need not be remembered one by one.
    fn draw_line(&mut self) {
        let mut began: Vec<_> = self.ended.values().map(|ended| ended.began).collect();
        let middle = began.len() / 2;
        if middle >= began.len() {
            return;
        }
        let (_, line, _) = began.select_nth_unstable(middle);
        let line = *line;
        self.over = self.over.max(Some(line));
        self.ended.retain(|_, ended| ended.began > line);
        warn!(
            "very many sessions were ended: all that are as old as the older half of them are over as well"
        );
    }
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
        counts.end("b".to_owned(), at(1), at(2), at(100));
        assert_eq!(
            (counts.count(at(2)), counts.has_ended("b", at(1)), counts.has_ended("a", at(0))),
            (1, true, false)
        );
        for number in 0..2 * MAX {
            counts.see(format!("{number}"), at(50), at(60));
        }
        assert_eq!(counts.count(at(50)), MAX as u64);
        counts.see("late".to_owned(), at(60), at(70));
        assert_eq!(counts.count(at(60)), 1);
    }
    #[test]
    fn no_session_that_ended_comes_back_however_many_end() {
        let counts = SessionCounts::default();
        let at = |ms: usize| Timestamp(ms as u64);
        let name = |number: usize| format!("{number}");
        let ended = 3 * MAX;
        for number in 0..ended {
            counts.end(name(number), at(number), at(ended), at(10 * MAX));
            assert!(counts.lock().ended.len() <= MAX);
        }
        assert!((0..ended).all(|number| counts.has_ended(&name(number), at(number))));
        // What began after the line, and was not ended, is good; what began before it is over.
        let over = counts.lock().over.expect("a line");
        assert!(!counts.has_ended("other", Timestamp(over.0 + 1)) && counts.has_ended("other", over));
        assert!(over < at(ended - MAX / 4), "{over:?}");
        // What is past its time makes room first, and draws no line.
        let counts = SessionCounts::default();
        for number in 0..MAX {
            counts.end(name(number), at(0), at(0), at(10));
        }
        counts.end("late".to_owned(), at(10), at(10), at(20));
        assert!(counts.lock().over.is_none() && counts.has_ended("late", at(10)));
        assert_eq!(counts.lock().ended.len(), 1);
    }
}
