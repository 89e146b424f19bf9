//! The store of one machine: state in memory, durable through one SQLite database in a directory of its own.
//!
//! Every change is decided in memory under one lock and written down as an op. One thread commits the ops in order, many
//! at a time.
//!
//! - A settlement is answered after the commit that holds it, and so is whoever asks about it meanwhile. As the journal is
//!   sequential, every reservation before it is on disk by then too.
//! - A reservation is answered at once and committed within about 5 ms, longer only while the disk is busy with the commit
//!   before. Once the oldest that is not on disk is older than `age::MAX_AGE`, further ones wait for the disk before they
//!   are decided. So a crash makes the store forget reservations of no more than that time; an acknowledged settlement never.
//! - A disk that fails to sync has lost the store's trust (`owner`): nothing is accepted from then on.
//! - Every row has a check sum (`sums`), and all is compared at opening (`verify`). What is damaged is not opened; `salvage`
//!   copies what can be read into a new directory.
//! - The registry and the uses of secrets are written by transactions of their own (`registry`), beside that thread's.
//! - Memory holds the registry, counters in use, open reservations, the spend lines of two months, and 33 bytes for each settled
//!   reservation that can still be repeated; the rest is in the tables.

mod age;
mod batch;
mod counters;
mod disk;
mod error;
mod files;
mod gates;
mod op;
mod opening;
mod over;
mod owner;
mod recover;
mod registry;
mod salvage;
mod schema;
mod segment;
mod shared;
mod spend;
mod spread;
mod state;
mod sums;
#[cfg(test)]
mod tests;
mod time;
mod verify;
mod waiters;
mod wire;
mod writer;

use std::{
    collections::BTreeMap,
    fmt,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread::JoinHandle,
    time::Duration,
};

use bytes::Bytes;
use rusqlite::Connection;
use tokio::{
    sync::oneshot,
    time::{Instant, timeout_at},
};

pub use self::{
    error::OpenError,
    opening::verify,
    salvage::{SalvageError, Salvaged, salvage},
};
use self::{
    files::Claim,
    registry::Registry,
    segment::Location,
    shared::{Inner, Step},
    waiters::Heard,
};
use super::{
    Cooldown, Record, RegistryChanges, RegistryWritten, ReservationId, Reserve, Reserved, Revision,
    SecretUse, SecretUses, Settle, SettleOutcome, SpendAmounts, SpendKey, Store, StoreError, clock::Clock,
};
use crate::domain::{
    Timestamp,
    counter::{CounterKey, CounterKind, CounterState},
    keys::SecretId,
};

/// How long a reservation waits for the disk unless told otherwise: longer than a disk stalls that still works.
const PATIENCE: Duration = Duration::from_secs(20);

/// Spend lines read at once for a report: some tens of microseconds of the lock that decisions need.
const PAGE: usize = 256;

/// The store. Clones share it; when the last one is dropped, what is not on disk yet is written.
#[derive(Clone)]
pub struct EmbeddedStore(Arc<Handle>, Duration);

struct Handle {
    inner: Arc<Inner>,
    /// For the rare reads of what is no longer in memory. Held for one query; never together with the lock of `inner`.
    reader: Mutex<Connection>,
    registry: Arc<Registry>,
    writer: Option<JoinHandle<()>>,
    /// The last field: what has the database open is dropped before.
    _claim: Arc<Claim>,
}

impl fmt::Debug for EmbeddedStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EmbeddedStore").finish_non_exhaustive()
    }
}

impl EmbeddedStore {
    /// Opens the store in `dir`, which is made if it is not there.
    ///
    /// # Errors
    /// Where the directory cannot be used, is open already, or holds what cannot be read.
    pub fn open(dir: &Path, clock: Clock) -> Result<Self, OpenError> {
        opening::open(dir, clock, age::MAX_AGE, |owner| Box::new(owner))
    }

    /// The same store, whose reservations wait for the disk for at most `deadline` where they have to.
    #[must_use]
    pub fn with_deadline(self, deadline: Duration) -> Self {
        Self(self.0, deadline)
    }

    /// Writes everything to the tables now, and forgets whatever is over. The store does both by itself, bit by bit.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] where it cannot be written.
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

    /// Returns once no op waits for the disk for too long. Nothing is taken before, so that a caller that goes away, or whose
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

