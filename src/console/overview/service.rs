//! The state of the service in four lines.

use maud::{Markup, html};

use super::gather::Now;
use crate::{
    console::text::{
        money::{self, nanos},
        number,
        time::span,
    },
    rpc::proto::{Spool, StoreCallOutcome, StoreKind, StoreStatus, UpstreamKeyState},
};

/// The lines; nothing for readers who may not see them.
pub(super) fn lines(now: &Now) -> Markup {
    let Some(Some(status)) = now.status.read() else { return html! {} };
    let keys = now.upstream_keys.rows().len();
    let accepted =
        now.upstream_keys.rows().iter().filter(|key| key.state() != UpstreamKeyState::Refused).count();
    html! {
        div.section-head.gap-large { h2 #service { "Service" } }
        dl.words {
            dt { "Store" } dd { @if let Some(store) = &status.store { (store_words(store)) } }
            @if let Some(replicas) = now.replicas.read() {
                dt { "Replicas" }
                dd { (replicas.iter().filter(|replica| replica.ready).count()) " of " (replicas.len()) " ready" }
            }
            @if let Some(spool) = &status.spool { dt { "Spool" } dd { (spool_words(spool)) } }
            @if keys > 0 { dt { "Groq keys" } dd { (accepted) " of " (keys) " accepted" } }
            @if let Some(snapshot) = &status.snapshot {
                dt { "In force" }
                dd {
                    (number::of(snapshot.team_count.into(), "team")) ", " (number::of(snapshot.key_count.into(), "key")) ", "
                    (number::of(snapshot.pause_count.into(), "pause"))
                }
            }
            dt { "Version" } dd { (status.version) }
        }
    }
}

/// Reports of usage that are acknowledged and not in the books yet, at this replica.
fn spool_words(spool: &Spool) -> Markup {
    html! {
        @if spool.record_count == 0 { "Empty" }
        @else { (number::of(spool.record_count, "report")) " to be booked, " (money::exact(nanos(spool.cost.as_ref()))) }
        @if spool.refused_count > 0 { ", " (number::count(spool.refused_count)) " refused" }
        @if !spool.error.is_empty() { ": " (spool.error) }
    }
}

fn store_words(store: &StoreStatus) -> Markup {
    let kind = match store.kind() {
        StoreKind::Redis => "Redis",
        StoreKind::Embedded => "Embedded",
        StoreKind::Unspecified => "Unknown",
    };
    let reserves = store
        .calls
        .iter()
        .find(|calls| calls.operation == "reserve" && calls.outcome() == StoreCallOutcome::Succeeded);
    let mean = reserves.and_then(|calls| calls.mean_duration.as_ref());
    html! {
        (kind)
        @match (store.reachable, mean) {
            (false, _) => ", does not answer",
            (true, Some(mean)) => {
                ", answers in " (span_of(mean))
            }
            (true, None) => ", answers",
        }
    }
}

/// Tenths of a millisecond below a second.
fn span_of(mean: &prost_types::Duration) -> String {
    match mean.seconds {
        0 => format!("{}.{}\u{a0}ms", mean.nanos / 1_000_000, mean.nanos / 100_000 % 10),
        seconds => span(jiff::SignedDuration::from_secs(seconds)),
    }
}

#[cfg(test)]
mod tests {
    use super::{super::gather::Part, *};
    use crate::rpc::{google_type::Money, proto::Status};

    #[test]
    fn what_a_spool_keeps_and_what_is_wrong_with_it_is_said() {
        let said = |spool: Spool| spool_words(&spool).into_string();
        assert_eq!(said(Spool::default()), "Empty");
        let cost = Some(Money { units: 1, ..Money::default() });
        let waiting = Spool { record_count: 1_200, cost, ..Spool::default() };
        let text = said(waiting.clone());
        assert!(
            text.contains("1,200") && text.contains("reports") && text.contains("to be booked, "),
            "{text}"
        );
        let text = said(Spool { refused_count: 2, error: "its disk fails: <b>".to_owned(), ..waiting });
        assert!(text.ends_with(", 2 refused: its disk fails: &lt;b&gt;"), "{text}");
        let status = Status { spool: Some(Spool::default()), ..Status::default() };
        let now = Now { status: Part::Read(Some(status)), ..Now::default() };
        assert!(lines(&now).into_string().contains("<dt>Spool</dt><dd>Empty</dd>"));
    }
}
