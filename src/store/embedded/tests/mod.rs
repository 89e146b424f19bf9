mod backup;
mod damage;
mod layout;
mod lifetime;
mod recovery;
mod terms;
mod trust;

use crate::store::Ledger as _;
use std::{ops::Range, path::Path, sync::Arc, time::Duration};

use bytes::Bytes;
use tempfile::TempDir;

use super::{EmbeddedStore, age::MAX_AGE, opening, writer::ROUND};
use crate::domain::{
    MAX_AMOUNT, Timestamp,
    counter::{CounterKey, CounterKind, Hold},
};
use crate::runtime::clock::{Clock, ManualClock};
use crate::store::{
    CooldownChange, Record, ReservationId, Reserve, Reserved, Series, Settle, SettleOutcome, StoreError,
    UsageAmounts, UsageKey, UsageSet,
};

/// 2026-11-23 10:00 UTC.
const START: Timestamp = Timestamp(1_795_428_000_000);
const MINUTE: CounterKind = CounterKind::Window { slot_ms: 1_000 };
const BUDGET: CounterKind = CounterKind::Budget { slot_ms: 10_000 };
const ALWAYS: Range<Timestamp> = Timestamp(0)..Timestamp(u64::MAX);
const TTL: u64 = 600_000;
const LATE: u64 = 3_600_000;
const KEEP: u64 = 86_400_000;

struct Fixture {
    store: Option<EmbeddedStore>,
    clock: ManualClock,
    dir: TempDir,
    /// The pause between two rounds of the writer.
    pause: Duration,
}

impl Fixture {
    fn new() -> Self {
        Self::with_pause(ROUND)
    }

    fn with_pause(pause: Duration) -> Self {
        let (dir, clock) = (TempDir::new().unwrap(), ManualClock::new(START));
        let mut fixture = Self { store: None, clock, dir, pause };
        fixture.reopen();
        fixture
    }

    fn store(&self) -> &EmbeddedStore {
        self.store.as_ref().unwrap()
    }

    fn pass(&self, ms: u64) {
        self.clock.set(self.clock.now().plus(ms));
    }

    fn reopen(&mut self) {
        self.store = None;
        let times = (MAX_AGE, self.pause);
        let clock = Clock::Manual(self.clock.clone());
        self.store = Some(opening::open(self.dir.path(), clock, times, |owner| Box::new(owner)).unwrap());
    }

    /// Ends the writer between two commits, with whatever it has not written yet, as a crash would.
    fn crash(&mut self) {
        let inner = Arc::clone(&self.store().0.inner);
        let poisoned = std::thread::spawn(move || {
            let _guard = inner.lock();
            std::panic::resume_unwind(Box::new("crash"));
        });
        assert!(poisoned.join().is_err());
        self.reopen();
    }

    async fn reserve(&self, reserve: Reserve) -> Reserved {
        self.store().reserve(reserve).await.unwrap()
    }

    async fn settle(&self, settle: Settle) -> SettleOutcome {
        self.store().settle(settle).await.unwrap()
    }

    async fn used(&self, name: &str, kind: CounterKind) -> u64 {
        self.store().counters(vec![(CounterKey::new(name), kind)]).await.unwrap()[0].used
    }

    /// Counters, reservations in memory, archived reservations, lines in memory.
    fn sizes(&self) -> (usize, usize, usize, usize) {
        let shared = self.store().0.inner.lock().unwrap();
        let state = &shared.state;
        (state.counters.len(), state.reservations.len(), state.archived.len(), state.spend.len())
    }
}

fn open(dir: &Path, clock: &ManualClock) -> EmbeddedStore {
    EmbeddedStore::open(dir, Clock::Manual(clock.clone())).unwrap()
}

fn id(number: u8) -> ReservationId {
    ReservationId([number; 16])
}

fn window(name: &str, limit: u64, amount: u64) -> Hold {
    Hold { counter: CounterKey::new(name), kind: MINUTE, limit, kept: 0, expiring: amount }
}

fn budget(name: &str, limit: u64, amount: u64) -> Hold {
    Hold {
        counter: CounterKey::new(name).in_period(20_261_101),
        kind: BUDGET,
        limit,
        kept: amount,
        expiring: 0,
    }
}

fn reserve(number: u8, holds: Vec<Hold>) -> Reserve {
    Reserve {
        id: id(number),
        may_repeat: true,
        fingerprint: u64::from(number),
        holds: holds.into(),
        gates: Vec::new(),
        valid: ALWAYS,
        ttl_ms: TTL,
        late_ms: LATE,
        note: Bytes::from_static(b"note"),
        replaces: Bytes::new(),
        dry_run: false,
    }
}

fn settle(number: u8, actual: Vec<u64>) -> Settle {
    let record = Record {
        fingerprint: 0,
        reserved_at: START,
        expires_at: START,
        holds: [].into(),
        note: Bytes::new(),
        settlement: None,
    };
    let lines = vec![line(202_611, "chatbot", 5), line(202_611, "", 5)];
    let (id, note) = (id(number), Bytes::from_static(b"settled"));
    Settle {
        id,
        record,
        actual,
        extras: vec![],
        thresholds: vec![],
        lines,
        max_rows: 10,
        cooldown: None,
        keep_ms: KEEP,
        note,
    }
}

