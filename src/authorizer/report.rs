//! What is reported about a request that ended.

use super::receipt;
use crate::{
    domain::{
        request::{Outcome, Usage},
        tally::SettlementResult,
    },
    store::ReservationId,
};

/// How a request ended, as it is reported.
pub(super) struct Report {
    pub(super) usage: Option<Usage>,
    pub(super) outcome: Outcome,
    pub(super) upstream_delay_ms: u64,
    /// Whether it is about a reservation that the reporter asked for: only then does it change a cooldown.
    pub(super) of_own: bool,
    /// Whether it names the request instead of its reservation. Two requests may do so with the same `request_id`.
    by_request_id: bool,
    /// The released reservation that it is about.
    pub(super) released: Option<ReservationId>,
}

impl Report {
    pub(super) const fn new(usage: Option<Usage>, outcome: Outcome, upstream_delay_ms: u64) -> Self {
        Self { usage, outcome, upstream_delay_ms, of_own: true, by_request_id: false, released: None }
    }

    pub(super) fn by_request_id(self) -> Self {
        Self { by_request_id: true, ..self }
    }

    pub(super) fn without_reservation(self) -> Self {
        Self { of_own: false, ..self }
    }

    /// It is booked under another id than that of the reservation it is about, which was released.
    pub(super) fn of_released(self, id: ReservationId) -> Self {
        Self { released: Some(id), ..self.without_reservation() }
    }

    pub(super) fn digest(&self) -> u64 {
        receipt::digest(self.usage.as_ref(), self.outcome)
    }

    /// Whether it may be the repeat of another request, whose usage would be lost. A request that was not sent used nothing.
    pub(super) const fn must_repeat(&self) -> bool {
        self.by_request_id && !matches!(self.outcome, Outcome::NotSent)
    }

    /// How it was booked.
    pub(super) const fn result(&self, is_repeated: bool, has_expired: bool) -> SettlementResult {
        match (is_repeated, self.of_own || self.released.is_some()) {
            (true, _) => SettlementResult::Repeated,
            (false, false) => SettlementResult::Unreserved,
            (false, true) if has_expired => SettlementResult::Late,
            (false, true) => SettlementResult::Settled,
        }
    }
}
