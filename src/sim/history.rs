//! What truly happened in a world: what the store did, as seen behind its faults, and what clients, replicas and operators know. The
//! verdict reads this, and nothing that the product says of itself.

use std::{
    collections::{HashMap, HashSet},
    sync::{LazyLock, Mutex, MutexGuard},
};

use tokio::time::Instant;

use super::rules::{MODEL, TEAMS};
use crate::{
    domain::{MAX_AMOUNT, counter::CounterKind, policy::spender_of, request::Outcome},
    store::{ReservationId, Reserve, Settle},
};

/// A reservation that the store made.
#[derive(Clone, Debug)]
pub(super) struct Grant {
    pub(super) id: ReservationId,
    pub(super) team: usize,
    /// When the store was asked and when it had decided, in true milliseconds.
    pub(super) asked: u64,
    pub(super) made: u64,
    /// The step of the store that made it.
    pub(super) step: u64,
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
    /// The reservation that it was told of, with the output granted.
    pub(super) told: Option<(ReservationId, u64)>,
    pub(super) report: Option<Sent>,
}

/// A report of usage.
#[derive(Clone, Debug)]
pub(super) struct Sent {
    pub(super) outcome: Outcome,
    /// Input and output tokens; `None`: unknown.
    pub(super) usage: Option<(u64, u64)>,
    /// Under which ids it was acknowledged, what it was said to cost, and the last step of the store by then.
    pub(super) acknowledged: Vec<(ReservationId, u64, u64)>,
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
}

#[derive(Debug, Default)]
pub(super) struct Records {
    pub(super) grants: Vec<Grant>,
    current: HashMap<ReservationId, usize>,
    /// Replicas that ended: what they had asked for, and passed on to no caller, may stay.
    pub(super) ended: HashSet<usize>,
    pub(super) asked: Vec<Asked>,
    pub(super) pauses: Vec<Ordered>,
    pub(super) revoked: Option<Ordered>,
    pub(super) passed: Vec<Passed>,
    /// Steps of the store so far that changed something.
    pub(super) steps: u64,
    /// The steps that failovers forgot, as ranges: after the first, up to the second.
    pub(super) forgotten: Vec<(u64, u64)>,
    /// What no client should ever see.
    pub(super) surprises: Vec<String>,
    pub(super) delivered: Vec<String>,
    pub(super) trace: u64,
    pub(super) events: u64,
}

/// Whether everything is printed as it happens.
static IS_TRACED: LazyLock<bool> = LazyLock::new(|| std::env::var_os("TOLLGATE_SIM_TRACE").is_some());

/// The records of one world.
#[derive(Debug)]
pub(super) struct History {
    began: Instant,
    records: Mutex<Records>,
}

impl History {
    pub(super) fn new() -> Self {
        Self { began: Instant::now(), records: Mutex::default() }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Records> {
        self.records.lock().unwrap()
    }

    /// True time since the world began, in milliseconds.
    pub(super) fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap()
    }

    /// Adds to the trace, by which two runs of one seed are compared.
    pub(super) fn note(&self, what: &str, numbers: &[u64]) {
        let now = self.now();
        let mut records = self.lock();
        let bytes = what.bytes().map(u64::from);
        for number in bytes.chain(numbers.iter().copied()).chain([now]) {
            records.trace = (records.trace ^ number).wrapping_mul(0x0100_0000_01b3).rotate_left(29);
        }
        records.events += 1;
        if *IS_TRACED {
            println!("{now:>8} {what} {numbers:?}");
        }
    }

    pub(super) fn surprise(&self, what: String) {
        self.lock().surprises.push(what);
    }

