//! Creates, changes and ends keys. Each change is one compare-and-set of the key's record, so none is lost, and is in force
//! in this process when it is answered.

use std::{collections::HashMap, sync::Arc, time::Duration};

use sha2::{Digest as _, Sha256};
use tokio::sync::Semaphore;
use tracing::{error, info};

use super::key_change::{ChangedKey, KeyChange, KeyError, NewKey, apply};
use crate::{
    domain::{
        Timestamp,
        eligibility::spelling_of,
        key::{
            Breach, HashKey, KeyLimits, KeyRecord, KeySecret, LimitField, MAX_KEYS, Secret, SecretId,
            StoredKey, VirtualKey, check_labels, check_limits, check_name,
        },
        policy::Policy,
    },
    live::{Follower, KEY, entry},
    runtime::Entropy,
    store::{Registry, RegistryWritten, SecretUses, Usage},
};

/// How often a change is retried on a record that another caller changed first.
const ATTEMPTS: u32 = 8;
/// A secret used within this time counts as in use: ending it at once has to be forced.
pub(super) const IN_USE_MS: u64 = 24 * 3600 * 1000;

/// Makes, changes, ends and shows virtual keys.
#[derive(Clone, Debug)]
pub struct Keys<S> {
    pub(super) follower: Follower<S>,
    entropy: Entropy,
    /// One report of spend at a time.
    pub(super) reporting: Arc<Semaphore>,
}

impl<S: Registry + Usage> Keys<S> {
    /// The keys in the registry that `follower` follows; secrets are made of `entropy`.
    #[must_use]
    pub fn new(follower: Follower<S>, entropy: Entropy) -> Self {
        Self { follower, entropy, reporting: Arc::new(Semaphore::new(1)) }
    }

    /// The id of the organization that they belong to.
    #[must_use]
    pub fn organization(&self) -> Arc<str> {
        Arc::clone(&self.follower.snapshot().policy.organization.id)
    }

