//! What is in force in addition to the policy document because it was registered while the service ran.

use super::{keys::CreatedKeys, pause::Pauses};

/// The content of the store's registry.
#[derive(Debug, Default)]
pub struct Registered {
    /// Whether it has never been read. Until then, an unknown key may still exist, and any team may be paused.
    pub pending: bool,
    /// The keys that were created.
    pub keys: CreatedKeys,
    /// What is paused.
    pub pauses: Pauses,
}

impl Registered {
    /// The state before the first read.
    #[must_use]
    pub fn pending() -> Self {
        Self { pending: true, ..Self::default() }
    }
}
