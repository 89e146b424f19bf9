//! Decisions and their settlements as log lines, for operators who turn them on: without prompts, which are not known here, and
//! without secrets. They go to a file, or to the process's log.
//!
//! A decision that is not logged costs a comparison: lines are made only of those that are.

mod line;
mod read;
mod text;

use std::{
    collections::BTreeMap,
    hash::{BuildHasher as _, Hasher as _, RandomState},
    io::Write as _,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use tracing::{Level, enabled, warn};

pub(crate) use self::line::{BatchFacts, Decision, Facts, Refusal, VERSION};
use self::line::{Head, InLog, Line, Settlement, Used};
pub use self::read::{LineError, Logged, LoggedDecision, LoggedSettlement, read_line};
use super::{Authorizer, Booked, Decided, Question, outage::shown, report::Report, ticket::Ticket};
use crate::{
    domain::{
        Timestamp,
        caller::ResolvedCaller,
        decision::Violation,
        limit::Window,
        money::NanoUsd,
        plan::Plan,
        policy::Policy,
        request::{AuthorizeRequest, Outcome, Usage},
        snapshot::Snapshot,
        tally::SettlementResult,
    },
    runtime::{lines::LineWriter, replica_name},
    store::{AuditId, Exhaustion, OUTBOX_KEPT, ReservationId, Store},
    telemetry::trace::{self, TraceContext},
};

const MILLION: u128 = 1_000_000;
const TARGET: &str = "tollgate::decision";

/// Which decisions are logged, and where.
#[derive(Debug)]
pub struct DecisionLog {
    /// Whether denials are logged at info, and what limits in shadow would have denied; otherwise at debug only.
    denials: bool,
    /// This many of every million reservations are logged: the decision and its settlement.
    share: u32,
    outputs: Outputs,
    /// Lines so far, by which those of one millisecond are told apart. An independent count; it orders nothing else.
    count: AtomicU32,
    /// Tells the lines of this process from those of others.
    random: u32,
}

/// Where the decision log goes; by default to the process's log, as text.
#[derive(Clone, Debug, Default)]
pub struct Outputs {
    /// The name of this process.
    pub replica: Arc<str>,
    /// What the settings ask for is written here instead of to the process's log.
    pub file: Option<LineWriter>,
    /// The process's log, if its lines are JSON.
    pub json: Option<LineWriter>,
}

impl Default for DecisionLog {
    fn default() -> Self {
        Self::new(false, 0)
    }
}

/// A place for one line.
enum Place<'a> {
    File(&'a LineWriter),
    Log(Level),
}

impl DecisionLog {
    /// Logs all denials, or only if debug is on, and this many of every million reservations.
    #[must_use]
    pub fn new(denials: bool, share: u32) -> Self {
        let [a, b, c, d, ..] = RandomState::new().build_hasher().finish().to_le_bytes();
        let random = u32::from_le_bytes([a, b, c, d]);
        let outputs = Outputs { replica: replica_name().into(), ..Outputs::default() };
        Self { denials, share, outputs, count: AtomicU32::new(0), random }
    }

    /// The same, written to `outputs`.
    #[must_use]
    pub fn written_to(self, outputs: Outputs) -> Self {
        Self { outputs, ..self }
    }

    /// Whether the decision that made this reservation is logged. It depends on nothing but the id, whose bits are evenly
    /// distributed, so every replica agrees, and a settlement is logged with its decision.
    fn takes(&self, id: ReservationId) -> bool {
        let place = ((u128::from_be_bytes(id.0) & u128::from(u64::MAX)) * MILLION) >> 64;
        place < u128::from(self.share)
    }

    /// Where a line goes: one that the settings ask for to the file or at info, any other only where debug is on.
    fn place(&self, is_asked_for: bool) -> Option<Place<'_>> {
        match (&self.outputs.file, is_asked_for) {
            (Some(file), true) => Some(Place::File(file)),
            (None, true) => enabled!(target: TARGET, Level::INFO).then_some(Place::Log(Level::INFO)),
            (_, false) => enabled!(target: TARGET, Level::DEBUG).then_some(Place::Log(Level::DEBUG)),
        }
    }

    fn write(&self, place: &Place<'_>, line: &Line) {
        let (json, mut writer) = match (place, &self.outputs.json) {
            (Place::File(file), _) => (serde_json::to_string(line), (*file).clone()),
            (Place::Log(level), Some(log)) => (in_log(*level, line), log.clone()),
            (Place::Log(level), None) => return text::log(*level, line),
        };
        // Texts, numbers and lists of them are always JSON, and a writer takes or counts every line.
        if let Ok(mut json) = json {
            json.push('\n');
            drop(writer.write_all(json.as_bytes()));
        }
    }

    fn head(&self, now: Timestamp, organization: &str, revision: &str) -> Head {
        let trace = trace::current();
        Head {
            v: VERSION,
            id: AuditId::new(now, self.count.fetch_add(1, Ordering::Relaxed), self.random).to_string(),
            time: instant(now),
            replica: self.outputs.replica.to_string(),
            organization: organization.to_owned(),
            team: String::new(),
            key: String::new(),
            model: String::new(),
            operation: String::new(),
            policy_revision: revision.to_owned(),
            trace_id: trace.as_ref().map(TraceContext::trace),
            span_id: trace.as_ref().map(TraceContext::span),
        }
    }
}

