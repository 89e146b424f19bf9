//! The keys in force: the registry of the store, merged with the policy document into what the hot path reads.
//!
//! No decision asks the store about a key. Each process follows the registry with one task, and whoever writes to it reads
//! it at once; what changed is put in force as one new policy.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use arc_swap::ArcSwap;
use tokio::sync::watch;
use tracing::{error, info, warn};

use super::{Authorizer, DecisionLog, Shared};
use crate::{
    domain::{
        keys::{CreatedKeys, HashKey, KeyRecord, SecretId, UseCounter},
        permit::Who,
        policy::Policy,
    },
    store::{RegistryChanges, Revision, SecretUse, Store, StoreError, use_slot},
};

/// How often the registry is asked whether it changed. With a call of at most 250 ms (the store's deadline as it comes) a
/// change is in force on every replica well within the second that is promised.
const FOLLOW: Duration = Duration::from_millis(250);
/// Uses are written down every so many turns of the follower: once a second.
const FLUSH_TURNS: u32 = 4;

/// Where the key that secrets are hashed with is.
pub(super) const HASH_KEY: &str = "hash-key";
/// How the names of records of keys begin.
pub(super) const KEY: &str = "key/";

/// What a process knows of the registry.
///
/// Protocol: `turn` is held over a whole reading of the registry, so that readings come one after the other and none puts
/// an older state over a newer. `known` is taken within it, never across an await, for as long as it takes to put what is
/// known in force, so that a new policy document and a new key do not overwrite each other's effect.
#[derive(Debug)]
pub(super) struct KeyRing {
    /// The policy document in force.
    declared: Arc<ArcSwap<Policy>>,
    turn: tokio::sync::Mutex<()>,
    known: Mutex<Known>,
    /// The counters of secrets that exist. Taken for a look-up; counting itself needs no lock.
    uses: Mutex<HashMap<SecretId, Arc<UseCounter>>>,
    /// Whether the registry was asked for the first time, with whatever result.
    asked: watch::Sender<bool>,
}

#[derive(Debug, Default)]
struct Known {
    /// `None`: nothing was read yet.
    revision: Option<Revision>,
    hash_key: Option<HashKey>,
    /// By the key's name: the version, and the record where it can be read.
    records: BTreeMap<Arc<str>, (u64, Option<Arc<KeyRecord>>)>,
    /// The last reading failed.
    failing: bool,
}

impl KeyRing {
    pub(super) fn new(declared: Arc<ArcSwap<Policy>>) -> Self {
        Self {
            declared,
            turn: tokio::sync::Mutex::default(),
            known: Mutex::default(),
            uses: Mutex::default(),
            asked: watch::Sender::new(false),
        }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        // Each change of it is whole before anything that could panic.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn counter(&self, secret: SecretId) -> Arc<UseCounter> {
        let mut uses = self.uses.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(uses.entry(secret).or_default())
    }

    /// The version and content of a record; version 0: there is none. `Err`: it cannot be read.
    pub(super) fn record(&self, name: &str) -> Result<(u64, Option<Arc<KeyRecord>>), StoreError> {
        match self.known().records.get(name) {
            None => Ok((0, None)),
            Some((version, Some(record))) => Ok((*version, Some(Arc::clone(record)))),
            Some((_, None)) => Err(StoreError::Corrupt),
        }
    }

    /// All records that can be read, with their versions, by name.
    pub(super) fn records(&self) -> Vec<(u64, Arc<KeyRecord>)> {
        let known = self.known();
        known.records.values().filter_map(|(version, record)| Some((*version, record.clone()?))).collect()
    }

    pub(super) fn hash_key(&self) -> Option<HashKey> {
        self.known().hash_key
    }
}

impl Shared {
    /// What authorizers share who decide by the document in `declared`, and by the keys that are created beside it.
    #[must_use]
    pub fn new(declared: Arc<ArcSwap<Policy>>) -> Self {
        let policy = Policy { created: Arc::new(CreatedKeys::pending()), ..(**declared.load()).clone() };
        Self {
            policy: Arc::new(ArcSwap::from_pointee(policy)),
            queue: super::Queue::default(),
            keys: KeyRing::new(declared),
            decisions: DecisionLog::default(),
        }
    }

    /// The same, with `decisions` logged.
    #[must_use]
    pub fn with_decisions(self, decisions: DecisionLog) -> Self {
        Self { decisions, ..self }
    }

