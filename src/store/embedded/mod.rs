//! The store for one machine: state in memory, made durable by one SQLite database in a directory of its own.
//!
//! Every change is decided in memory under one lock and written down as an op. One thread commits the ops in order, many at a
//! time.
//!
//! - A settlement is answered after the commit that holds it, and so are callers that ask about it before then. As the journal is
//!   sequential, every earlier reservation is on disk by then too.
//! - A reservation is answered at once and committed within about 5 ms, or later only while the disk is busy with the previous
//!   commit. Once the oldest op that is not on disk is older than `age::MAX_AGE`, further reservations wait for the disk before
//!   they are decided. So a crash makes the store forget the reservations of no more than that time, and never an acknowledged
//!   settlement.
//! - A disk that fails to sync has lost the store's trust (`owner`): from then on nothing is accepted.
//! - Every row has a check sum (`sums`), and all are checked at opening (`verify`). A damaged store is not opened; `salvage`
//!   copies what can be read into a new directory.
//! - The registry, the uses of secrets (`registry`), the audit log (`audit`), the outbox (`outbox`) and the policies that were in
//!   force (`policies`) are written by transactions of their own, separate from that thread's; but what a settlement adds to the outbox is in the one that writes its op.
//! - Only this process announces itself as a replica (`replicas`) and decides (`decisions`), so both stay in memory.
//! - What reservations of one kind share is in memory, in a row of the journal and in a segment once (`terms`); what each has of its
//!   own are a few bytes (`kept`).
//! - Memory holds the registry, counters in use, open reservations, the rows of usage of two months by day and of the last days otherwise, and 33 bytes for each settled
//!   reservation that can still be repeated; the rest is in the tables.

mod age;
mod audit;
mod backup;
mod batch;
mod counters;
mod decisions;
mod disk;
mod error;
mod files;
mod gates;
mod kept;
mod look;
mod op;
mod opening;
mod outbox;
mod owner;
mod policies;
mod presharded;
mod read;
mod recover;
mod registry;
mod replicas;
mod reservations;
mod retention;
mod rows;
mod salvage;
mod schema;
mod segment;
mod settling;
mod shared;
mod spend;
mod state;
mod sums;
mod terms;
#[cfg(test)]
mod tests;
mod time;
mod usage;
mod verify;
mod waiters;
mod wire;
mod writer;

use std::{
    fmt,
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use bytes::Bytes;
use rusqlite::Connection;
use tokio::{
    sync::oneshot,
    time::{Instant, timeout, timeout_at},
};

#[cfg(test)]
pub(crate) use self::writer::SimulatedWriter;
use self::{
    audit::AuditTable,
    decisions::DecisionRing,
    kept::{Own, Version},
    outbox::OutboxTable,
    owner::Owner,
    policies::PolicyTable,
    registry::Registry,
    replicas::ReplicaTable,
    shared::{Inner, Step},
    waiters::Heard,
};
pub use self::{
    backup::{BackedUp, BackupError, backup, restore},
    error::OpenError,
    look::{Look, READABLE_LAYOUTS, look},
    opening::verify,
    salvage::{SalvageError, Salvaged, salvage},
};
pub(crate) use self::{
    disk::open_database,
    files::{Claim, ClaimError},
    look::{Wanted, look_for},
    owner::is_failed_sync,
};
use super::{
    Backend, Cooldown, Ledger, Load, LoadProbe, Record, RegistryChanges, RegistryWritten, ReplicaEntry,
    Replicas, ReservationId, Reserve, Reserved, Revision, SecretUse, SecretUses, Settle, SettleOutcome,
    StoreError, StoreKind, Unreported,
};
use crate::domain::{
    Moment,
    counter::{CounterKey, CounterKind, CounterState},
    key::SecretId,
};
use crate::{runtime::clock::Clock, telemetry::Family};

/// How long a settlement waits for the disk, and a reservation unless told otherwise: longer than any stall of a disk that still
/// works.
const PATIENCE: Duration = Duration::from_secs(20);

/// The store. Clones share it; dropping the last one writes whatever is not on disk yet.
#[derive(Clone)]
pub struct EmbeddedStore(Arc<Handle>, Duration);

struct Handle {
    inner: Arc<Inner>,
    /// For the rare reads of data no longer in memory. Held for one query; never together with the lock of `inner`.
    reader: Mutex<Connection>,
    registry: Arc<Registry>,
    audit: Arc<AuditTable>,
    outbox: Arc<OutboxTable>,
    policies: Arc<PolicyTable>,
    replicas: ReplicaTable,
    decisions: DecisionRing,
    writer: Option<JoinHandle<()>>,
    owner: Arc<Owner>,
    /// Whether one of the clones was asked what waits.
    is_probed: AtomicBool,
    /// The last field, so everything that has the database open is dropped before it.
    _claim: Arc<Claim>,
}

impl fmt::Debug for EmbeddedStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EmbeddedStore").finish_non_exhaustive()
    }
}

