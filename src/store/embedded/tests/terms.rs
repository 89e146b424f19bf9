//! Terms: defined in each row of the journal and in each segment, so that whatever is left can be read by itself.

use std::{fs, sync::Mutex};

use rusqlite::Connection;

use super::*;
use crate::{
    domain::holds::{Amount, Holds, Term, Terms},
    store::{
        Ledger as _,
        embedded::{
            OpenError,
            batch::Batch,
            disk,
            files::{DATABASE, LAST_COMMIT, WAL},
            kept::Own,
            owner::{Commit, CommitError, Owner},
            salvage,
        },
    },
};

const COUNTERS: [&str; 3] = ["requests", "tokens", "cost"];

fn terms(team: &str) -> Arc<Terms> {
    let term = |(name, class)| {
        let hold = if class == 2 { budget("", 9_000, 0) } else { window("", 9_000, 0) };
        let counter = CounterKey::new(format!("{team}|{name}")).in_period(hold.counter.period());
        Term { counter, kind: hold.kind, limit: hold.limit, class }
    };
    Arc::new(COUNTERS.into_iter().zip(0..).map(term).collect())
}

/// A reservation on `terms` that takes `number` of what each counts by its size.
fn on(terms: &Arc<Terms>, number: u8) -> Reserve {
    let mut holds = Holds::new(Arc::clone(terms));
    holds.set(0, Amount { kept: 0, expiring: 1 });
    holds.set(1, Amount { kept: 0, expiring: number.into() });
    holds.set(2, Amount { kept: 10 * u64::from(number), expiring: 0 });
    Reserve { holds, ..reserve(number, vec![]) }
}

/// What settles it without a trace in the spend report.
fn settle_on(number: u8) -> Settle {
    Settle { lines: vec![], ..settle(number, vec![1, u64::from(number / 2), 5 * u64::from(number)]) }
}

/// Copies the files after each commit, as `kill -9` would leave them there.
struct Copying(Arc<Owner>, std::path::PathBuf, Arc<Mutex<Vec<TempDir>>>);

impl Commit for Copying {
    fn commit(&mut self, connection: &mut Connection, batch: &Batch) -> Result<bool, CommitError> {
        let done = self.0.commit(connection, batch);
        self.2.lock().unwrap().push(copy(&self.1));
        done
    }
}

fn copy(from: &Path) -> TempDir {
    let dir = TempDir::new().unwrap();
    for name in [DATABASE, WAL, LAST_COMMIT] {
        fs::copy(from.join(name), dir.path().join(name)).unwrap();
    }
    dir
}

/// The terms of reservations in memory: how many different ones, and how many of them are not shared.
fn shared_terms(store: &EmbeddedStore) -> (usize, usize) {
    let shared = store.0.inner.lock().unwrap();
    let all =
        (0..=u8::MAX).filter_map(|number| shared.state.reservations.get(u128::from_be_bytes(id(number).0)));
    let mut all: Vec<_> = all.map(|kept| &kept.version.terms).collect();
    all.sort_by_key(|terms| Arc::as_ptr(terms).addr());
    all.dedup_by_key(|terms| Arc::as_ptr(terms).addr());
    let addresses = all.len();
    all.sort_by_key(|terms| terms.content_hash());
    all.dedup_by_key(|terms| terms.content_hash());
    (all.len(), addresses - all.len())
}

/// The books of one directory, after its counters were found to be those of its reservations.
async fn checked(dir: &TempDir, clock: &ManualClock, teams: &[&str]) -> Vec<Option<Record>> {
    let store = open(dir.path(), clock);
    let mut records = Vec::new();
    for number in 0..100 {
        records.push(store.find(id(number)).await.unwrap());
    }
    for (at, team) in teams.iter().enumerate() {
        let terms = terms(team);
        let keys = terms.iter().map(|term| (term.counter.clone(), term.kind)).collect();
        let states = store.counters(keys).await.unwrap();
        let own = records
            .iter()
            .flatten()
            .filter(|record| record.holds.counters().eq(terms.iter().map(|t| &t.counter)));
        let mut used = vec![0; COUNTERS.len()];
        for record in own {
            let held: Vec<_> = match &record.settlement {
                None => record.holds.iter().map(|hold| hold.amount()).collect(),
                Some(_) => settle_on(record.fingerprint.try_into().unwrap()).actual,
            };
            used.iter_mut().zip(held).for_each(|(sum, held)| *sum += held);
        }
        assert_eq!(states.iter().map(|state| state.used).collect::<Vec<_>>(), used, "team {at}");
    }
    assert_eq!(shared_terms(&store).1, 0, "equal terms are one");
    records
}

