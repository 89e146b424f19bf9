//! Reads what a decision needs from a request's body, and keeps nothing else.
//!
//! A body that another reader could interpret differently is refused: two fields with the same name, names that differ only
//! in case (Groq's own reader may ignore case), anything after the end.

use super::{
    error::ApiError,
    fields::{self, Fields, Scalar},
    multipart,
};
use crate::domain::{
    batch::Batch,
    bounds::MAX_COUNT,
    name::{MAX_MODEL_BYTES, MAX_USER_BYTES},
    request::{Operation, ServiceTier},
};

/// The most answers per request; OpenAI's own bound.
const MAX_CHOICES: u64 = 128;

/// What a request to Groq asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GroqRequest {
    /// The model.
    pub model: String,
    /// The most output tokens of each choice: the larger of `max_tokens` and `max_completion_tokens`, or
    /// `max_output_tokens`. `None`: not given.
    pub max_output_tokens: Option<u64>,
    /// How many answers are requested; at least 1.
    pub choices: u64,
    /// Whether the answer is streamed.
    pub stream: bool,
    /// Whether the model's reasoning, which also counts as output, is omitted from the answer.
    pub hides_reasoning: bool,
    /// The service tier.
    pub service_tier: ServiceTier,
    /// The end user; empty: not given.
    pub user: String,
    /// The input: the bytes of the body, from which tokens are estimated.
    pub input_bytes: u64,
    /// Whether Groq adds input that is not in the body: results of its own tools, images behind links.
    pub has_unseen_input: bool,
    /// Groq's built-in tools that the request enables.
    pub tools: Vec<String>,
    /// What a batch declares about itself.
    pub batch: Option<Batch>,
    /// Milliseconds of audio that the request itself declares (a batch).
    pub audio_ms: u64,
    /// Tokens of input that the request itself declares (a batch).
    pub input_tokens: u64,
    /// Characters to convert to speech.
    pub characters: u64,
    /// Bytes of audio.
    pub audio_bytes: u64,
}

/// Reads the `body` of a request for `operation`.
///
/// # Errors
/// The fault, in the words that the client sees.
pub fn read(operation: Operation, content_type: &str, body: &[u8]) -> Result<GroqRequest, ApiError> {
    if body.is_empty() {
        return Err(ApiError::invalid("", "the request has no body"));
    }
    let request = match operation {
        Operation::Transcription | Operation::Translation => {
            multipart::read(content_type, body)?.request()?
        }
        _ if !is_json(content_type) => {
            return Err(ApiError::invalid("", "the body must be sent with `content-type: application/json`"));
        }
        _ => fields::read(Some(operation), body)?.request(operation, body)?,
    };
    if request.model.is_empty() {
        return Err(ApiError::invalid("model", "`model` is required"));
    }
    if request.model.len() > MAX_MODEL_BYTES || request.model.chars().any(char::is_control) {
        let message = format!("`model` must have at most {MAX_MODEL_BYTES} bytes and no control characters");
        return Err(ApiError::invalid("model", message));
    }
    check_user(&request.user)?;
    Ok(request)
}

/// Whether `user` may name an end user.
///
/// # Errors
/// The fault, in the words that the client sees.
pub fn check_user(user: &str) -> Result<(), ApiError> {
    if user.len() > MAX_USER_BYTES || user.chars().any(char::is_control) {
        let message = format!("`user` must have at most {MAX_USER_BYTES} bytes and no control characters");
        return Err(ApiError::invalid("user", message));
    }
    Ok(())
}

/// Whether every reader takes a body of this type as JSON, in the only encoding that JSON has (or its ASCII subset).
fn is_json(content_type: &str) -> bool {
    let mut parts = content_type.split(';').map(str::trim);
    let media = parts.next().unwrap_or_default();
    let utf8 = |part: &str| {
        let (name, value) = part.split_once('=').unwrap_or((part, ""));
        let value = value.trim().trim_matches(['"', '\'']).to_ascii_lowercase();
        !name.trim().eq_ignore_ascii_case("charset")
            || matches!(value.as_str(), "" | "utf-8" | "utf8" | "us-ascii" | "ascii")
    };
    media.eq_ignore_ascii_case("application/json") && parts.all(utf8)
}

