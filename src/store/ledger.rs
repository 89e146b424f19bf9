//! Counters that are checked and taken together, and reservations that are settled once.

use std::{fmt, future::Future, ops::Range, str::FromStr};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::{Backend, Cooldown, CooldownChange, StoreError, UsageAmounts, UsageKey};
use crate::domain::{
    Moment, Timestamp,
    counter::{CounterKey, CounterKind, CounterState, Hold},
    holds::Holds,
};

/// Counters that are checked and taken together, and reservations that are settled once. Each operation is one atomic step
/// at one instant of the store's clock. Counters are opaque names.
pub trait Ledger: Backend {
    /// Takes all holds or none.
    fn reserve(&self, reserve: Reserve) -> impl Future<Output = Result<Reserved, StoreError>> + Send;

    /// The reservation, if it is known.
    fn find(&self, id: ReservationId) -> impl Future<Output = Result<Option<Record>, StoreError>> + Send;

    /// Replaces a reservation's holds by the amounts really used, exactly once. Durable before it answers.
    fn settle(&self, settle: Settle) -> impl Future<Output = Result<SettleOutcome, StoreError>> + Send;

    /// The reservation as this process remembers it, which spares a look-up; `None`: it does not. It may have been settled or replaced
    /// since, so it is good for [`Ledger::settle_recalled`] only.
    fn recall(&self, _id: ReservationId) -> Option<Record> {
        None
    }

    /// The same as [`Ledger::settle`] for a reservation as [`Ledger::recall`] returned it. `None`: what is stored is something else by now,
    /// and nothing was changed; [`Ledger::find`] tells what it is.
    fn settle_recalled(
        &self,
        settle: Settle,
    ) -> impl Future<Output = Result<Option<SettleOutcome>, StoreError>> + Send {
        let settled = self.settle(settle);
        async { settled.await.map(Some) }
    }

    /// Takes note that a caller is told of the settlement in the record of `settle`, which was found and which `settle` repeats. A store that
    /// may forget what it acknowledged keeps it, if it is the same; others do nothing.
    fn found_settled(&self, _settle: Settle) {}

    /// The states of counters, in the given order. A counter that was never touched is all zero.
    fn counters(
        &self,
        keys: Vec<(CounterKey, CounterKind)>,
    ) -> impl Future<Output = Result<Vec<CounterState>, StoreError>> + Send;

    /// The gates that are closed, in order of their names.
    fn cooldowns(&self) -> impl Future<Output = Result<Vec<(CounterKey, Cooldown)>, StoreError>> + Send;

    /// Opens gates, at most [`MAX_GATES`]; returns those that were closed, as they were. Durable before it answers.
    fn lift_cooldowns(
        &self,
        gates: Vec<CounterKey>,
    ) -> impl Future<Output = Result<Vec<(CounterKey, Cooldown)>, StoreError>> + Send;
}

/// Identifies a reservation: a version byte, and 120 bits that are random, or derived from the caller and its `request_id`. Written as
/// 32 hexadecimal digits. Stores take any bytes; ids are made by [`ReservationId::versioned`], and others are not parsed.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ReservationId(pub [u8; 16]);

impl ReservationId {
    /// The first byte of every id.
    const VERSION: u8 = 1;

    /// The first byte of ids of reservations that are made without a store.
    const OUTAGE_VERSION: u8 = 2;

    /// The id with these bits, of which the first eight are replaced by the version.
    #[must_use]
    pub fn versioned(mut bits: [u8; 16]) -> Self {
        let [version, ..] = &mut bits;
        *version = Self::VERSION;
        Self(bits)
    }

    /// The same bits as the id of a reservation that is made without a store. It is no text that [`FromStr`] reads, as more belongs to it.
    #[must_use]
    pub fn of_outage(self) -> Self {
        let Self(mut bits) = self;
        let [version, ..] = &mut bits;
        *version = Self::OUTAGE_VERSION;
        Self(bits)
    }

    /// The id of such a reservation in this text; `None`: it is none.
    #[must_use]
    pub fn of_outage_text(text: &str) -> Option<Self> {
        Self::of_text(text, Self::OUTAGE_VERSION)
    }

