//! What a caller requests and reports, validated at the edge.

use std::{collections::HashMap, fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use super::batch::{Batch, Work};

/// What a Groq request does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Operation {
    /// Chat completions.
    #[serde(rename = "chat_completion")]
    Chat,
    /// Responses.
    #[serde(rename = "response")]
    Responses,
    /// Speech to text.
    Transcription,
    /// Speech to English text.
    Translation,
    /// Text to speech.
    Speech,
    /// Embeddings.
    #[serde(rename = "embedding")]
    Embeddings,
    /// A batch; [`super::batch::Batch`] holds its details.
    Batch,
}

impl Operation {
    /// Every operation.
    pub const ALL: [Self; 7] = [
        Self::Chat,
        Self::Responses,
        Self::Transcription,
        Self::Translation,
        Self::Speech,
        Self::Embeddings,
        Self::Batch,
    ];

    /// The short form of the contract's name, as policies, logs and the command line have it: `chat_completion`, `response`,
    /// `transcription`, `translation`, `speech`, `embedding`, `batch`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Chat => "chat_completion",
            Self::Responses => "response",
            Self::Transcription => "transcription",
            Self::Translation => "translation",
            Self::Speech => "speech",
            Self::Embeddings => "embedding",
            Self::Batch => "batch",
        }
    }

    /// The operation that Groq's API calls `text` in its paths, which is what people write where they mean its name here.
    #[must_use]
    pub fn of_path(text: &str) -> Option<Self> {
        match text {
            "chat" | "chat_completions" | "chat/completions" | "completions" => Some(Self::Chat),
            "responses" => Some(Self::Responses),
            "transcriptions" => Some(Self::Transcription),
            "translations" => Some(Self::Translation),
            "embeddings" => Some(Self::Embeddings),
            "batches" => Some(Self::Batch),
            _ => None,
        }
    }

    /// How the operation is billed. A batch is billed as lines of chat unless [`super::batch::Work`] says otherwise.
    #[must_use]
    pub const fn billing(self) -> Billing {
        match self {
            Self::Chat | Self::Responses | Self::Batch => Billing::Tokens,
            Self::Embeddings => Billing::InputTokens,
            Self::Transcription | Self::Translation => Billing::Audio,
            Self::Speech => Billing::Characters,
        }
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Operation {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        Self::ALL.into_iter().find(|operation| operation.name() == text).ok_or(())
    }
}

/// What an operation is billed by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Billing {
    /// Input and output tokens, cached input at its own price.
    Tokens,
    /// Input tokens only.
    InputTokens,
    /// Duration of audio.
    Audio,
    /// Characters.
    Characters,
}

/// Groq's service tier.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ServiceTier {
    /// List price.
    #[default]
    OnDemand,
    /// List price.
    Flex,
    /// Groq picks on-demand or flex; list price.
    Auto,
    /// Priced by contract.
    Performance,
}

impl ServiceTier {
    /// Every tier.
    pub const ALL: [Self; 4] = [Self::OnDemand, Self::Flex, Self::Auto, Self::Performance];

    /// Groq's name of it: `on_demand`, `flex`, `auto`, `performance`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::OnDemand => "on_demand",
            Self::Flex => "flex",
            Self::Auto => "auto",
            Self::Performance => "performance",
        }
    }
}

impl FromStr for ServiceTier {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        Self::ALL.into_iter().find(|tier| tier.name() == text).ok_or(())
    }
}

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// Groq answered in full.
    Completed,
    /// The stream was cut off.
    Aborted,
    /// Groq answered with an error.
    Failed,
    /// Groq answered 429.
    RateLimited,
    /// The request never reached Groq.
    NotSent,
}

impl Outcome {
    /// All of them, in their order.
    pub const ALL: [Self; 5] =
        [Self::Completed, Self::Aborted, Self::Failed, Self::RateLimited, Self::NotSent];

    /// The short form of the contract's name, such as `rate_limited`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Completed => "completed",
            Self::Aborted => "aborted",
            Self::Failed => "failed",
            Self::RateLimited => "rate_limited",
            Self::NotSent => "not_sent",
        }
    }
}

/// The bytes per token that estimates assume if only a size is known. English has about four bytes per token, code and
/// other scripts about three; the estimate errs on the large side.
const BYTES_PER_TOKEN: u64 = 3;

/// The estimated tokens in `bytes` of text that has not been counted.
#[must_use]
pub const fn tokens_of_bytes(bytes: u64) -> u64 {
    bytes.div_ceil(BYTES_PER_TOKEN)
}

