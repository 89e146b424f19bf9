//! What a report of a year costs with as many keys as an organization may have, and what decisions on the same core notice of it.
//!
//! Run with `cargo bench --bench usage` (`-- --days N --keys N`). It books one request of each key and day in an embedded store whose disk
//! is not waited for, which takes minutes; then it asks as `QueryUsage` does. The yardstick of the same run is the same loop of decisions
//! without a report.
#![expect(
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "a program for developers: it stops where it cannot measure"
)]

#[path = "../support/histogram.rs"]
#[expect(dead_code, reason = "one thread measures, so there is nothing to merge")]
mod histogram;

use std::{
    env, fs,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use histogram::Histogram;
use tollgate::{
    domain::{
        MAX_AMOUNT, Timestamp,
        counter::{CounterKey, CounterKind, Hold},
        rbac::TeamScope,
        request::{Operation, ServiceTier},
    },
    live::Live,
    policy_file::parse_policy_at,
    reports::{Dimension, Granularity, UsageQuery, UsageReports},
    runtime::clock::{Clock, ManualClock},
    store::{
        Ledger as _, ReservationId, Reserve, Reserved, Series, Settle, SettleOutcome, UsageAmounts, UsageKey,
        UsageSet, embedded::EmbeddedStore,
    },
};

const POLICY: &str = "[organization]\nid = \"acme\"\n[teams.t000]\nmodels = [\"*\"]\n";
/// Noon of 1 December 2025, so that a year is what is kept.
const START: Timestamp = Timestamp(1_764_590_400_000);
const DAY_MS: u64 = 86_400_000;
const TEAMS: usize = 100;
const MODELS: [&str; 4] =
    ["openai/gpt-oss-120b", "openai/gpt-oss-20b", "llama-3.3-70b-versatile", "qwen/qwen3-32b"];
/// Requests that are booked together.
const TOGETHER: usize = 256;
/// How long decisions are measured without a report.
const ALONE: Duration = Duration::from_secs(2);

fn main() {
    let (mut days, mut keys) = (365, 10_000);
    let mut arguments = env::args().skip(1).filter(|argument| argument != "--bench");
    while let Some(argument) = arguments.next() {
        let number = arguments.next().and_then(|number| number.parse().ok()).expect("a number follows");
        match argument.as_str() {
            "--days" => days = number,
            "--keys" => keys = number,
            other => panic!("{other}: --days N and --keys N are known"),
        }
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(measure(days, keys));
}

async fn measure(days: usize, keys: usize) {
    let directory = tempfile::tempdir().expect("a directory");
    let clock = ManualClock::new(START);
    let store = EmbeddedStore::open_scratch(directory.path(), Clock::Manual(clock.clone())).expect("a store");
    let policy = parse_policy_at(POLICY, "policy.toml", START).policy.expect("the policy has no errors");
    let reports = UsageReports::new(store.clone(), Arc::new(Live::new(Arc::new(policy))));
    let began = Instant::now();
    for day in 0..days {
        clock.set(START.plus(day as u64 * DAY_MS));
        book(&store, day, keys).await;
    }
    let rows = days * keys;
    let (took, mib) = (began.elapsed().as_secs(), size(directory.path()) >> 20);
    println!(
        "{rows} requests of {keys} keys, {TEAMS} teams and {days} days: booked in {took} s, {mib} MiB on disk\n"
    );
    let (first, last) = (date(0), date(days));
    let query = |group_by: &[&str], granularity| UsageQuery {
        start_day: first,
        end_day: last,
        granularity,
        group_by: group_by.iter().filter_map(|path| Dimension::of_path(path)).collect(),
        page_size: 1_000,
        ..UsageQuery::default()
    };
    let alone = decide(&store, async { tokio::time::sleep(ALONE).await }).await.1;
    println!(
        "| asked for | rows read | took | decisions beside it: p50, p99, longest µs | n |\n| --- | --: | --: | --: | --: |"
    );
    println!("| nothing | | | {} |", shown(&alone));
    for (name, query) in [
        ("the year by team", query(&["team"], Granularity::Total)),
        ("the year by team and month", query(&["team"], Granularity::Month)),
        ("the year by key", query(&["key"], Granularity::Total)),
        ("the year by day and model", query(&["model"], Granularity::Day)),
        (
            "the last week by team",
            UsageQuery { start_day: date(days - 7), ..query(&["team"], Granularity::Total) },
        ),
    ] {
        let asked = async {
            let began = Instant::now();
            let page = reports.page(Arc::new(query), &TeamScope::All).await.expect("an answer");
            (began.elapsed(), page.total.requests)
        };
        let ((took, read), beside) = decide(&store, asked).await;
        println!("| {name} | {read} | {:.2} s | {} |", took.as_secs_f64(), shown(&beside));
    }
}

/// Books one request of each key on a day.
async fn book(store: &EmbeddedStore, day: usize, keys: usize) {
    let date = date(day);
    for first in (0..keys).step_by(TOGETHER) {
        let mut booked = tokio::task::JoinSet::new();
        for key in first..keys.min(first + TOGETHER) {
            let store = store.clone();
            booked.spawn(async move { book_one(&store, (day * keys + key) as u128, date, key).await });
        }
        while let Some(one) = booked.join_next().await {
            one.expect("it was booked");
        }
    }
}

async fn book_one(store: &EmbeddedStore, number: u128, date: u32, key: usize) {
    let id = reserve(store, number).await;
    let record = store.find(id).await.expect("the store answers").expect("it was reserved");
    let amounts = UsageAmounts {
        cost_nanos: 1_440_750,
        requests: 1,
        input_tokens: 4_641,
        output_tokens: 1_817,
        input_cost_nanos: 350_200,
        output_cost_nanos: 1_090_550,
        ..UsageAmounts::default()
    };
    let settle = Settle {
        id,
        record,
        actual: vec![1_440_750],
        extras: Vec::new(),
        thresholds: Vec::new(),
        lines: rows(date, key).map(|row| (row, amounts)).to_vec(),
        max_rows: 800,
        cooldown: None,
        keep_ms: 600_000,
        note: Bytes::new(),
    };
    assert!(matches!(store.settle(settle).await, Ok(SettleOutcome::Settled(_))));
}

/// The rows of a request, as a settlement adds to them: by hour, by day, and the organization's.
fn rows(date: u32, key: usize) -> [UsageKey; 3] {
    let (team, name): (Arc<str>, Arc<str>) =
        (format!("t{:03}", key % TEAMS).into(), format!("t{:03}-prod-{key}", key % TEAMS).into());
    let model: Arc<str> = MODELS.get(key % MODELS.len()).copied().unwrap_or_default().into();
    let day = UsageKey {
        operation: Some(Operation::Chat),
        service_tier: Some(ServiceTier::OnDemand),
        project: "default".into(),
        ..UsageKey::of_day(date / 100, Arc::clone(&team), date, Arc::clone(&model), name)
    };
    let hour =
        UsageKey { set: UsageSet { series: Series::Hours, period: date, team }, hour: 12, ..day.clone() };
    let organization = UsageKey::of_day(date / 100, "".into(), date, model, "".into());
    [hour, day, organization]
}

async fn reserve(store: &EmbeddedStore, number: u128) -> ReservationId {
    let counter = CounterKey::new("team/t000|usd|month").in_period(20_251_201);
    let kind = CounterKind::Budget { slot_ms: 60_000 };
    let hold = Hold { counter, kind, limit: MAX_AMOUNT, kept: 0, expiring: 1_440_750 };
    let reserve = Reserve {
        id: ReservationId((number + 1).to_be_bytes()),
        may_repeat: false,
        fingerprint: 7,
        holds: [hold].into(),
        gates: Vec::new(),
        valid: Timestamp(0)..Timestamp(u64::MAX),
        ttl_ms: 600_000,
        late_ms: 600_000,
        note: Bytes::new(),
        replaces: Bytes::new(),
        dry_run: false,
    };
    let id = reserve.id;
    assert!(matches!(store.reserve(reserve).await, Ok(Reserved::Granted { .. })));
    id
}

/// Decides again and again, in a task beside `asked`, until that is there: how long decisions took, the wait for their turn included.
async fn decide<T>(store: &EmbeddedStore, asked: impl Future<Output = T>) -> (T, Histogram) {
    let (done, own) = (Arc::new(AtomicBool::new(false)), store.clone());
    let is_done = Arc::clone(&done);
    let decisions = tokio::spawn(async move {
        let (mut latencies, mut number) = (Histogram::default(), u128::MAX / 2);
        while !is_done.load(Ordering::Relaxed) {
            let began = Instant::now();
            tokio::task::yield_now().await;
            reserve(&own, number).await;
            latencies.add(began.elapsed());
            number += 1;
        }
        latencies
    });
    let answer = asked.await;
    done.store(true, Ordering::Relaxed);
    (answer, decisions.await.expect("decisions end"))
}

fn shown(latencies: &Histogram) -> String {
    let [middle, most, longest] = [50.0, 99.0, 100.0].map(|percent| latencies.percentile_us(percent));
    format!("{middle:.0}, {most:.0}, {longest:.0} | {}", latencies.count())
}

/// A day after the first, as `20251201`.
fn date(day: usize) -> u32 {
    let ms = i64::try_from(START.0 + day as u64 * DAY_MS).expect("in the calendar");
    let date = jiff::Timestamp::from_millisecond(ms)
        .expect("in the calendar")
        .to_zoned(jiff::tz::TimeZone::UTC)
        .date();
    let [year, month, day] = [i32::from(date.year()), i32::from(date.month()), i32::from(date.day())];
    u32::try_from(year * 10_000 + month * 100 + day).expect("after the epoch")
}

fn size(directory: &Path) -> u64 {
    let files = fs::read_dir(directory).expect("a directory").flatten();
    files.filter_map(|file| file.metadata().ok()).map(|file| file.len()).sum()
}
