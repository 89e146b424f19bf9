//! What a created key may do within what its team may, as it is stored and changed; a declared key is shown in the same form.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::VirtualKey;
use crate::domain::{
    budget_alert::{BudgetAlert, put_thresholds},
    limit::{Limit, LimitMode, OnShortfall, Quantity, Subject},
    limit_kind::LimitKind,
    money::NanoUsd,
    policy::{ModelPattern, Team},
    request::Operation,
};

/// What a key may do, within what its team may. The names are the contract's.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[expect(missing_docs, reason = "the others are the bounds of these names, in the units of `LimitKind`")]
pub struct KeyLimits {
    /// The models; empty: the team's.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub models: Vec<ModelPattern>,
    /// The operations; empty: the team's.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub operations: Vec<Operation>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub requests_per_minute: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokens_per_minute: Option<u64>,
    /// Output tokens of one request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_output_tokens: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub monthly_budget: Option<NanoUsd>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weekly_budget: Option<NanoUsd>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub daily_budget: Option<NanoUsd>,
    /// What happens if one of the budgets cannot cover a request's worst case; `None`: it is denied.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub on_shortfall: Option<OnShortfall>,
    /// The fewest output tokens worth granting under [`OnShortfall::Clamp`], at least 1; `None`: 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_output_tokens: Option<u64>,
    /// The points of the budgets at which an alert is raised.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub budget_alerts: Vec<BudgetAlert>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_in_flight: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub requests_per_hour: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub requests_per_day: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokens_per_hour: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokens_per_day: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub audio_seconds_per_minute: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub audio_seconds_per_hour: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub audio_seconds_per_day: Option<u64>,
    /// Whether all of it refuses; `None`: it does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode: Option<LimitMode>,
}

/// A field of [`KeyLimits`], each of which can be changed by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "each is the field of this name")]
pub enum LimitField {
    Models,
    Operations,
    MaxOutputTokens,
    OnShortfall,
    MinOutputTokens,
    BudgetAlerts,
    Mode,
    /// One of the bounds.
    Bound(LimitKind),
}

impl LimitField {
    /// All of them, in the order of the contract.
    pub const ALL: [Self; 20] = [
        Self::Models,
        Self::Operations,
        Self::Bound(LimitKind::RequestsPerMinute),
        Self::Bound(LimitKind::TokensPerMinute),
        Self::MaxOutputTokens,
        Self::Bound(LimitKind::MonthlyBudget),
        Self::Bound(LimitKind::WeeklyBudget),
        Self::Bound(LimitKind::DailyBudget),
        Self::OnShortfall,
        Self::MinOutputTokens,
        Self::BudgetAlerts,
        Self::Bound(LimitKind::MaxInFlight),
        Self::Bound(LimitKind::RequestsPerHour),
        Self::Bound(LimitKind::RequestsPerDay),
        Self::Bound(LimitKind::TokensPerHour),
        Self::Bound(LimitKind::TokensPerDay),
        Self::Bound(LimitKind::AudioSecondsPerMinute),
        Self::Bound(LimitKind::AudioSecondsPerHour),
        Self::Bound(LimitKind::AudioSecondsPerDay),
        Self::Mode,
    ];

    /// Its place in the contract's `VirtualKey`, such as `limits.models`.
    #[must_use]
    pub const fn path(self) -> &'static str {
        match self {
            Self::Models => "limits.models",
            Self::Operations => "limits.operations",
            Self::MaxOutputTokens => "limits.max_output_tokens",
            Self::OnShortfall => "limits.on_shortfall",
            Self::MinOutputTokens => "limits.min_output_tokens",
            Self::BudgetAlerts => "limits.budget_alerts",
            Self::Mode => "limits.mode",
            Self::Bound(kind) => kind.path(),
        }
    }
}

impl KeyLimits {
    /// The bound of this kind, in the kind's own unit.
    #[must_use]
    pub fn bound(&self, kind: LimitKind) -> Option<u64> {
        match kind {
            LimitKind::MonthlyBudget => self.monthly_budget.map(NanoUsd::nanos),
            LimitKind::WeeklyBudget => self.weekly_budget.map(NanoUsd::nanos),
            LimitKind::DailyBudget => self.daily_budget.map(NanoUsd::nanos),
            LimitKind::RequestsPerMinute => self.requests_per_minute,
            LimitKind::RequestsPerHour => self.requests_per_hour,
            LimitKind::RequestsPerDay => self.requests_per_day,
            LimitKind::TokensPerMinute => self.tokens_per_minute,
            LimitKind::TokensPerHour => self.tokens_per_hour,
            LimitKind::TokensPerDay => self.tokens_per_day,
            LimitKind::AudioSecondsPerMinute => self.audio_seconds_per_minute,
            LimitKind::AudioSecondsPerHour => self.audio_seconds_per_hour,
            LimitKind::AudioSecondsPerDay => self.audio_seconds_per_day,
            LimitKind::MaxInFlight => self.max_in_flight,
        }
    }

