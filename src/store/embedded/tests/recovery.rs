//! What is still there after a stop, a crash, and a full disk.

use super::*;
use crate::store::embedded::{OpenError, disk, files::DATABASE, schema};
use crate::store::{Backend as _, Ledger as _, Usage as _};

#[tokio::test]
async fn everything_is_there_after_a_stop() {
    let mut f = Fixture::new();
    f.reserve(reserve(1, vec![window("a", 10, 6), budget("b", 100, 7)])).await;
    f.reserve(reserve(2, vec![window("a", 10, 1)])).await;
    let settled = f.settle(settle(1, vec![4, 9])).await;
    let SettleOutcome::Settled(first) = settled else { panic!("{settled:?}") };
    for _ in 0..3 {
        f.reopen();
        assert_eq!(f.settle(settle(1, vec![4, 9])).await, SettleOutcome::AlreadySettled(first.clone()));
        assert_eq!(f.used("a", MINUTE).await, 5);
        let open = f.store().find(id(2)).await.unwrap().unwrap();
        assert_eq!((open.note, open.settlement), (Bytes::from_static(b"note"), None));
        assert_eq!(f.store().spend(202_611, "".into()).await.unwrap(), [line(202_611, "", 5)]);
        f.store().checkpoint().await.unwrap();
    }
}

#[tokio::test]
async fn a_directory_is_open_once() {
    let f = Fixture::new();
    let second = EmbeddedStore::open(f.dir.path(), Clock::System);
    assert!(matches!(second, Err(OpenError::Locked { .. })), "{second:?}");
}

#[tokio::test]
async fn what_cannot_be_read_is_said() {
    let mut f = Fixture::new();
    f.store = None;
    let path = f.dir.path().join(DATABASE);
    disk::open(&path)
        .and_then(disk::trust)
        .unwrap()
        .pragma_update(None, "user_version", schema::LAYOUT + 1)
        .unwrap();
    let newer = EmbeddedStore::open(f.dir.path(), Clock::System).unwrap_err();
    assert!(matches!(newer, OpenError::Newer { found, .. } if found == schema::LAYOUT + 1), "{newer}");
    std::fs::write(&path, [7; 8192]).unwrap();
    let corrupt = EmbeddedStore::open(f.dir.path(), Clock::System).unwrap_err();
    assert!(matches!(corrupt, OpenError::Corrupt { .. }), "{corrupt}");
    let unusable = EmbeddedStore::open(&path, Clock::System).unwrap_err();
    assert!(matches!(unusable, OpenError::Directory { .. }), "{unusable}");
}

/// Refuses to write the journal while `full`.
fn fill_disk(f: &Fixture, full: bool) {
    let connection = disk::open(&f.dir.path().join(DATABASE)).unwrap();
    let trigger = "CREATE TRIGGER full BEFORE INSERT ON journal BEGIN SELECT RAISE(FAIL, 'full'); END";
    connection.execute_batch(if full { trigger } else { "DROP TRIGGER full" }).unwrap();
}

#[tokio::test]
async fn a_full_disk_is_an_outage_and_loses_nothing() {
    let mut f = Fixture::new();
    f.reserve(reserve(1, vec![window("a", 10, 6)])).await;
    f.reserve(reserve(2, vec![window("a", 10, 1)])).await;
    f.settle(settle(2, vec![1])).await;
    fill_disk(&f, true);
    assert_eq!(f.store().settle(settle(1, vec![4])).await, Err(StoreError::Unavailable));
    assert_eq!(f.store().settle(settle(1, vec![4])).await, Err(StoreError::Unavailable));
    assert_eq!(f.store().reserve(reserve(3, vec![])).await, Err(StoreError::Unavailable));
    assert_eq!(f.store().ping().await, Err(StoreError::Unavailable));
    fill_disk(&f, false);
    while f.store().ping().await.is_err() {
        tokio::task::yield_now().await;
    }
    assert!(matches!(f.settle(settle(1, vec![4])).await, SettleOutcome::AlreadySettled(_)));
    f.crash();
    assert_eq!(f.used("a", MINUTE).await, 5);
}

/// Small pseudo-random numbers (SplitMix64).
pub(super) struct Dice(pub(super) u64);

