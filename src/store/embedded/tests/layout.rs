//! Directories of earlier layouts, as the releases of then wrote them.

use std::os::unix::fs::MetadataExt as _;

use super::*;
use crate::store::{
    Ledger as _, PolicyRecord, PolicyRecords as _, Registry as _, RegistryWritten, Revision, Series,
    Usage as _, UsageAddition, UsageSet,
    embedded::{
        files::{DATABASE, LAST_COMMIT},
        owner, schema,
    },
};

/// The minute after the dumps were made.
const THEN: Timestamp = Timestamp(1_795_868_340_000);
const THEN_3: Timestamp = Timestamp(1_795_904_040_000);
const THEN_4: Timestamp = Timestamp(1_795_951_020_000);
const THEN_5: Timestamp = Timestamp(1_795_964_940_000);
/// What the last process of layout 3 wrote beside its database: six commits.
const SIX_COMMITS: [u8; 17] =
    [0x01, 0x06, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0xf4, 0xac, 0xdc, 0x39, 0x7d, 0x9f, 0x6d, 0x6c];

/// The same of layout 4: 24 commits.
const COMMITS_4: [u8; 17] =
    [0x01, 0x18, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0xd4, 0x4c, 0xfa, 0x37, 0xf5, 0x39, 0xa5, 0x3d];

/// The same of layout 5: 33 commits.
const COMMITS_5: [u8; 17] =
    [0x01, 0x21, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0xb1, 0xe5, 0x7b, 0xf8, 0xb1, 0x61, 0xf1];

pub(super) fn directory(layout: i64) -> (TempDir, ManualClock) {
    let (then, dump) = match layout {
        3 => (THEN_3, include_str!("layout_3.sql")),
        4 => (THEN_4, include_str!("layout_4.sql")),
        5 => (THEN_5, include_str!("layout_5.sql")),
        _ => (THEN, include_str!("layout_2.sql")),
    };
    let (dir, clock) = (TempDir::new().unwrap(), ManualClock::new(then));
    let connection = rusqlite::Connection::open(dir.path().join(DATABASE)).unwrap();
    connection.execute_batch(dump).unwrap();
    match layout {
        1 => {
            let back = "DROP TABLE registry; DROP TABLE uses; DROP TABLE last_uses; PRAGMA user_version = 1;";
            connection.execute_batch(back).unwrap();
        }
        3 => std::fs::write(dir.path().join(LAST_COMMIT), SIX_COMMITS).unwrap(),
        4 => std::fs::write(dir.path().join(LAST_COMMIT), COMMITS_4).unwrap(),
        5 => std::fs::write(dir.path().join(LAST_COMMIT), COMMITS_5).unwrap(),
        _ => {}
    }
    (dir, clock)
}

