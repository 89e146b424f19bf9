//! What one piece of an answer contains: its usage, and how much text it carries.

use serde::Deserialize;
use serde_json::value::RawValue;

use super::{
    decimal::{Scaled, scaled},
    json::{Raw, TextBytes, raw_fields},
};
use crate::domain::bounds::{MAX_AUDIO_MS, MAX_COUNT};

/// An answer, or one event of a streamed one: chat, responses, embeddings or audio. Each field is parsed separately, so a
/// malformed one does not hide another; unknown fields are skipped.
#[derive(Debug)]
pub(super) struct Piece<'a> {
    /// For an event of the Responses API.
    kind: Raw<'a>,
    usage: Raw<'a>,
    x_groq: Raw<'a>,
    choices: Raw<'a>,
    /// For an event that describes a whole response.
    response: Raw<'a>,
    /// For an event that carries text: a string.
    delta: Raw<'a>,
    /// The text of a transcription, or the output of a response.
    text: Raw<'a>,
    output: Raw<'a>,
    /// Seconds of audio.
    duration: Raw<'a>,
    error: Raw<'a>,
}

/// The value, if it has the expected form.
fn as_form<'a, T: Deserialize<'a>>(raw: Raw<'a>) -> Option<T> {
    serde_json::from_str(raw?.get()).ok()
}

/// The values of these fields, if it is an object.
fn parts<'a, const N: usize>(raw: &'a RawValue, names: [&'static str; N]) -> Option<[Raw<'a>; N]> {
    raw_fields(raw.get(), names)
}

/// The value of one field, if it is in an object.
fn inside<'a>(raw: Raw<'a>, name: &'static str) -> Raw<'a> {
    parts(raw?, [name]).and_then(|[value]| value)
}

/// The usage that an answer reports. Each count is independent: an unreadable one does not hide another.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Input tokens, cached included.
    pub input_tokens: Option<u64>,
    /// Input tokens read from the cache.
    pub cached_input_tokens: Option<u64>,
    /// Output tokens, reasoning included.
    pub output_tokens: Option<u64>,
    /// Reasoning tokens.
    pub reasoning_tokens: Option<u64>,
    /// Audio in milliseconds, by the larger of its values.
    pub audio_ms: Option<u64>,
    /// Whether a count is invalid: negative, a fraction, too large, or not a number at all.
    pub odd: bool,
}

impl Counts {
    /// Whether it reports anything that is billed.
    #[must_use]
    pub const fn tells(&self) -> bool {
        self.input_tokens.is_some() || self.output_tokens.is_some() || self.audio_ms.is_some()
    }

    /// These counts, with missing ones taken from `other`.
    #[must_use]
    pub fn or(self, other: &Self) -> Self {
        // Cached tokens are part of the input count from the same source.
        let cached = if self.input_tokens.is_some() { None } else { other.cached_input_tokens };
        let reasoning = if self.output_tokens.is_some() { None } else { other.reasoning_tokens };
        Self {
            input_tokens: self.input_tokens.or(other.input_tokens),
            cached_input_tokens: self.cached_input_tokens.or(cached),
            output_tokens: self.output_tokens.or(other.output_tokens),
            reasoning_tokens: self.reasoning_tokens.or(reasoning),
            audio_ms: self.audio_ms.or(other.audio_ms),
            odd: self.odd || other.odd,
        }
    }

    /// The counts of a usage with the names of either API, one by one.
    fn of(usage: &RawValue) -> Self {
        const NAMES: [&str; 10] = [
            "prompt_tokens",
            "input_tokens",
            "completion_tokens",
            "output_tokens",
            "prompt_tokens_details",
            "input_tokens_details",
            "completion_tokens_details",
            "output_tokens_details",
            "total_tokens",
            "seconds",
        ];
        let Some([prompt, input, completion, output, details @ .., total, seconds]) = parts(usage, NAMES)
        else {
            return Self { odd: true, ..Self::default() };
        };
        let mut odd = false;
        let mut read = |values: &[Raw<'_>]| {
            values.iter().flatten().find_map(|value| {
                let count = count(value.get());
                odd |= count.is_none();
                count
            })
        };
        let mut counts = Self {
            input_tokens: read(&[prompt, input]),
            output_tokens: read(&[completion, output]),
            ..Self::default()
        };
        // The sum gives the part that is missing or unreadable.
        if let Some(total) = read(&[total]) {
            let (input, output) = (counts.input_tokens, counts.output_tokens);
            counts.input_tokens = input.or_else(|| total.checked_sub(output?));
            counts.output_tokens = output.or_else(|| total.checked_sub(input?));
        }
        let is_detail_odd = details.into_iter().flatten().any(|details| parts(details, []).is_none());
        let [of_prompt, of_input, of_completion, of_output] = details;
        let cached = [of_prompt, of_input].map(|details| inside(details, "cached_tokens"));
        let reasoning = [of_completion, of_output].map(|details| inside(details, "reasoning_tokens"));
        counts.cached_input_tokens = read(&cached);
        counts.reasoning_tokens = read(&reasoning);
        counts.audio_ms = seconds.and_then(|seconds| {
            let ms = milliseconds(seconds.get());
            odd |= ms.is_none();
            ms
        });
        // A usage without anything that is billed was not understood.
        counts.odd = odd || is_detail_odd || !counts.tells();
        counts
    }
}

