//! Tests against a real server on a free port, with nothing kept on disk.

mod batches;
mod calls;
mod dumped;
mod elsewhere;
mod faults;
mod foreign_data;
mod layout;
mod queue;
mod records;
mod replay;
mod replay_attempts;
mod replay_generation;
mod replay_registry;
mod replicas;
mod scripts;
pub(crate) mod server;
mod time;
mod together;
mod unreported;

use std::{collections::HashMap, time::Instant};

use bytes::Bytes;

use self::server::{Server, until_up};
use super::*;
use crate::{
    domain::{
        MAX_AMOUNT,
        counter::{Counter, Hold},
    },
    runtime::clock::ManualClock,
    store::{CooldownChange, Refusal, Settled},
};

const NOW: Timestamp = Timestamp(1_795_000_000_000);
const WINDOW: CounterKind = CounterKind::Window { slot_ms: 1000 };
const BUDGET: CounterKind = CounterKind::Budget { slot_ms: 700 };

fn hold(name: &str, kind: CounterKind, limit: u64, kept: u64, expiring: u64) -> Hold {
    Hold { counter: CounterKey::new(name), kind, limit, kept, expiring }
}

fn request(id: u8, holds: Vec<Hold>) -> Reserve {
    Reserve {
        id: ReservationId([id; 16]),
        may_repeat: true,
        fingerprint: 0xfeed_beef_dead_cafe,
        holds: holds.into(),
        gates: vec![CounterKey::new("model")],
        valid: Timestamp(0)..Timestamp(u64::MAX),
        ttl_ms: 60_000,
        late_ms: 30_000,
        note: Bytes::from_static(b"\0note"),
        replaces: Bytes::new(),
        dry_run: false,
    }
}

fn settlement(record: Record, id: u8, actual: Vec<u64>) -> Settle {
    Settle {
        id: ReservationId([id; 16]),
        record,
        actual,
        extras: Vec::new(),
        thresholds: Vec::new(),
        lines: Vec::new(),
        max_rows: 10,
        cooldown: None,
        keep_ms: 120_000,
        note: Bytes::from_static(b"done"),
    }
}

fn line(team: &str, model: &str, cost_nanos: u64) -> (UsageKey, UsageAmounts) {
    let key = UsageKey::of_day(202_611, team.into(), 20_261_123, model.into(), "k|1".into());
    (key, UsageAmounts { cost_nanos, requests: 1, ..UsageAmounts::default() })
}

fn open(length_ms: u64) -> CooldownChange {
    CooldownChange::Open { length_ms, requested_ms: 7 * length_ms, reporter: "reporter".into() }
}

