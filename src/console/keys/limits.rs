//! What a key may do within what its team may, in words and in numbers.

use maud::{Markup, html};

use crate::{
    console::{
        text::{
            money::{self, nanos},
            number,
        },
        view::View,
    },
    domain::{
        key,
        limit::{Period, Quantity, Span, Window},
        limit_kind::LimitKind,
    },
    rpc::proto::{KeyLimits, LimitMode, LimitStatus, OnShortfall, Operation, VirtualKey},
};

/// What a list of keys has room for.
const SHORT: usize = 2;

/// The kinds in the order in which they are shown.
pub(super) fn kinds() -> impl Iterator<Item = LimitKind> {
    LimitKind::BUDGETS.into_iter().chain(LimitKind::RATES)
}

/// The bound of this kind, of budgets in billionths of a dollar, else in the kind's own unit.
pub(super) fn bound(limits: &KeyLimits, kind: LimitKind) -> Option<i128> {
    let money = |budget: &Option<_>| budget.as_ref().map(|budget| nanos(Some(budget)));
    let count = |bound: Option<i64>| bound.map(i128::from);
    match kind {
        LimitKind::MonthlyBudget => money(&limits.monthly_budget),
        LimitKind::WeeklyBudget => money(&limits.weekly_budget),
        LimitKind::DailyBudget => money(&limits.daily_budget),
        LimitKind::RequestsPerMinute => count(limits.requests_per_minute),
        LimitKind::RequestsPerHour => count(limits.requests_per_hour),
        LimitKind::RequestsPerDay => count(limits.requests_per_day),
        LimitKind::TokensPerMinute => count(limits.tokens_per_minute),
        LimitKind::TokensPerHour => count(limits.tokens_per_hour),
        LimitKind::TokensPerDay => count(limits.tokens_per_day),
        LimitKind::AudioSecondsPerMinute => count(limits.audio_seconds_per_minute),
        LimitKind::AudioSecondsPerHour => count(limits.audio_seconds_per_hour),
        LimitKind::AudioSecondsPerDay => count(limits.audio_seconds_per_day),
        LimitKind::MaxInFlight => count(limits.max_in_flight),
    }
}

/// The bounds of a team, in the form of a key's.
pub(super) fn of_team(view: &View, team: &str) -> Option<key::KeyLimits> {
    view.snapshot().policy.teams.get(team).map(|team| key::KeyLimits::of_team(team))
}

/// A bound as people write it.
pub(super) fn amount(kind: LimitKind, bound: i128) -> String {
    match kind.quantity() {
        Quantity::NanoUsd => money::short(bound),
        _ => number::count(i64::try_from(bound).unwrap_or(i64::MAX)),
    }
}

/// A bound with what it counts and over which time: `60 requests in any minute`, `$50.00 a month`.
fn words(kind: LimitKind, bound: i128) -> String {
    let amount = amount(kind, bound);
    let counted = match kind.quantity() {
        Quantity::NanoUsd => "",
        Quantity::Requests => " requests",
        Quantity::Tokens => " tokens",
        Quantity::AudioMilliseconds => "\u{a0}s of audio",
        _ => " requests at once",
    };
    let over = match kind.window() {
        Window::Calendar(Period::Month) => " a month",
        Window::Calendar(Period::Week) => " a week",
        Window::Calendar(Period::Day) => " a day",
        Window::Sliding(Span::Minute) => " in any minute",
        Window::Sliding(Span::Hour) => " in any hour",
        Window::Sliding(Span::Day) => " in any 24 hours",
        _ => "",
    };
    format!("{amount}{counted}{over}")
}

/// Everything in which a key is narrower than its team.
fn all(limits: &KeyLimits) -> Vec<String> {
    let models = limits.models.iter().cloned();
    let operations = limits.operations().map(operation).filter(|name| !name.is_empty());
    let output = limits.max_output_tokens.map(|most| format!("{} output tokens", number::count(most)));
    let bounds = kinds().filter_map(|kind| Some(words(kind, bound(limits, kind)?)));
    models.chain(bounds).chain(output).chain(operations).collect()
}

/// The short form of an operation, as in logs and policies.
fn operation(operation: Operation) -> String {
    operation.as_str_name().trim_start_matches("OPERATION_").to_ascii_lowercase()
}

