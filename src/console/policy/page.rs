//! The page of the policy.

use maud::{Markup, html};

use super::{
    POLICY, PROPOSAL, Query,
    document::Lines,
    findings,
    gather::{Gathered, of_document},
    history, proposal,
};
use crate::{
    console::{
        text::{number, time},
        view::View,
    },
    domain::rbac::Permission,
    rpc::proto::{Finding, PolicyRejection},
};

/// The page, below the head of the frame.
pub(super) fn body(view: &View, asked: &Query, gathered: &Gathered) -> Markup {
    let policy = &gathered.policy;
    let status = gathered.status.as_ref();
    let rejected = status.and_then(|status| status.rejected.as_ref());
    let warnings = status.map(|status| &*status.findings).unwrap_or_default();
    html! {
        (head(view, gathered))
        @if let Some(rejected) = rejected { (rejection(view, rejected)) }
        section.first[rejected.is_none()] {
            dl.facts {
                div { dt { "Teams" } dd { (number::count(policy.team_count.into())) } }
                div { dt { "Keys that can be used" } dd { (number::count(policy.key_count.into())) } }
                div { dt { "Pauses" } dd { (number::count(policy.pause_count.into())) } }
                @if status.is_some() { div { dt { "Findings" } dd { (findings::counted(warnings)) } } }
            }
        }
        (document(view, asked, gathered, warnings))
        (history::section(view, gathered, asked.older.is_empty()))
        @if view.may(Permission::CheckPolicy) {
            section { (proposal::form(view, &proposal::Typed::default(), "Try a change")) }
        }
    }
}

fn head(view: &View, gathered: &Gathered) -> Markup {
    let own = of_document(&gathered.policy.policy_revision);
    let ready = || gathered.replicas.iter().filter(|replica| replica.ready);
    let follow = ready().filter(|replica| of_document(&replica.policy_revision) == own).count();
    html! {
        div.head {
            h1 { "Policy" }
            p.quiet {
                "Revision " code { (own) } ", in force here since "
                (time::minute_of(gathered.policy.load_time.as_ref(), view.now()))
                @if ready().next().is_some() { ", on " (follow) " of " (ready().count()) " replicas" }
            }
            @if view.may(Permission::CheckPolicy) {
                div.end { a.button href=(view.address(PROPOSAL)) { "Try a change" } }
            }
        }
    }
}

fn rejection(view: &View, rejected: &PolicyRejection) -> Markup {
    html! {
        div.banner.banner-warn {
            p {
                strong { "The policy's file is not in force." }
                " It was rejected at " (time::minute_of(rejected.reject_time.as_ref(), view.now()))
                ". What is in force stays until the file is mended."
            }
        }
        section.first {
            div.section-head { h2 #rejected { "What is wrong with the file" } p { (findings::counted(&rejected.findings)) } }
            (findings::list(&rejected.findings, rejected.finding_count))
        }
    }
}

fn document(view: &View, asked: &Query, gathered: &Gathered, warnings: &[Finding]) -> Markup {
    let policy = &gathered.policy;
    let at = |line: usize| view.query(POLICY, &[("line", &line.to_string()), ("older", &asked.older)]);
    html! {
        section {
            div.section-head {
                h2 #document { "The document" }
                p { "As it was written, in " (policy.format.to_uppercase()) ", without its secrets" }
            }
            (Lines::new(&policy.document, warnings).page(asked.line, at))
            @if policy.truncated { p.pager { "The document is longer: what is shown ends at 1 MiB." } }
        }
    }
}
