//! Reservations in memory, and as they are written.
//!
//! What a reservation does not share with others is a few bytes ([`Own`]): the same in memory, in the journal and in segments, so
//! that each is a copy of the other. A caller's [`Record`] is made of them without the store's lock.

use std::{mem, sync::Arc};

use bytes::{Buf as _, Bytes};

use super::wire::{Malformed, Reader, int_len, put_int};
use crate::{
    domain::{
        Moment, Timestamp,
        holds::{Amount, Holds, Terms},
    },
    store::{Record, Reserve, Settlement},
};

/// What a reservation has beside its terms: the fingerprint and the time at which it was made, of eight bytes each, how long after that
/// it expires, how long after that it is forgotten, the two parts of each amount in the order of the classes, and the note.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Own(Box<[u8]>);

/// The parts of [`Own`] that have a length of their own.
struct Head {
    fingerprint: u64,
    reserved_at: Timestamp,
    expires_at: Timestamp,
    forget_at: Timestamp,
}

/// Where the time stands.
const RESERVED_AT: std::ops::Range<usize> = 8..16;

impl Own {
    /// Of a reservation that is still to be made, without the time.
    pub(super) fn of(reserve: &Reserve) -> Self {
        let Reserve { fingerprint, holds, ttl_ms, late_ms, note, .. } = reserve;
        Self::new((*fingerprint, Timestamp(0)), (*ttl_ms, *late_ms), holds, note)
    }

    /// `spans`: how long it lives, and how long after that it is kept, in milliseconds.
    pub(super) fn new(
        (fingerprint, reserved_at): (u64, Timestamp),
        spans: (u64, u64),
        holds: &Holds,
        note: &[u8],
    ) -> Self {
        let amounts = holds.amounts().iter().flat_map(|amount| [amount.kept, amount.expiring]);
        let ints = [spans.0, spans.1].into_iter().chain(amounts);
        let length = RESERVED_AT.end + ints.clone().map(int_len).sum::<usize>() + note.len();
        // Exactly as long, so that it is not moved when it is made a box.
        let mut bytes = Vec::with_capacity(length);
        bytes.extend_from_slice(&fingerprint.to_le_bytes());
        bytes.extend_from_slice(&reserved_at.0.to_le_bytes());
        ints.for_each(|int| put_int(&mut bytes, int));
        bytes.extend_from_slice(note);
        Self(bytes.into_boxed_slice())
    }

    /// Those of a reservation on `terms`, as they were written.
    pub(super) fn read(bytes: &[u8], terms: &Terms) -> Result<Self, Malformed> {
        let own = Self(bytes.into());
        let mut reader = Reader(&own.0);
        head(&mut reader)?;
        amounts(&mut reader, terms).try_for_each(|amount| amount.map(drop))?;
        Ok(own)
    }

    pub(super) const fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// Sets the time, which is known only under the lock.
    pub(super) fn set_reserved_at(&mut self, now: Timestamp) {
        if let Some(place) = self.0.get_mut(RESERVED_AT) {
            place.copy_from_slice(&now.0.to_le_bytes());
        }
    }

    pub(super) fn reserved_at(&self) -> Timestamp {
        self.head().reserved_at
    }

    pub(super) fn forget_at(&self) -> Timestamp {
        self.head().forget_at
    }

    fn head(&self) -> Head {
        // What was neither made here nor checked when it was read does not get here; zeros would be a reservation that is over.
        head(&mut Reader(&self.0)).unwrap_or(Head {
            fingerprint: 0,
            reserved_at: Timestamp(0),
            expires_at: Timestamp(0),
            forget_at: Timestamp(0),
        })
    }

    fn into_record(self, terms: &Arc<Terms>, settlement: Option<Settlement>) -> Record {
        let Head { fingerprint, reserved_at, expires_at, .. } = self.head();
        let (holds, note_at) = self.parts(terms);
        let mut note = Bytes::from(self.0);
        note.advance(note_at);
        Record { fingerprint, reserved_at, expires_at, holds, note, settlement }
    }

    pub(super) fn holds(&self, terms: &Arc<Terms>) -> Holds {
        self.parts(terms).0
    }

