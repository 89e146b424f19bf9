//! Booking: actual usage replaces what was reserved for a request, exactly once.

use tracing::warn;

use super::{
    ATTEMPTS, Authorizer, Failure,
    booked::{Booked, booked, check_repeat, first_or_repeat, repeated},
    budgets,
    charge::Charge,
    cooldowns,
    receipt::{self, was_released},
    report::{KEEP_SETTLED_MS, Report},
    ticket::{self, Ticket},
    unreserved::{self, Bounds},
};
use crate::{
    domain::{
        MAX_AMOUNT, Timestamp,
        caller::ResolvedCaller,
        counter::{CounterKey, Hold},
        decision::Violation,
        holds::Holds,
        limit::Quantity,
        plan, rbac,
        request::{Outcome, Unreserved, Usage},
        snapshot::Snapshot,
    },
    store::{Record, ReservationId, Reserve, Reserved, Settle, SettleOutcome, Settlement, Store, StoreError},
    telemetry::{KeyValue, trace},
};

/// Where a record comes from.
#[derive(Clone, Copy)]
enum Source {
    /// It was looked up.
    Found,
    /// The store may have remembered it.
    Recalled,
}

/// The record of a reservation made just now.
pub(super) fn made(now: Timestamp, ttl_ms: u64, holds: Holds, note: bytes::Bytes) -> Record {
    let expires_at = now.plus(ttl_ms);
    Record { fingerprint: 0, reserved_at: now, expires_at, holds, note, settlement: None }
}

/// Whether a reservation is of a team in `scope`.
pub(super) fn is_of(scope: &rbac::TeamScope, record: &Record) -> Result<bool, Failure> {
    Ok(*scope == rbac::TeamScope::All || scope.holds(&Ticket::of(record)?.team))
}

/// The use of each counter after the settlement, in the order of the holds.
fn used_after(settlement: &Settlement) -> Vec<Option<u64>> {
    settlement.counters.iter().map(|counter| Some(counter.after.used)).collect()
}

impl<S: Store + Clone> Authorizer<S> {
    /// Books the usage of a reservation of a team in `scope`.
    ///
    /// # Errors
    /// If it is unknown, or belongs to another team, or the usage cannot be priced or booked.
    pub async fn settle(
        &self,
        id: ReservationId,
        usage: Option<Usage>,
        outcome: Outcome,
        upstream_delay_ms: u64,
        scope: &rbac::TeamScope,
    ) -> Result<Booked, Failure> {
        self.settle_report(id, &Report::new(usage, outcome, upstream_delay_ms), scope).await
    }

    /// The same for a report as it stands.
    pub(super) async fn settle_report(
        &self,
        id: ReservationId,
        report: &Report,
        scope: &rbac::TeamScope,
    ) -> Result<Booked, Failure> {
        let snapshot = self.snapshot();
        if let Some(record) = self.store.recall(id)
            && is_of(scope, &record)?
        {
            match self.try_book(&snapshot, id, record, report, Source::Recalled).await {
                Ok(Some(booked)) => return Ok(booked),
                Err(failure @ Failure::Store(_)) => return Err(failure),
                // What refuses it may have come of a record that is out of date.
                Ok(None) | Err(_) => {}
            }
        }
        // Once more if it is released in between.
        for _ in 0..2 {
            let record = self.store.find(id).await?.ok_or(Failure::UnknownReservation)?;
            if !is_of(scope, &record)? {
                return Err(Failure::OtherTeam);
            }
            if was_released(&record) && report.outcome != Outcome::NotSent {
                // Another replica answered a repeat of the request before the first caller's reservation was released.
                warn!(reservation_id = %id, "a request was sent whose reservation had been released; booking it again");
                return self.book_released(id, report.clone()).await;
            }
            if let Some(booked) = self.try_book(&snapshot, id, record, report, Source::Found).await? {
                return Ok(booked);
            }
        }
        Err(StoreError::Unavailable.into())
    }

