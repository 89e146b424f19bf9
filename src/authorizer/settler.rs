//! Does what must outlive its call, and retries until the store has taken it: settlements of exchanges whose end a proxy has
//! seen, and releases of reservations that no caller got.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::sync::Semaphore;
use tracing::{Span, warn};

use super::{Authorizer, Failure, Shared};
use crate::{
    runtime::Tasks,
    store::{ReservationId, Store, StoreError},
};

/// The first and the longest pause between attempts while the store does not answer.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// More than clocks and networks add to the time within which a store may still act on a call.
const MARGIN: Duration = Duration::from_secs(1);
/// The most that a stop waits for the moment after which the store no longer reserves what it was asked to: callers were told that
/// nothing stays reserved.
const AT_END: Duration = Duration::from_secs(5);
/// Tasks of one core; each holds a few hundred bytes. They are bounded in number, not in time: an outage may outlast any
/// patience, and a call whose caller heard that it had no effect must not stay charged.
const MAX_PENDING: usize = 100_000;
/// Releases of one core that ask the store at the same time: after an outage there may be many, and decisions come first.
const MAX_ASKING: usize = 32;

/// Settles and releases on one core what outlives its call.
#[derive(Clone, Debug)]
pub struct Settler(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    tasks: Tasks,
    /// One permit for each release that asks the store.
    asking: Semaphore,
    /// Tasks were turned away, which is logged once until there is room again.
    full: AtomicBool,
    /// Releases that were given up.
    given_up: AtomicU64,
}

impl Default for Settler {
    fn default() -> Self {
        Self(Arc::new(Inner {
            tasks: Tasks::default(),
            asking: Semaphore::new(MAX_ASKING),
            full: AtomicBool::new(false),
            given_up: AtomicU64::new(0),
        }))
    }
}

impl Settler {
    /// Its tasks.
    #[must_use]
    pub fn tasks(&self) -> &Tasks {
        &self.0.tasks
    }

    /// Waits until all have ended. Tasks whose store does not answer are tried once more and given up.
    pub async fn end(&self) {
        self.0.tasks.end().await;
        let reservations = self.0.given_up.load(Ordering::Relaxed);
        if reservations > 0 {
            warn!(
                reservations,
                "the store did not answer before the stop: reservations that no caller got are left to expire"
            );
        }
    }

    /// Runs `task` to its end, whatever happens to its call, within a bound: past it the reservation `id` is left to expire, and nothing runs.
    pub fn spawn_bounded(&self, id: ReservationId, task: impl Future<Output = ()> + Send + 'static) {
        if self.0.tasks.count() > MAX_PENDING {
            if !self.0.full.swap(true, Ordering::Relaxed) {
                warn!(reservation_id = %id, "too many settlements wait; this one and more are left to their expiry");
            }
        } else {
            self.0.full.store(false, Ordering::Relaxed);
            self.0.tasks.spawn_if_possible(task);
        }
    }

    /// Releases what `attempt` may have reserved under `id`; `number`: that of the release, if other checks may share the
    /// reservation.
    ///
    /// A store that was asked to reserve may still do so later, so finding nothing counts only after the last moment at which it can; and so
    /// does finding another attempt's reservation, which may be given back before, and a release where the store was asked more than once
    /// (`asked_more`): the id is free then for what arrives last.
    pub(super) fn release<S: Store + Clone>(
        &self,
        authorizer: &Authorizer<S>,
        (id, attempt, asked_more): (ReservationId, u64, bool),
        number: Option<u64>,
    ) {
        let (settler, authorizer) = (self.clone(), authorizer.clone());
        let over = ReleaseGuard { shared: Arc::clone(&authorizer.shared), id, number };
        // An answer that is dropped on its way out is in no span.
        let span = Span::current();
        let span = if span.is_none() { authorizer.shared.live.span().clone() } else { span };
        let _span = span.enter();
        self.spawn_bounded(id, async move {
            let release = || async {
                // Never closed.
                let _permit = settler.0.asking.acquire().await;
                let checks = &authorizer.shared.in_flight;
                if number.is_some_and(|number| !checks.acts(id, number)) {
                    // A caller has asked for it again.
                    return Ok(());
                }
                let released = authorizer.release(id, attempt).await;
                if let Some(number) = number {
                    checks.acted(id, number);
                }
                released
            };
            let (mut released, mut is_certain) = (settler.until_answered(release).await, true);
            let is_over = match &released {
                Ok(()) => !asked_more,
                Err(failure) => *failure != Failure::UnknownReservation,
            };
            if let Some(within) = authorizer.store().acts_within().filter(|_| !is_over) {
                is_certain = settler.0.tasks.sit_out(within + MARGIN, AT_END).await;
                released = settler.until_answered(release).await;
            }
            match released {
                Ok(()) => {}
                Err(Failure::UnknownReservation) if is_certain => {}
                Err(failure) => {
                    settler.0.given_up.fetch_add(1, Ordering::Relaxed);
                    warn!(reservation_id = %id, error = %failure, "a reservation that no caller got is left to its expiry");
                }
            }
            drop(over);
        });
    }

    /// Runs it, and retries for as long as the store does not answer.
    pub async fn until_answered<T, F: Future<Output = Result<T, Failure>>>(
        &self,
        mut attempt: impl FnMut() -> F,
    ) -> Result<T, Failure> {
        let mut next = FIRST_PAUSE;
        loop {
            let last = self.0.tasks.is_ending();
            match attempt().await {
                // A layout can be known again: while one of a later release is tried and taken back. And a spool has room again once the
                // store has taken some of it.
                Err(
                    Failure::SpoolFull
                    | Failure::Store(
                        StoreError::Unavailable | StoreError::Overloaded | StoreError::LayoutUnsupported(_),
                    ),
                ) if !last => {
                    self.0.tasks.pause(next).await;
                    next = (next * 2).min(LONGEST_PAUSE);
                }
                answered => return answered,
            }
        }
    }
}

/// Reports that a release is over, even if its task is turned away.
struct ReleaseGuard {
    shared: Arc<Shared>,
    id: ReservationId,
    number: Option<u64>,
}

impl Drop for ReleaseGuard {
    fn drop(&mut self) {
        if let Some(number) = self.number {
            self.shared.in_flight.released(self.id, number);
        }
    }
}
