//! The registry and the uses of secrets: tables beside the journal, with a connection and transactions of their own.
//!
//! A write is on disk before it is answered and before anyone reads it. Writes are rare (someone manages keys), so they may wait
//! for the writer's transaction and the writer for them; nothing on the hot path waits for either.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use rusqlite::{Connection, OptionalExtension as _, params, types::ValueRef};

use super::{
    disk::{blob, misshapen, number as integer, text, uint},
    owner::{CommitError, Owner},
    schema::{DEPLOYMENT, LAST_USES, REGISTRY, USES},
    sums,
};
use crate::{
    domain::{Timestamp, key::SecretId},
    store::{
        MAX_REGISTRY_VALUE, RegistryChanges, RegistryRecord, RegistryWritten, Revision, SecretUse,
        SecretUses, StoreError, USE_SLOTS_KEPT,
        retention::{DAY_MS, USES_KEPT_S},
    },
};

/// The row of table `deployment` with the key that secrets are hashed with.
const HASH_KEY: &str = "hash_key";

/// Protocol: a write holds `connection` throughout, so writes come one after the other, and takes `memory` only for the moment in
/// which it puts in what is already on disk. Readers of records take `memory` only.
pub(super) struct Registry {
    connection: Mutex<Connection>,
    owner: Arc<Owner>,
    memory: Mutex<Memory>,
    /// When old uses are forgotten next; read and written while `connection` is held.
    forget_at: AtomicU64,
}

#[derive(Default)]
struct Memory {
    /// The last write. A file does not lose what it acknowledged, so the number alone identifies a state.
    number: u64,
    records: BTreeMap<Arc<str>, (u64, Bytes)>,
}

impl Memory {
    fn read(connection: &Connection) -> rusqlite::Result<Self> {
        let mut memory = Self::default();
        let mut select = connection.prepare("SELECT * FROM registry")?;
        let mut rows = select.query([])?;
        while let Some(row) = rows.next()? {
            sums::check(row, &REGISTRY)?;
            let version = uint(row, 1)?;
            let value = Bytes::copy_from_slice(blob(row, 2)?);
            memory.records.insert(row.get::<_, String>(0)?.into(), (version, value));
            memory.number = memory.number.max(version);
        }
        Ok(memory)
    }
}

