//! The answer to a report of usage.

use tracing::error;

use super::{
    Authorizer, CrossedAlert, Failure, budgets,
    charge::{self, Charge},
    receipt::{self, Receipt},
    report::Report,
    ticket::Ticket,
};
use crate::{
    domain::{
        Timestamp,
        budget::BudgetState,
        limit::Limit,
        money::NanoUsd,
        policy::{Policy, spender_of},
        request::Outcome,
        snapshot::Snapshot,
    },
    store::{Record, ReservationId, Settle, SettleOutcome, Settlement, Store},
};

/// Budgets with thresholds, and their places among the counters of a settlement.
type Watched<'p> = Vec<(usize, &'p Limit)>;

/// Usage as booked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Booked {
    /// The reservation that was settled.
    pub reservation: ReservationId,
    /// What it cost.
    pub cost: NanoUsd,
    /// Whether it was already recorded.
    pub already_recorded: bool,
    /// The team's month after this record.
    pub team: BudgetState,
    /// The organization's month after this record.
    pub organization: BudgetState,
    /// Thresholds that this record crossed.
    pub alerts: Vec<CrossedAlert>,
    /// What the caller should know.
    pub warnings: Vec<String>,
}

/// Refuses a report that repeats another one with other content.
pub(super) fn check_repeat(settlement: &Settlement, report: &Report) -> Result<(), Failure> {
    if report.must_repeat() && Receipt::of(settlement)?.is_of_another(report.digest()) {
        return Err(Failure::RequestIdReused);
    }
    Ok(())
}

/// The settlement, and whether an earlier report made it; `None`: the reservation was released since it was found.
pub(super) fn first_or_repeat(
    outcome: SettleOutcome,
    report: &Report,
) -> Result<Option<(Settlement, bool)>, Failure> {
    match outcome {
        SettleOutcome::Settled(settlement) => Ok(Some((settlement, false))),
        SettleOutcome::AlreadySettled(settlement)
            if settlement.note == receipt::released() && report.outcome != Outcome::NotSent =>
        {
            Ok(None)
        }
        SettleOutcome::AlreadySettled(settlement) => {
            check_repeat(&settlement, report)?;
            Ok(Some((settlement, true)))
        }
        SettleOutcome::NotFound => Err(Failure::UnknownReservation),
    }
}

/// The answer to a report that had been settled before. Its budgets are those of its own cost.
pub(super) fn repeated(
    snapshot: &Snapshot,
    id: ReservationId,
    ticket: &Ticket,
    record: &Record,
    settlement: &Settlement,
) -> Result<Booked, Failure> {
    let cost = Receipt::of(settlement)?.cost;
    let extras = budgets::extras(snapshot, ticket, &record.holds, cost.nanos());
    let watched = budgets::watched(snapshot, ticket, &record.holds, &extras);
    let booked = booked(&snapshot.policy, id, ticket, record, settlement, &watched)?;
    Ok(Booked { already_recorded: true, ..booked })
}

/// The answer to a report that the store has settled, by the budgets of `policy`.
pub(super) fn booked(
    policy: &Policy,
    id: ReservationId,
    ticket: &Ticket,
    record: &Record,
    settlement: &Settlement,
    watched: &[(usize, &Limit)],
) -> Result<Booked, Failure> {
    let receipt = Receipt::of(settlement)?;
    let month_of = |spender: &str| {
        let place = record.holds.iter().position(|hold| spender_of(hold.counter) == Some(spender));
        place.and_then(|place| settlement.counters.get(place))
    };
    let (Some(organization), Some(team)) = (month_of(""), month_of(&ticket.team)) else {
        error!(reservation_id = %id, "a settlement lacks its budgets");
        return Err(Failure::Internal);
    };
    let team_budget = policy.teams.get(&ticket.team).map(|team| &*team.limits.month);
    Ok(Booked {
        reservation: id,
        cost: receipt.cost,
        already_recorded: false,
        team: BudgetState::of(team_budget, team.after),
        organization: BudgetState::of(Some(&policy.organization.limits.month), organization.after),
        alerts: budgets::crossed(watched, settlement),
        warnings: Vec::new(),
    })
}

impl<S: Store + Clone> Authorizer<S> {
    /// What books a report, but for what it does to a cooldown; and the budgets whose thresholds it may cross.
    pub(super) fn settle_of<'s>(
        &self,
        snapshot: &'s Snapshot,
        (id, record): (ReservationId, &Record),
        (ticket, report): (&Ticket, &Report),
        charge: &Charge<'_>,
    ) -> Result<(Settle, Watched<'s>), Failure> {
        let policy = &*snapshot.policy;
        let extras = budgets::extras(snapshot, ticket, &record.holds, charge.cost.nanos());
        let watched = budgets::watched(snapshot, ticket, &record.holds, &extras);
        let hour = self.hour_of(policy, ticket.day, report.decided_at(record));
        let settle = Settle {
            id,
            record: record.clone(),
            actual: ticket.quantities.iter().map(|quantity| charge.of_quantity(*quantity)).collect(),
            extras,
            thresholds: budgets::thresholds(&watched),
            lines: charge.rows(ticket, hour),
            max_rows: policy.reports.max_rows(),
            cooldown: None,
            keep_ms: report.keep_ms(),
            note: Receipt::new(charge.cost, report.digest()).to_note()?,
        };
        Ok((settle, watched))
    }

    /// Has the store keep a settlement of which a repeat is told: a failover may forget it. One that cannot be told from this report is not
    /// kept, and that is no reason not to answer.
    pub(super) fn keep_settled(
        &self,
        snapshot: &Snapshot,
        (id, record): (ReservationId, &Record),
        (ticket, report): (&Ticket, &Report),
    ) {
        let at = report.decided_at(record);
        let charge = Charge::of(ticket, report.usage.as_ref(), report.outcome, &snapshot.policy.tools, at);
        let charge = charge.map(|charge| charge.degraded(report.in_outage.is_some()));
        let settle =
            charge.and_then(|charge| self.settle_of(snapshot, (id, record), (ticket, report), &charge));
        if let Ok((settle, _)) = settle {
            self.store.found_settled(settle);
        }
    }

    /// Which hour of its day a request was made in.
    fn hour_of(&self, policy: &Policy, day: u32, at: Timestamp) -> u8 {
        let today = self.today(policy, at);
        let start = match today.day_number() == day {
            true => Some(today.day.start),
            // The zone was changed since.
            false => policy.calendar.start_of_day(day),
        };
        start.map_or(0, |start| charge::hour_of(start, at))
    }
}