/// The estimated worst case of a request: the basis of its cost and its holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Size {
    /// Estimated input tokens.
    pub input_tokens: u64,
    /// Output tokens requested; 0: not given.
    pub max_output_tokens: u64,
    /// Audio in milliseconds.
    pub audio_ms: u64,
    /// Characters to convert to speech.
    pub characters: u64,
}

/// The caller.
#[derive(Clone, PartialEq, Eq)]
pub enum Caller {
    /// A team, by name.
    Team(String),
    /// The SHA-256 of a virtual key's secret; the secret itself never leaves the edge.
    Key([u8; 32]),
    /// A secret with a wrong checksum: it belongs to no key.
    Mistyped,
}

/// A request to be decided.
#[derive(Clone)]
pub struct AuthorizeRequest {
    /// The caller.
    pub caller: Caller,
    /// The end user; empty: not given.
    pub user: String,
    /// The idempotency key; empty: not given.
    pub request_id: String,
    /// Groq's model name.
    pub model: String,
    /// What the request does.
    pub operation: Operation,
    /// Groq's service tier.
    pub service_tier: ServiceTier,
    /// What a batch declares about itself; `None` for everything else.
    pub batch: Option<Batch>,
    /// Groq's built-in tools that the request enables.
    pub tools: Vec<String>,
    /// Its estimated worst case.
    pub size: Size,
    /// The part of `size.input_tokens` that Groq may add by itself: results of its tools, images behind links. They are
    /// billed, so budgets hold them; rates count them once they are reported.
    pub unseen_input_tokens: u64,
    /// The output that the request asks Groq for cannot be lowered, so it is granted in full or refused, never clamped.
    pub fixed_output: bool,
    /// How long to wait for capacity, in milliseconds.
    pub max_wait_ms: u64,
    /// Decide only, without reserving.
    pub dry_run: bool,
    /// Text for the log line of the decision.
    pub labels: HashMap<String, String>,
}

impl AuthorizeRequest {
    /// The work to price.
    #[must_use]
    pub fn work(&self) -> Work {
        Work::new(self.operation, self.batch)
    }
}

/// The actual usage of a request.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// Input tokens, cached included.
    pub input_tokens: u64,
    /// Input tokens read from the cache, at most `input_tokens`.
    pub cached_input_tokens: u64,
    /// Output tokens, reasoning included.
    pub output_tokens: u64,
    /// Reasoning tokens, at most `output_tokens`.
    pub reasoning_tokens: u64,
    /// Audio in milliseconds.
    pub audio_ms: u64,
    /// Characters.
    pub characters: u64,
    /// Built-in tools.
    pub tools: Vec<ToolUsage>,
    /// Lines of a batch that were answered; 0: all of them.
    pub request_count: u64,
}

/// The use of a built-in tool.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ToolUsage {
    /// Groq's name with its action.
    pub tool: String,
    /// How often it ran.
    pub calls: u64,
    /// How long it ran, in milliseconds.
    pub run_ms: u64,
}

/// What is known about usage that has no reservation.
#[derive(Clone)]
pub struct Unreserved {
    /// The caller.
    pub caller: Caller,
    /// The end user; empty: not given.
    pub user: String,
    /// The idempotency key.
    pub request_id: String,
    /// Groq's model name.
    pub model: String,
    /// What the request did.
    pub operation: Operation,
    /// What a batch contained; `None` for everything else.
    pub batch: Option<Batch>,
    /// Groq's service tier.
    pub service_tier: ServiceTier,
    /// Those that reports know are dimensions of its usage.
    pub labels: HashMap<String, String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_operation_is_stored_under_its_name() {
        for operation in Operation::ALL {
            assert_eq!(serde_json::to_value(operation).unwrap(), operation.name());
            assert_eq!(operation.name().parse(), Ok(operation));
        }
    }

    #[test]
    fn what_groq_calls_an_operation_is_no_name_of_it() {
        for (path, operation) in [
            ("chat", Operation::Chat),
            ("responses", Operation::Responses),
            ("transcriptions", Operation::Transcription),
            ("translations", Operation::Translation),
            ("embeddings", Operation::Embeddings),
            ("batches", Operation::Batch),
        ] {
            assert_eq!((Operation::of_path(path), path.parse::<Operation>()), (Some(operation), Err(())));
        }
        assert_eq!(Operation::of_path("speech"), None);
    }
}
