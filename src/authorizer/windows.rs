//! Counting in sliding windows alone, for gateways that ask nothing else: no reservation, no money, no report afterwards.

use std::{sync::Arc, time::Instant};

use bytes::Bytes;

use super::{Authorizer, Failure, View, by, refusal_stands};
use crate::{
    domain::{
        MAX_AMOUNT, Moment, Timestamp,
        caller::ResolvedCaller,
        counter::{CounterKey, Hold},
        decision::{Violation, Violations},
        explain,
        holds::{Holds, Term},
        limit::Quantity,
        limit_status::LimitStatuses,
        plan::{Counted, Line, check_windows, is_shared_window, windows},
        rbac::TeamScope,
        request::Caller,
        snapshot::Snapshot,
    },
    store::{MAX_HOLDS, Refusal, Reserve, Reserved, Store, StoreError},
};

/// The most that a window is filled to where no limit refuses before: settlements of what is reserved always have room above it.
const MOST: u64 = MAX_AMOUNT / 2;
/// How long the record of a count is kept, in milliseconds: nothing ever asks for it.
const RECORD_MS: u64 = 1_000;

/// What is to be counted for one caller.
#[derive(Clone)]
pub struct Count {
    /// Who.
    pub caller: Caller,
    /// The model; empty: not known.
    pub model: String,
    /// The caller's user; empty: none.
    pub user: String,
    /// Requests or tokens.
    pub quantity: Quantity,
    /// How many; 0 asks whether anything is left.
    pub amount: u64,
}

/// What became of one [`Count`].
#[derive(Clone, Debug, Default)]
pub struct CountOutcome {
    /// What refuses it, or what it passed; empty: nothing.
    pub violations: Vec<Violation>,
    /// The windows that apply, as they stand now.
    pub limits: LimitStatuses,
}

/// The counters of some counts. Two of them may share one.
#[derive(Default)]
struct Taken {
    holds: Vec<Hold>,
    /// Of each count, its lines with the places of their holds.
    counts: Vec<Vec<(usize, Line)>>,
}

impl Count {
    fn counted(&self) -> Counted<'_> {
        Counted { model: &self.model, user: &self.user, quantity: self.quantity }
    }
}

/// Whether these say what was used, rather than ask whether it may be. What was used is counted even past a limit: else a team at its limit
/// could use any amount.
fn is_report(counts: &[Count]) -> bool {
    counts.iter().all(|count| count.quantity == Quantity::Tokens && count.amount > 0)
}

impl Taken {
    fn add(&mut self, count: &Count, mut lines: Vec<(Term, Line)>, (is_report, scope): (bool, &TeamScope)) {
        // As with usage that is reported without a reservation: else who speaks for one team could fill the window of all.
        if is_report && *scope != TeamScope::All {
            lines.retain(|(_, line)| !is_shared_window(line));
        }
        let held = lines.into_iter().map(|(term, line)| (self.hold(&term, count.amount, is_report), line));
        let held = held.collect();
        self.counts.push(held);
    }

    /// The place of the hold of `amount` more on the counter of `term`.
    fn hold(&mut self, Term { counter, kind, limit, .. }: &Term, amount: u64, is_report: bool) -> usize {
        // One would never pass a limit of none, and nothing always would.
        let amount = if *limit == 0 { amount.max(1) } else { amount };
        // Where nothing is counted, something must be left.
        let bound = |held: u64| match (is_report, held) {
            (true, _) => MOST,
            (false, 0) => limit.saturating_sub(1),
            (false, _) => (*limit).min(MOST),
        };
        if let Some(at) = self.holds.iter().position(|hold| hold.counter == *counter) {
            if let Some(hold) = self.holds.get_mut(at) {
                hold.expiring = hold.expiring.saturating_add(amount);
                hold.limit = bound(hold.expiring);
            }
            return at;
        }
        self.holds.push(Hold {
            counter: CounterKey::clone(counter),
            kind: *kind,
            limit: bound(amount),
            kept: 0,
            expiring: amount,
        });
        self.holds.len() - 1
    }

    fn amount(&self, at: usize) -> u64 {
        self.holds.get(at).map_or(0, |hold| hold.expiring)
    }

