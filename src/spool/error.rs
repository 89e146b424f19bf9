//! Why a spool cannot be opened, or does not take a record.

use std::{io, path::PathBuf};

use thiserror::Error;

use super::rescue::RescueError;

/// Why a directory cannot be opened as a spool.
#[derive(Debug, Error)]
pub enum SpoolOpenError {
    /// The directory or a file in it cannot be created.
    #[error("cannot use the directory `{}` for the spool: {source}; choose another with --spool-directory", path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Another process has it open, or it is the embedded store's.
    #[error(
        "the directory `{}` is open in another process, or is the embedded store's; every replica needs a spool of its own: choose \
         another with --spool-directory",
        path.display()
    )]
    Locked {
        /// The directory.
        path: PathBuf,
    },
    /// A later release wrote it.
    #[error(
        "the spool in `{}` has layout {found}, and this release knows layout {known}: start the release that wrote it, which delivers it. \
         Nothing was changed",
        path.display()
    )]
    Newer {
        /// The directory.
        path: PathBuf,
        /// The layout's version.
        found: i64,
        /// The latest version known here.
        known: i64,
    },
    /// It holds what another organization's replica has acknowledged.
    #[error(
        "the spool in `{}` holds {records} reports of the organization `{found}`, and the policy's is `{organization}`: start a replica of \
         that organization with it, which delivers them, or choose another with --spool-directory",
        path.display()
    )]
    OtherOrganization {
        /// The directory.
        path: PathBuf,
        /// Whose it is.
        found: String,
        /// Whose it was to be.
        organization: String,
        /// How many records it holds.
        records: u64,
    },
    /// The database cannot be read or written.
    #[error(
        "cannot open the spool in `{}`: {source}; mend its disk or permissions, or move the directory away, keep it, and start again",
        path.display()
    )]
    Database {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: rusqlite::Error,
    },
    /// A part of the database is damaged, and the rest cannot be moved into a new one.
    #[error(
        "a part of the spool in `{}` is damaged, and what can be read of it cannot be moved: {error}. Nothing was changed: make room there, or \
         move the directory away, keep it, and start again",
        path.display()
    )]
    Rescue {
        /// The directory.
        path: PathBuf,
        /// Why.
        error: RescueError,
    },
    /// Its thread cannot be started.
    #[error("cannot start the thread of the spool: {0}")]
    Thread(io::Error),
}

/// Why a record was not kept. Nothing was acknowledged.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum NotKept {
    /// It would take more bytes than the bound.
    #[error("the spool is full")]
    Full,
    /// The disk does not take it; the log says why.
    #[error("the spool's disk does not take it")]
    Unavailable,
}
