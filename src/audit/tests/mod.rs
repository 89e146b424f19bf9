mod pages;
mod stores;

use std::{
    fs::{self, File, OpenOptions, Permissions},
    io::{Read, Write},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    sync::atomic::AtomicBool,
    time::Duration,
};

use serde_json::{Value, json};
use tempfile::TempDir;

use super::{file::FileWriter, *};
use crate::domain::{
    actor::Actor,
    rbac::{Principal, PrincipalKind},
};

fn change(subject: &str) -> Change {
    Change {
        actor: Actor::system("test"),
        action: action::PAUSE_CREATE,
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

fn try_open(path: &Path) -> io::Result<Audit> {
    Audit::start(origin(), Vec::from_iter(Sink::open(&to(path))?))
}

fn origin() -> Origin {
    Origin { organization: "acme".into(), replica: "gate-1:7".into() }
}

fn open(directory: &TempDir) -> (Audit, PathBuf) {
    let path = directory.path().join("audit.jsonl");
    (try_open(&path).unwrap(), path)
}

/// The events in a file, without the lines that are none.
fn events(path: &Path) -> Vec<Event> {
    let text = fs::read_to_string(path).unwrap();
    text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

fn subjects(events: &[Event]) -> Vec<&str> {
    events.iter().map(|event| event.subject.as_str()).collect()
}

/// A log that is written to `out`.
fn start<W: Write + Send + 'static>(out: W) -> Audit {
    Audit::start(origin(), vec![Sink::write_to(FileWriter::new(out, Write::flush)).unwrap()]).unwrap()
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
    let path = open(&directory).1;
    let events = events(&path);
    assert_eq!(subjects(&events), ["a", "b", "c"]);
    // Two processes may record within one millisecond; then the rest of the ids is random.
    assert!(events.is_sorted_by_key(|event| event.id.split_at(12).0), "{events:?}");
    assert_eq!(fs::read_to_string(path).unwrap().lines().count(), 4);
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
    let events = events(&path);
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
    let audit = start(Stuck(word));
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
    let audit = start(Once(false, file.reopen().unwrap()));
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
    let audit = start(Failing(Arc::clone(&fails)));
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
    let error = try_open(&path).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    fs::write(&path, "not an event\n".repeat(2 << 20)).unwrap();
    let error = try_open(&path).unwrap_err();
    assert!(error.to_string().contains("without an event"), "{error}");
}

#[test]
fn a_file_has_one_writer_until_it_is_closed() {
    let directory = TempDir::new().unwrap();
    let (first, path) = open(&directory);
    first.changed(change("first"));
    let refused = try_open(&path).unwrap_err();
    assert_eq!(refused.kind(), io::ErrorKind::ResourceBusy);
    assert!(refused.to_string().contains("another process writes it"), "{refused}");
    // Moved away, the file is still locked by the first log; the new file in its place is not.
    let moved = directory.path().join("audit.jsonl.1");
    fs::rename(&path, &moved).unwrap();
    let (second, _) = open(&directory);
    assert_eq!(try_open(&moved).unwrap_err().kind(), io::ErrorKind::ResourceBusy);
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
fn a_line_says_what_was_done_by_whom_and_where() {
    let directory = TempDir::new().unwrap();
    let (audit, path) = open(&directory);
    audit.changed(Change { before: json!({ "n": u64::MAX }), ..change("team/a") });
    assert!(audit.flush());
    let line: Value = serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap();
    let (id, time) = (line["id"].as_str().unwrap(), line["time"].as_str().unwrap());
    let at: Timestamp = time.parse().unwrap();
    assert!(id.starts_with(&format!("{:012x}00000000", at.as_millisecond())), "{id} {time}");
    let expected = json!({
        "v": 1, "id": id, "time": time, "actor": { "kind": "system", "name": "test" }, "action": "pause.create",
        "subject": "team/a", "before": { "n": "18446744073709551615" }, "after": { "paused": true },
        "outcome": "done", "replica": "gate-1:7", "organization": "acme",
    });
    assert_eq!(line, expected);
}

#[test]
fn an_event_that_is_too_long_is_recorded_without_its_states() {
    let directory = TempDir::new().unwrap();
    let (audit, path) = open(&directory);
    audit.changed(Change { after: json!("x".repeat(crate::store::MAX_AUDIT_LINE)), ..change("long") });
    assert!(audit.flush());
    let [event] = &events(&path)[..] else { panic!("not one event") };
    assert_eq!((&event.before, &*event.subject), (&Value::Null, "long"));
    assert!(event.after["left_out_bytes"].as_u64().unwrap() > crate::store::MAX_AUDIT_LINE as u64);
}

#[test]
fn a_caller_is_told_by_how_they_were_recognised() {
    for (kind, name) in [
        (PrincipalKind::ServiceToken, "service_token"),
        (PrincipalKind::Certificate, "certificate"),
        (PrincipalKind::Oidc, "oidc"),
    ] {
        let principal = Principal { name: "who".into(), kind, grants: Vec::new() };
        let actor = Actor::caller(Some(&principal), "[::ffff:10.0.0.1]:5".parse().ok());
        let expected = json!({ "kind": name, "name": "who", "address": "10.0.0.1" });
        assert_eq!(serde_json::to_value(&actor).unwrap(), expected);
        assert_eq!(actor.kind.name(), name);
    }
    assert_eq!(Actor::caller(None, None).kind.name(), "anyone");
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
