mod damage;
mod stalls;

use std::{collections::BTreeMap, fs, os::unix::fs::PermissionsExt as _};

use tempfile::TempDir;

use super::*;

const NOW: Timestamp = Timestamp(1_000);
/// More than any of these tests writes.
const ROOM: u64 = 64 << 20;

fn entry(number: u8, team: &str, cost: Option<u64>) -> Entry {
    let about = About {
        team: team.into(),
        cost_nanos: cost,
        at: Timestamp(u64::from(number)),
        digest: u64::MAX - u64::from(number),
        tried_at: None,
    };
    let id = ReservationId::versioned([number; 16]);
    Entry { id, about, record: Bytes::from(vec![1, number, 7]) }
}

fn open(dir: &TempDir) -> Spool {
    Spool::open(dir.path(), ROOM, "acme").unwrap()
}

/// All records can be delivered.
const fn any(_: &[u8]) -> bool {
    true
}

async fn places(spool: &Spool) -> Vec<u64> {
    spool.take((0, 100), NOW, any).await.unwrap().into_iter().map(|taken| taken.place).collect()
}

#[tokio::test]
async fn what_is_kept_is_there_after_a_restart_oldest_first_and_once() {
    let dir = TempDir::new().unwrap();
    let spool = open(&dir);
    for (number, cost) in [(3, Some(30)), (1, None), (2, Some(20))] {
        assert_eq!(spool.keep(entry(number, "a", cost)).await, Ok(Kept::New));
    }
    let repeated = Entry { record: Bytes::from_static(b"\x01other"), ..entry(3, "b", Some(9)) };
    assert_eq!(spool.keep(repeated).await, Ok(Kept::Already(entry(3, "a", Some(30)).about)));
    let state = spool.state();
    assert_eq!((state.records, state.cost_nanos, state.oldest, state.kept), (3, 50, Some(Timestamp(3)), 3));
    drop(spool);
    let spool = open(&dir);
    let state = spool.state();
    assert_eq!((state.records, state.cost_nanos, state.oldest, state.kept), (3, 50, Some(Timestamp(3)), 0));
    assert_eq!(state.teams, BTreeMap::from([("a".into(), (3, 50))]));
    let taken = spool.take((0, 2), NOW, any).await.unwrap();
    let expected = [entry(3, "a", Some(30)), entry(1, "a", None)];
    assert!(taken.iter().map(|taken| &taken.entry).eq(&expected), "{taken:?}");
    spool.delivered(taken.iter().map(|taken| taken.place).collect()).await.unwrap();
    let rest = spool.take((taken[1].place, 100), Timestamp(2_000), any).await.unwrap();
    assert_eq!(rest.len(), 1);
    assert_eq!((rest[0].entry.clone(), spool.state().delivered), (entry(2, "a", Some(20)), 2));
    drop(spool);
    // Places are not used again: what was taken before a crash is not mistaken for something else.
    let spool = open(&dir);
    assert_eq!(spool.keep(entry(9, "", None)).await, Ok(Kept::New));
    let taken = spool.take((0, 100), NOW, any).await.unwrap();
    assert_eq!(taken[0].entry.about.tried_at, Some(Timestamp(2_000)), "the first time counts");
    assert_eq!(taken.iter().map(|taken| taken.place).collect::<Vec<_>>(), [3, 4]);
}

/// What is not delivered is not marked as if it had been: whether the store may have it already is known from that.
#[tokio::test]
async fn only_what_can_be_delivered_is_marked_as_tried() {
    let dir = TempDir::new().unwrap();
    let spool = open(&dir);
    for number in 1..=3 {
        spool.keep(entry(number, "a", None)).await.unwrap();
    }
    let tried =
        |taken: Vec<Taken>| taken.into_iter().map(|taken| taken.entry.about.tried_at).collect::<Vec<_>>();
    let all = spool.take((0, 9), NOW, |record| record[1] != 2).await.unwrap();
    assert_eq!(tried(all), [None; 3], "as of before");
    let again = spool.take((0, 9), Timestamp(7_000), any).await.unwrap();
    assert_eq!(tried(again), [Some(NOW), None, Some(NOW)]);
}

