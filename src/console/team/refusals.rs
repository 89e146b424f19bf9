//! What the team was refused: per day by reason, with what helps.

use std::collections::BTreeMap;

use jiff::{ToSpan as _, civil::Date};
use maud::{Markup, html};

use super::gather::{Question, Spend};
use crate::{
    console::{
        decisions,
        parts::{Column, SERIES, Stacked},
        text::{number, time},
    },
    rpc::proto::{DenialRow, Reason, UsageRow},
};

/// Reasons with a series of their own; all others are one.
const NAMED: usize = SERIES.len() - 1;

/// The refusals of a month.
struct Refused<'q> {
    question: Question<'q>,
    /// The most frequent first.
    reasons: Vec<(Reason, i64)>,
    /// Each day of the month that has begun, with the requests that were answered, and the refusals of each reason.
    days: Vec<(Date, i64, BTreeMap<i32, i64>)>,
}

/// The section.
pub(super) fn section(question: Question<'_>, spend: &Spend) -> Markup {
    let refused = Refused::of(question, &spend.refused, &spend.days);
    let month = question.first.strftime("%B").to_string();
    let all = refused.total();
    if all == 0 {
        return html! {
            section {
                div.section-head { h2 #refused { "Refused" } }
                p.empty {
                    strong { "No request was refused in " (month) "." }
                    " A refused request appears here within seconds, under the first of its reasons."
                }
            }
        };
    }
    let asked = all + refused.days.iter().map(|(_, requests, _)| requests).sum::<i64>();
    html! {
        section {
            div.section-head {
                h2 #refused { "Refused in " (month) }
                p { (number::of(all, "request")) " of " (number::count(asked)) ", each under the first of its reasons" }
            }
            figure {
                figcaption { (refused.legend()) }
                (refused.drawing(&month))
            }
            (refused.by_reason())
            details.numbers { summary { "The same in numbers" } (refused.by_day()) }
        }
    }
}

impl<'q> Refused<'q> {
    fn of(question: Question<'q>, denials: &[DenialRow], usage: &[UsageRow]) -> Self {
        let now = question.view.now();
        let date = |start: Option<&prost_types::Timestamp>| Some(time::zoned(start?, now)?.date());
        let (first, end) = question.days();
        let mut days: BTreeMap<Date, (i64, BTreeMap<i32, i64>)> = first
            .series(1.day())
            .take_while(|date| *date < end)
            .map(|date| (date, Default::default()))
            .collect();
        for row in usage {
            let day = date(row.start_time.as_ref()).and_then(|date| days.get_mut(&date));
            if let (Some((requests, _)), Some(amounts)) = (day, &row.amounts) {
                *requests += amounts.request_count;
            }
        }
        let mut reasons: BTreeMap<i32, i64> = BTreeMap::new();
        for row in denials {
            let day = date(row.start_time.as_ref()).and_then(|date| days.get_mut(&date));
            if let (Some((_, refused)), Some(dimensions)) = (day, &row.dimensions) {
                *refused.entry(dimensions.reason).or_default() += row.request_count;
                *reasons.entry(dimensions.reason).or_default() += row.request_count;
            }
        }
        let known = |reason: i32| Reason::try_from(reason).unwrap_or(Reason::Unspecified);
        let mut reasons: Vec<_> = reasons.into_iter().map(|(reason, count)| (known(reason), count)).collect();
        reasons.sort_by_key(|(_, count)| -count);
        let days = days.into_iter().map(|(date, (requests, refused))| (date, requests, refused)).collect();
        Self { question, reasons, days }
    }

    fn total(&self) -> i64 {
        self.reasons.iter().map(|(_, count)| count).sum()
    }

    fn legend(&self) -> Markup {
        let others: i64 = self.reasons.iter().skip(NAMED).map(|(_, count)| count).sum();
        let named = self.reasons.iter().take(NAMED).map(|(reason, count)| (name(*reason), *count));
        let series = named.chain((others > 0).then(|| ("other reasons".to_owned(), others)));
        html! {
            ul.legend {
                @for ((reason, count), class) in series.zip(SERIES) {
                    li { span class={ "key key-" (class) } {} (reason) " " b { (number::count(count)) } }
                }
            }
        }
    }

    fn drawing(&self, month: &str) -> Markup {
        let all = self.question.first.series(1.day()).take_while(|date| *date < self.question.end);
        let columns: Vec<_> = all.map(|date| self.column(date)).collect();
        let of_day = |refused: &BTreeMap<i32, i64>| refused.values().sum::<i64>();
        let greatest = self.days.iter().max_by_key(|(_, _, refused)| of_day(refused));
        let description = greatest.map_or_else(String::new, |(date, _, refused)| {
            format!(
                "{} in {}; the most on {}: {}.",
                number::of(self.total(), "refusal"),
                number::of(i64::try_from(self.days.len()).unwrap_or(0), "day"),
                time::day(*date, self.question.today()),
                number::count(of_day(refused))
            )
        });
        Stacked {
            id: "refusals",
            title: &format!("Refused requests of {} per day in {month}, by reason", self.question.team),
            description: &description,
            columns: &columns,
            level: None,
            write: |amount| number::count(i64::try_from(amount).unwrap_or(i64::MAX)),
        }
        .draw()
    }

    /// Days to come have a place and no parts.
    fn column(&self, date: Date) -> Column {
        let today = self.question.today();
        let counted = self.days.iter().find(|(day, ..)| *day == date);
        let of = |reason: Reason| {
            counted.and_then(|(_, _, refused)| refused.get(&reason.into())).copied().unwrap_or(0)
        };
        let named = self.reasons.iter().map(|(reason, _)| (*reason, of(*reason)));
        let (mut parts, mut words) = (vec![0; SERIES.len()], Vec::new());
        for (place, (reason, count)) in named.enumerate().filter(|(_, (_, count))| *count > 0) {
            if let Some(part) = parts.get_mut(place.min(NAMED)) {
                *part += i128::from(count);
            }
            words.push(format!("{} {}", name(reason), number::count(count)));
        }
        let day = time::day(date, today);
        let title = match (date > today, words.is_empty()) {
            (true, _) => day,
            (false, true) => format!("{day}: none"),
            (false, false) => format!("{day}: {}", words.join(", ")),
        };
        Column { mark: super::course::day_mark(date), title, parts, partial: date == today }
    }

    fn by_reason(&self) -> Markup {
        let today = self.question.today();
        let of_today = self.days.iter().find(|(date, ..)| *date == today).map(|(_, _, refused)| refused);
        let present = self.question.is_present();
        html! {
            div.table.gap role="region" aria-label="Refusals by reason" tabindex="0" {
                table.stack role="table" {
                    thead role="rowgroup" { tr role="row" {
                        th role="columnheader" scope="col" { "Reason" }
                        th role="columnheader" scope="col" { "What helps" }
                        @if present { th.num role="columnheader" scope="col" { "Today" } }
                        th.num role="columnheader" scope="col" { "In " (self.question.first.strftime("%B")) }
                    } }
                    tbody role="rowgroup" {
                        @for (reason, count) in &self.reasons {
                            tr role="row" {
                                th role="rowheader" scope="row" {
                                    // What is over is not among the last decisions.
                                    @if present { (decisions::reason(self.question.view, self.question.team, *reason)) }
                                    @else { span.reason { (name(*reason)) } }
                                }
                                td role="cell" data-label="What helps" { (help(*reason)) }
                                @if present {
                                    @let count = of_today.and_then(|refused| refused.get(&i32::from(*reason))).copied().unwrap_or(0);
                                    td.num.zero[count == 0] role="cell" data-label="Today" { (number::count(count)) }
                                }
                                td.num role="cell" data-label="In the month" { (number::count(*count)) }
                            }
                        }
                    }
                }
            }
        }
    }

    fn by_day(&self) -> Markup {
        let (today, now) = (self.question.today(), self.question.view.now());
        html! {
            div.table.table-tall role="region" aria-label="Refusals by day and reason" tabindex="0" {
                table.stick {
                    thead { tr {
                        th scope="col" { "Day" }
                        th.num scope="col" { "Answered" }
                        @for (reason, _) in &self.reasons { th.num scope="col" { (name(*reason)) } }
                    } }
                    tbody {
                        @for (date, requests, refused) in self.days.iter().rev() {
                            tr {
                                th scope="row" {
                                    (time::day(*date, today))
                                    @if *date == today { ", until " (now.strftime("%H:%M")) }
                                }
                                (number::cell(*requests))
                                @for (reason, _) in &self.reasons {
                                    (number::cell(refused.get(&i32::from(*reason)).copied().unwrap_or(0)))
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

/// A reason as answers name it.
fn name(reason: Reason) -> String {
    let name = reason.as_str_name();
    name.strip_prefix("REASON_").unwrap_or(name).to_owned()
}

/// What lets such a request pass.
const fn help(reason: Reason) -> &'static str {
    match reason {
        Reason::RequestRateExceeded
        | Reason::TokenRateExceeded
        | Reason::AudioRateExceeded
        | Reason::TooManyInFlight => "waiting helps",
        Reason::UpstreamRateLimited => "waiting helps: Groq answered 429",
        Reason::StoreUnavailable => "waiting helps, once the store answers",
        Reason::TeamBudgetExhausted | Reason::OrganizationBudgetExhausted => {
            "the budget's next period, or a larger budget"
        }
        Reason::KeyBudgetExhausted => "the next period of the key's or user's budget, or a larger one",
        Reason::MaxOutputTokensExceeded => "ask for less",
        Reason::BatchTooLarge => "a smaller batch",
        Reason::TooManyUnsettled => "report what requests used",
        Reason::OutageAllowanceExhausted => "until the store answers, or a minute",
        Reason::Paused => "until it is resumed",
        Reason::ModelNotAllowed => "another model; the policy names those that the team may use",
        Reason::OperationNotAllowed => "the policy names the operations that the team may use",
        Reason::ToolNotAllowed => "without the tool; the policy names those that the team may use",
        Reason::ModelNotPriced | Reason::ToolNotPriced => "a price in the policy",
        Reason::KeyRevoked | Reason::KeyExpired | Reason::InvalidKey => "another key",
        Reason::UnknownTeam | Reason::Unspecified => "–",
    }
}
