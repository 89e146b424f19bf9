//! The layout that each script looks at.

use super::{server::Server, *};
use crate::domain::key::SecretId;
use crate::store::{
    AuditEntry, AuditId, AuditKept, LAYOUT, OLDEST_LAYOUT, SecretUse, Unsupported, UsageAddition,
    redis::{queue::Member, wire::Numbers},
};

const NEWER: StoreError = StoreError::LayoutUnsupported(Unsupported::Newer { found: LAYOUT + 1 });

async fn hset(store: &RedisStore, key: &str, field: &str, value: &[u8]) {
    let set = redis::cmd("HSET").arg(key).arg(field).arg(value).to_owned();
    store.0.connection.run(&set).await.unwrap();
}

/// Everything that the server holds.
async fn dump(store: &RedisStore) -> Vec<Value> {
    let keys = store.0.connection.run_at_any_layout(redis::cmd("KEYS").arg("*")).await.unwrap();
    let mut keys: Vec<String> = redis::from_redis_value(keys).unwrap();
    keys.sort();
    let mut dumped = Vec::new();
    for key in keys {
        dumped.push(store.0.connection.run_at_any_layout(redis::cmd("DUMP").arg(key)).await.unwrap());
    }
    dumped
}

/// A process that was paused while the layout was raised has read nothing of it, and still changes nothing.
#[tokio::test]
async fn a_script_refuses_a_later_layout_before_it_changes_anything() {
    let Some(server) = Server::start() else { return };
    let clock = ManualClock::new(NOW);
    let store = server.ready(&clock).await;
    let holds = || vec![hold("w", WINDOW, 10, 0, 6), hold("b", BUDGET, 100, 30, 20)];
    store.reserve(request(1, holds())).await.unwrap();
    let record = store.find(ReservationId([1; 16])).await.unwrap().unwrap();
    let settle = || Settle {
        cooldown: Some((CounterKey::new("gate"), open(60_000))),
        lines: vec![line("t", "m", 7)],
        ..settlement(record.clone(), 1, vec![1, 2])
    };
    let keys = || vec![(CounterKey::new("w"), WINDOW)];
    let mut time = Numbers::with_capacity(3);
    time.extend(&[NOW.0, 0, u64::from(LAYOUT) + 1]);
    hset(&store, &store.0.keyspace.counters, "!time", time.bytes()).await;
    let (before, later) = (dump(&store).await, NOW.plus(5_000));
    clock.set(later);
    for script in 0..7 {
        // As if nothing had been read.
        store.0.layout.learn(0, 0).unwrap();
        let refused = match script {
            0 => store.reserve(request(2, holds())).await.map(drop),
            1 => store.settle(settle()).await.map(drop),
            2 => store.counters(keys()).await.map(drop),
            3 => {
                store.0.reserve_batch(&[Member::new(Arc::new(request(2, holds())))]).await.remove(0).map(drop)
            }
            4 => {
                let call = Settle { cooldown: None, ..settle() };
                let member = Member::new(Arc::new(store.0.settle_call(call, false)));
                store.0.settle_batch(&[member]).await.remove(0).map(drop)
            }
            5 => store.lift_cooldowns(vec![CounterKey::new("gate")]).await.map(drop),
            _ => store.sweep(0, 100).await.map(drop),
        };
        assert_eq!(refused, Err(NEWER), "script {script}");
        // From then on nothing is even sent.
        assert_eq!(store.find(ReservationId([1; 16])).await, Err(NEWER));
        assert_eq!(store.ping().await, Err(NEWER), "not ready");
    }
    assert!(dump(&store).await == before, "nothing was changed");
}

