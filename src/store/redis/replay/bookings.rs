//! Making reservations again, and settling them again.

use std::sync::Arc;

use bytes::Bytes;

use super::{
    super::{Inner, settle::SettleCall},
    again::Fate,
};
use crate::{
    domain::{
        MAX_AMOUNT, Timestamp,
        holds::{Holds, Term, Terms},
    },
    store::{CooldownChange, Record, ReservationId, Reserve, Reserved, Settle, SettleOutcome, StoreError},
};

/// What is kept of a reservation that is settled at once: a repeat finds the settlement.
const LATE_MS: u64 = 60_000;

impl Inner {
    /// Makes a reservation again if there is none under its id, or another one that was released: its settlement is still to come. `None`:
    /// what was found has changed since.
    pub(super) async fn reserve_again(
        self: &Arc<Self>,
        reserve: &Reserve,
    ) -> Result<Option<Fate>, StoreError> {
        let replaces = match self.find_stored(reserve.id).await? {
            None => Bytes::new(),
            Some(found) if is_same(&found, reserve.fingerprint, &reserve.note) => {
                return Ok(Some(Fate::Known));
            }
            Some(Record { settlement: Some(settlement), .. }) if self.is_released(&settlement.note) => {
                settlement.note
            }
            // The request was repeated since, and that attempt holds what it needs.
            Some(_) => return Ok(Some(Fate::Known)),
        };
        let again = Reserve {
            may_repeat: true,
            holds: without_limits(&reserve.holds),
            gates: Vec::new(),
            valid: Timestamp(0)..Timestamp(MAX_AMOUNT),
            replaces,
            ..reserve.clone()
        };
        Ok(self.granted(again).await?.is_none().then_some(Fate::Reserved))
    }

    /// Settles again what is not settled, with its reservation if that is missing as well. `None`: what was found has changed since.
    pub(super) async fn settle_again(
        self: &Arc<Self>,
        call: &SettleCall,
    ) -> Result<Option<Fate>, StoreError> {
        let settle = &call.settle;
        let is_release = self.is_released(&settle.note);
        let found = self.find_stored(settle.id).await?;
        if found.as_ref().is_some_and(|found| self.is_booked(found, settle)) {
            return Ok(Some(Fate::Known));
        }
        let beside = beside(settle);
        // Whatever is under its own id by now, it may have been another one when a pass that was cut off, or another replica, came to it.
        if !is_release && let Some(there) = self.find_stored(beside).await? {
            if there.settlement.is_some() {
                return Ok(Some(Fate::Known));
            }
            return self.settle_under(beside, settle, &there.holds).await;
        }
        let Record { fingerprint, note, .. } = &settle.record;
        let (id, replaces) = match &found {
            // A release is kept as well: another replica may be about to make the reservation again.
            None => (settle.id, Bytes::new()),
            Some(found) if found.settlement.is_none() && is_same(found, *fingerprint, note) => {
                return self.settle_under(settle.id, settle, &found.holds).await;
            }
            // What it gave back is not taken here.
            Some(_) if is_release => return Ok(Some(Fate::Known)),
            Some(Record { settlement: Some(settlement), .. }) if self.is_released(&settlement.note) => {
                (settle.id, settlement.note.clone())
            }
            // The request was repeated since, and has another reservation under the id. This usage is of neither of them.
            Some(_) => (beside, Bytes::new()),
        };
        self.book_under(id, replaces, settle).await
    }

    /// Whether what is found has this settlement.
    fn is_booked(&self, found: &Record, settle: &Settle) -> bool {
        let Some(settlement) = &found.settlement else { return false };
        let Record { fingerprint, note, .. } = &settle.record;
        // A release may have come before this settlement was written again: then it was of a request that was sent nonetheless.
        let is_undone = self.is_released(&settlement.note) && !self.is_released(&settle.note);
        // A report by a request's id leaves no fingerprint where it made the reservation itself.
        let is_by_request_id =
            (found.fingerprint == 0 || *fingerprint == 0) && settlement.note == settle.note;
        !is_undone && (is_same(found, *fingerprint, note) || is_by_request_id)
    }

    /// Makes the reservation of a settlement under an id, and settles it.
    async fn book_under(
        self: &Arc<Self>,
        id: ReservationId,
        replaces: Bytes,
        settle: &Settle,
    ) -> Result<Option<Fate>, StoreError> {
        let Record { fingerprint, reserved_at, expires_at, holds, note, .. } = &settle.record;
        let holds = without_limits(holds);
        let reserve = Reserve {
            id,
            may_repeat: true,
            fingerprint: *fingerprint,
            holds: holds.clone(),
            gates: Vec::new(),
            valid: Timestamp(0)..Timestamp(MAX_AMOUNT),
            ttl_ms: expires_at.since(*reserved_at).max(1),
            late_ms: LATE_MS,
            note: note.clone(),
            replaces,
            dry_run: false,
        };
        if self.granted(reserve).await?.is_some() {
            return Ok(None);
        }
        // A reservation that is made now looks younger than a cooldown that began since the true one.
        let mut settle = settle.clone();
        settle.cooldown = settle.cooldown.filter(|(_, change)| *change != CooldownChange::Lift);
        self.settle_under(id, &settle, &holds).await
    }

    /// Makes a reservation without limits; the one that is there, if there is one.
    async fn granted(self: &Arc<Self>, reserve: Reserve) -> Result<Option<Record>, StoreError> {
        match self.reserve_in_time(&Arc::new(reserve)).await? {
            Reserved::Granted { .. } => Ok(None),
            Reserved::Repeated(record) => Ok(Some(record)),
            // The store's time is about to be known.
            Reserved::OutOfDate { .. } => Err(StoreError::Unavailable),
            Reserved::Refused { .. } => Err(StoreError::Overflow),
        }
    }

    /// Settles the reservation with these `holds` under an id; `None`: it is another one, or settled.
    async fn settle_under(
        self: &Arc<Self>,
        id: ReservationId,
        settle: &Settle,
        holds: &Holds,
    ) -> Result<Option<Fate>, StoreError> {
        let record = Record { holds: holds.clone(), ..settle.record.clone() };
        let mut settle = Settle { id, record, ..settle.clone() };
        let since_ms = self.time.now().wall.since(settle.record.reserved_at);
        if let Some((_, CooldownChange::Open { length_ms, .. })) = &mut settle.cooldown {
            // It closed when the request ended, which is not known here: never for longer than it would have been.
            *length_ms = length_ms.saturating_sub(since_ms).max(1);
        }
        let mut call = self.settle_call(settle, true);
        // One that is too long to be remembered is settled as it is.
        call.is_recalled = call.record.is_some();
        match self.settle_once(&Arc::new(call)).await? {
            Some(SettleOutcome::Settled(_)) => Ok(Some(Fate::Settled)),
            Some(SettleOutcome::AlreadySettled(_)) | None => Ok(None),
            // It was there a moment ago, on this server or on another.
            Some(SettleOutcome::NotFound) => Err(StoreError::Unavailable),
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
pub(in crate::store::redis) fn beside(settle: &Settle) -> ReservationId {
    let mut hasher = blake3::Hasher::new();
    hasher.update(b"tollgate 2026 booked beside").update(&settle.id.0).update(&settle.record.note);
    let mut id = [0; 16];
    hasher.finalize_xof().fill(&mut id);
    ReservationId::versioned(id)
}
