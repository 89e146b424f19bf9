//! The one thread that writes: many jobs with one commit, each answered after it.

use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};
use tracing::{error, warn};

use super::{
    Entry, Kept, NotKept, Shared, SpoolState, Taken,
    disk::{self, Disk},
};
use crate::{
    domain::Timestamp,
    store::embedded::{Claim, is_failed_sync},
};

/// Jobs of one commit. They wait for each other's work, which is some ten microseconds each; and a commit adds to the log what they change,
/// a page or two for each.
const MAX_AT_ONCE: usize = 64;

type Answer<T> = oneshot::Sender<Result<T, NotKept>>;

/// What the thread is asked to do.
pub(super) enum Job {
    Keep(Entry, Answer<Kept>),
    Take { after: u64, count: u32, now: Timestamp, answer: Answer<Vec<Taken>> },
    Delivered(Vec<u64>, Answer<()>),
    SetAside { place: u64, now: Timestamp, why: String, in_words: String, answer: Answer<()> },
    Recount(Answer<()>),
}

/// What a job found, to be answered after the commit.
enum Done {
    Kept(Answer<Kept>, Result<Kept, NotKept>),
    Taken(Answer<Vec<Taken>>, Vec<Taken>),
    Nothing(Answer<()>),
}

impl Job {
    fn fail(self) {
        match self {
            Self::Keep(_, answer) => tell(answer, Err(NotKept::Unavailable)),
            Self::Take { answer, .. } => tell(answer, Err(NotKept::Unavailable)),
            Self::Delivered(_, answer) | Self::SetAside { answer, .. } | Self::Recount(answer) => {
                tell(answer, Err(NotKept::Unavailable));
            }
        }
    }
}

impl Done {
    fn tell(self, has_failed: bool) {
        let failed = if has_failed { Err(NotKept::Unavailable) } else { Ok(()) };
        match self {
            Self::Kept(answer, kept) => tell(answer, failed.and(kept)),
            Self::Taken(answer, taken) => tell(answer, failed.map(|()| taken)),
            Self::Nothing(answer) => tell(answer, failed),
        }
    }
}

fn tell<T>(answer: Answer<T>, result: Result<T, NotKept>) {
    // One who asked and left is not told.
    let _ = answer.send(result);
}

/// The thread.
pub(super) struct Worker {
    disk: Disk,
    shared: Arc<Shared>,
    queue: mpsc::Receiver<Job>,
    is_failing: bool,
    /// The last field, so that everything that has the database open is dropped before it.
    claim: Claim,
}

impl Worker {
    pub(super) const fn new(
        disk: Disk,
        claim: Claim,
        shared: Arc<Shared>,
        queue: mpsc::Receiver<Job>,
    ) -> Self {
        Self { disk, shared, queue, is_failing: false, claim }
    }

    /// Works until no one can ask for anything more.
    pub(super) fn run(mut self) {
        let mut jobs = Vec::with_capacity(MAX_AT_ONCE);
        while self.queue.blocking_recv_many(&mut jobs, MAX_AT_ONCE) > 0 {
            self.turn(&mut jobs);
        }
    }

    fn turn(&mut self, jobs: &mut Vec<Job>) {
        let mut state = self.state();
        if state.lost.is_some() {
            jobs.drain(..).for_each(Job::fail);
            return;
        }
        let (before, mut done) = (state.clone(), Vec::with_capacity(jobs.len()));
        let kept_before = before.kept;
        let committed = self.commit(jobs, &mut state, &mut done);
        let failed = committed.is_err();
        match committed {
            Ok(()) => {
                if std::mem::take(&mut self.is_failing) {
                    tracing::info!("the spool can write again");
                }
            }
            Err(error) => {
                // What was not committed is not there.
                state = before;
                if is_failed_sync(&error) {
                    state.lost = Some("its disk failed to keep what it had taken; check it, then restart");
                }
                if !self.is_failing || state.lost.is_some() {
                    error!(%error, "the spool cannot be read or written: no report is acknowledged by it");
                }
                self.is_failing = true;
            }
        }
        // After it, as what is acknowledged has to be where the next process looks for it.
        let is_moved = !self.claim.is_in_place();
        if is_moved {
            state.lost = Some(
                "its directory or database was moved, deleted or replaced; put it in place, then restart",
            );
        }
        if let Some(lost) = state.lost {
            error!(error = lost, "the spool stopped: no report is acknowledged by it until a restart");
        }
        let has_new = !failed && state.kept > kept_before;
        self.shared.change(|shared| *shared = state);
        if has_new {
            self.shared.kept.notify_one();
        }
        done.drain(..).for_each(|done| done.tell(failed || is_moved));
        jobs.drain(..).for_each(Job::fail);
    }

    /// Does the jobs in one transaction, as far as it fails.
    fn commit(
        &self,
        jobs: &mut Vec<Job>,
        state: &mut SpoolState,
        done: &mut Vec<Done>,
    ) -> rusqlite::Result<()> {
        let (had, disk) = (state.records, &self.disk);
        let transaction = disk::begin(&disk.connection)?;
        for job in jobs.drain(..) {
            match job {
                Job::Keep(entry, answer) => {
                    let kept = disk.put(&entry, state)?;
                    state.kept += u64::from(kept == Ok(Kept::New));
                    done.push(Done::Kept(answer, kept));
                }
                Job::Take { after, count, now, answer } => {
                    done.push(Done::Taken(answer, disk.take((after, count), now, state)?));
                }
                Job::Delivered(places, answer) => {
                    for place in places {
                        state.delivered += u64::from(disk.remove(place, state)?.is_some());
                    }
                    done.push(Done::Nothing(answer));
                }
                Job::SetAside { place, now, why, in_words, answer } => {
                    if let Some(entry) = disk.remove(place, state)? {
                        disk.refuse((place, &entry), now, (&why, &in_words))?;
                    }
                    done.push(Done::Nothing(answer));
                }
                Job::Recount(answer) => done.push(Done::Nothing(answer)),
            }
        }
        transaction.commit()?;
        // What follows tells and tidies; what was asked for is done.
        let is_emptied = had > 0 && state.teams.is_empty();
        let tidied = if is_emptied { disk.shrink() } else { Ok(()) };
        if let Err(error) = tidied.and_then(|()| disk.measure(state)) {
            warn!(%error, "the spool cannot tell how much it keeps");
        }
        Ok(())
    }

    fn state(&self) -> SpoolState {
        self.shared.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }
}
