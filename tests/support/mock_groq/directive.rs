//! What a prompt may ask of the mock.

use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;

const PREFIX: &str = "mock:";

/// The JSON object after `mock:`. Every field may be left out; an unknown one is an error, since it is a slip of the test.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Directive {
    /// Instead of one for three bytes of the body.
    pub(crate) prompt_tokens: Option<u64>,
    /// Of the prompt, those that the cache had.
    pub(crate) cached_tokens: u64,
    /// Instead of 20. The request's own bound holds all the same.
    pub(crate) completion_tokens: Option<u64>,
    /// Of the completion, those before the answer proper; in a stream they come first, one a chunk.
    pub(crate) reasoning_tokens: u64,
    /// From 400: an error answer with this status.
    pub(crate) status: Option<u16>,
    /// Seconds, in a 429.
    pub(crate) retry_after: Option<u64>,
    /// Of a stream: the connection breaks after so many chunks with a token.
    pub(crate) cut_after: Option<u64>,
    /// Of a stream: nothing comes for 30 s after so many chunks with a token.
    pub(crate) stall_after: Option<u64>,
    /// Before the answer begins.
    pub(crate) delay_ms: u64,
    /// Between the pieces of a stream.
    pub(crate) chunk_ms: u64,
    /// JSON is compressed if the client takes it.
    pub(crate) gzip: bool,
    /// JSON is compressed whether the client takes it or not.
    pub(crate) force_gzip: bool,
    /// The answer says nothing about usage; it is billed by what was sent both ways.
    pub(crate) no_usage: bool,
    /// Of a transcription, in seconds, instead of 12.5.
    pub(crate) duration: Option<f64>,
    /// The body is written in pieces of so many bytes, whatever they cut apart.
    pub(crate) split: Option<usize>,
}

impl Directive {
    /// The directive in a text. A text without one is a directive to do as usual; so is one that cannot be read, since a real
    /// prompt may contain anything.
    pub(crate) fn in_text(text: &str) -> Self {
        let Some((_, rest)) = text.split_once(PREFIX) else { return Self::default() };
        let mut objects = serde_json::Deserializer::from_str(rest).into_iter();
        objects.next().and_then(Result::ok).unwrap_or_default()
    }

    /// In a string, or in the last item of a list: of `messages` or `input`, whose items may have a `content` that is a list
    /// of parts with `text`.
    pub(crate) fn in_value(value: Option<&Value>) -> Self {
        match value {
            Some(Value::String(text)) => Self::in_text(text),
            Some(Value::Array(items)) => Self::in_value(items.last()),
            Some(Value::Object(item)) => Self::in_value(item.get("content").or_else(|| item.get("text"))),
            _ => Self::default(),
        }
    }

    /// The status of the error that is asked for.
    pub(crate) fn refuses(&self) -> Option<u16> {
        self.status.filter(|status| *status >= 400)
    }

    pub(crate) fn delay(&self) -> Option<Duration> {
        (self.delay_ms > 0).then(|| Duration::from_millis(self.delay_ms))
    }
}
