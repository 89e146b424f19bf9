//! Foreign data under one key, and the calls beside the one that it concerns.

use super::{server::Server, *};
use crate::store::{
    OUTBOX_KEPT,
    redis::{
        keyspace::{gate_field, usage_field},
        queue::Member,
    },
};

#[tokio::test]
async fn foreign_data_fails_the_settlement_that_it_concerns_and_no_other() {
    let Some(server) = Server::start() else { return };
    let clock = ManualClock::new(NOW);
    let store = server.ready(&clock).await;
    // A line that is none, a hash that is none, and an index that is none.
    let short = line("short", "m", 1);
    let line_key = store.0.keyspace.usage(&short.0.set);
    let mut set = redis::cmd("HSET");
    set.arg(line_key).arg(usage_field(&short.0)).arg("foreign data");
    store.0.connection.run(&set).await.unwrap();
    let foreign = line("foreign", "m", 1).0.set;
    for key in [store.0.keyspace.usage(&foreign), store.0.keyspace.spenders(202_612)] {
        store.0.connection.run(redis::cmd("SET").arg(key).arg("foreign")).await.unwrap();
    }
    let of_next_month = {
        let (mut key, amounts) = line("new", "m", 1);
        key.set.period = 202_612;
        (key, amounts)
    };
    let lines = [line("good", "m", 1), short, line("foreign", "m", 1), of_next_month, line("good", "m", 1)];
    let mut settlements = Vec::new();
    for (id, line) in (0..).zip(lines) {
        store.reserve(request(id, vec![hold("b", BUDGET, 1_000, 30, 20)])).await.unwrap();
        let record = store.find(ReservationId([id; 16])).await.unwrap().unwrap();
        let settle = Settle { lines: vec![line], ..settlement(record, id, vec![10]) };
        settlements.push(Member::new(Arc::new(store.0.settle_call(settle, false))));
    }
    let answers = store.0.settle_batch(&settlements).await;
    let settled: Vec<_> =
        answers.iter().map(|answer| matches!(answer, Ok(Some(SettleOutcome::Settled(_))))).collect();
    assert_eq!(settled, [true, false, false, false, true], "{answers:?}");
    assert_eq!(store.spend(202_611, "good".into()).await.unwrap()[0].1.cost_nanos, 2);
}

#[tokio::test]
async fn foreign_data_in_a_record_fails_the_calls_that_it_concerns_and_no_other() {
    let Some(server) = Server::start() else { return };
    let store = server.ready(&ManualClock::new(NOW)).await;
    store.reserve(request(1, vec![])).await.unwrap();
    let mut set = redis::cmd("HSET");
    set.arg(&store.0.keyspace.records).arg(&[2_u8; 16]).arg("x");
    store.0.connection.run(&set).await.unwrap();
    // Under a name that layout 4 would have used, too.
    let id = ReservationId([3; 16]);
    let key = store.0.keyspace.earlier.replace("reservations", &format!("reservation:{id}"));
    store.0.connection.run(redis::cmd("HSET").arg(key).arg("a").arg("b")).await.unwrap();
    let add = redis::cmd("ZADD").arg(&store.0.keyspace.earlier).arg(1).arg(id.to_string()).to_owned();
    store.0.connection.run(&add).await.unwrap();
    let members: Vec<_> = (1..=4).map(|id| Member::new(ReservationId([id; 16]))).collect();
    let found = store.0.find_batch(&members).await;
    assert!(matches!(found[0], Ok(Some(_))), "{found:?}");
    assert_eq!(found[1..], [Err(StoreError::Corrupt), Err(StoreError::Corrupt), Ok(None)]);
    let members: Vec<_> = (2..=4).map(|id| Member::new(Arc::new(request(id, vec![])))).collect();
    let reserved = store.0.reserve_batch(&members).await;
    assert_eq!(reserved[..2], [Err(StoreError::Corrupt), Err(StoreError::Corrupt)]);
    assert!(matches!(reserved[2], Ok(Reserved::Granted { .. })), "{reserved:?}");
    // The sweep leaves it, and comes past it.
    assert_eq!(store.sweep(0, 100).await, Ok(0));
    assert_eq!(store.find(id).await, Ok(None));
}

#[tokio::test]
async fn foreign_data_in_a_gate_fails_the_requests_that_need_it_and_no_other() {
    let Some(server) = Server::start() else { return };
    let clock = ManualClock::new(NOW);
    let store = server.ready(&clock).await;
    let gate = CounterKey::new("gate");
    let mut set = redis::cmd("HSET");
    set.arg(&store.0.keyspace.counters).arg(gate_field(&gate)).arg("x");
    store.0.connection.run(&set).await.unwrap();
    let asks = |id, gates: &[CounterKey]| {
        let holds = vec![hold("w", WINDOW, 100, 0, 6)];
        Member::new(Arc::new(Reserve { gates: gates.to_vec(), ..request(id, holds) }))
    };
    let answers = store.0.reserve_batch(&[asks(1, &[]), asks(2, &[gate]), asks(3, &[])]).await;
    let used = |used| Ok(Reserved::Granted { now: NOW, used: vec![used] });
    assert_eq!(answers, [used(0), Err(StoreError::Corrupt), used(6)]);
}

