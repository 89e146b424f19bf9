//! What the authorizers of all cores share.

use std::sync::Arc;

use super::{
    DecisionFeed, DecisionLog, Queue, RefusedReports, budgets, counting::Timing, in_flight, outage,
    spooling::Recalls,
};
use crate::{live::Live, spool::Spool};

/// What the authorizers of all cores share.
#[derive(Debug)]
pub struct Shared {
    /// What is in force.
    pub live: Arc<Live>,
    /// Requests that wait for room.
    pub queue: Queue,
    pub(super) denying: budgets::Denying,
    /// Which decisions are logged.
    pub decisions: DecisionLog,
    /// Decisions for those who watch.
    pub feed: Arc<DecisionFeed>,
    /// What keeps reports while the store does not answer; `None`: nothing does.
    pub spool: Option<Spool>,
    /// What the stores of all cores remember of reservations.
    pub(super) recalls: Recalls,
    pub(super) refused_reports: RefusedReports,
    pub(super) allowances: outage::Allowances,
    pub(super) failing: outage::FailingSince,
    pub(super) in_flight: in_flight::InFlightChecks,
    pub(super) timing: Timing,
}

impl Shared {
    /// What authorizers share that decide by what is in `live`.
    #[must_use]
    pub fn new(live: Arc<Live>) -> Self {
        Self {
            live,
            queue: Queue::default(),
            denying: budgets::Denying::default(),
            decisions: DecisionLog::default(),
            feed: Arc::default(),
            spool: None,
            recalls: Recalls::default(),
            refused_reports: RefusedReports::default(),
            allowances: outage::Allowances::default(),
            failing: outage::FailingSince::default(),
            in_flight: in_flight::InFlightChecks::default(),
            timing: Timing::default(),
        }
    }

    /// The same, with `decisions` logged.
    #[must_use]
    pub fn with_decisions(self, decisions: DecisionLog) -> Self {
        Self { decisions, ..self }
    }

    /// The same, with reports kept in `spool` while the store does not answer.
    #[must_use]
    pub fn with_spool(self, spool: Option<Spool>) -> Self {
        Self { spool, ..self }
    }

    /// The same, with the durations of decisions recorded in `timing`.
    #[must_use]
    pub fn with_timing(self, timing: Timing) -> Self {
        Self { timing, ..self }
    }
}
