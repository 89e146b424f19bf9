//! What alerts of single kinds say beside what all have: the contract's messages of these names, as protobuf's JSON.

use serde::{Deserialize, Serialize};

use super::alert::{Money, instant};
use crate::domain::{
    Timestamp,
    actor::{Actor, ActorKind},
    drift::{self, Drift},
    pause::Target,
};

/// When a budget will be used up.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[expect(missing_docs, reason = "as in the contract")]
pub struct Forecast {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub projected: Option<Money>,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub exhaust_time: String,
}

/// A cooldown after a 429 of Groq.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[expect(missing_docs, reason = "as in the contract")]
pub struct Cooldown {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub project: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub model: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub service_tier: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub start_time: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub end_time: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub reporter_team: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub requested_delay: String,
}

/// A key of Groq's.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[expect(missing_docs, reason = "as in the contract")]
pub struct UpstreamKey {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub project: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub place: String,
    /// Empty: unspecified, once it is not refused any more.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub state: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub create_time: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub refuse_time: String,
}

/// A pause.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[expect(missing_docs, reason = "as in the contract")]
pub struct Pause {
    pub target: PauseTarget,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub reason: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub actor: Option<PauseActor>,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub create_time: String,
}

/// What is paused: one of these.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[expect(missing_docs, reason = "as in the contract")]
pub struct PauseTarget {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub organization: Option<WholeOrganization>,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub team: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub key: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub model: String,
}

/// The whole organization; it has no fields.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WholeOrganization {}

/// By whose order. The address of the caller stays in the audit log.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[expect(missing_docs, reason = "as in the contract")]
pub struct PauseActor {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub kind: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
}

/// A time in which the store did not answer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[expect(missing_docs, reason = "as in the contract")]
pub struct StoreOutage {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub start_time: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub end_time: String,
    /// A whole number, which protobuf's JSON writes as text; empty: 0.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub degraded_count: String,
    /// The same.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub spooled_count: String,
}

/// A difference between what was booked and what Groq billed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(missing_docs, reason = "as in the contract")]
pub struct UsageDrift {
    pub start_date: String,
    pub end_date: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub project: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub model: String,
    pub booked: Money,
    pub billed: Money,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub likely_cause: String,
}

impl From<&Drift> for UsageDrift {
    fn from(drift: &Drift) -> Self {
        let Drift { days, project, model, booked, billed, cause } = drift;
        Self {
            start_date: drift::day(days.start),
            end_date: drift::day(days.end),
            project: project.to_string(),
            model: model.to_string(),
            booked: (*booked).into(),
            billed: (*billed).into(),
            likely_cause: cause.to_string(),
        }
    }
}

impl From<&Target> for PauseTarget {
    fn from(target: &Target) -> Self {
        let mut own = Self::default();
        match target {
            Target::Organization => own.organization = Some(WholeOrganization {}),
            Target::Team(team) => own.team = team.to_string(),
            Target::Key(key) => own.key = key.to_string(),
            Target::Model(pattern) => own.model = pattern.to_string(),
        }
        own
    }
}

impl From<&Actor> for PauseActor {
    fn from(actor: &Actor) -> Self {
        let kind = match actor.kind {
            ActorKind::System => "ACTOR_KIND_SYSTEM",
            ActorKind::ServiceToken => "ACTOR_KIND_SERVICE_TOKEN",
            ActorKind::Certificate => "ACTOR_KIND_CERTIFICATE",
            ActorKind::Oidc => "ACTOR_KIND_OIDC",
            ActorKind::Anyone => "ACTOR_KIND_ANYONE",
        };
        Self { kind: kind.to_owned(), name: actor.name.to_string() }
    }
}

/// An instant as protobuf's JSON writes it; empty: not set.
pub(super) fn set(at: Timestamp) -> String {
    if at.0 == 0 { String::new() } else { instant(at) }
}

/// A duration as protobuf's JSON writes it: seconds, with no fraction or one of three digits.
pub(super) fn seconds(ms: u64) -> String {
    match ms % 1_000 {
        0 => format!("{}s", ms / 1_000),
        rest => format!("{}.{rest:03}s", ms / 1_000),
    }
}

/// An instant for people.
pub(super) fn to_the_second(at: Timestamp) -> String {
    instant(Timestamp(at.0 - at.0 % 1_000))
}
