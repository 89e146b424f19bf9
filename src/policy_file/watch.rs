//! Watches one file and triggers a new read once it has changed and the writer is done.

use std::{
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak, mpsc},
    time::{Duration, Instant},
};

use notify::{
    Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher,
    event::{AccessKind, AccessMode, ModifyKind},
};

/// How long the file must stay unchanged after a read before its new content takes effect, if the system reports that the
/// writer has closed the file …
const QUIET: Duration = Duration::from_millis(50);
/// … and if it does not: for a change found without an event, or on a system that has no such event.
const QUIET_UNTOLD: Duration = Duration::from_secs(1);
/// Whether the system reports when a written file is closed.
const TELLS_CLOSE: bool = cfg!(any(target_os = "linux", target_os = "android"));
/// A file that was changed, and neither closed nor touched for this long, is assumed to be complete: it may have been
/// changed without being opened, or a stopped process may hold it open.
const ABANDONED: Duration = Duration::from_secs(30);
/// Symbolic links from the file's name to the file; Linux itself does not follow more.
const MAX_LINKS: usize = 40;

/// The consumer of the file's content.
pub(super) trait Watched {
    /// The hash of the file's content, if it differs from the content loaded last.
    fn unseen(&self) -> Option<blake3::Hash>;

    /// Loads the content of the file.
    fn take_up(&self);

    /// Whether nothing should be loaded any more.
    fn is_stopped(&self) -> bool;
}

/// The thread that watches the file. It holds the source weakly: once that is dropped, the next message or poll ends the
/// thread.
///
/// A file that is written in place contains half a policy for a while, and half a policy can be valid: a team without its
/// budget. So new content is loaded only when its writer has closed the file and nothing has happened since it was read.
pub(super) struct Watching<W> {
    path: PathBuf,
    watched: Weak<W>,
    woken: mpsc::Receiver<()>,
    wake: mpsc::SyncSender<()>,
    writer: Arc<Writer>,
    poll: Duration,
}

impl<W: Watched> Watching<W> {
    /// Watches `path` for `watched`, and checks it whenever `woken` receives a message, or every `poll` without one. `wake`
    /// is the other end of `woken`.
    pub(super) fn new(
        path: PathBuf,
        watched: Weak<W>,
        woken: mpsc::Receiver<()>,
        wake: mpsc::SyncSender<()>,
        poll: Duration,
    ) -> Self {
        Self { path, watched, woken, wake, writer: Arc::default(), poll }
    }

    /// Reports whether the file is being written.
    pub(super) fn writer(&self) -> Arc<Writer> {
        Arc::clone(&self.writer)
    }

    /// Watches until `watched` is stopped or dropped.
    pub(super) fn run(self) {
        let wake = self.wake.clone();
        let writer = Arc::clone(&self.writer);
        let told_writer = Arc::clone(&writer);
        let told = move |event: notify::Result<Event>| {
            if told_writer.see(event.as_ref()) {
                let _ = wake.try_send(());
            }
        };
        let mut watcher = notify::recommended_watcher(told)
            .map_err(
                |error| tracing::warn!(%error, "the policy is not watched; it is read every few seconds"),
            )
            .ok();
        let mut directories = Vec::new();
        let mut is_told = false;
        loop {
            // Watch, then read: an event reports changes after the read, and the read covers changes before it.
            let trail = Trail::of(&self.path);
            if let Some(watcher) = &mut watcher {
                watch_directories(watcher, &mut directories, trail.directories);
            }
            writer.goes_by(trail.names);
            let Some(watched) = self.watched.upgrade() else { return };
            if watched.is_stopped() {
                return;
            }
            let new = if writer.is_writing() { None } else { watched.unseen() };
            drop(watched);
            let quiet = if is_told && TELLS_CLOSE { QUIET } else { QUIET_UNTOLD };
            let wait = if new.is_some() { quiet } else { self.poll };
            is_told = self.woken.recv_timeout(wait).is_ok();
            let Some(watched) = self.watched.upgrade() else { return };
            if !is_told && new.is_some_and(|new| !writer.is_writing() && watched.unseen() == Some(new)) {
                watched.take_up();
            }
        }
    }
}

/// Whether the file is open for writing, as far as the system has reported.
///
/// The watcher's thread reports; the reading thread asks. The quiet period required of new content covers late events. The
/// system does not say who opened or closed the file, so this counts: a second process that opens and closes the file while
/// the first one is still writing does not make half a policy complete.
#[derive(Debug, Default)]
pub(super) struct Writer(Mutex<Writing>);

