//! Counters and gates that refused a request lately.
//!
//! A batch with a request that is refused is decided one by one, at the cost of each. Requests for what is known to refuse are
//! therefore sent by themselves, and the others still go together. The server decides them all the same: a settlement may have
//! freed what was full.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use crate::{
    domain::counter::CounterKey,
    store::{Reserve, Reserved},
};

/// How long a refusal counts at most: about a slot of a limit by the minute. Most counters are freed by settlements sooner than
/// time frees them.
const LONGEST: Duration = Duration::from_secs(1);
/// The most that are remembered.
const MOST: usize = 1024;

/// What refuses, until when. The lock is held for a few look-ups.
#[derive(Debug)]
pub(super) struct Refusing(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    until: HashMap<CounterKey, Instant>,
    /// The last instant of them all.
    latest: Option<Instant>,
}

impl Refusing {
    pub(super) fn new() -> Self {
        Self(Mutex::new(Known::default()))
    }

    /// Whether `reserve` needs something that refuses.
    pub(super) fn concerns(&self, reserve: &Reserve) -> bool {
        let mut known = self.lock();
        let Some(latest) = known.latest else { return false };
        let now = Instant::now();
        if latest <= now {
            *known = Known::default();
            return false;
        }
        let refuses = |key: &CounterKey| known.until.get(key).is_some_and(|until| now < *until);
        reserve.holds.counters().any(refuses) || reserve.gates.iter().any(refuses)
    }

    /// Takes note of what refused `reserve`, if anything did.
    pub(super) fn note(&self, reserve: &Reserve, reserved: &Reserved) {
        let Reserved::Refused { now, refusals, closed, .. } = reserved else { return };
        let limits = refusals.iter().filter_map(|refusal| {
            let frees_in = refusal.frees_at.map_or(LONGEST, |at| Duration::from_millis(at.since(*now)));
            Some((reserve.holds.get(refusal.hold)?.counter, frees_in))
        });
        let gates = closed.iter().filter_map(|(gate, opens_at)| {
            Some((reserve.gates.get(*gate)?, Duration::from_millis(opens_at.since(*now))))
        });
        let present = Instant::now();
        let mut known = self.lock();
        for (key, frees_in) in limits.chain(gates) {
            let until = present + frees_in.min(LONGEST);
            let is_known = known.until.contains_key(key);
            if !is_known && known.until.len() >= MOST {
                known.until.retain(|_, until| present < *until);
            }
            if is_known || known.until.len() < MOST {
                known.until.insert(key.clone(), until);
                known.latest = known.latest.max(Some(until));
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        // Nothing panics while it is held.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
