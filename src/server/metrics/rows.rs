//! The rows of each metric.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use super::{Reloads, Sources, sample::SeenLimit};
use crate::{
    domain::{
        decision::Reason,
        limit::{LimitScope, Window},
        snapshot::document_revision,
        tally::{ModelTally, NONE, OTHER, TeamTally},
    },
    spool::{Spool, SpoolState},
    store::LAYOUT,
    telemetry::{Emit, KeyValue, Metric},
    upstream::KeyUse,
};

pub(super) const NANOS: f64 = 1e9;

/// Exact to 2^53, the largest amount that there is.
#[expect(clippy::cast_precision_loss, reason = "amounts are below 2^53")]
pub(super) const fn number(value: u64) -> f64 {
    value as f64
}

pub(super) fn text(name: &'static str, value: &Arc<str>) -> KeyValue {
    KeyValue::new(name, Arc::clone(value))
}

pub(super) fn word(name: &'static str, value: &'static str) -> KeyValue {
    KeyValue::new(name, value)
}

pub(super) fn loaded(count: &AtomicU64) -> u64 {
    count.load(Ordering::Relaxed)
}

/// A label of something that may not have been named.
pub(super) fn named(name: &'static str, value: &Arc<str>) -> KeyValue {
    if value.is_empty() { word(name, NONE) } else { text(name, value) }
}

impl Sources {
    /// The rows of `metric` now. Those of histograms are recorded, those of the process are read elsewhere.
    pub(super) fn rows(&self, metric: Metric, emit: Emit<'_>) {
        match metric {
            Metric::Decisions => self.decisions(emit),
            Metric::Violations => self.violations(|team| team.violations().collect(), emit),
            Metric::ShadowViolations => self.violations(|team| team.shadow_violations().collect(), emit),
            Metric::Settlements => self.settlements(emit),
            Metric::Expired => self.expired(emit),
            Metric::Degraded => self.degraded(emit),
            Metric::Tokens => self.tokens(emit),
            Metric::ReasoningTokens => self.of_models(emit, |used| &used.reasoning_tokens, 1.0),
            Metric::Audio => self.of_models(emit, |used| &used.audio_ms, 1_000.0),
            Metric::Characters => self.of_models(emit, |used| &used.characters, 1.0),
            Metric::Cost => self.cost(emit),
            Metric::GenAiInput => self.gen_ai(emit, |used| {
                [&used.input_tokens, &used.cached_input_tokens].into_iter().map(loaded).sum()
            }),
            Metric::GenAiCachedInput => self.gen_ai(emit, |used| loaded(&used.cached_input_tokens)),
            Metric::GenAiOutput => self.gen_ai(emit, |used| loaded(&used.output_tokens)),
            Metric::GenAiReasoning => self.gen_ai(emit, |used| loaded(&used.reasoning_tokens)),
            Metric::ToolCalls => self.tool_calls(emit),
            Metric::BudgetLimit => self.budgets(emit, NANOS, |seen| seen.limit.bound.map(number)),
            Metric::BudgetSpent => self.budgets(emit, NANOS, |seen| Some(number(seen.state.settled))),
            Metric::BudgetReserved => {
                let reserved = |seen: &SeenLimit| seen.state.used.saturating_sub(seen.state.settled);
                self.budgets(emit, NANOS, |seen| Some(number(reserved(seen))));
            }
            Metric::BudgetRemaining => {
                self.budgets(emit, NANOS, |seen| Some(number(seen.limit.bound?) - number(seen.state.used)));
            }
            Metric::BudgetExhaust => self.budgets(emit, 1_000.0, |seen| Some(number(seen.exhaust?.0))),
            Metric::LimitUsed => self.limits(emit),
            Metric::InFlight => self.of_teams(emit, Window::InFlight),
            Metric::Unsettled => self.of_teams(emit, Window::Unsettled),
            Metric::Waiting => self.waiting(emit),
            Metric::UpstreamKeyUp => self.upstream_keys(emit),
            Metric::Cooldowns => self.cooldowns(emit),
            Metric::UpstreamRateLimits => self.rate_limits(emit),
            Metric::Alerts => {
                for ((kind, state), count) in &*self.seen.load().alerts {
                    let labels = [KeyValue::new("kind", kind.clone()), KeyValue::new("state", state.clone())];
                    emit(number(*count), &labels);
                }
            }
            Metric::AlertDeliveries => {
                for (receiver, state, count) in self.receivers.results() {
                    // Those of nothing as well: an increase is seen only in a row that was there before.
                    let receiver = KeyValue::new("receiver", receiver.to_owned());
                    emit(number(count), &[receiver, word("result", state.name())]);
                }
            }
            Metric::AccessRefusals => {
                for (rpc, reason, count) in self.guard.refusals().all() {
                    emit(number(count), &[word("rpc", rpc), KeyValue::new("reason", reason.to_lowercase())]);
                }
            }
            Metric::Connections => {
                for (listener, connections) in self.listeners() {
                    emit(number(connections.count() as u64), &[word("listener", listener)]);
                }
            }
            Metric::ConnectionsClosed => self.closings(emit),
            metric => self.of_process(metric, emit),
        }
    }

