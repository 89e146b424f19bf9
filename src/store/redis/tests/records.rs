//! Records that refer to terms, those of layout 4, and those that a process remembers.

use super::{
    server::{Server, until_up},
    *,
};
use crate::{
    domain::holds::{Amount, Holds, Term, Terms},
    store::{
        LAYOUT, OLDEST_LAYOUT,
        redis::{queue::Member, record, wire::Numbers},
    },
};

const DAY: u64 = 86_400_000;

fn terms(team: &str) -> Arc<Terms> {
    let names = [format!("team/{team}|requests|minute"), format!("team/{team}|usd|month")];
    let term = |(name, kind): (String, CounterKind)| {
        let class = u16::from(kind == BUDGET);
        Term { counter: CounterKey::new(name), kind, limit: 1_000, class }
    };
    let note = Bytes::from_static(b"much that is the same for all requests of the team and the model");
    Arc::new(Terms::new(names.into_iter().zip([WINDOW, BUDGET]).map(term), note))
}

fn of(terms: &Arc<Terms>, id: u8) -> Reserve {
    let mut holds = Holds::new(Arc::clone(terms));
    holds.set(0, Amount { kept: 0, expiring: 1 });
    holds.set(1, Amount { kept: 10 + u64::from(id), expiring: 0 });
    let note = format!("a note that says {id}");
    Reserve { holds, note: note.into(), gates: Vec::new(), ..request(id, Vec::new()) }
}

async fn run<T: redis::FromRedisValue>(store: &RedisStore, command: &[&str]) -> T {
    let mut cmd = redis::cmd(command[0]);
    cmd.arg(&command[1..]);
    redis::from_redis_value(store.0.connection.run(&cmd).await.unwrap()).unwrap()
}

async fn grant(store: &RedisStore, reserve: &Reserve) {
    let granted = store.reserve(reserve.clone()).await;
    assert!(matches!(granted, Ok(Reserved::Granted { .. })), "{granted:?}");
}

/// A record as it should be found.
fn found(reserve: &Reserve, now: Timestamp) -> Record {
    Record {
        fingerprint: reserve.fingerprint,
        reserved_at: now,
        expires_at: now.plus(reserve.ttl_ms),
        holds: reserve.holds.clone(),
        note: reserve.note.clone(),
        settlement: None,
    }
}

#[tokio::test]
async fn records_of_one_kind_refer_to_terms_that_every_process_finds() {
    let Some(server) = Server::start() else { return };
    let clock = ManualClock::new(NOW);
    let (store, other) = (server.ready(&clock).await, server.ready(&clock).await);
    let (kind, keyspace) = (terms("a"), &store.0.keyspace);
    let all: Vec<_> = (1..=6).map(|id| of(&kind, id)).collect();
    grant(&store, &all[0]).await;
    assert_eq!(run::<u64>(&store, &["EXISTS", &keyspace.terms]).await, 0, "it may be the only one");
    let members: Vec<_> = all[1..4].iter().map(|call| Member::new(Arc::new(call.clone()))).collect();
    let granted = store.0.reserve_batch(&members).await;
    assert!(granted.iter().all(|answer| matches!(answer, Ok(Reserved::Granted { .. }))), "{granted:?}");
    assert_eq!(run::<u64>(&store, &["HLEN", &keyspace.terms]).await, 1);
    grant(&store, &all[4]).await;
    let first = redis::cmd("HSTRLEN").arg(&keyspace.records).arg(&[1_u8; 16]).to_owned();
    let last = redis::cmd("HSTRLEN").arg(&keyspace.records).arg(&[5_u8; 16]).to_owned();
    let [first, last]: [u64; 2] = [
        redis::from_redis_value(store.0.connection.run(&first).await.unwrap()).unwrap(),
        redis::from_redis_value(store.0.connection.run(&last).await.unwrap()).unwrap(),
    ];
    assert!(last < 80 && first > 150, "{last} bytes instead of {first}");
    for call in &all[..5] {
        for store in [&store, &other] {
            assert_eq!(store.find(call.id).await, Ok(Some(found(call, NOW))), "{:?}", call.id);
        }
    }
    // One that it did not grant is repeated and settled by the other process.
    let repeated = Reserved::Repeated(found(&all[3], NOW));
    assert_eq!(server.ready(&clock).await.reserve(all[3].clone()).await, Ok(repeated));
    let settle = settlement(found(&all[3], NOW), 4, vec![1, 3]);
    let Ok(SettleOutcome::Settled(settled)) = other.settle(settle.clone()).await else { panic!() };
    assert_eq!(store.settle(settle).await, Ok(SettleOutcome::AlreadySettled(settled)));
}

