//! One world from its beginning to its verdict.

use std::{fmt, sync::Arc, time::Duration};

use tokio::{
    task::JoinSet,
    time::{Instant, sleep, timeout},
};

use super::{
    alerts,
    client::Client,
    faults::{Course, Stop},
    history::History,
    operator::{Keyring, Operator},
    replica::{Fleet, Manner, Replica},
    rng::Rng,
    spools,
    store::{Means, Side, Simulated},
    verdict::{self, Broken},
};
use crate::{
    domain::Timestamp,
    runtime::simulated::{self, SimulatedTime},
    spool::SimulatedDisk,
};

/// Clients, the operator and what goes wrong end within minutes, or never.
const PATIENCE: Duration = Duration::from_secs(60 * 60);
/// After everything works again, at most: long enough for the slowest release, which pauses up to ten seconds between two attempts.
const RECOVERY: Duration = Duration::from_secs(45);
/// After that, at most: what a replica had claimed of alerts when it died, or when the answer to its claim was lost, is due again, twice.
const LEASES: Duration = Duration::from_secs(150);
/// Between two looks whether a world has come to rest: longer than the latest call of the store and the longest stall of a disk.
const LOOK: Duration = Duration::from_secs(5);
/// After which nothing is reserved any more.
const EXPIRY: Duration = Duration::from_secs(15 * 60);

/// After which no window of a minute counts anything.
const WINDOWS: Duration = Duration::from_secs(2 * 60);

/// What a world came to.
#[derive(Debug)]
pub(super) struct Ended {
    pub(super) seed: u64,
    pub(super) broken: Vec<Broken>,
    /// Of everything that happened, in its order.
    pub(super) trace: u64,
    pub(super) events: u64,
    pub(super) grants: usize,
    pub(super) booked: usize,
    pub(super) alerts: usize,
    pub(super) degraded: usize,
    pub(super) spooled: usize,
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "seed {}:", self.seed)?;
        self.broken.iter().try_for_each(|Broken { invariant, what }| writeln!(f, "  {invariant:?}: {what}"))
    }
}

/// Runs the world of `seed` over the store that `make` makes, which begins at a time.
pub(super) fn run<S: Simulated>(
    seed: u64,
    course: Course,
    make: impl FnOnce(Timestamp) -> (S, Means<S>),
) -> Ended {
    let (store, means) = make(Timestamp(course.start_ms));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.expect("a runtime").block_on(world(seed, course, (store, means)))
}

async fn world<S: Simulated>(seed: u64, course: Course, (store, means): (S, Means<S>)) -> Ended {
    let mut rng = Rng::new(seed ^ 0x5eed);
    let _time = SimulatedTime::begin(Timestamp(course.start_ms));
    let history = Arc::new(History::new(course.book));
    let _sink = alerts::sink(&history);
    if let Some(power) = &means.power {
        power.begin(&history);
    }
    let side = Arc::new(Side::new(store, Arc::clone(&history), (&course, rng.split()), means));
    let manner = Manner { follows: course.follows, delivers: course.delivers, spools: course.spools };
    let disks: Vec<_> = (0..course.replicas).map(|_| SimulatedDisk::default()).collect();
    let replicas = disks.iter().zip(0..);
    let replicas =
        replicas.map(|(disk, number)| Arc::new(Replica::start(&side, number, (manner, disk), &mut rng)));
    let fleet = Arc::new(Fleet::new(replicas.collect()));
    let keys = Arc::new(Keyring::default());

    let shared = Shared { fleet: &fleet, history: &history, keys: &keys, side: &side };
    all_end(begin(&course, shared, (manner, &disks), &mut rng), &history).await;
    side.calm();
    let replicas = fleet.all();
    let spools = || replicas.iter().filter_map(|replica| replica.spool.as_ref());
    let left = async || {
        verdict::of_leaks(&history).into_iter().chain(spools().filter_map(verdict::of_spool)).collect()
    };
    let mut broken = at_rest(RECOVERY, left).await;
    if course.delivers {
        // The verdict looks at them once more.
        at_rest(LEASES, async || verdict::of_alerts(&history, &side, true).await).await;
    }
    for replica in replicas {
        replica.rest();
    }
    if broken.is_empty() {
        // Nothing was reserved by what came to rest.
        broken = verdict::of_leaks(&history);
    }
    sleep(EXPIRY).await;
    let aside = disks.iter().flat_map(SimulatedDisk::refused).collect();
    if !course.delivers {
        report_late(&fleet, (&history, &keys), &mut rng).await;
    }
    sleep(WINDOWS).await;
    broken.extend(verdict::of_limits(&history));
    broken.extend(verdict::of_books(&history, &side).await);
    broken.extend(verdict::of_reports(&history, &aside));
    broken.extend(verdict::of_alerts(&history, &side, course.delivers).await);
    broken.extend(verdict::of_control(&history));
    broken.extend(verdict::of_outages(&history));
    let records = history.lock();
    let booked = records.grants.iter().filter(|grant| grant.cost() > 0).count();
    let delivered = records.delivered.len();
    Ended {
        seed,
        broken,
        trace: records.trace,
        events: records.events,
        grants: records.grants.len(),
        booked,
        alerts: delivered,
        degraded: records.degraded.len(),
        spooled: records.spooled,
    }
}

