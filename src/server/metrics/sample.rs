//! What only the store knows, read every few seconds: budgets, the use of limits, and cooldowns. No decision takes part in it, and
//! idle teams are shown as well.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use super::{Sources, forecast::Forecasts};
use crate::{
    alerts,
    domain::{
        Timestamp,
        calendar::Days,
        cooldown::CooldownKey,
        counter::{CounterKey, CounterKind, CounterState},
        key::VirtualKey,
        limit::{Limit, LimitMode, LimitScope, Quantity, Window},
        plan::counter_of,
        policy::Policy,
        tally::NONE,
    },
    store::{Store, StoreError},
};

/// How often the store is read.
const EVERY: Duration = Duration::from_secs(5);
/// Alerts are read once in so many times: they change seldom, and may be up to 64 reads.
const ALERTS_EVERY: u32 = 3;
/// Counters read at once: some ten microseconds of the store, between which decisions have their turn.
const AT_ONCE: usize = 64;
/// Between two such reads.
pub(super) const PAUSE: Duration = Duration::from_millis(1);

/// What was last read.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// Whether the store answered; `None`: it was not asked yet.
    pub(super) is_up: Option<bool>,
    /// Limits with their counters.
    pub(super) limits: Vec<SeenLimit>,
    /// Cooldowns in force by project and model: how many service tiers each has.
    pub(super) cooldowns: BTreeMap<(Arc<str>, Arc<str>), u32>,
    /// Alerts by kind and state.
    pub(super) alerts: Arc<BTreeMap<(String, String), u64>>,
}

/// A limit, and what its counter said.
#[derive(Clone, Debug)]
pub(super) struct SeenLimit {
    pub(super) limit: Arc<Limit>,
    pub(super) team: Arc<str>,
    pub(super) key: Arc<str>,
    pub(super) state: CounterState,
    /// A budget's end, if it is used up in this period at this pace.
    pub(super) exhaust: Option<Timestamp>,
}

/// Reads until dropped. What cannot be read stays as it was.
pub(super) async fn follow<S: Store>(sources: Sources, store: S) {
    sources.status.shared.live.registry_asked().await;
    let mut forecasts = Forecasts::new(sources.past.clone());
    let mut turn = 0;
    loop {
        let mut seen = match read(&sources, &store, &mut forecasts).await {
            Ok(seen) => seen,
            Err(_) => {
                let before = sources.seen.load();
                let (limits, cooldowns) = (before.limits.clone(), before.cooldowns.clone());
                Seen { is_up: Some(false), limits, cooldowns, ..Seen::default() }
            }
        };
        seen.alerts = match turn {
            0 => alerts::counts(&store).await.ok().map(Arc::new),
            _ => None,
        }
        .unwrap_or_else(|| Arc::clone(&sources.seen.load().alerts));
        turn = (turn + 1) % ALERTS_EVERY;
        sources.seen.store(Arc::new(seen));
        tokio::time::sleep(EVERY).await;
    }
}

async fn read<S: Store>(sources: &Sources, store: &S, forecasts: &mut Forecasts) -> Result<Seen, StoreError> {
    store.ping().await?;
    let live = &sources.status.shared.live;
    let snapshot = live.snapshot();
    let policy = &*snapshot.policy;
    // One instant for all: past midnight a budget of the day before would else be told as one of the new day.
    let now = store.now();
    let today = policy.calendar.today(now);
    let shows = |team: &str| live.tallies.shows(policy, team);
    let declared = policy.keys.ordered().iter().cloned();
    let keys = match sources.by_key {
        true => declared.chain(live.created_keys()).filter(|key| shows(&key.team)).collect(),
        false => Vec::new(),
    };
    let wanted = wanted(policy, &keys, &today, shows);
    let mut limits = Vec::with_capacity(wanted.len());
    for part in wanted.chunks(AT_ONCE) {
        let keys: Vec<_> = part.iter().map(|wanted| wanted.counter.clone()).collect();
        let states = store.counters(keys).await?;
        let seen = part.iter().zip(states).map(|(wanted, state)| SeenLimit {
            limit: Arc::clone(&wanted.limit),
            team: Arc::clone(&wanted.team),
            key: Arc::clone(&wanted.key),
            state,
            exhaust: None,
        });
        limits.extend(seen);
        tokio::time::sleep(PAUSE).await;
    }
    forecasts.fill(store, (&policy.calendar, now), &mut limits).await;
    let mut cooldowns = BTreeMap::new();
    for (gate, cooldown) in store.cooldowns().await? {
        if let Some(of) = CooldownKey::of_gate(&gate).filter(|_| cooldown.is_in_force(store.now())) {
            *cooldowns.entry((of.project, of.model)).or_default() += 1;
        }
    }
    Ok(Seen { is_up: Some(true), limits, cooldowns, ..Seen::default() })
}

/// A limit whose counter is to be read.
struct Wanted {
    limit: Arc<Limit>,
    team: Arc<str>,
    key: Arc<str>,
    counter: (CounterKey, CounterKind),
}

/// The limits that metrics show: of the organization and of teams that are counted by name; budgets of `keys`; none of users.
fn wanted(
    policy: &Policy,
    keys: &[Arc<VirtualKey>],
    today: &Days,
    shows: impl Fn(&str) -> bool,
) -> Vec<Wanted> {
    let none: Arc<str> = NONE.into();
    let mut wanted = Vec::new();
    let mut add = |limit: &Arc<Limit>, team: &Arc<str>, key: &Arc<str>| {
        // Of two with the same labels the one that refuses is to be seen.
        if limit.mode == LimitMode::Shadow {
            return;
        }
        let (limit, counter) = (Arc::clone(limit), counter_of(limit, today));
        wanted.push(Wanted { limit, team: Arc::clone(team), key: Arc::clone(key), counter });
    };
    let organization = &policy.organization;
    let by_model = organization.model_limits.iter().flat_map(|(_, limits)| limits);
    organization.limits.iter().chain(by_model).for_each(|limit| add(limit, &none, &none));
    for team in policy.teams.values().filter(|team| shows(&team.name)) {
        let by_model = team.model_limits.iter().flat_map(|(_, limits)| limits);
        team.limits.iter().chain(by_model).for_each(|limit| add(limit, &team.name, &none));
    }
    for key in keys {
        let budgets = key.limits.iter().filter(|limit| matches!(limit.window, Window::Calendar(_)));
        budgets.for_each(|limit| add(limit, &key.team, &key.name));
    }
    wanted
}

impl SeenLimit {
    /// Its period, if it is a budget.
    pub(super) fn period(&self) -> Option<&'static str> {
        match (self.limit.quantity, self.limit.window) {
            (Quantity::NanoUsd, Window::Calendar(period)) => Some(period.name()),
            _ => None,
        }
    }

    /// The used share of its bound. A bound of zero is used up.
    #[expect(clippy::cast_precision_loss, reason = "amounts are below 2^53")]
    pub(super) fn used_ratio(&self) -> Option<f64> {
        let bound = self.limit.bound?;
        Some(if bound == 0 { 1.0 } else { self.state.used as f64 / bound as f64 })
    }

    /// Whether it counts the requests of a team in this window.
    pub(super) fn is_of_team(&self, window: Window) -> bool {
        self.limit.scope == LimitScope::Team && self.limit.window == window
    }
}