fn closing(length_ms: u64) -> CooldownChange {
    CooldownChange::Open { length_ms, requested_ms: 7 * length_ms, reporter: "reporter".into() }
}

/// A row of team `a` on one day.
fn row(series: Series, period: u32, value: &str) -> (UsageKey, UsageAmounts) {
    let (key, amounts) = line(202_611, "a", 1);
    let set = UsageSet { series, period, ..key.set };
    (UsageKey { set, value: value.into(), ..key }, amounts)
}

fn line(month: u32, team: &str, cost_nanos: u64) -> (UsageKey, UsageAmounts) {
    let key = UsageKey::of_day(month, team.into(), month * 100 + 23, "m".into(), "k".into());
    (key, UsageAmounts { cost_nanos, requests: 1, ..UsageAmounts::default() })
}

#[tokio::test]
async fn all_holds_are_taken_or_none() {
    let f = Fixture::new();
    let granted = f.reserve(reserve(1, vec![window("a", 10, 6), budget("b", 100, 7)])).await;
    assert_eq!(granted, Reserved::Granted { now: START, used: vec![0, 0] });
    let refused = f.reserve(reserve(2, vec![window("a", 10, 5), budget("b", 100, 7)])).await;
    let Reserved::Refused { used, refusals, closed, .. } = refused else { panic!("{refused:?}") };
    assert_eq!((used, refusals.len(), refusals[0].hold, closed), (vec![6, 7], 1, 0, vec![]));
    assert_eq!(f.used("a", MINUTE).await, 6);
    assert_eq!(f.store().find(id(2)).await.unwrap(), None);
}

#[tokio::test]
async fn a_dry_run_and_an_instant_outside_the_period_change_nothing() {
    let f = Fixture::new();
    let dry = Reserve { dry_run: true, ..reserve(1, vec![window("a", 10, 6)]) };
    assert_eq!(f.reserve(dry.clone()).await, Reserved::Granted { now: START, used: vec![0] });
    let outside = Reserve { valid: Timestamp(0)..START, ..reserve(1, vec![window("a", 10, 6)]) };
    assert_eq!(f.reserve(outside.clone()).await, Reserved::OutOfDate { now: START });
    assert_eq!(f.sizes(), (0, 0, 0, 0));
    f.reserve(reserve(1, vec![window("a", 10, 6)])).await;
    for again in [dry, outside] {
        assert!(matches!(f.reserve(again).await, Reserved::Repeated(record) if record.fingerprint == 1));
    }
}

#[tokio::test]
async fn a_closed_gate_refuses_until_it_opens() {
    let f = Fixture::new();
    let gate = CounterKey::new("gate");
    f.reserve(reserve(1, vec![])).await;
    f.settle(Settle { cooldown: Some((gate.clone(), closing(500))), ..settle(1, vec![]) }).await;
    let gated = Reserve { gates: vec![gate], ..reserve(2, vec![window("a", 10, 6)]) };
    f.pass(499);
    let refused = f.reserve(gated.clone()).await;
    let Reserved::Refused { closed, used, refusals, .. } = refused else { panic!("{refused:?}") };
    assert_eq!((closed, used, refusals), (vec![(0, START.plus(500))], vec![0], vec![]));
    f.pass(1);
    assert!(matches!(f.reserve(gated).await, Reserved::Granted { .. }));
}

#[tokio::test]
async fn a_reservation_settles_once() {
    let f = Fixture::new();
    assert_eq!(f.settle(settle(1, vec![])).await, SettleOutcome::NotFound);
    f.reserve(reserve(1, vec![window("a", 10, 6), budget("b", 100, 7)])).await;
    let settled = f.settle(settle(1, vec![4, 9])).await;
    let SettleOutcome::Settled(first) = settled else { panic!("{settled:?}") };
    assert_eq!(first.counters.iter().map(|c| c.after.used).collect::<Vec<_>>(), [4, 9]);
    assert_eq!(f.settle(settle(1, vec![1, 1])).await, SettleOutcome::AlreadySettled(first.clone()));
    f.store().checkpoint().await.unwrap();
    assert_eq!(f.sizes().1, 0, "a settled reservation leaves memory");
    assert_eq!(f.settle(settle(1, vec![1, 1])).await, SettleOutcome::AlreadySettled(first.clone()));
    assert_eq!(f.store().find(id(1)).await.unwrap().unwrap().settlement, Some(first));
    assert!(matches!(f.reserve(reserve(1, vec![])).await, Reserved::Repeated(_)));
    assert_eq!(f.used("a", MINUTE).await, 4);
}

#[tokio::test]
async fn what_would_pass_the_largest_amount_changes_nothing() {
    let f = Fixture::new();
    f.reserve(reserve(1, vec![window("a", 10, 6), budget("b", MAX_AMOUNT, 7)])).await;
    let refused = [
        Settle { lines: vec![], ..settle(1, vec![1, MAX_AMOUNT]) },
        Settle {
            lines: vec![line(202_611, "t", MAX_AMOUNT), line(202_611, "t", 1)],
            ..settle(1, vec![1, 1])
        },
    ];
    for settle in refused {
        assert_eq!(f.store().settle(settle).await, Err(StoreError::Overflow));
    }
    assert_eq!(f.used("a", MINUTE).await, 6);
    assert!(matches!(f.settle(settle(1, vec![1, 1])).await, SettleOutcome::Settled(_)));
}
