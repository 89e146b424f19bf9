//! Settles what ext_proc has seen the end of and what ext_authz has nobody for any more: apart from the call, which may be
//! gone, and again until the store has taken it.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use tokio::runtime::Handle;
use tokio_util::{
    sync::{CancellationToken, WaitForCancellationFuture},
    task::TaskTracker,
};
use tracing::{debug, error, warn};

use super::access::{OtherTeam, Reach};
use crate::{
    authorizer::{Authorizer, Booked, Failure},
    domain::{
        access::Scope,
        request::{Outcome, Usage},
    },
    store::{ReservationId, Store, StoreError},
};

/// The first and the longest pause between attempts to settle while the store does not answer.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// How long a reservation may still be on its way to the store after whoever made it gave up.
const ON_ITS_WAY: Duration = Duration::from_secs(1);
/// How long a settlement is tried. Then the reservation's expiry decides what it is charged.
const PATIENCE: Duration = Duration::from_secs(600);
/// How often usage that cannot be read is warned of, on each core.
const WARN_EVERY: Duration = Duration::from_secs(60);
/// Exchanges and settlements under way on one core; each holds a few hundred bytes.
const MAX_PENDING: usize = 100_000;

/// What is reported of a reservation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Report {
    pub(super) outcome: Outcome,
    pub(super) usage: Option<Usage>,
    pub(super) upstream_delay_ms: u64,
}

impl Report {
    /// The request was never sent.
    pub(super) const NOT_SENT: Self = Self { outcome: Outcome::NotSent, usage: None, upstream_delay_ms: 0 };
}

/// The exchanges and settlements of one core that are under way.
#[derive(Clone, Debug, Default)]
pub struct Settling {
    tasks: TaskTracker,
    /// Settlements are not to wait for the store any more.
    stop: CancellationToken,
    /// Exchanges are not to be followed any more.
    cut: CancellationToken,
    /// Warnings of usage that cannot be read.
    unread: Arc<Mutex<Unread>>,
}

/// One warning a minute: an upstream that answers in a new way does so in each answer. Locked for an instant, by one core.
#[derive(Debug, Default)]
struct Unread {
    warned: Option<Instant>,
    left_out: u64,
}

impl Settling {
    /// Waits until all have ended. Those whose store does not answer are tried once more and given up.
    pub async fn end(&self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// Whether to warn of usage that cannot be read, and how many warnings were left out since the last.
    pub(super) fn warn_of_usage(&self) -> Option<u64> {
        let mut unread = self.unread.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        if unread.warned.is_some_and(|warned| now.duration_since(warned) < WARN_EVERY) {
            unread.left_out = unread.left_out.saturating_add(1);
            return None;
        }
        unread.warned = Some(now);
        Some(std::mem::take(&mut unread.left_out))
    }

    /// Runs `task` to its end, whatever becomes of the call that it belongs to.
    pub(super) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn(task);
    }

    /// Settles an exchange by what was seen of it.
    pub(super) fn settle<S: Store + Clone>(
        &self,
        authorizer: Authorizer<S>,
        id: ReservationId,
        report: Report,
        reach: Reach,
    ) {
        self.spawn_bounded(id, settle(authorizer, id, report, reach, self.stop.clone()));
    }

    /// Ends the exchanges that are still under way, before the service itself ends.
    pub fn cut(&self) {
        self.cut.cancel();
    }

    /// Resolves when exchanges are to end.
    pub(super) fn cut_off(&self) -> WaitForCancellationFuture<'_> {
        self.cut.cancelled()
    }

    /// Gives back what `attempt` may have reserved under `id`, and then calls `done`.
    pub(super) fn give_back<S: Store + Clone>(
        &self,
        authorizer: Authorizer<S>,
        id: ReservationId,
        attempt: u64,
        done: impl FnOnce() + Send + 'static,
    ) {
        let stop = self.stop.clone();
        self.spawn_bounded(id, async move {
            let mut given_back = until_answered(&stop, || authorizer.give_back(id, attempt)).await;
            if given_back == Err(Failure::UnknownReservation) {
                // Mostly it was denied, or never reached the store; or it is still on its way there.
                pause(&stop, ON_ITS_WAY).await;
                given_back = until_answered(&stop, || authorizer.give_back(id, attempt)).await;
            }
            if let Err(failure) = given_back.or_else(known) {
                warn!(reservation = %id, %failure, "a reservation that nobody has is left to its expiry");
            }
            done();
        });
    }

    fn spawn_bounded(&self, id: ReservationId, task: impl Future<Output = ()> + Send + 'static) {
        if self.tasks.len() > MAX_PENDING {
            warn!(reservation = %id, "too many settlements wait; this one is left to its expiry");
        } else if let Ok(runtime) = Handle::try_current() {
            // A call may be dropped with its runtime; then there is nothing left to run a task.
            self.tasks.spawn_on(task, &runtime);
        }
    }
}

