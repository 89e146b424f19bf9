//! What a proposed policy would have refused of the last days.

use std::time::Duration;

use jiff::{ToSpan as _, civil::Date};
use maud::{Markup, html};
use prost::bytes::Bytes;
use tokio::{sync::watch, time::timeout};
use tonic::{Code, Status};

use crate::{
    console::{
        parts::{Badge, Meaning},
        text::{
            money::{self, nanos},
            number, time,
        },
        view::View,
    },
    rpc::proto::{ReplayLine, ReplayPolicyRequest, ReplayResult},
};

/// How long a replay may take. The service ends it as soon; this holds where it does not.
const PATIENCE: Duration = Duration::from_secs(65);
/// The most lines on the page.
const MAX_LINES: usize = 100;

/// What came of it.
pub(super) struct Replay {
    /// The days from the first to the last.
    days: (Date, Date),
    /// How far it came, in per cent.
    percent: u8,
    result: Result<ReplayResult, Status>,
}

/// Plays the last `days`, today included, to `document`. `percent` is told how far that is.
pub(super) async fn run(view: &View, document: Bytes, days: u16, percent: &watch::Sender<u8>) -> Replay {
    let last = view.now().date();
    let first = last.saturating_sub(i64::from(days - 1).days());
    let request = ReplayPolicyRequest {
        document,
        start_date: first.to_string(),
        end_date: last.saturating_add(1.day()).to_string(),
        format: String::new(),
    };
    let playing = timeout(PATIENCE, play(view, request, percent)).await;
    let result = playing.unwrap_or_else(|_| Err(Status::deadline_exceeded("it was not played in time")));
    Replay { days: (first, last), percent: *percent.borrow(), result }
}

async fn play(
    view: &View,
    request: ReplayPolicyRequest,
    percent: &watch::Sender<u8>,
) -> Result<ReplayResult, Status> {
    let mut answers = view.api().policy_document().replay_policy(request).await?.into_inner();
    while let Some(answer) = answers.message().await? {
        // A share from 0 to 1.
        let played =
            (1..=100).take_while(|part| f64::from(*part) <= answer.progress * 100.0).last().unwrap_or(0);
        percent.send_replace(played);
        if let Some(result) = answer.result {
            return Ok(result);
        }
    }
    Err(Status::unavailable("the replay ended without a result"))
}

/// The number of requests that would have been refused, in a sentence; `None`: it is not known.
pub(super) fn sentence(replay: &Replay) -> Option<Markup> {
    let result = replay.result.as_ref().ok()?;
    Some(html! {
        "Over the last " (number::of(replay.count(), "day")) " it would have refused about "
        (number::of(result.newly_refused_count, "request")) " that " @if result.newly_refused_count == 1 { "was" } @else { "were" } " allowed."
    })
}

impl Replay {
    fn count(&self) -> i64 {
        let (first, last) = self.days;
        i64::from(first.until(last).map_or(0, |span| span.get_days())) + 1
    }
}

/// The section of the page.
pub(super) fn section(view: &View, replay: &Replay) -> Markup {
    let today = view.now().date();
    let (first, last) = replay.days;
    html! {
        section {
            div.section-head {
                h2 #replay { "What it would have refused" }
                p {
                    (time::day(first, today)) @if first != last { " to " (time::day(last, today)) }
                    ", about: requests are made of the usage of hours and days, which do not say when in them each came"
                }
            }
            @match &replay.result {
                Ok(result) => (found(result)),
                Err(status) => (failed(replay, status)),
            }
        }
    }
}

fn failed(replay: &Replay, status: &Status) -> Markup {
    html! {
        div.banner.banner-warn {
            @if status.code() == Code::DeadlineExceeded {
                p {
                    strong { "It took longer than 60 seconds, and was given up." }
                    " It had come through " (replay.percent) "\u{a0}% of " (number::of(replay.count(), "day")) ": ask for fewer."
                }
            } @else {
                p { strong { "It could not be played: " (status.message()) "." } " The findings and changes hold all the same." }
            }
        }
    }
}

