//! What a report is booked with where the store has no reservation for it.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::super::{Failure, outage::Opened, receipt, ticket::Ticket};
use crate::{
    domain::{
        MAX_AMOUNT, Timestamp,
        counter::{CounterKey, CounterKind, Hold},
        holds::{Holds, Terms},
        limit::Quantity,
        plan,
        price::{ToolCatalogue, ToolRates},
        request::Usage,
        window::SLOTS,
    },
    store::{Record, ReservationId, Reserve},
};

/// What is known of a request: its terms, and the counters that it belongs to. A field more is another version of the record.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Facts {
    pub(super) decided_at: Timestamp,
    /// When its reservation expires.
    pub(super) expires_at: Timestamp,
    /// The counters, in the order of the quantities of the ticket.
    counters: Vec<(CounterKey, CounterKind)>,
    /// A ticket that is whole.
    note: Bytes,
    /// The prices of tools that the ticket does not have and the usage needs.
    pub(super) tools: Vec<ToolRates>,
}

impl Facts {
    /// Those of a reservation as this replica remembers it.
    pub(super) fn of_record(
        record: &Record,
        usage: Option<&Usage>,
        tools: &ToolCatalogue,
    ) -> Result<Self, Failure> {
        let ticket = Ticket::of(record)?;
        let note = ticket.renoted(ticket.quantities.clone())?;
        Self::new((record.reserved_at, record.expires_at), &record.holds, note, (usage, tools))
    }

    /// Those of a reservation that was made in an outage.
    pub(super) fn of_degraded(
        Opened { at, expires_at, holds, note }: &Opened,
        usage: Option<&Usage>,
        tools: &ToolCatalogue,
    ) -> Result<Self, Failure> {
        Self::new((*at, *expires_at), holds, note.clone(), (usage, tools))
    }

    /// Those of a request with this whole ticket, on the counters of `holds`.
    pub(super) fn new(
        (decided_at, expires_at): (Timestamp, Timestamp),
        holds: &Holds,
        note: Bytes,
        (usage, tools): (Option<&Usage>, &ToolCatalogue),
    ) -> Result<Self, Failure> {
        let ticket = Ticket::read(&Terms::default(), &note)?;
        let used = usage.into_iter().flat_map(|usage| &usage.tools);
        let unpriced = used.filter(|used| !ticket.tools.iter().any(|rates| *rates.name == *used.tool));
        let tools = unpriced.filter_map(|used| tools.action(&used.tool, decided_at).cloned()).collect();
        let counters = holds.iter().map(|hold| (hold.counter.clone(), hold.kind)).collect();
        Ok(Self { decided_at, expires_at, counters, note, tools })
    }

    /// The ticket.
    pub(super) fn ticket(&self) -> Result<Ticket, Failure> {
        Ticket::read(&Terms::default(), &self.note)
    }

    /// The ticket with the prices of all tools.
    pub(super) fn priced(&self) -> Result<Ticket, Failure> {
        let mut ticket = self.ticket()?;
        ticket.tools.extend(self.tools.iter().cloned());
        Ok(ticket)
    }

    /// Room for it under `id`, past any bound. Windows that have passed since it was decided do not count it.
    pub(super) fn reserve(&self, id: ReservationId, now: Timestamp) -> Result<Reserve, Failure> {
        let (ticket, age_ms) = (self.ticket()?, now.since(self.decided_at));
        let counts = |kind: &CounterKind| match kind {
            CounterKind::Window { slot_ms } => age_ms < slot_ms.saturating_mul(SLOTS),
            CounterKind::Budget { .. } => true,
        };
        let counting = || self.counters.iter().zip(&ticket.quantities).filter(|((_, kind), _)| counts(kind));
        let holds: Holds = counting()
            .map(|((counter, kind), quantity)| Hold {
                counter: counter.clone(),
                kind: *kind,
                limit: MAX_AMOUNT,
                kept: 0,
                expiring: u64::from(*quantity == Quantity::Requests),
            })
            .collect();
        let note = ticket.renoted(counting().map(|(_, quantity)| *quantity).collect())?;
        Ok(Reserve {
            id,
            may_repeat: true,
            fingerprint: 0,
            holds,
            gates: Vec::new(),
            valid: Timestamp(0)..Timestamp(MAX_AMOUNT),
            ttl_ms: plan::RESERVATION_TTL_MS,
            late_ms: plan::LATE_MS,
            note,
            replaces: receipt::released(),
            dry_run: false,
        })
    }
}
