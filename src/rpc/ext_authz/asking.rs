//! Which checks are under way in this process. Envoy may ask for one request more than once, at once or again after it gave
//! up; all of them share one reservation. What nobody was told of is given back, but never from under a check that was
//! told of it meanwhile.

use std::{
    collections::HashMap,
    hash::{BuildHasher as _, Hasher as _, RandomState},
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use crate::{
    authorizer::Authorizer,
    rpc::settling::Settling,
    store::{ReservationId, Store},
};

/// The checks under way, shared by all cores. The lock is held for a look-up, never across a wait.
#[derive(Debug)]
pub struct Asking {
    asked: Mutex<HashMap<ReservationId, Asked>>,
    attempts: AtomicU64,
}

/// The checks of one reservation.
#[derive(Debug, Default)]
struct Asked {
    under_way: u32,
    /// One of them was told.
    told: bool,
    /// One of them was given up before any was told: the reservation is being given back, and is of no use.
    given_up: bool,
    giving_back: bool,
}

impl Default for Asking {
    fn default() -> Self {
        // Attempts of other processes begin elsewhere.
        let start = RandomState::new().build_hasher().finish();
        Self { asked: Mutex::default(), attempts: AtomicU64::new(start) }
    }
}

impl Asking {
    fn lock(&self) -> MutexGuard<'_, HashMap<ReservationId, Asked>> {
        // Nothing panics while it is held; numbers are all that could be left behind.
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins a check; `None` where its reservation is being given back.
    fn begin(&self, id: ReservationId) -> Option<u64> {
        let mut all = self.lock();
        let asked = all.entry(id).or_default();
        if asked.given_up {
            return None;
        }
        asked.under_way += 1;
        // 0 means none.
        Some(self.attempts.fetch_add(1, Ordering::Relaxed).max(1))
    }

    /// Ends a check. Whether the reservation may be used (`told`), or has to be given back (not `told`).
    fn end(&self, id: ReservationId, told: bool) -> bool {
        let mut all = self.lock();
        let Some(asked) = all.get_mut(&id) else { return told };
        asked.under_way = asked.under_way.saturating_sub(1);
        let answer = if told { !asked.given_up } else { !asked.told };
        asked.told |= told && !asked.given_up;
        if !told && !asked.told {
            (asked.given_up, asked.giving_back) = (true, true);
        }
        if asked.under_way == 0 && !asked.giving_back {
            all.remove(&id);
        }
        answer
    }

    /// The reservation was given back.
    fn given_back(&self, id: ReservationId) {
        let mut all = self.lock();
        if let Some(asked) = all.get_mut(&id) {
            asked.giving_back = false;
            if asked.under_way == 0 {
                all.remove(&id);
            }
        }
    }
}

/// A check whose answer nobody has heard yet. Dropped, because Envoy gave up or the store did not answer in time, it gives
/// back what it may have reserved.
pub(super) struct Unheard<'a, S: Store + Clone> {
    asking: &'a std::sync::Arc<Asking>,
    settling: &'a Settling,
    authorizer: &'a Authorizer<S>,
    id: ReservationId,
    /// Marks the reservation as made by this check.
    pub(super) attempt: u64,
    ended: bool,
}

impl<'a, S: Store + Clone> Unheard<'a, S> {
    /// A check for the reservation `id`; `None` where that is being given back.
    pub(super) fn begin(
        asking: &'a std::sync::Arc<Asking>,
        settling: &'a Settling,
        authorizer: &'a Authorizer<S>,
        id: ReservationId,
    ) -> Option<Self> {
        let attempt = asking.begin(id)?;
        Some(Self { asking, settling, authorizer, id, attempt, ended: false })
    }

    /// Envoy is told. Whether it may be told of the reservation: not where another check was given up meanwhile, so that it
    /// is being given back.
    pub(super) fn tell(mut self) -> bool {
        self.ended = true;
        let usable = self.asking.end(self.id, true);
        if !usable {
            self.give_back();
        }
        usable
    }

    fn give_back(&self) {
        let (asking, id) = (std::sync::Arc::clone(self.asking), self.id);
        self.settling.give_back(self.authorizer.clone(), id, self.attempt, move || asking.given_back(id));
    }
}

impl<S: Store + Clone> Drop for Unheard<'_, S> {
    fn drop(&mut self) {
        if !self.ended && self.asking.end(self.id, false) {
            self.give_back();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: ReservationId = ReservationId([1; 16]);

    #[test]
    fn what_was_told_is_not_given_back() {
        let asking = Asking::default();
        let (first, second) = (asking.begin(ID).unwrap(), asking.begin(ID).unwrap());
        assert_ne!(first, second);
        assert!(asking.end(ID, true));
        assert!(!asking.end(ID, false), "the other was told");
        assert!(asking.lock().is_empty());
    }

    #[test]
    fn what_is_given_back_is_not_told() {
        let asking = Asking::default();
        asking.begin(ID).unwrap();
        asking.begin(ID).unwrap();
        assert!(asking.end(ID, false));
        assert!(asking.begin(ID).is_none(), "it is being given back");
        assert!(!asking.end(ID, true), "it is being given back");
        asking.given_back(ID);
        assert!(asking.lock().is_empty());
        assert!(asking.begin(ID).is_some());
    }

    #[test]
    fn who_is_still_under_way_hears_of_it() {
        let asking = Asking::default();
        asking.begin(ID).unwrap();
        asking.begin(ID).unwrap();
        assert!(asking.end(ID, false));
        asking.given_back(ID);
        assert!(!asking.end(ID, true));
        assert!(asking.lock().is_empty());
    }
}
