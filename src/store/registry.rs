//! The registry of small records, and how often secrets were used.
//!
//! The registry holds small records that change seldom and that every replica reads. Each write gets the next number of one
//! sequence, so a reader that knows everything up to some number asks for what came after it.

use std::{future::Future, sync::Arc};

use bytes::Bytes;

use super::{Backend, StoreError};
use crate::domain::{Timestamp, key::SecretId};

/// Small records that every replica reads, and how often secrets were used.
pub trait Registry: Backend {
    /// The changes in the registry since `known`, or everything if the store does not know that revision.
    fn registry_since(
        &self,
        known: Revision,
    ) -> impl Future<Output = Result<RegistryChanges, StoreError>> + Send;

    /// Writes the record `name` if its version is `expected_version` (0: if there is none). A removal is an empty value; a value
    /// has at most [`MAX_REGISTRY_VALUE`] bytes. Durable before it answers.
    fn registry_write(
        &self,
        name: Arc<str>,
        expected_version: u64,
        value: Bytes,
    ) -> impl Future<Output = Result<RegistryWritten, StoreError>> + Send;

    /// Takes note that a caller is told that the record `name` is as it was to be: it was found with this version and value, and not written. A
    /// store that may forget what it acknowledged keeps it; others do nothing.
    fn registry_found(&self, _name: &Arc<str>, _version: u64, _value: Bytes) {}

    /// The key that secrets are hashed with, one for all organizations of the store. Where there is none, it is `proposed` from now
    /// on; all callers get the key of the first proposal. It is not in the registry and raises no number of it, as it changes no
    /// decision. Durable before it answers.
    fn hash_key(
        &self,
        proposed: Option<[u8; 32]>,
    ) -> impl Future<Output = Result<Option<[u8; 32]>, StoreError>> + Send;

    /// Adds uses of secrets, at most [`MAX_USES`], to their counts. This is not one atomic step: if it fails, some may be added.
    fn add_uses(&self, uses: Vec<SecretUse>) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// How often each of `secrets`, at most [`MAX_USES`], was used, in their order.
    fn uses(
        &self,
        secrets: Vec<SecretId>,
    ) -> impl Future<Output = Result<Vec<SecretUses>, StoreError>> + Send;
}

/// The most bytes of a record's value: a key with all its labels and models, and some room.
pub const MAX_REGISTRY_VALUE: usize = 64 << 10;
/// The length of a slot in which uses are counted: the longest whose boundaries include the start of the day in every time zone.
pub const USE_SLOT_MS: u64 = 15 * 60 * 1000;
/// Slots kept before a secret's newest: enough for the last 24 hours, and for any calendar day, which can have 25.
pub const USE_SLOTS_KEPT: u32 = 104;
/// The most secrets of one call of [`Registry::add_uses`] or [`Registry::uses`]; implementations may split it.
pub const MAX_USES: usize = 20_000;

/// A state of the registry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Revision {
    /// The number of the last write; 0: none.
    pub number: u64,
    /// Distinguishes this write from another of the same number. A store can lose its last writes (a failover of Redis), and
    /// later writes then reuse their numbers.
    pub mark: [u8; 8],
}

/// A record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegistryRecord {
    /// Its name.
    pub name: Arc<str>,
    /// The number of the write that last changed it.
    pub version: u64,
    /// Its content; empty: removed.
    pub value: Bytes,
}

/// What changed in the registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegistryChanges {
    /// The state after these changes.
    pub revision: Revision,
    /// Whether these are all records there are: the caller knew nothing, or its revision is not (or no longer) known to the
    /// store.
    pub whole: bool,
    /// The records, by name.
    pub records: Vec<RegistryRecord>,
}

/// What becomes of a write of the registry that a store forgot, where its record was written since: from the name of the record, the
/// value that was forgotten and the present one.
pub type CarriesOver = fn(&str, &[u8], &[u8]) -> CarriedOver;

/// The answer of [`CarriesOver`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CarriedOver {
    /// The later write stands.
    Nothing,
    /// The record is to have this value: what the forgotten write ended stays ended.
    Value(Bytes),
    /// It ended something else than what has the name now.
    Another,
}

/// The answer to a write of the registry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RegistryWritten {
    /// Written, as this version.
    Written {
        /// The number of this write.
        version: u64,
    },
    /// The record is not of the expected version; nothing was changed.
    Conflict {
        /// Its version; 0: there is none.
        version: u64,
    },
}

/// Uses of one secret within one slot, to be added to its count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SecretUse {
    /// The secret.
    pub secret: SecretId,
    /// The slot's number: [`USE_SLOT_MS`] since the epoch.
    pub slot: u32,
    /// The requests in it.
    pub requests: u64,
    /// The last of them.
    pub last_used: Timestamp,
}

/// How often a secret was used.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SecretUses {
    /// The last time; `None`: never.
    pub last_used: Option<Timestamp>,
    /// Requests by slot, in order; at least those of the last [`USE_SLOTS_KEPT`] slots.
    pub slots: Vec<(u32, u64)>,
}

/// The slot that an instant lies in.
#[must_use]
pub fn use_slot(at: Timestamp) -> u32 {
    u32::try_from(at.0 / USE_SLOT_MS).unwrap_or(u32::MAX)
}