    /// The store's wall clock.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.follower.store().now()
    }

    /// Creates a key. Returns it with its secret, which can never be shown again.
    ///
    /// # Errors
    /// If it cannot be created.
    pub async fn create_key(&self, new: NewKey) -> Result<(ChangedKey, Secret), KeyError> {
        let record = self.new_record(new).await?;
        let name = Arc::clone(&record.name);
        let (kept, secret) = self.new_secret(record.created_at).await?;
        let record = KeyRecord { secrets: vec![kept], ..record };
        let Some(version) = self.write_key(&record, 0).await? else { return Err(KeyError::Exists(name)) };
        info!(key = %record.name, team = %record.team, secret_id = %kept.id, "key created");
        let key = Arc::new(VirtualKey::created(version, Arc::new(record)));
        Ok((ChangedKey { key, before: None }, secret))
    }

    /// The key that [`Self::create_key`] would create, without a secret and with the version 0. Nothing is written.
    ///
    /// # Errors
    /// If it could not be created.
    pub async fn check_new_key(&self, new: NewKey) -> Result<Arc<VirtualKey>, KeyError> {
        Ok(Arc::new(VirtualKey::created(0, Arc::new(self.new_record(new).await?))))
    }

    /// The record of a key that can be created, as far as is known now; without a secret.
    async fn new_record(&self, new: NewKey) -> Result<KeyRecord, KeyError> {
        self.follower.read().await?;
        let (snapshot, now) = (self.follower.snapshot(), self.follower.store().now());
        let record = KeyRecord {
            name: new.name.into(),
            team: new.team.into(),
            labels: new.labels,
            limits: new.limits,
            created_at: now,
            expires_at: new.expires_at,
            revoked_at: None,
            secrets: Vec::new(),
        };
        check_new(&snapshot.policy, &record, now)?;
        let name = Arc::clone(&record.name);
        let registry = &self.follower.live().registry;
        if registry.key(&name)?.is_some() || !snapshot.policy.keys.named(&name).is_empty() {
            return Err(KeyError::Exists(name));
        }
        if registry.key_count() >= MAX_KEYS {
            return Err(KeyError::TooMany);
        }
        Ok(record)
    }

    /// Changes labels, limits or the end of a key. A change to what the key already has is not written.
    ///
    /// # Errors
    /// If the change is not possible.
    pub async fn update_key(&self, name: &str, change: &KeyChange) -> Result<ChangedKey, KeyError> {
        let updated = |record: &mut KeyRecord, _: &Uses, now| {
            update(record, change, &self.follower.snapshot().policy, now)
        };
        let (changed, ()) = self.change_key(name, change.version, updated).await?;
        if changed.before.is_some() {
            let version = changed.key.stored.as_ref().map(|stored| stored.version);
            info!(key = %changed.key.name, version, "key changed");
        }
        Ok(changed)
    }

    /// The key as [`Self::update_key`] would leave it, with the version that it has now. Nothing is written.
    ///
    /// # Errors
    /// If the change is not possible.
    pub async fn check_update(&self, name: &str, change: &KeyChange) -> Result<Arc<VirtualKey>, KeyError> {
        self.follower.read().await?;
        let stored = self.changeable(name, change.version)?;
        let mut record = (*stored.record).clone();
        update(&mut record, change, &self.follower.snapshot().policy, self.follower.store().now())?;
        Ok(Arc::new(VirtualKey::created(stored.version, Arc::new(record))))
    }

    /// Gives a key another secret; the previous one stays valid for `overlap_ms`.
    ///
    /// # Errors
    /// If it is not possible, or a secret in use would end at once and `force` is not set.
    pub async fn rotate_key(
        &self,
        name: &str,
        overlap_ms: u64,
        force: bool,
    ) -> Result<(ChangedKey, Secret), KeyError> {
        self.follower.read().await?;
        // An unknown name must not cause the hash key to be created.
        self.stored_key(name)?;
        let (kept, secret) = self.new_secret(self.follower.store().now()).await?;
        let (changed, ()) = self
            .change_key(name, 0, |record, uses, now| {
                let ended = record.ended_by_rotation(overlap_ms, now);
                if !force && ended.iter().any(|secret| is_in_use(*secret, uses, now)) {
                    return Err(KeyError::InUse(Arc::clone(&record.name)));
                }
                record.rotate(KeySecret { created_at: now, ..kept }, overlap_ms, now);
                Ok(())
            })
            .await?;
        let overlap_seconds = Duration::from_millis(overlap_ms).as_secs_f64();
        info!(key = name, secret_id = %kept.id, overlap_seconds, "key rotated");
        Ok((changed, secret))
    }

    /// Ends a key for good. A revoked key stays revoked.
    ///
    /// # Errors
    /// If it is not possible.
    pub async fn revoke_key(&self, name: &str) -> Result<ChangedKey, KeyError> {
        self.follower.read().await?;
        let found = self.stored_key(name)?;
        if found.1.record.revoked_at.is_some() {
            return Ok(self.found(found));
        }
        let revoke = |record: &mut KeyRecord, _: &Uses, now| {
            record.revoked_at = Some(now);
            Ok(())
        };
        match self.change_key(name, 0, revoke).await {
            Ok((changed, ())) => {
                info!(key = name, "key revoked");
                Ok(changed)
            }
            // Another caller revoked it in between.
            Err(KeyError::Revoked(_)) => Ok(self.found(self.stored_key(name)?)),
            Err(error) => Err(error),
        }
    }

    /// Ends one of a key's two live secrets.
    ///
    /// # Errors
    /// If it is not possible, or the secret is in use and `force` is not set.
    pub async fn revoke_secret(
        &self,
        name: &str,
        secret: SecretId,
        force: bool,
    ) -> Result<ChangedKey, KeyError> {
        let (changed, ()) = self
            .change_key(name, 0, |record, uses, now| {
                let live: Vec<SecretId> = record.live(now).map(|secret| secret.id).collect();
                if !live.contains(&secret) {
                    return Err(KeyError::UnknownSecret(Arc::clone(&record.name)));
                }
                if live.len() == 1 {
                    return Err(KeyError::OnlySecret(Arc::clone(&record.name)));
                }
                if !force && is_in_use(secret, uses, now) {
                    return Err(KeyError::InUse(Arc::clone(&record.name)));
                }
                let ended = record.secrets.iter_mut().filter(|kept| kept.id == secret);
                ended.for_each(|kept| kept.ends_at = Some(now));
                Ok(())
            })
            .await?;
        info!(key = name, secret_id = %secret, "secret of a key revoked");
        Ok(changed)
    }

    /// The created key of this name, as this process knows it.
    pub(super) fn stored_key(&self, name: &str) -> Result<(Arc<VirtualKey>, StoredKey), KeyError> {
        let key = self.follower.live().registry.key(name)?;
        let stored = |key: Arc<VirtualKey>| key.stored.clone().map(|stored| (key, stored));
        key.and_then(stored).ok_or_else(|| KeyError::NotCreated(name.to_owned()))
    }

    /// What is stored about the created key of this name, if it can be changed and has this version; 0: any.
    fn changeable(&self, name: &str, version: u64) -> Result<StoredKey, KeyError> {
        let (_, stored) = self.stored_key(name)?;
        if version > 0 && version != stored.version {
            return Err(KeyError::Changed(name.into()));
        }
        if stored.record.revoked_at.is_some() {
            return Err(KeyError::Revoked(Arc::clone(&stored.record.name)));
        }
        Ok(stored)
    }

    /// Repeats a compare-and-set until no other change came in between. What changes nothing is not written.
    async fn change_key<T>(
        &self,
        name: &str,
        version: u64,
        change: impl Fn(&mut KeyRecord, &Uses, Timestamp) -> Result<T, KeyError>,
    ) -> Result<(ChangedKey, T), KeyError> {
        for _ in 0..ATTEMPTS {
            self.follower.read().await?;
            let stored = self.changeable(name, version)?;
            let uses = self.uses_of(&stored.record).await?;
            let mut record = (*stored.record).clone();
            let done = change(&mut record, &uses, self.follower.store().now())?;
            if record == *stored.record {
                let key = Arc::new(VirtualKey::created(stored.version, Arc::clone(&stored.record)));
                return Ok((self.found((key, stored)), done));
            }
            if let Some(version) = self.write_key(&record, stored.version).await? {
                let key = Arc::new(VirtualKey::created(version, Arc::new(record)));
                return Ok((ChangedKey { key, before: Some(stored.record) }, done));
            }
        }
        Err(KeyError::Changed(name.into()))
    }

    /// A key that was found as it was to be, which the store keeps. A record that cannot be written is not kept, and is right nonetheless.
    fn found(&self, (key, stored): (Arc<VirtualKey>, StoredKey)) -> ChangedKey {
        if let Ok(value) = entry::to_bytes(&*stored.record) {
            let name = format!("{KEY}{}", stored.record.name).into();
            self.follower.store().registry_found(&name, stored.version, value.into());
        }
        ChangedKey { key, before: None }
    }

    /// Writes a record over the version `expected`; `None`: the record has another version.
    async fn write_key(&self, record: &KeyRecord, expected: u64) -> Result<Option<u64>, KeyError> {
        let value = entry::to_bytes(record).map_err(|error| {
            error!(key = %record.name, %error, "a key's record cannot be written");
            KeyError::Internal
        })?;
        let name = format!("{KEY}{}", record.name).into();
        match self.follower.store().registry_write(name, expected, value.into()).await? {
            RegistryWritten::Written { version } => {
                // In force before it is answered. If it cannot be read now, the follower will do it.
                let _ = self.follower.read().await;
                Ok(Some(version))
            }
            RegistryWritten::Conflict { .. } => Ok(None),
        }
    }

    async fn new_secret(&self, now: Timestamp) -> Result<(KeySecret, Secret), KeyError> {
        let secret = Secret::from_random(self.random()?);
        let sha256 = Sha256::digest(secret.expose().as_bytes()).into();
        let id = SecretId(u64::from_le_bytes(self.random()?));
        let hash = self.hash_key().await?.hash(&sha256);
        Ok((KeySecret { id, hash, created_at: now, ends_at: None }, secret))
    }

    fn random<const N: usize>(&self) -> Result<[u8; N], KeyError> {
        self.entropy.bytes().map_err(|error| {
            error!(%error, "no secret can be made");
            KeyError::Internal
        })
    }

    /// The key that secrets are hashed with; created by the first process that needs it. It is in force here with the first key.
    async fn hash_key(&self) -> Result<HashKey, KeyError> {
        if let Some(key) = self.follower.live().registry.hash_key() {
            return Ok(key);
        }
        // Whichever process was first, its key is the one that all get.
        let key = self.follower.store().hash_key(Some(self.random()?)).await?;
        key.map(HashKey::new).ok_or(KeyError::Internal)
    }

    /// How often the secrets of a key were used, this process's own uses included.
    pub(super) async fn uses_of(&self, record: &KeyRecord) -> Result<Uses, KeyError> {
        self.follower.live().write_uses(self.follower.store()).await;
        let ids: Vec<SecretId> = record.secrets.iter().map(|secret| secret.id).collect();
        let uses = self.follower.store().uses(ids.clone()).await?;
        Ok(ids.into_iter().zip(uses).collect())
    }
}

