//! Reads what holds for a team while the store does not answer: `on_store_outage`, `outage_allowance` and `max_outage`.

use super::section::{Located, Section};
use crate::{
    domain::{
        limit_kind::LimitKind,
        outage::{DEFAULT_MAX_OUTAGE_MS, OnStoreOutage, OutageAllowance, OutageRules},
    },
    syntax::units::parse_duration_ms,
};

/// The key of dollars in an allowance.
pub(super) const USD_PER_MINUTE: &str = "usd_per_minute";

/// The words of `on_store_outage`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Word {
    Deny,
    Allow,
    Allowance,
}

/// The words of `on_store_outage` and what they mean.
pub(super) const ON_STORE_OUTAGE: [(&str, Word); 3] =
    [("deny", Word::Deny), ("allow", Word::Allow), ("allowance", Word::Allowance)];

/// From the time in which a revocation otherwise takes effect to a day, after which an operator should have looked.
const MAX_OUTAGE_MS: std::ops::RangeInclusive<u64> = 1_000..=86_400_000;

/// The rules of a team.
pub(super) fn rules(section: &Section<'_>) -> OutageRules {
    let word = section.choice("on_store_outage", &ON_STORE_OUTAGE);
    let place = section.place.key("outage_allowance");
    let allowance = section.section("outage_allowance").map(allowance);
    let max_outage_ms = max_outage(section);
    let on_outage = match (word.map(|word| word.value).unwrap_or(Word::Deny), allowance) {
        (Word::Allowance, Some(allowance)) => OnStoreOutage::Allowance(allowance),
        (Word::Allowance, None) => {
            // A table that cannot be read is an error of its own.
            if !section.has("outage_allowance") {
                let help = "say what each replica may admit, such as outage_allowance = { requests_per_minute = 60 }";
                let message = "`on_store_outage = \"allowance\"` without an `outage_allowance`";
                section.findings.error(&section.place.key("on_store_outage"), message, help);
            }
            OnStoreOutage::Deny
        }
        (word, Some(_)) => {
            let help = "set `on_store_outage = \"allowance\"`, or remove the table";
            let message = "an `outage_allowance` without `on_store_outage = \"allowance\"`";
            section.findings.error(&place, message, help);
            if word == Word::Allow { OnStoreOutage::Allow } else { OnStoreOutage::Deny }
        }
        (Word::Allow, None) => OnStoreOutage::Allow,
        (Word::Deny, None) => OnStoreOutage::Deny,
    };
    if on_outage == OnStoreOutage::Deny && section.has("max_outage") {
        let help = "set `on_store_outage` to \"allow\" or \"allowance\", or remove this";
        section.findings.warning(
            &section.place.key("max_outage"),
            "requests are denied in an outage, so this never applies",
            help,
        );
    }
    OutageRules { on_outage, max_outage_ms }
}

fn allowance(section: Section<'_>) -> OutageAllowance {
    let count = |key| section.count(key).inspect(|count| nothing_passes(&section, count));
    let requests = count(LimitKind::RequestsPerMinute.key());
    let tokens = count(LimitKind::TokensPerMinute.key());
    let dollars =
        section.money(USD_PER_MINUTE).map(|given| Located { value: given.value.nanos(), place: given.place });
    dollars.iter().for_each(|dollars| nothing_passes(&section, dollars));
    let has_any = [LimitKind::RequestsPerMinute.key(), LimitKind::TokensPerMinute.key(), USD_PER_MINUTE]
        .iter()
        .any(|key| section.has(key));
    if !has_any {
        let help = "set `requests_per_minute`, `tokens_per_minute` or `usd_per_minute`; for no bound, `on_store_outage = \"allow\"`";
        section.findings.error(&section.place, "an allowance without an amount", help);
    }
    let id = section.place.id();
    section.finish();
    let value = |given: Option<Located<u64>>| given.map(|given| given.value);
    OutageAllowance { id, requests: value(requests), tokens: value(tokens), nano_usd: value(dollars) }
}

fn nothing_passes(section: &Section<'_>, amount: &Located<u64>) {
    if amount.value == 0 {
        let help = "for that, `on_store_outage = \"deny\"` is plainer";
        section.findings.warning(&amount.place, "nothing will ever pass in an outage", help);
    }
}

fn max_outage(section: &Section<'_>) -> u64 {
    let Some(Located { value: text, place }) = section.text("max_outage") else {
        return DEFAULT_MAX_OUTAGE_MS;
    };
    let read = parse_duration_ms(text).filter(|ms| MAX_OUTAGE_MS.contains(ms));
    read.unwrap_or_else(|| {
        let help = "write a length of time from \"1s\" to \"24h\", such as \"15m\"";
        section.findings.error(&place, format!("`{text}` is not from 1s to 24h"), help);
        DEFAULT_MAX_OUTAGE_MS
    })
}
