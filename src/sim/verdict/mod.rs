//! What has to hold in every world, by the records of what truly happened.

mod budgets;
mod outages;
mod reports;

use std::collections::BTreeMap;

pub(super) use self::{
    outages::{of_outages, of_spool},
    reports::of_reports,
};
use super::{
    history::{End, Grant, History, LIFE_MS, Records},
    rules::{ALERTS, Outage, Rules},
    store::{Side, Simulated},
};
use crate::{
    domain::{
        counter::{CounterKey, CounterKind},
        plan::BUDGET_KIND,
    },
    live,
    store::{Crossing, OutboxId},
};

const MINUTE_MS: u64 = 60_000;

/// What does not hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Invariant {
    /// No limit is passed by more than is declared: by usage past what was reserved or without a reservation, by what is reported after
    /// its reservation expired, and by what a failover of the store forgot. A budget grants no nano-dollar more than it has.
    Limit,
    /// Each budget has what was acknowledged and not forgotten, at its price, and what is charged for reservations that were never
    /// reported.
    Books,
    /// A reservation that no caller got is given back.
    Leak,
    /// A request is charged once, however often and to whichever replica it is reported, and nothing else is.
    Twice,
    /// An acknowledged report is booked.
    Lost,
    /// Each threshold that a budget passed is told, with one id.
    Alert,
    /// A pause and the end of a key are in force within a second of their answer.
    Control,
    /// Without the store, no replica admits more than its allowance of a minute, and none for longer than the policy says.
    Outage,
    /// No caller hears an error that it should never hear.
    Surprise,
}

/// One breach.
#[derive(Debug)]
pub(super) struct Broken {
    pub(super) invariant: Invariant,
    pub(super) what: String,
}

fn broken(invariant: Invariant, what: String) -> Broken {
    Broken { invariant, what }
}

impl Grant {
    /// What it was settled for.
    pub(super) const fn cost(&self) -> u64 {
        match self.end {
            End::Settled { cost, .. } => cost,
            _ => 0,
        }
    }

    const fn counts(&self) -> bool {
        !matches!(self.end, End::Released { .. } | End::Lost)
    }

    const fn is_settled(&self) -> bool {
        matches!(self.end, End::Settled { .. })
    }
}

/// After the world has recovered and before anything expires: only what a caller holds, or a killed replica asked for, is open.
pub(super) fn of_leaks(history: &History) -> Vec<Broken> {
    let now = history.now();
    let records = history.lock();
    let leaks = records.grants.iter().filter(|grant| {
        let has_ended = records.ended.contains(&grant.replica);
        let is_excused = grant.was_delivered || has_ended || grant.was_reopened || grant.is_unbounded;
        grant.end == End::Open && !is_excused && now < grant.made + LIFE_MS
    });
    leaks.map(|grant| broken(Invariant::Leak, format!("{} of {}", grant.id, grant.made))).collect()
}

/// Windows, concurrency and budgets in true time.
pub(super) fn of_limits(history: &History) -> Vec<Broken> {
    let records = history.lock();
    let mut found = Vec::new();
    let counted: Vec<_> =
        records.grants.iter().filter(|grant| grant.counts() && !grant.is_unbounded).collect();
    let book = history.book;
    for (rules, team) in
        [(&book.organization, None)].into_iter().chain(book.teams.iter().zip((0..).map(Some)))
    {
        let own: Vec<&Grant> =
            counted.iter().copied().filter(|grant| team.is_none_or(|team| grant.team == team)).collect();
        let name = rules.team;
        if let Some(limit) = rules.requests_per_minute {
            found.extend(over_window(&own, limit, |_| 1).map(|sum| (format!("{name} requests"), sum)));
        }
        if let Some(limit) = rules.tokens_per_minute {
            let tokens = |grant: &Grant| records.least_tokens(grant);
            found.extend(over_window(&own, limit, tokens).map(|sum| (format!("{name} tokens"), sum)));
        }
        if let Some(limit) = rules.user_requests_per_minute {
            for user in 0..2 {
                let of_user = own.iter().copied().filter(|grant| records.user(grant) == Some(user));
                let of_user: Vec<_> = of_user.collect();
                found.extend(over_window(&of_user, limit, |_| 1).map(|sum| (format!("{name} u{user}"), sum)));
            }
        }
        found.extend(in_flight(&own, rules).map(|most| (format!("{name} in flight"), most)));
        found.extend(budgets::over(&records, rules, team));
    }
    let found = found.into_iter();
    found.map(|(what, sum)| broken(Invariant::Limit, format!("{what}: {sum}"))).collect()
}