#[derive(Debug, Default)]
struct Writing {
    /// The relevant names, from [`Trail::names`]. Empty: all.
    names: Vec<OsString>,
    /// How many times the file is open, counted from its first change.
    open: u32,
    /// Whether opening it changed it: the event of that change comes before the event of the opening.
    truncated: bool,
    /// When it was last changed, opened or closed.
    touched: Option<Instant>,
}

impl Writer {
    fn lock(&self) -> MutexGuard<'_, Writing> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn goes_by(&self, names: Vec<OsString>) {
        self.lock().names = names;
    }

    /// Records an event; returns whether it may mean new content. Other files in the directory, such as a log, do not
    /// count: they may be written all the time.
    fn see(&self, event: Result<&Event, &notify::Error>) -> bool {
        let mut writing = self.lock();
        let Some(event) = event.ok().filter(|event| !event.need_rescan()) else {
            // Events were lost, perhaps including the closing of the file.
            writing.open = 0;
            return true;
        };
        let Writing { names, .. } = &*writing;
        let matters = |path: &PathBuf| {
            names.is_empty() || path.file_name().is_none_or(|name| names.iter().any(|known| *known == *name))
        };
        event.paths.iter().any(matters) && writing.take_note(event.kind)
    }

    /// Whether a process that changed the file still has it open. After [`ABANDONED`], the writer is assumed to be done.
    pub(super) fn is_writing(&self) -> bool {
        let mut writing = self.lock();
        let is_recent = writing.touched.is_some_and(|at| at.elapsed() < ABANDONED);
        if writing.open > 0 && !is_recent {
            writing.open = 0;
            tracing::warn!(
                seconds = ABANDONED.as_secs(),
                "the policy was changed and not closed by its writer since; it is read as it stands: write to another file and rename it into place"
            );
        }
        writing.open > 0
    }
}

impl Writing {
    fn take_note(&mut self, kind: EventKind) -> bool {
        match kind {
            EventKind::Modify(ModifyKind::Data(_) | ModifyKind::Any) if TELLS_CLOSE => {
                self.truncated = self.open == 0;
                self.open = self.open.max(1);
            }
            EventKind::Access(AccessKind::Open(_)) if self.open > 0 => {
                self.open += u32::from(!std::mem::take(&mut self.truncated));
            }
            EventKind::Access(AccessKind::Close(AccessMode::Write)) => {
                self.open = self.open.saturating_sub(1);
            }
            // Reading the file is an event too, and must not trigger another read.
            EventKind::Access(_) => return false,
            // Another file has taken its place.
            EventKind::Modify(ModifyKind::Name(_)) | EventKind::Remove(_) => self.open = 0,
            _ => {}
        }
        self.touched = Some(Instant::now());
        true
    }
}

/// All places where a change can give the path different content: the file, each symbolic link on the way to it, and each
/// directory on the way that is itself a link (Kubernetes swaps such a link, `..data`).
#[derive(Default)]
struct Trail {
    /// The directories that contain one of these. The file itself is never watched: editors and deployments replace it, and
    /// the watch would stay with the old one.
    directories: Vec<PathBuf>,
    /// The names of all of these.
    names: Vec<OsString>,
}

impl Trail {
    fn of(path: &Path) -> Self {
        let mut trail = Self::default();
        let mut at = path.to_owned();
        for _ in 0..MAX_LINKS {
            for link in at.ancestors().skip(1).filter(|ancestor| ancestor.is_symlink()) {
                trail.add(link);
            }
            trail.add(&at);
            let Some(directory) = at.parent().map(Path::to_owned) else { break };
            let Ok(target) = fs::read_link(&at) else { break };
            at = directory.join(target);
        }
        trail.names.extend(
            trail.directories.iter().filter_map(|directory| directory.file_name()).map(OsString::from),
        );
        trail.directories.sort();
        trail.directories.dedup();
        trail
    }

    fn add(&mut self, at: &Path) {
        self.directories.extend(at.parent().map(Path::to_owned));
        self.names.extend(at.file_name().map(OsString::from));
    }
}

