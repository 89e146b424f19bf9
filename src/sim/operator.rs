//! The operator: makes a key and revokes it, and pauses and resumes a team.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use sha2::{Digest as _, Sha256};
use tokio::time::{sleep, timeout};

use super::{
    history::{History, Ordered},
    replica::{Fleet, Replica},
    rng::Rng,
    rules::{KEYED, TEAMS},
    store::Simulated,
};
use crate::{
    control::{KeyError, Keys, NewKey, Pauses},
    domain::{actor::Actor, pause::Target},
};

/// The key of the team that has one.
const KEY: &str = "three-prod-gateway";

/// How long the operator waits for an answer: a replica may be killed, and not give one.
const PATIENCE: Duration = Duration::from_secs(2);

/// What clients know of keys.
#[derive(Debug, Default)]
pub(super) struct Keyring(Mutex<Option<[u8; 32]>>);

impl Keyring {
    /// The digest of the secret, once there is one.
    pub(super) fn secret(&self) -> Option<[u8; 32]> {
        *self.0.lock().unwrap()
    }
}

pub(super) struct Operator<S: Simulated> {
    pub(super) fleet: Arc<Fleet<S>>,
    pub(super) history: Arc<History>,
    pub(super) keys: Arc<Keyring>,
    pub(super) rng: Rng,
}

impl<S: Simulated> Operator<S> {
    pub(super) async fn run(mut self, span_ms: u64) {
        if let Some(replica) = self.fleet.any(&mut self.rng) {
            match self.history.book.is_tight() {
                true => self.create(&replica).await,
                // There, no key was ever made.
                false => {
                    let _ = timeout(PATIENCE, replica.authorizer.follower().read()).await;
                }
            }
        }
        let team = usize::try_from(self.rng.below(TEAMS.len() as u64)).unwrap_or_default();
        for stops in [true, false] {
            sleep(Duration::from_millis(self.rng.below(span_ms / 2 + 1))).await;
            self.order(team, stops).await;
        }
        sleep(Duration::from_millis(self.rng.below(span_ms / 2 + 1))).await;
        if let Some(replica) = self.fleet.any(&mut self.rng) {
            self.revoke(&replica).await;
        }
    }

    async fn create(&self, replica: &Replica<S>) {
        let keys = Keys::new(replica.authorizer.follower().clone(), replica.entropy.clone());
        let new = NewKey { name: KEY.to_owned(), team: TEAMS[KEYED].to_owned(), ..NewKey::default() };
        match timeout(PATIENCE, keys.create_key(new)).await {
            Ok(Ok((_, secret))) => {
                *self.keys.0.lock().unwrap() = Some(Sha256::digest(secret.expose().as_bytes()).into());
                self.history.note("key", &[]);
            }
            Ok(Err(KeyError::Store(_))) | Err(_) => {}
            Ok(Err(error)) => self.history.surprise(format!("no key is made: {error}")),
        }
    }

    async fn revoke(&self, replica: &Replica<S>) {
        let keys = Keys::new(replica.authorizer.follower().clone(), replica.entropy.clone());
        let sent = self.sends();
        if let Ok(Ok(_)) = timeout(PATIENCE, keys.revoke_key(KEY)).await
            && let Some(order) = self.ordered(KEYED, sent, true)
        {
            self.history.lock().revoked = Some(order);
            self.history.note("revoked", &[]);
        }
    }

    async fn order(&mut self, team: usize, stops: bool) {
        let Some(replica) = self.fleet.any(&mut self.rng) else { return };
        let pauses = Pauses::new(replica.authorizer.follower().clone());
        let target = Target::Team(TEAMS[team].into());
        let sent = self.sends();
        let done = match stops {
            true => {
                let by = Actor::system("simulator");
                matches!(timeout(PATIENCE, pauses.pause(&target, "simulated", &by)).await, Ok(Ok(_)))
            }
            false => matches!(timeout(PATIENCE, pauses.resume(&target)).await, Ok(Ok(_))),
        };
        // A resume that was not acknowledged may be in force all the same.
        if (done || !stops)
            && let Some(order) = self.ordered(team, sent, stops)
        {
            self.history.lock().pauses.push(order);
            self.history.note("paused", &[team as u64, u64::from(stops)]);
        }
    }

    /// When it asks for something, and the last step of the store by then.
    fn sends(&self) -> (u64, u64) {
        (self.history.now(), self.history.lock().steps)
    }

    /// What it was told is in force; `None`: a failover has forgotten what was to stop, perhaps, before that was answered.
    fn ordered(&self, team: usize, (sent, step): (u64, u64), stops: bool) -> Option<Ordered> {
        let acknowledged = self.history.now();
        let records = self.history.lock();
        let may_be_forgotten = stops && records.forgotten.iter().any(|(_, until)| *until >= step);
        (!may_be_forgotten).then(|| Ordered { team, sent, acknowledged, step: records.steps, stops })
    }
}
