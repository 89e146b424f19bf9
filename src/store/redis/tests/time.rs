//! What happens when the server's clock is set.

use super::{
    server::{Server, until_up},
    *,
};

/// When the store's time was last written, and what the scripts add to the server's clock.
async fn kept_time(store: &RedisStore) -> (f64, f64) {
    let get = redis::cmd("HGET").arg(&store.0.keyspace.counters).arg("!time").to_owned();
    let kept = bytes(store.0.connection.run(&get).await.unwrap()).unwrap();
    let number = |at: usize| f64::from_le_bytes(kept[at..at + 8].try_into().unwrap());
    (number(0), number(8))
}

/// Sets the server's clock, as far as the scripts see it, by changing what they add to it.
async fn step_server(store: &RedisStore, by_ms: f64) {
    let (last, ahead) = kept_time(store).await;
    write_time(store, last, ahead + by_ms).await;
}

async fn write_time(store: &RedisStore, last: f64, ahead: f64) {
    let numbers = [last, ahead, 1.0].map(f64::to_le_bytes).concat();
    let set = redis::cmd("HSET").arg(&store.0.keyspace.counters).arg("!time").arg(numbers).to_owned();
    store.0.connection.run(&set).await.unwrap();
}

#[tokio::test]
async fn a_step_of_the_servers_clock_forgets_and_locks_nothing() {
    let Some(server) = Server::start() else { return };
    for by_ms in [7_200_000.0, 90_000_000.0, -7_200_000.0, -11_000.0, 2_700_000_000.0] {
        let store = server.store(Clock::System);
        until_up(&store).await;
        let name = format!("w{by_ms}");
        let holds = || vec![hold(&name, WINDOW, 10, 0, 10)];
        let id = u8::try_from(name.len()).unwrap() + if by_ms < 0.0 { 100 } else { 0 };
        assert!(matches!(store.reserve(request(id, holds())).await, Ok(Reserved::Granted { .. })), "{by_ms}");
        let record = store.find(ReservationId([id; 16])).await.unwrap().expect("the reservation");
        step_server(&store, by_ms).await;
        store.sweep(0, 1_000).await.unwrap();
        let full = store.reserve(request(id + 10, holds())).await.unwrap();
        let Reserved::Refused { now, refusals, .. } = full else { panic!("{by_ms}: {full:?}") };
        let frees_in = refusals[0].frees_at.expect("some time").since(now);
        assert!((55_000..=61_000).contains(&frees_in), "{by_ms}: {frees_in}");
        let settled = store.settle(settlement(record, id, vec![1])).await.unwrap();
        let SettleOutcome::Settled(settled) = settled else { panic!("{by_ms}: {settled:?}") };
        assert_eq!(settled.counters[0].after.used, 1, "{by_ms}");
        assert!(matches!(
            store.reserve(request(id + 20, vec![hold(&name, WINDOW, 10, 0, 9)])).await,
            Ok(Reserved::Granted { .. })
        ));
    }
}

#[tokio::test]
async fn a_report_that_is_late_changes_no_slot_of_others() {
    let Some(server) = Server::start() else { return };
    let clock = ManualClock::new(Timestamp(NOW.0 - 10));
    let store = server.ready(&clock).await;
    let holds = || vec![hold("w", WINDOW, 10, 0, 1)];
    store.reserve(request(1, holds())).await.unwrap();
    clock.set(NOW.plus(10));
    store.reserve(request(2, holds())).await.unwrap();
    let find = async |id| store.find(ReservationId([id; 16])).await.unwrap().unwrap();
    let (first, second) = (find(1).await, find(2).await);
    // As far as its sender knows, it is still before the slot that began at `NOW`.
    clock.travel(Timestamp(NOW.0 - 5));
    store.settle(settlement(first, 1, vec![0])).await.unwrap();
    clock.set(NOW.plus(1_000));
    let settled = store.settle(settlement(second, 2, vec![0])).await.unwrap();
    let SettleOutcome::Settled(settled) = settled else { panic!("{settled:?}") };
    assert_eq!(settled.counters[0].after.used, 0, "both are given back");
}

