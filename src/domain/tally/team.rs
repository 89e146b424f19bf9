//! The counts of one team.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use arc_swap::ArcSwap;

use super::{MAX_MODELS, Samples, SettlementResult};
use crate::domain::{
    Timestamp,
    decision::{Reason, Violation},
    limit::LimitScope,
    request::{Operation, Outcome, Usage},
};

/// Decisions on one operation: first those that allowed it, then the others by their first reason.
type Decisions = [AtomicU64; 1 + Reason::COUNT];
/// Violations by scope (the last: of no limit) and reason.
type Violations = [[AtomicU64; Reason::COUNT]; LimitScope::ALL.len() + 1];

/// The counts of one team, or of all teams past the bound.
#[derive(Debug)]
pub struct TeamTally {
    /// The team's name, or [`super::OTHER`].
    pub name: Arc<str>,
    models: OnceLock<Box<[OnceLock<Box<ModelTally>>]>>,
    /// Denials for which the caller alone was enough, by their first reason.
    callers: [AtomicU64; Reason::COUNT],
    violations: OnceLock<Box<Violations>>,
    /// Of what is in shadow.
    shadow_violations: OnceLock<Box<Violations>>,
    settlements: [[AtomicU64; SettlementResult::ALL.len()]; Outcome::ALL.len()],
    /// Decisions that were made without the store.
    degraded: AtomicU64,
    /// Few requests use tools, so a lock does.
    tools: Mutex<BTreeMap<Box<str>, u64>>,
    /// When the last reservation expires that [`super::Samples`] has taken.
    sampled: AtomicU64,
}

/// The counts of one team's requests for one model.
#[derive(Debug, Default)]
pub struct ModelTally {
    decisions: [OnceLock<Box<Decisions>>; Operation::ALL.len()],
    used: [OnceLock<Box<UsageTally>>; Operation::ALL.len()],
    /// Nano-dollars by Groq project: one, or more after a change of the policy.
    costs: ArcSwap<Vec<(Arc<str>, Arc<AtomicU64>)>>,
}

/// What was used by one operation on one model.
#[derive(Debug, Default)]
pub struct UsageTally {
    /// Input tokens that were not cached.
    pub input_tokens: AtomicU64,
    /// Input tokens that were.
    pub cached_input_tokens: AtomicU64,
    /// Output tokens.
    pub output_tokens: AtomicU64,
    /// The part of them that is reasoning.
    pub reasoning_tokens: AtomicU64,
    /// Milliseconds of audio.
    pub audio_ms: AtomicU64,
    /// Characters turned into speech.
    pub characters: AtomicU64,
}

const fn zeros<const N: usize>() -> [AtomicU64; N] {
    [const { AtomicU64::new(0) }; N]
}

fn add(count: &AtomicU64, more: u64) {
    if more > 0 {
        count.fetch_add(more, Ordering::Relaxed);
    }
}

impl TeamTally {
    pub(super) fn new(name: Arc<str>) -> Self {
        Self {
            name,
            models: OnceLock::new(),
            callers: zeros(),
            violations: OnceLock::new(),
            shadow_violations: OnceLock::new(),
            settlements: [const { zeros() }; Outcome::ALL.len()],
            degraded: AtomicU64::new(0),
            tools: Mutex::default(),
            sampled: AtomicU64::new(0),
        }
    }

    /// The counts of the model with this number.
    pub(super) fn model(&self, number: usize) -> &ModelTally {
        let models = self.models.get_or_init(|| (0..MAX_MODELS).map(|_| OnceLock::new()).collect());
        // Every number is below the bound.
        let place = models.get(number).or_else(|| models.first());
        static NONE: OnceLock<Box<ModelTally>> = OnceLock::new();
        place.unwrap_or(&NONE).get_or_init(Box::default)
    }

    /// Counts a decision on a request for the model with this number; `violations` refused it.
    pub fn decided(&self, model: usize, operation: Operation, violations: &[Violation]) {
        self.model(model).decided(operation, violations.first().map(|violation| violation.reason));
        violated(&self.violations, violations);
    }

    /// Whether a reservation that expires at `expires` is the next of the team to be sampled; said of one.
    pub fn is_sampled(&self, expires: Timestamp) -> bool {
        let last = self.sampled.load(Ordering::Relaxed);
        let swap = || self.sampled.compare_exchange(last, expires.0, Ordering::Relaxed, Ordering::Relaxed);
        Samples::is_next(Timestamp(last), expires) && swap().is_ok()
    }

    /// Counts what is in shadow and would have refused a request.
    pub fn in_shadow(&self, violations: &[Violation]) {
        violated(&self.shadow_violations, violations);
    }

    /// Counts a denial for which the caller alone was enough.
    pub fn denied(&self, violations: &[Violation]) {
        let count = violations.first().and_then(|first| self.callers.get(first.reason as usize));
        if let Some(count) = count {
            add(count, 1);
        }
        violated(&self.violations, violations);
    }