fn found(result: &ReplayResult) -> Markup {
    let played = number::count(result.decisions);
    html! {
        @if result.decisions == 0 {
            p.empty {
                strong { "There was nothing to play." }
                " Usage appears as soon as a gateway reports what a request used, with " code { "RecordUsage" } "."
            }
        } @else {
            dl.tiles {
                div { dt { "Played" } dd { (played) } dd { "requests that were allowed" } }
                div {
                    dt { "Refused" } dd { (number::count(result.newly_refused_count)) }
                    dd { (number::share(result.newly_refused_count.into(), result.decisions.into()).unwrap_or_default()) " of them" }
                }
                div { dt { "Saved" } dd { (money::sum(nanos(result.saved.as_ref()))) } dd { "what those cost" } }
                @if result.unknown_key_count > 0 {
                    div { dt { "Keys not known" } dd { (number::count(result.unknown_key_count)) } dd { "requests, decided as their team's" } }
                }
                @if result.unbooked_count > 0 {
                    div { dt { "No price" } dd { (number::count(result.unbooked_count)) } dd { "allowed, but not booked" } }
                }
            }
            @if result.lines.is_empty() {
                p.empty.gap { strong { "It would have refused nothing." } }
            } @else {
                (table(result))
            }
        }
    }
}

fn table(result: &ReplayResult) -> Markup {
    let more = i64::from(result.line_count) - i64::try_from(result.lines.len().min(MAX_LINES)).unwrap_or(0);
    html! {
        div.table.gap role="region" aria-label="What would have refused requests, by team" tabindex="0" {
            table.stack role="table" {
                thead role="rowgroup" { tr role="row" {
                    th role="columnheader" scope="col" { "Team" }
                    th role="columnheader" scope="col" { "What refuses" }
                    @for name in ["Would refuse", "Were allowed", "They cost", "In shadow"] {
                        th.num role="columnheader" scope="col" { (name) }
                    }
                } }
                tbody role="rowgroup" { @for line in result.lines.iter().take(MAX_LINES) { (row(line)) } }
            }
        }
        @if more > 0 { p.pager { "and " (number::count(more)) " more" } }
        p.gap-small.quiet.small { "A request that several refuse counts in each." }
    }
}

fn row(line: &ReplayLine) -> Markup {
    html! {
        tr role="row" {
            th role="rowheader" scope="row" { (line.team) " " @if line.newly_refused_count > 0 { (Badge(Meaning::Over, "refuses".to_owned())) } }
            td.long.whole role="cell" data-label="What refuses" { code { (line.limit_id) } }
            td.num role="cell" data-label="Would refuse" { (number::count(line.refused_count)) }
            td.num role="cell" data-label="Were allowed" { (number::count(line.newly_refused_count)) }
            td.num role="cell" data-label="They cost" { (money::sum(nanos(line.cost.as_ref()))) }
            td.num role="cell" data-label="In shadow" { (number::count(line.shadow_count)) }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn replay(result: Result<ReplayResult, Status>) -> Replay {
        let day = |text: &str| text.parse().unwrap();
        Replay { days: (day("2026-10-30"), day("2026-11-05")), percent: 43, result }
    }

    #[test]
    fn a_replay_says_what_was_refused_or_why_it_does_not_say() {
        let result = ReplayResult { newly_refused_count: 2_806, decisions: 10_000, ..Default::default() };
        let said = sentence(&replay(Ok(result.clone()))).unwrap().into_string();
        assert_eq!(
            said,
            "Over the last 7\u{a0}days it would have refused about 2,806\u{a0}requests that were allowed."
        );
        assert!(found(&result).into_string().contains("28.1\u{a0}%"));
        assert!(found(&ReplayResult::default()).into_string().contains("nothing to play"));
        let late = replay(Err(Status::deadline_exceeded("late")));
        let Err(status) = &late.result else { panic!("it is late") };
        let said = failed(&late, status).into_string();
        assert!(said.contains("given up") && said.contains("43\u{a0}% of 7\u{a0}days"), "{said}");
        assert!(sentence(&late).is_none());
        let busy = failed(&late, &Status::unavailable("<busy>")).into_string();
        assert!(busy.contains("&lt;busy&gt;"), "{busy}");
    }
}
