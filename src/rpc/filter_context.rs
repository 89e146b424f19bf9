//! What ext_authz tells ext_proc about a request that it admitted. It travels with the request through Envoy, as the filter's
//! dynamic metadata, so any replica can follow it.

use std::borrow::Cow;

use prost_types::{Struct, Value, value::Kind};
use serde::{Deserialize, Serialize};

use super::envoy::config::core::v3::Metadata;
use crate::{
    authorizer::ReservationName,
    domain::request::{Operation, ServiceTier},
};

/// The name under which Envoy keeps what ext_authz says.
const NAMESPACE: &str = "envoy.filters.http.ext_authz";
/// The field within it.
const FIELD: &str = "tollgate";

/// An admitted request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct FilterContext {
    pub(super) reservation: ReservationName,
    pub(super) team: String,
    pub(super) model: String,
    pub(super) service_tier: ServiceTier,
    /// The name of the Groq key that the request goes out with.
    pub(super) upstream_key: String,
    pub(super) operation: Operation,
    /// Whether the answer is a stream, whose output is visible as it is made.
    pub(super) stream: bool,
    /// Whether the answer leaves out the model's reasoning, so the visible output is not all of it.
    pub(super) hides_reasoning: bool,
    /// How many choices are wanted.
    pub(super) choices: u64,
    /// The estimated input.
    pub(super) input_tokens: u64,
    /// The output granted to all choices together.
    pub(super) max_output_tokens: u64,
    pub(super) audio_ms: u64,
    pub(super) characters: u64,
    /// Whether a stream is to be made to end with its usage.
    pub(super) include_usage: bool,
    /// Whether Groq adds input that was not sent, so that `input_tokens` is not all of it.
    pub(super) unseen_input: bool,
}

/// The version of the text. Raised when what a field means changes: a replica that does not know it does not meter the request.
const VERSION: u8 = 1;

/// The same as text. Envoy copies all of the metadata for each piece of an answer, so it is one value and not a tree, and
/// zero and false values are left out. A replica of another release may have written it, so unknown fields are passed over.
#[derive(Deserialize, Serialize)]
struct Wire<'a> {
    #[serde(default = "first")]
    v: u8,
    reservation: Cow<'a, str>,
    #[serde(borrow)]
    team: Cow<'a, str>,
    #[serde(borrow)]
    model: Cow<'a, str>,
    service_tier: Cow<'a, str>,
    operation: Cow<'a, str>,
    #[serde(borrow, default, skip_serializing_if = "str::is_empty")]
    upstream_key: Cow<'a, str>,
    #[serde(default, skip_serializing_if = "is_default")]
    stream: bool,
    #[serde(default, skip_serializing_if = "is_default")]
    hides_reasoning: bool,
    #[serde(default, skip_serializing_if = "is_default")]
    choices: u64,
    #[serde(default, skip_serializing_if = "is_default")]
    input_tokens: u64,
    #[serde(default, skip_serializing_if = "is_default")]
    max_output_tokens: u64,
    #[serde(default, skip_serializing_if = "is_default")]
    audio_ms: u64,
    #[serde(default, skip_serializing_if = "is_default")]
    characters: u64,
    #[serde(default, skip_serializing_if = "is_default")]
    include_usage: bool,
    #[serde(default, skip_serializing_if = "is_default")]
    unseen_input: bool,
}