    /// The store took the holds of `reserve`.
    pub(super) fn granted(&self, reserve: &Reserve, (replica, asked): (usize, u64)) {
        let made = self.now();
        let team = reserve.holds.counters().find_map(|counter| {
            let spender = spender_of(counter).filter(|spender| !spender.is_empty())?;
            TEAMS.iter().position(|team| team.team == spender)
        });
        let team = team.expect("each reservation holds a team's month");
        let month = reserve
            .holds
            .iter()
            .find(|hold| spender_of(hold.counter).is_some_and(|spender| spender == TEAMS[team].team));
        let month = month.expect("as before");
        let mut windows = reserve.holds.iter().filter(|hold| matches!(hold.kind, CounterKind::Window { .. }));
        let day = reserve.holds.iter().find(|hold| hold.counter.name().ends_with("|usd|day"));
        let tokens = reserve.holds.iter().find(|hold| hold.counter.name().ends_with("|tokens|minute"));
        let grant = Grant {
            id: reserve.id,
            team,
            asked,
            made,
            step: 0,
            worst: month.amount(),
            kept: month.kept,
            tokens: tokens.map_or(0, |hold| hold.amount()),
            month: month.counter.period(),
            day: day.map_or(0, |hold| hold.counter.period()),
            is_unbounded: windows.all(|hold| hold.limit == MAX_AMOUNT),
            end: End::Open,
            was_reopened: false,
            was_delivered: false,
            replica,
        };
        let mut records = self.lock();
        records.steps += 1;
        let grant = Grant { step: records.steps, ..grant };
        let place = records.grants.len();
        records.grants.push(grant);
        records.current.insert(reserve.id, place);
        drop(records);
        self.note("granted", &[place as u64, team as u64]);
    }

    /// The store settled a reservation: when it was asked, and the step of that.
    pub(super) fn settled(&self, settle: &Settle, (at, step): (u64, u64)) {
        let month = settle
            .record
            .holds
            .counters()
            .position(|counter| spender_of(counter).is_some_and(|spender| !spender.is_empty()));
        let cost = month.and_then(|month| settle.actual.get(month)).copied().unwrap_or_default();
        let mut records = self.lock();
        let Some(place) = records.current.get(&settle.id).copied() else {
            records.surprises.push(format!("{} was settled and never made", settle.id));
            return;
        };
        let grant = &mut records.grants[place];
        grant.end = match settle.actual.iter().all(|amount| *amount == 0) {
            true => End::Released { step },
            false => End::Settled { step, at, cost },
        };
        drop(records);
        self.note("settled", &[place as u64, cost]);
    }

    /// Something else in the store changed.
    pub(super) fn changed(&self) -> u64 {
        let mut records = self.lock();
        records.steps += 1;
        records.steps
    }

    pub(super) fn delivered(&self, id: ReservationId) {
        let mut records = self.lock();
        if let Some(place) = records.current.get(&id).copied() {
            records.grants[place].was_delivered = true;
        }
    }

    /// The store forgot all that came after step `last`, with its registry or without.
    pub(super) fn lose_after(&self, last: u64, with_registry: bool) {
        let mut records = self.lock();
        let now = records.steps;
        records.forgotten.push((last, now));
        let (mut lost, mut unsaved, mut current) = (0, 0, HashMap::new());
        for (place, grant) in records.grants.iter_mut().enumerate() {
            if grant.end == End::Lost {
                continue;
            }
            if grant.step > last {
                grant.end = End::Lost;
                lost += 1;
                continue;
            }
            match grant.end {
                End::Released { step } | End::Settled { step, .. } if step > last => {
                    (grant.end, grant.was_reopened) = (End::Open, true);
                    unsaved += 1;
                }
                _ => {}
            }
            current.insert(grant.id, place);
        }
        records.current = current;
        if unsaved > 0 && !with_registry {
            records.surprises.push(format!("{unsaved} settlements were acknowledged and not on the disk"));
        }
        if with_registry {
            // What was resumed may have passed before that was forgotten.
            records.pauses.retain(|order| order.step <= last || !order.stops);
            records.revoked = records.revoked.filter(|order| order.step <= last);
        }
        drop(records);
        self.note("lost", &[lost, unsaved]);
    }
}

impl Asked {
    /// What the report says that it cost, by the prices in plain numbers. `kept`, `worst`: of its reservation.
    pub(super) fn cost(&self) -> Option<u64> {
        let report = self.report.as_ref()?;
        let (worst, input) =
            (self.told.map(|(_, output)| super::rules::cost(self.input, output)), self.input);
        let by_rule = match TEAMS[self.team].unsettled {
            super::rules::Unsettled::Reserved => worst,
            super::rules::Unsettled::Input => Some(super::rules::cost(input, 0)),
            super::rules::Unsettled::Nothing => Some(0),
        };
        match (report.outcome, report.usage) {
            (Outcome::NotSent | Outcome::RateLimited, _) | (Outcome::Failed, None) => Some(0),
            (_, Some((input, output))) => Some(super::rules::cost(input, output)),
            (Outcome::Completed, None) if by_rule == Some(0) => worst,
            (_, None) => by_rule,
        }
    }
}

/// The only model.
pub(super) fn model() -> String {
    MODEL.to_owned()
}
