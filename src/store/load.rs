//! What waits in a store.

/// What waits in a store at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// Calls that wait for their turn.
    pub calls: u64,
    /// Bytes of journal that are not on disk; `None`: the store has none.
    pub journal_bytes: Option<u64>,
}

/// Looks at what waits in a store, without keeping it open.
pub type LoadProbe = Box<dyn Fn() -> Load + Send + Sync>;
