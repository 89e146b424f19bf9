//! Directories of commands that need a store of their own.

use std::{
    fs,
    path::{Path, PathBuf},
};

use super::screen::Failure;
use crate::runtime::Entropy;

/// A directory that is removed when it is dropped. The store that is opened there makes it.
pub(super) struct TemporaryDirectory(PathBuf);

impl TemporaryDirectory {
    /// A new one, whose name begins with `tollgate-` and `purpose`.
    pub(super) fn new(purpose: &str) -> Result<Self, Failure> {
        let bytes = Entropy::System.bytes().map_err(|error| Failure::new(error.to_string()))?;
        let name = format!("tollgate-{purpose}-{:016x}", u64::from_le_bytes(bytes));
        Ok(Self(std::env::temp_dir().join(name)))
    }

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for TemporaryDirectory {
    fn drop(&mut self) {
        // What cannot be removed is left to the system's own clean-up.
        let _ = fs::remove_dir_all(&self.0);
    }
}
