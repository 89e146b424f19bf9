//! A disk that does not answer, that is full, or that others hold; and how much of it is taken.

use std::{
    path::Path,
    sync::mpsc::{Sender, channel},
};

use tokio::task::JoinSet;

use super::{
    super::state::{BACKLOG_MS, FAILING},
    *,
};

/// A spool that, where another program holds its tables, waits for as long as nothing is sent: as on a disk that hangs.
fn hanging(dir: &TempDir) -> (Spool, rusqlite::Connection, Sender<()>) {
    let mut opened = open::ready(dir.path(), ROOM, "acme").unwrap();
    let (release, gate) = channel();
    let gate = Mutex::new(gate);
    opened.disk.connection.busy_handler(Some(move |_| gate.lock().unwrap().recv().is_ok())).unwrap();
    let people = rusqlite::Connection::open(dir.path().join("spool.db")).unwrap();
    (Spool::start(opened).unwrap(), people, release)
}

/// Bytes of the database and its log.
pub(super) fn on_disk(dir: &Path) -> u64 {
    let files = fs::read_dir(dir).unwrap().map(|file| file.unwrap());
    let counted = files.filter(|file| !file.file_name().to_string_lossy().ends_with("-shm"));
    counted.map(|file| file.metadata().unwrap().len()).sum()
}

#[test]
fn people_are_told_of_what_does_not_pass_by_itself() {
    let quiet = SpoolState { max_bytes: 100, bytes: 90, ..SpoolState::default() };
    assert!(!quiet.is_backlog(NOW), "nothing waits");
    let few = SpoolState { records: 1, oldest: Some(NOW), bytes: 10, ..quiet.clone() };
    assert!(!few.is_backlog(NOW.plus(BACKLOG_MS - 1)) && few.is_backlog(NOW.plus(BACKLOG_MS)));
    assert!(SpoolState { bytes: 75, ..few.clone() }.is_backlog(NOW));
    assert!(SpoolState { refused: 1, ..quiet.clone() }.is_backlog(NOW));
    assert!(SpoolState { damaged: 1, ..quiet.clone() }.is_backlog(NOW));
    assert!(SpoolState { lost: Some("moved"), ..quiet.clone() }.is_backlog(NOW));
    let failing = |since: Duration| {
        let since = Instant::now().checked_sub(since).unwrap();
        let failing = Some(Failing { since, why: "disk I/O error".into() });
        SpoolState { failing, ..quiet.clone() }
    };
    assert!(!failing(Duration::ZERO).is_backlog(NOW) && failing(FAILING).is_backlog(NOW));
    let all = SpoolState { damaged: 2, ..failing(FAILING) };
    let kept = "2 damaged databases are kept beside it, with what could not be read";
    assert_eq!(all.fault(), format!("its disk fails: disk I/O error; {kept}"));
    assert_eq!(SpoolState { lost: Some("moved"), ..all }.fault(), format!("moved; {kept}"));
    assert_eq!(quiet.fault(), "");
}

/// A caller is answered, and the process ends, although the disk never does what it was asked for.
#[tokio::test]
async fn a_disk_that_hangs_is_not_waited_for() {
    let dir = TempDir::new().unwrap();
    let (spool, people, release) = hanging(&dir);
    spool.keep(entry(1, "a", None)).await.unwrap();
    people.execute_batch("BEGIN IMMEDIATE").unwrap();
    // The time of callers passes at once, and the thread's stands still.
    tokio::time::pause();
    assert_eq!(spool.keep(entry(2, "a", None)).await, Err(NotKept::Unavailable));
    let state = spool.state();
    assert_eq!((state.records, state.fault().as_str()), (1, "its disk fails: it does not answer"));
    people.execute_batch("ROLLBACK").unwrap();
    tokio::time::resume();
    release.send(()).unwrap();
    // The one who has heard that it is not kept is believed.
    spool.recount().await.unwrap();
    assert_eq!((spool.state().records, spool.state().fault().as_str()), (1, ""));
    assert_eq!(spool.keep(entry(2, "a", None)).await, Ok(Kept::New));
    people.execute_batch("BEGIN IMMEDIATE").unwrap();
    tokio::time::pause();
    assert_eq!(spool.take((0, 9), NOW, any).await, Err(NotKept::Unavailable));
    let began = Instant::now();
    drop(spool);
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    // Now its thread can end.
    drop(release);
}

