//! Open reservations as this process wrote or found them, so that their settlement needs no look-up.
//!
//! Any of them may have been settled or replaced by another process since. So what is remembered is only ever sent with a settlement, whose
//! script compares it with what is there.

use std::sync::{Mutex, MutexGuard, PoisonError};

use super::terms::Lately;
use crate::store::ReservationId;

/// The most records of a generation that are remembered, of at most 600 bytes each, and mostly 170. A settlement takes its own out, so they are those that
/// are open; where there are more of them, the earliest are looked up.
const MOST: usize = 65_536;

/// A longer record is looked up: one that has its holds and names, as that of a user's first request.
const LONGEST: usize = 512;

/// The bytes of records by their ids. The lock is held for a look-up.
#[derive(Debug)]
pub(super) struct Remembered(Mutex<Lately<ReservationId, Box<[u8]>>>);

impl Remembered {
    pub(super) fn new() -> Self {
        Self(Mutex::new(Lately::new(MOST)))
    }

    pub(super) fn insert(&self, id: ReservationId, record: Box<[u8]>) {
        if record.len() <= LONGEST {
            self.lock().insert(id, record);
        } else {
            self.lock().remove(id);
        }
    }

    /// The record under `id`.
    pub(super) fn get(&self, id: ReservationId) -> Option<Box<[u8]>> {
        self.lock().get(id).cloned()
    }

    pub(super) fn forget(&self, id: ReservationId) {
        self.lock().remove(id);
    }

    fn lock(&self) -> MutexGuard<'_, Lately<ReservationId, Box<[u8]>>> {
        // Nothing panics while it is held.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
