//! Turns a directory into a running store.

use std::{
    path::Path,
    sync::{Arc, Condvar, Mutex, atomic::AtomicBool},
    time::Duration,
};

use rusqlite::Connection;
use tracing::Span;

use super::{
    EmbeddedStore, Handle, PATIENCE,
    age::{Age, MAX_AGE},
    audit::AuditTable,
    disk::{self, Progress},
    error::OpenError,
    files::Claim,
    outbox::OutboxTable,
    owner::{self, Commit, CommitError, Owner, Unsynced},
    policies::PolicyTable,
    recover::{self, RecoverError, Recovered},
    registry::Registry,
    schema,
    shared::{Inner, Shared},
    time::StoreTime,
    verify as checks,
    writer::{ROUND, Start, Writer},
};
use crate::{domain::Timestamp, runtime::clock::Clock, store::Unreported};

/// Opens the store in `dir`. `pause` is between two rounds of the writer; `disk` makes the part that puts batches on disk, from the one that really does so.
pub(super) fn open(
    dir: &Path,
    clock: Clock,
    times: (Duration, Duration),
    disk: impl FnOnce(Arc<Owner>) -> Box<dyn Commit>,
) -> Result<EmbeddedStore, OpenError> {
    let (mut handle, writer) = prepare(dir, clock, times, disk)?;
    let thread = std::thread::Builder::new().name("store-writer".to_owned());
    let span = Span::current();
    let writing = thread.spawn(move || span.in_scope(|| writer.run()));
    handle.writer = Some(writing.map_err(OpenError::Thread)?);
    Ok(EmbeddedStore(Arc::new(handle), PATIENCE))
}

/// The same without the thread of the writer.
pub(super) fn prepare(
    dir: &Path,
    clock: Clock,
    (max_age, pause): (Duration, Duration),
    disk: impl FnOnce(Arc<Owner>) -> Box<dyn Commit>,
) -> Result<(Handle, Writer), OpenError> {
    let unusable = |source| OpenError::Directory { path: dir.to_owned(), source };
    let failed = |error| OpenError::from_recover(dir, error);
    let sqlite = |error| failed(RecoverError::Sqlite(error));
    let claim = Arc::new(Claim::make(dir)?);
    let path = claim.database();
    let known = owner::last_commit(&claim.path);
    checks::is_there(&claim, known).map_err(failed)?;
    let mut connection = disk::open(&path).map_err(sqlite)?;
    bring_up(dir, &claim, &mut connection, known)?;
    let recovered = read(&connection, known, clock.now()).map_err(failed)?;
    let owner = Arc::new(Owner::new(Arc::clone(&claim)).map_err(unusable)?);
    owner.take(&mut connection).map_err(|error| match error {
        CommitError::Sqlite(error) => sqlite(error),
        CommitError::Lost(lost) => OpenError::Lost { path: dir.to_owned(), detail: lost.to_string() },
    })?;
    // From here on nothing depends on a journal that this process has only read, but not written and synced.
    let connection = disk::trust(connection).map_err(sqlite)?;
    disk::empty_wal(&connection).map_err(sqlite)?;
    let Recovered { state, covered, segment, behind, .. } = recovered;
    let time = StoreTime::new(clock, state.time, behind);
    let open = || disk::open(&path).and_then(disk::trust).map_err(sqlite);
    let reader = open()?;
    let registry = Registry::load(open()?, Arc::clone(&owner)).map_err(sqlite)?;
    let audit = Arc::new(AuditTable::new(open()?, Arc::clone(&owner)));
    let outbox = Arc::new(OutboxTable::new(open()?, Arc::clone(&owner)));
    let policies = Arc::new(PolicyTable::new(open()?, Arc::clone(&owner)));
    let lsn = state.lsn;
    let shared = Mutex::new(Shared { state, durable: lsn, ..Shared::default() });
    let (wake, age, unreported) = (Condvar::new(), Age::new(max_age), Unreported::default());
    let inner = Arc::new(Inner { shared, wake, time, age, unreported });
    let start = Start { lsn, covered, segment, behind, pause };
    let writer = Writer::new(Arc::clone(&inner), connection, disk(Arc::clone(&owner)), start);
    let (reader, registry) = (Mutex::new(reader), Arc::new(registry));
    let handle = Handle {
        inner,
        reader,
        registry,
        audit,
        outbox,
        policies,
        replicas: super::replicas::ReplicaTable::default(),
        decisions: super::decisions::DecisionRing::default(),
        writer: None,
        owner,
        is_probed: AtomicBool::new(false),
        _claim: claim,
    };
    Ok((handle, writer))
}

