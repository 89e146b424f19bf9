//! What a request is charged: by its usage or, if the usage is unknown, by the team's rule.

use std::{borrow::Cow, sync::Arc};

use super::{Failure, ticket::Ticket};
use crate::{
    domain::{
        Timestamp,
        limit::Quantity,
        money::NanoUsd,
        policy::OnUnsettled,
        price::{CostParts, PriceError, ToolCatalogue},
        request::{Outcome, Usage},
    },
    store::{Series, StoreError, UsageAmounts, UsageKey, UsageSet},
};

const HOUR_MS: u64 = 3_600_000;
/// In many zones, one day of a year has 25 hours.
const LAST_HOUR: u8 = 24;

/// What one request is charged.
pub(super) struct Charge<'a> {
    pub(super) cost: NanoUsd,
    tokens: u64,
    audio_ms: u64,
    requests: u64,
    /// For the rows of usage.
    usage: Cow<'a, Usage>,
    parts: CostParts,
    outcome: Outcome,
    is_unsettled: bool,
    is_degraded: bool,
}

impl<'a> Charge<'a> {
    /// The charge of an outcome as reported. Tools that the reservation did not name cost what `tools` says at the instant
    /// `at`.
    pub(super) fn of(
        ticket: &Ticket,
        usage: Option<&'a Usage>,
        outcome: Outcome,
        tools: &ToolCatalogue,
        at: Timestamp,
    ) -> Result<Self, Failure> {
        let tool = |name: &str| {
            let reserved = ticket.tools.iter().find(|rates| rates.name == name);
            reserved.or_else(|| tools.action(name, at))
        };
        if let Some(usage) = usage {
            let excesses = usage.excesses(ticket.work());
            if !excesses.is_empty() {
                return Err(Failure::ImpossibleUsage(excesses));
            }
        }
        let requests = u64::from(outcome != Outcome::NotSent);
        let nothing = Self {
            cost: NanoUsd::ZERO,
            tokens: 0,
            audio_ms: 0,
            requests,
            usage: Cow::default(),
            parts: CostParts::default(),
            outcome,
            is_unsettled: false,
            is_degraded: false,
        };
        match (outcome, usage) {
            (Outcome::RateLimited | Outcome::NotSent, _) | (Outcome::Failed, None) => Ok(nothing),
            (Outcome::Completed | Outcome::Aborted | Outcome::Failed, Some(usage)) => {
                let parts = ticket.rates.cost_parts(ticket.work(), usage, tool).map_err(price_failure)?;
                Ok(Self {
                    cost: parts.total().ok_or(Failure::Store(StoreError::Overflow))?,
                    tokens: usage.input_tokens.saturating_sub(usage.cached_input_tokens)
                        + usage.output_tokens,
                    audio_ms: usage.audio_ms,
                    usage: Cow::Borrowed(usage),
                    parts,
                    ..nothing
                })
            }
            // Groq did answer, so it cost something, even if unsettled reservations are released.
            (Outcome::Completed, None) if ticket.on_unsettled == OnUnsettled::Release => {
                Self::unsettled(ticket, OnUnsettled::ChargeReserved, nothing)
            }
            (Outcome::Completed | Outcome::Aborted, None) => {
                Self::unsettled(ticket, ticket.on_unsettled, nothing)
            }
        }
    }

    /// The same for a request that was decided without the store, or not.
    pub(super) fn degraded(self, is_degraded: bool) -> Self {
        Self { is_degraded, ..self }
    }

    /// The usage is unknown: the team's rule for reservations that were never settled decides.
    fn unsettled(ticket: &Ticket, rule: OnUnsettled, nothing: Self) -> Result<Self, Failure> {
        let size = &ticket.size;
        let input = Usage {
            input_tokens: size.input_tokens,
            audio_ms: size.audio_ms,
            characters: size.characters,
            ..Usage::default()
        };
        let nothing = Self { is_unsettled: true, ..nothing };
        let input_cost = || ticket.rates.input_only(ticket.work(), size).map_err(price_failure);
        match rule {
            OnUnsettled::Release => Ok(nothing),
            OnUnsettled::ChargeInput => {
                let cost = input_cost()?;
                Ok(Self {
                    cost,
                    tokens: size.input_tokens,
                    audio_ms: size.audio_ms,
                    usage: Cow::Owned(input),
                    parts: CostParts { input: cost.nanos(), ..CostParts::default() },
                    ..nothing
                })
            }
            OnUnsettled::ChargeReserved => {
                // What was reserved for tools counts as output: how often they ran is not known.
                let of_input = input_cost()?.nanos().min(ticket.cost.nanos());
                let output = ticket.cost.nanos() - of_input;
                Ok(Self {
                    cost: ticket.cost,
                    tokens: size.input_tokens + ticket.max_output_tokens,
                    audio_ms: size.audio_ms,
                    usage: Cow::Owned(Usage { output_tokens: ticket.max_output_tokens, ..input }),
                    parts: CostParts { input: of_input, output, ..CostParts::default() },
                    ..nothing
                })
            }
        }
    }