#[tokio::test]
async fn a_reservation_is_granted_repeated_refused_and_settled_once() {
    let Some(server) = Server::start() else { return };
    let clock = ManualClock::new(NOW);
    let store = server.ready(&clock).await;
    let holds = vec![hold("w", WINDOW, 10, 0, 6), hold("b", BUDGET, 100, 30, 20)];
    let granted = store.reserve(request(1, holds.clone())).await.unwrap();
    assert_eq!(granted, Reserved::Granted { now: NOW, used: vec![0, 0] });
    let record = store.find(ReservationId([1; 16])).await.unwrap().unwrap();
    assert_eq!(
        (&record.holds, &*record.note, record.settlement.is_none()),
        (&holds.clone().into(), &b"\0note"[..], true)
    );
    assert_eq!((record.fingerprint, record.expires_at), (0xfeed_beef_dead_cafe, NOW.plus(60_000)));
    assert_eq!(store.reserve(request(1, holds.clone())).await.unwrap(), Reserved::Repeated(record.clone()));

    let refused = store.reserve(request(2, holds.clone())).await.unwrap();
    let freed = Some(Timestamp((NOW.0 / 1000 + 61) * 1000));
    let refusals = vec![Refusal { hold: 0, frees_at: freed }];
    assert_eq!(refused, Reserved::Refused { now: NOW, used: vec![6, 50], refusals, closed: vec![] });
    assert_eq!(store.find(ReservationId([2; 16])).await.unwrap(), None);

    let mut settle = settlement(record, 1, vec![2, 45]);
    settle.lines =
        vec![line("chatbot", "m", 7), line("", "m", 7), line("chatbot", "m", 1), line("a", "m|", 3)];
    settle.cooldown = Some((CounterKey::new("model"), open(500)));
    let SettleOutcome::Settled(settled) = store.settle(settle.clone()).await.unwrap() else { panic!() };
    let budget = CounterState { used: 45, settled: 45, open: 0 };
    assert_eq!(settled.counters.get(1), Some(&Settled { settled_before: 0, after: budget }));
    assert_eq!(settled.counters[0].after.used, 2);
    assert_eq!(store.settle(settle.clone()).await.unwrap(), SettleOutcome::AlreadySettled(settled.clone()));
    let keys = vec![
        (CounterKey::new("w"), WINDOW),
        (CounterKey::new("none"), WINDOW),
        (CounterKey::new("b"), BUDGET),
    ];
    let window = CounterState { used: 2, ..CounterState::default() };
    assert_eq!(store.counters(keys).await.unwrap(), vec![window, CounterState::default(), budget]);

    let closed = store.reserve(request(3, vec![])).await.unwrap();
    let closed_until = vec![(0, NOW.plus(500))];
    assert_eq!(closed, Reserved::Refused { now: NOW, used: vec![], refusals: vec![], closed: closed_until });
    assert_eq!(store.spenders(202_611).await.unwrap(), vec![Arc::from("a"), Arc::from("chatbot")]);
    let spend = store.spend(202_611, "chatbot".into()).await.unwrap();
    assert_eq!((spend.len(), spend[0].1.cost_nanos, spend[0].1.requests), (1, 8, 2));

    clock.set(NOW.plus(120_000));
    assert_eq!(store.find(ReservationId([1; 16])).await.unwrap(), None);
    assert_eq!(store.settle(settle).await.unwrap(), SettleOutcome::NotFound);
}

#[tokio::test]
async fn what_would_overflow_changes_nothing() {
    let Some(server) = Server::start() else { return };
    let store = server.ready(&ManualClock::new(NOW)).await;
    let mut wanted = request(1, vec![hold("b", BUDGET, MAX_AMOUNT, 5, 0), hold("w", WINDOW, 9, 0, 9)]);
    wanted.gates.clear();
    store.reserve(wanted).await.unwrap();
    let record = store.find(ReservationId([1; 16])).await.unwrap().unwrap();
    for actual in [vec![MAX_AMOUNT, 1], vec![u64::MAX, 1]] {
        let answer = store.settle(settlement(record.clone(), 1, actual)).await;
        assert_eq!(answer, Err(StoreError::Overflow));
    }
    let mut huge = settlement(record.clone(), 1, vec![1, 1]);
    huge.lines = vec![line("t", "m", MAX_AMOUNT), line("t", "m", 1)];
    assert_eq!(store.settle(huge.clone()).await, Err(StoreError::Overflow));
    assert!(store.spend(202_611, "t".into()).await.unwrap().is_empty());
    assert_eq!(store.find(ReservationId([1; 16])).await.unwrap(), Some(record));
    huge.lines = vec![line("t", "m", MAX_AMOUNT)];
    assert!(matches!(store.settle(huge).await.unwrap(), SettleOutcome::Settled(_)));
    assert_eq!(store.spend(202_611, "t".into()).await.unwrap()[0].1.cost_nanos, MAX_AMOUNT);
}

#[tokio::test]
async fn scripts_are_loaded_again_and_connections_built_again() {
    let Some(mut server) = Server::start() else { return };
    let store = server.store(Clock::System);
    until_up(&store).await;
    let flush = redis::cmd("SCRIPT").arg("FLUSH").to_owned();
    store.0.connection.run(&flush).await.unwrap();
    let wanted = request(1, vec![hold("w", WINDOW, 10, 0, 6)]);
    assert!(matches!(store.reserve(wanted.clone()).await.unwrap(), Reserved::Granted { .. }));
    // Both clocks are this machine's, so they differ only by the time that an answer takes here, however busy the machine is.
    let (ahead, behind) = (store.now().since(Clock::System.now()), Clock::System.now().since(store.now()));
    assert!(ahead < 5_000 && behind < 5_000, "{ahead} ms ahead, {behind} ms behind");

    server.kill();
    assert_eq!(store.reserve(wanted.clone()).await, Err(StoreError::Unavailable));
    let start = Instant::now();
    assert_eq!(store.ping().await, Err(StoreError::Unavailable));
    assert!(start.elapsed() < Duration::from_secs(5));
    server.restart();
    assert!(until_up(&store).await < Duration::from_secs(3));
    assert!(matches!(store.reserve(wanted.clone()).await.unwrap(), Reserved::Granted { .. }));

    server.signal("-STOP");
    for _ in 0..4 {
        assert_eq!(store.reserve(wanted.clone()).await, Err(StoreError::Unavailable));
    }
    server.signal("-CONT");
    assert!(until_up(&store).await < Duration::from_secs(3));
}

