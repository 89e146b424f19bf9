//! Reads the bounds on the effects of reports, or of missing reports: `organization.max_cooldown`, `teams.T.max_unsettled`
//! and `teams.T.unreserved`.

use super::section::{Located, Section};
use crate::domain::{
    cooldown::DEFAULT_MAX_COOLDOWN_MS,
    limit::{Limit, Period, Quantity, Subject, Window},
    money::NanoUsd,
    policy::UnreservedBounds,
};

/// From a second, too short to learn anything about Groq, to an hour, after which an operator should have looked.
const MAX_COOLDOWN_MS: std::ops::RangeInclusive<u64> = 1_000..=3_600_000;
/// Unsettled reservations of a team unless the policy says otherwise: some tens of megabytes of the store.
const DEFAULT_MAX_UNSETTLED: u64 = 100_000;
/// The most that a policy may allow: some gigabytes.
const MAX_UNSETTLED: u64 = 10_000_000;
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
    let read = duration_ms(text).filter(|ms| MAX_COOLDOWN_MS.contains(ms));
    read.unwrap_or_else(|| {
        let help = "write a length of time from \"1s\" to \"1h\", such as \"5m\" or \"1m30s\"";
        section.findings.error(&place, format!("`{text}` is not from 1s to 1h"), help);
        DEFAULT_MAX_COOLDOWN_MS
    })
}

/// Numbers with the units ms, s, m, h and d, the longest first: `1h30m`, `250ms`.
fn duration_ms(text: &str) -> Option<u64> {
    const UNITS: [(&str, u64); 5] =
        [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];
    let (mut rest, mut sum, mut units) = (text, 0_u64, UNITS.as_slice());
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let (number, after) = rest.split_at(digits);
        let unit_ends = after.bytes().position(|byte| byte.is_ascii_digit()).unwrap_or(after.len());
        let (unit, after) = after.split_at(unit_ends);
        let at = units.iter().position(|(name, _)| *name == unit)?;
        let (_, ms) = units.get(at)?;
        sum = sum.checked_add(number.parse::<u64>().ok()?.checked_mul(*ms)?)?;
        (rest, units) = (after, units.get(at + 1..)?);
    }
    (!text.is_empty()).then_some(sum)
}

/// `max_unsettled`, for requests and for batches. The store keeps batches for longer, so they are counted separately.
pub(super) fn max_unsettled(section: &Section<'_>, subject: &Subject) -> [Limit; 2] {
    let given = section.count("max_unsettled", 1);
    let bound = match &given {
        Some(given) if (1..=MAX_UNSETTLED).contains(&given.value) => given.value,
        Some(Located { value, place }) => {
            section.findings.error(place, format!("`{value}` is not between 1 and {MAX_UNSETTLED}"), "");
            DEFAULT_MAX_UNSETTLED
        }
        None => DEFAULT_MAX_UNSETTLED,
    };
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
        daily: Limit { bound: Some(daily), ..limit },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_of_time_have_units() {
        for (text, ms) in [
            ("5m", Some(300_000)),
            ("1h30m", Some(5_400_000)),
            ("1m30s250ms", Some(90_250)),
            ("0s", Some(0)),
            ("2d", Some(172_800_000)),
            ("", None),
            ("5", None),
            ("m", None),
            ("-5m", None),
            ("5 m", None),
            ("1m2m", None),
            ("30s1m", None),
            ("5M", None),
            ("1.5h", None),
            ("99999999999999999999s", None),
        ] {
            assert_eq!(duration_ms(text), ms, "{text}");
        }
    }
}
