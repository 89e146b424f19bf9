//! Words of OpenTelemetry's conventions for generative AI (<https://github.com/open-telemetry/semantic-conventions-genai>).

use crate::domain::request::Operation;

/// `gen_ai.provider.name` of all requests.
pub const PROVIDER: &str = "groq";

/// `gen_ai.operation.name`: the conventions' word where they have one, else ours.
#[must_use]
pub const fn operation_name(operation: Operation) -> &'static str {
    match operation {
        Operation::Chat | Operation::Responses => "chat",
        Operation::Embeddings => "embeddings",
        other => other.name(),
    }
}
