//! The outbox: entries that are to be acted on outside of the store, such as alerts to deliver, each by one process at a time.

use std::{fmt, future::Future, str::FromStr, sync::Arc};

use bytes::Bytes;
use thiserror::Error;

use super::{Backend, ReservationId, Settled, StoreError};
use crate::domain::{Moment, Timestamp, counter::CounterKey};

/// Entries in queues, which wait until they are due, are claimed for a while, and are done in the end. An entry is an id, which names
/// its queue, and a payload, opaque to the store. Durable before it answers, every method that changes something.
///
/// A settlement adds an entry for each threshold that it reports ([`Crossing`]), in its own atomic step.
pub trait Outbox: Backend {
    /// Adds entries that are due at once, at most [`MAX_OUTBOX_APPEND`], then removes the oldest of those that are past `kept`, at
    /// most [`OUTBOX_REMOVED`] more than were added, whether they are done or not. Returns how many it removed. An entry that is
    /// there is not added again, so a call may be repeated.
    fn outbox_append(
        &self,
        entries: Vec<OutboxEntry>,
        kept: OutboxKept,
    ) -> impl Future<Output = Result<usize, StoreError>> + Send;

    /// Claims the entries of `queue` that are due, the longest due first: at most `count`, which is at most [`MAX_OUTBOX_CLAIM`].
    /// They are due again after `lease_ms`, unless they are updated before.
    fn outbox_claim(
        &self,
        queue: Arc<str>,
        count: usize,
        lease_ms: u64,
    ) -> impl Future<Output = Result<OutboxClaim, StoreError>> + Send;

    /// Replaces the payload of a claimed entry, which is due again after `next_ms`; `None`: it is done, and stays to be read.
    /// `false`: another process has claimed it since, or it is gone, and nothing was changed.
    fn outbox_update(
        &self,
        claimed: ClaimedEntry,
        next_ms: Option<u64>,
    ) -> impl Future<Output = Result<bool, StoreError>> + Send;

    /// The last entries before `before` (`None`: to the last of all) by the order of their ids, the last one first: at most `count`,
    /// which is at most [`MAX_OUTBOX_PAGE`].
    fn outbox_page(
        &self,
        before: Option<OutboxId>,
        count: usize,
    ) -> impl Future<Output = Result<Vec<OutboxEntry>, StoreError>> + Send;
}

/// The most entries of one call of [`Outbox::outbox_append`].
pub const MAX_OUTBOX_APPEND: usize = 64;
/// The most entries that one call of [`Outbox::outbox_claim`] claims.
pub const MAX_OUTBOX_CLAIM: usize = 64;
/// The most entries of one call of [`Outbox::outbox_page`].
pub const MAX_OUTBOX_PAGE: usize = 64;
/// The longest payload, in bytes.
pub const MAX_OUTBOX_PAYLOAD: usize = 8 << 10;
/// How many more entries than it adds one call of [`Outbox::outbox_append`] removes.
pub const OUTBOX_REMOVED: usize = 64;
/// How many crossings of settlements one script of the Redis store moves to the other entries, before it does its own work. A
/// settlement only appends them to a list.
pub(super) const OUTBOX_MOVED: usize = 64;

/// The longest id, in bytes.
const MAX_ID: usize = 160;
/// The digits of the time, with which an id begins.
pub(super) const TIME_DIGITS: usize = 12;
/// What separates an id from the queue in it.
const QUEUE: char = '/';
/// What ends the id of a crossing: that it is an alert that opens.
const OPEN: &str = "_open";

/// Identifies an entry, and names its queue: 12 hexadecimal digits of a time in milliseconds, more letters, and after the first `/`, if
/// there is one, the queue; else that is the one without a name. In the order of their texts, so entries are in the order of time.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OutboxId(Arc<str>);

impl OutboxId {
    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The queue.
    #[must_use]
    pub fn queue(&self) -> &str {
        self.0.split_once(QUEUE).map_or("", |(_, queue)| queue)
    }

    /// The id in front of the queue.
    #[must_use]
    pub fn event(&self) -> &str {
        self.0.split_once(QUEUE).map_or(&self.0, |(event, _)| event)
    }

    /// The time with which it begins.
    #[must_use]
    pub fn time(&self) -> Timestamp {
        let digits = self.0.get(..TIME_DIGITS).unwrap_or_default();
        Timestamp(u64::from_str_radix(digits, 16).unwrap_or_default())
    }
}

