//! Rates, concurrency and budgets as people write them, compiled to limits on counters.

use super::{
    findings::Findings,
    place::Place,
    section::{Located, Section},
};
use crate::domain::{
    counter::MAX_REPORTED,
    limit::{Limit, Limits, OnShortfall, Period, Quantity, Span, Subject, Threshold, Window},
    money::NanoUsd,
};

/// The keys of rates and concurrency, with what they count and over which window.
const RATES: [(&str, Quantity, Window); 10] = [
    ("requests_per_minute", Quantity::Requests, Window::Sliding(Span::Minute)),
    ("requests_per_hour", Quantity::Requests, Window::Sliding(Span::Hour)),
    ("requests_per_day", Quantity::Requests, Window::Sliding(Span::Day)),
    ("tokens_per_minute", Quantity::Tokens, Window::Sliding(Span::Minute)),
    ("tokens_per_hour", Quantity::Tokens, Window::Sliding(Span::Hour)),
    ("tokens_per_day", Quantity::Tokens, Window::Sliding(Span::Day)),
    ("audio_seconds_per_minute", Quantity::AudioMilliseconds, Window::Sliding(Span::Minute)),
    ("audio_seconds_per_hour", Quantity::AudioMilliseconds, Window::Sliding(Span::Hour)),
    ("audio_seconds_per_day", Quantity::AudioMilliseconds, Window::Sliding(Span::Day)),
    ("max_in_flight", Quantity::RequestsInFlight, Window::InFlight),
];

const PERIODS: [(&str, Period); 3] =
    [("monthly_usd", Period::Month), ("weekly_usd", Period::Week), ("daily_usd", Period::Day)];

/// The words of `on_shortfall`.
pub(super) const ON_SHORTFALL: [(&str, OnShortfall); 3] =
    [("deny", OnShortfall::Deny), ("clamp", OnShortfall::Clamp), ("warn", OnShortfall::Warn)];

/// The largest share of a budget at which an alert makes sense: ten times the intended spend.
const MAX_ALERT_PERCENT: u64 = 1_000;

/// The most thresholds of one budget: half of what a store remembers as reported, so an edited list still fits.
pub(super) const MAX_ALERTS: usize = MAX_REPORTED / 2;

/// The rates and the concurrency of `section`.
pub(super) fn rates(section: &Section<'_>, subject: &Subject) -> Vec<Limit> {
    let mut limits = Vec::new();
    for (key, quantity, window) in RATES {
        let Some(bound) = section.count(key) else { continue };
        warn_of_zero(section.findings, &bound, bound.value);
        limits.push(Limit { bound: Some(bound.value), ..subject.limit(bound.place.id(), quantity, window) });
    }
    limits
}

/// The rates and the concurrency of `section`, at `place`. Without a bound on concurrency, one limit only counts, so a
/// bound that is set while requests are in flight includes them.
pub(super) fn rates_and_in_flight(section: &Section<'_>, subject: &Subject) -> Vec<Limit> {
    let mut limits = rates(section, subject);
    if !limits.iter().any(|limit| limit.window == Window::InFlight) {
        limits.push(in_flight(&section.place, subject));
    }
    limits
}

/// Counts the requests in flight, without a bound.
pub(super) fn in_flight(place: &Place, subject: &Subject) -> Limit {
    subject.limit(place.key("max_in_flight").id(), Quantity::RequestsInFlight, Window::InFlight)
}

/// The budgets of `section`, by period.
pub(super) fn budgets(section: &Section<'_>, subject: &Subject) -> Vec<Limit> {
    let Some(budget) = section.section("budget") else { return Vec::new() };
    let mut limits = Vec::new();
    for (key, period) in PERIODS {
        let Some(bound) = budget.money(key) else { continue };
        warn_of_zero(section.findings, &bound, bound.value.nanos());
        let limit = subject.limit(bound.place.id(), Quantity::NanoUsd, Window::Calendar(period));
        limits.push(Limit { bound: Some(bound.value.nanos()), ..limit });
    }
    if !PERIODS.iter().any(|(key, _)| budget.has(key)) {
        let help = "give at least one of `monthly_usd`, `weekly_usd`, `daily_usd`";
        budget.findings.error(&budget.place, "a budget without an amount", help);
    }
    shortfall(&budget, &mut limits);
    alerts(&budget, &mut limits);
    warn_of_order(&budget, &limits);
    budget.finish();
    limits
}

/// The budgets of `section`; without one for the month, its month only counts.
pub(super) fn budgets_with_month(section: &Section<'_>, subject: &Subject) -> Limits {
    let mut others = budgets(section, subject);
    let month = Window::Calendar(Period::Month);
    let month = match others.iter().position(|limit| limit.window == month) {
        Some(place) => others.remove(place),
        None => {
            let place = section.place.key("budget").key("monthly_usd");
            subject.limit(place.id(), Quantity::NanoUsd, month)
        }
    };
    Limits { month, others }
}

