//! The policies that were in force, the newest first.

use maud::{Markup, html};

use super::{
    POLICY,
    gather::{Gathered, of_document},
    words,
};
use crate::{
    console::{
        parts::{Badge, Meaning},
        text::{number, time},
        view::View,
    },
    rpc::proto::PolicyRevision,
};

/// Changes of a revision that stand in its row.
const SHOWN: usize = 3;
/// Replicas that stand in a row.
const NAMED: usize = 2;

/// The table with its pages.
pub(super) fn section(view: &View, gathered: &Gathered, is_first: bool) -> Markup {
    let history = &gathered.history;
    let in_force = of_document(&gathered.policy.policy_revision);
    html! {
        section {
            div.section-head { h2 #history { "History" } p { "The last 100 policies that were in force" } }
            @if history.revisions.is_empty() {
                p.empty {
                    strong { "No policy is on record." }
                    " A replica records what it takes into force within seconds, where the store answers."
                }
            } @else {
                div.table role="region" aria-label="Policies that were in force" tabindex="0" {
                    table.stack role="table" {
                        thead role="rowgroup" { tr role="row" {
                            @for name in ["First in force", "Revision", "Read at", "Replicas", "What changed"] {
                                th role="columnheader" scope="col" { (name) }
                            }
                        } }
                        tbody role="rowgroup" {
                            @for revision in &history.revisions { (row(view, revision, revision.document_revision == in_force)) }
                        }
                    }
                }
            }
            @if !is_first || !history.next_page_token.is_empty() {
                p.pager {
                    @if !is_first { a href={ (view.address(POLICY)) "#history" } { "The newest" } }
                    @if !history.next_page_token.is_empty() {
                        span.end {
                            a href={ (view.query(POLICY, &[("older", &history.next_page_token)])) "#history" } { "Older" }
                        }
                    }
                }
            }
        }
    }
}

fn row(view: &View, revision: &PolicyRevision, in_force: bool) -> Markup {
    html! {
        tr role="row" {
            th role="rowheader" scope="row" {
                (time::minute_of(revision.first_time.as_ref(), view.now())) " "
                @if in_force { (Badge(Meaning::Plain, "in force".to_owned())) }
            }
            td role="cell" data-label="Revision" {
                a href=(address(view, &revision.document_revision)) { code { (revision.document_revision) } }
            }
            td role="cell" data-label="Read at" { (source(&revision.source)) }
            td.long role="cell" data-label="Replicas" { (replicas(&revision.replicas)) }
            td.long.whole role="cell" data-label="What changed" { (changed(view, revision)) }
        }
    }
}

/// Why a policy was read.
pub(super) fn source(source: &str) -> &str {
    match source {
        "start" => "a start",
        "file change" => "a change of the file",
        "signal" => "a signal",
        other => other,
    }
}

fn replicas(names: &[String]) -> Markup {
    let more = names.len().saturating_sub(NAMED);
    html! {
        @for name in names.iter().rev().take(NAMED) { span.sub { (name) } }
        @if more > 0 { span.sub { "and " (number::count(i64::try_from(more).unwrap_or(0))) " before" } }
    }
}

fn changed(view: &View, revision: &PolicyRevision) -> Markup {
    html! {
        @if revision.previous_revision.is_empty() {
            span.quiet { "first on record" }
        } @else if revision.change_count == 0 {
            span.quiet { "nothing against " code { (revision.previous_revision) } }
        } @else {
            (words::first(&revision.changes, SHOWN, revision.change_count))
            @if revision.changes.len() > SHOWN { a href=(address(view, &revision.document_revision)) { "All changes" } }
        }
    }
}

/// The page of a revision.
pub(super) fn address(view: &View, revision: &str) -> String {
    let name: String = form_urlencoded::byte_serialize(revision.as_bytes()).collect();
    view.address(&format!("{POLICY}/revisions/{name}"))
}
