//! Booking: what a request really used replaces what was reserved for it, exactly once.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tracing::{error, info, warn};

use super::{
    ATTEMPTS, Authorizer, Failure, LATE_MS,
    charge::Charge,
    spend::BudgetState,
    ticket::{self, Ticket},
};
use crate::{
    domain::{
        MAX_AMOUNT, Timestamp, access,
        counter::Hold,
        limit::{Limit, Quantity, Scope, Threshold, Window, upstream_gate},
        money::NanoUsd,
        plan::{self, Plan},
        policy::Policy,
        request::{Caller, Outcome, Unreserved, Usage},
    },
    store::{
        Record, ReservationId, Reserve, Reserved, Settle, SettleOutcome, Settled, Settlement, Store,
        StoreError,
    },
};

/// How long a settled reservation is remembered, so that a repeated report is recognised: longer than any client retries a
/// call, short enough that a busy day does not fill the store.
const KEEP_SETTLED_MS: u64 = 10 * 60 * 1000;
/// The format of a settlement's note.
const VERSION: u8 = 1;
/// From this share of a budget, a crossed threshold is logged as an error.
const CRITICAL_PERCENT: u64 = 95;
/// From this share of a budget, a crossed threshold is logged as a warning.
const WARNING_PERCENT: u64 = 80;

/// Usage as booked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Booked {
    /// The reservation that was settled.
    pub reservation: ReservationId,
    /// What it cost.
    pub cost: NanoUsd,
    /// Whether it had been recorded before.
    pub already_recorded: bool,
    /// The team's month after this record.
    pub team: BudgetState,
    /// The organization's month after this record.
    pub organization: BudgetState,
    /// Thresholds that this very record crossed.
    pub alerts: Vec<CrossedAlert>,
}

/// A threshold that a record crossed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CrossedAlert {
    /// The budget's place in the policy.
    pub limit_id: Arc<str>,
    /// The threshold.
    pub threshold: Threshold,
    /// What was spent in the period after the record.
    pub spent: u64,
    /// The budget of the period.
    pub budget: u64,
}

/// The note of a settlement.
#[derive(Serialize, Deserialize)]
struct Receipt {
    cost: NanoUsd,
}

impl<S: Store + Clone> Authorizer<S> {
    /// Books the usage of a reservation of a team in `scope`.
    ///
    /// # Errors
    /// Where it is not known, or of another team, or the usage cannot be priced or booked.
    pub async fn settle(
        &self,
        id: ReservationId,
        usage: Option<Usage>,
        outcome: Outcome,
        upstream_delay_ms: u64,
        scope: &access::Scope,
    ) -> Result<Booked, Failure> {
        let record = self.store.find(id).await?.ok_or(Failure::UnknownReservation)?;
        if *scope != access::Scope::All && !scope.holds(&Ticket::from_bytes(&record.note)?.team) {
            return Err(Failure::OtherTeam);
        }
        self.book(id, record, usage, outcome, upstream_delay_ms).await
    }

    /// Books usage that has no reservation (or whose reservation's id was lost): in full, past any limit.
    ///
    /// # Errors
    /// Where the caller is not known, or the usage cannot be priced or booked.
    pub async fn settle_unreserved(
        &self,
        subject: &Unreserved,
        usage: Option<Usage>,
        outcome: Outcome,
        upstream_delay_ms: u64,
    ) -> Result<Booked, Failure> {
        let policy = self.shared.policy.load_full();
        let mut now = self.store.now();
        for _ in 0..ATTEMPTS {
            let today = self.today(&policy, now);
            let plan = plan::compile_unreserved(&policy, subject, now, &today)
                .map_err(|violation| unbookable(violation, &subject.caller))?;
            let id = ticket::derived_id(&plan.who.team.name, &subject.request_id);
            let note = ticket::note(&policy, &plan, 0)?;
            // What cannot be booked must not leave a reservation behind.
            Charge::of(&Ticket::from_bytes(&note)?, usage.clone(), outcome, &policy.tools, now)?;
            let reserve = reserve_unreserved(id, &plan, note);
            let (holds, note) = (reserve.holds.clone(), reserve.note.clone());
            match self.store.reserve(reserve).await? {
                Reserved::Granted { now, .. } => {
                    let record = Record {
                        fingerprint: 0,
                        reserved_at: now,
                        expires_at: now.plus(plan.ttl_ms()),
                        holds,
                        note,
                        settlement: None,
                    };
                    return self.book(id, record, usage, outcome, upstream_delay_ms).await;
                }
                Reserved::Repeated(record) if !is_about(&record, &plan)? => {
                    return Err(Failure::RequestIdReused);
                }
                Reserved::Repeated(record) => {
                    return self.book(id, record, usage, outcome, upstream_delay_ms).await;
                }
                Reserved::OutOfDate { now: time } => now = time,
                // Holds without a bound are refused only where a counter would pass its largest amount.
                Reserved::Refused { .. } => return Err(StoreError::Overflow.into()),
            }
        }
        Err(StoreError::Unavailable.into())
    }

