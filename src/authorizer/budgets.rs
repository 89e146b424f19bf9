//! The budgets that a settlement is booked in, whether or not the policy had them when its request was admitted, and their
//! thresholds.

use std::{
    collections::HashSet,
    sync::{Arc, LazyLock, Mutex, PoisonError},
};

use tracing::{error, info, warn};

use super::ticket::Ticket;
use crate::{
    domain::{
        calendar,
        counter::CounterKey,
        holds::Holds,
        key::VirtualKey,
        limit::{BudgetCounters, Limit, LimitScope, Subject, Threshold, Window},
        plan::BUDGET_KIND,
        policy::user_counter,
        snapshot::Snapshot,
    },
    store::{Extra, Settlement},
};

/// From this share of a budget, a crossed threshold is logged as an error.
const CRITICAL_PERCENT: u64 = 95;
/// From this share of a budget, a crossed threshold is logged as a warning.
const WARNING_PERCENT: u64 = 80;

/// Budgets whose first denial is remembered: more than an organization has, user budgets aside.
const MAX_DENYING: usize = 10_000;

/// Every policy's organization has the same.
static ORGANIZATION: LazyLock<BudgetCounters> = LazyLock::new(|| Subject::organization().budget_counters());

/// A threshold that a record crossed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CrossedAlert {
    /// The budget's place in the policy.
    pub limit_id: Arc<str>,
    /// The threshold.
    pub threshold: Threshold,
    /// What was spent in the period after the record.
    pub spent: u64,
    /// The budget of the period.
    pub budget: u64,
}

/// The budgets of organization, team, key and user that the reservation does not hold: a budget that is set later, or put
/// back, begins at what its period has used. They belong to the day of the admission, as the reservation does.
pub(super) fn extras(snapshot: &Snapshot, ticket: &Ticket, holds: &Holds, cost: u64) -> Vec<Extra> {
    let Some(days) = calendar::first_days(ticket.day).filter(|_| cost > 0) else { return Vec::new() };
    let own = |known: Option<&BudgetCounters>, subject: fn(&Ticket) -> Subject| match known {
        Some(known) => known.clone(),
        // It is not in the policy any more.
        None => subject(ticket).budget_counters(),
    };
    let team = snapshot.policy.teams.get(&ticket.team).map(|team| &team.budget_counters);
    let key = key_of(snapshot, ticket).map(|key| &key.budget_counters);
    let team = own(team, |ticket| Subject::team(&ticket.team));
    let key = (!ticket.key.is_empty()).then(|| own(key, |ticket| Subject::key(&ticket.team, &ticket.key)));
    let user = (!ticket.user.is_empty()).then(|| Subject::user(&ticket.team).budget_counters());
    let subjects = [Some((&*ORGANIZATION, None)), Some((&team, None)), key.as_ref().map(|key| (key, None))];
    let user = user.as_ref().map(|counters| (counters, Some(&*ticket.user)));
    let mut extras = Vec::with_capacity(10);
    for (counters, user) in subjects.into_iter().chain([user]).flatten() {
        for (period, first_day) in days {
            let counter = match user {
                Some(user) => user_counter(counters.of(period), user).in_period(first_day),
                None => counters.of(period).in_period(first_day),
            };
            if !holds.counters().any(|held| *held == counter) {
                extras.push(Extra { counter, kind: BUDGET_KIND, amount: cost });
            }
        }
    }
    extras
}

/// The budgets with thresholds among the counters of a settlement, each with its index there: the holds, then the extras.
pub(super) fn watched<'p>(
    snapshot: &'p Snapshot,
    ticket: &Ticket,
    holds: &Holds,
    extras: &[Extra],
) -> Vec<(usize, &'p Limit)> {
    let policy = &*snapshot.policy;
    let team = policy.teams.get(&ticket.team);
    let key = key_of(snapshot, ticket);
    let limits = policy
        .organization
        .limits
        .iter()
        .chain(team.into_iter().flat_map(|team| team.limits.iter().chain(&team.user_limits)))
        .chain(key.into_iter().flat_map(|key| &key.limits));
    let budgets =
        limits.filter(|limit| matches!(limit.window, Window::Calendar(_)) && !limit.alerts.is_empty());
    let of_limit = |limit: &'p Arc<Limit>| {
        let counters = holds.counters().chain(extras.iter().map(|extra| &extra.counter));
        let own = counters.enumerate().filter(|(_, counter)| counts_for(limit, counter.name()));
        own.map(|(index, _)| (index, &**limit)).collect::<Vec<_>>()
    };
    budgets.flat_map(of_limit).collect()
}

