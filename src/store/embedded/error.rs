//! Why a store cannot be opened.

use std::{
    io,
    path::{Path, PathBuf},
};

use rusqlite::ErrorCode;
use thiserror::Error;

use super::recover::RecoverError;

/// Why a directory cannot be opened as a store.
#[derive(Debug, Error)]
pub enum OpenError {
    /// The directory or a file in it cannot be created.
    #[error("cannot use the directory `{}`: {source}; choose another with --store embedded:DIRECTORY", path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is already open in another process (or a second time in this one).
    #[error(
        "the store in `{}` is open in another process; stop that, or choose another directory with --store embedded:DIRECTORY",
        path.display()
    )]
    Locked {
        /// The directory.
        path: PathBuf,
    },
    /// A later version of Tollgate wrote it.
    #[error(
        "the store in `{}` has layout {found}, and this release knows layouts up to {known}: use the release that raised it, or a later \
         one. Nothing was changed",
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
    /// It has an earlier layout, and no copy to go back to can be kept.
    #[error("the store in `{}` has layout {found} and cannot be copied to `{}` before it is changed: {detail}", path.display(), copy.display())]
    NotCopied {
        /// The directory.
        path: PathBuf,
        /// The layout's version.
        found: i64,
        /// Where the copy was to be.
        copy: PathBuf,
        /// Why the copy failed.
        detail: String,
    },
    /// The files do not hold what the store wrote.
    #[error(
        "the store in `{dir}` is damaged: {detail}. `tollgate store salvage NEW-DIRECTORY --store embedded:{dir}` writes what can \
         be read into a new directory and tells what cannot; a backup may hold more",
        dir = path.display()
    )]
    Corrupt {
        /// The directory.
        path: PathBuf,
        /// What was found.
        detail: String,
    },
    /// The database cannot be read or written.
    #[error("cannot open the store in `{}`: {source}", path.display())]
    Database {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: rusqlite::Error,
    },
    /// Another process took it over, or the disk failed, during the opening.
    #[error("cannot open the store in `{}`: {detail}", path.display())]
    Lost {
        /// The directory.
        path: PathBuf,
        /// What happened.
        detail: String,
    },
    /// The writer's thread cannot be started.
    #[error("cannot start the store's writer: {0}")]
    Thread(io::Error),
}

impl OpenError {
    pub(super) fn from_recover(path: &Path, error: RecoverError) -> Self {
        let path = path.to_owned();
        let source = match error {
            RecoverError::Sqlite(source) => source,
            other => return Self::Corrupt { path, detail: other.to_string() },
        };
        match source {
            // Not from SQLite itself, so about a value that it returned.
            rusqlite::Error::FromSqlConversionFailure(_, _, cause) => {
                Self::Corrupt { path, detail: cause.to_string() }
            }
            // The file ends within a page: it was cut off.
            source if is_cut_off(&source) => {
                Self::Corrupt { path, detail: "its file was cut off".to_owned() }
            }
            source => match source.sqlite_error_code() {
                // Missing tables or columns make statements unknown.
                Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase | ErrorCode::Unknown) | None => {
                    Self::Corrupt { path, detail: source.to_string() }
                }
                Some(_) => Self::Database { path, source },
            },
        }
    }
}

fn is_cut_off(error: &rusqlite::Error) -> bool {
    let code = error.sqlite_error().map(|failure| failure.extended_code);
    code == Some(rusqlite::ffi::SQLITE_IOERR_SHORT_READ)
}
