//! The store's directory: who may read it, and the locks that give it to one process.

use std::{
    fs::{self, DirBuilder, File, Metadata, OpenOptions, Permissions, TryLockError},
    io,
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use tracing::warn;

use super::error::OpenError;

/// The database's file in the store's directory. SQLite keeps two more beside it.
pub(super) const DATABASE: &str = "tollgate.db";
/// The journal that SQLite writes before it writes the database.
pub(super) const WAL: &str = "tollgate.db-wal";
/// The file whose lock releases before this layout check.
pub(super) const LOCK: &str = "lock";
/// Where the number of the last commit is kept a second time (`owner.rs`).
pub(super) const LAST_COMMIT: &str = "last-commit";
/// Why a directory cannot be claimed.
#[derive(Debug)]
pub(crate) enum ClaimError {
    /// It or a file in it cannot be created or locked.
    Directory(io::Error),
    /// Another process has it, or this one a second time.
    Locked,
}

/// The permissions of a directory and a file: everything in here is for the service alone, as the key that hashes secrets lies
/// beside the hashes.
const DIRECTORY_MODE: u32 = 0o700;
const FILE_MODE: u32 = 0o600;

/// The store's directory, claimed. Dropped after everything else that has one of its files open: closing the database's file
/// would release SQLite's own locks.
#[derive(Debug)]
pub(crate) struct Claim {
    /// The directory as it was opened, which does not change with the working directory.
    pub(super) path: PathBuf,
    /// That of the database's file.
    name: &'static str,
    database: File,
    /// Device and inode of the database.
    identity: (u64, u64),
    locked: Vec<File>,
}

impl Claim {
    /// Claims the directory of a store.
    ///
    /// # Errors
    /// As [`Claim::of`].
    pub(super) fn make(dir: &Path) -> Result<Self, OpenError> {
        Self::of(dir, DATABASE).map_err(|error| match error {
            ClaimError::Directory(source) => OpenError::Directory { path: dir.to_owned(), source },
            ClaimError::Locked => OpenError::Locked { path: dir.to_owned() },
        })
    }

    /// Creates the directory and the database's file `name` if they are missing, for their owner alone, and locks them for the life of
    /// the claim.
    ///
    /// There are three locks, because each file can be deleted and the directory moved while a process keeps working in them. The
    /// directory's lock holds whatever happens to the files, and the database's wherever the file is moved. The third is the one
    /// that earlier releases check.
    ///
    /// # Errors
    /// It cannot be used, or is claimed.
    pub(crate) fn of(dir: &Path, name: &'static str) -> Result<Self, ClaimError> {
        let unusable = ClaimError::Directory;
        DirBuilder::new().recursive(true).mode(DIRECTORY_MODE).create(dir).map_err(unusable)?;
        let path = fs::canonicalize(dir).map_err(unusable)?;
        let mut locked = Vec::new();
        let directory = File::open(&path).map_err(unusable)?;
        match directory.try_lock() {
            Ok(()) => locked.push(directory),
            Err(TryLockError::WouldBlock) => return Err(ClaimError::Locked),
            // Some file systems can lock only files.
            Err(TryLockError::Error(_)) => {}
        }
        let open = |name| {
            let mut options = OpenOptions::new();
            options.create(true).truncate(false).read(true).write(true).mode(FILE_MODE);
            options.open(path.join(name)).map_err(unusable)
        };
        let lock = |file: &File| match file.try_lock() {
            Ok(()) => Ok(()),
            Err(TryLockError::WouldBlock) => Err(ClaimError::Locked),
            Err(TryLockError::Error(source)) => Err(unusable(source)),
        };
        let before = open(LOCK)?;
        lock(&before)?;
        locked.push(before);
        let database = open(name)?;
        lock(&database)?;
        let identity = identity(&database.metadata().map_err(unusable)?);
        narrow(&path, name);
        Ok(Self { path, name, database, identity, locked })
    }

    /// The directory.
    pub(crate) fn directory(&self) -> &Path {
        &self.path
    }

    /// The database's file.
    pub(crate) fn database(&self) -> PathBuf {
        self.path.join(self.name)
    }

    /// Claims the file that the database's path leads to now, since this process has put another there.
    ///
    /// # Errors
    /// It cannot be opened or locked.
    pub(crate) fn renew(&mut self) -> io::Result<()> {
        let database = OpenOptions::new().read(true).write(true).open(self.database())?;
        database.try_lock()?;
        self.identity = identity(&database.metadata()?);
        self.database = database;
        narrow(&self.path, self.name);
        Ok(())
    }

    /// Whether the database's path still leads to this file. If that cannot be checked, it is assumed.
    pub(crate) fn is_in_place(&self) -> bool {
        match fs::metadata(self.database()) {
            Ok(found) => identity(&found) == self.identity,
            Err(error) => error.kind() != io::ErrorKind::NotFound,
        }
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        // Closing them is not enough while a child that this process has just forked still holds a copy of them.
        for file in self.locked.iter().chain([&self.database]) {
            if let Err(error) = file.unlock() {
                warn!(%error, "a lock of a directory is not released yet");
            }
        }
    }
}

fn identity(metadata: &Metadata) -> (u64, u64) {
    (metadata.dev(), metadata.ino())
}

/// Takes access to the files from other users. A directory that others may enter was created by someone who may intend
/// that, so this is only logged.
fn narrow(dir: &Path, database: &str) {
    let beside = ["-wal", "-shm"].map(|end| format!("{database}{end}"));
    for name in [database, &beside[0], &beside[1], LOCK, LAST_COMMIT] {
        let path = dir.join(name);
        let Ok(metadata) = fs::metadata(&path) else { continue };
        if metadata.mode() & 0o077 == 0 {
            continue;
        }
        match fs::set_permissions(&path, Permissions::from_mode(FILE_MODE)) {
            Ok(()) => {
                warn!(file = %path.display(), "a file that is the service's alone was open to other users; it is not any more");
            }
            Err(error) => {
                warn!(file = %path.display(), %error, "a file that is the service's alone is open to other users");
            }
        }
    }
    if fs::metadata(dir).is_ok_and(|metadata| metadata.mode() & 0o077 != 0) {
        warn!(
            directory = %dir.display(),
            "other users may look into a directory that is the service's alone; its files are closed to them. `chmod 700` closes it, too"
        );
    }
}

/// Whether no process has the store in `dir` open. Changes nothing.
///
/// # Errors
/// [`io::ErrorKind::WouldBlock`] if a process has it open, or why that cannot be checked.
pub(super) fn is_free(dir: &Path) -> io::Result<()> {
    for name in ["", LOCK, DATABASE] {
        let file = match File::open(dir.join(name)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound && !name.is_empty() => continue,
            opened => opened?,
        };
        match file.try_lock_shared() {
            Err(TryLockError::WouldBlock) => return Err(io::ErrorKind::WouldBlock.into()),
            // On a file system that cannot lock directories, the files are locked.
            Ok(()) | Err(TryLockError::Error(_)) => {}
        }
    }
    Ok(())
}

/// Creates a directory that only its owner may read; an existing empty one will do. Whether it is new.
pub(super) fn create_private_directory(path: &Path) -> io::Result<bool> {
    match DirBuilder::new().mode(DIRECTORY_MODE).create(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => match fs::read_dir(path)?.next() {
            None => Ok(false),
            Some(_) => Err(io::ErrorKind::DirectoryNotEmpty.into()),
        },
        made => made.map(|()| true),
    }
}
