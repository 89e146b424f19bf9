//! The contents of the journal: each change of the state, in order, with the time at which it was decided.
//!
//! Replay repeats only effects, not decisions: a granted reservation, a settlement with its result. Every op has a number (`lsn`,
//! one more than the op before), given by its place in the journal. Counters are identified by the number of their slot, which an
//! earlier [`Op::Define`] in the journal or a row of table `counters` ties to a name. Terms are identified by their number among the
//! [`Op::Terms`] of the same row of the journal, which precede what speaks of them.

use std::sync::Arc;

use bytes::Bytes;

use super::{
    kept::Own,
    wire::{Malformed, Reader, kind_to_int, put_bytes, put_int, put_reported, put_rows, put_settled},
};
use crate::domain::{
    Timestamp,
    counter::{CounterKey, CounterKind},
    holds::Terms,
};
use crate::store::{Cooldown, Extra, Settled, UsageAmounts, UsageKey};

const DEFINE: u8 = 1;
/// A reservation with its terms, as up to layout 4.
const RESERVE_ALONE: u8 = 2;
/// A settlement with rows as up to layout 5.
const SETTLE: u8 = 3;
const COOLDOWN: u8 = 4;

/// What a settlement did to a gate: nothing; closed it, in the format from before cooldowns had particulars; any change.
const NO_GATE: u8 = 0;
const CLOSED: u8 = 1;
const CHANGED: u8 = 2;
/// A settlement with extras or with reported thresholds.
const SETTLE_MORE: u8 = 5;
const TERMS: u8 = 6;
const RESERVE: u8 = 7;
/// The two kinds of settlements since rows have all dimensions.
const SETTLE_ROWS: u8 = 8;
const SETTLE_ROWS_MORE: u8 = 9;
/// Rows without a settlement, since layout 7.
const ADD_ROWS: u8 = 10;

/// A change, as read back.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Op {
    /// A counter was created.
    Define { slot: u32, key: CounterKey, kind: CounterKind },
    /// The row has reservations on these terms.
    Terms(TermsOp),
    /// A reservation was granted.
    Reserve(ReserveOp),
    /// The same, before there were terms.
    ReserveAlone(ReserveAloneOp),
    /// A reservation was settled.
    Settle(SettleOp),
    /// A gate was opened on request.
    Cooldown(CooldownOp),
    /// Rows were added to without a settlement.
    AddRows(Rows),
}

#[derive(Debug, PartialEq, Eq)]
pub(super) struct TermsOp {
    pub(super) terms: Vec<TermOp>,
    pub(super) note: Bytes,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) struct TermOp {
    pub(super) slot: u32,
    pub(super) kind: CounterKind,
    pub(super) limit: u64,
    pub(super) class: u16,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) struct ReserveOp {
    pub(super) id: u128,
    /// The number of its terms.
    pub(super) terms: usize,
    /// What [`Own::read`] reads.
    pub(super) own: Vec<u8>,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) struct ReserveAloneOp {
    pub(super) id: u128,
    pub(super) fingerprint: u64,
    pub(super) reserved_at: Timestamp,
    pub(super) expires_at: Timestamp,
    pub(super) forget_at: Timestamp,
    pub(super) holds: Vec<HoldOp>,
    pub(super) note: Bytes,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) struct HoldOp {
    pub(super) slot: u32,
    pub(super) kind: CounterKind,
    pub(super) limit: u64,
    pub(super) kept: u64,
    pub(super) expiring: u64,
}

/// Carries its result, because a counter's row may already be ahead of the op when the journal is replayed.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct SettleOp {
    pub(super) id: u128,
    /// The `lsn` of the reservation's own op, which distinguishes it from an earlier one with the same id.
    pub(super) seq: u64,
    pub(super) settled_at: Timestamp,
    pub(super) forget_at: Timestamp,
    /// The amount used of each hold.
    pub(super) actual: Vec<u64>,
    /// The amounts booked in counters of which the reservation holds nothing.
    pub(super) extras: Vec<Extra>,
    /// The result for each hold, and then for each extra.
    pub(super) counters: Vec<Settled>,
    /// The thresholds that it reported, by the index of the hold (extras follow the holds).
    pub(super) reported: Vec<(usize, u64)>,
    pub(super) lines: Vec<(UsageKey, UsageAmounts)>,
    pub(super) cooldown: Option<CooldownOp>,
    pub(super) note: Bytes,
}

