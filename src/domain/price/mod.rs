//! Prices with their dates and sources, and the exact cost of usage.
//!
//! A cost is a sum of fractions of a nano-USD with a common denominator, rounded up once for the whole request.

pub mod catalogue;
mod facts;
#[cfg(test)]
mod tests;
mod tools;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::{
    batch::Work,
    money::NanoUsd,
    request::{Billing, Operation, Size, Usage},
};

pub use tools::{ToolCatalogue, ToolCost, ToolPriceFrom, ToolRates};

/// The shortest billed audio of one request, in milliseconds (Groq's speech-to-text page: 10 s).
pub const MIN_BILLED_AUDIO_MS: u64 = 10_000;

/// What a model costs. An absent rate is not priced: requests that need it are refused, never free.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Rates {
    /// Per million input tokens.
    pub input: Option<NanoUsd>,
    /// Per million input tokens read from the cache; `None`: the same as other input.
    pub cached_input: Option<NanoUsd>,
    /// Per million output tokens.
    pub output: Option<NanoUsd>,
    /// Per hour of audio.
    pub audio_per_hour: Option<NanoUsd>,
    /// Per million characters.
    pub per_million_characters: Option<NanoUsd>,
}

/// Why there is no cost.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum PriceError {
    /// The model lacks the rate that the operation is billed by.
    #[error("no price {rate}, which `{operation}` is billed by")]
    NotPriced {
        /// The operation to price; for a batch, the operation of its lines.
        operation: Operation,
        /// The missing rate, such as `per million input tokens`.
        rate: &'static str,
    },
    /// A tool without a known price.
    #[error("tool `{0}` has no price; those that have are {known}", known = ToolRates::names())]
    UnknownTool(String),
    /// Above [`NanoUsd::MAX`].
    #[error("the cost is more than the largest amount, {max} dollars", max = NanoUsd::MAX)]
    Overflow,
}

impl Rates {
    /// A model billed by tokens; in nano-USD per million tokens.
    #[must_use]
    pub const fn tokens(input: u64, cached_input: Option<u64>, output: u64) -> Self {
        let cached_input = match cached_input {
            Some(cached) => NanoUsd::new(cached),
            None => None,
        };
        Self {
            input: NanoUsd::new(input),
            cached_input,
            output: NanoUsd::new(output),
            audio_per_hour: None,
            per_million_characters: None,
        }
    }

    /// A model billed by audio duration; in nano-USD per hour.
    #[must_use]
    pub const fn audio(per_hour: u64) -> Self {
        Self { audio_per_hour: NanoUsd::new(per_hour), ..Self::NONE }
    }

    /// A model billed by characters; in nano-USD per million characters.
    #[must_use]
    pub const fn characters(per_million: u64) -> Self {
        Self { per_million_characters: NanoUsd::new(per_million), ..Self::NONE }
    }

    /// These rates, with missing ones taken from `list`. Cached input never costs more than the given price of input.
    #[must_use]
    pub fn or(self, list: Self) -> Self {
        let cached = list.cached_input.map(|cached| self.input.map_or(cached, |input| cached.min(input)));
        Self {
            input: self.input.or(list.input),
            cached_input: self.cached_input.or(cached),
            output: self.output.or(list.output),
            audio_per_hour: self.audio_per_hour.or(list.audio_per_hour),
            per_million_characters: self.per_million_characters.or(list.per_million_characters),
        }
    }

    const NONE: Self = Self {
        input: None,
        cached_input: None,
        output: None,
        audio_per_hour: None,
        per_million_characters: None,
    };

    /// The exact cost of the usage, with tools at the built-in prices: [`Self::cost_with`].
    ///
    /// # Errors
    ///
    /// As [`Self::cost_with`].
    pub fn cost(&self, work: impl Into<Work>, usage: &Usage) -> Result<NanoUsd, PriceError> {
        self.cost_with(work.into(), usage, ToolRates::find)
    }

