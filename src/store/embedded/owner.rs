//! Commits, and the process that makes them.
//!
//! Each transaction counts itself in table `progress` and puts its process's id there: a process that finds another's id has lost
//! the store, and stops rather than write on. The count is written a second time, into a file of its own, once the transaction is
//! on disk. If a journal loses its end, SQLite sees only a transaction that was never completed; at opening, this count reveals
//! the loss.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::{FileExt as _, OpenOptionsExt as _},
    path::Path,
    sync::{Arc, Mutex, OnceLock, PoisonError},
    time::Instant,
};

use rusqlite::{Connection, Transaction, TransactionBehavior, ffi};
use thiserror::Error;
use tracing::{error, warn};

use super::{
    batch::Batch,
    disk::{self, Progress},
    files::{Claim, LAST_COMMIT},
};
use crate::{runtime::Entropy, store::StoreError, telemetry::Family};

/// Why nothing was committed.
#[derive(Debug, Error)]
pub(super) enum CommitError {
    /// It may be tried again.
    #[error(transparent)]
    Sqlite(#[from] rusqlite::Error),
    /// It will never succeed in this process.
    #[error(transparent)]
    Lost(#[from] Lost),
}

/// Why a process stops writing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub(super) enum Lost {
    /// Data that the system accepted for the disk may never get there, and a later success says nothing about it.
    #[error(
        "the disk failed to keep what it had taken; check it, then restart Tollgate, which reads what is really there"
    )]
    Sync,
    #[error("another process has written into the store; restart Tollgate when only one of them is left")]
    Taken,
    #[error(
        "the store's directory or database was moved, deleted or replaced; put it in place, then restart Tollgate"
    )]
    Moved,
}

/// Makes the transactions of this process.
///
/// Protocol: `last` is held for one small write; SQLite's own lock orders the transactions.
#[derive(Debug)]
pub(super) struct Owner {
    id: [u8; 16],
    claim: Arc<Claim>,
    file: File,
    /// The count in `file`.
    last: Mutex<u64>,
    lost: OnceLock<Lost>,
    /// Where transactions and their syncs are timed.
    timing: OnceLock<[Family; 2]>,
}

impl Owner {
    /// A new id for this process, and the file of the count, which is created if it is missing.
    pub(super) fn new(claim: Arc<Claim>) -> io::Result<Self> {
        let id = Entropy::System.bytes().map_err(io::Error::other)?;
        let path = claim.path.join(LAST_COMMIT);
        let mut options = OpenOptions::new();
        let file = options.create(true).truncate(false).write(true).mode(0o600).open(path)?;
        file.set_len(to_bytes(0).len() as u64)?;
        Ok(Self { id, claim, file, last: Mutex::new(0), lost: OnceLock::new(), timing: OnceLock::new() })
    }

    /// From now on, transactions are timed: with their sync, and the sync alone.
    pub(super) fn measure(&self, commits: Family, syncs: Family) {
        // The first has effect.
        let _ = self.timing.set([commits, syncs]);
    }

    /// The first commit: from here on the store belongs to this process.
    pub(super) fn take(&self, connection: &mut Connection) -> Result<(), CommitError> {
        self.transact(connection, |_, progress| {
            progress.owner = self.id;
            Ok(())
        })?;
        // The name and the length of the file have to survive a power cut, too.
        if let Err(error) = self.file.sync_all().and_then(|()| File::open(&self.claim.path)?.sync_all()) {
            warn!(%error, "the count of commits may not outlast a power cut");
        }
        Ok(())
    }

