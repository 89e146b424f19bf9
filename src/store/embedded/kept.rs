//! Reservations in memory, and as they are written.

use std::{mem, sync::Arc};

use crate::{
    domain::{Moment, Timestamp},
    store::{Record, Reserve},
};

/// A reservation in memory.
pub(super) struct Kept {
    /// The op that made it; distinguishes it from an earlier one with the same id.
    pub(super) seq: u64,
    /// The op that last changed it.
    pub(super) lsn: u64,
    /// From this instant on it is gone, whether or not it was removed yet.
    pub(super) forget_at: Timestamp,
    /// When the version that was written while it was open ends; 0: there is none.
    pub(super) open_until: Timestamp,
    /// Whether it changed since it was last written to the table; then it is in [`Changed`].
    pub(super) dirty: bool,
    /// Shared with callers and the writer, who copy it without the store's lock.
    pub(super) record: Arc<Record>,
}

/// A reservation as a segment keeps it.
pub(super) struct ReservationRow {
    pub(super) id: u128,
    pub(super) seq: u64,
    pub(super) lsn: u64,
    pub(super) forget_at: Timestamp,
    /// When an earlier version in another segment ends, which must not outlive this one.
    pub(super) open_until: Timestamp,
    pub(super) record: Arc<Record>,
}

impl ReservationRow {
    /// The record for a caller.
    pub(super) fn shown(self, now: Moment) -> Record {
        Arc::unwrap_or_clone(self.record).by_the_wall(now)
    }
}

/// The record that `reserve` makes, without its times.
pub(super) fn record_of(reserve: &Reserve) -> Record {
    Record {
        fingerprint: reserve.fingerprint,
        reserved_at: Timestamp(0),
        expires_at: Timestamp(0),
        holds: reserve.holds.clone(),
        note: reserve.note.clone(),
        settlement: None,
    }
}

/// The reservations that changed since they were last written to the table, by what happened to them. One may be in two lists.
#[derive(Default)]
pub(super) struct Changed {
    settled: Vec<u128>,
    /// Made before the last round began.
    due: Vec<u128>,
    /// Made since. The next round leaves them to the journal: most are settled before the one after it, and then written once.
    fresh: Vec<u128>,
}

impl Changed {
    pub(super) fn made(&mut self, id: u128) {
        self.fresh.push(id);
    }

    pub(super) fn settled(&mut self, id: u128) {
        self.settled.push(id);
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.settled.is_empty() && self.due.is_empty() && self.fresh.is_empty()
    }

    /// The lists that a round that begins now has to write; `whole`: all, and not only what is due. Moves no ids, as there may be
    /// many.
    pub(super) fn begin_round(&mut self, whole: bool) -> [Vec<u128>; 3] {
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

    #[test]
    fn a_round_leaves_what_was_made_since_the_last_one_to_the_next() {
        let mut changed = Changed::default();
        let written = |lists: [Vec<u128>; 3]| lists.concat();
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
}
