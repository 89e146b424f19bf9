//! What one piece of an answer says: its usage, and how much text it carries.

use serde::Deserialize;
use serde_json::value::RawValue;

use super::json::TextBytes;

/// Tokens of one request: far above any model, far below what could overflow a sum.
const MAX_COUNT: u64 = 100_000_000;
/// Audio of one request: 100 hours, as the contract has it.
const MAX_AUDIO_MS: u64 = 100 * 3_600_000;

/// An answer, or one event of a streamed one: of chat, responses, embeddings or audio. Each field is read by itself, so that
/// one of an odd form does not hide another; what is not read is skipped.
#[derive(Debug, Default, Deserialize)]
#[serde(default, bound(deserialize = "'de: 'a"))]
pub(super) struct Piece<'a> {
    /// Of an event of the Responses API.
    #[serde(rename = "type")]
    kind: Raw<'a>,
    usage: Raw<'a>,
    x_groq: Raw<'a>,
    choices: Raw<'a>,
    /// Of an event that tells of a whole response.
    response: Raw<'a>,
    /// Of an event that carries text: a string.
    delta: Raw<'a>,
    /// The text of a transcription, or the output of a response.
    text: Raw<'a>,
    output: Raw<'a>,
    /// Seconds of audio.
    duration: Raw<'a>,
    error: Raw<'a>,
}

/// A value as it stands; `None`: not there, or `null`.
type Raw<'a> = Option<&'a RawValue>;

/// The value, if it has the form.
fn as_form<'a, T: Deserialize<'a>>(raw: Raw<'a>) -> Option<T> {
    serde_json::from_str(raw?.get()).ok()
}

/// What stands in `x_groq` or `response`.
#[derive(Debug, Default, Deserialize)]
#[serde(default, bound(deserialize = "'de: 'a"))]
struct Inner<'a> {
    usage: Raw<'a>,
    error: Raw<'a>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Choice {
    delta: Option<Message>,
    message: Option<Message>,
}

/// What a model wrote: all of it is output.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Message {
    content: TextBytes,
    reasoning: TextBytes,
    tool_calls: Option<Vec<ToolCall>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct ToolCall {
    function: Option<Function>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Function {
    name: TextBytes,
    arguments: TextBytes,
}

/// Usage under the names of either API, count by count.
#[derive(Debug, Default, Deserialize)]
#[serde(default, bound(deserialize = "'de: 'a"))]
struct RawUsage<'a> {
    prompt_tokens: Raw<'a>,
    input_tokens: Raw<'a>,
    completion_tokens: Raw<'a>,
    output_tokens: Raw<'a>,
    total_tokens: Raw<'a>,
    prompt_tokens_details: Raw<'a>,
    input_tokens_details: Raw<'a>,
    completion_tokens_details: Raw<'a>,
    output_tokens_details: Raw<'a>,
    seconds: Raw<'a>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, bound(deserialize = "'de: 'a"))]
struct Details<'a> {
    cached_tokens: Raw<'a>,
    reasoning_tokens: Raw<'a>,
}

/// What an answer says was used. Each count stands for itself: one that cannot be read does not hide another.
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
    /// Audio in milliseconds, by the larger of its readings.
    pub audio_ms: Option<u64>,
    /// Whether a count is there that cannot be meant: negative, a fraction, too large, no number at all.
    pub odd: bool,
}

impl Counts {
    /// Whether it says anything that is billed.
    #[must_use]
    pub const fn tells(&self) -> bool {
        self.input_tokens.is_some() || self.output_tokens.is_some() || self.audio_ms.is_some()
    }

