//! The store's registry as this process knows it: the records of keys and pauses, with their versions.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Bound,
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::AtomicBool},
};

use tokio::sync::watch;
use tracing::{error, info, warn};

use super::{Freshness, entry};
use crate::{
    domain::{
        key::{HashKey, KeyCursor, KeyIndex, KeyRecord, VirtualKey},
        pause::{Pause, Target},
        snapshot::Snapshot,
    },
    store::{RegistryChanges, RegistryRecord, Revision, StoreError, Unsupported},
};

/// The record in which earlier releases kept the key that secrets are hashed with. Its place is beside the registry now, so the
/// record is moved there where it is found.
pub(super) const HASH_KEY: &str = "hash-key";
/// The prefix of the names of key records.
pub(crate) const KEY: &str = "key/";
/// The prefix of the names of pause records; the paused target follows.
pub(crate) const PAUSE: &str = "pause/";

/// What a process knows of the registry.
///
/// Protocol: readings by several workers may overlap, so a record is taken only if its version is newer than the known one.
/// `known` is never held across an await, but only for as long as it takes to put it in force.
#[derive(Debug)]
pub(crate) struct Registry {
    known: Mutex<Known>,
    pub(super) freshness: Freshness,
    /// Whether the last look at the age found it past the bound. Only for the log.
    pub(super) is_stale: AtomicBool,
    /// Whether the registry was asked for the first time, with any result.
    pub(super) asked: watch::Sender<bool>,
}

/// By target: the version of the record, and the pause unless it has ended.
type PauseRecords = BTreeMap<Target, (u64, Option<Arc<Pause>>)>;

/// The records.
#[derive(Debug, Default)]
pub(super) struct Known {
    /// `None`: nothing was read yet.
    revision: Option<Revision>,
    hash_key: Option<HashKey>,
    /// By key name: the version, and the key if its record can be read.
    keys: BTreeMap<Arc<str>, (u64, Option<Arc<VirtualKey>>)>,
    pauses: PauseRecords,
    /// The names of entries of unknown kinds that can refuse requests.
    critical: BTreeSet<Arc<str>>,
    /// How often the whole registry was replaced.
    replaced: u64,
}

impl Default for Registry {
    fn default() -> Self {
        Self {
            known: Mutex::default(),
            freshness: Freshness::default(),
            is_stale: AtomicBool::default(),
            asked: watch::Sender::new(false),
        }
    }
}

impl Registry {
    pub(super) fn known(&self) -> MutexGuard<'_, Known> {
        // Whatever panicked while changing it has left it without a revision, so that all is read again.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The created key of this name; `None`: there is none.
    ///
    /// # Errors
    /// Its record cannot be read.
    pub(crate) fn key(&self, name: &str) -> Result<Option<Arc<VirtualKey>>, StoreError> {
        match self.known().keys.get(name) {
            None => Ok(None),
            Some((_, Some(key))) => Ok(Some(Arc::clone(key))),
            Some((_, None)) => Err(StoreError::Corrupt),
        }
    }

    /// How many keys were created, revoked ones included.
    pub(crate) fn key_count(&self) -> usize {
        self.known().keys.len()
    }

    /// The first `count` created keys after this position that have a readable record and of which `wanted` is true, by name.
    pub(crate) fn keys_after(
        &self,
        cursor: Option<&KeyCursor>,
        count: usize,
        wanted: impl Fn(&VirtualKey) -> bool,
    ) -> Vec<Arc<VirtualKey>> {
        let known = self.known();
        let start = cursor.map_or(Bound::Unbounded, |cursor| Bound::Included(Arc::clone(&cursor.name)));
        let keys = known.keys.range((start, Bound::Unbounded)).filter_map(|(_, (_, key))| key.as_ref());
        let is_after = |key: &VirtualKey| cursor.is_none_or(|cursor| key.cursor() > *cursor);
        keys.filter(|key| wanted(key) && is_after(key)).take(count).cloned().collect()
    }

    /// How many created keys there are of which `wanted` is true.
    pub(crate) fn count_keys(&self, wanted: impl Fn(&VirtualKey) -> bool) -> usize {
        self.known().keys.values().filter_map(|(_, key)| key.as_deref()).filter(|key| wanted(key)).count()
    }

    /// The version of a pause's record, 0 if there is none, and the pause unless it has ended.
    pub(crate) fn pause(&self, target: &Target) -> (u64, Option<Arc<Pause>>) {
        self.known().pauses.get(target).cloned().unwrap_or_default()
    }

    /// All pauses in force.
    pub(crate) fn pauses(&self) -> Vec<(Target, Arc<Pause>)> {
        self.known().paused().collect()
    }

    pub(crate) fn hash_key(&self) -> Option<HashKey> {
        self.known().hash_key
    }
}

impl Known {
    /// The state that is known, and how often all of it was replaced.
    pub(super) const fn revision(&self) -> (Option<Revision>, u64) {
        (self.revision, self.replaced)
    }

    /// The number of the last known write.
    pub(super) fn number(&self) -> u64 {
        self.revision.map_or(0, |revision| revision.number)
    }

    /// The state of which all is taken in and in force.
    pub(super) fn has_taken(&mut self, revision: Revision) {
        self.revision = Some(revision);
    }

