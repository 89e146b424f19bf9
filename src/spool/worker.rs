//! The one thread that writes: many jobs with one commit, each answered after it.

use std::{
    collections::VecDeque,
    sync::{Arc, PoisonError},
    time::Instant,
};

use tokio::sync::{mpsc, oneshot};
use tracing::{error, info, warn};

use super::{
    Entry, Failing, Kept, NotKept, Shared, SpoolState, Taken,
    disk::{self, COMMIT_PAGES, Disk},
    open::{self, Opened},
    rescue::{self, RescueError, Rest},
    row::is_damaged_page,
};
use crate::{
    domain::Timestamp,
    store::embedded::{Claim, is_failed_sync},
};

/// Jobs of one commit, at most: they wait for each other's work, which is some ten microseconds each.
const MAX_AT_ONCE: usize = 64;

type Answer<T> = oneshot::Sender<Result<T, NotKept>>;

/// What the thread is asked to do.
pub(super) enum Job {
    Keep(Entry, Answer<Kept>),
    Take { after: u64, count: u32, now: Timestamp, can_try: fn(&[u8]) -> bool, answer: Answer<Vec<Taken>> },
    Delivered(Vec<u64>, Answer<()>),
    SetAside { place: u64, now: Timestamp, why: String, in_words: String, answer: Answer<()> },
    Recount(Answer<()>),
}

/// What a job found, with those who wait for it, to be answered after the commit.
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

/// What a job found.
enum Found {
    /// Its caller has left.
    Left,
    Kept(Result<Kept, NotKept>),
    Taken(Vec<Taken>),
    Nothing,
}

