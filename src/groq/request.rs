//! Reads from a request's body what a decision needs, and nothing else of it is kept.
//!
//! A body that another reader could take for something else is refused: two fields of one name, names that differ only in
//! case (Groq's own reader may not tell them apart), anything after the end.

use std::{borrow::Cow, collections::HashSet, fmt};

use serde::de::{Deserializer, Error as _, MapAccess, Visitor};
use serde_json::Value;

use super::{
    error::ApiError,
    json::{CHARACTERS, SKIP},
    multipart,
};
use crate::domain::request::{Operation, ServiceTier};

/// Fields of one body; the APIs have fewer than fifty.
const MAX_FIELDS: usize = 256;
/// Tokens, characters and choices of one request: far above any model, far below what could overflow a product.
const MAX_COUNT: u64 = 100_000_000;
/// Answers wanted of one request; OpenAI's own bound.
const MAX_CHOICES: u64 = 128;
/// As the contract of `Authorize` has it.
const MAX_MODEL_BYTES: usize = 256;
/// As the contract of `Authorize` has it.
const MAX_USER_BYTES: usize = 256;

/// What a request to Groq asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GroqRequest {
    /// The model.
    pub model: String,
    /// The most output tokens of each choice: the larger of `max_tokens` and `max_completion_tokens`, or
    /// `max_output_tokens`. `None`: not given.
    pub max_output_tokens: Option<u64>,
    /// How many answers are wanted; at least 1.
    pub choices: u64,
    /// Whether the answer is to be streamed.
    pub stream: bool,
    /// The service tier.
    pub service_tier: ServiceTier,
    /// The end user; empty: not given.
    pub user: String,
    /// What is sent as input: the bytes of the body, of which tokens are estimated.
    pub input_bytes: u64,
    /// Tokens of input that the request itself declares (a batch).
    pub input_tokens: u64,
    /// Characters to be spoken.
    pub characters: u64,
    /// Bytes of audio.
    pub audio_bytes: u64,
}

/// Reads the `body` of a request for `operation`.
///
/// # Errors
/// What is wrong with it, as the client is told.
pub fn read(operation: Operation, content_type: &str, body: &[u8]) -> Result<GroqRequest, ApiError> {
    if body.is_empty() {
        return Err(ApiError::invalid("", "the request has no body"));
    }
    let request = match operation {
        Operation::Transcription | Operation::Translation => {
            multipart::read(content_type, body)?.request()?
        }
        _ => fields(body)?.request(operation, body)?,
    };
    if request.model.is_empty() {
        return Err(ApiError::invalid("model", "`model` is required"));
    }
    if request.model.len() > MAX_MODEL_BYTES || request.model.chars().any(char::is_control) {
        let message = format!("`model` must have at most {MAX_MODEL_BYTES} bytes and no control characters");
        return Err(ApiError::invalid("model", message));
    }
    if request.user.len() > MAX_USER_BYTES || request.user.chars().any(char::is_control) {
        let message = format!("`user` must have at most {MAX_USER_BYTES} bytes and no control characters");
        return Err(ApiError::invalid("user", message));
    }
    Ok(request)
}

/// The fields of a JSON body that are read. Values as they came; each is judged where it is used.
#[derive(Debug, Default)]
pub(super) struct Fields {
    model: Value,
    max_tokens: Value,
    max_completion_tokens: Value,
    max_output_tokens: Value,
    n: Value,
    stream: Value,
    service_tier: Value,
    user: Value,
    metadata: Value,
    /// Characters of the text in `input`.
    input_characters: Option<u64>,
}

impl Fields {
    fn slot(&mut self, name: &str) -> Option<&mut Value> {
        Some(match name {
            "model" => &mut self.model,
            "max_tokens" => &mut self.max_tokens,
            "max_completion_tokens" => &mut self.max_completion_tokens,
            "max_output_tokens" => &mut self.max_output_tokens,
            "n" => &mut self.n,
            "stream" => &mut self.stream,
            "service_tier" => &mut self.service_tier,
            "user" => &mut self.user,
            "metadata" => &mut self.metadata,
            _ => return None,
        })
    }