impl Fields {
    fn request(self, operation: Operation, body: &[u8]) -> Result<GroqRequest, ApiError> {
        let model = self.model.text("model")?;
        let tools = match operation {
            Operation::Chat | Operation::Responses => self.built_in_tools(&model)?,
            _ => Vec::new(),
        };
        let mut request = GroqRequest {
            model,
            choices: 1,
            service_tier: service_tier(&self.service_tier)?,
            user: self.user.text("user")?,
            has_unseen_input: self.fetches || !tools.is_empty(),
            tools,
            ..GroqRequest::default()
        };
        match operation {
            Operation::Chat => {
                let limits = [
                    self.max_tokens.count("max_tokens")?,
                    self.max_completion_tokens.count("max_completion_tokens")?,
                ];
                request.max_output_tokens = limits.into_iter().flatten().max();
                request.choices = self.n.count("n")?.unwrap_or(1);
                if !(1..=MAX_CHOICES).contains(&request.choices) {
                    return Err(ApiError::invalid("n", format!("`n` must be from 1 to {MAX_CHOICES}")));
                }
                request.stream = self.stream.flag("stream")?.unwrap_or(false);
                let format = self.reasoning_format.text("reasoning_format")?;
                let included = self.include_reasoning.flag("include_reasoning")?;
                request.hides_reasoning = format == "hidden" || included == Some(false);
                request.input_bytes = length(body);
            }
            Operation::Responses => {
                self.is_bounded()?;
                request.max_output_tokens = self.max_output_tokens.count("max_output_tokens")?;
                request.stream = self.stream.flag("stream")?.unwrap_or(false);
                request.input_bytes = length(body);
            }
            Operation::Speech => {
                let missing = || ApiError::invalid("input", "`input` is required: the text to speak");
                request.characters = self.input_characters.ok_or_else(missing)?.min(MAX_COUNT);
            }
            Operation::Batch => self.declared(&mut request)?,
            Operation::Embeddings | Operation::Transcription | Operation::Translation => {
                request.input_bytes = length(body);
            }
        }
        if request.max_output_tokens == Some(0) {
            let message = "the most output tokens of a request must be at least 1";
            return Err(ApiError::invalid("max_completion_tokens", message));
        }
        Ok(request)
    }

    /// The request and the answer must determine what a response can cost: no input that was stored earlier, and no work
    /// that continues after the answer.
    fn is_bounded(&self) -> Result<(), ApiError> {
        for (param, value) in [
            ("previous_response_id", &self.previous_response_id),
            ("conversation", &self.conversation),
            ("prompt", &self.prompt),
        ] {
            if *value != Scalar::Null {
                let message =
                    format!("`{param}` brings in what is not in the request, so its cost has no bound");
                return Err(ApiError::invalid(param, message));
            }
        }
        if self.background.flag("background")? == Some(true) {
            let message = "a response in the background has no answer that tells what it cost";
            return Err(ApiError::invalid("background", message));
        }
        Ok(())
    }
}

fn length(body: &[u8]) -> u64 {
    u64::try_from(body.len()).unwrap_or(u64::MAX)
}

/// The service tier with this name; empty: not given.
fn service_tier(value: &Scalar) -> Result<ServiceTier, ApiError> {
    match value.text("service_tier")?.as_str() {
        // `default` is OpenAI's name for it, which its SDKs may send.
        "" | "default" => Ok(ServiceTier::OnDemand),
        name => name.parse().map_err(|()| {
            let names = ServiceTier::ALL.map(ServiceTier::name).join(", ");
            ApiError::invalid("service_tier", format!("`service_tier` must be one of {names}"))
        }),
    }
}

#[cfg(test)]
mod tests;
