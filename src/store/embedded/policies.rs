//! The policies that were in force: two tables beside the journal, with a connection and transactions of their own, as the audit log has.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use rusqlite::{Connection, OptionalExtension as _, Row, types::ValueRef};

use super::{
    EmbeddedStore,
    disk::{blob, int, number, text, uint},
    owner::Owner,
    registry::RegistryError,
    schema::{POLICIES, POLICY_DOCUMENTS},
    sums,
};
use crate::{
    domain::Timestamp,
    store::{
        MAX_POLICIES, MAX_POLICY_REPLICAS, PolicyEntry, PolicyRecord, PolicyRecords, StoreError,
        policies::{BETWEEN_NAMES, names},
    },
};

/// Protocol: the lock is held for one transaction, so they come one after the other.
pub(super) struct PolicyTable {
    connection: Mutex<Connection>,
    owner: Arc<Owner>,
}

/// A row.
struct Stored {
    entry: PolicyEntry,
    /// Its place in the order in which policies were recorded.
    number: u64,
    /// How often it was changed.
    changed: u64,
}

impl PolicyTable {
    pub(super) const fn new(connection: Connection, owner: Arc<Owner>) -> Self {
        Self { connection: Mutex::new(connection), owner }
    }

    /// A panic ends its transaction without a commit.
    fn lock(&self) -> MutexGuard<'_, Connection> {
        self.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn record(&self, record: &PolicyRecord) -> Result<bool, RegistryError> {
        record.check()?;
        let mut connection = self.lock();
        if let Some(mut stored) = find(&connection, &record.revision)? {
            let replicas = &mut stored.entry.replicas;
            if !replicas.contains(&record.replica) {
                replicas.push(Arc::clone(&record.replica));
                replicas.drain(..replicas.len().saturating_sub(MAX_POLICY_REPLICAS));
                stored.changed += 1;
                self.owner.commit(&mut connection, |transaction, _| put(transaction, &stored))?;
            }
            return Ok(false);
        }
        self.owner.commit(&mut connection, |transaction, _| {
            let last = "SELECT coalesce(max(number), 0) FROM policies";
            let last = transaction.query_row(last, [], |row| uint(row, 0))?;
            let PolicyRecord { revision, at, replica, value, document } = record.clone();
            let entry = PolicyEntry { revision, first: at, replicas: vec![replica], value };
            let revision = Arc::clone(&entry.revision);
            put(transaction, &Stored { entry, number: last + 1, changed: 1 })?;
            if let Some(document) = document {
                let values = [text(&revision), ValueRef::Blob(&document)];
                sums::put(transaction, &POLICY_DOCUMENTS, &values)?;
            }
            let most = int(MAX_POLICIES as u64);
            let past = "DELETE FROM policies WHERE revision NOT IN (SELECT revision FROM policies ORDER BY number DESC LIMIT ?)";
            transaction.execute(past, [most])?;
            let past = "DELETE FROM policy_documents WHERE revision NOT IN (SELECT revision FROM policies)";
            transaction.execute(past, []).map(drop)
        })?;
        Ok(true)
    }

    fn list(&self) -> Result<Vec<PolicyEntry>, RegistryError> {
        let connection = self.lock();
        let mut select = connection.prepare_cached("SELECT * FROM policies ORDER BY number DESC")?;
        let rows = select.query_map([], stored)?;
        Ok(rows.map(|row| row.map(|stored| stored.entry)).collect::<rusqlite::Result<_>>()?)
    }

    fn document(&self, revision: &str) -> Result<Option<Bytes>, RegistryError> {
        let connection = self.lock();
        let mut select = connection.prepare_cached("SELECT * FROM policy_documents WHERE revision = ?")?;
        let found = select.query_row([revision], |row| {
            sums::check(row, &POLICY_DOCUMENTS)?;
            Ok(Bytes::copy_from_slice(blob(row, 1)?))
        });
        Ok(found.optional()?)
    }
}

fn put(connection: &Connection, Stored { entry, number: place, changed }: &Stored) -> rusqlite::Result<()> {
    let PolicyEntry { revision, first, replicas, value } = entry;
    let mut names = String::new();
    for replica in replicas {
        if !names.is_empty() {
            names.push(BETWEEN_NAMES);
        }
        names.push_str(replica);
    }
    let of_row = [number(*place), number(*changed), number(first.0)];
    let [place, changed, first] = of_row;
    let values = [text(revision), place, changed, first, text(&names), ValueRef::Blob(value)];
    sums::put(connection, &POLICIES, &values)
}

fn find(connection: &Connection, revision: &str) -> rusqlite::Result<Option<Stored>> {
    let mut select = connection.prepare_cached("SELECT * FROM policies WHERE revision = ?")?;
    select.query_row([revision], stored).optional()
}

fn stored(row: &Row<'_>) -> rusqlite::Result<Stored> {
    sums::check(row, &POLICIES)?;
    let entry = PolicyEntry {
        revision: row.get_ref(0)?.as_str()?.into(),
        first: Timestamp(uint(row, 3)?),
        replicas: names(row.get_ref(4)?.as_str()?),
        value: Bytes::copy_from_slice(blob(row, 5)?),
    };
    Ok(Stored { entry, number: uint(row, 1)?, changed: uint(row, 2)? })
}

impl EmbeddedStore {
    /// Runs `work` on a thread that may wait for the disk.
    async fn with_policies<T: Send + 'static>(
        &self,
        work: impl FnOnce(&PolicyTable) -> Result<T, RegistryError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let table = Arc::clone(&self.0.policies);
        match tokio::task::spawn_blocking(move || work(&table)).await {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(RegistryError::Store(error))) => Err(error),
            Ok(Err(RegistryError::Commit(error))) => {
                tracing::error!(%error, "the embedded store cannot read or write its policies");
                Err(StoreError::Unavailable)
            }
            Err(error) => {
                tracing::error!(%error, "the embedded store's policies failed");
                Err(StoreError::Corrupt)
            }
        }
    }
}

impl PolicyRecords for EmbeddedStore {
    async fn record_policy(&self, record: PolicyRecord) -> Result<bool, StoreError> {
        self.with_policies(move |table| table.record(&record)).await
    }

    async fn policies(&self) -> Result<Vec<PolicyEntry>, StoreError> {
        self.with_policies(PolicyTable::list).await
    }

    async fn policy_document(&self, revision: Arc<str>) -> Result<Option<Bytes>, StoreError> {
        self.with_policies(move |table| table.document(&revision)).await
    }
}