impl<S: Store + Clone> Authorizer<S> {
    /// The answer explains a decision to its caller. The log has it only on request, as a line for each costs more than the
    /// decision. `id` is that of the reservation that it made, or would have made.
    pub(super) fn log_decision(&self, question: Question<'_>, id: ReservationId, decided: &Decided) {
        let log = &self.shared.decisions;
        let is_asked_for = match &decided.outcome {
            Ok(_) if log.takes(id) => true,
            Ok(_) if decided.shadow_violations.is_empty() => return,
            // As the denial that it would have been.
            Ok(_) | Err(_) => log.denials,
        };
        let Some(place) = log.place(is_asked_for) else { return };
        log.write(&place, &Line::Decision(self.line_of(question, decided)));
    }

    /// What is told of a decision.
    pub(super) fn line_of(&self, question: Question<'_>, decided: &Decided) -> Decision {
        let Question { request, caller, snapshot, .. } = question;
        let violations = decided.outcome.as_ref().err().map(Vec::as_slice).unwrap_or_default();
        let (caller, revision) = (caller.as_ref().ok(), &decided.policy_revision);
        let mut decision = self.decision((snapshot, revision), caller, Some(request), violations);
        if let Ok(grant) = &decided.outcome {
            decision.reservation_id = grant.reservation.as_ref().map(|(id, _)| shown(id).to_owned());
            decision.reserved_nano_usd = Some(grant.reserved_cost.nanos());
            decision.max_output_tokens = Some(grant.max_output_tokens);
        }
        decision.shadow_violations = decided.shadow_violations.iter().map(Refusal::new).collect();
        decision.degraded = decided.degraded;
        decision.repeated = decided.is_repeat;
        decision.wait_duration_seconds = decided.waited.as_ref().map(Duration::as_secs_f64);
        decision
    }

    /// A denial for which the caller alone was enough; `caller` is absent if it is unknown.
    pub fn log_denied(
        &self,
        caller: Option<&ResolvedCaller<'_>>,
        violations: &[Violation],
        snapshot: &Snapshot,
    ) {
        let (log, tallies) = (&self.shared.decisions, &self.shared.live.tallies);
        caller.map_or_else(|| tallies.unknown(), |caller| tallies.team(caller.team)).denied(violations);
        self.count_denial(caller, violations, None, snapshot);
        self.show_denied(caller, violations, snapshot);
        let Some(place) = log.place(log.denials) else { return };
        let decision = self.decision((snapshot, &snapshot.revision), caller, None, violations);
        log.write(&place, &Line::Decision(decision));
    }

    pub(super) fn decision(
        &self,
        (snapshot, revision): (&Snapshot, &str),
        caller: Option<&ResolvedCaller<'_>>,
        request: Option<&AuthorizeRequest>,
        violations: &[Violation],
    ) -> Decision {
        let head = self.shared.decisions.head(self.clock.now(), &snapshot.policy.organization.id, revision);
        let head = Head {
            team: caller.map_or("", |caller| &caller.team.name).to_owned(),
            key: caller.map_or("", |caller| caller.key_name()).to_owned(),
            model: request.map_or("", |request| &request.model).to_owned(),
            operation: request.map_or("", |request| request.operation.name()).to_owned(),
            ..head
        };
        Decision {
            head,
            decision: if violations.is_empty() { "allowed" } else { "denied" }.to_owned(),
            violations: violations.iter().map(Refusal::new).collect(),
            shadow_violations: Vec::new(),
            reservation_id: None,
            reserved_nano_usd: None,
            max_output_tokens: None,
            degraded: false,
            dry_run: request.is_some_and(|request| request.dry_run),
            repeated: false,
            wait_duration_seconds: None,
            labels: labels(caller, request),
            request: request.map(Facts::new),
        }
    }