/// The sum in a minute that is surely past `limit`.
fn over_window(grants: &[&Grant], limit: u64, weight: impl Fn(&Grant) -> u64) -> Option<u64> {
    grants.iter().find_map(|first| {
        let end = first.asked + MINUTE_MS;
        let within = grants.iter().filter(|grant| grant.asked >= first.asked && grant.made <= end);
        let sum: u64 = within.map(|grant| weight(grant)).sum();
        (sum > limit).then_some(sum)
    })
}

fn in_flight(grants: &[&Grant], rules: &Rules) -> Option<u64> {
    let end = |grant: &Grant| match grant.end {
        End::Settled { at, .. } => at.min(grant.made + LIFE_MS),
        _ => grant.made + LIFE_MS,
    };
    grants.iter().find_map(|one| {
        let now = one.made;
        let open = grants.iter().filter(|grant| grant.made <= now && now < end(grant)).count() as u64;
        (rules.max_in_flight.is_some_and(|most| open > most)).then_some(open)
    })
}

impl Records {
    /// The least tokens that a window had of it.
    fn least_tokens(&self, grant: &Grant) -> u64 {
        let report = || self.asked_for(grant)?.report.as_ref()?.usage;
        match grant.end {
            End::Settled { .. } => report().map_or(0, |(input, output)| (input + output).min(grant.tokens)),
            _ => grant.tokens,
        }
    }

    fn asked_for(&self, grant: &Grant) -> Option<&super::history::Asked> {
        self.asked.iter().find(|asked| asked.id() == Some(grant.id))
    }

    fn user(&self, grant: &Grant) -> Option<u64> {
        self.asked_for(grant)?.user
    }

    fn forgot(&self) -> bool {
        !self.forgotten.is_empty()
    }
}

/// The budgets that the store has, compared with the books of the records.
pub(super) async fn of_books<S: Simulated>(history: &History, side: &Side<S>) -> Vec<Broken> {
    let mut expected = BTreeMap::<(String, u32), (u64, u64, u64)>::new();
    let mut zero = Vec::new();
    {
        let records = history.lock();
        for grant in records.grants.iter().filter(|grant| grant.end != End::Lost) {
            let rules = &history.book.teams[grant.team];
            let team = rules.team;
            let mut names = vec![
                ("org|usd|month".to_owned(), grant.month),
                (format!("team/{team}|usd|month"), grant.month),
            ];
            if rules.daily_nanos.is_some() {
                names.push((format!("team/{team}|usd|day"), grant.day));
            }
            for name in names {
                let (settled, open, charged) = expected.entry(name).or_default();
                *settled += grant.cost();
                if grant.end == End::Open {
                    (*open, *charged) = (*open + 1, *charged + grant.kept);
                }
            }
        }
        for rules in &history.book.teams {
            for what in ["requests|minute", "tokens|minute", "in_flight"] {
                zero.push(format!("team/{}|{what}", rules.team));
            }
        }
    }
    let keys = expected
        .keys()
        .map(|(name, period)| (CounterKey::new(name.as_str()).in_period(*period), BUDGET_KIND));
    let windows = zero.iter().map(|name| {
        let slot_ms = if name.ends_with("in_flight") { LIFE_MS / 60 } else { MINUTE_MS / 60 };
        (CounterKey::new(name.as_str()), CounterKind::Window { slot_ms })
    });
    let keys = keys.chain(windows).collect();
    let states = side.on(move |store| async move { store.counters(keys).await }).await;
    let states = states.expect("a store that answers");
    let (budgets, windows) = states.split_at(expected.len());
    let mut found = Vec::new();
    for (((name, period), (settled, open, charged)), state) in expected.iter().zip(budgets) {
        let has = (state.settled, state.open, state.used);
        if has != (*settled, *open, settled + charged) {
            let should = (settled, open, settled + charged);
            found.push(broken(Invariant::Books, format!("{name}@{period}: {has:?} should be {should:?}")));
        }
    }
    let left = zero.iter().zip(windows).filter(|(_, state)| state.used > 0);
    found.extend(left.map(|(name, state)| broken(Invariant::Leak, format!("{name} has {}", state.used))));
    found
}