fn shortfall(budget: &Section<'_>, limits: &mut [Limit]) {
    let on_shortfall = budget.choice("on_shortfall", &ON_SHORTFALL).map(|l| l.value).unwrap_or_default();
    let least = budget.count("min_output_tokens");
    if let Some(least) = least.as_ref().filter(|_| on_shortfall != OnShortfall::Clamp) {
        let help = "it is the fewest tokens granted under on_shortfall = \"clamp\"; set that, or remove this";
        budget.findings.warning(&least.place, "`min_output_tokens` has no effect here", help);
    }
    for limit in limits {
        limit.on_shortfall = on_shortfall;
        limit.min_output_tokens = least.as_ref().map_or(1, |l| l.value);
    }
}

/// Percentages refer to each period's budget, dollars to the monthly one.
fn alerts(budget: &Section<'_>, limits: &mut [Limit]) {
    let mut seen: Vec<&str> = Vec::new();
    let Some(Located { value: listed, place }) = budget.texts("alerts") else { return };
    if listed.len() > MAX_ALERTS {
        let help = format!("keep at most {MAX_ALERTS}: each is reported once in a period");
        budget.findings.error(&place, format!("{} thresholds are too many", listed.len()), help);
        return;
    }
    for Located { value: text, place } in listed {
        if seen.contains(&text) {
            budget.findings.warning(&place, format!("`{text}` is listed twice"), "");
            continue;
        }
        seen.push(text);
        let Some(alert) = Alert::parse(text) else {
            let help = "write a share from \"1%\" to \"1000%\", or an amount such as \"$400\"";
            budget.findings.error(&place, format!("`{text}` is neither a percentage nor dollars"), help);
            continue;
        };
        if let Alert::Dollars(amount) = alert {
            let month = limits.iter().find(|limit| limit.window == Window::Calendar(Period::Month));
            match month.and_then(|limit| limit.bound) {
                None if !budget.has("monthly_usd") => {
                    let help = "an amount is of the month's budget; set `monthly_usd`, or write a percentage";
                    budget.findings.error(&place, format!("`{text}` without a monthly budget"), help);
                }
                Some(bound) if amount.nanos() > bound => {
                    let help = "it is reported only if actual costs overrun the budget";
                    budget.findings.warning(
                        &place,
                        format!("`{text}` is more than the month's budget"),
                        help,
                    );
                }
                _ => {}
            }
        }
        for limit in limits.iter_mut() {
            limit.alerts.extend(alert.threshold(text, limit));
        }
    }
    for limit in limits {
        limit.alerts.sort_by_key(|alert| alert.amount);
    }
}

#[derive(Clone, Copy)]
enum Alert {
    Percent(u64),
    Dollars(NanoUsd),
}

impl Alert {
    fn parse(text: &str) -> Option<Self> {
        if let Some(dollars) = text.strip_prefix('$') {
            return dollars.parse().ok().filter(|amount| *amount > NanoUsd::ZERO).map(Self::Dollars);
        }
        let digits = text.strip_suffix('%')?;
        let percent = digits.bytes().all(|b| b.is_ascii_digit()).then(|| digits.parse().ok()).flatten()?;
        (1..=MAX_ALERT_PERCENT).contains(&percent).then_some(Self::Percent(percent))
    }

    /// The threshold on `limit`, if there is one: a budget of zero is never crossed, only refused.
    fn threshold(self, text: &str, limit: &Limit) -> Option<Threshold> {
        let bound = u128::from(limit.bound.filter(|bound| *bound > 0)?);
        let (amount, percent) = match self {
            Self::Percent(percent) => {
                let nanos = u64::try_from((bound * u128::from(percent)).div_ceil(100)).ok()?;
                (NanoUsd::new(nanos)?, percent)
            }
            Self::Dollars(amount) if limit.window == Window::Calendar(Period::Month) => {
                let percent = u128::from(amount.nanos()) * 100 / bound;
                (amount, u64::try_from(percent).unwrap_or(u64::MAX))
            }
            Self::Dollars(_) => return None,
        };
        Some(Threshold { text: text.into(), amount, percent })
    }
}

fn warn_of_zero<T>(findings: &Findings, at: &Located<T>, bound: u64) {
    if bound == 0 {
        let help = "a limit of zero refuses everything; for no limit, leave the key out";
        findings.warning(&at.place, "nothing will ever pass", help);
    }
}

/// A day lies within its week and its month, so a larger daily budget never refuses anything.
fn warn_of_order(budget: &Section<'_>, limits: &[Limit]) {
    let bound = |period| limits.iter().find(|l| l.window == Window::Calendar(period)).and_then(|l| l.bound);
    for (key, period) in PERIODS {
        if period != Period::Day && bound(Period::Day) > bound(period) && bound(period).is_some() {
            let message = format!("the day's budget is larger than `{key}` and never refuses anything");
            budget.findings.warning(&budget.place.key("daily_usd"), message, "");
        }
    }
}
