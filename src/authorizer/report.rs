//! What is reported about a request that ended.

use super::receipt;
use crate::{
    domain::{
        Timestamp,
        plan::LATE_MS,
        price::ToolRates,
        request::{Outcome, Usage},
        tally::SettlementResult,
    },
    store::{Record, ReservationId},
};

/// How a request ended, as it is reported.
#[derive(Clone)]
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
    /// The decision that it is about, if that was made without the store.
    pub(super) in_outage: Option<InOutage>,
    /// What it was when it was acknowledged, if that was before it is booked.
    pub(super) spooled: Option<Spooled>,
    /// Whether its settlement is remembered for as long as one that may be booked again after a crash.
    pub(super) keeps_long: bool,
}

/// What a report is booked with that was acknowledged while the store did not answer.
#[derive(Clone)]
pub(super) struct Spooled {
    /// When its request was decided; `None`: only the store knows it.
    pub(super) decided_at: Option<Timestamp>,
    /// The prices of tools that its reservation does not have.
    pub(super) tools: Vec<ToolRates>,
}

/// A decision that was made without the store.
#[derive(Clone, Copy)]
pub(super) struct InOutage {
    /// When it was made.
    pub(super) at: Timestamp,
    /// When its reservation expired.
    expires_at: Timestamp,
    /// How long the settlement is kept to recognise a repeat, in milliseconds.
    keep_ms: u64,
}

/// How long a settled reservation is remembered to recognise a repeated report: longer than any client retries a call, short
/// enough that a busy day does not fill the store.
pub(super) const KEEP_SETTLED_MS: u64 = 10 * 60 * 1000;
/// The same for what was spooled: its replica may have booked it, crashed before it noted that, and come back a day later.
pub(super) const KEEP_SPOOLED_MS: u64 = LATE_MS;

impl Report {
    pub(super) const fn new(usage: Option<Usage>, outcome: Outcome, upstream_delay_ms: u64) -> Self {
        Self {
            usage,
            outcome,
            upstream_delay_ms,
            of_own: true,
            by_request_id: false,
            released: None,
            in_outage: None,
            spooled: None,
            keeps_long: false,
        }
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

    /// It was acknowledged before, and is booked now.
    pub(super) fn delivered(self, spooled: Spooled) -> Self {
        Self { spooled: Some(spooled), keeps_long: true, ..self }
    }

    /// Its settlement is remembered for as long as one that was spooled, if replicas have spools.
    pub(super) fn keeping_long(self, keeps_long: bool) -> Self {
        Self { keeps_long: self.keeps_long || keeps_long, ..self }
    }

    /// It is about a decision that was made without the store at the first of the instants and expired at the second. `keep_ms`: how
    /// long it can be reported.
    pub(super) fn decided_in_outage(self, (at, expires_at): (Timestamp, Timestamp), keep_ms: u64) -> Self {
        Self { in_outage: Some(InOutage { at, expires_at, keep_ms }), ..self }
    }

    /// When the request was decided whose reservation is `record`.
    pub(super) fn decided_at(&self, record: &Record) -> Timestamp {
        let spooled = self.spooled.as_ref().and_then(|spooled| spooled.decided_at);
        self.in_outage.map(|outage| outage.at).or(spooled).unwrap_or(record.reserved_at)
    }

    /// Whether it comes after the expiry.
    pub(super) fn is_late(&self, record: &Record, now: Timestamp) -> bool {
        self.in_outage.map_or(record.expires_at, |outage| outage.expires_at) <= now
    }

    /// How long the settlement is remembered, in milliseconds.
    pub(super) fn keep_ms(&self) -> u64 {
        let least = if self.keeps_long { KEEP_SPOOLED_MS } else { KEEP_SETTLED_MS };
        self.in_outage.map_or(least, |outage| outage.keep_ms.max(least))
    }

    /// Whether it says anything about a cooldown: one that comes long after its request does not.
    pub(super) const fn is_news(&self) -> bool {
        self.of_own && self.spooled.is_none()
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