    /// Gives back the reservation that `attempt` made and nobody was told of, as if it had never been. Whatever else is under
    /// the id stays.
    ///
    /// # Errors
    /// Where there is none (yet), or the store does not answer.
    pub async fn give_back(&self, id: ReservationId, attempt: u64) -> Result<(), Failure> {
        let record = self.store.find(id).await?.ok_or(Failure::UnknownReservation)?;
        if record.settlement.is_none() && ticket::is_of(&record.note, attempt) {
            self.book(id, record, None, Outcome::NotSent, 0).await?;
        }
        Ok(())
    }

    /// Books the usage of a reservation that had been given back although its request was sent: for the same team, key and
    /// user, at the same price, on the same day, and once however often it is told.
    ///
    /// # Errors
    /// Where the reservation is not known any more, or the usage cannot be priced or booked.
    pub async fn settle_given_back(
        &self,
        id: ReservationId,
        usage: Option<Usage>,
        outcome: Outcome,
    ) -> Result<Booked, Failure> {
        let record = self.store.find(id).await?.ok_or(Failure::UnknownReservation)?;
        let ticket = Ticket::from_bytes(&record.note)?;
        let holds = record.holds.iter().zip(&ticket.quantities).map(|(hold, quantity)| Hold {
            limit: MAX_AMOUNT,
            kept: 0,
            expiring: u64::from(*quantity == Quantity::Requests),
            ..hold.clone()
        });
        // No `request_id` holds a control character, so none gives this id.
        let again = ticket::derived_id(&ticket.team, &format!("\u{1}{id}"));
        let reserve = Reserve {
            id: again,
            may_repeat: true,
            fingerprint: 0,
            holds: holds.collect(),
            gates: Vec::new(),
            valid: Timestamp(0)..Timestamp(MAX_AMOUNT),
            ttl_ms: plan::RESERVATION_TTL_MS,
            late_ms: LATE_MS,
            note: record.note.clone(),
            dry_run: false,
        };
        let (holds, note) = (Arc::clone(&reserve.holds), reserve.note.clone());
        let record = match self.store.reserve(reserve).await? {
            Reserved::Granted { now, .. } => Record {
                fingerprint: 0,
                reserved_at: now,
                expires_at: now.plus(plan::RESERVATION_TTL_MS),
                holds,
                note,
                settlement: None,
            },
            Reserved::Repeated(record) => record,
            Reserved::OutOfDate { .. } | Reserved::Refused { .. } => return Err(StoreError::Overflow.into()),
        };
        self.book(again, record, usage, outcome, 0).await
    }

    async fn book(
        &self,
        id: ReservationId,
        record: Record,
        usage: Option<Usage>,
        outcome: Outcome,
        upstream_delay_ms: u64,
    ) -> Result<Booked, Failure> {
        let ticket = Ticket::from_bytes(&record.note)?;
        if let Some(settlement) = &record.settlement {
            return self.booked(id, &ticket, &record, settlement, true);
        }
        let tools = &self.shared.policy.load().tools;
        let charge = Charge::of(&ticket, usage, outcome, tools, record.reserved_at)?;
        let close = (outcome == Outcome::RateLimited && upstream_delay_ms > 0)
            .then(|| (upstream_gate(&ticket.model), upstream_delay_ms));
        let settle = Settle {
            id,
            record: record.clone(),
            actual: ticket.quantities.iter().map(|quantity| charge.of_quantity(*quantity)).collect(),
            lines: charge.lines(&ticket),
            close,
            keep_ms: KEEP_SETTLED_MS,
            note: ticket::encode(VERSION, &Receipt { cost: charge.cost })?,
        };
        let booked = match self.store.settle(settle).await? {
            SettleOutcome::Settled(settlement) => self.booked(id, &ticket, &record, &settlement, false)?,
            SettleOutcome::AlreadySettled(settlement) => {
                self.booked(id, &ticket, &record, &settlement, true)?
            }
            SettleOutcome::NotFound => return Err(Failure::UnknownReservation),
        };
        self.shared.queue.settled();
        if !booked.already_recorded {
            booked.alerts.iter().for_each(log_alert);
        }
        Ok(booked)
    }

    fn booked(
        &self,
        id: ReservationId,
        ticket: &Ticket,
        record: &Record,
        settlement: &Settlement,
        already_recorded: bool,
    ) -> Result<Booked, Failure> {
        let receipt: Receipt = ticket::decode(VERSION, &settlement.note)?;
        let policy = self.shared.policy.load();
        let [Some(organization), Some(team)] = [0, 1].map(|i| settlement.counters.get(i)) else {
            error!(reservation = %id, "a settlement lacks its budgets");
            return Err(Failure::Internal);
        };
        let team_budget = policy.teams.get(&ticket.team).and_then(|team| team.limits.first());
        Ok(Booked {
            reservation: id,
            cost: receipt.cost,
            already_recorded,
            team: BudgetState::of(team_budget, team.after),
            organization: BudgetState::of(policy.organization.limits.first(), organization.after),
            alerts: crossed(&policy, ticket, record, &settlement.counters),
        })
    }
}

