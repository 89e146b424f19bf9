//! Reservations on disk: many in one row, because a row for each would cost more than everything else the store does.
//!
//! Each has the terms of its reservations once. A segment is never changed. A reservation that changes is written again, into a later segment, and the version with the
//! highest `lsn` counts. A segment goes when the last of its reservations has ended.

use std::sync::Arc;

use super::{
    kept::{Closed, Own, ReservationRow, Version, VersionState},
    presharded::PreshardedMap,
    wire::{Malformed, Reader, kind_to_int, put_bytes, put_int, put_reported, put_settled},
};
use crate::domain::{
    Timestamp,
    counter::{CounterKey, CounterKind, Hold},
    holds::{Holds, Term, Terms},
};
use crate::store::Settlement;

/// The beginning of the column `terms` since layout 5. Before, it began with a counter, and none has an empty name, no period and
/// slots of no length.
const WITH_TERMS: [u8; 3] = [0, 0, 0];
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

/// A counter, its kind and its limit.
type Line = (CounterKey, u64, u64);

/// A segment that is being written. Its column `terms` has how many lines there are, the lines, and then all terms: how many counters
/// they have, for each the number of its line and its class, and their note.
#[derive(Default)]
struct SegmentWriter {
    segment: Segment,
    lines: Vec<u8>,
    terms: Vec<u8>,
    /// The numbers of the lines.
    numbers: PreshardedMap<Line, u64>,
    /// The numbers of the terms, by their address; kept alive, so that no others get it.
    known: PreshardedMap<usize, (Arc<Terms>, u64)>,
}

impl SegmentWriter {
    /// Appends a reservation; all of a segment are settled, or all are open.
    fn put(&mut self, row: &ReservationRow) {
        let segment = &mut self.segment;
        segment.settled = row.version.settlement().is_some();
        segment.forget_at = segment.forget_at.max(row.forget_at).max(row.open_until);
        segment.lsn = segment.lsn.max(row.lsn);
        segment.entries.extend_from_slice(&row.id.to_le_bytes());
        for int in [row.seq, row.lsn, row.forget_at.0, segment.records.len() as u64] {
            put_int(&mut segment.entries, int);
        }
        self.put_version(&row.version);
    }

    /// The segment under its `number`; `None` if there is nothing in it.
    fn finish(self, number: u64) -> Option<Segment> {
        let mut terms = Vec::with_capacity(self.lines.len() + self.terms.len() + 16);
        terms.extend_from_slice(&WITH_TERMS);
        put_int(&mut terms, self.numbers.len() as u64);
        terms.extend_from_slice(&self.lines);
        terms.extend_from_slice(&self.terms);
        (!self.segment.entries.is_empty()).then_some(Segment { number, terms, ..self.segment })
    }

    /// The number of the terms in the segment.
    fn number(&mut self, terms: &Arc<Terms>) -> u64 {
        let next = self.known.len() as u64;
        if let Some((_, number)) = self.known.get(&Arc::as_ptr(terms).addr()) {
            return *number;
        }
        self.known.insert(Arc::as_ptr(terms).addr(), (Arc::clone(terms), next));
        let Self { lines, numbers, .. } = self;
        put_int(&mut self.terms, terms.iter().len() as u64);
        for Term { counter, kind, limit, class } in &**terms {
            let (next, kind) = (numbers.len() as u64, kind_to_int(*kind));
            let number = *numbers.entry((counter.clone(), kind, *limit)).or_insert_with(|| {
                put_bytes(lines, counter.name().as_bytes());
                for int in [u64::from(counter.period()), kind, *limit] {
                    put_int(lines, int);
                }
                next
            });
            put_int(&mut self.terms, number);
            put_int(&mut self.terms, u64::from(*class));
        }
        put_bytes(&mut self.terms, terms.note());
        next
    }

