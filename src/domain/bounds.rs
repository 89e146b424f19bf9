//! The largest amounts that one request, or all lines of a batch together, may ask for or report.

use super::{
    batch::{MAX_REQUESTS, Work},
    request::Usage,
};

/// Tokens and characters of one request: far above any context window, far below what could overflow a sum.
pub const MAX_COUNT: u64 = 100_000_000;
/// Bytes of one input, for the estimate.
const MAX_INPUT_BYTES: u64 = 1_000_000_000;
/// Audio of one request, 100 hours in milliseconds. Groq's own bound on a file is well below.
pub const MAX_AUDIO_MS: u64 = 100 * HOUR_MS;
/// Runs of one tool in one request.
const MAX_TOOL_CALLS: u64 = 1_000_000;
/// Sums over all lines of a batch; larger sums could not be expressed as money.
const MAX_BATCH_COUNT: u64 = 100_000_000_000;
/// The same for audio: a million hours over all lines.
const MAX_BATCH_AUDIO_MS: u64 = 1_000_000 * HOUR_MS;
const HOUR_MS: u64 = 3_600_000;

/// The largest amounts of a number of lines together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Most {
    /// Tokens, and characters.
    pub count: u64,
    /// Bytes of input.
    pub input_bytes: u64,
    /// Milliseconds of audio, and of a tool's run.
    pub audio_ms: u64,
    /// Runs of one tool.
    pub tool_calls: u64,
}

/// A reported amount that is impossible.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Excess {
    /// The field of the report, as the contract names it.
    pub field: String,
    /// Why.
    pub message: String,
}

impl Most {
    /// The bounds for this many lines together; one line is one request.
    #[must_use]
    pub fn of(lines: u64) -> Self {
        let lines = lines.max(1);
        Self {
            count: MAX_COUNT.saturating_mul(lines).min(MAX_BATCH_COUNT),
            input_bytes: MAX_INPUT_BYTES.saturating_mul(lines).min(3 * MAX_BATCH_COUNT),
            audio_ms: MAX_AUDIO_MS.saturating_mul(lines).min(MAX_BATCH_AUDIO_MS),
            tool_calls: MAX_TOOL_CALLS.saturating_mul(lines).min(MAX_BATCH_COUNT),
        }
    }

    /// The bounds of the largest batch.
    #[must_use]
    pub fn largest() -> Self {
        Self::of(MAX_REQUESTS)
    }
}

impl Usage {
    /// Every amount that exceeds what `work` can have used. A report on a reservation states neither the operation nor the
    /// number of lines, so the check happens once the reservation is found.
    #[must_use]
    pub fn excesses(&self, work: Work) -> Vec<Excess> {
        let lines = work.lines();
        let most = Most::of(lines);
        let mut excesses = Vec::new();
        let mut note = |field: String, message| {
            excesses.push(Excess { field: format!("usage.{field}"), message });
        };
        match (self.request_count, work.batch()) {
            (answered, _) if answered <= lines => {}
            (answered, None) => {
                note("request_count".to_owned(), format!("is {answered}; only a batch has more than one"))
            }
            (answered, Some(_)) => {
                note("request_count".to_owned(), format!("is {answered}; the batch has {lines}"))
            }
        }
        for (field, count) in [
            ("input_tokens", self.input_tokens),
            ("output_tokens", self.output_tokens),
            ("character_count", self.characters),
        ] {
            if count > most.count {
                note(field.to_owned(), format!("is {count}; must be from 0 to {}", most.count));
            }
        }
        let within = || format!("must be from 0s to {}s", most.audio_ms / 1000);
        if self.audio_ms > most.audio_ms {
            note("audio_duration".to_owned(), within());
        }
        for (index, tool) in self.tools.iter().enumerate() {
            if tool.calls > most.tool_calls {
                let message = format!("is {}; must be from 0 to {}", tool.calls, most.tool_calls);
                note(format!("tool_calls[{index}].call_count"), message);
            }
            if tool.run_ms > most.audio_ms {
                note(format!("tool_calls[{index}].run_duration"), within());
            }
        }
        excesses
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{
        batch::Batch,
        request::{Operation, ToolUsage},
    };

    fn fields(usage: &Usage, work: impl Into<Work>) -> Vec<String> {
        usage.excesses(work.into()).into_iter().map(|excess| excess.field).collect()
    }

    #[test]
    fn what_is_more_than_a_request_or_its_lines_can_use_is_named() {
        let three = Work::Lines(Batch { request_count: 3, ..Batch::default() });
        let tool = ToolUsage { tool: "t".to_owned(), calls: 1_000_001, run_ms: MAX_AUDIO_MS + 1 };
        let usage = Usage {
            input_tokens: MAX_COUNT + 1,
            output_tokens: MAX_COUNT,
            characters: 3 * MAX_COUNT + 1,
            audio_ms: MAX_AUDIO_MS + 1,
            tools: vec![tool],
            request_count: 3,
            ..Usage::default()
        };
        assert_eq!(
            fields(&usage, Operation::Chat),
            [
                "usage.request_count",
                "usage.input_tokens",
                "usage.character_count",
                "usage.audio_duration",
                "usage.tool_calls[0].call_count",
                "usage.tool_calls[0].run_duration",
            ]
        );
        assert_eq!(fields(&usage, three), ["usage.character_count"]);
        let usage = Usage { request_count: 4, ..Usage::default() };
        assert_eq!(fields(&usage, three), ["usage.request_count"]);
        assert_eq!(Most::largest().count, MAX_BATCH_COUNT);
    }
}
