//! What is counted of decisions and reports, and how long decisions took.

use std::sync::Arc;

use super::{Authorizer, Decided, Question, charge::Charge, outage::shown, report::Report, ticket::Ticket};
use crate::{
    domain::{
        caller::ResolvedCaller,
        decision::{Allowed, Violation},
        policy::Policy,
        request::{AuthorizeRequest, Operation, Outcome},
        snapshot::Snapshot,
        tally::Booking,
    },
    live::Denial,
    runtime::clock::Monotonic,
    store::{OTHER_VALUE, Store},
    telemetry::{Family, KeyValue, gen_ai, trace},
};

/// Where the durations of decisions are recorded: first of those that allowed, then of the others.
#[derive(Clone, Debug, Default)]
pub struct Timing {
    /// Of requests that are decided at once.
    pub decision: Family,
    /// Of requests with `max_wait`.
    pub wait: Family,
}

impl<S: Store + Clone> Authorizer<S> {
    /// A decision counts for the team of its caller, on the place of its model that it was made with.
    pub(super) fn count_decision(&self, question: Question<'_>, decided: &Decided) {
        let Question { request, snapshot, caller, .. } = question;
        let tallies = &self.shared.live.tallies;
        let team = caller.as_ref().map_or_else(|_| tallies.unknown(), |caller| tallies.team(caller.team));
        // What needs no counter to be denied has no place yet.
        let model = decided.model;
        let model = model.unwrap_or_else(|| tallies.model(snapshot.policy.catalogue.model(&request.model)));
        let violations = decided.outcome.as_ref().err().map(Vec::as_slice).unwrap_or_default();
        team.decided(model, request.operation, violations);
        team.in_shadow(&decided.shadow_violations);
        if decided.degraded {
            team.decided_without_store();
        }
        if let Err(violations) = &decided.outcome
            && !request.dry_run
        {
            self.count_denial(caller.as_ref().ok(), violations, Some((request, &decided.project)), snapshot);
        }
        if let (Ok(Allowed { reservation: Some((id, expires)), .. }), Ok(caller)) = (&decided.outcome, caller)
            && request.operation != Operation::Batch
            && !decided.is_repeat
            && !decided.degraded
            && team.is_sampled(*expires)
        {
            tallies.samples.take(&caller.team.name, id, *expires);
        }
        trace::annotate(|| traced_decision(question, decided));
    }

    /// Counts a refused request for the usage history, by the first of its violations. A model that the price list does not have is
    /// other: callers may name what they like.
    pub(super) fn count_denial(
        &self,
        caller: Option<&ResolvedCaller<'_>>,
        violations: &[Violation],
        request: Option<(&AuthorizeRequest, &Arc<str>)>,
        snapshot: &Snapshot,
    ) {
        let Some(first) = violations.first() else { return };
        let known = |request: &AuthorizeRequest| match snapshot.policy.catalogue.model(&request.model) {
            Some(model) => Arc::clone(&model.name),
            None => OTHER_VALUE.into(),
        };
        let denial = Denial {
            team: caller.map(|caller| Arc::clone(&caller.team.name)).unwrap_or_default(),
            key: caller.and_then(|caller| caller.key).map(|key| Arc::clone(&key.name)).unwrap_or_default(),
            model: request.map(|(request, _)| known(request)).unwrap_or_default(),
            operation: request.map(|(request, _)| request.operation),
            service_tier: request.map(|(request, _)| request.service_tier),
            project: request.map(|(_, project)| Arc::clone(project)).unwrap_or_default(),
            reason: first.reason,
            limit_id: first.limit_id.as_str().into(),
        };
        self.shared.live.count_denial(denial, self.store.now());
    }

    /// Records how long a decision took that began at `start`.
    pub(super) fn record_duration(&self, decided: &Decided, start: Monotonic) {
        let (timing, denied) = (&self.shared.timing, usize::from(decided.outcome.is_err()));
        match decided.waited {
            Some(waited) => timing.wait.record(denied, waited),
            None if timing.decision.is_on() => {
                timing.decision.record(denied, self.clock.monotonic().since(start));
            }
            None => {}
        }
    }