/// Room for usage that nobody asked for before: nothing is bounded, nothing is held.
fn reserve_unreserved(id: ReservationId, plan: &Plan<'_>, note: bytes::Bytes) -> Reserve {
    Reserve {
        id,
        may_repeat: true,
        fingerprint: 0,
        holds: Arc::clone(&plan.holds),
        gates: Vec::new(),
        valid: Timestamp(plan.valid.start.0)..plan.valid.end,
        ttl_ms: plan.ttl_ms(),
        late_ms: LATE_MS,
        note,
        dry_run: false,
    }
}

/// Whether the reservation under the `request_id` of a report is of the same request: booked at the price of another model,
/// or as the repeat of another report, what was used would be lost. A team may report what one of its keys asked for.
fn is_about(record: &Record, plan: &Plan<'_>) -> Result<bool, Failure> {
    let ticket = Ticket::from_bytes(&record.note)?;
    let same_key = plan.who.key.is_none_or(|key| key.name == ticket.key);
    Ok(same_key && ticket.model == plan.model.name && ticket.operation == plan.work.operation())
}

fn unbookable(violation: crate::domain::decision::Violation, caller: &Caller) -> Failure {
    use crate::domain::decision::Reason;
    match (violation.reason, caller) {
        (Reason::UnknownTeam, Caller::Team(name)) => Failure::UnknownTeam(name.clone()),
        (Reason::InvalidKey, _) | (Reason::UnknownTeam, _) => Failure::UnknownKey,
        (Reason::StoreUnavailable, _) => StoreError::Unavailable.into(),
        _ => Failure::NotPriced(violation.message),
    }
}

/// The thresholds between what was settled before and after. What is settled only grows, and each step of it is atomic, so
/// every threshold is crossed by exactly one record, over all replicas.
fn crossed(policy: &Policy, ticket: &Ticket, record: &Record, counters: &[Settled]) -> Vec<CrossedAlert> {
    let team = policy.teams.get(&ticket.team);
    let mut keys = policy.keys.values().filter(|_| !ticket.key.is_empty());
    let key = keys.find(|(team, key)| key.name == ticket.key && team.name == ticket.team);
    let limits = policy
        .organization
        .limits
        .iter()
        .chain(team.into_iter().flat_map(|team| team.limits.iter().chain(&team.user_limits)))
        .chain(key.into_iter().flat_map(|(_, key)| &key.limits));
    let budgets =
        limits.filter(|limit| matches!(limit.window, Window::Calendar(_)) && !limit.alerts.is_empty());
    budgets
        .flat_map(|limit| {
            let settled = record.holds.iter().zip(counters);
            let own = settled.filter(|(hold, _)| counts_for(limit, hold.counter.name()));
            own.flat_map(|(_, settled)| crossed_of(limit, settled)).collect::<Vec<_>>()
        })
        .collect()
}

/// Whether this is the counter of the limit, or of one of the users that it holds for.
fn counts_for(limit: &Limit, counter: &str) -> bool {
    match (counter.strip_prefix(limit.counter.name()), limit.scope) {
        (Some(user), Scope::User) => user.starts_with('|'),
        (rest, _) => rest == Some(""),
    }
}

fn crossed_of<'a>(limit: &'a Limit, settled: &'a Settled) -> impl Iterator<Item = CrossedAlert> + 'a {
    let between = |t: &&Threshold| {
        settled.settled_before < t.amount.nanos() && t.amount.nanos() <= settled.after.settled
    };
    limit.alerts.iter().filter(between).map(|threshold| CrossedAlert {
        limit_id: limit.id.clone(),
        threshold: threshold.clone(),
        spent: settled.after.settled,
        budget: limit.bound.unwrap_or(0),
    })
}

fn log_alert(alert: &CrossedAlert) {
    let (limit_id, threshold) = (&*alert.limit_id, &*alert.threshold.text);
    let (spent_nanos, budget_nanos) = (alert.spent, alert.budget);
    match alert.threshold.percent {
        CRITICAL_PERCENT.. => {
            error!(limit_id, threshold, spent_nanos, budget_nanos, "budget threshold crossed")
        }
        WARNING_PERCENT.. => {
            warn!(limit_id, threshold, spent_nanos, budget_nanos, "budget threshold crossed")
        }
        _ => info!(limit_id, threshold, spent_nanos, budget_nanos, "budget threshold crossed"),
    }
}