    fn request(self, operation: Operation, body: &[u8]) -> Result<GroqRequest, ApiError> {
        let mut request = GroqRequest {
            model: text("model", &self.model)?,
            choices: 1,
            service_tier: service_tier(&self.service_tier)?,
            user: text("user", &self.user)?,
            ..GroqRequest::default()
        };
        match operation {
            Operation::Chat => {
                let limits = [
                    count("max_tokens", &self.max_tokens)?,
                    count("max_completion_tokens", &self.max_completion_tokens)?,
                ];
                request.max_output_tokens = limits.into_iter().flatten().max();
                request.choices = count("n", &self.n)?.unwrap_or(1);
                if !(1..=MAX_CHOICES).contains(&request.choices) {
                    return Err(ApiError::invalid("n", format!("`n` must be from 1 to {MAX_CHOICES}")));
                }
                request.stream = flag("stream", &self.stream)?;
                request.input_bytes = length(body);
            }
            Operation::Responses => {
                request.max_output_tokens = count("max_output_tokens", &self.max_output_tokens)?;
                request.stream = flag("stream", &self.stream)?;
                request.input_bytes = length(body);
            }
            Operation::Speech => {
                let missing = || ApiError::invalid("input", "`input` is required: the text to speak");
                request.characters = self.input_characters.ok_or_else(missing)?.min(MAX_COUNT);
            }
            Operation::Batch => declared(&self.metadata, &mut request)?,
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
}

/// What a batch is going to use stands in a file that was uploaded before, so the request has to say it.
fn declared(metadata: &Value, request: &mut GroqRequest) -> Result<(), ApiError> {
    let declared = |name: &str| {
        let number = metadata.get(name).and_then(Value::as_str).and_then(|text| text.parse::<u64>().ok());
        number.filter(|number| *number <= MAX_COUNT)
    };
    let model = metadata.get("tollgate_model").and_then(Value::as_str);
    match (model, declared("tollgate_input_tokens"), declared("tollgate_max_output_tokens")) {
        (Some(model), Some(input_tokens), Some(output)) if output > 0 => {
            model.clone_into(&mut request.model);
            request.input_tokens = input_tokens;
            request.max_output_tokens = Some(output);
            Ok(())
        }
        _ => Err(ApiError::invalid(
            "metadata",
            "a batch has to declare what all its lines use at most: `metadata` with the strings \
             `tollgate_model`, `tollgate_input_tokens` and `tollgate_max_output_tokens`",
        )),
    }
}

fn length(body: &[u8]) -> u64 {
    u64::try_from(body.len()).unwrap_or(u64::MAX)
}

fn text(param: &'static str, value: &Value) -> Result<String, ApiError> {
    match value {
        Value::Null => Ok(String::new()),
        Value::String(text) => Ok(text.clone()),
        _ => Err(ApiError::invalid(param, format!("`{param}` must be a string"))),
    }
}

fn flag(param: &'static str, value: &Value) -> Result<bool, ApiError> {
    match value {
        Value::Null => Ok(false),
        Value::Bool(flag) => Ok(*flag),
        _ => Err(ApiError::invalid(param, format!("`{param}` must be true or false"))),
    }
}

fn count(param: &'static str, value: &Value) -> Result<Option<u64>, ApiError> {
    match value {
        Value::Null => Ok(None),
        value => match value.as_u64().filter(|count| *count <= MAX_COUNT) {
            Some(count) => Ok(Some(count)),
            None => {
                let message = format!("`{param}` must be a whole number from 0 to {MAX_COUNT}");
                Err(ApiError::invalid(param, message))
            }
        },
    }
}

/// The service tier that is called so; empty: not given.
fn service_tier(value: &Value) -> Result<ServiceTier, ApiError> {
    match text("service_tier", value)?.as_str() {
        // `default` is OpenAI's word for it, which its SDKs may send.
        "" | "default" => Ok(ServiceTier::OnDemand),
        name => name.parse().map_err(|()| {
            let names = ServiceTier::ALL.map(ServiceTier::name).join(", ");
            ApiError::invalid("service_tier", format!("`service_tier` must be one of {names}"))
        }),
    }
}

/// Reads the fields of a JSON object.
pub(super) fn fields(body: &[u8]) -> Result<Fields, ApiError> {
    let mut reader = Reader::default();
    let mut deserializer = serde_json::Deserializer::from_slice(body);
    let read = reader.read(&mut deserializer).and_then(|()| deserializer.end());
    match (read, reader.fault) {
        (Ok(()), _) => Ok(reader.fields),
        (Err(_), Some(fault)) => Err(fault),
        // The parser's own words may hold a part of the body; its place in it does not.
        (Err(error), None) => Err(ApiError::invalid("", described(&error))),
    }
}

fn described(error: &serde_json::Error) -> String {
    let at = format!("line {}, column {}", error.line(), error.column());
    if error.to_string().starts_with("recursion limit exceeded") {
        return format!("the body is nested too deeply at {at}: at most 127 levels are read");
    }
    match error.classify() {
        serde_json::error::Category::Eof => format!("the body is not valid JSON: it ends at {at}"),
        serde_json::error::Category::Data => "the body must be a JSON object".to_owned(),
        _ => format!("the body is not valid JSON at {at}"),
    }
}

#[derive(Default)]
struct Reader {
    fields: Fields,
    seen: HashSet<String>,
    /// What is wrong, where it is not the JSON itself.
    fault: Option<ApiError>,
}

impl Reader {
    fn read<'de, D: Deserializer<'de>>(&mut self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }

    /// Notes a name; an error where another reader could take it for one that is known or was seen.
    fn name(&mut self, name: &str) -> Result<(), ApiError> {
        let folded = folded(name);
        if *folded != *name && self.fields.slot(&folded).is_some() {
            let message = format!("a field's name must be written `{folded}`, in lower case");
            return Err(ApiError::invalid("", message));
        }
        if self.seen.len() >= MAX_FIELDS {
            return Err(ApiError::invalid("", format!("the body has more than {MAX_FIELDS} fields")));
        }
        if self.seen.insert(folded.into_owned()) {
            return Ok(());
        }
        let shown = name.chars().take(64).collect::<String>();
        Err(ApiError::invalid("", format!("the body has the field `{shown}` twice")))
    }
}

/// A name as a reader takes it that ignores case, with the letters that only some fold (`ſ`, the Kelvin sign).
fn folded(name: &str) -> Cow<'_, str> {
    if name.bytes().all(|byte| byte.is_ascii() && !byte.is_ascii_uppercase()) {
        return Cow::Borrowed(name);
    }
    Cow::Owned(name.to_uppercase().to_lowercase())
}

impl<'de> Visitor<'de> for &mut Reader {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<(), A::Error> {
        while let Some(name) = entries.next_key::<Cow<'_, str>>()? {
            if let Err(fault) = self.name(&name) {
                self.fault = Some(fault);
                return Err(A::Error::custom("a fault"));
            }
            match self.fields.slot(&name) {
                Some(slot) => *slot = entries.next_value()?,
                None if name == "input" => {
                    self.fields.input_characters = Some(entries.next_value_seed(CHARACTERS)?);
                }
                None => {
                    entries.next_value_seed(SKIP)?;
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
#[path = "request_tests.rs"]
mod tests;
