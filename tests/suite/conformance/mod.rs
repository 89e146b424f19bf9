//! What a store does, once for all of them: each behaviour runs on the plain model, on the embedded store, on Redis,
//! and on a Redis Cluster.

mod additions;
mod audit;
mod budgets;
mod cooldowns;
mod decisions;
mod drift;
mod names;
mod outbox;
mod policies;
mod registry;
mod repeats;
mod replicas;
mod reservations;
mod settlements;
mod spend;
mod windows;

use std::sync::Arc;
use tollgate::store::{Ledger as _, Usage as _};

use bytes::Bytes;
use tollgate::{
    domain::{
        Timestamp,
        counter::{CounterKey, CounterKind, CounterState, Hold},
    },
    store::{
        CooldownChange, Record, Refusal, ReservationId, Reserve, Reserved, Settle, SettleOutcome, Settled,
        Store, UsageAmounts, UsageKey,
    },
};

use crate::harness::{Fixture, START};

/// The slot of a window of a minute, and the two lengths between which an amount counts.
const SLOT: u64 = 1000;
const WINDOW: u64 = 60 * SLOT;
const MINUTE: CounterKind = CounterKind::Window { slot_ms: SLOT };
const MONTH: CounterKind = CounterKind::Budget { slot_ms: SLOT };
const TTL: u64 = 10 * WINDOW;
const LATE: u64 = 5 * WINDOW;
const KEEP: u64 = 7 * WINDOW;

/// Declares the behaviours of the module that it stands in and runs each on every store.
macro_rules! behaviours {
    ($($name:ident)*) => {
        mod model {
            $(#[tokio::test] async fn $name() { super::$name(&crate::harness::Fixture::model()).await; })*
        }
        mod embedded {
            $(#[tokio::test] async fn $name() { super::$name(&crate::harness::Fixture::embedded()).await; })*
        }
        mod redis {
            $(#[tokio::test] async fn $name() {
                let Some(fixture) = crate::harness::Fixture::redis() else { return };
                super::$name(&fixture).await;
            })*
        }
        // Where each key of each call has to be declared, and in one slot.
        mod cluster {
            $(#[tokio::test] async fn $name() {
                let Some(fixture) = crate::harness::Fixture::cluster() else { return };
                super::$name(&fixture).await;
            })*
        }
    };
}

pub(crate) use behaviours;

behaviours! {
    it_answers
}

fn id(number: u128) -> ReservationId {
    ReservationId(number.to_be_bytes())
}

fn rate(name: &str, limit: u64, amount: u64) -> Hold {
    Hold { counter: CounterKey::new(name), kind: MINUTE, limit, kept: 0, expiring: amount }
}

fn budget(name: &str, limit: u64, kept: u64, expiring: u64) -> Hold {
    Hold { counter: CounterKey::new(name).in_period(20_261_101), kind: MONTH, limit, kept, expiring }
}

fn ask(number: u128, holds: Vec<Hold>) -> Reserve {
    Reserve {
        id: id(number),
        may_repeat: false,
        fingerprint: 7,
        holds: holds.into(),
        gates: Vec::new(),
        valid: Timestamp(0)..Timestamp(u64::MAX),
        ttl_ms: TTL,
        late_ms: LATE,
        note: Bytes::from_static(b"note"),
        replaces: Bytes::new(),
        dry_run: false,
    }
}

fn again(reserve: Reserve) -> Reserve {
    Reserve { may_repeat: true, ..reserve }
}

async fn granted<S: Store>(f: &Fixture<S>, reserve: Reserve) -> Vec<u64> {
    match f.store.reserve(reserve).await.unwrap() {
        Reserved::Granted { now, used } => {
            assert_eq!(now, f.clock.now());
            used
        }
        other => panic!("not granted: {other:?}"),
    }
}

/// The refusals and the closed gates.
async fn refused<S: Store>(f: &Fixture<S>, reserve: Reserve) -> (Vec<Refusal>, Vec<(usize, Timestamp)>) {
    match f.store.reserve(reserve).await.unwrap() {
        Reserved::Refused { now, refusals, closed, .. } => {
            assert_eq!(now, f.clock.now());
            (refusals, closed)
        }
        other => panic!("not refused: {other:?}"),
    }
}