/// In which a key is narrower than its team, in the row of a list.
pub(super) fn short(limits: Option<&KeyLimits>) -> Markup {
    let all = limits.map(all).unwrap_or_default();
    let more = all.len().saturating_sub(SHORT);
    html! {
        @if all.is_empty() { "–" }
        @else {
            (all.iter().take(SHORT).map(String::as_str).collect::<Vec<_>>().join("; "))
            @if more > 0 { " and " (more) " more" }
        }
    }
}

/// The limits of a key beside those of its team, with what is used of them where the reader may see it.
pub(super) fn section(view: &View, key: &VirtualKey, used: Option<&[LimitStatus]>) -> Markup {
    let limits = key.limits.clone().unwrap_or_default();
    let set: Vec<_> = kinds().filter_map(|kind| Some((kind, bound(&limits, kind)?))).collect();
    let team = of_team(view, &key.team);
    html! {
        section {
            div.section-head { h2 #limits { "Limits" } p { "Each holds beside the team's own: the stricter one decides." } }
            @if set.is_empty() {
                p.empty { strong { "No limit of its own." } " It may do all that " (key.team) " may." }
            } @else {
                div.table role="region" aria-label="Limits of the key" tabindex="0" {
                    table {
                        thead { tr {
                            th scope="col" { "Limit" }
                            th.num scope="col" { "Team has" }
                            @if used.is_some() { th.num scope="col" { "Used now" } }
                        } }
                        tbody {
                            @for (kind, bound) in &set {
                                @let of_team = team.as_ref().and_then(|team| team.bound(*kind));
                                tr {
                                    th scope="row" { (words(*kind, *bound)) span.sub { code { (kind.key()) } } }
                                    td.num { @if let Some(bound) = of_team { (amount(*kind, bound.into())) } @else { "no limit" } }
                                    @if let Some(used) = used { td.num { (of_status(used, *kind)) } }
                                }
                            }
                        }
                    }
                }
            }
            (facts(&limits))
        }
    }
}

/// What is used of the limit of this kind.
fn of_status(used: &[LimitStatus], kind: LimitKind) -> String {
    let end = format!(".{}", kind.key());
    let status = used.iter().find(|status| status.limit_id.ends_with(&end));
    let unit = i128::from(kind.unit());
    status.map_or_else(|| "–".to_owned(), |status| amount(kind, i128::from(status.used) / unit))
}

/// What is not counted.
fn facts(limits: &KeyLimits) -> Markup {
    let operations: Vec<_> = limits.operations().map(operation).collect();
    let shortfall = match limits.on_shortfall() {
        OnShortfall::Clamp => "answers get shorter",
        OnShortfall::Warn => "the request is allowed, with a warning",
        OnShortfall::Deny | OnShortfall::Unspecified => "",
    };
    let or_team = |text: String| if text.is_empty() { "the team's".to_owned() } else { text };
    html! {
        dl.words.gap {
            dt { "Models" } dd { (or_team(limits.models.join(", "))) }
            dt { "Operations" } dd { (or_team(operations.join(", "))) }
            @if let Some(most) = limits.max_output_tokens {
                dt { "Output" } dd { "at most " (number::of(most, "token")) " of one request" }
            }
            @if !shortfall.is_empty() { dt { "Shortfall" } dd { "where a budget does not suffice, " (shortfall) } }
            @if !limits.budget_alerts.is_empty() { dt { "Alerts" } dd { "at " (limits.budget_alerts.join(", ")) } }
            @if limits.mode() == LimitMode::Shadow {
                dt { "Mode" } dd { "shadow: its limits count and report, and refuse nothing" }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_said_as_they_mean() {
        let limits = KeyLimits {
            models: vec!["openai/gpt-oss-20b".to_owned()],
            requests_per_minute: Some(1_060),
            tokens_per_day: Some(0),
            audio_seconds_per_hour: Some(90),
            max_in_flight: Some(5),
            ..KeyLimits::default()
        };
        assert_eq!(
            all(&limits),
            [
                "openai/gpt-oss-20b",
                "1,060 requests in any minute",
                "0 tokens in any 24 hours",
                "90\u{a0}s of audio in any hour",
                "5 requests at once"
            ]
        );
        assert_eq!(
            short(Some(&limits)).into_string(),
            "openai/gpt-oss-20b; 1,060 requests in any minute and 3 more"
        );
        assert_eq!(short(None).into_string(), "–");
        assert_eq!(words(LimitKind::WeeklyBudget, 50_000_000_000), "$50.00 a week");
    }
}