impl fmt::Display for OutboxId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The text is not the id of an entry.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error(
    "the id of an entry is 12 lower-case hexadecimal digits, and at most 148 letters, digits, and `_`, `-`, `.` and `/`"
)]
pub struct NotAnOutboxId;

impl FromStr for OutboxId {
    type Err = NotAnOutboxId;

    fn from_str(text: &str) -> Result<Self, NotAnOutboxId> {
        let digits =
            text.bytes().take(TIME_DIGITS).filter(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')).count();
        let known = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.' | b'/');
        if digits == TIME_DIGITS && text.len() <= MAX_ID && text.bytes().all(known) {
            Ok(Self(text.into()))
        } else {
            Err(NotAnOutboxId)
        }
    }
}

/// An entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutboxEntry {
    /// Its id.
    pub id: OutboxId,
    /// At most [`MAX_OUTBOX_PAYLOAD`] bytes, of which the first is a version.
    pub payload: Bytes,
}

/// An entry that this process has claimed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClaimedEntry {
    /// The entry.
    pub entry: OutboxEntry,
    /// How often it has been claimed, which tells this claim from others.
    pub claim: u64,
}

/// The answer to [`Outbox::outbox_claim`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OutboxClaim {
    /// The entries claimed now.
    pub entries: Vec<ClaimedEntry>,
    /// How many entries of the queue are not done, these included.
    pub pending: u64,
}

/// Which entries stay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutboxKept {
    /// How long, in milliseconds, by the time in their ids.
    pub ms: u64,
    /// How many.
    pub entries: u64,
}

impl OutboxKept {
    /// The digits before which ids are too old, if the store's time is `now`. By the earlier of its two readings: a single look at a
    /// wall clock that is ahead must not forget anything.
    #[must_use]
    pub fn since(self, now: Moment) -> String {
        let since = now.wall.min(now.store).0.saturating_sub(self.ms);
        format!("{since:0TIME_DIGITS$x}")
    }
}

/// What stays of an outbox: 90 days, and 50,000 entries of at most 8 KiB each; past that the oldest go, done or not.
pub const OUTBOX_KEPT: OutboxKept = OutboxKept { ms: 90 * 86_400_000, entries: 50_000 };

/// Whether a store takes these entries.
pub(super) fn check(entries: &[OutboxEntry]) -> Result<(), StoreError> {
    let long = |entry: &OutboxEntry| entry.payload.len() > MAX_OUTBOX_PAYLOAD;
    if entries.len() > MAX_OUTBOX_APPEND || entries.iter().any(long) {
        return Err(StoreError::Overflow);
    }
    Ok(())
}

/// A threshold of a budget that a settlement was the first to reach, as its atomic step records it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Crossing {
    /// The threshold, in nano-dollars.
    pub amount: u64,
    /// What is settled in the budget after the settlement, in nano-dollars.
    pub settled: u64,
    /// The name of the budget's counter.
    pub counter: String,
    /// The first day of the budget's period, as the counter has it.
    pub period: u32,
}

impl Crossing {
    /// The first byte of its payload.
    pub const VERSION: u8 = 1;

    /// Reads a payload; `None`: it is none of a crossing, or of a later version.
    #[must_use]
    pub fn read(payload: &[u8]) -> Option<Self> {
        let (version, rest) = payload.split_first()?;
        let (amount, rest) = seven(rest)?;
        let (settled, counter) = seven(rest)?;
        let (counter, period) = str::from_utf8(counter).ok()?.rsplit_once('@')?;
        let period = period.parse().ok()?;
        (*version == Self::VERSION).then(|| Self { amount, settled, counter: counter.to_owned(), period })
    }

    /// Version, threshold and what is settled in seven bytes each with the little end first, and the counter's name with its period.
    /// `settle.lua` writes the same.
    fn payload(amount: u64, settled: u64, counter: &CounterKey) -> Bytes {
        let mut bytes = vec![Self::VERSION];
        for number in [amount, settled] {
            let [seven @ .., _] = number.to_le_bytes();
            bytes.extend_from_slice(&seven);
        }
        bytes.extend_from_slice(counter.to_string().as_bytes());
        bytes.into()
    }
}