impl Dice {
    pub(super) fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % sides
    }

    pub(super) fn small(&mut self, sides: u8) -> u8 {
        u8::try_from(self.roll(u64::from(sides))).unwrap()
    }

    fn hold(&mut self, counter: u64) -> Hold {
        let name = format!("counter {counter}");
        let amount = self.roll(5);
        match counter % 3 {
            0 => window(&name, 20, amount),
            1 => budget(&name, 300, amount),
            _ => Hold { expiring: self.roll(3), ..budget(&name, 300, amount) },
        }
    }

    fn reserve(&mut self) -> Reserve {
        let first = self.roll(12);
        let holds = (0..self.roll(4)).map(|n| self.hold(first + n)).collect();
        let gates = (0..self.roll(2)).map(|_| CounterKey::new(format!("gate {}", self.roll(3)))).collect();
        let (ttl_ms, late_ms) = (self.roll(20_000), self.roll(20_000));
        let (may_repeat, dry_run) = (self.roll(4) > 0, self.roll(10) == 0);
        let plain = reserve(self.small(40), holds);
        // An id that is reused without saying so is really random, and never a known one.
        let id =
            if may_repeat { plain.id } else { ReservationId(u128::from(self.roll(u64::MAX)).to_be_bytes()) };
        Reserve { id, gates, ttl_ms, late_ms, may_repeat, dry_run, ..plain }
    }

    fn settle(&mut self, number: u8, holds: usize) -> Settle {
        let actual = (0..holds).map(|_| self.roll(6)).collect();
        let month = [202_605, 202_608, 202_610, 202_611][usize::from(self.small(4))];
        let lines = (0..self.roll(3)).map(|_| line(month, ["", "a", "b"][usize::from(self.small(3))], 1));
        let mut lines: Vec<_> = lines.collect();
        // More users than there is room for, of a day in memory and of one that is not.
        for _ in 0..self.roll(3) {
            let (series, period) = DAYS[usize::from(self.small(3))].clone();
            lines.push(row(series, period, &format!("u{}", self.roll(4))));
        }
        let change = match self.roll(10) {
            0..2 => Some(closing(self.roll(3_000))),
            2 => Some(CooldownChange::Lift),
            _ => None,
        };
        let cooldown = change.map(|change| (CounterKey::new(format!("gate {}", self.roll(3))), change));
        Settle { lines, max_rows: 2, cooldown, keep_ms: self.roll(20_000), ..settle(number, actual) }
    }
}

/// Sets of days: in memory, and long out of it.
const DAYS: [(Series, u32); 3] =
    [(Series::Hours, 20_261_123), (Series::Users, 20_261_123), (Series::Users, 20_260_511)];

/// A store that stops and crashes all the time, at any point of a round, answers like one that never does.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_crashes_answers_as_one_that_does_not() {
    crash_beside_a_steady_store(ROUND).await;
}

/// Then most rounds leave young reservations to the journal, unlike those that a caller asks for.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_crashes_while_rounds_follow_each_other_answers_as_one_that_does_not() {
    crash_beside_a_steady_store(Duration::ZERO).await;
}

async fn crash_beside_a_steady_store(pause: Duration) {
    for seed in 0..6 {
        let mut dice = Dice(seed);
        let (steady, mut crashing) = (Fixture::new(), Fixture::with_pause(pause));
        let both = |time: Timestamp, crashing: &Fixture| {
            steady.clock.set(time);
            crashing.clock.set(time);
        };
        for step in 0..400 {
            let number = dice.small(40);
            match dice.roll(20) {
                0..9 => {
                    let reserve = dice.reserve();
                    let expected = steady.reserve(reserve.clone()).await;
                    assert_eq!(crashing.reserve(reserve).await, expected, "seed {seed} step {step}");
                }
                9..15 => {
                    let found = steady.store().find(id(number)).await.unwrap();
                    assert_eq!(
                        crashing.store().find(id(number)).await.unwrap(),
                        found,
                        "seed {seed} step {step}"
                    );
                    let settle = dice.settle(number, found.map_or(0, |record| record.holds.len()));
                    let expected = steady.settle(settle.clone()).await;
                    assert_eq!(crashing.settle(settle).await, expected, "seed {seed} step {step}");
                }
                15..17 => both(crashing.clock.now().plus(dice.roll(4_000)), &crashing),
                17 => both(crashing.clock.now().plus(dice.roll(30_000)), &crashing),
                18 if dice.roll(2) == 0 => {
                    let gate = vec![CounterKey::new(format!("gate {}", dice.roll(3)))];
                    let expected = steady.store().lift_cooldowns(gate.clone()).await;
                    assert_eq!(
                        crashing.store().lift_cooldowns(gate).await,
                        expected,
                        "seed {seed} step {step}"
                    );
                }
                18 => drop(crashing.store().ask(tokio::sync::oneshot::channel().0)),
                _ => {
                    // A reservation is on disk once a later settlement is.
                    let marker = Reserve { id: id(99), may_repeat: false, ..reserve(99, vec![]) };
                    crashing.reserve(marker).await;
                    crashing.settle(Settle { lines: vec![], keep_ms: 0, ..settle(99, vec![]) }).await;
                    if dice.roll(3) == 0 { crashing.reopen() } else { crashing.crash() }
                }
            }
        }
        let expected = steady.store().cooldowns().await;
        assert_eq!(crashing.store().cooldowns().await, expected, "seed {seed}");
        for month in [202_605, 202_608, 202_610, 202_611] {
            let teams = steady.store().spenders(month).await.unwrap();
            assert_eq!(crashing.store().spenders(month).await.unwrap(), teams);
            for team in teams.into_iter().chain([Arc::from("")]) {
                let expected = steady.store().spend(month, Arc::clone(&team)).await.unwrap();
                assert_eq!(crashing.store().spend(month, team).await.unwrap(), expected, "seed {seed}");
            }
        }
        for (series, period) in DAYS {
            let set = row(series, period, "").0.set;
            let expected = steady.store().usage(set.clone()).await.unwrap();
            assert_eq!(crashing.store().usage(set).await.unwrap(), expected, "seed {seed}");
            assert!(!expected.is_empty());
        }
    }
}
