//! Keys on the wire.

use super::{
    answer::{int, money, timestamp},
    convert::{key_state, limit_mode, on_shortfall, operation},
    etag,
    page::{self, PageTokens},
    proto::{self, ListKeysResponse},
};
use crate::{
    control::{KeyPage, KeyReport, KeyUsage, SecretReport},
    domain::{
        key::{KeyCursor, KeyLimits, KeySecret, StoredKey},
        limit_kind::LimitKind,
    },
};

/// The answer to `ListKeys`.
pub(super) fn page(page: KeyPage, tokens: &PageTokens<KeyCursor>) -> ListKeysResponse {
    let show = |report: KeyReport| (report.key.cursor(), key(report));
    let (keys, cut) = page::fill(page.keys, usize::MAX, show);
    ListKeysResponse { keys, next_page_token: tokens.next(cut.or(page.next_after).as_ref()) }
}

/// A key.
pub(super) fn key(report: KeyReport) -> proto::VirtualKey {
    let KeyReport { key, state, secrets, usage } = report;
    let of_both = proto::VirtualKey {
        name: key.name.to_string(),
        team: key.team.to_string(),
        labels: key.labels.clone().into_iter().collect(),
        state: key_state(state).into(),
        usage: usage.map(used),
        ..proto::VirtualKey::default()
    };
    match &key.stored {
        Some(StoredKey { version, record }) => proto::VirtualKey {
            limits: Some(limits(&record.limits)),
            create_time: Some(timestamp(record.created_at)),
            expire_time: record.expires_at.map(timestamp),
            revoke_time: record.revoked_at.map(timestamp),
            secrets: record.secrets.iter().zip(&secrets).map(|(kept, report)| secret(kept, report)).collect(),
            // A key that is only checked has none.
            etag: if *version == 0 { String::new() } else { etag::of(*version) },
            origin: proto::KeyOrigin::Created.into(),
            ..of_both
        },
        None => {
            let own = KeyLimits::of_declared(&key);
            proto::VirtualKey {
                limits: Some(limits(&own)),
                expire_time: key.expires_at.map(timestamp),
                origin: proto::KeyOrigin::Declared.into(),
                ..of_both
            }
        }
    }
}

/// Limits of a key, or in the form of a key's.
pub(super) fn limits(limits: &KeyLimits) -> proto::KeyLimits {
    let count = |kind| limits.bound(kind).map(int);
    let budget = |kind| limits.bound(kind).map(money);
    proto::KeyLimits {
        models: limits.models.iter().map(ToString::to_string).collect(),
        operations: limits.operations.iter().map(|of| operation(*of).into()).collect(),
        requests_per_minute: count(LimitKind::RequestsPerMinute),
        tokens_per_minute: count(LimitKind::TokensPerMinute),
        max_output_tokens: limits.max_output_tokens.map(int),
        monthly_budget: budget(LimitKind::MonthlyBudget),
        weekly_budget: budget(LimitKind::WeeklyBudget),
        daily_budget: budget(LimitKind::DailyBudget),
        on_shortfall: limits.on_shortfall.map(on_shortfall).unwrap_or_default().into(),
        min_output_tokens: limits.min_output_tokens.map(int).unwrap_or_default(),
        budget_alerts: limits.budget_alerts.iter().map(ToString::to_string).collect(),
        max_in_flight: count(LimitKind::MaxInFlight),
        requests_per_hour: count(LimitKind::RequestsPerHour),
        requests_per_day: count(LimitKind::RequestsPerDay),
        tokens_per_hour: count(LimitKind::TokensPerHour),
        tokens_per_day: count(LimitKind::TokensPerDay),
        audio_seconds_per_minute: count(LimitKind::AudioSecondsPerMinute),
        audio_seconds_per_hour: count(LimitKind::AudioSecondsPerHour),
        audio_seconds_per_day: count(LimitKind::AudioSecondsPerDay),
        mode: limits.mode.map(limit_mode).unwrap_or_default().into(),
    }
}

fn secret(secret: &KeySecret, report: &SecretReport) -> proto::KeySecret {
    proto::KeySecret {
        secret_id: secret.id.to_string(),
        live: report.live,
        create_time: Some(timestamp(secret.created_at)),
        end_time: secret.ends_at.map(timestamp),
        last_use_time: report.last_used.map(timestamp),
        requests_today: int(report.requests_today),
        requests_last_24_hours: int(report.requests_last_24_hours),
    }
}

fn used(usage: KeyUsage) -> proto::KeyUsage {
    proto::KeyUsage {
        requests_today: int(usage.requests_today),
        tokens_today: int(usage.tokens_today),
        cost_today: Some(money(usage.cost_today)),
        cost_this_month: Some(money(usage.cost_this_month)),
        top_model: usage.top_model.map(|model| model.to_string()).unwrap_or_default(),
    }
}
