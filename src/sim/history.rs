//! What truly happened in a world: what the store did, as seen behind its faults, and what clients, replicas and operators know. The
//! verdict reads this, and nothing that the product says of itself.

use std::{
    collections::{HashMap, HashSet},
    sync::{LazyLock, Mutex, MutexGuard},
};

use tokio::time::Instant;

pub(super) use super::records::{
    Acknowledged, Asked, Booking, Degraded, End, Grant, LIFE_MS, Ordered, Passed, Sent,
};
use super::rules::{Book, TEAMS};
use crate::{
    domain::{MAX_AMOUNT, counter::CounterKind, policy::spender_of},
    store::{ReservationId, Reserve, Settle},
};

#[derive(Debug, Default)]
pub(super) struct Records {
    pub(super) grants: Vec<Grant>,
    pub(super) current: HashMap<ReservationId, usize>,
    /// Replicas that ended: what they had asked for, and passed on to no caller, may stay.
    pub(super) ended: HashSet<usize>,
    pub(super) asked: Vec<Asked>,
    pub(super) pauses: Vec<Ordered>,
    pub(super) revoked: Option<Ordered>,
    pub(super) passed: Vec<Passed>,
    pub(super) degraded: Vec<Degraded>,
    /// When the last good reading of the registry began, by replica.
    pub(super) read: HashMap<usize, u64>,
    /// Reports that were acknowledged by a spool.
    pub(super) spooled: usize,
    /// Steps of the store so far.
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
pub(super) static IS_TRACED: LazyLock<bool> =
    LazyLock::new(|| std::env::var_os("TOLLGATE_SIM_TRACE").is_some());

/// The records of one world.
#[derive(Debug)]
pub(super) struct History {
    pub(super) book: &'static Book,
    began: Instant,
    records: Mutex<Records>,
}

impl History {
    pub(super) fn new(book: &'static Book) -> Self {
        Self { book, began: Instant::now(), records: Mutex::default() }
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

    /// What the budgets of a team have left at least, as if all of it were in one month and on one day.
    pub(super) fn left(&self, team: usize) -> u64 {
        let (now, records, book) = (self.now(), self.lock(), self.book);
        let taken = |of: Option<usize>| -> u64 {
            let grants = records.grants.iter().filter(|grant| of.is_none_or(|team| grant.team == team));
            grants.map(|grant| grant.taken(now)).sum()
        };
        let (rules, own) = (&book.teams[team], taken(Some(team)));
        let most = rules.daily_nanos.map_or(rules.monthly_nanos, |daily| daily.min(rules.monthly_nanos));
        most.saturating_sub(own).min(book.organization.monthly_nanos.saturating_sub(taken(None)))
    }

    pub(super) fn surprise(&self, what: String) {
        self.lock().surprises.push(what);
    }

    /// The store took the holds of `reserve` in this `step`.
    pub(super) fn granted(&self, reserve: &Reserve, (replica, asked, step): (usize, u64, u64)) {
        let made = self.now();
        let team = reserve.holds.counters().find_map(|counter| {
            let spender = spender_of(counter).filter(|spender| !spender.is_empty())?;
            TEAMS.iter().position(|team| *team == spender)
        });
        let team = team.expect("each reservation holds a team's month");
        let month = reserve
            .holds
            .iter()
            .find(|hold| spender_of(hold.counter).is_some_and(|spender| spender == TEAMS[team]));
        let month = month.expect("as before");
        let mut windows = reserve.holds.iter().filter(|hold| matches!(hold.kind, CounterKind::Window { .. }));
        let day = reserve.holds.iter().find(|hold| hold.counter.name().ends_with("|usd|day"));
        let tokens = reserve.holds.iter().find(|hold| hold.counter.name().ends_with("|tokens|minute"));
        let grant = Grant {
            id: reserve.id,
            team,
            asked,
            made,
            step,
            answered: 0,
            lost_at: None,
            settlements: Vec::new(),
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
        // A caller that was told of one that a failover forgot since has this one as well.
        let was_delivered = records.grants.iter().any(|other| other.id == grant.id && other.was_delivered);
        let grant = Grant { answered: records.steps, was_delivered, ..grant };
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
        let answered = records.steps;
        let grant = &mut records.grants[place];
        grant.settlements.push(Booking { cost, step, answered, lost_at: None });
        grant.end = match settle.actual.iter().all(|amount| *amount == 0) {
            true => End::Released { step },
            false => End::Settled { step, at, cost },
        };
        drop(records);
        self.note("settled", &[place as u64, cost]);
    }

    /// The store takes one more step.
    pub(super) fn step(&self) -> u64 {
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

    /// A replica allowed a request without the store.
    pub(super) fn degraded(&self, degraded: Degraded) {
        let mut records = self.lock();
        let read = records.read.get(&degraded.replica);
        let age = read.map(|read| degraded.at - read);
        records.degraded.push(Degraded { age, ..degraded });
        drop(records);
        self.note("degraded", &[degraded.replica as u64, degraded.team as u64]);
    }

    /// A replica read the registry, which began then.
    pub(super) fn read(&self, replica: usize, began: u64) {
        let mut records = self.lock();
        let last = records.read.entry(replica).or_default();
        *last = began.max(*last);
    }

    /// The store forgot all that came after step `last`, with its registry or without.
    pub(super) fn lose_after(&self, last: u64, with_registry: bool) {
        let mut records = self.lock();
        let before = records.steps;
        records.forgotten.push((last, before));
        records.steps += 1;
        let now = records.steps;
        let (mut lost, mut unsaved, mut current) = (0, 0, HashMap::new());
        for (place, grant) in records.grants.iter_mut().enumerate() {
            if grant.end == End::Lost {
                continue;
            }
            if grant.step > last {
                (grant.end, grant.lost_at) = (End::Lost, Some(now));
                lost += 1;
                continue;
            }
            for booking in grant.settlements.iter_mut().filter(|booking| booking.step > last) {
                booking.lost_at.get_or_insert(now);
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
