//! The bytes of a reservation: a header of numbers that the scripts read and write (`records.lua`), and a body that only this file does.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{
    terms::{Known, TermsHash},
    wire::{self, Reader},
};
use crate::{
    domain::{
        Timestamp,
        counter::{CounterKey, CounterKind, CounterState, Hold},
        holds::{Amount, Holds},
    },
    store::{Record, Reserve, Settled, Settlement, StoreError},
};

/// The layout of a body with its holds.
const WHOLE: u8 = 1;
/// The layout of a body that refers to terms.
const SHORT: u8 = 2;
/// The layout of a body with its holds and the note of their terms.
const NOTED: u8 = 3;
/// The states of a record. Those settled by releases before layout 5 are of the second.
const OPEN: u8 = 0;
const SETTLED_EARLIER: u8 = 2;
const SETTLED: u8 = 3;

/// A hold in a body. The names of one owner's counters begin alike, so each name says how much it shares with the name before:
/// the server's time for a record grows with its bytes.
#[derive(Serialize, Deserialize)]
struct PackedHold<'a> {
    /// The bytes shared with the name before.
    shared: usize,
    rest: &'a str,
    period: u32,
    kind: CounterKind,
    limit: u64,
    kept: u64,
    expiring: u64,
}

/// What a body says behind the hash of its terms; the note follows.
#[derive(Serialize, Deserialize)]
struct Short {
    fingerprint: u64,
    /// Kept and expiring of each class.
    amounts: Vec<(u64, u64)>,
}

/// How many bytes of `name` it shares with the name before, and the rest. That name becomes this one.
pub(super) fn shared<'a>(name: &'a str, before: &mut &'a str) -> (usize, &'a str) {
    let alike = name.char_indices().zip(before.chars()).find(|((_, a), b)| a != b);
    let shared = alike.map_or(name.len().min(before.len()), |((at, _), _)| at);
    *before = name;
    (shared, name.get(shared..).unwrap_or_default())
}

/// The inverse of [`shared`]: `name` becomes the next one.
pub(super) fn unshared(name: &mut String, shared: usize, rest: &str) -> Result<(), StoreError> {
    if shared > name.len() || !name.is_char_boundary(shared) {
        return Err(StoreError::Corrupt);
    }
    name.truncate(shared);
    name.push_str(rest);
    Ok(())
}

/// The body of the record that `reserve` makes: it refers to the terms, if they are `known`.
pub(super) fn encode(reserve: &Reserve, known: Option<&Known>) -> Result<Vec<u8>, StoreError> {
    let Some(known) = known else { return encode_whole(reserve) };
    let amounts = reserve.holds.amounts().iter().map(|amount| (amount.kept, amount.expiring)).collect();
    let mut body = Vec::with_capacity(64 + reserve.note.len());
    body.push(SHORT);
    body.extend_from_slice(&known.hash);
    let short = Short { fingerprint: reserve.fingerprint, amounts };
    let mut body = postcard::to_extend(&short, body).map_err(|_| StoreError::Corrupt)?;
    body.extend_from_slice(&reserve.note);
    Ok(body)
}

fn encode_whole(reserve: &Reserve) -> Result<Vec<u8>, StoreError> {
    let mut before = "";
    let holds: Vec<_> = reserve.holds.iter().map(|hold| pack(hold, &mut before)).collect();
    let terms_note = reserve.holds.terms().note();
    let mut start = Vec::with_capacity(64 + 40 * holds.len() + reserve.note.len() + terms_note.len());
    start.push(if terms_note.is_empty() { WHOLE } else { NOTED });
    let body = postcard::to_extend(&(reserve.fingerprint, holds, &reserve.note), start);
    let mut body = body.map_err(|_| StoreError::Corrupt)?;
    body.extend_from_slice(terms_note);
    Ok(body)
}

fn pack<'a>(hold: Hold<&'a CounterKey>, before: &mut &'a str) -> PackedHold<'a> {
    let (shared, rest) = shared(hold.counter.name(), before);
    PackedHold {
        shared,
        rest,
        period: hold.counter.period(),
        kind: hold.kind,
        limit: hold.limit,
        kept: hold.kept,
        expiring: hold.expiring,
    }
}

fn unpack(packed: &PackedHold<'_>, name: &mut String) -> Result<Hold, StoreError> {
    unshared(name, packed.shared, packed.rest)?;
    let PackedHold { period, kind, limit, kept, expiring, .. } = *packed;
    Ok(Hold { counter: CounterKey::new(name.as_str()).in_period(period), kind, limit, kept, expiring })
}

