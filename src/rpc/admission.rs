//! What ext_authz tells ext_proc of a request that it admitted. It travels with the request through Envoy, as the dynamic
//! metadata of the filter, so that any replica can follow it.

use prost_types::{Struct, Value, value::Kind};

use super::envoy::config::core::v3::Metadata;
use crate::{
    domain::request::{Operation, ServiceTier},
    store::ReservationId,
};

/// Under which name Envoy keeps what ext_authz tells.
const NAMESPACE: &str = "envoy.filters.http.ext_authz";
/// Under which field of it.
const FIELD: &str = "tollgate";
/// The largest integer that a double holds exactly; no amount is larger.
const LARGEST: f64 = 9_007_199_254_740_991.0;

/// An admitted request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Admission {
    pub(super) reservation: ReservationId,
    pub(super) team: String,
    pub(super) model: String,
    pub(super) service_tier: ServiceTier,
    /// Names the Groq key that the request goes out with.
    pub(super) upstream_key: String,
    pub(super) operation: Operation,
    /// Whether all output shows as it is made, so that what was seen of an answer that was cut is what it cost: a stream, of
    /// which nothing is hidden.
    pub(super) shows_output: bool,
    /// How many answers are wanted.
    pub(super) choices: u64,
    /// The estimated input.
    pub(super) input_tokens: u64,
    /// The output granted to all choices together.
    pub(super) max_output_tokens: u64,
    pub(super) audio_ms: u64,
    pub(super) characters: u64,
    /// Whether a stream is to be made to end with its usage.
    pub(super) include_usage: bool,
}

impl Admission {
    /// As dynamic metadata of ext_authz.
    pub(super) fn to_metadata(&self) -> Struct {
        let mut fields = Struct::default();
        let mut put = |name: &str, kind| fields.fields.insert(name.to_owned(), Value { kind: Some(kind) });
        put("reservation", Kind::StringValue(self.reservation.to_string()));
        put("team", Kind::StringValue(self.team.clone()));
        put("model", Kind::StringValue(self.model.clone()));
        put("upstream_key", Kind::StringValue(self.upstream_key.clone()));
        put("service_tier", Kind::StringValue(self.service_tier.name().to_owned()));
        put("operation", Kind::StringValue(self.operation.name().to_owned()));
        put("shows_output", Kind::BoolValue(self.shows_output));
        put("include_usage", Kind::BoolValue(self.include_usage));
        for (name, value) in [
            ("choices", self.choices),
            ("input_tokens", self.input_tokens),
            ("max_output_tokens", self.max_output_tokens),
            ("audio_ms", self.audio_ms),
            ("characters", self.characters),
        ] {
            #[expect(clippy::cast_precision_loss, reason = "no amount is above what a double holds exactly")]
            put(name, Kind::NumberValue(value as f64));
        }
        let mut outer = Struct::default();
        outer.fields.insert(FIELD.to_owned(), Value { kind: Some(Kind::StructValue(fields)) });
        outer
    }

    /// From what Envoy forwards; `None` where ext_authz admitted nothing, or what came is not of this service.
    pub(super) fn from_metadata(metadata: &Metadata) -> Option<Self> {
        let told = metadata.filter_metadata.get(NAMESPACE)?.fields.get(FIELD)?;
        let Some(Kind::StructValue(fields)) = &told.kind else { return None };
        let kind = |name: &str| fields.fields.get(name).and_then(|value| value.kind.as_ref());
        let text = |name| match kind(name) {
            Some(Kind::StringValue(text)) => Some(text.as_str()),
            _ => None,
        };
        let flag = |name| matches!(kind(name), Some(Kind::BoolValue(true)));
        let number = |name| match kind(name) {
            Some(Kind::NumberValue(number)) if (0.0..=LARGEST).contains(number) =>
            {
                #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "in range")]
                Some(*number as u64)
            }
            _ => None,
        };
        Some(Self {
            reservation: text("reservation")?.parse().ok()?,
            team: text("team")?.to_owned(),
            model: text("model")?.to_owned(),
            service_tier: text("service_tier")?.parse().ok()?,
            upstream_key: text("upstream_key").unwrap_or_default().to_owned(),
            operation: text("operation")?.parse().ok()?,
            shows_output: flag("shows_output"),
            choices: number("choices")?,
            input_tokens: number("input_tokens")?,
            max_output_tokens: number("max_output_tokens")?,
            audio_ms: number("audio_ms")?,
            characters: number("characters")?,
            include_usage: flag("include_usage"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_told_arrives() {
        let admission = Admission {
            reservation: ReservationId([7; 16]),
            team: "t".to_owned(),
            model: "m".to_owned(),
            service_tier: ServiceTier::Flex,
            upstream_key: "main/1f2e3d4c".to_owned(),
            operation: Operation::Responses,
            shows_output: true,
            choices: 2,
            input_tokens: 9_007_199_254_740_991,
            max_output_tokens: 3,
            audio_ms: 4,
            characters: 5,
            include_usage: true,
        };
        let mut metadata = Metadata::default();
        assert_eq!(Admission::from_metadata(&metadata), None);
        metadata.filter_metadata.insert(NAMESPACE.to_owned(), admission.to_metadata());
        assert_eq!(Admission::from_metadata(&metadata), Some(admission));
        metadata.filter_metadata.insert(NAMESPACE.to_owned(), Struct::default());
        assert_eq!(Admission::from_metadata(&metadata), None);
    }
}
