//! The audit log: what was changed and who was refused, one JSON object per line, append-only.
//!
//! Recording an event does not wait for the disk: a separate thread writes the events in order and makes them durable. A change
//! is never dropped. Refusals, which any caller can cause at will, are bounded, and an event of its own counts those left out.

mod event;
mod page;
mod refusal_limiter;
mod sinks;
mod writer;

use std::{
    fs::{self, File, OpenOptions, Permissions, TryLockError},
    io,
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
        mpsc::{self, Receiver, Sender},
    },
    thread,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use tracing::warn;

pub use event::{Change, Event, action};
pub use page::{MAX_PAGE, Page, PageError, Place, Query};

use refusal_limiter::RefusalLimiter;
use sinks::Sinks;
use writer::Writer;

use crate::domain::rbac::Principal;

/// The most refusals that wait for a slow or failing disk.
const DENIALS_WAITING: usize = 1_000;
/// How long a process waits for the disk when it ends.
const FAREWELL: Duration = Duration::from_secs(5);

/// Where the log goes; the default is nowhere.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Targets {
    /// The file that it is written to and read back from.
    pub file: Option<PathBuf>,
    /// Whether it goes to the standard output, where something else collects it.
    pub stdout: bool,
}

/// The log. Cheap to clone; the default records nothing.
#[derive(Clone, Debug, Default)]
pub struct Audit(Option<Arc<Open>>);

#[derive(Debug)]
struct Open {
    /// Unbounded, as changes are never dropped: they are as rare as the people allowed to make them. `denied` bounds the rest.
    events: Sender<Message>,
    /// `None`: the log cannot be read back.
    path: Option<PathBuf>,
    /// Held for a look, never during a write.
    room: Mutex<RefusalLimiter>,
    flood: Arc<Flood>,
    /// After `events`, as fields are dropped in declaration order: the thread ends once no sender is left.
    _closing: Closing,
}

/// Dropping it waits for the writer to write the rest and to close the file, which may then be opened again. The channel carries
/// nothing: the writer drops its end. The lock is never taken; it makes the holder shareable between threads.
#[derive(Debug)]
struct Closing(Mutex<Receiver<()>>);

impl Drop for Closing {
    fn drop(&mut self) {
        let closed = self.0.get_mut().unwrap_or_else(PoisonError::into_inner);
        // A disk that accepts nothing must not keep the process from ending.
        let _ = closed.recv_timeout(FAREWELL);
    }
}

/// What the writer has to know about refusals. Independent counters; they order nothing else.
#[derive(Debug, Default)]
struct Flood {
    /// Refusals that wait to be written.
    waiting: AtomicUsize,
    /// Refusals left out and not yet reported.
    left_out: AtomicU64,
}

enum Message {
    Event {
        at: Timestamp,
        change: Change,
        is_denial: bool,
    },
    /// The first refusal was left out since the writer last reported any.
    LeftOut,
    /// Answered once everything before it was written: whether it is durable.
    Flush(Sender<bool>),
}

impl Audit {
    /// Opens the log and starts the thread that writes it. Without a target nothing is recorded.
    ///
    /// # Errors
    /// The file cannot be opened, another process writes it ([`io::ErrorKind::ResourceBusy`]), or the system cannot start a
    /// thread.
    pub fn open(targets: &Targets) -> io::Result<Self> {
        if *targets == Targets::default() {
            return Ok(Self::default());
        }
        let (file, last_ms) = match &targets.file {
            Some(path) => open_file(path).map(|(file, last_ms)| (Some(file), last_ms))?,
            None => (None, 0),
        };
        let sinks = Sinks::new(file, targets.stdout.then(io::stdout));
        Self::start(targets.file.clone(), Writer::new(sinks, Sinks::sync, last_ms))
    }