    /// Counts a decision that was made without the store.
    pub fn decided_without_store(&self) {
        add(&self.degraded, 1);
    }

    /// Decisions that were made without the store.
    pub fn degraded(&self) -> u64 {
        self.degraded.load(Ordering::Relaxed)
    }

    pub(super) fn settled(&self, outcome: Outcome, result: SettlementResult) {
        let results = self.settlements.get(outcome as usize);
        if let Some(count) = results.and_then(|results| results.get(result as usize)) {
            add(count, 1);
        }
    }

    pub(super) fn tools(&self, usage: &Usage) {
        if usage.tools.is_empty() {
            return;
        }
        let mut tools = self.tools.lock().unwrap_or_else(PoisonError::into_inner);
        // Usage with a tool that has no price is refused, so their names are those of the price list.
        for tool in &usage.tools {
            match tools.get_mut(&*tool.tool) {
                Some(calls) => *calls += tool.calls,
                None => drop(tools.insert(tool.tool.as_str().into(), tool.calls)),
            }
        }
    }

    /// The models that were counted, by their numbers.
    pub fn models(&self) -> impl Iterator<Item = (usize, &ModelTally)> {
        let models = self.models.get().into_iter().flatten().enumerate();
        models.filter_map(|(number, model)| Some((number, &**model.get()?)))
    }

    /// Denials for which the caller alone was enough, by their first reason.
    pub fn denials_of_callers(&self) -> impl Iterator<Item = (Reason, u64)> {
        Reason::ALL
            .into_iter()
            .zip(&self.callers)
            .map(|(reason, count)| (reason, count.load(Ordering::Relaxed)))
    }

    /// What refused requests: by scope (`None`: no limit) and reason.
    pub fn violations(&self) -> impl Iterator<Item = (Option<LimitScope>, Reason, u64)> {
        by_scope(&self.violations)
    }

    /// The same of what is in shadow and would have refused.
    pub fn shadow_violations(&self) -> impl Iterator<Item = (Option<LimitScope>, Reason, u64)> {
        by_scope(&self.shadow_violations)
    }

    /// Reports by how the request ended and how they were booked.
    pub fn settlements(&self) -> impl Iterator<Item = (Outcome, SettlementResult, u64)> {
        Outcome::ALL.into_iter().zip(&self.settlements).flat_map(|(outcome, results)| {
            let counts = SettlementResult::ALL.into_iter().zip(results);
            counts.map(move |(result, count)| (outcome, result, count.load(Ordering::Relaxed)))
        })
    }

    /// Calls of each tool.
    #[must_use]
    pub fn tool_calls(&self) -> Vec<(Box<str>, u64)> {
        let tools = self.tools.lock().unwrap_or_else(PoisonError::into_inner);
        tools.iter().map(|(tool, calls)| (tool.clone(), *calls)).collect()
    }
}

fn violated(counts: &OnceLock<Box<Violations>>, violations: &[Violation]) {
    if violations.is_empty() {
        return;
    }
    let counts = counts.get_or_init(|| Box::new([const { zeros() }; LimitScope::ALL.len() + 1]));
    for violation in violations {
        let scope = violation.scope.map_or(LimitScope::ALL.len(), |scope| scope as usize);
        if let Some(count) = counts.get(scope).and_then(|reasons| reasons.get(violation.reason as usize)) {
            add(count, 1);
        }
    }
}

fn by_scope(counts: &OnceLock<Box<Violations>>) -> impl Iterator<Item = (Option<LimitScope>, Reason, u64)> {
    let scopes = counts.get().into_iter().flat_map(|counts| counts.iter().enumerate());
    scopes.flat_map(|(scope, reasons)| {
        let counts = Reason::ALL.into_iter().zip(reasons);
        counts.map(move |(reason, count)| {
            (LimitScope::ALL.get(scope).copied(), reason, count.load(Ordering::Relaxed))
        })
    })
}

impl ModelTally {
    pub(super) fn decided(&self, operation: Operation, denied: Option<Reason>) {
        let place = denied.map_or(0, |reason| 1 + reason as usize);
        let decisions = self.decisions.get(operation as usize);
        let counts = decisions.map(|decisions| decisions.get_or_init(|| Box::new(zeros())));
        if let Some(count) = counts.and_then(|counts| counts.get(place)) {
            add(count, 1);
        }
    }

    pub(super) fn used(&self, operation: Operation, project: &Arc<str>, usage: &Usage, cost: u64) {
        if let Some(used) = self.used.get(operation as usize) {
            let used = used.get_or_init(Box::default);
            add(&used.input_tokens, usage.input_tokens.saturating_sub(usage.cached_input_tokens));
            add(&used.cached_input_tokens, usage.cached_input_tokens);
            add(&used.output_tokens, usage.output_tokens);
            add(&used.reasoning_tokens, usage.reasoning_tokens);
            add(&used.audio_ms, usage.audio_ms);
            add(&used.characters, usage.characters);
        }
        if cost > 0 {
            let known = self.costs.load();
            match known.iter().find(|(name, _)| name == project) {
                Some((_, nanos)) => add(nanos, cost),
                None => add(&self.cost_of(project), cost),
            }
        }
    }

