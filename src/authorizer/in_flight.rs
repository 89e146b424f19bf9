//! Which checks are in flight in this process, and what they may have reserved.
//!
//! A caller may ask for one request more than once, at the same time or again after it gave up; all checks of one
//! `request_id` share one reservation. It is released when the last check has ended and no caller got the reservation. A
//! caller that asks again before the release is done takes the reservation over.

use std::{
    collections::HashMap,
    hash::{BuildHasher as _, Hasher as _, RandomState},
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Instant,
};

use tokio::sync::Notify;

use super::{Authorizer, Failure, ticket};
use crate::{
    domain::request::AuthorizeRequest,
    store::{Record, ReservationId, Store},
};

/// The checks in flight of requests that name themselves, shared by all cores. The lock is held for a look-up, never across a
/// wait. `acted` wakes checks that wait for a release to come back from the store.
#[derive(Debug)]
pub(super) struct InFlightChecks {
    groups: Mutex<HashMap<ReservationId, Group>>,
    numbers: AtomicU64,
    acted: Notify,
}

/// The checks of one reservation.
#[derive(Debug)]
struct Group {
    /// Marks what any of these checks reserves.
    attempt: u64,
    in_flight: u32,
    /// A caller got the reservation.
    told: bool,
    /// A check ended without saying what it may have reserved.
    unsure: bool,
    /// More than one question had no answer, and each may still be acted on.
    asked_more: bool,
    release: Release,
}

/// The state of the release of a group's reservation. Each release has a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Release {
    None,
    /// It can be called off.
    Waiting(u64),
    /// The store is being asked.
    Acting(u64),
}

/// How a check ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// Its caller got the reservation.
    Told,
    /// It reserved nothing.
    Nothing,
    /// Its caller got no answer, and it may have reserved something.
    Unsure,
}

impl Default for InFlightChecks {
    fn default() -> Self {
        // Attempts of other processes begin elsewhere.
        let start = RandomState::new().build_hasher().finish();
        Self { groups: Mutex::default(), numbers: AtomicU64::new(start), acted: Notify::new() }
    }
}

impl InFlightChecks {
    fn lock(&self) -> MutexGuard<'_, HashMap<ReservationId, Group>> {
        // Nothing panics while it is held; only numbers could be left behind.
        self.groups.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn number(&self) -> u64 {
        // 0 means none.
        self.numbers.fetch_add(1, Ordering::Relaxed).max(1)
    }

    /// Begins a check and returns its attempt, as soon as no release of the reservation is with the store.
    async fn begin(&self, id: ReservationId) -> u64 {
        loop {
            // Created before the look, so that a release that ends in between is not missed.
            let acted = self.acted.notified();
            match self.try_begin(id) {
                Some(attempt) => return attempt,
                None => acted.await,
            }
        }
    }

    fn try_begin(&self, id: ReservationId) -> Option<u64> {
        let mut groups = self.lock();
        let group = groups.entry(id).or_insert_with(|| Group {
            attempt: self.number(),
            in_flight: 0,
            told: false,
            unsure: false,
            asked_more: false,
            release: Release::None,
        });
        if let Release::Acting(_) = group.release {
            return None;
        }
        group.release = Release::None;
        group.in_flight += 1;
        Some(group.attempt)
    }

    /// Ends a check. Returns the number of the release, if what the group may have reserved has to be released now.
    fn end(&self, id: ReservationId, end: End) -> Option<u64> {
        let mut groups = self.lock();
        let group = groups.get_mut(&id)?;
        group.in_flight = group.in_flight.saturating_sub(1);
        group.told |= end == End::Told;
        group.asked_more |= group.unsure && end == End::Unsure;
        group.unsure |= end == End::Unsure;
        if group.in_flight > 0 {
            return None;
        }
        if group.unsure && !group.told {
            let number = self.number();
            group.release = Release::Waiting(number);
            return Some(number);
        }
        groups.remove(&id);
        None
    }

    /// One of its checks has asked more than once without an answer.
    fn asks_more(&self, id: ReservationId) {
        if let Some(group) = self.lock().get_mut(&id) {
            group.asked_more = true;
        }
    }

