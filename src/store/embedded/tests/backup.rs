//! Copies of a store, made while it is open, and put back.

use std::{collections::BTreeMap, fs, os::unix::fs::MetadataExt as _};

use super::*;
use crate::store::{
    Registry as _, Usage as _,
    embedded::{
        BackupError, OpenError, backup, disk,
        files::{DATABASE, LAST_COMMIT, LOCK},
        restore, schema, verify,
    },
};

/// The files in a directory, and their contents; of those that SQLite keeps beside an open database, nothing.
fn files(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let of = |path: std::path::PathBuf| {
        (path.file_name().unwrap().to_string_lossy().into_owned(), fs::read(&path).unwrap())
    };
    entries.map(of).filter(|(name, _)| !name.ends_with("-shm") && !name.ends_with("-wal")).collect()
}

fn names(dir: &Path) -> Vec<String> {
    files(dir).into_keys().collect()
}

impl Fixture {
    fn clock(&self) -> Clock {
        Clock::Manual(self.clock.clone())
    }

    /// Reserves 100 and books `spent` of them.
    async fn spend(&self, number: u8, spent: u64) {
        self.reserve(reserve(number, vec![budget("team/t|usd|month", MAX_AMOUNT, 100)])).await;
        let lines = vec![line(202_611, "t", spent), line(202_611, "", spent)];
        self.settle(Settle { lines, ..settle(number, vec![spent]) }).await;
    }
}

async fn spent(store: &EmbeddedStore) -> (u64, u64) {
    let counter = CounterKey::new("team/t|usd|month").in_period(20_261_101);
    let state = store.counters(vec![(counter, BUDGET)]).await.unwrap()[0];
    (state.settled, state.open)
}

#[tokio::test]
async fn a_copy_of_an_open_store_is_as_of_its_moment_and_is_put_back() {
    let fixture = Fixture::new();
    let dirs = TempDir::new().unwrap();
    let [copy, restored] = ["copy", "restored"].map(|name| dirs.path().join(name));
    fixture.spend(1, 7).await;
    fixture.store().registry_write("key/k".into(), 0, Bytes::from_static(b"v")).await.unwrap();
    fixture.reserve(reserve(2, vec![budget("team/t|usd|month", MAX_AMOUNT, 100)])).await;
    // What is settled is on disk, and with it every reservation before.
    fixture.spend(3, 0).await;
    let made = backup(fixture.dir.path(), &copy, &fixture.clock()).unwrap();
    assert_eq!(names(&copy), [LAST_COMMIT, DATABASE]);
    assert_eq!(fs::metadata(&copy).unwrap().mode() & 0o777, 0o700);
    for name in names(&copy) {
        assert_eq!(fs::metadata(copy.join(name)).unwrap().mode() & 0o777, 0o600);
    }
    assert_eq!((made.layout, made.bytes), (schema::LAYOUT, fs::metadata(copy.join(DATABASE)).unwrap().len()));
    fixture.spend(4, 9).await;
    assert_eq!(spent(fixture.store()).await, (16, 1), "the store goes on");
    let before = files(&copy);
    let put_back = restore(&copy, &restored, &fixture.clock()).unwrap();
    assert_eq!(files(&copy), before, "a backup is only read");
    assert_eq!(names(&restored), [LAST_COMMIT, LOCK, DATABASE]);
    let owners = [&copy, &restored].map(|dir| {
        let connection = rusqlite::Connection::open(dir.join(DATABASE)).unwrap();
        let progress = disk::progress(&connection).unwrap();
        (progress.commits, progress.owner)
    });
    assert_eq!(owners[1].0, owners[0].0 + 1);
    assert_eq!((owners[0].0, owners[1].0), (made.commits, put_back.commits));
    assert_ne!(owners[0].1, owners[1].1, "it belongs to no process that had it before");
    for dir in [&copy, &restored] {
        verify(dir, &fixture.clock()).unwrap();
        let store = open(dir, &fixture.clock);
        assert_eq!(spent(&store).await, (7, 1));
        assert_eq!(store.registry_since(crate::store::Revision::default()).await.unwrap().records.len(), 1);
        assert!(store.find(id(2)).await.unwrap().is_some_and(|record| record.settlement.is_none()));
        assert!(store.find(id(4)).await.unwrap().is_none(), "it came after the backup");
    }
}

