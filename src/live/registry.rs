//! What is in force: the store's registry, which holds keys and pauses, merged with the policy document into what the hot
//! path reads.
//!
//! A decision asks the store about no key and no pause while the known state is fresh ([`Freshness`]). The workers of a
//! process follow the registry in turn, each over its own connection, and a change made here is read at once; changes are put
//! in force as one new policy. Past the bound a decision reads the registry itself, or is not made.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use arc_swap::ArcSwap;
use tokio::sync::watch;
use tracing::{error, info, warn};

use super::Freshness;
use crate::{
    domain::{
        keys::{CreatedKeys, HashKey, KeyRecord, SecretId, UseCounter},
        pause::{Pause, Target},
        policy::Policy,
        registered::Registered,
    },
    store::{RegistryChanges, RegistryRecord, Revision, SecretUse, Store, StoreError, use_slot},
};

/// The record of the key that secrets are hashed with.
pub(crate) const HASH_KEY: &str = "hash-key";
/// The prefix of the names of key records.
pub(crate) const KEY: &str = "key/";
/// The prefix of the names of pause records; the paused target follows.
pub(crate) const PAUSE: &str = "pause/";

/// What a process knows of the registry.
///
/// Protocol: readings by several workers may overlap, so a record is taken only if its version is newer than the known one.
/// `known` is never held across an await, but only for as long as it takes to put it in force, so that a new policy document
/// and a new record do not overwrite each other's effect.
#[derive(Debug)]
pub(crate) struct Registry {
    /// The policy document in force.
    declared: Arc<ArcSwap<Policy>>,
    known: Mutex<Known>,
    freshness: Freshness,
    /// Whether the last look at the age found it past the bound. Only for the log.
    is_stale: AtomicBool,
    /// The counters of existing secrets. The lock is taken for a look-up; counting itself needs none.
    uses: Mutex<HashMap<SecretId, Arc<UseCounter>>>,
    /// Whether the registry was asked for the first time, with any result.
    asked: watch::Sender<bool>,
}

/// By target: the version of the record, and the pause unless it has ended.
type PauseRecords = BTreeMap<Target, (u64, Option<Arc<Pause>>)>;

#[derive(Debug, Default)]
struct Known {
    /// `None`: nothing was read yet.
    revision: Option<Revision>,
    hash_key: Option<HashKey>,
    /// By key name: the version, and the record if it can be read.
    keys: BTreeMap<Arc<str>, (u64, Option<Arc<KeyRecord>>)>,
    pauses: PauseRecords,
    /// How often the whole registry was replaced.
    replaced: u64,
}

impl Registry {
    fn new(declared: Arc<ArcSwap<Policy>>) -> Self {
        Self {
            declared,
            known: Mutex::default(),
            freshness: Freshness::default(),
            is_stale: AtomicBool::default(),
            uses: Mutex::default(),
            asked: watch::Sender::new(false),
        }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        // Each change of it is complete before anything could panic.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn counter(&self, secret: SecretId) -> Arc<UseCounter> {
        let mut uses = self.uses.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(uses.entry(secret).or_default())
    }

    /// The version and content of a key's record; version 0: there is none. `Err`: it cannot be read.
    pub(crate) fn key(&self, name: &str) -> Result<(u64, Option<Arc<KeyRecord>>), StoreError> {
        match self.known().keys.get(name) {
            None => Ok((0, None)),
            Some((version, Some(record))) => Ok((*version, Some(Arc::clone(record)))),
            Some((_, None)) => Err(StoreError::Corrupt),
        }
    }

