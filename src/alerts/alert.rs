//! An alert, in the form in which receivers get it: the contract's message as protobuf's JSON. The outbox keeps the same.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

use super::detail::{Cooldown, Forecast, Pause, StoreOutage, UpstreamKey, UsageDrift};
use crate::domain::{
    Timestamp,
    alert::{AlertKind, Severity},
};

/// Something that operators are told of. What is empty is left out, as in protobuf's JSON.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(missing_docs, reason = "each is the field of the contract's message, where it is described")]
pub struct Alert {
    pub id: String,
    #[serde(serialize_with = "kind_name", deserialize_with = "kind_of")]
    pub kind: AlertKind,
    #[serde(serialize_with = "severity_name", deserialize_with = "severity_of")]
    pub severity: Severity,
    pub state: AlertState,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub team: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub key: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub limit_id: String,
    pub create_time: String,
    /// Empty: it is not over, or has no duration.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub resolve_time: String,
    pub summary: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub budget: Option<BudgetCrossing>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub forecast: Option<Forecast>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cooldown: Option<Cooldown>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upstream_key: Option<UpstreamKey>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pause: Option<Pause>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub store: Option<StoreOutage>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drift: Option<UsageDrift>,
    pub organization: String,
    /// What kinds without a detail know.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub facts: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub user: String,
}

impl Alert {
    /// An alert that opens `at`, with the severity of its kind, and without what only some have.
    pub(super) fn opened(
        id: &str,
        kind: AlertKind,
        at: Timestamp,
        (organization, summary): (&str, String),
    ) -> Self {
        Self {
            id: id.to_owned(),
            kind,
            severity: kind.severity(),
            state: AlertState::Open,
            team: String::new(),
            key: String::new(),
            limit_id: String::new(),
            create_time: instant(at),
            resolve_time: String::new(),
            summary,
            budget: None,
            forecast: None,
            cooldown: None,
            upstream_key: None,
            pause: None,
            store: None,
            drift: None,
            organization: organization.to_owned(),
            facts: BTreeMap::new(),
            user: String::new(),
        }
    }
}

/// Whether what an alert is of lasts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum AlertState {
    /// It has begun, or it is a moment.
    #[serde(rename = "ALERT_STATE_OPEN")]
    Open,
    /// It is over.
    #[serde(rename = "ALERT_STATE_RESOLVED")]
    Resolved,
}

impl AlertState {
    /// The short form of the contract's name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Resolved => "resolved",
        }
    }
}

/// The threshold of a budget, as the contract's message of this name.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "as in the contract")]
pub struct BudgetCrossing {
    pub threshold: String,
    pub amount: Money,
    pub spent: Money,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub budget: Option<Money>,
}

/// An amount as `google.type.Money` in JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Money {
    currency_code: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    units: String,
    #[serde(default, skip_serializing_if = "is_zero")]
    nanos: u64,
}

/// The nano-dollars of a dollar.
const UNIT: u64 = 1_000_000_000;

impl Money {
    /// In nano-dollars; `None`: more than a number holds, or no number.
    pub(super) fn nano_usd(&self) -> Option<u64> {
        let units: u64 = if self.units.is_empty() { 0 } else { self.units.parse().ok()? };
        units.checked_mul(UNIT)?.checked_add(self.nanos)
    }
}

impl From<u64> for Money {
    fn from(nano_usd: u64) -> Self {
        let units = if nano_usd < UNIT { String::new() } else { (nano_usd / UNIT).to_string() };
        Self { currency_code: "USD".to_owned(), units, nanos: nano_usd % UNIT }
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for it")]
const fn is_zero(nanos: &u64) -> bool {
    *nanos == 0
}

/// An instant as protobuf's JSON writes it; empty: none of a calendar.
pub(super) fn instant(at: Timestamp) -> String {
    let instant = i64::try_from(at.0).ok().and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
    instant.map(|instant| instant.to_string()).unwrap_or_default()
}

const KIND: &str = "ALERT_KIND_";
const SEVERITY: &str = "SEVERITY_";

fn kind_name<S: Serializer>(kind: &AlertKind, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&format!("{KIND}{}", kind.name().to_ascii_uppercase()))
}

fn severity_name<S: Serializer>(severity: &Severity, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&format!("{SEVERITY}{}", severity.name().to_ascii_uppercase()))
}

fn kind_of<'de, D: Deserializer<'de>>(deserializer: D) -> Result<AlertKind, D::Error> {
    named(deserializer, KIND, AlertKind::of_name)
}

fn severity_of<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Severity, D::Error> {
    named(deserializer, SEVERITY, Severity::of_name)
}

fn named<'de, T, D: Deserializer<'de>>(
    deserializer: D,
    prefix: &str,
    of_name: fn(&str) -> Option<T>,
) -> Result<T, D::Error> {
    let text = String::deserialize(deserializer)?;
    let value = text.strip_prefix(prefix).and_then(|name| of_name(&name.to_ascii_lowercase()));
    value.ok_or_else(|| D::Error::custom(format!("`{text}` is not known")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_amount_is_as_protobuf_writes_it() {
        for (nanos, text) in [
            (0, r#"{"currencyCode":"USD"}"#),
            (160_000_000_000, r#"{"currencyCode":"USD","units":"160"}"#),
            (1_500_000_000, r#"{"currencyCode":"USD","units":"1","nanos":500000000}"#),
            (9, r#"{"currencyCode":"USD","nanos":9}"#),
        ] {
            let money = Money::from(nanos);
            assert_eq!(serde_json::to_string(&money).unwrap(), text);
            assert_eq!(serde_json::from_str::<Money>(text).unwrap(), money);
            assert_eq!(money.nano_usd(), Some(nanos));
        }
    }
}
