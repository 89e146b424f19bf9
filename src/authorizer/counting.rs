//! What is counted of decisions and reports, and how long decisions took.

use super::{Authorizer, Decided, Question, charge::Charge, report::Report, ticket::Ticket};
use crate::{
    domain::{policy::Policy, request::Outcome, tally::Booking},
    runtime::clock::Monotonic,
    store::Store,
    telemetry::Family,
};

/// Where the durations of decisions are recorded: first of those that allowed, then of the others.
#[derive(Debug, Default)]
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
            project: &ticket.project,
            outcome: report.outcome,
            result: report.result(charge.is_none(), has_expired),
            used: charge.map(|charge| (charge.usage(), charge.cost.nanos())),
        };
        tallies.booked(policy, &booking);
        if charge.is_some() && report.of_own && report.outcome == Outcome::RateLimited {
            tallies.rate_limited(&policy.catalogue, &ticket.project, &ticket.model);
        }
    }
}
