//! Reservations on disk: many in one row, because a row for each would cost more than everything else the store does.
//!
//! A segment is never changed. A reservation that changes is written again, into a later segment, and the version with the
//! highest `lsn` counts. A segment goes when the last of its reservations has ended.

use std::sync::Arc;

use super::{
    kept::ReservationRow,
    presharded::PreshardedMap,
    wire::{Malformed, Reader, kind_to_int, put_bytes, put_int, put_reported, put_settled},
};
use crate::domain::{
    Timestamp,
    counter::{CounterKey, CounterKind, Hold},
    holds::Terms,
};
use crate::store::{Record, Settlement};

/// This byte precedes a settlement; 1 in rows from before thresholds were kept with it.
const SETTLED: u8 = 2;

/// Where a reservation is on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Location {
    pub(super) segment: u64,
    /// The number of its entry there.
    pub(super) place: u32,
}

/// What a segment says about each reservation, ahead of the records themselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) id: u128,
    pub(super) seq: u64,
    pub(super) lsn: u64,
    pub(super) forget_at: Timestamp,
    offset: usize,
}

/// A row of table `segments`.
#[derive(Default)]
pub(super) struct Segment {
    pub(super) number: u64,
    /// Whether its reservations are settled; all are or none, as the two kinds are kept for different times.
    pub(super) settled: bool,
    /// When the last of its reservations ends.
    pub(super) forget_at: Timestamp,
    /// The last op that any of them has seen.
    pub(super) lsn: u64,
    pub(super) entries: Vec<u8>,
    pub(super) terms: Vec<u8>,
    pub(super) records: Vec<u8>,
}

/// What the holds on one counter nearly always have in common.
type Line = (CounterKey, u64, u64);

/// A segment that is being written.
#[derive(Default)]
struct SegmentWriter {
    segment: Segment,
    /// The numbers of the lines in the segment's `terms`.
    lines: PreshardedMap<Line, u64>,
    /// The numbers for each hold of those terms, by their address; kept alive, so that no others get it.
    known: PreshardedMap<usize, (Arc<Terms>, Vec<u64>)>,
}

impl SegmentWriter {
    /// Appends a reservation; all of a segment are settled, or all are open.
    fn put(&mut self, row: &ReservationRow) {
        let segment = &mut self.segment;
        segment.settled = row.record.settlement.is_some();
        segment.forget_at = segment.forget_at.max(row.forget_at).max(row.open_until);
        segment.lsn = segment.lsn.max(row.lsn);
        segment.entries.extend_from_slice(&row.id.to_le_bytes());
        for int in [row.seq, row.lsn, row.forget_at.0, segment.records.len() as u64] {
            put_int(&mut segment.entries, int);
        }
        self.put_record(&row.record);
    }

    /// The segment under its `number`; `None` if there is nothing in it.
    fn finish(self, number: u64) -> Option<Segment> {
        (!self.segment.entries.is_empty()).then_some(Segment { number, ..self.segment })
    }

    fn put_record(&mut self, record: &Record) {
        let Self { segment, lines, known } = self;
        let terms = record.holds.terms();
        let (_, numbers) = known.entry(Arc::as_ptr(terms).addr()).or_insert_with(|| {
            let numbers = record.holds.iter().map(|hold| {
                let next = lines.len() as u64;
                let kind = kind_to_int(hold.kind);
                *lines.entry((hold.counter.clone(), kind, hold.limit)).or_insert_with(|| {
                    put_bytes(&mut segment.terms, hold.counter.name().as_bytes());
                    for int in [u64::from(hold.counter.period()), kind, hold.limit] {
                        put_int(&mut segment.terms, int);
                    }
                    next
                })
            });
            (Arc::clone(terms), numbers.collect())
        });
        let to = &mut segment.records;
        to.extend_from_slice(&record.fingerprint.to_le_bytes());
        put_int(to, record.reserved_at.0);
        put_int(to, record.expires_at.0);
        put_int(to, record.holds.len() as u64);
        for (hold, number) in record.holds.iter().zip(&*numbers) {
            for int in [*number, hold.kept, hold.expiring] {
                put_int(to, int);
            }
        }
        put_bytes(to, &record.note);
        let Some(settlement) = &record.settlement else {
            to.push(0);
            return;
        };
        to.push(SETTLED);
        put_int(to, settlement.settled_at.0);
        put_int(to, settlement.counters.len() as u64);
        settlement.counters.iter().for_each(|settled| put_settled(to, settled));
        put_bytes(to, &settlement.note);
        put_reported(to, &settlement.reported);
    }
}

