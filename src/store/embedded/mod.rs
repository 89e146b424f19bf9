//! The store of one machine: state in memory, durable through one SQLite database in a directory of its own.
//!
//! Every change is decided in memory under one lock and written down as an op. One thread commits the ops in order, many
//! at a time.
//!
//! - A settlement is answered after the commit that holds it, and so is whoever asks about it meanwhile. As the journal is
//!   sequential, every reservation before it is on disk by then too.
//! - A reservation is answered at once and committed within about 5 ms, longer only while the disk is busy with the commit
//!   before. After a crash the reservations of the last such moment may be unknown; an acknowledged settlement never is.
//! - The registry and the uses of secrets are written by transactions of their own (`registry`), beside that thread's.
//! - Memory holds the registry, counters in use, open reservations, the spend lines of two months, and 33 bytes for each settled
//!   reservation that can still be repeated; the rest is in the tables.

mod counters;
mod disk;
mod error;
mod gates;
mod op;
mod over;
mod recover;
mod registry;
mod segment;
mod shared;
mod spend;
mod spread;
mod state;
#[cfg(test)]
mod tests;
mod wire;
mod writer;

use std::{
    collections::BTreeMap,
    fmt,
    fs::{self, File, TryLockError},
    path::Path,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread::JoinHandle,
};

use bytes::Bytes;
use rusqlite::Connection;
use tokio::sync::oneshot;

pub use self::error::OpenError;
use self::{
    recover::{RecoverError, Recovered},
    registry::Registry,
    segment::Location,
    shared::{Inner, Shared, Step},
    writer::Writer,
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

/// The database's file in the store's directory. SQLite keeps two more beside it.
const DATABASE: &str = "tollgate.db";
/// The file whose lock tells that a process has the store open.
const LOCK: &str = "lock";

/// Spend lines read at once for a report: some tens of microseconds of the lock that decisions need.
const PAGE: usize = 256;

/// The store. Clones share it; when the last one is dropped, what is not on disk yet is written.
#[derive(Clone)]
pub struct EmbeddedStore(Arc<Handle>);

struct Handle {
    inner: Arc<Inner>,
    /// For the rare reads of what is no longer in memory. Held for one query; never together with the lock of `inner`.
    reader: Mutex<Connection>,
    registry: Arc<Registry>,
    writer: Option<JoinHandle<()>>,
    /// Locked for as long as the store is open; released after the writer has ended.
    lock: File,
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
        let unusable = |source| OpenError::Directory { path: dir.to_owned(), source };
        fs::create_dir_all(dir).map_err(unusable)?;
        let lock = File::options().create(true).truncate(false).write(true).open(dir.join(LOCK));
        let lock = lock.map_err(unusable)?;
        lock.try_lock().map_err(|error| match error {
            TryLockError::WouldBlock => OpenError::Locked { path: dir.to_owned() },
            TryLockError::Error(source) => unusable(source),
        })?;
        let failed = |error| OpenError::from_recover(dir, error);
        let sqlite = |error| failed(RecoverError::Sqlite(error));
        let path = dir.join(DATABASE);
        let mut connection = disk::open(&path).map_err(sqlite)?;
        match disk::version(&connection).map_err(sqlite)? {
            0 => disk::create(&mut connection).map_err(sqlite)?,
            found if found > disk::SCHEMA => {
                return Err(OpenError::Newer { path: dir.to_owned(), found, known: disk::SCHEMA });
            }
            found if found < disk::SCHEMA => disk::migrate(&mut connection, found).map_err(sqlite)?,
            _ => {}
        }
        let recovered = recover::recover(&connection, clock.now()).map_err(failed)?;
        let Recovered { state, covered, segment } = recovered;
        let reader = disk::open(&path).map_err(sqlite)?;
        let registry = Arc::new(Registry::load(disk::open(&path).map_err(sqlite)?).map_err(sqlite)?);
        let lsn = state.lsn;
        let shared = Mutex::new(Shared { state, durable: lsn, ..Shared::default() });
        let inner = Arc::new(Inner { shared, wake: Condvar::new(), clock });
        let writer = Writer::new(Arc::clone(&inner), connection, (lsn, covered, segment));
        let thread = std::thread::Builder::new().name("store-writer".to_owned());
        let writer = thread.spawn(move || writer.run()).map_err(OpenError::Thread)?;
        let reader = Mutex::new(reader);
        Ok(Self(Arc::new(Handle { inner, reader, registry, writer: Some(writer), lock })))
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
        let now = self.0.inner.clock.now();
        Ok(row.filter(|row| now < row.forget_at).map(|row| row.record))
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
        // Closing it would not do while a child that this process has just forked still holds a copy of it.
        if let Err(error) = self.lock.unlock() {
            tracing::warn!(%error, "the lock of the embedded store's directory is not released yet");
        }
    }
}

async fn on_disk<T>(value: T, receiver: oneshot::Receiver<()>) -> Result<T, StoreError> {
    receiver.await.map_err(|_| StoreError::Unavailable)?;
    Ok(value)
}

impl Store for EmbeddedStore {
    fn now(&self) -> Timestamp {
        self.0.inner.clock.now()
    }

    async fn reserve(&self, reserve: Reserve) -> Result<Reserved, StoreError> {
        let mut gone = None;
        loop {
            match self.0.inner.step(|state, now| state.reserve(now, &reserve, gone))? {
                Step::Done(reserved) => return Ok(reserved),
                Step::OnDisk(reserved, receiver) => return on_disk(reserved, receiver).await,
                Step::Archived(at) => match self.archived(at)? {
                    Some(record) => return Ok(Reserved::Repeated(record)),
                    None => gone = Some(at),
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
                Step::OnDisk(record, receiver) => return on_disk(record, receiver).await,
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
                Step::OnDisk(outcome, receiver) => return on_disk(outcome, receiver).await,
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
        let now = self.0.inner.clock.now();
        Ok(shared.state.counters(now, &keys))
    }

    async fn cooldowns(&self) -> Result<Vec<(CounterKey, Cooldown)>, StoreError> {
        let shared = self.0.inner.lock()?;
        Ok(shared.state.cooldowns(self.0.inner.clock.now()))
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