/// How often secrets were used.
pub(super) type Uses = HashMap<SecretId, SecretUses>;

fn is_in_use(secret: SecretId, uses: &Uses, now: Timestamp) -> bool {
    let last = uses.get(&secret).and_then(|uses| uses.last_used);
    last.is_some_and(|last| now.since(last) < IN_USE_MS)
}

fn check_new(policy: &Policy, new: &KeyRecord, now: Timestamp) -> Result<(), KeyError> {
    let mut breaches = Vec::new();
    check_labels(&new.labels, &mut breaches);
    if let Some(end) = new.expires_at {
        check_end(end, now, &mut breaches);
    }
    match policy.teams.get(&new.team) {
        None => breaches.push(no_team(&new.team)),
        Some(team) => {
            breaches.extend(check_name(&new.name, &new.team).err());
            check_limits(new, team, &mut breaches);
        }
    }
    check_spelling(&new.limits, policy, &mut breaches);
    if breaches.is_empty() { Ok(()) } else { Err(KeyError::Invalid(breaches)) }
}

/// Changes a record, if `policy` permits what it becomes.
fn update(
    record: &mut KeyRecord,
    change: &KeyChange,
    policy: &Policy,
    now: Timestamp,
) -> Result<(), KeyError> {
    apply(record, change);
    let mut breaches = Vec::new();
    check_labels(&record.labels, &mut breaches);
    if let Some(Some(end)) = change.expires_at {
        check_end(end, now, &mut breaches);
    }
    // Limits that stay may be wider than the team's by now; the stricter of both applies.
    if !change.replaced.is_empty() {
        match policy.teams.get(&record.team) {
            Some(team) => check_limits(record, team, &mut breaches),
            None => breaches.push(no_team(&record.team)),
        }
    }
    if change.replaced.contains(&LimitField::Models) {
        check_spelling(&record.limits, policy, &mut breaches);
    }
    if breaches.is_empty() { Ok(()) } else { Err(KeyError::Invalid(breaches)) }
}

/// A key limited to a model in the wrong case could do nothing, and its team may well permit every name.
fn check_spelling(limits: &KeyLimits, policy: &Policy, breaches: &mut Vec<Breach>) {
    for model in &limits.models {
        let spelling = spelling_of(&policy.catalogue, model);
        if !spelling.is_empty() {
            let message = format!("`{model}` is no model with a price{spelling}");
            breaches.push(Breach { field: LimitField::Models.path(), message });
        }
    }
}

fn check_end(end: Timestamp, now: Timestamp, breaches: &mut Vec<Breach>) {
    if end <= now {
        let message = "is past; to end a key now, revoke it".to_owned();
        breaches.push(Breach { field: "expire_time", message });
    }
}

fn no_team(team: &str) -> Breach {
    Breach { field: "team", message: format!("the policy has no team `{team}`") }
}
