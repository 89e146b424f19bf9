//! The decision as it is answered: granted, or every limit that refused.

use std::{sync::Arc, time::Duration};

use super::{
    Failure,
    queue::{Blocked, Until},
    ticket::Ticket,
};
use crate::{
    domain::{
        Moment, Timestamp,
        counter::CounterKey,
        decision::{Allowed, Retry, Violation, Violations},
        explain,
        limit::Quantity,
        limit_status::LimitStatuses,
        plan::Plan,
        request::AuthorizeRequest,
        snapshot::Snapshot,
    },
    store::{Record, Refusal, ReservationId},
};

/// The decision on one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decided {
    /// Allowed, or every limit that refused.
    pub outcome: Result<Allowed, Vec<Violation>>,
    /// The limits that apply, as they stand after the decision.
    pub limits: LimitStatuses,
    /// The Groq project whose key the request goes out with; empty if the request was denied before that was looked at.
    pub project: Arc<str>,
    /// Whether the policy declares Groq projects, and so their keys, at all.
    pub declares_projects: bool,
    /// What was in force when it was decided.
    pub policy_revision: Arc<str>,
    /// What is in shadow and would have refused. None for an answer that was given before.
    pub shadow_violations: Vec<Violation>,
    /// What the caller should know about how it was decided, beside the warnings of the grant.
    pub warnings: Vec<String>,
    /// Whether it was made without the store.
    pub degraded: bool,
    /// Whether it is the answer to an earlier request of the same id, told again.
    pub(super) is_repeat: bool,
    /// How long a request that may wait took.
    pub(super) waited: Option<Duration>,
    /// What the request would have to wait for, if counters refused it.
    pub(super) blocked: Option<Blocked>,
    /// The number of the model in what is counted, if it is known.
    pub(super) model: Option<usize>,
}

pub(super) fn granted(
    snapshot: &Snapshot,
    request: &AuthorizeRequest,
    plan: &Plan<'_>,
    id: ReservationId,
    now: Moment,
    used: &[u64],
) -> Decided {
    let mut warnings = plan.warnings.clone();
    warnings.extend(explain::overruns(plan, used));
    Decided {
        outcome: Ok(Allowed {
            reservation: (!request.dry_run).then(|| (id.to_string(), now.wall.plus(plan.ttl_ms()))),
            max_output_tokens: plan.max_output_tokens,
            reserved_cost: plan.cost,
            warnings,
        }),
        limits: explain::statuses(plan, now, used, !request.dry_run),
        project: Arc::clone(plan.project),
        declares_projects: snapshot.policy.projects.is_declared(),
        policy_revision: Arc::clone(&snapshot.revision),
        shadow_violations: plan.shadow_violations(used),
        warnings: Vec::new(),
        degraded: false,
        is_repeat: false,
        waited: None,
        blocked: None,
        model: None,
    }
}

/// The answer that the reservation of `record` had, with the limits as they stand now.
///
/// # Errors
/// Its ticket cannot be read.
pub(super) fn repeated(
    snapshot: &Snapshot,
    plan: &Plan<'_>,
    (id, record): (ReservationId, &Record),
    now: Moment,
    used: &[u64],
) -> Result<Decided, Failure> {
    let ticket = Ticket::of(record)?.into_terms();
    Ok(Decided {
        outcome: Ok(Allowed {
            reservation: Some((id.to_string(), record.expires_at)),
            max_output_tokens: ticket.max_output_tokens,
            reserved_cost: ticket.cost,
            warnings: ticket.warnings,
        }),
        limits: explain::statuses(plan, now, used, false),
        project: ticket.project,
        declares_projects: snapshot.policy.projects.is_declared(),
        policy_revision: ticket.policy_revision,
        // They were reported with the first answer.
        shadow_violations: Vec::new(),
        warnings: Vec::new(),
        degraded: false,
        is_repeat: true,
        waited: None,
        blocked: None,
        model: None,
    })
}

