//! A file system, its events, and writers that are slow.

use std::{fs, io::Write as _, path::Path, sync::atomic::AtomicUsize, time::Instant};

use notify::{
    EventKind,
    event::{AccessKind, AccessMode, ModifyKind},
};

use super::*;

/// So long that only events can bring a change.
const NEVER: Duration = Duration::from_secs(3_600);

/// Loads whatever the files contain, and counts how often they were looked at.
struct Reader {
    paths: Vec<PathBuf>,
    seen: Arc<Seen>,
}

#[derive(Default)]
struct Seen {
    taken: Mutex<Vec<String>>,
    looks: AtomicUsize,
}

impl FileSource for Reader {
    const NAME: &'static str = "the text";

    type Content = String;

    fn paths(&self) -> Vec<PathBuf> {
        self.seen.looks.fetch_add(1, Ordering::AcqRel);
        self.paths.clone()
    }

    fn read(&self) -> String {
        let mut files = self.paths.clone();
        for directory in self.paths.iter().filter(|path| path.is_dir()) {
            files.extend(fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()));
        }
        files.sort();
        files.iter().map(|file| fs::read_to_string(file).unwrap_or_default()).collect()
    }

    fn digest(content: &String) -> blake3::Hash {
        blake3::hash(content.as_bytes())
    }

    fn apply(&mut self, content: String, _: bool) -> bool {
        self.seen.taken.lock().unwrap().push(content);
        true
    }
}

/// A watch over files.
struct Watched {
    seen: Arc<Seen>,
    watch: Watch<Reader>,
}

impl Watched {
    /// The content of these files is as it was applied first.
    fn start(paths: &[&Path], pace: Pace) -> Self {
        let seen = Arc::new(Seen::default());
        let reader =
            Reader { paths: paths.iter().map(|path| path.to_path_buf()).collect(), seen: Arc::clone(&seen) };
        let first = reader.read();
        let digest = Reader::digest(&first);
        seen.taken.lock().unwrap().push(first);
        let watched = Self { seen, watch: Watch::start("test", reader, digest, pace).unwrap() };
        // One round has watched the directories when the next one begins.
        let _ = watched.watch.wake.try_send(());
        watched.wait(|watched| watched.seen.looks.load(Ordering::Acquire) >= 2);
        watched
    }

    /// Returns when `done`; fails after a time that is long enough for any machine.
    fn wait(&self, done: impl Fn(&Self) -> bool) {
        let begun = Instant::now();
        while !done(self) {
            assert!(begun.elapsed() < Duration::from_secs(60), "{:?}", self.taken());
            thread::yield_now();
        }
    }

    fn is_looked_at(&self, times: usize) {
        let before = self.seen.looks.load(Ordering::Acquire);
        self.wait(|watched| watched.seen.looks.load(Ordering::Acquire) >= before + times);
    }

    fn taken(&self) -> Vec<String> {
        self.seen.taken.lock().unwrap().clone()
    }
}

/// A watch over the file `path` that contains `first`.
fn watched(path: &Path, first: &str) -> Watched {
    fs::write(path, first).unwrap();
    Watched::start(&[path], Pace { poll: Duration::from_millis(5), ..Pace::DOCUMENT })
}

#[test]
fn a_file_that_is_written_slowly_is_taken_up_whole() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("policy.toml");
    let reader = watched(&path, "old");
    let mut writer = fs::File::create(&path).unwrap();
    for part in ["a = 1\n", "b = 2\n", "c = 3\n"] {
        writer.write_all(part.as_bytes()).unwrap();
        writer.sync_all().unwrap();
        reader.is_looked_at(5);
    }
    drop(writer);
    reader.wait(|reader| reader.taken().len() > 1);
    assert_eq!(reader.taken(), ["old", "a = 1\nb = 2\nc = 3\n"]);
    // A file that was written elsewhere and renamed into place is complete from the start.
    let new = directory.path().join("new");
    fs::write(&new, "renamed").unwrap();
    fs::rename(&new, &path).unwrap();
    reader.wait(|reader| reader.taken().len() > 2);
    assert_eq!(reader.taken().last().map(String::as_str), Some("renamed"));
}

