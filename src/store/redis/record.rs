//! The bytes of a reservation: a header of numbers that the scripts read and write, and a rest that only this file does.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::wire::Reader;
use crate::{
    domain::{
        Timestamp,
        counter::{CounterKey, CounterKind, CounterState, Hold},
    },
    store::{Record, Reserve, Settled, Settlement, StoreError},
};

/// The layout of the opaque bytes.
const VERSION: u8 = 1;
/// The states of a record. Settled records from before thresholds were kept with them are 1.
const OPEN: u64 = 0;
const SETTLED: u64 = 2;

/// A hold in a record. The names of one owner's counters begin alike, so each name says how much it shares with the name before:
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

/// The opaque part of the record that `reserve` makes.
pub(super) fn encode(reserve: &Reserve) -> Result<Vec<u8>, StoreError> {
    let mut before = "";
    let holds: Vec<_> = reserve.holds.iter().map(|hold| pack(hold, &mut before)).collect();
    let mut start = Vec::with_capacity(64 + 40 * holds.len() + reserve.note.len());
    start.push(VERSION);
    postcard::to_extend(&(reserve.fingerprint, holds, &reserve.note), start).map_err(|_| StoreError::Corrupt)
}

fn pack<'a>(hold: Hold<&'a CounterKey>, before: &mut &'a str) -> PackedHold<'a> {
    let name = hold.counter.name();
    let alike = name.char_indices().zip(before.chars()).find(|((_, a), b)| a != b);
    let shared = alike.map_or(name.len().min(before.len()), |((at, _), _)| at);
    *before = name;
    PackedHold {
        shared,
        rest: name.get(shared..).unwrap_or_default(),
        period: hold.counter.period(),
        kind: hold.kind,
        limit: hold.limit,
        kept: hold.kept,
        expiring: hold.expiring,
    }
}

fn unpack(packed: &PackedHold<'_>, name: &mut String) -> Result<Hold, StoreError> {
    if packed.shared > name.len() || !name.is_char_boundary(packed.shared) {
        return Err(StoreError::Corrupt);
    }
    name.truncate(packed.shared);
    name.push_str(packed.rest);
    let PackedHold { period, kind, limit, kept, expiring, .. } = *packed;
    Ok(Hold { counter: CounterKey::new(name.as_str()).in_period(period), kind, limit, kept, expiring })
}

