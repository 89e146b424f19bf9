//! The audit log: what was changed and who was refused, one JSON object per line, append-only.
//!
//! Recording an event waits for nothing: a thread of its own makes the lines (`recorder`) and gives each to every sink, and each
//! sink has a thread that writes them in order and makes them durable: the store, which all replicas share and lists are read
//! from, and a file or the standard output of this process. A change is never dropped. Refusals, which any caller can cause at
//! will, are bounded, and an event of its own counts those left out.

mod event;
mod file;
mod line;
mod query;
mod recorder;
mod refusal_limiter;
mod sink;
mod store;

use std::{
    io,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
        mpsc::{self, Receiver, Sender},
    },
    thread,
    time::Instant,
};

use jiff::Timestamp;

pub use event::{Change, Event, action};
pub use query::{Page, Query, page};
pub use sink::{Sink, Targets};

use line::Waiting;
use recorder::Recorder;
use refusal_limiter::RefusalLimiter;
use sink::{Closing, FAREWELL};

use crate::domain::rbac::Principal;

/// The most refusals that wait for a sink that is slow or fails.
const DENIALS_WAITING: usize = 1_000;

/// What each event says of where it was recorded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Origin {
    /// The organization's id.
    pub organization: Arc<str>,
    /// The process that records.
    pub replica: Arc<str>,
}

/// The log. Cheap to clone; the default records nothing.
#[derive(Clone, Debug, Default)]
pub struct Audit(Option<Arc<Open>>);

#[derive(Debug)]
struct Open {
    /// Unbounded, as changes are never dropped: they are as rare as the people allowed to make them. `denied` bounds the rest.
    events: Sender<Message>,
    /// Held for a look, never during a write.
    room: Mutex<RefusalLimiter>,
    flood: Arc<Flood>,
    /// After `events`, as fields are dropped in declaration order: the threads end once no sender is left.
    sinks: Vec<Arc<Closing>>,
}

/// What the threads have to know about refusals. Independent counters; they order nothing else.
#[derive(Debug, Default)]
struct Flood {
    /// Refusals that wait to be written to some sink.
    waiting: AtomicUsize,
    /// Refusals left out and not yet reported.
    left_out: AtomicU64,
}

enum Message {
    Event {
        at: Timestamp,
        change: Change,
        /// Of a refusal.
        waiting: Option<Waiting>,
    },
    /// The first refusal was left out since any were reported.
    LeftOut,
    /// Answered by each sink once everything before it was written: whether it is durable.
    Flush(Sender<bool>),
}

impl Audit {
    /// Starts to record for `origin` into `sinks`. Without one, nothing is recorded.
    ///
    /// # Errors
    /// The system cannot start a thread.
    pub fn start(origin: Origin, sinks: Vec<Sink>) -> io::Result<Self> {
        if sinks.is_empty() {
            return Ok(Self::default());
        }
        let (lines, sinks) = sinks.into_iter().map(|sink| (sink.lines, sink.closing)).unzip();
        let (events, waiting): (_, Receiver<Message>) = mpsc::channel();
        let flood = Arc::<Flood>::default();
        let mut recorder = Recorder::new(origin, lines, Arc::clone(&flood));
        thread::Builder::new().name("audit".to_owned()).spawn(move || recorder.run(&waiting))?;
        let room = Mutex::new(RefusalLimiter::new(Instant::now()));
        Ok(Self(Some(Arc::new(Open { events, room, flood, sinks }))))
    }

    /// Whether nothing is recorded.
    #[must_use]
    pub const fn is_off(&self) -> bool {
        self.0.is_none()
    }

    /// Records a change. It is never dropped.
    pub fn changed(&self, change: Change) {
        if let Some(open) = &self.0 {
            open.send(Message::Event { at: Timestamp::now(), change, waiting: None });
        }
    }

    /// Records that `who` was refused, unless there are too many refusals. `denial` is called only if it is written.
    pub fn denied(&self, who: &Principal, denial: impl FnOnce() -> Change) {
        let Some(open) = &self.0 else { return };
        if open.has_room(who) {
            let waiting = Some(Waiting::new(&open.flood));
            open.send(Message::Event { at: Timestamp::now(), change: denial(), waiting });
        } else if open.flood.left_out.fetch_add(1, Ordering::Relaxed) == 0 {
            open.send(Message::LeftOut);
        }
    }

    /// Waits a moment until everything recorded before is durable in every sink. Returns whether it is.
    #[must_use]
    pub fn flush(&self) -> bool {
        let Some(open) = &self.0 else { return true };
        let (done, durable) = mpsc::channel();
        open.send(Message::Flush(done));
        let until = Instant::now() + FAREWELL;
        let answer = |_| durable.recv_timeout(until.saturating_duration_since(Instant::now()));
        open.sinks.iter().map(answer).all(|is_durable| is_durable.unwrap_or(false))
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

#[cfg(test)]
mod tests;
