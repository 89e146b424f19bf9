//! Booking what was used under a reservation that was made without the store: in full, past any limit, once.

use super::sealed::{DegradedName, Facts, ReservationName};
use crate::{
    authorizer::{
        ATTEMPTS, Authorizer, Booked, Failure, charge::Charge, report::Report, settle::made, ticket::Ticket,
    },
    domain::{
        MAX_AMOUNT, Timestamp,
        holds::{self, Holds},
        key::HashKey,
        plan::{self, Outgoing},
        rbac::TeamScope,
        request::{Outcome, Usage},
        snapshot::Snapshot,
    },
    store::{Reserve, Reserved, Store, StoreError},
};

/// Clocks of replicas and the store's may differ by this much.
const MARGIN_MS: u64 = 60_000;

impl<S: Store + Clone> Authorizer<S> {
    /// Books the usage of the reservation of a team in `scope` that a caller names.
    ///
    /// # Errors
    /// If it is unknown, or belongs to another team, or the usage cannot be priced or booked.
    pub async fn settle_named(
        &self,
        name: &ReservationName,
        usage: Option<Usage>,
        outcome: Outcome,
        upstream_delay_ms: u64,
        scope: &TeamScope,
    ) -> Result<Booked, Failure> {
        match name {
            ReservationName::Stored(id) => self.settle(*id, usage, outcome, upstream_delay_ms, scope).await,
            // Boxed: few are.
            ReservationName::Degraded(name) => {
                let report = Report::new(usage, outcome, upstream_delay_ms);
                Box::pin(self.settle_degraded(name, report, scope)).await
            }
        }
    }

    /// Books the usage of a reservation that was made in an outage, of a team in `scope`: as if there had been no limit, in the periods
    /// in which it was decided. Reports are told apart from repeats for as long as the reservation can be reported.
    ///
    /// # Errors
    /// It was not made by a replica of this organization, or too long ago; or its team or model is no longer in the policy; or the usage
    /// cannot be priced or booked.
    async fn settle_degraded(
        &self,
        name: &DegradedName,
        report: Report,
        scope: &TeamScope,
    ) -> Result<Booked, Failure> {
        let key = match self.shared.live.registry.hash_key() {
            Some(key) => Some(key),
            // It is read with the registry only where it is needed: no team may have a rule any more.
            None => self.store.hash_key(None).await?.map(HashKey::new),
        };
        let key = key.ok_or(Failure::UnknownReservation)?;
        let snapshot = self.snapshot();
        let Opened { at, expires_at, holds, note } =
            self.open_degraded(&snapshot, (name, key), &report, scope)?;
        let report = report.keeping_long(self.shared.spool.is_some());
        let report = in_outage(report, (at, expires_at), self.store.now());
        let reserve = Reserve {
            id: name.id,
            may_repeat: true,
            fingerprint: 0,
            holds,
            gates: Vec::new(),
            valid: Timestamp(0)..Timestamp(MAX_AMOUNT),
            ttl_ms: plan::RESERVATION_TTL_MS,
            late_ms: plan::LATE_MS,
            note,
            replaces: bytes::Bytes::new(),
            dry_run: false,
        };
        let (holds, note) = (reserve.holds.clone(), reserve.note.clone());
        for _ in 0..ATTEMPTS {
            let record = match self.store.reserve(reserve.clone()).await? {
                Reserved::Granted { now, .. } => {
                    made(now, plan::RESERVATION_TTL_MS, holds.clone(), note.clone())
                }
                Reserved::Repeated(record) => record,
                Reserved::OutOfDate { .. } => continue,
                // Holds without a bound are refused only if a counter would pass its largest amount.
                Reserved::Refused { .. } => return Err(StoreError::Overflow.into()),
            };
            return self.book(&snapshot, name.id, record, report).await.map_err(Failure::after_a_change);
        }
        Err(StoreError::Unavailable.into())
    }

    /// What a report about a reservation that was made in an outage is booked with.
    ///
    /// # Errors
    /// As booking it, but for what only the store knows.
    pub(in crate::authorizer) fn open_degraded(
        &self,
        snapshot: &Snapshot,
        (name, key): (&DegradedName, HashKey),
        report: &Report,
        scope: &TeamScope,
    ) -> Result<Opened, Failure> {
        let keyed = (key, &*snapshot.policy.organization.id);
        let facts = Facts::open(name, keyed).ok_or(Failure::UnknownReservation)?;
        let ticket = Ticket::read(&holds::Terms::default(), &facts.note)?;
        if !scope.holds(&ticket.team) {
            return Err(Failure::OtherTeam);
        }
        let now = self.store.now();
        let ttl_ms = ticket.work().batch().map_or(plan::RESERVATION_TTL_MS, |batch| batch.ttl_ms());
        let expires_at = facts.at.plus(ttl_ms);
        if now >= expires_at.plus(plan::LATE_MS) {
            return Err(Failure::UnknownReservation);
        }
        // A report that cannot be booked must not leave a reservation behind.
        let tools = &snapshot.policy.tools;
        Charge::of(&ticket, report.usage.as_ref(), report.outcome, tools, facts.at)?;
        let caller = snapshot.resolve_names(&ticket.team, &ticket.key);
        let caller = caller.map_err(|_| Failure::UnknownTeam(ticket.team.to_string()))?;
        let outgoing = Outgoing {
            model: &ticket.model,
            work: ticket.work(),
            service_tier: ticket.service_tier,
            rates: ticket.rates,
            user: &ticket.user,
        };
        let today = snapshot.policy.calendar.today(facts.at);
        let plan = plan::compile_outgoing(snapshot, caller, &outgoing, now.since(facts.at), &today);
        let plan = plan.map_err(|violation| Failure::NotPriced(violation.message))?;
        let note = ticket.renoted(plan.lines.iter().map(|line| line.limit.quantity).collect())?;
        Ok(Opened { at: facts.at, expires_at, holds: plan.holds.clone(), note })
    }
}

/// What is known of a reservation that was made in an outage, as it is booked.
pub(in crate::authorizer) struct Opened {
    /// When it was made.
    pub(in crate::authorizer) at: Timestamp,
    pub(in crate::authorizer) expires_at: Timestamp,
    /// All counters that it belongs to, without bounds.
    pub(in crate::authorizer) holds: Holds,
    /// Its ticket, which is whole.
    pub(in crate::authorizer) note: bytes::Bytes,
}

/// The report about a decision that was made without the store at the first of the instants and expired at the second.
pub(in crate::authorizer) fn in_outage(
    report: Report,
    (at, expires_at): (Timestamp, Timestamp),
    now: Timestamp,
) -> Report {
    let last = expires_at.plus(plan::LATE_MS);
    report.decided_in_outage((at, expires_at), last.plus(MARGIN_MS).since(now))
}
