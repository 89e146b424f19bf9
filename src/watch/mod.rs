//! Files that are read again when they change, while the last good content stays in force.
//!
//! A [`Watch`] notices a change of its files by events of the system and by polling, waits until they are written whole, and
//! gives the new content to its [`FileSource`], which parses it and decides whether it is good.

mod places;
mod writers;

#[cfg(test)]
mod tests;

use std::{
    fmt, io,
    path::PathBuf,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread,
    time::Duration,
};

use notify::{Event, RecommendedWatcher, RecursiveMode, Watcher};

use self::{
    places::Places,
    writers::{TELLS_CLOSE, Writers},
};

/// How long files must stay unchanged after a read before their new content takes effect, if the system reports that the
/// writer has closed them. If it does not: [`Pace::settle`].
const QUIET: Duration = Duration::from_millis(50);

/// What is made of the content of files.
pub(crate) trait FileSource: Send + 'static {
    /// What the files are, for the log: `the policy files`.
    const NAME: &'static str;

    /// The content of all files, or why they cannot be read.
    type Content;

    /// The files, and directories of which every file counts. Asked before each read: they may be others by then.
    fn paths(&self) -> Vec<PathBuf>;

    /// Reads the files.
    fn read(&self) -> Self::Content;

    /// Tells one content from another; content that cannot be read has a digest too, so that it is reported once.
    fn digest(content: &Self::Content) -> blake3::Hash;

    /// Puts new content in force if it is good, and returns whether it is; otherwise what is in force stays. `is_asked`:
    /// the read was requested; otherwise the watch noticed a change.
    fn apply(&mut self, content: Self::Content, is_asked: bool) -> bool;

    /// Called whenever the files were read, at least at each poll, for what depends on the time.
    fn after_read(&mut self) {}
}

/// How long files are taken to be written.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Patience {
    /// For as long as something happens, and this much longer.
    AfterLastTouch(Duration),
    /// No longer than this, so that one busy file does not hold back the others.
    AfterFirstChange(Duration),
}

impl Patience {
    /// How much longer a file is waited for that was first changed and last touched this long ago; `None`: no longer.
    fn left(self, since_change: Duration, since_touch: Duration) -> Option<Duration> {
        let left = match self {
            Self::AfterLastTouch(patience) => patience.saturating_sub(since_touch),
            Self::AfterFirstChange(patience) => patience.saturating_sub(since_change),
        };
        (!left.is_zero()).then_some(left)
    }
}

/// How soon a change takes effect.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    /// How often the files are read without an event. This bounds the delay where the system sends no events (network
    /// disks), or where content changes without the file (a link on the way).
    pub(crate) poll: Duration,
    /// How long files must stay unchanged if the change was found without an event, or on a system that does not report
    /// that a file is closed.
    pub(crate) settle: Duration,
    /// When files that were changed and not closed are assumed to be complete: they may have been changed without being opened, or a
    /// stopped process may hold them open.
    pub(crate) patience: Patience,
}

impl Pace {
    /// For a document of which half can be valid: a policy with a team but not yet its budget.
    pub(crate) const DOCUMENT: Self = Self {
        poll: Duration::from_secs(10),
        settle: Duration::from_secs(1),
        patience: Patience::AfterLastTouch(Duration::from_secs(30)),
    };

    /// For short files (keys, certificates), whose change is in force within a second, with or without events. Reading
    /// them costs microseconds.
    pub(crate) const WITHIN_A_SECOND: Self = Self {
        poll: Duration::from_secs(1).saturating_sub(QUIET),
        settle: QUIET,
        patience: Patience::AfterFirstChange(Duration::from_secs(1)),
    };
}

/// The outcome of an attempt to reload files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reload {
    /// The files are unchanged since the last attempt.
    Unchanged,
    /// A process is writing them; they are loaded automatically once that is done.
    BeingWritten,
    /// Their content is now in force.
    Loaded,
    /// Their content is not good; what was in force stays.
    Rejected,
}

/// The watch over the files of `S`, which ends when this is dropped.
pub(crate) struct Watch<S: FileSource> {
    core: Arc<Core<S>>,
    /// Wakes the thread to read the files, or to end. One pending message is as good as many, so sending never waits for a
    /// full channel.
    wake: mpsc::SyncSender<()>,
    writers: Arc<Writers>,
}

struct Core<S> {
    /// Locked during a whole attempt, so attempts are sequential and what was read last is what was applied last. Nothing
    /// that serves decisions locks it.
    state: Mutex<State<S>>,
    is_stopped: AtomicBool,
}

struct State<S> {
    source: S,
    /// The digest of the content that was applied last.
    seen: blake3::Hash,
}

impl<S: FileSource> Watch<S> {
    /// Watches the files of `source` on a thread named `thread`. `seen` is the digest of the content that `source` has
    /// applied already.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub(crate) fn start(thread: &str, source: S, seen: blake3::Hash, pace: Pace) -> io::Result<Self> {
        let (watch, woken) = Self::new(source, seen, pace);
        let patrol = Patrol {
            core: Arc::downgrade(&watch.core),
            woken,
            writers: Arc::clone(&watch.writers),
            events: Events::new(watch.wake.clone(), Arc::clone(&watch.writers), pace),
            pace,
        };
        thread::Builder::new().name(thread.to_owned()).spawn(move || patrol.run())?;
        Ok(watch)
    }

    fn new(source: S, seen: blake3::Hash, pace: Pace) -> (Self, mpsc::Receiver<()>) {
        let (wake, woken) = mpsc::sync_channel(1);
        let state = Mutex::new(State { source, seen });
        let core = Arc::new(Core { state, is_stopped: AtomicBool::new(false) });
        (Self { core, wake, writers: Arc::new(Writers::new(S::NAME, pace.patience)) }, woken)
    }

    /// A watch without a thread: files are only read when it is asked.
    #[cfg(test)]
    pub(crate) fn idle(source: S, seen: blake3::Hash) -> Self {
        Self::new(source, seen, Pace::DOCUMENT).0
    }

    /// Reads the files now, unless they are being written, and applies what is new. Blocks for as long as the disk takes.
    pub(crate) fn reload(&self) -> Reload {
        if self.writers.wait().is_some() {
            return Reload::BeingWritten;
        }
        self.core.state().apply(None, true)
    }
}