    /// What became of each count, given what its counters had before. `taken`: they have the amounts now.
    fn outcomes(self, now: Moment, used: &[u64], refusals: &[Refusal], taken: bool) -> Vec<CountOutcome> {
        self.counts
            .iter()
            .map(|lines| {
                let before = |at: usize| used.get(at).copied().unwrap_or_default();
                let after = |at: usize| before(at).saturating_add(if taken { self.amount(at) } else { 0 });
                let passed = lines.iter().filter_map(|(at, line)| {
                    let refusal = refusals.iter().find(|refusal| refusal.hold == *at);
                    let is_over = taken && line.enforced && after(*at) > line.limit.bound?;
                    let frees_at = refusal.and_then(|refusal| refusal.frees_at);
                    (refusal.is_some() || is_over)
                        .then(|| explain::violation(line, now.wall, before(*at), self.amount(*at), frees_at))
                });
                let violations = passed.collect();
                let standing: Vec<_> = lines.iter().map(|(at, _)| after(*at)).collect();
                let lines: Arc<[Line]> = lines.iter().map(|(_, line)| line.clone()).collect();
                CountOutcome { violations, limits: explain::standing(&lines, now, &standing) }
            })
            .collect()
    }
}

impl<S: Store + Clone> Authorizer<S> {
    /// Counts all of it in the windows that apply, or nothing if a limit or the policy refuses any; what was used is counted in any case. The
    /// outcomes are in the order of `counts`, of which each has its caller in `callers`. Who asks may do so for the teams in `scope`: reports of
    /// those who may not for all leave out the windows that all teams share.
    ///
    /// # Errors
    /// If nothing could be decided, or not before `until`; then it is possible that it was counted.
    pub async fn count_windows(
        &self,
        View { snapshot, fresh }: &View,
        counts: &[Count],
        callers: &[Result<ResolvedCaller<'_>, Violation>],
        (scope, until): (&TeamScope, Option<Instant>),
    ) -> Result<Vec<CountOutcome>, Failure> {
        let (now, is_report) = (self.store.now(), is_report(counts));
        let today = self.today(&snapshot.policy, now);
        let (mut taken, mut refused) = (Taken::default(), Vec::new());
        for (count, caller) in counts.iter().zip(callers) {
            let found = caller.as_ref().map_err(|violation| Violations::from(violation.clone()));
            let found = found
                .and_then(|caller| check_windows(snapshot, caller, count.counted(), now).map(|()| caller));
            let violations = match found {
                Ok(caller) => {
                    self.count_use(caller);
                    taken.add(count, windows(snapshot, caller, count.counted(), &today), (is_report, scope));
                    Vec::new()
                }
                Err(violations) => violations.refusing,
            };
            violations.iter().try_for_each(|v| refusal_stands(&count.caller, v, fresh))?;
            refused.push(violations);
        }
        if refused.iter().all(Vec::is_empty) {
            fresh.clone()?;
            let outcomes = by(until, self.take(taken, until)).await??;
            self.count_denials(&outcomes, callers, snapshot);
            return Ok(outcomes);
        }
        let outcomes = refused.into_iter();
        let outcomes = outcomes.map(|violations| CountOutcome { violations, ..CountOutcome::default() });
        let outcomes: Vec<_> = outcomes.collect();
        self.count_denials(&outcomes, callers, snapshot);
        Ok(outcomes)
    }

    /// A denial is recorded like any other, once for each count that is over.
    fn count_denials(
        &self,
        outcomes: &[CountOutcome],
        callers: &[Result<ResolvedCaller<'_>, Violation>],
        snapshot: &Snapshot,
    ) {
        for (outcome, caller) in outcomes.iter().zip(callers).filter(|(o, _)| !o.violations.is_empty()) {
            self.log_denied(caller.as_ref().ok(), &outcome.violations, snapshot);
        }
    }

    async fn take(&self, taken: Taken, until: Option<Instant>) -> Result<Vec<CountOutcome>, Failure> {
        if taken.holds.len() > MAX_HOLDS {
            return Err(Failure::TooManyWindows);
        }
        if taken.holds.is_empty() {
            return Ok(taken.outcomes(self.store.moment(), &[], &[], true));
        }
        let reserve = Reserve {
            id: self.ids.next()?,
            may_repeat: false,
            fingerprint: 0,
            // Without a note: nothing is to be reported, so nothing is missing when the record goes.
            holds: Holds::from(taken.holds.clone()),
            gates: Vec::new(),
            valid: Timestamp(0)..self.left_at(until),
            ttl_ms: RECORD_MS,
            late_ms: 0,
            note: Bytes::new(),
            replaces: Bytes::new(),
            dry_run: taken.holds.iter().all(|hold| hold.expiring == 0),
        };
        if self.store.is_down() {
            return Err(StoreError::Unavailable.into());
        }
        match self.store.reserve(reserve).await? {
            Reserved::Granted { now, used } => {
                Ok(taken.outcomes(self.store.moment().at_wall(now), &used, &[], true))
            }
            Reserved::Refused { now, used, refusals, .. } => {
                Ok(taken.outcomes(self.store.moment().at_wall(now), &used, &refusals, false))
            }
            Reserved::OutOfDate { .. } => Err(Failure::DeadlineExceeded),
            // The id is new.
            Reserved::Repeated(_) => Err(Failure::Internal),
        }
    }
}