#[tokio::test]
async fn a_server_may_come_up_after_the_store() {
    let Some(mut server) = Server::start() else { return };
    server.kill();
    let store = server.store(Clock::System);
    assert_eq!(store.ping().await, Err(StoreError::Unavailable));
    server.restart();
    assert!(until_up(&store).await < Duration::from_secs(3));
}

#[tokio::test]
async fn settings_that_cannot_work_are_refused_without_naming_the_password() {
    let settings = |url: &str, organization: &str| RedisSettings {
        url: url.parse().unwrap(),
        access: RedisAccess::default(),
        organization: organization.into(),
        deadline: Duration::from_millis(250),
        layout: LayoutGate::default(),
        unreported: Unreported::default(),
        replay: ReplaySettings::default(),
    };
    assert!(!format!("{:?}", settings("redis://:secret@h", "a")).contains("secret"));
    let error = RedisStore::connect(settings("redis://h", "a}"), Clock::System).err();
    assert_eq!(error, Some(SettingsError::Organization("a}".into())));
}

#[tokio::test]
async fn a_sweep_removes_what_is_idle_and_nothing_else() {
    let Some(server) = Server::start() else { return };
    let clock = ManualClock::new(NOW);
    let store = server.ready(&clock).await;
    let month = CounterKey::new("team|cost|month").in_period(20_261_101);
    let mut holds = vec![hold("w", WINDOW, 10, 0, 6), hold("b", BUDGET, 100, 30, 20)];
    holds.push(Hold { counter: month, ..hold("", BUDGET, 100, 5, 0) });
    store.reserve(request(1, holds)).await.unwrap();
    clock.set(Timestamp((NOW.0 / 1000 + 61) * 1000 - 1));
    assert_eq!(store.sweep(0, 100).await, Ok(0));
    clock.set(Timestamp((NOW.0 / 1000 + 61) * 1000));
    assert_eq!(store.sweep(0, 100).await, Ok(1));
    assert_eq!(store.sweep(0, 100).await, Ok(0));
    // 2026-11-01 and 400 days.
    clock.set(Timestamp(1_793_491_200_000 + 400 * 86_400_000 - 1));
    assert_eq!(store.sweep(0, 100).await, Ok(0));
    clock.set(Timestamp(1_793_491_200_000 + 400 * 86_400_000));
    assert_eq!(store.sweep(0, 100).await, Ok(1));
}

#[tokio::test]
async fn a_sweep_takes_no_users_name_for_a_period() {
    let Some(server) = Server::start() else { return };
    let clock = ManualClock::new(NOW);
    let store = server.ready(&clock).await;
    let in_period = |name: &str, day| CounterKey::new(name).in_period(day);
    let mut holds = vec![hold("team/a/user|requests|minute|x@20200101", WINDOW, 1, 0, 1)];
    let month = in_period("team/a/user|usd|month|friday", 20_261_101);
    holds.push(Hold { counter: month, ..hold("", BUDGET, 100, 5, 0) });
    holds.push(Hold { counter: in_period("team/a|usd|day", 20_261_120), ..hold("", BUDGET, 100, 5, 0) });
    store.reserve(request(1, holds.clone())).await.unwrap();
    assert_eq!(store.sweep(0, 100).await, Ok(0));
    let again = store.reserve(request(2, vec![holds.remove(0)])).await;
    assert!(matches!(again, Ok(Reserved::Refused { .. })), "{again:?}");
    // 2026-11-20 and 40 days: by then the window is idle, the day over, and the month kept.
    clock.set(Timestamp(1_795_132_800_000 + 40 * 86_400_000));
    assert_eq!(store.sweep(0, 100).await, Ok(2));
}

