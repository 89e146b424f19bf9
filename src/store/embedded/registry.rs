//! The registry and the uses of secrets: tables beside the journal, with a connection and transactions of their own.
//!
//! A write is on disk before it is answered and before anybody reads it. It is rare (someone manages keys), so that it may
//! wait for the writer's transaction and the writer for it; nothing on the hot path waits for either.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use rusqlite::{Connection, OptionalExtension as _, TransactionBehavior, params};

use super::disk::{blob, int, uint};
use crate::{
    domain::{Timestamp, keys::SecretId},
    store::{
        MAX_REGISTRY_VALUE, RegistryChanges, RegistryRecord, RegistryWritten, Revision, SecretUse,
        SecretUses, StoreError, USE_SLOTS_KEPT,
    },
};

/// Protocol: who writes holds `connection` for the whole of it, so writes come one after the other, and takes `memory` for
/// the moment in which it puts there what is on disk by then. Readers of records take `memory` only.
pub(super) struct Registry {
    connection: Mutex<Connection>,
    memory: Mutex<Memory>,
}

#[derive(Default)]
struct Memory {
    /// The last write. A file does not lose what it acknowledged, so that the number alone names a state.
    number: u64,
    records: BTreeMap<Arc<str>, (u64, Bytes)>,
}

impl Memory {
    fn read(connection: &Connection) -> rusqlite::Result<Self> {
        let mut memory = Self::default();
        let mut select = connection.prepare("SELECT name, version, value FROM registry")?;
        let mut rows = select.query([])?;
        while let Some(row) = rows.next()? {
            let version = uint(row, 1)?;
            let value = Bytes::copy_from_slice(blob(row, 2)?);
            memory.records.insert(row.get::<_, String>(0)?.into(), (version, value));
            memory.number = memory.number.max(version);
        }
        Ok(memory)
    }
}

fn put(connection: &mut Connection, name: &str, number: u64, value: &[u8]) -> rusqlite::Result<()> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let sql = "INSERT INTO registry VALUES (?, ?, ?) \
         ON CONFLICT (name) DO UPDATE SET version = excluded.version, value = excluded.value";
    transaction.prepare_cached(sql)?.execute(params![name, int(number), value])?;
    transaction.commit()
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
        Ok(Err(RegistryError::Sqlite(error))) => {
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
    Sqlite(#[from] rusqlite::Error),
}

impl Registry {
    pub(super) fn load(connection: Connection) -> rusqlite::Result<Self> {
        let memory = Mutex::new(Memory::read(&connection)?);
        Ok(Self { connection: Mutex::new(connection), memory })
    }

    pub(super) fn since(&self, known: Revision) -> RegistryChanges {
        let memory = self.memory();
        // What is not of this file is no revision of it.
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
        if let Err(error) = put(&mut connection, name, number, &value) {
            // Whether it is on disk is not known: what is there counts.
            *self.memory() = Memory::read(&connection)?;
            return Err(error.into());
        }
        let mut memory = self.memory();
        memory.number = number;
        memory.records.insert(Arc::clone(name), (number, value));
        Ok(RegistryWritten::Written { version: number })
    }

    pub(super) fn add_uses(&self, uses: &[SecretUse]) -> Result<(), RegistryError> {
        let mut connection = self.connection();
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        for SecretUse { secret, slot, requests, last_used } in uses {
            let secret = secret.to_int();
            let add = "INSERT INTO uses VALUES (?1, ?2, ?3) \
                 ON CONFLICT DO UPDATE SET requests = requests + excluded.requests";
            transaction.prepare_cached(add)?.execute(params![secret, slot, int(*requests)])?;
            let old = slot.saturating_sub(USE_SLOTS_KEPT);
            let forget = "DELETE FROM uses WHERE secret = ? AND slot < ?";
            transaction.prepare_cached(forget)?.execute(params![secret, old])?;
            let last = "INSERT INTO last_uses VALUES (?1, ?2) \
                 ON CONFLICT DO UPDATE SET at = max(at, excluded.at)";
            transaction.prepare_cached(last)?.execute(params![secret, int(last_used.0)])?;
        }
        Ok(transaction.commit()?)
    }

    pub(super) fn uses(&self, secrets: &[SecretId]) -> Result<Vec<SecretUses>, RegistryError> {
        let connection = self.connection();
        let mut last = connection.prepare_cached("SELECT at FROM last_uses WHERE secret = ?")?;
        let sql = "SELECT slot, requests FROM uses WHERE secret = ? ORDER BY slot";
        let mut slots = connection.prepare_cached(sql)?;
        let uses = secrets.iter().map(|secret| {
            let secret = secret.to_int();
            let last_used = last.query_row([secret], |row| uint(row, 0)).optional()?.map(Timestamp);
            let slots = slots.query_map([secret], |row| Ok((row.get(0)?, uint(row, 1)?)))?;
            Ok(SecretUses { last_used, slots: slots.collect::<rusqlite::Result<_>>()? })
        });
        uses.collect()
    }

    fn connection(&self) -> MutexGuard<'_, Connection> {
        // A panic ends the transaction that it came in, without a commit.
        self.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        // Changed in one place, by assignments that do not panic halfway.
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