impl Found {
    /// With the answer that `job` waits for.
    fn answers(self, job: Job) -> Option<Done> {
        match (job, self) {
            (Job::Keep(_, answer), Self::Kept(kept)) => Some(Done::Kept(answer, kept)),
            (Job::Take { answer, .. }, Self::Taken(taken)) => Some(Done::Taken(answer, taken)),
            (
                Job::Delivered(_, answer) | Job::SetAside { answer, .. } | Job::Recount(answer),
                Self::Nothing,
            ) => Some(Done::Nothing(answer)),
            _ => None,
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

/// What was written, for those who asked for it.
pub(crate) struct Written {
    done: Vec<Done>,
    has_failed: bool,
    /// Whether the last record went.
    is_emptied: bool,
}

impl Written {
    /// Answers.
    pub(crate) fn tell(self) {
        self.done.into_iter().for_each(|done| done.tell(self.has_failed));
    }
}

/// The thread.
pub(super) struct Worker {
    /// `None`: it is damaged, and nothing could be made of it.
    disk: Option<Disk>,
    /// The name of the spool, and the organization whose reports it holds.
    about: (String, String),
    shared: Arc<Shared>,
    queue: mpsc::Receiver<Job>,
    /// The last field, so that everything that has the database open is dropped before it. `None`: it is in memory.
    claim: Option<Claim>,
}

impl Worker {
    pub(super) fn new(opened: Opened, shared: Arc<Shared>, queue: mpsc::Receiver<Job>) -> Self {
        let Opened { disk, about, claim, .. } = opened;
        Self { disk: Some(disk), about, shared, queue, claim: Some(claim) }
    }

    /// Works until no one can ask for anything more.
    pub(super) fn run(mut self) {
        let (mut more, mut jobs) = (Vec::with_capacity(MAX_AT_ONCE), VecDeque::new());
        while self.queue.blocking_recv_many(&mut more, MAX_AT_ONCE) > 0 {
            jobs.extend(more.drain(..));
            while !jobs.is_empty() {
                let written = self.write(&mut jobs);
                let is_emptied = written.is_emptied;
                written.tell();
                if is_emptied {
                    self.tidy();
                }
            }
        }
    }

    /// Does as many jobs as fit into one commit. Those that it leaves were not done.
    pub(super) fn write(&mut self, jobs: &mut VecDeque<Job>) -> Written {
        let mut state = self.state();
        let Some(disk) = self.disk.as_ref().filter(|_| state.lost.is_none()) else {
            jobs.drain(..).for_each(Job::fail);
            return Written { done: Vec::new(), has_failed: true, is_emptied: false };
        };
        let (before, mut done) = (state.clone(), Vec::with_capacity(jobs.len()));
        let committed = commit(disk, jobs, &mut state, &mut done);
        let failed = committed.is_err();
        match committed {
            // Reading works on a full disk as well, and so does what has room in the log already.
            Ok(()) if state.failing.is_some() && (state.kept > before.kept || disk.can_write()) => {
                state.failing = None;
                info!("the spool can write again");
            }
            Ok(()) => {}
            Err(error) => {
                // What was not committed is not there.
                state = before.clone();
                self.failed(&error, &mut state);
            }
        }
        if done.iter().any(|done| matches!(done, Done::Nothing(_))) {
            state.damaged =
                self.claim.as_ref().map_or(state.damaged, |claim| rescue::kept(claim.directory()));
        }
        // After it, as what is acknowledged has to be where the next process looks for it.
        let is_moved = self.claim.as_ref().is_some_and(|claim| !claim.is_in_place());
        if is_moved {
            state.lost = Some(
                "its directory or database was moved, deleted or replaced; put it in place, then restart",
            );
        }
        if let Some(lost) = state.lost {
            error!(error = lost, "the spool stopped: no report is acknowledged by it until a restart");
        }
        let has_new = !failed && state.kept > before.kept;
        let is_emptied = !failed && before.records > 0 && state.records == 0;
        self.shared.change(|shared| *shared = state);
        if has_new {
            self.shared.kept.notify_one();
        }
        // Those who are told of a failure see why.
        if failed {
            jobs.drain(..).for_each(Job::fail);
        }
        Written { done, has_failed: failed || is_moved, is_emptied }
    }

    /// Gives back what an empty spool takes of the disk. It waits for those who look at the tables, so no one waits for it.
    fn tidy(&mut self) {
        let (mut state, Some(disk)) = (self.state(), &self.disk) else { return };
        if let Err(error) = disk.shrink().and_then(|()| disk.measure(&mut state)) {
            warn!(%error, "the spool cannot give back room on its disk yet");
            if is_damaged_page(&error) {
                self.mend(&mut state);
            }
        }
        self.shared.change(|shared| *shared = state);
    }

    /// Nothing of a commit was done.
    fn failed(&mut self, error: &rusqlite::Error, state: &mut SpoolState) {
        if is_failed_sync(error) {
            state.lost = Some("its disk failed to keep what it had taken; check it, then restart");
        }
        if state.failing.is_none() || state.lost.is_some() {
            error!(%error, "the spool cannot be read or written: no report is acknowledged by it");
        }
        let since = state.failing.as_ref().map_or_else(Instant::now, |failing| failing.since);
        state.failing = Some(Failing { since, why: error.to_string().into() });
        if is_damaged_page(error) {
            self.mend(state);
        }
    }

    /// Carries on with what can be read of a damaged database.
    fn mend(&mut self, state: &mut SpoolState) {
        if let Err(error) = self.try_to_mend(state) {
            error!(%error, "what can be read of the spool cannot be moved to a new database");
            state.lost = Some(
                "a part of it is damaged, and the rest cannot be moved; see the log, make room, then restart",
            );
        }
    }

    fn try_to_mend(&mut self, state: &mut SpoolState) -> Result<(), RescueError> {
        let Some(claim) = &mut self.claim else { return Ok(()) };
        let Some(disk) = self.disk.take() else { return Ok(()) };
        let rest = Rest { about: Some(self.about.clone()), last: disk.last(), now: open::now() };
        let max_bytes = disk.max_bytes();
        rescue::rescue(disk.connection, claim, rest)?;
        let disk = Disk::open(&claim.database(), max_bytes)?;
        state.damaged = rescue::kept(claim.directory());
        disk.count(state)?;
        state.failing = None;
        self.disk = Some(disk);
        Ok(())
    }

    fn state(&self) -> SpoolState {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

#[cfg(test)]
impl Worker {
    /// One whose tables are in memory.
    pub(super) fn in_memory(disk: Disk, shared: Arc<Shared>, queue: mpsc::Receiver<Job>) -> Self {
        Self { disk: Some(disk), about: Default::default(), shared, queue, claim: None }
    }

    /// Waits for jobs; 0: no one can ask for anything more.
    pub(super) async fn receive(&mut self, jobs: &mut VecDeque<Job>) -> usize {
        let mut more = Vec::new();
        let count = self.queue.recv_many(&mut more, MAX_AT_ONCE).await;
        jobs.extend(more);
        count
    }

    /// The place of the last record.
    pub(super) fn last_place(&self) -> rusqlite::Result<i64> {
        let connection = &self.disk.as_ref().expect("a disk").connection;
        let mut last = connection.prepare_cached("SELECT coalesce(max(place), 0) FROM spooled")?;
        last.query_row([], |row| row.get(0))
    }

    /// The disk, which outlives it.
    pub(super) fn into_disk(self) -> Option<Disk> {
        self.disk
    }
}

/// Does jobs in one transaction, as many as fit and as far as it fails.
fn commit(
    disk: &Disk,
    jobs: &mut VecDeque<Job>,
    state: &mut SpoolState,
    done: &mut Vec<Done>,
) -> rusqlite::Result<()> {
    let transaction = disk::begin(&disk.connection)?;
    let mut pages = 0;
    while let Some(job) = jobs.front() {
        let more = disk.pages_of(job);
        // One alone always fits.
        if pages > 0 && pages + more > COMMIT_PAGES {
            break;
        }
        pages += more;
        // One that fails stays, to be answered when it is known why.
        let found = find(disk, job, state)?;
        done.extend(jobs.pop_front().and_then(|job| found.answers(job)));
    }
    transaction.commit()?;
    // What was asked for is done.
    if let Err(error) = disk.measure(state) {
        warn!(%error, "the spool cannot tell how much it keeps");
    }
    Ok(())
}

/// Does one job within the transaction.
fn find(disk: &Disk, job: &Job, state: &mut SpoolState) -> rusqlite::Result<Found> {
    Ok(match job {
        // Its caller was told that it is not kept, after waiting for as long as callers do.
        Job::Keep(_, answer) if answer.is_closed() => Found::Left,
        Job::Keep(entry, _) => {
            let kept = disk.put(entry, state)?;
            state.kept += u64::from(kept == Ok(Kept::New));
            Found::Kept(kept)
        }
        Job::Take { after, count, now, can_try, .. } => {
            Found::Taken(disk.take((*after, *count), (*now, *can_try), state)?)
        }
        Job::Delivered(places, _) => {
            for place in places {
                state.delivered += u64::from(disk.remove(*place, open::now(), state)?.is_some());
            }
            Found::Nothing
        }
        Job::SetAside { place, now, why, in_words, .. } => {
            if let Some(entry) = disk.remove(*place, *now, state)? {
                state.refused += disk.refuse((*place, &entry), *now, (why, in_words))?;
            }
            Found::Nothing
        }
        Job::Recount(_) => {
            disk.count_refused(state)?;
            Found::Nothing
        }
    })
}
