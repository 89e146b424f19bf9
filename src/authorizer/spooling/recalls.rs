//! What the stores of all cores remember of reservations.

use std::{
    fmt,
    sync::{Mutex, PoisonError},
};

use crate::store::{Record, ReservationId, Store};

type Recall = Box<dyn Fn(ReservationId) -> Option<Record> + Send + Sync>;

/// One look-up for each core. The lock is taken when a core is set up, and in an outage.
#[derive(Default)]
pub(in crate::authorizer) struct Recalls(Mutex<Vec<Recall>>);

impl Recalls {
    /// Looks in `store` as well from now on.
    pub(in crate::authorizer) fn add<S: Store>(&self, store: S) {
        let recall = Box::new(move |id| store.recall(id));
        // Nothing panics while it is held.
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(recall);
    }

    /// The reservation, if one of them remembers it.
    pub(super) fn find(&self, id: ReservationId) -> Option<Record> {
        let recalls = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        recalls.iter().find_map(|recall| recall(id))
    }
}

impl fmt::Debug for Recalls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Recalls").finish_non_exhaustive()
    }
}
