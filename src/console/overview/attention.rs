//! What needs attention now, the worst first: what it is, then since when, why, and what follows.

use maud::{Markup, html};

use super::gather::{Budgeted, Gathered, Now, TOLD};
use crate::{
    console::{
        decisions::denied,
        parts::Meaning,
        team::Then,
        text::{
            money, number, quoted,
            time::{self, minute_of, zoned},
        },
        view::View,
    },
    domain::rbac::Permission,
    rpc::proto::{
        Alert, Cooldown, Pause, Reason, Replica, Severity, UpstreamKey, UpstreamKeyState,
        pause_target::Target,
    },
};

/// How many are shown at once. The rest is folded.
const SHOWN: usize = 5;
/// How many there are with those that are folded. Past them, the rest is counted: a thousand teams may need attention at once.
const FOLDED: usize = 50;

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
            (nothing(view, gathered))
        } @else {
            ul.attention { @for item in first { (item.shown()) } }
            @if !rest.is_empty() {
                details {
                    summary { (rest.len()) " more" }
                    ul.attention { @for item in rest.iter().take(FOLDED - SHOWN) { (item.shown()) } }
                    @if rest.len() > FOLDED - SHOWN {
                        p.quiet.small { "and " (rest.len() - (FOLDED - SHOWN)) " more" }
                    }
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
    items.extend(unread(now));
    items.extend(now.status.read().into_iter().flatten().flat_map(|status| service(view, status)));
    // Those of a month that is over need nothing now.
    let budgets = if gathered.present { gathered.budgets.as_slice() } else { &[] };
    items.extend(budgets.iter().filter_map(|budget| of_budget(view, budget)));
    items.extend(now.upstream_keys.rows().iter().filter_map(|key| refused(view, key)));
    items.extend(now.cooldowns.rows().iter().map(|cooldown| cooling(view, cooldown)));
    items.extend(now.pauses.rows().iter().filter_map(|pause| paused(view, pause)));
    items.extend(now.alerts.rows().iter().filter_map(|alert| of_alert(view, alert)));
    items.extend(behind(view, now.replicas.rows()));
    items.extend(spooled(now.replicas.rows()));
    items
}

/// What is said where there is nothing: no more than was asked and answered.
fn nothing(view: &View, gathered: &Gathered) -> Markup {
    let now = &gathered.now;
    let of_all = |permission| view.may_for_all(permission);
    let is_all = of_all(Permission::ReadSpend)
        && of_all(Permission::ReadAlerts)
        && now.pauses.read().is_some()
        && now.cooldowns.read().is_some()
        && now.status.read().is_some();
    let holds = [
        (gathered.present && view.may(Permission::ReadSpend), "budgets hold"),
        (now.cooldowns.read().is_some(), "no model is in cooldown"),
        (now.pauses.read().is_some(), "nothing is paused"),
    ];
    let sentence = sentence(holds.into_iter().filter_map(|(is_known, words)| is_known.then_some(words)));
    html! {
        p.empty {
            strong { @if is_all { "Nothing." } @else { "Nothing that you may see." } }
            @if let Some(sentence) = sentence { " " (sentence) }
            @if !gathered.present && view.may(Permission::ReadSpend) { " What budgets need stands on the page of this month." }
        }
    }
}

/// The clauses as one sentence; `None`: there is none.
fn sentence<'c>(clauses: impl Iterator<Item = &'c str>) -> Option<String> {
    let clauses: Vec<_> = clauses.collect();
    let text = match &*clauses {
        [] => return None,
        [only] => (*only).to_owned(),
        [one, other] => format!("{one} and {other}"),
        [first @ .., last] => format!("{}, and {last}", first.join(", ")),
    };
    let mut letters = text.chars();
    letters.next().map(|first| format!("{}{}.", first.to_uppercase(), letters.as_str()))
}

/// What was asked and not answered.
fn unread(now: &Now) -> Option<Item> {
    let parts = [
        (now.alerts.has_failed(), "alerts"),
        (now.cooldowns.has_failed(), "cooldowns"),
        (now.upstream_keys.has_failed(), "the keys of Groq"),
        (now.pauses.has_failed(), "pauses"),
        (now.status.has_failed(), "the state of the service"),
        (now.replicas.has_failed(), "replicas"),
    ];
    let failed: Vec<_> = parts.iter().filter_map(|(failed, words)| failed.then_some(*words)).collect();
    (!failed.is_empty()).then(|| Item {
        meaning: Meaning::Warn,
        what: html! { "What needs attention cannot be read at the moment" },
        why: html! { "No answer on " (failed.join(", ")) ". Load the page again in a moment." },
    })
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
            @if let Some(finding) = rejected.findings.first() { (quoted::sentence(&finding.message)) }
        },
    });
    let unsafe_store = status.redis_warnings.iter().map(|warning| Item {
        meaning: Meaning::Warn,
        what: html! { "Redis may lose what it holds" },
        why: html! { (warning) },
    });
    store.into_iter().chain(rejected).chain(unsafe_store).collect()
}