#[tokio::test]
async fn a_call_that_meets_a_foreign_key_changes_nothing() {
    let Some(server) = Server::start() else { return };
    let clock = ManualClock::new(NOW);
    let store = server.ready(&clock).await;
    let state = || async { store.counters(vec![(CounterKey::new("b"), BUDGET)]).await.unwrap() };
    let call = |id| request(id, vec![hold("b", BUDGET, 1_000, 30, 20)]);
    store.reserve(call(1)).await.unwrap();
    let before = state().await;
    // An index and a hash of cooldowns that are none: the settlement is not booked, however often it is asked for.
    let record = store.find(ReservationId([1; 16])).await.unwrap().unwrap();
    let set = |key: &str| redis::cmd("SET").arg(key).arg("foreign").to_owned();
    let keys = [store.0.keyspace.spenders(202_611), store.0.keyspace.cooldowns.clone()];
    for key in &keys {
        store.0.connection.run(&set(key)).await.unwrap();
    }
    let gate = (CounterKey::new("g"), open(1_000));
    let settle = |lines, cooldown| Settle { lines, cooldown, ..settlement(record.clone(), 1, vec![10]) };
    for calls in [settle(vec![line("t", "m", 1)], None), settle(Vec::new(), Some(gate.clone()))] {
        for _ in 0..2 {
            assert_eq!(store.settle(calls.clone()).await, Err(StoreError::Corrupt));
            assert_eq!(state().await, before);
        }
    }
    for key in &keys {
        store.0.connection.run(redis::cmd("DEL").arg(key)).await.unwrap();
    }
    let settled = store.settle(settle(vec![line("t", "m", 1)], Some(gate))).await;
    assert!(matches!(settled, Ok(SettleOutcome::Settled(_))), "{settled:?}");
    // The hash of records is none: nothing is taken.
    let before = state().await;
    store.0.connection.run(&set(&store.0.keyspace.records)).await.unwrap();
    assert_eq!(store.reserve(call(2)).await, Err(StoreError::Corrupt));
    let members: Vec<_> = (3..=5).map(|id| Member::new(Arc::new(call(id)))).collect();
    let answers = store.0.reserve_batch(&members).await;
    assert!(answers.iter().all(|answer| *answer == Err(StoreError::Corrupt)), "{answers:?}");
    assert_eq!(state().await, before);
}

#[tokio::test]
async fn the_sweep_comes_past_entries_and_keys_that_are_none_of_its_own() {
    let Some(server) = Server::start() else { return };
    let clock = ManualClock::new(NOW);
    let store = server.ready(&clock).await;
    store.reserve(request(1, vec![hold("w", WINDOW, 100, 0, 6)])).await.unwrap();
    let mut set = redis::cmd("HSET");
    set.arg(&store.0.keyspace.terms).arg("short").arg("x");
    store.0.connection.run(&set).await.unwrap();
    store.0.connection.run(redis::cmd("SET").arg(&store.0.keyspace.earlier).arg("foreign")).await.unwrap();
    clock.pass(200_000_000);
    assert_eq!(store.sweep(0, 100).await, Ok(1), "the window");
    let left = redis::cmd("HLEN").arg(&store.0.keyspace.terms).to_owned();
    assert_eq!(store.0.connection.run(&left).await, Ok(Value::Int(0)));
}

#[tokio::test]
async fn foreign_data_in_the_outbox_holds_nothing_up() {
    let Some(server) = Server::start() else { return };
    let store = server.ready(&ManualClock::new(NOW)).await;
    let keys = &store.0.keyspace;
    let run = async |arguments: &[&[u8]]| {
        let mut cmd = redis::cmd(str::from_utf8(arguments[0]).unwrap());
        for argument in &arguments[1..] {
            cmd.arg(*argument);
        }
        store.0.connection.run(&cmd).await.unwrap();
    };
    // Items of no length, longer than they are, and under no id of ours; and entries that are too short, or there without a name.
    let crossings = keys.crossings.as_bytes();
    for item in [&b""[..], b"\0", b"\x09short", b"\x03abcpayload"] {
        run(&[b"RPUSH", crossings, item]).await;
    }
    for id in [&b"short"[..], b"none of ours"] {
        run(&[b"ZADD", keys.outbox_due.as_bytes(), b"0", id]).await;
        run(&[b"ZADD", keys.outbox_order.as_bytes(), b"0", id]).await;
    }
    run(&[b"HSET", keys.outbox.as_bytes(), b"short", b"x", b"none of ours", b"12345678payload"]).await;
    let id = format!("{:012x}{}0001_open", NOW.0, "0".repeat(16));
    let id: OutboxId = id.parse().unwrap();
    let entry = OutboxEntry { id, payload: Bytes::from_static(b"\x01mine") };
    store.outbox_append(vec![entry.clone()], OUTBOX_KEPT).await.unwrap();
    let claim = store.outbox_claim("".into(), 64, 60_000).await.unwrap();
    assert!(claim.entries.iter().any(|claimed| claimed.entry == entry), "{claim:?}");
    let page = store.outbox_page(None, 64).await.unwrap();
    assert!(page.contains(&entry), "{page:?}");
}

#[tokio::test]
async fn a_foreign_key_in_place_of_the_crossings_costs_alerts_and_no_settlement() {
    let Some(server) = Server::start() else { return };
    let store = server.ready(&ManualClock::new(NOW)).await;
    let set = redis::cmd("SET").arg(&store.0.keyspace.crossings).arg("foreign").to_owned();
    store.0.connection.run(&set).await.unwrap();
    for id in 1..=2 {
        store.reserve(request(id, vec![hold("b", BUDGET, 1_000, 30, 20)])).await.unwrap();
        let record = store.find(ReservationId([id; 16])).await.unwrap().unwrap();
        let settle = Settle { thresholds: vec![(0, vec![5])], ..settlement(record, id, vec![10]) };
        let settled = store.settle(settle).await;
        assert!(matches!(settled, Ok(SettleOutcome::Settled(_))), "{settled:?}");
    }
}