    fn reader(&self) -> MutexGuard<'_, Connection> {
        // A panic between two queries leaves nothing behind in a connection that only reads.
        self.0.reader.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read<T>(&self, query: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Result<T, StoreError> {
        query(&self.reader()).map_err(|error| {
            tracing::error!(%error, "the embedded store cannot read");
            StoreError::Unavailable
        })
    }

    /// The settled reservation at `at`, if it is not over. Reads a segment: tens of microseconds, for a late repeat.
    fn archived(&self, at: Location) -> Result<Option<Record>, StoreError> {
        let row = self.read(|connection| disk::reservation(connection, at))?;
        let now = self.0.inner.time.now();
        Ok(row.filter(|row| now.store < row.forget_at).map(|row| row.record.by_the_wall(now)))
    }

    /// Puts lines of old months into memory. Dropped lines may have been written after they were read here, so that what was
    /// read counts only if none was.
    fn load(&self, keys: &[SpendKey], drops: u64) -> Result<(), StoreError> {
        let rows = self.read(|connection| {
            keys.iter().map(|key| disk::line(connection, key)).collect::<rusqlite::Result<Vec<_>>>()
        })?;
        let mut shared = self.0.inner.lock()?;
        if shared.state.spend.drops() == drops {
            rows.into_iter().for_each(|row| shared.state.spend.put(row));
        }
        Ok(())
    }

    /// Reads about a month of the report: `memory` alone where it has the whole month, else `table` with `memory` over it.
    fn report<T>(
        &self,
        month: u32,
        memory: impl Fn(&spend::Spend) -> Vec<T>,
        table: impl Fn(&Connection) -> rusqlite::Result<Vec<T>>,
        merge: impl Fn(Vec<T>, Vec<T>) -> Vec<T>,
    ) -> Result<Vec<T>, StoreError> {
        loop {
            let shared = self.0.inner.lock()?;
            if shared.state.spend.is_resident(month) {
                return Ok(memory(&shared.state.spend));
            }
            let drops = shared.state.spend.drops();
            drop(shared);
            let rows = self.read(&table)?;
            let shared = self.0.inner.lock()?;
            if shared.state.spend.drops() == drops {
                let newer = memory(&shared.state.spend);
                drop(shared);
                return Ok(merge(rows, newer));
            }
        }
    }
}

impl EmbeddedStore {
    /// The lines of a team in a month, read in pages: each as it was at some instant of the call. It blocks, and belongs on a
    /// thread of its own.
    fn spend_of(&self, month: u32, team: &Arc<str>) -> Result<Vec<(SpendKey, SpendAmounts)>, StoreError> {
        let mut lines = Vec::new();
        loop {
            let after = lines.last().map(|(key, _)| key);
            let page = self.spend_page(month, team, after)?;
            if page.is_empty() {
                return Ok(lines);
            }
            lines.extend(page);
            // The locks are not fair, and decisions wait for one of them.
            std::thread::yield_now();
        }
    }

    /// The next lines after `after`, about [`PAGE`] of them; none after the last. For an old month from the table, with what
    /// memory has of it over that.
    fn spend_page(
        &self,
        month: u32,
        team: &Arc<str>,
        after: Option<&SpendKey>,
    ) -> Result<Vec<(SpendKey, SpendAmounts)>, StoreError> {
        loop {
            let shared = self.0.inner.lock()?;
            if shared.state.spend.is_resident(month) {
                return Ok(shared.state.spend.of_team((month, team), after, PAGE));
            }
            let drops = shared.state.spend.drops();
            drop(shared);
            let rows = self.read(|connection| disk::lines_of(connection, (month, team), after, PAGE))?;
            let last = rows.get(PAGE.saturating_sub(1)).map(|row| row.key.clone());
            let shared = self.0.inner.lock()?;
            if shared.state.spend.drops() == drops {
                // Few: only late settlements of an old month are in memory.
                let newer = shared.state.spend.of_team((month, team), after, usize::MAX);
                drop(shared);
                let newer = newer.into_iter().filter(|(key, _)| last.as_ref().is_none_or(|last| key <= last));
                let rows = rows.into_iter().map(|row| (row.key, row.amounts));
                return Ok(rows.chain(newer).collect::<BTreeMap<_, _>>().into_iter().collect());
            }
        }
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

async fn on_disk<T>(value: T, heard: Heard) -> Result<T, StoreError> {
    heard.on_disk().await.map(|()| value)
}

impl Store for EmbeddedStore {
    fn now(&self) -> Timestamp {
        self.0.inner.time.now().wall
    }

    async fn reserve(&self, reserve: Reserve) -> Result<Reserved, StoreError> {
        if !reserve.dry_run {
            self.disk_keeps_up().await?;
        }
        let mut gone = None;
        loop {
            match self.0.inner.step(|state, now| state.reserve(now, &reserve, gone))? {
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
            match self.0.inner.step(|state, now| Ok(state.find(u128::from_be_bytes(id.0), now, gone)))? {
                Step::Done(record) => return Ok(record),
                Step::OnDisk(record, heard) => return on_disk(record, heard).await,
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
            match self.0.inner.step(|state, now| state.settle(now, &settle, gone))? {
                Step::Done(outcome) => return Ok(outcome),
                Step::OnDisk(outcome, heard) => return on_disk(outcome, heard).await,
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

    async fn spenders(&self, month: u32) -> Result<Vec<Arc<str>>, StoreError> {
        let table = |connection: &Connection| {
            disk::teams(connection, month).map(|teams| teams.into_iter().map(Arc::from).collect())
        };
        self.report(
            month,
            |spend| spend.teams(month),
            table,
            |mut teams, newer| {
                teams.extend(newer);
                teams.sort_unstable();
                teams.dedup();
                teams
            },
        )
    }

    async fn spend(&self, month: u32, team: Arc<str>) -> Result<Vec<(SpendKey, SpendAmounts)>, StoreError> {
        let store = self.clone();
        let read = tokio::task::spawn_blocking(move || store.spend_of(month, &team));
        read.await.unwrap_or_else(|error| {
            tracing::error!(%error, "the spend lines cannot be read");
            Err(StoreError::Corrupt)
        })
    }

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

    async fn add_uses(&self, uses: Vec<SecretUse>) -> Result<(), StoreError> {
        registry::on_disk(&self.0.registry, move |registry| registry.add_uses(&uses)).await
    }

    async fn uses(&self, secrets: Vec<SecretId>) -> Result<Vec<SecretUses>, StoreError> {
        registry::on_disk(&self.0.registry, move |registry| registry.uses(&secrets)).await
    }

    async fn ping(&self) -> Result<(), StoreError> {
        if self.0.inner.lock()?.failing { Err(StoreError::Unavailable) } else { Ok(()) }
    }
}
