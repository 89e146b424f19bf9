//! Requests to create and change keys, and why they fail.

use std::{collections::BTreeMap, sync::Arc};

use thiserror::Error;

use crate::{
    domain::{
        Timestamp,
        key::{Breach, KeyLimits, KeyRecord, LimitField, MAX_KEYS, VirtualKey},
    },
    store::StoreError,
};

/// Why a key could not be made or changed.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum KeyError {
    /// The store did not answer. Whether a change took effect is unknown.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Invalid fields.
    #[error("the key cannot be so")]
    Invalid(Vec<Breach>),
    /// There is no key of this name, neither created nor in the policy file.
    #[error("there is no key `{0}`")]
    Unknown(String),
    /// There is no created key of this name to change.
    #[error("there is no key `{0}` that was created here; keys in the policy file are changed there")]
    NotCreated(String),
    /// The key has no secret of this id.
    #[error("the key `{0}` has no live secret of this id")]
    UnknownSecret(Arc<str>),
    /// There is already a key of this name, created or in the policy file.
    #[error("there is a key `{0}` already; a name is never given twice, not even after the key was revoked")]
    Exists(Arc<str>),
    /// Another caller changed the key at the same time.
    #[error("the key `{0}` was changed by someone else in the meantime; read it again")]
    Changed(Arc<str>),
    /// The key was revoked.
    #[error("the key `{0}` was revoked, which is for ever; create another")]
    Revoked(Arc<str>),
    /// A secret that is to end at once was used a moment ago.
    #[error(
        "a secret of the key `{0}` that would end now was used in the last 24 hours; `force` ends it all the same"
    )]
    InUse(Arc<str>),
    /// It is the only live secret: a key without one is a revoked key.
    #[error("this is the only live secret of the key `{0}`; rotate the key, or revoke it as a whole")]
    OnlySecret(Arc<str>),
    /// The organization has as many keys as are permitted.
    #[error("there are {MAX_KEYS} keys already")]
    TooMany,
    /// A fault of the service; details are in its log.
    #[error("internal error")]
    Internal,
}

/// A key to be made.
#[derive(Clone, Debug, Default)]
pub struct NewKey {
    /// Its name.
    pub name: String,
    /// Its team.
    pub team: String,
    /// For people.
    pub labels: BTreeMap<String, String>,
    /// What it may do.
    pub limits: KeyLimits,
    /// When it ends.
    pub expires_at: Option<Timestamp>,
}

/// What to change about a key; `None`: stays.
#[derive(Clone, Debug, Default)]
pub struct KeyChange {
    /// The labels.
    pub labels: Option<BTreeMap<String, String>>,
    /// When it ends; `Some(None)`: never.
    pub expires_at: Option<Option<Timestamp>>,
    /// The new values of the limits that `replaced` names.
    pub limits: KeyLimits,
    /// The limits to replace.
    pub replaced: Vec<LimitField>,
    /// The version that the key must have; 0: any.
    pub version: u64,
}

/// A key after a change.
#[derive(Clone, Debug)]
pub struct ChangedKey {
    /// The key as it is now.
    pub key: Arc<VirtualKey>,
    /// Its record before the change; `None`: it was created now, or nothing changed.
    pub before: Option<Arc<KeyRecord>>,
}

/// Puts the new values into a record.
pub(super) fn apply(record: &mut KeyRecord, change: &KeyChange) {
    if let Some(labels) = &change.labels {
        record.labels.clone_from(labels);
    }
    if let Some(end) = change.expires_at {
        record.expires_at = end;
    }
    for field in &change.replaced {
        record.limits.replace(*field, &change.limits);
    }
}
