use std::{
    fs,
    io::{Read, Write},
    os::unix::fs::PermissionsExt as _,
    sync::atomic::AtomicBool,
};

use serde_json::{Value, json};
use tempfile::TempDir;

use super::*;
use crate::domain::{
    actor::Actor,
    rbac::{Principal, PrincipalKind},
};

fn change(subject: &str) -> Change {
    Change {
        actor: Actor::system("test"),
        action: action::PAUSE,
        subject: subject.to_owned(),
        before: Value::Null,
        after: json!({ "paused": true }),
        outcome: "done",
    }
}

fn denial() -> Change {
    Change { action: action::ROLE_DENIED, outcome: "PERMISSION_MISSING", ..change("rpc") }
}

fn principal(name: &str) -> Principal {
    Principal { name: name.into(), kind: PrincipalKind::Certificate, grants: Vec::new() }
}

fn to(path: &Path) -> Targets {
    Targets { file: Some(path.to_owned()), stdout: false }
}

fn open(directory: &TempDir) -> (Audit, PathBuf) {
    let path = directory.path().join("audit.jsonl");
    (Audit::open(&to(&path)).unwrap(), path)
}

fn subjects(page: &Page) -> Vec<&str> {
    page.events.iter().map(|event| event.subject.as_str()).collect()
}

#[test]
fn a_restart_appends_and_a_line_cut_short_is_passed_over() {
    let directory = TempDir::new().unwrap();
    for (run, cut) in [("a", "{\"id\":\"00"), ("b", ""), ("c", "")] {
        let (audit, path) = open(&directory);
        audit.changed(change(run));
        assert!(audit.flush());
        OpenOptions::new().append(true).open(&path).unwrap().write_all(cut.as_bytes()).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }
    let (audit, path) = open(&directory);
    let page = audit.page(&Query { page_size: 10, ..Query::default() }).unwrap();
    assert_eq!(subjects(&page), ["c", "b", "a"]);
    assert!(page.events.is_sorted_by(|a, b| a.id > b.id), "{page:?}");
    assert_eq!(fs::read_to_string(path).unwrap().lines().count(), 4);
}

#[test]
fn pages_hold_every_event_once_also_while_others_are_written() {
    let directory = TempDir::new().unwrap();
    let (audit, _) = open(&directory);
    for number in 0..2_500 {
        audit.changed(change(&format!("{}{number}", if number % 5 == 0 { "team/" } else { "key/" })));
    }
    assert!(audit.flush());
    for (prefix, page_size) in [("", 7), ("", 1_000), ("team/", 3), ("team/10", 50), ("none", 2)] {
        let mut query = Query { page_size, subject_prefix: prefix.to_owned(), ..Query::default() };
        let mut told = Vec::new();
        loop {
            let page = audit.page(&query).unwrap();
            assert!(page.events.len() <= page_size);
            told.extend(page.events.iter().map(|event| event.subject.clone()));
            // As it goes to the caller and comes back.
            query.before = page.next.map(|place| Place::parse(&place.to_string()).unwrap());
            if query.before.is_none() {
                break;
            }
            if told.len() == page_size {
                audit.changed(change("later"));
                assert!(audit.flush());
            }
        }
        let all = (0..2_500).rev().map(|n| format!("{}{n}", if n % 5 == 0 { "team/" } else { "key/" }));
        let expected: Vec<String> = all.filter(|subject| subject.starts_with(prefix)).collect();
        told.retain(|subject| subject != "later");
        assert_eq!(told, expected, "{prefix} {page_size}");
    }
    let action = Query { page_size: 5, action: action::RESUME.to_owned(), ..Query::default() };
    assert_eq!(audit.page(&action).unwrap(), Page::default());
    let since = Query { page_size: 5, since: Some(Timestamp::MAX), ..Query::default() };
    assert_eq!(audit.page(&since).unwrap(), Page::default());
    assert!(matches!(Audit::default().page(&since), Err(PageError::NoFile)));
}

