//! Decisions while the store does not answer, for teams whose policy permits them: all that needs no counter refuses as ever, and
//! counters of this process take the place of the store's where the policy says how much they may admit.
//!
//! A caller may have less time than the store. It gets its team's rule when its time ends, and not only when the store's does; but not
//! before the store had the time to answer ([`Breaker::patience`]), or short deadlines would be a way past the limits.

mod sealed;
mod settle;

use std::{
    collections::HashMap,
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::time::timeout_at;
use tracing::warn;

use self::sealed::Facts;
pub use self::sealed::{DegradedName, NotAReservation, ReservationName};
pub(super) use self::{
    sealed::shown,
    settle::{Opened, in_outage},
};
use super::{
    Authorizer, Decided, Failure, PendingCheck, Question,
    decided::denied,
    overtaken::{has_moved, refusal_stands},
    ticket,
};
use crate::{
    domain::{
        Timestamp,
        caller::ResolvedCaller,
        decision::{Allowed, Violation, Violations},
        limit_status::LimitStatuses,
        outage::{AllowanceRequest, AllowanceUse, OnStoreOutage, OutageAllowance},
        plan::{self, Plan},
        request::Billing,
        snapshot::Snapshot,
    },
    runtime::clock::Clock,
    store::{Breaker, Store, StoreError},
};

/// How long before a caller has to be answered the store is given up, for a decision without it to be made.
const HEAD_START: Duration = Duration::from_millis(2);
/// What an allowed request is told.
const WITHOUT_THE_STORE: &str = "the store does not answer: allowed without it, by the team's on_store_outage; report what was used as ever";

/// What this process has admitted by allowances, for all of its cores. The lock is held for a look-up and three additions, and only in an
/// outage. There are no more teams than the policies of this process had.
#[derive(Debug, Default)]
pub(super) struct Allowances(Mutex<HashMap<Arc<str>, AllowanceUse>>);

impl Allowances {
    fn take(
        &self,
        team: &Arc<str>,
        (allowance, request): (&OutageAllowance, AllowanceRequest),
        clock: &Clock,
        only_looks: bool,
    ) -> Result<(), Vec<Violation>> {
        // Nothing panics while it is held.
        let mut teams = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Read under the lock: an earlier time after a later one would count a whole minute once more.
        let now = Timestamp(clock.monotonic().as_millis());
        teams.entry(Arc::clone(team)).or_default().take(allowance, request, now, only_looks)
    }
}

/// Since when no reservation was answered. A store that takes no writes may still be read, so that what is known stays young.
#[derive(Debug, Default)]
pub(super) struct FailingSince {
    /// In milliseconds of the monotonic clock; 0: the last one was answered.
    since: AtomicU64,
    /// Whether it was said that nothing can be decided without the store.
    is_told: AtomicBool,
}

impl FailingSince {
    /// A reservation was answered.
    pub(super) fn answered(&self) {
        if self.is_failing() {
            self.since.store(0, Ordering::Relaxed);
            self.is_told.store(false, Ordering::Relaxed);
        }
    }

    /// One was not.
    pub(super) fn failed(&self, clock: &Clock) {
        let now = clock.monotonic().as_millis().max(1);
        // The first of them counts.
        let _ = self.since.compare_exchange(0, now, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// Whether the last one that ended was not.
    fn is_failing(&self) -> bool {
        self.since.load(Ordering::Relaxed) != 0
    }

    /// Whether it is still to be said, once until a reservation is answered, that this process cannot follow the rules of teams.
    fn is_to_be_told(&self) -> bool {
        !self.is_told.swap(true, Ordering::Relaxed)
    }

    /// Whether that is no longer than `max_ms` ago.
    fn is_within(&self, clock: &Clock, max_ms: u64) -> bool {
        match self.since.load(Ordering::Relaxed) {
            0 => true,
            since => clock.monotonic().as_millis().saturating_sub(since) <= max_ms,
        }
    }
}

/// Whether a failure means that the store does not answer. One that is overloaded does, and what it holds may be wrong or unknown to
/// this release where it answers otherwise: those refuse.
const fn is_outage(failure: &Failure) -> bool {
    matches!(failure, Failure::Store(StoreError::Unavailable) | Failure::SnapshotStale)
}

impl<S: Store + Clone> Authorizer<S> {
    /// Whether a request of `caller` that met `failure` is decided without the store: by its team's rule, for as long after the last good
    /// reading of keys and pauses as that says.
    pub(super) fn degrades(&self, caller: &Result<ResolvedCaller<'_>, Violation>, failure: &Failure) -> bool {
        let Ok(caller) = caller else { return false };
        let rules = &caller.team.outage;
        is_outage(failure) && rules.degrades() && self.is_known_within(rules.max_outage_ms)
    }

    /// Whether what costs nothing may pass by what was known before the outage.
    #[must_use]
    pub fn may_pass(&self, caller: &ResolvedCaller<'_>, failure: &Failure) -> bool {
        self.degrades(&Ok(*caller), failure)
    }

    /// Waits for the store, for a request that may be decided without it: no longer than there is time to do so before `until`.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`], if the store had the time to answer, or did not answer before; otherwise
    /// [`Failure::DeadlineExceeded`], as a caller who leaves at once learns nothing of the store.
    pub(super) async fn wait_for_store<F: Future>(
        &self,
        until: Option<Instant>,
        answer: Pin<&mut F>,
    ) -> Result<F::Output, Failure> {
        let Some(until) = until else { return Ok(answer.await) };
        let began = Instant::now();
        let end = until.checked_sub(HEAD_START).unwrap_or(until);
        if let Ok(answer) = timeout_at(end.into(), answer).await {
            return Ok(answer);
        }
        if began.elapsed() >= Breaker::patience(self.store.deadline()) || self.shared.failing.is_failing() {
            return Err(StoreError::Unavailable.into());
        }
        Err(Failure::DeadlineExceeded)
    }

    fn is_known_within(&self, max_ms: u64) -> bool {
        let age = self.shared.live.freshness().age();
        age.is_some_and(|age| age <= Duration::from_millis(max_ms))
            && self.shared.failing.is_within(&self.clock, max_ms)
    }

    /// The decision where the store gave none; `failure` otherwise.
    ///
    /// # Errors
    /// `failure`, if the team has no rule for outages or the outage lasts too long for it; or why there is no decision.
    pub(super) fn without_store(
        &self,
        question: Question<'_>,
        until: Option<Instant>,
        failure: Failure,
    ) -> Result<(Decided, PendingCheck<S>), Failure> {
        let request = question.request;
        // It may have waited since it was asked.
        let snapshot = self.snapshot();
        let caller = snapshot.resolve(&request.caller);
        if !self.degrades(&caller, &failure) {
            return Err(failure);
        }
        if has_moved(question.caller, &caller) {
            return Err(Failure::KeyMoved);
        }
        let check = PendingCheck::alone(self, until)?;
        let now = self.store.now();
        let today = snapshot.policy.calendar.today(now);
        let caller = caller.map_err(Violations::from);
        let decided = match caller.and_then(|caller| plan::compile(&snapshot, caller, request, now, &today)) {
            Ok(plan) => self.degraded(question, (&snapshot, &plan), &check, now)?.ok_or(failure)?,
            Err(violations) => {
                let mut refusing = violations.refusing.iter();
                refusing.try_for_each(|violation| {
                    refusal_stands(&request.caller, violation, &Err(failure.clone()))
                })?;
                denied(&snapshot, violations, LimitStatuses::default())
            }
        };
        Ok((decided, check))
    }

    /// The decision on a plan; `None`: this process has not read yet what reservations are sealed with.
    fn degraded(
        &self,
        Question { request, .. }: Question<'_>,
        (snapshot, plan): (&Snapshot, &Plan<'_>),
        check: &PendingCheck<S>,
        now: Timestamp,
    ) -> Result<Option<Decided>, Failure> {
        let Some(key) = self.shared.live.registry.hash_key() else {
            if self.shared.failing.is_to_be_told() {
                warn!(
                    "the store does not answer, and no `on_store_outage` applies: this process has not read the key yet that reservations \
                     without the store are sealed with; a new store has one after 5 seconds"
                );
            }
            return Ok(None);
        };
        let team = plan.caller.team;
        if let OnStoreOutage::Allowance(allowance) = &team.outage.on_outage {
            let asked = (allowance, request_of(plan));
            let taken = self.shared.allowances.take(&team.name, asked, &self.clock, request.dry_run);
            if let Err(refusing) = taken {
                let violations = Violations { refusing, shadow: plan.shadow.clone() };
                let denied = denied(snapshot, violations, LimitStatuses::default());
                let model = Some(self.shared.live.tallies.model(Some(plan.model)));
                return Ok(Some(Decided { degraded: true, model, ..denied }));
            }
        }
        let labels = snapshot.policy.reports.of_request(&plan.caller, &request.labels);
        let note = ticket::whole(snapshot, plan, (&request.user, &labels), 0)?;
        let reservation = match request.dry_run {
            true => None,
            false => Some(
                Facts { at: now, note }
                    .seal(check.id.of_outage(), (key, &snapshot.policy.organization.id))?,
            ),
        };
        let mut warnings = plan.warnings.clone();
        warnings.push(WITHOUT_THE_STORE.to_owned());
        let outcome = Ok(Allowed {
            reservation: reservation.map(|name| (name, now.plus(plan.ttl_ms()))),
            max_output_tokens: plan.max_output_tokens,
            reserved_cost: plan.cost,
            warnings,
        });
        let shadow = Violations { refusing: Vec::new(), shadow: plan.shadow.clone() };
        Ok(Some(Decided {
            outcome,
            project: Arc::clone(plan.project),
            degraded: true,
            model: Some(self.shared.live.tallies.model(Some(plan.model))),
            ..denied(snapshot, shadow, LimitStatuses::default())
        }))
    }
}

/// What a request asks of an allowance: its worst case.
fn request_of(plan: &Plan<'_>) -> AllowanceRequest {
    let tokens = match plan.work.billing() {
        Billing::Audio | Billing::Characters => 0,
        Billing::Tokens | Billing::InputTokens => {
            let seen = plan.size.input_tokens.saturating_sub(plan.unseen_input_tokens);
            seen.saturating_add(plan.max_output_tokens)
        }
    };
    AllowanceRequest { tokens, nano_usd: plan.cost.nanos() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::clock::ManualClock;

    #[test]
    fn an_outage_is_as_long_as_no_reservation_is_answered() {
        let manual = ManualClock::new(Timestamp(5_000));
        let (clock, failing) = (Clock::Manual(manual.clone()), FailingSince::default());
        assert!(failing.is_within(&clock, 0), "nothing has failed");
        failing.failed(&clock);
        manual.pass(1_000);
        failing.failed(&clock);
        assert!(failing.is_within(&clock, 1_000) && !failing.is_within(&clock, 999), "the first one counts");
        assert_eq!([failing.is_to_be_told(), failing.is_to_be_told()], [true, false], "once in an outage");
        failing.answered();
        assert!(failing.is_within(&clock, 0));
        failing.failed(&clock);
        assert!(failing.is_to_be_told(), "and in the next");
    }
}
