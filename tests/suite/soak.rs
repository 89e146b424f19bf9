//! A service under a steady load for long: memory stays flat, keys are as many as their formula says, and answers do not become slower.
//!
//! A minute and a half with all tests, an hour by `make soak`.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use tempfile::TempDir;
use tokio::task::JoinSet;
use tollgate::rpc::proto::policy_service_client::PolicyServiceClient;
use tonic::transport::Channel;

use crate::{
    harness::{Process, StoreKind, chat, organization, used},
    redis_server::RedisServer,
};

const SECONDS: &str = "TOLLGATE_SOAK_SECONDS";
const SHORT: u64 = 90;
const MODEL: &str = "m/test";
const TEAMS: usize = 5;
const CALLERS: usize = 4;
/// Between two requests of a caller: the load is steady, and leaves the machine to others.
const PAUSE: Duration = Duration::from_millis(5);
/// Settled reservations are kept for ten minutes, and the sweep takes some more: past it, Redis is to grow no more.
const FULL_AFTER: Duration = Duration::from_secs(20 * 60);
const MIB: u64 = 1 << 20;
/// What a settled reservation takes in Redis, at most: `docs/internals/stores.md` has what an open one does.
const RECORD: u64 = 400;
/// The keys of an organization that are not of a team, a period or a secret: `docs/internals/stores.md` lists them.
const OWN_KEYS: usize = 22;

fn policy(organization: &str) -> String {
    let mut text = format!(
        "[organization]\nid = \"{organization}\"\n[[prices]]\nmodel = \"{MODEL}\"\n\
         input_usd_per_million_tokens = \"0.001\"\noutput_usd_per_million_tokens = \"0.001\"\n"
    );
    for team in 0..TEAMS {
        text += &format!(
            "[teams.t{team}]\nmodels = [\"{MODEL}\"]\nmax_output_tokens = 100\nbudget = {{ monthly_usd = \"1000\" }}\n\
             tokens_per_minute = 1000000000\n"
        );
    }
    text
}

/// How long each request took until it was answered, and when, since the start.
type Times = Arc<Mutex<Vec<(Duration, Duration)>>>;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_steady_load_takes_no_more_after_long_than_after_a_while() {
    if !StoreKind::Redis.is_available() {
        return;
    }
    let seconds = std::env::var(SECONDS).ok().and_then(|text| text.parse().ok()).unwrap_or(SHORT);
    let length = Duration::from_secs(seconds);
    let (redis, directory, organization) = (RedisServer::start(), TempDir::new().unwrap(), organization());
    let process = Process::start(directory.path(), &policy(&organization), &redis.url()).await;
    let (start, times, is_over) = (Instant::now(), Times::default(), Arc::<AtomicBool>::default());
    let mut callers = JoinSet::new();
    for number in 0..CALLERS {
        let (client, times, is_over) = (process.client().await, Arc::clone(&times), Arc::clone(&is_over));
        callers.spawn(async move { call(client, number, (start, &times), &is_over).await });
    }
    let mut by_hand = redis::Client::open(redis.url()).unwrap().get_connection().unwrap();
    let mut look = || Sizes::of(&mut by_hand, &organization, process.resident());
    // Buffers have grown to what they take by then; in a long run, Redis also keeps all that it will.
    let warm_after = (length / 3).max(FULL_AFTER.min(length / 2));
    tokio::time::sleep(warm_after).await;
    let warm = look();
    tokio::time::sleep(length.saturating_sub(start.elapsed())).await;
    let end = look();
    is_over.store(true, Ordering::Relaxed);
    while let Some(ended) = callers.join_next().await {
        ended.unwrap();
    }
    println!("after {warm_after:?}: {warm:?}\nafter {length:?}: {end:?}");
    assert!(end.resident <= warm.resident * 5 / 4 + 24 * MIB, "the service grows");
    let more = end.records.saturating_sub(warm.records);
    assert!(end.redis <= warm.redis * 11 / 10 + 4 * MIB + more * RECORD, "redis grows by more than records");
    if warm_after >= FULL_AFTER {
        assert!(end.records <= warm.records * 6 / 5 + 1_000, "records are not removed");
    }
    let unknown: Vec<_> = end.keys.iter().filter(|key| !is_of_the_formula(key, &organization)).collect();
    assert!(unknown.is_empty(), "keys that no formula has: {unknown:?}");
    let most = most_keys(&end.keys);
    assert!(end.keys.len() <= most, "{} keys, of {most} at most: {:?}", end.keys.len(), end.keys);
    let times = times.lock().unwrap();
    let third = |from: Duration, to: Duration| {
        let mut took: Vec<_> =
            times.iter().filter(|(at, _)| from <= *at && *at < to).map(|(_, took)| *took).collect();
        took.sort_unstable();
        let place = took.len().saturating_sub(1) * 99 / 100;
        (took.len(), took.get(place).copied().unwrap_or_default())
    };
    // The first seconds are of processes that start.
    let (first, last) = (third(length / 20, length / 3), third(length * 2 / 3, length));
    println!("requests and p99 of the first third: {first:?}, of the last: {last:?}");
    assert!(first.0 > 100 && last.0 > first.0 / 4, "{first:?} {last:?}: the load is steady");
    // A machine that builds beside it is slow for a while: what is looked for becomes slower without end.
    assert!(last.1 <= first.1 * 8 + Duration::from_millis(250), "{first:?} {last:?}");
}