#[tokio::test]
async fn terms_that_redis_lost_are_written_again_before_a_record_refers_to_them() {
    let Some(server) = Server::start() else { return };
    let clock = ManualClock::new(NOW);
    let store = server.ready(&clock).await;
    let kinds = [terms("a"), terms("b")];
    let mut id = 0;
    let mut next = |kind: usize| {
        id += 1;
        of(&kinds[kind], id)
    };
    for kind in [0, 0, 1, 1] {
        grant(&store, &next(kind)).await;
    }
    let keyspace = &store.0.keyspace;
    for lost in [keyspace.terms.clone(), "all".into(), keyspace.terms.clone()] {
        for is_batch in [false, true] {
            match &*lost {
                "all" => drop(run::<String>(&store, &["FLUSHALL"]).await),
                key => drop(run::<u64>(&store, &["DEL", key]).await),
            }
            let calls = if is_batch { vec![next(0), next(1), next(0)] } else { vec![next(1)] };
            let members: Vec<_> = calls.iter().map(|call| Member::new(Arc::new(call.clone()))).collect();
            let granted = match is_batch {
                true => store.0.reserve_batch(&members).await,
                false => vec![store.reserve(calls[0].clone()).await],
            };
            assert!(
                granted.iter().all(|answer| matches!(answer, Ok(Reserved::Granted { .. }))),
                "{granted:?}"
            );
            let fresh = server.ready(&clock).await;
            for call in &calls {
                assert_eq!(fresh.find(call.id).await, Ok(Some(found(call, NOW))), "{lost}");
            }
        }
    }
    // What refers to lost terms fails, and nothing else does.
    let last = next(0);
    grant(&store, &last).await;
    let whole = of(&terms("c"), 200);
    grant(&store, &whole).await;
    run::<u64>(&store, &["DEL", &keyspace.terms]).await;
    let fresh = server.ready(&clock).await;
    let members = [last.id, whole.id].map(Member::new);
    let read = fresh.0.find_batch(&members).await;
    assert_eq!(read, [Err(StoreError::Corrupt), Ok(Some(found(&whole, NOW)))]);
}

#[tokio::test]
async fn terms_are_kept_longer_than_what_refers_to_them() {
    let Some(server) = Server::start() else { return };
    let clock = ManualClock::new(NOW);
    let store = server.ready(&clock).await;
    let (kind, keyspace) = (terms("a"), &store.0.keyspace);
    let (mut id, mut last) = (0, of(&kind, 0));
    // Each is gone 90 s after it was made.
    for passed in [0, 0, DAY - 1, 1, 3 * DAY, 1] {
        clock.pass(passed);
        store.sweep(0, 100).await.unwrap();
        id += 1;
        last = of(&kind, id);
        grant(&store, &last).await;
        clock.pass(89_999);
        store.sweep(0, 100).await.unwrap();
        let found = server.ready(&clock).await.find(last.id).await;
        assert!(matches!(found, Ok(Some(_))), "{passed}: {found:?}");
    }
    // A settlement keeps its record for longer, and its terms with it.
    let record = store.find(last.id).await.unwrap().unwrap();
    let settle = Settle { keep_ms: DAY - 1, ..settlement(record, id, vec![1, 1]) };
    assert!(matches!(store.settle(settle).await, Ok(SettleOutcome::Settled(_))));
    clock.pass(DAY - 2);
    store.sweep(0, 100).await.unwrap();
    let found = server.ready(&clock).await.find(last.id).await;
    assert!(matches!(found, Ok(Some(Record { settlement: Some(_), .. }))), "{found:?}");
    clock.pass(2 * DAY);
    store.sweep(0, 100).await.unwrap();
    assert_eq!(run::<u64>(&store, &["EXISTS", &keyspace.terms]).await, 0);
}

/// Writes a record as layout 4 did.
async fn write_earlier(store: &RedisStore, reserve: &Reserve, header: &[u64], settled: &[u8]) {
    let index = &store.0.keyspace.earlier;
    let key = index.replace("reservations", &format!("reservation:{}", reserve.id));
    let mut numbers = Numbers::with_capacity(header.len());
    numbers.extend(header);
    let record = [numbers.bytes(), settled, &record::encode(reserve, None).unwrap()].concat();
    store.0.connection.run(redis::cmd("SET").arg(key).arg(record)).await.unwrap();
    let mut add = redis::cmd("ZADD");
    add.arg(index).arg(header[3]).arg(reserve.id.to_string());
    store.0.connection.run(&add).await.unwrap();
}