/// A budget that has denied a request, for the first time in its period as far as the process knows that adds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exhaustion {
    /// When it did.
    pub at: Timestamp,
    /// What is settled in the budget, in nano-dollars; the rest is reserved, or less than the request needs.
    pub settled: u64,
    /// The budget, in nano-dollars.
    pub limit: u64,
    /// Its counter, with the period.
    pub counter: CounterKey,
}

impl Exhaustion {
    /// The first byte of its payload.
    const VERSION: u8 = 4;

    /// Its entry, which has the same id in each process, so it is added once; `None`: the counter has no period.
    #[must_use]
    pub fn entry(&self) -> Option<OutboxEntry> {
        let start = first_of_period(&self.counter)?;
        let name = self.counter.to_string();
        let [a, b, c, d, e, f, g, h, ..] = *blake3::hash(name.as_bytes()).as_bytes();
        let hash = u64::from_be_bytes([a, b, c, d, e, f, g, h]);
        let id = format!("{:0TIME_DIGITS$x}{hash:016x}{OPEN}", start.0);
        let mut payload = vec![Self::VERSION];
        for number in [self.at.0, self.settled, self.limit] {
            let [seven @ .., _] = number.to_le_bytes();
            payload.extend_from_slice(&seven);
        }
        payload.extend_from_slice(name.as_bytes());
        Some(OutboxEntry { id: OutboxId(id.into()), payload: payload.into() })
    }

    /// The id of its alert, which begins with the time of the denial, so that alerts are in the order of time. `id`: that of its entry,
    /// which begins with that of the period, so that each process adds the same.
    #[must_use]
    pub fn alert_id(&self, id: &OutboxId) -> Option<String> {
        let (own, _) = id.event().rsplit_once('_')?;
        Some(format!("{:0TIME_DIGITS$x}{}", self.at.0, own.get(TIME_DIGITS..)?))
    }

    /// Reads a payload; `None`: it is of something else.
    #[must_use]
    pub fn read(payload: &[u8]) -> Option<Self> {
        let (_, rest) = payload.split_first().filter(|(version, _)| **version == Self::VERSION)?;
        let (at, rest) = seven(rest)?;
        let (settled, rest) = seven(rest)?;
        let (limit, name) = seven(rest)?;
        let (name, period) = str::from_utf8(name).ok()?.rsplit_once('@')?;
        let counter = CounterKey::new(name).in_period(period.parse().ok()?);
        Some(Self { at: Timestamp(at), settled, limit, counter })
    }
}

/// The beginning of the first day of a counter's period, in UTC; `None`: it has no period.
pub(super) fn first_of_period(counter: &CounterKey) -> Option<Timestamp> {
    let (day, part) = (counter.period(), |value: u32| i8::try_from(value % 100).ok());
    let date =
        jiff::civil::Date::new(i16::try_from(day / 10_000).ok()?, part(day / 100)?, part(day)?).ok()?;
    let start = date.to_zoned(jiff::tz::TimeZone::UTC).ok()?.timestamp().as_millisecond();
    u64::try_from(start).ok().map(Timestamp)
}

/// A number in seven bytes, the little end first, and what follows it.
fn seven(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let (number, rest) = bytes.split_at_checked(7)?;
    Some((number.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte)), rest))
}