    fn of_text(text: &str, version: u8) -> Option<Self> {
        let digits = text.len() == 32 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        let value = digits.then(|| u128::from_str_radix(text, 16).ok()).flatten();
        let id = value.map(|value| Self(value.to_be_bytes()));
        id.filter(|Self([first, ..])| *first == version)
    }
}

impl fmt::Display for ReservationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Every answer has one, and `{:032x}` of a number takes ten times as long.
        const DIGITS: [u8; 16] = *b"0123456789abcdef";
        let digit = |four: u8| DIGITS.get(usize::from(four)).copied().unwrap_or_default();
        let mut text = [0; 32];
        for (byte, pair) in self.0.iter().zip(text.as_chunks_mut().0) {
            *pair = [digit(byte >> 4), digit(byte & 0xf)];
        }
        f.write_str(str::from_utf8(&text).map_err(|_| fmt::Error)?)
    }
}

impl fmt::Debug for ReservationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The text is not the 32 hexadecimal digits of a reservation id, or of an id of another version.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("a reservation id is 32 lower-case hexadecimal digits, of which the first two are 01")]
pub struct NotAReservationId;

impl FromStr for ReservationId {
    type Err = NotAReservationId;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::of_text(text, Self::VERSION).ok_or(NotAReservationId)
    }
}

/// A request to take holds, all or none.
#[derive(Clone, Debug)]
pub struct Reserve {
    /// The reservation to make.
    pub id: ReservationId,
    /// Whether the id was possibly used before (it was derived from a `request_id`).
    pub may_repeat: bool,
    /// Shows whether a repeat is the same request.
    pub fingerprint: u64,
    /// The holds to take. At most [`MAX_HOLDS`], no counter twice.
    pub holds: Holds,
    /// Gates that must be open. At most [`MAX_GATES`].
    pub gates: Vec<CounterKey>,
    /// When the calendar periods and prices behind the holds apply. Outside this range the store answers [`Reserved::OutOfDate`].
    pub valid: Range<Timestamp>,
    /// The reservation's time to live in milliseconds.
    pub ttl_ms: u64,
    /// How long after its expiry the reservation can still be settled, in milliseconds.
    pub late_ms: u64,
    /// Kept with the reservation for the caller; opaque to the store. At most [`MAX_NOTE`] bytes.
    pub note: Bytes,
    /// The note of settlements that leave their id free: a reservation settled with this note does not count, and is replaced.
    /// Empty: none.
    pub replaces: Bytes,
    /// Only decides, and takes nothing.
    pub dry_run: bool,
}

impl Reserve {
    /// Whether the reservation under the id does not count.
    #[must_use]
    pub fn replaces(&self, record: &Record) -> bool {
        let settlement = record.settlement.as_ref();
        !self.replaces.is_empty() && settlement.is_some_and(|settlement| settlement.note == self.replaces)
    }
}

/// The most holds of one reservation: every limit of organization, team, key and user on three windows and three periods.
pub const MAX_HOLDS: usize = 96;
/// The most gates of one reservation.
pub const MAX_GATES: usize = 8;
/// The most bytes of a note: names within their bounds, and numbers.
pub const MAX_NOTE: usize = 4096;

/// The answer to [`Reserve`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reserved {
    /// All holds were taken (or, for a dry run, would have been).
    Granted {
        /// The store's time.
        now: Timestamp,
        /// What each counter had used before this reservation, in the order of the holds.
        used: Vec<u64>,
    },
    /// Nothing was taken.
    Refused {
        /// The store's time.
        now: Timestamp,
        /// What each counter has used, in the order of the holds.
        used: Vec<u64>,
        /// The holds that do not fit, in order.
        refusals: Vec<Refusal>,
        /// The gates that are closed, in order: the index and when it opens.
        closed: Vec<(usize, Timestamp)>,
    },
    /// The id was used before; nothing was taken now. The caller compares fingerprints.
    Repeated(Record),
    /// The store's time is outside [`Reserve::valid`]; nothing was taken.
    OutOfDate {
        /// The store's time.
        now: Timestamp,
    },
}

