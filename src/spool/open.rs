//! Turns a directory into a running spool.

use std::{
    fs::File,
    io,
    path::Path,
    sync::{Arc, Mutex},
};

use rusqlite::Connection;
use tokio::sync::{Notify, mpsc};

use super::{
    Handle, MAX_JOBS, Shared, Spool, SpoolOpenError, SpoolState,
    disk::{Disk, LAYOUT},
    rescue::{self, Rest},
    row::is_damaged_page,
    worker::Worker,
};
use crate::{
    domain::Timestamp,
    runtime::{Entropy, clock::Clock},
    store::embedded::{Claim, ClaimError},
};

/// The database in the spool's directory. SQLite keeps two more beside it.
pub(super) const DATABASE: &str = "spool.db";

/// A directory that is ready to be used.
pub(super) struct Opened {
    pub(super) disk: Disk,
    pub(super) state: SpoolState,
    /// Its name, and the organization whose reports it holds.
    pub(super) about: (String, String),
    /// The last field, so that the database is closed before it.
    pub(super) claim: Claim,
}

impl Spool {
    /// Opens the spool of a replica of `organization` in `dir`, which is created if it does not exist, and takes up what a process that
    /// ended has left there. It may take `max_bytes` of the disk. Of a damaged one it takes up what can be read, and keeps the rest beside it.
    ///
    /// # Errors
    /// The directory cannot be used, is already open, or holds something that cannot be read or belongs to another organization.
    pub fn open(dir: &Path, max_bytes: u64, organization: &str) -> Result<Self, SpoolOpenError> {
        Self::start(ready(dir, max_bytes, organization)?)
    }

    /// Starts the thread.
    pub(super) fn start(opened: Opened) -> Result<Self, SpoolOpenError> {
        let state = opened.state.clone();
        if state.records > 0 {
            tracing::info!(
                reports = state.records,
                "the spool has reports of usage of before; they are delivered to the store"
            );
        }
        let name = opened.about.0.as_str().into();
        let shared = Arc::new(Shared { state: Mutex::new(state), kept: Notify::new() });
        // Those of before are delivered without waiting for another.
        shared.kept.notify_one();
        let (jobs, queue) = mpsc::channel(MAX_JOBS);
        let worker = Worker::new(opened, Arc::clone(&shared), queue);
        let (running, ended) = std::sync::mpsc::channel();
        let span = tracing::Span::current();
        let thread = std::thread::Builder::new().name("spool".to_owned()).spawn(move || {
            let _span = span.enter();
            worker.run();
            drop(running);
        });
        let thread = Some(thread.map_err(SpoolOpenError::Thread)?);
        Ok(Self(Arc::new(Handle { name, jobs: Some(jobs), shared, thread, ended: Mutex::new(ended) })))
    }
}

/// Claims a directory, and reads what is in it.
pub(super) fn ready(dir: &Path, max_bytes: u64, organization: &str) -> Result<Opened, SpoolOpenError> {
    let unusable = |source| SpoolOpenError::Directory { path: dir.to_owned(), source };
    let mut claim = Claim::of(dir, DATABASE).map_err(|error| match error {
        ClaimError::Directory(source) => unusable(source),
        ClaimError::Locked => SpoolOpenError::Locked { path: dir.to_owned() },
    })?;
    rescue::put_in_place(&mut claim).map_err(unusable)?;
    let found = match look(dir, &claim, max_bytes, organization) {
        Err(SpoolOpenError::Database { source, .. }) if is_damaged_page(&source) => {
            let failed = |error| SpoolOpenError::Rescue { path: dir.to_owned(), error };
            let from = Connection::open(claim.database()).map_err(|error| failed(error.into()))?;
            let rest = Rest { about: None, last: 0, now: now() };
            rescue::rescue(from, &mut claim, rest).map_err(failed)?;
            look(dir, &claim, max_bytes, organization)?
        }
        found => found?,
    };
    let (disk, state, about) = found;
    // The names of the files have to survive a power cut, too.
    File::open(claim.directory()).and_then(|directory| directory.sync_all()).map_err(unusable)?;
    Ok(Opened { disk, state, about, claim })
}

/// The system's time, for what people read.
pub(super) fn now() -> Timestamp {
    Clock::System.now()
}

type Found = (Disk, SpoolState, (String, String));

fn look(dir: &Path, claim: &Claim, max_bytes: u64, organization: &str) -> Result<Found, SpoolOpenError> {
    let failed = |source| SpoolOpenError::Database { path: dir.to_owned(), source };
    let mut disk = Disk::open(&claim.database(), max_bytes).map_err(failed)?;
    match disk.layout().map_err(failed)? {
        // In the file itself, so that what it is can be seen from outside.
        0 => disk.create().and_then(|()| disk.shrink()).map_err(failed)?,
        LAYOUT => {}
        found => return Err(SpoolOpenError::Newer { path: dir.to_owned(), found, known: LAYOUT }),
    }
    let mut state =
        SpoolState { max_bytes, damaged: rescue::kept(claim.directory()), ..SpoolState::default() };
    disk.count(&mut state).map_err(failed)?;
    let name = match disk.about().map_err(failed)? {
        Some((_, found)) if found != organization && state.records > 0 => {
            let (path, organization) = (dir.to_owned(), organization.to_owned());
            let records = state.records;
            return Err(SpoolOpenError::OtherOrganization { path, found, organization, records });
        }
        Some((name, found)) if found == organization => name,
        Some(_) | None => {
            let unnamed = |error| {
                let source = io::Error::other(error);
                SpoolOpenError::Directory { path: dir.to_owned(), source }
            };
            let digits: [u8; 4] = Entropy::System.bytes().map_err(unnamed)?;
            let name = format!("{:08x}", u32::from_be_bytes(digits));
            disk.set_about(&name, organization).map_err(failed)?;
            name
        }
    };
    Ok((disk, state, (name, organization.to_owned())))
}
