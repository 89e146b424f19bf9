//! What a request is charged: by its usage or, if the usage is unknown, by the team's rule.

use std::{borrow::Cow, sync::Arc};

use super::{Failure, ticket::Ticket};
use crate::{
    domain::{
        Timestamp,
        limit::Quantity,
        money::NanoUsd,
        policy::OnUnsettled,
        price::{PriceError, ToolCatalogue},
        request::{Outcome, Usage},
    },
    store::{SpendAmounts, SpendKey, StoreError},
};

/// What one request is charged.
pub(super) struct Charge<'a> {
    pub(super) cost: NanoUsd,
    tokens: u64,
    audio_ms: u64,
    requests: u64,
    /// For the spend report.
    usage: Cow<'a, Usage>,
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
        let nothing = Self { cost: NanoUsd::ZERO, tokens: 0, audio_ms: 0, requests, usage: Cow::default() };
        match (outcome, usage) {
            (Outcome::RateLimited | Outcome::NotSent, _) | (Outcome::Failed, None) => Ok(nothing),
            (Outcome::Completed | Outcome::Aborted | Outcome::Failed, Some(usage)) => Ok(Self {
                cost: ticket.rates.cost_with(ticket.work(), usage, tool).map_err(price_failure)?,
                tokens: usage.input_tokens.saturating_sub(usage.cached_input_tokens) + usage.output_tokens,
                audio_ms: usage.audio_ms,
                requests,
                usage: Cow::Borrowed(usage),
            }),
            // Groq did answer, so it cost something, even if unsettled reservations are released.
            (Outcome::Completed, None) if ticket.on_unsettled == OnUnsettled::Release => {
                Self::unsettled(ticket, OnUnsettled::ChargeReserved, nothing)
            }
            (Outcome::Completed | Outcome::Aborted, None) => {
                Self::unsettled(ticket, ticket.on_unsettled, nothing)
            }
        }
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
        match rule {
            OnUnsettled::Release => Ok(nothing),
            OnUnsettled::ChargeInput => Ok(Self {
                cost: ticket.rates.input_only(ticket.work(), size).map_err(price_failure)?,
                tokens: size.input_tokens,
                audio_ms: size.audio_ms,
                usage: Cow::Owned(input),
                ..nothing
            }),
            OnUnsettled::ChargeReserved => Ok(Self {
                cost: ticket.cost,
                tokens: size.input_tokens + ticket.max_output_tokens,
                audio_ms: size.audio_ms,
                usage: Cow::Owned(Usage { output_tokens: ticket.max_output_tokens, ..input }),
                ..nothing
            }),
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

    /// One line for the team, one for the organization; none for a request that was never sent.
    pub(super) fn lines(&self, ticket: &Ticket) -> Vec<(SpendKey, SpendAmounts)> {
        if self.requests == 0 {
            return Vec::new();
        }
        let amounts = SpendAmounts {
            cost_nanos: self.cost.nanos(),
            requests: self.requests,
            input_tokens: self.usage.input_tokens,
            cached_input_tokens: self.usage.cached_input_tokens,
            output_tokens: self.usage.output_tokens,
            reasoning_tokens: self.usage.reasoning_tokens,
            audio_ms: self.usage.audio_ms,
            characters: self.usage.characters,
        };
        let line = |team: Arc<str>, key: Arc<str>| SpendKey {
            month: ticket.month,
            team,
            day: ticket.day,
            model: ticket.model.clone(),
            key,
        };
        vec![
            (line(ticket.team.clone(), ticket.key.clone()), amounts),
            (line(Arc::from(""), Arc::from("")), amounts),
        ]
    }
}

fn price_failure(error: PriceError) -> Failure {
    match error {
        PriceError::UnknownTool(_) => Failure::UnknownTool(error.to_string()),
        PriceError::Overflow => Failure::Store(StoreError::Overflow),
        PriceError::NotPriced { .. } => Failure::NotPriced(error.to_string()),
    }
}