/// The version of a text that names none.
const fn first() -> u8 {
    1
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

impl FilterContext {
    /// As dynamic metadata of ext_authz.
    pub(super) fn to_metadata(&self) -> Struct {
        let wire = Wire {
            v: VERSION,
            reservation: self.reservation.to_string().into(),
            team: self.team.as_str().into(),
            model: self.model.as_str().into(),
            service_tier: self.service_tier.name().into(),
            operation: self.operation.name().into(),
            upstream_key: self.upstream_key.as_str().into(),
            stream: self.stream,
            hides_reasoning: self.hides_reasoning,
            choices: self.choices,
            input_tokens: self.input_tokens,
            max_output_tokens: self.max_output_tokens,
            audio_ms: self.audio_ms,
            characters: self.characters,
            include_usage: self.include_usage,
            unseen_input: self.unseen_input,
        };
        // Strings, numbers and flags are always JSON.
        let text = serde_json::to_string(&wire).unwrap_or_default();
        let mut outer = Struct::default();
        outer.fields.insert(FIELD.to_owned(), Value { kind: Some(Kind::StringValue(text)) });
        outer
    }

    /// Reads what Envoy forwards; `None` if ext_authz admitted nothing, or the value does not come from this service.
    pub(super) fn from_metadata(metadata: &Metadata) -> Option<Self> {
        let wire = metadata.filter_metadata.get(NAMESPACE)?.fields.get(FIELD)?;
        let Some(Kind::StringValue(text)) = &wire.kind else { return None };
        let wire: Wire<'_> = serde_json::from_str(text).ok().filter(|wire: &Wire<'_>| wire.v == VERSION)?;
        Some(Self {
            reservation: wire.reservation.parse().ok()?,
            team: wire.team.into_owned(),
            model: wire.model.into_owned(),
            service_tier: wire.service_tier.parse().ok()?,
            operation: wire.operation.parse().ok()?,
            upstream_key: wire.upstream_key.into_owned(),
            stream: wire.stream,
            hides_reasoning: wire.hides_reasoning,
            choices: wire.choices,
            input_tokens: wire.input_tokens,
            max_output_tokens: wire.max_output_tokens,
            audio_ms: wire.audio_ms,
            characters: wire.characters,
            include_usage: wire.include_usage,
            unseen_input: wire.unseen_input,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::ReservationId;

    #[test]
    fn what_is_told_arrives() {
        let context = FilterContext {
            reservation: ReservationName::Stored(ReservationId::versioned([7; 16])),
            team: "t \"ü\"".to_owned(),
            model: "m".to_owned(),
            service_tier: ServiceTier::Flex,
            upstream_key: "main/1f2e3d4c".to_owned(),
            operation: Operation::Responses,
            stream: true,
            hides_reasoning: true,
            choices: 2,
            input_tokens: u64::MAX,
            max_output_tokens: 3,
            audio_ms: 4,
            characters: 5,
            include_usage: true,
            unseen_input: true,
        };
        let mut metadata = Metadata::default();
        assert_eq!(FilterContext::from_metadata(&metadata), None);
        metadata.filter_metadata.insert(NAMESPACE.to_owned(), context.to_metadata());
        assert_eq!(FilterContext::from_metadata(&metadata), Some(context.clone()));
        let small = FilterContext {
            stream: false,
            hides_reasoning: false,
            include_usage: false,
            choices: 0,
            audio_ms: 0,
            ..context
        };
        metadata.filter_metadata.insert(NAMESPACE.to_owned(), small.to_metadata());
        assert_eq!(FilterContext::from_metadata(&metadata), Some(small));
        metadata.filter_metadata.insert(NAMESPACE.to_owned(), Struct::default());
        assert_eq!(FilterContext::from_metadata(&metadata), None);
    }

    /// What a release wrote, as Envoy hands it on.
    fn read(text: &str) -> Option<FilterContext> {
        let mut metadata = Metadata::default();
        let value = Value { kind: Some(Kind::StringValue(text.to_owned())) };
        let fields = [(FIELD.to_owned(), value)].into();
        metadata.filter_metadata.insert(NAMESPACE.to_owned(), Struct { fields });
        FilterContext::from_metadata(&metadata)
    }

    #[test]
    fn what_other_releases_wrote_is_read() {
        let common = r#""reservation":"01070707070707070707070707070707","team":"t","model":"m","service_tier":"flex","operation":"OP""#;
        let common = common.replace("OP", Operation::Embeddings.name());
        let recorded = read(&format!(r#"{{"v":1,{common},"upstream_key":"k","input_tokens":9}}"#)).unwrap();
        assert_eq!((recorded.input_tokens, &*recorded.upstream_key), (9, "k"));
        // From before versions; and of a later release, which says more.
        assert_eq!(
            read(&format!(r#"{{{common},"upstream_key":"k","input_tokens":9}}"#)),
            Some(recorded.clone())
        );
        let later = format!(r#"{{"v":1,{common},"upstream_key":"k","input_tokens":9,"video_ms":7}}"#);
        assert_eq!(read(&later), Some(recorded));
        assert_eq!(read(&format!(r#"{{"v":2,{common}}}"#)), None);
    }
}