/// Watches exactly these directories. Those already watched are watched again, since they may have been replaced.
fn watch_directories(
    watcher: &mut RecommendedWatcher,
    watched: &mut Vec<PathBuf>,
    directories: Vec<PathBuf>,
) {
    for gone in watched.iter().filter(|directory| !directories.contains(directory)) {
        let _ = watcher.unwatch(gone);
    }
    for directory in &directories {
        if let Err(error) = watcher.watch(directory, RecursiveMode::NonRecursive) {
            tracing::debug!(%error, directory = %directory.display(), "not watched; the policy is read every few seconds");
        }
    }
    *watched = directories;
}

#[cfg(test)]
mod tests {
    use std::{
        io::Write as _,
        sync::atomic::{AtomicUsize, Ordering},
        thread,
        time::{Duration, Instant},
    };

    use super::*;

    /// Loads whatever the file contains, and counts how often it was checked.
    struct Reader {
        path: PathBuf,
        taken: Mutex<Vec<String>>,
        looks: AtomicUsize,
    }

    impl Reader {
        fn text(&self) -> String {
            fs::read_to_string(&self.path).unwrap_or_default()
        }

        /// Returns when `done`; fails after a time that is long enough for any machine.
        fn wait(&self, done: impl Fn(&Self) -> bool) {
            let begun = Instant::now();
            while !done(self) {
                assert!(begun.elapsed() < Duration::from_secs(60), "{:?}", self.taken.lock());
                thread::yield_now();
            }
        }

        fn is_looked_at(&self, times: usize) {
            let before = self.looks.load(Ordering::Acquire);
            self.wait(|reader| reader.looks.load(Ordering::Acquire) >= before + times);
        }
    }

    impl Watched for Reader {
        fn unseen(&self) -> Option<blake3::Hash> {
            let text = self.text();
            let taken = self.taken.lock().unwrap();
            (taken.last() != Some(&text)).then(|| blake3::hash(text.as_bytes()))
        }

        fn take_up(&self) {
            let text = self.text();
            self.taken.lock().unwrap().push(text);
        }

        fn is_stopped(&self) -> bool {
            self.looks.fetch_add(1, Ordering::AcqRel);
            false
        }
    }

    /// Watches a file that contains `first`.
    fn watched(path: &Path, first: &str) -> Arc<Reader> {
        fs::write(path, first).unwrap();
        let reader = Arc::new(Reader {
            path: path.to_owned(),
            taken: Mutex::new(vec![first.to_owned()]),
            looks: AtomicUsize::new(0),
        });
        let (wake, woken) = mpsc::sync_channel(1);
        let watching =
            Watching::new(path.to_owned(), Arc::downgrade(&reader), woken, wake, Duration::from_millis(5));
        thread::spawn(move || watching.run());
        reader.is_looked_at(1);
        reader
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
        reader.wait(|reader| reader.taken.lock().unwrap().len() > 1);
        assert_eq!(*reader.taken.lock().unwrap(), ["old", "a = 1\nb = 2\nc = 3\n"]);
        // A file that was written elsewhere and renamed into place is complete from the start.
        let new = directory.path().join("new");
        fs::write(&new, "renamed").unwrap();
        fs::rename(&new, &path).unwrap();
        reader.wait(|reader| reader.taken.lock().unwrap().len() > 2);
        assert_eq!(reader.taken.lock().unwrap().last().map(String::as_str), Some("renamed"));
    }

    #[test]
    fn only_events_of_the_files_own_names_count() {
        let writer = Writer::default();
        writer.goes_by(vec!["policy.toml".into(), "..data".into()]);
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
            assert_eq!(writer.is_writing(), is_writing, "{kind:?} {name}");
        }
        assert!(writer.see(Ok(&event(written, "policy.toml"))));
        assert!(writer.see(Ok(&Event::default().set_flag(notify::event::Flag::Rescan))));
        assert!(!writer.is_writing(), "the word of its closing may be lost");
    }

    #[test]
    fn a_second_process_does_not_end_the_writing_of_the_first() {
        let written = EventKind::Modify(ModifyKind::Data(notify::event::DataChange::Any));
        let opened = EventKind::Access(AccessKind::Open(AccessMode::Any));
        let closed = EventKind::Access(AccessKind::Close(AccessMode::Write));
        let ended = |kinds: &[EventKind]| {
            let writer = Writer::default();
            let event = |kind: &EventKind| Event::new(*kind).add_path("/etc/tollgate/policy.toml".into());
            for kind in kinds {
                writer.see(Ok(&event(kind)));
            }
            !writer.is_writing()
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
}