    /// All keys with readable records, with their versions, by name.
    pub(crate) fn keys(&self) -> Vec<(u64, Arc<KeyRecord>)> {
        let known = self.known();
        known.keys.values().filter_map(|(version, record)| Some((*version, record.clone()?))).collect()
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

/// What is in force in this process: the policy document, with the keys and pauses that are registered beside it.
#[derive(Debug)]
pub struct Live {
    /// All of it, as decisions read it.
    pub policy: Arc<ArcSwap<Policy>>,
    pub(crate) registry: Registry,
}

impl Live {
    /// What is in force by the document in `declared` before the registry was read.
    #[must_use]
    pub fn new(declared: Arc<ArcSwap<Policy>>) -> Self {
        let policy = Policy { registered: Arc::new(Registered::pending()), ..(**declared.load()).clone() };
        Self { policy: Arc::new(ArcSwap::from_pointee(policy)), registry: Registry::new(declared) }
    }

    /// Puts the document as it is now in force. Call it whenever the document has changed.
    pub fn document_changed(&self) {
        self.merge(&self.registry.known());
    }

    /// Reads what changed in the registry and puts it in force.
    pub(super) async fn read_registry<S: Store>(&self, store: &S) -> Result<(), StoreError> {
        let read = loop {
            let begun = Freshness::begin();
            let (revision, replaced) = {
                let known = self.registry.known();
                (known.revision, known.replaced)
            };
            let changes = match store.registry_since(revision.unwrap_or_default()).await {
                Ok(changes) => changes,
                Err(error) => break Err(error),
            };
            let mut known = self.registry.known();
            // What another worker has read since may be newer than all of this, or belong to another registry.
            if known.replaced != replaced || (changes.whole && known.revision != revision) {
                continue;
            }
            if known.revision != Some(changes.revision) {
                known.take(changes);
                self.merge(&known);
            }
            drop(known);
            self.registry.freshness.read(begun);
            break Ok(());
        };
        self.registry.asked.send_replace(true);
        read
    }

    /// How old what is known of the registry is.
    #[must_use]
    pub const fn freshness(&self) -> &Freshness {
        &self.registry.freshness
    }

    /// Logs once when the known state becomes too old to decide by, and when it is fresh again.
    pub(super) fn watch_age(&self) {
        let stale = !self.registry.freshness.is_fresh();
        if self.registry.is_stale.swap(stale, Ordering::Relaxed) == stale {
            return;
        }
        match stale {
            true => error!("the registry was not read within its bound; requests are refused until it is"),
            false => info!("the registry is read within its bound again; requests are decided"),
        }
    }

    fn merge(&self, known: &Known) {
        let document = self.registry.declared.load();
        let registered = match known.revision {
            None => Registered::pending(),
            Some(_) => {
                let records = known.keys.values().filter_map(|(_, record)| record.as_deref());
                let counter = |secret| self.registry.counter(secret);
                Registered {
                    pending: false,
                    keys: CreatedKeys::new(&document, known.hash_key, records, counter),
                    pauses: known.paused().collect(),
                }
            }
        };
        self.policy.store(Arc::new(Policy { registered: Arc::new(registered), ..(**document).clone() }));
        // Drops counters that nothing in force holds any more and that are empty.
        let mut uses = self.registry.uses.lock().unwrap_or_else(PoisonError::into_inner);
        uses.retain(|_, counter| Arc::strong_count(counter) > 1 || !counter.is_empty());
    }

    /// Returns once the registry was asked for the first time, so that a starting replica knows its keys and pauses.
    pub async fn registry_asked(&self) {
        // The sender lives as long as `self`.
        let _ = self.registry.asked.subscribe().wait_for(|asked| *asked).await;
    }

    /// Writes down how often secrets were used since the last time. What cannot be written now is kept for the next time.
    pub async fn write_uses<S: Store>(&self, store: &S) {
        let counters: Vec<_> = {
            let uses = self.registry.uses.lock().unwrap_or_else(PoisonError::into_inner);
            uses.iter().map(|(secret, counter)| (*secret, Arc::clone(counter))).collect()
        };
        let mut taken = Vec::new();
        for (secret, counter) in counters {
            let (requests, last_used) = counter.take();
            if requests > 0 {
                taken.push((SecretUse { secret, slot: use_slot(last_used), requests, last_used }, counter));
            }
        }
        for taken in taken.chunks(crate::store::MAX_USES) {
            let uses = taken.iter().map(|(added, _)| *added).collect();
            if let Err(error) = store.add_uses(uses).await {
                warn!(%error, "uses of keys cannot be written down yet");
                taken.iter().for_each(|(added, counter)| counter.put_back(added.requests));
            }
        }
    }
}

impl Known {
    fn take(&mut self, changes: RegistryChanges) {
        let mut before = BTreeMap::new();
        if changes.whole {
            let replaced = self.replaced + 1;
            if self.revision.is_some_and(|known| known.number > 0) {
                warn!(
                    "too much of the registry changed at once, or it is another one; all of it was read again"
                );
            }
            before = std::mem::take(self).pauses;
            self.replaced = replaced;
        }
        if self.revision.is_none_or(|known| known.number < changes.revision.number) {
            self.revision = Some(changes.revision);
        }
        for record in changes.records {
            let RegistryRecord { name, version, value } = record;
            if &*name == HASH_KEY {
                let bytes = <[u8; 32]>::try_from(&*value);
                self.hash_key = bytes.ok().map(HashKey::new);
                if self.hash_key.is_none() {
                    error!("the key that secrets are hashed with is damaged: created keys are refused");
                }
            } else if let Some(name) = name.strip_prefix(KEY) {
                self.take_key(name, version, &value);
            } else if let Some(target) = name.strip_prefix(PAUSE) {
                self.take_pause(target, version, &value, &before);
            }
        }
        // They were not resumed: the store lost its last writes, or all of them.
        let lost = before
            .iter()
            .filter(|(target, (_, pause))| pause.is_some() && !self.pauses.contains_key(*target));
        lost.for_each(
            |(target, _)| error!(%target, "the store lost this pause: it is not in force any more"),
        );
    }

    fn take_key(&mut self, name: &str, version: u64, value: &[u8]) {
        if self.keys.get(name).is_some_and(|(known, _)| *known >= version) {
            return;
        }
        let read = serde_json::from_slice::<KeyRecord>(value);
        if let Err(error) = &read {
            let (line, column) = (error.line(), error.column());
            error!(key = name, line, column, "a key's record cannot be read; the key is refused");
        }
        let read = read.ok().filter(|read| &*read.name == name).map(Arc::new);
        self.keys.insert(name.into(), (version, read));
    }

    fn take_pause(&mut self, target: &str, version: u64, value: &[u8], before: &PauseRecords) {
        let Ok(target) = target.parse::<Target>() else {
            error!(target, "a pause is of something that this version cannot pause; it has no effect here");
            return;
        };
        if self.pauses.get(&target).is_some_and(|(known, _)| *known >= version) {
            return;
        }
        let pause = match value {
            [] => None,
            value => Some(Arc::new(serde_json::from_slice(value).unwrap_or_else(|error| {
                let (line, column) = (error.line(), error.column());
                error!(%target, line, column, "the record of a pause cannot be read; requests are denied");
                Pause::unreadable()
            }))),
        };
        let known =
            self.pauses.get(&target).or_else(|| before.get(&target)).and_then(|(_, pause)| pause.as_ref());
        match (known, &pause) {
            (known, Some(pause)) if known != Some(pause) => {
                let (by, reason) = (&*pause.by.name, &*pause.reason);
                warn!(%target, by, reason, "paused: requests are denied");
            }
            (Some(_), None) => info!(%target, "resumed"),
            _ => {}
        }
        self.pauses.insert(target, (version, pause));
    }

    fn paused(&self) -> impl Iterator<Item = (Target, Arc<Pause>)> {
        let paused = self.pauses.iter();
        paused.filter_map(|(target, (_, pause))| Some((target.clone(), Arc::clone(pause.as_ref()?))))
    }
}