#[tokio::test]
async fn records_of_layout_4_are_found_repeated_settled_and_moved() {
    let Some(server) = Server::start() else { return };
    let clock = ManualClock::new(NOW);
    let store = server.ready(&clock).await;
    let holds = || vec![hold("w", WINDOW, 1_000, 0, 6), hold("b", BUDGET, 1_000, 30, 20)];
    let at = [NOW.0, NOW.0 + 60_000, NOW.0 + 90_000];
    let open = |id| Reserve { gates: Vec::new(), ..request(id, holds()) };
    for id in 1..=6 {
        write_earlier(&store, &open(id), &[0, at[0], at[1], at[2]], b"").await;
    }
    // Settled, before thresholds were kept and since.
    let mut counters = Numbers::with_capacity(8);
    counters.extend(&[0, 2, 0, 0, 5, 20, 15, 1]);
    let settled = [b"done", counters.bytes()].concat();
    write_earlier(&store, &open(7), &[1, at[0], at[1], at[2], at[0] + 5, 2, 4], &settled).await;
    write_earlier(&store, &open(8), &[2, at[0], at[1], at[2], at[0] + 5, 2, 4, 0], &settled).await;

    assert_eq!(store.find(open(1).id).await, Ok(Some(found(&open(1), NOW))));
    assert_eq!(store.reserve(open(2)).await, Ok(Reserved::Repeated(found(&open(2), NOW))));
    let members: Vec<_> = [3, 9].map(|id| Member::new(Arc::new(open(id)))).into();
    let answers = store.0.reserve_batch(&members).await;
    assert_eq!(answers[0], Ok(Reserved::Repeated(found(&open(3), NOW))));
    assert!(matches!(answers[1], Ok(Reserved::Granted { .. })), "{answers:?}");
    let after = [(0, 2, 0, 0), (5, 20, 15, 1)].map(|(settled_before, used, settled, open)| Settled {
        settled_before,
        after: CounterState { used, settled, open },
    });
    let settlement_of = |id| {
        let store = store.clone();
        async move { store.find(ReservationId([id; 16])).await.unwrap().unwrap().settlement.unwrap() }
    };
    for id in [7, 8] {
        let settlement = settlement_of(id).await;
        assert_eq!((&*settlement.counters, &*settlement.note), (&after[..], &b"done"[..]));
        assert!(settlement.reported.is_empty());
    }
    // Settled in one batch: one that was not looked for yet, one that was, and one of this layout.
    let settle = |id| settlement(found(&open(id), NOW), id, vec![1, 10]);
    let members: Vec<_> =
        [4, 1, 9].map(|id| Member::new(Arc::new(store.0.settle_call(settle(id), false)))).into();
    let answers = store.0.settle_batch(&members).await;
    assert!(
        answers.iter().all(|answer| matches!(answer, Ok(Some(SettleOutcome::Settled(_))))),
        "{answers:?}"
    );
    assert!(matches!(store.settle(settle(5)).await, Ok(SettleOutcome::Settled(_))));
    assert!(matches!(store.settle(settle(5)).await, Ok(SettleOutcome::AlreadySettled(_))));
    assert_eq!(run::<u64>(&store, &["ZCARD", &store.0.keyspace.earlier]).await, 1);
    store.sweep(0, 100).await.unwrap();
    assert_eq!(run::<u64>(&store, &["EXISTS", &store.0.keyspace.earlier]).await, 0);
    assert_eq!(store.find(open(6).id).await, Ok(Some(found(&open(6), NOW))));
    assert_eq!(run::<Vec<String>>(&store, &["KEYS", "*reservation*"]).await, Vec::<String>::new());
    clock.pass(90_000);
    store.sweep(0, 100).await.unwrap();
    assert_eq!(store.find(open(6).id).await, Ok(None));
}