pub(super) fn refused(
    snapshot: &Snapshot,
    request: &AuthorizeRequest,
    plan: &Plan<'_>,
    now: Moment,
    used: &[u64],
    refusals: &[Refusal],
    closed: &[(usize, Timestamp)],
) -> Decided {
    let gate_keys = gates(snapshot, plan);
    let gates = closed.iter().filter_map(|(index, opens_at)| {
        let violation = explain::closed(plan.project, &request.model, now.wall, *opens_at);
        Some(((gate_keys.get(*index)?.clone(), Until::Open), violation))
    });
    let limits = refusals.iter().filter_map(|refusal| {
        let (line, hold) = (plan.lines.get(refusal.hold)?, plan.holds.get(refusal.hold)?);
        let used = used.get(refusal.hold).copied()?;
        let wanted = plan.least_amount(refusal.hold);
        let sized =
            matches!(line.limit.quantity, Quantity::Tokens | Quantity::AudioMilliseconds | Quantity::NanoUsd);
        let until = Until::Room { kind: hold.kind, limit: hold.limit, amount: wanted, sized };
        let violation = explain::violation(line, now.wall, used, wanted, refusal.frees_at);
        Some(((hold.counter.clone(), until), violation))
    });
    let (keys, violations): (Vec<_>, Vec<_>) = gates.chain(limits).unzip();
    let longest = keys.into_iter().zip(&violations).max_by_key(|(_, violation)| match violation.retry {
        Retry::After(ms) => ms,
        Retry::Never => u64::MAX,
    });
    let blocked = longest.map(|((by, until), _)| Blocked {
        by,
        until,
        holds: plan.holds.clone(),
        gates: gate_keys.clone(),
    });
    let violations = Violations { refusing: violations, shadow: plan.shadow_violations(used) };
    let limits = explain::statuses(plan, now, used, false);
    Decided { blocked, project: Arc::clone(plan.project), ..denied(snapshot, violations, limits) }
}

/// An earlier request that waits: for the limit of a hold, or for a cooldown.
#[derive(Clone, Copy)]
pub(super) struct Ahead {
    pub(super) hold: Option<usize>,
    /// When it expects room.
    pub(super) frees_in: Duration,
}

/// The refusal of a request that may have room, but not ahead of those that already wait for it.
pub(super) fn behind(
    snapshot: &Snapshot,
    request: &AuthorizeRequest,
    plan: &Plan<'_>,
    now: Moment,
    used: &[u64],
    ahead: Ahead,
) -> Decided {
    // Never zero: then it would not have been behind another.
    let frees_at = now.wall.plus(u64::try_from(ahead.frees_in.as_millis()).unwrap_or(u64::MAX).max(1));
    let (refusals, closed) = match ahead.hold {
        Some(hold) => (vec![Refusal { hold, frees_at: Some(frees_at) }], Vec::new()),
        None => (Vec::new(), vec![(0, frees_at)]),
    };
    let mut decided = refused(snapshot, request, plan, now, used, &refusals, &closed);
    if let Err(violations) = &mut decided.outcome {
        violations.iter_mut().for_each(explain::behind);
    }
    if let Some(blocked) = &mut decided.blocked {
        blocked.until = Until::Served;
    }
    decided
}

/// The cooldown that a request meets. A batch meets none, as it does not touch Groq's rate limits.
pub(super) fn gates(snapshot: &Snapshot, plan: &Plan<'_>) -> Vec<CounterKey> {
    match plan.work.batch() {
        Some(_) => Vec::new(),
        None => vec![snapshot.policy.gates.of(plan.project, &plan.model.name, plan.service_tier)],
    }
}

pub(super) fn denied(snapshot: &Snapshot, violations: Violations, limits: LimitStatuses) -> Decided {
    let policy_revision = Arc::clone(&snapshot.revision);
    Decided {
        outcome: Err(violations.refusing),
        limits,
        project: Arc::default(),
        declares_projects: snapshot.policy.projects.is_declared(),
        policy_revision,
        shadow_violations: violations.shadow,
        warnings: Vec::new(),
        degraded: false,
        is_repeat: false,
        waited: None,
        blocked: None,
        model: None,
    }
}