#[tokio::test]
async fn the_registry_of_a_later_layout_is_neither_read_nor_written() {
    let Some(server) = Server::start() else { return };
    let store = server.ready(&ManualClock::new(NOW)).await;
    store.registry_write("key/a".into(), 0, Bytes::from_static(b"{}")).await.unwrap();
    hset(&store, &store.0.keyspace.meta, "layout", (LAYOUT + 1).to_string().as_bytes()).await;
    let before = dump(&store).await;
    let written = store.registry_write("key/b".into(), 0, Bytes::from_static(b"{}")).await;
    assert_eq!(written, Err(NEWER));
    store.0.layout.learn(0, 0).unwrap();
    assert_eq!(store.registry_since(Revision::default()).await, Err(NEWER));
    assert_eq!(store.hash_key(Some([7; 32])).await, Err(NEWER));
    assert_eq!(store.add_uses(Vec::new()).await, Ok(()), "nothing is asked");
    let event = AuditEntry { id: AuditId::new(NOW, 0, 0), line: Bytes::from_static(b"{}") };
    for _ in 0..2 {
        let kept = AuditKept { ms: 1, events: 1 };
        assert_eq!(store.audit_append(vec![event.clone()], kept).await, Err(NEWER));
        // As if nothing had been read: the script looks itself.
        store.0.layout.learn(0, 0).unwrap();
    }
    let use_of = SecretUse { secret: SecretId(7), slot: 1, requests: 1, last_used: NOW };
    let addition = UsageAddition { source: [7; 16], number: 1, lines: vec![line("t", "m", 7)], max_rows: 9 };
    for script in 0..5 {
        store.0.layout.learn(0, 0).unwrap();
        let refused = match script {
            0 => store.add_uses(vec![use_of]).await,
            1 => store.uses(vec![use_of.secret]).await.map(drop),
            2 => store.add_usage(addition.clone()).await,
            3 => store.0.find_earlier(&[ReservationId([7; 16])]).await.map(drop),
            _ => store.0.book(&[7; 12], 1, &[line("t", "m", 7)]).await,
        };
        assert_eq!(refused, Err(NEWER), "script {script}");
    }
    assert!(dump(&store).await == before, "nothing was changed");
    // What no number is says nothing about what may be written.
    store.0.layout.learn(0, 0).unwrap();
    hset(&store, &store.0.keyspace.meta, "layout", b"four").await;
    assert_eq!(store.registry_since(Revision::default()).await, Err(StoreError::Corrupt));
    hset(&store, &store.0.keyspace.meta, "layout", LAYOUT.to_string().as_bytes()).await;
    assert!(store.registry_since(Revision::default()).await.is_ok());
}

/// As the connection is made: before a process asks anything of a server.
#[tokio::test]
async fn a_new_connection_reads_the_layout_first() {
    let Some(server) = Server::start() else { return };
    let first = server.ready(&ManualClock::new(NOW)).await;
    hset(&first, &first.0.keyspace.meta, "min_layout", (OLDEST_LAYOUT - 1).to_string().as_bytes()).await;
    let before = dump(&first).await;
    let second = server.store(Clock::Manual(ManualClock::new(NOW)));
    let older = StoreError::LayoutUnsupported(Unsupported::Older { found: OLDEST_LAYOUT - 1 });
    assert_eq!(second.reserve(request(1, vec![])).await, Err(older.clone()));
    assert_eq!(second.ping().await, Err(older));
    assert!(dump(&first).await == before, "nothing was changed");
}

/// Rows as this release writes them, and as those of layout 5 did, which may have the same key.
#[tokio::test]
async fn rows_of_usage_are_read_as_they_were_recorded() {
    const FIELD: &str = "20261123|0|0|0|1|3|0|mk|1";
    const VALUE: [u8; 14] = [7, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    let Some(server) = Server::start() else { return };
    let store = server.ready(&ManualClock::new(NOW)).await;
    store.reserve(request(1, vec![hold("b", BUDGET, 100, 30, 20)])).await.unwrap();
    let record = store.find(ReservationId([1; 16])).await.unwrap().unwrap();
    let settle = Settle { lines: vec![line("t", "m", 7)], ..settlement(record, 1, vec![1]) };
    assert!(matches!(store.settle(settle).await, Ok(SettleOutcome::Settled(_))));
    let key = store.0.keyspace.usage(&line("t", "m", 7).0.set);
    assert!(key.ends_with(":usage:d:202611:t"), "{key}");
    let found = store.0.connection.run(redis::cmd("HGETALL").arg(&key)).await.unwrap();
    let found: Vec<(String, Vec<u8>)> = redis::from_redis_value(found).unwrap();
    assert_eq!(found, [(FIELD.to_owned(), VALUE.to_vec())]);
    let mut earlier = Numbers::with_capacity(8);
    earlier.extend(&[100, 2, 30, 4, 50, 6, 0, 8]);
    let spend = store.0.keyspace.spend(202_611, "t");
    assert!(spend.ends_with(":spend:202611:t"), "{spend}");
    hset(&store, &spend, "20261123|1|m|k|1", earlier.bytes()).await;
    hset(&store, &spend, "20261122|1|m|", earlier.bytes()).await;
    let rows = store.spend(202_611, "t".into()).await.unwrap();
    let rows: Vec<_> = rows.iter().map(|(key, amounts)| (key.day, &*key.key, amounts.to_numbers())).collect();
    let numbers = |first: &[u64]| {
        let mut numbers = [0; crate::store::USAGE_AMOUNTS];
        numbers[..first.len()].copy_from_slice(first);
        numbers
    };
    let sums = [numbers(&[100, 2, 30, 4, 50, 6, 0, 8]), numbers(&[107, 3, 30, 4, 50, 6, 0, 8])];
    assert_eq!(rows, [(20_261_122, "", sums[0]), (20_261_123, "k|1", sums[1])]);
}
