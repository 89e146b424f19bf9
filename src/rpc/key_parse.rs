//! Secrets of virtual keys, and requests of `KeyService`: every bound is checked here, and every breach is named.

use std::time::Duration;

use sha2::{Digest as _, Sha256};
use tonic::Status;

use super::{
    etag,
    google_type::Money,
    parse::{DEFAULT_PAGE, MAX_PAGE, PAGE_AFTER},
    proto,
    status::FieldErrors,
};
use crate::{
    control::{KeyChange, KeyQuery, NewKey},
    domain::{
        MAX_AMOUNT, Timestamp,
        key::{KeyCursor, KeyLimits, LimitField, SecretId, is_mistyped},
        money::NanoUsd,
        name::{MAX_NAME_BYTES, MAX_TEAM_BYTES},
        request::Caller,
    },
};

/// Bytes of a secret.
pub(super) const MAX_KEY_BYTES: usize = 512;
/// Paths in one update: more than there are fields.
const MAX_PATHS: usize = 16;
/// Items in one list; the domain has its own bound on models, and a list of operations names each once.
const MAX_ITEMS: usize = 64;
const DEFAULT_OVERLAP: Duration = Duration::from_secs(24 * 3600);
const MAX_OVERLAP: Duration = Duration::from_secs(90 * 24 * 3600);
const NANOS_PER_DOLLAR: u64 = 1_000_000_000;
/// The last instant of the year 9999, where timestamps end.
const MAX_SECONDS: i64 = 253_402_300_799;

/// The caller that the secret of a virtual key names; `None` if it cannot be a secret. The secret goes no further.
pub(super) fn key_caller(secret: &str) -> Option<Caller> {
    let sound = (1..=MAX_KEY_BYTES).contains(&secret.len());
    sound.then(|| match is_mistyped(secret) {
        true => Caller::Mistyped,
        false => Caller::Key(Sha256::digest(secret.as_bytes()).into()),
    })
}

/// A well-formed `RotateKeyRequest`.
pub(super) struct Rotation {
    pub(super) name: String,
    pub(super) overlap_ms: u64,
    pub(super) force: bool,
}

/// A well-formed `RevokeKeyRequest`.
pub(super) struct Revocation {
    pub(super) name: String,
    pub(super) secret: Option<SecretId>,
    pub(super) force: bool,
}

/// A well-formed `CreateKeyRequest`. Whether it narrows its team's policy is checked later.
pub(super) fn create(request: proto::CreateKeyRequest) -> Result<NewKey, Status> {
    let mut errors = FieldErrors::default();
    let new = NewKey {
        name: errors.text("name", request.name, 1, MAX_NAME_BYTES),
        team: errors.text("team", request.team, 1, MAX_TEAM_BYTES),
        labels: request.labels.into_iter().collect(),
        limits: request.limits.map(|limits| errors.limits(limits)).unwrap_or_default(),
        expires_at: errors.instant("expire_time", request.expire_time),
    };
    errors.or(new)
}

/// The name of a key, and its team, if given.
pub(super) fn get(request: proto::GetKeyRequest) -> Result<(String, String), Status> {
    let mut errors = FieldErrors::default();
    let name = errors.text("name", request.name, 1, MAX_NAME_BYTES);
    let team = errors.text("team", request.team, 0, MAX_TEAM_BYTES);
    errors.or((name, team))
}

/// A well-formed `ListKeysRequest`.
pub(super) fn list(request: proto::ListKeysRequest) -> Result<KeyQuery, Status> {
    let mut errors = FieldErrors::default();
    let query = KeyQuery {
        team: errors.text("team", request.team, 0, MAX_TEAM_BYTES),
        page_size: match errors.count("page_size", request.page_size.into(), MAX_PAGE) {
            0 => DEFAULT_PAGE,
            size => usize::try_from(size).unwrap_or(DEFAULT_PAGE),
        },
        after: errors.cursor("page_token", &request.page_token),
        include_usage: true,
        ..KeyQuery::default()
    };
    errors.or(query)
}

/// A well-formed `UpdateKeyRequest`: which key, and its new values.
pub(super) fn update(request: proto::UpdateKeyRequest) -> Result<(String, KeyChange), Status> {
    let mut errors = FieldErrors::default();
    let key = request.key.unwrap_or_default();
    let name = errors.text("key.name", key.name, 1, MAX_NAME_BYTES);
    let version = match key.etag.as_str() {
        "" => 0,
        // What no release made is the `etag` of no record: the key has changed as far as this caller knows.
        etag => etag::version(etag).filter(|version| *version > 0).unwrap_or(u64::MAX),
    };
    let mut change = KeyChange { version, ..KeyChange::default() };
    let paths = request.update_mask.unwrap_or_default().paths;
    if paths.is_empty() {
        errors.add("update_mask", "required: name what is new, such as `labels` or `limits.models`");
    } else if paths.len() > MAX_PATHS {
        errors.add("update_mask", format!("at most {MAX_PATHS} paths"));
    }
    for path in paths.iter().take(MAX_PATHS) {
        match path.as_str() {
            "labels" => change.labels = Some(key.labels.clone().into_iter().collect()),
            "expire_time" => change.expires_at = Some(errors.instant("key.expire_time", key.expire_time)),
            "limits" => change.replaced.extend(LimitField::ALL),
            path => match LimitField::ALL.into_iter().find(|field| field.path() == path) {
                Some(field) => change.replaced.push(field),
                None => {
                    errors.add("update_mask", format!("`{path}` is nothing of a key that can be changed"))
                }
            },
        }
    }
    change.limits = key.limits.map(|limits| errors.limits(limits)).unwrap_or_default();
    errors.or((name, change))
}

