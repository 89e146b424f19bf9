//! Virtual keys: declared in the policy document, or created through the service and stored in its registry.

mod index;
mod limits;
mod narrowing;
mod record;
mod secret;
mod virtual_key;

pub use self::{
    index::KeyIndex,
    limits::{KeyLimits, LimitField},
    narrowing::{
        Breach, MAX_LABEL_KEY, MAX_LABEL_VALUE, MAX_LABELS, Widening, WiderLimit, check_labels, check_limits,
        check_name, is_label, label_rule, widenings,
    },
    record::{KeyRecord, KeySecret, KeyState, MAX_LIVE_SECRETS, NotASecretId, SecretId},
    secret::{HashKey, PREFIX, Secret, SecretHash, is_mistyped},
    virtual_key::{DeclaredKeys, KeyCursor, StoredKey, VirtualKey},
};

/// The most keys of an organization: each replica holds all of them in memory, some hundred bytes each.
pub const MAX_KEYS: usize = 10_000;

#[cfg(test)]
mod tests;
