//! Directories of what needs a store of its own for a while.

use std::{
    fs,
    path::{Path, PathBuf},
};

use super::{Entropy, NoEntropy};

/// A directory that is removed when it is dropped. The store that is opened there makes it.
#[derive(Debug)]
pub struct TemporaryDirectory(PathBuf);

impl TemporaryDirectory {
    /// A new one, whose name begins with `tollgate-` and `purpose`.
    ///
    /// # Errors
    /// The system gives no random numbers.
    pub fn new(purpose: &str) -> Result<Self, NoEntropy> {
        let bytes = Entropy::System.bytes()?;
        let name = format!("tollgate-{purpose}-{:016x}", u64::from_le_bytes(bytes));
        Ok(Self(std::env::temp_dir().join(name)))
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for TemporaryDirectory {
    fn drop(&mut self) {
        // What cannot be removed is left to the system's own clean-up.
        let _ = fs::remove_dir_all(&self.0);
    }
}
