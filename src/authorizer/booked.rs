//! The answer to a report of usage.

use tracing::error;

use super::{
    CrossedAlert, Failure, budgets,
    receipt::{self, Receipt},
    report::Report,
    ticket::Ticket,
};
use crate::{
    domain::{
        budget::BudgetState,
        limit::Limit,
        money::NanoUsd,
        policy::{Policy, spender_of},
        request::Outcome,
        snapshot::Snapshot,
    },
    store::{Record, ReservationId, SettleOutcome, Settlement},
};

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
