//! A look at a spool's directory from outside: whether one can be opened there. It changes nothing, and opens no database.

use std::{io, path::Path};

use super::{
    disk::{APPLICATION, LAYOUT},
    open::DATABASE,
    rescue,
};
use crate::store::embedded::{Look, Wanted, look_for};

/// What is known of a directory.
#[derive(Clone, Debug)]
pub struct SpoolLook {
    /// What is known of any.
    pub look: Look,
    /// Whether a later release wrote it.
    pub is_later: bool,
    /// The bytes that its database takes already, with its log.
    pub bytes: u64,
    /// Damaged databases that are kept in it.
    pub damaged: u64,
}

/// Looks at `dir`.
///
/// # Errors
/// It cannot be looked at, or what is there is no spool.
pub fn look(dir: &Path) -> io::Result<SpoolLook> {
    let files = &[DATABASE, "spool.db-wal"];
    let look = look_for(dir, Wanted { files, application: APPLICATION, what: "spool" })?;
    let bytes = files.iter().filter_map(|name| std::fs::metadata(dir.join(name)).ok());
    Ok(SpoolLook {
        is_later: look.layout.is_some_and(|layout| layout > LAYOUT),
        bytes: bytes.map(|found| found.len()).sum(),
        damaged: rescue::kept(dir),
        look,
    })
}
