//! The durable queue of what the store has not taken: reports of usage that were acknowledged while it did not answer.
//!
//! One SQLite database in a directory of its own, which belongs to one process. One thread writes it, many records with one sync, and
//! each is answered after the commit that holds it. What a record says is its author's affair: here it has an id, by which a repeat is
//! recognized, and what is counted of it. Records are taken oldest first, and removed when the store has acknowledged them. One that the
//! store refuses for good is moved to the table `refused`, where people find it: nothing is dropped.
//!
//! - That a record is about to be delivered is on disk before it is ([`Spool::take`]): after a crash it is known which ones the store may
//!   have already.
//! - The bound is on bytes of the disk: pages in use, and the write-ahead log.
//! - A damaged record is put aside as well, and a database that cannot be read as a whole is kept beside a new one, which has what can be
//!   (`rescue`).
//! - A disk that fails to sync, or a directory that was moved, ends it until a restart: nothing more is acknowledged.

mod disk;
mod error;
mod look;
mod open;
mod rescue;
mod row;
#[cfg(test)]
mod simulated;
mod state;
#[cfg(test)]
mod tests;
mod worker;

use std::{
    fmt,
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{Receiver, RecvTimeoutError},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use bytes::Bytes;
use tokio::sync::{Notify, mpsc, oneshot};

#[cfg(test)]
pub(crate) use self::simulated::{SimulatedDisk, SimulatedSpool};
use self::worker::Job;
pub use self::{
    error::{NotKept, SpoolOpenError},
    look::{SpoolLook, look},
    rescue::RescueError,
    state::{Failing, SpoolState},
};
use crate::{domain::Timestamp, store::ReservationId};

/// Jobs that wait for the thread; more wait for room, within the deadlines of their calls.
const MAX_JOBS: usize = 1_024;
/// The most bytes of a record: a report with a reservation's notes and holds is a few thousand.
pub const MAX_RECORD: usize = 64 << 10;

/// How long an answer is waited for: a disk that takes longer for one commit does not work, and its caller asks another replica.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long the end of the process waits for what the disk has begun. What was answered is on it, so nothing is lost by leaving.
const LAST_WAIT: Duration = Duration::from_secs(1);

/// Why a disk fails that does not come to an answer.
const SILENT: &str = "it does not answer";

/// What is counted of a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct About {
    /// The team that it is of; empty: not known.
    pub team: Arc<str>,
    /// What it costs in nano-dollars; `None`: not known.
    pub cost_nanos: Option<u64>,
    /// When it was acknowledged.
    pub at: Timestamp,
    /// Tells a repeat from another report under the same id.
    pub digest: u64,
    /// When the store was first asked to book it, which may have had effect; `None`: it was not asked.
    pub tried_at: Option<Timestamp>,
}

/// A record to keep, or as it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Under which a repeat is recognized.
    pub id: ReservationId,
    /// What is counted of it.
    pub about: About,
    /// What its author says. At most [`MAX_RECORD`] bytes.
    pub record: Bytes,
}

/// A record with its place in the queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Taken {
    /// Its place: later ones are larger.
    pub place: u64,
    /// The record. `tried_at` is that of before it was taken.
    pub entry: Entry,
}

/// The answer to a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kept {
    /// It is on disk.
    New,
    /// One under its id is on disk already, and stays as it is.
    Already(About),
}

/// The spool. Clones share it; dropping the last one ends its thread.
#[derive(Clone)]
pub struct Spool(Arc<Handle>);

struct Handle {
    name: Arc<str>,
    jobs: Option<mpsc::Sender<Job>>,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
    /// Closed at the end of the thread. Held when the spool is dropped.
    ended: Mutex<Receiver<()>>,
}

/// What the thread tells all others.
#[derive(Debug, Default)]
struct Shared {
    /// Held for a copy.
    state: Mutex<SpoolState>,
    /// Told when a record is kept.
    kept: Notify,
}

impl Shared {
    fn change(&self, change: impl FnOnce(&mut SpoolState)) {
        // Nothing panics while it is held.
        change(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// The disk did not answer in time. What the thread says next takes this back.
    fn falls_silent(&self) {
        self.change(|state| {
            if state.failing.is_none() {
                tracing::error!("the disk of the spool does not answer: no report is acknowledged by it");
            }
            let since = state.failing.as_ref().map_or_else(Instant::now, |failing| failing.since);
            state.failing = Some(Failing { since, why: SILENT.into() });
        });
    }

    fn hangs(&self) -> bool {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.failing.as_ref().is_some_and(|failing| *failing.why == *SILENT)
    }
}

impl fmt::Debug for Spool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Spool").finish_non_exhaustive()
    }
}

