//! Created keys as the hot path reads them: by the keyed hash of a secret, merged with the policy document.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use super::{HashKey, KeyLimits, KeyRecord, SecretHash, SecretId};
use crate::domain::{
    Timestamp,
    limit::{Limit, Period, Quantity, Span, Subject, Window},
    money::NanoUsd,
    policy::{Key, Policy, Team},
};

/// The created keys in force.
#[derive(Debug, Default)]
pub struct CreatedKeys {
    /// `None`: no key was ever created.
    hash_key: Option<HashKey>,
    /// By the first bytes of the hash. They come from a keyed hash, so that what a caller can choose tells nothing by the
    /// time that it takes; the candidates are compared in full, in constant time.
    secrets: HashMap<[u8; 8], Vec<Created>>,
}

/// A secret of a created key.
#[derive(Debug)]
pub struct Created {
    hash: SecretHash,
    /// When the secret ends, if it does before its key.
    pub ends_at: Option<Timestamp>,
    /// Whether the key was revoked.
    pub revoked: bool,
    /// The name of the key's team.
    pub team_name: Arc<str>,
    /// The team, if the policy has it.
    pub team: Option<Arc<Team>>,
    /// The key.
    pub key: Arc<Key>,
    /// How often the secret was used since that was last written down.
    pub uses: Arc<UseCounter>,
}

/// Counts uses. Every core adds to it, and who writes it down takes from it: each field for itself, in no order.
#[derive(Debug, Default)]
pub struct UseCounter {
    requests: AtomicU64,
    last_used: AtomicU64,
}

impl UseCounter {
    /// Counts a request.
    pub fn count(&self, now: Timestamp) {
        self.last_used.fetch_max(now.0, Ordering::Relaxed);
        self.requests.fetch_add(1, Ordering::Relaxed);
    }

    /// The requests since the last call, and the time of the last one ever.
    #[must_use]
    pub fn take(&self) -> (u64, Timestamp) {
        (self.requests.swap(0, Ordering::Relaxed), Timestamp(self.last_used.load(Ordering::Relaxed)))
    }

    /// Whether there is nothing to take.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.requests.load(Ordering::Relaxed) == 0
    }

    /// Puts back what was taken and could not be written down.
    pub fn put_back(&self, requests: u64) {
        self.requests.fetch_add(requests, Ordering::Relaxed);
    }
}

impl CreatedKeys {
    /// The keys in `records` under `policy`; `counter` gives the counter of a secret's uses.
    ///
    /// Nothing is narrowed here: a key's limits and its team's both hold for each request, so that the stricter of both
    /// decides, also where the policy became stricter than the key after that was created.
    #[must_use]
    pub fn new<'r>(
        policy: &Policy,
        hash_key: Option<HashKey>,
        records: impl Iterator<Item = &'r KeyRecord>,
        counter: impl Fn(SecretId) -> Arc<UseCounter>,
    ) -> Self {
        let mut secrets: HashMap<[u8; 8], Vec<Created>> = HashMap::new();
        for record in records {
            let key = Arc::new(key(record));
            for secret in &record.secrets {
                secrets.entry(secret.hash.prefix()).or_default().push(Created {
                    hash: secret.hash,
                    ends_at: secret.ends_at,
                    revoked: record.revoked_at.is_some(),
                    team_name: Arc::clone(&record.team),
                    team: policy.teams.get(&record.team).cloned(),
                    key: Arc::clone(&key),
                    uses: counter(secret.id),
                });
            }
        }
        Self { hash_key, secrets }
    }

    /// The key of the secret with this SHA-256.
    #[must_use]
    pub fn find(&self, sha256: &[u8; 32]) -> Option<&Created> {
        let hash = self.hash_key.as_ref()?.hash(sha256);
        self.secrets.get(&hash.prefix())?.iter().find(|created| created.hash == hash)
    }
}

/// A created key as a declared one would be, with its limits where those of a declared one would stand.
fn key(record: &KeyRecord) -> Key {
    let KeyLimits {
        models,
        operations,
        requests_per_minute,
        tokens_per_minute,
        max_output_tokens,
        monthly_budget,
    } = &record.limits;
    let subject = Subject::key(&record.team, &record.name);
    let limit = |name: &str, quantity, window, bound: Option<u64>| {
        let id = format!("teams.{}.keys.{}.{name}", record.team, record.name);
        bound.map(|bound| Limit { bound: Some(bound), ..subject.limit(id.into(), quantity, window) })
    };
    let minute = Window::Sliding(Span::Minute);
    let budget = monthly_budget.map(NanoUsd::nanos);
    let limits = [
        limit("budget.monthly_usd", Quantity::NanoUsd, Window::Calendar(Period::Month), budget),
        limit("requests_per_minute", Quantity::Requests, minute, *requests_per_minute),
        limit("tokens_per_minute", Quantity::Tokens, minute, *tokens_per_minute),
    ];
    Key {
        name: Arc::clone(&record.name),
        models: Some(models.clone()).filter(|models| !models.is_empty()),
        operations: Some(operations.clone()).filter(|operations| !operations.is_empty()),
        max_output_tokens: *max_output_tokens,
        expires_at: record.expires_at,
        limits: limits.into_iter().flatten().collect(),
    }
}
