//! The audit log: what was changed and who was refused, one JSON object a line, only ever appended to.
//!
//! Whoever records an event does not wait for the disk: a thread of its own writes the events in their order and makes them
//! durable. A change is never dropped; refusals, which any caller can cause at will, are bounded, and what is left out is told
//! by an event of its own.

mod event;
mod page;
mod room;
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

use room::Room;
use writer::Writer;

use crate::domain::access::Principal;

/// Refusals that may wait for a disk that does not take them.
const DENIALS_WAITING: usize = 1_000;
/// How long an ending process waits for the disk.
const FAREWELL: Duration = Duration::from_secs(5);

/// Where the log goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// To a file.
    File(PathBuf),
    /// To the standard output, for whoever collects it there.
    Stdout,
}

/// The log. Cheap to clone; the default records nothing.
#[derive(Clone, Debug, Default)]
pub struct Audit(Option<Arc<Open>>);

#[derive(Debug)]
struct Open {
    /// Unbounded, as changes are never dropped: they are as rare as those who may make them. What is not, `denied` bounds.
    events: Sender<Message>,
    /// `None`: what is written cannot be read again.
    path: Option<PathBuf>,
    /// Held for a look, never while anything is written.
    room: Mutex<Room>,
    flood: Arc<Flood>,
    /// After `events`, as fields are dropped in their order: the thread ends when nobody is left to send.
    _closing: Closing,
}

/// Dropped, it waits for the writer to write the rest and to close the file, which may then be opened again. The channel
/// carries nothing: the writer drops its end. The lock is never taken; it lets threads share what holds this.
#[derive(Debug)]
struct Closing(Mutex<Receiver<()>>);

impl Drop for Closing {
    fn drop(&mut self) {
        let closed = self.0.get_mut().unwrap_or_else(PoisonError::into_inner);
        // A disk that takes nothing keeps nobody from ending.
        let _ = closed.recv_timeout(FAREWELL);
    }
}

/// What the writer has to know of refusals. Counts for themselves; they order nothing else.
#[derive(Debug, Default)]
struct Flood {
    /// Refusals that wait to be written.
    waiting: AtomicUsize,
    /// Refusals left out and not yet told of.
    left_out: AtomicU64,
}

enum Message {
    Event {
        at: Timestamp,
        change: Change,
        is_denial: bool,
    },
    /// The first refusal was left out since the writer told of the last.
    LeftOut,
    /// Answered when everything before it was written: whether it is durable.
    Flush(Sender<bool>),
}

impl Audit {
    /// Opens the log and starts the thread that writes it.
    ///
    /// # Errors
    /// The file cannot be opened, another process writes it ([`io::ErrorKind::ResourceBusy`]), or the system gives no thread.
    pub fn open(target: &Target) -> io::Result<Self> {
        match target {
            Target::File(path) => {
                let (file, last_ms) = open_file(path)?;
                Self::start(Some(path.clone()), Writer::new(file, |file| file.sync_data(), last_ms))
            }
            Target::Stdout => Self::start(None, Writer::new(io::stdout(), io::Write::flush, 0)),
        }
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
        let room = Mutex::new(Room::new(Instant::now()));
        let _closing = Closing(Mutex::new(closed));
        Ok(Self(Some(Arc::new(Open { events, path, room, flood, _closing }))))
    }

    /// Whether nothing is recorded.
    #[must_use]
    pub const fn is_off(&self) -> bool {
        self.0.is_none()
    }

    /// Records a change, in any case.
    pub fn changed(&self, change: Change) {
        if let Some(open) = &self.0 {
            open.send(Message::Event { at: Timestamp::now(), change, is_denial: false });
        }
    }

    /// Records that `who` was refused, unless there are too many of these. `denial` is called only where it is written.
    pub fn denied(&self, who: &Principal, denial: impl FnOnce() -> Change) {
        let Some(open) = &self.0 else { return };
        if open.has_room(who) {
            open.flood.waiting.fetch_add(1, Ordering::Relaxed);
            open.send(Message::Event { at: Timestamp::now(), change: denial(), is_denial: true });
        } else if open.flood.left_out.fetch_add(1, Ordering::Relaxed) == 0 {
            open.send(Message::LeftOut);
        }
    }

    /// Waits until what was recorded before is durable, for a moment. Answers whether it is.
    pub fn flush(&self) -> bool {
        let Some(open) = &self.0 else { return true };
        let (done, durable) = mpsc::channel();
        open.send(Message::Flush(done));
        durable.recv_timeout(FAREWELL).unwrap_or(false)
    }

    /// A page of the events, the newest first. Reads the file: not for a thread that serves.
    ///
    /// # Errors
    /// There is no file, or it cannot be read, or the page is not one of it.
    pub fn page(&self, query: &Query) -> Result<Page, PageError> {
        let path = self.0.as_ref().and_then(|open| open.path.as_ref()).ok_or(PageError::NoFile)?;
        page::read(&File::open(path)?, query)
    }
}

impl Open {
    fn send(&self, message: Message) {
        // The thread ends after the last sender: it is there.
        let _ = self.events.send(message);
    }

    fn has_room(&self, who: &Principal) -> bool {
        // A panic while the lock was held leaves nothing but a count behind.
        let mut room = self.room.lock().unwrap_or_else(PoisonError::into_inner);
        self.flood.waiting.load(Ordering::Relaxed) < DENIALS_WAITING && room.take(who, Instant::now())
    }
}

/// Takes from all other users what they may do with the log, which names callers. A group may be meant, to collect it.
fn close_to_others(file: &File, path: &Path) {
    // A device is not the log's own.
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
    // The lines of two writers would mix, and their ids would not grow. The lock is of the file and not of its name: whoever
    // moves it away to begin another one is not in its way.
    file.try_lock().map_err(|error| match error {
        TryLockError::WouldBlock => io::Error::new(
            io::ErrorKind::ResourceBusy,
            "another process writes it, and each replica needs a file of its own",
        ),
        TryLockError::Error(error) => error,
    })?;
    let newest = match page::read(&file, &Query { page_size: 1, ..Query::default() }) {
        Ok(page) => page.events.first().and_then(Event::id_ms),
        // Rather another file than one that this is not.
        Err(PageError::Unreadable(error)) => return Err(error),
        Err(PageError::NoFile | PageError::NoSuchPage) => None,
    };
    page::end_line(&mut file)?;
    Ok((file, newest.unwrap_or(0)))
}

#[cfg(test)]
mod tests;
