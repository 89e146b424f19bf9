//! Usage reported without a reservation: how much of it gateways may report.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use tracing::warn;

use super::{Authorizer, Failure, receipt, ticket::Ticket};
use crate::{
    domain::{
        Timestamp,
        calendar::{CalendarPeriod, Days},
        decision::{Reason, Violation},
        explain,
        money::NanoUsd,
        occasion::{Occasion, first_line},
        plan::{self, Plan},
        request::Caller,
    },
    store::{AlertId, Notice, OUTBOX_KEPT, Record, ReservationId, Reserve, Store, StoreError},
};

/// The time between two log lines on refused reports: any gateway can cause any number of them.
const LOG_EVERY_MS: u64 = 10_000;

/// Whether reports are held to the bounds of the policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bounds {
    /// They are.
    Apply,
    /// They are not: an admin reports.
    None,
}

/// Reports that were refused by this process.
#[derive(Debug, Default)]
pub struct RefusedReports {
    /// Independent numbers; they order nothing else.
    logged_at: AtomicU64,
    since: AtomicU64,
    /// The teams that an alert was recorded of, with the beginning of the day. Only refusals take the lock.
    told: Mutex<HashMap<Arc<str>, Timestamp>>,
}

impl RefusedReports {
    /// Notes a refusal, and logs it unless one was logged a moment ago.
    pub(super) fn note(&self, now: Timestamp, team: &str, failure: &Failure) {
        let count = self.since.fetch_add(1, Ordering::Relaxed) + 1;
        let logged_at = self.logged_at.load(Ordering::Relaxed);
        let is_due = now.0.abs_diff(logged_at) >= LOG_EVERY_MS;
        let swap = |at| self.logged_at.compare_exchange(at, now.0, Ordering::Relaxed, Ordering::Relaxed);
        if is_due && swap(logged_at).is_ok() {
            self.since.fetch_sub(count, Ordering::Relaxed);
            warn!(team, reports = count, error = %failure, "usage without a reservation is refused");
        }
    }
}

impl<S: Store + Clone> Authorizer<S> {
    /// Logs a refused report, and records it for an alert: one of each team in a day, over all replicas.
    pub(super) async fn refuse_report(
        &self,
        plan: &Plan<'_>,
        (now, today): (Timestamp, &Days),
        failure: Failure,
    ) -> Failure {
        let (team, refused) = (&plan.caller.team.name, &self.shared.refused_reports);
        refused.note(now, team, &failure);
        let CalendarPeriod { start, end, .. } = today.day;
        let told = || refused.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told().get(team) == Some(&start) {
            return failure;
        }
        let message = first_line(&failure.to_string());
        let occasion = Occasion::UnreservedRefused { team: Arc::clone(team), message, end };
        let id = AlertId::of(&occasion, start);
        let entry = Notice::new(now, occasion).entry(&id).into_iter().collect();
        match self.store.outbox_append(entry, OUTBOX_KEPT).await {
            // There are no more teams than the policies of this process had.
            Ok(_) => drop(told().insert(Arc::clone(team), start)),
            Err(error) => {
                warn!(team = &**team, %error, "no alert of a refused report can be recorded now");
            }
        }
        failure
    }
}

/// Room for usage that was never authorized: nothing is bounded, nothing is held.
pub(super) fn reserve(id: ReservationId, plan: &Plan<'_>, note: bytes::Bytes) -> Reserve {
    Reserve {
        id,
        may_repeat: true,
        fingerprint: 0,
        holds: plan.holds.clone(),
        gates: Vec::new(),
        valid: Timestamp(plan.valid.start.0)..plan.valid.end,
        ttl_ms: plan.ttl_ms(),
        late_ms: plan::LATE_MS,
        note,
        replaces: receipt::released(),
        dry_run: false,
    }
}

/// Whether the reservation under the `request_id` of a report belongs to the same request: if usage were booked at the price
/// of another model, or as the repeat of another report, it would be lost. A team may report what one of its keys asked for.
pub(super) fn is_about(record: &Record, plan: &Plan<'_>) -> Result<bool, Failure> {
    let ticket = Ticket::of(record)?;
    let same_key = plan.caller.key.is_none_or(|key| key.name == ticket.key);
    Ok(same_key && ticket.model == plan.model.name && ticket.operation == plan.work.operation())
}

/// The failure for a violation by a report.
pub(super) fn unbookable(violation: Violation, caller: &Caller) -> Failure {
    match (violation.reason, caller) {
        (Reason::UnknownTeam, Caller::Team(name)) => Failure::UnknownTeam(name.clone()),
        (Reason::InvalidKey, _) | (Reason::UnknownTeam, _) => Failure::UnknownKey,
        (Reason::StoreUnavailable, _) => StoreError::Unavailable.into(),
        _ => Failure::NotPriced(violation.message),
    }
}

/// The refusal of one report that costs more than one report may.
pub(super) fn too_costly(plan: &Plan<'_>, cost: NanoUsd) -> Failure {
    let bounds = &plan.caller.team.unreserved;
    Failure::UnreservedBound(format!(
        "`{}` permits ${} for one report without a reservation; this one costs ${cost}",
        bounds.max_cost_id, bounds.max_cost
    ))
}

/// Whether the hold is that of the daily bound.
pub(super) fn is_daily(plan: &Plan<'_>, hold: usize) -> bool {
    let daily = &plan.caller.team.unreserved.daily;
    plan.lines.get(hold).is_some_and(|line| line.limit.id == daily.id)
}

/// The refusal of a report with which the day's reports cost more than they may; `used` is what each hold's counter had.
pub(super) fn past_the_day(plan: &Plan<'_>, now: Timestamp, used: &[u64]) -> Failure {
    let daily = plan.lines.iter().zip(plan.holds.iter()).zip(used).next_back();
    let message =
        daily.map(|((line, hold), used)| explain::violation(line, now, *used, hold.amount(), None).message);
    Failure::UnreservedBound(message.unwrap_or_default())
}