async fn settle<S: Store + Clone>(
    authorizer: Authorizer<S>,
    id: ReservationId,
    mut report: Report,
    reach: Reach,
    stop: CancellationToken,
) {
    let mut booked = book(&authorizer, id, &report, &reach.scope, &stop).await;
    if let (Err(failure @ (Failure::NotPriced(_) | Failure::UnknownTool(_))), Some(_)) =
        (&booked, &report.usage)
    {
        // It is not lost: the team's rule for what nobody reported decides.
        error!(reservation = %id, %failure, "the usage that Groq reports cannot be booked");
        report = Report { usage: None, ..report };
        booked = book(&authorizer, id, &report, &reach.scope, &stop).await;
    }
    if booked.as_ref().is_ok_and(|booked| lost_what_was_used(booked, &report)) {
        warn!(reservation = %id, "a request was sent whose reservation had been given back; booking it anew");
        booked =
            until_answered(&stop, || authorizer.settle_given_back(id, report.usage.clone(), report.outcome))
                .await;
    }
    match booked {
        Ok(booked) => debug!(reservation = %id, cost_nanos = booked.cost.nanos(), "exchange settled"),
        Err(failure) => {
            // Its proxy said that it is of another team than it is.
            if failure == Failure::OtherTeam {
                reach.refuse(&OtherTeam::Unnamed);
            }
            error!(reservation = %id, %failure, "an exchange is not settled; its reservation's expiry decides");
        }
    }
}

async fn book<S: Store + Clone>(
    authorizer: &Authorizer<S>,
    id: ReservationId,
    report: &Report,
    scope: &Scope,
    stop: &CancellationToken,
) -> Result<Booked, Failure> {
    let Report { outcome, usage, upstream_delay_ms } = report;
    until_answered(stop, || authorizer.settle(id, usage.clone(), *outcome, *upstream_delay_ms, scope)).await
}

/// Does it, and again for as long as the store does not answer.
async fn until_answered<T, F: Future<Output = Result<T, Failure>>>(
    stop: &CancellationToken,
    mut attempt: impl FnMut() -> F,
) -> Result<T, Failure> {
    let mut next = FIRST_PAUSE;
    let mut waited = Duration::ZERO;
    loop {
        let last = stop.is_cancelled() || waited >= PATIENCE;
        match attempt().await {
            Err(Failure::Store(StoreError::Unavailable)) if !last => {
                pause(stop, next).await;
                waited += next;
                next = (next * 2).min(LONGEST_PAUSE);
            }
            answered => return answered,
        }
    }
}

/// Waits, unless the service stops.
async fn pause(stop: &CancellationToken, length: Duration) {
    tokio::select! {
        () = tokio::time::sleep(length) => {}
        () = stop.cancelled() => {}
    }
}

/// That there is no reservation is as good as that it was given back.
fn known(failure: Failure) -> Result<(), Failure> {
    if failure == Failure::UnknownReservation { Ok(()) } else { Err(failure) }
}

/// Whether the reservation had been given back, as if the request had not been sent, although it was.
fn lost_what_was_used(booked: &Booked, report: &Report) -> bool {
    booked.already_recorded
        && booked.cost.nanos() == 0
        && report.usage.as_ref().is_some_and(|usage| *usage != Usage::default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usage_that_cannot_be_read_is_warned_of_once_in_a_while() {
        let settling = Settling::default();
        assert_eq!(settling.warn_of_usage(), Some(0));
        assert_eq!([settling.warn_of_usage(), settling.clone().warn_of_usage()], [None, None]);
        let mut unread = settling.unread.lock().unwrap();
        unread.warned = unread.warned.and_then(|warned| warned.checked_sub(WARN_EVERY));
        drop(unread);
        assert_eq!(settling.warn_of_usage(), Some(2));
    }
}