#[tokio::test]
async fn a_store_of_an_earlier_layout_is_brought_up_to_date() {
    // The records of the registry; what the team spent, in nano-dollars, in how many requests; those that are open.
    let all = [
        (1, 0, (275_000, 2), 1),
        (2, 0, (275_000, 2), 1),
        // One more was taken by the release of layout 3.
        (3, 2, (275_000, 2), 2),
        // And one more by that of layout 4, which also took three that were settled: one of them is so in the tables, one was taken
        // there and settled in the journal, and one is in the journal only.
        (4, 3, (650_000, 5), 3),
        // Two more were taken and settled by that of layout 5, one of them in the journal only, and one more was taken.
        (5, 3, (830_000, 7), 4),
    ];
    for (found, written, spent, open_count) in all {
        let (dir, clock) = directory(found);
        crate::store::embedded::verify(dir.path(), &Clock::Manual(clock.clone())).unwrap();
        for again in [false, true] {
            let store = open(dir.path(), &clock);
            let lines = store.spend(202_611, "chatbot".into()).await.unwrap();
            let sum =
                |of: fn(&UsageAmounts) -> u64| lines.iter().map(|(_, amounts)| of(amounts)).sum::<u64>();
            assert_eq!((sum(|amounts| amounts.cost_nanos), sum(|amounts| amounts.requests)), spent);
            assert_eq!(sum(|amounts| amounts.input_tokens), spent.1 * 1_000);
            let counter = CounterKey::new("team/chatbot|usd|month").in_period(20_261_101);
            let state = store.counters(vec![(counter, BUDGET)]).await.unwrap()[0];
            assert_eq!((state.settled, state.open), (spent.0, open_count));
            // That of before layout 4 is over by then.
            let open = match found {
                5 => 0x0112_8e46_1d1e_526e_4b90_7d52_7fa6_4ea8_u128,
                _ => 0x0289_686e_cf27_f0d1_e2f4_8ba2_ef9c_8f4a,
            };
            let open = ReservationId(open.to_be_bytes());
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

/// Those in the tables and those in the journal, with terms of their own each until then.
#[tokio::test]
async fn reservations_of_layout_4_are_settled_and_written_again() {
    let (dir, clock) = directory(4);
    let [settled, settled_late, open, settled_at_once] = [
        0x0197_ffb7_7207_36b0_eb53_d9af_fccd_de5f_u128,
        0x0189_2ccb_96e5_d0c5_463f_b8af_ff29_dabe,
        0x0153_0c64_eefb_2c9a_74a0_6695_4b20_6179,
        0x01c5_3d04_7929_87f3_55e5_3f52_47a3_bbcf,
    ]
    .map(|id| ReservationId(id.to_be_bytes()));
    let mut records = Vec::new();
    for turn in 0..3 {
        let store = super::open(dir.path(), &clock);
        for id in [settled, settled_late, settled_at_once] {
            let record = store.find(id).await.unwrap().unwrap();
            // The budgets of a day and a week beside those that refuse.
            assert_eq!(record.settlement.as_ref().unwrap().counters.len(), record.holds.len() + 4);
            assert_eq!(record.note[0], 2, "a ticket");
            records.push(record);
        }
        let record = store.find(open).await.unwrap().unwrap();
        let holds: Vec<_> = record.holds.iter().map(|hold| (hold.limit, hold.amount())).collect();
        assert_eq!(holds.len(), 6);
        assert_eq!(holds[0], (500_000_000_000, 150_000));
        assert_eq!(record.settlement.is_some(), turn == 2);
        records.push(record);
        if turn == 1 {
            let lines = vec![line(202_611, "chatbot", 7), line(202_611, "", 7)];
            let settle = Settle { id: open, lines, ..settle(0, vec![7; 6]) };
            let settled = store.settle(settle).await.unwrap();
            assert!(matches!(settled, SettleOutcome::Settled(_)), "{settled:?}");
        }
        store.checkpoint().await.unwrap();
    }
    assert_eq!(records[..4], records[4..8]);
    assert_eq!(records[..3], records[8..11]);
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
    for (layout, spent, records_kept) in [(2, 275_000, 0), (3, 275_000, 2), (4, 650_000, 2), (5, 830_000, 2)]
    {
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
        assert_eq!(lines.iter().map(|(_, amounts)| amounts.cost_nanos).sum::<u64>(), spent);
        let records = store.registry_since(Revision::default()).await.unwrap().records;
        assert_eq!(records.len(), records_kept);
    }
}

/// The tables of layout 7 are those of layout 6. What it adds, a release of layout 6 does not read. Layout 8 has more tables.
#[tokio::test]
async fn a_store_of_layout_6_or_7_is_copied_and_takes_denials_and_policies() {
    for layout in [6, 7] {
        brought_up(layout).await;
    }
}

async fn brought_up(layout: i64) {
    let (dir, clock) = (TempDir::new().unwrap(), ManualClock::new(THEN_5));
    drop(open(dir.path(), &clock));
    let database = dir.path().join(DATABASE);
    let connection = rusqlite::Connection::open(&database).unwrap();
    connection.execute_batch("DROP TABLE policies; DROP TABLE policy_documents").unwrap();
    connection.pragma_update(None, "user_version", layout).unwrap();
    drop(connection);
    crate::store::embedded::verify(dir.path(), &Clock::Manual(clock.clone())).unwrap();
    for again in [false, true] {
        let store = open(dir.path(), &clock);
        let set = UsageSet { series: Series::Denials, period: 20_261_129, team: "t".into() };
        let day = UsageKey::of_day(0, "t".into(), 20_261_129, "m".into(), "".into());
        let row = UsageKey { set: set.clone(), value: "paused|".into(), ..day };
        let amounts = UsageAmounts { requests: 1, ..UsageAmounts::default() };
        let lines = vec![(row.clone(), amounts)];
        let addition = UsageAddition { source: [u8::from(again); 16], number: 1, lines, max_rows: 9 };
        store.add_usage(addition).await.unwrap();
        store.checkpoint().await.unwrap();
        let found = UsageAmounts { requests: 1 + u64::from(again), ..amounts };
        assert_eq!(store.usage(set).await.unwrap(), [(row, found)]);
        let record = PolicyRecord {
            revision: "a".into(),
            at: THEN_5,
            replica: "gate".into(),
            value: Bytes::new(),
            document: Some("a = 1".into()),
        };
        assert_eq!(store.record_policy(record).await, Ok(!again));
        assert_eq!(store.policy_document("a".into()).await.unwrap(), Some("a = 1".into()));
    }
    let copy = rusqlite::Connection::open(schema::kept_aside(&database, layout)).unwrap();
    assert_eq!(schema::version(&copy), Ok(layout));
    crate::store::embedded::verify(dir.path(), &Clock::Manual(clock)).unwrap();
}