#[tokio::test]
async fn what_the_server_comes_to_too_late_takes_nothing() {
    let Some(server) = Server::start() else { return };
    let store = server.store(Clock::System);
    until_up(&store).await;
    let holds = || vec![hold("b", BUDGET, 100, 30, 20)];
    assert!(matches!(store.reserve(request(1, holds())).await, Ok(Reserved::Granted { .. })));
    let stall = redis::cmd("CLIENT").arg("PAUSE").arg(900).arg("ALL").to_owned();
    store.0.connection.run(&stall).await.unwrap();
    assert_eq!(store.reserve(request(2, holds())).await, Err(StoreError::Unavailable));
    let counters = || store.counters(vec![(CounterKey::new("b"), BUDGET)]);
    let after = loop {
        if let Ok(states) = counters().await {
            break states;
        }
    };
    assert_eq!((after[0].used, after[0].open), (50, 1), "only the first");
    assert_eq!(store.find(ReservationId([2; 16])).await, Ok(None));
    assert!(matches!(store.reserve(request(2, holds())).await, Ok(Reserved::Granted { .. })));
}

#[tokio::test]
async fn the_sweep_keeps_pace_and_runs_where_memory_is_full() {
    let Some(server) = Server::start() else { return };
    let clock = ManualClock::new(NOW);
    let store = server.ready(&clock).await;
    for user in 0..600_u16 {
        let id = ReservationId(u128::from(user).to_be_bytes());
        let holds = vec![hold(&format!("user{user}"), WINDOW, 10, 0, 6)].into();
        store.reserve(Reserve { id, holds, ..request(0, vec![]) }).await.unwrap();
    }
    let full = redis::cmd("CONFIG").arg("SET").arg("maxmemory").arg("1").to_owned();
    store.0.connection.run(&full).await.unwrap();
    let record = store.find(ReservationId(7_u128.to_be_bytes())).await.unwrap().unwrap();
    assert!(store.reserve(request(1, vec![hold("w", WINDOW, 10, 0, 1)])).await.is_err());
    let settle = Settle { id: ReservationId(7_u128.to_be_bytes()), ..settlement(record, 0, vec![1]) };
    assert!(matches!(store.settle(settle).await.unwrap(), SettleOutcome::Settled(_)));
    assert!(store.registry_write("pause/all".into(), 0, Bytes::from_static(b"{}")).await.is_ok());
    clock.pass(120_000);
    let (mut removed, begun) = (0, clock.monotonic());
    while removed < 600 {
        let step = store.0.sweep(2_000, 64).await.unwrap();
        removed += step.removed;
        clock.pass(step.next_ms.expect("this one's turn"));
        let passed = clock.monotonic().since(begun);
        assert!(
            passed < Duration::from_secs(10),
            "{removed} in {passed:?}: a tenth as fast as without haste"
        );
    }
}

/// Numbers that depend only on the seed.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, below: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % below
    }
}

#[tokio::test]
async fn a_server_that_evicts_or_keeps_nothing_is_told_from_a_safe_one() {
    let Some(server) = Server::start() else { return };
    let store = server.ready(&ManualClock::new(NOW)).await;
    let evicts = |policy: &str| Hazard::Evicts { policy: policy.to_owned() };
    for (setting, value, expected) in [
        ("maxmemory-policy", "noeviction", vec![Hazard::KeepsNothing]),
        ("maxmemory-policy", "allkeys-lru", vec![evicts("allkeys-lru"), Hazard::KeepsNothing]),
        ("save", "3600 1", vec![evicts("allkeys-lru")]),
        ("maxmemory-policy", "volatile-lru", vec![evicts("volatile-lru")]),
        ("save", "", vec![evicts("volatile-lru"), Hazard::KeepsNothing]),
        ("appendonly", "yes", vec![evicts("volatile-lru")]),
        ("maxmemory-policy", "noeviction", vec![]),
    ] {
        let set = redis::cmd("CONFIG").arg("SET").arg(setting).arg(value).to_owned();
        store.0.connection.run(&set).await.unwrap();
        assert_eq!(store.hazards().await.unwrap(), expected, "{setting} {value}");
    }
}
