//! What is in force: the policy document, and the keys and pauses in the store's registry, never older than a published bound.

mod carried;
mod denials;
pub(crate) mod entry;
mod follower;
mod followers;
mod freshness;
mod registry;
mod uses;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use bytes::Bytes;
use tracing::{Span, error, info, warn};

pub use carried::carried_over;
pub use denials::Denial;
use denials::Denials;
pub use follower::{Follower, Unfresh};
pub use followers::follow_each;
pub use freshness::{Freshness, MAX_AGE};
use registry::{HASH_KEY, Registry};
pub(crate) use registry::{KEY, PAUSE};
use uses::UseCounts;

use crate::{
    domain::{
        Timestamp,
        key::{HashKey, KeyState, SecretId, VirtualKey},
        policy::Policy,
        snapshot::Snapshot,
        tally::Tallies,
    },
    runtime::Entropy,
    store::{self, RegistryChanges, RegistryRecord, StoreError},
};

/// How long a store has no key to hash secrets with before one is made where none is needed yet: another replica may know the one that a
/// store has lost, and gives it back within a reading or two.
const KEY_PATIENCE: Duration = Duration::from_secs(5);
/// How often a store is asked whether it still has the key, where reservations may be sealed with it: a registry that was always empty does
/// not show that the store has lost its memory.
const CHECK_KEY: Duration = Duration::from_secs(1);

/// What is in force in this process.
///
/// A decision asks the store about no key and no pause while the known state is fresh ([`Freshness`]). The workers of a
/// process follow the registry in turn, each over its own connection, and a change made here is read at once. Past the bound
/// a decision reads the registry itself, or is not made.
#[derive(Debug)]
pub struct Live {
    /// Replaced as a whole, and only while the registry's lock is held, so that a new policy document and a new record do not
    /// overwrite each other's effect.
    snapshot: ArcSwap<Snapshot>,
    pub(crate) registry: Registry,
    uses: UseCounts,
    denials: Denials,
    entropy: Entropy,
    /// When the store was first seen without a key to hash secrets with, in milliseconds of the monotone clock; 0: it was not. It orders
    /// nothing.
    keyless_since: AtomicU64,
    /// When the store was last asked whether it still has that key, in the same milliseconds. It orders nothing.
    key_checked: AtomicU64,
    /// What is counted of teams and models.
    pub tallies: Tallies,
    /// The span for work of its organization.
    span: Span,
}

impl Live {
    /// What is in force by `policy` before the registry was read.
    #[must_use]
    pub fn new(policy: Arc<Policy>) -> Self {
        Self::counting(policy, Tallies::default())
    }

    /// The same, with its teams counted in `tallies`.
    #[must_use]
    pub fn counting(policy: Arc<Policy>, tallies: Tallies) -> Self {
        let snapshot = ArcSwap::from_pointee(Snapshot::pending(policy));
        Self {
            snapshot,
            registry: Registry::default(),
            uses: UseCounts::default(),
            denials: Denials::default(),
            entropy: Entropy::default(),
            keyless_since: AtomicU64::new(0),
            key_checked: AtomicU64::new(0),
            tallies,
            span: Span::none(),
        }
    }

    /// The same, with new keys drawn from `entropy`.
    #[must_use]
    pub fn drawing_from(self, entropy: Entropy) -> Self {
        Self { entropy, ..self }
    }

    /// The same, with `span` for work of its organization.
    #[must_use]
    pub fn with_span(self, span: Span) -> Self {
        Self { span, ..self }
    }

    /// The span for work of its organization, which names it in the log.
    #[must_use]
    pub const fn span(&self) -> &Span {
        &self.span
    }