#[test]
fn only_events_of_the_files_own_names_count() {
    let writer = Writers::new("the text", Pace::DOCUMENT.patience);
    writer.look_at(Places::of(&[
        PathBuf::from("/etc/tollgate/policy.toml"),
        PathBuf::from("/etc/tollgate/..data"),
    ]));
    let event = |kind, name: &str| Event::new(kind).add_path(Path::new("/etc/tollgate").join(name));
    let written = EventKind::Modify(ModifyKind::Data(notify::event::DataChange::Any));
    let closed = EventKind::Access(AccessKind::Close(AccessMode::Write));
    let renamed = EventKind::Modify(ModifyKind::Name(notify::event::RenameMode::To));
    for (kind, name, is_seen, is_writing) in [
        (written, "audit.jsonl", false, false),
        (written, "policy.toml", true, TELLS_CLOSE),
        (closed, "audit.jsonl", false, TELLS_CLOSE),
        (closed, "policy.toml", true, false),
        (written, "policy.toml", true, TELLS_CLOSE),
        (renamed, "policy.toml", true, false),
        (renamed, "..data", true, false),
        (EventKind::Access(AccessKind::Close(AccessMode::Read)), "policy.toml", false, false),
    ] {
        assert_eq!(writer.see(Ok(&event(kind, name))), is_seen, "{kind:?} {name}");
        assert_eq!(writer.wait().is_some(), is_writing, "{kind:?} {name}");
    }
    assert!(writer.see(Ok(&event(written, "policy.toml"))));
    assert!(writer.see(Ok(&Event::default().set_flag(notify::event::Flag::Rescan))));
    assert!(writer.wait().is_none(), "the word of its closing may be lost");
}

#[test]
fn a_second_process_does_not_end_the_writing_of_the_first() {
    let written = EventKind::Modify(ModifyKind::Data(notify::event::DataChange::Any));
    let opened = EventKind::Access(AccessKind::Open(AccessMode::Any));
    let closed = EventKind::Access(AccessKind::Close(AccessMode::Write));
    let ended = |kinds: &[EventKind]| {
        let writer = Writers::new("the text", Pace::DOCUMENT.patience);
        let event = |kind: &EventKind| Event::new(*kind).add_path("/etc/tollgate/policy.toml".into());
        for kind in kinds {
            writer.see(Ok(&event(kind)));
        }
        writer.wait().is_none()
    };
    for (kinds, expected) in [
        // Opened for appending; then opened and emptied, which reports the change first.
        (vec![opened, written, closed], true),
        (vec![written, opened, written, closed], true),
        // The first process is still writing when a second one has opened and closed the file, with and without
        // changing it.
        (vec![written, opened, written, opened, closed], !TELLS_CLOSE),
        (vec![written, opened, written, opened, written, closed], !TELLS_CLOSE),
        (vec![written, opened, written, opened, closed, written, closed], true),
    ] {
        assert_eq!(ended(&kinds), expected, "{kinds:?}");
    }
}