    /// The usage that it is for, as the spend report has it.
    pub(super) fn usage(&self) -> &Usage {
        &self.usage
    }

    pub(super) const fn of_quantity(&self, quantity: Quantity) -> u64 {
        match quantity {
            Quantity::Requests => self.requests,
            Quantity::Tokens => self.tokens,
            Quantity::AudioMilliseconds => self.audio_ms,
            Quantity::NanoUsd => self.cost.nanos(),
            Quantity::RequestsInFlight | Quantity::UnsettledRequests => 0,
        }
    }

    /// The rows of usage: of the team's day and hour, of the organization's day, of the user and of each label. None for a request that
    /// was never sent.
    pub(super) fn rows(&self, ticket: &Ticket, hour: u8) -> Vec<(UsageKey, UsageAmounts)> {
        if self.requests == 0 {
            return Vec::new();
        }
        let amounts = self.amounts();
        let empty: Arc<str> = Arc::default();
        let day = UsageKey {
            set: UsageSet { series: Series::Days, period: ticket.month, team: Arc::clone(&ticket.team) },
            day: ticket.day,
            hour: 0,
            model: Arc::clone(&ticket.model),
            key: Arc::clone(&ticket.key),
            operation: Some(ticket.operation),
            service_tier: Some(ticket.service_tier),
            project: Arc::clone(&ticket.project),
            value: Arc::clone(&empty),
        };
        let of_day = |series| {
            let set = UsageSet { series, period: ticket.day, team: Arc::clone(&ticket.team) };
            UsageKey { set, ..day.clone() }
        };
        let mut rows = Vec::with_capacity(4);
        rows.push((UsageKey { hour, ..of_day(Series::Hours) }, amounts));
        if !ticket.user.is_empty() {
            let value = Arc::clone(&ticket.user);
            rows.push((UsageKey { value, ..of_day(Series::Users) }, amounts));
        }
        for (name, value) in &ticket.labels {
            let (series, value) = (Series::Label(Arc::clone(name)), Arc::clone(value));
            rows.push((UsageKey { value, ..of_day(series) }, amounts));
        }
        let (model, key) = (Arc::clone(&ticket.model), Arc::clone(&empty));
        let organization = UsageKey::of_day(ticket.month, empty, ticket.day, model, key);
        rows.extend([(day, amounts), (organization, amounts)]);
        rows
    }

    fn amounts(&self) -> UsageAmounts {
        let (usage, parts) = (&*self.usage, &self.parts);
        let is = |outcome| u64::from(self.outcome == outcome);
        UsageAmounts {
            cost_nanos: self.cost.nanos(),
            requests: self.requests,
            input_tokens: usage.input_tokens,
            cached_input_tokens: usage.cached_input_tokens,
            output_tokens: usage.output_tokens,
            reasoning_tokens: usage.reasoning_tokens,
            audio_ms: usage.audio_ms,
            characters: usage.characters,
            input_cost_nanos: parts.input,
            cached_input_cost_nanos: parts.cached_input,
            output_cost_nanos: parts.output,
            tool_calls: usage.tools.iter().map(|tool| tool.calls).fold(0, u64::saturating_add),
            tool_cost_nanos: parts.tools,
            unsettled: u64::from(self.is_unsettled),
            aborted: is(Outcome::Aborted),
            failed: is(Outcome::Failed),
            rate_limited: is(Outcome::RateLimited),
            degraded: u64::from(self.is_degraded),
        }
    }
}

/// Which hour of the day that began at `start` an instant is in. What is outside of it, as the zone or the clock was set, is in its first
/// hour or its last.
pub(super) fn hour_of(start: Timestamp, at: Timestamp) -> u8 {
    u8::try_from(at.since(start) / HOUR_MS).map_or(LAST_HOUR, |hour| hour.min(LAST_HOUR))
}

fn price_failure(error: PriceError) -> Failure {
    match error {
        PriceError::UnknownTool(_) => Failure::UnknownTool(error.to_string()),
        PriceError::Overflow => Failure::Store(StoreError::Overflow),
        PriceError::NotPriced { .. } => Failure::NotPriced(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_hour_is_counted_from_where_the_day_begins() {
        let start = Timestamp(1_795_372_200_000);
        let hours = [0, 1, HOUR_MS - 1, HOUR_MS, 24 * HOUR_MS, 25 * HOUR_MS - 1, 90 * HOUR_MS];
        let hours = hours.map(|after| hour_of(start, start.plus(after)));
        assert_eq!(hours, [0, 0, 0, 1, 24, 24, 24]);
        assert_eq!(hour_of(start, Timestamp(0)), 0, "the clock was set");
    }
}
