//! The hot path: policy → reserve → decision; price → settle.

mod booked;
mod budgets;
mod charge;
mod check;
mod cooldowns;
mod counting;
mod decided;
mod decision_log;
mod failure;
mod feed;
mod ids;
mod in_flight;
mod outage;
mod overtaken;
mod question;
mod queue;
mod receipt;
mod report;
mod settle;
mod settler;
mod shared;
mod spooling;
mod ticket;
mod unreserved;
mod windows;

use std::{
    ops::{ControlFlow, Deref},
    sync::Arc,
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use tokio::sync::watch;

pub(crate) use self::decision_log::{BatchFacts, Facts, Refusal as RefusalLine};
#[cfg(test)]
pub(crate) use self::ticket::again_id;
pub use self::{
    booked::Booked,
    budgets::CrossedAlert,
    check::by,
    counting::Timing,
    decided::Decided,
    decision_log::{
        DecisionLog, LineError, Logged, LoggedDecision, LoggedSettlement, Outputs as DecisionOutputs,
        read_line,
    },
    failure::Failure,
    feed::{DecisionFeed, DecisionStream, FeedEvent, FeedPage, NotWatched},
    in_flight::PendingCheck,
    outage::{DegradedName, NotAReservation, ReservationName},
    overtaken::refusal_stands,
    question::{Question, View},
    queue::Queue,
    receipt::released,
    settler::Settler,
    shared::Shared,
    spooling::{Recorded, SpoolDelivery, SpooledReport},
    unreserved::{Bounds, RefusedReports},
    windows::{Count, CountOutcome},
};
use self::{
    decided::{Ahead, behind, denied, gates, granted, refused, repeated},
    queue::Turn,
};
use crate::{
    domain::{
        Timestamp,
        calendar::Days,
        decision::Violations,
        limit_status::LimitStatuses,
        plan::{self, Plan},
        policy::Policy,
        snapshot::Snapshot,
    },
    live::{Follower, follow_each},
    runtime::{Runtime, clock::Clock},
    store::{Record, ReservationId, Reserve, Reserved, Store, StoreError},
    telemetry::trace,
};

/// How often a request is compiled again because the store's clock is in another period than assumed, or because others took
/// a clamped amount first. The last clamped attempt asks for the least, so the bound denies no request wrongly.
const ATTEMPTS: u32 = 8;

/// Decides requests and books usage. One per core; clones share what it has, with a reference count that no other core touches.
#[derive(Debug)]
pub struct Authorizer<S>(Arc<Parts<S>>);

impl<S> Clone for Authorizer<S> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<S> Deref for Authorizer<S> {
    type Target = Parts<S>;

    fn deref(&self) -> &Parts<S> {
        &self.0
    }
}

/// What an [`Authorizer`] has.
#[derive(Debug)]
pub struct Parts<S> {
    store: S,
    clock: Clock,
    shared: Arc<Shared>,
    follower: Follower<S>,
    /// The current calendar day; replaced when it ends or the policy's time zone changes.
    today: ArcSwap<(Arc<str>, Days)>,
    settler: Settler,
    ids: ids::Ids,
}

impl<S: Store + Clone> Authorizer<S> {
    /// Decides by what is in force in `shared` on the counters in `store`. The clock of `runtime` measures waiting.
    #[must_use]
    pub fn new(store: S, runtime: Runtime, shared: Arc<Shared>) -> Self {
        let Runtime { clock, entropy } = runtime;
        let policy = Arc::clone(&shared.live.peek().policy);
        let today = policy.calendar.today(store.now());
        let today = ArcSwap::from_pointee((policy.revision.clone(), today));
        let follower = Follower::new(store.clone(), Arc::clone(&shared.live));
        if shared.spool.is_some() {
            shared.recalls.add(store.clone());
        }
        Self(Arc::new(Parts {
            store,
            clock,
            shared,
            follower,
            today,
            settler: Settler::default(),
            ids: ids::Ids::new(entropy),
        }))
    }

    /// The store behind it.
    #[must_use]
    pub fn store(&self) -> &S {
        &self.store
    }

    /// What is in force, and what follows it on this core.
    #[must_use]
    pub fn follower(&self) -> &Follower<S> {
        &self.follower
    }

    /// Follows on worker number `worker` what is in force for each of `all`, until told to stop: one follower for their registries, and none waits
    /// for another.
    pub fn follow_each(
        all: &[&Self],
        worker: u32,
        stop: watch::Receiver<bool>,
    ) -> impl Future<Output = ()> + Send + use<S> {
        let followers = all.iter().map(|one| one.follower.clone()).collect();
        follow_each(followers, worker, stop)
    }

    /// What is in force.
    #[must_use]
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.shared.live.snapshot()
    }

    /// The snapshot in force. If it is too old to decide by, the registry is read first; if that fails or does not end before
    /// `until`, the last known snapshot is returned, with the reason in `fresh`.
    pub async fn view(&self, until: Option<Instant>) -> View {
        let fresh = match self.shared.live.freshness().is_fresh() {
            true => Ok(()),
            // Boxed, as every request has room for it and nearly none waits here.
            false => Box::pin(self.freshen_by(until)).await,
        };
        View { snapshot: self.snapshot(), fresh }
    }

    /// Runs what outlives its call on this core.
    #[must_use]
    pub fn settler(&self) -> &Settler {
        &self.settler
    }

    /// Decides at once, behind earlier requests than `turn` that wait for the same limits.
    async fn decide(
        &self,
        question: Question<'_>,
        check: &PendingCheck<S>,
        turn: Turn,
    ) -> Result<Decided, Failure> {
        let Question { request, snapshot, caller, fresh } = question;
        let mut now = self.store.now();
        let mut granted = None;
        for attempt in 1..=ATTEMPTS {
            let today = self.today(&snapshot.policy, now);
            let caller = caller.clone().map_err(Violations::from);
            let mut plan =
                match caller.and_then(|caller| plan::compile(snapshot, caller, request, now, &today)) {
                    Ok(plan) => {
                        fresh.clone()?;
                        plan
                    }
                    Err(violations) => {
                        let mut refusing = violations.refusing.iter();
                        refusing.try_for_each(|v| refusal_stands(&request.caller, v, fresh))?;
                        return Ok(denied(snapshot, violations, LimitStatuses::default()));
                    }
                };
            if attempt == ATTEMPTS {
                granted = granted.map(|granted: u64| granted.min(plan.least_output()));
            }
            if let Some(granted) = granted {
                plan.clamp(granted).map_err(|_| Failure::Internal)?;
            }
            match self.attempt((question, check, turn), &plan, attempt < ATTEMPTS).await? {
                ControlFlow::Break(decided) => {
                    let model = Some(self.shared.live.tallies.model(Some(plan.model)));
                    return self.unless_overtaken(question, Decided { model, ..decided }).await;
                }
                // A new period's budgets may pay for all of it.
                ControlFlow::Continue(Again::At(time)) => (now, granted) = (time, None),
                ControlFlow::Continue(Again::With(affordable)) => granted = Some(affordable),
            }
        }
        Err(Failure::Store(StoreError::Unavailable))
    }

    /// Asks the store once. Returns the decision, or what was learnt for another attempt.
    async fn attempt(
        &self,
        (question, check, turn): (Question<'_>, &PendingCheck<S>, Turn),
        plan: &Plan<'_>,
        may_clamp: bool,
    ) -> Result<ControlFlow<Decided, Again>, Failure> {
        let Question { request, snapshot, .. } = question;
        let mut reserve = self.reserve_of(question, plan, check)?;
        let (id, fingerprint) = (reserve.id, reserve.fingerprint);
        let ahead = self.ahead(turn, &reserve, plan);
        // It takes nothing before its turn, but learns what refuses it, and gets the answer that it had before.
        reserve.dry_run |= ahead.is_some();
        let degrades = plan.caller.team.outage.degrades();
        let decided = match self.reserve(reserve, check, degrades).await? {
            Reserved::Granted { now, used } if let Some(ahead) = ahead => {
                behind(snapshot, request, plan, self.store.moment().at_wall(now), &used, ahead)
            }
            Reserved::Granted { now, used } => {
                granted(snapshot, request, plan, id, self.store.moment().at_wall(now), &used)
            }
            // A settled reservation pays for nothing more, and an expired one holds nothing more.
            Reserved::Repeated(record)
                if record.settlement.is_some() || record.expires_at <= self.store.now() =>
            {
                return Err(Failure::RequestIdSpent(id));
            }
            Reserved::Repeated(record) if record.fingerprint == fingerprint => {
                Box::pin(self.repeated(snapshot, plan, id, &record)).await?
            }
            Reserved::Repeated(_) => return Err(Failure::RequestIdReused),
            Reserved::OutOfDate { now } => return Ok(ControlFlow::Continue(Again::At(now))),
            Reserved::Refused { now, used, refusals, closed } => {
                let refusing = || refusals.iter().map(|refusal| refusal.hold);
                match plan.affordable_output(refusing(), &used) {
                    Some(affordable) if may_clamp => {
                        return Ok(ControlFlow::Continue(Again::With(affordable)));
                    }
                    _ => {
                        Box::pin(self.log_first_denials(request, plan, &used, refusing())).await;
                        match Box::pin(self.refused_at_least((question, check), plan, refusing())).await? {
                            Some(decided) => decided,
                            None => {
                                let now = self.store.moment().at_wall(now);
                                refused(snapshot, request, plan, now, &used, &refusals, &closed)
                            }
                        }
                    }
                }
            }
        };
        Ok(ControlFlow::Break(decided))
    }

    /// The refusal in terms of the least that clamping budgets would grant, if that gives another delay than the full amount.
    async fn refused_at_least(
        &self,
        (question, check): (Question<'_>, &PendingCheck<S>),
        plan: &Plan<'_>,
        refusing: impl Iterator<Item = usize>,
    ) -> Result<Option<Decided>, Failure> {
        let Some(least) = plan.at_least(refusing) else { return Ok(None) };
        let only_looks =
            Reserve { may_repeat: false, dry_run: true, ..self.reserve_of(question, &least, check)? };
        Ok(match self.store.reserve(only_looks).await? {
            Reserved::Refused { now, used, refusals, closed } => {
                let now = self.store.moment().at_wall(now);
                Some(refused(question.snapshot, question.request, &least, now, &used, &refusals, &closed))
            }
            // Others made room or entered a new period since: the first answer was right when it was given.
            Reserved::Granted { .. } | Reserved::Repeated(_) | Reserved::OutOfDate { .. } => None,
        })
    }

    /// The first limit or cooldown of the plan at which a request that came before `turn` waits.
    fn ahead(&self, turn: Turn, reserve: &Reserve, plan: &Plan<'_>) -> Option<Ahead> {
        let gates = reserve.gates.iter().map(|gate| (usize::MAX, gate));
        let holds = plan.holds.counters().zip(&*plan.lines).enumerate();
        let holds = holds.filter(|(_, (_, line))| line.enforced).map(|(i, (counter, _))| (i, counter));
        let (place, frees_at) = self.shared.queue.ahead(turn, gates.chain(holds))?;
        let frees_in = frees_at.map_or(Duration::ZERO, |at| at.since(self.clock.monotonic()));
        Some(Ahead { hold: (place != usize::MAX).then_some(place), frees_in })
    }

    fn reserve_of(
        &self,
        Question { request, snapshot, .. }: Question<'_>,
        plan: &Plan<'_>,
        check: &PendingCheck<S>,
    ) -> Result<Reserve, Failure> {
        let labels = snapshot.policy.reports.of_request(&plan.caller, &request.labels);
        let fingerprint = if request.request_id.is_empty() { 0 } else { ticket::fingerprint(request) };
        Ok(Reserve {
            id: check.id,
            may_repeat: check.may_repeat(request),
            fingerprint,
            holds: plan.holds.clone(),
            gates: gates(snapshot, plan),
            valid: plan.valid.start..plan.valid.end.min(self.left_at(check.until)),
            ttl_ms: plan.ttl_ms(),
            late_ms: plan::LATE_MS,
            note: ticket::note(snapshot, plan, (&request.user, &labels), (check.attempt, trace::current()))?,
            replaces: released(),
            dry_run: request.dry_run,
        })
    }

    /// The answer given the first time, with the limits as they stand now.
    async fn repeated(
        &self,
        snapshot: &Snapshot,
        plan: &Plan<'_>,
        id: ReservationId,
        record: &Record,
    ) -> Result<Decided, Failure> {
        let keys = plan.holds.iter().map(|hold| (hold.counter.clone(), hold.kind)).collect();
        let used: Vec<u64> = self.store.counters(keys).await?.iter().map(|state| state.used).collect();
        repeated(snapshot, plan, (id, record), self.store.moment(), &used)
    }

    /// The calendar day at `now`, computed once a day.
    fn today(&self, policy: &Policy, now: Timestamp) -> Days {
        let known = self.today.load();
        if known.0 == policy.revision && known.1.covers(now) {
            return known.1;
        }
        let today = policy.calendar.today(now);
        self.today.store(Arc::new((policy.revision.clone(), today)));
        today
    }
}

/// What an attempt learnt.
enum Again {
    /// The store's clock is in another period.
    At(Timestamp),
    /// The budgets can pay for this many output tokens.
    With(u64),
}