/// When the only hold of `reserve`, which is refused, would fit.
async fn frees_at<S: Store>(f: &Fixture<S>, reserve: Reserve) -> Option<Timestamp> {
    let (refusals, closed) = refused(f, reserve).await;
    assert!(closed.is_empty() && refusals.len() == 1 && refusals[0].hold == 0, "{refusals:?} {closed:?}");
    refusals[0].frees_at
}

async fn record<S: Store>(f: &Fixture<S>, number: u128) -> Record {
    f.store.find(id(number)).await.unwrap().expect("the reservation is known")
}

async fn settling<S: Store>(f: &Fixture<S>, number: u128, actual: &[u64]) -> Settle {
    Settle {
        id: id(number),
        record: record(f, number).await,
        actual: actual.to_vec(),
        extras: Vec::new(),
        thresholds: Vec::new(),
        lines: Vec::new(),
        max_rows: 10,
        cooldown: None,
        keep_ms: KEEP,
        note: Bytes::from_static(b"receipt"),
    }
}

async fn settled<S: Store>(f: &Fixture<S>, number: u128, actual: &[u64]) -> Vec<Settled> {
    let settle = settling(f, number, actual).await;
    match f.store.settle(settle).await.unwrap() {
        SettleOutcome::Settled(settlement) => {
            assert_eq!((settlement.settled_at, &*settlement.note), (f.clock.now(), &b"receipt"[..]));
            settlement.counters
        }
        other => panic!("not settled: {other:?}"),
    }
}

async fn state<S: Store>(f: &Fixture<S>, hold: &Hold) -> CounterState {
    f.store.counters(vec![(hold.counter.clone(), hold.kind)]).await.unwrap()[0]
}

/// Closes a gate for so long, on the word of a reporter who asked for seven times as long.
fn open(length_ms: u64) -> CooldownChange {
    CooldownChange::Open { length_ms, requested_ms: 7 * length_ms, reporter: "reporter".into() }
}

fn counted(used: u64, settled: u64, open: u64) -> CounterState {
    CounterState { used, settled, open }
}

fn line(team: &str, amount: u64) -> (UsageKey, UsageAmounts) {
    line_of(202_611, team, 20_261_123, "model", "key", amount)
}

fn line_of(
    month: u32,
    team: &str,
    day: u32,
    model: &str,
    key: &str,
    amount: u64,
) -> (UsageKey, UsageAmounts) {
    let key = UsageKey::of_day(month, team.into(), day, model.into(), key.into());
    (key, UsageAmounts { cost_nanos: amount, requests: 1, ..UsageAmounts::default() })
}

async fn it_answers<S: Store>(f: &Fixture<S>) {
    assert_eq!(f.store.ping().await, Ok(()));
    assert_eq!(f.store.now(), START);
    f.at(5);
    assert_eq!(f.store.now(), START.plus(5));
}

/// All at once, on one task.
pub(crate) async fn join_all<F: Future>(futures: impl Iterator<Item = F>) -> Vec<F::Output> {
    let mut pending: Vec<_> = futures.map(|future| (Box::pin(future), None)).collect();
    std::future::poll_fn(|context| {
        for (future, answer) in &mut pending {
            if answer.is_none()
                && let std::task::Poll::Ready(value) = future.as_mut().poll(context)
            {
                *answer = Some(value);
            }
        }
        if pending.iter().all(|(_, answer)| answer.is_some()) {
            std::task::Poll::Ready(())
        } else {
            std::task::Poll::Pending
        }
    })
    .await;
    pending.into_iter().filter_map(|(_, answer)| answer).collect()
}

/// Organizations share a Redis and nothing else.
#[tokio::test]
async fn organizations_do_not_see_each_other() {
    let (Some(one), Some(other)) = (Fixture::redis(), Fixture::redis()) else { return };
    let request = again(ask(1, vec![rate("a", 5, 5), budget("b", 5, 5, 0)]));
    granted(&one, request.clone()).await;
    let mut settle = settling(&one, 1, &[5, 5]).await;
    settle.lines = vec![line("team", 5)];
    settle.cooldown = Some((CounterKey::new("gate"), open(WINDOW)));
    one.store.settle(settle.clone()).await.unwrap();
    assert_eq!(other.store.find(id(1)).await.unwrap(), None);
    assert_eq!(other.store.settle(settle).await.unwrap(), SettleOutcome::NotFound);
    assert_eq!(other.store.spenders(202_611).await.unwrap(), Vec::<Arc<str>>::new());
    assert_eq!(granted(&other, Reserve { gates: vec![CounterKey::new("gate")], ..request }).await, [0, 0]);
}