    fn cost_of(&self, project: &Arc<str>) -> Arc<AtomicU64> {
        self.costs.rcu(|known| {
            let mut costs = (**known).clone();
            if !costs.iter().any(|(name, _)| name == project) {
                costs.push((Arc::clone(project), Arc::default()));
            }
            costs
        });
        let known = self.costs.load();
        known.iter().find(|(name, _)| name == project).map(|(_, nanos)| Arc::clone(nanos)).unwrap_or_default()
    }

    /// Decisions: by operation, and the first reason against them (`None`: allowed).
    pub fn decisions(&self) -> impl Iterator<Item = (Operation, Option<Reason>, u64)> {
        let operations = Operation::ALL.into_iter().zip(&self.decisions);
        let counted = operations.filter_map(|(operation, counts)| Some((operation, counts.get()?)));
        counted.flat_map(|(operation, counts)| {
            let reasons = std::iter::once(None).chain(Reason::ALL.into_iter().map(Some));
            reasons
                .zip(counts.iter())
                .map(move |(reason, count)| (operation, reason, count.load(Ordering::Relaxed)))
        })
    }

    /// What each operation used.
    pub fn used_by(&self) -> impl Iterator<Item = (Operation, &UsageTally)> {
        let operations = Operation::ALL.into_iter().zip(&self.used);
        operations.filter_map(|(operation, used)| Some((operation, &**used.get()?)))
    }

    /// The sum over all operations of one count.
    pub fn total(&self, count: fn(&UsageTally) -> &AtomicU64) -> u64 {
        self.used_by().map(|(_, used)| count(used).load(Ordering::Relaxed)).sum()
    }

    /// Nano-dollars by Groq project.
    #[must_use]
    pub fn costs(&self) -> Vec<(Arc<str>, u64)> {
        let costs = self.costs.load();
        costs.iter().map(|(project, nanos)| (Arc::clone(project), nanos.load(Ordering::Relaxed))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::request::ToolUsage;

    #[test]
    fn every_list_is_in_the_order_of_its_places() {
        for (place, reason) in Reason::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, place);
        }
        for (place, scope) in LimitScope::ALL.into_iter().enumerate() {
            assert_eq!(scope as usize, place);
        }
        for (place, outcome) in Outcome::ALL.into_iter().enumerate() {
            assert_eq!(outcome as usize, place);
        }
        for (place, operation) in Operation::ALL.into_iter().enumerate() {
            assert_eq!(operation as usize, place);
        }
        for (place, result) in SettlementResult::ALL.into_iter().enumerate() {
            assert_eq!(result as usize, place);
        }
    }

    #[test]
    fn decisions_and_usage_are_counted_where_they_belong() {
        let team = TeamTally::new("t".into());
        assert_eq!(team.models().count(), 0);
        let model = team.model(3);
        model.decided(Operation::Speech, None);
        model.decided(Operation::Speech, Some(Reason::TooManyUnsettled));
        model.decided(Operation::Speech, Some(Reason::TooManyUnsettled));
        let counted: Vec<_> = model.decisions().filter(|(.., count)| *count > 0).collect();
        let expected = [(Operation::Speech, None, 1), (Operation::Speech, Some(Reason::TooManyUnsettled), 2)];
        assert_eq!(counted, expected);
        let usage = Usage {
            input_tokens: 10,
            cached_input_tokens: 4,
            output_tokens: 5,
            tools: vec![ToolUsage { tool: "search".to_owned(), calls: 2, run_ms: 0 }],
            ..Usage::default()
        };
        for project in ["a", "b", "a"] {
            model.used(Operation::Chat, &project.into(), &usage, 7);
            team.tools(&usage);
        }
        model.used(Operation::Embeddings, &"a".into(), &usage, 0);
        assert_eq!(model.costs(), [("a".into(), 14), ("b".into(), 7)]);
        let tokens = [
            model.total(|used| &used.input_tokens),
            model.total(|used| &used.cached_input_tokens),
            model.total(|used| &used.output_tokens),
        ];
        assert_eq!(tokens, [24, 16, 20]);
        let output = model.used_by().map(|(of, used)| (of, used.output_tokens.load(Ordering::Relaxed)));
        assert_eq!(output.collect::<Vec<_>>(), [(Operation::Chat, 15), (Operation::Embeddings, 5)]);
        assert_eq!(team.tool_calls(), [("search".into(), 6)]);
        assert_eq!(team.models().map(|(number, _)| number).collect::<Vec<_>>(), [3]);
    }
}
