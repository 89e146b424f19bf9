//! The outbox: a table beside the journal, with a connection and transactions of its own, as the registry has. Only what settlements
//! add is written by the transactions of their ops.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use rusqlite::{Connection, OptionalExtension as _, Row, params, types::ValueRef};

use super::{
    EmbeddedStore,
    disk::{blob, int, misshapen, number, text, uint},
    owner::Owner,
    registry::RegistryError,
    schema::OUTBOX,
    sums,
};
use crate::{
    domain::{Moment, Timestamp},
    store::{
        ClaimedEntry, MAX_OUTBOX_CLAIM, MAX_OUTBOX_PAGE, MAX_OUTBOX_PAYLOAD, OUTBOX_REMOVED, Outbox,
        OutboxClaim, OutboxEntry, OutboxId, OutboxKept, StoreError, outbox::check,
    },
};

/// Protocol: the lock is held for one transaction, so they come one after the other. The writer of the journal adds entries in between,
/// and changes none.
pub(super) struct OutboxTable {
    connection: Mutex<Connection>,
    owner: Arc<Owner>,
}

/// A row.
struct Stored {
    entry: OutboxEntry,
    /// By the store's time; `None`: it is done.
    due: Option<Timestamp>,
    claim: u64,
}

impl OutboxTable {
    pub(super) const fn new(connection: Connection, owner: Arc<Owner>) -> Self {
        Self { connection: Mutex::new(connection), owner }
    }

    /// A panic ends its transaction without a commit.
    fn lock(&self) -> MutexGuard<'_, Connection> {
        self.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn append(&self, entries: &[OutboxEntry], kept: OutboxKept, now: Moment) -> Result<usize, RegistryError> {
        check(entries)?;
        let mut connection = self.lock();
        let total = |connection: &Connection| {
            connection.query_row("SELECT count(*) FROM outbox", [], |row| uint(row, 0))
        };
        let since = kept.since(now);
        if entries.is_empty()
            && total(&connection)? <= kept.entries
            && oldest(&connection)? >= Some(since.clone())
        {
            return Ok(0);
        }
        let removed = self.owner.commit(&mut connection, |transaction, _| {
            entries.iter().try_for_each(|entry| put_new(transaction, entry))?;
            let most = OUTBOX_REMOVED + entries.len();
            let over = total(transaction)?.saturating_sub(kept.entries).min(most as u64);
            let oldest = "DELETE FROM outbox WHERE id IN (SELECT id FROM outbox ORDER BY id LIMIT ?)";
            let removed = transaction.prepare_cached(oldest)?.execute([int(over)])?;
            let past =
                "DELETE FROM outbox WHERE id IN (SELECT id FROM outbox WHERE id < ? ORDER BY id LIMIT ?)";
            let left = int(most.saturating_sub(removed) as u64);
            Ok(removed + transaction.prepare_cached(past)?.execute(params![since, left])?)
        })?;
        Ok(removed)
    }

    fn claim(
        &self,
        queue: &str,
        count: usize,
        (lease_ms, now): (u64, Timestamp),
    ) -> Result<OutboxClaim, RegistryError> {
        let mut connection = self.lock();
        let sql = "SELECT count(*) FROM outbox WHERE queue = ? AND due IS NOT NULL";
        let pending = connection.prepare_cached(sql)?.query_row([queue], |row| uint(row, 0))?;
        // Nothing is written, and the disk is not waited for, where nothing is due.
        let (due, damaged) = due(&connection, (queue, now), count.min(MAX_OUTBOX_CLAIM))?;
        if due.is_empty() && damaged.is_empty() {
            return Ok(OutboxClaim { entries: Vec::new(), pending });
        }
        if !damaged.is_empty() {
            let left_out = damaged.len();
            tracing::error!(
                left_out,
                "entries of the outbox are damaged and left out; `tollgate store verify` tells which"
            );
        }
        let entries = self.owner.commit(&mut connection, |transaction, _| {
            for id in &damaged {
                // As it was but for this, so its check sum still says that it is damaged.
                transaction.execute("UPDATE outbox SET due = NULL WHERE id = ?", [id])?;
            }
            let claimed = due.iter().map(|stored| {
                let again = Some(now.plus(lease_ms));
                put(transaction, &stored.entry, again, stored.claim + 1)?;
                Ok(ClaimedEntry { entry: stored.entry.clone(), claim: stored.claim + 1 })
            });
            claimed.collect::<rusqlite::Result<Vec<_>>>()
        })?;
        Ok(OutboxClaim { entries, pending })
    }

    fn update(&self, claimed: &ClaimedEntry, next: Option<Timestamp>) -> Result<bool, RegistryError> {
        if claimed.entry.payload.len() > MAX_OUTBOX_PAYLOAD {
            return Err(StoreError::Overflow.into());
        }
        let mut connection = self.lock();
        let stored = find(&connection, &claimed.entry.id)?;
        if stored.is_none_or(|stored| stored.claim != claimed.claim || stored.due.is_none()) {
            return Ok(false);
        }
        let put = |transaction: &Connection| put(transaction, &claimed.entry, next, claimed.claim);
        self.owner.commit(&mut connection, |transaction, _| put(transaction))?;
        Ok(true)
    }
}

/// Adds an entry that is due at once, unless it is there.
pub(super) fn put_new(connection: &Connection, entry: &OutboxEntry) -> rusqlite::Result<()> {
    let mut select = connection.prepare_cached("SELECT 1 FROM outbox WHERE id = ?")?;
    match select.exists([entry.id.as_str()])? {
        true => Ok(()),
        false => put(connection, entry, Some(Timestamp(0)), 0),
    }
}