    /// The exact cost of the usage, with tools at the prices that `tool` finds, rounded up once to the nano-USD.
    ///
    /// Audio is billed for at least [`MIN_BILLED_AUDIO_MS`] per line, whatever `usage` says; do not call this for a request
    /// that costs nothing. Cached input in excess of the input counts as the input. Embeddings are charged for their input
    /// only. A batch costs half, and its cached input has no separate price; tools cost the same as always.
    ///
    /// # Errors
    ///
    /// A rate is missing, a tool is unknown, or the cost exceeds [`NanoUsd::MAX`].
    pub fn cost_with<'t>(
        &self,
        work: Work,
        usage: &Usage,
        tool: impl Fn(&str) -> Option<&'t ToolRates>,
    ) -> Result<NanoUsd, PriceError> {
        self.cost_parts(work, usage, tool)?.total().ok_or(PriceError::Overflow)
    }

    /// The cost of the usage by what it is for. The parts add up to [`Self::cost_with`] exactly: each is what the cost so far, rounded up
    /// to the nano-USD, is more than before it, so it is off by less than one nano-USD.
    ///
    /// # Errors
    ///
    /// As [`Self::cost_with`].
    pub fn cost_parts<'t>(
        &self,
        work: Work,
        usage: &Usage,
        tool: impl Fn(&str) -> Option<&'t ToolRates>,
    ) -> Result<CostParts, PriceError> {
        let cached_input = usage.cached_input_tokens.min(usage.input_tokens);
        let lines = if usage.request_count > 0 { usage.request_count } else { work.lines() };
        let stages = self.stages(
            work,
            Billed {
                fresh_input: usage.input_tokens - cached_input,
                cached_input,
                output: usage.output_tokens,
                audio_ms: usage.audio_ms,
                characters: usage.characters,
                lines,
            },
        )?;
        let [_, _, mut sum] = stages;
        for used in &usage.tools {
            sum = sum.tool(used, tool(&used.tool))?;
        }
        // The last is the largest: if it is an amount, all are.
        let all = sum.round_up()?.nanos();
        let [input, cached, output] = stages.map(Sum::round_up);
        let (input, cached, output) = (input?.nanos(), cached?.nanos(), output?.nanos());
        Ok(CostParts {
            input,
            cached_input: cached.saturating_sub(input),
            output: output.saturating_sub(cached),
            tools: all.saturating_sub(output),
        })
    }

    /// The most that a request can cost if its estimate holds and it produces at most `granted_output` tokens. Assumes no
    /// cache and no tools. For audio in a batch, only the sum over its lines is known: all lines but one could have almost
    /// no audio, each billed for [`MIN_BILLED_AUDIO_MS`], while one line has all of it.
    ///
    /// # Errors
    ///
    /// A rate is missing, or the cost exceeds [`NanoUsd::MAX`].
    pub fn worst_case(
        &self,
        work: impl Into<Work>,
        size: &Size,
        granted_output: u64,
    ) -> Result<NanoUsd, PriceError> {
        self.worst_case_with(work.into(), size, granted_output, ToolCost::default())
    }

    /// [`Self::worst_case`] for a request that enables tools.
    ///
    /// # Errors
    ///
    /// As [`Self::worst_case`].
    pub fn worst_case_with(
        &self,
        work: Work,
        size: &Size,
        granted_output: u64,
        tools: ToolCost,
    ) -> Result<NanoUsd, PriceError> {
        self.worst_case_sum(work, size, granted_output)?.tools(tools).round_up()
    }

    /// The most that the input of a request can cost: [`Self::worst_case`] with no output.
    ///
    /// # Errors
    ///
    /// A rate is missing, or the cost exceeds [`NanoUsd::MAX`].
    pub fn input_only(&self, work: impl Into<Work>, size: &Size) -> Result<NanoUsd, PriceError> {
        self.worst_case(work, size, 0)
    }

    /// The most output tokens whose [`Self::worst_case`] is at most `budget`; `u64::MAX` if output costs nothing. `None` if
    /// even zero output costs too much, or if a rate is missing.
    #[must_use]
    pub fn affordable_output(&self, work: impl Into<Work>, size: &Size, budget: NanoUsd) -> Option<u64> {
        self.affordable_output_with(work.into(), size, budget, ToolCost::default())
    }

    /// [`Self::affordable_output`] for a request that enables tools.
    #[must_use]
    pub fn affordable_output_with(
        &self,
        work: Work,
        size: &Size,
        budget: NanoUsd,
        tools: ToolCost,
    ) -> Option<u64> {
        let without = self.worst_case_sum(work, size, 0).ok()?.tools(tools).0?;
        let one = match work.billing() {
            Billing::Tokens => Sum::default().tokens(1, self.output?, work.batch().is_some()).0?,
            Billing::InputTokens | Billing::Audio | Billing::Characters => 0,
        };
        // A sum, once rounded up, is at most `budget` exactly when the sum itself is at most `budget`.
        let left = (u128::from(budget.nanos()) * PER_NANO).checked_sub(without)?;
        let tokens = left.checked_div(one).unwrap_or(u128::MAX);
        Some(u64::try_from(tokens).unwrap_or(u64::MAX))
    }

    fn worst_case_sum(&self, work: Work, size: &Size, output: u64) -> Result<Sum, PriceError> {
        // A contract may price cached input above other input; the worst case is then that all of it is cached.
        let (fresh_input, cached_input) =
            if self.cached_input > self.input { (0, size.input_tokens) } else { (size.input_tokens, 0) };
        let characters = size.characters;
        let lines = work.lines();
        let others_ms = MIN_BILLED_AUDIO_MS.saturating_mul(lines.saturating_sub(1));
        let audio_ms = size.audio_ms.max(MIN_BILLED_AUDIO_MS).saturating_add(others_ms);
        self.sum(work, Billed { fresh_input, cached_input, output, audio_ms, characters, lines })
    }

    fn sum(&self, work: Work, billed: Billed) -> Result<Sum, PriceError> {
        self.stages(work, billed).map(|[_, _, sum]| sum)
    }

    /// All the rules of billing: the sums up to input (with audio and characters), cached input and output.
    fn stages(&self, work: Work, billed: Billed) -> Result<[Sum; 3], PriceError> {
        let Billed { fresh_input, cached_input, output, audio_ms, characters, lines } = billed;
        let (operation, half) = (work.line_operation(), work.batch().is_some());
        let input_rate = || needed(self.input, operation, "per million input tokens");
        let output_rate = || needed(self.output, operation, "per million output tokens");
        // The two discounts do not combine.
        let cached_rate = |input| if half { input } else { self.cached_input.unwrap_or(input) };
        let sum = Sum::default();
        Ok(match work.billing() {
            Billing::Tokens => {
                let input_rate = input_rate()?;
                let fresh = sum.tokens(fresh_input, input_rate, half);
                let cached = fresh.tokens(cached_input, cached_rate(input_rate), half);
                [fresh, cached, cached.tokens(output, output_rate()?, half)]
            }
            Billing::InputTokens => {
                let input_rate = input_rate()?;
                let fresh = sum.tokens(fresh_input, input_rate, half);
                let cached = fresh.tokens(cached_input, input_rate, half);
                [fresh, cached, cached]
            }
            Billing::Audio => {
                let rate = needed(self.audio_per_hour, operation, "per hour of audio")?;
                [sum.hourly(audio_ms.max(MIN_BILLED_AUDIO_MS.saturating_mul(lines)), rate, half); 3]
            }
            Billing::Characters => {
                let rate = needed(self.per_million_characters, operation, "per million characters")?;
                [sum.characters(characters, rate, half); 3]
            }
        })
    }
}

