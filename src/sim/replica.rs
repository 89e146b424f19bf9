//! The replicas of the service: the real authorizer, its followers and its control plane, over the store of the world.

use std::{
    future::Future,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::{oneshot, watch},
    task::{AbortHandle, JoinSet},
    time::Instant,
};

use super::{
    alerts,
    faults::CLIENT_PATIENCE_MS,
    history::{Degraded, History, Passed},
    mutant::Mutant,
    rng::Rng,
    rules, spools,
    store::{Side, SimStore, Simulated},
};
use crate::{
    alerts::Dispatcher,
    authorizer::{
        Authorizer, Bounds, Failure, Question, Recorded, ReservationName, Shared, SpoolDelivery, View, by,
    },
    domain::{
        decision::Allowed,
        rbac::TeamScope,
        request::{AuthorizeRequest, Caller, Outcome, Unreserved, Usage},
    },
    live::Live,
    runtime::{Entropy, Runtime, clock::Clock},
    spool::{SimulatedDisk, Spool},
    store::{Calls, Observed},
};

pub(super) type Service<S> = Authorizer<Observed<SimStore<S>>>;

/// One process of the service.
pub(super) struct Replica<S: Simulated> {
    pub(super) authorizer: Service<S>,
    pub(super) entropy: Entropy,
    /// Those that start in the place of others have numbers of their own.
    pub(super) number: usize,
    shared: Arc<Shared>,
    lives: Arc<AtomicBool>,
    stop: watch::Sender<bool>,
    /// Everything that runs in it for a call.
    calls: Mutex<JoinSet<()>>,
    /// Everything that runs in it by itself.
    tasks: Mutex<JoinSet<()>>,
    delivery: Mutex<Option<SpoolDelivery<Observed<SimStore<S>>>>>,
    pub(super) spool: Option<Spool>,
}

/// How the replicas of a world run.
#[derive(Clone, Copy)]
pub(super) struct Manner {
    pub(super) follows: bool,
    pub(super) delivers: bool,
    pub(super) spools: bool,
}

/// What a caller is told.
#[derive(Clone, Debug)]
pub(super) enum Told {
    Allowed { name: ReservationName, output: u64 },
    Denied,
    Failed(Failure),
}

/// How long a stop waits for what is left in the spool.
const FLUSH: Duration = Duration::from_secs(2);

/// A call in progress, which ends when it is dropped, as the server sees that its caller left.
struct Call(AbortHandle);

impl Drop for Call {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl<S: Simulated> Replica<S> {
    pub(super) fn start(
        side: &Arc<Side<S>>,
        number: usize,
        (manner, disk): (Manner, &SimulatedDisk),
        rng: &mut Rng,
    ) -> Self {
        let lives = Arc::new(AtomicBool::new(true));
        let store = SimStore { side: Arc::clone(side), lives: Arc::clone(&lives), replica: number };
        let entropy = Entropy::seeded(rng.next());
        let calls = Calls::default();
        let runtime = Runtime { clock: Clock::System, entropy: entropy.clone() };
        let counts = side.means.mutant != Some(Mutant::UncountedAllowance);
        let policy = rules::policy(side.history.book, counts);
        let live = Live::new(policy).drawing_from(entropy.clone());
        let (spool, writer) = manner.spools.then(|| disk.open()).unzip();
        let shared = Arc::new(Shared::new(Arc::new(live)).with_spool(spool.clone()));
        let authorizer =
            Authorizer::new(Observed::guarded(store.clone(), &calls), runtime.clone(), Arc::clone(&shared));
        let (stop, stopped) = watch::channel(false);
        let mut tasks = JoinSet::new();
        let delivery = writer.and_then(|writer| {
            tasks.spawn(spools::write(writer, side.means.mutant, rng.split()));
            let own = Observed::new(store.clone(), &calls);
            SpoolDelivery::start(Authorizer::new(own, runtime.clone(), Arc::clone(&shared)))
        });
        if manner.follows {
            let follower = authorizer.follower().clone();
            tasks.spawn(async move { follower.follow(0, stopped).await });
        }
        if manner.delivers {
            let facts = alerts::facts(side.history.book);
            let live = Arc::clone(&shared.live);
            let dispatcher = Dispatcher::new(store, (live, facts), alerts::receivers(), runtime);
            tasks.spawn(dispatcher.run());
        }
        let (calls, tasks, delivery) = (Mutex::default(), Mutex::new(tasks), Mutex::new(delivery));
        Self { authorizer, entropy, number, shared, lives, stop, calls, tasks, delivery, spool }
    }

    /// Kills it: nothing of it runs any more, not even what would give back what it holds.
    pub(super) fn kill(&self) {
        self.lives.store(false, Ordering::Relaxed);
        self.calls.lock().unwrap().abort_all();
        self.tasks.lock().unwrap().abort_all();
        self.delivery.lock().unwrap().take();
    }

    /// Ends it as it ends on SIGTERM: what runs is waited for.
    pub(super) async fn end(&self) {
        self.shared.queue.close();
        self.stop.send_replace(true);
        let mut calls = std::mem::take(&mut *self.calls.lock().unwrap());
        while calls.join_next().await.is_some() {}
        self.authorizer.settler().end().await;
        let delivery = self.delivery.lock().unwrap().take();
        if let Some(delivery) = delivery {
            delivery.flush(Instant::now() + FLUSH).await;
        }
        self.tasks.lock().unwrap().abort_all();
    }

