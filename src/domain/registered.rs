//! What is in force beside the policy document, because it was said while the service ran.

use super::{keys::CreatedKeys, pause::Pauses};

/// What stands in the store's registry.
#[derive(Debug, Default)]
pub struct Registered {
    /// Whether it has never been read: nobody can say then that a key does not exist, or that a team is not paused.
    pub pending: bool,
    /// The keys that were created.
    pub keys: CreatedKeys,
    /// What is paused.
    pub pauses: Pauses,
}

impl Registered {
    /// What stands until it has been read.
    #[must_use]
    pub fn pending() -> Self {
        Self { pending: true, ..Self::default() }
    }
}
