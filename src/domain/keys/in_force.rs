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
    limit::{Limit, OnShortfall, Period, Quantity, Span, Subject, Window},
    money::NanoUsd,
    policy::{Key, Policy, Team},
};

/// The created keys in force.
#[derive(Debug, Default)]
pub struct CreatedKeys {
    /// `None`: no key was ever created.
    hash_key: Option<HashKey>,
    /// By the first bytes of the hash. The hash is keyed, so timing reveals nothing about an input that a caller can
    /// choose; the candidates are compared in full, in constant time.
    secrets: HashMap<[u8; 8], Vec<Created>>,
}

/// A secret of a created key.
#[derive(Debug)]
pub struct Created {
    hash: SecretHash,
    /// When the secret expires, if that is before its key does.
    pub ends_at: Option<Timestamp>,
    /// Whether the key was revoked.
    pub revoked: bool,
    /// The name of the key's team.
    pub team_name: Arc<str>,
    /// The team, if the policy has it.
    pub team: Option<Arc<Team>>,
    /// The key.
    pub key: Arc<Key>,
    /// How often the secret was used since its uses were last recorded.
    pub uses: Arc<UseCounter>,
}

/// Counts uses. Every core adds to it, and the recorder takes from it. Each field is independent; there is no ordering
/// between them.
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

    /// The requests since the last call, and the time of the latest one ever.
    #[must_use]
    pub fn take(&self) -> (u64, Timestamp) {
        (self.requests.swap(0, Ordering::Relaxed), Timestamp(self.last_used.load(Ordering::Relaxed)))
    }

    /// Whether there is nothing to take.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.requests.load(Ordering::Relaxed) == 0
    }

    /// Puts back what was taken but could not be recorded.
    pub fn put_back(&self, requests: u64) {
        self.requests.fetch_add(requests, Ordering::Relaxed);
    }
}

impl CreatedKeys {
    /// The keys in `records` under `policy`; `counter` gives the counter of a secret's uses.
    ///
    /// Nothing is narrowed here. A key's limits and its team's limits both hold for each request, so the stricter one
    /// decides, even if the policy became stricter after the key was created.
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

impl KeyLimits {
    /// The limits of a declared key in the form that a created key has, and the limits of kinds that a created key cannot
    /// have, such as a budget that only warns.
    #[must_use]
    pub fn of_declared(key: &Key) -> (Self, Vec<&Limit>) {
        let mut own = Self {
            models: key.models.clone().unwrap_or_default(),
            operations: key.operations.clone().unwrap_or_default(),
            max_output_tokens: key.max_output_tokens,
            ..Self::default()
        };
        let mut others = Vec::new();
        // A limit that only counts does not restrict anything.
        for limit in key.limits.iter().filter(|limit| limit.bound.is_some()) {
            match (limit.quantity, limit.window) {
                (Quantity::NanoUsd, Window::Calendar(Period::Month))
                    if limit.on_shortfall != OnShortfall::Warn =>
                {
                    own.monthly_budget = limit.bound.and_then(NanoUsd::new);
                }
                (Quantity::Requests, Window::Sliding(Span::Minute)) => own.requests_per_minute = limit.bound,
                (Quantity::Tokens, Window::Sliding(Span::Minute)) => own.tokens_per_minute = limit.bound,
                _ => others.push(limit),
            }
        }
        // In the document an empty list permits nothing; here it would mean everything that the team has.
        if key.models.as_ref().is_some_and(Vec::is_empty)
            || key.operations.as_ref().is_some_and(Vec::is_empty)
        {
            own.requests_per_minute = Some(0);
        }
        (own, others)
    }
}

/// A created key in the form of a declared one, with its limits in the places where a declared key has them.
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
    let in_flight = format!("teams.{}.keys.{}.max_in_flight", record.team, record.name);
    let in_flight = subject.limit(in_flight.into(), Quantity::RequestsInFlight, Window::InFlight);
    let limits = [
        limit("budget.monthly_usd", Quantity::NanoUsd, Window::Calendar(Period::Month), budget),
        limit("requests_per_minute", Quantity::Requests, minute, *requests_per_minute),
        limit("tokens_per_minute", Quantity::Tokens, minute, *tokens_per_minute),
        // Only counts, as for a declared key without a bound.
        Some(in_flight),
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::request::Operation;

    fn record(limits: KeyLimits) -> KeyRecord {
        KeyRecord {
            name: "t-prod-web".into(),
            team: "t".into(),
            labels: Default::default(),
            limits,
            created_at: Timestamp(1),
            expires_at: None,
            revoked_at: None,
            secrets: Vec::new(),
        }
    }

    #[test]
    fn limits_are_the_same_whoever_makes_the_key() {
        let limits = KeyLimits {
            models: vec!["openai/*".parse().unwrap()],
            operations: vec![Operation::Chat],
            requests_per_minute: Some(1),
            tokens_per_minute: Some(2),
            max_output_tokens: Some(3),
            monthly_budget: NanoUsd::new(4),
        };
        for limits in [limits, KeyLimits::default()] {
            assert_eq!(KeyLimits::of_declared(&key(&record(limits.clone()))), (limits, Vec::new()));
        }
    }

    #[test]
    fn of_a_declared_key_no_limit_is_left_out() {
        let subject = Subject::key("t", "t-prod-web");
        let limit = |quantity, window| Limit {
            bound: Some(7),
            ..subject.limit("teams.t.keys.t-prod-web.x".into(), quantity, window)
        };
        let minute = limit(Quantity::Requests, Window::Sliding(Span::Minute));
        let others = [
            limit(Quantity::Requests, Window::Sliding(Span::Hour)),
            limit(Quantity::NanoUsd, Window::Calendar(Period::Day)),
            limit(Quantity::RequestsInFlight, Window::InFlight),
            limit(Quantity::AudioMilliseconds, Window::Sliding(Span::Minute)),
            Limit {
                on_shortfall: OnShortfall::Warn,
                ..limit(Quantity::NanoUsd, Window::Calendar(Period::Month))
            },
        ];
        let limits = std::iter::once(&minute).chain(&others).cloned().collect();
        let declared = Key { limits, ..key(&record(KeyLimits::default())) };
        let (own, shown) = KeyLimits::of_declared(&declared);
        assert_eq!(own, KeyLimits { requests_per_minute: Some(7), ..KeyLimits::default() });
        assert_eq!(shown, others.iter().collect::<Vec<_>>());
    }

    #[test]
    fn a_key_that_may_use_nothing_is_not_shown_as_one_that_may_use_all() {
        let unlimited = || key(&record(KeyLimits::default()));
        for declared in [
            Key { models: Some(Vec::new()), ..unlimited() },
            Key { operations: Some(Vec::new()), ..unlimited() },
        ] {
            assert_eq!(KeyLimits::of_declared(&declared).0.requests_per_minute, Some(0));
        }
        assert_eq!(KeyLimits::of_declared(&unlimited()).0, KeyLimits::default());
    }
}