#[tokio::test]
async fn what_is_there_or_in_use_is_left_alone() {
    let fixture = Fixture::new();
    fixture.spend(1, 7).await;
    let dirs = TempDir::new().unwrap();
    let [copy, full, absent] = ["copy", "full", "absent"].map(|name| dirs.path().join(name));
    backup(fixture.dir.path(), &copy, &fixture.clock()).unwrap();
    fs::create_dir(&full).unwrap();
    fs::write(full.join("mine"), "mine").unwrap();
    let clock = fixture.clock();
    for (what, refused) in [
        ("a full directory", backup(fixture.dir.path(), &full, &clock)),
        ("a full directory", restore(&copy, &full, &clock)),
        ("the store itself", backup(fixture.dir.path(), fixture.dir.path(), &clock)),
    ] {
        assert!(matches!(refused, Err(BackupError::To { .. })), "{what}: {refused:?}");
    }
    let refused = restore(&copy, fixture.dir.path(), &clock).unwrap_err();
    assert!(matches!(refused, BackupError::From(OpenError::Locked { .. })), "{refused}");
    let refused = restore(fixture.dir.path(), &absent, &clock).unwrap_err();
    assert!(matches!(refused, BackupError::InUse { .. }), "{refused}");
    for from in [&full, &absent] {
        let refused =
            [backup(from, &dirs.path().join("x"), &clock), restore(from, &dirs.path().join("x"), &clock)];
        for refused in refused {
            assert!(matches!(refused, Err(BackupError::From(OpenError::Directory { .. }))), "{refused:?}");
        }
    }
    assert_eq!(names(&full), ["mine"]);
    let left: Vec<_> = fs::read_dir(dirs.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left.len(), 2, "{left:?}");
    assert_eq!(spent(fixture.store()).await, (7, 0));
}

/// Into one directory at once: one copy is made, whole, and the others say so.
#[tokio::test]
async fn copies_into_one_directory_do_not_meet() {
    let fixture = Fixture::new();
    for number in 1..=40 {
        fixture.spend(number, 7).await;
    }
    let (dirs, clock) = (TempDir::new().unwrap(), fixture.clock());
    for turn in 0..12 {
        let to = dirs.path().join(format!("copy-{turn}"));
        let at_once = std::sync::Barrier::new(3);
        let made = std::thread::scope(|scope| {
            let one = || {
                at_once.wait();
                backup(fixture.dir.path(), &to, &clock)
            };
            let tasks = [scope.spawn(one), scope.spawn(one), scope.spawn(one)];
            tasks.map(|task| task.join().unwrap())
        });
        let refused: Vec<_> = made.iter().filter_map(|made| made.as_ref().err()).collect();
        assert_eq!(refused.len(), 2, "{turn}: {made:?}");
        assert!(refused.iter().all(|error| matches!(error, BackupError::To { .. })), "{refused:?}");
        assert_eq!(names(&to), [LAST_COMMIT, DATABASE], "{turn}");
        verify(&to, &clock).unwrap();
    }
}