#[tokio::test]
async fn a_layout_is_raised_with_the_first_reading_of_the_registry() {
    let Some(server) = Server::start() else { return };
    let clock = ManualClock::new(NOW);
    let first = server.ready(&clock).await;
    let (meta, counters) = (&first.0.keyspace.meta, &first.0.keyspace.counters);
    let mut time = Numbers::with_capacity(3);
    time.extend(&[NOW.0, 0, u64::from(OLDEST_LAYOUT)]);
    let set = redis::cmd("HSET").arg(counters).arg("!time").arg(time.bytes()).to_owned();
    first.0.connection.run(&set).await.unwrap();
    let oldest = OLDEST_LAYOUT.to_string();
    run::<u64>(&first, &["HSET", meta, "layout", &oldest, "min_layout", &oldest]).await;
    // A process that only connects may still find that it cannot serve. Before one serves it reads the registry.
    let said = || async {
        let layouts: [u32; 2] = run(&first, &["HMGET", meta, "layout", "min_layout"]).await;
        let time: Vec<u8> = {
            let get = redis::cmd("HGET").arg(counters).arg("!time").to_owned();
            redis::from_redis_value(first.0.connection.run(&get).await.unwrap()).unwrap()
        };
        (layouts, f64::from_le_bytes(time[16..].try_into().unwrap()))
    };
    let other = server.store(Clock::Manual(clock.clone()));
    until_up(&other).await;
    assert_eq!(said().await, ([OLDEST_LAYOUT, OLDEST_LAYOUT], f64::from(OLDEST_LAYOUT)));
    other.registry_since(Revision::default()).await.unwrap();
    assert_eq!(said().await, ([LAYOUT, OLDEST_LAYOUT], f64::from(LAYOUT)));
}

#[tokio::test]
async fn a_reservation_that_is_remembered_is_settled_only_if_it_is_as_it_was() {
    let Some(server) = Server::start() else { return };
    let clock = ManualClock::new(NOW);
    let (store, other) = (server.ready(&clock).await, server.ready(&clock).await);
    let kind = terms("a");
    let open = |id| Reserve { replaces: Bytes::from_static(b"free"), ..of(&kind, id) };
    for id in 1..=8 {
        grant(&store, &open(id)).await;
    }
    run::<String>(&store, &["CONFIG", "RESETSTAT"]).await;
    let mut recalled = Vec::new();
    for id in 1..=8 {
        recalled.push(store.recall(open(id).id).unwrap());
        assert_eq!(recalled.last(), Some(&found(&open(id), NOW)));
    }
    let statistics: String = run(&store, &["INFO", "commandstats"]).await;
    assert!(!statistics.contains("cmdstat_hmget"), "nothing was asked: {statistics}");
    let settle = |id: u8| settlement(recalled[usize::from(id) - 1].clone(), id, vec![1, 3]);
    let by = |id, note: &'static [u8]| Settle { note: Bytes::from_static(note), ..settle(id) };
    // As it was.
    assert!(matches!(store.settle_recalled(settle(1)).await, Ok(Some(SettleOutcome::Settled(_)))));
    assert_eq!(store.settle_recalled(settle(1)).await, Ok(None), "that is over");
    // Settled elsewhere, released elsewhere, and released and made again, with the same amounts and with others.
    other.settle(by(2, b"done")).await.unwrap();
    for id in [3, 4, 5] {
        other.settle(by(id, b"free")).await.unwrap();
    }
    clock.pass(1);
    grant(&other, &open(4)).await;
    grant(&other, &Reserve { holds: of(&kind, 9).holds, ..open(5) }).await;
    let counters = || store.counters(vec![(CounterKey::new("team/a|usd|month"), BUDGET)]);
    let before = counters().await;
    for id in 2..=5 {
        assert_eq!(store.settle_recalled(settle(id)).await, Ok(None), "{id}");
    }
    assert_eq!(counters().await, before, "nothing was changed");
    // What is found then is settled as it is.
    assert_eq!(store.recall(open(5).id), None);
    assert_eq!(store.find(open(5).id).await.unwrap().unwrap().holds, of(&kind, 9).holds);
    // Several at once, of which one is something else by now.
    other.settle(by(7, b"done")).await.unwrap();
    let calls = [6, 7, 8].map(|id| Member::new(Arc::new(store.0.settle_call(settle(id), true))));
    let answers = store.0.settle_batch(&calls).await;
    let is_settled = |answer: &Result<_, _>| matches!(answer, Ok(Some(SettleOutcome::Settled(_))));
    assert!(is_settled(&answers[0]) && answers[1] == Ok(None) && is_settled(&answers[2]), "{answers:?}");
    // What is lost, and what is gone.
    grant(&store, &open(10)).await;
    let record = store.recall(open(10).id).unwrap();
    run::<String>(&store, &["FLUSHALL"]).await;
    let lost = settlement(record, 10, vec![1, 3]);
    assert_eq!(store.settle_recalled(lost.clone()).await, Ok(None));
    assert_eq!(
        (store.find(lost.id).await, store.settle(lost).await),
        (Ok(None), Ok(SettleOutcome::NotFound))
    );
    grant(&store, &open(11)).await;
    clock.pass(90_000);
    assert_eq!(store.recall(open(11).id), None);
}
