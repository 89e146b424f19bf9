//! What a server forgot is booked again, and once.

use std::fs::OpenOptions;

use super::{
    server::{Server, until_up},
    *,
};
use crate::store::redis::replay::{Kept, Write};

/// The note of a settlement that leaves its id free.
const RELEASED: &[u8] = b"released";
/// Each write is in the file when it is acknowledged, so that the file can be cut between two of them.
pub(super) const APPENDS: [&str; 4] = ["--appendonly", "yes", "--appendfsync", "always"];
const TAKEN: [(&str, CounterKind); 2] = [("w", WINDOW), ("b", BUDGET)];

pub(super) fn keeping(seconds: u64) -> ReplaySettings {
    let released = Bytes::from_static(RELEASED);
    ReplaySettings { window: Duration::from_secs(seconds), released, ..ReplaySettings::default() }
}

pub(super) async fn caught_up(store: &RedisStore) {
    let start = Instant::now();
    while !store.0.has_caught_up().await {
        assert!(start.elapsed() < Duration::from_secs(20), "it is not written again");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// The request of `id`, as its attempt with this number.
pub(super) fn attempt(id: u8, number: u8, amount: u64) -> Reserve {
    let holds = vec![hold("w", WINDOW, 1_000, 0, amount), hold("b", BUDGET, 100_000, amount, 2 * amount)];
    let note = Bytes::from(vec![7, number]);
    let (gates, replaces) = (Vec::new(), Bytes::from_static(RELEASED));
    Reserve { note, gates, replaces, ..request(id, holds) }
}

/// The settlement of a request with this reservation.
pub(super) fn used(record: Record, id: u8, cost: u64) -> Settle {
    let lines = vec![line("t", "m", cost), line("", "m", cost)];
    Settle { lines, ..settlement(record, id, vec![1, cost]) }
}

pub(super) fn release(record: Record, id: u8) -> Settle {
    Settle { note: Bytes::from_static(RELEASED), ..settlement(record, id, vec![0, 0]) }
}

pub(super) async fn made(store: &RedisStore, reserve: Reserve) -> Record {
    let id = reserve.id;
    assert!(matches!(store.reserve(reserve).await, Ok(Reserved::Granted { .. })));
    store.find(id).await.unwrap().unwrap()
}

/// All that the books say: the counters, the rows, and of each id whether it is open, and the note of its settlement.
pub(super) async fn books(
    store: &RedisStore,
    ids: u8,
) -> (Vec<CounterState>, Option<(u64, u64)>, Vec<Option<Option<Bytes>>>) {
    let keys = TAKEN.map(|(name, kind)| (CounterKey::new(name), kind)).to_vec();
    // Reports have a connection of their own, which may find out later that the server is another one.
    let start = Instant::now();
    let rows = loop {
        match store.spend(202_611, "t".into()).await {
            Ok(rows) => break rows,
            Err(error) => assert!(start.elapsed() < Duration::from_secs(20), "{error}"),
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    };
    let mut records = Vec::new();
    for id in 0..ids {
        let found = store.0.find_stored(ReservationId([id; 16])).await.unwrap();
        records.push(found.map(|record| record.settlement.map(|settlement| settlement.note)));
    }
    let row = rows.first().map(|(_, amounts)| (amounts.cost_nanos, amounts.requests));
    (store.counters(keys).await.unwrap(), row, records)
}

/// Two stores reserve, settle, release and repeat; the server forgets everything after some moment, which may be the beginning, and starts
/// again. After that, the books are what they were.
#[tokio::test]
async fn what_a_server_forgot_is_booked_once_however_much_it_was() {
    let Some(mut server) = Server::start_with(&APPENDS) else { return };
    let clock = ManualClock::new(NOW);
    for seed in 1..=8 {
        forget_a_tail(&mut server, &clock, seed).await;
    }
}

/// A place in a list of this length.
fn place(dice: &mut Dice, length: usize) -> usize {
    usize::try_from(dice.roll(length as u64)).unwrap()
}

async fn forget_a_tail(server: &mut Server, clock: &ManualClock, seed: u64) {
    let organization = format!("org{seed}");
    let mut dice = Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let store = || server.store_keeping(&organization, Clock::Manual(clock.clone()), keeping(60));
    let stores = [store(), store()];
    for store in &stores {
        until_up(store).await;
        caught_up(store).await;
    }
    let log = server.directory().join("appendonlydir/appendonly.aof.1.incr.aof");
    let length = || std::fs::metadata(&log).unwrap().len();
    let (steps, mut kept) = (40, length());
    let cut_after = dice.roll(steps);
    let (mut open, mut settled, mut ids) = (Vec::new(), Vec::<Settle>::new(), 0);
    for step in 0..steps {
        if step == cut_after && seed > 1 {
            kept = length();
        }
        let store = &stores[usize::from(dice.roll(2) == 1)];
        match dice.roll(8) {
            0..4 => {
                open.push((ids, made(store, attempt(ids, 1, 1 + dice.roll(9))).await));
                ids += 1;
            }
            4..6 if !open.is_empty() => {
                let (id, record) = open.swap_remove(place(&mut dice, open.len()));
                let settle = used(record, id, 1 + dice.roll(50));
                assert!(matches!(store.settle(settle.clone()).await, Ok(SettleOutcome::Settled(_))));
                settled.push(settle);
            }
            6 if !open.is_empty() => {
                let (id, record) = open.swap_remove(place(&mut dice, open.len()));
                assert!(matches!(store.settle(release(record, id)).await, Ok(SettleOutcome::Settled(_))));
            }
            _ if !settled.is_empty() => {
                let settle = settled[place(&mut dice, settled.len())].clone();
                assert!(matches!(store.settle(settle).await, Ok(SettleOutcome::AlreadySettled(_))));
            }
            _ => {}
        }
    }
    let before = books(&stores[0], ids).await;
    let lost = length() - kept;
    server.kill();
    OpenOptions::new().write(true).open(&log).unwrap().set_len(kept).unwrap();
    server.restart_with(&APPENDS);
    for store in &stores {
        until_up(store).await;
        caught_up(store).await;
    }
    println!("seed {seed}: {ids} requests, {lost} bytes lost");
    assert_eq!(books(&stores[0], ids).await, before, "seed {seed}, cut after {cut_after} of {steps} steps");
    // What is left to be reported is, on either of them.
    for (id, record) in open {
        let answer = stores[1].settle(used(record, id, 3)).await;
        assert!(matches!(answer, Ok(SettleOutcome::Settled(_))), "{answer:?}");
    }
}

#[tokio::test]
async fn all_that_is_kept_is_there_again_where_everything_was_lost() {
    let Some(server) = Server::start() else { return };
    let clock = ManualClock::new(NOW);
    let store = server.store_keeping("acme", Clock::Manual(clock.clone()), keeping(60));
    let off = server.store_of("acme", Clock::Manual(clock.clone()));
    until_up(&store).await;
    caught_up(&store).await;
    let record = made(&store, attempt(1, 1, 5)).await;
    made(&store, attempt(2, 1, 5)).await;
    store.settle(used(record, 1, 9)).await.unwrap();
    store.registry_write("pause/organization".into(), 0, Bytes::from_static(b"{}")).await.unwrap();
    assert_eq!(store.hash_key(Some([9; 32])).await, Ok(Some([9; 32])));
    let before = books(&store, 3).await;
    // Without a new connection.
    let flush = redis::cmd("FLUSHALL");
    store.0.connection.run(&flush).await.unwrap();
    // Nothing is said to be unknown that may be there again in a moment.
    assert_eq!(store.find(ReservationId([2; 16])).await, Err(StoreError::Unavailable));
    caught_up(&store).await;
    assert_eq!(books(&store, 3).await, before);
    let changes = store.registry_since(Revision::default()).await.unwrap();
    let names: Vec<_> = changes.records.iter().map(|record| (&*record.name, &record.value[..])).collect();
    assert_eq!(names, [("pause/organization", &b"{}"[..])]);
    assert_eq!(store.hash_key(None).await, Ok(Some([9; 32])));
    // A store that keeps nothing writes nothing, and says at once what is unknown.
    off.0.connection.run(&flush).await.unwrap();
    assert_eq!(off.find(ReservationId([2; 16])).await, Ok(None));
}

#[tokio::test]
async fn what_is_older_than_the_window_is_not_kept() {
    let Some(server) = Server::start() else { return };
    let store = server.store_keeping("acme", Clock::Manual(ManualClock::new(NOW)), keeping(1));
    until_up(&store).await;
    let record = made(&store, attempt(1, 1, 5)).await;
    store.settle(used(record, 1, 9)).await.unwrap();
    assert_eq!(store.0.kept().len(), 1, "the last about it");
    let start = Instant::now();
    while !store.0.kept().is_empty() {
        assert!(start.elapsed() < Duration::from_secs(20), "it is kept for good");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(start.elapsed() > Duration::from_millis(900), "{:?}", start.elapsed());
}

/// What stands under an id when its settlement is written again, and what comes of that, however often.
#[tokio::test]
async fn a_settlement_finds_its_own_reservation_or_one_beside() {
    let Some(server) = Server::start() else { return };
    let clock = ManualClock::new(NOW);
    let store = server.store_keeping("acme", Clock::Manual(clock.clone()), keeping(0));
    until_up(&store).await;
    let flush = redis::cmd("FLUSHALL");
    let forgotten =
        |settle: &Settle| vec![Kept::Settlement(Arc::new(store.0.settle_call(settle.clone(), false)))];
    let open = |amount: u64| CounterState { used: 3 * amount, open: 1, ..CounterState::default() };
    // Nothing; its own, open; another one, open; another one, released; and the same for a release.
    for (case, is_release, written, cost, left) in [
        (0, false, 1, 9, CounterState { used: 9, settled: 9, open: 0 }),
        (1, false, 1, 9, CounterState { used: 9, settled: 9, open: 0 }),
        (2, false, 1, 9, CounterState { used: 9 + 3 * 4, settled: 9, open: 1 }),
        (3, false, 1, 9, CounterState { used: 9, settled: 9, open: 0 }),
        (0, true, 1, 0, CounterState::default()),
        (1, true, 1, 0, CounterState::default()),
        (2, true, 0, 0, open(4)),
        (3, true, 0, 0, CounterState::default()),
    ] {
        store.0.connection.run(&flush).await.unwrap();
        let record = made(&store, attempt(1, 1, 5)).await;
        let settle = if is_release { release(record, 1) } else { used(record, 1, 9) };
        if case != 1 {
            store.0.connection.run(&flush).await.unwrap();
        }
        if case > 1 {
            let other = made(&store, attempt(1, 2, 4)).await;
            if case == 3 {
                store.settle(release(other, 1)).await.unwrap();
            }
        }
        let at = format!("case {case}, release: {is_release}");
        for times in [written, 0] {
            let done = store.0.write_again(forgotten(&settle)).await.unwrap();
            assert_eq!((done.settlements, done.left_out), (times, 0), "{at}");
        }
        let (counters, row, _) = books(&store, 2).await;
        assert_eq!(counters[1], left, "{at}");
        assert_eq!(row.map_or(0, |(cost, _)| cost), cost, "{at}");
        if case == 3 && !is_release {
            // A repeat of the report finds it.
            assert!(matches!(store.settle(settle).await, Ok(SettleOutcome::AlreadySettled(_))), "{at}");
        }
    }
}

/// Two replicas wrote one record, and the server has forgotten both writes, or none, or has a later one.
#[tokio::test]
async fn of_changes_that_were_forgotten_the_last_counts_unless_there_was_one_since() {
    let Some(server) = Server::start() else { return };
    let store = server.store_keeping("acme", Clock::Manual(ManualClock::new(NOW)), keeping(0));
    until_up(&store).await;
    let flush = redis::cmd("FLUSHALL");
    let write = |name: &str, version, value: &'static [u8]| {
        Kept::Write(Arc::new(Write::new(name.into(), version, value.into())))
    };
    let value = async |name: &str| {
        let changes = store.registry_since(Revision::default()).await.unwrap();
        let record = changes.records.into_iter().find(|record| &*record.name == name);
        record.map(|record| record.value)
    };
    for order in [[0, 1], [1, 0]] {
        store.0.connection.run(&flush).await.unwrap();
        // It looks at the generation.
        store.0.has_caught_up().await;
        let writes = [write("key/a", 5, b"first"), write("key/a", 7, b"revoked")];
        for _ in 0..2 {
            for place in order {
                store.0.write_again(vec![writes[place].clone()]).await.unwrap();
            }
        }
        assert_eq!(value("key/a").await.as_deref(), Some(&b"revoked"[..]), "{order:?}");
        // It is a record as any other: it can be changed, and what was forgotten does not come back.
        let records = store.registry_since(Revision::default()).await.unwrap().records;
        let since =
            store.registry_write("key/a".into(), records[0].version, Bytes::from_static(b"since")).await;
        assert!(matches!(since, Ok(RegistryWritten::Written { .. })), "{since:?}");
        for place in order {
            assert_eq!(store.0.write_again(vec![writes[place].clone()]).await.unwrap().changes, 0);
        }
        assert_eq!(value("key/a").await.as_deref(), Some(&b"since"[..]));
        // Nor at a later failover, that may forget nothing: what they were numbered on an earlier server does not count on this one.
        let mut forked = redis::cmd("HSET");
        forked.arg(&store.0.keyspace.meta).arg("forked_at").arg(1_000);
        store.0.connection.run(&forked).await.unwrap();
        for place in order {
            assert_eq!(store.0.write_again(vec![writes[place].clone()]).await.unwrap().changes, 0);
        }
        assert_eq!(value("key/a").await.as_deref(), Some(&b"since"[..]));
        forked.arg("forked_at").arg(0);
        store.0.connection.run(&forked).await.unwrap();
        store.registry_write("key/b".into(), 0, Bytes::from_static(b"new")).await.unwrap();
        store.0.write_again(vec![write("key/b", 9, b"forgotten")]).await.unwrap();
        assert_eq!(value("key/b").await.as_deref(), Some(&b"new"[..]));
    }
}

/// Memory is full on the server that forgot: no reservation can be made, but what was reserved can be settled.
#[tokio::test]
async fn what_cannot_be_written_yet_holds_up_nothing_else_and_is_written_later() {
    let Some(mut server) = Server::start_with(&APPENDS) else { return };
    let clock = Clock::Manual(ManualClock::new(NOW));
    let store = server.store_keeping("acme", clock, keeping(600));
    until_up(&store).await;
    caught_up(&store).await;
    let log = server.directory().join("appendonlydir/appendonly.aof.1.incr.aof");
    let count = 100;
    let mut records = Vec::new();
    for id in 0..count {
        records.push(made(&store, attempt(id, 1, 1)).await);
    }
    let kept = std::fs::metadata(&log).unwrap().len();
    // Before all others, and more than are looked up at a time.
    for id in count..count + 40 {
        made(&store, attempt(id, 1, 1)).await;
    }
    for (id, record) in (0..count).zip(records) {
        store.settle(used(record, id, 2)).await.unwrap();
    }
    let before = books(&store, 0).await;
    server.kill();
    OpenOptions::new().write(true).open(&log).unwrap().set_len(kept).unwrap();
    server.restart_with(&[&APPENDS[..], &["--maxmemory", "1mb"]].concat());
    until_up(&store).await;
    let start = Instant::now();
    let budget = async || store.counters(vec![(CounterKey::new("b"), BUDGET)]).await.unwrap()[0];
    while budget().await.settled < 2 * u64::from(count) {
        assert!(
            start.elapsed() < Duration::from_secs(20),
            "what can be settled is not: {:?}",
            budget().await
        );
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(budget().await.open, 0);
    let mut by_hand = server.by_hand();
    redis::cmd("CONFIG").arg("SET").arg("maxmemory").arg("0").exec(&mut by_hand).unwrap();
    caught_up(&store).await;
    assert_eq!(books(&store, 0).await, before);
}