impl<S: FileSource> Drop for Watch<S> {
    fn drop(&mut self) {
        self.core.is_stopped.store(true, Ordering::Release);
        let _ = self.wake.try_send(());
    }
}

impl<S: FileSource> fmt::Debug for Watch<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Watch({})", S::NAME)
    }
}

impl<S> Core<S> {
    fn state(&self) -> MutexGuard<'_, State<S>> {
        // A panic while it is locked leaves only a digest behind.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<S: FileSource> State<S> {
    /// The digest of the files, if they are not as they were applied last.
    fn unseen(&mut self) -> Option<blake3::Hash> {
        let digest = S::digest(&self.source.read());
        self.source.after_read();
        (digest != self.seen).then_some(digest)
    }

    /// Applies the files if they are new and, with `expected`, still have that digest.
    fn apply(&mut self, expected: Option<blake3::Hash>, is_asked: bool) -> Reload {
        let content = self.source.read();
        let digest = S::digest(&content);
        if digest == self.seen || expected.is_some_and(|expected| expected != digest) {
            return Reload::Unchanged;
        }
        self.seen = digest;
        let is_good = self.source.apply(content, is_asked);
        self.source.after_read();
        if is_good { Reload::Loaded } else { Reload::Rejected }
    }
}

/// What the thread does. It holds the source weakly: once the watch is dropped, the next message or poll ends the thread.
///
/// A file that is written in place contains half its content for a while. So new content is applied only when its writer has
/// closed the file and nothing has happened since it was read.
struct Patrol<S> {
    core: Weak<Core<S>>,
    woken: mpsc::Receiver<()>,
    writers: Arc<Writers>,
    events: Events,
    pace: Pace,
}

impl<S: FileSource> Patrol<S> {
    fn run(mut self) {
        let mut has_event = false;
        while let Some(core) = self.core() {
            // Watch, then read: an event reports changes after the read, and the read covers changes before it.
            let places = Places::of(&core.state().source.paths());
            self.events.watch::<S>(&places.directories);
            self.writers.look_at(places);
            let writing = self.writers.wait();
            let new = if writing.is_some() { None } else { core.state().unseen() };
            drop(core);
            let quiet = if has_event && TELLS_CLOSE { QUIET } else { self.pace.settle };
            let next = writing.map_or(self.pace.poll, |left| left.min(self.pace.poll));
            has_event = self.woken.recv_timeout(if new.is_some() { quiet } else { next }).is_ok();
            let Some(core) = self.core() else { return };
            if !has_event && new.is_some() && self.writers.wait().is_none() {
                core.state().apply(new, false);
            }
        }
    }

    /// `None`: the watch was dropped.
    fn core(&self) -> Option<Arc<Core<S>>> {
        self.core.upgrade().filter(|core| !core.is_stopped.load(Ordering::Acquire))
    }
}

/// The events of the system. Asked for once there is a directory to watch: keys in variables need none.
struct Events {
    wake: mpsc::SyncSender<()>,
    writers: Arc<Writers>,
    pace: Pace,
    /// `Some(None)`: the system gives none.
    watcher: Option<Option<RecommendedWatcher>>,
    directories: Vec<PathBuf>,
}

impl Events {
    fn new(wake: mpsc::SyncSender<()>, writers: Arc<Writers>, pace: Pace) -> Self {
        Self { wake, writers, pace, watcher: None, directories: Vec::new() }
    }

    /// Watches exactly these directories. Those already watched are watched again, since they may have been replaced.
    fn watch<S: FileSource>(&mut self, directories: &[PathBuf]) {
        if directories.is_empty() && self.directories.is_empty() {
            return;
        }
        let (wake, writers) = (&self.wake, &self.writers);
        let interval_seconds = self.pace.poll.as_secs_f64();
        let watcher = self.watcher.get_or_insert_with(|| {
            let (wake, writers) = (wake.clone(), Arc::clone(writers));
            let see = move |event: notify::Result<Event>| {
                if writers.see(event.as_ref()) {
                    let _ = wake.try_send(());
                }
            };
            let watcher = notify::recommended_watcher(see);
            let unwatched = |error: notify::Error| {
                tracing::warn!(files = S::NAME, interval_seconds, %error, "files cannot be watched; reading them regularly");
            };
            watcher.map_err(unwatched).ok()
        });
        let Some(watcher) = watcher else { return };
        for gone in self.directories.iter().filter(|directory| !directories.contains(directory)) {
            let _ = watcher.unwatch(gone);
        }
        for directory in directories {
            if let Err(error) = watcher.watch(directory, RecursiveMode::NonRecursive) {
                tracing::debug!(
                    files = S::NAME,
                    directory = %directory.display(),
                    interval_seconds,
                    %error,
                    "a directory cannot be watched; reading its files regularly"
                );
            }
        }
        self.directories = directories.to_vec();
    }
}
