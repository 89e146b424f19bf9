//! What a batch declares about itself in its `metadata`. The file with its actual lines was uploaded earlier.

use super::{
    error::ApiError,
    fields::{Declared, Fields, Scalar},
    request::GroqRequest,
};
use crate::domain::{
    batch::{Batch, MAX_REQUESTS, MAX_WINDOW_MS, MIN_WINDOW_MS},
    bounds::Most,
    request::{Billing, Operation},
};

/// The sums over all lines, each a string in `metadata`.
const INPUT_TOKENS: &str = "tollgate_input_tokens";
const MAX_OUTPUT_TOKENS: &str = "tollgate_max_output_tokens";
const AUDIO_SECONDS: &str = "tollgate_audio_seconds";
const CHARACTERS: &str = "tollgate_characters";

impl Fields {
    /// Copies the batch's declarations into `request`.
    pub(super) fn declared(self, request: &mut GroqRequest) -> Result<(), ApiError> {
        let batch = self.batch()?;
        let declared = self.metadata;
        let most = Most::of(batch.request_count);
        let Scalar::Text(model) = &declared.model else { return Err(undeclared(batch.line_operation)) };
        let need = |key: &str, value: &Scalar, most| match value {
            Scalar::Null => Err(undeclared(batch.line_operation)),
            value => number(value, most).ok_or_else(|| {
                let what = if key == AUDIO_SECONDS { "whole seconds" } else { "a whole number" };
                let message = format!("`{key}` must be {what} in a string, from \"0\" to \"{most}\"");
                ApiError::invalid("metadata", message)
            }),
        };
        match batch.line_operation.billing() {
            Billing::Tokens => {
                request.input_tokens = need(INPUT_TOKENS, &declared.input_tokens, most.count)?;
                request.max_output_tokens =
                    Some(need(MAX_OUTPUT_TOKENS, &declared.max_output_tokens, most.count)?);
            }
            Billing::InputTokens => {
                request.input_tokens = need(INPUT_TOKENS, &declared.input_tokens, most.count)?
            }
            Billing::Audio => {
                let seconds = need(AUDIO_SECONDS, &declared.audio_seconds, most.audio_ms / 1000)?;
                request.audio_ms = seconds.saturating_mul(1000);
            }
            Billing::Characters => request.characters = need(CHARACTERS, &declared.characters, most.count)?,
        }
        if request.max_output_tokens == Some(0) {
            return Err(undeclared(batch.line_operation));
        }
        request.model = model.clone();
        request.batch = Some(batch);
        Ok(())
    }

    fn batch(&self) -> Result<Batch, ApiError> {
        let one = Batch::default();
        Ok(Batch {
            line_operation: line_operation(&self.endpoint, &self.metadata)?,
            request_count: match &self.metadata.batch_requests {
                Scalar::Null => one.request_count,
                value => number(value, MAX_REQUESTS).filter(|count| *count > 0).ok_or_else(|| {
                    let message =
                        format!("`tollgate_batch_requests` must be from \"1\" to \"{MAX_REQUESTS}\"");
                    ApiError::invalid("metadata", message)
                })?,
            },
            window_ms: match &self.completion_window {
                Scalar::Null => one.window_ms,
                value => window_ms(value).ok_or_else(|| {
                    ApiError::invalid("completion_window", "`completion_window` must be from 24h to 7d")
                })?,
            },
        })
    }
}

/// The operation of each line: Groq reads it from `endpoint`, and the declaration must match that.
fn line_operation(endpoint: &Scalar, declared: &Declared) -> Result<Operation, ApiError> {
    let of_endpoint = match endpoint {
        Scalar::Text(path) => Some(match path.as_str() {
            "/v1/chat/completions" => Operation::Chat,
            "/v1/responses" => Operation::Responses,
            "/v1/embeddings" => Operation::Embeddings,
            "/v1/audio/transcriptions" => Operation::Transcription,
            "/v1/audio/translations" => Operation::Translation,
            "/v1/audio/speech" => Operation::Speech,
            _ => return Err(ApiError::invalid("endpoint", "`endpoint` is not one whose cost is known")),
        }),
        _ => None,
    };
    let of_declaration = match &declared.batch_operation {
        Scalar::Null => None,
        Scalar::Text(name) => match name.parse() {
            Ok(Operation::Batch) | Err(()) => return Err(no_operation()),
            Ok(operation) => Some(operation),
        },
        _ => return Err(no_operation()),
    };
    match (of_endpoint, of_declaration) {
        (Some(a), Some(b)) if a != b => {
            let message = format!("`tollgate_batch_operation` is `{b}`, and `endpoint` is of `{a}`");
            Err(ApiError::invalid("metadata", message))
        }
        (of_endpoint, of_declaration) => Ok(of_endpoint.or(of_declaration).unwrap_or(Operation::Chat)),
    }
}

fn no_operation() -> ApiError {
    let names = Operation::ALL.into_iter().filter(|operation| *operation != Operation::Batch);
    let names = names.map(Operation::name).collect::<Vec<_>>().join(", ");
    ApiError::invalid("metadata", format!("`tollgate_batch_operation` must be one of {names}"))
}

/// A whole number in a string: Groq's metadata contains only strings.
fn number(value: &Scalar, most: u64) -> Option<u64> {
    match value {
        Scalar::Text(text) => text.parse::<u64>().ok().filter(|number| *number <= most),
        _ => None,
    }
}

/// A window such as `24h` or `7d`, in milliseconds.
fn window_ms(value: &Scalar) -> Option<u64> {
    let Scalar::Text(text) = value else { return None };
    let (number, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let hours = match unit {
        "h" => 1,
        "d" => 24,
        _ => return None,
    };
    let digits = number.bytes().all(|byte| byte.is_ascii_digit());
    let ms = number.parse::<u64>().ok().filter(|_| digits)?.checked_mul(hours * 3_600_000)?;
    (MIN_WINDOW_MS..=MAX_WINDOW_MS).contains(&ms).then_some(ms)
}

fn undeclared(operation: Operation) -> ApiError {
    let sums = match operation.billing() {
        Billing::Tokens => format!("`{INPUT_TOKENS}` and `{MAX_OUTPUT_TOKENS}`"),
        Billing::InputTokens => format!("`{INPUT_TOKENS}`"),
        Billing::Audio => format!("`{AUDIO_SECONDS}`"),
        Billing::Characters => format!("`{CHARACTERS}`"),
    };
    let message = format!(
        "a batch has to declare what all its lines use at most: `metadata` with the strings `tollgate_model`, {sums}, and \
         `tollgate_batch_requests`, the number of its lines (default 1)"
    );
    ApiError::invalid("metadata", message)
}