/// A hold that does not fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The index of the hold.
    pub hold: usize,
    /// When it would fit if nothing else happened, as far as the counter itself shows; `None`: not within its period.
    pub frees_at: Option<Timestamp>,
}

/// A reservation as the store keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// The fingerprint it was made with.
    pub fingerprint: u64,
    /// When it was made.
    pub reserved_at: Timestamp,
    /// When it expires.
    pub expires_at: Timestamp,
    /// The holds it took.
    pub holds: Holds,
    /// The caller's note.
    pub note: Bytes,
    /// How it was settled, if it was.
    pub settlement: Option<Settlement>,
}

/// How a reservation was settled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settlement {
    /// When it was settled.
    pub settled_at: Timestamp,
    /// Each counter just before and just after: in the order of the holds, then in that of [`Settle::extras`].
    pub counters: Vec<Settled>,
    /// The thresholds that this settlement was the first to report: the counter's index in `counters`, and the amount.
    pub reported: Vec<(usize, u64)>,
    /// The caller's note.
    pub note: Bytes,
}

impl Record {
    /// The same for callers, with wall-clock instants. A store keeps them in its own time.
    #[must_use]
    pub fn by_the_wall(mut self, now: Moment) -> Self {
        self.reserved_at = now.to_wall(self.reserved_at);
        self.expires_at = now.to_wall(self.expires_at);
        self.settlement = self.settlement.map(|settlement| settlement.by_the_wall(now));
        self
    }
}

impl Settlement {
    /// The same for callers, with a wall-clock instant. A store keeps it in its own time.
    #[must_use]
    pub fn by_the_wall(mut self, now: Moment) -> Self {
        self.settled_at = now.to_wall(self.settled_at);
        self
    }
}

/// A counter before and after a settlement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settled {
    /// The settled amount before.
    pub settled_before: u64,
    /// The state after.
    pub after: CounterState,
}

/// An amount that a settlement books in a budget of which its reservation holds nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Extra {
    /// The budget's counter.
    pub counter: CounterKey,
    /// Its kind, which is that of a budget.
    pub kind: CounterKind,
    /// The amount used.
    pub amount: u64,
}

/// A request to settle a reservation.
#[derive(Clone, Debug)]
pub struct Settle {
    /// The reservation.
    pub id: ReservationId,
    /// The reservation as [`Ledger::find`] returned it.
    pub record: Record,
    /// The amounts really used of each hold, in their order.
    pub actual: Vec<u64>,
    /// Amounts to book in other budgets. No counter twice, and none of the holds'.
    pub extras: Vec<Extra>,
    /// The thresholds of budgets: the index of the hold (extras follow the holds), and amounts. Each amount that the settled
    /// total has reached is reported by one settlement only.
    pub thresholds: Vec<(usize, Vec<u64>)>,
    /// Rows of usage to add to, in order.
    pub lines: Vec<(UsageKey, UsageAmounts)>,
    /// The rows that a set of users or of a label may have before new ones go to [`super::OTHER_VALUE`].
    pub max_rows: u64,
    /// A gate to close, or to open again.
    pub cooldown: Option<(CounterKey, CooldownChange)>,
    /// How long the settled reservation is kept to recognise a repeat, in milliseconds.
    pub keep_ms: u64,
    /// Kept with the settlement for the caller; opaque to the store. At most [`MAX_NOTE`] bytes.
    pub note: Bytes,
}

/// The answer to [`Settle`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SettleOutcome {
    /// Settled by this call.
    Settled(Settlement),
    /// Settled before; nothing was changed. Holds the first result.
    AlreadySettled(Settlement),
    /// There is no such reservation, or no longer one.
    NotFound,
}

impl Extra {
    /// The result for a hold that took nothing.
    #[must_use]
    pub const fn hold(&self) -> Hold<&CounterKey> {
        Hold {
            counter: &self.counter,
            kind: self.kind,
            limit: crate::domain::MAX_AMOUNT,
            kept: 0,
            expiring: 0,
        }
    }
}