/// The entries of the thresholds that the settlement of `id` reported at `wall`: the index of the counter, and the amount. Their ids are
/// of the time, six bytes of the reservation's id, which are random, and a number. `counter`: the one with an index.
#[must_use]
pub fn crossings<'c>(
    (id, wall): (ReservationId, Timestamp),
    (reported, settled): (&[(usize, u64)], &[Settled]),
    counter: impl Fn(usize) -> Option<&'c CounterKey>,
) -> Vec<OutboxEntry> {
    let random = u128::from_be_bytes(id.0) & 0xffff_ffff_ffff;
    let entries = reported.iter().enumerate().filter_map(|(number, (index, amount))| {
        let payload = Crossing::payload(*amount, settled.get(*index)?.after.settled, counter(*index)?);
        let id = format!("{:0TIME_DIGITS$x}{random:012x}{number:04x}{OPEN}", wall.0);
        Some(OutboxEntry { id: OutboxId(id.into()), payload })
    });
    entries.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::counter::CounterState;

    #[test]
    fn an_id_names_its_queue_and_its_time() {
        let id = |text: &str| text.parse::<OutboxId>();
        for (text, event, queue) in [
            ("01a2b3c4d5e6", "01a2b3c4d5e6", ""),
            ("01a2b3c4d5e6f0_open", "01a2b3c4d5e6f0_open", ""),
            ("01a2b3c4d5e6f0_open/ops.slack", "01a2b3c4d5e6f0_open", "ops.slack"),
        ] {
            let id = id(text).unwrap();
            assert_eq!((id.event(), id.queue(), id.time()), (event, queue, Timestamp(0x01a2_b3c4_d5e6)));
        }
        for text in ["", "01a2b3c4d5e", "01A2b3c4d5e6", "01a2b3c4d5e6|x", "01a2b3c4d5e6ü"] {
            assert_eq!(id(text), Err(NotAnOutboxId), "{text}");
        }
        assert!(id(&"0".repeat(MAX_ID)).is_ok() && id(&"0".repeat(MAX_ID + 1)).is_err());
    }

    /// The bytes of version 4, which later releases read, and an id that depends on the counter alone.
    #[test]
    fn an_exhaustion_is_as_it_was_recorded() {
        let counter = CounterKey::new("team/chatbot|usd|month").in_period(20_261_101);
        let exhaustion =
            |at| Exhaustion { at: Timestamp(at), settled: 7, limit: 256, counter: counter.clone() };
        let entry = exhaustion(1_795_428_000_000).entry().unwrap();
        assert_eq!(
            &*entry.payload,
            b"\x04\x00\x21\xd9\x07\xa2\x01\0\x07\0\0\0\0\0\0\0\x01\0\0\0\0\0team/chatbot|usd|month@20261101"
        );
        assert_eq!(Exhaustion::read(&entry.payload), Some(exhaustion(1_795_428_000_000)));
        assert_eq!(exhaustion(9).entry().unwrap().id, entry.id);
        assert_eq!(entry.id.time(), Timestamp(1_793_491_200_000), "the first of November");
        let alert = exhaustion(1_795_428_000_000).alert_id(&entry.id).unwrap();
        assert_eq!(alert.split_at(12), ("01a207d92100", &entry.id.as_str()[12..28]));
        let other = Exhaustion {
            counter: CounterKey::new("team/b|usd|month").in_period(20_261_101),
            ..exhaustion(9)
        };
        assert_ne!(other.entry().unwrap().id, entry.id);
        assert_eq!((Exhaustion::read(b"\x01"), Crossing::read(&entry.payload)), (None, None));
        assert_eq!(Exhaustion { counter: CounterKey::new("x"), ..exhaustion(9) }.entry(), None);
    }

    /// The bytes of version 1, which later releases read.
    #[test]
    fn a_crossing_is_as_it_was_recorded() {
        let counter = CounterKey::new("team/chatbot|usd|month").in_period(20_261_101);
        let settled = Settled {
            settled_before: 9,
            after: CounterState { used: 300, settled: 200_000_000_000, open: 0 },
        };
        let id = ReservationId(0x0102_0304_0506_0708_090a_0b0c_0d0e_0f10_u128.to_be_bytes());
        let entries = crossings(
            (id, Timestamp(1_795_428_000_000)),
            (&[(1, 160_000_000_000), (1, 180_000_000_000), (7, 1)], &[settled, settled]),
            |index| (index == 1).then_some(&counter),
        );
        let ids: Vec<_> = entries.iter().map(|entry| entry.id.as_str()).collect();
        assert_eq!(ids, ["01a207d921000b0c0d0e0f100000_open", "01a207d921000b0c0d0e0f100001_open"]);
        assert_eq!(
            &*entries[0].payload,
            b"\x01\0\x40\xbe\x40\x25\0\0\0\xd0\xed\x90\x2e\0\0team/chatbot|usd|month@20261101"
        );
        let crossing = Crossing {
            amount: 160_000_000_000,
            settled: 200_000_000_000,
            counter: "team/chatbot|usd|month".to_owned(),
            period: 20_261_101,
        };
        assert_eq!(Crossing::read(&entries[0].payload), Some(crossing));
        assert_eq!(Crossing::read(b"\x02\0\x40\xbe\x40\x25\0\0\0\xd0\xed\x90\x2e\0\0a@1"), None);
        assert_eq!(Crossing::read(b"\x01"), None);
    }
}
