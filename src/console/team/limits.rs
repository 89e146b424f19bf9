//! The limits that hold for the team, as they stand.

use maud::{Markup, html};

use super::gather::Question;
use crate::{
    console::{
        parts::{BudgetBar, Size},
        text::number,
    },
    domain::{
        limit::{self, Window},
        limit_kind::LimitKind,
    },
    rpc::proto::{LimitStatus, Quantity, Scope},
};

/// How many of the team's own are shown at once. The rest is folded.
const SHOWN: usize = 20;

/// The section. Budgets have their own.
pub(super) fn section(question: Question<'_>, limits: &[LimitStatus]) -> Markup {
    let rates = || limits.iter().filter(|limit| limit.quantity() != Quantity::NanoUsd);
    let (own, shared): (Vec<_>, Vec<_>) =
        rates().partition(|limit| matches!(limit.scope(), Scope::Team | Scope::TeamModel));
    let (first, rest) = own.split_at(own.len().min(SHOWN));
    let team = question.team;
    html! {
        div.gap-large {
            div.section-head {
                h2 #limits { "Limits now" }
                p { "Windows slide; what is left can be asked for at once" }
            }
            @if own.is_empty() {
                p.empty {
                    strong { "No limit of " (team) " refuses anything." }
                    " The policy sets them, such as " code { "teams." (team) ".requests_per_minute" } ". Those in shadow are not listed."
                }
            } @else { (table(team, &format!("Limits of {team} now"), first)) }
            @if !rest.is_empty() {
                details.numbers {
                    summary { (rest.len()) " more" }
                    (table(team, &format!("More limits of {team}"), rest))
                }
            }
            @if !shared.is_empty() {
                details.numbers {
                    summary { (number::of(i64::try_from(shared.len()).unwrap_or(0), "limit")) " that all teams share" }
                    (table(team, "Limits that all teams share, now", &shared))
                }
            }
        }
    }
}

fn table(team: &str, name: &str, limits: &[&LimitStatus]) -> Markup {
    html! {
        div.table role="region" aria-label=(name) tabindex="0" {
            table.stack role="table" {
                thead role="rowgroup" { tr role="row" {
                    th role="columnheader" scope="col" { "Limit" }
                    th role="columnheader" scope="col" { span.visually-hidden { "As a bar" } }
                    th.num role="columnheader" scope="col" { "Used" }
                    th.num role="columnheader" scope="col" { "Limit" }
                    th.num role="columnheader" scope="col" { "Left" }
                } }
                tbody role="rowgroup" { @for limit in limits { (row(team, limit)) } }
            }
        }
    }
}

fn row(team: &str, status: &LimitStatus) -> Markup {
    // Audio is counted in milliseconds, and bounded in seconds.
    let unit = if status.quantity() == Quantity::AudioMilliseconds { 1_000 } else { 1 };
    let amount = |amount: i64| number::count(amount / unit);
    let (limit, used, left) = (status.limit, status.used, status.remaining);
    let id = status.limit_id.strip_prefix(&format!("teams.{team}.")).unwrap_or(&status.limit_id);
    let class = match () {
        () if left == 0 => "forecast-over",
        // A fifth is where one looks at it.
        () if i128::from(left) * 5 <= i128::from(limit) => "forecast-warn",
        () => "",
    };
    html! {
        tr role="row" {
            th role="rowheader" scope="row" { code { (id) } span.sub { (words(status)) } }
            td.rowbar role="cell" {
                (BudgetBar { size: Size::Thin, name: "", limit: limit.into(), spent: used.into(), reserved: 0, pace: None })
            }
            td.num role="cell" data-label="Used" { (amount(used)) }
            td.num role="cell" data-label="Limit" { (amount(limit)) }
            td.num role="cell" data-label="Left" { span class=(class) { (amount(left)) } }
        }
    }
}

/// What a limit counts, and over which window: `tokens in any minute`.
fn words(status: &LimitStatus) -> String {
    let counted = match status.quantity() {
        Quantity::Requests | Quantity::RequestsInFlight | Quantity::UnsettledRequests => "requests",
        Quantity::Tokens => "tokens",
        Quantity::AudioMilliseconds => "seconds of audio",
        Quantity::OutputTokens => "output tokens",
        Quantity::NanoUsd | Quantity::Unspecified => "",
    };
    let last = status.limit_id.rsplit('.').next().unwrap_or_default();
    let kind = LimitKind::RATES.into_iter().find(|kind| kind.key() == last);
    match kind.map(LimitKind::window) {
        Some(Window::Sliding(span)) => format!("{counted} in any {}", limit::Span::name(span)),
        Some(Window::InFlight) => format!("{counted} in flight"),
        _ if status.quantity() == Quantity::RequestsInFlight => format!("{counted} in flight"),
        _ => counted.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_said_as_the_policy_means_them() {
        for (id, quantity, expected) in [
            ("teams.bot.requests_per_minute", Quantity::Requests, "requests in any minute"),
            ("teams.bot.limits.\"m/a.b\".tokens_per_day", Quantity::Tokens, "tokens in any day"),
            ("teams.bot.audio_seconds_per_hour", Quantity::AudioMilliseconds, "seconds of audio in any hour"),
            ("teams.bot.max_in_flight", Quantity::RequestsInFlight, "requests in flight"),
            ("teams.bot.batch.max_open", Quantity::RequestsInFlight, "requests in flight"),
        ] {
            let status =
                LimitStatus { limit_id: id.to_owned(), quantity: quantity.into(), ..Default::default() };
            assert_eq!(words(&status), expected);
        }
    }

    #[test]
    fn a_row_says_what_is_left_in_the_policys_unit() {
        let status = LimitStatus {
            limit_id: "teams.bot.audio_seconds_per_hour".to_owned(),
            quantity: Quantity::AudioMilliseconds.into(),
            limit: 7_200_000,
            used: 6_000_000,
            remaining: 1_200_000,
            ..Default::default()
        };
        let html = row("bot", &status).into_string();
        assert!(html.contains("<code>audio_seconds_per_hour</code>"), "{html}");
        assert!(html.contains("<span class=\"forecast-warn\">1,200</span>"), "{html}");
        let all = LimitStatus { used: 7_200_000, remaining: 0, ..status };
        assert!(row("bot", &all).into_string().contains("<span class=\"forecast-over\">0</span>"));
    }
}
