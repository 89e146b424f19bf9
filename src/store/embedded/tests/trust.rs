//! A disk that is slow, a disk that fails to sync, and processes that interfere with each other.

use crate::store::{Backend as _, Ledger as _, Registry as _};
use std::{
    fs,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    sync::{Condvar, Mutex},
    time::Duration,
};

use rusqlite::{Connection, ffi};

use super::*;
use crate::store::embedded::{
    OpenError,
    batch::Batch,
    disk,
    files::DATABASE,
    opening,
    owner::{Commit, CommitError, Owner},
    writer::ROUND,
};

/// A disk that a test delays or makes fail.
#[derive(Clone, Default)]
struct Faults(Arc<(Mutex<Fault>, Condvar)>);

#[derive(Clone, Copy, Default, PartialEq)]
enum Fault {
    #[default]
    None,
    Stall,
    FailOneSync,
}

impl Faults {
    fn set(&self, fault: Fault) {
        *self.0.0.lock().unwrap() = fault;
        self.0.1.notify_all();
    }
}

struct Faulty(Arc<Owner>, Faults);

impl Commit for Faulty {
    fn commit(&mut self, connection: &mut Connection, batch: &Batch) -> Result<bool, CommitError> {
        let fault = self.1.0.0.lock().unwrap();
        let mut fault = self.1.0.1.wait_while(fault, |fault| *fault == Fault::Stall).unwrap();
        if *fault == Fault::FailOneSync {
            *fault = Fault::None;
            let error = ffi::Error::new(ffi::SQLITE_IOERR_FSYNC);
            let failing = |_: &rusqlite::Transaction<'_>, _: &mut disk::Progress| {
                Err(rusqlite::Error::SqliteFailure(error, None))
            };
            return Owner::commit(&self.0, connection, failing);
        }
        drop(fault);
        self.0.commit(connection, batch)
    }
}

fn open_faulty(dir: &Path, clock: &ManualClock, max_age: Duration) -> (EmbeddedStore, Faults) {
    let faults = Faults::default();
    let disk = faults.clone();
    let store = opening::open(dir, Clock::Manual(clock.clone()), (max_age, ROUND), |owner| {
        Box::new(Faulty(owner, disk))
    });
    (store.unwrap(), faults)
}

#[tokio::test]
async fn what_a_slow_disk_has_not_taken_keeps_reservations_waiting() {
    let (dir, clock) = (TempDir::new().unwrap(), ManualClock::new(START));
    // Everything that is not on disk is too old.
    let (store, faults) = open_faulty(dir.path(), &clock, Duration::ZERO);
    let take = |number| reserve(number, vec![window("a", 1_000, 1)]);
    let used = async |store: &EmbeddedStore| {
        store.counters(vec![(CounterKey::new("a"), MINUTE)]).await.unwrap()[0].used
    };
    faults.set(Fault::Stall);
    // The first finds everything on disk.
    assert!(matches!(store.reserve(take(1)).await.unwrap(), Reserved::Granted { .. }));
    let hasty = store.clone().with_deadline(Duration::ZERO);
    assert_eq!(hasty.reserve(take(2)).await, Err(StoreError::Unavailable));
    // A caller that goes away leaves nothing behind.
    assert!(tokio::time::timeout(Duration::ZERO, store.reserve(take(3))).await.is_err());
    let waiting: Vec<_> = (4..24)
        .map(|number| {
            let (store, take) = (store.clone(), take(number));
            tokio::spawn(async move { store.reserve(take).await })
        })
        .collect();
    tokio::task::yield_now().await;
    assert!(!waiting.iter().any(tokio::task::JoinHandle::is_finished));
    assert_eq!(used(&store).await, 1);
    // A call that changes nothing does not wait.
    assert!(store.reserve(Reserve { dry_run: true, ..take(30) }).await.is_ok());
    faults.set(Fault::None);
    for task in waiting {
        assert!(matches!(task.await.unwrap(), Ok(Reserved::Granted { .. })));
    }
    assert_eq!(used(&store).await, 21);
    for absent in [2, 3] {
        assert_eq!(store.find(id(absent)).await.unwrap(), None);
    }
}