    /// The holds on `terms`, and where the note begins.
    fn parts(&self, terms: &Arc<Terms>) -> (Holds, usize) {
        let mut reader = Reader(&self.0);
        // As in `head`, they are whole here.
        let _ = head(&mut reader);
        let holds = Holds::with_amounts(Arc::clone(terms), amounts(&mut reader, terms).map_while(Result::ok));
        (holds, self.0.len() - reader.0.len())
    }
}

fn head(reader: &mut Reader<'_>) -> Result<Head, Malformed> {
    let [fingerprint, reserved_at] = [reader.array()?, reader.array()?].map(u64::from_le_bytes);
    let reserved_at = Timestamp(reserved_at);
    let expires_at = reserved_at.plus(reader.int()?);
    let forget_at = expires_at.plus(reader.int()?);
    Ok(Head { fingerprint, reserved_at, expires_at, forget_at })
}

fn amounts(reader: &mut Reader<'_>, terms: &Terms) -> impl Iterator<Item = Result<Amount, Malformed>> {
    (0..terms.classes()).map(|_| Ok(Amount { kept: reader.int()?, expiring: reader.int()? }))
}

/// A reservation as it is or was. Cheap to clone.
#[derive(Clone)]
pub(super) struct Version {
    pub(super) terms: Arc<Terms>,
    pub(super) state: VersionState,
}

#[derive(Clone)]
pub(super) enum VersionState {
    Open(Own),
    /// Shared with callers and the writer, as a settlement is larger than all else.
    Settled(Arc<Closed>),
}

/// A settled reservation.
pub(super) struct Closed {
    pub(super) own: Own,
    /// The op that settled it.
    pub(super) lsn: u64,
    pub(super) forget_at: Timestamp,
    pub(super) settlement: Settlement,
}

impl Version {
    pub(super) fn own(&self) -> &Own {
        match &self.state {
            VersionState::Open(own) => own,
            VersionState::Settled(closed) => &closed.own,
        }
    }

    pub(super) fn settlement(&self) -> Option<&Settlement> {
        match &self.state {
            VersionState::Open(_) => None,
            VersionState::Settled(closed) => Some(&closed.settlement),
        }
    }

    /// From this instant on it is gone.
    pub(super) fn forget_at(&self) -> Timestamp {
        match &self.state {
            VersionState::Open(own) => own.forget_at(),
            VersionState::Settled(closed) => closed.forget_at,
        }
    }

    pub(super) fn reserved_at(&self) -> Timestamp {
        self.own().reserved_at()
    }

    pub(super) fn holds(&self) -> Holds {
        self.own().holds(&self.terms)
    }

    /// In the store's time.
    pub(super) fn into_record(self) -> Record {
        match self.state {
            VersionState::Open(own) => own.into_record(&self.terms, None),
            VersionState::Settled(closed) => {
                closed.own.clone().into_record(&self.terms, Some(closed.settlement.clone()))
            }
        }
    }
}

/// A reservation in memory. As most are open, it has only what those need.
pub(super) struct Kept {
    /// The op that made it; distinguishes it from an earlier one with the same id.
    pub(super) seq: u64,
    pub(super) version: Version,
    /// Whether it changed since it was last written to the table; then it is in [`Changed`].
    pub(super) dirty: bool,
    /// Whether the table has it as open.
    pub(super) was_written_open: bool,
}

impl Kept {
    /// The op that last changed it.
    pub(super) fn lsn(&self) -> u64 {
        match &self.version.state {
            VersionState::Open(_) => self.seq,
            VersionState::Settled(closed) => closed.lsn,
        }
    }

    /// From this instant on it is gone, whether or not it was removed yet.
    pub(super) fn forget_at(&self) -> Timestamp {
        self.version.forget_at()
    }

    pub(super) const fn is_open(&self) -> bool {
        matches!(self.version.state, VersionState::Open(_))
    }

    pub(super) fn row(&self, id: u128) -> ReservationRow {
        let open_until = if self.was_written_open { self.version.own().forget_at() } else { Timestamp(0) };
        let (seq, lsn, forget_at) = (self.seq, self.lsn(), self.forget_at());
        ReservationRow { id, seq, lsn, forget_at, open_until, version: self.version.clone() }
    }
}