    /// What it says, and where it says nothing, what `other` does.
    #[must_use]
    pub fn or(self, other: &Self) -> Self {
        // Cached tokens are a part of the input of the same word.
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

    fn of(raw: &RawUsage<'_>) -> Self {
        let mut odd = false;
        let mut read = |values: [Raw<'_>; 2]| {
            values.into_iter().flatten().find_map(|value| {
                let count = count(value.get());
                odd |= count.is_none();
                count
            })
        };
        let mut counts = Self {
            input_tokens: read([raw.prompt_tokens, raw.input_tokens]),
            output_tokens: read([raw.completion_tokens, raw.output_tokens]),
            ..Self::default()
        };
        let of_input = [raw.prompt_tokens_details, raw.input_tokens_details].map(details);
        let of_output = [raw.completion_tokens_details, raw.output_tokens_details].map(details);
        counts.cached_input_tokens = read(of_input.map(|details| details.cached_tokens));
        counts.reasoning_tokens = read(of_output.map(|details| details.reasoning_tokens));
        // The sum tells the part that is missing or cannot be read.
        if let Some(total) = read([raw.total_tokens, None]) {
            let (input, output) = (counts.input_tokens, counts.output_tokens);
            counts.input_tokens = input.or_else(|| total.checked_sub(output?));
            counts.output_tokens = output.or_else(|| total.checked_sub(input?));
        }
        counts.audio_ms = raw.seconds.and_then(|seconds| {
            let ms = milliseconds(seconds.get());
            odd |= ms.is_none();
            ms
        });
        counts.odd = odd;
        counts
    }
}

fn details(raw: Raw<'_>) -> Details<'_> {
    as_form(raw).unwrap_or_default()
}

impl<'a> Piece<'a> {
    /// The piece in `json`; `None` where it cannot be read.
    pub(super) fn parse(json: &'a [u8]) -> Option<Self> {
        serde_json::from_slice(json).ok()
    }

    /// The usage, wherever it stands; of counts that stand in several places, the first.
    pub(super) fn usage(&self) -> Counts {
        let inside = |raw| as_form::<Inner<'a>>(raw).and_then(|inner| inner.usage);
        // An event that only begins a response tells of what it will use, which is nothing yet.
        let response = self.response.filter(|_| self.ends_stream());
        let places = [self.usage, inside(response), inside(self.x_groq)];
        let told = places.into_iter().flatten().map(|raw| match as_form::<RawUsage<'_>>(Some(raw)) {
            Some(usage) => Counts::of(&usage),
            None => Counts { odd: true, ..Counts::default() },
        });
        let mut counts = told.fold(Counts::default(), |counts, told| counts.or(&told));
        // Groq bills the length of the audio, whatever else it tells beside.
        if let Some(duration) = self.duration {
            let ms = milliseconds(duration.get());
            counts.odd |= ms.is_none();
            counts.audio_ms = counts.audio_ms.max(ms);
        }
        counts
    }

    /// The bytes of what the model wrote. Of the Responses API's events only the deltas count: others repeat them.
    pub(super) fn output_bytes(&self) -> u64 {
        let bytes = |raw| as_form::<TextBytes>(raw).unwrap_or_default().0;
        if let Some(kind) = self.kind() {
            return if kind.ends_with(".delta") { bytes(self.delta) } else { 0 };
        }
        let choices: Vec<Choice> = as_form(self.choices).unwrap_or_default();
        let messages = choices.iter().flat_map(|choice| [&choice.delta, &choice.message]);
        let written = messages.flatten().map(Message::bytes).fold(0_u64, u64::saturating_add);
        written.saturating_add(bytes(self.text)).saturating_add(bytes(self.output))
    }

    fn kind(&self) -> Option<String> {
        as_form(self.kind)
    }

    /// Whether a stream is complete with it.
    pub(super) fn ends_stream(&self) -> bool {
        let ends = ["response.completed", "response.incomplete", "response.failed"];
        self.kind().is_some_and(|kind| ends.contains(&kind.as_str()))
    }

    /// Whether it tells of an error.
    pub(super) fn is_error(&self) -> bool {
        self.error.is_some() || as_form::<Inner<'a>>(self.x_groq).is_some_and(|groq| groq.error.is_some())
    }
}

impl Message {
    fn bytes(&self) -> u64 {
        let calls = self.tool_calls.iter().flatten().filter_map(|call| call.function.as_ref());
        let called = calls.map(|call| call.name.0.saturating_add(call.arguments.0));
        called.fold(self.content.0.saturating_add(self.reasoning.0), u64::saturating_add)
    }
}

/// A count, also one that is written as a string or as a fraction of zero; `None` where it cannot be meant.
fn count(json: &str) -> Option<u64> {
    let (whole, fraction) = decimal(json)?;
    let count = whole.parse::<u64>().ok()?;
    (fraction.bytes().all(|digit| digit == b'0') && count <= MAX_COUNT).then_some(count)
}

/// Seconds as whole milliseconds, rounded up: by the digits, as a floating product can come out a hair above.
fn milliseconds(json: &str) -> Option<u64> {
    let (whole, fraction) = decimal(json)?;
    let whole = whole.parse::<u64>().ok()?;
    let digits = fraction.bytes().chain(std::iter::repeat(b'0')).take(3);
    let thousandths = digits.fold(0, |sum, digit| sum * 10 + u64::from(digit - b'0'));
    let rest = fraction.bytes().skip(3).any(|digit| digit != b'0');
    let ms = whole.checked_mul(1000)?.checked_add(thousandths)?.checked_add(u64::from(rest))?;
    (ms <= MAX_AUDIO_MS).then_some(ms)
}

/// The digits before and after the point of a number that is not negative, in a string or not.
fn decimal(json: &str) -> Option<(&str, &str)> {
    let text = json.strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap_or(json).trim();
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    (digits(whole) && digits(fraction)).then_some((whole, fraction))
}

#[cfg(test)]
#[path = "usage_tests.rs"]
mod tests;