impl EmbeddedStore {
    /// Opens the store in `dir`, which is created if it does not exist.
    ///
    /// # Errors
    /// The directory cannot be used, is already open, or holds something that cannot be read.
    pub fn open(dir: &Path, clock: Clock) -> Result<Self, OpenError> {
        opening::open(dir, clock, (age::MAX_AGE, writer::ROUND), |owner| Box::new(owner))
    }

    /// The same store, whose reservations wait at most `deadline` when they have to wait for the disk.
    #[must_use]
    pub fn with_deadline(self, deadline: Duration) -> Self {
        Self(self.0, deadline)
    }

    /// The same store, whose transactions are timed: with their sync, and the sync alone.
    #[must_use]
    pub fn timed(self, commits: Family, syncs: Family) -> Self {
        self.0.owner.measure(commits, syncs);
        self
    }

    /// How many reservations ended without a report, as this store counted them.
    #[must_use]
    pub fn unreported(&self) -> Unreported {
        self.0.inner.unreported.clone()
    }

    /// Writes everything to the tables now, and forgets everything that has ended. The store does both by itself, bit by bit.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if it cannot be written.
    pub async fn checkpoint(&self) -> Result<(), StoreError> {
        let (done, receiver) = oneshot::channel();
        self.ask(done)?;
        receiver.await.map_err(|_| StoreError::Unavailable)
    }

    fn ask(&self, done: oneshot::Sender<()>) -> Result<(), StoreError> {
        let mut shared = self.0.inner.lock()?;
        if shared.failing {
            return Err(StoreError::Unavailable);
        }
        shared.checkpoints.push(done);
        self.0.inner.release(shared, true);
        Ok(())
    }

    /// Returns once no op has been waiting too long for the disk. Nothing is taken before, so a caller that goes away, or whose
    /// deadline passes, leaves nothing behind.
    async fn disk_keeps_up(&self) -> Result<(), StoreError> {
        if !self.0.inner.age.is_late() {
            return Ok(());
        }
        let deadline = Instant::now() + self.1;
        while let Some(heard) = self.0.inner.next_commit()? {
            timeout_at(deadline, heard.on_disk()).await.map_err(|_| StoreError::Unavailable)??;
        }
        Ok(())
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        if let Ok(mut shared) = self.inner.lock() {
            shared.stopping = true;
        }
        self.inner.wake.notify_one();
        if let Some(writer) = self.writer.take()
            && writer.join().is_err()
        {
            tracing::error!("the writer of the embedded store had panicked");
        }
    }
}

/// The answer `value` once the disk has what it reports, or an error if the disk does not take it. If the disk takes it later,
/// the change still counts: the caller asks again and gets the result.
async fn on_disk<T>(value: T, heard: Heard) -> Result<T, StoreError> {
    let written = timeout(PATIENCE, heard.on_disk()).await;
    written.map_err(|_| StoreError::Unavailable)?.map(|()| value)
}

impl Backend for EmbeddedStore {
    const KIND: StoreKind = StoreKind::Embedded;

    fn moment(&self) -> Moment {
        self.0.inner.time.now()
    }

    fn deadline(&self) -> Duration {
        self.1
    }

    fn probe(&self) -> Option<LoadProbe> {
        if self.0.is_probed.swap(true, Ordering::Relaxed) {
            return None;
        }
        let handle = Arc::downgrade(&self.0);
        Some(Box::new(move || {
            let Some(handle) = handle.upgrade() else { return Load::default() };
            let shared = handle.inner.lock();
            let (calls, bytes) =
                shared.map_or((0, 0), |shared| (shared.waiters.len(), shared.state.journal.len()));
            Load { calls: calls as u64, journal_bytes: Some(bytes as u64) }
        }))
    }

    async fn ping(&self) -> Result<(), StoreError> {
        // The store is not ready if reservations are refused for this.
        let stalls = self.0.inner.age.is_late_by(self.1);
        if stalls || self.0.inner.lock()?.failing { Err(StoreError::Unavailable) } else { Ok(()) }
    }
}

