//! A store damaged on disk opens with what was written or not at all, and the rest of it can be salvaged.

use crate::store::{AuditLog as _, Ledger as _, PolicyRecords as _, Registry as _, Usage as _};
use std::fs;

use super::{recovery::Dice, *};
use crate::store::{
    AuditEntry, AuditId, AuditKept, AuditRange, PolicyEntry, PolicyRecord, RegistryRecord, Revision,
    embedded::{
        OpenError,
        files::{DATABASE, LAST_COMMIT, WAL},
        salvage, verify,
    },
};

/// The number of single corruptions to try.
const CORRUPTIONS: u64 = 90;
const SETTLED: u8 = 40;
const RESERVED: u8 = 60;

/// All the answers of a store.
#[derive(Debug, PartialEq)]
struct Books {
    spend: Vec<(UsageKey, UsageAmounts)>,
    settled: Vec<u64>,
    used: Vec<u64>,
    reservations: Vec<Option<Record>>,
    registry: Vec<RegistryRecord>,
    audit: Vec<AuditEntry>,
    policies: Vec<(PolicyEntry, Option<Bytes>)>,
}

fn month(name: &str) -> Hold {
    budget(name, MAX_AMOUNT, 7)
}

async fn books(store: &EmbeddedStore) -> Books {
    let mut spend = store.spend(202_611, "".into()).await.unwrap();
    spend.extend(store.spend(202_611, "chatbot".into()).await.unwrap());
    let keys = ["org|usd|month", "team/chatbot|usd|month"].map(|name| (month(name).counter, BUDGET));
    let keys = keys.into_iter().chain([(CounterKey::new("w"), MINUTE)]).collect();
    let states = store.counters(keys).await.unwrap();
    let mut reservations = Vec::new();
    for number in 0..RESERVED {
        reservations.push(store.find(id(number)).await.unwrap());
    }
    let mut policies = Vec::new();
    for entry in store.policies().await.unwrap() {
        let document = store.policy_document(Arc::clone(&entry.revision)).await.unwrap();
        policies.push((entry, document));
    }
    Books {
        spend,
        settled: states.iter().map(|state| state.settled).collect(),
        used: states.iter().map(|state| state.used).collect(),
        reservations,
        registry: store.registry_since(Revision::default()).await.unwrap().records,
        audit: store.audit_page(AuditRange::default(), RESERVED.into()).await.unwrap(),
        policies,
    }
}

/// A store that stopped once and then was killed: some of it in the tables, some in the journal, some in the log.
async fn killed() -> (Fixture, Books) {
    let mut f = Fixture::new();
    for number in 0..RESERVED {
        let holds = vec![month("org|usd|month"), month("team/chatbot|usd|month"), window("w", 1_000, 1)];
        f.reserve(reserve(number, holds)).await;
        if number < SETTLED {
            f.settle(settle(number, vec![5, 5, 1])).await;
        }
        let name = format!("key/{number}").into();
        f.store().registry_write(name, 0, Bytes::from_static(b"{\"v\":1}")).await.unwrap();
        // Some longer than a page.
        let line = "{\"v\":1}".repeat(if number % 8 == 0 { 700 } else { 10 }).into();
        let event = AuditEntry { id: AuditId::new(f.clock.now(), number.into(), 0), line };
        f.store().audit_append(vec![event], AuditKept { ms: 1_000, events: 100 }).await.unwrap();
        // Each is recorded by six replicas.
        let record = PolicyRecord {
            revision: format!("revision-{}", number / 6).into(),
            at: f.clock.now(),
            replica: format!("gate-{number}").into(),
            value: Bytes::from_static(b"{\"v\":1}"),
            document: Some(format!("id = \"{number}\"\n").repeat(700).into()),
        };
        f.store().record_policy(record).await.unwrap();
        match number {
            10 => f.reopen(),
            20 => f.store().checkpoint().await.unwrap(),
            _ => {}
        }
    }
    f.settle(settle(50, vec![5, 5, 1])).await;
    let books = books(f.store()).await;
    (f, books)
}

