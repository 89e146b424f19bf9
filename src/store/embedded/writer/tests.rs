use std::sync::{Condvar, Mutex};

use super::*;
use crate::{
    domain::Timestamp,
    runtime::clock::{Clock, ManualClock},
    store::embedded::{age::Age, disk::Expired, time::StoreTime},
};

/// A disk that nothing is written to.
struct NoDisk;

impl Commit for NoDisk {
    fn commit(&mut self, _: &mut Connection, _: &Batch) -> Result<bool, CommitError> {
        Ok(true)
    }
}

fn writer() -> Writer {
    let clock = Clock::Manual(ManualClock::new(Timestamp(1_795_428_000_000)));
    let inner = Inner {
        shared: Mutex::new(Shared::default()),
        wake: Condvar::new(),
        time: StoreTime::new(clock, Timestamp(0), 0),
        age: Age::new(Duration::from_secs(1)),
        unreported: crate::store::Unreported::default(),
    };
    let start = Start { lsn: 0, covered: 0, segment: 0, behind: 0, pause: ROUND };
    Writer::new(Arc::new(inner), Connection::open_in_memory().unwrap(), Box::new(NoDisk), start)
}

fn segments(count: u64) -> Vec<Expired> {
    (0..count).map(|number| Expired { number, entries: Vec::new() }).collect()
}

/// Else what has ended would stay longer the more there is of it.
#[test]
fn a_sweep_that_took_all_it_may_is_followed_by_the_next_at_once() {
    let mut writer = writer();
    let due = writer.swept_at.checked_sub(SWEEP).unwrap();
    writer.swept_at = due;
    for _ in 0..3 {
        let (batch, _) = writer.collect(false, Some(segments(SEGMENTS.into()))).unwrap();
        assert_eq!(batch.segments_gone.len(), SEGMENTS as usize);
        // The writer does not park before it.
        assert!(writer.swept_at == due && writer.swept_at.elapsed() >= SWEEP);
        assert_eq!(writer.wait().ok(), Some(false));
    }
    writer.collect(false, Some(segments(u64::from(SEGMENTS) - 1))).unwrap();
    assert!(writer.swept_at > due, "the next one has time");
}

/// The bound on what a slice looks at: rows that were written already count as well, as each may be a cache miss under the lock.
#[test]
fn a_slice_that_finds_little_to_write_ends_and_the_next_goes_on() {
    let mut writer = writer();
    let places = u32::try_from(LOOKS).unwrap() * 2;
    // There is nothing in these places any more.
    let reservations = [Vec::new(), (0..places).collect(), Vec::new()];
    writer.round = Round::Writing { covers: 0, reservations, counters: Vec::new(), lines: Vec::new() };
    let mut left = Vec::new();
    while let Round::Writing { reservations, .. } = &writer.round {
        left.push(reservations[1].len());
        let (batch, _) = writer.collect(false, None).unwrap();
        assert!(batch.is_empty());
        writer.advance(true);
    }
    assert_eq!(left, [2 * LOOKS, LOOKS]);
}
