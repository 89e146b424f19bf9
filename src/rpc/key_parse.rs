//! Secrets of virtual keys, and requests of `KeyService`: every bound is checked here, and every breach is named.

use std::{collections::BTreeMap, time::Duration};

use sha2::{Digest as _, Sha256};
use tonic::Status;

use super::{
    convert::{key_state_of, limit_mode_of, on_shortfall_of},
    etag,
    google_type::Money,
    page::{ListContext, PageRequest, PageTokens},
    proto,
    status::FieldErrors,
};
use crate::{
    control::{KeyChange, KeyQuery, NewKey},
    domain::{
        MAX_AMOUNT, Timestamp,
        key::{KeyCursor, KeyLimits, KeyState, LimitField, SecretId, is_mistyped},
        limit_kind::LimitKind,
        money::NanoUsd,
        name::MAX_NAME_BYTES,
        request::Caller,
    },
};

/// Bytes of a secret.
pub(super) const MAX_KEY_BYTES: usize = 512;
/// Paths in one update: more than there are fields.
const MAX_PATHS: usize = 32;
/// Items in one list; the domain has its own bound on models, and a list of operations names each once.
const MAX_ITEMS: usize = 64;
const DEFAULT_OVERLAP: Duration = Duration::from_secs(24 * 3600);
const MAX_OVERLAP: Duration = Duration::from_secs(90 * 24 * 3600);
const NANOS_PER_DOLLAR: u64 = 1_000_000_000;
const MASK: &str = "update_mask";
/// Fields of a key that the service sets, and `etag`: as paths of an update they say nothing.
const OUTPUT_ONLY: [&str; 7] = ["state", "create_time", "revoke_time", "secrets", "usage", "etag", "origin"];
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

/// A field of a key that can be changed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Field {
    Labels,
    ExpireTime,
    Limit(LimitField),
}

/// The place of a key's field in a request that has the key.
pub(super) fn in_key(path: &str) -> String {
    format!("key.{path}")
}

/// A well-formed `RotateKeyRequest`.
pub(super) struct Rotation {
    pub(super) name: String,
    pub(super) overlap_ms: u64,
    pub(super) force: bool,
}

/// A well-formed `RevokeKeySecretRequest`.
pub(super) struct SecretRevocation {
    pub(super) name: String,
    pub(super) secret: SecretId,
    pub(super) force: bool,
}

/// A well-formed `CreateKeyRequest`. Whether it narrows its team's policy is checked later.
pub(super) fn create(request: proto::CreateKeyRequest) -> Result<NewKey, Status> {
    let mut errors = FieldErrors::default();
    let Some(key) = request.key else {
        errors.add("key", "required: the key to create, with its `name` and `team`");
        return Err(errors.into_status());
    };
    let new = NewKey {
        name: errors.text("key.name", key.name, 1, MAX_NAME_BYTES),
        team: errors.text("key.team", key.team, 1, MAX_NAME_BYTES),
        labels: key.labels.into_iter().collect(),
        limits: key.limits.map(|limits| errors.limits(limits)).unwrap_or_default(),
        expires_at: errors.instant("key.expire_time", key.expire_time),
    };
    errors.or(new)
}

/// The name of a key, and its team, if given.
pub(super) fn get(request: proto::GetKeyRequest) -> Result<(String, String), Status> {
    let mut errors = FieldErrors::default();
    let name = errors.text("name", request.name, 1, MAX_NAME_BYTES);
    let team = errors.text("team", request.team, 0, MAX_NAME_BYTES);
    errors.or((name, team))
}

