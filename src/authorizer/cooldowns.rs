//! Upstream cooldowns: how reports change them, which are in force, and lifting them.

use tracing::warn;

use super::{Authorizer, Failure, ticket::Ticket};
use crate::{
    domain::{
        cooldown::CooldownKey,
        counter::CounterKey,
        explain,
        policy::Policy,
        request::{Operation, Outcome, ServiceTier},
    },
    store::{Cooldown, CooldownChange, OUTBOX_KEPT, Store, cooldown_notice},
};

/// What a report by the caller of a reservation does to the cooldown of the reservation's model, and what the caller should
/// know about it. `has_expired`: whether the reservation had expired by then; no request runs that long, so its 429 is out of
/// date.
pub(super) fn of_report(
    policy: &Policy,
    ticket: &Ticket,
    has_expired: bool,
    outcome: Outcome,
    requested_ms: u64,
) -> (Option<(CounterKey, CooldownChange)>, Option<String>) {
    // Batches do not touch Groq's rate limits, so the outcome of one says nothing about them.
    if ticket.operation == Operation::Batch {
        return (None, None);
    }
    let gate = || policy.gates.of(&ticket.project, &ticket.model, ticket.service_tier);
    match outcome {
        Outcome::RateLimited if requested_ms > 0 && has_expired => {
            let late =
                "`upstream_retry_delay` begins no cooldown: the reservation had expired before the report";
            (None, Some(late.to_owned()))
        }
        Outcome::RateLimited if requested_ms > 0 => {
            let length_ms = requested_ms.min(policy.organization.max_cooldown_ms);
            let reporter = ticket.team.clone();
            let capped = (length_ms < requested_ms).then(|| {
                format!(
                    "`upstream_retry_delay` of {} is capped at {} by `organization.max_cooldown`",
                    explain::duration(requested_ms),
                    explain::duration(length_ms)
                )
            });
            (Some((gate(), CooldownChange::Open { length_ms, requested_ms, reporter })), capped)
        }
        Outcome::Completed => (Some((gate(), CooldownChange::Lift)), None),
        _ => (None, None),
    }
}

/// The gate that a report closes, and the one that it may open.
pub(super) fn gates_of(
    change: Option<&(CounterKey, CooldownChange)>,
) -> (Option<CounterKey>, Option<CounterKey>) {
    match change {
        Some((gate, CooldownChange::Open { .. })) => (Some(gate.clone()), None),
        Some((gate, CooldownChange::Lift)) => (None, Some(gate.clone())),
        None => (None, None),
    }
}

impl<S: Store + Clone> Authorizer<S> {
    /// Records for an alert that a report closed `gate`. Every replica looks for closed gates about once a second, and tells of those that
    /// this one cannot tell of now; the id is the same.
    pub(super) async fn tell_of_cooldown(&self, gate: &CounterKey) {
        let told = async || {
            let closed = self.store.cooldowns().await?;
            let cooldown = closed.iter().find(|(closed, _)| closed == gate);
            let notice = cooldown.and_then(|(gate, cooldown)| cooldown_notice(gate, cooldown));
            let entry = notice.and_then(|(id, notice)| notice.entry(&id));
            self.store.outbox_append(entry.into_iter().collect(), OUTBOX_KEPT).await
        };
        if let Err(error) = told().await {
            warn!(%error, "no alert of a cooldown can be recorded now");
        }
    }

    /// The cooldowns in force, by project, model and service tier.
    ///
    /// # Errors
    /// If the store does not answer.
    pub async fn cooldowns(&self) -> Result<Vec<(CooldownKey, Cooldown)>, Failure> {
        Ok(named(self.store.cooldowns().await?))
    }

    /// Lifts the cooldown of `model` in `project`: of one service tier, or of all. Returns what was in force.
    ///
    /// # Errors
    /// If the store does not answer. Whether it took effect is unknown then; repeating it is safe.
    pub async fn lift_cooldowns(
        &self,
        project: &str,
        model: &str,
        service_tier: Option<ServiceTier>,
    ) -> Result<Vec<(CooldownKey, Cooldown)>, Failure> {
        let tiers = ServiceTier::ALL.into_iter().filter(|tier| service_tier.is_none_or(|only| only == *tier));
        let gate =
            |service_tier| CooldownKey { project: project.into(), model: model.into(), service_tier }.gate();
        let lifted = self.store.lift_cooldowns(tiers.map(gate).collect()).await?;
        self.shared.queue.freed(lifted.iter().map(|(gate, _)| (gate, None)));
        Ok(named(lifted))
    }
}

/// The cooldowns that the gates stand for. A gate of an earlier version stands for none, and ends by itself.
fn named(closed: Vec<(CounterKey, Cooldown)>) -> Vec<(CooldownKey, Cooldown)> {
    let named =
        closed.into_iter().filter_map(|(gate, cooldown)| Some((CooldownKey::of_gate(&gate)?, cooldown)));
    let mut named: Vec<_> = named.collect();
    named.sort_by(|(a, _), (b, _)| a.cmp(b));
    named
}
