//! The tables of the settings file, which flags and variables do not have.

use toml_edit::TableLike;

use super::{
    SettingsError,
    groq_keys::{self, GROQ_KEYS, GivenGroqKeys},
    receivers::{self, GivenReceivers, RECEIVERS, ReceiverSettings},
};
use crate::domain::policy::upstream::GroqKeys;

/// What a file says in its tables.
#[derive(Default)]
pub(super) struct GivenTables {
    receivers: GivenReceivers,
    groq_keys: GivenGroqKeys,
}

impl GivenTables {
    /// Whether this is a table, and no setting.
    pub(super) fn has(key: &str) -> bool {
        [RECEIVERS, GROQ_KEYS].contains(&key)
    }

    /// Those of a TOML document.
    pub(super) fn of_document(document: &dyn TableLike) -> Result<Self, String> {
        let (receivers, groq_keys) = (receivers::of_document(document)?, groq_keys::of_document(document)?);
        Ok(Self { receivers, groq_keys })
    }

    /// Reads them. `path`: the settings file.
    ///
    /// # Errors
    /// The first that is wrong.
    pub(super) fn read(self, path: &str) -> Result<(Vec<ReceiverSettings>, GroqKeys), SettingsError> {
        Ok((receivers::read(self.receivers, path)?, groq_keys::read(self.groq_keys, path)?))
    }
}
