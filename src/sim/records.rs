//! What is known of one reservation, request, report or order.

use super::rules::{self, Book};
use crate::{authorizer::ReservationName, domain::request::Outcome, store::ReservationId};

/// The life of a reservation.
pub(super) const LIFE_MS: u64 = 600_000;

/// A reservation that the store made.
#[derive(Clone, Debug)]
pub(super) struct Grant {
    pub(super) id: ReservationId,
    pub(super) team: usize,
    /// When the store was asked and when it had decided, in true milliseconds.
    pub(super) asked: u64,
    pub(super) made: u64,
    /// The step of the store that made it, and the last one by the time of its answer.
    pub(super) step: u64,
    pub(super) answered: u64,
    /// The step at which the store forgot it.
    pub(super) lost_at: Option<u64>,
    /// How it was settled, each time that the store forgot that once more.
    pub(super) settlements: Vec<Booking>,
    /// The worst case, and the part of it that is charged if it is never reported.
    pub(super) worst: u64,
    pub(super) kept: u64,
    pub(super) tokens: u64,
    /// The first days of the periods that it is booked in, as counters have them.
    pub(super) month: u32,
    pub(super) day: u32,
    /// It may pass any limit: usage is reported that had none.
    pub(super) is_unbounded: bool,
    pub(super) end: End,
    /// A failover forgot how it had ended once.
    pub(super) was_reopened: bool,
    /// A replica passed it on to a caller.
    pub(super) was_delivered: bool,
    pub(super) replica: usize,
}

/// What a reservation was settled for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Booking {
    pub(super) cost: u64,
    /// The step of the store that did it, and the last one by the time of its answer.
    pub(super) step: u64,
    pub(super) answered: u64,
    /// The step at which the store forgot it.
    pub(super) lost_at: Option<u64>,
}

/// How a reservation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    Open,
    /// As if it had never been.
    Released {
        step: u64,
    },
    Settled {
        step: u64,
        at: u64,
        cost: u64,
    },
    /// The store lost its tail, and with it this reservation.
    Lost,
}

/// A request of a client.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    pub(super) team: usize,
    pub(super) user: Option<u64>,
    pub(super) input: u64,
    pub(super) is_odd: bool,
    /// The reservation that it was told of, with the output granted.
    pub(super) told: Option<(ReservationName, u64)>,
    pub(super) report: Option<Sent>,
}

/// A report of usage.
#[derive(Clone, Debug)]
pub(super) struct Sent {
    pub(super) outcome: Outcome,
    /// Input and output tokens; `None`: unknown.
    pub(super) usage: Option<(u64, u64)>,
    pub(super) acknowledged: Vec<Acknowledged>,
}

/// The acknowledgement of a report.
#[derive(Clone, Copy, Debug)]
pub(super) struct Acknowledged {
    pub(super) id: ReservationId,
    /// What it was said to cost; `None`: only the store knows, which did not answer.
    pub(super) cost: Option<u64>,
    /// The last step of the store when it was sent.
    pub(super) sent: u64,
}

/// Something that an operator did, and when it was acknowledged.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ordered {
    pub(super) team: usize,
    pub(super) sent: u64,
    pub(super) acknowledged: u64,
    pub(super) step: u64,
    pub(super) stops: bool,
}

/// A decision that allowed a request.
#[derive(Clone, Copy, Debug)]
pub(super) struct Passed {
    pub(super) team: usize,
    pub(super) began: u64,
    pub(super) ended: u64,
    pub(super) is_keyed: bool,
    /// Whether it was decided without the store.
    pub(super) is_degraded: bool,
}

/// A decision that allowed a request without the store.
#[derive(Clone, Copy, Debug)]
pub(super) struct Degraded {
    pub(super) team: usize,
    pub(super) replica: usize,
    pub(super) at: u64,
    pub(super) tokens: u64,
    pub(super) nanos: u64,
    /// How long ago the last good reading of its replica began; `None`: there was none.
    pub(super) age: Option<u64>,
}

impl Sent {
    /// Whether a spool has acknowledged it that did not know what it costs.
    pub(super) fn lacks_terms(&self) -> bool {
        self.acknowledged.iter().any(|one| one.cost.is_none())
    }
}

impl Grant {
    /// The most that a budget can have of it when its world's clock says `now`.
    pub(super) fn taken(&self, now: u64) -> u64 {
        match self.end {
            End::Open if now > self.made + LIFE_MS => self.kept,
            End::Open => self.worst,
            End::Settled { cost, .. } => cost,
            End::Released { .. } | End::Lost => 0,
        }
    }
}

impl Asked {
    /// The id that it was told.
    pub(super) fn id(&self) -> Option<ReservationId> {
        self.told.as_ref().map(|(name, _)| name.id())
    }

    /// What the report says that it cost, by the prices in plain numbers.
    pub(super) fn cost(&self, book: &Book) -> Option<u64> {
        let report = self.report.as_ref()?;
        let cost = |input, output| rules::cost(self.is_odd, input, output);
        let worst = self.told.as_ref().map(|(_, output)| cost(self.input, *output));
        let by_rule = match book.teams[self.team].unsettled {
            rules::Unsettled::Reserved => worst,
            rules::Unsettled::Input => Some(cost(self.input, 0)),
            rules::Unsettled::Nothing => Some(0),
        };
        match (report.outcome, report.usage) {
            (Outcome::NotSent | Outcome::RateLimited, _) | (Outcome::Failed, None) => Some(0),
            (_, Some((input, output))) => Some(cost(input, output)),
            (Outcome::Completed, None) if by_rule == Some(0) => worst,
            (_, None) => by_rule,
        }
    }
}
