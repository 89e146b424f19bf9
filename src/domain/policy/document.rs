//! The text that a policy was read from.

use std::{
    fmt,
    sync::{Arc, OnceLock},
};

/// How a policy document is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DocumentFormat {
    /// TOML.
    Toml,
    /// JSON.
    Json,
}

impl DocumentFormat {
    /// Every format.
    pub const ALL: [Self; 2] = [Self::Toml, Self::Json];

    /// Its name in the contract.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Toml => "toml",
            Self::Json => "json",
        }
    }
}

/// The text that a policy was read from. It has digests of secrets, so neither `Debug` nor anything else prints it as it is.
pub struct PolicyDocument {
    /// The whole text, at most 32 MiB, without a byte order mark.
    pub text: Arc<str>,
    /// How it is written.
    pub format: DocumentFormat,
    shown: OnceLock<ShownDocument>,
}

/// A document as it may be shown to those who read the policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShownDocument {
    /// Its text without secrets and digests.
    pub text: Arc<str>,
    /// Whether that ends before the document does.
    pub is_truncated: bool,
}

impl PolicyDocument {
    /// The document with this text.
    #[must_use]
    pub fn new(text: &str, format: DocumentFormat) -> Self {
        Self { text: text.into(), format, shown: OnceLock::new() }
    }

    /// What may be shown of it, made by `make` the first time: it takes as long as parsing the document.
    pub fn shown(&self, make: impl FnOnce() -> ShownDocument) -> &ShownDocument {
        self.shown.get_or_init(make)
    }
}

impl fmt::Debug for PolicyDocument {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("PolicyDocument").field(&self.format).field(&self.text.len()).finish()
    }
}