/// The key of the reservation, as it is now.
fn key_of<'p>(snapshot: &'p Snapshot, ticket: &Ticket) -> Option<&'p VirtualKey> {
    let declared = snapshot.policy.keys.named(&ticket.key).iter();
    let keys = declared.chain(snapshot.keys.named(&ticket.key));
    keys.map(|key| &**key).find(|key| key.team == ticket.team)
}

/// The amounts of the thresholds of `watched`, as a store wants them.
pub(super) fn thresholds(watched: &[(usize, &Limit)]) -> Vec<(usize, Vec<u64>)> {
    let amounts = |limit: &Limit| limit.alerts.iter().map(|threshold| threshold.amount.nanos()).collect();
    watched.iter().map(|(index, limit)| (*index, amounts(limit))).collect()
}

/// The thresholds that this settlement was the first to reach, or the first to see reached. The settled amount only grows,
/// and each step of it is atomic and remembers what it reported, so every threshold is reported by exactly one record, over
/// all replicas.
pub(super) fn crossed(watched: &[(usize, &Limit)], settlement: &Settlement) -> Vec<CrossedAlert> {
    let alerts = settlement.reported.iter().flat_map(|(index, amount)| {
        let own = watched.iter().filter(move |(counter, _)| counter == index);
        let spent = settlement.counters.get(*index).map_or(0, |settled| settled.after.settled);
        own.flat_map(move |(_, limit)| {
            let reached = limit.alerts.iter().filter(move |threshold| threshold.amount.nanos() == *amount);
            reached.map(move |threshold| CrossedAlert {
                limit_id: limit.id.clone(),
                threshold: threshold.clone(),
                spent,
                budget: limit.bound.unwrap_or(0),
            })
        })
    });
    alerts.collect()
}

/// Logs a crossed threshold, the more urgently the more of the budget is spent.
pub(super) fn log_alert(alert: &CrossedAlert) {
    let (limit_id, threshold) = (&*alert.limit_id, &*alert.threshold.text);
    let (spent_nano_usd, budget_nano_usd) = (alert.spent, alert.budget);
    match alert.threshold.percent {
        CRITICAL_PERCENT.. => {
            error!(limit_id, threshold, spent_nano_usd, budget_nano_usd, "budget threshold crossed")
        }
        WARNING_PERCENT.. => {
            warn!(limit_id, threshold, spent_nano_usd, budget_nano_usd, "budget threshold crossed")
        }
        _ => info!(limit_id, threshold, spent_nano_usd, budget_nano_usd, "budget threshold crossed"),
    }
}

/// Whether this is the counter of the limit, or of one of the users that the limit applies to.
fn counts_for(limit: &Limit, counter: &str) -> bool {
    match (counter.strip_prefix(limit.counter.name()), limit.scope) {
        (Some(user), LimitScope::User) => user.starts_with('|'),
        (rest, _) => rest == Some(""),
    }
}

/// The budgets that have denied a request in their period, as far as this process knows.
///
/// Protocol: only denials take the lock, for a look-up. Past the bound everything is forgotten, and a budget may be reported
/// once more.
#[derive(Debug, Default)]
pub(super) struct Denying(Mutex<HashSet<CounterKey>>);

impl Denying {
    /// Whether this is the first denial by the budget in its period.
    pub(super) fn is_first(&self, budget: &CounterKey) -> bool {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.contains(budget) {
            return false;
        }
        if known.len() >= MAX_DENYING {
            known.clear();
        }
        known.insert(budget.clone())
    }
}