    /// Whether more than one question of its checks had no answer.
    fn asked_more(&self, id: ReservationId) -> bool {
        self.lock().get(&id).is_some_and(|group| group.asked_more)
    }

    /// A release is about to ask the store. Refused if a caller has taken the reservation over.
    pub(super) fn acts(&self, id: ReservationId, number: u64) -> bool {
        self.step(id, Release::Waiting(number), Release::Acting(number))
    }

    /// The store has answered a release, or failed to answer in time.
    pub(super) fn acted(&self, id: ReservationId, number: u64) {
        self.step(id, Release::Acting(number), Release::Waiting(number));
        self.acted.notify_waiters();
    }

    fn step(&self, id: ReservationId, from: Release, to: Release) -> bool {
        let mut groups = self.lock();
        let group = groups.get_mut(&id).filter(|group| group.release == from);
        group.map(|group| group.release = to).is_some()
    }

    /// A release is over.
    pub(super) fn released(&self, id: ReservationId, number: u64) {
        let mut groups = self.lock();
        if groups.get(&id).is_some_and(|group| group.release == Release::Waiting(number)) {
            groups.remove(&id);
        }
    }
}

/// A check whose caller has not got its answer yet. If it is dropped before [`PendingCheck::delivered`], because the caller
/// left or the store did not answer in time, it releases what it may have reserved.
#[derive(Debug)]
pub struct PendingCheck<S: Store + Clone> {
    authorizer: Authorizer<S>,
    /// The reservation to make.
    pub(super) id: ReservationId,
    /// Whether the id comes from a `request_id`, so that other checks may share it.
    is_shared: bool,
    /// Marks the reservation as made by this check; 0: no other check can make one under this id.
    pub(super) attempt: u64,
    /// When the caller gives up.
    pub(super) until: Option<Instant>,
    /// The last question to the store may have reserved. Only the check itself writes it; atomic because the check is shared
    /// with the answer.
    asked: AtomicBool,
    /// An earlier question had no answer.
    unsure: AtomicBool,
    /// More than one had none.
    asked_more: AtomicBool,
    delivered: AtomicBool,
}

impl<S: Store + Clone> PendingCheck<S> {
    /// A check under an id that no other check has.
    pub(super) fn alone(authorizer: &Authorizer<S>, until: Option<Instant>) -> Result<Self, Failure> {
        Ok(Self::new(authorizer, authorizer.ids.next()?, None, until))
    }

    /// A check for the reservation `id` of a `request_id`.
    pub(super) async fn shared(
        authorizer: &Authorizer<S>,
        id: ReservationId,
        until: Option<Instant>,
    ) -> Self {
        let attempt = authorizer.shared.in_flight.begin(id).await;
        Self::new(authorizer, id, Some(attempt), until)
    }

    fn new(
        authorizer: &Authorizer<S>,
        id: ReservationId,
        attempt: Option<u64>,
        until: Option<Instant>,
    ) -> Self {
        Self {
            authorizer: authorizer.clone(),
            id,
            is_shared: attempt.is_some(),
            attempt: attempt.unwrap_or(0),
            until,
            asked: AtomicBool::new(false),
            unsure: AtomicBool::new(false),
            asked_more: AtomicBool::new(false),
            delivered: AtomicBool::new(false),
        }
    }

    /// Whether something may already be reserved under the id when the store is asked; or by the time that it acts: a request that waits asks
    /// again where it had no answer, and what it asked first may arrive last.
    pub(super) fn may_repeat(&self, request: &AuthorizeRequest) -> bool {
        let asks_again = request.max_wait_ms > 0 || self.unsure.load(Ordering::Relaxed);
        !request.dry_run && (self.is_shared || asks_again)
    }

    /// Whether the reservation is open and was made by this check or one that shares it.
    pub(super) fn made(&self, record: &Record) -> bool {
        record.settlement.is_none() && (!self.is_shared || ticket::is_of(&record.note, self.attempt))
    }

    /// The store is about to be asked to reserve.
    pub(super) fn asks(&self) {
        self.asked.store(true, Ordering::Relaxed);
    }