/// Reservations that are being written: the open ones into one segment, the settled ones into another.
#[derive(Default)]
pub(super) struct Packing {
    open: SegmentWriter,
    settled: SegmentWriter,
    /// The id and `lsn` of each that is settled.
    moving: Vec<(u128, u64)>,
}

impl Packing {
    pub(super) fn put(&mut self, row: &ReservationRow) {
        if row.record.settlement.is_none() {
            return self.open.put(row);
        }
        self.settled.put(row);
        self.moving.push((row.id, row.lsn));
    }

    /// The segments, numbered after `last`, and where the settled reservations are in them, with their `lsn`.
    pub(super) fn finish(self, last: u64) -> (Vec<Segment>, Vec<(Location, u128, u64)>) {
        let mut segments: Vec<_> = self.open.finish(last + 1).into_iter().collect();
        segments.extend(self.settled.finish(last + 1 + segments.len() as u64));
        let segment = segments.last().map_or(last, |segment| segment.number);
        let moves = self.moving.into_iter().zip(0..);
        (segments, moves.map(|((id, lsn), place)| (Location { segment, place }, id, lsn)).collect())
    }
}

/// The entries of a segment, in order.
pub(super) fn entries(bytes: &[u8]) -> Result<Vec<Entry>, Malformed> {
    let mut reader = Reader(bytes);
    let mut entries = Vec::new();
    while !reader.is_empty() {
        let id = u128::from_le_bytes(reader.array()?);
        let (seq, lsn, forget_at) = (reader.int()?, reader.int()?, reader.time()?);
        let offset = usize::try_from(reader.int()?).map_err(|_| Malformed)?;
        entries.push(Entry { id, seq, lsn, forget_at, offset });
    }
    Ok(entries)
}

/// Reads records of one segment.
pub(super) struct Records<'a> {
    terms: Vec<(CounterKey, CounterKind, u64)>,
    records: &'a [u8],
}

impl<'a> Records<'a> {
    pub(super) fn new(terms: &[u8], records: &'a [u8]) -> Result<Self, Malformed> {
        let mut reader = Reader(terms);
        let mut terms = Vec::new();
        while !reader.is_empty() {
            let name = reader.text()?;
            let key = CounterKey::new(name).in_period(reader.small()?);
            terms.push((key, reader.kind()?, reader.int()?));
        }
        Ok(Self { terms, records })
    }

    pub(super) fn read(&self, entry: &Entry) -> Result<ReservationRow, Malformed> {
        let mut reader = Reader(self.records.get(entry.offset..).ok_or(Malformed)?);
        let fingerprint = u64::from_le_bytes(reader.array()?);
        let (reserved_at, expires_at) = (reader.time()?, reader.time()?);
        let mut holds = Vec::new();
        for _ in 0..reader.count()? {
            let number = usize::try_from(reader.int()?).map_err(|_| Malformed)?;
            let (counter, kind, limit) = self.terms.get(number).cloned().ok_or(Malformed)?;
            holds.push(Hold { counter, kind, limit, kept: reader.int()?, expiring: reader.int()? });
        }
        let note = reader.bytes()?;
        let settlement = match reader.byte()? {
            0 => None,
            state => Some(read_settlement(&mut reader, state)?),
        };
        let holds = holds.into();
        let record = Arc::new(Record { fingerprint, reserved_at, expires_at, holds, note, settlement });
        let Entry { id, seq, lsn, forget_at, .. } = *entry;
        Ok(ReservationRow { id, seq, lsn, forget_at, open_until: Timestamp(0), record })
    }
}

fn read_settlement(reader: &mut Reader<'_>, state: u8) -> Result<Settlement, Malformed> {
    let settled_at = reader.time()?;
    let mut counters = Vec::new();
    for _ in 0..reader.count()? {
        counters.push(reader.settled()?);
    }
    let note = reader.bytes()?;
    let reported = if state == SETTLED { reader.reported()? } else { Vec::new() };
    Ok(Settlement { settled_at, counters, reported, note })
}
