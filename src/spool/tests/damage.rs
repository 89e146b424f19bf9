//! Rows and pages that are not what was written: what can be read is delivered, and nothing is dropped.

use std::{collections::BTreeSet, path::PathBuf};

use super::*;

/// The pages of SQLite's files.
const PAGE: usize = 4096;
/// Records of which several share a page.
const RECORDS: u8 = 60;

fn database(dir: &TempDir) -> PathBuf {
    dir.path().join("spool.db")
}

#[tokio::test]
async fn a_damaged_record_is_kept_aside_and_the_others_are_taken() {
    for (damage, team) in [
        ("cost = 999", "61"),
        ("cost = 'dear'", "61"),
        ("cost = 9223372036854775807", "61"),
        ("at = 'today'", "61"),
        ("at = -1", "61"),
        ("team = x'ff00'", ""),
        ("team = CAST(x'ff' AS TEXT)", "FF"),
        ("id = x'00'", "61"),
        ("digest = 1.5", "61"),
        ("record = 'text'", "61"),
        ("tried = 'never'", "61"),
        ("sum = x''", "61"),
    ] {
        let dir = TempDir::new().unwrap();
        let spool = open(&dir);
        for number in 1..=3 {
            spool.keep(entry(number, "a", Some(10))).await.unwrap();
        }
        drop(spool);
        let people = rusqlite::Connection::open(database(&dir)).unwrap();
        people.execute(&format!("UPDATE spooled SET {damage} WHERE place = 1"), []).unwrap();
        let spool = open(&dir);
        assert_eq!(spool.state().records, 3, "{damage}");
        assert_eq!(places(&spool).await, [2, 3], "{damage}");
        let state = spool.state();
        assert_eq!((state.records, state.refused, state.cost_nanos), (2, 1, 20), "{damage}");
        assert!(state.is_backlog(NOW) && state.damaged == 0, "{damage}");
        let aside = "SELECT why || ' ' || hex(team) FROM refused";
        let aside: String = people.query_row(aside, [], |row| row.get(0)).unwrap();
        assert_eq!(aside, format!("damaged {team}"), "{damage}");
        // Its gateway is answered as if it had not been kept.
        assert_eq!(spool.keep(entry(1, "a", Some(10))).await, Ok(Kept::New), "{damage}");
    }
}

/// A window of records that are all damaged does not hide those behind it; and one that is repeated while it is damaged is kept.
#[tokio::test]
async fn many_damaged_records_are_passed_over_and_one_is_kept_again() {
    let dir = TempDir::new().unwrap();
    let spool = open(&dir);
    for number in 1..=9 {
        spool.keep(entry(number, "a", Some(10))).await.unwrap();
    }
    let people = rusqlite::Connection::open(database(&dir)).unwrap();
    people.execute("UPDATE spooled SET digest = 0 WHERE place < 8", []).unwrap();
    assert_eq!(spool.keep(entry(1, "a", Some(10))).await, Ok(Kept::New));
    assert_eq!((spool.state().records, spool.state().refused), (9, 1));
    let taken = spool.take((0, 3), NOW, any).await.unwrap();
    assert_eq!(taken.iter().map(|taken| taken.place).collect::<Vec<_>>(), [8, 9, 10]);
    assert_eq!((spool.state().records, spool.state().refused), (3, 7));
}

/// Takes and delivers all that there is, however often a call has to be repeated.
async fn deliver(spool: &Spool, known: &[Entry]) -> BTreeSet<[u8; 16]> {
    let (mut delivered, mut failures) = (BTreeSet::new(), 0);
    loop {
        let Ok(taken) = spool.take((0, 7), NOW, any).await else {
            failures += 1;
            assert!(failures < 5, "{:?}", spool.state());
            continue;
        };
        if taken.is_empty() {
            return delivered;
        }
        let places = taken.iter().map(|taken| taken.place).collect();
        for Taken { entry, .. } in taken {
            let About { tried_at, .. } = entry.about;
            let entry = Entry { about: About { tried_at: None, ..entry.about }, ..entry };
            assert!(tried_at.is_none_or(|at| at == NOW) && known.contains(&entry), "{entry:?}");
            delivered.insert(entry.id.0);
        }
        if spool.delivered(places).await.is_err() {
            failures += 1;
            assert!(failures < 5, "{:?}", spool.state());
        }
    }
}

