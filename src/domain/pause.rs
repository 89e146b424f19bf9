//! Pauses: what is denied for now, why, and by whose order.

use std::{collections::BTreeMap, fmt, str::FromStr, sync::Arc};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::{Timestamp, actor::Actor, limit::LimitScope, name::is_name, policy::ModelPattern};

/// The most pauses at once; orders at the same moment may exceed it slightly. Each request is checked against all of them,
/// at a few nanoseconds each. If more are needed, pause the organization.
pub const MAX_PAUSES: usize = 1_000;
/// The most bytes of a reason: it appears in every denial, and so in headers and logs.
pub const MAX_REASON: usize = 256;

/// What can be paused.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Target {
    /// Everything.
    Organization,
    /// A team, with all its keys.
    Team(Arc<str>),
    /// The keys of this name, declared or created.
    Key(Arc<str>),
    /// A model, or every model whose name has this prefix, for all teams.
    Model(ModelPattern),
}

impl Target {
    /// Whether it covers a request of `team`, by a key named `key` and for `model` where these are known.
    #[must_use]
    pub fn covers(&self, team: &str, key: Option<&str>, model: Option<&str>) -> bool {
        match self {
            Self::Organization => true,
            Self::Team(name) => **name == *team,
            Self::Key(name) => key.is_some_and(|key| **name == *key),
            Self::Model(pattern) => model.is_some_and(|model| pattern.matches(model)),
        }
    }

    /// The scope that the pause applies to.
    #[must_use]
    pub const fn scope(&self) -> LimitScope {
        match self {
            Self::Organization => LimitScope::Organization,
            Self::Team(_) => LimitScope::Team,
            Self::Key(_) => LimitScope::Key,
            Self::Model(_) => LimitScope::OrganizationModel,
        }
    }

    /// A description for people.
    #[must_use]
    pub fn describe(&self) -> String {
        match self {
            Self::Organization => "the organization".to_owned(),
            Self::Team(name) => format!("the team `{name}`"),
            Self::Key(name) => format!("the key `{name}`"),
            Self::Model(pattern) => format!("the model `{pattern}`"),
        }
    }
}

/// The recorded form, which [`FromStr`] reads: `organization`, `team/chatbot`, `key/chatbot-prod-web`,
/// `model/openai/gpt-oss-*`.
impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Organization => f.write_str("organization"),
            Self::Team(name) => write!(f, "team/{name}"),
            Self::Key(name) => write!(f, "key/{name}"),
            Self::Model(pattern) => write!(f, "model/{pattern}"),
        }
    }
}

/// The text names nothing that can be paused.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("not `organization`, nor `team/`, `key/` or `model/` and a name")]
pub struct NotATarget;

impl FromStr for Target {
    type Err = NotATarget;

    fn from_str(text: &str) -> Result<Self, NotATarget> {
        let named = |name: &str| is_name(name).then(|| Arc::from(name)).ok_or(NotATarget);
        match text.split_once('/') {
            None if text == "organization" => Ok(Self::Organization),
            Some(("team", name)) => named(name).map(Self::Team),
            Some(("key", name)) => named(name).map(Self::Key),
            Some(("model", pattern)) => pattern.parse().map(Self::Model).map_err(|_| NotATarget),
            _ => Err(NotATarget),
        }
    }
}

/// A pause, as it is stored. An unknown field may narrow it, so a record that has one is treated as an
/// [unreadable](Pause::unreadable) one: paused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pause {
    /// Why. Denied callers see it.
    pub reason: Arc<str>,
    /// Who paused. Denied callers do not see it.
    pub by: Actor,
    /// When it was paused.
    pub since: Timestamp,
}

impl Pause {
    /// Replaces a record that cannot be read. Denying is the safe side, and resuming repairs the record.
    #[must_use]
    pub fn unreadable() -> Self {
        Self {
            reason: "the record of this pause cannot be read; resume what it is of, and pause it again"
                .into(),
            by: Actor::system("unreadable record"),
            since: Timestamp::default(),
        }
    }
}

/// Everything that is paused.
#[derive(Clone, Debug, Default)]
pub struct Pauses(BTreeMap<Target, Arc<Pause>>);

impl Pauses {
    /// All pauses, each with its target.
    pub fn iter(&self) -> impl Iterator<Item = (&Target, &Pause)> {
        self.0.iter().map(|(target, pause)| (target, &**pause))
    }
}

impl FromIterator<(Target, Arc<Pause>)> for Pauses {
    fn from_iter<I: IntoIterator<Item = (Target, Arc<Pause>)>>(pauses: I) -> Self {
        Self(pauses.into_iter().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_read_as_it_is_written() {
        for text in ["organization", "team/a", "key/a-prod-web", "model/openai/gpt-oss-20b", "model/openai/*"]
        {
            assert_eq!(text.parse::<Target>().unwrap().to_string(), text);
        }
        for text in
            ["", "organisation", "organization/", "team", "team/", "team/A", "key/a/b", "model/", "user/a"]
        {
            assert_eq!(text.parse::<Target>(), Err(NotATarget), "{text}");
        }
    }

    #[test]
    fn a_record_of_a_later_version_is_not_taken_for_one_of_this() {
        let pause = Pause { reason: "why".into(), by: Actor::system("test"), since: Timestamp(5) };
        let mut record = serde_json::to_value(&pause).unwrap();
        assert_eq!(serde_json::from_value::<Pause>(record.clone()).unwrap(), pause);
        record["until"] = 9.into();
        assert!(serde_json::from_value::<Pause>(record).is_err());
    }
}