/// The header of an open record, as the scripts write it.
pub(super) fn open_header(now: Timestamp, ttl_ms: u64, late_ms: u64) -> Vec<u8> {
    let expires_at = now.plus(ttl_ms);
    let mut header = Vec::with_capacity(128);
    header.push(OPEN);
    for instant in [expires_at.plus(late_ms), now, expires_at] {
        wire::push_seven(&mut header, instant.0);
    }
    header
}

/// A record, taken apart.
pub(super) struct Parts<'a> {
    pub(super) gone_at: Timestamp,
    pub(super) reserved_at: Timestamp,
    expires_at: Timestamp,
    settled: Option<SettledPart<'a>>,
    body: &'a [u8],
}

/// What a settlement adds to a record.
struct SettledPart<'a> {
    settled_at: Timestamp,
    note: &'a [u8],
    reported: Vec<(usize, u64)>,
    counters: Counters<'a>,
}

/// The counters before and after a settlement.
enum Counters<'a> {
    /// Each by itself.
    Told(Vec<Settled>),
    /// As they were before or after the settlements of a call, and what each number is more than that.
    Since { states: &'a [u8], more: Vec<i64> },
}

impl<'a> Parts<'a> {
    /// Takes apart a record, or one that is settled without its body.
    pub(super) fn of(bytes: &'a [u8]) -> Result<Self, StoreError> {
        let mut reader = Reader::new(bytes);
        let state = reader.byte()?;
        let gone_at = Timestamp(reader.seven()?);
        let (reserved_at, expires_at) = (Timestamp(reader.seven()?), Timestamp(reader.seven()?));
        let settled = match state {
            OPEN => None,
            SETTLED_EARLIER => Some(SettledPart::earlier(&mut reader)?),
            SETTLED => Some(SettledPart::of(&mut reader)?),
            _ => return Err(StoreError::Corrupt),
        };
        Ok(Self { gone_at, reserved_at, expires_at, settled, body: reader.rest() })
    }

    pub(super) const fn is_open(&self) -> bool {
        self.settled.is_none()
    }

    /// The terms that it refers to, if it does.
    pub(super) fn terms(&self) -> Option<TermsHash> {
        let (version, rest) = self.body.split_first()?;
        rest.first_chunk().filter(|_| *version == SHORT).copied()
    }

    /// The settlement of counters of these kinds, followed by budgets.
    pub(super) fn settlement(
        self,
        kinds: impl IntoIterator<Item = CounterKind>,
    ) -> Result<Settlement, StoreError> {
        self.settled.ok_or(StoreError::Corrupt)?.settlement(kinds)
    }

    /// The record. The terms that it refers to are needed.
    pub(super) fn record(self, known: Option<&Known>) -> Result<Record, StoreError> {
        let (version, body) = self.body.split_first().ok_or(StoreError::Corrupt)?;
        let (fingerprint, holds, note) = match *version {
            WHOLE | NOTED => whole(body)?,
            SHORT => short(body, known.ok_or(StoreError::Corrupt)?)?,
            _ => return Err(StoreError::Corrupt),
        };
        let kinds = || holds.iter().map(|hold| hold.kind).collect::<Vec<_>>();
        let settlement = self.settled.map(|settled| settled.settlement(kinds())).transpose()?;
        let Self { reserved_at, expires_at, .. } = self;
        Ok(Record { fingerprint, reserved_at, expires_at, holds, note, settlement })
    }
}

fn whole(body: &[u8]) -> Result<(u64, Holds, Bytes), StoreError> {
    type Whole<'a> = (u64, Vec<PackedHold<'a>>, Bytes);
    let ((fingerprint, packed, note), terms_note): (Whole<'_>, _) =
        postcard::take_from_bytes(body).map_err(|_| StoreError::Corrupt)?;
    let mut name = String::new();
    let holds: Holds = packed.iter().map(|hold| unpack(hold, &mut name)).collect::<Result<_, _>>()?;
    let holds = if terms_note.is_empty() { holds } else { holds.noted(Bytes::copy_from_slice(terms_note)) };
    Ok((fingerprint, holds, note))
}

/// The note of the terms in a body that has its own.
pub(super) fn terms_note(body: &[u8]) -> Option<Bytes> {
    let (_, holds, _) = whole(body.strip_prefix(&[NOTED])?).ok()?;
    Some(holds.terms().note().clone())
}