/// Runs `work` on a thread that may wait for the disk.
pub(super) async fn on_disk<T: Send + 'static>(
    registry: &Arc<Registry>,
    work: impl FnOnce(&Registry) -> Result<T, RegistryError> + Send + 'static,
) -> Result<T, StoreError> {
    let registry = Arc::clone(registry);
    match tokio::task::spawn_blocking(move || work(&registry)).await {
        Ok(Ok(done)) => Ok(done),
        Ok(Err(RegistryError::Store(error))) => Err(error),
        Ok(Err(RegistryError::Commit(error))) => {
            tracing::error!(%error, "the embedded store cannot use its registry");
            Err(StoreError::Unavailable)
        }
        Err(error) => {
            tracing::error!(%error, "the embedded store's registry failed");
            Err(StoreError::Corrupt)
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub(super) enum RegistryError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Commit(#[from] CommitError),
}

impl From<rusqlite::Error> for RegistryError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Commit(error.into())
    }
}

impl Registry {
    pub(super) fn load(connection: Connection, owner: Arc<Owner>) -> rusqlite::Result<Self> {
        let memory = Mutex::new(Memory::read(&connection)?);
        Ok(Self { connection: Mutex::new(connection), owner, memory, forget_at: AtomicU64::new(0) })
    }

    pub(super) fn since(&self, known: Revision) -> RegistryChanges {
        let memory = self.memory();
        // A revision that is not of this file is unknown here.
        let whole = known.number == 0 || known.number > memory.number || known.mark != [0; 8];
        let since = if whole { 0 } else { known.number };
        let changed = memory.records.iter().filter(|(_, (version, _))| *version > since);
        let record = |(name, (version, value)): (&Arc<str>, &(u64, Bytes))| RegistryRecord {
            name: Arc::clone(name),
            version: *version,
            value: value.clone(),
        };
        RegistryChanges {
            revision: Revision { number: memory.number, mark: [0; 8] },
            whole,
            records: changed.map(record).collect(),
        }
    }

    pub(super) fn write(
        &self,
        name: &Arc<str>,
        expected_version: u64,
        value: Bytes,
    ) -> Result<RegistryWritten, RegistryError> {
        if value.len() > MAX_REGISTRY_VALUE {
            return Err(StoreError::Overflow.into());
        }
        let mut connection = self.connection();
        let (version, number) = {
            let memory = self.memory();
            (memory.records.get(name).map_or(0, |(version, _)| *version), memory.number + 1)
        };
        if version != expected_version {
            return Ok(RegistryWritten::Conflict { version });
        }
        let written = self.owner.commit(&mut connection, |transaction, _| {
            sums::put(transaction, &REGISTRY, &[text(name), integer(number), ValueRef::Blob(&value)])
        });
        if let Err(error) = written {
            // It is unknown whether this is on disk, so the database is read again.
            *self.memory() = Memory::read(&connection)?;
            return Err(error.into());
        }
        let mut memory = self.memory();
        memory.number = number;
        memory.records.insert(Arc::clone(name), (number, value));
        Ok(RegistryWritten::Written { version: number })
    }

    /// The key that secrets are hashed with; `proposed` if there was none.
    pub(super) fn hash_key(&self, proposed: Option<[u8; 32]>) -> Result<Option<[u8; 32]>, RegistryError> {
        let mut connection = self.connection();
        let known = hash_key(&connection)?;
        let (None, Some(proposed)) = (known, proposed) else { return Ok(known) };
        self.owner.commit(&mut connection, |transaction, _| {
            sums::put(transaction, &DEPLOYMENT, &[text(HASH_KEY), ValueRef::Blob(&proposed)])
        })?;
        Ok(Some(proposed))
    }

    /// Adds uses. Once a day it also forgets those of secrets that were not used for as long as uses are kept.
    pub(super) fn add_uses(&self, uses: &[SecretUse], now: Timestamp) -> Result<(), RegistryError> {
        let mut connection = self.connection();
        let is_due = self.forget_at.load(Ordering::Relaxed) <= now.0;
        self.owner.commit(&mut connection, |transaction, _| {
            if is_due {
                forget_uses(transaction, Timestamp(now.0.saturating_sub(USES_KEPT_S * 1000)))?;
            }
            uses.iter().try_for_each(|used| add_use(transaction, used))
        })?;
        if is_due {
            self.forget_at.store(now.plus(DAY_MS).0, Ordering::Relaxed);
        }
        Ok(())
    }

    pub(super) fn uses(&self, secrets: &[SecretId]) -> Result<Vec<SecretUses>, RegistryError> {
        let connection = self.connection();
        let mut select = connection.prepare_cached("SELECT * FROM uses WHERE secret = ? ORDER BY slot")?;
        let uses = secrets.iter().map(|secret| {
            let slots = select.query_map([secret.to_int()], |row| {
                sums::check(row, &USES)?;
                Ok((row.get(1)?, uint(row, 2)?))
            })?;
            let slots = slots.collect::<rusqlite::Result<_>>()?;
            Ok(SecretUses { last_used: last_use(&connection, secret.to_int())?, slots })
        });
        uses.collect()
    }

    fn connection(&self) -> MutexGuard<'_, Connection> {
        // A panic ends its transaction without a commit.
        self.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        // Changed in one place, by assignments that do not panic halfway.
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn hash_key(connection: &Connection) -> rusqlite::Result<Option<[u8; 32]>> {
    let mut select = connection.prepare_cached("SELECT * FROM deployment WHERE name = ?")?;
    let found = select.query_row([HASH_KEY], |row| {
        sums::check(row, &DEPLOYMENT)?;
        blob(row, 1)?.try_into().map_err(|_| misshapen(1))
    });
    found.optional()
}

/// Forgets the secrets whose last use was before `from`.
fn forget_uses(connection: &Connection, from: Timestamp) -> rusqlite::Result<()> {
    let from = params![i64::try_from(from.0).unwrap_or(i64::MAX)];
    let slots = "DELETE FROM uses WHERE secret IN (SELECT secret FROM last_uses WHERE at < ?)";
    connection.execute(slots, from)?;
    connection.execute("DELETE FROM last_uses WHERE at < ?", from).map(drop)
}

fn last_use(connection: &Connection, secret: i64) -> rusqlite::Result<Option<Timestamp>> {
    let mut select = connection.prepare_cached("SELECT * FROM last_uses WHERE secret = ?")?;
    let found = select.query_row([secret], |row| {
        sums::check(row, &LAST_USES)?;
        uint(row, 1).map(Timestamp)
    });
    found.optional()
}

fn add_use(connection: &Connection, used: &SecretUse) -> rusqlite::Result<()> {
    let SecretUse { secret, slot, requests, last_used } = used;
    let secret = secret.to_int();
    let mut select = connection.prepare_cached("SELECT * FROM uses WHERE secret = ? AND slot = ?")?;
    let before = select.query_row(params![secret, slot], |row| {
        sums::check(row, &USES)?;
        uint(row, 2)
    });
    let requests = before.optional()?.unwrap_or(0).saturating_add(*requests);
    let id = ValueRef::Integer(secret);
    sums::put(connection, &USES, &[id, integer(u64::from(*slot)), integer(requests)])?;
    let old = slot.saturating_sub(USE_SLOTS_KEPT);
    let forget = "DELETE FROM uses WHERE secret = ? AND slot < ?";
    connection.prepare_cached(forget)?.execute(params![secret, old])?;
    let last = last_use(connection, secret)?.map_or(*last_used, |before| before.max(*last_used));
    sums::put(connection, &LAST_USES, &[id, integer(last.0)])
}
