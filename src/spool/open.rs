//! Turns a directory into a running spool.

use std::{
    fs::File,
    io,
    path::Path,
    sync::{Arc, Mutex},
};

use tokio::sync::{Notify, mpsc};

use super::{
    Handle, MAX_JOBS, Shared, Spool, SpoolOpenError, SpoolState,
    disk::{Disk, LAYOUT},
    worker::Worker,
};
use crate::{
    runtime::Entropy,
    store::embedded::{Claim, ClaimError},
};

/// The database in the spool's directory. SQLite keeps two more beside it.
const DATABASE: &str = "spool.db";

impl Spool {
    /// Opens the spool of a replica of `organization` in `dir`, which is created if it does not exist, and takes up what a process that
    /// ended has left there. It may take `max_bytes` of the disk.
    ///
    /// # Errors
    /// The directory cannot be used, is already open, or holds something that cannot be read or belongs to another organization.
    pub fn open(dir: &Path, max_bytes: u64, organization: &str) -> Result<Self, SpoolOpenError> {
        let claim = Claim::of(dir, DATABASE).map_err(|error| match error {
            ClaimError::Directory(source) => SpoolOpenError::Directory { path: dir.to_owned(), source },
            ClaimError::Locked => SpoolOpenError::Locked { path: dir.to_owned() },
        })?;
        let failed = |source| SpoolOpenError::Database { path: dir.to_owned(), source };
        let mut disk = Disk::open(&claim.database(), max_bytes).map_err(failed)?;
        match disk.layout().map_err(failed)? {
            0 => disk.create().map_err(failed)?,
            LAYOUT => {}
            found => return Err(SpoolOpenError::Newer { path: dir.to_owned(), found, known: LAYOUT }),
        }
        let mut state = SpoolState { max_bytes, ..SpoolState::default() };
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
        // The names of the files have to survive a power cut, too.
        let unusable = |source| SpoolOpenError::Directory { path: dir.to_owned(), source };
        File::open(claim.directory()).and_then(|directory| directory.sync_all()).map_err(unusable)?;
        if state.records > 0 {
            tracing::info!(
                reports = state.records,
                "the spool has reports of usage of before; they are delivered to the store"
            );
        }
        let shared = Arc::new(Shared { state: Mutex::new(state), kept: Notify::new() });
        // Those of before are delivered without waiting for another.
        shared.kept.notify_one();
        let (jobs, queue) = mpsc::channel(MAX_JOBS);
        let worker = Worker::new(disk, claim, Arc::clone(&shared), queue);
        let thread = std::thread::Builder::new().name("spool".to_owned()).spawn(move || worker.run());
        let thread = thread.map_err(SpoolOpenError::Thread)?;
        Ok(Self(Arc::new(Handle { name: name.into(), jobs: Some(jobs), shared, thread: Some(thread) })))
    }
}
