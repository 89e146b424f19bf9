//! The spool on the thread of a simulation, which says when its disk is done. The tables are the ones that ship, in memory; they outlive
//! the process of a replica, as those on a disk do.

use std::{
    cell::RefCell,
    collections::VecDeque,
    path::Path,
    sync::{Arc, Mutex},
};

use tokio::sync::{Notify, mpsc, oneshot};

use super::{
    Entry, Handle, Kept, MAX_JOBS, NotKept, Shared, Spool, SpoolState,
    disk::Disk,
    worker::{Job, Worker, Written},
};
use crate::store::ReservationId;

/// What the spools of all worlds may take: none is full.
const MAX_BYTES: u64 = 64 << 20;

thread_local! {
    /// Disks of worlds that have ended on this thread, empty: to make one takes longer than what many a world asks of it.
    static EMPTY: RefCell<Vec<Disk>> = const { RefCell::new(Vec::new()) };
}

/// The disk of one machine.
#[derive(Clone, Default)]
pub(crate) struct SimulatedDisk(Arc<Mutex<Home>>);

#[derive(Default)]
struct Home {
    /// `None`: a process has it, or it is new.
    disk: Option<Disk>,
    is_used: bool,
    /// The last place before the last commit.
    before: i64,
}

impl Drop for Home {
    fn drop(&mut self) {
        if let Some(Ok(disk)) = self.disk.take().map(emptied) {
            // The thread may be ending.
            let _ = EMPTY.try_with(|empty| empty.borrow_mut().push(disk));
        }
    }
}

/// The same without a record, as if it were new.
fn emptied(disk: Disk) -> rusqlite::Result<Disk> {
    for table in ["about", "spooled", "refused", "sqlite_sequence"] {
        disk.connection.prepare_cached(&format!("DELETE FROM {table}"))?.execute([])?;
    }
    disk.last.set(0);
    disk.counted_at.set(0);
    Ok(disk)
}

/// What writes a spool. Dropped, it leaves the disk as a crash does: what was not committed is not there, and nothing more is answered.
pub(crate) struct SimulatedSpool {
    worker: Option<Worker>,
    jobs: VecDeque<Job>,
    /// Of those who ask a second time: nothing is kept for one who has left.
    waiting: Vec<oneshot::Receiver<Result<Kept, NotKept>>>,
    home: SimulatedDisk,
}

impl SimulatedDisk {
    /// Whether a process has it.
    pub(crate) fn is_used(&self) -> bool {
        self.0.lock().unwrap().is_used
    }

    /// Forgets the records of the last commit.
    pub(crate) fn lose_last_commit(&self) {
        let home = self.0.lock().unwrap();
        if let Some(disk) = &home.disk {
            let lost = disk.connection.execute("DELETE FROM spooled WHERE place > ?", [home.before]);
            lost.expect("a table in memory");
        }
    }

    /// The ids of the reports that are kept aside, once no process has it.
    pub(crate) fn refused(&self) -> Vec<String> {
        let home = self.0.lock().unwrap();
        assert!(!home.is_used, "a process has the spool");
        let Some(disk) = &home.disk else { return Vec::new() };
        let mut select = disk.connection.prepare_cached("SELECT id FROM refused").expect("a table in memory");
        let ids = select.query_map([], |row| row.get(0)).expect("a table in memory");
        ids.collect::<rusqlite::Result<_>>().expect("a table in memory")
    }

    /// Begins a spool by what is on the disk.
    pub(crate) fn open(&self) -> (Spool, SimulatedSpool) {
        let mut home = self.0.lock().unwrap();
        assert!(!home.is_used, "two processes have one spool");
        home.is_used = true;
        let disk = home.disk.take().or_else(|| EMPTY.with_borrow_mut(Vec::pop)).unwrap_or_else(|| {
            let mut disk = Disk::open(Path::new(":memory:"), MAX_BYTES).expect("a database in memory");
            disk.create().expect("tables in memory");
            disk
        });
        let mut state = SpoolState { max_bytes: MAX_BYTES, ..SpoolState::default() };
        disk.count(&mut state).expect("a table in memory");
        let shared = Arc::new(Shared { state: Mutex::new(state), kept: Notify::new() });
        // Those of before are delivered without waiting for another.
        shared.kept.notify_one();
        let (jobs, queue) = mpsc::channel(MAX_JOBS);
        let worker = Worker::in_memory(disk, Arc::clone(&shared), queue);
        let spool = Spool(Arc::new(Handle {
            name: "00000000".into(),
            jobs: Some(jobs),
            shared,
            thread: None,
            ended: Mutex::new(std::sync::mpsc::channel().1),
        }));
        (
            spool,
            SimulatedSpool {
                worker: Some(worker),
                jobs: VecDeque::new(),
                waiting: Vec::new(),
                home: self.clone(),
            },
        )
    }
}

impl SimulatedSpool {
    /// Waits for something to write; false: no one can ask any more.
    pub(crate) async fn next(&mut self) -> bool {
        let worker = self.worker.as_mut().expect("it has one until it is dropped");
        !self.jobs.is_empty() || worker.receive(&mut self.jobs).await > 0
    }

    /// Keeps each report that is to be kept once more, as if it were another's: a fault.
    pub(crate) fn keep_twice(&mut self) {
        let waiting = &mut self.waiting;
        let again = self.jobs.iter().filter_map(|job| match job {
            Job::Keep(entry, _) => {
                let ReservationId(mut bits) = entry.id;
                bits[15] ^= 0x55;
                let entry = Entry { id: ReservationId(bits), ..entry.clone() };
                let (answer, answered) = oneshot::channel();
                waiting.push(answered);
                Some(Job::Keep(entry, answer))
            }
            _ => None,
        });
        let again: Vec<_> = again.collect();
        self.jobs.extend(again);
    }

    /// From here on it survives a crash.
    pub(crate) fn commit(&mut self) -> Written {
        let worker = self.worker.as_mut().expect("it has one until it is dropped");
        let last = worker.last_place().expect("a table in memory");
        self.home.0.lock().unwrap().before = last;
        worker.write(&mut self.jobs)
    }
}

impl Drop for SimulatedSpool {
    fn drop(&mut self) {
        if let Some(worker) = self.worker.take() {
            let mut home = self.home.0.lock().unwrap();
            (home.disk, home.is_used) = (worker.into_disk(), false);
        }
    }
}