/// The files as `kill -9` leaves them.
fn copy(f: &Fixture) -> TempDir {
    let dir = TempDir::new().unwrap();
    for name in [DATABASE, WAL, LAST_COMMIT] {
        fs::copy(f.dir.path().join(name), dir.path().join(name)).unwrap();
    }
    dir
}

fn try_open(dir: &TempDir, f: &Fixture) -> Result<EmbeddedStore, OpenError> {
    EmbeddedStore::open(dir.path(), Clock::Manual(f.clock.clone()))
}

/// Flips a bit, cuts a file off, or empties a page.
fn corrupt(dir: &TempDir, dice: &mut Dice) -> String {
    let name = [DATABASE, WAL, DATABASE, WAL, LAST_COMMIT][usize::from(dice.small(5))];
    let path = dir.path().join(name);
    let mut bytes = fs::read(&path).unwrap();
    let place = dice.roll(bytes.len() as u64);
    let at = usize::try_from(place).unwrap();
    let what = match dice.roll(4) {
        0 => {
            bytes.truncate(at);
            "cut off"
        }
        1 => {
            let page = at / 4096 * 4096;
            let end = bytes.len().min(page + 4096);
            bytes[page..end].fill(0);
            "page of zeros"
        }
        _ => {
            bytes[at] ^= 1 << dice.roll(8);
            "bit"
        }
    };
    fs::write(path, bytes).unwrap();
    format!("{name} at {place}: {what}")
}

#[tokio::test]
async fn a_damaged_store_opens_with_the_same_sums_or_not_at_all() {
    let (f, expected) = killed().await;
    let (mut same, mut refused, mut salvaged) = (0, 0, 0);
    for seed in 0..CORRUPTIONS {
        let dir = copy(&f);
        let what = corrupt(&dir, &mut Dice(seed));
        // The salvage is of the files as they are, which the attempt to open may change.
        let to = TempDir::new().unwrap();
        let rescued = salvage(dir.path(), to.path(), &Clock::Manual(f.clock.clone()));
        match try_open(&dir, &f) {
            Ok(store) => {
                assert_eq!(books(&store).await, expected, "seed {seed}: {what}");
                same += 1;
            }
            Err(error) => {
                assert!(matches!(error, OpenError::Corrupt { .. } | OpenError::Newer { .. }), "{error:?}");
                refused += 1;
            }
        }
        if let Ok(rescued) = rescued {
            let store = try_open(&to, &f).unwrap_or_else(|e| panic!("seed {seed}: {what}: {rescued:?}: {e}"));
            let left = books(&store).await;
            assert!(left.settled <= expected.settled, "seed {seed}: {what}: {left:?}");
            salvaged += usize::from(left.settled == expected.settled);
        }
    }
    assert!(same > 10 && refused > 30 && salvaged > 60, "{same} {refused} {salvaged}");
}

#[tokio::test]
async fn an_undamaged_store_is_salvaged_whole() {
    let (f, expected) = killed().await;
    let (dir, to) = (copy(&f), TempDir::new().unwrap());
    let before: Vec<_> = [DATABASE, WAL, LAST_COMMIT].map(|n| fs::read(dir.path().join(n)).unwrap()).into();
    let salvaged = salvage(dir.path(), to.path(), &Clock::Manual(f.clock.clone())).unwrap();
    assert_eq!(salvaged.lost, Vec::<String>::new());
    let after: Vec<_> = [DATABASE, WAL, LAST_COMMIT].map(|n| fs::read(dir.path().join(n)).unwrap()).into();
    assert!(before == after, "the source was changed");
    assert_eq!(books(&try_open(&to, &f).unwrap()).await, expected);
    // A store that a process has open is not read, and a directory with something in it is not written.
    let clock = Clock::Manual(f.clock.clone());
    assert!(salvage(f.dir.path(), TempDir::new().unwrap().path(), &clock).is_err());
    assert!(salvage(dir.path(), to.path(), &clock).is_err());
}

