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
    /// The directory or its lock file cannot be made.
    #[error("cannot use the directory `{}`: {source}", path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Another process has it open (or this one, a second time).
    #[error("the store in `{}` is open in another process", path.display())]
    Locked {
        /// The directory.
        path: PathBuf,
    },
    /// A later version of Tollgate wrote it.
    #[error("the store in `{}` has schema {found}; this version knows schemas up to {known}", path.display())]
    Newer {
        /// The directory.
        path: PathBuf,
        /// The schema's version.
        found: i64,
        /// The latest version known here.
        known: i64,
    },
    /// What is there is not what the store wrote.
    #[error("the store in `{}` is damaged: {detail}", path.display())]
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
        let damaged = match source.sqlite_error_code() {
            Some(code) => matches!(code, ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase),
            // Not from SQLite, so about a value that it gave us.
            None => true,
        };
        if damaged {
            return Self::Corrupt { path, detail: source.to_string() };
        }
        Self::Database { path, source }
    }
}
