//! The amounts of a row of usage.

/// How many amounts a row has.
pub const USAGE_AMOUNTS: usize = 18;

/// What was recorded under a [`super::UsageKey`]. Each at most [`crate::domain::MAX_AMOUNT`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UsageAmounts {
    /// Cost in nano-USD: the sum of those of input, cached input, output and tools.
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
    /// Cost of input that was not cached, of audio and of characters, in nano-USD.
    pub input_cost_nanos: u64,
    /// Cost of cached input in nano-USD.
    pub cached_input_cost_nanos: u64,
    /// Cost of output in nano-USD.
    pub output_cost_nanos: u64,
    /// Calls of Groq's tools.
    pub tool_calls: u64,
    /// Cost of Groq's tools in nano-USD.
    pub tool_cost_nanos: u64,
    /// Requests that were charged by `on_unsettled`, as no usage was reported. In rows of days also reservations that were never reported
    /// (see `unreported.rs`), which are in no other amount.
    pub unsettled: u64,
    /// Requests that were cut off.
    pub aborted: u64,
    /// Requests that Groq answered with an error.
    pub failed: u64,
    /// Requests that Groq answered with 429.
    pub rate_limited: u64,
    /// Requests that were decided without the store. None are yet.
    pub degraded: u64,
}

impl UsageAmounts {
    /// The amounts in the order in which stores write them. Later releases add theirs at the end.
    #[must_use]
    pub const fn to_numbers(&self) -> [u64; USAGE_AMOUNTS] {
        [
            self.cost_nanos,
            self.requests,
            self.input_tokens,
            self.cached_input_tokens,
            self.output_tokens,
            self.reasoning_tokens,
            self.audio_ms,
            self.characters,
            self.input_cost_nanos,
            self.cached_input_cost_nanos,
            self.output_cost_nanos,
            self.tool_calls,
            self.tool_cost_nanos,
            self.unsettled,
            self.aborted,
            self.failed,
            self.rate_limited,
            self.degraded,
        ]
    }

    /// The inverse of [`UsageAmounts::to_numbers`]. Missing ones are 0.
    #[must_use]
    pub fn from_numbers(numbers: &[u64]) -> Self {
        let at = |place: usize| numbers.get(place).copied().unwrap_or(0);
        Self {
            cost_nanos: at(0),
            requests: at(1),
            input_tokens: at(2),
            cached_input_tokens: at(3),
            output_tokens: at(4),
            reasoning_tokens: at(5),
            audio_ms: at(6),
            characters: at(7),
            input_cost_nanos: at(8),
            cached_input_cost_nanos: at(9),
            output_cost_nanos: at(10),
            tool_calls: at(11),
            tool_cost_nanos: at(12),
            unsettled: at(13),
            aborted: at(14),
            failed: at(15),
            rate_limited: at(16),
            degraded: at(17),
        }
    }

    /// The amounts, combined with those of `other` one by one; `None` as soon as `combine` has none.
    #[must_use]
    pub fn combined(&self, other: &Self, combine: impl Fn(u64, u64) -> Option<u64>) -> Option<Self> {
        let mut numbers = self.to_numbers();
        for (number, more) in numbers.iter_mut().zip(other.to_numbers()) {
            *number = combine(*number, more)?;
        }
        Some(Self::from_numbers(&numbers))
    }

    /// Adds `other`; sums beyond a `u64` stay at its maximum, far more than a row can take.
    pub fn add(&mut self, other: &Self) {
        *self = self.combined(other, |a, b| Some(a.saturating_add(b))).unwrap_or(*self);
    }
}

/// Without the zeros at the end, which stores do not write.
#[must_use]
pub(crate) fn written(numbers: &[u64]) -> &[u64] {
    let count = numbers.iter().rposition(|number| *number > 0).map_or(0, |last| last + 1);
    numbers.get(..count).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_as_they_were_written() {
        let mut numbers = [0; USAGE_AMOUNTS];
        for (number, value) in numbers.iter_mut().zip(1..) {
            *number = value;
        }
        assert_eq!(UsageAmounts::from_numbers(&numbers).to_numbers(), numbers);
        assert_eq!(written(&[0, 3, 0, 0]), [0, 3]);
        assert_eq!(written(&[0, 0]), [0; 0]);
    }
}