    /// Books usage that has no reservation (or whose reservation id was lost): in full, past any limit except the policy's
    /// `unreserved`, if that applies.
    ///
    /// # Errors
    /// If the caller is unknown, the usage cannot be priced or booked, or it is more than may be reported this way.
    pub async fn settle_unreserved(
        &self,
        (snapshot, caller): (&Snapshot, &Result<ResolvedCaller<'_>, Violation>),
        subject: &Unreserved,
        usage: Option<Usage>,
        outcome: Outcome,
        upstream_delay_ms: u64,
        bounds: Bounds,
    ) -> Result<Booked, Failure> {
        let report = Report::new(usage, outcome, upstream_delay_ms).by_request_id();
        let report = report.keeping_long(self.shared.spool.is_some());
        let unbookable = |violation| unreserved::unbookable(violation, &subject.caller);
        let (policy, caller) = (&*snapshot.policy, caller.clone().map_err(unbookable)?);
        let mut now = self.store.now();
        for _ in 0..ATTEMPTS {
            let today = self.today(policy, now);
            let mut plan =
                plan::compile_unreserved(snapshot, caller, subject, now, &today).map_err(unbookable)?;
            let id = ticket::derived_id(&plan.caller.team.name, &subject.request_id);
            if bounds == Bounds::Apply {
                plan.count_unreserved(&today);
            }
            let labels = policy.reports.of_request(&plan.caller, &subject.labels);
            let note = ticket::note(snapshot, &plan, (&subject.user, &labels), (0, None))?;
            // A report that cannot be booked must not leave a reservation behind.
            let ticket = Ticket::read(plan.holds.terms(), &note)?;
            let cost = Charge::of(&ticket, report.usage.as_ref(), outcome, &policy.tools, now)?.cost;
            if bounds == Bounds::Apply {
                plan.cost_unreserved(cost);
                // If the id was lost there is a reservation, which has its own bounds.
                if cost > plan.caller.team.unreserved.max_cost
                    && self.store.find(id).await?.is_none_or(|record| was_released(&record))
                {
                    let failure = unreserved::too_costly(&plan, cost);
                    return Err(self.refuse_report(&plan, (now, &today), failure).await);
                }
            }
            let reserve = unreserved::reserve(id, &plan, note);
            let (holds, note) = (reserve.holds.clone(), reserve.note.clone());
            match self.store.reserve(reserve).await? {
                Reserved::Granted { now, .. } => {
                    let record = made(now, plan.ttl_ms(), holds, note);
                    return self
                        .book(snapshot, id, record, report.without_reservation())
                        .await
                        .map_err(Failure::after_a_change);
                }
                Reserved::Repeated(record) if !unreserved::is_about(&record, &plan)? => {
                    return Err(Failure::RequestIdReused);
                }
                Reserved::Repeated(record) => {
                    // An earlier report under the id left no fingerprint: it may have been cut off before it was booked.
                    let report = if record.fingerprint == 0 { report.without_reservation() } else { report };
                    return self.book(snapshot, id, record, report).await;
                }
                Reserved::OutOfDate { now: time } => now = time,
                Reserved::Refused { now, used, refusals, .. }
                    if refusals.iter().any(|refusal| unreserved::is_daily(&plan, refusal.hold)) =>
                {
                    let failure = unreserved::past_the_day(&plan, now, &used);
                    return Err(self.refuse_report(&plan, (now, &today), failure).await);
                }
                // Holds without a bound are refused only if a counter would pass its largest amount.
                Reserved::Refused { .. } => return Err(StoreError::Overflow.into()),
            }
        }
        Err(StoreError::Unavailable.into())
    }

    /// Releases the reservation that `attempt` made (0: whichever attempt did) and no caller got, as if it had never existed.
    /// Anything else under the id stays.
    ///
    /// # Errors
    /// If there is none (yet), or one that was released before or another attempt's that may be, which leaves its id free; or the store does
    /// not answer.
    pub(super) async fn release(&self, id: ReservationId, attempt: u64) -> Result<(), Failure> {
        let record = self.store.find(id).await?.filter(|record| !was_released(record));
        let record = record.ok_or(Failure::UnknownReservation)?;
        match (record.settlement.is_some(), attempt == 0 || ticket::is_of(&record.note, attempt)) {
            (true, _) => return Ok(()),
            // Another attempt's may be given back before what this one asked for arrives, and leave it the id.
            (false, false) => return Err(Failure::UnknownReservation),
            (false, true) => {}
        }
        let ticket = Ticket::of(&record)?;
        let snapshot = self.snapshot();
        let tools = &snapshot.policy.tools;
        let charge = Charge::of(&ticket, None, Outcome::NotSent, tools, record.reserved_at)?;
        let settle = Settle {
            id,
            actual: ticket.quantities.iter().map(|quantity| charge.of_quantity(*quantity)).collect(),
            record: record.clone(),
            extras: Vec::new(),
            thresholds: Vec::new(),
            lines: Vec::new(),
            max_rows: 0,
            cooldown: None,
            keep_ms: KEEP_SETTLED_MS,
            note: receipt::released(),
        };
        let used = match self.store.settle(settle).await? {
            SettleOutcome::NotFound => return Err(Failure::UnknownReservation),
            SettleOutcome::Settled(settlement) => {
                let used = (None, Outcome::NotSent, "released", charge.cost);
                self.log_settlement(&snapshot.policy.organization.id, id, &ticket, used);
                used_after(&settlement)
            }
            SettleOutcome::AlreadySettled(_) => Vec::new(),
        };
        let used = used.into_iter().chain(std::iter::repeat(None));
        self.shared.queue.freed(record.holds.counters().zip(used));
        Ok(())
    }

    /// Books the usage of a reservation that was released although its request was sent: for the same team, key and user, at
    /// the same price, on the same day, and once however often it is reported.
    ///
    /// # Errors
    /// If the reservation is no longer known, or the usage cannot be priced or booked.
    pub async fn settle_released(
        &self,
        id: ReservationId,
        usage: Option<Usage>,
        outcome: Outcome,
    ) -> Result<Booked, Failure> {
        self.book_released(id, Report::new(usage, outcome, 0)).await
    }

    async fn book_released(&self, id: ReservationId, report: Report) -> Result<Booked, Failure> {
        let record = self.store.find(id).await?.ok_or(Failure::UnknownReservation)?;
        let ticket = Ticket::of(&record)?;
        let holds = record.holds.iter().zip(&ticket.quantities).map(|(hold, quantity)| Hold {
            limit: MAX_AMOUNT,
            kept: 0,
            expiring: u64::from(*quantity == Quantity::Requests),
            ..hold.to_owned()
        });
        let again = ticket::again_id(&ticket.team, id);
        let reserve = Reserve {
            id: again,
            may_repeat: true,
            fingerprint: 0,
            // The note is read with that of its terms.
            holds: Holds::from_iter(holds).noted(record.holds.terms().note().clone()),
            gates: Vec::new(),
            valid: Timestamp(0)..Timestamp(MAX_AMOUNT),
            ttl_ms: plan::RESERVATION_TTL_MS,
            late_ms: plan::LATE_MS,
            note: record.note.clone(),
            replaces: bytes::Bytes::new(),
            dry_run: false,
        };
        let (holds, note) = (reserve.holds.clone(), reserve.note.clone());
        let record = match self.store.reserve(reserve).await? {
            Reserved::Granted { now, .. } => made(now, plan::RESERVATION_TTL_MS, holds, note),
            Reserved::Repeated(record) => record,
            Reserved::OutOfDate { .. } | Reserved::Refused { .. } => return Err(StoreError::Overflow.into()),
        };
        self.book(&self.snapshot(), again, record, report.of_released(id))
            .await
            .map_err(Failure::after_a_change)
    }

    pub(super) async fn book(
        &self,
        snapshot: &Snapshot,
        id: ReservationId,
        record: Record,
        report: Report,
    ) -> Result<Booked, Failure> {
        let booked = self.try_book(snapshot, id, record, &report, Source::Found).await?;
        booked.ok_or(Failure::Store(StoreError::Unavailable))
    }

    /// Books a report; `None`: what is stored is something else than `record` by now, and nothing was changed.
    async fn try_book(
        &self,
        snapshot: &Snapshot,
        id: ReservationId,
        record: Record,
        report: &Report,
        source: Source,
    ) -> Result<Option<Booked>, Failure> {
        let policy = &*snapshot.policy;
        let mut ticket = Ticket::of(&record)?;
        // At the prices of when it was acknowledged.
        ticket.tools.extend(report.spooled.iter().flat_map(|spooled| spooled.tools.iter().cloned()));
        if trace::is_traced() {
            trace::annotate(|| vec![KeyValue::new("tollgate.reservation_id", id.to_string())]);
            if let Some(decision) = ticket::trace_of(&record.note) {
                trace::link(decision);
            }
        }
        if let Some(settlement) = &record.settlement {
            check_repeat(settlement, report)?;
            let booked = repeated(snapshot, id, &ticket, &record, settlement)?;
            self.keep_settled(snapshot, (id, &record), (&ticket, report));
            self.count_booked((policy, &ticket), report, false, None);
            self.log_booked((policy, &ticket), &booked, report, false);
            return Ok(Some(booked));
        }
        let at = report.decided_at(&record);
        let charge = Charge::of(&ticket, report.usage.as_ref(), report.outcome, &policy.tools, at)?
            .degraded(report.in_outage.is_some());
        let has_expired = report.is_late(&record, self.store.now());
        let (cooldown, warning) = match report.is_news() {
            true => {
                cooldowns::of_report(policy, &ticket, has_expired, report.outcome, report.upstream_delay_ms)
            }
            false => (None, None),
        };
        let (closed, opened) = cooldowns::gates_of(cooldown.as_ref());
        let (settle, watched) = self.settle_of(snapshot, (id, &record), (&ticket, report), &charge)?;
        let settle = Settle { cooldown, ..settle };
        let settled = match source {
            Source::Found => Some(self.store.settle(settle).await?),
            Source::Recalled => self.store.settle_recalled(settle).await?,
        };
        let first_or_repeat = settled.map(|settled| first_or_repeat(settled, report)).transpose()?;
        let Some((settlement, is_repeat)) = first_or_repeat.flatten() else { return Ok(None) };
        let mut booked = match is_repeat {
            true => repeated(snapshot, id, &ticket, &record, &settlement)?,
            false => booked(policy, id, &ticket, &record, &settlement, &watched)?,
        };
        // The use that a repeat hears of is long out of date.
        let used = if is_repeat { Vec::new() } else { used_after(&settlement) };
        self.wake_waiting(&record, used, |quantity| charge.of_quantity(quantity), (&ticket, opened));
        if let Some(gate) = closed {
            Box::pin(self.tell_of_cooldown(&gate)).await;
        }
        let used = (!booked.already_recorded).then_some(&charge);
        self.count_booked((policy, &ticket), report, has_expired, used);
        self.log_booked((policy, &ticket), &booked, report, has_expired);
        if !booked.already_recorded {
            booked.alerts.iter().for_each(budgets::log_alert);
            booked.warnings.extend(warning);
        }
        Ok(Some(booked))
    }

    /// Wakes requests that wait for the counters of which less was used than held, and for a gate that was opened.
    fn wake_waiting(
        &self,
        record: &Record,
        used: Vec<Option<u64>>,
        actual: impl Fn(Quantity) -> u64,
        (ticket, gate): (&Ticket, Option<CounterKey>),
    ) {
        let used = used.into_iter().chain(std::iter::repeat(None));
        let held = record.holds.iter().zip(used).zip(&ticket.quantities);
        let freed = held.filter(|((hold, _), quantity)| actual(**quantity) < hold.amount());
        let freed = freed.map(|((hold, used), _)| (hold.counter, used));
        self.shared.queue.freed(freed.chain(gate.iter().map(|gate| (gate, None))));
    }
}
