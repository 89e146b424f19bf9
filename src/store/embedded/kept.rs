//! Reservations in memory, and as they are written.

use crate::{domain::Timestamp, store::Record};

/// A reservation in memory.
pub(super) struct Kept {
    /// The op that made it; distinguishes it from an earlier one with the same id.
    pub(super) seq: u64,
    /// The op that last changed it.
    pub(super) lsn: u64,
    /// From this instant on it is gone, whether or not it was removed yet.
    pub(super) forget_at: Timestamp,
    /// When the version that was written while it was open ends; 0: there is none.
    pub(super) open_until: Timestamp,
    /// Whether it is in `dirty`.
    pub(super) dirty: bool,
    pub(super) record: Record,
}

/// A reservation as a segment keeps it.
pub(super) struct ReservationRow {
    pub(super) id: u128,
    pub(super) seq: u64,
    pub(super) lsn: u64,
    pub(super) forget_at: Timestamp,
    /// When an earlier version in another segment ends, which must not outlive this one.
    pub(super) open_until: Timestamp,
    pub(super) record: Record,
}
