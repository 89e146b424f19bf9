//! Lines of the spend report: dimensions, and amounts that add up.

use std::{future::Future, sync::Arc};

use serde::{Deserialize, Serialize};

use super::{Backend, StoreError};

/// The lines that settlements added up. Reading them holds up no call of a [`super::Ledger`].
pub trait Usage: Backend {
    /// The teams with lines in `month` (as `202611`), in order, without the organization's own lines.
    fn spenders(&self, month: u32) -> impl Future<Output = Result<Vec<Arc<str>>, StoreError>> + Send;

    /// The lines of `team` (empty: the organization) in `month`, in order.
    fn spend(
        &self,
        month: u32,
        team: Arc<str>,
    ) -> impl Future<Output = Result<Vec<(SpendKey, SpendAmounts)>, StoreError>> + Send;
}

/// Lines that are taken before other tasks of the core get their turn: about 0.1 ms.
const LINES_AT_ONCE: usize = 512;

/// Calls `each` with every line, and lets decisions on the same core come in between: a team's month can have 100,000 lines.
pub async fn each_line(
    lines: Vec<(SpendKey, SpendAmounts)>,
    mut each: impl FnMut(SpendKey, &SpendAmounts) + Send,
) {
    for (count, (line, amounts)) in lines.into_iter().enumerate() {
        each(line, &amounts);
        if count % LINES_AT_ONCE == LINES_AT_ONCE - 1 {
            tokio::task::yield_now().await;
        }
    }
}

/// A line of the spend report: what one team spent on one model through one key on one day.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct SpendKey {
    /// The month, as `202611`.
    pub month: u32,
    /// The team; empty for the organization's own lines.
    pub team: Arc<str>,
    /// The day, as `20261123`.
    pub day: u32,
    /// The model.
    pub model: Arc<str>,
    /// The key; empty for none.
    pub key: Arc<str>,
}

/// What was recorded under a [`SpendKey`]. Each at most [`crate::domain::MAX_AMOUNT`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SpendAmounts {
    /// Cost in nano-USD.
    pub cost_nanos: u64,
    /// Requests.
    pub requests: u64,
    /// Input tokens, cached included.
    pub input_tokens: u64,
    /// Input tokens read from the cache.
    pub cached_input_tokens: u64,
    /// Output tokens, reasoning included.
    pub output_tokens: u64,
    /// Reasoning tokens.
    pub reasoning_tokens: u64,
    /// Audio in milliseconds.
    pub audio_ms: u64,
    /// Characters spoken.
    pub characters: u64,
}

impl SpendAmounts {
    /// The amounts in the order in which stores write them.
    #[must_use]
    pub const fn to_numbers(&self) -> [u64; 8] {
        [
            self.cost_nanos,
            self.requests,
            self.input_tokens,
            self.cached_input_tokens,
            self.output_tokens,
            self.reasoning_tokens,
            self.audio_ms,
            self.characters,
        ]
    }

    /// The inverse of [`SpendAmounts::to_numbers`].
    #[must_use]
    pub const fn from_numbers(numbers: [u64; 8]) -> Self {
        let [
            cost_nanos,
            requests,
            input_tokens,
            cached_input_tokens,
            output_tokens,
            reasoning_tokens,
            audio_ms,
            characters,
        ] = numbers;
        Self {
            cost_nanos,
            requests,
            input_tokens,
            cached_input_tokens,
            output_tokens,
            reasoning_tokens,
            audio_ms,
            characters,
        }
    }
}
