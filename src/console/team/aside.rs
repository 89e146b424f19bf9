//! What stands beside the course: the budgets in short, what the policy says, and what is paused.

use maud::{Markup, html};

use super::{
    gather::{Gathered, Question},
    standing::{Mark, Standing},
};
use crate::{
    console::{
        parts::{BudgetBar, Size},
        text::{
            money,
            time::{minute_of, minute_text},
        },
    },
    rpc::proto::{DescribeTeamResponse, Pause, pause_target::Target},
};

/// The most sentences that are shown: one for each limit of a model is possible.
const MAX_SENTENCES: usize = 40;
/// The most pauses of keys and models that are shown.
const MAX_PAUSES: usize = 10;
/// The subject of the sentences on declared keys, which have a table of their own.
const OF_KEYS: &str = "Keys";

pub(super) fn sections(question: Question<'_>, gathered: &Gathered) -> Markup {
    let budgets = gathered.spend.as_ref().map(|spend| spend.budgets.as_slice()).unwrap_or_default();
    html! {
        @if !budgets.is_empty() { (bars(question, budgets)) }
        @if let Some(words) = &gathered.words { (may_do(words)) }
        (paused(question, &gathered.pauses))
    }
}

fn bars(question: Question<'_>, budgets: &[Standing]) -> Markup {
    html! {
        section {
            div.section-head { h2 #budgets { "Budgets" } }
            @for (place, budget) in budgets.iter().enumerate() { div.gap[place > 0] { (bar(question, budget)) } }
        }
    }
}

fn bar(question: Question<'_>, budget: &Standing) -> Markup {
    let Standing { limit, spent, reserved, .. } = *budget;
    let name = budget.name();
    let is_open = budget.then.is_some();
    let pace = (is_open && !budget.is_of_day()).then(|| budget.pace(question.view.now()));
    let alerts = budget.thresholds.iter().map(|Mark { text, amount, crossed }| {
        let passed = (spent >= *amount).then(|| match crossed {
            Some(at) => format!("passed {}", minute_text(at, question.view.now())),
            None => "passed".to_owned(),
        });
        // A share says its amount as well.
        let amount = text.ends_with('%').then(|| money::short(*amount));
        let words: Vec<_> = amount.into_iter().chain(passed).collect();
        if words.is_empty() { text.clone() } else { format!("{text} ({})", words.join(", ")) }
    });
    let alerts: Vec<_> = alerts.collect();
    html! {
        h3 { (name) }
        (BudgetBar { size: Size::Row, name: &name, limit, spent, reserved, pace })
        ul.legend {
            li { span.key.key-spent {} "Spent " b { (money::sum(spent)) } }
            @if is_open { li { span.key.key-reserved {} "Reserved " b { (money::sum(reserved)) } } }
            li { span.key.key-left {} "Remaining " b { (money::sum(budget.left())) } " of " (money::short(limit)) }
            @if let Some(pace) = pace { li { span.key.key-pace {} "Pace " b { (money::short(pace)) } } }
        }
        @if !alerts.is_empty() { p.quiet.small.gap-small { "Alerts at " (alerts.join(", ")) "." } }
    }
}

/// Sentences on one subject stand beside its name.
fn may_do(words: &DescribeTeamResponse) -> Markup {
    let sentences = words.sentences.iter().map(|sentence| {
        let whole = ("", sentence.as_str());
        let (subject, said) = sentence.split_once(": ").unwrap_or(whole);
        (subject, said.strip_suffix('.').unwrap_or(said))
    });
    let sentences: Vec<_> = sentences.filter(|(subject, _)| *subject != OF_KEYS).collect();
    let shown = sentences.iter().take(MAX_SENTENCES);
    let left_out = sentences.len().saturating_sub(MAX_SENTENCES);
    let mut before = "";
    html! {
        section {
            div.section-head { h2 #words { "What it may do" } }
            dl.words {
                @for (subject, said) in shown {
                    @if *subject != before { dt { (subject) } }
                    @let () = { before = *subject };
                    dd { (said) }
                }
            }
            @if left_out > 0 { p.quiet.small.gap-small { "The policy says " (left_out) " more." } }
        }
    }
}

/// Why something was paused, who did it, and since when. Without `[access]`, those who call have no names.
pub(super) fn said(question: Question<'_>, pause: &Pause) -> Markup {
    let who = pause.actor.as_ref().map(|actor| actor.name.as_str()).filter(|name| !name.is_empty());
    html! {
        "“" (pause.reason) "”"
        @if let Some(who) = who { ", " (who) }
        ", since " (minute_of(pause.create_time.as_ref(), question.view.now()))
    }
}

/// What else is paused: keys of the team, and models.
fn paused(question: Question<'_>, pauses: &[Pause]) -> Markup {
    let others = pauses.iter().filter_map(|pause| {
        let what = match pause.target.as_ref()?.target.as_ref()? {
            Target::Key(name) => html! { "Key " (name) },
            Target::Model(name) => html! { "Model " (name) ", for all teams" },
            Target::Organization(_) | Target::Team(_) => return None,
        };
        Some((what, pause))
    });
    let others: Vec<_> = others.collect();
    if others.is_empty() {
        return html! {};
    }
    html! {
        section {
            div.section-head { h2 #paused { "Paused" } p.end { (others.len()) } }
            ul.attention {
                @for (what, pause) in others.iter().take(MAX_PAUSES) {
                    li.paused {
                        span.mark {}
                        div {
                            p { (what) }
                            p { (said(question, pause)) "." }
                        }
                    }
                }
            }
        }
    }
}
