//! The limits of a request as they stand after the decision on it.

use std::sync::Arc;

use super::{limit::Limit, plan::Line};

/// The limits that apply to a request and have a bound, in the order of its plan.
///
/// They refer to the plan's own lines, which requests of one kind share: what an answer says of a limit is looked up there when it is
/// written.
#[derive(Clone, Debug, Default)]
pub struct LimitStatuses {
    lines: Arc<[Line]>,
    states: Vec<State>,
}

/// What is known of the limit of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct State {
    line: u32,
    used: u64,
    reset_ms: u64,
}

/// One limit after a decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LimitStatus<'a> {
    /// The limit.
    pub limit: &'a Limit,
    /// Its bound, in its quantity's unit.
    pub bound: u64,
    /// What is used, in the same.
    pub used: u64,
    /// The longest time until none of it counts any more, in milliseconds.
    pub reset_ms: u64,
}

impl LimitStatus<'_> {
    /// What is left, in its quantity's unit.
    #[must_use]
    pub const fn remaining(&self) -> u64 {
        self.bound.saturating_sub(self.used)
    }
}

impl LimitStatuses {
    /// Those of `lines` for which `state` knows what is used and in how many milliseconds none of it counts any more.
    pub(super) fn new(lines: &Arc<[Line]>, state: impl Fn(usize, &Line) -> Option<(u64, u64)>) -> Self {
        let states = lines.iter().enumerate().filter_map(|(at, line)| {
            let (used, reset_ms) = state(at, line)?;
            Some(State { line: u32::try_from(at).ok()?, used, reset_ms })
        });
        Self { states: states.collect(), lines: Arc::clone(lines) }
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = LimitStatus<'_>> + Clone {
        self.states.iter().filter_map(|State { line, used, reset_ms }| {
            let limit = &*self.lines.get(*line as usize)?.limit;
            Some(LimitStatus { limit, bound: limit.bound?, used: *used, reset_ms: *reset_ms })
        })
    }

    /// Of each quantity the limit with the least left: the one that refuses first. Of two with the same left, the one that resets
    /// later. In the order of all.
    pub fn tightest(&self) -> impl Iterator<Item = LimitStatus<'_>> {
        let rank = |of: &LimitStatus<'_>| (of.remaining(), u64::MAX - of.reset_ms);
        let mut least: Vec<(usize, LimitStatus<'_>)> = Vec::new();
        for (at, status) in self.iter().enumerate() {
            match least.iter_mut().find(|(_, known)| known.limit.quantity == status.limit.quantity) {
                None => least.push((at, status)),
                Some(best) if rank(&status) < rank(&best.1) => *best = (at, status),
                Some(_) => {}
            }
        }
        least.sort_unstable_by_key(|(at, _)| *at);
        least.into_iter().map(|(_, status)| status)
    }

    /// As they stand `ms` later, if nothing else was used.
    pub fn pass(&mut self, ms: u64) {
        self.states.iter_mut().for_each(|state| state.reset_ms = state.reset_ms.saturating_sub(ms));
    }
}

impl PartialEq for LimitStatuses {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl Eq for LimitStatuses {}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::domain::limit::{Quantity, Span, Subject, Window};

    /// Limits of one team: what each counts, its bound, what is used, and when it resets.
    pub(crate) fn statuses(of: &[(Quantity, u64, u64, u64)]) -> LimitStatuses {
        let line = |(quantity, bound, ..): &(Quantity, u64, u64, u64)| {
            let limit = Subject::team("a").limit("a".into(), *quantity, Window::Sliding(Span::Minute));
            Line { limit: Arc::new(Limit { bound: Some(*bound), ..limit }), enforced: true, period_end: None }
        };
        LimitStatuses::new(&of.iter().map(line).collect(), |at, _| Some((of[at].2, of[at].3)))
    }

    #[test]
    fn the_tightest_of_each_quantity_has_the_least_left_and_resets_last() {
        let all = statuses(&[
            (Quantity::Requests, 10, 2, 5),
            (Quantity::Tokens, 90, 90, 7),
            (Quantity::Requests, 8, 5, 6),
            (Quantity::Requests, 3, 0, 9),
            (Quantity::Tokens, 1, 5, 7),
        ]);
        let told: Vec<_> = all.tightest().map(|status| (status.limit.quantity, status.reset_ms)).collect();
        assert_eq!(told, [(Quantity::Tokens, 7), (Quantity::Requests, 9)]);
        assert_eq!(all.tightest().next().map(|status| status.bound), Some(90), "the first of two alike");
    }

    #[test]
    fn later_they_reset_sooner() {
        let mut all = statuses(&[(Quantity::Requests, 10, 2, 5), (Quantity::Tokens, 9, 1, 50)]);
        all.pass(20);
        assert!(all.iter().map(|status| status.reset_ms).eq([0, 30]));
    }
}
