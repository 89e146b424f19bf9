//! A store whose calls are counted and timed.

mod records;

use std::{
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use tokio::time::Instant;

use super::{
    Backend, Breaker, CallOutcome, Cooldown, Ledger, Load, LoadProbe, Record, Registry, RegistryChanges,
    RegistryWritten, ReservationId, Reserve, Reserved, Revision, SecretUse, SecretUses, Settle,
    SettleOutcome, StoreCall, StoreError, StoreKind, Usage, UsageAddition, UsageAmounts, UsageKey, UsageSet,
};
use crate::{
    domain::{
        Moment, Timestamp,
        counter::{CounterKey, CounterKind, CounterState},
        key::SecretId,
    },
    telemetry::Family,
};

/// The calls of one kind that ended one way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CallTotals {
    /// How many.
    pub count: u64,
    /// The time that all of them took.
    pub took: Duration,
}

/// Counts of one kind of call and one outcome. Independent numbers; they order nothing else.
#[derive(Debug, Default)]
struct Counts {
    calls: AtomicU64,
    micros: AtomicU64,
}

/// The calls of one store, which one core makes: cores that added to the same numbers would wait for each other.
#[derive(Debug, Default)]
struct OwnCalls {
    counts: [[Counts; CallOutcome::ALL.len()]; StoreCall::ALL.len()],
    timing: Arc<OnceLock<Family>>,
    breaker: Option<Breaker>,
    reports: Option<Breaker>,
}

/// The calls of all stores of a process since it started. The locks are taken when a store is set up and when calls are looked at.
#[derive(Default)]
pub struct Calls {
    stores: Mutex<Vec<Arc<OwnCalls>>>,
    probes: Mutex<Vec<LoadProbe>>,
    timing: Arc<OnceLock<Family>>,
}

impl fmt::Debug for Calls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Calls").field("stores", &*self.lock()).finish_non_exhaustive()
    }
}

impl Calls {
    /// How many combinations of [`StoreCall`] and [`CallOutcome`] there are.
    pub const KINDS: usize = StoreCall::ALL.len() * CallOutcome::ALL.len();

    /// The combination with this number in [`Calls::measure`].
    #[must_use]
    pub fn kind(number: usize) -> Option<(StoreCall, CallOutcome)> {
        let outcomes = CallOutcome::ALL.len();
        Some((*StoreCall::ALL.get(number / outcomes)?, *CallOutcome::ALL.get(number % outcomes)?))
    }

    /// From now on, durations of calls are recorded in `timing`, too.
    pub fn measure(&self, timing: Family) {
        // The first has effect; a process has one.
        let _ = self.timing.set(timing);
    }

    /// Looks at what waits in `store` as well from now on.
    pub fn watch<S: Backend>(&self, store: &S) {
        if let Some(probe) = store.probe() {
            self.probes.lock().unwrap_or_else(PoisonError::into_inner).push(probe);
        }
    }

    /// What waits in all stores.
    #[must_use]
    pub fn load(&self) -> Load {
        let probes = self.probes.lock().unwrap_or_else(PoisonError::into_inner);
        probes.iter().map(|probe| probe()).fold(Load::default(), |sum, load| Load {
            calls: sum.calls + load.calls,
            journal_bytes: load
                .journal_bytes
                .map_or(sum.journal_bytes, |bytes| Some(bytes + sum.journal_bytes.unwrap_or_default())),
        })
    }

    /// Whether the decisions of any core are held back from its store.
    #[must_use]
    pub fn is_breaker_open(&self) -> bool {
        self.lock().iter().filter_map(|own| own.breaker.as_ref()).any(Breaker::is_open)
    }