/// Each threshold that a month passed is told once, or again if the store forgot that it was.
pub(super) async fn of_alerts<S: Simulated>(
    history: &History,
    side: &Side<S>,
    delivers: bool,
) -> Vec<Broken> {
    let mut spent = BTreeMap::<(String, u32), (u64, u64)>::new();
    {
        let records = history.lock();
        for grant in records.grants.iter().filter(|grant| grant.is_settled()) {
            let team = &history.book.teams[grant.team];
            let month = |name: String| (format!("{name}|usd|month"), grant.month);
            let day = (format!("team/{}|usd|day", team.team), grant.day);
            let budgets = [
                Some((month("org".to_owned()), history.book.organization.monthly_nanos)),
                Some((month(format!("team/{}", team.team)), team.monthly_nanos)),
                team.daily_nanos.map(|budget| (day, budget)),
            ];
            for (counter, budget) in budgets.into_iter().flatten() {
                spent.entry(counter).or_insert((0, budget)).0 += grant.cost();
            }
        }
    }
    let mut told = BTreeMap::<(String, u32, u64), u64>::new();
    let mut before: Option<OutboxId> = None;
    loop {
        let from = before.clone();
        let page = side.on(move |store| async move { store.outbox_page(from, 64).await }).await;
        let page = page.expect("a store that answers");
        for crossing in page.iter().filter_map(|entry| Crossing::read(&entry.payload)) {
            *told.entry((crossing.counter, crossing.period, crossing.amount)).or_default() += 1;
        }
        match page.last() {
            Some(last) => before = Some(last.id.clone()),
            None => break,
        }
    }
    let (may_repeat, delivered) = {
        let records = history.lock();
        (records.forgot(), records.delivered.clone())
    };
    let mut found = Vec::new();
    for ((name, period), (sum, budget)) in spent {
        for percent in ALERTS {
            let amount = budget * percent / 100;
            let times = match delivers {
                true => u64::from(delivered.iter().any(|body| is_about(body, &name, percent))),
                false => told.remove(&(name.clone(), period, amount)).unwrap_or_default(),
            };
            let is_right = match sum >= amount {
                true => times == 1 || (may_repeat && times > 1),
                // A body does not say of which month it is.
                false => times == 0 || may_repeat || delivers,
            };
            if !is_right {
                let what =
                    format!("{percent}% of {name}@{period} was told {times} times at {sum} of {budget}");
                found.push(broken(Invariant::Alert, what));
            }
        }
    }
    if !may_repeat {
        found.extend(told.into_keys().map(|what| broken(Invariant::Alert, format!("{what:?} was told"))));
    }
    found
}

/// Whether the body of a webhook is about this threshold.
fn is_about(body: &str, counter: &str, percent: u64) -> bool {
    let body: serde_json::Value = serde_json::from_str(body).unwrap_or_default();
    let (subject, period) = counter.split_once("|usd|").unwrap_or_default();
    let limit = match period {
        "day" => "budget.daily_usd",
        _ => "budget.monthly_usd",
    };
    let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    let data = &body["data"];
    text(&data["team"]) == subject.strip_prefix("team/").unwrap_or_default()
        && text(&data["budget"]["threshold"]) == format!("{percent}%")
        && text(&data["limitId"]).ends_with(limit)
}

/// Pauses and ended keys are in force a second after their answer; for what is decided without the store, when that may last no longer.
pub(super) fn of_control(history: &History) -> Vec<Broken> {
    let fresh = u64::try_from(live::MAX_AGE.as_millis()).unwrap_or(u64::MAX);
    let records = history.lock();
    let mut found = Vec::new();
    for passed in &records.passed {
        let bound = match history.book.teams[passed.team].outage {
            Outage::Allow { most_ms } | Outage::Allowance { most_ms, .. } if passed.is_degraded => most_ms,
            _ => fresh,
        };
        let orders = || records.pauses.iter().filter(|order| order.team == passed.team);
        let is_paused = orders().any(|order| order.stops && order.acknowledged + bound < passed.began);
        let is_resumed = orders().any(|order| !order.stops && order.sent <= passed.ended);
        if is_paused && !is_resumed {
            found.push(broken(Invariant::Control, format!("a paused team passed at {}", passed.began)));
        }
        let is_over = records.revoked.is_some_and(|order| order.acknowledged + bound < passed.began);
        if passed.is_keyed && is_over {
            found.push(broken(Invariant::Control, format!("a revoked key passed at {}", passed.began)));
        }
    }
    found
}
