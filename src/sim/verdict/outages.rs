//! What is decided, and kept, while the store does not answer.

use std::collections::BTreeMap;

use super::{Broken, History, Invariant, MINUTE_MS, Outage, broken};
use crate::{sim::history::Degraded, spool::Spool};

/// Only what a team's rule permits is decided without the store: for as long, and in any minute on one replica as much.
pub(in crate::sim) fn of_outages(history: &History) -> Vec<Broken> {
    let records = history.lock();
    let mut found = Vec::new();
    let mut own = BTreeMap::<_, Vec<&Degraded>>::new();
    for one in &records.degraded {
        own.entry((one.replica, one.team)).or_default().push(one);
        let (Degraded { team, at, age, .. }, rule) = (one, history.book.teams[one.team].outage);
        let most_ms = match rule {
            Outage::Deny => None,
            Outage::Allow { most_ms } | Outage::Allowance { most_ms, .. } => Some(most_ms),
        };
        if most_ms.is_none_or(|most_ms| age.is_none_or(|age| age > most_ms)) {
            let what = format!("{team} was decided at {at} without the store, last read {age:?} before");
            found.push(broken(Invariant::Outage, what));
        }
    }
    for ((replica, team), admitted) in own {
        let Outage::Allowance { requests, tokens, nanos, .. } = history.book.teams[team].outage else {
            continue;
        };
        let over = admitted.iter().find_map(|first| {
            let within = admitted.iter().filter(|one| (first.at..first.at + MINUTE_MS).contains(&one.at));
            let sums =
                within.fold((0, 0, 0), |sums, one| (sums.0 + 1, sums.1 + one.tokens, sums.2 + one.nanos));
            (sums.0 > requests || sums.1 > tokens || sums.2 > nanos).then_some(sums)
        });
        let what = over.map(|sums| format!("replica {replica} admitted {sums:?} of team {team} in a minute"));
        found.extend(what.map(|what| broken(Invariant::Outage, what)));
    }
    found
}

/// A while after the store answers again, nothing is left in a spool.
pub(in crate::sim) fn of_spool(spool: &Spool) -> Option<Broken> {
    let state = spool.state();
    let is_empty = (state.records, state.lost) == (0, None);
    let what = || format!("{} reports are left in a spool", state.records);
    (!is_empty).then(|| broken(Invariant::Lost, what()))
}
