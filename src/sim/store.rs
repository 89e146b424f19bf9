//! The store of a world, as its replicas reach it: over a network that delays, loses and repeats nothing by itself, to a store that goes
//! away, comes back, and may have forgotten.

use std::{
    future::{Future, pending},
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    time::Duration,
};

use tokio::{
    runtime::Handle,
    time::{Instant, sleep, timeout},
};

use super::{
    faults::{Course, Fate},
    history::History,
    mutant::Mutant,
    rng::Rng,
};
use crate::{
    domain::counter::{CounterKey, CounterKind, CounterState},
    runtime::clock::{Clock, ManualClock},
    store::{
        Cooldown, Ledger, Record, ReservationId, Reserve, Reserved, Settle, SettleOutcome, Store, StoreError,
    },
};

/// How long a replica waits for the store.
pub(super) const DEADLINE: Duration = Duration::from_millis(250);

/// What brings a store back to an earlier state.
pub(super) type Restore<S> = Box<dyn FnOnce(&S) + Send>;

/// A store that a world can have.
pub(super) trait Simulated: Store + Sized {
    /// Brings it back to the state that it has now; `None`: it never forgets.
    fn saved(&self) -> Option<Restore<Self>> {
        None
    }
}

/// What a store runs on that ends with its replica.
pub(super) trait Power<S>: Send + Sync {
    /// The store by what is on the disk.
    fn on(&self) -> S;

    /// From now on its disk is written to.
    fn begin(&self, history: &Arc<History>);

    /// Ends it, or fails. Nothing that waits for the disk is answered then.
    fn off<'a>(
        &'a self,
        is_failure: bool,
        history: &'a Arc<History>,
    ) -> Pin<Box<dyn Future<Output = ()> + Send + 'a>>;
}

/// How one store is reached.
pub(super) struct Means<S> {
    /// A clock of its own, which gets the time of the world before each call.
    pub(super) clock: Option<ManualClock>,
    /// Where its calls run, if not here: on a runtime whose time is real. Time here stands still then.
    pub(super) elsewhere: Option<Handle>,
    pub(super) power: Option<Arc<dyn Power<S>>>,
    pub(super) mutant: Option<Mutant>,
}

impl<S> Default for Means<S> {
    fn default() -> Self {
        Self { clock: None, elsewhere: None, power: None, mutant: None }
    }
}

/// Gives a clock the time of the world.
pub(super) fn follow(clock: &ManualClock) {
    let (wall, passed) = Clock::System.read();
    let ms = passed.since(clock.monotonic()).as_millis();
    if ms > 0 {
        clock.pass(u64::try_from(ms).unwrap_or(u64::MAX));
    }
    if clock.now() != wall {
        clock.step(wall);
    }
}

/// What all replicas reach.
pub(super) struct Side<S> {
    store: Mutex<Option<Arc<S>>>,
    pub(super) history: Arc<History>,
    pub(super) means: Means<S>,
    course: Course,
    rng: Mutex<Rng>,
    /// Whether nothing goes wrong any more.
    is_calm: AtomicBool,
    /// Until when it is away after a failover.
    away_until: Mutex<Option<Instant>>,
    /// Settlements that were asked for and not answered: when, and in which step.
    unsure: Mutex<Vec<(Settle, (u64, u64))>>,
}