/// A well-formed `RotateKeyRequest`.
pub(super) fn rotate(request: proto::RotateKeyRequest) -> Result<Rotation, Status> {
    let mut errors = FieldErrors::default();
    let overlap = request.overlap.or_else(|| prost_types::Duration::try_from(DEFAULT_OVERLAP).ok());
    let rotation = Rotation {
        name: errors.text("name", request.name, 1, MAX_NAME_BYTES),
        overlap_ms: errors.duration("overlap", overlap, MAX_OVERLAP),
        force: request.force,
    };
    errors.or(rotation)
}

/// A well-formed `RevokeKeyRequest`.
pub(super) fn revoke(request: proto::RevokeKeyRequest) -> Result<Revocation, Status> {
    let mut errors = FieldErrors::default();
    let name = errors.text("name", request.name, 1, MAX_NAME_BYTES);
    let secret = match request.secret_id.is_empty() {
        true => None,
        false => SecretId::try_from(request.secret_id)
            .map_err(|error| errors.add("secret_id", error.to_string()))
            .ok(),
    };
    errors.or(Revocation { name, secret, force: request.force })
}

impl FieldErrors {
    fn or<T>(self, value: T) -> Result<T, Status> {
        if self.is_empty() { Ok(value) } else { Err(self.into_status()) }
    }

    /// The key after which a page begins.
    fn cursor(&mut self, field: &str, token: &str) -> Option<KeyCursor> {
        if token.is_empty() {
            return None;
        }
        let place = token.strip_prefix(PAGE_AFTER).and_then(|place| {
            let mut parts = place.splitn(3, '/');
            let name = parts.next().filter(|name| (1..=MAX_NAME_BYTES).contains(&name.len()))?;
            let team = parts.next().filter(|team| (1..=MAX_TEAM_BYTES).contains(&team.len()))?;
            Some(KeyCursor { name: name.into(), team: team.into(), declared: parts.next()?.parse().ok()? })
        });
        if place.is_none() {
            self.add(field, "not the `next_page_token` of an earlier answer");
        }
        place
    }

    fn limits(&mut self, limits: proto::KeyLimits) -> KeyLimits {
        let mut models = Vec::new();
        for model in limits.models.iter().take(MAX_ITEMS + 1) {
            match model.parse() {
                Ok(pattern) if models.contains(&pattern) => {}
                Ok(pattern) => models.push(pattern),
                Err(error) => self.add("limits.models", format!("`{model}` is {error}")),
            }
        }
        let mut operations = Vec::new();
        for number in limits.operations.iter().take(MAX_ITEMS + 1) {
            match self.operation_in("limits.operations", *number) {
                Some(operation) if !operations.contains(&operation) => operations.push(operation),
                _ => {}
            }
        }
        for (field, count) in
            [("limits.models", limits.models.len()), ("limits.operations", limits.operations.len())]
        {
            if count > MAX_ITEMS {
                self.add(field, format!("at most {MAX_ITEMS}"));
            }
        }
        let mut amount = |field, value: Option<i64>| value.map(|value| self.count(field, value, MAX_AMOUNT));
        KeyLimits {
            models,
            operations,
            requests_per_minute: amount("limits.requests_per_minute", limits.requests_per_minute),
            tokens_per_minute: amount("limits.tokens_per_minute", limits.tokens_per_minute),
            max_output_tokens: amount("limits.max_output_tokens", limits.max_output_tokens),
            monthly_budget: limits
                .monthly_budget
                .and_then(|money| self.dollars("limits.monthly_budget", &money)),
            ..KeyLimits::default()
        }
    }

    fn dollars(&mut self, field: &str, money: &Money) -> Option<NanoUsd> {
        let nanos = || {
            let (units, nanos) = (u64::try_from(money.units).ok()?, u64::try_from(money.nanos).ok()?);
            let nanos = Some(nanos).filter(|nanos| *nanos < NANOS_PER_DOLLAR)?;
            units.checked_mul(NANOS_PER_DOLLAR)?.checked_add(nanos)
        };
        let amount = nanos().filter(|nanos| *nanos <= MAX_AMOUNT).and_then(NanoUsd::new);
        if amount.is_none() || money.currency_code != "USD" {
            self.add(field, "an amount of USD from 0 to 9,007,199.25");
        }
        amount
    }

    fn instant(&mut self, field: &str, value: Option<prost_types::Timestamp>) -> Option<Timestamp> {
        let value = value?;
        let sound = (0..=MAX_SECONDS).contains(&value.seconds) && (0..1_000_000_000).contains(&value.nanos);
        if !sound {
            self.add(field, "not an instant of the years 1970 to 9999");
            return None;
        }
        let (seconds, nanos) = (u64::try_from(value.seconds).ok()?, u64::try_from(value.nanos).ok()?);
        Some(Timestamp(seconds.checked_mul(1000)?.checked_add(nanos / 1_000_000)?))
    }
}