    /// Commits what `write` writes.
    pub(super) fn commit<T>(
        &self,
        connection: &mut Connection,
        write: impl FnOnce(&Transaction<'_>, &mut Progress) -> rusqlite::Result<T>,
    ) -> Result<T, CommitError> {
        self.transact(connection, |transaction, progress| {
            if progress.owner != self.id {
                return Err(CommitError::Lost(Lost::Taken));
            }
            Ok(write(transaction, progress)?)
        })
    }

    fn transact<T>(
        &self,
        connection: &mut Connection,
        write: impl FnOnce(&Transaction<'_>, &mut Progress) -> Result<T, CommitError>,
    ) -> Result<T, CommitError> {
        if let Some(lost) = self.lost.get() {
            return Err((*lost).into());
        }
        let committed = self.try_transact(connection, write);
        match &committed {
            Err(CommitError::Lost(lost)) => self.lose(*lost),
            Err(CommitError::Sqlite(error)) if is_failed_sync(error) => {
                error!(%error, "the embedded store cannot sync");
                self.lose(Lost::Sync);
                return Err(Lost::Sync.into());
            }
            _ => {}
        }
        committed
    }

    fn try_transact<T>(
        &self,
        connection: &mut Connection,
        write: impl FnOnce(&Transaction<'_>, &mut Progress) -> Result<T, CommitError>,
    ) -> Result<T, CommitError> {
        let begun = Instant::now();
        // Immediate: it waits for the other connection's write. A transaction that begins with a read could not, once the other
        // has written.
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let mut progress = disk::progress(&transaction)?;
        let written = write(&transaction, &mut progress)?;
        progress.commits += 1;
        disk::put_progress(&transaction, &progress)?;
        let written_at = Instant::now();
        transaction.commit()?;
        if let Some([commits, syncs]) = self.timing.get() {
            commits.record(0, begun.elapsed());
            syncs.record(0, written_at.elapsed());
        }
        // After it, as the next acknowledged data has to be where the next process looks for it.
        if !self.claim.is_in_place() {
            return Err(Lost::Moved.into());
        }
        self.count(progress.commits);
        Ok(written)
    }

    fn lose(&self, lost: Lost) {
        if self.lost.set(lost).is_ok() {
            error!(error = %lost, "the embedded store stopped: nothing is decided or booked until a restart");
        }
    }

    fn count(&self, commits: u64) {
        // A panic in between leaves the file behind the database, which is harmless.
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if *last < commits {
            *last = commits;
            // Not synced: after a power cut the file is behind, and so claims less than it could.
            if let Err(error) = self.file.write_all_at(&to_bytes(commits), 0) {
                warn!(%error, "cannot write the count of commits");
            }
        }
    }
}

/// Puts a batch on disk. `true`: all of the journal that was to be removed is removed.
pub(super) trait Commit: Send + 'static {
    fn commit(&mut self, connection: &mut Connection, batch: &Batch) -> Result<bool, CommitError>;
}

impl Commit for Arc<Owner> {
    fn commit(&mut self, connection: &mut Connection, batch: &Batch) -> Result<bool, CommitError> {
        Owner::commit(self, connection, |transaction, progress| disk::write(transaction, progress, batch))
    }
}

/// Puts batches into the database, and leaves it to the system when they reach the disk.
pub(super) struct Unsynced {
    owner: Arc<Owner>,
    is_set: bool,
}

impl Unsynced {
    pub(super) const fn new(owner: Arc<Owner>) -> Self {
        Self { owner, is_set: false }
    }
}

impl Commit for Unsynced {
    fn commit(&mut self, connection: &mut Connection, batch: &Batch) -> Result<bool, CommitError> {
        if !self.is_set {
            connection.pragma_update(None, "synchronous", "OFF")?;
            self.is_set = true;
        }
        self.owner.commit(connection, batch)
    }
}

impl From<CommitError> for StoreError {
    fn from(_: CommitError) -> Self {
        Self::Unavailable
    }
}

/// Whether the system refused to make something durable. It reports that once, and may have lost the data: a second attempt would
/// succeed without writing anything.
pub(crate) fn is_failed_sync(error: &rusqlite::Error) -> bool {
    let code = error.sqlite_error().map(|failure| failure.extended_code);
    matches!(code, Some(ffi::SQLITE_IOERR_FSYNC | ffi::SQLITE_IOERR_DIR_FSYNC))
}

/// A version, the count, and the first eight bytes of BLAKE3 over both.
pub(super) fn to_bytes(commits: u64) -> [u8; 17] {
    let mut bytes = [0; 17];
    let (head, sum) = bytes.split_at_mut(9);
    let [version, count @ ..] = head else { return bytes };
    *version = 1;
    count.copy_from_slice(&commits.to_le_bytes());
    blake3::Hasher::new().update(head).finalize_xof().fill(sum);
    bytes
}

/// The count in the file in `dir`; `None` if there is none, or none that can be read.
pub(super) fn last_commit(dir: &Path) -> Option<u64> {
    let bytes = match fs::read(dir.join(LAST_COMMIT)) {
        Ok(bytes) if bytes.is_empty() => return None,
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
        Err(error) => {
            warn!(%error, "cannot read the count of commits; a journal that lost its end would not be noticed");
            return None;
        }
    };
    let count = bytes.get(1..9).and_then(|count| count.try_into().ok()).map(u64::from_le_bytes);
    let count = count.filter(|count| to_bytes(*count)[..] == bytes[..]);
    if count.is_none() {
        warn!("the count of commits is damaged; a journal that lost its end would not be noticed");
    }
    count
}
