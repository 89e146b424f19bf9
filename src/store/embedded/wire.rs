//! The bytes of the journal: integers of variable length, and strings preceded by their length.
//!
//! Written by hand because it runs under the store's lock, once per reservation; a derived encoding of the same values costs
//! several times as much.

use std::sync::Arc;

use bytes::Bytes;
use thiserror::Error;

use crate::domain::{
    Timestamp,
    counter::{CounterKind, CounterState},
};
use crate::store::{Series, Settled, UsageAmounts, UsageKey, UsageSet, written};

/// The bytes are not what was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("the bytes are not what was written")]
pub(super) struct Malformed;

/// Appends seven bits at a time, lowest first.
#[inline]
pub(super) fn put_int(to: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        let [low, ..] = value.to_le_bytes();
        to.push(low | 0x80);
        value >>= 7;
    }
    let [low, ..] = value.to_le_bytes();
    to.push(low);
}

/// The bytes that [`put_int`] appends.
pub(super) const fn int_len(value: u64) -> usize {
    // Zero takes a byte as well.
    let bits = u64::BITS - (value | 1).leading_zeros();
    bits.div_ceil(7) as usize
}

pub(super) fn put_bytes(to: &mut Vec<u8>, bytes: &[u8]) {
    put_int(to, bytes.len() as u64);
    to.extend_from_slice(bytes);
}

/// The kind as one integer, for the journal and for the tables.
pub(super) const fn kind_to_int(kind: CounterKind) -> u64 {
    match kind {
        CounterKind::Window { slot_ms } => slot_ms << 1,
        CounterKind::Budget { slot_ms } => slot_ms << 1 | 1,
    }
}

pub(super) fn kind_from_int(value: u64) -> Result<CounterKind, Malformed> {
    let slot_ms = value >> 1;
    match (slot_ms, value & 1) {
        (0, _) => Err(Malformed),
        (_, 0) => Ok(CounterKind::Window { slot_ms }),
        (_, _) => Ok(CounterKind::Budget { slot_ms }),
    }
}

pub(super) fn put_settled(to: &mut Vec<u8>, settled: &Settled) {
    let Settled { settled_before, after: CounterState { used, settled, open } } = *settled;
    for value in [settled_before, used, settled, open] {
        put_int(to, value);
    }
}

/// The reported thresholds, each with the index of its counter.
pub(super) fn put_reported(to: &mut Vec<u8>, reported: &[(usize, u64)]) {
    put_int(to, reported.len() as u64);
    for (counter, amount) in reported {
        put_int(to, *counter as u64);
        put_int(to, *amount);
    }
}

/// What a row has in common with the one before it in the same op, and is not written again.
const SAME_TEAM: u8 = 1;
const SAME_DAY: u8 = 1 << 1;
const SAME_MODEL: u8 = 1 << 2;
const SAME_KEY: u8 = 1 << 3;
const SAME_CODES: u8 = 1 << 4;
const SAME_PROJECT: u8 = 1 << 5;
const SAME_AMOUNTS: u8 = 1 << 6;

/// The rows of a settlement.
pub(super) fn put_rows(to: &mut Vec<u8>, rows: &[(UsageKey, UsageAmounts)]) {
    put_int(to, rows.len() as u64);
    let mut before: Option<&(UsageKey, UsageAmounts)> = None;
    for row in rows {
        put_row(to, row, before);
        before = Some(row);
    }
}

fn put_row(
    to: &mut Vec<u8>,
    (key, amounts): &(UsageKey, UsageAmounts),
    before: Option<&(UsageKey, UsageAmounts)>,
) {
    let same = before.map_or(0, |(last, last_amounts)| {
        let flag = |is: bool, flag| if is { flag } else { 0 };
        flag(last.set.team == key.set.team, SAME_TEAM)
            | flag(last.day == key.day, SAME_DAY)
            | flag(last.model == key.model, SAME_MODEL)
            | flag(last.key == key.key, SAME_KEY)
            | flag(last.codes() == key.codes(), SAME_CODES)
            | flag(last.project == key.project, SAME_PROJECT)
            | flag(last_amounts == amounts, SAME_AMOUNTS)
    });
    to.push(same);
    put_bytes(to, key.set.series.name().as_bytes());
    put_int(to, u64::from(key.set.period));
    to.push(key.hour);
    put_bytes(to, key.value.as_bytes());
    let text = |to: &mut Vec<u8>, flag, text: &str| {
        if same & flag == 0 {
            put_bytes(to, text.as_bytes());
        }
    };
    text(to, SAME_TEAM, &key.set.team);
    if same & SAME_DAY == 0 {
        put_int(to, u64::from(key.day));
    }
    text(to, SAME_MODEL, &key.model);
    text(to, SAME_KEY, &key.key);
    if same & SAME_CODES == 0 {
        to.extend(key.codes());
    }
    text(to, SAME_PROJECT, &key.project);
    if same & SAME_AMOUNTS == 0 {
        put_amounts(to, amounts);
    }
}

/// How many there are up to the last that is not 0, and those.
pub(super) fn put_amounts(to: &mut Vec<u8>, amounts: &UsageAmounts) {
    let numbers = amounts.to_numbers();
    let numbers = written(&numbers);
    put_int(to, numbers.len() as u64);
    for number in numbers {
        put_int(to, *number);
    }
}

