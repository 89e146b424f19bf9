//! A look at a directory from outside of the store: whether one can be opened there. It changes nothing, and opens no database.

use std::{
    fs::{self, File},
    io::{self, Read as _},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use rustix::fs::{Access, access, statvfs};

use super::{
    files::{self, DATABASE, LAST_COMMIT, WAL},
    schema,
};

/// Where SQLite keeps `user_version` and `application_id` in the first page, as big-endian numbers.
const VERSION_AT: usize = 60;
const APPLICATION_AT: usize = 68;
const HEAD: usize = 100;

/// What is looked for in a directory.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wanted {
    /// Its files, the database first.
    pub(crate) files: &'static [&'static str],
    /// What identifies the database in SQLite's `application_id`.
    pub(crate) application: i64,
    /// What it is, such as `store`.
    pub(crate) what: &'static str,
}

/// What is known of a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Look {
    /// The directory, or if it is missing the nearest one above it, where it would be made.
    pub place: PathBuf,
    /// Whether it is there.
    pub exists: bool,
    /// Whether this user may make and change files in the place.
    pub is_writable: bool,
    /// The room on its disk for this user, in bytes.
    pub free_bytes: u64,
    /// The layout of the store that is there; `None`: there is none yet.
    pub layout: Option<i64>,
    /// Whether a process has it open.
    pub is_open: bool,
    /// What other users may read, of the directory and its files.
    pub open_to_others: Vec<PathBuf>,
}

/// The layouts that this release opens: it brings earlier ones up to date.
pub const READABLE_LAYOUTS: std::ops::RangeInclusive<i64> = 1..=schema::LAYOUT;

/// Looks at `dir`.
///
/// # Errors
/// It cannot be looked at, or what is there is no store.
pub fn look(dir: &Path) -> io::Result<Look> {
    let files = &[DATABASE, WAL, LAST_COMMIT];
    look_for(dir, Wanted { files, application: schema::APPLICATION, what: "store" })
}

/// Looks at `dir` for another database in a directory of its own.
///
/// # Errors
/// It cannot be looked at, or what is there is not that.
pub(crate) fn look_for(dir: &Path, wanted: Wanted) -> io::Result<Look> {
    let exists = match fs::metadata(dir) {
        Ok(found) if !found.is_dir() => return Err(io::ErrorKind::NotADirectory.into()),
        Ok(_) => true,
        Err(error) if error.kind() == io::ErrorKind::NotFound => false,
        Err(error) => return Err(error),
    };
    let whole = std::path::absolute(dir)?;
    let place = whole.ancestors().find(|place| place.is_dir()).unwrap_or(Path::new("/")).to_owned();
    let disk = statvfs(&place)?;
    let look = Look {
        is_writable: access(&place, Access::WRITE_OK | Access::EXEC_OK).is_ok(),
        free_bytes: disk.f_bavail.saturating_mul(disk.f_frsize),
        place,
        exists,
        layout: None,
        is_open: false,
        open_to_others: Vec::new(),
    };
    if !exists {
        return Ok(look);
    }
    let is_open = match files::is_free(dir) {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => true,
        free => free.map(|()| false)?,
    };
    let files = wanted.files.iter().map(|name| dir.join(name));
    let paths = std::iter::once(dir.to_owned()).chain(files);
    let is_open_to_others =
        |path: &PathBuf| fs::metadata(path).is_ok_and(|metadata| metadata.mode() & 0o077 != 0);
    let open_to_others = paths.filter(is_open_to_others).collect();
    Ok(Look { layout: layout(dir, wanted)?, is_open, open_to_others, ..look })
}

/// The layout in the first page of a database. A store writes it when it is opened, and moves it there from the write-ahead log
/// before it does anything else.
fn layout(dir: &Path, Wanted { files, application, what }: Wanted) -> io::Result<Option<i64>> {
    let name = files.first().copied().unwrap_or_default();
    let file = match File::open(dir.join(name)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened?,
    };
    let mut head = Vec::with_capacity(HEAD);
    file.take(HEAD as u64).read_to_end(&mut head)?;
    if head.is_empty() {
        return Ok(None);
    }
    let number = |at: usize| {
        let bytes = head.get(at..at + 4).and_then(|bytes| bytes.try_into().ok());
        bytes.map(|bytes| i64::from(u32::from_be_bytes(bytes)))
    };
    match (number(VERSION_AT), number(APPLICATION_AT)) {
        (Some(version), Some(found)) if found == application => Ok(Some(version)),
        _ => Err(io::Error::other(format!("`{name}` is no {what} of Tollgate, or damaged"))),
    }
}

#[cfg(test)]
mod tests {
    use std::{fs::Permissions, os::unix::fs::PermissionsExt as _};

    use super::*;
    use crate::{runtime::clock::Clock, store::embedded::EmbeddedStore};

    #[test]
    fn a_directory_is_looked_at_and_left_as_it_is() {
        let parent = tempfile::tempdir().unwrap();
        let dir = parent.path().join("a/data");
        let absent = look(&dir).unwrap();
        let canonical = |path: &Path| fs::canonicalize(path).unwrap();
        assert_eq!(canonical(&absent.place), canonical(parent.path()));
        assert!(
            !absent.exists
                && absent.is_writable
                && absent.free_bytes > 0
                && !parent.path().join("a").exists()
        );
        let store = EmbeddedStore::open(&dir, Clock::System).unwrap();
        let open = look(&dir).unwrap();
        assert!(
            open.is_open && open.layout == Some(schema::LAYOUT) && open.open_to_others.is_empty(),
            "{open:?}"
        );
        drop(store);
        fs::set_permissions(&dir, Permissions::from_mode(0o755)).unwrap();
        fs::set_permissions(dir.join(DATABASE), Permissions::from_mode(0o644)).unwrap();
        let closed = look(&dir).unwrap();
        assert_eq!(
            (closed.is_open, &*closed.open_to_others),
            (false, &[dir.clone(), dir.join(DATABASE)][..])
        );
        for text in ["not a database", &"x".repeat(200)] {
            fs::write(dir.join(DATABASE), text).unwrap();
            assert!(look(&dir).unwrap_err().to_string().contains("no store of Tollgate"));
        }
        assert!(look(&dir.join(DATABASE)).is_err(), "a file");
    }
}
