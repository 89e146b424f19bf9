//! The alert of what the outbox says.

use super::{
    alert::{Alert, BudgetCrossing, instant},
    detail::{Forecast, to_the_second},
};
use crate::{
    domain::{
        Timestamp,
        alert::{AlertKind, Severity},
        limit::{Limit, Period},
        money::NanoUsd,
        snapshot::Snapshot,
    },
    store::{Crossing, Exhaustion},
};

/// From this share of a budget on, a threshold is critical.
const CRITICAL_PERCENT: u64 = 100;
/// What stands between the parts of a counter's name.
const PART: char = '|';

/// Whose budget a counter is.
#[derive(Debug, PartialEq, Eq)]
struct Subject<'c> {
    /// Empty: the whole organization.
    team: &'c str,
    key: &'c str,
    user: &'c str,
    period: Period,
    /// The counter of the limit, which all its users share.
    shared: &'c str,
}

/// Takes apart a name that `domain::limit::Subject` made.
fn subject(counter: &str) -> Option<Subject<'_>> {
    let mut parts = counter.splitn(4, PART);
    let (owner, what, period) = (parts.next()?, parts.next()?, parts.next()?);
    let (user, periods) = (parts.next(), [Period::Day, Period::Week, Period::Month]);
    let period = periods.into_iter().find(|known| known.name() == period && what == "usd")?;
    let shared =
        user.map_or(counter, |user| counter.get(..counter.len() - user.len() - 1).unwrap_or(counter));
    let of = |team, key| Subject { team, key, user: user.unwrap_or_default(), period, shared };
    let Some(own) = owner.strip_prefix("team/") else { return (owner == "org").then(|| of("", "")) };
    Some(match own.split_once('/') {
        None => of(own, ""),
        Some((team, "user")) => of(team, ""),
        Some((team, key)) => of(team, key.strip_prefix("key/")?),
    })
}

/// The limit that the counter is of, as it is now.
fn limit<'s>(snapshot: &'s Snapshot, subject: &Subject<'_>) -> Option<&'s Limit> {
    let team = snapshot.policy.teams.get(subject.team);
    let declared = snapshot.policy.keys.named(subject.key).iter();
    let mut keys = declared.chain(snapshot.keys.named(subject.key)).map(|key| &**key);
    let key = keys.find(|key| *key.team == *subject.team);
    let organization = snapshot.policy.organization.limits.iter();
    let own = team.into_iter().flat_map(|team| team.limits.iter().chain(&team.user_limits));
    let mut limits = organization.chain(own).chain(key.into_iter().flat_map(|key| &key.limits));
    limits.find(|limit| limit.counter.name() == subject.shared).map(|limit| &**limit)
}

/// An alert, and until when it holds.
pub(super) struct Composed {
    pub(super) alert: Alert,
    pub(super) end: Option<Timestamp>,
}

/// The alert of a crossing that was recorded `at`; `None`: its counter has a name that this release does not know. Where the policy has
/// changed since, so that the threshold is gone, it says what is known.
pub(super) fn of_crossing(
    snapshot: &Snapshot,
    id: &str,
    at: Timestamp,
    crossing: &Crossing,
) -> Option<Composed> {
    let subject = subject(&crossing.counter)?;
    let limit = limit(snapshot, &subject);
    let mut known = limit.into_iter().flat_map(|limit| &limit.alerts);
    let found = known.find(|threshold| threshold.amount.nanos() == crossing.amount);
    let threshold = found.map_or_else(|| dollars(crossing.amount), |threshold| threshold.text.to_string());
    let budget = limit.and_then(|limit| limit.bound);
    let of_budget = budget.map(|budget| format!(" of {}", dollars(budget))).unwrap_or_default();
    let is_critical = found.is_some_and(|threshold| threshold.percent >= CRITICAL_PERCENT);
    let summary = format!(
        "{} has spent {threshold} of its {} budget: {}{of_budget}",
        who(&subject, snapshot),
        adjective(subject.period),
        dollars(crossing.settled)
    );
    let budget = BudgetCrossing {
        threshold,
        amount: crossing.amount.into(),
        spent: crossing.settled.into(),
        budget: budget.map(Into::into),
    };
    let severity = if is_critical { Severity::Critical } else { Severity::Warning };
    let what = (AlertKind::BudgetThreshold, severity, summary, Some(budget));
    Some(composed((snapshot, &subject, limit), (id, at, crossing.period), what))
}

