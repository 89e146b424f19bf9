//! Writing again what a server lacks of that which was acknowledged.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;

use super::{
    super::{Inner, batch::each},
    ring::Kept,
};
use crate::store::StoreError;

/// Entries that are looked up at the same time: decisions go on beside them.
const TOGETHER: usize = 32;
/// How often one is tried while the server has too much to do, and how long after.
const ATTEMPTS: u32 = 20;
const AGAIN_AFTER: Duration = Duration::from_millis(50);

/// What became of entries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::store::redis) struct Done {
    /// That were looked at.
    pub(in crate::store::redis) entries: u64,
    pub(in crate::store::redis) reservations: u64,
    pub(in crate::store::redis) settlements: u64,
    pub(in crate::store::redis) changes: u64,
    /// That can no longer be written.
    pub(in crate::store::redis) left_out: u64,
}

impl Done {
    pub(super) const fn add(&mut self, other: &Self) {
        self.entries += other.entries;
        self.reservations += other.reservations;
        self.settlements += other.settlements;
        self.changes += other.changes;
        self.left_out += other.left_out;
    }

    pub(super) fn log(&self) {
        let Self { entries, reservations, settlements, changes, left_out } = *self;
        if entries == 0 {
            tracing::debug!("redis is another than before, and nothing is kept that it could have forgotten");
        } else if reservations + settlements + changes + left_out == 0 {
            tracing::info!(
                entries,
                "redis is another than before, and has forgotten nothing of what is kept"
            );
        } else if left_out == 0 {
            tracing::warn!(
                entries,
                reservations,
                settlements,
                changes,
                "redis had forgotten some of what it acknowledged; that is booked again"
            );
        } else {
            tracing::error!(
                entries,
                reservations,
                settlements,
                changes,
                left_out,
                "redis had forgotten some of what it acknowledged, and not all of that can be booked again"
            );
        }
    }
}

/// Entries that are written one after the other: those about one id, most often one.
pub(super) type Lane = VecDeque<Kept>;

/// What became of one entry.
pub(super) enum Fate {
    Known,
    Reserved,
    Settled,
    Changed,
    LeftOut,
}

impl Inner {
    /// Writes again what the server lacks of what is `left`, which then has what failed.
    pub(super) async fn write_lanes(
        self: &Arc<Self>,
        left: &mut VecDeque<Lane>,
        done: &mut Done,
    ) -> Result<(), StoreError> {
        let has_writes = left.iter().any(|lane| matches!(lane.front(), Some(Kept::Write(_))));
        if let Some(key) = self.replay.settings.hash_key.get().filter(|_| has_writes) {
            self.hash_key(Some(&key)).await?;
        }
        let (mut failed, mut last) = (Vec::new(), Ok(()));
        while !left.is_empty() {
            let mut lanes: Vec<Lane> = left.drain(..TOGETHER.min(left.len())).collect();
            let written = each(lanes.iter_mut().map(|lane| self.lane_again(lane))).await;
            let before = failed.len();
            for (lane, (own, ended)) in lanes.into_iter().zip(written) {
                done.add(&own);
                if ended.is_err() {
                    failed.push(lane);
                    last = ended;
                }
            }
            // One that fails holds up no other; a server that does not answer is not asked for the rest.
            if failed.len() - before == TOGETHER {
                break;
            }
        }
        left.extend(failed);
        last
    }

    /// The same for these entries.
    #[cfg(test)]
    pub(in crate::store::redis) async fn write_again(
        self: &Arc<Self>,
        entries: Vec<Kept>,
    ) -> Result<Done, StoreError> {
        let (mut left, mut done) = (self.lanes(entries), Done::default());
        self.write_lanes(&mut left, &mut done).await?;
        Ok(done)
    }

    /// Entries by their ids, in the order in which each id first came, behind the changes of the registry: orders to stop come first.
    pub(super) fn lanes(&self, entries: Vec<Kept>) -> VecDeque<Lane> {
        let (mut lanes, mut places) = (Vec::<Lane>::new(), HashMap::new());
        for kept in entries {
            let place = kept.id().map(|id| *places.entry(id).or_insert(lanes.len()));
            match place.and_then(|place| lanes.get_mut(place)) {
                Some(lane) => lane.push_back(kept),
                None => lanes.push(Lane::from([kept])),
            }
        }
        // What was released makes room for what was reserved since, and that has the id before what is settled beside it.
        for lane in lanes.iter_mut().filter(|lane| lane.len() > 1) {
            lane.make_contiguous().sort_by_key(|kept| self.rank(kept));
        }
        lanes.sort_by_key(|lane| !matches!(lane.front(), Some(Kept::Write(_))));
        lanes.into()
    }

    fn rank(&self, kept: &Kept) -> u8 {
        match kept {
            Kept::Settlement(call) if self.is_released(&call.settle.note) => 0,
            Kept::Reservation(_) | Kept::Write(_) => 1,
            Kept::Settlement(_) => 2,
        }
    }

    /// Whether a settlement with this note leaves its id free.
    pub(super) fn is_released(&self, note: &Bytes) -> bool {
        let released = &self.replay.settings.released;
        !released.is_empty() && note == released
    }

    /// Takes out of a lane what is done; it keeps what failed and what comes after that.
    async fn lane_again(self: &Arc<Self>, lane: &mut Lane) -> (Done, Result<(), StoreError>) {
        let mut done = Done::default();
        while let Some(kept) = lane.front() {
            match self.one_again(kept).await {
                Ok(Fate::Known) => {}
                Ok(Fate::Reserved) => done.reservations += 1,
                Ok(Fate::Settled) => done.settlements += 1,
                Ok(Fate::Changed) => done.changes += 1,
                Ok(Fate::LeftOut) | Err(StoreError::Overflow | StoreError::Corrupt) => done.left_out += 1,
                Err(error) => return (done, Err(error)),
            }
            done.entries += 1;
            lane.pop_front();
        }
        (done, Ok(()))
    }

    async fn one_again(self: &Arc<Self>, kept: &Kept) -> Result<Fate, StoreError> {
        for _ in 0..ATTEMPTS {
            match self.once_again(kept).await {
                Err(StoreError::Overloaded) => tokio::time::sleep(AGAIN_AFTER).await,
                Ok(None) => {}
                Ok(Some(fate)) => return Ok(fate),
                Err(error) => return Err(error),
            }
        }
        Err(StoreError::Unavailable)
    }

    /// Looks up one entry, and writes it if it is missing; `None`: what was found has changed since.
    async fn once_again(self: &Arc<Self>, kept: &Kept) -> Result<Option<Fate>, StoreError> {
        match kept {
            Kept::Reservation(reserve) => self.reserve_again(reserve).await,
            Kept::Settlement(call) => self.settle_again(call).await,
            Kept::Write(write) => self.restore(write).await,
        }
    }
}