/// The first answer other than that the store does not know yet, and how long it took.
async fn until_decided(store: &RedisStore, reserve: Reserve) -> (Reserved, Duration) {
    let start = Instant::now();
    loop {
        match store.reserve(reserve.clone()).await {
            Err(StoreError::Unavailable) => {}
            answer => return (answer.unwrap(), start.elapsed()),
        }
        assert!(start.elapsed() < Duration::from_secs(30), "it never decides");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_process_that_starts_under_a_wrong_clock_forgets_nothing() {
    let Some(server) = Server::start() else { return };
    let running = server.store(Clock::System);
    until_up(&running).await;
    let holds = || vec![hold("w", WINDOW, 10, 0, 10)];
    running.reserve(request(1, holds())).await.unwrap();
    let (_, ahead) = kept_time(&running).await;
    step_server(&running, 7_200_000.0).await;
    // From now on only the sweep of the running store can correct it.
    let starting = server.store(Clock::System);
    let (decided, _) = until_decided(&starting, request(2, holds())).await;
    assert!(matches!(decided, Reserved::Refused { .. }), "{decided:?}");
    let put_right = kept_time(&running).await.1;
    assert!((put_right - ahead).abs() < 5_000.0, "{put_right} after {ahead}");
    let record = running.find(ReservationId([1; 16])).await.unwrap();
    assert!(record.is_some(), "the reservation is there for the one that runs");
    assert!(starting.find(ReservationId([1; 16])).await.unwrap().is_some(), "and for the other");
}

#[tokio::test]
async fn a_process_that_starts_after_a_long_rest_decides_within_seconds() {
    let Some(server) = Server::start() else { return };
    let holds = || vec![hold("w", WINDOW, 10, 0, 10)];
    // The state that others left an hour ago.
    let hand = server.ready(&ManualClock::new(NOW)).await;
    let last = Clock::System.now().0 - 3_600_000;
    write_time(&hand, f64::from(u32::try_from(last / 1_000).unwrap()) * 1_000.0, 0.0).await;
    let starting = server.store(Clock::System);
    assert_eq!(
        starting.reserve(request(2, holds())).await,
        Err(StoreError::Unavailable),
        "others may know better"
    );
    assert_eq!(starting.ping().await, Err(StoreError::Unavailable), "so it is not ready");
    let (decided, took) = until_decided(&starting, request(2, vec![hold("v", WINDOW, 10, 0, 10)])).await;
    assert!(matches!(decided, Reserved::Granted { .. }), "{decided:?}");
    assert!(took < Duration::from_secs(15), "{took:?}");
    assert_eq!(starting.ping().await, Ok(()));
}

async fn number(store: &RedisStore, command: &str, key: &str) -> i64 {
    let answer = store.0.connection.run(redis::cmd(command).arg(key)).await.unwrap();
    redis::from_redis_value(answer).unwrap()
}

#[tokio::test]
async fn records_are_removed_by_the_stores_time_and_not_by_the_servers_clock() {
    let Some(server) = Server::start() else { return };
    let clock = ManualClock::new(NOW);
    let store = server.ready(&clock).await;
    for id in [1, 2] {
        let granted = store.reserve(request(id, vec![hold("b", BUDGET, 100, 1, 1)])).await.unwrap();
        assert!(matches!(granted, Reserved::Granted { .. }), "{granted:?}");
    }
    let record = store.find(ReservationId([2; 16])).await.unwrap().unwrap();
    let mut settle = settlement(record, 2, vec![1]);
    settle.cooldown = Some((CounterKey::new("model"), open(500)));
    store.settle(settle).await.unwrap();
    store.sweep(0, 100).await.unwrap();
    for key in [&store.0.keyspace.records, &store.0.keyspace.cooldowns] {
        let days = number(&store, "PTTL", key).await / 86_400_000;
        assert!(days >= 300, "{key} is forgotten by a clock that is {days} days ahead for a moment");
    }
    // One is gone 90 s after it was made, the other 120 s after it was settled.
    for (at, kept) in [(89_999, [1, 1]), (90_000, [0, 1]), (119_999, [0, 1]), (120_000, [0, 0])] {
        clock.set(NOW.plus(at));
        store.sweep(0, 100).await.unwrap();
        let mut exist = Vec::new();
        for id in [1_u8, 2] {
            let is_there = redis::cmd("HEXISTS").arg(&store.0.keyspace.records).arg(&[id; 16]).to_owned();
            let answer = store.0.connection.run(&is_there).await.unwrap();
            exist.push(redis::from_redis_value::<i64>(answer).unwrap());
        }
        assert_eq!(exist, kept, "at {at} ms");
    }
}

#[tokio::test]
async fn the_sweep_keeps_a_record_that_an_index_of_before_has_as_well() {
    let Some(server) = Server::start() else { return };
    let clock = ManualClock::new(NOW);
    let store = server.ready(&clock).await;
    store.reserve(request(1, vec![])).await.unwrap();
    let id = ReservationId([1; 16]);
    let add = redis::cmd("ZADD").arg(&store.0.keyspace.earlier).arg(1).arg(id.to_string()).to_owned();
    store.0.connection.run(&add).await.unwrap();
    store.sweep(0, 100).await.unwrap();
    assert!(store.find(id).await.unwrap().is_some());
    clock.pass(90_000);
    store.sweep(0, 100).await.unwrap();
    for key in [&store.0.keyspace.records, &store.0.keyspace.earlier] {
        assert_eq!(number(&store, "EXISTS", key).await, 0);
    }
}
