//! How many of a team's reservations expire without a report, by a sample of those that this process made: it is small enough to look each
//! up once it has expired, whichever process its report went to.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use crate::domain::Timestamp;

/// Between two reservations of a team that are taken, by when they expire.
const EVERY_MS: u64 = 10_000;
/// After its expiry, one is given so long for a report that is late.
const LATE_MS: u64 = 60_000;
/// Over how long the share is taken.
pub const INTERVAL_MS: u64 = 3_600_000;
/// The least number of reservations that expired without a report that is a lot.
pub const LEAST_EXPIRED: u64 = 10;
/// The share of those looked at, in percent, above which it is a lot; it no longer is below half of it.
const HIGH_PERCENT: u64 = 10;
/// The most that wait to be looked up, and the most teams that are sampled. Past that the others are passed over.
const MAX_WAITING: usize = 50_000;
const MAX_TEAMS: usize = 2_000;

/// A reservation to look up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sample {
    /// Its team.
    pub team: Arc<str>,
    /// Its id.
    pub reservation: String,
    /// From when on.
    pub due: Timestamp,
}

/// What was found of a team in the last [`INTERVAL_MS`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnsettledShare {
    /// The team.
    pub team: Arc<str>,
    /// Reservations that expired without a report.
    pub expired: u64,
    /// All that were looked up.
    pub total: u64,
    /// Whether that is a lot.
    pub is_high: bool,
}

/// The samples of a process. The lock is held for a few steps, by one decision of a team in ten seconds.
#[derive(Debug, Default)]
pub struct Samples(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    waiting: VecDeque<Sample>,
    teams: HashMap<Arc<str>, Found>,
}

#[derive(Debug, Default)]
struct Found {
    /// When each was looked up, and whether it had no report.
    looked_up: VecDeque<(Timestamp, bool)>,
    is_high: bool,
}

impl Samples {
    fn lock(&self) -> MutexGuard<'_, Known> {
        // Nothing panics while it is held.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a reservation that expires at `expires` is to be taken, after the last that was and expires at `last`.
    #[must_use]
    pub const fn is_next(last: Timestamp, expires: Timestamp) -> bool {
        expires.0.abs_diff(last.0) >= EVERY_MS
    }

    /// Takes a reservation that expires at `expires`.
    pub fn take(&self, team: &Arc<str>, reservation: &str, expires: Timestamp) {
        let mut known = self.lock();
        if known.waiting.len() < MAX_WAITING {
            let due = expires.plus(LATE_MS);
            known.waiting.push_back(Sample {
                team: Arc::clone(team),
                reservation: reservation.to_owned(),
                due,
            });
        }
    }

    /// Those that are to be looked up at `now`, at most `count`. Requests have much the same time to live, so they are about in order.
    #[must_use]
    pub fn due(&self, now: Timestamp, count: usize) -> Vec<Sample> {
        let mut known = self.lock();
        let due = known.waiting.iter().take(count).take_while(|sample| sample.due <= now).count();
        known.waiting.drain(..due).collect()
    }

    /// Gives back those that could not be looked up, in their order.
    pub fn put_back(&self, samples: Vec<Sample>) {
        let mut known = self.lock();
        samples.into_iter().rev().for_each(|sample| known.waiting.push_front(sample));
    }

    /// Notes whether one had no report.
    pub fn found(&self, team: &Arc<str>, now: Timestamp, is_unreported: bool) {
        let mut known = self.lock();
        if known.teams.len() < MAX_TEAMS || known.teams.contains_key(team) {
            known.teams.entry(Arc::clone(team)).or_default().looked_up.push_back((now, is_unreported));
        }
    }

    /// The share of each team of which something was looked up lately.
    #[must_use]
    pub fn shares(&self, now: Timestamp) -> Vec<UnsettledShare> {
        let mut known = self.lock();
        let shares = known.teams.iter_mut().map(|(team, found)| {
            while found.looked_up.front().is_some_and(|(at, _)| now.since(*at) >= INTERVAL_MS) {
                found.looked_up.pop_front();
            }
            let expired = found.looked_up.iter().filter(|(_, is_unreported)| *is_unreported).count() as u64;
            let total = found.looked_up.len() as u64;
            let bound = if found.is_high { HIGH_PERCENT / 2 } else { HIGH_PERCENT };
            let is_enough = found.is_high || expired >= LEAST_EXPIRED;
            found.is_high = is_enough && expired * 100 > total * bound;
            UnsettledShare { team: Arc::clone(team), expired, total, is_high: found.is_high }
        });
        let shares = shares.collect();
        known.teams.retain(|_, found| !found.looked_up.is_empty());
        shares
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Timestamp = Timestamp(1_000_000);

    #[test]
    fn a_reservation_is_looked_up_once_it_has_expired() {
        let (samples, team): (_, Arc<str>) = (Samples::default(), "a".into());
        assert!(Samples::is_next(Timestamp(0), START) && Samples::is_next(START, START.plus(10_000)));
        assert!(!Samples::is_next(START, START.plus(9_999)));
        samples.take(&team, "1", START);
        samples.take(&team, "2", START.plus(10_000));
        let ids = |now, count| -> Vec<_> {
            let due = samples.due(now, count);
            due.into_iter().map(|sample| sample.reservation).collect()
        };
        assert!(ids(START.plus(59_999), 9).is_empty());
        let first = samples.due(START.plus(60_000), 9);
        assert_eq!(first.len(), 1);
        samples.put_back(first);
        let both = samples.due(START.plus(70_000), 9);
        samples.put_back(both);
        assert_eq!(ids(START.plus(70_000), 1), ["1"]);
        assert_eq!(ids(START.plus(70_000), 9), ["2"]);
    }

    #[test]
    fn a_share_is_high_above_its_bound_and_until_half_of_it() {
        let (samples, team): (_, Arc<str>) = (Samples::default(), "a".into());
        let share = |now| samples.shares(now).pop().map(|share| (share.expired, share.total, share.is_high));
        let see = |now, unreported: u64, reported: u64| {
            (0..unreported).for_each(|_| samples.found(&team, now, true));
            (0..reported).for_each(|_| samples.found(&team, now, false));
            share(now).unwrap()
        };
        // Too few to tell.
        assert_eq!(see(START, 9, 0), (9, 9, false));
        assert_eq!(see(START, 1, 90), (10, 100, false));
        assert_eq!(see(START, 1, 0), (11, 101, true));
        assert_eq!(see(START, 0, 118), (11, 219, true));
        assert_eq!(see(START, 0, 1), (11, 220, false));
        let later = START.plus(INTERVAL_MS);
        assert_eq!(see(later, 1, 0), (1, 1, false));
        assert_eq!(share(later.plus(INTERVAL_MS)), Some((0, 0, false)));
        assert_eq!(share(later.plus(INTERVAL_MS)), None);
    }
}