    fn start<W: io::Write + Send + 'static>(
        path: Option<PathBuf>,
        mut writer: Writer<W>,
    ) -> io::Result<Self> {
        let (events, waiting): (_, Receiver<Message>) = mpsc::channel();
        let flood = Arc::<Flood>::default();
        let counts = Arc::clone(&flood);
        let (closing, closed) = mpsc::channel();
        thread::Builder::new().name("audit".to_owned()).spawn(move || {
            writer.run(&waiting, &counts);
            drop(writer);
            drop(closing);
        })?;
        let room = Mutex::new(RefusalLimiter::new(Instant::now()));
        let _closing = Closing(Mutex::new(closed));
        Ok(Self(Some(Arc::new(Open { events, path, room, flood, _closing }))))
    }

    /// Whether nothing is recorded.
    #[must_use]
    pub const fn is_off(&self) -> bool {
        self.0.is_none()
    }

    /// Records a change. It is never dropped.
    pub fn changed(&self, change: Change) {
        if let Some(open) = &self.0 {
            open.send(Message::Event { at: Timestamp::now(), change, is_denial: false });
        }
    }

    /// Records that `who` was refused, unless there are too many refusals. `denial` is called only if it is written.
    pub fn denied(&self, who: &Principal, denial: impl FnOnce() -> Change) {
        let Some(open) = &self.0 else { return };
        if open.has_room(who) {
            open.flood.waiting.fetch_add(1, Ordering::Relaxed);
            open.send(Message::Event { at: Timestamp::now(), change: denial(), is_denial: true });
        } else if open.flood.left_out.fetch_add(1, Ordering::Relaxed) == 0 {
            open.send(Message::LeftOut);
        }
    }

    /// Waits a moment until everything recorded before is durable. Returns whether it is.
    pub fn flush(&self) -> bool {
        let Some(open) = &self.0 else { return true };
        let (done, durable) = mpsc::channel();
        open.send(Message::Flush(done));
        durable.recv_timeout(FAREWELL).unwrap_or(false)
    }

    /// A page of events, newest first. Reads the file, so it must not run on a thread that serves.
    ///
    /// # Errors
    /// There is no file, or it cannot be read, or the page is not in it.
    pub fn page(&self, query: &Query) -> Result<Page, PageError> {
        let path = self.0.as_ref().and_then(|open| open.path.as_ref()).ok_or(PageError::NoFile)?;
        page::read(&File::open(path)?, query)
    }
}

impl Open {
    fn send(&self, message: Message) {
        // The thread ends after the last sender, so it still runs.
        let _ = self.events.send(message);
    }

    fn has_room(&self, who: &Principal) -> bool {
        // A panic while holding the lock leaves nothing worse than a count behind.
        let mut room = self.room.lock().unwrap_or_else(PoisonError::into_inner);
        self.flood.waiting.load(Ordering::Relaxed) < DENIALS_WAITING && room.take(who, Instant::now())
    }
}

/// Takes all access to the log from other users, as it names callers. Group access stays, as it may be meant for collecting the
/// log.
fn close_to_others(file: &File, path: &Path) {
    // A device does not belong to the log.
    let Some(metadata) = file.metadata().ok().filter(fs::Metadata::is_file) else { return };
    let mode = metadata.permissions().mode();
    if mode & 0o007 == 0 {
        return;
    }
    let closed = file.set_permissions(Permissions::from_mode(mode & 0o770));
    warn!(path = %path.display(), closed = closed.is_ok(), "the audit log was open to all users of this machine");
}

/// The file, locked and at the end of a line, and the time in the id of its last event.
fn open_file(path: &Path) -> io::Result<(File, u64)> {
    let mut file = OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(path)?;
    close_to_others(&file, path);
    // Two writers would mix their lines, and the ids would not grow. The lock is on the file and not on its name, so it does not
    // stop anyone from moving the file away to begin another.
    file.try_lock().map_err(|error| match error {
        TryLockError::WouldBlock => io::Error::new(
            io::ErrorKind::ResourceBusy,
            "another process writes it, and each replica needs a file of its own",
        ),
        TryLockError::Error(error) => error,
    })?;
    let newest = match page::read(&file, &Query { page_size: 1, ..Query::default() }) {
        Ok(page) => page.events.first().and_then(Event::id_ms),
        // Better that the operator names another file than that this one is written to, if it is not an audit log.
        Err(PageError::Unreadable(error)) => return Err(error),
        Err(PageError::NoFile | PageError::NoSuchPage) => None,
    };
    page::end_line(&mut file)?;
    Ok((file, newest.unwrap_or(0)))
}

#[cfg(test)]
mod tests;
