//! Copies of a store: made while a process works in it, and put back into a directory of their own.
//!
//! A copy is what one read transaction sees, so it is the store as of one commit: SQLite keeps that state readable while the process goes
//! on writing, and no lock of the process has to be taken. It is checked as a store is at its opening before it gets its name, so what
//! has the name of a database was whole.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use rusqlite::{Connection, OpenFlags};
use thiserror::Error;

use super::{
    disk,
    error::OpenError,
    files::{self, Claim, DATABASE, LAST_COMMIT, LOCK},
    opening, owner,
    recover::RecoverError,
    schema,
};
use crate::runtime::{Entropy, clock::Clock};

/// What a copy is called until it is known to be whole.
const PART: &str = "tollgate.db.part";

/// Why there is no copy. Nothing of it is left behind.
#[derive(Debug, Error)]
pub enum BackupError {
    /// What is to be copied cannot be read, or its copy is not whole.
    #[error(transparent)]
    From(#[from] OpenError),
    /// What is to be put back is in use: it would be copied by a backup.
    #[error(
        "the store in `{path}` is open in another process: it is no backup; `tollgate store backup TO --store embedded:{path}` makes one",
        path = path.display()
    )]
    InUse {
        /// The directory.
        path: PathBuf,
    },
    /// The new directory cannot be written, or is not empty.
    #[error("cannot write into `{}`: {reason}; name a directory that is not there yet", path.display())]
    To {
        /// The directory.
        path: PathBuf,
        /// Why.
        reason: String,
    },
}

/// A copy that is whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BackedUp {
    /// The size of its database.
    pub bytes: u64,
    /// Its layout.
    pub layout: i64,
    /// The last transaction that is in it; 0 in layouts that do not count them.
    pub commits: u64,
}

/// Copies the store in `from` to the new directory `to`, while a process has it open or not. The copy is a store by itself.
///
/// # Errors
/// The store cannot be read or is damaged, or the directory cannot be written or is not empty.
pub fn backup(from: &Path, to: &Path, clock: &Clock) -> Result<BackedUp, BackupError> {
    let mut target = Target::create(to)?;
    target.hold()?;
    let part = target.copy(from, clock)?;
    target.finish(part)
}

/// Puts the backup in `from` into `to`, an empty directory or a new one. It then belongs to no process that had it before: one that
/// still writes there finds out and stops.
///
/// # Errors
/// A process has one of the two open, the backup is damaged or of a later layout, or the directory is not empty.
pub fn restore(from: &Path, to: &Path, clock: &Clock) -> Result<BackedUp, BackupError> {
    files::is_free(from).map_err(|source| match source.kind() {
        io::ErrorKind::WouldBlock => BackupError::InUse { path: from.to_owned() },
        _ => unreadable(from, source),
    })?;
    if files::is_free(to).is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock) {
        return Err(OpenError::Locked { path: to.to_owned() }.into());
    }
    let mut target = Target::create(to)?;
    // No process can open the store before all of it is there.
    target.claim()?;
    let part = target.copy(from, clock)?;
    let part = target.disown(part)?;
    target.finish(part)
}

fn unreadable(path: &Path, source: io::Error) -> BackupError {
    OpenError::Directory { path: path.to_owned(), source }.into()
}

/// The directory that a copy is written into. What is not finished is removed when it is dropped.
struct Target<'a> {
    path: &'a Path,
    /// Whether the directory was made for the copy.
    is_new: bool,
    /// The files that were made in it, and that no one else can have made.
    made: Vec<&'static str>,
    /// What keeps others out. Let go after what is not to stay was removed: others would find it half gone.
    held: Held,
}

/// Only held.
#[derive(Default)]
struct Held {
    claim: Option<Claim>,
    directory: Option<File>,
}

/// A copy that is whole, and not in its place.
struct Part(BackedUp);

impl<'a> Target<'a> {
    fn create(path: &'a Path) -> Result<Self, BackupError> {
        let is_new = files::create_private_directory(path).map_err(|error| to(path, error))?;
        Ok(Self { path, is_new, made: Vec::new(), held: Held::default() })
    }

    /// Keeps other copies out, as long as the directory is there for this one. Where directories cannot be locked, the first that makes
    /// the file of the copy does.
    fn hold(&mut self) -> Result<(), BackupError> {
        let directory = File::open(self.path).map_err(|error| to(self.path, error))?;
        match directory.try_lock() {
            Err(TryLockError::WouldBlock) => {
                // It is of another one, which may still leave it as it was.
                self.is_new = false;
                let reason = "another process writes a copy there".to_owned();
                return Err(BackupError::To { path: self.path.to_owned(), reason });
            }
            Ok(()) | Err(TryLockError::Error(_)) => {}
        }
        self.held.directory = Some(directory);
        // Another one may have been done in between.
        match fs::read_dir(self.path).map_err(|error| to(self.path, error))?.next() {
            None => Ok(()),
            Some(_) => Err(to(self.path, io::ErrorKind::DirectoryNotEmpty.into())),
        }
    }

    /// Keeps other processes out. The files of the claim are made for it, or another process was faster.
    fn claim(&mut self) -> Result<(), BackupError> {
        let claim = Claim::make(self.path)?;
        let names = fs::read_dir(self.path)
            .map_err(|error| to(self.path, error))?
            .map(|entry| Ok(entry?.file_name()));
        let names: io::Result<Vec<_>> = names.collect();
        let is_ours = |name: &std::ffi::OsString| *name == *LOCK || *name == *DATABASE;
        let is_empty = fs::metadata(claim.database()).is_ok_and(|database| database.len() == 0);
        match names.map_err(|error| to(self.path, error))?.iter().all(is_ours) && is_empty {
            true => self.made.extend([LOCK, DATABASE]),
            false => return Err(to(self.path, io::ErrorKind::DirectoryNotEmpty.into())),
        }
        self.held.claim = Some(claim);
        Ok(())
    }

