//! One type for both kinds of keys, as decisions and the control plane read them.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use super::{KeyLimits, KeyRecord, KeySecret, KeyState};
use crate::domain::{
    Timestamp,
    limit::{BudgetCounters, Limit, LimitMode, Subject},
    plan::Templates,
    policy::ModelPattern,
    request::Operation,
};

/// A virtual key, declared in the policy document or created through the service.
///
/// Its limits are not narrowed to its team's: both hold for each request, so the stricter one decides, even if the policy
/// became stricter after the key was created.
#[derive(Clone, Debug)]
pub struct VirtualKey {
    /// Its name.
    pub name: Arc<str>,
    /// The name of its team.
    pub team: Arc<str>,
    /// The models it may use, within the team's; `None`: the same. Never an empty list, which a key's limits could not tell from
    /// `None`.
    pub models: Option<Vec<ModelPattern>>,
    /// The operations it may perform, within the team's; `None`: the same. Never an empty list.
    pub operations: Option<Vec<Operation>>,
    /// The most output tokens of one request, within the team's.
    pub max_output_tokens: Option<u64>,
    /// Whether its lists and its cap refuse. Each of its limits has its own mode.
    pub mode: LimitMode,
    /// When it expires.
    pub expires_at: Option<Timestamp>,
    /// Labels of its requests that do not have these themselves.
    pub labels: BTreeMap<String, String>,
    /// Its own budgets and limits.
    pub limits: Vec<Arc<Limit>>,
    /// What is stored about it; `None`: the policy document declares it, and only the document changes it.
    pub stored: Option<StoredKey>,
    /// The counters of its budgets.
    pub budget_counters: BudgetCounters,
    /// What its requests share.
    pub templates: Templates,
}

/// A created key as the store keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredKey {
    /// The version of its record.
    pub version: u64,
    /// Its record.
    pub record: Arc<KeyRecord>,
}

/// A key's position among all keys: by name, then by team, a created key first.
///
/// The name alone does not identify a key. A document may declare one name in several teams, and may declare a name that an
/// earlier created key already has.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct KeyCursor {
    /// The key's name.
    pub name: Arc<str>,
    /// Its team's.
    pub team: Arc<str>,
    /// Whether the policy document declares it.
    pub declared: bool,
}

impl VirtualKey {
    /// The key of this record, with its limits in the places where a declared key has them.
    #[must_use]
    pub fn created(version: u64, record: Arc<KeyRecord>) -> Self {
        let KeyLimits { models, operations, max_output_tokens, mode, .. } = &record.limits;
        let place = place(&record.team, &record.name);
        let subject = Subject::key(&record.team, &record.name);
        let limits = record.limits.compiled(&place, &subject);
        Self {
            name: Arc::clone(&record.name),
            team: Arc::clone(&record.team),
            models: Some(models.clone()).filter(|models| !models.is_empty()),
            operations: Some(operations.clone()).filter(|operations| !operations.is_empty()),
            max_output_tokens: *max_output_tokens,
            mode: mode.unwrap_or_default(),
            expires_at: record.expires_at,
            labels: record.labels.clone(),
            limits,
            stored: Some(StoredKey { version, record }),
            budget_counters: subject.budget_counters(),
            templates: Templates::default(),
        }
    }

    /// Its position among all keys.
    #[must_use]
    pub fn cursor(&self) -> KeyCursor {
        let (name, team) = (Arc::clone(&self.name), Arc::clone(&self.team));
        KeyCursor { name, team, declared: self.stored.is_none() }
    }

    /// Whether it can be used at `now`.
    #[must_use]
    pub fn state(&self, now: Timestamp) -> KeyState {
        if self.stored.as_ref().is_some_and(|stored| stored.record.revoked_at.is_some()) {
            KeyState::Revoked
        } else if self.expires_at.is_some_and(|end| now >= end) {
            KeyState::Expired
        } else {
            KeyState::Active
        }
    }

    /// Its secrets, the oldest first. A declared key has only a digest, which is never shown.
    #[must_use]
    pub fn secrets(&self) -> &[KeySecret] {
        self.stored.as_ref().map_or(&[], |stored| &stored.record.secrets)
    }

    /// Its place in the policy, or where a declared key of its name would stand.
    #[must_use]
    pub fn place(&self) -> String {
        place(&self.team, &self.name)
    }
}

fn place(team: &str, key: &str) -> String {
    format!("teams.{team}.keys.{key}")
}

/// The keys that the policy document declares.
#[derive(Clone, Debug, Default)]
pub struct DeclaredKeys {
    /// By the SHA-256 of the secret.
    digests: HashMap<[u8; 32], Arc<VirtualKey>>,
    /// In the order of all keys.
    ordered: Vec<Arc<VirtualKey>>,
}

impl DeclaredKeys {
    /// The key whose secret has this SHA-256.
    #[must_use]
    pub fn find(&self, sha256: &[u8; 32]) -> Option<&Arc<VirtualKey>> {
        self.digests.get(sha256)
    }

    /// Those whose secret is also one of `others`, in the order of all keys.
    pub fn shared_with(&self, others: &Self) -> impl Iterator<Item = &Arc<VirtualKey>> {
        let shared = self.digests.iter().filter(|(digest, _)| others.digests.contains_key(*digest));
        let mut shared: Vec<_> = shared.map(|(_, key)| key).collect();
        shared.sort_by_cached_key(|key| key.cursor());
        shared.into_iter()
    }

    /// All of them, by name and then by team.
    #[must_use]
    pub fn ordered(&self) -> &[Arc<VirtualKey>] {
        &self.ordered
    }

    /// Those of this name, by team.
    #[must_use]
    pub fn named(&self, name: &str) -> &[Arc<VirtualKey>] {
        let start = self.ordered.partition_point(|key| *key.name < *name);
        let rest = self.ordered.get(start..).unwrap_or_default();
        let count = rest.partition_point(|key| *key.name == *name);
        rest.get(..count).unwrap_or_default()
    }

    /// Those after this position.
    #[must_use]
    pub fn after(&self, cursor: Option<&KeyCursor>) -> &[Arc<VirtualKey>] {
        let start = cursor.map_or(0, |cursor| self.ordered.partition_point(|key| key.cursor() <= *cursor));
        self.ordered.get(start..).unwrap_or_default()
    }
}

/// Each key with the SHA-256 of its secret.
impl FromIterator<([u8; 32], Arc<VirtualKey>)> for DeclaredKeys {
    fn from_iter<I: IntoIterator<Item = ([u8; 32], Arc<VirtualKey>)>>(keys: I) -> Self {
        let digests: HashMap<_, _> = keys.into_iter().collect();
        let mut ordered: Vec<_> = digests.values().map(Arc::clone).collect();
        ordered.sort_by_cached_key(|key| key.cursor());
        Self { digests, ordered }
    }
}