    /// Logs a report that was booked, or was before.
    pub(super) fn log_booked(
        &self,
        (policy, ticket): (&Policy, &Ticket),
        booked: &Booked,
        report: &Report,
        has_expired: bool,
    ) {
        let id = report.released.unwrap_or(booked.reservation);
        let result = report.result(booked.already_recorded, has_expired);
        let used = (report.usage.as_ref(), report.outcome, result.name(), booked.cost);
        self.log_settlement(&policy.organization.id, id, ticket, used);
    }

    /// Logs what was booked for a reservation whose decision is logged.
    pub(super) fn log_settlement(
        &self,
        organization: &str,
        id: ReservationId,
        ticket: &Ticket,
        (usage, outcome, result, cost): (Option<&Usage>, Outcome, &'static str, NanoUsd),
    ) {
        let log = &self.shared.decisions;
        if !log.takes(id) {
            return;
        }
        let Some(place) = log.place(true) else { return };
        let head = Head {
            team: ticket.team.to_string(),
            key: ticket.key.to_string(),
            model: ticket.model.to_string(),
            operation: ticket.operation.name().to_owned(),
            ..log.head(self.clock.now(), organization, &ticket.policy_revision)
        };
        let (work, has_decision) = (ticket.work(), result != SettlementResult::Unreserved.name());
        let settlement = Settlement {
            head,
            reservation_id: id.to_string(),
            outcome: outcome.name().to_owned(),
            result: result.to_owned(),
            cost_nano_usd: cost.nanos(),
            user: if has_decision { String::new() } else { ticket.user.to_string() },
            service_tier: (!has_decision).then(|| ticket.service_tier.name().to_owned()),
            batch: work.batch().filter(|_| !has_decision).map(BatchFacts::new),
            usage: usage.map(Used::new),
        };
        log.write(&place, &Line::Settlement(settlement));
    }

    /// Logs, and records for an alert, each budget among the refusing holds that denies for the first time in its period: what
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
            if !is_used_up || !self.shared.denying.is_first(hold.counter) {
                continue;
            }
            // For the log and the alert, which can do without it.
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
            let (at, counter) = (self.clock.now(), hold.counter.clone());
            let settled = state.map_or(0, |state| state.settled);
            let entry = Exhaustion { at, settled, limit: hold.limit, counter }.entry();
            // Each replica tries, and the first one's is the one that stays.
            if let Err(error) = self.store.outbox_append(entry.into_iter().collect(), OUTBOX_KEPT).await {
                warn!(%error, limit_id = %line.limit.id, "no alert is sent of a budget that denies: it cannot be recorded");
            }
        }
    }
}

/// The line with what every line of the process's log has.
fn in_log(level: Level, line: &Line) -> serde_json::Result<String> {
    let (message, head) = match line {
        Line::Decision(decision) if decision.violations.is_empty() => ("request allowed", &decision.head),
        Line::Decision(decision) => ("request denied", &decision.head),
        Line::Settlement(settlement) => ("request settled", &settlement.head),
    };
    let level = if level == Level::INFO { "INFO" } else { "DEBUG" };
    serde_json::to_string(&InLog { timestamp: head.time, level, target: TARGET, message, line })
}

fn instant(at: Timestamp) -> jiff::Timestamp {
    let ms = i64::try_from(at.0).ok();
    ms.and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok()).unwrap_or(jiff::Timestamp::MAX)
}

/// The labels of a request: its own, and those of the caller's key under other names.
fn labels(
    caller: Option<&ResolvedCaller<'_>>,
    request: Option<&AuthorizeRequest>,
) -> BTreeMap<String, String> {
    let of_key = caller.and_then(|caller| caller.key).map(|key| &key.labels);
    let of_key = of_key.into_iter().flatten().map(|(key, value)| (key.clone(), value.clone()));
    let own = request.into_iter().flat_map(|request| &request.labels);
    of_key.chain(own.map(|(key, value)| (key.clone(), value.clone()))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_of_so_many_and_by_the_id_alone() {
        let ids = || {
            (0..1_000_u32).map(|n| {
                ReservationId::versioned(*blake3::hash(&n.to_le_bytes()).as_bytes().first_chunk().unwrap())
            })
        };
        for (share, expected) in
            [(0, 0..=0), (10_000, 3..=25), (500_000, 450..=550), (1_000_000, 1_000..=1_000)]
        {
            let (log, other) = (DecisionLog::new(false, share), DecisionLog::new(true, share));
            let taken = ids().filter(|id| log.takes(*id)).count();
            assert!(expected.contains(&taken), "{share}: {taken}");
            assert!(ids().all(|id| log.takes(id) == other.takes(id)), "another replica agrees");
        }
    }
}