    /// Ends what it does by itself.
    pub(super) fn rest(&self) {
        self.stop.send_replace(true);
        self.tasks.lock().unwrap().abort_all();
        self.delivery.lock().unwrap().take();
    }

    /// Runs a call in it; `None`: the connection broke, or the caller's patience.
    async fn run<T: Send + 'static>(&self, call: impl Future<Output = T> + Send + 'static) -> Option<T> {
        let (answer, answered) = oneshot::channel();
        let handle = self.calls.lock().unwrap().spawn(async move {
            // The caller may have left.
            let _ = answer.send(call.await);
        });
        let _call = Call(handle);
        let patience = Duration::from_millis(CLIENT_PATIENCE_MS);
        tokio::time::timeout(patience, answered).await.ok()?.ok()
    }

    /// `Authorize`. `loses`: the connection breaks before the answer is on it.
    pub(super) async fn authorize(
        &self,
        request: AuthorizeRequest,
        team: usize,
        (history, says_deadline, loses): (&Arc<History>, bool, bool),
    ) -> Option<Told> {
        let (authorizer, history) = (self.authorizer.clone(), Arc::clone(history));
        let patience = Duration::from_millis(CLIENT_PATIENCE_MS);
        let until = says_deadline.then(|| (Instant::now() + patience).into_std());
        let (began, number) = (history.now(), self.number);
        let is_keyed = !matches!(request.caller, Caller::Team(_));
        self.run(async move {
            let View { snapshot, fresh } = authorizer.view(until).await;
            let caller = snapshot.resolve(&request.caller);
            let question =
                Question { request: &request, snapshot: &snapshot, caller: &caller, fresh: &fresh };
            let (decided, check) = match authorizer.authorize(question, until).await {
                Ok(decided) => decided,
                Err(failure) => return Some(Told::Failed(failure)),
            };
            let Ok(allowed) = &decided.outcome else { return Some(Told::Denied) };
            let (ended, is_degraded) = (history.now(), decided.degraded);
            history.lock().passed.push(Passed { team, began, ended, is_keyed, is_degraded });
            if is_degraded && !request.dry_run {
                history.degraded(degraded(&request, allowed, (team, number, ended)));
            }
            if loses {
                return None;
            }
            let name: ReservationName = allowed.reservation.as_ref()?.0.parse().ok()?;
            check.delivered();
            history.delivered(name.id());
            Some(Told::Allowed { name, output: allowed.max_output_tokens })
        })
        .await?
    }

    /// `RecordUsage` of a reservation.
    pub(super) async fn record(
        &self,
        name: ReservationName,
        usage: Option<Usage>,
        outcome: Outcome,
    ) -> Option<Result<Recorded, Failure>> {
        let authorizer = self.authorizer.clone();
        self.run(async move { authorizer.record_named(&name, usage, outcome, 0, &TeamScope::All).await })
            .await
    }

    /// `RecordUsage` by the `request_id`.
    pub(super) async fn record_unreserved(
        &self,
        subject: Unreserved,
        usage: Option<Usage>,
        outcome: Outcome,
    ) -> Option<Result<Recorded, Failure>> {
        let authorizer = self.authorizer.clone();
        self.run(async move {
            let snapshot = authorizer.snapshot();
            let caller = snapshot.resolve(&subject.caller);
            let record = authorizer.record_unreserved(
                (&snapshot, &caller),
                &subject,
                (usage, outcome),
                0,
                Bounds::None,
            );
            by(None, record).await.unwrap_or_else(|error| Err(error.into()))
        })
        .await
    }
}

/// What a decision without the store admitted, by the prices in plain numbers.
fn degraded(
    request: &AuthorizeRequest,
    allowed: &Allowed,
    (team, replica, at): (usize, usize, u64),
) -> Degraded {
    let (input, output) = (request.size.input_tokens, allowed.max_output_tokens);
    let nanos = rules::cost(request.model == rules::ODD_MODEL, input, output);
    Degraded { team, replica, at, tokens: input + output, nanos, age: None }
}

/// The replicas of a world; a place is empty while one is down.
pub(super) struct Fleet<S: Simulated>(Mutex<Vec<Option<Arc<Replica<S>>>>>);

impl<S: Simulated> Fleet<S> {
    pub(super) fn new(replicas: Vec<Arc<Replica<S>>>) -> Self {
        Self(Mutex::new(replicas.into_iter().map(Some).collect()))
    }

    /// One that runs.
    pub(super) fn any(&self, rng: &mut Rng) -> Option<Arc<Replica<S>>> {
        let fleet = self.0.lock().unwrap();
        rng.pick(&fleet).clone()
    }

    pub(super) fn all(&self) -> Vec<Arc<Replica<S>>> {
        self.0.lock().unwrap().iter().flatten().cloned().collect()
    }

    pub(super) fn take(&self, number: usize) -> Option<Arc<Replica<S>>> {
        self.0.lock().unwrap()[number].take()
    }

    pub(super) fn put(&self, number: usize, replica: Arc<Replica<S>>) {
        self.0.lock().unwrap()[number] = Some(replica);
    }
}