/// A well-formed `ListKeysRequest`, and the tokens of the list.
pub(super) fn list(
    mut request: proto::ListKeysRequest,
    context: &ListContext,
) -> Result<(KeyQuery, PageTokens<KeyCursor>), Status> {
    let mut errors = FieldErrors::default();
    let PageRequest { size, after, tokens } = errors.page(&mut request, context);
    let query = KeyQuery {
        team: errors.text("team", request.team, 0, MAX_NAME_BYTES),
        page_size: size,
        after,
        states: errors.states(&request.states),
        name_contains: errors.text("name_contains", request.name_contains, 0, MAX_NAME_BYTES),
        include_usage: request.include_usage,
    };
    errors.or((query, tokens))
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
    let labels: BTreeMap<String, String> = key.labels.into_iter().collect();
    let expires_at = errors.instant("key.expire_time", key.expire_time);
    let limits = key.limits.map(|limits| errors.limits(limits)).unwrap_or_default();
    let fields = errors.paths(request.update_mask.unwrap_or_default().paths).unwrap_or_else(|| {
        let limits = LimitField::ALL.into_iter().filter(|field| limits.is_set(*field)).map(Field::Limit);
        let labels = (!labels.is_empty()).then_some(Field::Labels);
        let end = key.expire_time.is_some().then_some(Field::ExpireTime);
        let set: Vec<Field> = labels.into_iter().chain(end).chain(limits).collect();
        if set.is_empty() && errors.is_empty() {
            errors.add(MASK, "nothing to change: set what is new in `key`; name here what is to be removed");
        }
        set
    });
    let mut change = KeyChange { version, limits, ..KeyChange::default() };
    for field in &fields {
        match field {
            Field::Labels => change.labels = Some(labels.clone()),
            Field::ExpireTime => change.expires_at = Some(expires_at),
            Field::Limit(limit) => change.replaced.push(*limit),
        }
    }
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

/// The name in a well-formed `RevokeKeyRequest`.
pub(super) fn revoke(request: proto::RevokeKeyRequest) -> Result<String, Status> {
    let mut errors = FieldErrors::default();
    let name = errors.text("name", request.name, 1, MAX_NAME_BYTES);
    errors.or(name)
}

/// A well-formed `RevokeKeySecretRequest`.
pub(super) fn revoke_secret(request: proto::RevokeKeySecretRequest) -> Result<SecretRevocation, Status> {
    let mut errors = FieldErrors::default();
    let name = errors.text("name", request.name, 1, MAX_NAME_BYTES);
    let secret = SecretId::try_from(request.secret_id).unwrap_or_else(|error| {
        errors.add("secret_id", format!("required: {error}"));
        SecretId(0)
    });
    errors.or(SecretRevocation { name, secret, force: request.force })
}

impl FieldErrors {
    /// The fields that the paths of an update name; `None`: there are no paths.
    fn paths(&mut self, paths: Vec<String>) -> Option<Vec<Field>> {
        if paths.is_empty() {
            return None;
        }
        if paths.len() > MAX_PATHS {
            self.add(MASK, format!("at most {MAX_PATHS} paths"));
        }
        let limits = || LimitField::ALL.into_iter().map(Field::Limit);
        let mut fields = Vec::new();
        for path in paths.iter().take(MAX_PATHS) {
            let first = path.split('.').next().unwrap_or_default();
            match path.as_str() {
                "*" => fields.extend([Field::Labels, Field::ExpireTime].into_iter().chain(limits())),
                "labels" => fields.push(Field::Labels),
                "expire_time" => fields.push(Field::ExpireTime),
                "limits" => fields.extend(limits()),
                "name" | "team" => self.add(MASK, format!("`{path}` never changes; leave it out")),
                _ if OUTPUT_ONLY.contains(&first) => {}
                path => match LimitField::ALL.into_iter().find(|field| field.path() == path) {
                    Some(field) => fields.push(Field::Limit(field)),
                    None => self.add(MASK, format!("`{path}` is nothing of a key that can be changed")),
                },
            }
        }
        Some(fields)
    }

    /// States to filter by.
    fn states(&mut self, states: &[i32]) -> Vec<KeyState> {
        let mut read = Vec::new();
        for number in states {
            match proto::KeyState::try_from(*number).ok().and_then(key_state_of) {
                Some(state) if read.contains(&state) => {}
                Some(state) => read.push(state),
                None => self.add("states", format!("{number} is not a state of a key")),
            }
        }
        read
    }

    /// The limits of `key`.
    fn limits(&mut self, limits: proto::KeyLimits) -> KeyLimits {
        let models = self.items(LimitField::Models, &limits.models, str::parse);
        let budget_alerts = self.items(LimitField::BudgetAlerts, &limits.budget_alerts, str::parse);
        let mut operations = Vec::new();
        for number in limits.operations.iter().take(MAX_ITEMS) {
            match self.operation_in(&in_key(LimitField::Operations.path()), *number) {
                Some(operation) if !operations.contains(&operation) => operations.push(operation),
                _ => {}
            }
        }
        if limits.operations.len() > MAX_ITEMS {
            self.add_limit(LimitField::Operations, format!("at most {MAX_ITEMS}"));
        }
        let on_shortfall = proto::OnShortfall::try_from(limits.on_shortfall);
        if on_shortfall.is_err() {
            let message = format!("{} is not an `OnShortfall`", limits.on_shortfall);
            self.add_limit(LimitField::OnShortfall, message);
        }
        let mode = proto::LimitMode::try_from(limits.mode);
        if mode.is_err() {
            self.add_limit(LimitField::Mode, format!("{} is not a `LimitMode`", limits.mode));
        }
        let most = limits.max_output_tokens;
        let most = most.map(|most| self.amount(LimitField::MaxOutputTokens, most, MAX_AMOUNT));
        let least = self.amount(LimitField::MinOutputTokens, limits.min_output_tokens, MAX_AMOUNT);
        let mut read = KeyLimits {
            models,
            operations,
            budget_alerts,
            on_shortfall: on_shortfall.ok().and_then(on_shortfall_of),
            max_output_tokens: most,
            min_output_tokens: Some(least).filter(|least| *least > 0),
            mode: mode.ok().and_then(limit_mode_of),
            ..KeyLimits::default()
        };
        self.bounds(&limits, &mut read);
        read
    }

    fn bounds(&mut self, limits: &proto::KeyLimits, read: &mut KeyLimits) {
        for (kind, value) in [
            (LimitKind::RequestsPerMinute, limits.requests_per_minute),
            (LimitKind::RequestsPerHour, limits.requests_per_hour),
            (LimitKind::RequestsPerDay, limits.requests_per_day),
            (LimitKind::TokensPerMinute, limits.tokens_per_minute),
            (LimitKind::TokensPerHour, limits.tokens_per_hour),
            (LimitKind::TokensPerDay, limits.tokens_per_day),
            (LimitKind::AudioSecondsPerMinute, limits.audio_seconds_per_minute),
            (LimitKind::AudioSecondsPerHour, limits.audio_seconds_per_hour),
            (LimitKind::AudioSecondsPerDay, limits.audio_seconds_per_day),
            (LimitKind::MaxInFlight, limits.max_in_flight),
        ] {
            let bound = value.map(|value| self.amount(LimitField::Bound(kind), value, kind.max()));
            read.set_bound(kind, bound);
        }
        for (kind, money) in [
            (LimitKind::MonthlyBudget, &limits.monthly_budget),
            (LimitKind::WeeklyBudget, &limits.weekly_budget),
            (LimitKind::DailyBudget, &limits.daily_budget),
        ] {
            let amount = money.as_ref().and_then(|money| self.dollars(&in_key(kind.path()), money));
            read.set_bound(kind, amount.map(NanoUsd::nanos));
        }
    }

    /// The items of a list, each once.
    fn items<T: PartialEq, E: std::fmt::Display>(
        &mut self,
        field: LimitField,
        texts: &[String],
        parse: impl Fn(&str) -> Result<T, E>,
    ) -> Vec<T> {
        let mut read = Vec::new();
        for text in texts.iter().take(MAX_ITEMS) {
            match parse(text) {
                Ok(item) if read.contains(&item) => {}
                Ok(item) => read.push(item),
                Err(error) => self.add_limit(field, format!("`{text}` is {error}")),
            }
        }
        if texts.len() > MAX_ITEMS {
            self.add_limit(field, format!("at most {MAX_ITEMS}"));
        }
        read
    }

    fn amount(&mut self, field: LimitField, value: i64, most: u64) -> u64 {
        self.count(&in_key(field.path()), value, most)
    }

    fn add_limit(&mut self, field: LimitField, description: impl Into<String>) {
        self.add(&in_key(field.path()), description);
    }

    pub(super) fn dollars(&mut self, field: &str, money: &Money) -> Option<NanoUsd> {
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