    /// Sets the bound of this kind, in the kind's own unit; `None`: there is none. A budget past [`NanoUsd::MAX`] is none either.
    pub fn set_bound(&mut self, kind: LimitKind, bound: Option<u64>) {
        let money = || bound.and_then(NanoUsd::new);
        match kind {
            LimitKind::MonthlyBudget => self.monthly_budget = money(),
            LimitKind::WeeklyBudget => self.weekly_budget = money(),
            LimitKind::DailyBudget => self.daily_budget = money(),
            LimitKind::RequestsPerMinute => self.requests_per_minute = bound,
            LimitKind::RequestsPerHour => self.requests_per_hour = bound,
            LimitKind::RequestsPerDay => self.requests_per_day = bound,
            LimitKind::TokensPerMinute => self.tokens_per_minute = bound,
            LimitKind::TokensPerHour => self.tokens_per_hour = bound,
            LimitKind::TokensPerDay => self.tokens_per_day = bound,
            LimitKind::AudioSecondsPerMinute => self.audio_seconds_per_minute = bound,
            LimitKind::AudioSecondsPerHour => self.audio_seconds_per_hour = bound,
            LimitKind::AudioSecondsPerDay => self.audio_seconds_per_day = bound,
            LimitKind::MaxInFlight => self.max_in_flight = bound,
        }
    }

    /// Whether `field` has a value.
    #[must_use]
    pub fn is_set(&self, field: LimitField) -> bool {
        match field {
            LimitField::Models => !self.models.is_empty(),
            LimitField::Operations => !self.operations.is_empty(),
            LimitField::MaxOutputTokens => self.max_output_tokens.is_some(),
            LimitField::OnShortfall => self.on_shortfall.is_some(),
            LimitField::MinOutputTokens => self.min_output_tokens.is_some(),
            LimitField::BudgetAlerts => !self.budget_alerts.is_empty(),
            LimitField::Mode => self.mode.is_some(),
            LimitField::Bound(kind) => self.bound(kind).is_some(),
        }
    }

    /// Takes the value of `field` from `other`, or the lack of one.
    pub fn replace(&mut self, field: LimitField, other: &Self) {
        match field {
            LimitField::Models => self.models.clone_from(&other.models),
            LimitField::Operations => self.operations.clone_from(&other.operations),
            LimitField::MaxOutputTokens => self.max_output_tokens = other.max_output_tokens,
            LimitField::OnShortfall => self.on_shortfall = other.on_shortfall,
            LimitField::MinOutputTokens => self.min_output_tokens = other.min_output_tokens,
            LimitField::BudgetAlerts => self.budget_alerts.clone_from(&other.budget_alerts),
            LimitField::Mode => self.mode = other.mode,
            LimitField::Bound(kind) => self.set_bound(kind, other.bound(kind)),
        }
    }

    /// Whether it has a budget of any period.
    #[must_use]
    pub fn has_budget(&self) -> bool {
        LimitKind::BUDGETS.iter().any(|kind| self.bound(*kind).is_some())
    }

    /// The limits of a key at `place`, with the ids that a declared key's have. Without a bound on concurrency, one limit only
    /// counts, so a bound that is set while requests are in flight includes them.
    pub(super) fn compiled(&self, place: &str, subject: &Subject) -> Vec<Arc<Limit>> {
        let limit = |kind: LimitKind, bound: Option<u64>| {
            let table = if kind.quantity() == Quantity::NanoUsd { "budget." } else { "" };
            let id = format!("{place}.{table}{}", kind.key()).into();
            let bound = bound.map(|bound| bound.saturating_mul(kind.unit()));
            let mode = self.mode.unwrap_or_default();
            Limit { bound, mode, ..subject.limit(id, kind.quantity(), kind.window()) }
        };
        let set = |kind: &LimitKind| self.bound(*kind).map(|bound| limit(*kind, Some(bound)));
        let mut limits: Vec<Limit> = LimitKind::BUDGETS.iter().filter_map(set).collect();
        for budget in &mut limits {
            budget.on_shortfall = self.on_shortfall.unwrap_or_default();
            budget.min_output_tokens = self.min_output_tokens.unwrap_or(1).max(1);
        }
        put_thresholds(&self.budget_alerts, &mut limits);
        limits.extend(LimitKind::RATES.iter().filter_map(set));
        if self.max_in_flight.is_none() {
            limits.push(limit(LimitKind::MaxInFlight, None));
        }
        limits.into_iter().map(Arc::new).collect()
    }

    /// The limits of a declared key. Alerts come in the order of their amounts, and what holds by default is left out.
    #[must_use]
    pub fn of_declared(key: &VirtualKey) -> Self {
        let own = Self {
            models: key.models.clone().unwrap_or_default(),
            operations: key.operations.clone().unwrap_or_default(),
            max_output_tokens: key.max_output_tokens,
            ..Self::default()
        };
        own.with(key.mode, &key.limits)
    }

    /// The limits of a team in the form of a key's, without those of single models and users. All its operations are listed.
    #[must_use]
    pub fn of_team(team: &Team) -> Self {
        let own = Self {
            models: team.models.clone(),
            operations: team.operations.clone(),
            max_output_tokens: team.max_output_tokens,
            ..Self::default()
        };
        own.with(team.mode, &team.limits)
    }

    fn with<'l>(mut self, mode: LimitMode, limits: impl IntoIterator<Item = &'l Arc<Limit>>) -> Self {
        let own = &mut self;
        own.mode = Some(mode).filter(|mode| *mode != LimitMode::default());
        for limit in limits {
            let Some(kind) = LimitKind::of(limit) else { continue };
            // A limit that only counts does not restrict anything.
            let Some(bound) = limit.bound else { continue };
            own.set_bound(kind, Some(bound / kind.unit()));
            own.on_shortfall =
                own.on_shortfall.or(Some(limit.on_shortfall).filter(|of| *of != OnShortfall::Deny));
            own.min_output_tokens =
                own.min_output_tokens.or(Some(limit.min_output_tokens).filter(|of| *of > 1));
            for alert in limit.alerts.iter().filter_map(|threshold| threshold.text.parse().ok()) {
                if !own.budget_alerts.contains(&alert) {
                    own.budget_alerts.push(alert);
                }
            }
        }
        self
    }
}