#[test]
fn a_place_is_of_one_event_whatever_becomes_of_the_file() {
    let directory = TempDir::new().unwrap();
    let (audit, path) = open(&directory);
    let record = |subjects: &[&str]| {
        subjects.iter().for_each(|subject| audit.changed(change(subject)));
        assert!(audit.flush());
    };
    let page = |before: Option<Place>| audit.page(&Query { page_size: 1, before, ..Query::default() });
    record(&["a", "b", "c"]);
    let place = page(None).unwrap().next.unwrap();
    assert_eq!(subjects(&page(Some(place.clone())).unwrap()), ["b"]);
    // Lines that are no events may come between.
    OpenOptions::new().append(true).open(&path).unwrap().write_all(b"{\"id\":\"00\n\n").unwrap();
    record(&["d"]);
    let latest = page(None).unwrap().next.unwrap();
    assert_eq!(subjects(&page(Some(latest)).unwrap()), ["c"]);
    let [at, id] = place.to_string().split(':').map(str::to_owned).collect::<Vec<_>>().try_into().unwrap();
    // Places in the middle of a line, at the start of another one, before the first, at the end and far beyond it.
    let at: u64 = at.parse().unwrap();
    let size = fs::metadata(&path).unwrap().len();
    for other in [at - 1, at + 1, at / 2, 0, 1, size - 1, size, size + 1, 1 << 63, u64::MAX] {
        let place = Place::parse(&format!("{other}:{id}")).unwrap();
        assert!(matches!(page(Some(place)), Err(PageError::NoSuchPage)), "{other}");
    }
    for text in ["", ":", "1", "1:", &format!(":{id}"), &format!("-1:{id}"), &format!("1:{id}0"), "1:\u{e9}"]
    {
        assert_eq!(Place::parse(text), None, "{text}");
    }
    // Once cut, the file has nothing there; once grown again, it has another event at the same place.
    let kept = fs::read_to_string(&path).unwrap();
    for replaced in [String::new(), kept.replace(&id, &"f".repeat(id.len()))] {
        fs::write(&path, replaced).unwrap();
        assert!(matches!(page(Some(place.clone())), Err(PageError::NoSuchPage)));
    }
    fs::write(&path, kept).unwrap();
    assert_eq!(subjects(&page(Some(place)).unwrap()), ["b"]);
}

#[test]
fn a_file_that_is_cut_while_it_is_read_has_no_such_page() {
    let directory = TempDir::new().unwrap();
    let (audit, path) = open(&directory);
    // Enough for the reader to come back to the file many times.
    (0..5_000).for_each(|number| audit.changed(change(&number.to_string())));
    assert!(audit.flush());
    let kept = fs::read(&path).unwrap();
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                fs::write(&path, "").unwrap();
                fs::write(&path, &kept).unwrap();
            }
        });
        let query = Query { page_size: 10, action: action::RESUME.to_owned(), ..Query::default() };
        let started = Instant::now();
        let failed = std::iter::repeat_with(|| audit.page(&query).err())
            .take_while(|_| started.elapsed() < Duration::from_secs(30))
            .flatten()
            .take(3)
            .collect::<Vec<_>>();
        done.store(true, Ordering::Relaxed);
        assert_eq!(failed.len(), 3, "never cut in the midst of a page");
        assert!(failed.iter().all(|error| matches!(error, PageError::NoSuchPage)), "{failed:?}");
    });
}

#[test]
fn a_page_is_read_in_bounds_also_where_nothing_is_looked_for() {
    let directory = TempDir::new().unwrap();
    let (audit, _) = open(&directory);
    audit.changed(Change { action: action::RESUME, ..change("the oldest") });
    (0..300).for_each(|_| audit.changed(change(&"long".repeat(16 << 10))));
    assert!(audit.flush());
    let mut query = Query { page_size: 10, action: action::RESUME.to_owned(), ..Query::default() };
    let first = audit.page(&query).unwrap();
    assert_eq!(first.events, []);
    query.before = first.next;
    assert!(query.before.is_some());
    let last = audit.page(&query).unwrap();
    assert_eq!(subjects(&last), ["the oldest"]);
    assert_eq!(last.next, None);
}

#[test]
fn a_flood_of_refusals_is_counted_and_loses_nothing_of_others() {
    let directory = TempDir::new().unwrap();
    let (audit, path) = open(&directory);
    const FLOOD: u64 = 100_000;
    let loud = principal("loud");
    let quiet = {
        let room = audit.0.as_ref().unwrap().room.lock().unwrap();
        let mut others = (0..).map(|number| principal(&number.to_string()));
        others.find(|other| room.bucket(other) != room.bucket(&loud)).unwrap()
    };
    let started = Instant::now();
    for _ in 0..FLOOD {
        audit.denied(&loud, denial);
    }
    audit.denied(&quiet, || Change { subject: "in the midst".to_owned(), ..denial() });
    audit.changed(change("in the midst"));
    assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
    assert!(audit.flush());
    let text = fs::read_to_string(path).unwrap();
    let events: Vec<Event> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(events.iter().filter(|event| event.subject == "in the midst").count(), 2);
    let told = events.iter().filter(|event| event.subject == "rpc").count() as u64;
    let left_out: u64 = events.iter().filter_map(|event| event.after["left_out"].as_u64()).sum();
    assert!(
        told >= u64::from(refusal_limiter::EACH.at_once)
            && told < 2 * u64::from(refusal_limiter::EACH.at_once),
        "{told}"
    );
    assert_eq!(told + left_out, FLOOD);
}