impl<'a> Piece<'a> {
    /// The piece in `json`; `None` if it is not an object.
    pub(super) fn parse(json: &'a str) -> Option<Self> {
        const NAMES: [&str; 10] = [
            "type", "usage", "x_groq", "choices", "response", "delta", "text", "output", "duration", "error",
        ];
        let [kind, usage, x_groq, choices, response, delta, text, output, duration, error] =
            raw_fields(json, NAMES)?;
        Some(Self { kind, usage, x_groq, choices, response, delta, text, output, duration, error })
    }

    /// The usage, from all its possible places. If a count is in several places, the first one applies; for audio, the
    /// longest.
    pub(super) fn usage(&self) -> Counts {
        // An event that only begins a response describes usage that has not happened yet.
        let response = self.response.filter(|_| self.ends_stream());
        let places = [self.usage, inside(response, "usage"), inside(self.x_groq, "usage")];
        let mut counts = Counts::default();
        for told in places.into_iter().flatten().map(Counts::of) {
            let audio_ms = counts.audio_ms.max(told.audio_ms);
            counts = Counts { audio_ms, ..counts.or(&told) };
        }
        // Groq bills the length of the audio, whatever else the answer states.
        if let Some(duration) = self.duration {
            let ms = milliseconds(duration.get());
            counts.odd |= ms.is_none();
            counts.audio_ms = counts.audio_ms.max(ms);
        }
        counts
    }

    /// The bytes of the model's output. Of the Responses API's events only the deltas count: others repeat them.
    pub(super) fn output_bytes(&self) -> u64 {
        if let Some(kind) = self.kind() {
            return if kind.ends_with(".delta") { text_bytes(self.delta) } else { 0 };
        }
        let choices = each(self.choices, choice_bytes);
        choices.saturating_add(text_bytes(self.text)).saturating_add(text_bytes(self.output))
    }

    fn kind(&self) -> Option<String> {
        as_form(self.kind)
    }

    /// Whether it completes a stream.
    pub(super) fn ends_stream(&self) -> bool {
        let ends = ["response.completed", "response.incomplete", "response.failed"];
        self.kind().is_some_and(|kind| ends.contains(&kind.as_str()))
    }

    /// Whether it reports an error.
    pub(super) fn is_error(&self) -> bool {
        self.error.is_some() || inside(self.x_groq, "error").is_some()
    }
}

/// The bytes of all text in a value.
fn text_bytes(raw: Raw<'_>) -> u64 {
    as_form::<TextBytes>(raw).unwrap_or_default().0
}

/// The sum over the elements of a list; for anything else, all its text.
fn each<'a>(raw: Raw<'a>, bytes: fn(&'a RawValue) -> u64) -> u64 {
    match as_form::<Vec<&'a RawValue>>(raw) {
        Some(list) => list.into_iter().map(bytes).fold(0, u64::saturating_add),
        None => text_bytes(raw),
    }
}

/// The sum over these fields of an object; for anything else, all its text.
fn within<'a, const N: usize>(
    raw: Raw<'a>,
    names: [&'static str; N],
    bytes: fn(&'static str, Raw<'a>) -> u64,
) -> u64 {
    match raw.and_then(|raw| parts(raw, names)) {
        Some(values) => {
            names.into_iter().zip(values).fold(0, |sum, (name, value)| sum.saturating_add(bytes(name, value)))
        }
        None => text_bytes(raw),
    }
}

fn choice_bytes(choice: &RawValue) -> u64 {
    within(Some(choice), ["delta", "message"], |_, message| {
        within(message, ["content", "reasoning", "tool_calls"], |name, value| match name {
            "tool_calls" => each(value, call_bytes),
            _ => text_bytes(value),
        })
    })
}

fn call_bytes(call: &RawValue) -> u64 {
    within(Some(call), ["function"], |_, function| {
        within(function, ["name", "arguments"], |_, value| text_bytes(value))
    })
}

/// A count, including one written as a string or with a zero fraction; `None` if it is invalid.
fn count(json: &str) -> Option<u64> {
    let Scaled { units, has_rest } = scaled(unquoted(json), 0)?;
    (!has_rest && units <= MAX_COUNT).then_some(units)
}

/// Seconds as whole milliseconds, rounded up.
fn milliseconds(json: &str) -> Option<u64> {
    let Scaled { units, has_rest } = scaled(unquoted(json), 3)?;
    let ms = units.saturating_add(u64::from(has_rest));
    (ms <= MAX_AUDIO_MS).then_some(ms)
}

/// The content of a string, or the value as it is.
fn unquoted(json: &str) -> &str {
    json.strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap_or(json).trim()
}

#[cfg(test)]
mod tests;
