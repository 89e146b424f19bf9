//! The page of a proposal.

use maud::{Markup, html};
use tonic::{Code, Status};

use super::{
    Answered, replay,
    typed::{MAX_DAYS, Typed},
};
use crate::{
    console::{
        fields::TOKEN,
        policy::{POLICY, PROPOSAL, document::Lines, findings, words},
        text::number,
        view::View,
    },
    domain::rbac::Permission,
    rpc::proto::CheckPolicyResponse,
};

/// The largest file that stands in the form again, in bytes: a browser does not keep the file itself.
const MAX_AGAIN: usize = 1 << 20;

/// The empty form.
pub(super) fn empty(view: &View) -> Markup {
    html! { (head(view)) (applied()) (form(view, &Typed::default(), "Try a change")) }
}

/// The form with what is wrong in its fields.
pub(super) fn faulty(view: &View, typed: &Typed) -> Markup {
    html! { (head(view)) (applied()) (form(view, typed, "Try a change")) }
}

/// What is said of the proposal, and the form with it.
pub(super) fn answered(view: &View, answered: &Answered) -> Markup {
    let Answered { typed, checked, replay } = answered;
    html! {
        (head(view))
        @match checked {
            Err(status) => (unchecked(status)),
            Ok(checked) => {
                (verdict(checked, replay.as_ref().and_then(replay::sentence)))
                div.pair.pair-wide {
                    section { (faults(typed, checked)) }
                    section { (changes(checked)) }
                }
                @if let Some(replay) = replay { (replay::section(view, replay)) }
            },
        }
        section { (applied()) (form(view, typed, "Change the text")) }
    }
}

fn head(view: &View) -> Markup {
    html! {
        @if view.may(Permission::ReadPolicy) { p.crumbs { a href=(view.address(POLICY)) { "Policy" } } }
        div.head { h1 { "A proposal against what is in force" } }
    }
}

/// How a policy comes into force.
fn applied() -> Markup {
    html! {
        p.prose.quiet.applied {
            "Nothing is changed here. A policy is put in force by its file: save it where the service reads it, the same on every replica. "
            "A change of the file is taken up within seconds; one with errors is not, and what was in force stays."
        }
    }
}

fn unchecked(status: &Status) -> Markup {
    html! {
        div.banner.banner-warn {
            @if status.code() == Code::DeadlineExceeded {
                p { strong { "The check took longer than 10 seconds, and was given up." } " Check it with " code { "tollgate check" } " on a machine of your own." }
            } @else {
                p { strong { "It could not be checked: " (status.message()) "." } " Try it again in a moment." }
            }
        }
    }
}

fn verdict(checked: &CheckPolicyResponse, replayed: Option<Markup>) -> Markup {
    let class = match (checked.sound, checked.finding_count) {
        (false, _) => "banner banner-over",
        (true, 0) => "banner banner-ok",
        (true, _) => "banner banner-warn",
    };
    html! {
        div class=(class) role="status" {
            p {
                strong { (findings::counted(&checked.findings)) "." } " "
                @if checked.sound { "It could be put in force." } @else { "It would not be put in force: what is in force would stay." }
                @if let Some(replayed) = replayed { " " (replayed) }
            }
            a href="#edit" { "Change the text" }
        }
    }
}

fn faults(typed: &Typed, checked: &CheckPolicyResponse) -> Markup {
    let text = String::from_utf8_lossy(&typed.document);
    let more = i64::from(checked.finding_count) - i64::try_from(checked.findings.len()).unwrap_or(0);
    html! {
        div.section-head { h2 #findings { "Findings" } p.end { "as " code { "tollgate check" } " says them" } }
        @if checked.findings.is_empty() {
            p.empty { strong { "None." } }
        } @else {
            (Lines::new(&text, &checked.findings).excerpt())
            @if more > 0 { p.pager { "and " (number::count(more)) " more" } }
        }
    }
}

fn changes(checked: &CheckPolicyResponse) -> Markup {
    html! {
        div.section-head { h2 #changes { "In words" } p.end { (number::of(checked.change_count.into(), "change")) } }
        @if checked.changes.is_empty() {
            p.empty {
                strong { "No key differs from what is in force." }
                @if !checked.sound { " Or it cannot be read, or is of another organization." }
            }
        } @else {
            div.changes { (words::first(&checked.changes, checked.changes.len(), checked.change_count)) }
        }
    }
}

/// The form, with what was typed.
pub(in super::super) fn form(view: &View, typed: &Typed, title: &str) -> Markup {
    html! {
        form.panel method="post" action=(view.address(PROPOSAL)) enctype="multipart/form-data" data-follow {
            // Before the text, which is read for no one else.
            @if let Some(token) = view.form_token() { input type="hidden" name=(TOKEN) value=(token); }
            h2 #edit { (title) }
            (text_field(typed))
            div.fields.gap {
                div.field {
                    label for="file" { "or a file" }
                    input #file name="file" type="file" aria-describedby="file-h";
                    span.hint #file-h { "It goes before the text." }
                }
                (days_field(typed))
            }
            div.actions { button.primary { "Check it" } }
        }
    }
}

fn text_field(typed: &Typed) -> Markup {
    let is_again = !typed.is_file || typed.document.len() <= MAX_AGAIN;
    let text = String::from_utf8_lossy(if is_again { &typed.document } else { b"" });
    let fault = typed.is_sent && typed.document.is_empty();
    html! {
        div.field {
            label for="text" { "Paste a policy" }
            // Browsers leave out the first end of a line.
            textarea #text name="text" rows="12" spellcheck="false" autocomplete="off"
                aria-invalid=[fault.then_some("true")] aria-describedby="text-h" { "\n" (text) }
            @if fault {
                span.fault #text-h { "Nothing was sent: paste the whole policy, or choose its file." }
            } @else if !is_again {
                span.hint #text-h { "The file is too large to stand here: choose it again." }
            } @else {
                span.hint #text-h { "TOML or JSON, the whole file, up to 32 MiB. What you send is shown to you alone, and not kept." }
            }
        }
    }
}

fn days_field(typed: &Typed) -> Markup {
    html! {
        div.field {
            label for="days" { "Days to play, today included" }
            input #days name="days" type="number" min="1" max=(MAX_DAYS) value=(typed.shown_days)
                aria-invalid=[(!typed.has_days).then_some("true")] aria-describedby="days-h";
            @if typed.has_days {
                span.hint #days-h { "It takes up to a minute, and is given up then." }
            } @else {
                span.fault #days-h { "A number from 1 to " (MAX_DAYS) "." }
            }
            label.choice {
                input type="checkbox" name="replay" value="yes" checked[typed.days.is_some() || (typed.is_sent && !typed.has_days)];
                "Play the usage of these days to it"
            }
        }
    }
}