/// The alert of a budget that has denied a request; `None` as above.
pub(super) fn of_exhaustion(snapshot: &Snapshot, id: &str, exhaustion: &Exhaustion) -> Option<Composed> {
    let Exhaustion { at, settled, limit: budget, counter } = exhaustion;
    let subject = subject(counter.name())?;
    let reserved = if settled < budget { ", the rest is reserved or too little for the request" } else { "" };
    let summary = format!(
        "{} has used up its {} budget of {}, which has denied a request ({} spent{reserved})",
        who(&subject, snapshot),
        adjective(subject.period),
        dollars(*budget),
        dollars(*settled)
    );
    let what = (AlertKind::BudgetExhausted, Severity::Critical, summary, None);
    Some(composed((snapshot, &subject, limit(snapshot, &subject)), (id, *at, counter.period()), what))
}

/// The alert of a budget that will be used up; `None` as above. `counter`: with its period, `NAME@FIRST_DAY`.
pub(super) fn of_forecast(
    snapshot: &Snapshot,
    id: &str,
    at: Timestamp,
    (counter, exhaust): (&str, Timestamp),
) -> Option<Composed> {
    let (name, period) = counter.rsplit_once('@')?;
    let (subject, period) = (subject(name)?, period.parse().ok()?);
    let limit = limit(snapshot, &subject);
    let budget = limit.and_then(|limit| limit.bound);
    let of_budget = budget.map(|budget| format!(" of {}", dollars(budget))).unwrap_or_default();
    let summary = format!(
        "{} will have used up its {} budget{of_budget} by {}, at the rate of its spend so far",
        who(&subject, snapshot),
        adjective(subject.period),
        to_the_second(exhaust)
    );
    let what = (AlertKind::BudgetForecast, AlertKind::BudgetForecast.severity(), summary, None);
    let mut composed = composed((snapshot, &subject, limit), (id, at, period), what);
    composed.alert.forecast = Some(Forecast { projected: None, exhaust_time: instant(exhaust) });
    Some(composed)
}

/// What alerts of budgets have in common. `period`: the first day of the budget's period.
fn composed(
    (snapshot, subject, limit): (&Snapshot, &Subject<'_>, Option<&Limit>),
    (id, at, period): (&str, Timestamp, u32),
    (kind, severity, summary, budget): (AlertKind, Severity, String, Option<BudgetCrossing>),
) -> Composed {
    let current = snapshot.policy.calendar.today(at).of(subject.period);
    Composed {
        end: (current.first_day == period).then_some(current.end),
        alert: Alert {
            severity,
            team: subject.team.to_owned(),
            key: subject.key.to_owned(),
            limit_id: limit.map(|limit| limit.id.to_string()).unwrap_or_default(),
            budget,
            user: subject.user.to_owned(),
            ..Alert::opened(id, kind, at, (&snapshot.policy.organization.id, summary))
        },
    }
}

fn dollars(nanos: u64) -> String {
    format!("${}", NanoUsd::new(nanos).unwrap_or(NanoUsd::ZERO))
}

const fn adjective(period: Period) -> &'static str {
    match period {
        Period::Day => "daily",
        Period::Week => "weekly",
        Period::Month => "monthly",
    }
}

fn who(subject: &Subject<'_>, snapshot: &Snapshot) -> String {
    match (subject.team, subject.key, subject.user) {
        ("", ..) => snapshot.policy.organization.id.to_string(),
        (team, "", "") => team.to_owned(),
        (team, "", user) => format!("User {user} of {team}"),
        (team, key, _) => format!("Key {key} of {team}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_names_of_counters_say_whose_they_are() {
        let of = |team, key, user, period, shared| Some(Subject { team, key, user, period, shared });
        for (counter, expected) in [
            ("org|usd|month", of("", "", "", Period::Month, "org|usd|month")),
            ("team/a|usd|day", of("a", "", "", Period::Day, "team/a|usd|day")),
            ("team/a/key/b-c|usd|week", of("a", "b-c", "", Period::Week, "team/a/key/b-c|usd|week")),
            ("team/a/user|usd|month|u|1", of("a", "", "u|1", Period::Month, "team/a/user|usd|month")),
            ("team/a|tokens|day", None),
            ("team/a/model/m|usd|day", None),
            ("x", None),
        ] {
            assert_eq!(subject(counter), expected, "{counter}");
        }
    }
}
