//! Pauses and resumes. As with keys, each change is one compare-and-set of a record in the registry. It is in force in this
//! process when it is answered, and in every other a moment later; no decision asks the store about it.

use std::sync::Arc;

use bytes::Bytes;
use thiserror::Error;
use tracing::error;

use crate::{
    domain::{
        Timestamp,
        actor::Actor,
        eligibility::spelling_of,
        pause::{MAX_PAUSES, Pause, Target},
    },
    live::{Follower, PAUSE, entry},
    store::{Registry, RegistryWritten, StoreError},
};

/// How often a change is retried on a record that another caller changed first.
const ATTEMPTS: u32 = 8;

/// Why nothing was paused or resumed, or why the outcome is unknown.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum PauseError {
    /// The store did not say what is paused; nothing was changed.
    #[error(transparent)]
    Unread(StoreError),
    /// The store did not answer a change. Whether it took effect is unknown; repeating it is safe.
    #[error(transparent)]
    Unwritten(StoreError),
    /// There is nothing of this name, so pausing it would do nothing.
    #[error("cannot pause {}: {}{spelling}", .target.describe(), absence(.target))]
    Unknown {
        /// What was to be paused.
        target: Target,
        /// The right spelling, if known.
        spelling: String,
    },
    /// There are as many pauses as are permitted.
    #[error("{MAX_PAUSES} pauses are in force already; resume some, or pause the organization")]
    TooMany,
    /// Others keep changing it.
    #[error("{} is being paused or resumed by others at the same time; look, and try again", .0.describe())]
    Changed(Target),
    /// A fault of the service; details are in its log.
    #[error("internal error")]
    Internal,
}

/// The state before and after.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PauseChange {
    /// The pause before; `None`: it was not paused.
    pub before: Option<Arc<Pause>>,
    /// The pause in force; `None`: it is not paused.
    pub after: Option<Arc<Pause>>,
}

impl PauseChange {
    /// Whether it was already so, and nothing was written.
    #[must_use]
    pub fn changes_nothing(&self) -> bool {
        self.before == self.after
    }
}

/// Pauses and resumes.
#[derive(Clone, Debug)]
pub struct Pauses<S> {
    follower: Follower<S>,
}

impl<S: Registry> Pauses<S> {
    /// The pauses in the registry that `follower` follows.
    #[must_use]
    pub const fn new(follower: Follower<S>) -> Self {
        Self { follower }
    }

    /// Denies every request that `target` covers from now on, until it is resumed. Requests in flight continue, and are
    /// booked. A repeat by the same caller with the same reason changes nothing; any other pause replaces it.
    ///
    /// # Errors
    /// If nothing has that name, or it cannot be written.
    pub async fn pause(&self, target: &Target, reason: &str, by: &Actor) -> Result<PauseChange, PauseError> {
        self.change_pause(target, |before| match before {
            Some(same) if &*same.reason == reason && same.by.is_same(by) => Ok(Some(Arc::clone(same))),
            _ if !self.is_known(target) => Err(self.unknown(target)),
            None if self.follower.live().registry.pauses().len() >= MAX_PAUSES => Err(PauseError::TooMany),
            _ => Ok(Some(Arc::new(Pause {
                reason: reason.into(),
                by: by.clone(),
                since: self.follower.store().now(),
            }))),
        })
        .await
    }