/// Reads what the functions above wrote.
pub(super) struct Reader<'a>(pub(super) &'a [u8]);

impl Reader<'_> {
    pub(super) const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn byte(&mut self) -> Result<u8, Malformed> {
        let (first, rest) = self.0.split_first().ok_or(Malformed)?;
        self.0 = rest;
        Ok(*first)
    }

    pub(super) fn int(&mut self) -> Result<u64, Malformed> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(Malformed)
    }

    pub(super) fn small(&mut self) -> Result<u32, Malformed> {
        u32::try_from(self.int()?).map_err(|_| Malformed)
    }

    pub(super) fn time(&mut self) -> Result<Timestamp, Malformed> {
        self.int().map(Timestamp)
    }

    /// How many elements follow; each takes at least a byte, so a count beyond the end is refused before it is used.
    pub(super) fn count(&mut self) -> Result<usize, Malformed> {
        usize::try_from(self.int()?).ok().filter(|n| *n <= self.0.len()).ok_or(Malformed)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (first, rest) = self.0.split_first_chunk().ok_or(Malformed)?;
        self.0 = rest;
        Ok(*first)
    }

    pub(super) fn slice(&mut self) -> Result<&[u8], Malformed> {
        let len = self.count()?;
        let (first, rest) = self.0.split_at_checked(len).ok_or(Malformed)?;
        self.0 = rest;
        Ok(first)
    }

    pub(super) fn bytes(&mut self) -> Result<Bytes, Malformed> {
        self.slice().map(Bytes::copy_from_slice)
    }

    pub(super) fn text(&mut self) -> Result<Arc<str>, Malformed> {
        str::from_utf8(self.slice()?).map(Arc::from).map_err(|_| Malformed)
    }

    pub(super) fn kind(&mut self) -> Result<CounterKind, Malformed> {
        kind_from_int(self.int()?)
    }

    pub(super) fn settled(&mut self) -> Result<Settled, Malformed> {
        Ok(Settled {
            settled_before: self.int()?,
            after: CounterState { used: self.int()?, settled: self.int()?, open: self.int()? },
        })
    }

    pub(super) fn reported(&mut self) -> Result<Vec<(usize, u64)>, Malformed> {
        let mut reported = Vec::new();
        for _ in 0..self.count()? {
            reported.push((usize::try_from(self.int()?).map_err(|_| Malformed)?, self.int()?));
        }
        Ok(reported)
    }

    /// A row as up to layout 5.
    pub(super) fn line(&mut self) -> Result<(UsageKey, UsageAmounts), Malformed> {
        let (month, day) = (self.small()?, self.small()?);
        let (team, model, key) = (self.text()?, self.text()?, self.text()?);
        let mut ints = [0; 8];
        for int in &mut ints {
            *int = self.int()?;
        }
        Ok((UsageKey::of_day(month, team, day, model, key), UsageAmounts::from_numbers(&ints)))
    }

    /// The rows of a settlement.
    pub(super) fn rows(&mut self) -> Result<Vec<(UsageKey, UsageAmounts)>, Malformed> {
        let mut rows = Vec::new();
        for _ in 0..self.count()? {
            let row = self.row(rows.last())?;
            rows.push(row);
        }
        Ok(rows)
    }

    fn row(
        &mut self,
        before: Option<&(UsageKey, UsageAmounts)>,
    ) -> Result<(UsageKey, UsageAmounts), Malformed> {
        let same = self.byte()?;
        let last = |flag| match (same & flag, before) {
            (0, _) => Ok(None),
            (_, Some(before)) => Ok(Some(before)),
            (_, None) => Err(Malformed),
        };
        let series = Series::of_name(&self.text()?).ok_or(Malformed)?;
        let (period, hour, value) = (self.small()?, self.byte()?, self.text()?);
        let text = |from: &mut Self, flag, of: fn(&UsageKey) -> &Arc<str>| match last(flag)? {
            Some((key, _)) => Ok(Arc::clone(of(key))),
            None => from.text(),
        };
        let team = text(self, SAME_TEAM, |key| &key.set.team)?;
        let day = match last(SAME_DAY)? {
            Some((key, _)) => key.day,
            None => self.small()?,
        };
        let model = text(self, SAME_MODEL, |key| &key.model)?;
        let name = text(self, SAME_KEY, |key| &key.key)?;
        let codes = match last(SAME_CODES)? {
            Some((key, _)) => key.codes(),
            None => self.array()?,
        };
        let project = text(self, SAME_PROJECT, |key| &key.project)?;
        let amounts = match last(SAME_AMOUNTS)? {
            Some((_, amounts)) => *amounts,
            None => self.amounts()?,
        };
        let (operation, service_tier) = UsageKey::of_codes(codes);
        let set = UsageSet { series, period, team };
        let key = UsageKey { set, day, hour, model, key: name, operation, service_tier, project, value };
        Ok((key, amounts))
    }

    pub(super) fn amounts(&mut self) -> Result<UsageAmounts, Malformed> {
        let mut numbers = Vec::new();
        for _ in 0..self.count()? {
            numbers.push(self.int()?);
        }
        Ok(UsageAmounts::from_numbers(&numbers))
    }
}