    fn closings(&self, emit: Emit<'_>) {
        for (listener, connections) in self.listeners() {
            // Those of nothing as well: an increase is seen only in a row that was there before.
            for (cause, count) in connections.closings() {
                emit(number(count), &[word("listener", listener), word("cause", cause.name())]);
            }
        }
    }

    /// Rows of the process as a whole.
    fn of_process(&self, metric: Metric, emit: Emit<'_>) {
        let (live, clock) = (&self.status.shared.live, &self.status.clock);
        let value = match metric {
            Metric::StoreUp => self.seen.load().is_up.map(|is_up| if is_up { 1.0 } else { 0.0 }),
            Metric::StoreBreakerOpen => Some(number(self.status.calls.is_breaker_open().into())),
            Metric::StoreQueueDepth => Some(number(self.status.calls.load().calls)),
            Metric::SpoolRecords => self.spool().map(|spool| number(spool.records)),
            Metric::SpoolBytes => self.spool().map(|spool| number(spool.bytes)),
            Metric::SpoolOldest => self.spool().and_then(|spool| Some(number(spool.oldest?.0) / 1_000.0)),
            Metric::JournalBytes => self.status.calls.load().journal_bytes.map(number),
            Metric::SnapshotRead => live
                .freshness()
                .age()
                .map(|age: Duration| Duration::from_millis(clock.now().0).saturating_sub(age).as_secs_f64()),
            Metric::Sessions => Some(number(self.guard.sessions().count(clock.now()))),
            Metric::PolicyLoaded => Some(number(self.status.policy.borrow().loaded_at.0) / 1_000.0),
            Metric::PolicyTeams => Some(number(live.peek().policy.teams.len() as u64)),
            Metric::Keys => Some(number(live.active_keys(clock.now()) as u64)),
            Metric::PolicyReloads => {
                for (result, count) in Reloads::RESULTS.into_iter().zip(&self.reloads.0) {
                    emit(number(count.load(Ordering::Relaxed)), &[word("result", result)]);
                }
                None
            }
            Metric::SnapshotInfo => {
                let snapshot = live.peek();
                let document = document_revision(&snapshot.revision).to_owned();
                let registry = snapshot.registry.to_string();
                emit(1.0, &[KeyValue::new("document", document), KeyValue::new("registry", registry)]);
                None
            }
            Metric::BuildInfo => {
                let commit = option_env!("TOLLGATE_COMMIT").unwrap_or("unknown");
                let version = word("version", env!("CARGO_PKG_VERSION"));
                let layout = KeyValue::new("layout", LAYOUT.to_string());
                emit(1.0, &[version, word("commit", commit), layout]);
                None
            }
            _ => None,
        };
        if let Some(value) = value {
            emit(value, &[]);
        }
    }