impl EmbeddedStore {
    /// Opens a store that is thrown away with its process: nothing waits until it would survive a power cut.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn open_scratch(dir: &Path, clock: Clock) -> Result<Self, OpenError> {
        open(dir, clock, (MAX_AGE, ROUND), |owner| Box::new(Unsynced::new(owner)))
    }
}

/// Creates the tables of an empty database, and updates those of an earlier layout.
fn bring_up(
    dir: &Path,
    claim: &Claim,
    connection: &mut Connection,
    known: Option<u64>,
) -> Result<(), OpenError> {
    let failed = |error| OpenError::from_recover(dir, error);
    let sqlite = |error| failed(RecoverError::Sqlite(error));
    let found = schema::version(connection).map_err(sqlite)?;
    if found > schema::LAYOUT {
        return Err(OpenError::Newer { path: dir.to_owned(), found, known: schema::LAYOUT });
    }
    if found == schema::LAYOUT {
        return Ok(());
    }
    if found < schema::SUMMED {
        // Commits are counted since then.
        checks::behind(known, 0).map_err(failed)?;
    }
    if found == 0 {
        let empty = Progress { covered: 0, forgotten: Timestamp(0), commits: 0, owner: [0; 16], behind: 0 };
        return schema::create(connection, |transaction| disk::put_progress(transaction, &empty))
            .map_err(sqlite);
    }
    check_earlier(connection, found, known).map_err(failed)?;
    let copy = schema::kept_aside(&claim.database(), found);
    schema::copy(connection, &copy).map_err(|error| OpenError::NotCopied {
        path: dir.to_owned(),
        found,
        copy: copy.clone(),
        detail: error.to_string(),
    })?;
    schema::migrate(connection, found).map_err(sqlite)?;
    tracing::info!(
        layout = schema::LAYOUT,
        copy = %copy.display(),
        "the embedded store was brought up to date; the copy of before can be deleted once there is no way back"
    );
    Ok(())
}

/// Refuses a database of an earlier layout that differs from what was written, as far as that layout shows it.
fn check_earlier(connection: &Connection, found: i64, known: Option<u64>) -> Result<(), RecoverError> {
    if found < schema::SUMMED {
        return checks::structure(connection);
    }
    checks::database(connection, found, known)
}

/// Reads the data, if it is what was written.
fn read(connection: &Connection, known: Option<u64>, now: Timestamp) -> Result<Recovered, RecoverError> {
    checks::database(connection, schema::LAYOUT, known)?;
    let recovered = recover::recover(connection, now)?;
    let differences = checks::differences(connection, &recovered.state)?;
    if differences.is_empty() { Ok(recovered) } else { Err(RecoverError::Books(differences)) }
}

/// Checks that the store in `dir` would open, without opening it: the structure of its file, the check sums of all rows, the last
/// commit, and its counters against its spend lines. Changes nothing that the next start or a salvage would then read
/// differently.
///
/// # Errors
/// Why it would not open.
pub fn verify(dir: &Path, clock: &Clock) -> Result<(), OpenError> {
    if !dir.join(super::files::DATABASE).exists() {
        let source = std::io::ErrorKind::NotFound.into();
        return Err(OpenError::Directory { path: dir.to_owned(), source });
    }
    let claim = Claim::make(dir)?;
    let failed = |error| OpenError::from_recover(dir, error);
    let known = owner::last_commit(&claim.path);
    checks::is_there(&claim, known).map_err(failed)?;
    let connection = disk::open(&claim.database()).map_err(|error| failed(RecoverError::Sqlite(error)))?;
    let found = schema::version(&connection).map_err(|error| failed(RecoverError::Sqlite(error)))?;
    if found > schema::LAYOUT {
        return Err(OpenError::Newer { path: dir.to_owned(), found, known: schema::LAYOUT });
    }
    check(&connection, found, known, clock).map_err(failed)
}

/// Refuses a database of layout `found`, no later than the present one, that would not open.
pub(super) fn check(
    connection: &Connection,
    found: i64,
    known: Option<u64>,
    clock: &Clock,
) -> Result<(), RecoverError> {
    match found {
        schema::LAYOUT => read(connection, known, clock.now()).map(drop),
        _ => check_earlier(connection, found, known),
    }
}