#[tokio::test]
async fn what_is_refused_is_kept_aside_and_counted() {
    let dir = TempDir::new().unwrap();
    let spool = open(&dir);
    for number in 1..=3 {
        spool.keep(entry(number, "a", Some(1))).await.unwrap();
    }
    spool.set_aside(2, NOW, ("unknown".to_owned(), r#"{"tokens":7}"#.to_owned())).await.unwrap();
    let state = spool.state();
    assert_eq!((state.records, state.refused, state.delivered), (2, 1, 0));
    assert_eq!(places(&spool).await, [1, 3]);
    // People look at it and remove it while the service runs.
    let people = rusqlite::Connection::open(dir.path().join("spool.db")).unwrap();
    let sql = "SELECT id || ' ' || why || ' ' || in_words FROM refused";
    let told: String = people.query_row(sql, [], |row| row.get(0)).unwrap();
    assert_eq!(told, format!("{} unknown {{\"tokens\":7}}", entry(2, "a", None).id));
    people.execute("DELETE FROM refused", []).unwrap();
    spool.recount().await.unwrap();
    assert_eq!(spool.state().refused, 0);
}

#[tokio::test]
async fn a_full_spool_takes_nothing_and_has_room_again_when_it_is_emptied() {
    let dir = TempDir::new().unwrap();
    let (max, big) = (4 << 20, vec![1; 3_000]);
    let spool = Spool::open(dir.path(), max, "acme").unwrap();
    let mut kept = 0_u16;
    let full = loop {
        let [high, low] = kept.to_be_bytes();
        let mut id = [0; 16];
        (id[1], id[2]) = (high, low);
        let big = Entry { id: ReservationId(id), record: big.clone().into(), ..entry(1, "a", Some(1)) };
        match spool.keep(big).await {
            Ok(kept) => assert_eq!(kept, Kept::New),
            Err(error) => break error,
        }
        kept += 1;
    };
    assert_eq!((full, spool.state().records), (NotKept::Full, u64::from(kept)));
    assert!((500..1_000).contains(&kept), "{kept}");
    let on_disk = || stalls::on_disk(dir.path());
    assert!(on_disk() <= max, "{}", on_disk());
    // A repeat of what is there needs no room.
    let again = Entry { id: ReservationId([0; 16]), ..entry(1, "a", Some(1)) };
    assert!(matches!(spool.keep(again).await, Ok(Kept::Already(_))));
    // No more at a time than one commit can mark.
    while spool.state().records > 0 {
        let taken = spool.take((0, 1_000), NOW, any).await.unwrap();
        assert!((1..=100).contains(&taken.len()), "{}", taken.len());
        spool.delivered(taken.iter().map(|taken| taken.place).collect()).await.unwrap();
    }
    assert_eq!((spool.state().records, spool.keep(entry(7, "a", None)).await), (0, Ok(Kept::New)));
    assert!(on_disk() < max / 4, "{}", on_disk());
}

#[tokio::test]
async fn one_directory_is_one_process_s_and_one_organization_s() {
    let dir = TempDir::new().unwrap();
    let inner = dir.path().join("spool");
    let spool = Spool::open(&inner, ROOM, "acme").unwrap();
    let error = Spool::open(&inner, ROOM, "acme").unwrap_err();
    assert!(matches!(error, SpoolOpenError::Locked { .. }), "{error}");
    for file in [inner.clone(), inner.join("spool.db"), inner.join("lock")] {
        let mode = fs::metadata(&file).unwrap().permissions().mode();
        assert_eq!(mode & 0o077, 0, "{}", file.display());
    }
    spool.keep(entry(1, "a", None)).await.unwrap();
    drop(spool);
    let error = Spool::open(&inner, ROOM, "other").unwrap_err();
    assert!(matches!(error, SpoolOpenError::OtherOrganization { records: 1, .. }), "{error}");
    let spool = Spool::open(&inner, ROOM, "acme").unwrap();
    spool.delivered(vec![1]).await.unwrap();
    drop(spool);
    drop(Spool::open(&inner, ROOM, "other").unwrap());
    let database = rusqlite::Connection::open(inner.join("spool.db")).unwrap();
    database.pragma_update(None, "user_version", 9).unwrap();
    drop(database);
    let error = Spool::open(&inner, ROOM, "other").unwrap_err();
    assert!(matches!(error, SpoolOpenError::Newer { found: 9, known: 1, .. }), "{error}");
    // The embedded store's directory is none for a spool.
    let store = crate::store::embedded::EmbeddedStore::open(
        &dir.path().join("store"),
        crate::runtime::clock::Clock::System,
    );
    let _store = store.unwrap();
    let error = Spool::open(&dir.path().join("store"), ROOM, "acme").unwrap_err();
    assert!(matches!(error, SpoolOpenError::Locked { .. }), "{error}");
}

#[tokio::test]
async fn nothing_is_acknowledged_in_a_directory_that_was_moved() {
    let dir = TempDir::new().unwrap();
    let (here, there) = (dir.path().join("here"), dir.path().join("there"));
    let spool = Spool::open(&here, ROOM, "acme").unwrap();
    spool.keep(entry(1, "a", None)).await.unwrap();
    fs::rename(&here, &there).unwrap();
    for number in 2..4 {
        assert_eq!(spool.keep(entry(number, "a", None)).await, Err(NotKept::Unavailable));
    }
    assert!(spool.state().lost.is_some_and(|lost| lost.contains("moved")), "{:?}", spool.state());
    drop(spool);
    let spool = Spool::open(&there, ROOM, "acme").unwrap();
    assert!(spool.state().records >= 1);
}

/// Many callers at a time share commits, and each hears after the one that holds its own.
#[tokio::test]
async fn many_are_kept_at_a_time_and_none_twice() {
    let dir = TempDir::new().unwrap();
    let spool = open(&dir);
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..400_u32 {
        let spool = spool.clone();
        // Each twice.
        let entry = entry(u8::try_from(number % 200).unwrap(), "a", Some(1));
        tasks.spawn(async move { spool.keep(entry).await.unwrap() == Kept::New });
    }
    let kept = tasks.join_all().await.into_iter().filter(|is_new| *is_new).count();
    assert_eq!((kept, spool.state().records, spool.state().cost_nanos), (200, 200, 200));
}

/// A full disk: what was not written is not acknowledged, and is taken once there is room.
#[tokio::test]
async fn a_disk_that_takes_nothing_acknowledges_nothing() {
    let dir = TempDir::new().unwrap();
    let spool = open(&dir);
    spool.keep(entry(1, "a", None)).await.unwrap();
    let other = rusqlite::Connection::open(dir.path().join("spool.db")).unwrap();
    let full = "CREATE TRIGGER full BEFORE INSERT ON spooled BEGIN SELECT RAISE(FAIL, 'full'); END";
    other.execute_batch(full).unwrap();
    assert_eq!(spool.keep(entry(2, "a", Some(5))).await, Err(NotKept::Unavailable));
    let state = spool.state();
    assert_eq!((state.records, state.cost_nanos, state.kept, state.lost), (1, 0, 1, None));
    // What is there is delivered all the same.
    assert_eq!(places(&spool).await, [1]);
    other.execute_batch("DROP TRIGGER full").unwrap();
    assert_eq!(spool.keep(entry(2, "a", Some(5))).await, Ok(Kept::New));
    drop(spool);
    assert_eq!(open(&dir).state().records, 2);
}