    fn spool(&self) -> Option<SpoolState> {
        self.status.shared.spool.as_ref().map(Spool::state)
    }

    pub(super) fn organization(&self) -> KeyValue {
        text("organization", &self.status.shared.live.peek().policy.organization.id)
    }

    pub(super) fn teams(&self) -> Vec<Arc<TeamTally>> {
        self.status.shared.live.tallies.teams()
    }

    /// Each team's counts of each model, with the labels of both.
    pub(super) fn models(&self, mut each: impl FnMut(&ModelTally, [KeyValue; 3])) {
        let (organization, names) = (self.organization(), self.status.shared.live.tallies.models());
        for team in self.teams() {
            for (model, counts) in team.models() {
                let Some(name) = names.get(model) else { continue };
                each(counts, [organization.clone(), text("team", &team.name), text("model", name)]);
            }
        }
    }

    fn decisions(&self, emit: Emit<'_>) {
        let decided = |denied: Option<&'static str>| {
            let decision = if denied.is_some() { "denied" } else { "allowed" };
            [word("decision", decision), word("reason", denied.unwrap_or(NONE))]
        };
        self.models(|counts, [organization, team, model]| {
            for (operation, denied, count) in counts.decisions().filter(|(.., count)| *count > 0) {
                let [decision, reason] = decided(denied.map(|reason| reason.name()));
                let operation = word("operation", operation.name());
                let (organization, team, model) = (organization.clone(), team.clone(), model.clone());
                emit(number(count), &[organization, team, model, operation, decision, reason]);
            }
        });
        let organization = self.organization();
        for team in self.teams() {
            for (reason, count) in team.denials_of_callers().filter(|(_, count)| *count > 0) {
                let [decision, reason] = decided(Some(reason.name()));
                let [model, operation] = ["model", "operation"].map(|label| word(label, NONE));
                let team = text("team", &team.name);
                emit(number(count), &[organization.clone(), team, model, operation, decision, reason]);
            }
        }
    }

    fn violations(&self, of: impl Fn(&TeamTally) -> Vec<(Option<LimitScope>, Reason, u64)>, emit: Emit<'_>) {
        let organization = self.organization();
        for team in self.teams() {
            for (scope, reason, count) in of(&team).into_iter().filter(|(.., count)| *count > 0) {
                let scope = word("scope", scope.map_or(NONE, LimitScope::name));
                let team = text("team", &team.name);
                emit(number(count), &[organization.clone(), team, scope, word("reason", reason.name())]);
            }
        }
    }

    fn settlements(&self, emit: Emit<'_>) {
        let organization = self.organization();
        for team in self.teams() {
            for (outcome, result, count) in team.settlements().filter(|(.., count)| *count > 0) {
                let (outcome, result) = (word("outcome", outcome.name()), word("result", result.name()));
                emit(number(count), &[organization.clone(), text("team", &team.name), outcome, result]);
            }
        }
    }

    /// Teams past the bound are counted together, and so are those that have left the policy.
    fn expired(&self, emit: Emit<'_>) {
        let (organization, live) = (self.organization(), &self.status.shared.live);
        let snapshot = live.peek();
        let mut teams = BTreeMap::<Arc<str>, u64>::new();
        for (team, count) in self.status.unreported.teams() {
            let shown =
                snapshot.policy.teams.get(&team).map(|team| Arc::clone(&live.tallies.team(team).name));
            *teams.entry(shown.unwrap_or_else(|| OTHER.into())).or_default() += count;
        }
        for (team, count) in teams {
            emit(number(count), &[organization.clone(), text("team", &team)]);
        }
    }

    fn degraded(&self, emit: Emit<'_>) {
        let organization = self.organization();
        for team in self.teams().into_iter().filter(|team| team.degraded() > 0) {
            emit(number(team.degraded()), &[organization.clone(), text("team", &team.name)]);
        }
    }

    /// A number of each budget, in `unit`s of what is counted.
    fn budgets(&self, emit: Emit<'_>, unit: f64, value: impl Fn(&SeenLimit) -> Option<f64>) {
        let organization = self.organization();
        for seen in &self.seen.load().limits {
            let (Some(period), Some(value)) = (seen.period(), value(seen)) else { continue };
            let scope = word("scope", seen.limit.scope.name());
            let mut labels =
                vec![organization.clone(), scope, text("team", &seen.team), word("period", period)];
            if self.by_key {
                labels.push(text("key", &seen.key));
            }
            emit(value / unit, &labels);
        }
    }

    fn limits(&self, emit: Emit<'_>) {
        let organization = self.organization();
        let seen = self.seen.load();
        let mut largest = BTreeMap::<_, f64>::new();
        for seen in seen.limits.iter().filter(|seen| seen.limit.scope != LimitScope::Key) {
            let Some(ratio) = seen.used_ratio() else { continue };
            let Limited { scope, quantity, window } = Limited::of(seen);
            let known = largest.entry((scope, &seen.team, quantity, window)).or_default();
            *known = known.max(ratio);
        }
        for ((scope, team, quantity, window), ratio) in largest {
            let (scope, team) = (word("scope", scope), text("team", team));
            let labels =
                [organization.clone(), scope, team, word("quantity", quantity), word("window", window)];
            emit(ratio, &labels);
        }
    }

    /// The use of each team's limit with this window.
    fn of_teams(&self, emit: Emit<'_>, window: Window) {
        let organization = self.organization();
        for seen in self.seen.load().limits.iter().filter(|seen| seen.is_of_team(window)) {
            emit(number(seen.state.used), &[organization.clone(), text("team", &seen.team)]);
        }
    }

    fn waiting(&self, emit: Emit<'_>) {
        let organization = self.organization();
        let mut by_team = BTreeMap::<Arc<str>, u64>::new();
        let live = &self.status.shared.live;
        let snapshot = live.snapshot();
        for (team, count) in self.status.shared.queue.waiting() {
            let shown = match snapshot.policy.teams.get(&team) {
                Some(team) => Arc::clone(&live.tallies.team(team).name),
                None => NONE.into(),
            };
            *by_team.entry(shown).or_default() += count as u64;
        }
        for (team, count) in by_team {
            emit(number(count), &[organization.clone(), text("team", &team)]);
        }
    }

    fn upstream_keys(&self, emit: Emit<'_>) {
        let organization = self.organization();
        for (key, state) in self.upstream.all() {
            let up = if state == KeyUse::Refused { 0.0 } else { 1.0 };
            emit(up, &[organization.clone(), text("project", &key.project), text("name", &key.id)]);
        }
    }

    fn cooldowns(&self, emit: Emit<'_>) {
        let organization = self.organization();
        for ((project, model), tiers) in &self.seen.load().cooldowns {
            let labels = [organization.clone(), named("project", project), text("model", model)];
            emit(f64::from(*tiers), &labels);
        }
    }

    fn rate_limits(&self, emit: Emit<'_>) {
        let (organization, tallies) = (self.organization(), &self.status.shared.live.tallies);
        let names = tallies.models();
        for ((project, model), count) in tallies.rate_limits() {
            let Some(model) = names.get(model) else { continue };
            let labels = [organization.clone(), named("project", &project), text("model", model)];
            emit(number(count), &labels);
        }
    }

    fn listeners(&self) -> [(&'static str, super::Connections); 2] {
        [("grpc", self.connections.clone()), ("admin", self.connections.of_pages())]
    }
}

/// What tells the limits of one scope apart.
struct Limited {
    scope: &'static str,
    quantity: &'static str,
    window: &'static str,
}

impl Limited {
    fn of(seen: &SeenLimit) -> Self {
        Self {
            scope: seen.limit.scope.name(),
            quantity: seen.limit.quantity.name(),
            window: seen.limit.window.name(),
        }
    }
}
