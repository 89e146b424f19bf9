//! How many calls batches take.

use super::{server::Server, *};
use crate::store::redis::{
    queue::{Group as _, Member},
    reserve::Reservations,
};

/// How often the server ran a command since its statistics were reset.
async fn runs(store: &RedisStore, command: &str) -> u64 {
    let info = store.0.connection.run(redis::cmd("INFO").arg("commandstats")).await.unwrap();
    let info: String = redis::from_redis_value(info).unwrap();
    let line = info.lines().find_map(|line| line.strip_prefix(&format!("cmdstat_{command}:calls=")));
    line.and_then(|line| line.split(',').next()?.parse().ok()).unwrap_or(0)
}

#[tokio::test]
async fn what_fits_is_read_and_written_once() {
    let Some(server) = Server::start() else { return };
    let clock = ManualClock::new(NOW);
    let store = server.ready(&clock).await;
    let member = |call: Reserve| Member::new(Arc::new(call));
    let holds = || vec![hold("w", WINDOW, 100, 0, 6), hold("b", BUDGET, 1_000, 30, 20)];
    // The first enters slots.
    store.reserve(request(99, holds())).await.unwrap();
    let reset = redis::cmd("CONFIG").arg("RESETSTAT").to_owned();
    store.0.connection.run(&reset).await.unwrap();
    let members: Vec<_> = (0..8).map(|id| member(request(id, holds()))).collect();
    let granted = store.0.reserve_batch(&members).await;
    let used = |n: u64| Ok(Reserved::Granted { now: NOW, used: vec![6 * n, 50 * n] });
    assert_eq!(granted, (1..=8).map(used).collect::<Vec<_>>());
    assert_eq!((runs(&store, "hmget").await, runs(&store, "hset").await), (2, 2), "counters and records");
    let mut settlements = Vec::new();
    for id in 0..8 {
        let record = store.find(ReservationId([id; 16])).await.unwrap().unwrap();
        let lines = vec![line("t", "m", 7)];
        let settle = Settle { lines, ..settlement(record, id, vec![1, 10]) };
        settlements.push(Member::new(Arc::new(store.0.settle_call(settle, false))));
    }
    store.0.connection.run(&reset).await.unwrap();
    let settled = store.0.settle_batch(&settlements).await;
    assert!(
        settled.iter().all(|answer| matches!(answer, Ok(Some(SettleOutcome::Settled(_))))),
        "{settled:?}"
    );
    let runs = (runs(&store, "hmget").await, runs(&store, "hset").await);
    assert_eq!(runs, (2, 3), "counters, records and a line");
    assert_eq!(store.spend(202_611, "t".into()).await.unwrap()[0].1.cost_nanos, 56);
}

/// A request for what refused one lately is sent by itself, so that it does not have others decided one by one.
#[tokio::test]
async fn what_refused_lately_is_asked_for_alone() {
    let Some(server) = Server::start() else { return };
    let clock = ManualClock::new(NOW);
    let store = server.ready(&clock).await;
    let full = |id| Reserve { gates: Vec::new(), ..request(id, vec![hold("full", WINDOW, 10, 0, 6)]) };
    let free = |id| Reserve { gates: Vec::new(), ..request(id, vec![hold("free", WINDOW, 10_000, 0, 6)]) };
    store.reserve(full(1)).await.unwrap();
    assert!(!store.0.refusing.concerns(&full(2)));
    assert!(matches!(store.reserve(full(2)).await, Ok(Reserved::Refused { .. })));
    assert!(store.0.refusing.concerns(&full(3)) && !store.0.refusing.concerns(&free(4)));
    let reset = redis::cmd("CONFIG").arg("RESETSTAT").to_owned();
    store.0.connection.run(&reset).await.unwrap();
    let calls: Vec<_> = (0..40).map(|id| if id % 2 == 0 { full(id + 10) } else { free(id + 10) }).collect();
    let ask = |call| {
        let store = store.clone();
        tokio::spawn(async move { store.reserve(call).await.unwrap() })
    };
    let tasks: Vec<_> = calls.into_iter().map(ask).collect();
    for (index, task) in tasks.into_iter().enumerate() {
        let answer = task.await.unwrap();
        assert_eq!(matches!(answer, Reserved::Granted { .. }), index % 2 == 1, "{answer:?}");
    }
    // Each of the full ones, two free ones at once, and the rest together, in one or in two.
    let calls = runs(&store, "evalsha").await;
    assert!((23..=24).contains(&calls), "{calls} calls");
    // What the server freed is granted, as it decides.
    clock.set(NOW.plus(120_000));
    assert!(store.0.refusing.concerns(&full(5)));
    assert!(matches!(store.reserve(full(5)).await, Ok(Reserved::Granted { .. })));
}

/// What began to refuse while they waited is asked for alone, too.
#[tokio::test]
async fn what_refuses_by_now_does_not_have_others_decided_by_themselves() {
    let Some(server) = Server::start() else { return };
    let store = server.ready(&ManualClock::new(NOW)).await;
    let ask =
        |id, name, limit| Reserve { gates: Vec::new(), ..request(id, vec![hold(name, WINDOW, limit, 0, 6)]) };
    store.reserve(ask(1, "full", 10)).await.unwrap();
    assert!(matches!(store.reserve(ask(2, "full", 10)).await, Ok(Reserved::Refused { .. })));
    let reset = redis::cmd("CONFIG").arg("RESETSTAT").to_owned();
    store.0.connection.run(&reset).await.unwrap();
    let calls =
        (0..20).map(|id| if id % 5 == 0 { ask(id + 10, "full", 10) } else { ask(id + 10, "free", 10_000) });
    let members: Vec<_> = calls.map(|call| Member::new(Arc::new(call))).collect();
    let answers = Reservations(Arc::clone(&store.0)).together(&members).await;
    assert_eq!(runs(&store, "evalsha").await, 4 + 1, "the others are one call");
    for (index, answer) in answers.into_iter().enumerate() {
        let is_granted = matches!(answer, Ok(Reserved::Granted { .. }));
        assert_eq!(is_granted, index % 5 > 0, "{answer:?}");
    }
}