    /// What is in force now.
    #[must_use]
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.snapshot.load_full()
    }

    /// The same, for a look that ends before anything is awaited: cheaper, as cores do not share a reference count.
    #[must_use]
    pub fn peek(&self) -> arc_swap::Guard<Arc<Snapshot>> {
        self.snapshot.load()
    }

    /// Puts another policy document in force.
    pub fn set_policy(&self, policy: Arc<Policy>) {
        let known = self.registry.known();
        let before = self.snapshot.load();
        self.tallies.keep(&policy);
        self.snapshot.store(Arc::new(Snapshot { policy, ..(**before).clone() }.numbered(known.number())));
    }

    /// Reads what changed in the registry and puts it in force.
    async fn read_registry<S: store::Registry>(&self, registry: &S) -> Result<(), StoreError> {
        let read = loop {
            let begun = Freshness::begin();
            let (revision, replaced) = self.registry.known().revision();
            let changes = match registry.registry_since(revision.unwrap_or_default()).await {
                Ok(changes) => changes,
                Err(error) => break Err(error),
            };
            let hash_key = match self.read_hash_key(registry, &changes).await {
                Ok(hash_key) => hash_key,
                Err(error) => break Err(error),
            };
            let mut known = self.registry.known();
            // What another worker has read since may be newer than all of this, or belong to another registry.
            let (now_revision, now_replaced) = known.revision();
            if now_replaced != replaced || (changes.whole && now_revision != revision) {
                continue;
            }
            if now_revision != Some(changes.revision) || hash_key.is_some() {
                // An answer that is overtaken by another worker's changes nothing of what is known already.
                let newer =
                    now_revision.filter(|now| !changes.whole && now.number >= changes.revision.number);
                let revision = newer.unwrap_or(changes.revision);
                let before = self.snapshot.load();
                let after =
                    Snapshot { is_pending: false, ..known.take(changes, hash_key, (**before).clone()) };
                self.snapshot.store(Arc::new(after.numbered(revision.number)));
                known.has_taken(revision);
            }
            let checked = known.check();
            drop(known);
            if checked.is_ok() {
                self.registry.freshness.read(begun);
            }
            break checked;
        };
        if let Err(StoreError::LayoutUnsupported(_)) = &read {
            self.registry.freshness.forget();
        }
        self.registry.asked.send_replace(true);
        read
    }

    /// The key that secrets are hashed with, if `changes` call for it. It stands beside the registry. Where an earlier release has
    /// left it in a record of the registry, it is moved first: without it every created secret would be invalid.
    async fn read_hash_key<S: store::Registry>(
        &self,
        registry: &S,
        changes: &RegistryChanges,
    ) -> Result<Option<HashKey>, StoreError> {
        let record = changes.records.iter().find(|record| &*record.name == HASH_KEY);
        if let Some(record) = record.filter(|record| !record.value.is_empty()) {
            match <[u8; 32]>::try_from(&*record.value) {
                Ok(bytes) => return move_hash_key(registry, record, bytes).await.map(Some),
                Err(_) => error!("the record of the key that secrets are hashed with is damaged"),
            }
        }
        let lacks = self.registry.known().lacks_hash_key(changes);
        let known = self.registry.hash_key();
        // Reservations that are made in an outage are sealed with a key that is derived from it, so it has to be there before one is, and
        // a store that has lost it gets it again: what was sealed is to open afterwards.
        let seals = self.peek().policy.teams.values().any(|team| team.outage.degrades());
        let is_due = seals && (known.is_none() || changes.whole || self.is_key_check_due());
        if !lacks && !is_due {
            return Ok(None);
        }
        let of_known = known.map(HashKey::to_bytes);
        let stored = match self.find_hash_key(registry, of_known, seals && !lacks).await {
            // No key of the registry needs it, so what was read is good without it.
            Err(_) if !lacks => of_known,
            found => found?,
        };
        // What is known already is put in force again only where all of the registry is.
        let is_news = changes.whole || stored != of_known;
        Ok(stored.filter(|_| is_news).map(HashKey::new))
    }

    /// The key in the store, which gets `known` where it has none, or with `makes` a new one if it has had none for long.
    async fn find_hash_key<S: store::Registry>(
        &self,
        registry: &S,
        known: Option<[u8; 32]>,
        makes: bool,
    ) -> Result<Option<[u8; 32]>, StoreError> {
        match (registry.hash_key(None).await?, known) {
            (None, Some(known)) if makes => registry.hash_key(Some(known)).await,
            (None, None) if makes && self.has_long_lacked_a_key() => {
                registry.hash_key(self.entropy.bytes().ok()).await
            }
            (stored, _) => Ok(stored),
        }
    }

    /// Whether the store is to be asked for the key once more; said about once in [`CHECK_KEY`], of whatever worker reads then.
    fn is_key_check_due(&self) -> bool {
        let (now, last) = (Freshness::begin().as_millis(), self.key_checked.load(Ordering::Relaxed));
        let is_due = u128::from(now.saturating_sub(last)) >= CHECK_KEY.as_millis();
        let swap = || self.key_checked.compare_exchange(last, now, Ordering::Relaxed, Ordering::Relaxed);
        is_due && swap().is_ok()
    }

    /// Whether the store has had no key for [`KEY_PATIENCE`]; said while it has none.
    fn has_long_lacked_a_key(&self) -> bool {
        let now = Freshness::begin().as_millis().max(1);
        let before = self.keyless_since.compare_exchange(0, now, Ordering::Relaxed, Ordering::Relaxed);
        let since = before.map_or_else(|since| since, |_| now);
        u128::from(now.saturating_sub(since)) >= KEY_PATIENCE.as_millis()
    }

    /// How many keys can be used at `now`, declared and created.
    #[must_use]
    pub fn active_keys(&self, now: Timestamp) -> usize {
        let is_active = |key: &VirtualKey| key.state(now) == KeyState::Active;
        let snapshot = self.peek();
        let declared = snapshot.policy.keys.ordered().iter().filter(|key| is_active(key)).count();
        declared + self.registry.count_keys(is_active)
    }

    /// Whether a key, declared or created, has a secret with this SHA-256, whatever has become of the key since.
    #[must_use]
    pub fn has_key(&self, sha256: &[u8; 32]) -> bool {
        let snapshot = self.peek();
        snapshot.policy.keys.find(sha256).is_some() || snapshot.keys.find(sha256).is_some()
    }

    /// The keys created through the service.
    #[must_use]
    pub fn created_keys(&self) -> Vec<Arc<VirtualKey>> {
        self.registry.keys_after(None, usize::MAX, |_| true)
    }

    /// How old what is known of the registry is.
    #[must_use]
    pub const fn freshness(&self) -> &Freshness {
        &self.registry.freshness
    }

    /// Logs once when the known state becomes too old to decide by, and when it is fresh again.
    fn watch_age(&self) {
        let stale = !self.registry.freshness.is_fresh();
        if self.registry.is_stale.swap(stale, Ordering::Relaxed) == stale {
            return;
        }
        let _span = self.span.enter();
        match stale {
            true => error!("the registry was not read within its bound; requests are refused until it is"),
            false => info!("the registry is read within its bound again; requests are decided"),
        }
    }

    /// Returns once the registry was asked for the first time, so that a starting replica knows its keys and pauses.
    pub async fn registry_asked(&self) {
        // The sender lives as long as `self`.
        let _ = self.registry.asked.subscribe().wait_for(|asked| *asked).await;
    }

    /// Counts a use of a secret at `now`.
    pub fn count_use(&self, secret: SecretId, now: Timestamp) {
        self.uses.count(secret, now);
    }

    /// Writes down how often secrets were used since the last time. What cannot be written now is kept for the next time.
    pub async fn write_uses<S: store::Registry>(&self, registry: &S) {
        let mut taken = self.uses.take();
        while !taken.is_empty() {
            let part = taken.part(store::MAX_USES);
            let count = part.len();
            if let Err(error) = registry.add_uses(part).await {
                warn!(%error, "uses of keys cannot be written down yet");
                return;
            }
            taken.is_written(count);
        }
    }
}

/// Gives the key in `record` its place beside the registry, and removes the record. If another organization of the same store has
/// put its own there, the record stays and is what counts for this one.
async fn move_hash_key<S: store::Registry>(
    registry: &S,
    record: &RegistryRecord,
    bytes: [u8; 32],
) -> Result<HashKey, StoreError> {
    if registry.hash_key(Some(bytes)).await? != Some(bytes) {
        warn!("another organization of this store hashes secrets with another key; this one keeps its own");
    } else if let Err(error) =
        registry.registry_write(Arc::clone(&record.name), record.version, Bytes::new()).await
    {
        warn!(%error, "the former record of the key that secrets are hashed with cannot be removed yet");
    }
    Ok(HashKey::new(bytes))
}
