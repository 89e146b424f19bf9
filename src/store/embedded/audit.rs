//! The audit log: a table beside the journal, with a connection and transactions of its own, as the registry has.

use std::sync::{Arc, Mutex, PoisonError};

use rusqlite::{Connection, params, types::ValueRef};

use super::{
    EmbeddedStore,
    disk::{blob, int, misshapen, text, uint},
    owner::Owner,
    registry::RegistryError,
    schema::AUDIT,
    sums,
};
use crate::{
    domain::Moment,
    store::{
        AUDIT_REMOVED, AuditEntry, AuditKept, AuditLog, AuditRange, MAX_AUDIT_APPEND, MAX_AUDIT_LINE,
        MAX_AUDIT_PAGE, StoreError,
    },
};

/// Protocol: the lock is held for one transaction, so they come one after the other.
pub(super) struct AuditTable {
    connection: Mutex<Counted>,
    owner: Arc<Owner>,
}

/// The connection, and how many events there are; `None`: not known, as after a commit that failed.
struct Counted(Connection, Option<u64>);

impl AuditTable {
    pub(super) const fn new(connection: Connection, owner: Arc<Owner>) -> Self {
        Self { connection: Mutex::new(Counted(connection, None)), owner }
    }

    pub(super) fn append(
        &self,
        events: &[AuditEntry],
        kept: AuditKept,
        now: Moment,
    ) -> Result<usize, RegistryError> {
        if events.len() > MAX_AUDIT_APPEND || events.iter().any(|event| event.line.len() > MAX_AUDIT_LINE) {
            return Err(StoreError::Overflow.into());
        }
        // A panic ends its transaction without a commit; the count is unknown until one succeeds.
        let mut counted = self.connection.lock().unwrap_or_else(PoisonError::into_inner);
        let Counted(connection, count) = &mut *counted;
        let known = match count.take() {
            Some(known) => known,
            // Once for each start: a look at every row.
            None => connection.query_row("SELECT count(*) FROM audit", [], |row| uint(row, 0))?,
        };
        let written = self.owner.commit(connection, |transaction, _| {
            let mut total = known;
            for AuditEntry { id, line } in events {
                sums::put(transaction, &AUDIT, &[text(&id.to_string()), ValueRef::Blob(line)])?;
                total += transaction.changes();
            }
            let removed = remove(transaction, total, events.len(), (kept, now))?;
            Ok((total, removed))
        });
        let (total, removed) = written?;
        *count = Some(total.saturating_sub(removed as u64));
        Ok(removed)
    }
}

/// Removes the oldest of `total` events: what is too many, and then what is too old.
fn remove(
    transaction: &Connection,
    total: u64,
    added: usize,
    (kept, now): (AuditKept, Moment),
) -> rusqlite::Result<usize> {
    let most = AUDIT_REMOVED + added;
    let over = total.saturating_sub(kept.events).min(most as u64);
    let oldest = "DELETE FROM audit WHERE id IN (SELECT id FROM audit ORDER BY id LIMIT ?)";
    let removed = match over {
        0 => 0,
        over => transaction.prepare_cached(oldest)?.execute([int(over)])?,
    };
    let past = "DELETE FROM audit WHERE id IN (SELECT id FROM audit WHERE id < ? ORDER BY id LIMIT ?)";
    let left = int(most.saturating_sub(removed) as u64);
    let since = kept.since(now).to_string();
    Ok(removed + transaction.prepare_cached(past)?.execute(params![since, left])?)
}

/// The newest events in `range`, the newest first.
pub(super) fn page(
    connection: &Connection,
    range: AuditRange,
    count: usize,
) -> rusqlite::Result<Vec<AuditEntry>> {
    let sql = "SELECT * FROM audit WHERE id >= ?1 AND id < ?2 ORDER BY id DESC LIMIT ?3";
    // After every id, as all are of these digits.
    let before = range.before.map_or_else(|| "g".to_owned(), |id| id.to_string());
    let mut select = connection.prepare_cached(sql)?;
    let count = int(count.min(MAX_AUDIT_PAGE) as u64);
    let rows = select.query_map(params![range.from.to_string(), before, count], |row| {
        sums::check(row, &AUDIT)?;
        let id = row.get_ref(0)?.as_str()?.parse().map_err(|_| misshapen(0))?;
        Ok(AuditEntry { id, line: blob(row, 1)?.to_vec().into() })
    })?;
    rows.collect()
}

/// Adds `events` on a thread that may wait for the disk.
pub(super) async fn append(
    table: &Arc<AuditTable>,
    events: Vec<AuditEntry>,
    kept: AuditKept,
    now: Moment,
) -> Result<usize, StoreError> {
    let table = Arc::clone(table);
    match tokio::task::spawn_blocking(move || table.append(&events, kept, now)).await {
        Ok(Ok(removed)) => Ok(removed),
        Ok(Err(RegistryError::Store(error))) => Err(error),
        Ok(Err(RegistryError::Commit(error))) => {
            tracing::error!(%error, "the embedded store cannot write its audit log");
            Err(StoreError::Unavailable)
        }
        Err(error) => {
            tracing::error!(%error, "the embedded store's audit log failed");
            Err(StoreError::Corrupt)
        }
    }
}

impl AuditLog for EmbeddedStore {
    async fn audit_append(&self, events: Vec<AuditEntry>, kept: AuditKept) -> Result<usize, StoreError> {
        append(&self.0.audit, events, kept, self.0.inner.time.now()).await
    }

    async fn audit_page(&self, range: AuditRange, count: usize) -> Result<Vec<AuditEntry>, StoreError> {
        let store = self.clone();
        let read =
            tokio::task::spawn_blocking(move || store.read(|connection| page(connection, range, count)));
        read.await.unwrap_or_else(|error| {
            tracing::error!(%error, "the audit log cannot be read");
            Err(StoreError::Corrupt)
        })
    }
}