#[test]
fn a_disk_that_takes_nothing_holds_nobody_up() {
    /// Takes one line for each message sent to it.
    struct Stuck(Receiver<()>);
    impl Write for Stuck {
        fn write(&mut self, line: &[u8]) -> io::Result<usize> {
            let _ = self.0.recv();
            Ok(line.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let (go_on, word) = mpsc::channel();
    let audit = Audit::start(None, Writer::new(Stuck(word), Write::flush, 0)).unwrap();
    for _ in 0..10_000 {
        audit.changed(change("kept"));
        audit.denied(&principal("loud"), denial);
    }
    drop(go_on);
    assert!(audit.flush());
}

#[test]
fn what_fails_is_tried_again() {
    /// Fails once.
    struct Once(bool, File);
    impl Write for Once {
        fn write(&mut self, line: &[u8]) -> io::Result<usize> {
            if std::mem::replace(&mut self.0, true) {
                self.1.write(line)
            } else {
                Err(io::ErrorKind::StorageFull.into())
            }
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let file = tempfile::NamedTempFile::new().unwrap();
    let writer = Writer::new(Once(false, file.reopen().unwrap()), Write::flush, 0);
    let audit = Audit::start(None, writer).unwrap();
    audit.changed(change("kept"));
    assert!(audit.flush());
    let mut text = String::new();
    file.reopen().unwrap().read_to_string(&mut text).unwrap();
    assert!(text.contains("kept"), "{text}");
}

#[test]
fn what_is_not_durable_is_not_called_so_and_is_tried_again() {
    /// Whether the disk fails.
    struct Failing(Arc<AtomicBool>);
    impl Write for Failing {
        fn write(&mut self, line: &[u8]) -> io::Result<usize> {
            Ok(line.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            if self.0.load(Ordering::Relaxed) { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
        }
    }
    let fails = Arc::new(AtomicBool::new(true));
    let audit = Audit::start(None, Writer::new(Failing(Arc::clone(&fails)), Write::flush, 0)).unwrap();
    audit.changed(change("kept"));
    assert!(!audit.flush());
    fails.store(false, Ordering::Relaxed);
    assert!(audit.flush());
}

#[test]
fn another_file_is_not_taken_for_a_log() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("audit.jsonl");
    fs::write(&path, "x".repeat(3 << 20)).unwrap();
    let error = Audit::open(&to(&path)).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    fs::write(&path, "not an event\n".repeat(2 << 20)).unwrap();
    let error = Audit::open(&to(&path)).unwrap_err();
    assert!(error.to_string().contains("without an event"), "{error}");
}

#[test]
fn a_file_has_one_writer_until_it_is_closed() {
    let directory = TempDir::new().unwrap();
    let (first, path) = open(&directory);
    first.changed(change("first"));
    let refused = Audit::open(&to(&path)).unwrap_err();
    assert_eq!(refused.kind(), io::ErrorKind::ResourceBusy);
    assert!(refused.to_string().contains("another process writes it"), "{refused}");
    // Moved away, the file is still locked by the first log; the new file in its place is not.
    let moved = directory.path().join("audit.jsonl.1");
    fs::rename(&path, &moved).unwrap();
    let (second, _) = open(&directory);
    assert_eq!(Audit::open(&to(&moved)).unwrap_err().kind(), io::ErrorKind::ResourceBusy);
    second.changed(change("second"));
    drop((first, second));
    for (file, subject) in [(&moved, "first"), (&path, "second")] {
        let text = fs::read_to_string(file).unwrap();
        assert!(text.lines().count() == 1 && text.contains(subject), "{text}");
    }
    // Dropping the log closes it: all that was recorded is there, and the next one may begin at once.
    for run in 1..100 {
        let (audit, path) = open(&directory);
        audit.changed(change("again"));
        drop(audit);
        assert_eq!(fs::read_to_string(path).unwrap().lines().count(), run + 1);
    }
}

#[test]
fn a_caller_is_told_by_how_they_were_recognised() {
    for (kind, name) in [
        (PrincipalKind::ServiceToken, "service-token"),
        (PrincipalKind::Certificate, "certificate"),
        (PrincipalKind::Oidc, "oidc"),
    ] {
        let principal = Principal { name: "who".into(), kind, grants: Vec::new() };
        let actor = Actor::caller(Some(&principal), "[::ffff:10.0.0.1]:5".parse().ok());
        let expected = json!({ "kind": name, "name": "who", "address": "10.0.0.1" });
        assert_eq!(serde_json::to_value(&actor).unwrap(), expected);
        assert_eq!(actor.kind.name(), name);
    }
    assert_eq!(Actor::caller(None, None).kind.name(), "anybody");
}

#[test]
fn a_log_that_was_open_to_all_users_is_closed_to_them() {
    let directory = TempDir::new().unwrap();
    for (found, left) in [(0o644, 0o640), (0o606, 0o600), (0o640, 0o640)] {
        drop(open(&directory));
        let path = open(&directory).1;
        fs::set_permissions(&path, Permissions::from_mode(found)).unwrap();
        drop(open(&directory));
        assert_eq!(fs::metadata(path).unwrap().permissions().mode() & 0o777, left);
    }
}