/// A cost by what it is for, in nano-USD.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CostParts {
    /// Input that was not cached, audio, and characters.
    pub input: u64,
    /// Cached input.
    pub cached_input: u64,
    /// Output.
    pub output: u64,
    /// Groq's tools.
    pub tools: u64,
}

impl CostParts {
    /// Their sum; `None` above [`NanoUsd::MAX`].
    #[must_use]
    pub fn total(&self) -> Option<NanoUsd> {
        let Self { input, cached_input, output, tools } = *self;
        let sum = input.checked_add(cached_input)?.checked_add(output)?.checked_add(tools)?;
        NanoUsd::new(sum)
    }
}

/// The billed quantities, without tools.
struct Billed {
    /// Input tokens that were not cached.
    fresh_input: u64,
    cached_input: u64,
    output: u64,
    audio_ms: u64,
    characters: u64,
    /// Requests, or lines of a batch: each has its own minimum.
    lines: u64,
}

fn needed(rate: Option<NanoUsd>, operation: Operation, name: &'static str) -> Result<NanoUsd, PriceError> {
    rate.ok_or(PriceError::NotPriced { operation, rate: name })
}

/// How many parts a nano-USD is divided into: the least common multiple of two million (half a price per million tokens)
/// and 7.2 million (half a price per hour, in milliseconds), so every term is a whole number of parts.
const PER_NANO: u128 = 36_000_000;
const PER_TOKEN: u128 = PER_NANO / 1_000_000;
const PER_MS: u128 = PER_NANO / 3_600_000;

/// A sum in parts of a nano-USD; `None` above `u128`, which is far above [`NanoUsd::MAX`].
#[derive(Clone, Copy)]
struct Sum(Option<u128>);

impl Default for Sum {
    fn default() -> Self {
        Self(Some(0))
    }
}

/// `half`: at the batch price.
impl Sum {
    fn tokens(self, count: u64, per_million: NanoUsd, half: bool) -> Self {
        self.add(count, per_million, if half { PER_TOKEN / 2 } else { PER_TOKEN })
    }

    fn characters(self, count: u64, per_million: NanoUsd, half: bool) -> Self {
        self.tokens(count, per_million, half)
    }

    fn hourly(self, ms: u64, per_hour: NanoUsd, half: bool) -> Self {
        self.add(ms, per_hour, if half { PER_MS / 2 } else { PER_MS })
    }

    fn calls(self, count: u64, each: NanoUsd) -> Self {
        self.add(count, each, PER_NANO)
    }

    fn add(self, count: u64, rate: NanoUsd, parts: u128) -> Self {
        // The product of two `u64` always fits a `u128`.
        let product = u128::from(count) * u128::from(rate.nanos());
        Self(self.0.and_then(|sum| sum.checked_add(product.checked_mul(parts)?)))
    }

    fn round_up(self) -> Result<NanoUsd, PriceError> {
        self.0
            .and_then(|parts| u64::try_from(parts.div_ceil(PER_NANO)).ok())
            .and_then(NanoUsd::new)
            .ok_or(PriceError::Overflow)
    }
}