/// Giving back room waits for those who look at the tables; no answer does.
#[tokio::test]
async fn what_is_delivered_is_answered_before_the_room_is_given_back() {
    let dir = TempDir::new().unwrap();
    let (spool, people, release) = hanging(&dir);
    spool.keep(entry(1, "a", None)).await.unwrap();
    people.execute_batch("BEGIN").unwrap();
    let seen: i64 = people.query_row("SELECT count(*) FROM spooled", [], |row| row.get(0)).unwrap();
    assert_eq!(spool.delivered(vec![1]).await, Ok(()));
    assert_eq!((seen, spool.state().records, spool.state().delivered), (1, 0, 1));
    people.execute_batch("COMMIT").unwrap();
    release.send(()).unwrap();
    assert_eq!(spool.keep(entry(2, "a", None)).await, Ok(Kept::New));
    drop(release);
}

/// Someone who has the tables locked is said to be in the way until they are not, also where no report comes.
#[tokio::test]
async fn a_disk_that_fails_is_said_to_until_it_can_be_written() {
    let dir = TempDir::new().unwrap();
    let spool = open(&dir);
    spool.keep(entry(1, "a", None)).await.unwrap();
    spool.take((0, 9), NOW, any).await.unwrap();
    let people = rusqlite::Connection::open(dir.path().join("spool.db")).unwrap();
    people.execute_batch("BEGIN IMMEDIATE").unwrap();
    for _ in 0..2 {
        assert_eq!(spool.keep(entry(2, "a", None)).await, Err(NotKept::Unavailable));
        assert_eq!(spool.state().fault(), "its disk fails: database is locked");
    }
    let since = spool.state().failing.unwrap().since;
    assert_eq!(spool.recount().await, Err(NotKept::Unavailable));
    assert_eq!(spool.state().failing.unwrap().since, since, "it has failed since then");
    people.execute_batch("ROLLBACK").unwrap();
    spool.recount().await.unwrap();
    assert_eq!((spool.state().failing, spool.state().records), (None, 1));
}

/// The bound is kept while many of the largest records come at once.
#[tokio::test]
async fn the_bound_holds_for_the_largest_records_at_once() {
    let dir = TempDir::new().unwrap();
    let max = 12 << 20;
    let spool = Spool::open(dir.path(), max, "acme").unwrap();
    let record = Bytes::from(vec![1; MAX_RECORD]);
    let (mut kept, mut number) = (0, 0_u16);
    let mut is_full = false;
    while !is_full {
        let mut tasks = JoinSet::new();
        for _ in 0..64 {
            number += 1;
            let [high, low] = number.to_be_bytes();
            let mut id = [0; 16];
            (id[1], id[2]) = (high, low);
            let record = record.clone();
            let entry = Entry { id: ReservationId(id), record, ..entry(1, "a", Some(1)) };
            let spool = spool.clone();
            tasks.spawn(async move { spool.keep(entry).await });
        }
        for answer in tasks.join_all().await {
            assert!(matches!(answer, Ok(Kept::New) | Err(NotKept::Full)), "{answer:?}");
            is_full |= answer.is_err();
            kept += u64::from(answer.is_ok());
        }
        assert!(on_disk(dir.path()) <= max, "{} of {max} after {kept}", on_disk(dir.path()));
        assert!(spool.state().bytes <= max, "{:?}", spool.state());
    }
    assert_eq!(spool.state().records, kept);
    // Most of it can be used.
    assert!(kept * (MAX_RECORD as u64) > max / 4 * 3, "{kept}");
    let mut delivered = 0;
    while delivered < kept {
        let taken = spool.take((0, 64), NOW, any).await.unwrap();
        delivered += taken.len() as u64;
        spool.delivered(taken.iter().map(|taken| taken.place).collect()).await.unwrap();
        assert!(on_disk(dir.path()) <= max, "{}", on_disk(dir.path()));
    }
    assert_eq!(spool.keep(entry(7, "a", None)).await, Ok(Kept::New));
    assert!(on_disk(dir.path()) < max / 8, "{}", on_disk(dir.path()));
}