impl Ledger for EmbeddedStore {
    async fn reserve(&self, reserve: Reserve) -> Result<Reserved, StoreError> {
        if !reserve.dry_run {
            self.disk_keeps_up().await?;
        }
        // Made before the lock is taken: it is the largest part of what a reservation takes.
        let mut made = (!reserve.dry_run).then(|| Own::of(&reserve));
        let mut gone = None;
        loop {
            let step = self.0.inner.step(|state, now| state.reserve(now, (&reserve, &mut made), gone))?;
            match step {
                Step::Done(reserved) => return Ok(reserved),
                Step::OnDisk(reserved, heard) => return on_disk(reserved, heard).await,
                Step::Archived(at) => match self.archived(at)? {
                    Some(record) if !reserve.replaces(&record) => return Ok(Reserved::Repeated(record)),
                    Some(_) | None => gone = Some(at),
                },
                Step::Absent(..) => return Err(StoreError::Corrupt),
            }
        }
    }

    async fn find(&self, id: ReservationId) -> Result<Option<Record>, StoreError> {
        let mut gone = None;
        loop {
            let record = |(version, now): (Version, Moment)| version.into_record().by_the_wall(now);
            match self.0.inner.step(|state, now| Ok(state.find(u128::from_be_bytes(id.0), now, gone)))? {
                Step::Done(version) => return Ok(version.map(record)),
                Step::OnDisk(version, heard) => return on_disk(version.map(record), heard).await,
                Step::Archived(at) => match self.archived(at)? {
                    Some(record) => return Ok(Some(record)),
                    None => gone = Some(at),
                },
                Step::Absent(..) => return Err(StoreError::Corrupt),
            }
        }
    }

    async fn settle(&self, mut settle: Settle) -> Result<SettleOutcome, StoreError> {
        settle.lines = spend::merged(settle.lines);
        let mut gone = None;
        loop {
            match self.0.inner.step(|state, now| state.settle(now, &mut settle, gone))? {
                Step::Done(settling) => return Ok(settling.outcome()),
                Step::OnDisk(settling, heard) => return on_disk(settling.outcome(), heard).await,
                Step::Archived(at) => match self.archived(at)?.and_then(|record| record.settlement) {
                    Some(first) => return Ok(SettleOutcome::AlreadySettled(first)),
                    None => gone = Some(at),
                },
                Step::Absent(keys, drops) => self.load(&keys, drops)?,
            }
        }
    }

    async fn counters(&self, keys: Vec<(CounterKey, CounterKind)>) -> Result<Vec<CounterState>, StoreError> {
        let mut shared = self.0.inner.lock()?;
        let now = self.0.inner.time.now().store;
        Ok(shared.state.counters(now, &keys))
    }

    async fn cooldowns(&self) -> Result<Vec<(CounterKey, Cooldown)>, StoreError> {
        let shared = self.0.inner.lock()?;
        Ok(shared.state.cooldowns(self.0.inner.time.now()))
    }

    async fn lift_cooldowns(
        &self,
        gates: Vec<CounterKey>,
    ) -> Result<Vec<(CounterKey, Cooldown)>, StoreError> {
        match self.0.inner.step(|state, now| Ok(state.lift(now, &gates)))? {
            Step::Done(lifted) => Ok(lifted),
            Step::OnDisk(lifted, receiver) => on_disk(lifted, receiver).await,
            Step::Archived(_) | Step::Absent(..) => Err(StoreError::Corrupt),
        }
    }
}

impl super::Registry for EmbeddedStore {
    async fn registry_since(&self, known: Revision) -> Result<RegistryChanges, StoreError> {
        Ok(self.0.registry.since(known))
    }

    async fn registry_write(
        &self,
        name: Arc<str>,
        expected_version: u64,
        value: Bytes,
    ) -> Result<RegistryWritten, StoreError> {
        registry::on_disk(&self.0.registry, move |registry| registry.write(&name, expected_version, value))
            .await
    }

    async fn hash_key(&self, proposed: Option<[u8; 32]>) -> Result<Option<[u8; 32]>, StoreError> {
        registry::on_disk(&self.0.registry, move |registry| registry.hash_key(proposed)).await
    }

    async fn add_uses(&self, uses: Vec<SecretUse>) -> Result<(), StoreError> {
        let now = self.0.inner.time.now();
        // By the earlier of the two: a single look at a wall clock that is ahead must not forget anything.
        let now = now.wall.min(now.store);
        registry::on_disk(&self.0.registry, move |registry| registry.add_uses(&uses, now)).await
    }

    async fn uses(&self, secrets: Vec<SecretId>) -> Result<Vec<SecretUses>, StoreError> {
        registry::on_disk(&self.0.registry, move |registry| registry.uses(&secrets)).await
    }
}

impl Replicas for EmbeddedStore {
    async fn announce_replica(&self, name: Arc<str>, value: Bytes) -> Result<(), StoreError> {
        self.0.replicas.announce(name, value, self.0.inner.time.now().store)
    }

    async fn replicas(&self) -> Result<Vec<ReplicaEntry>, StoreError> {
        Ok(self.0.replicas.list(self.0.inner.time.now()))
    }
}