/// Every page of the file in turn is overwritten. What has a way to it is delivered as it was written, and nothing else; the rest is on the
/// disk, people are told, and new reports are taken.
#[tokio::test]
async fn of_a_spool_with_a_damaged_page_what_can_be_read_is_delivered_and_the_rest_is_kept() {
    let whole = TempDir::new().unwrap();
    let spool = open(&whole);
    let mut known = Vec::new();
    for number in 1..=RECORDS {
        let record = vec![number; 500].into();
        known.push(Entry { record, ..entry(number, "a", Some(1)) });
        spool.keep(known[known.len() - 1].clone()).await.unwrap();
    }
    let name = Arc::clone(spool.name());
    drop(spool);
    let bytes = fs::read(database(&whole)).unwrap();
    let (pages, mut complete, mut partly) = (bytes.len() / PAGE, 0, 0);
    assert!(pages > 10, "{pages}");
    for page in 0..pages {
        let dir = TempDir::new().unwrap();
        let mut bytes = bytes.clone();
        bytes[page * PAGE..(page + 1) * PAGE].fill(0x5a);
        fs::write(database(&dir), bytes).unwrap();
        let spool = open(&dir);
        let delivered = deliver(&spool, &known).await;
        let state = spool.state();
        assert_eq!((state.records, state.lost), (0, None), "page {page}");
        let missing = known.len() - delivered.len();
        match missing {
            0 => complete += 1,
            // A leaf holds fewer than ten.
            1..10 => partly += 1,
            // The first page says where all others are, and the table's own page above its leaves which those are.
            _ => assert_eq!((delivered.len(), state.damaged), (0, 1), "page {page}: {state:?}"),
        }
        assert!(missing == 0 || (state.damaged == 1 && state.is_backlog(NOW)), "page {page}: {state:?}");
        assert!(missing > 0 || page == 0 || *spool.name() == name || state.damaged == 1, "page {page}");
        // It works as any other, also after a restart; the damaged file stays until people take it away.
        let kept = match spool.keep(entry(99, "b", None)).await {
            // That it is damaged was found by this: its gateway repeats it.
            Err(NotKept::Unavailable) => spool.keep(entry(99, "b", None)).await,
            kept => kept,
        };
        assert_eq!(kept, Ok(Kept::New), "page {page}");
        let state = spool.state();
        drop(spool);
        let spool = open(&dir);
        assert_eq!((spool.state().records, spool.state().damaged), (1, state.damaged), "page {page}");
        let last = spool.take((0, 1), NOW, any).await.unwrap().remove(0);
        assert!(page == 0 || last.place > u64::from(RECORDS), "page {page}: places are not used again");
        if state.damaged == 1 {
            fs::remove_file(dir.path().join("damaged-1.db")).unwrap();
            spool.recount().await.unwrap();
            assert_eq!(spool.state().damaged, 0);
        }
    }
    assert!(complete > 3 && partly > 5, "{complete} {partly}");
}

/// A process that ends while it puts a new database in its place leaves what the next one finishes.
#[tokio::test]
async fn a_rescue_that_was_cut_off_is_finished_by_the_next_start() {
    for step in 0..3 {
        let dir = TempDir::new().unwrap();
        let spool = open(&dir);
        for number in 1..=3 {
            spool.keep(entry(number, "a", Some(10))).await.unwrap();
        }
        drop(spool);
        fs::copy(database(&dir), dir.path().join("rescued.db")).unwrap();
        fs::write(dir.path().join("rescued.db-draft"), "half").unwrap();
        fs::write(dir.path().join("spool.db-wal"), "a log of the damaged one").unwrap();
        if step > 0 {
            fs::rename(dir.path().join("spool.db-wal"), dir.path().join("damaged-1.db-wal")).unwrap();
        }
        if step > 1 {
            fs::rename(database(&dir), dir.path().join("damaged-1.db")).unwrap();
        }
        let spool = open(&dir);
        assert_eq!((places(&spool).await, spool.state().damaged), (vec![1, 2, 3], 1), "step {step}");
        let log = fs::read(dir.path().join("damaged-1.db-wal")).unwrap();
        assert_eq!(log, b"a log of the damaged one", "step {step}");
        assert!(!dir.path().join("rescued.db").exists());
    }
}

/// Damaged databases take the disk, so there is an end to them.
#[tokio::test]
async fn no_more_damaged_databases_are_kept_than_a_few() {
    let dir = TempDir::new().unwrap();
    drop(open(&dir));
    for number in 1..=4 {
        fs::write(dir.path().join(format!("damaged-{number}.db")), "kept").unwrap();
    }
    fs::write(database(&dir), [7; 2 * PAGE]).unwrap();
    let error = Spool::open(dir.path(), ROOM, "acme").unwrap_err();
    assert!(matches!(error, SpoolOpenError::Rescue { .. }), "{error}");
    assert!(error.to_string().contains("4 damaged databases are kept"), "{error}");
    assert_eq!(fs::read(database(&dir)).unwrap(), [7; 2 * PAGE]);
    fs::remove_file(dir.path().join("damaged-2.db")).unwrap();
    let spool = open(&dir);
    assert_eq!((spool.state().damaged, spool.keep(entry(1, "a", None)).await), (4, Ok(Kept::New)));
}