    /// The store reserved nothing.
    pub(super) fn took_nothing(&self) {
        self.asked.store(false, Ordering::Relaxed);
    }

    /// The store did not say whether it reserved.
    pub(super) fn had_no_answer(&self) {
        if self.unsure.swap(true, Ordering::Relaxed) {
            self.asked_more.store(true, Ordering::Relaxed);
        }
        // It is not the one that is asked now.
        self.asked.store(false, Ordering::Relaxed);
    }

    /// The caller gets the answer: settling what was reserved is now up to the caller.
    pub fn delivered(&self) {
        self.delivered.store(true, Ordering::Relaxed);
    }
}

impl<S: Store + Clone> Drop for PendingCheck<S> {
    fn drop(&mut self) {
        let end = match (*self.delivered.get_mut(), *self.asked.get_mut() || *self.unsure.get_mut()) {
            (_, false) => End::Nothing,
            (true, true) => End::Told,
            (false, true) => End::Unsure,
        };
        let asked_more = *self.asked_more.get_mut() || (*self.asked.get_mut() && *self.unsure.get_mut());
        let settler = &self.authorizer.settler;
        if self.is_shared {
            let checks = &self.authorizer.shared.in_flight;
            if asked_more {
                checks.asks_more(self.id);
            }
            if let Some(number) = checks.end(self.id, end) {
                let made = (self.id, self.attempt, checks.asked_more(self.id));
                settler.release(&self.authorizer, made, Some(number));
            }
        } else if end == End::Unsure {
            settler.release(&self.authorizer, (self.id, 0, asked_more), None);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: ReservationId = ReservationId([1; 16]);

    #[test]
    fn what_one_caller_got_is_not_released() {
        for ends in [[End::Told, End::Unsure], [End::Unsure, End::Told], [End::Told, End::Nothing]] {
            let checks = InFlightChecks::default();
            assert_eq!(checks.try_begin(ID), checks.try_begin(ID), "one reservation");
            assert_eq!(checks.end(ID, ends[0]), None, "the other may still be told");
            assert_eq!(checks.end(ID, ends[1]), None, "{ends:?}");
            assert!(checks.lock().is_empty());
        }
    }

    #[test]
    fn what_no_caller_got_is_released_once() {
        for ends in [[End::Unsure, End::Unsure], [End::Unsure, End::Nothing], [End::Nothing, End::Unsure]] {
            let checks = InFlightChecks::default();
            let first = checks.try_begin(ID).unwrap();
            checks.try_begin(ID).unwrap();
            assert_eq!(checks.end(ID, ends[0]), None, "the other may still be told");
            let number = checks.end(ID, ends[1]).unwrap();
            assert!(checks.acts(ID, number) && !checks.acts(ID, number));
            assert_eq!(checks.try_begin(ID), None, "the store is being asked to release it");
            checks.acted(ID, number);
            checks.released(ID, number);
            assert!(checks.lock().is_empty());
            assert_ne!(checks.try_begin(ID), Some(first), "another attempt");
        }
    }

    #[test]
    fn a_release_that_waits_is_called_off_by_who_asks_again() {
        let checks = InFlightChecks::default();
        let first = checks.try_begin(ID).unwrap();
        let number = checks.end(ID, End::Unsure).unwrap();
        assert_eq!(checks.try_begin(ID), Some(first), "it is the same reservation");
        assert!(!checks.acts(ID, number));
        // The request was denied, but an earlier question may have reserved.
        let again = checks.end(ID, End::Nothing).unwrap();
        assert!(!checks.acts(ID, number) && checks.acts(ID, again));
        checks.acted(ID, again);
        checks.released(ID, number);
        assert_eq!(checks.try_begin(ID), Some(first), "the other release is not over");
        assert_eq!(checks.end(ID, End::Told), None);
        assert!(checks.lock().is_empty());
    }

    #[test]
    fn what_was_denied_needs_no_release() {
        let checks = InFlightChecks::default();
        checks.try_begin(ID).unwrap();
        assert_eq!(checks.end(ID, End::Nothing), None);
        assert!(checks.lock().is_empty());
    }
}