#[test]
fn a_writer_of_one_file_holds_back_all_and_is_not_ended_by_another() {
    let written = EventKind::Modify(ModifyKind::Data(notify::event::DataChange::Any));
    let opened = EventKind::Access(AccessKind::Open(AccessMode::Any));
    let closed = EventKind::Access(AccessKind::Close(AccessMode::Write));
    let renamed = EventKind::Modify(ModifyKind::Name(notify::event::RenameMode::To));
    let writers = Writers::new("the text", Pace::DOCUMENT.patience);
    let event = |kind, name: &str| Event::new(kind).add_path(Path::new("/etc/tollgate").join(name));
    for (kind, name, is_writing) in [
        (written, "cert.pem", TELLS_CLOSE),
        // Another file is read, written and replaced in between.
        (opened, "key.pem", TELLS_CLOSE),
        (written, "key.pem", TELLS_CLOSE),
        (closed, "key.pem", TELLS_CLOSE),
        (written, "key.pem", TELLS_CLOSE),
        (renamed, "key.pem", TELLS_CLOSE),
        // It is not open any more, and is replaced once again.
        (renamed, "key.pem", TELLS_CLOSE),
        (closed, "cert.pem", false),
    ] {
        writers.see(Ok(&event(kind, name)));
        assert_eq!(writers.wait().is_some(), is_writing, "{kind:?} {name}");
    }
}

#[test]
fn one_busy_file_holds_back_the_others_for_as_long_as_it_may() {
    let seconds = Duration::from_secs;
    let (first, last) = (Patience::AfterFirstChange(seconds(3)), Patience::AfterLastTouch(seconds(3)));
    for (patience, since_change, since_touch, left) in [
        (first, 1, 0, Some(2)),
        (first, 3, 0, None),
        (first, 9, 0, None),
        (last, 9, 0, Some(3)),
        (last, 9, 2, Some(1)),
        (last, 9, 3, None),
    ] {
        let found = patience.left(seconds(since_change), seconds(since_touch));
        assert_eq!(found, left.map(seconds), "{patience:?} {since_change} {since_touch}");
    }
}

#[test]
fn every_file_of_a_directory_counts_but_for_what_is_written_into_hidden_ones() {
    let directory = tempfile::tempdir().unwrap();
    let keys = directory.path().join("keys");
    fs::create_dir(&keys).unwrap();
    let writers = Writers::new("the text", Pace::DOCUMENT.patience);
    writers.look_at(Places::of(std::slice::from_ref(&keys)));
    let event = |kind, path: &Path| Event::new(kind).add_path(path.to_owned());
    let written = EventKind::Modify(ModifyKind::Data(notify::event::DataChange::Any));
    let renamed = EventKind::Modify(ModifyKind::Name(notify::event::RenameMode::To));
    for (kind, path, is_seen) in [
        (written, keys.join("any"), true),
        (written, keys.join(".any.swp"), false),
        (renamed, keys.join("..data"), true),
        (renamed, keys.clone(), true),
        (written, directory.path().join("other"), false),
        (renamed, directory.path().join("other"), false),
    ] {
        assert_eq!(writers.see(Ok(&event(kind, &path))), is_seen, "{kind:?} {path:?}");
    }
}

#[test]
fn events_report_files_of_a_directory_and_files_that_come_later() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    fs::create_dir(at("keys")).unwrap();
    let reader = Watched::start(&[&at("keys"), &at("later")], Pace { poll: NEVER, ..Pace::WITHIN_A_SECOND });
    for (file, text) in [("keys/a", "a"), ("keys/b", "ab"), ("later", "abc")] {
        fs::write(at(file), &text[text.len() - 1..]).unwrap();
        reader.wait(|reader| reader.taken().last().is_some_and(|last| last == text));
    }
    fs::remove_file(at("keys/a")).unwrap();
    reader.wait(|reader| reader.taken().last().is_some_and(|last| last == "bc"));
}

#[test]
fn a_file_that_its_writer_does_not_close_is_read_as_it_stands() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("key");
    fs::write(&path, "old").unwrap();
    let pace = Pace {
        poll: NEVER,
        patience: Patience::AfterFirstChange(Duration::from_millis(100)),
        ..Pace::WITHIN_A_SECOND
    };
    let reader = Watched::start(&[&path], pace);
    let mut writer = fs::File::create(&path).unwrap();
    writer.write_all(b"new").unwrap();
    reader.wait(|reader| reader.taken().last().is_some_and(|last| last == "new"));
    drop(writer);
}
