//! Directories of earlier layouts.

use crate::store::{Ledger as _, Registry as _, Usage as _};
use std::os::unix::fs::MetadataExt as _;

use super::*;
use crate::store::embedded::{files::DATABASE, schema};

/// The minute after the dump was made.
const THEN: Timestamp = Timestamp(1_795_868_340_000);

fn layout_2(to_1: bool) -> (TempDir, ManualClock) {
    let (dir, clock) = (TempDir::new().unwrap(), ManualClock::new(THEN));
    let connection = rusqlite::Connection::open(dir.path().join(DATABASE)).unwrap();
    connection.execute_batch(include_str!("layout_2.sql")).unwrap();
    if to_1 {
        let back = "DROP TABLE registry; DROP TABLE uses; DROP TABLE last_uses; PRAGMA user_version = 1;";
        connection.execute_batch(back).unwrap();
    }
    (dir, clock)
}

#[tokio::test]
async fn a_store_of_an_earlier_layout_is_brought_up_to_date() {
    for found in [1, 2] {
        let (dir, clock) = layout_2(found == 1);
        for again in [false, true] {
            let store = open(dir.path(), &clock);
            let lines = store.spend(202_611, "chatbot".into()).await.unwrap();
            let [(_, amounts)] = &lines[..] else { panic!("{lines:?}") };
            assert_eq!((amounts.cost_nanos, amounts.requests, amounts.input_tokens), (275_000, 2, 2_000));
            let counter = CounterKey::new("team/chatbot|usd|month").in_period(20_261_101);
            let state = store.counters(vec![(counter, BUDGET)]).await.unwrap()[0];
            assert_eq!((state.settled, state.open), (275_000, 1));
            let open = ReservationId(0x0289_686e_cf27_f0d1_e2f4_8ba2_ef9c_8f4a_u128.to_be_bytes());
            assert!(store.find(open).await.unwrap().is_some_and(|record| record.settlement.is_none()));
            let version = u64::from(again);
            let written = store.registry_write("k".into(), version, Bytes::from_static(b"v")).await;
            assert_eq!(written, Ok(crate::store::RegistryWritten::Written { version: version + 1 }));
        }
        let copy = schema::kept_aside(&dir.path().join(DATABASE), found);
        assert_eq!(std::fs::metadata(&copy).unwrap().mode() & 0o777, 0o600);
        assert_eq!(schema::version(&rusqlite::Connection::open(copy).unwrap()), Ok(found));
    }
}

#[tokio::test]
async fn a_store_of_an_earlier_layout_is_salvaged() {
    let (dir, clock) = layout_2(false);
    let path = dir.path().join(DATABASE);
    let mut bytes = std::fs::read(&path).unwrap();
    // The page above all others, without which SQLite finds none of them.
    bytes[100..4096].fill(0);
    std::fs::write(&path, bytes).unwrap();
    assert!(EmbeddedStore::open(dir.path(), Clock::Manual(clock.clone())).is_err());
    let to = TempDir::new().unwrap();
    crate::store::embedded::salvage(dir.path(), to.path(), &Clock::Manual(clock.clone())).unwrap();
    let lines = open(to.path(), &clock).spend(202_611, "chatbot".into()).await.unwrap();
    assert_eq!(lines.iter().map(|(_, amounts)| amounts.cost_nanos).collect::<Vec<_>>(), [275_000]);
}