/// A change of a gate. Carries its result, so it is the same however often it is replayed.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct CooldownOp {
    pub(super) gate: CounterKey,
    /// `None`: it is open.
    pub(super) after: Option<Cooldown>,
}

pub(super) fn put_define(to: &mut Vec<u8>, slot: u32, key: &CounterKey, kind: CounterKind) {
    to.push(DEFINE);
    put_int(to, u64::from(slot));
    put_key(to, key);
    put_int(to, kind_to_int(kind));
}

fn put_key(to: &mut Vec<u8>, key: &CounterKey) {
    put_bytes(to, key.name().as_bytes());
    put_int(to, u64::from(key.period()));
}

/// `slots` are those of the terms' counters, in their order.
pub(super) fn put_terms(to: &mut Vec<u8>, terms: &Terms, slots: &[u32]) {
    to.push(TERMS);
    put_int(to, slots.len() as u64);
    for (term, slot) in terms.iter().zip(slots) {
        for int in [u64::from(*slot), kind_to_int(term.kind), term.limit, u64::from(term.class)] {
            put_int(to, int);
        }
    }
    put_bytes(to, terms.note());
}

/// `terms`: their number.
pub(super) fn put_reserve(to: &mut Vec<u8>, id: u128, terms: u32, own: &Own) {
    to.push(RESERVE);
    to.extend_from_slice(&id.to_le_bytes());
    put_int(to, u64::from(terms));
    put_bytes(to, own.bytes());
}

pub(super) fn put_settle(to: &mut Vec<u8>, op: &SettleOp) {
    let more = !(op.extras.is_empty() && op.reported.is_empty());
    to.push(if more { SETTLE_ROWS_MORE } else { SETTLE_ROWS });
    to.extend_from_slice(&op.id.to_le_bytes());
    put_int(to, op.seq);
    put_int(to, op.settled_at.0);
    put_int(to, op.forget_at.since(op.settled_at));
    put_int(to, op.actual.len() as u64);
    let mut counters = op.counters.iter();
    for (actual, settled) in op.actual.iter().zip(&mut counters) {
        put_int(to, *actual);
        put_settled(to, settled);
    }
    if more {
        put_int(to, op.extras.len() as u64);
        for (Extra { counter, kind, amount }, settled) in op.extras.iter().zip(counters) {
            put_key(to, counter);
            put_int(to, kind_to_int(*kind));
            put_int(to, *amount);
            put_settled(to, settled);
        }
        put_reported(to, &op.reported);
    }
    put_rows(to, &op.lines);
    match &op.cooldown {
        None => to.push(NO_GATE),
        Some(op) => {
            to.push(CHANGED);
            put_change(to, op);
        }
    }
    put_bytes(to, &op.note);
}

pub(super) fn put_cooldown(to: &mut Vec<u8>, op: &CooldownOp) {
    to.push(COOLDOWN);
    put_change(to, op);
}

pub(super) fn put_add_rows(to: &mut Vec<u8>, rows: &[(UsageKey, UsageAmounts)]) {
    to.push(ADD_ROWS);
    put_rows(to, rows);
}

fn put_change(to: &mut Vec<u8>, CooldownOp { gate, after }: &CooldownOp) {
    put_key(to, gate);
    match after {
        None => to.push(0),
        Some(Cooldown { start, end, refused, requested_ms, reporter, .. }) => {
            to.push(1);
            for int in [start.0, end.0, refused.0, *requested_ms] {
                put_int(to, int);
            }
            put_bytes(to, reporter.as_bytes());
        }
    }
}

/// Reads the next op.
pub(super) fn read(from: &mut Reader<'_>) -> Result<Op, Malformed> {
    match from.byte()? {
        DEFINE => Ok(Op::Define { slot: from.small()?, key: read_key(from)?, kind: from.kind()? }),
        TERMS => read_terms(from).map(Op::Terms),
        RESERVE => Ok(Op::Reserve(ReserveOp {
            id: u128::from_le_bytes(from.array()?),
            terms: usize::try_from(from.int()?).map_err(|_| Malformed)?,
            own: from.slice()?.to_vec(),
        })),
        RESERVE_ALONE => read_reserve_alone(from).map(Op::ReserveAlone),
        SETTLE => read_settle(from, false, read_lines).map(Op::Settle),
        SETTLE_MORE => read_settle(from, true, read_lines).map(Op::Settle),
        SETTLE_ROWS => read_settle(from, false, |from| from.rows()).map(Op::Settle),
        SETTLE_ROWS_MORE => read_settle(from, true, |from| from.rows()).map(Op::Settle),
        COOLDOWN => read_change(from).map(Op::Cooldown),
        ADD_ROWS => from.rows().map(Op::AddRows),
        _ => Err(Malformed),
    }
}

