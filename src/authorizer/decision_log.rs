//! Decisions as log lines, for operators who turn them on: without prompts, which are not known here, and without secrets.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicU64, Ordering},
};

use tracing::{Level, debug, enabled, field, info, warn};

use super::{Authorizer, Decided, Question};
use crate::{
    domain::{
        caller::ResolvedCaller,
        decision::{Allowed, Violation},
        limit::{LimitScope, Window},
        plan::Plan,
        request::AuthorizeRequest,
    },
    store::Store,
};

const MILLION: u64 = 1_000_000;

/// Which decisions are logged.
#[derive(Debug, Default)]
pub struct DecisionLog {
    /// Whether denials are logged at info; otherwise at debug only.
    denials: bool,
    /// This many of every million allowed decisions are logged.
    share: u32,
    /// Allowed decisions so far. An independent count; it orders nothing else.
    allowed: AtomicU64,
}

impl DecisionLog {
    /// Logs all denials, or only if debug is on, and this many of every million allowed decisions.
    #[must_use]
    pub const fn new(denials: bool, share: u32) -> Self {
        Self { denials, share, allowed: AtomicU64::new(0) }
    }

    /// Whether the next allowed decision is in the share, which is spread evenly. Without a share it costs nothing.
    fn takes_allowed(&self) -> bool {
        if self.share == 0 {
            return false;
        }
        let share = u64::from(self.share);
        let count = self.allowed.fetch_add(1, Ordering::Relaxed) % MILLION;
        count * share % MILLION < share
    }
}

impl<S: Store + Clone> Authorizer<S> {
    /// The answer explains a decision to its caller. The log has it only on request, as a line for each costs more than the
    /// decision.
    pub(super) fn log_decision(&self, question: Question<'_>, decided: &Decided) {
        let Question { request, caller, .. } = question;
        let caller = caller.as_ref().ok();
        match &decided.outcome {
            Ok(grant) if self.shared.decisions.takes_allowed() => {
                log_allowed(request, caller, grant, decided)
            }
            Ok(_) => {}
            Err(violations) => {
                self.log_denied(caller, Some(request), violations, &decided.policy_revision);
            }
        }
    }

    /// A denial, by what was in force at this revision; `request` is absent if the caller alone was enough to deny, `caller` if
    /// it is unknown.
    pub fn log_denied(
        &self,
        caller: Option<&ResolvedCaller<'_>>,
        request: Option<&AuthorizeRequest>,
        violations: &[Violation],
        revision: &str,
    ) {
        let is_on = self.shared.decisions.denials;
        if !is_on && !enabled!(target: "tollgate::decision", Level::DEBUG) {
            return;
        }
        macro_rules! line {
            ($level:ident, $team:ident, $key:ident, $labels:ident, $violation:ident) => {
                $level!(
                    target: "tollgate::decision",
                    decision = "denied",
                    team = $team,
                    key = $key,
                    model = request.map(|request| field::display(&request.model)),
                    operation = request.map(|request| field::display(request.operation)),
                    reason = $violation.reason.name(),
                    limit_id = %$violation.limit_id,
                    scope = $violation.scope.map(LimitScope::name),
                    quantity = $violation.quantity.name(),
                    limit = $violation.limit,
                    used = $violation.used,
                    requested = $violation.requested,
                    of = violations.len(),
                    dry_run = request.map(|request| request.dry_run),
                    labels = ?$labels,
                    policy_revision = revision,
                    "request denied"
                )
            };
        }
        let (team, key) = names(caller);
        let labels = labels(caller, request);
        for violation in violations {
            match is_on {
                true => line!(info, team, key, labels, violation),
                false => line!(debug, team, key, labels, violation),
            }
        }
    }

    /// Logs for each budget among the refusing holds that it denies, when it does so for the first time in its period: what
    /// uses it up may be reserved and never reported, which crosses no threshold. Logged once per process. A request that is
    /// larger than the whole budget says nothing about how much of it is used, so it does not take the place of the first
    /// denial that does.
    pub(super) async fn log_first_denials(
        &self,
        request: &AuthorizeRequest,
        plan: &Plan<'_>,
        used: &[u64],
        refusing: impl Iterator<Item = usize>,
    ) {
        for index in refusing.filter(|_| !request.dry_run) {
            let (Some(line), Some(hold)) = (plan.lines.get(index), plan.holds.get(index)) else { continue };
            let Window::Calendar(period) = line.limit.window else { continue };
            let (used, wanted) = (used.get(index).copied().unwrap_or(0), plan.least_amount(index));
            let is_used_up = wanted <= hold.limit || used >= hold.limit;
            if !is_used_up || !self.shared.denying.is_first(&hold.counter) {
                continue;
            }
            // Only for the log, which can do without it.
            let state = self.store.counters(vec![(hold.counter.clone(), hold.kind)]).await.ok();
            let state = state.and_then(|states| states.first().copied());
            warn!(
                limit_id = %line.limit.id,
                scope = line.limit.scope.name(),
                team = %plan.caller.team.name,
                key = plan.caller.key_name(),
                period = period.name(),
                period_start = hold.counter.period(),
                quantity = line.limit.quantity.name(),
                limit = hold.limit,
                used,
                requested = wanted,
                spent_nano_usd = state.map(|state| state.settled),
                unsettled_requests = state.map(|state| state.open),
                "a budget denies its first request in this period"
            );
        }
    }
}

/// Logs an allowed request of `caller`.
fn log_allowed(
    request: &AuthorizeRequest,
    caller: Option<&ResolvedCaller<'_>>,
    grant: &Allowed,
    decided: &Decided,
) {
    let (team, key) = names(caller);
    info!(
        target: "tollgate::decision",
        decision = "allowed",
        team,
        key,
        model = %request.model,
        operation = %request.operation,
        reservation_id = grant.reservation.as_ref().map_or("", |(id, _)| id.as_str()),
        max_output_tokens = grant.max_output_tokens,
        reserved_nano_usd = grant.reserved_cost.nanos(),
        dry_run = request.dry_run,
        labels = ?labels(caller, Some(request)),
        policy_revision = %decided.policy_revision,
        "request allowed"
    );
}

/// The names of the team and of the key; empty if there is none.
fn names<'a>(caller: Option<&ResolvedCaller<'a>>) -> (&'a str, &'a str) {
    caller.map_or(("", ""), |caller| (&*caller.team.name, caller.key_name()))
}

/// The labels of a request: its own, and those of the caller's key under other names.
fn labels<'a>(
    caller: Option<&ResolvedCaller<'a>>,
    request: Option<&'a AuthorizeRequest>,
) -> BTreeMap<&'a str, &'a str> {
    let of_key = caller.and_then(|caller| caller.key).map(|key| &key.labels);
    let of_key = of_key.into_iter().flatten().map(|(key, value)| (key.as_str(), value.as_str()));
    let own = request.into_iter().flat_map(|request| &request.labels);
    of_key.chain(own.map(|(key, value)| (key.as_str(), value.as_str()))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_of_so_many() {
        for (share, of, expected) in
            [(0, 1_000, 0), (10_000, 1_000, 10), (333, 1_000_000, 333), (1_000_000, 77, 77)]
        {
            let log = DecisionLog::new(false, share);
            assert_eq!((0..of).filter(|_| log.takes_allowed()).count(), expected, "{share}");
        }
    }
}
