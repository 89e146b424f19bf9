//! Booking one report that was kept: once, at the price that its caller was told.
//!
//! The store recognizes a repeat for as long as it remembers the settlement. So a report that it may have booked before, and of which it
//! knows nothing by now, is not booked a second time:
//!
//! | the store has no reservation, and … | |
//! | --- | --- |
//! | it was never asked, or so lately that it would remember a settlement | it has lost the reservation: booked by what is known of it |
//! | it was asked, and would still hold the reservation unsettled | it was settled, and the settlement is forgotten |
//! | it was asked, and would have forgotten the reservation as well | no one can tell: kept aside |

use tracing::{error, warn};

use super::{
    facts::Facts,
    record::{SpoolRecord, Subject},
};
use crate::{
    authorizer::{
        Authorizer, Failure,
        outage::in_outage,
        report::{KEEP_SETTLED_MS, KEEP_SPOOLED_MS, Report},
        settle::made,
        ticket::{self, Ticket},
    },
    domain::{Timestamp, plan},
    spool::Taken,
    store::{Record, ReservationId, Reserved, Store, StoreError},
};

/// Clocks of replicas and the store's may differ by this much.
const MARGIN_MS: u64 = 60_000;

/// What became of a report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Delivery {
    /// It is in the books.
    Booked,
    /// The store refused it for good.
    Refused(String),
}

/// Whether a failure passes by itself.
const fn passes(failure: &Failure) -> bool {
    matches!(
        failure,
        Failure::Store(StoreError::Unavailable | StoreError::Overloaded | StoreError::LayoutUnsupported(_))
    )
}

/// Whether it is the usage that cannot be booked.
const fn is_of_usage(failure: &Failure) -> bool {
    matches!(failure, Failure::NotPriced(_) | Failure::UnknownTool(_) | Failure::ImpossibleUsage(_))
}

impl<S: Store + Clone> Authorizer<S> {
    /// Books what was `taken`.
    ///
    /// # Errors
    /// The store does not answer; it is to be tried again.
    pub(super) async fn deliver(&self, taken: &Taken, record: &SpoolRecord) -> Result<Delivery, Failure> {
        let id = taken.entry.id;
        let booked = match self.deliver_as_reported(taken, record).await {
            Err(failure) if is_of_usage(&failure) && record.usage.is_some() => {
                // It is not lost: the team's rule for unreported requests decides, as behind a proxy.
                error!(reservation_id = %id, error = %failure, "the usage of a report that was spooled cannot be booked");
                let without = SpoolRecord { usage: None, ..record.clone() };
                self.deliver_as_reported(taken, &without).await
            }
            delivered => delivered,
        };
        match booked {
            Ok(delivery) => Ok(delivery),
            Err(failure) if passes(&failure) => Err(failure),
            Err(failure) => Ok(Delivery::Refused(failure.to_string())),
        }
    }

    async fn deliver_as_reported(&self, taken: &Taken, record: &SpoolRecord) -> Result<Delivery, Failure> {
        let (id, now) = (taken.entry.id, self.store.now());
        match (record.subject, &record.facts) {
            (Subject::Stored, facts) => {
                match self.settle_report(id, &record.report(), &record.scope()).await {
                    Err(Failure::UnknownReservation) => {
                        self.deliver_lost((taken, now), record, facts.as_ref()).await
                    }
                    booked => booked.map(|_| Delivery::Booked),
                }
            }
            (Subject::Unreserved | Subject::Degraded, Some(facts)) => {
                let asked_at = taken.entry.about.tried_at.unwrap_or(taken.entry.about.at);
                if is_forgotten(asked_at, KEEP_SPOOLED_MS, now) && self.store.find(id).await?.is_none() {
                    return Ok(untold());
                }
                let report = match record.subject {
                    Subject::Degraded => {
                        let span = (facts.decided_at, facts.expires_at);
                        in_outage(record.report(), span, now)
                    }
                    _ => record.report().by_request_id(),
                };
                self.book_facts(id, (facts, now), report).await
            }
            (Subject::Unreserved | Subject::Degraded, None) => {
                error!(reservation_id = %id, "a report that was spooled lacks what it is booked with");
                Err(Failure::Internal)
            }
        }
    }

    /// The store does not know the reservation.
    async fn deliver_lost(
        &self,
        (taken, now): (&Taken, Timestamp),
        record: &SpoolRecord,
        facts: Option<&Facts>,
    ) -> Result<Delivery, Failure> {
        let id = taken.entry.id;
        // Its gateway may have reported it before, or to another replica since, and the store remembers a settlement for minutes.
        let could_be_settled = facts.map_or(taken.entry.about.at, |facts| facts.decided_at);
        if is_forgotten(could_be_settled, KEEP_SETTLED_MS, now) {
            return Ok(untold());
        }
        let Some(facts) = facts else { return Err(Failure::UnknownReservation) };
        warn!(reservation_id = %id, "the store has lost the reservation of a report that was spooled; booking it without");
        let again = ticket::again_id(&facts.ticket()?.team, id);
        self.book_facts(again, (facts, now), record.report().of_released(id)).await
    }

    /// Books a report by what is known of its request, under `id`.
    async fn book_facts(
        &self,
        id: ReservationId,
        (facts, now): (&Facts, Timestamp),
        report: Report,
    ) -> Result<Delivery, Failure> {
        let reserve = facts.reserve(id, now)?;
        let (holds, note) = (reserve.holds.clone(), reserve.note.clone());
        let by_request_id = report.must_repeat();
        let (record, report) = match self.store.reserve(reserve).await? {
            Reserved::Granted { now, .. } => {
                let report = if by_request_id { report.without_reservation() } else { report };
                (made(now, plan::RESERVATION_TTL_MS, holds, note), report)
            }
            Reserved::Repeated(record) if by_request_id && !is_about(&record, &facts.ticket()?)? => {
                return Err(Failure::RequestIdReused);
            }
            // An earlier attempt under the id left no fingerprint.
            Reserved::Repeated(record) if by_request_id && record.fingerprint == 0 => {
                (record, report.without_reservation())
            }
            Reserved::Repeated(record) => (record, report),
            Reserved::OutOfDate { .. } => return Err(StoreError::Unavailable.into()),
            // Holds without a bound are refused only if a counter would pass its largest amount.
            Reserved::Refused { .. } => return Err(StoreError::Overflow.into()),
        };
        self.book(&self.snapshot(), id, record, report).await.map_err(Failure::after_a_change)?;
        Ok(Delivery::Booked)
    }
}

/// Whether the store may have settled it at `since` or later, and have forgotten that by now: it remembers for `keep_ms`.
const fn is_forgotten(since: Timestamp, keep_ms: u64, now: Timestamp) -> bool {
    now.since(since).saturating_add(MARGIN_MS) >= keep_ms
}

fn untold() -> Delivery {
    Delivery::Refused(
        "the store does not know its reservation any more, and no longer tells whether it was booked; compare with Groq's bill".to_owned(),
    )
}

/// Whether a reservation is of the request that `ticket` is of.
fn is_about(record: &Record, ticket: &Ticket) -> Result<bool, Failure> {
    let found = Ticket::of(record)?;
    let same_key = ticket.key.is_empty() || ticket.key == found.key;
    Ok(same_key && found.model == ticket.model && found.operation == ticket.operation)
}