#[tokio::test]
async fn a_store_killed_after_any_commit_has_the_reservations_of_then() {
    let (dir, clock) = (TempDir::new().unwrap(), ManualClock::new(START));
    let copies = Arc::new(Mutex::new(Vec::new()));
    let disk =
        |owner| -> Box<dyn Commit> { Box::new(Copying(owner, dir.path().to_owned(), Arc::clone(&copies))) };
    let store = opening::open(dir.path(), Clock::Manual(clock.clone()), (MAX_AGE, ROUND), disk).unwrap();
    let teams = ["a", "b", "c"];
    let [known, same, user] = teams.map(terms);
    let mut settled = Vec::new();
    for number in 0..60 {
        // Those of the third are compiled for each.
        let terms = [&known, &same, &terms("c")][usize::from(number % 3)].clone();
        store.reserve(on(&terms, number)).await.unwrap();
        if number % 4 == 3 {
            // Some were made in the same row of the journal, some in earlier ones, and some are in a segment.
            let earlier = number / 2;
            assert!(matches!(store.settle(settle_on(earlier)).await.unwrap(), SettleOutcome::Settled(_)));
            settled.push(earlier);
        }
        match number {
            20 | 41 => store.checkpoint().await.unwrap(),
            // A round that ends in the middle of other commits.
            30 => store.ask(tokio::sync::oneshot::channel().0).unwrap(),
            _ => {}
        }
    }
    store.checkpoint().await.unwrap();
    drop((store, user));
    let copies = std::mem::take(&mut *copies.lock().unwrap());
    assert!(copies.len() > 40, "{}", copies.len());
    let mut before = 0;
    for (number, copy) in copies.iter().enumerate() {
        let records = checked(copy, &clock, &teams).await;
        let known = records.iter().flatten().count();
        // The journal is in order, so those are the first.
        assert!(records[..known].iter().all(Option::is_some), "commit {number}");
        assert!(known >= before, "commit {number}: {known} after {before}");
        before = known;
        for (record, number) in records[..known].iter().flatten().zip(0..) {
            let expected = on([&terms("a"), &terms("b"), &terms("c")][usize::from(number % 3)], number);
            assert_eq!((&record.holds, &record.note), (&expected.holds, &expected.note));
        }
        // Opening it wrote nothing that a second opening reads differently.
        assert_eq!(checked(copy, &clock, &teams).await, records, "commit {number}");
    }
    assert_eq!(before, 60);
    let last = checked(copies.last().unwrap(), &clock, &teams).await;
    let is_settled = |number: u8| last[usize::from(number)].as_ref().unwrap().settlement.is_some();
    assert!((0..60).all(|number| is_settled(number) == settled.contains(&number)));
}

#[tokio::test]
async fn memory_after_a_restart_shares_terms_as_before() {
    let mut f = Fixture::new();
    let [known, other] = ["a", "b"].map(terms);
    for number in 0..50 {
        f.reserve(on(if number % 2 == 0 { &known } else { &other }, number)).await;
        if number == 25 {
            f.store().checkpoint().await.unwrap();
        }
    }
    for _ in 0..3 {
        assert_eq!(shared_terms(f.store()), (2, 0));
        f.reopen();
    }
    // A caller's own are the same ones.
    f.reserve(on(&terms("a"), 60)).await;
    assert_eq!(shared_terms(f.store()), (2, 0));
}