fn short(body: &[u8], known: &Known) -> Result<(u64, Holds, Bytes), StoreError> {
    let body = body.strip_prefix(&known.hash).ok_or(StoreError::Corrupt)?;
    let (short, own): (Short, _) = postcard::take_from_bytes(body).map_err(|_| StoreError::Corrupt)?;
    let mut holds = Holds::new(known.terms.clone());
    for (class, (kept, expiring)) in (0..).zip(short.amounts) {
        holds.set(class, Amount { kept, expiring });
    }
    Ok((short.fingerprint, holds, Bytes::copy_from_slice(own)))
}

impl<'a> SettledPart<'a> {
    fn of(reader: &mut Reader<'a>) -> Result<Self, StoreError> {
        let settled_at = Timestamp(reader.seven()?);
        let length = reader.two()?;
        let note = reader.bytes(length.into())?;
        let (more, rest) = postcard::take_from_bytes(reader.left()).map_err(|_| StoreError::Corrupt)?;
        *reader = Reader::new(rest);
        let reported = (0..reader.byte()?).map(|_| Ok((reader.two()?.into(), reader.seven()?)));
        let reported = reported.collect::<Result<_, StoreError>>()?;
        let length = reader.two()?;
        let states = reader.bytes(length.into())?;
        Ok(Self { settled_at, note, reported, counters: Counters::Since { states, more } })
    }

    /// As releases before layout 5 wrote it.
    fn earlier(reader: &mut Reader<'a>) -> Result<Self, StoreError> {
        let settled_at = Timestamp(reader.number()?);
        let (counters, note, reported) = (reader.size()?, reader.size()?, reader.size()?);
        let note = reader.bytes(note)?;
        let counter =
            |reader: &mut Reader<'_>| Ok(Settled { settled_before: reader.number()?, after: state(reader)? });
        let counters = (0..counters).map(|_| counter(reader)).collect::<Result<_, StoreError>>()?;
        let reported = (0..reported).map(|_| Ok((reader.size()?, reader.number()?)));
        let reported = reported.collect::<Result<_, StoreError>>()?;
        Ok(Self { settled_at, note, reported, counters: Counters::Told(counters) })
    }

    fn settlement(self, kinds: impl IntoIterator<Item = CounterKind>) -> Result<Settlement, StoreError> {
        let counters = match self.counters {
            Counters::Told(counters) => counters,
            Counters::Since { states, more } => {
                let mut reader = Reader::new(states);
                let mut counters = Vec::new();
                let mut more = more.into_iter();
                let mut kinds = kinds.into_iter();
                while !reader.is_empty() {
                    // Behind the holds come budgets of which they had none.
                    let is_window = matches!(kinds.next(), Some(CounterKind::Window { .. }));
                    let mut state = CounterState { used: reader.seven()?, ..CounterState::default() };
                    if !is_window {
                        (state.settled, state.open) = (reader.seven()?, reader.seven()?);
                    }
                    counters.push(since(state, is_window, &mut more)?);
                }
                counters
            }
        };
        let Self { settled_at, note, reported, .. } = self;
        Ok(Settlement { settled_at, counters, reported, note: Bytes::copy_from_slice(note) })
    }
}

/// A counter around a settlement: `state` and what its numbers are more than those. Of a window only what is used is told.
pub(super) fn since(
    state: CounterState,
    is_window: bool,
    more: &mut impl Iterator<Item = i64>,
) -> Result<Settled, StoreError> {
    let mut plus = |number: u64| {
        number.checked_add_signed(more.next().ok_or(StoreError::Corrupt)?).ok_or(StoreError::Corrupt)
    };
    let used = plus(state.used)?;
    if is_window {
        return Ok(Settled { settled_before: 0, after: CounterState { used, ..CounterState::default() } });
    }
    let (settled_before, settled, open) = (plus(state.settled)?, plus(state.settled)?, plus(state.open)?);
    Ok(Settled { settled_before, after: CounterState { used, settled, open } })
}

/// What a settled record has of the program: the note, and what its numbers are more than those that the script writes.
pub(super) fn noted(note: &[u8], more: &[i64]) -> Result<Vec<u8>, StoreError> {
    let length = u16::try_from(note.len()).map_err(|_| StoreError::Corrupt)?;
    let mut noted = Vec::with_capacity(16 + note.len() + 2 * more.len());
    noted.extend_from_slice(&length.to_le_bytes());
    noted.extend_from_slice(note);
    postcard::to_extend(more, noted).map_err(|_| StoreError::Corrupt)
}

/// The state of a counter as scripts write it.
pub(super) fn state(reader: &mut Reader<'_>) -> Result<CounterState, StoreError> {
    Ok(CounterState { used: reader.number()?, settled: reader.number()?, open: reader.number()? })
}

#[cfg(test)]
mod tests;
