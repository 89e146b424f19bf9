//! What one store has acknowledged lately, in order, within bounds.

use std::{
    collections::{HashSet, VecDeque},
    iter, mem,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use crate::{
    domain::counter::CounterKey,
    store::{Extra, ReservationId, Reserve, Settle, UsageAmounts, UsageKey, redis::settle::SettleCall},
};

/// The most entries of one store, and so of one core. A request leaves two.
pub(super) const MOST: usize = 262_144;
/// The most bytes of them, as far as they are known: a settlement has about two kilobytes, a reservation half of one.
pub(super) const MOST_BYTES: usize = 64 << 20;

/// The most versions that are known of one record: it is people who write it.
const MOST_REPLACED: usize = 8;

/// A change of the registry that was acknowledged.
#[derive(Debug)]
pub(in crate::store::redis) struct Write {
    pub(in crate::store::redis) name: Arc<str>,
    /// The version that it has, as it was written or written again; 0: another write took its place.
    pub(in crate::store::redis) version: AtomicU64,
    pub(in crate::store::redis) value: Box<[u8]>,
    /// As which write it was acknowledged; `None`: it was found.
    written: Option<Replaced>,
    /// What it took the place of, the last first, as far as it is known.
    pub(in crate::store::redis) replaced: Box<[Replaced]>,
}

/// A version of a record, and what distinguishes its write from another of the same number.
#[derive(Clone, Copy, Debug)]
pub(in crate::store::redis) struct Replaced {
    pub(in crate::store::redis) version: u64,
    pub(in crate::store::redis) mark: Option<[u8; 8]>,
}

impl Write {
    pub(in crate::store::redis) fn new(name: Arc<str>, version: u64, value: Box<[u8]>) -> Self {
        Self { name, version: version.into(), value, written: None, replaced: Box::default() }
    }

    /// The same as it was acknowledged, over the version `expected`, after the `last` write of it that is kept.
    pub(in crate::store::redis) fn over(self, expected: u64, mark: [u8; 8], last: Option<&Self>) -> Self {
        let version = self.version.load(Ordering::Relaxed);
        let last = last.filter(|last| last.version.load(Ordering::Relaxed) == expected);
        let first = last.and_then(|last| last.written).filter(|written| written.version == expected);
        let first = first.unwrap_or(Replaced { version: expected, mark: None });
        let earlier = last.iter().flat_map(|last| last.replaced.iter().copied());
        Self {
            written: Some(Replaced { version, mark: Some(mark) }),
            replaced: iter::once(first).chain(earlier).take(MOST_REPLACED).collect(),
            ..self
        }
    }
}

/// Something that was acknowledged. Cheap to clone.
#[derive(Clone, Debug)]
pub(in crate::store::redis) enum Kept {
    /// A reservation was made.
    Reservation(Arc<Reserve>),
    /// One was settled.
    Settlement(Arc<SettleCall>),
    /// A record of the registry was written.
    Write(Arc<Write>),
}

/// What an entry is about. The attempts of a request share its id, and each has a note of its own.
#[derive(PartialEq, Eq, Hash)]
enum Subject<'k> {
    Attempt(ReservationId, u64, &'k [u8]),
    Record(&'k str),
}

impl Kept {
    /// The id that it is about, if it is about one.
    pub(super) fn id(&self) -> Option<ReservationId> {
        match self {
            Self::Reservation(reserve) => Some(reserve.id),
            Self::Settlement(call) => Some(call.settle.id),
            Self::Write(_) => None,
        }
    }

    fn subject(&self) -> Subject<'_> {
        match self {
            Self::Reservation(reserve) => Subject::Attempt(reserve.id, reserve.fingerprint, &reserve.note),
            Self::Settlement(call) => {
                let Settle { id, record, .. } = &call.settle;
                Subject::Attempt(*id, record.fingerprint, &record.note)
            }
            Self::Write(write) => Subject::Record(&write.name),
        }
    }

    /// About how much memory it holds. Terms are shared, and names as well, most often.
    fn bytes(&self) -> usize {
        match self {
            Self::Reservation(reserve) => size_of::<Reserve>() + reserve.note.len(),
            Self::Settlement(call) => {
                let Settle { record, actual, extras, thresholds, lines, note, .. } = &call.settle;
                size_of::<SettleCall>()
                    + call.record.as_ref().map_or(0, |record| record.len())
                    + record.note.len()
                    + note.len()
                    + actual.len() * size_of::<u64>()
                    + extras.len() * (size_of::<Extra>() + size_of::<CounterKey>())
                    + thresholds.len() * size_of::<[u64; 8]>()
                    + lines.len() * size_of::<(UsageKey, UsageAmounts)>()
            }
            Self::Write(write) => {
                size_of::<Write>() + write.name.len() + write.value.len() + size_of_val(&*write.replaced)
            }
        }
    }
}

/// The entries. Those before a mark were acknowledged before its instant; so an entry needs no reading of the clock.
#[derive(Debug, Default)]
pub(super) struct Ring {
    entries: VecDeque<Kept>,
    bytes: usize,
    /// The number of the first of `entries`; they are numbered as they come.
    first: u64,
    /// Instants, and the number that the next entry had then, both in order.
    marks: VecDeque<(Instant, u64)>,
    /// How many had no room since the last look.
    left_out: u64,
}

impl Ring {
    /// Takes one in; where there is no room, the earliest go.
    pub(super) fn push(&mut self, kept: Kept) {
        self.bytes += kept.bytes();
        self.entries.push_back(kept);
        while self.entries.len() > MOST || self.bytes > MOST_BYTES {
            self.pop();
            self.left_out += 1;
        }
    }

    fn pop(&mut self) -> Option<Kept> {
        let kept = self.entries.pop_front()?;
        self.first += 1;
        self.bytes -= kept.bytes();
        Some(kept)
    }

    /// The number that the next entry will have.
    pub(super) fn next(&self) -> u64 {
        self.first + self.entries.len() as u64
    }

    /// Notes that all before this number was acknowledged before `at`.
    pub(super) fn mark(&mut self, at: Instant, number: u64) {
        self.marks.push_back((at, number));
    }

    /// Notes that nothing of it is older than `now`.
    pub(super) fn renew(&mut self, now: Instant) {
        self.marks.clear();
        self.mark(now, self.next());
    }

    /// The instant of the last mark.
    pub(super) fn last_mark(&self) -> Option<Instant> {
        self.marks.back().map(|(at, _)| *at)
    }

    /// Lets go of all; returns how many there were. What comes from `now` on is of that time, as after [`Self::renew`].
    pub(super) fn clear(&mut self, now: Instant) -> usize {
        let cleared = Self { first: self.next(), ..Self::default() };
        let left_out = mem::replace(self, cleared).entries.len();
        self.renew(now);
        left_out
    }

    /// Takes out those that were acknowledged before `until`, at most so many; the caller drops them where no lock is held.
    pub(super) fn expire(&mut self, until: Instant, most: usize) -> Vec<Kept> {
        let end = self.marks.iter().rev().find(|(at, _)| *at <= until).map_or(0, |(_, number)| *number);
        let due = usize::try_from(end.saturating_sub(self.first)).unwrap_or(usize::MAX);
        let expired = (0..due.min(most)).map_while(|_| self.pop()).collect();
        // One that lies before all entries says nothing more, unless it is the last.
        while self.marks.len() > 1 && self.marks.front().is_some_and(|(_, number)| *number <= self.first) {
            self.marks.pop_front();
        }
        expired
    }

    /// The last entry about each subject, of those with this number or a later one, in their order. The settlement of an attempt counts more
    /// than its reservation, whichever answer came first.
    pub(super) fn latest(&self, from: u64) -> Vec<Kept> {
        let earlier = usize::try_from(from.saturating_sub(self.first)).unwrap_or(usize::MAX);
        let entries = || self.entries.iter().skip(earlier);
        let settlements = entries().filter(|kept| matches!(kept, Kept::Settlement(_)));
        let settled: HashSet<_> = settlements.map(Kept::subject).collect();
        let counts =
            |kept: &&Kept| !matches!(kept, Kept::Reservation(_)) || !settled.contains(&kept.subject());
        let mut seen = HashSet::new();
        let latest = entries().rev().filter(counts).filter(|kept| seen.insert(kept.subject()));
        let mut latest: Vec<_> = latest.cloned().collect();
        latest.reverse();
        latest
    }

    /// The last write of the record with this name. Goes through all entries, for what people do.
    pub(super) fn last_write(&self, name: &str) -> Option<&Write> {
        self.entries.iter().rev().find_map(|kept| match kept {
            Kept::Write(write) if *write.name == *name => Some(&**write),
            Kept::Write(_) | Kept::Reservation(_) | Kept::Settlement(_) => None,
        })
    }

    /// How many had no room since this was asked last.
    pub(super) const fn take_left_out(&mut self) -> u64 {
        mem::replace(&mut self.left_out, 0)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn write(number: u64, length: usize) -> Kept {
        let value = vec![0; length].into();
        Kept::Write(Arc::new(Write::new(format!("pause/{}", number % 7).into(), number, value)))
    }

    fn version(kept: &Kept) -> u64 {
        match kept {
            Kept::Write(write) => write.version.load(Ordering::Relaxed),
            other => panic!("{other:?}"),
        }
    }

    fn sum(ring: &Ring) -> usize {
        ring.entries.iter().map(Kept::bytes).sum()
    }

    #[test]
    fn the_earliest_go_when_there_are_too_many_or_too_much() {
        let mut ring = Ring::default();
        let kept = write(1, 0);
        (0..MOST as u64 + 10).for_each(|_| ring.push(kept.clone()));
        assert_eq!((ring.entries.len(), ring.first, ring.next()), (MOST, 10, MOST as u64 + 10));
        assert_eq!((ring.take_left_out(), ring.take_left_out()), (10, 0));
        let now = Instant::now();
        assert_eq!((ring.clear(now), ring.last_mark()), (MOST, Some(now)));
        let longest = crate::store::MAX_REGISTRY_VALUE;
        (0..2_000).for_each(|number| ring.push(write(number, longest)));
        assert!(ring.bytes <= MOST_BYTES && ring.bytes > MOST_BYTES - 2 * longest, "{}", ring.bytes);
        assert_eq!((ring.bytes, version(ring.entries.back().unwrap())), (sum(&ring), 1_999));
        assert_eq!(ring.take_left_out(), 2_000 - ring.entries.len() as u64);
    }

    #[test]
    fn what_was_acknowledged_before_an_instant_goes_and_nothing_else() {
        let (start, mut ring) = (Instant::now(), Ring::default());
        let at = |seconds| start + Duration::from_secs(seconds);
        for second in 0..5 {
            ring.mark(at(second), ring.next());
            (0..10).for_each(|number| ring.push(write(10 * second + number, 1)));
        }
        // The last ten came before an instant that is not known yet.
        for (until, left) in [(0, 50), (1, 40), (3, 20), (9, 10), (9, 10)] {
            while !ring.expire(at(until), 3).is_empty() {}
            assert_eq!((ring.entries.len(), ring.bytes), (left, sum(&ring)), "{until}");
        }
        assert_eq!(ring.last_mark(), Some(at(4)));
        ring.renew(at(7));
        assert!(ring.expire(at(6), 100).is_empty());
        assert_eq!(ring.expire(at(7), 100).len(), 10);
        assert_eq!((ring.bytes, ring.next()), (0, 50));
    }

    #[test]
    fn the_last_entry_about_each_subject_counts() {
        let mut ring = Ring::default();
        (0..20).for_each(|number| ring.push(write(number, 1)));
        let versions = |from| ring.latest(from).iter().map(version).collect::<Vec<_>>();
        assert_eq!(versions(0), (13..20).collect::<Vec<_>>());
        assert_eq!((versions(17), versions(20)), (vec![17, 18, 19], vec![]));
    }
}
