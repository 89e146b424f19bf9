//! Batches: many lines in one request, answered within a day to a week, at half the price.
//!
//! A batch has its own caps and counts against budgets. Groq's rate limits do not apply to batches, so rates and
//! concurrency limits do not count them either, and the cap on the output of one request says nothing about the sum of
//! many.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{
    decision::{Measure, Reason, Retry, Violation},
    eligibility::refusal,
    explain,
    limit::{Limit, Quantity},
    money::NanoUsd,
    request::{Billing, Operation, Size},
};

const HOUR_MS: u64 = 3_600_000;
/// Groq's shortest and longest completion window (its batch page: 24 h to 7 d).
pub const MIN_WINDOW_MS: u64 = 24 * HOUR_MS;
/// See [`MIN_WINDOW_MS`].
pub const MAX_WINDOW_MS: u64 = 7 * MIN_WINDOW_MS;
/// Lines of one batch; twenty times what Groq accepts today.
pub const MAX_REQUESTS: u64 = 1_000_000;
/// How long after its window a batch can still be reported before its reservation expires.
const GRACE_MS: u64 = HOUR_MS;
/// The longest lifetime of a batch's reservation.
pub const MAX_TTL_MS: u64 = MAX_WINDOW_MS + GRACE_MS;

/// What a batch declares about itself. The sums over its lines are in [`Size`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Batch {
    /// What each line does; never [`Operation::Batch`].
    pub line_operation: Operation,
    /// How many lines it has, 1 to [`MAX_REQUESTS`].
    pub request_count: u64,
    /// The window in which Groq answers it, in milliseconds.
    pub window_ms: u64,
}

/// One line of chat within a day: the default for a batch that declares nothing.
impl Default for Batch {
    fn default() -> Self {
        Self { line_operation: Operation::Chat, request_count: 1, window_ms: MIN_WINDOW_MS }
    }
}

impl Batch {
    /// How long its reservation lives, in milliseconds.
    #[must_use]
    pub const fn ttl_ms(&self) -> u64 {
        self.window_ms.saturating_add(GRACE_MS)
    }
}

/// A unit of pricing: a request, or the lines of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// One request.
    One(Operation),
    /// The lines of a batch.
    Lines(Batch),
}

impl Work {
    /// The work of a request for `operation` that declares `batch`. Only a batch may declare one.
    #[must_use]
    pub fn new(operation: Operation, batch: Option<Batch>) -> Self {
        match operation {
            Operation::Batch => Self::Lines(batch.unwrap_or_default()),
            one => Self::One(one),
        }
    }

    /// The batch, if it is one.
    #[must_use]
    pub const fn batch(&self) -> Option<&Batch> {
        match self {
            Self::One(_) => None,
            Self::Lines(batch) => Some(batch),
        }
    }

    /// The operation that policies see: a batch, whatever its lines do.
    #[must_use]
    pub const fn operation(&self) -> Operation {
        match self {
            Self::One(operation) => *operation,
            Self::Lines(_) => Operation::Batch,
        }
    }

    /// What the request, or each line of the batch, does.
    #[must_use]
    pub const fn line_operation(&self) -> Operation {
        match self {
            Self::One(operation) => *operation,
            Self::Lines(batch) => batch.line_operation,
        }
    }

    /// How many requests Groq answers for it.
    #[must_use]
    pub const fn lines(&self) -> u64 {
        match self {
            Self::One(_) => 1,
            Self::Lines(batch) => batch.request_count,
        }
    }

    /// How it is billed.
    #[must_use]
    pub const fn billing(&self) -> Billing {
        self.line_operation().billing()
    }
}

impl From<Operation> for Work {
    fn from(operation: Operation) -> Self {
        Self::new(operation, None)
    }
}

/// The caps on one batch of a team; an absent one means no cap.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BatchCaps {
    /// Lines.
    pub max_requests: Option<u64>,
    /// Input tokens of all lines together.
    pub max_input_tokens: Option<u64>,
    /// Output tokens of all lines together.
    pub max_output_tokens: Option<u64>,
    /// The worst case of all lines together.
    pub max_cost: Option<NanoUsd>,
    /// How many batches may be open; without a bound they are only counted. `None`: not even counted.
    pub open: Option<Arc<Limit>>,
}

impl BatchCaps {
    /// Whether they never refuse a batch.
    #[must_use]
    pub fn caps_nothing(&self) -> bool {
        let Self { max_requests, max_input_tokens, max_output_tokens, max_cost, open } = self;
        let bounds = [*max_requests, *max_input_tokens, *max_output_tokens, max_cost.map(NanoUsd::nanos)];
        bounds.iter().all(Option::is_none) && open.as_ref().is_none_or(|limit| limit.bound.is_none())
    }

    /// Every cap of `team` that a batch exceeds, given its worst case.
    pub(super) fn passed(
        &self,
        team: &str,
        batch: &Batch,
        size: &Size,
        output: u64,
        cost: NanoUsd,
    ) -> impl Iterator<Item = Violation> {
        let caps = [
            ("max_requests", self.max_requests, batch.request_count, Measure::Of(Quantity::Requests)),
            ("max_input_tokens", self.max_input_tokens, size.input_tokens, Measure::Of(Quantity::Tokens)),
            ("max_output_tokens", self.max_output_tokens, output, Measure::OutputTokens),
            ("max_cost_usd", self.max_cost.map(NanoUsd::nanos), cost.nanos(), Measure::Of(Quantity::NanoUsd)),
        ];
        let team = team.to_owned();
        caps.into_iter().filter_map(move |(key, cap, wanted, quantity)| {
            let cap = cap.filter(|cap| wanted > *cap)?;
            let id = format!("teams.{team}.batch.{key}");
            let shown = |value| match quantity {
                Measure::Of(quantity) => explain::amount(quantity, value),
                _ => format!("{value} output tokens"),
            };
            let message = format!("`{id}` permits {} a batch: {} requested", shown(cap), shown(wanted));
            let refused = refusal(Reason::BatchTooLarge, id, message);
            Some(Violation { quantity, limit: cap, requested: wanted, retry: Retry::Never, ..refused })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_lives_as_long_as_its_window_and_an_hour() {
        assert_eq!(Batch::default().ttl_ms(), 25 * HOUR_MS);
        let week = Batch { window_ms: MAX_WINDOW_MS, ..Batch::default() };
        assert_eq!(week.ttl_ms(), 169 * HOUR_MS);
        assert_eq!(week.ttl_ms(), MAX_TTL_MS);
    }

    #[test]
    fn each_cap_that_is_passed_is_named() {
        let caps = BatchCaps {
            max_requests: Some(2),
            max_input_tokens: Some(10),
            max_output_tokens: Some(10),
            max_cost: NanoUsd::new(10),
            open: None,
        };
        let batch = Batch { request_count: 3, ..Batch::default() };
        let size = Size { input_tokens: 10, ..Size::default() };
        let cost = NanoUsd::new(11).unwrap();
        let passed: Vec<_> = caps.passed("t", &batch, &size, 10, cost).map(|v| v.limit_id).collect();
        assert_eq!(passed, ["teams.t.batch.max_requests", "teams.t.batch.max_cost_usd"]);
    }
}