    /// Ends the pause of `target`, if there is one.
    ///
    /// # Errors
    /// If it cannot be written.
    pub async fn resume(&self, target: &Target) -> Result<PauseChange, PauseError> {
        self.change_pause(target, |_| Ok(None)).await
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

    /// What is paused after this target, in the order of targets: the organization, then teams, keys and models by name. Of a
    /// team: what covers requests of it; empty: everything.
    ///
    /// # Errors
    /// If the store does not answer.
    pub async fn list(
        &self,
        team: &str,
        after: Option<&Target>,
    ) -> Result<Vec<(Target, Arc<Pause>)>, PauseError> {
        self.follower.read().await.map_err(PauseError::Unread)?;
        let policy = &self.follower.snapshot().policy;
        let registry = &self.follower.live().registry;
        let has_key = |name: &str| {
            let is_declared = policy.keys.named(name).iter().any(|key| *key.team == *team);
            // A key whose record cannot be read may be one of the team's.
            is_declared || registry.key(name).map_or(true, |key| key.is_some_and(|key| *key.team == *team))
        };
        let mut pauses = registry.pauses();
        pauses.retain(|(target, _)| {
            let may_cover = match target {
                _ if team.is_empty() => true,
                Target::Organization | Target::Model(_) => true,
                Target::Team(name) => **name == *team,
                Target::Key(name) => has_key(name),
            };
            may_cover && after.is_none_or(|after| target > after)
        });
        Ok(pauses)
    }

    /// Repeats a compare-and-set until no other change came in between.
    async fn change_pause(
        &self,
        target: &Target,
        change: impl Fn(Option<&Arc<Pause>>) -> Result<Option<Arc<Pause>>, PauseError>,
    ) -> Result<PauseChange, PauseError> {
        let name: Arc<str> = format!("{PAUSE}{target}").into();
        for _ in 0..ATTEMPTS {
            self.follower.read().await.map_err(PauseError::Unread)?;
            let (version, before) = self.follower.live().registry.pause(target);
            let after = change(before.as_ref())?;
            let done = PauseChange { before, after };
            let value = done.after.as_deref().map_or(Ok(Bytes::new()), record)?;
            if done.changes_nothing() {
                self.follower.store().registry_found(&name, version, value);
                return Ok(done);
            }
            let written =
                self.follower.store().registry_write(Arc::clone(&name), version, value.clone()).await;
            // In force before it is answered. If it cannot be read now, the follower will do it.
            let read = self.follower.read().await;
            match written {
                Ok(RegistryWritten::Written { .. }) => return Ok(done),
                Ok(RegistryWritten::Conflict { .. }) => {}
                // It may have been written nonetheless.
                Err(_)
                    if read.is_ok()
                        && let (version, found) = self.follower.live().registry.pause(target)
                        && found == done.after =>
                {
                    self.follower.store().registry_found(&name, version, value);
                    return Ok(done);
                }
                Err(error) => return Err(PauseError::Unwritten(error)),
            }
        }
        Err(PauseError::Changed(target.clone()))
    }

    fn unknown(&self, target: &Target) -> PauseError {
        let spelling = match target {
            Target::Model(pattern) => spelling_of(&self.follower.snapshot().policy.catalogue, pattern),
            Target::Organization | Target::Team(_) | Target::Key(_) => String::new(),
        };
        PauseError::Unknown { target: target.clone(), spelling }
    }

    fn is_known(&self, target: &Target) -> bool {
        let policy = &self.follower.snapshot().policy;
        match target {
            Target::Organization => true,
            Target::Team(name) => policy.teams.contains_key(name),
            Target::Key(name) => {
                !policy.keys.named(name).is_empty()
                    || self.follower.live().registry.key(name).is_ok_and(|key| key.is_some())
            }
            Target::Model(pattern) => policy.catalogue.models().any(|model| pattern.matches(&model.name)),
        }
    }
}

fn record(pause: &Pause) -> Result<Bytes, PauseError> {
    let value = entry::to_bytes(pause).map_err(|error| {
        error!(%error, "the record of a pause cannot be written");
        PauseError::Internal
    })?;
    Ok(value.into())
}

/// Where a name was looked for and not found.
const fn absence(target: &Target) -> &'static str {
    match target {
        Target::Organization => "it is not there",
        Target::Team(_) => "the policy has no such team",
        Target::Key(_) => "neither the policy nor the service has such a key",
        Target::Model(_) => "no model with a price is called so; `tollgate prices` lists them",
    }
}
