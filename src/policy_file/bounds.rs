//! Reads the bounds on the effects of reports, or of missing reports: `organization.max_cooldown`, `teams.T.max_unsettled`
//! and `teams.T.unreserved`.

use std::sync::Arc;

use super::section::{Located, Section};
use crate::domain::{
    cooldown::DEFAULT_MAX_COOLDOWN_MS,
    limit::{Limit, Period, Quantity, Subject, Window},
    money::NanoUsd,
    policy::UnreservedBounds,
};
use crate::syntax::units::parse_duration_ms;

/// From a second, too short to learn anything about Groq, to an hour, after which an operator should have looked.
const MAX_COOLDOWN_MS: std::ops::RangeInclusive<u64> = 1_000..=3_600_000;
/// Unsettled reservations of a team unless the policy says otherwise: some tens of megabytes of the store.
const DEFAULT_MAX_UNSETTLED: u64 = 100_000;
/// The most that a policy may allow: some gigabytes.
pub(super) const MAX_UNSETTLED: u64 = 10_000_000;
/// The most that one report without a reservation may cost, and that all of a team's may cost in a day, in nano-USD, unless
/// the policy says otherwise.
const DEFAULT_MAX_COST: u64 = 10 * DOLLAR;
const DEFAULT_DAILY: u64 = 100 * DOLLAR;
const DOLLAR: u64 = 1_000_000_000;

/// `max_cooldown` in milliseconds.
pub(super) fn max_cooldown(section: &Section<'_>) -> u64 {
    let Some(Located { value: text, place }) = section.text("max_cooldown") else {
        return DEFAULT_MAX_COOLDOWN_MS;
    };
    let read = parse_duration_ms(text).filter(|ms| MAX_COOLDOWN_MS.contains(ms));
    read.unwrap_or_else(|| {
        let help = "write a length of time from \"1s\" to \"1h\", such as \"5m\" or \"1m30s\"";
        section.findings.error(&place, format!("`{text}` is not from 1s to 1h"), help);
        DEFAULT_MAX_COOLDOWN_MS
    })
}

/// `max_unsettled`, for requests and for batches. The store keeps batches for longer, so they are counted separately. They bound what the
/// store keeps, so they hold even if the team is in shadow.
pub(super) fn max_unsettled(section: &Section<'_>, subject: &Subject) -> [Limit; 2] {
    let bound = section.count("max_unsettled").map_or(DEFAULT_MAX_UNSETTLED, |given| given.value);
    let id = section.place.key("max_unsettled").id();
    [Window::Unsettled, Window::UnsettledBatches].map(|window| {
        let limit = subject.limit(id.clone(), Quantity::UnsettledRequests, window);
        Limit { bound: Some(bound), ..limit }
    })
}

/// The table `unreserved`.
pub(super) fn unreserved(section: &Section<'_>, subject: &Subject) -> UnreservedBounds {
    let place = section.place.key("unreserved");
    let table = section.section("unreserved");
    let money = |key| table.as_ref().and_then(|table| table.money(key)).map(|given| given.value.nanos());
    let max_cost = money("max_cost_usd").and_then(NanoUsd::new);
    let daily = money("daily_usd").unwrap_or(DEFAULT_DAILY);
    if let Some(table) = table {
        table.finish();
    }
    let id = place.key("daily_usd").id();
    let limit = subject.unreserved(id, Window::Calendar(Period::Day));
    UnreservedBounds {
        max_cost_id: place.key("max_cost_usd").id(),
        max_cost: max_cost.or(NanoUsd::new(DEFAULT_MAX_COST)).unwrap_or(NanoUsd::ZERO),
        daily: Arc::new(Limit { bound: Some(daily), ..limit }),
    }
}
