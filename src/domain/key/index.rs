//! Created keys as the hot path reads them: by the keyed hash of a secret, and by name.

use std::{
    collections::HashMap,
    hash::{DefaultHasher, Hash as _, Hasher as _},
    sync::Arc,
};

use super::{HashKey, KeySecret, VirtualKey};

/// Parts of the index, one for each first byte of a hash. When a key changes, its part is copied: of 10,000 keys, about 40.
const SHARDS: usize = 1 << u8::BITS;

/// By the first bytes of the hash. The hash is keyed, so timing reveals nothing about an input that a caller can choose; the
/// candidates are compared in full, in constant time.
type Shard = HashMap<[u8; 8], Vec<Entry>>;

/// By name.
type NameShard = HashMap<Arc<str>, Arc<VirtualKey>>;

/// A secret, and the key that it belongs to.
#[derive(Clone, Debug)]
struct Entry {
    secret: KeySecret,
    key: Arc<VirtualKey>,
}

/// The created keys in force. Copies share all shards that do not differ.
#[derive(Clone, Debug, Default)]
pub struct KeyIndex {
    /// `None`: no key was ever created.
    hash_key: Option<HashKey>,
    /// Empty until the first key is put in.
    shards: Vec<Arc<Shard>>,
    /// The same number of shards, by name.
    names: Vec<Arc<NameShard>>,
}

impl KeyIndex {
    /// Uses `hash_key` for all look-ups from now on.
    pub fn set_hash_key(&mut self, hash_key: Option<HashKey>) {
        self.hash_key = hash_key;
    }

    /// Puts `after` in the place of `before`, which is the same key as it was until now. `None`: there was none, or there is
    /// none any more.
    pub fn replace(&mut self, before: Option<&VirtualKey>, after: Option<&Arc<VirtualKey>>) {
        for secret in before.into_iter().flat_map(VirtualKey::secrets) {
            let prefix = secret.hash.prefix();
            let Some(shard) = self.shard_mut(prefix) else { continue };
            if let Some(entries) = shard.get_mut(&prefix) {
                entries.retain(|entry| entry.secret.id != secret.id);
                if entries.is_empty() {
                    shard.remove(&prefix);
                }
            }
        }
        if let Some(key) = before
            && let Some(shard) = self.names.get_mut(name_shard(&key.name))
        {
            Arc::make_mut(shard).remove(&key.name);
        }
        if let Some(key) = after {
            if self.shards.is_empty() {
                // One empty shard in all places, copied when it changes.
                (self.shards, self.names) = (vec![Arc::default(); SHARDS], vec![Arc::default(); SHARDS]);
            }
            if let Some(shard) = self.names.get_mut(name_shard(&key.name)) {
                Arc::make_mut(shard).insert(Arc::clone(&key.name), Arc::clone(key));
            }
            for secret in key.secrets() {
                let prefix = secret.hash.prefix();
                if let Some(shard) = self.shard_mut(prefix) {
                    shard.entry(prefix).or_default().push(Entry { secret: *secret, key: Arc::clone(key) });
                }
            }
        }
    }

    /// The key whose secret has this SHA-256, and what is stored about the secret.
    #[must_use]
    pub fn find(&self, sha256: &[u8; 32]) -> Option<(&Arc<VirtualKey>, &KeySecret)> {
        let hash = self.hash_key.as_ref()?.hash(sha256);
        let prefix = hash.prefix();
        let entries = self.shards.get(usize::from(prefix[0]))?.get(&prefix)?;
        entries.iter().find(|entry| entry.secret.hash == hash).map(|entry| (&entry.key, &entry.secret))
    }

    /// The key of this name, even if it is revoked.
    #[must_use]
    pub fn named(&self, name: &str) -> Option<&Arc<VirtualKey>> {
        self.names.get(name_shard(name))?.get(name)
    }

    fn shard_mut(&mut self, prefix: [u8; 8]) -> Option<&mut Shard> {
        self.shards.get_mut(usize::from(prefix[0])).map(Arc::make_mut)
    }
}

fn name_shard(name: &str) -> usize {
    let mut hasher = DefaultHasher::new();
    name.hash(&mut hasher);
    usize::try_from(hasher.finish()).unwrap_or(0) % SHARDS
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{
        Timestamp,
        key::{KeyLimits, KeyRecord, SecretId},
    };

    const HASH_KEY: [u8; 32] = [7; 32];

    fn key(version: u64, secrets: &[u8]) -> Arc<VirtualKey> {
        let secret = |byte: &u8| KeySecret {
            id: SecretId(u64::from(*byte)),
            hash: HashKey::new(HASH_KEY).hash(&[*byte; 32]),
            created_at: Timestamp(1),
            ends_at: None,
        };
        let record = KeyRecord {
            name: "t-prod-web".into(),
            team: "t".into(),
            labels: Default::default(),
            limits: KeyLimits::default(),
            created_at: Timestamp(1),
            expires_at: None,
            revoked_at: None,
            secrets: secrets.iter().map(secret).collect(),
        };
        Arc::new(VirtualKey::created(version, Arc::new(record)))
    }

    fn version(index: &KeyIndex, byte: u8) -> Option<u64> {
        index.find(&[byte; 32]).and_then(|(key, _)| key.stored.as_ref().map(|stored| stored.version))
    }

    #[test]
    fn a_change_replaces_the_key_and_leaves_copies_as_they_are() {
        let mut index = KeyIndex::default();
        let (first, second) = (key(1, &[1, 2]), key(2, &[2, 3]));
        index.replace(None, Some(&first));
        assert_eq!(version(&index, 1), None, "nothing is found without the key of the hash");
        index.set_hash_key(Some(HashKey::new(HASH_KEY)));
        let before = index.clone();
        index.replace(Some(&first), Some(&second));
        assert_eq!([1, 2, 3].map(|byte| version(&before, byte)), [Some(1), Some(1), None]);
        assert_eq!([1, 2, 3].map(|byte| version(&index, byte)), [None, Some(2), Some(2)]);
        let named = |index: &KeyIndex| index.named(&first.name).cloned();
        assert!(named(&before).is_some_and(|key| Arc::ptr_eq(&key, &first)));
        assert!(named(&index).is_some_and(|key| Arc::ptr_eq(&key, &second)));
        index.replace(Some(&second), None);
        assert_eq!([1, 2, 3].map(|byte| version(&index, byte)), [None; 3]);
        assert!(named(&index).is_none());
        assert!(index.shards.iter().all(|shard| shard.is_empty()));
    }
}