    /// The calls of one kind with one outcome. A call that its caller gave up is not among them.
    #[must_use]
    pub fn of(&self, call: StoreCall, outcome: CallOutcome) -> CallTotals {
        let mut totals = CallTotals::default();
        for counts in self.lock().iter().filter_map(|own| own.counts(call, outcome)) {
            totals.count += counts.calls.load(Ordering::Relaxed);
            totals.took += Duration::from_micros(counts.micros.load(Ordering::Relaxed));
        }
        totals
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Arc<OwnCalls>>> {
        // Nothing panics while it is held.
        self.stores.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl OwnCalls {
    fn counts(&self, call: StoreCall, outcome: CallOutcome) -> Option<&Counts> {
        self.counts.get(call as usize)?.get(outcome as usize)
    }

    /// Counts a call that began at `started`, and passes its answer on. It is not given the call to wait for: a future that is an argument
    /// of another's takes its size twice.
    fn ended<T>(
        &self,
        call: StoreCall,
        started: Instant,
        answer: Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let outcome = if answer.is_ok() { CallOutcome::Succeeded } else { CallOutcome::Failed };
        if let Some(counts) = self.counts(call, outcome) {
            let took = started.elapsed();
            let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
            if let Some(timing) = self.timing.get() {
                timing.record(call as usize * CallOutcome::ALL.len() + outcome as usize, took);
            }
            counts.calls.fetch_add(1, Ordering::Relaxed);
            counts.micros.fetch_add(micros, Ordering::Relaxed);
        }
        answer
    }
}

/// A store whose calls are counted in [`Calls`]. Clones count together.
#[derive(Clone, Debug)]
pub struct Observed<S> {
    store: S,
    calls: Arc<OwnCalls>,
}

impl<S> Observed<S> {
    /// Counts the calls of `store` in `calls`.
    #[must_use]
    pub fn new(store: S, calls: &Calls) -> Self {
        Self::with_breakers(store, calls, [None, None])
    }

    fn with_breakers(store: S, calls: &Calls, [breaker, reports]: [Option<Breaker>; 2]) -> Self {
        let timing = Arc::clone(&calls.timing);
        let own = Arc::new(OwnCalls { timing, breaker, reports, ..OwnCalls::default() });
        calls.lock().push(Arc::clone(&own));
        Self { store, calls: own }
    }
}

impl<S: Backend> Observed<S> {
    /// The same for a store of which decisions are asked and to which usage is reported, with a breaker over each.
    #[must_use]
    pub fn guarded(store: S, calls: &Calls) -> Self {
        let deadline = store.deadline();
        let breakers = [Breaker::new(deadline), Breaker::over_reports(deadline)];
        Self::with_breakers(store, calls, breakers.map(Some))
    }
}

impl<S: Backend> Backend for Observed<S> {
    const KIND: StoreKind = S::KIND;

    fn moment(&self) -> Moment {
        self.store.moment()
    }

    async fn read_clock(&self) -> Result<Timestamp, StoreError> {
        self.store.read_clock().await
    }

    fn is_down(&self) -> bool {
        self.store.is_down()
    }

    fn breaker(&self) -> Option<&Breaker> {
        self.calls.breaker.as_ref()
    }

    fn report_breaker(&self) -> Option<&Breaker> {
        self.calls.reports.as_ref()
    }

    fn deadline(&self) -> Duration {
        self.store.deadline()
    }

    fn acts_within(&self) -> Option<Duration> {
        self.store.acts_within()
    }

    fn probe(&self) -> Option<LoadProbe> {
        self.store.probe()
    }

    async fn ping(&self) -> Result<(), StoreError> {
        self.store.ping().await
    }
}

impl<S: Ledger> Ledger for Observed<S> {
    async fn reserve(&self, reserve: Reserve) -> Result<Reserved, StoreError> {
        let started = Instant::now();
        let attempt = self.calls.breaker.as_ref().map(Breaker::begin);
        let answer = self.store.reserve(reserve).await;
        if let Some(attempt) = attempt {
            attempt.ended(&answer);
        }
        self.calls.ended(StoreCall::Reserve, started, answer)
    }

    async fn find(&self, id: ReservationId) -> Result<Option<Record>, StoreError> {
        let started = Instant::now();
        let attempt = self.calls.reports.as_ref().map(Breaker::begin);
        let answer = self.store.find(id).await;
        if let Some(attempt) = attempt {
            attempt.ended(&answer);
        }
        self.calls.ended(StoreCall::Find, started, answer)
    }

    async fn settle(&self, settle: Settle) -> Result<SettleOutcome, StoreError> {
        let started = Instant::now();
        let attempt = self.calls.reports.as_ref().map(Breaker::begin);
        let answer = self.store.settle(settle).await;
        if let Some(attempt) = attempt {
            attempt.ended(&answer);
        }
        self.calls.ended(StoreCall::Settle, started, answer)
    }

    fn recall(&self, id: ReservationId) -> Option<Record> {
        self.store.recall(id)
    }

    async fn settle_recalled(&self, settle: Settle) -> Result<Option<SettleOutcome>, StoreError> {
        let started = Instant::now();
        let attempt = self.calls.reports.as_ref().map(Breaker::begin);
        let answer = self.store.settle_recalled(settle).await;
        if let Some(attempt) = attempt {
            attempt.ended(&answer);
        }
        self.calls.ended(StoreCall::Settle, started, answer)
    }

    fn found_settled(&self, settle: Settle) {
        self.store.found_settled(settle);
    }

    async fn counters(&self, keys: Vec<(CounterKey, CounterKind)>) -> Result<Vec<CounterState>, StoreError> {
        let started = Instant::now();
        self.calls.ended(StoreCall::Counters, started, self.store.counters(keys).await)
    }

    async fn cooldowns(&self) -> Result<Vec<(CounterKey, Cooldown)>, StoreError> {
        let started = Instant::now();
        self.calls.ended(StoreCall::Cooldowns, started, self.store.cooldowns().await)
    }

    async fn lift_cooldowns(
        &self,
        gates: Vec<CounterKey>,
    ) -> Result<Vec<(CounterKey, Cooldown)>, StoreError> {
        let started = Instant::now();
        self.calls.ended(StoreCall::LiftCooldowns, started, self.store.lift_cooldowns(gates).await)
    }
}

impl<S: Usage> Usage for Observed<S> {
    async fn spenders(&self, month: u32) -> Result<Vec<Arc<str>>, StoreError> {
        let started = Instant::now();
        self.calls.ended(StoreCall::Spenders, started, self.store.spenders(month).await)
    }

    async fn usage(&self, set: UsageSet) -> Result<Vec<(UsageKey, UsageAmounts)>, StoreError> {
        let started = Instant::now();
        self.calls.ended(StoreCall::Spend, started, self.store.usage(set).await)
    }

    async fn usage_of(&self, sets: &[UsageSet]) -> Result<Vec<Vec<(UsageKey, UsageAmounts)>>, StoreError> {
        let started = Instant::now();
        self.calls.ended(StoreCall::Spend, started, self.store.usage_of(sets).await)
    }

    async fn denied(&self, month: u32) -> Result<Vec<Arc<str>>, StoreError> {
        let started = Instant::now();
        self.calls.ended(StoreCall::Denied, started, self.store.denied(month).await)
    }

    async fn add_usage(&self, addition: UsageAddition) -> Result<(), StoreError> {
        let started = Instant::now();
        self.calls.ended(StoreCall::AddUsage, started, self.store.add_usage(addition).await)
    }
}

impl<S: Registry> Registry for Observed<S> {
    async fn registry_since(&self, known: Revision) -> Result<RegistryChanges, StoreError> {
        let started = Instant::now();
        self.calls.ended(StoreCall::RegistrySince, started, self.store.registry_since(known).await)
    }

    async fn registry_write(
        &self,
        name: Arc<str>,
        expected_version: u64,
        value: Bytes,
    ) -> Result<RegistryWritten, StoreError> {
        let started = Instant::now();
        let answer = self.store.registry_write(name, expected_version, value).await;
        self.calls.ended(StoreCall::RegistryWrite, started, answer)
    }

    fn registry_found(&self, name: &Arc<str>, version: u64, value: Bytes) {
        self.store.registry_found(name, version, value);
    }

    async fn hash_key(&self, proposed: Option<[u8; 32]>) -> Result<Option<[u8; 32]>, StoreError> {
        let started = Instant::now();
        self.calls.ended(StoreCall::HashKey, started, self.store.hash_key(proposed).await)
    }

    async fn add_uses(&self, uses: Vec<SecretUse>) -> Result<(), StoreError> {
        let started = Instant::now();
        self.calls.ended(StoreCall::AddUses, started, self.store.add_uses(uses).await)
    }

    async fn uses(&self, secrets: Vec<SecretId>) -> Result<Vec<SecretUses>, StoreError> {
        let started = Instant::now();
        self.calls.ended(StoreCall::Uses, started, self.store.uses(secrets).await)
    }
}

#[cfg(test)]
mod tests;