    fn put_version(&mut self, version: &Version) {
        let terms = self.number(&version.terms);
        let to = &mut self.segment.records;
        put_int(to, terms);
        put_bytes(to, version.own().bytes());
        let Some(settlement) = version.settlement() else {
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
        if row.version.settlement().is_none() {
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
    terms: SegmentTerms,
    records: &'a [u8],
}

enum SegmentTerms {
    Whole(Vec<Arc<Terms>>),
    /// Up to layout 4 each record has its own, of these.
    Lines(Vec<(CounterKey, CounterKind, u64)>),
}

impl<'a> Records<'a> {
    pub(super) fn new(terms: &[u8], records: &'a [u8]) -> Result<Self, Malformed> {
        let terms = match terms.strip_prefix(&WITH_TERMS) {
            Some(rest) => SegmentTerms::Whole(read_terms(&mut Reader(rest))?),
            None => {
                let (mut reader, mut lines) = (Reader(terms), Vec::new());
                while !reader.is_empty() {
                    lines.push(read_line(&mut reader)?);
                }
                SegmentTerms::Lines(lines)
            }
        };
        Ok(Self { terms, records })
    }

    pub(super) fn read(&self, entry: &Entry) -> Result<ReservationRow, Malformed> {
        let mut reader = Reader(self.records.get(entry.offset..).ok_or(Malformed)?);
        let (terms, own) = match &self.terms {
            SegmentTerms::Whole(all) => {
                let number = usize::try_from(reader.int()?).map_err(|_| Malformed)?;
                let terms = all.get(number).ok_or(Malformed)?;
                (Arc::clone(terms), Own::read(reader.slice()?, terms)?)
            }
            SegmentTerms::Lines(lines) => read_alone(&mut reader, entry, lines)?,
        };
        let Entry { id, seq, lsn, forget_at, .. } = *entry;
        let state = match reader.byte()? {
            0 => VersionState::Open(own),
            state => {
                let settlement = read_settlement(&mut reader, state)?;
                VersionState::Settled(Arc::new(Closed { own, lsn, forget_at, settlement }))
            }
        };
        let version = Version { terms, state };
        Ok(ReservationRow { id, seq, lsn, forget_at, open_until: Timestamp(0), version })
    }
}

fn read_line(reader: &mut Reader<'_>) -> Result<(CounterKey, CounterKind, u64), Malformed> {
    let name = reader.text()?;
    let key = CounterKey::new(name).in_period(reader.small()?);
    Ok((key, reader.kind()?, reader.int()?))
}

fn read_terms(reader: &mut Reader<'_>) -> Result<Vec<Arc<Terms>>, Malformed> {
    let (mut lines, mut terms) = (Vec::new(), Vec::new());
    for _ in 0..reader.count()? {
        lines.push(read_line(reader)?);
    }
    while !reader.is_empty() {
        let mut one = Vec::new();
        for _ in 0..reader.count()? {
            let number = usize::try_from(reader.int()?).map_err(|_| Malformed)?;
            let (counter, kind, limit) = lines.get(number).cloned().ok_or(Malformed)?;
            let class = u16::try_from(reader.int()?).map_err(|_| Malformed)?;
            one.push(Term { counter, kind, limit, class });
        }
        terms.push(Arc::new(Terms::new(one, reader.bytes()?)));
    }
    Ok(terms)
}

/// A reservation as it was written up to layout 4.
fn read_alone(
    reader: &mut Reader<'_>,
    entry: &Entry,
    lines: &[(CounterKey, CounterKind, u64)],
) -> Result<(Arc<Terms>, Own), Malformed> {
    let fingerprint = u64::from_le_bytes(reader.array()?);
    let (reserved_at, expires_at) = (reader.time()?, reader.time()?);
    let mut holds = Vec::new();
    for _ in 0..reader.count()? {
        let number = usize::try_from(reader.int()?).map_err(|_| Malformed)?;
        let (counter, kind, limit) = lines.get(number).cloned().ok_or(Malformed)?;
        holds.push(Hold { counter, kind, limit, kept: reader.int()?, expiring: reader.int()? });
    }
    let holds = Holds::from(holds);
    // Of one that is settled, the entry has when the settled one ends.
    let spans = (expires_at.since(reserved_at), entry.forget_at.since(expires_at));
    let own = Own::new((fingerprint, reserved_at), spans, &holds, reader.slice()?);
    Ok((Arc::clone(holds.terms()), own))
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

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::{
        domain::{counter::CounterState, holds::Amount},
        store::Settled,
    };

    const TERMS: &str = "00000002016100d00fe8070162edd1d409a19c01f4030200000101\
        06736861726564";
    const OPEN: &str = "0020090a0b0c0d0e0f100021d907a2010000c0cf2480b899290001ac02646e6f746500";
    const SETTLED_TOO: &str = "0020090a0b0c0d0e0f100021d907a2010000c0cf2480b899290001ac02646e6f7465\
        020101010203040173010107";

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    #[test]
    fn segments_are_as_they_were_recorded_and_have_terms_once() {
        let (window, budget) =
            (CounterKind::Window { slot_ms: 1_000 }, CounterKind::Budget { slot_ms: 10_000 });
        let [first, second] = [CounterKey::new("a"), CounterKey::new("b").in_period(20_261_101)];
        let terms = [
            Term { counter: first, kind: window, limit: 1_000, class: 0 },
            Term { counter: second, kind: budget, limit: 500, class: 1 },
        ];
        let terms = Arc::new(Terms::new(terms, Bytes::from_static(b"shared")));
        let amounts = [Amount { kept: 0, expiring: 1 }, Amount { kept: 300, expiring: 100 }];
        let holds = Holds::with_amounts(Arc::clone(&terms), amounts);
        let times = (0x100f_0e0d_0c0b_0a09, Timestamp(1_795_428_000_000));
        let own = Own::new(times, (600_000, 86_400_000), &holds, b"note");
        let after = CounterState { used: 2, settled: 3, open: 4 };
        let settlement = Settlement {
            settled_at: Timestamp(1),
            counters: vec![Settled { settled_before: 1, after }],
            reported: vec![(1, 7)],
            note: "s".into(),
        };
        let closed = Closed { own: own.clone(), lsn: 9, forget_at: Timestamp(2), settlement };
        let row = |id, lsn, state: VersionState| ReservationRow {
            id,
            seq: 5,
            lsn,
            forget_at: Timestamp(2),
            open_until: Timestamp(0),
            version: Version { terms: Arc::clone(&terms), state },
        };
        let (open, closed) = (VersionState::Open(own), VersionState::Settled(Arc::new(closed)));
        let rows = [row(1, 5, open.clone()), row(2, 9, closed), row(3, 5, open)];
        let mut packing = Packing::default();
        rows.iter().for_each(|row| packing.put(row));
        let (segments, moves) = packing.finish(7);
        assert_eq!(moves, [(Location { segment: 9, place: 0 }, 2, 9)]);
        let columns = |segment: &Segment| (segment.number, hex(&segment.terms), hex(&segment.records));
        let found: Vec<_> = segments.iter().map(columns).collect();
        assert_eq!(
            found,
            [(8, TERMS.to_owned(), OPEN.repeat(2)), (9, TERMS.to_owned(), SETTLED_TOO.to_owned())]
        );
        for segment in &segments {
            let records = Records::new(&segment.terms, &segment.records).unwrap();
            let entries = entries(&segment.entries).unwrap();
            for (place, entry) in entries.iter().enumerate() {
                let read = records.read(entry).unwrap();
                let written = rows.iter().find(|row| row.id == entry.id).unwrap();
                assert_eq!((read.seq, read.lsn, read.forget_at), (5, written.lsn, Timestamp(2)));
                assert_eq!(read.version.clone().into_record(), written.version.clone().into_record());
                let first = records.read(&entries[0]).unwrap();
                assert!(place == 0 || Arc::ptr_eq(&read.version.terms, &first.version.terms));
            }
            for length in WITH_TERMS.len()..segment.terms.len() {
                let cut = Records::new(&segment.terms[..length], &segment.records);
                assert!(
                    cut.is_err() || cut.is_ok_and(|records| records.read(&entries[0]).is_err()),
                    "{length}"
                );
            }
        }
    }
}