/// A reservation as a segment keeps it.
pub(super) struct ReservationRow {
    pub(super) id: u128,
    pub(super) seq: u64,
    pub(super) lsn: u64,
    pub(super) forget_at: Timestamp,
    /// When the version that was written while it was open ends, which must not outlive this one; 0: there is none.
    pub(super) open_until: Timestamp,
    pub(super) version: Version,
}

impl ReservationRow {
    /// The record for a caller.
    pub(super) fn shown(self, now: Moment) -> Record {
        self.version.into_record().by_the_wall(now)
    }
}

/// The places in memory of the reservations that changed since they were last written to the table, by what happened to them. One
/// may be in two lists, and another reservation may have taken the place since: then that is written a little early.
#[derive(Default)]
pub(super) struct Changed {
    settled: Vec<u32>,
    /// Made before the last round began.
    due: Vec<u32>,
    /// Made since. The next round leaves them to the journal: most are settled before the one after it, and then written once.
    fresh: Vec<u32>,
}

impl Changed {
    pub(super) fn made(&mut self, place: u32) {
        self.fresh.push(place);
    }

    pub(super) fn settled(&mut self, place: u32) {
        self.settled.push(place);
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.settled.is_empty() && self.due.is_empty() && self.fresh.is_empty()
    }

    /// The lists that a round that begins now has to write; `whole`: all, and not only what is due. Moves no list's contents, as
    /// there may be many.
    pub(super) fn begin_round(&mut self, whole: bool) -> [Vec<u32>; 3] {
        let (settled, due, fresh) =
            (mem::take(&mut self.settled), mem::take(&mut self.due), mem::take(&mut self.fresh));
        if whole {
            return [settled, due, fresh];
        }
        self.due = fresh;
        [settled, due, Vec::new()]
    }

    /// Makes everything due, as the next round is to write all that the journal holds by now.
    pub(super) fn make_due(&mut self) {
        self.due.append(&mut self.fresh);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{
        counter::{CounterKey, CounterKind},
        holds::Term,
    };

    #[test]
    fn a_round_leaves_what_was_made_since_the_last_one_to_the_next() {
        let mut changed = Changed::default();
        let written = |lists: [Vec<u32>; 3]| lists.concat();
        changed.made(1);
        changed.settled(2);
        assert_eq!(written(changed.begin_round(false)), [2]);
        changed.made(3);
        assert_eq!(written(changed.begin_round(false)), [1]);
        changed.made(4);
        assert_eq!(written(changed.begin_round(true)), [3, 4]);
        assert!(changed.is_empty());
        changed.made(5);
        changed.make_due();
        assert_eq!(written(changed.begin_round(false)), [5]);
    }

    fn holds() -> Holds {
        let kind = CounterKind::Budget { slot_ms: 10_000 };
        let term = |class| Term { counter: CounterKey::new("c"), kind, limit: 9, class };
        let mut holds = Holds::new(Arc::new([0, 2, 1].map(term).into_iter().collect()));
        holds.set(0, Amount { kept: 0, expiring: 1 });
        holds.set(1, Amount { kept: 2_000_000, expiring: 300 });
        holds.set(2, Amount { kept: 0, expiring: u64::MAX });
        holds
    }

    #[test]
    fn a_record_is_what_its_bytes_were_made_of() {
        let holds = holds();
        let mut own = Own::new((7, Timestamp(0)), (600_000, 86_400_000), &holds, b"note");
        own.set_reserved_at(Timestamp(1_795_428_000_000));
        assert_eq!(own.0.len(), 16 + 3 + 4 + (2 + 5 + 11) + 4, "no longer than it has to be");
        let read = Own::read(own.bytes(), holds.terms()).unwrap();
        let version = Version { terms: Arc::clone(holds.terms()), state: VersionState::Open(read) };
        let record = version.clone().into_record();
        assert_eq!((record.fingerprint, &*record.note, &record.holds), (7, &b"note"[..], &holds));
        let times = [record.reserved_at, record.expires_at, version.forget_at()];
        assert_eq!(times, [0, 600_000, 87_000_000].map(|ms| Timestamp(1_795_428_000_000 + ms)));
        // A note may be missing, and nothing before it.
        let whole = own.bytes().len() - 4;
        for length in 0..=own.bytes().len() {
            let read = Own::read(own.bytes().get(..length).unwrap_or_default(), holds.terms());
            assert_eq!(read.is_ok(), length >= whole, "{length}");
        }
    }
}