#[tokio::test]
async fn a_damaged_store_or_backup_is_found_out_and_nothing_is_left_of_it() {
    let fixture = Fixture::new();
    for number in 1..=40 {
        fixture.spend(number, 7).await;
    }
    fixture.store().checkpoint().await.unwrap();
    let dirs = TempDir::new().unwrap();
    let [copy, to] = ["copy", "to"].map(|name| dirs.path().join(name));
    backup(fixture.dir.path(), &copy, &fixture.clock()).unwrap();
    let whole = files(&copy);
    let with = |change: &dyn Fn(&rusqlite::Connection)| {
        fs::write(copy.join(DATABASE), &whole[DATABASE]).unwrap();
        change(&rusqlite::Connection::open(copy.join(DATABASE)).unwrap());
    };
    // A row that is not what was written; a commit that is gone; a page; the end of the file; a file of nothing.
    let sql =
        |text: &'static str| move |connection: &rusqlite::Connection| connection.execute_batch(text).unwrap();
    let damages: [&dyn Fn(); 5] = [
        &|| with(&sql("UPDATE usage SET lsn = lsn + 1")),
        &|| with(&sql("DELETE FROM progress")),
        &|| {
            let mut bytes = whole[DATABASE].clone();
            let page = bytes.len() / 2 / 4_096 * 4_096;
            bytes[page..page + 512].fill(0xff);
            fs::write(copy.join(DATABASE), bytes).unwrap();
        },
        &|| fs::write(copy.join(DATABASE), &whole[DATABASE][..whole[DATABASE].len() - 4_096]).unwrap(),
        &|| fs::write(copy.join(DATABASE), "").unwrap(),
    ];
    for (number, damage) in damages.iter().enumerate() {
        damage();
        let before = files(&copy);
        for refused in [restore(&copy, &to, &fixture.clock()), backup(&copy, &to, &fixture.clock())] {
            assert!(
                matches!(
                    &refused,
                    Err(BackupError::From(OpenError::Corrupt { .. } | OpenError::Database { .. }))
                ),
                "{number}: {refused:?}"
            );
            assert!(!to.exists(), "{number}");
        }
        assert_eq!(files(&copy), before, "{number}");
    }
    fs::write(copy.join(DATABASE), &whole[DATABASE]).unwrap();
    restore(&copy, &to, &fixture.clock()).unwrap();
}

#[tokio::test]
async fn earlier_layouts_are_copied_as_they_are_and_later_ones_are_not() {
    for layout in [1, 2, 3, 4, 5] {
        let (dir, clock) = layout::directory(layout);
        let dirs = TempDir::new().unwrap();
        let [copy, restored] = ["copy", "restored"].map(|name| dirs.path().join(name));
        let system = Clock::Manual(clock.clone());
        assert_eq!(backup(dir.path(), &copy, &system).unwrap().layout, layout);
        assert_eq!(restore(&copy, &restored, &system).unwrap().layout, layout);
        let (a, b) = (open(dir.path(), &clock), open(&restored, &clock));
        let [a, b] = [a.spend(202_611, "chatbot".into()).await, b.spend(202_611, "chatbot".into()).await];
        assert_eq!(a, b, "{layout}");
        assert!(!a.unwrap().is_empty());
    }
    let fixture = Fixture::new();
    let dirs = TempDir::new().unwrap();
    let [copy, to] = ["copy", "to"].map(|name| dirs.path().join(name));
    backup(fixture.dir.path(), &copy, &fixture.clock()).unwrap();
    let later = schema::LAYOUT + 1;
    let connection = rusqlite::Connection::open(copy.join(DATABASE)).unwrap();
    connection.pragma_update(None, "user_version", later).unwrap();
    drop(connection);
    let before = files(&copy);
    for refused in [backup(&copy, &to, &fixture.clock()), restore(&copy, &to, &fixture.clock())] {
        let said = refused.unwrap_err().to_string();
        let numbers = format!("has layout {later}, and this release knows layouts up to {}", schema::LAYOUT);
        assert!(said.contains(&numbers), "{said}");
    }
    assert_eq!(files(&copy), before);
    assert!(!to.exists());
}

/// A process whose directory was moved away does not write into what was put in its place.
#[tokio::test]
async fn a_process_of_before_stops_where_a_backup_was_put_back() {
    let fixture = Fixture::new();
    fixture.spend(1, 7).await;
    let dirs = TempDir::new().unwrap();
    let copy = dirs.path().join("copy");
    backup(fixture.dir.path(), &copy, &fixture.clock()).unwrap();
    fs::rename(fixture.dir.path(), dirs.path().join("moved")).unwrap();
    restore(&copy, fixture.dir.path(), &fixture.clock()).unwrap();
    fixture.reserve(reserve(2, vec![budget("team/t|usd|month", MAX_AMOUNT, 100)])).await;
    assert!(fixture.store().settle(settle(2, vec![9])).await.is_err());
    let now = open(fixture.dir.path(), &fixture.clock);
    assert_eq!(spent(&now).await, (7, 0));
}
