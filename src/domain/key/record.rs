//! What is stored about a key that was created through the service, and how it changes.

use std::{collections::BTreeMap, fmt, sync::Arc};

use serde::{Deserialize, Serialize};

use super::{KeyLimits, SecretHash};
use crate::domain::Timestamp;

/// Live secrets of one key: the current one and, during a rotation, the previous one.
pub const MAX_LIVE_SECRETS: usize = 2;
/// Secrets of one key that are remembered, so that an expired secret can be reported as expired.
pub(super) const MAX_SECRETS: usize = 4;

/// Identifies a secret without revealing anything about it. Written as 16 hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SecretId(pub u64);

impl SecretId {
    /// The same bits as a signed integer, for databases that have no unsigned ones.
    #[must_use]
    pub const fn to_int(self) -> i64 {
        i64::from_le_bytes(self.0.to_le_bytes())
    }
}

impl fmt::Display for SecretId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// The text is not the 16 hexadecimal digits of a secret's id.
#[derive(Clone, Copy, Debug, thiserror::Error, PartialEq, Eq)]
#[error("a secret's id is 16 lower-case hexadecimal digits")]
pub struct NotASecretId;

impl TryFrom<String> for SecretId {
    type Error = NotASecretId;

    fn try_from(text: String) -> Result<Self, NotASecretId> {
        let digits = text.len() == 16 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        let id = digits.then(|| u64::from_str_radix(&text, 16).ok()).flatten();
        id.map(Self).ok_or(NotASecretId)
    }
}

impl From<SecretId> for String {
    fn from(id: SecretId) -> Self {
        id.to_string()
    }
}

/// A key, as it is stored. An unknown field may be a limit, so a record that has one is not read at all.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyRecord {
    /// `{team}-{environment}-{purpose}`.
    pub name: Arc<str>,
    /// Its team.
    pub team: Arc<str>,
    /// A description for people.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// What it may do, within what the team may.
    #[serde(default)]
    pub limits: KeyLimits,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it expires.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
    /// When it was revoked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revoked_at: Option<Timestamp>,
    /// Its secrets, the oldest first; expired ones are kept for a while.
    pub secrets: Vec<KeySecret>,
}

/// A secret, as it is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeySecret {
    /// Its id.
    pub id: SecretId,
    /// Its keyed hash.
    pub hash: SecretHash,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it expires or expired; `None`: with the key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ends_at: Option<Timestamp>,
}

impl KeySecret {
    /// Whether it is still valid at `now`, if its key is.
    #[must_use]
    pub fn is_live(&self, now: Timestamp) -> bool {
        self.ends_at.is_none_or(|end| now < end)
    }
}

/// Whether a key can be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyState {
    /// It can be used.
    Active,
    /// It has expired.
    Expired,
    /// It was revoked.
    Revoked,
}

impl KeyRecord {
    /// The secrets that are valid at `now`, the newest last.
    pub fn live(&self, now: Timestamp) -> impl DoubleEndedIterator<Item = &KeySecret> {
        self.secrets.iter().filter(move |secret| secret.is_live(now))
    }

    /// The secrets that a rotation with this overlap would end at once: all live ones but the newest, since at most
    /// [`MAX_LIVE_SECRETS`] may be live, and without an overlap the newest too.
    #[must_use]
    pub fn ended_by_rotation(&self, overlap_ms: u64, now: Timestamp) -> Vec<SecretId> {
        let stay = if overlap_ms == 0 { 0 } else { MAX_LIVE_SECRETS - 1 };
        self.live(now).rev().skip(stay).map(|secret| secret.id).collect()
    }

    /// Whether it was revoked, or one of its secrets has an end.
    #[must_use]
    pub fn ends(&self) -> bool {
        self.revoked_at.is_some() || self.secrets.iter().any(|secret| secret.ends_at.is_some())
    }

    /// Whether both are records of one key: its name can be given again where it was forgotten.
    #[must_use]
    pub fn is_of_same_key(&self, other: &Self) -> bool {
        self.name == other.name && self.team == other.team && self.created_at == other.created_at
    }