/// What everything in a world has to do with.
struct Shared<'w, S: Simulated> {
    fleet: &'w Arc<Fleet<S>>,
    history: &'w Arc<History>,
    keys: &'w Arc<Keyring>,
    side: &'w Arc<Side<S>>,
}

/// Begins everything that happens in a world.
fn begin<S: Simulated>(
    course: &Course,
    Shared { fleet, history, keys, side }: Shared<'_, S>,
    (manner, disks): (Manner, &[SimulatedDisk]),
    rng: &mut Rng,
) -> JoinSet<()> {
    let mut going = JoinSet::new();
    for number in 0..course.clients {
        let (fleet, history, keys) = (Arc::clone(fleet), Arc::clone(history), Arc::clone(keys));
        let client = Client { number, fleet, history, keys, rng: rng.split() };
        going.spawn(client.run(course.requests, course.pause_ms));
    }
    if course.operates {
        let (fleet, history, keys) = (Arc::clone(fleet), Arc::clone(history), Arc::clone(keys));
        let operator = Operator { fleet, history, keys, rng: rng.split() };
        going.spawn(operator.run(course.requests * (course.pause_ms / 2 + 800)));
    }
    for (nth, stop) in course.stops.iter().enumerate() {
        let number = course.replicas + nth;
        let next = (number, manner, disks[stop.replica].clone());
        going.spawn(stops(*stop, next, Arc::clone(fleet), Arc::clone(side), rng.split()));
    }
    if let Some(failover) = course.failover {
        let (side, away) = (Arc::clone(side), Duration::from_millis(rng.between(0, 3_000)));
        going.spawn(async move {
            sleep(Duration::from_millis(failover.at)).await;
            side.fail_over(Duration::from_millis(failover.lag_ms), away).await;
        });
    }
    for step in course.steps.clone() {
        let history = Arc::clone(history);
        going.spawn(async move {
            sleep(Duration::from_millis(step.at)).await;
            simulated::step(step.ms);
            history.note("step", &[step.ms.unsigned_abs(), u64::from(step.ms < 0)]);
        });
    }
    going
}

/// Waits until everything of a world has ended.
async fn all_end(mut going: JoinSet<()>, history: &History) {
    let ended = async {
        while let Some(ended) = going.join_next().await {
            if let Err(error) = ended {
                history.surprise(format!("a part of the world panicked: {error}"));
            }
        }
    };
    if timeout(PATIENCE, ended).await.is_err() {
        history.surprise(format!("a part of the world does not end within {PATIENCE:?}"));
        going.shutdown().await;
    }
}

/// Waits until nothing is left to do, at most for `most`. What is left then.
async fn at_rest(most: Duration, left: impl AsyncFn() -> Vec<Broken>) -> Vec<Broken> {
    let began = Instant::now();
    loop {
        sleep(LOOK).await;
        let left = left().await;
        if left.is_empty() || began.elapsed() >= most {
            return left;
        }
    }
}

/// A replica ends, and another one takes its place.
async fn stops<S: Simulated>(
    stop: Stop,
    (number, manner, disk): (usize, Manner, SimulatedDisk),
    fleet: Arc<Fleet<S>>,
    side: Arc<Side<S>>,
    mut rng: Rng,
) {
    sleep(Duration::from_millis(stop.at)).await;
    let Some(replica) = fleet.take(stop.replica) else { return };
    side.history.note(if stop.is_kill { "kill" } else { "end" }, &[stop.replica as u64]);
    if stop.is_kill {
        replica.kill();
    } else {
        replica.end().await;
    }
    // Where the store was away at its end, it gave up what it was to give back.
    side.history.lock().ended.insert(replica.number);
    drop(replica);
    side.restart(stop.is_kill).await;
    sleep(Duration::from_millis(stop.back_after)).await;
    spools::left(&disk, side.means.mutant, stop.is_kill).await;
    fleet.put(stop.replica, Arc::new(Replica::start(&side, number, (manner, &disk), &mut rng)));
}

/// Some of what was never reported is reported after its expiry.
async fn report_late<S: Simulated>(
    fleet: &Arc<Fleet<S>>,
    (history, keys): (&Arc<History>, &Arc<Keyring>),
    rng: &mut Rng,
) {
    let count = history.lock().asked.len();
    for place in 0..count {
        let is_silent = {
            let records = history.lock();
            records.asked[place].told.is_some() && records.asked[place].report.is_none()
        };
        if is_silent && rng.chance(300) {
            let (fleet, history, keys) = (Arc::clone(fleet), Arc::clone(history), Arc::clone(keys));
            let client = Client { number: usize::MAX, fleet, history, keys, rng: rng.split() };
            client.report_late(place).await;
        }
    }
}