    /// Copies the store in `from`, and checks the copy.
    fn copy(&mut self, from: &Path, clock: &Clock) -> Result<Part, BackupError> {
        let failed = |error| BackupError::from(OpenError::from_recover(from, error));
        let sqlite = |error| failed(RecoverError::Sqlite(error));
        // SQLite would delete the write-ahead log of an empty database.
        if fs::metadata(from.join(DATABASE)).map_err(|error| unreadable(from, error))?.len() == 0 {
            return Err(failed(RecoverError::Structure(format!("`{DATABASE}` is empty"))));
        }
        // Before the copy begins: every commit that is counted by then has to be in it.
        let known = owner::last_commit(from);
        let source = read_only(&from.join(DATABASE)).map_err(sqlite)?;
        let layout = schema::version(&source).map_err(sqlite)?;
        if layout > schema::LAYOUT {
            let path = from.to_owned();
            return Err(OpenError::Newer { path, found: layout, known: schema::LAYOUT }.into());
        }
        if layout < 1 {
            return Err(failed(RecoverError::Structure("it was never used as a store".to_owned())));
        }
        let part = self.path.join(PART);
        // SQLite writes into an existing empty file, so the mode is ours.
        let made = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&part);
        made.map_err(|error| to(self.path, error))?;
        self.made.push(PART);
        schema::copy_into(&source, &part).map_err(|error| match error {
            schema::CopyError::Io(error) => to(self.path, error),
            schema::CopyError::Sqlite(error) if is_about_space(&error) => {
                BackupError::To { path: self.path.to_owned(), reason: error.to_string() }
            }
            schema::CopyError::Sqlite(error) => sqlite(error),
        })?;
        drop(source);
        let copy = read_only(&part).map_err(sqlite)?;
        opening::check(&copy, layout, known, clock).map_err(failed)?;
        let commits = match layout {
            schema::SUMMED.. => disk::progress(&copy).map_err(sqlite)?.commits,
            _ => 0,
        };
        let bytes = fs::metadata(&part).map_err(|error| to(self.path, error))?.len();
        Ok(Part(BackedUp { bytes, layout, commits }))
    }

    /// Makes the copy that of a process that there never was. Earlier layouts name none before they are brought up to date.
    fn disown(&self, Part(copy): Part) -> Result<Part, BackupError> {
        if copy.layout != schema::LAYOUT {
            return Ok(Part(copy));
        }
        let failed = |reason: String| BackupError::To { path: self.path.to_owned(), reason };
        let owner = Entropy::System.bytes().map_err(|error| failed(error.to_string()))?;
        let write = || {
            let mut connection = Connection::open(self.path.join(PART))?;
            let transaction = connection.transaction()?;
            let mut progress = disk::progress(&transaction)?;
            (progress.owner, progress.commits) = (owner, progress.commits + 1);
            disk::put_progress(&transaction, &progress)?;
            transaction.commit()?;
            Ok(progress.commits)
        };
        let commits = write().map_err(|error: rusqlite::Error| failed(error.to_string()))?;
        Ok(Part(BackedUp { commits, ..copy }))
    }

    /// Gives the copy its name, once it is on the disk.
    fn finish(mut self, Part(copy): Part) -> Result<BackedUp, BackupError> {
        let mut write = || {
            File::open(self.path.join(PART))?.sync_all()?;
            if copy.commits > 0 {
                let mut options = OpenOptions::new();
                let file = options.write(true).create_new(true).mode(0o600).open(self.path.join(LAST_COMMIT));
                let mut file = file?;
                self.made.push(LAST_COMMIT);
                file.write_all(&owner::to_bytes(copy.commits))?;
                file.sync_all()?;
            }
            fs::rename(self.path.join(PART), self.path.join(DATABASE))?;
            File::open(self.path)?.sync_all()?;
            // A new directory lasts once its parent does.
            match self.path.parent().filter(|_| self.is_new) {
                None => Ok(()),
                Some(parent) if parent.as_os_str().is_empty() => File::open(".")?.sync_all(),
                Some(parent) => File::open(parent)?.sync_all(),
            }
        };
        write().map_err(|error| to(self.path, error))?;
        (self.is_new, self.made) = (false, Vec::new());
        Ok(copy)
    }
}

impl Drop for Target<'_> {
    fn drop(&mut self) {
        for name in &self.made {
            let _ = fs::remove_file(self.path.join(name));
        }
        if self.is_new {
            // It stays if something else is in it.
            let _ = fs::remove_dir(self.path);
        }
    }
}

fn to(path: &Path, error: io::Error) -> BackupError {
    BackupError::To { path: path.to_owned(), reason: error.to_string() }
}

/// Opens a database to read it. Beside one with a write-ahead log, SQLite needs the log's index, and makes it where no process has.
fn read_only(path: &Path) -> rusqlite::Result<Connection> {
    let connection = Connection::open_with_flags(
        path,
        OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX,
    )?;
    connection.pragma_update(None, "cell_size_check", true)?;
    Ok(connection)
}

/// Whether the disk that is written to is full.
fn is_about_space(error: &rusqlite::Error) -> bool {
    error.sqlite_error_code() == Some(rusqlite::ErrorCode::DiskFull)
}