fn of_budget(view: &View, budget: &Budgeted) -> Option<Item> {
    let who = html! {
        @if budget.team.is_empty() { "The organization" }
        @else { a href=(view.address(&format!("/teams/{}", budget.team))) { (budget.team) } }
    };
    let limit = money::short(budget.limit);
    let left = budget.limit - budget.spent - budget.reserved;
    if budget.spent >= budget.limit {
        let why = match budget.then {
            Some(Then::Warned) => "It warns only, so requests are allowed.",
            Some(Then::Counted) => "It is in shadow mode, so requests are allowed.",
            _ => "Requests that cost anything are denied until the month ends.",
        };
        let what = html! { (who) " has spent its " (limit) };
        let reason = match budget.team.as_str() {
            "" => Reason::OrganizationBudgetExhausted,
            _ => Reason::TeamBudgetExhausted,
        };
        let why = html! { (why) @if budget.refuses() { (denied(view, &budget.team, reason, &[])) } };
        return Some(Item { meaning: Meaning::Over, what, why });
    }
    let ends = budget.ends.as_ref()?;
    let day = time::day(ends.date(), view.now().date());
    let what = match budget.refuses() {
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
            (denied(view, "", Reason::UpstreamRateLimited, &[("model", &cooldown.model)]))
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
    let denials = match target {
        Target::Organization(_) => denied(view, "", Reason::Paused, &[]),
        Target::Team(name) => denied(view, name, Reason::Paused, &[]),
        Target::Key(name) => denied(view, "", Reason::Paused, &[("key", name)]),
        Target::Model(name) => denied(view, "", Reason::Paused, &[("model", name)]),
    };
    let why = html! {
        "“" (pause.reason) "”, " @if !who.is_empty() { (who) ", " }
        (minute_of(pause.create_time.as_ref(), view.now())) "." (denials)
    };
    Some(Item { meaning: Meaning::Paused, what, why })
}

/// Alerts of what the page does not show by itself.
fn of_alert(view: &View, alert: &Alert) -> Option<Item> {
    TOLD.contains(&alert.kind()).then(|| Item {
        meaning: if alert.severity() == Severity::Critical { Meaning::Over } else { Meaning::Warn },
        what: quoted::words(&alert.summary),
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

/// What replicas have acknowledged and not booked yet, as they said last.
fn spooled(replicas: &[Replica]) -> Option<Item> {
    let waiting: i64 = replicas.iter().map(|replica| replica.spooled_requests).sum();
    (waiting > 0).then(|| Item {
        meaning: Meaning::Warn,
        what: html! { (number::of(waiting, "report")) " of usage wait to be booked" },
        why: html! {
            "They are on the disks of "
            (replicas.iter().filter(|replica| replica.spooled_requests > 0).map(|replica| replica.name.as_str()).collect::<Vec<_>>().join(", "))
            " until the store has taken them. Budgets do not count them yet."
        },
    })
}

#[cfg(test)]
mod tests {
    use super::{super::gather::Part, *};

    #[test]
    fn no_more_is_said_than_was_asked_and_answered() {
        let said = |clauses: &[&'static str]| sentence(clauses.iter().copied());
        assert_eq!(said(&[]), None);
        assert_eq!(said(&["nothing is paused"]).as_deref(), Some("Nothing is paused."));
        assert_eq!(
            said(&["budgets hold", "nothing is paused"]).as_deref(),
            Some("Budgets hold and nothing is paused.")
        );
        assert_eq!(
            said(&["budgets hold", "no model is in cooldown", "nothing is paused"]).as_deref(),
            Some("Budgets hold, no model is in cooldown, and nothing is paused.")
        );
    }

    #[test]
    fn what_is_not_answered_needs_attention() {
        assert!(unread(&Now::default()).is_none());
        let now = Now { alerts: Part::Read(Vec::new()), pauses: Part::Failed, ..Now::default() };
        let item = unread(&now).unwrap().shown().into_string();
        assert!(
            item.contains("cannot be read at the moment") && item.contains("No answer on pauses."),
            "{item}"
        );
    }

    #[test]
    fn reports_that_wait_need_attention_by_the_replicas_that_keep_them() {
        let replica = |name: &str, spooled_requests| Replica {
            name: name.to_owned(),
            spooled_requests,
            ..Replica::default()
        };
        assert!(spooled(&[replica("gate-1", 0)]).is_none());
        let item = spooled(&[replica("gate-1", 2), replica("gate-2", 0), replica("gate-3", 1_200)]).unwrap();
        let item = item.shown().into_string();
        assert!(item.contains("1,202") && item.contains("of usage wait to be booked"), "{item}");
        assert!(item.contains("on the disks of gate-1, gate-3 until"), "{item}");
    }
}