/// A record, and when it is gone.
pub(super) fn decode(bytes: &[u8]) -> Result<(Record, Timestamp), StoreError> {
    let mut reader = Reader::new(bytes);
    let state = reader.number()?;
    let reserved_at = Timestamp(reader.number()?);
    let expires_at = Timestamp(reader.number()?);
    let gone_at = Timestamp(reader.number()?);
    let settlement = if state == OPEN { None } else { Some(settlement(&mut reader, state)?) };
    let (version, opaque) = reader.rest().split_first().ok_or(StoreError::Corrupt)?;
    if *version != VERSION {
        return Err(StoreError::Corrupt);
    }
    let (fingerprint, packed, note): (u64, Vec<PackedHold<'_>>, Bytes) =
        postcard::from_bytes(opaque).map_err(|_| StoreError::Corrupt)?;
    let mut name = String::new();
    let holds = packed.iter().map(|hold| unpack(hold, &mut name)).collect::<Result<_, _>>()?;
    Ok((Record { fingerprint, reserved_at, expires_at, holds, note, settlement }, gone_at))
}

fn settlement(reader: &mut Reader<'_>, kind: u64) -> Result<Settlement, StoreError> {
    let settled_at = Timestamp(reader.number()?);
    let holds = reader.size()?;
    let note_length = reader.size()?;
    let reported = if kind == SETTLED { reader.size()? } else { 0 };
    let note = Bytes::copy_from_slice(reader.bytes(note_length)?);
    let counter =
        |reader: &mut Reader<'_>| Ok(Settled { settled_before: reader.number()?, after: state(reader)? });
    let counters = (0..holds).map(|_| counter(reader)).collect::<Result<_, StoreError>>()?;
    let reported = (0..reported).map(|_| Ok((reader.size()?, reader.number()?)));
    let reported = reported.collect::<Result<_, StoreError>>()?;
    Ok(Settlement { settled_at, counters, reported, note })
}

/// Only the settlement, of a record that is known to be settled.
pub(super) fn decode_settlement(bytes: &[u8]) -> Result<Settlement, StoreError> {
    let mut reader = Reader::new(bytes);
    let kind = reader.number()?;
    if kind == OPEN {
        return Err(StoreError::Corrupt);
    }
    reader.numbers(3)?;
    settlement(&mut reader, kind)
}

/// The state of a counter as scripts write it.
pub(super) fn state(reader: &mut Reader<'_>) -> Result<CounterState, StoreError> {
    Ok(CounterState { used: reader.number()?, settled: reader.number()?, open: reader.number()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_begin_alike_are_read_as_they_were_written() {
        let names = ["", "a", "ab", "ab", "é", "è", "team/x|tokens", "team/x|to", "team/x|tokens|day", "z"];
        let kind = CounterKind::Window { slot_ms: 1000 };
        let hold = |name: &&str| {
            let counter = CounterKey::new(*name).in_period(20_261_101);
            Hold { counter, kind, limit: 7, kept: 0, expiring: 1 }
        };
        let (mut before, mut name) = ("", String::new());
        for hold in &names.iter().map(hold).collect::<Vec<_>>() {
            let packed = pack(hold.by_ref(), &mut before);
            assert_eq!(&unpack(&packed, &mut name).unwrap(), hold);
        }
        let last = hold(&"z");
        let beyond = PackedHold { shared: 99, ..pack(last.by_ref(), &mut "") };
        assert_eq!(unpack(&beyond, &mut name), Err(StoreError::Corrupt));
    }

    /// A record of version 1 as releases up to this one write it, without its header.
    const RECORDED: &str = "01effdb6f70f0200167465616d2f617c72657175657374737c6d696e7574650000e80707000107097573647c6d6f6e7468edd1d409\
         01904e808080808020050605026e6f7465";

    /// A record with this header, as `reserve.lua` and `settle.lua` write it.
    fn recorded(header: &[u64], rest: &[u8]) -> Vec<u8> {
        let mut numbers = super::super::wire::Numbers::with_capacity(header.len());
        numbers.extend(header);
        let opaque =
            (0..RECORDED.len() / 2).map(|at| u8::from_str_radix(&RECORDED[2 * at..][..2], 16).unwrap());
        [numbers.bytes(), rest, &opaque.collect::<Vec<_>>()].concat()
    }

    #[test]
    fn records_of_each_release_are_read() {
        let window = CounterKind::Window { slot_ms: 1000 };
        let budget = CounterKind::Budget { slot_ms: 10_000 };
        let month = CounterKey::new("team/a|usd|month").in_period(20_261_101);
        let holds = [
            Hold {
                counter: CounterKey::new("team/a|requests|minute"),
                kind: window,
                limit: 7,
                kept: 0,
                expiring: 1,
            },
            Hold { counter: month, kind: budget, limit: 1 << 40, kept: 5, expiring: 6 },
        ];
        let reserve = Reserve {
            id: crate::store::ReservationId([1; 16]),
            may_repeat: false,
            fingerprint: 0xfeed_beef,
            holds: holds.clone().into(),
            gates: Vec::new(),
            valid: Timestamp(0)..Timestamp(1),
            ttl_ms: 1,
            late_ms: 1,
            note: Bytes::from_static(b"\x02note"),
            replaces: Bytes::new(),
            dry_run: false,
        };
        let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        assert_eq!(hex(&encode(&reserve).unwrap()), RECORDED);
        let (open, gone_at) = decode(&recorded(&[OPEN, 10, 20, 30], b"")).unwrap();
        assert_eq!(
            (open.fingerprint, open.reserved_at, gone_at),
            (0xfeed_beef, Timestamp(10), Timestamp(30))
        );
        assert_eq!((open.holds, &*open.note), (holds.clone().into(), &b"\x02note"[..]));
        assert_eq!(open.settlement, None);
        // Settled before thresholds were kept, and since.
        let mut counters = super::super::wire::Numbers::with_capacity(4);
        counters.extend(&[1, 2, 3, 4]);
        let note = [b"done", counters.bytes()].concat();
        let (first, _) = decode(&recorded(&[1, 10, 20, 30, 25, 1, 4], &note)).unwrap();
        let mut crossed = super::super::wire::Numbers::with_capacity(2);
        crossed.extend(&[0, 80]);
        let note = [note, crossed.bytes().to_vec()].concat();
        let (second, _) = decode(&recorded(&[SETTLED, 10, 20, 30, 25, 1, 4, 1], &note)).unwrap();
        let after = CounterState { used: 2, settled: 3, open: 4 };
        let settled = Settlement {
            settled_at: Timestamp(25),
            counters: vec![Settled { settled_before: 1, after }],
            reported: Vec::new(),
            note: Bytes::from_static(b"done"),
        };
        assert_eq!(first.settlement, Some(settled.clone()));
        assert_eq!(second.settlement, Some(Settlement { reported: vec![(0, 80)], ..settled }));
    }
}