impl Spool {
    /// Keeps a record, unless one under its id is kept already. On disk before it answers.
    ///
    /// # Errors
    /// There is no room, or the disk does not take it: nothing was kept.
    pub async fn keep(&self, entry: Entry) -> Result<Kept, NotKept> {
        if entry.record.len() > MAX_RECORD {
            return Err(NotKept::Unavailable);
        }
        self.ask(|answer| Job::Keep(entry, answer)).await?
    }

    /// The oldest records behind `after`, at most `count`, and fewer where they are large. It is on disk before it answers that those which `can_try` is true of are tried
    /// `now`, where they were not before.
    ///
    /// # Errors
    /// The disk does not answer.
    pub async fn take(
        &self,
        (after, count): (u64, u32),
        now: Timestamp,
        can_try: fn(&[u8]) -> bool,
    ) -> Result<Vec<Taken>, NotKept> {
        self.ask(|answer| Job::Take { after, count, now, can_try, answer }).await?
    }

    /// Removes records that the store has acknowledged.
    ///
    /// # Errors
    /// The disk does not answer; they may be there still.
    pub async fn delivered(&self, places: Vec<u64>) -> Result<(), NotKept> {
        self.ask(|answer| Job::Delivered(places, answer)).await?
    }

    /// Moves the record at `place`, which was refused for good, to the table `refused`: `why`, and what it says `in_words`.
    ///
    /// # Errors
    /// The disk does not answer; it may be in its place still.
    pub async fn set_aside(
        &self,
        place: u64,
        now: Timestamp,
        (why, in_words): (String, String),
    ) -> Result<(), NotKept> {
        self.ask(|answer| Job::SetAside { place, now, why, in_words, answer }).await?
    }

    /// Counts again what is there: people may have removed what was refused.
    ///
    /// # Errors
    /// The disk does not answer.
    pub async fn recount(&self) -> Result<(), NotKept> {
        self.ask(Job::Recount).await?
    }

    /// Its name, which it keeps: eight random digits.
    #[must_use]
    pub fn name(&self) -> &Arc<str> {
        &self.0.name
    }

    /// How much is kept.
    #[must_use]
    pub fn state(&self) -> SpoolState {
        self.0.shared.state.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Records that were acknowledged since the process started.
    #[must_use]
    pub fn kept(&self) -> u64 {
        self.0.shared.state.lock().unwrap_or_else(PoisonError::into_inner).kept
    }

    /// Records that wait.
    #[must_use]
    pub fn records(&self) -> u64 {
        self.0.shared.state.lock().unwrap_or_else(PoisonError::into_inner).records
    }

    /// Resolves when a record was kept since this was last called.
    pub async fn next(&self) {
        self.0.shared.kept.notified().await;
    }

    /// # Errors
    /// The thread has ended or, within [`PATIENCE`], does not come to an answer.
    async fn ask<T>(&self, job: impl FnOnce(oneshot::Sender<T>) -> Job) -> Result<T, NotKept> {
        let (answer, answered) = oneshot::channel();
        let jobs = self.0.jobs.as_ref().ok_or(NotKept::Unavailable)?;
        let asked = async {
            jobs.send(job(answer)).await.map_err(|_| NotKept::Unavailable)?;
            answered.await.map_err(|_| NotKept::Unavailable)
        };
        let in_time = tokio::time::timeout(PATIENCE, asked).await;
        in_time.unwrap_or_else(|_| {
            self.0.shared.falls_silent();
            Err(NotKept::Unavailable)
        })
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        // Closes the queue of jobs, at whose end the thread ends.
        drop(self.jobs.take());
        let Some(thread) = self.thread.take() else { return };
        // A disk that is known to hang is not waited for again.
        let wait = if self.shared.hangs() { Duration::ZERO } else { LAST_WAIT };
        let ended = self.ended.get_mut().unwrap_or_else(PoisonError::into_inner).recv_timeout(wait);
        if ended == Err(RecvTimeoutError::Timeout) {
            tracing::error!(
                "the disk of the spool does not answer; what it was asked for last is not acknowledged"
            );
        } else if thread.join().is_err() {
            tracing::error!("the thread of the spool had panicked");
        }
    }
}
