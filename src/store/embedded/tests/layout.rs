//! Directories of earlier layouts, as the releases of then wrote them.

use std::os::unix::fs::MetadataExt as _;

use super::*;
use crate::store::{
    Ledger as _, Registry as _, RegistryWritten, Revision, Usage as _,
    embedded::{
        files::{DATABASE, LAST_COMMIT},
        owner, schema,
    },
};

/// The minute after the dumps were made.
const THEN: Timestamp = Timestamp(1_795_868_340_000);
const THEN_3: Timestamp = Timestamp(1_795_904_040_000);
/// What the last process of layout 3 wrote beside its database: six commits.
const SIX_COMMITS: [u8; 17] =
    [0x01, 0x06, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0xf4, 0xac, 0xdc, 0x39, 0x7d, 0x9f, 0x6d, 0x6c];

fn directory(layout: i64) -> (TempDir, ManualClock) {
    let (dir, clock) = (TempDir::new().unwrap(), ManualClock::new(if layout < 3 { THEN } else { THEN_3 }));
    let connection = rusqlite::Connection::open(dir.path().join(DATABASE)).unwrap();
    let dump = if layout < 3 { include_str!("layout_2.sql") } else { include_str!("layout_3.sql") };
    connection.execute_batch(dump).unwrap();
    match layout {
        1 => {
            let back = "DROP TABLE registry; DROP TABLE uses; DROP TABLE last_uses; PRAGMA user_version = 1;";
            connection.execute_batch(back).unwrap();
        }
        3 => std::fs::write(dir.path().join(LAST_COMMIT), SIX_COMMITS).unwrap(),
        _ => {}
    }
    (dir, clock)
}

#[tokio::test]
async fn a_store_of_an_earlier_layout_is_brought_up_to_date() {
    for (found, written) in [(1, 0), (2, 0), (3, 2)] {
        let (dir, clock) = directory(found);
        crate::store::embedded::verify(dir.path(), &Clock::Manual(clock.clone())).unwrap();
        for again in [false, true] {
            let store = open(dir.path(), &clock);
            let lines = store.spend(202_611, "chatbot".into()).await.unwrap();
            let [(_, amounts)] = &lines[..] else { panic!("{lines:?}") };
            assert_eq!((amounts.cost_nanos, amounts.requests, amounts.input_tokens), (275_000, 2, 2_000));
            let counter = CounterKey::new("team/chatbot|usd|month").in_period(20_261_101);
            let state = store.counters(vec![(counter, BUDGET)]).await.unwrap()[0];
            // One more was taken by the release of layout 3.
            assert_eq!((state.settled, state.open), (275_000, if found == 3 { 2 } else { 1 }));
            let open = ReservationId(0x0289_686e_cf27_f0d1_e2f4_8ba2_ef9c_8f4a_u128.to_be_bytes());
            assert!(store.find(open).await.unwrap().is_some_and(|record| record.settlement.is_none()));
            let version = if again { written + 1 } else { 0 };
            let change = store.registry_write("k".into(), version, Bytes::from_static(b"v")).await;
            assert_eq!(change, Ok(RegistryWritten::Written { version: written + 1 + u64::from(again) }));
        }
        let copy = schema::kept_aside(&dir.path().join(DATABASE), found);
        assert_eq!(std::fs::metadata(&copy).unwrap().mode() & 0o777, 0o600);
        assert_eq!(schema::version(&rusqlite::Connection::open(copy).unwrap()), Ok(found));
    }
}

#[tokio::test]
async fn keys_and_uses_of_layout_3_are_kept() {
    let (dir, clock) = directory(3);
    let store = open(dir.path(), &clock);
    let records = store.registry_since(Revision::default()).await.unwrap().records;
    let records: Vec<_> = records.iter().map(|record| (&*record.name, record.version)).collect();
    // The first is moved by those who read it.
    assert_eq!(records, [("hash-key", 1), ("key/chatbot-prod-web", 2)]);
    assert_eq!(store.hash_key(None).await, Ok(None));
    let uses = store.uses(vec![crate::domain::key::SecretId(0x5a0b_bdea_c4b0_4d9c)]).await.unwrap();
    assert_eq!(uses[0].slots, [(1_995_448, 1)]);
}

/// Earlier layouts are checked as far as they can be before they are changed.
#[tokio::test]
async fn a_damaged_store_of_an_earlier_layout_is_left_as_it_is() {
    let wrong = "UPDATE spend SET cost_nanos = cost_nanos - 1";
    let short = "UPDATE progress SET commits = 5";
    for damage in [wrong, short] {
        let (dir, clock) = directory(3);
        let path = dir.path().join(DATABASE);
        let connection = rusqlite::Connection::open(&path).unwrap();
        connection.execute(damage, []).unwrap();
        if damage == short {
            let row = "one, covered, forgotten, commits, owner, behind";
            let select = format!("SELECT {row} FROM progress");
            let sum = connection.query_row(&select, [], |row| {
                let values: Vec<_> = (0..6).map(|at| row.get_ref(at).unwrap()).collect();
                Ok(crate::store::embedded::sums::of(&schema::PROGRESS, values))
            });
            connection.execute("UPDATE progress SET sum = ?", [sum.unwrap()]).unwrap();
        }
        drop(connection);
        assert!(
            crate::store::embedded::verify(dir.path(), &Clock::Manual(clock.clone())).is_err(),
            "{damage}"
        );
        let refused = EmbeddedStore::open(dir.path(), Clock::Manual(clock)).unwrap_err();
        assert!(matches!(refused, crate::store::embedded::OpenError::Corrupt { .. }), "{refused}");
        assert_eq!(schema::version(&rusqlite::Connection::open(path).unwrap()), Ok(3), "{damage}");
    }
}

#[test]
fn the_count_of_commits_is_read_as_it_was_written() {
    let dir = TempDir::new().unwrap();
    std::fs::write(dir.path().join(LAST_COMMIT), SIX_COMMITS).unwrap();
    assert_eq!(owner::last_commit(dir.path()), Some(6));
}

#[tokio::test]
async fn a_store_of_an_earlier_layout_is_salvaged() {
    for layout in [2, 3] {
        let (dir, clock) = directory(layout);
        let path = dir.path().join(DATABASE);
        let mut bytes = std::fs::read(&path).unwrap();
        // The page above all others, without which SQLite finds none of them.
        bytes[100..4096].fill(0);
        std::fs::write(&path, bytes).unwrap();
        assert!(EmbeddedStore::open(dir.path(), Clock::Manual(clock.clone())).is_err());
        let to = TempDir::new().unwrap();
        crate::store::embedded::salvage(dir.path(), to.path(), &Clock::Manual(clock.clone())).unwrap();
        let store = open(to.path(), &clock);
        let lines = store.spend(202_611, "chatbot".into()).await.unwrap();
        assert_eq!(lines.iter().map(|(_, amounts)| amounts.cost_nanos).collect::<Vec<_>>(), [275_000]);
        let records = store.registry_since(Revision::default()).await.unwrap().records;
        assert_eq!(records.len(), if layout == 3 { 2 } else { 0 });
    }
}