/// Keeps the time from moving: it does not while something runs on another thread.
struct Still(#[expect(dead_code, reason = "its end is heard")] mpsc::Sender<()>);

impl Still {
    fn hold() -> Self {
        let (hold, held) = mpsc::channel();
        // It ends with the sender.
        tokio::task::spawn_blocking(move || held.recv().is_ok());
        Self(hold)
    }
}

impl<S: Simulated> Side<S> {
    pub(super) fn new(
        store: S,
        history: Arc<History>,
        (course, rng): (&Course, Rng),
        means: Means<S>,
    ) -> Self {
        Self {
            store: Mutex::new(Some(Arc::new(store))),
            history,
            means,
            course: course.clone(),
            rng: Mutex::new(rng),
            is_calm: AtomicBool::new(false),
            away_until: Mutex::default(),
            unsure: Mutex::default(),
        }
    }

    /// The store, with the time of the world.
    pub(super) fn store(&self) -> Arc<S> {
        if let Some(clock) = &self.means.clock {
            follow(clock);
        }
        self.store.lock().unwrap().clone().expect("a store that runs")
    }

    /// Ends the store, with what it has in memory where its power fails, and begins again by what is on its disk.
    pub(super) async fn restart(&self, is_failure: bool) {
        let Some(power) = self.means.power.clone() else { return };
        power.off(is_failure, &self.history).await;
        // Calls that were in it end.
        while Arc::strong_count(self.store.lock().unwrap().as_ref().expect("a store that ran")) > 1 {
            sleep(Duration::from_millis(1)).await;
        }
        if let Some(clock) = &self.means.clock {
            follow(clock);
        }
        *self.store.lock().unwrap() = None;
        *self.store.lock().unwrap() = Some(Arc::new(power.on()));
        power.begin(&self.history);
        self.look_for_unanswered().await;
    }

    /// What became of the settlements that had no answer, by what the store has now.
    async fn look_for_unanswered(&self) {
        let unsure = std::mem::take(&mut *self.unsure.lock().unwrap());
        for (settle, asked) in unsure {
            let id = settle.id;
            let found = self.on(move |store| async move { store.find(id).await }).await;
            let found = found.expect("a store that answers");
            if found.is_some_and(|record| record.settlement.is_some()) {
                self.history.settled(&settle, asked);
            }
        }
    }

    /// From now on nothing goes wrong.
    pub(super) fn calm(&self) {
        self.is_calm.store(true, Ordering::Relaxed);
    }

    fn fate(&self) -> Fate {
        if self.is_calm.load(Ordering::Relaxed) {
            return Fate::Prompt;
        }
        let is_away = self.away_until.lock().unwrap().is_some_and(|until| Instant::now() < until);
        match self.course.outage(self.history.now()) {
            _ if is_away => Fate::Refused,
            Some(outage) if outage.refuses => Fate::Refused,
            Some(_) => Fate::Lost,
            None => self.course.weather.fate(&mut self.rng.lock().unwrap()),
        }
    }

    /// Loses what comes within `lag` from now, and is away after that.
    pub(super) async fn fail_over(&self, lag: Duration, away: Duration) {
        let Some(back) = self.store().saved() else { return };
        let last = self.history.lock().steps;
        sleep(lag).await;
        back(&self.store());
        if self.means.mutant != Some(Mutant::ForgetsTail) {
            self.history.lose_after(last, true);
            *self.away_until.lock().unwrap() = Some(Instant::now() + away);
        }
    }

    pub(super) async fn on<T, F>(&self, call: impl FnOnce(Arc<S>) -> F + Send) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, StoreError>> + Send + 'static,
    {
        let call = call(self.store());
        match &self.means.elsewhere {
            None => call.await,
            Some(elsewhere) => {
                let _still = Still::hold();
                elsewhere.spawn(call).await.unwrap_or(Err(StoreError::Corrupt))
            }
        }
    }

    async fn settle(self: Arc<Self>, settle: Settle) -> Result<SettleOutcome, StoreError> {
        // A store decides when it is asked, and answers once that is on its disk.
        let (known, asked) = (settle.clone(), (self.history.now(), self.history.step()));
        let mutant = self.means.mutant;
        let outcome = self
            .on(move |store| async move {
                match mutant {
                    Some(mutant) => mutant.settle(&*store, settle).await,
                    None => store.settle(settle).await,
                }
            })
            .await;
        match &outcome {
            Ok(SettleOutcome::Settled(_)) => self.history.settled(&known, asked),
            Err(_) => self.unsure.lock().unwrap().push((known, asked)),
            Ok(_) => {}
        }
        outcome
    }
}

/// The store as one replica reaches it.
pub(super) struct SimStore<S> {
    pub(super) side: Arc<Side<S>>,
    /// Whether the replica lives: nothing that is left of a dead one reaches anything.
    pub(super) lives: Arc<AtomicBool>,
    pub(super) replica: usize,
}

impl<S> Clone for SimStore<S> {
    fn clone(&self) -> Self {
        Self { side: Arc::clone(&self.side), lives: Arc::clone(&self.lives), replica: self.replica }
    }
}

impl<S: Simulated> SimStore<S> {
    pub(super) async fn call<T, F>(
        &self,
        apply: impl FnOnce(Arc<Side<S>>) -> F + Send + 'static,
    ) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, StoreError>> + Send,
    {
        if !self.lives.load(Ordering::Relaxed) {
            pending::<()>().await;
        }
        let side = Arc::clone(&self.side);
        match side.fate() {
            Fate::Prompt => apply(side).await,
            Fate::Refused => Err(StoreError::Unavailable),
            Fate::Lost => {
                sleep(DEADLINE).await;
                Err(StoreError::Unavailable)
            }
            Fate::Slow { before_ms, after_ms, answer_lost } => {
                // It arrives even if its caller has left by then.
                let call = tokio::spawn(async move {
                    sleep(Duration::from_millis(before_ms)).await;
                    let answer = apply(side).await;
                    sleep(Duration::from_millis(after_ms)).await;
                    if answer_lost {
                        pending::<()>().await;
                    }
                    answer
                });
                match timeout(DEADLINE, call).await {
                    Ok(Ok(answer)) => answer,
                    _ => Err(StoreError::Unavailable),
                }
            }
        }
    }

    /// One that has no particulars.
    pub(super) async fn pass<T, F>(
        &self,
        call: impl FnOnce(Arc<S>) -> F + Send + 'static,
    ) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, StoreError>> + Send + 'static,
    {
        self.call(move |side| async move { side.on(call).await }).await
    }
}

fn low_bits(id: ReservationId) -> u64 {
    let [.., high, low] = id.0;
    u64::from(u16::from_be_bytes([high, low]))
}

fn kind(reserved: &Result<Reserved, StoreError>) -> u64 {
    match reserved {
        Ok(Reserved::Granted { .. }) => 0,
        Ok(Reserved::Refused { .. }) => 1,
        Ok(Reserved::Repeated(_)) => 2,
        Ok(Reserved::OutOfDate { .. }) => 3,
        Err(_) => 4,
    }
}

impl<S: Simulated> Ledger for SimStore<S> {
    async fn reserve(&self, reserve: Reserve) -> Result<Reserved, StoreError> {
        let (replica, asked, bits) = (self.replica, self.side.history.now(), low_bits(reserve.id));
        let answer = self.call(move |side| async move {
            let taken = match side.means.mutant {
                Some(mutant) => mutant.reserve(reserve.clone()),
                None => reserve.clone(),
            };
            // A store decides when it is asked.
            let step = side.history.step();
            let reserved = side.on(move |store| async move { store.reserve(taken).await }).await?;
            if let Reserved::Granted { .. } = &reserved
                && !reserve.dry_run
            {
                side.history.granted(&reserve, (replica, asked, step));
            }
            Ok(reserved)
        });
        let answer = answer.await;
        self.side.history.note("reserve", &[replica as u64, kind(&answer), bits]);
        answer
    }

    async fn find(&self, id: ReservationId) -> Result<Option<Record>, StoreError> {
        let found = self.pass(move |store| async move { store.find(id).await }).await;
        let is_there = found.as_ref().map_or(2, |found| u64::from(found.is_some()));
        self.side.history.note("find", &[self.replica as u64, is_there, low_bits(id)]);
        found
    }

    async fn settle(&self, settle: Settle) -> Result<SettleOutcome, StoreError> {
        if self.side.means.power.is_some() {
            // What is decided gets on the disk even if its caller leaves.
            let (side, lives) = (Arc::clone(&self.side), Arc::clone(&self.lives));
            if lives.load(Ordering::Relaxed) {
                return tokio::spawn(side.settle(settle)).await.unwrap_or(Err(StoreError::Unavailable));
            }
        }
        self.call(move |side| side.settle(settle)).await
    }

    async fn counters(&self, keys: Vec<(CounterKey, CounterKind)>) -> Result<Vec<CounterState>, StoreError> {
        self.pass(move |store| async move { store.counters(keys).await }).await
    }

    async fn cooldowns(&self) -> Result<Vec<(CounterKey, Cooldown)>, StoreError> {
        self.pass(|store| async move { store.cooldowns().await }).await
    }

    async fn lift_cooldowns(
        &self,
        gates: Vec<CounterKey>,
    ) -> Result<Vec<(CounterKey, Cooldown)>, StoreError> {
        self.pass(move |store| async move { store.lift_cooldowns(gates).await }).await
    }
}