#[tokio::test]
async fn a_failed_sync_is_believed_for_good() {
    let (dir, clock) = (TempDir::new().unwrap(), ManualClock::new(START));
    let (store, faults) = open_faulty(dir.path(), &clock, MAX_AGE);
    for number in [1, 2] {
        store.reserve(reserve(number, vec![window("a", 1_000, 1)])).await.unwrap();
    }
    store.settle(settle(1, vec![1])).await.unwrap();
    faults.set(Fault::FailOneSync);
    assert_eq!(store.settle(settle(2, vec![1])).await, Err(StoreError::Unavailable));
    // The next attempt would succeed, and is not made.
    assert!(*faults.0.0.lock().unwrap() == Fault::None);
    assert_eq!(store.settle(settle(2, vec![1])).await, Err(StoreError::Unavailable));
    assert_eq!(store.reserve(reserve(3, vec![])).await, Err(StoreError::Unavailable));
    assert_eq!(store.registry_write("k".into(), 0, Bytes::new()).await, Err(StoreError::Unavailable));
    assert_eq!(store.ping().await, Err(StoreError::Unavailable));
    drop(store);
    let store = open(dir.path(), &clock);
    assert!(matches!(store.settle(settle(1, vec![1])).await, Ok(SettleOutcome::AlreadySettled(_))));
    assert!(matches!(store.settle(settle(2, vec![1])).await, Ok(SettleOutcome::Settled(_))));
}

#[tokio::test]
async fn a_second_process_is_refused_whatever_is_deleted() {
    let f = Fixture::new();
    for gone in ["lock", "last-commit", "tollgate.db-wal", DATABASE] {
        fs::remove_file(f.dir.path().join(gone)).unwrap();
        let second = EmbeddedStore::open(f.dir.path(), Clock::System);
        assert!(matches!(second, Err(OpenError::Locked { .. })), "{gone}: {second:?}");
    }
}

#[tokio::test]
async fn a_process_whose_directory_was_replaced_stops() {
    for replace in [false, true] {
        let (parent, clock) = (TempDir::new().unwrap(), ManualClock::new(START));
        let (dir, moved) = (parent.path().join("data"), parent.path().join("moved"));
        let store = open(&dir, &clock);
        store.reserve(reserve(1, vec![])).await.unwrap();
        fs::rename(&dir, &moved).unwrap();
        let second = replace.then(|| open(&dir, &clock));
        assert_eq!(store.settle(settle(1, vec![])).await, Err(StoreError::Unavailable));
        assert_eq!(store.reserve(reserve(2, vec![])).await, Err(StoreError::Unavailable));
        assert_eq!(store.registry_write("k".into(), 0, Bytes::new()).await, Err(StoreError::Unavailable));
        let elsewhere = EmbeddedStore::open(&moved, Clock::Manual(clock.clone()));
        assert!(matches!(elsewhere, Err(OpenError::Locked { .. })), "{elsewhere:?}");
        if let Some(second) = second {
            second.reserve(reserve(1, vec![])).await.unwrap();
            assert!(matches!(second.settle(settle(1, vec![])).await, Ok(SettleOutcome::Settled(_))));
        }
    }
}

#[tokio::test]
async fn a_process_that_finds_another_owners_commit_stops() {
    let f = Fixture::new();
    f.reserve(reserve(1, vec![])).await;
    let other = disk::open(&f.dir.path().join(DATABASE)).unwrap();
    let progress = disk::progress(&other).unwrap();
    disk::put_progress(&other, &disk::Progress { owner: [9; 16], ..progress }).unwrap();
    assert_eq!(f.store().settle(settle(1, vec![])).await, Err(StoreError::Unavailable));
    assert_eq!(f.store().ping().await, Err(StoreError::Unavailable));
    assert_eq!(disk::progress(&other).unwrap().owner, [9; 16]);
}

#[tokio::test]
async fn files_are_for_their_owner_alone() {
    let (parent, clock) = (TempDir::new().unwrap(), ManualClock::new(START));
    let dir = parent.path().join("new/data");
    let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o777;
    for widened in [false, true] {
        if widened {
            for file in fs::read_dir(&dir).unwrap() {
                fs::set_permissions(file.unwrap().path(), fs::Permissions::from_mode(0o644)).unwrap();
            }
        }
        let store = open(&dir, &clock);
        store.reserve(reserve(1, vec![])).await.unwrap();
        store.checkpoint().await.unwrap();
        let names: Vec<_> = fs::read_dir(&dir).unwrap().map(|file| file.unwrap().path()).collect();
        assert!(names.len() >= 5, "{names:?}");
        for path in names {
            assert_eq!(mode(&path), 0o600, "{}", path.display());
        }
        assert_eq!((mode(&dir), mode(dir.parent().unwrap())), (0o700, 0o700));
    }
}