async fn call(
    mut client: PolicyServiceClient<Channel>,
    number: usize,
    (start, times): (Instant, &Times),
    is_over: &AtomicBool,
) {
    for request in 0_usize.. {
        if is_over.load(Ordering::Relaxed) {
            return;
        }
        let team = format!("t{}", (number + request) % TEAMS);
        let asked = Instant::now();
        let answer = client.authorize(chat(&team, MODEL, 100, 50)).await.unwrap().into_inner();
        let took = asked.elapsed();
        client.record_usage(used(&answer.reservation_id, 100, 50)).await.unwrap();
        times.lock().unwrap().push((start.elapsed(), took));
        tokio::time::sleep(PAUSE).await;
    }
}

/// What is taken at one moment.
#[derive(Debug)]
struct Sizes {
    /// Bytes of the service in memory.
    resident: u64,
    /// Bytes that Redis has given out.
    redis: u64,
    records: u64,
    keys: Vec<String>,
}

impl Sizes {
    fn of(by_hand: &mut redis::Connection, organization: &str, resident: u64) -> Self {
        let info: String = redis::cmd("INFO").arg("memory").query(by_hand).unwrap();
        let used = info.lines().find_map(|line| line.strip_prefix("used_memory:")).unwrap();
        let records = format!("tollgate:{{{organization}}}:records");
        let records = redis::cmd("HLEN").arg(records).query(by_hand).unwrap();
        let mut keys: Vec<String> = redis::cmd("KEYS").arg("*").query(by_hand).unwrap();
        keys.sort();
        Self { resident, redis: used.trim().parse().unwrap(), records, keys }
    }
}

/// What is left of a key of the organization: `usage:d:202611:t1`.
fn rest<'k>(key: &'k str, organization: &str) -> Option<&'k str> {
    key.strip_prefix(&format!("tollgate:{{{organization}}}:"))
}

/// Keys that are there once, and the beginnings of those of a team, a period, a process, a queue or a secret.
const ONCE: [&str; 20] = [
    "meta",
    "counters",
    "cooldowns",
    "history",
    "records",
    "terms",
    "unreported",
    "sweep",
    "registry",
    "registry:revision",
    "audit",
    "replicas",
    "decisions",
    "decisions:watched",
    "policies",
    "policies:documents",
    "outbox",
    "outbox:order",
    "outbox:due",
    "outbox:crossings",
];
const MANY: [&str; 7] = ["reported:", "usage:d:", "usage:h:", "spenders:", "outbox:due:", "added:", "uses:"];

fn is_of_the_formula(key: &str, organization: &str) -> bool {
    let is_known = |rest: &str| ONCE.contains(&rest) || MANY.iter().any(|start| rest.starts_with(start));
    key == "tollgate:meta" || rest(key, organization).is_some_and(is_known)
}

/// The formula of `docs/internals/stores.md`, for teams without users, labels, denials and secrets, and budgets of a month: for each month a
/// set of rows of days for each team and one for the organization, for each day a set of rows of hours for each team; and the keys that
/// are there once.
fn most_keys(keys: &[String]) -> usize {
    let periods = |series: &str| {
        let of = keys.iter().filter_map(|key| key.split_once(series)?.1.split(':').next());
        let mut periods: Vec<_> = of.collect();
        periods.sort_unstable();
        periods.dedup();
        periods.len()
    };
    let (months, days) = (periods(":usage:d:"), periods(":usage:h:"));
    // `spenders` and `reported` are of a month as well.
    months * (TEAMS + 1 + 2) + days * TEAMS + OWN_KEYS
}