/// The rows of the journal, with their first and last ops.
fn rows(dir: &Path) -> Vec<(u64, u64, Vec<u8>)> {
    let (connection, mut rows) = (disk::open(&dir.join(DATABASE)).unwrap(), Vec::new());
    disk::journal(&connection, |first, last, ops| -> rusqlite::Result<()> {
        rows.push((first, last, ops.to_vec()));
        Ok(())
    })
    .unwrap();
    rows
}

/// A store with four rows of journal, each with a reservation on the same terms and an earlier one's settlement.
async fn four_rows() -> (TempDir, ManualClock) {
    let (f, known) = (Fixture::new(), terms("a"));
    f.reserve(on(&known, 0)).await;
    for number in 1..5 {
        f.settle(settle_on(number - 1)).await;
        f.reserve(on(&known, number)).await;
    }
    f.settle(settle_on(4)).await;
    (copy(f.dir.path()), f.clock.clone())
}

#[tokio::test]
async fn a_lost_row_of_the_journal_takes_no_other_with_it() {
    let (dir, clock) = four_rows().await;
    let all = rows(dir.path());
    assert!(all.len() >= 4, "{all:?}");
    let lost = &all[all.len() / 2];
    let connection = disk::open(&dir.path().join(DATABASE)).unwrap();
    connection.execute("DELETE FROM journal WHERE last = ?", [disk::int(lost.1)]).unwrap();
    // Nothing of it may be left in the pages.
    connection.execute_batch("VACUUM; PRAGMA wal_checkpoint(TRUNCATE)").unwrap();
    drop(connection);
    let refused = EmbeddedStore::open(dir.path(), Clock::Manual(clock.clone())).unwrap_err();
    assert!(matches!(refused, OpenError::Corrupt { .. }), "{refused}");
    let to = TempDir::new().unwrap();
    let salvaged = salvage(dir.path(), to.path(), &Clock::Manual(clock.clone())).unwrap();
    assert!(salvaged.lost.iter().any(|lost| lost.contains("of the journal")), "{salvaged:?}");
    let store = open(to.path(), &clock);
    let mut found = 0;
    for number in 0..5 {
        found += usize::from(store.find(id(number)).await.unwrap().is_some());
    }
    assert!(found >= 3, "{found} of 5");
}

/// Bytes that have a right check sum and are not what a store writes.
#[tokio::test]
async fn a_reservation_on_terms_that_its_row_does_not_define_is_refused() {
    for damage in ["bit", "no terms", "short", "none"] {
        let (dir, clock) = four_rows().await;
        let connection = disk::open(&dir.path().join(DATABASE)).unwrap();
        let (first, last, ops) = rows(dir.path()).pop().unwrap();
        let known = terms("a");
        let own = Own::of(&on(&known, 50));
        let mut bytes = ops.clone();
        let mut last_op = last;
        match damage {
            "bit" => {
                bytes[3] ^= 1;
                let update = "UPDATE journal SET ops = ? WHERE last = ?";
                connection.execute(update, rusqlite::params![bytes, disk::int(last)]).unwrap();
            }
            _ => {
                let own = match damage {
                    "short" => Own::new((0, START), (1, 1), &Holds::default(), b""),
                    _ => own,
                };
                if damage != "no terms" {
                    crate::store::embedded::op::put_terms(&mut bytes, &known, &[0, 1, 2]);
                    last_op += 1;
                }
                let number = if ops[0] == 6 || damage == "no terms" { 1 } else { 0 };
                crate::store::embedded::op::put_reserve(&mut bytes, 77, number, &own);
                last_op += 1;
                connection.execute("DELETE FROM journal WHERE last = ?", [disk::int(last)]).unwrap();
                disk::put_journal(&connection, (first, last_op), &bytes).unwrap();
            }
        }
        drop(connection);
        let opened = EmbeddedStore::open(dir.path(), Clock::Manual(clock));
        match damage {
            "none" => assert!(opened.is_ok(), "{opened:?}"),
            _ => assert!(matches!(opened, Err(OpenError::Corrupt { .. })), "{damage}: {opened:?}"),
        }
    }
}
