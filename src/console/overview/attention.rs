//! What needs attention now, the worst first: what it is, then since when, why, and what follows.

use maud::{Markup, html};

use super::gather::{Budgeted, Gathered};
use crate::{
    console::{
        parts::Meaning,
        text::{
            money,
            time::{self, minute_of, zoned},
        },
        view::View,
    },
    rpc::proto::{
        Alert, AlertKind, Cooldown, Pause, Replica, Severity, UpstreamKey, UpstreamKeyState,
        pause_target::Target,
    },
};

/// How many are shown at once. The rest is folded.
const SHOWN: usize = 5;

/// One thing.
struct Item {
    meaning: Meaning,
    what: Markup,
    why: Markup,
}

/// The list.
pub(super) fn list(view: &View, gathered: &Gathered) -> Markup {
    let mut items = items(view, gathered);
    // Stable: within one meaning, in the order of their kinds.
    items.sort_by_key(|item| item.meaning);
    let (first, rest) = items.split_at(items.len().min(SHOWN));
    html! {
        div.section-head { h2 #now { "Needs attention" } p.end { (items.len()) } }
        @if items.is_empty() {
            p.empty { strong { "Nothing." } " Budgets hold, Groq answers, and nothing is paused." }
        } @else {
            ul.attention { @for item in first { (item.shown()) } }
            @if !rest.is_empty() {
                details {
                    summary { (rest.len()) " more" }
                    ul.attention { @for item in rest { (item.shown()) } }
                }
            }
        }
    }
}

impl Item {
    fn shown(&self) -> Markup {
        html! {
            li class=(self.meaning.class()) {
                span.mark {}
                div { p { (self.what) } p { (self.why) } }
            }
        }
    }
}

fn items(view: &View, gathered: &Gathered) -> Vec<Item> {
    let now = &gathered.now;
    let mut items = Vec::new();
    items.extend(now.status.iter().flat_map(|status| service(view, status)));
    items.extend(gathered.budgets.iter().filter_map(|budget| of_budget(view, budget, gathered.present)));
    items.extend(now.upstream_keys.iter().filter_map(|key| refused(view, key)));
    items.extend(now.cooldowns.iter().map(|cooldown| cooling(view, cooldown)));
    items.extend(now.pauses.iter().filter_map(|pause| paused(view, pause)));
    items.extend(now.alerts.iter().filter_map(|alert| of_alert(view, alert)));
    items.extend(behind(view, &now.replicas));
    items
}

/// What the replica that makes the page says of itself.
fn service(view: &View, status: &crate::rpc::proto::Status) -> Vec<Item> {
    let unreachable = status.store.as_ref().is_some_and(|store| !store.reachable);
    let store = unreachable.then(|| Item {
        meaning: Meaning::Over,
        what: html! { "The store does not answer" },
        why: html! { "Requests are denied until it does." },
    });
    let rejected = status.rejected.as_ref().map(|rejected| Item {
        meaning: Meaning::Warn,
        what: html! { "The policy's file is not in force: it was rejected" },
        why: html! {
            "At " (minute_of(rejected.reject_time.as_ref(), view.now())) ". "
            @if let Some(finding) = rejected.findings.first() { (finding.message) }
        },
    });
    let unsafe_store = status.redis_warnings.iter().map(|warning| Item {
        meaning: Meaning::Warn,
        what: html! { "Redis may lose what it holds" },
        why: html! { (warning) },
    });
    store.into_iter().chain(rejected).chain(unsafe_store).collect()
}

fn of_budget(view: &View, budget: &Budgeted, present: bool) -> Option<Item> {
    let who = html! {
        @if budget.team.is_empty() { "The organization" }
        @else { a href=(view.address(&format!("/teams/{}", budget.team))) { (budget.team) } }
    };
    let limit = money::short(budget.limit);
    let left = budget.limit - budget.spent - budget.reserved;
    if budget.spent >= budget.limit {
        let why = match budget.refuses {
            true => html! { "Requests that cost anything are denied until the month ends." },
            false => html! { "It warns only, so requests are allowed." },
        };
        return Some(Item { meaning: Meaning::Over, what: html! { (who) " has spent its " (limit) }, why });
    }
    let ends = budget.ends.as_ref().filter(|_| present)?;
    let day = time::day(ends.date(), view.now().date());
    let what = match budget.refuses {
        true => html! { (who) " will be denied from about " (day) },
        false => html! { (who) " will pass its " (limit) " about " (day) },
    };
    let why = html! { (money::short(left)) " of " (limit) " left, at the pace of the last days." };
    Some(Item { meaning: Meaning::Warn, what, why })
}

fn refused(view: &View, key: &UpstreamKey) -> Option<Item> {
    (key.state() == UpstreamKeyState::Refused).then(|| Item {
        meaning: Meaning::Over,
        what: html! { "Groq refuses key " code { (key.project) "/" (key.name) } },
        why: html! { "Since " (minute_of(key.refuse_time.as_ref(), view.now())) ". Put another in its place." },
    })
}

fn cooling(view: &View, cooldown: &Cooldown) -> Item {
    let end = cooldown.end_time.as_ref().and_then(|end| zoned(end, view.now()));
    Item {
        meaning: Meaning::Warn,
        what: html! {
            (cooldown.model) " is in cooldown"
            @if let Some(end) = &end { " until " (time::second(end, view.now())) }
        },
        why: html! {
            "Groq answered 429 to " (cooldown.reporter_team) " in project " (cooldown.project) "."
            " Requests for the model are denied until then."
        },
    }
}

fn paused(view: &View, pause: &Pause) -> Option<Item> {
    let target = pause.target.as_ref()?.target.as_ref()?;
    let what = match target {
        Target::Organization(_) => html! { "Everything is paused" },
        Target::Team(name) => {
            html! { "Team " a href=(view.address(&format!("/teams/{name}"))) { (name) } " is paused" }
        }
        Target::Key(name) => html! { "Key " (name) " is paused" },
        Target::Model(name) => html! { "Model " (name) " is paused" },
    };
    let who = pause.actor.as_ref().map(|actor| actor.name.as_str()).unwrap_or_default();
    let why =
        html! { "“" (pause.reason) "”, " (who) ", " (minute_of(pause.create_time.as_ref(), view.now())) "." };
    Some(Item { meaning: Meaning::Paused, what, why })
}

/// Alerts of what the page does not show by itself.
fn of_alert(view: &View, alert: &Alert) -> Option<Item> {
    let told = [
        AlertKind::UnsettledHigh,
        AlertKind::UsageDrift,
        AlertKind::UnreservedRefused,
        AlertKind::SpoolBacklog,
        AlertKind::LayoutMismatch,
    ];
    told.contains(&alert.kind()).then(|| Item {
        meaning: if alert.severity() == Severity::Critical { Meaning::Over } else { Meaning::Warn },
        what: html! { (alert.summary) },
        why: html! { "Since " (minute_of(alert.create_time.as_ref(), view.now())) "." },
    })
}

/// Replicas that do not follow the policy that most of them follow.
fn behind(view: &View, replicas: &[Replica]) -> Vec<Item> {
    let own = view.snapshot().policy.revision.to_string();
    let document =
        |replica: &Replica| replica.policy_revision.split('/').next().unwrap_or_default().to_owned();
    let others = replicas.iter().filter(|replica| document(replica) != own);
    let items = others.map(|replica| Item {
        meaning: Meaning::Warn,
        what: html! { "Replica " (replica.name) " is on policy " code { (document(replica)) } },
        why: html! { "This one is on " code { (own) } ". Last seen " (minute_of(replica.last_seen_time.as_ref(), view.now())) "." },
    });
    items.collect()
}
