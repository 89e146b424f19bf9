//! What one piece of an answer says: its usage, and how much text it carries.

use serde::Deserialize;
use serde_json::{Number, value::RawValue};

use super::json::TextBytes;
use crate::domain::request::Usage;

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

/// Usage under the names of either API.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Counts {
    #[serde(alias = "input_tokens")]
    prompt_tokens: Option<u64>,
    #[serde(alias = "output_tokens")]
    completion_tokens: Option<u64>,
    #[serde(alias = "input_tokens_details")]
    prompt_tokens_details: Option<Details>,
    #[serde(alias = "output_tokens_details")]
    completion_tokens_details: Option<Details>,
    seconds: Option<Number>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Details {
    cached_tokens: Option<u64>,
    reasoning_tokens: Option<u64>,
}

impl<'a> Piece<'a> {
    /// The piece in `json`; `None` where it cannot be read.
    pub(super) fn parse(json: &'a [u8]) -> Option<Self> {
        serde_json::from_slice(json).ok()
    }

    /// The usage, wherever it stands.
    pub(super) fn usage(&self) -> Option<Usage> {
        let inside = |raw| as_form::<Inner<'a>>(raw).and_then(|inner| inner.usage);
        // An event that only begins a response tells of what it will use, which is nothing yet.
        let response = self.response.filter(|_| self.ends_stream());
        [self.usage, inside(response), inside(self.x_groq)].into_iter().find_map(counted).or_else(|| {
            let audio_ms = milliseconds(&as_form(self.duration)?)?;
            Some(Usage { audio_ms, ..Usage::default() })
        })
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

/// The usage in `raw`; `None` where it holds none that can be meant.
fn counted(raw: Raw<'_>) -> Option<Usage> {
    let raw: Counts = as_form(raw)?;
    if raw.prompt_tokens.is_none() && raw.completion_tokens.is_none() && raw.seconds.is_none() {
        return None;
    }
    let [input_tokens, output_tokens] =
        [raw.prompt_tokens, raw.completion_tokens].map(|count| count.unwrap_or_default());
    if input_tokens > MAX_COUNT || output_tokens > MAX_COUNT {
        return None;
    }
    let cached = raw.prompt_tokens_details.and_then(|details| details.cached_tokens).unwrap_or_default();
    let reasoning =
        raw.completion_tokens_details.and_then(|details| details.reasoning_tokens).unwrap_or_default();
    let audio_ms = match &raw.seconds {
        Some(seconds) => milliseconds(seconds)?,
        None => 0,
    };
    Some(Usage {
        input_tokens,
        cached_input_tokens: cached.min(input_tokens),
        output_tokens,
        reasoning_tokens: reasoning.min(output_tokens),
        audio_ms,
        ..Usage::default()
    })
}

/// Seconds as whole milliseconds, rounded up: by the digits, as a floating product can come out a hair above.
fn milliseconds(seconds: &Number) -> Option<u64> {
    let text = seconds.to_string();
    let (whole, fraction) = text.split_once('.').unwrap_or((&text, ""));
    let whole = whole.parse::<u64>().ok()?;
    if !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let digits = fraction.bytes().chain(std::iter::repeat(b'0')).take(3);
    let thousandths = digits.fold(0, |sum, digit| sum * 10 + u64::from(digit - b'0'));
    let rest = fraction.bytes().skip(3).any(|digit| digit != b'0');
    let ms = whole.checked_mul(1000)?.checked_add(thousandths)?.checked_add(u64::from(rest))?;
    (ms <= MAX_AUDIO_MS).then_some(ms)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn usage(json: &str) -> Option<Usage> {
        Piece::parse(json.as_bytes()).unwrap().usage()
    }

    #[test]
    fn usage_is_found_wherever_it_stands() {
        let chat = Usage {
            input_tokens: 10,
            cached_input_tokens: 4,
            output_tokens: 7,
            reasoning_tokens: 3,
            ..Usage::default()
        };
        let raw = r#"{"prompt_tokens":10,"completion_tokens":7,"total_tokens":17,"prompt_time":0.1,
            "prompt_tokens_details":{"cached_tokens":4},"completion_tokens_details":{"reasoning_tokens":3}}"#;
        let other = r#"{"input_tokens":10,"output_tokens":7,"input_tokens_details":{"cached_tokens":4},
            "output_tokens_details":{"reasoning_tokens":3}}"#;
        for json in [
            format!(r#"{{"choices":[],"usage":{raw}}}"#),
            format!(r#"{{"choices":[],"usage":null,"x_groq":{{"id":"x","usage":{raw}}}}}"#),
            format!(r#"{{"usage":{raw},"x_groq":{{"usage":{raw}}}}}"#),
            format!(r#"{{"object":"response","usage":{other}}}"#),
            format!(r#"{{"type":"response.completed","response":{{"id":"r","usage":{other}}}}}"#),
        ] {
            assert_eq!(usage(&json), Some(chat.clone()), "{json}");
        }
    }

    #[test]
    fn usage_that_cannot_be_meant_is_none() {
        for json in [
            r#"{"usage":null}"#,
            r#"{"usage":{}}"#,
            r#"{"usage":{"prompt_tokens":-1}}"#,
            r#"{"usage":{"prompt_tokens":1e30}}"#,
            r#"{"usage":{"prompt_tokens":100000001}}"#,
            r#"{"x_groq":{"id":"x"}}"#,
        ] {
            assert_eq!(usage(json), None, "{json}");
        }
        let capped = usage(r#"{"usage":{"prompt_tokens":1,"prompt_tokens_details":{"cached_tokens":5}}}"#);
        assert_eq!(capped.map(|usage| usage.cached_input_tokens), Some(1));
    }

    #[test]
    fn an_odd_field_does_not_hide_another() {
        for odd in
            [r#""duration":"8.5""#, r#""x_groq":"id""#, r#""type":5"#, r#""choices":{}"#, r#""error":null"#]
        {
            let json = format!(r#"{{{odd},"usage":{{"prompt_tokens":5,"completion_tokens":7}}}}"#);
            assert_eq!(usage(&json).map(|usage| usage.output_tokens), Some(7), "{odd}");
        }
        let begun =
            r#"{"type":"response.created","response":{"usage":{"input_tokens":0,"output_tokens":0}}}"#;
        assert_eq!(usage(begun), None);
    }

    #[test]
    fn audio_is_exact_to_the_millisecond() {
        for (seconds, ms) in
            [("12.5", 12_500), ("5.05", 5_050), ("0.1", 100), ("10", 10_000), ("3.0001", 3_001), ("0", 0)]
        {
            let read = usage(&format!(r#"{{"text":"x","duration":{seconds}}}"#)).unwrap();
            assert_eq!(read.audio_ms, ms, "{seconds}");
        }
        assert_eq!(usage(r#"{"usage":{"type":"duration","seconds":7}}"#).unwrap().audio_ms, 7_000);
        for seconds in ["-1", "1e300", "99999999"] {
            assert_eq!(usage(&format!(r#"{{"duration":{seconds}}}"#)), None, "{seconds}");
        }
    }

    #[test]
    fn all_that_a_model_wrote_is_output() {
        for (json, bytes) in [
            (r#"{"choices":[{"delta":{"content":"abc"}}]}"#, 3),
            (r#"{"choices":[{"delta":{"content":null,"reasoning":"ü"}}]}"#, 2),
            (r#"{"choices":[{"delta":{"tool_calls":[{"function":{"name":"f","arguments":"{}"}}]}}]}"#, 3),
            (r#"{"choices":[{"message":{"content":"ab"}},{"message":{"content":"c"}}]}"#, 3),
            (r#"{"type":"response.output_text.delta","delta":"abcd"}"#, 4),
            (r#"{"type":"response.output_text.done","text":"abcd"}"#, 0),
            (r#"{"text":"abc"}"#, 3),
        ] {
            assert_eq!(Piece::parse(json.as_bytes()).unwrap().output_bytes(), bytes, "{json}");
        }
    }
}