fn put(
    connection: &Connection,
    OutboxEntry { id, payload }: &OutboxEntry,
    due: Option<Timestamp>,
    claim: u64,
) -> rusqlite::Result<()> {
    let due = due.map_or(ValueRef::Null, |due| number(due.0));
    let values = [text(id.as_str()), text(id.queue()), due, number(claim), ValueRef::Blob(payload)];
    sums::put(connection, &OUTBOX, &values)
}

/// The entry with this id; `None` as well if it is damaged.
fn find(connection: &Connection, id: &OutboxId) -> rusqlite::Result<Option<Stored>> {
    let mut select = connection.prepare_cached("SELECT * FROM outbox WHERE id = ?")?;
    Ok(select.query_row([id.as_str()], |row| Ok(whole(row))).optional()?.flatten())
}

/// The entries of a queue that are due, the longest due first; and the ids of those before and between them that are damaged.
fn due(
    connection: &Connection,
    (queue, now): (&str, Timestamp),
    count: usize,
) -> rusqlite::Result<(Vec<Stored>, Vec<String>)> {
    let (mut due, mut damaged) = (Vec::new(), Vec::new());
    if count == 0 {
        return Ok((due, damaged));
    }
    let sql = "SELECT * FROM outbox WHERE queue = ? AND due IS NOT NULL AND due <= ? ORDER BY due, id";
    let mut select = connection.prepare_cached(sql)?;
    let mut rows = select.query(params![queue, int(now.0)])?;
    while due.len() < count
        && damaged.len() < MAX_OUTBOX_CLAIM
        && let Some(row) = rows.next()?
    {
        match whole(row) {
            Some(stored) => due.push(stored),
            None => damaged.push(row.get(0)?),
        }
    }
    Ok((due, damaged))
}

/// What a row has, unless it is damaged.
fn whole(row: &Row<'_>) -> Option<Stored> {
    stored(row).ok()
}

fn oldest(connection: &Connection) -> rusqlite::Result<Option<String>> {
    // Above all ids where there is none.
    let sql = "SELECT coalesce(min(id), 'g') FROM outbox";
    connection.query_row(sql, [], |row| row.get(0)).map(Some)
}

fn stored(row: &Row<'_>) -> rusqlite::Result<Stored> {
    sums::check(row, &OUTBOX)?;
    let id = row.get_ref(0)?.as_str()?.parse().map_err(|_| misshapen(0))?;
    let due = match row.get_ref(2)? {
        ValueRef::Null => None,
        _ => Some(Timestamp(uint(row, 2)?)),
    };
    let payload = Bytes::copy_from_slice(blob(row, 4)?);
    Ok(Stored { entry: OutboxEntry { id, payload }, due, claim: uint(row, 3)? })
}

fn page(connection: &Connection, before: Option<&str>, count: usize) -> rusqlite::Result<Vec<OutboxEntry>> {
    let sql = "SELECT * FROM outbox WHERE id < ? ORDER BY id DESC";
    let mut select = connection.prepare_cached(sql)?;
    // After every id, as all begin with digits of these.
    let before = before.unwrap_or("g");
    let rows = select.query_map([before], |row| Ok(whole(row)))?;
    // A damaged entry hides no others.
    let whole = rows.filter_map(Result::transpose).take(count.min(MAX_OUTBOX_PAGE));
    whole.map(|stored| stored.map(|stored| stored.entry)).collect()
}

impl EmbeddedStore {
    /// Runs `work` on a thread that may wait for the disk.
    async fn with_outbox<T: Send + 'static>(
        &self,
        work: impl FnOnce(&OutboxTable) -> Result<T, RegistryError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let table = Arc::clone(&self.0.outbox);
        match tokio::task::spawn_blocking(move || work(&table)).await {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(RegistryError::Store(error))) => Err(error),
            Ok(Err(RegistryError::Commit(error))) => {
                // It is asked every second: the callers say once that it does not answer, and the journal's writer why.
                tracing::debug!(%error, "the embedded store cannot read or write its outbox");
                Err(StoreError::Unavailable)
            }
            Err(error) => {
                tracing::error!(%error, "the embedded store's outbox failed");
                Err(StoreError::Corrupt)
            }
        }
    }
}

impl Outbox for EmbeddedStore {
    async fn outbox_append(&self, entries: Vec<OutboxEntry>, kept: OutboxKept) -> Result<usize, StoreError> {
        let now = self.0.inner.time.now();
        self.with_outbox(move |table| table.append(&entries, kept, now)).await
    }

    async fn outbox_claim(
        &self,
        queue: Arc<str>,
        count: usize,
        lease_ms: u64,
    ) -> Result<OutboxClaim, StoreError> {
        let now = self.0.inner.time.now().store;
        self.with_outbox(move |table| table.claim(&queue, count, (lease_ms, now))).await
    }

    async fn outbox_update(&self, claimed: ClaimedEntry, next_ms: Option<u64>) -> Result<bool, StoreError> {
        let next = next_ms.map(|ms| self.0.inner.time.now().store.plus(ms));
        self.with_outbox(move |table| table.update(&claimed, next)).await
    }

    async fn outbox_page(
        &self,
        before: Option<OutboxId>,
        count: usize,
    ) -> Result<Vec<OutboxEntry>, StoreError> {
        let before = before.as_ref().map(|id| id.as_str().to_owned());
        self.with_outbox(move |table| Ok(page(&table.lock(), before.as_deref(), count)?)).await
    }
}