    /// Refuses to decide while an entry that can refuse requests is of an unknown kind.
    pub(super) fn check(&self) -> Result<(), StoreError> {
        if self.critical.is_empty() { Ok(()) } else { Err(Unsupported::Entry.into()) }
    }

    /// Whether secrets cannot be compared with those of the keys in `changes` or of the known ones.
    pub(super) fn lacks_hash_key(&self, changes: &RegistryChanges) -> bool {
        let has_keys = || changes.records.iter().any(|record| record.name.starts_with(KEY));
        match changes.whole {
            true => has_keys(),
            false => self.hash_key.is_none() && (!self.keys.is_empty() || has_keys()),
        }
    }

    /// Takes `changes` in, with the key that secrets are hashed with if that was read, and gives what is in force by them where
    /// `snapshot` was until now. No revision is known from here until [`Self::has_taken`].
    pub(super) fn take(
        &mut self,
        changes: RegistryChanges,
        hash_key: Option<HashKey>,
        mut snapshot: Snapshot,
    ) -> Snapshot {
        let revision = self.revision.take();
        let mut before = BTreeMap::new();
        if changes.whole {
            let replaced = self.replaced + 1;
            if revision.is_some_and(|known| known.number > 0) {
                warn!(
                    "too much of the registry changed at once, or it is another one; all of it was read again"
                );
            }
            before = std::mem::take(self).pauses;
            self.replaced = replaced;
            snapshot.keys = KeyIndex::default();
        }
        let mut pauses_changed = changes.whole;
        for record in changes.records {
            let RegistryRecord { name, version, value } = record;
            if &*name == HASH_KEY {
                // Its value came with `hash_key`.
            } else if let Some(name) = name.strip_prefix(KEY) {
                self.take_key(name, version, &value, &mut snapshot.keys);
            } else if let Some(target) = name.strip_prefix(PAUSE) {
                pauses_changed = true;
                match target.parse() {
                    Ok(target) => self.take_pause(target, version, &value, &before),
                    // Whatever it is of, it refuses requests.
                    Err(_) => self.take_unknown(&name, !value.is_empty()),
                }
            } else {
                self.take_unknown(&name, entry::is_critical(&value));
            }
        }
        self.hash_key = hash_key.or(self.hash_key);
        if self.hash_key.is_none() && !self.keys.is_empty() {
            error!("the store lost the key that secrets are hashed with: created keys are refused");
        }
        snapshot.keys.set_hash_key(self.hash_key);
        if pauses_changed {
            snapshot.pauses = Arc::new(self.paused().collect());
        }
        // They were not resumed: the store lost its last writes, or all of them.
        let lost = before
            .iter()
            .filter(|(target, (_, pause))| pause.is_some() && !self.pauses.contains_key(*target));
        lost.for_each(
            |(target, _)| error!(pause = %target, "the store lost this pause: it is not in force any more"),
        );
        snapshot
    }

    fn take_key(&mut self, name: &str, version: u64, value: &[u8], index: &mut KeyIndex) {
        if self.keys.get(name).is_some_and(|(known, _)| *known >= version) {
            return;
        }
        let read = entry::from_bytes::<KeyRecord>(value);
        if let Err(error) = &read {
            let (line, column) = (error.line(), error.column());
            error!(key = name, line, column, "a key's record cannot be read; the key is refused");
        }
        let read = read.ok().filter(|read| &*read.name == name).map(Arc::new);
        let key = read.map(|record| Arc::new(VirtualKey::created(version, record)));
        let before = self.keys.get(name).and_then(|(_, key)| key.as_deref());
        index.replace(before, key.as_ref());
        self.keys.insert(name.into(), (version, key));
    }

    fn take_unknown(&mut self, name: &Arc<str>, is_critical: bool) {
        if !is_critical {
            self.critical.remove(name);
        } else if self.critical.insert(Arc::clone(name)) {
            error!(
                entry = &**name,
                "the registry has an entry that can refuse requests, of a kind that this release does not know; nothing is decided \
                 until it is removed or a later release takes over"
            );
        }
    }

    fn take_pause(&mut self, target: Target, version: u64, value: &[u8], before: &PauseRecords) {
        if self.pauses.get(&target).is_some_and(|(known, _)| *known >= version) {
            return;
        }
        let pause = match value {
            [] => None,
            value => Some(Arc::new(entry::from_bytes(value).unwrap_or_else(|error: serde_json::Error| {
                let (line, column) = (error.line(), error.column());
                error!(pause = %target, line, column, "the record of a pause cannot be read; requests are denied");
                Pause::unreadable()
            }))),
        };
        let known =
            self.pauses.get(&target).or_else(|| before.get(&target)).and_then(|(_, pause)| pause.as_ref());
        match (known, &pause) {
            (known, Some(pause)) if known != Some(pause) => {
                let (actor, pause_reason) = (&*pause.by.name, &*pause.reason);
                warn!(pause = %target, actor, pause_reason, "paused: requests are denied");
            }
            (Some(_), None) => info!(pause = %target, "resumed"),
            _ => {}
        }
        self.pauses.insert(target, (version, pause));
    }

    fn paused(&self) -> impl Iterator<Item = (Target, Arc<Pause>)> {
        let paused = self.pauses.iter();
        paused.filter_map(|(target, (_, pause))| Some((target.clone(), Arc::clone(pause.as_ref()?))))
    }
}