    /// Ends what `other`, another record of the same key, has ended, and as early; takes over the secrets that took their place, at most
    /// up to [`MAX_LIVE_SECRETS`].
    pub fn end_as(&mut self, other: &Self) {
        let earlier = |one: Option<Timestamp>, two| one.into_iter().chain(two).min();
        self.revoked_at = earlier(self.revoked_at, other.revoked_at);
        for theirs in &other.secrets {
            if let Some(own) = self.secrets.iter_mut().find(|own| own.id == theirs.id) {
                own.ends_at = earlier(own.ends_at, theirs.ends_at);
            }
        }
        for theirs in other.secrets.iter().filter(|theirs| theirs.ends_at.is_none()) {
            let lasting = self.secrets.iter().filter(|own| own.ends_at.is_none()).count();
            if lasting < MAX_LIVE_SECRETS && self.secrets.iter().all(|own| own.id != theirs.id) {
                self.secrets.push(*theirs);
            }
        }
        self.secrets.sort_by_key(|secret| secret.created_at);
        let surplus = self.secrets.len().saturating_sub(MAX_SECRETS);
        self.secrets.drain(..surplus);
    }

    /// Adds a secret. The newest one before it stays valid for `overlap_ms`, unless it expires earlier.
    pub fn rotate(&mut self, secret: KeySecret, overlap_ms: u64, now: Timestamp) {
        let ended = self.ended_by_rotation(overlap_ms, now);
        for old in self.secrets.iter_mut().filter(|old| old.is_live(now)) {
            let end = if ended.contains(&old.id) { now } else { now.plus(overlap_ms) };
            old.ends_at = Some(old.ends_at.map_or(end, |before| before.min(end)));
        }
        self.secrets.push(secret);
        let surplus = self.secrets.len().saturating_sub(MAX_SECRETS);
        self.secrets.drain(..surplus);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(id: u64, ends_at: Option<u64>) -> KeySecret {
        let hash = serde_json::from_value(serde_json::json!("00".repeat(32))).unwrap();
        KeySecret { id: SecretId(id), hash, created_at: Timestamp(id), ends_at: ends_at.map(Timestamp) }
    }

    fn record(secrets: &[(u64, Option<u64>)], revoked_at: Option<u64>) -> KeyRecord {
        KeyRecord {
            name: "a-prod-x".into(),
            team: "a".into(),
            labels: BTreeMap::new(),
            limits: KeyLimits::default(),
            created_at: Timestamp(1),
            expires_at: None,
            revoked_at: revoked_at.map(Timestamp),
            secrets: secrets.iter().map(|(id, ends_at)| secret(*id, *ends_at)).collect(),
        }
    }

    #[test]
    fn what_one_record_ended_is_ended_in_another_of_its_key() {
        type Secrets<'s> = &'s [(u64, Option<u64>)];
        let cases: [(Secrets<'_>, Secrets<'_>, Secrets<'_>); 6] = [
            // Nothing; one of two; by a rotation that the other does not know; by two rotations.
            (&[(1, None)], &[(1, None)], &[(1, None)]),
            (&[(1, Some(9)), (2, None)], &[(1, None), (2, None)], &[(1, Some(9)), (2, None)]),
            (&[(1, Some(9)), (2, None)], &[(1, None)], &[(1, Some(9)), (2, None)]),
            (&[(1, Some(9)), (2, None)], &[(1, Some(7)), (3, None)], &[(1, Some(7)), (2, None), (3, None)]),
            // As early as either, and never more that last than may.
            (&[(1, Some(5))], &[(1, Some(9))], &[(1, Some(5))]),
            (&[(2, Some(5)), (4, None)], &[(1, None), (3, None)], &[(1, None), (3, None)]),
        ];
        for (forgotten, present, expected) in cases {
            let mut merged = record(present, None);
            merged.end_as(&record(forgotten, None));
            assert_eq!(merged, record(expected, None));
        }
        let mut merged = record(&[(1, None)], None);
        merged.end_as(&record(&[(1, None)], Some(8)));
        assert_eq!(merged, record(&[(1, None)], Some(8)));
        merged.end_as(&record(&[(1, None)], None));
        assert_eq!(merged.revoked_at, Some(Timestamp(8)));
    }
}
