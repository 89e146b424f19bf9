//! What is kept with a settlement: its cost, and which report it booked.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{Failure, ticket};
use crate::{
    domain::{
        money::NanoUsd,
        request::{Outcome, Usage},
    },
    store::{Record, Settlement},
};

/// The format of a receipt; raised when it changes.
const VERSION: u8 = 2;
/// The format before reports could be told apart.
const FIRST_VERSION: u8 = 1;
/// The whole note for the release of a reservation that no caller got: always the same, because a store compares it.
const RELEASED: &[u8] = &[0];

/// The note of a settlement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Receipt {
    pub(super) cost: NanoUsd,
    /// Tells the report from others; 0: unknown.
    report: u64,
}

impl Receipt {
    pub(super) const fn new(cost: NanoUsd, report: u64) -> Self {
        Self { cost, report }
    }

    pub(super) fn of(settlement: &Settlement) -> Result<Self, Failure> {
        match settlement.note.first() {
            Some(&FIRST_VERSION) => {
                Ok(Self { cost: ticket::decode(FIRST_VERSION, &settlement.note)?, report: 0 })
            }
            _ if settlement.note == RELEASED => Ok(Self { cost: NanoUsd::ZERO, report: 0 }),
            _ => ticket::decode(VERSION, &settlement.note),
        }
    }

    pub(super) fn to_note(self) -> Result<Bytes, Failure> {
        ticket::encode(VERSION, &self)
    }

    /// Whether another report than this one was booked.
    pub(super) const fn is_of_another(&self, report: u64) -> bool {
        self.report != 0 && self.report != report
    }
}

/// Tells a repeated report from another about the same request.
pub(super) fn digest(usage: Option<&Usage>, outcome: Outcome) -> u64 {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&postcard::to_stdvec(&(usage, outcome)).unwrap_or_default());
    let mut hash = [0; 8];
    hasher.finalize_xof().fill(&mut hash);
    u64::from_le_bytes(hash).max(1)
}

/// The note of a release. The id is free for another reservation then: a released reservation pays for nothing, and a record
/// that blocked the next one would have to outlive it.
#[must_use]
pub const fn released() -> Bytes {
    Bytes::from_static(RELEASED)
}

/// Whether the reservation was released because no caller got it.
pub(super) fn was_released(record: &Record) -> bool {
    record.settlement.as_ref().is_some_and(|settlement| settlement.note == RELEASED)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Timestamp;

    fn settlement(note: Bytes) -> Settlement {
        Settlement { settled_at: Timestamp(0), counters: Vec::new(), reported: Vec::new(), note }
    }

    #[test]
    fn receipts_of_each_format_are_read() {
        let cost = NanoUsd::new(7).unwrap();
        let first = settlement(Bytes::from_static(&[1, 7]));
        assert_eq!(ticket::encode(FIRST_VERSION, &cost).unwrap(), first.note);
        assert_eq!(Receipt::of(&first).unwrap(), Receipt::new(cost, 0));
        let receipt = Receipt::new(cost, 9);
        let second = settlement(Bytes::from_static(&[2, 7, 9]));
        assert_eq!(receipt.to_note().unwrap(), second.note);
        assert_eq!(Receipt::of(&second).unwrap(), receipt);
        assert_eq!(Receipt::of(&settlement(released())).unwrap(), Receipt::new(NanoUsd::ZERO, 0));
    }
}
