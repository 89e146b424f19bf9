//! Settles exchanges whose end ext_proc has seen: apart from the call, which may be gone, and again until the store has taken
//! it.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use tracing::{debug, error, warn};

use crate::{
    access::{OtherTeam, Reach},
    authorizer::{Authorizer, Booked, Failure, Recorded, ReservationName, Settler},
    domain::{
        rbac::TeamScope,
        request::{Outcome, Usage},
    },
    store::Store,
};

/// How often each core warns about usage that cannot be read.
const WARN_EVERY: Duration = Duration::from_secs(60);

/// One warning a minute: an upstream that answers in a new way does so in each answer. Locked for an instant, by one core.
#[derive(Debug, Default)]
pub(super) struct UnreadUsage(Mutex<Unread>);

#[derive(Debug, Default)]
struct Unread {
    warned: Option<Instant>,
    left_out: u64,
}

impl UnreadUsage {
    /// Whether to warn about usage that cannot be read, and how many warnings were left out since the last.
    pub(super) fn to_warn_of(&self) -> Option<u64> {
        let mut unread = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        if unread.warned.is_some_and(|warned| now.duration_since(warned) < WARN_EVERY) {
            unread.left_out = unread.left_out.saturating_add(1);
            return None;
        }
        unread.warned = Some(now);
        Some(std::mem::take(&mut unread.left_out))
    }
}

/// What is reported about a reservation.
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

/// Settles an exchange by what was seen.
pub(super) fn settle<S: Store + Clone>(
    authorizer: Authorizer<S>,
    name: ReservationName,
    report: Report,
    reach: Reach,
) {
    let (settler, id) = (authorizer.settler().clone(), name.id());
    let task = settle_now(authorizer, name, report, reach, settler.clone());
    settler.spawn_bounded(id, task);
}

async fn settle_now<S: Store + Clone>(
    authorizer: Authorizer<S>,
    name: ReservationName,
    mut report: Report,
    reach: Reach,
    settler: Settler,
) {
    let id = name.id();
    let mut recorded = record(&authorizer, &name, &report, &reach.scope, &settler).await;
    if let (
        Err(failure @ (Failure::NotPriced(_) | Failure::UnknownTool(_) | Failure::ImpossibleUsage(_))),
        Some(_),
    ) = (&recorded, &report.usage)
    {
        // It is not lost: the team's rule for unreported requests decides.
        error!(reservation_id = %id, error = %failure, "the usage that Groq reports cannot be booked");
        report = Report { usage: None, ..report };
        recorded = record(&authorizer, &name, &report, &reach.scope, &settler).await;
    }
    if matches!(&recorded, Ok(Recorded::Booked(booked)) if lost_what_was_used(booked, &report)) {
        warn!(reservation_id = %id, "a request was sent whose reservation had been released; booking it again");
        let again = || authorizer.settle_released(id, report.usage.clone(), report.outcome);
        recorded = settler.until_answered(again).await.map(Recorded::Booked);
    }
    match recorded {
        Ok(Recorded::Booked(booked)) => {
            debug!(reservation_id = %id, cost_nano_usd = booked.cost.nanos(), "exchange settled");
        }
        Ok(Recorded::Spooled(_)) => debug!(reservation_id = %id, "exchange kept in the spool"),
        Err(failure) => {
            // The proxy named a team that the reservation does not belong to.
            if failure == Failure::OtherTeam {
                reach.refuse(&OtherTeam::Unnamed);
            }
            error!(reservation_id = %id, error = %failure, "an exchange is not settled; its reservation's expiry decides");
        }
    }
}

async fn record<S: Store + Clone>(
    authorizer: &Authorizer<S>,
    name: &ReservationName,
    report: &Report,
    scope: &TeamScope,
    settler: &Settler,
) -> Result<Recorded, Failure> {
    let Report { outcome, usage, upstream_delay_ms } = report;
    settler
        .until_answered(|| authorizer.record_named(name, usage.clone(), *outcome, *upstream_delay_ms, scope))
        .await
}

/// Whether the reservation was released as if the request had not been sent, although it was.
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
        let unread = UnreadUsage::default();
        assert_eq!(unread.to_warn_of(), Some(0));
        assert_eq!([unread.to_warn_of(), unread.to_warn_of()], [None, None]);
        let mut last = unread.0.lock().unwrap();
        last.warned = last.warned.and_then(|warned| warned.checked_sub(WARN_EVERY));
        drop(last);
        assert_eq!(unread.to_warn_of(), Some(2));
    }
}
