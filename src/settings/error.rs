//! Why settings cannot be loaded.

use thiserror::Error;

/// Why the settings could not be loaded.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum SettingsError {
    /// A named file cannot be read.
    #[error("`{path}` cannot be read: {reason}")]
    Unreadable {
        /// The file.
        path: String,
        /// The system's error.
        reason: String,
    },
    /// The settings file is not valid TOML (or JSON).
    #[error("`{path}`{line}: {reason}", line = line.map(|l| format!(", line {l}")).unwrap_or_default())]
    Malformed {
        /// The file.
        path: String,
        /// The line from 1.
        line: Option<usize>,
        /// What is wrong.
        reason: String,
    },
    /// A setting that does not exist.
    #[error("{origin} is no setting; {help}")]
    Unknown {
        /// The setting, and its source.
        origin: String,
        /// The setting that was probably meant.
        help: String,
    },
    /// A setting with an invalid value.
    #[error("{origin}: {reason}")]
    Invalid {
        /// The setting, and its source.
        origin: String,
        /// What is wrong.
        reason: String,
    },
}