#[tokio::test]
async fn a_refused_start_leaves_what_can_be_salvaged() {
    let (f, _) = killed().await;
    let salvaged = |dir: &TempDir| {
        let to = TempDir::new().unwrap();
        salvage(dir.path(), &to.path().join("new"), &Clock::Manual(f.clock.clone()))
            .map(|salvaged| salvaged.read)
    };
    let a_byte_of_the_log = |dir: &TempDir| {
        let mut log = fs::read(dir.path().join(WAL)).unwrap();
        let middle = log.len() / 2;
        log[middle] ^= 1;
        fs::write(dir.path().join(WAL), log).unwrap();
    };
    let no_database = |dir: &TempDir| fs::remove_file(dir.path().join(DATABASE)).unwrap();
    let empty_database = |dir: &TempDir| fs::write(dir.path().join(DATABASE), "").unwrap();
    let no_database_and_no_count = |dir: &TempDir| {
        no_database(dir);
        fs::remove_file(dir.path().join(LAST_COMMIT)).unwrap();
    };
    let damages: [&dyn Fn(&TempDir); 4] =
        [&a_byte_of_the_log, &no_database, &empty_database, &no_database_and_no_count];
    for (number, damage) in damages.into_iter().enumerate() {
        let (at_once, later) = (copy(&f), copy(&f));
        damage(&at_once);
        damage(&later);
        assert!(verify(later.path(), &Clock::Manual(f.clock.clone())).is_err(), "{number}");
        assert!(try_open(&later, &f).is_err(), "{number}");
        assert_eq!(salvaged(&later).unwrap(), salvaged(&at_once).unwrap(), "{number}");
    }
}

#[tokio::test]
async fn books_that_differ_are_refused_and_made_equal() {
    let (f, expected) = killed().await;
    let dir = copy(&f);
    try_open(&dir, &f).unwrap().checkpoint().await.unwrap();
    let connection = rusqlite::Connection::open(dir.path().join(DATABASE)).unwrap();
    connection.execute("DELETE FROM usage WHERE team = 'chatbot'", []).unwrap();
    drop(connection);
    let clock = Clock::Manual(f.clock.clone());
    let said = verify(dir.path(), &clock).unwrap_err().to_string();
    assert!(
        said.contains("team `chatbot` has $0.000000205 in its counter of 202611 and $0.00 in its lines"),
        "{said}"
    );
    assert!(said.contains("`tollgate store salvage "), "{said}");
    let to = TempDir::new().unwrap();
    let salvaged = salvage(dir.path(), to.path(), &clock).unwrap();
    let left = books(&try_open(&to, &f).unwrap()).await;
    assert_eq!(left.settled, expected.settled, "{salvaged:?}");
}

/// A missing counter would grant its budget a second time.
#[tokio::test]
async fn a_counter_that_is_lost_is_made_again_from_the_lines() {
    let (f, expected) = killed().await;
    let dir = copy(&f);
    drop(try_open(&dir, &f).unwrap());
    let connection = rusqlite::Connection::open(dir.path().join(DATABASE)).unwrap();
    connection.execute("UPDATE counters SET sum = sum + 1 WHERE name LIKE '%|usd|month'", []).unwrap();
    drop(connection);
    let said = try_open(&dir, &f).unwrap_err().to_string();
    assert!(said.contains("of table `counters` fails its check sum"), "{said}");
    let to = TempDir::new().unwrap();
    salvage(dir.path(), to.path(), &Clock::Manual(f.clock.clone())).unwrap();
    assert_eq!(books(&try_open(&to, &f).unwrap()).await.settled, expected.settled);
}

#[tokio::test]
async fn a_journal_that_lost_its_end_is_noticed() {
    let (f, _) = killed().await;
    for gone in [WAL, DATABASE] {
        let dir = copy(&f);
        fs::remove_file(dir.path().join(gone)).unwrap();
        let said = try_open(&dir, &f).unwrap_err().to_string();
        assert!(said.contains("was on disk and the last one found is"), "{gone}: {said}");
    }
    // Without the count, SQLite alone decides what was committed.
    let dir = copy(&f);
    fs::remove_file(dir.path().join(LAST_COMMIT)).unwrap();
    assert!(try_open(&dir, &f).is_ok());
}
