//! A key of either kind, and its position in the order of all keys.

use std::sync::Arc;

use super::Versioned;
use crate::domain::{
    Timestamp,
    keys::{KeySecret, KeyState},
    policy::{Key, Policy, Team},
};

/// A key of either kind.
#[derive(Clone, Debug)]
pub enum AnyKey {
    /// It was created while the service runs, and is changed through the service.
    Created(Versioned),
    /// The policy document declares it for this team. Only the document changes it.
    Declared(Arc<Team>, Arc<Key>),
}

/// A key's position among all keys: by name, then by team, a created key first.
///
/// The name alone does not identify a key. A document may declare one name in several teams, and may declare a name that an
/// earlier created key already has.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct KeyPlace {
    /// The key's name.
    pub name: Arc<str>,
    /// Its team's.
    pub team: Arc<str>,
    /// Whether the policy document declares it.
    pub declared: bool,
}

impl AnyKey {
    /// The keys that `policy` declares, in no order.
    pub fn declared_by(policy: &Policy) -> impl Iterator<Item = Self> {
        policy.keys.values().map(|(team, key)| Self::Declared(Arc::clone(team), Arc::clone(key)))
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &Arc<str> {
        match self {
            Self::Created(key) => &key.record.name,
            Self::Declared(_, key) => &key.name,
        }
    }

    /// The name of its team.
    #[must_use]
    pub fn team(&self) -> &Arc<str> {
        match self {
            Self::Created(key) => &key.record.team,
            Self::Declared(team, _) => &team.name,
        }
    }

    /// Its position among all keys.
    #[must_use]
    pub fn place(&self) -> KeyPlace {
        let declared = matches!(self, Self::Declared(..));
        KeyPlace { name: Arc::clone(self.name()), team: Arc::clone(self.team()), declared }
    }

    /// Whether it can be used at `now`.
    #[must_use]
    pub fn state(&self, now: Timestamp) -> KeyState {
        match self {
            Self::Created(key) => key.record.state(now),
            Self::Declared(_, key) if key.expires_at.is_some_and(|end| now >= end) => KeyState::Expired,
            Self::Declared(..) => KeyState::Active,
        }
    }

    /// Its secrets, the oldest first. A declared key has only a digest, which is never shown.
    #[must_use]
    pub fn secrets(&self) -> &[KeySecret] {
        match self {
            Self::Created(key) => &key.record.secrets,
            Self::Declared(..) => &[],
        }
    }
}