fn read_key(from: &mut Reader<'_>) -> Result<CounterKey, Malformed> {
    let name: Arc<str> = from.text()?;
    Ok(CounterKey::new(name).in_period(from.small()?))
}

fn read_terms(from: &mut Reader<'_>) -> Result<TermsOp, Malformed> {
    let mut terms = Vec::new();
    for _ in 0..from.count()? {
        let (slot, kind, limit) = (from.small()?, from.kind()?, from.int()?);
        let class = u16::try_from(from.int()?).map_err(|_| Malformed)?;
        terms.push(TermOp { slot, kind, limit, class });
    }
    Ok(TermsOp { terms, note: from.bytes()? })
}

fn read_reserve_alone(from: &mut Reader<'_>) -> Result<ReserveAloneOp, Malformed> {
    let id = u128::from_le_bytes(from.array()?);
    let fingerprint = u64::from_le_bytes(from.array()?);
    let reserved_at = from.time()?;
    let expires_at = reserved_at.plus(from.int()?);
    let forget_at = expires_at.plus(from.int()?);
    let mut holds = Vec::new();
    for _ in 0..from.count()? {
        holds.push(HoldOp {
            slot: from.small()?,
            kind: from.kind()?,
            limit: from.int()?,
            kept: from.int()?,
            expiring: from.int()?,
        });
    }
    Ok(ReserveAloneOp { id, fingerprint, reserved_at, expires_at, forget_at, holds, note: from.bytes()? })
}

pub(super) type Rows = Vec<(UsageKey, UsageAmounts)>;

fn read_lines(from: &mut Reader<'_>) -> Result<Rows, Malformed> {
    let mut lines = Vec::new();
    for _ in 0..from.count()? {
        lines.push(from.line()?);
    }
    Ok(lines)
}

fn read_settle(
    from: &mut Reader<'_>,
    more: bool,
    rows: fn(&mut Reader<'_>) -> Result<Rows, Malformed>,
) -> Result<SettleOp, Malformed> {
    let id = u128::from_le_bytes(from.array()?);
    let seq = from.int()?;
    let settled_at = from.time()?;
    let forget_at = settled_at.plus(from.int()?);
    let (mut actual, mut counters) = (Vec::new(), Vec::new());
    for _ in 0..from.count()? {
        actual.push(from.int()?);
        counters.push(from.settled()?);
    }
    let (mut extras, mut reported) = (Vec::new(), Vec::new());
    if more {
        for _ in 0..from.count()? {
            extras.push(Extra { counter: read_key(from)?, kind: from.kind()?, amount: from.int()? });
            counters.push(from.settled()?);
        }
        reported = from.reported()?;
    }
    let lines = rows(from)?;
    let cooldown = match from.byte()? {
        NO_GATE => None,
        CLOSED => {
            let (gate, end) = (read_key(from)?, from.time()?);
            let (start, refused) = (settled_at, settled_at);
            let (requested_ms, reporter) = (end.since(start), Arc::from(""));
            let begun = start;
            let after = Some(Cooldown { start, begun, end, refused, requested_ms, reporter });
            Some(CooldownOp { gate, after })
        }
        CHANGED => Some(read_change(from)?),
        _ => return Err(Malformed),
    };
    Ok(SettleOp {
        id,
        seq,
        settled_at,
        forget_at,
        actual,
        extras,
        counters,
        reported,
        lines,
        cooldown,
        note: from.bytes()?,
    })
}

fn read_change(from: &mut Reader<'_>) -> Result<CooldownOp, Malformed> {
    let gate = read_key(from)?;
    let after = match from.byte()? {
        0 => None,
        1 => {
            let (start, end, refused) = (from.time()?, from.time()?, from.time()?);
            let (requested_ms, reporter) = (from.int()?, from.text()?);
            Some(Cooldown { start, begun: start, end, refused, requested_ms, reporter })
        }
        _ => return Err(Malformed),
    };
    Ok(CooldownOp { gate, after })
}

#[cfg(test)]
mod tests;