    /// Puts the document as it is now in force. To be called whenever it has changed.
    pub fn document_changed(&self) {
        self.merge(&self.keys.known());
    }

    /// Reads what changed in the registry and puts it in force.
    pub(super) async fn read_keys<S: Store>(&self, store: &S) -> Result<(), StoreError> {
        let _turn = self.keys.turn.lock().await;
        let revision = self.keys.known().revision;
        let changes = store.registry_since(revision.unwrap_or_default()).await;
        let mut known = self.keys.known();
        let read = match changes {
            Ok(changes) => {
                if std::mem::take(&mut known.failing) {
                    info!("the keys can be read again");
                }
                if revision != Some(changes.revision) {
                    known.take(changes);
                    self.merge(&known);
                }
                Ok(())
            }
            Err(error) => {
                if !std::mem::replace(&mut known.failing, true) {
                    warn!(%error, "the keys cannot be read; those known last stay in force");
                }
                Err(error)
            }
        };
        drop(known);
        self.keys.asked.send_replace(true);
        read
    }

    fn merge(&self, known: &Known) {
        let document = self.keys.declared.load();
        let created = match known.revision {
            None => CreatedKeys::pending(),
            Some(_) => {
                let records = known.records.values().filter_map(|(_, record)| record.as_deref());
                CreatedKeys::new(&document, known.hash_key, records, |secret| self.keys.counter(secret))
            }
        };
        self.policy.store(Arc::new(Policy { created: Arc::new(created), ..(**document).clone() }));
        // Counters that nothing in force holds any more, and that hold nothing.
        let mut uses = self.keys.uses.lock().unwrap_or_else(PoisonError::into_inner);
        uses.retain(|_, counter| Arc::strong_count(counter) > 1 || !counter.is_empty());
    }

    /// Returns once the registry was asked for the first time, so that a replica that starts knows its keys.
    pub async fn keys_asked(&self) {
        // The sender lives as long as `self`.
        let _ = self.keys.asked.subscribe().wait_for(|asked| *asked).await;
    }

    /// Follows the registry and writes down uses, until told to stop.
    pub async fn follow_keys<S: Store>(&self, store: &S, mut stop: watch::Receiver<bool>) {
        for turn in 1_u32.. {
            // Said where it fails; the next turn tries again.
            let _ = self.read_keys(store).await;
            if turn.is_multiple_of(FLUSH_TURNS) {
                self.write_uses(store).await;
            }
            tokio::select! {
                () = tokio::time::sleep(FOLLOW) => {}
                _ = stop.wait_for(|stop| *stop) => return,
            }
        }
    }

    /// Writes down how often secrets were used since the last time. What cannot be written now is kept for the next.
    pub async fn write_uses<S: Store>(&self, store: &S) {
        let counters: Vec<_> = {
            let uses = self.keys.uses.lock().unwrap_or_else(PoisonError::into_inner);
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

impl<S: Store> Authorizer<S> {
    /// Counts a use of the secret by which `who` came, if it is one of a created key.
    pub fn count_use(&self, who: &Who<'_>) {
        if let Some(secret) = who.secret {
            secret.uses.count(self.store.now());
        }
    }
}

impl Known {
    fn take(&mut self, changes: RegistryChanges) {
        if changes.whole {
            if self.revision.is_some_and(|known| known.number > 0) {
                warn!("the registry is not the one known before; all keys were read anew");
            }
            *self = Self::default();
        }
        self.revision = Some(changes.revision);
        for record in changes.records {
            if &*record.name == HASH_KEY {
                let bytes = <[u8; 32]>::try_from(&*record.value);
                self.hash_key = bytes.ok().map(HashKey::new);
                if self.hash_key.is_none() {
                    error!("the key that secrets are hashed with is damaged: created keys are refused");
                }
            } else if let Some(name) = record.name.strip_prefix(KEY) {
                let read = serde_json::from_slice::<KeyRecord>(&record.value);
                if let Err(error) = &read {
                    error!(
                        key = name,
                        line = error.line(),
                        column = error.column(),
                        "a key's record cannot be read; the key is refused"
                    );
                }
                let read = read.ok().filter(|read| &*read.name == name).map(Arc::new);
                self.records.insert(name.into(), (record.version, read));
            }
        }
    }
}
