//! Settles what ext_proc has seen the end of and what ext_authz has nobody for any more: apart from the call, which may be
//! gone, and again until the store has taken it.

use std::time::Duration;

use tokio::runtime::Handle;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{debug, error, info, warn};

use super::admission::Admission;
use crate::{
    authorizer::{Authorizer, Booked, Failure},
    domain::access::Scope,
    domain::request::{Caller, Outcome, Unreserved, Usage},
    store::{ReservationId, Store, StoreError},
};

/// The first and the longest pause between attempts to settle while the store does not answer.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// How long a settlement is tried. Then the reservation's expiry decides what it is charged.
const PATIENCE: Duration = Duration::from_secs(600);
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
    stop: CancellationToken,
}

impl Settling {
    /// Waits until all have ended. Those whose store does not answer are tried once more and given up.
    pub async fn end(&self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// Runs `task` to its end, whatever becomes of the call that it belongs to.
    pub(super) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn(task);
    }

    /// Settles an exchange by what was seen of it.
    pub(super) fn settle<S: Store + Clone>(
        &self,
        authorizer: Authorizer<S>,
        admission: Admission,
        report: Report,
        scope: Scope,
    ) {
        let id = admission.reservation;
        self.spawn_bounded(id, settle(authorizer, admission, report, scope, self.stop.clone()));
    }

    /// Gives back a reservation, if there is one, that nobody was told of.
    pub(super) fn release<S: Store + Clone>(&self, authorizer: Authorizer<S>, id: ReservationId) {
        let stop = self.stop.clone();
        self.spawn_bounded(id, async move {
            // It was reserved in this process a moment ago, for a caller who may.
            match book(&authorizer, id, &Report::NOT_SENT, &Scope::All, &stop).await {
                // Mostly it was denied, or never reached the store.
                Ok(_) | Err(Failure::UnknownReservation) => {}
                Err(failure) => {
                    warn!(reservation = %id, %failure, "a reservation that nobody has is left to its expiry")
                }
            }
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
    admission: Admission,
    mut report: Report,
    scope: Scope,
    stop: CancellationToken,
) {
    let id = admission.reservation;
    let mut booked = book(&authorizer, id, &report, &scope, &stop).await;
    if let (Err(failure @ (Failure::NotPriced(_) | Failure::UnknownTool(_))), Some(_)) =
        (&booked, &report.usage)
    {
        // It is not lost: the team's rule for what nobody reported decides.
        error!(reservation = %id, %failure, "the usage that Groq reports cannot be booked");
        report = Report { outcome: Outcome::Aborted, usage: None, ..report };
        booked = book(&authorizer, id, &report, &scope, &stop).await;
    }
    match booked {
        Ok(booked) if lost_what_was_used(&booked, &report) => book_anew(&authorizer, admission, report).await,
        Ok(booked) => debug!(reservation = %id, cost_nanos = booked.cost.nanos(), "exchange settled"),
        Err(failure) => {
            error!(reservation = %id, %failure, "an exchange is not settled; its reservation's expiry decides");
        }
    }
}

/// Settles, and tries again for as long as the store does not answer.
async fn book<S: Store + Clone>(
    authorizer: &Authorizer<S>,
    id: ReservationId,
    report: &Report,
    scope: &Scope,
    stop: &CancellationToken,
) -> Result<Booked, Failure> {
    let mut pause = FIRST_PAUSE;
    let mut waited = Duration::ZERO;
    loop {
        let last = stop.is_cancelled() || waited >= PATIENCE;
        let usage = report.usage.clone();
        let booked = authorizer.settle(id, usage, report.outcome, report.upstream_delay_ms, scope).await;
        match booked {
            Err(Failure::Store(StoreError::Unavailable)) if !last => {
                tokio::select! {
                    () = tokio::time::sleep(pause) => {}
                    () = stop.cancelled() => {}
                }
                waited += pause;
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
            booked => return booked,
        }
    }
}

/// Whether the reservation had been given back, as if the request had not been sent, although it was.
fn lost_what_was_used(booked: &Booked, report: &Report) -> bool {
    booked.already_recorded
        && booked.cost.nanos() == 0
        && report.usage.as_ref().is_some_and(|usage| *usage != Usage::default())
}

/// Books what was used without its reservation, once: its id makes the report one of a kind.
async fn book_anew<S: Store + Clone>(authorizer: &Authorizer<S>, admission: Admission, report: Report) {
    let id = admission.reservation;
    let subject = Unreserved {
        caller: Caller::Team(admission.team),
        user: String::new(),
        request_id: format!("envoy/late/{id}"),
        model: admission.model,
        operation: admission.operation,
        service_tier: admission.service_tier,
    };
    match authorizer.settle_unreserved(&subject, report.usage, report.outcome, 0).await {
        Ok(booked) if booked.already_recorded => {}
        Ok(_) => {
            info!(reservation = %id, "usage was booked apart from its reservation, which had been given back")
        }
        Err(failure) => error!(reservation = %id, %failure, "usage could not be booked"),
    }
}