    /// Counts a report; `charge` is what was booked, `None` if it was booked before.
    pub(super) fn count_booked(
        &self,
        (policy, ticket): (&Policy, &Ticket),
        report: &Report,
        has_expired: bool,
        charge: Option<&Charge<'_>>,
    ) {
        let tallies = &self.shared.live.tallies;
        let booking = Booking {
            team: &ticket.team,
            model: &ticket.model,
            operation: ticket.operation,
            project: &ticket.project,
            outcome: report.outcome,
            result: report.result(charge.is_none(), has_expired),
            used: charge.map(|charge| (charge.usage(), charge.cost.nanos())),
        };
        tallies.booked(policy, &booking);
        trace::annotate(|| traced_booking(policy, ticket, &booking));
        if charge.is_some() && report.is_news() && report.outcome == Outcome::RateLimited {
            tallies.rate_limited(&policy.catalogue, &ticket.project, &ticket.model);
        }
    }
}

/// What the span of a call says of its decision.
fn traced_decision(
    Question { request, snapshot, caller, .. }: Question<'_>,
    decided: &Decided,
) -> Vec<KeyValue> {
    let mut said = of_groq(&snapshot.policy.organization.id, &request.model, request.operation);
    if let Ok(caller) = caller {
        said.push(KeyValue::new("tollgate.team", caller.team.name.to_string()));
        said.extend(caller.key.map(|key| KeyValue::new("tollgate.key", key.name.to_string())));
    }
    said.push(KeyValue::new("tollgate.policy_revision", decided.policy_revision.to_string()));
    said.push(KeyValue::new("tollgate.degraded", decided.degraded));
    match &decided.outcome {
        Ok(grant) => {
            said.push(KeyValue::new("tollgate.decision", "allowed"));
            let reservation = grant.reservation.as_ref();
            said.extend(
                reservation.map(|(id, _)| KeyValue::new("tollgate.reservation_id", shown(id).to_owned())),
            );
        }
        Err(violations) => {
            said.push(KeyValue::new("tollgate.decision", "denied"));
            let reason = violations.first().map(|violation| violation.reason.name());
            said.extend(reason.map(|reason| KeyValue::new("tollgate.reason", reason)));
            let limits = violations.iter().map(|violation| violation.limit_id.as_str());
            let limits: Vec<_> = limits.filter(|id| !id.is_empty()).collect();
            said.push(KeyValue::new("tollgate.limit_ids", limits.join(",")));
        }
    }
    said
}

/// What the span of a call says of the report that it brought.
fn traced_booking(policy: &Policy, ticket: &Ticket, booking: &Booking<'_>) -> Vec<KeyValue> {
    let mut said = of_groq(&policy.organization.id, &ticket.model, ticket.operation);
    said.push(KeyValue::new("tollgate.team", ticket.team.to_string()));
    said.push(KeyValue::new("tollgate.outcome", booking.outcome.name()));
    said.push(KeyValue::new("tollgate.result", booking.result.name()));
    if let Some((usage, cost)) = booking.used {
        let int = |value| i64::try_from(value).unwrap_or(i64::MAX);
        said.push(KeyValue::new("gen_ai.usage.input_tokens", int(usage.input_tokens)));
        said.push(KeyValue::new("gen_ai.usage.output_tokens", int(usage.output_tokens)));
        said.push(KeyValue::new("tollgate.cost_nano_usd", int(cost)));
    }
    said
}

fn of_groq(organization: &str, model: &str, operation: Operation) -> Vec<KeyValue> {
    vec![
        KeyValue::new("tollgate.organization", organization.to_owned()),
        KeyValue::new("gen_ai.provider.name", gen_ai::PROVIDER),
        KeyValue::new("gen_ai.request.model", model.to_owned()),
        KeyValue::new("gen_ai.operation.name", gen_ai::operation_name(operation)),
    ]
}
