//! Writing again what a server lacks of that which was acknowledged.

use std::{
    collections::HashMap,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use bytes::Bytes;

use super::{
    super::{Inner, batch::each, bytes, script, settle::SettleCall, wire::Reader},
    ring::{Kept, Write},
};
use crate::{
    domain::{
        MAX_AMOUNT, Timestamp,
        holds::{Holds, Term, Terms},
    },
    runtime::Entropy,
    store::{CooldownChange, Record, ReservationId, Reserve, Reserved, Settle, SettleOutcome, StoreError},
};

/// Entries that are looked up at the same time: decisions go on beside them.
const TOGETHER: usize = 32;
/// How often one is tried while the server has too much to do, and how long after.
const ATTEMPTS: u32 = 20;
const AGAIN_AFTER: Duration = Duration::from_millis(50);
/// What is kept of a reservation that is settled at once: a repeat finds the settlement.
const LATE_MS: u64 = 60_000;

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
type Lane = Vec<Kept>;

/// What became of one entry.
enum Fate {
    Known,
    Reserved,
    Settled,
    Changed,
}

impl Inner {
    /// Writes again what the server lacks of these.
    pub(in crate::store::redis) async fn write_again(
        self: &Arc<Self>,
        entries: Vec<Kept>,
    ) -> Result<Done, StoreError> {
        let mut done = Done::default();
        // Orders to stop come first.
        let (writes, others): (Vec<_>, Vec<_>) =
            entries.into_iter().partition(|kept| matches!(kept, Kept::Write(_)));
        if let Some(key) = self.replay.settings.hash_key.get().filter(|_| !writes.is_empty()) {
            self.hash_key(Some(&key)).await?;
        }
        let writes: Vec<Lane> = writes.into_iter().map(|write| vec![write]).collect();
        let others = self.lanes(others);
        for lanes in writes.chunks(TOGETHER).chain(others.chunks(TOGETHER)) {
            for written in each(lanes.iter().map(|lane| self.lane_again(lane))).await {
                done.add(&written?);
            }
        }
        Ok(done)
    }

    /// Entries by their ids, in the order in which each id first came.
    fn lanes(&self, entries: Vec<Kept>) -> Vec<Lane> {
        let (mut lanes, mut places) = (Vec::<Lane>::new(), HashMap::new());
        for kept in entries {
            let place = kept.id().map(|id| *places.entry(id).or_insert(lanes.len()));
            match place.and_then(|place| lanes.get_mut(place)) {
                Some(lane) => lane.push(kept),
                None => lanes.push(vec![kept]),
            }
        }
        // What was released makes room for what was reserved since, and that has the id before what is settled beside it.
        lanes.iter_mut().for_each(|lane| lane.sort_by_key(|kept| self.rank(kept)));
        lanes
    }

    fn rank(&self, kept: &Kept) -> u8 {
        match kept {
            Kept::Settlement(call) if self.is_released(&call.settle.note) => 0,
            Kept::Reservation(_) | Kept::Write(_) => 1,
            Kept::Settlement(_) => 2,
        }
    }

    /// Whether a settlement with this note leaves its id free.
    fn is_released(&self, note: &Bytes) -> bool {
        let released = &self.replay.settings.released;
        !released.is_empty() && note == released
    }

    async fn lane_again(self: &Arc<Self>, lane: &Lane) -> Result<Done, StoreError> {
        let mut done = Done::default();
        for kept in lane {
            match self.one_again(kept).await {
                Ok(Fate::Known) => {}
                Ok(Fate::Reserved) => done.reservations += 1,
                Ok(Fate::Settled) => done.settlements += 1,
                Ok(Fate::Changed) => done.changes += 1,
                Err(StoreError::Overflow | StoreError::Corrupt) => done.left_out += 1,
                Err(error) => return Err(error),
            }
            done.entries += 1;
        }
        Ok(done)
    }

    async fn one_again(self: &Arc<Self>, kept: &Kept) -> Result<Fate, StoreError> {
        for _ in 1..ATTEMPTS {
            match self.once_again(kept).await {
                Err(StoreError::Overloaded) => tokio::time::sleep(AGAIN_AFTER).await,
                answered => return answered,
            }
        }
        self.once_again(kept).await
    }

    async fn once_again(self: &Arc<Self>, kept: &Kept) -> Result<Fate, StoreError> {
        match kept {
            Kept::Reservation(reserve) => self.reserve_again(reserve).await,
            Kept::Settlement(call) => self.settle_again(call).await,
            Kept::Write(write) => self.restore(write).await,
        }
    }

    /// Makes a reservation again if there is none under its id, or another one that was released: its settlement is still to come.
    async fn reserve_again(self: &Arc<Self>, reserve: &Reserve) -> Result<Fate, StoreError> {
        let replaces = match self.find_stored(reserve.id).await? {
            None => Bytes::new(),
            Some(found) if is_same(&found, reserve.fingerprint, &reserve.note) => return Ok(Fate::Known),
            Some(Record { settlement: Some(settlement), .. }) if self.is_released(&settlement.note) => {
                settlement.note
            }
            // The request was repeated since, and that attempt holds what it needs.
            Some(_) => return Ok(Fate::Known),
        };
        let again = Arc::new(Reserve {
            may_repeat: true,
            holds: without_limits(&reserve.holds),
            gates: Vec::new(),
            valid: Timestamp(0)..Timestamp(MAX_AMOUNT),
            replaces,
            ..reserve.clone()
        });
        self.granted(&again).await.map(|is_new| if is_new { Fate::Reserved } else { Fate::Known })
    }

    /// Settles again what is not settled, with its reservation if that is missing as well.
    async fn settle_again(self: &Arc<Self>, call: &SettleCall) -> Result<Fate, StoreError> {
        let (settle, released) = (&call.settle, &self.replay.settings.released);
        let is_release = self.is_released(&settle.note);
        let found = self.find_stored(settle.id).await?;
        let (id, replaces) = match &found {
            // A release is kept as well: another replica may be about to make the reservation again.
            None => (settle.id, Bytes::new()),
            Some(found) if is_same(found, settle.record.fingerprint, &settle.record.note) => {
                if found.settlement.is_some() {
                    return Ok(Fate::Known);
                }
                return self.settle_under(settle.id, settle).await;
            }
            // What it gave back is not taken here.
            Some(_) if is_release => return Ok(Fate::Known),
            Some(found)
                if found.settlement.as_ref().is_some_and(|settlement| self.is_released(&settlement.note)) =>
            {
                (settle.id, released.clone())
            }
            // The request was repeated since, and has another reservation under the id. This usage is of neither of them.
            Some(_) => (beside(settle), Bytes::new()),
        };
        let Record { fingerprint, reserved_at, expires_at, holds, note, .. } = &settle.record;
        let reserve = Arc::new(Reserve {
            id,
            may_repeat: true,
            fingerprint: *fingerprint,
            holds: without_limits(holds),
            gates: Vec::new(),
            valid: Timestamp(0)..Timestamp(MAX_AMOUNT),
            ttl_ms: expires_at.since(*reserved_at).max(1),
            late_ms: LATE_MS,
            note: note.clone(),
            replaces,
            dry_run: false,
        });
        self.granted(&reserve).await?;
        // A reservation that is made now looks younger than a cooldown that began since the true one.
        let mut settle = settle.clone();
        settle.cooldown = settle.cooldown.filter(|(_, change)| *change != CooldownChange::Lift);
        self.settle_under(id, &settle).await
    }

    /// Makes a reservation without limits; `false`: there is one.
    async fn granted(self: &Arc<Self>, reserve: &Arc<Reserve>) -> Result<bool, StoreError> {
        match self.reserve_in_time(reserve).await? {
            Reserved::Granted { .. } => Ok(true),
            Reserved::Repeated(_) => Ok(false),
            // The store's time is about to be known.
            Reserved::OutOfDate { .. } => Err(StoreError::Unavailable),
            Reserved::Refused { .. } => Err(StoreError::Overflow),
        }
    }

    async fn settle_under(self: &Arc<Self>, id: ReservationId, settle: &Settle) -> Result<Fate, StoreError> {
        let mut settle = Settle { id, ..settle.clone() };
        let since_ms = self.time.now().wall.since(settle.record.reserved_at);
        if let Some((_, CooldownChange::Open { length_ms, .. })) = &mut settle.cooldown {
            // It closed when the request ended, which is not known here: never for longer than it would have been.
            *length_ms = length_ms.saturating_sub(since_ms).max(1);
        }
        let call = Arc::new(self.settle_call(settle, false));
        match self.settle_once(&call).await? {
            Some(SettleOutcome::Settled(_)) => Ok(Fate::Settled),
            Some(SettleOutcome::AlreadySettled(_)) => Ok(Fate::Known),
            // It was there a moment ago, on this server or on another.
            Some(SettleOutcome::NotFound) | None => Err(StoreError::Unavailable),
        }
    }

    /// Writes a record of the registry again unless it is there, or a later one.
    ///
    /// Versions of two servers say nothing of each other, so the write gets that which it has on the server that answers, for the next
    /// failover. One that another write has taken the place of, such as a revocation since, is not written again by any later one.
    async fn restore(&self, write: &Write) -> Result<Fate, StoreError> {
        let written = write.version.load(Ordering::Relaxed);
        if written == 0 {
            return Ok(Fate::Known);
        }
        let mark: [u8; 8] = Entropy::System.bytes().map_err(|_| StoreError::Unavailable)?;
        let mut cmd = script::REGISTRY_RESTORE.call(3);
        cmd.arg(&self.keyspace.registry).arg(&self.keyspace.revision).arg(&self.keyspace.meta);
        cmd.arg(&*write.name).arg(written).arg(&write.value[..]).arg(&mark);
        let answer = bytes(self.connection.call(&script::REGISTRY_RESTORE, &cmd).await?)?;
        let mut answer = Reader::new(&answer);
        match (answer.number()?, answer.number()?) {
            (1, again) => {
                write.version.store(again, Ordering::Relaxed);
                Ok(Fate::Changed)
            }
            (_, present) => {
                if present != 0 && present != written {
                    write.version.store(0, Ordering::Relaxed);
                }
                Ok(Fate::Known)
            }
        }
    }
}

/// Whether it is the reservation with this fingerprint and note, and no other that had its id since or before: the note names the attempt.
fn is_same(found: &Record, fingerprint: u64, note: &Bytes) -> bool {
    found.fingerprint == fingerprint && found.note == *note
}

/// Holds that fit whatever others hold: they were granted before.
fn without_limits(holds: &Holds) -> Holds {
    let terms = holds.terms().iter().map(|term| Term { limit: MAX_AMOUNT, ..term.clone() });
    let terms = Terms::new(terms, holds.terms().note().clone());
    Holds::with_amounts(Arc::new(terms), holds.amounts().iter().copied())
}

/// The id under which a settlement is booked whose own id another reservation has: the same on each replica.
fn beside(settle: &Settle) -> ReservationId {
    let mut hasher = blake3::Hasher::new();
    hasher.update(b"tollgate 2026 booked beside").update(&settle.id.0).update(&settle.record.note);
    let mut id = [0; 16];
    hasher.finalize_xof().fill(&mut id);
    ReservationId::versioned(id)
}
