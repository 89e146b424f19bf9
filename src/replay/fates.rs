//! What became of recorded reservations, as long as they can be settled.

use std::collections::HashMap;

use crate::{
    domain::{
        Timestamp,
        batch::Batch,
        plan::{LATE_MS, RESERVATION_TTL_MS},
        request::AuthorizeRequest,
    },
    store::ReservationId,
};

/// The fewest that are looked through for those that can no longer be settled.
const LEAST_SWEPT: usize = 4_096;

/// What became of a recorded reservation.
pub(super) enum Fate {
    /// The policy would have allowed it: this is its reservation in the replay.
    Reserved(ReservationId),
    /// It was released, as no caller got it.
    Released(ReservationId),
    /// The policy would have refused it.
    Refused {
        /// The groups that count it.
        rows: Vec<usize>,
        /// The worst case that was reserved for it.
        reserved_nanos: u64,
    },
}

/// The fates of reservations that can still be settled: a settlement takes its own, and those that are too old for one are dropped, so
/// there are about as many as reservations of a day that were never settled, and as many in flight.
#[derive(Default)]
pub(super) struct Fates {
    open: HashMap<String, (Fate, Timestamp)>,
    /// How many there may be before they are looked through: twice as many as stayed the last time.
    most: usize,
}

impl Fates {
    /// Keeps the fate of a request that was decided at `time`.
    pub(super) fn insert(&mut self, (id, fate): (String, Fate), time: Timestamp, request: &AuthorizeRequest) {
        if self.open.len() >= self.most.max(LEAST_SWEPT) {
            self.open.retain(|_, (_, until)| *until > time);
            self.most = self.open.len().saturating_mul(2);
        }
        let work = request.work();
        let lifetime_ms = work.batch().map_or(RESERVATION_TTL_MS, Batch::ttl_ms);
        self.put_back(id, fate, time.plus(lifetime_ms).plus(LATE_MS));
    }

    pub(super) fn put_back(&mut self, id: String, fate: Fate, until: Timestamp) {
        self.open.insert(id, (fate, until));
    }

    pub(super) fn take(&mut self, id: &str) -> Option<(Fate, Timestamp)> {
        self.open.remove(id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::request::{Caller, Operation, ServiceTier, Size};

    fn request() -> AuthorizeRequest {
        AuthorizeRequest {
            caller: Caller::Team("bot".to_owned()),
            user: String::new(),
            request_id: String::new(),
            model: "m".to_owned(),
            operation: Operation::Chat,
            service_tier: ServiceTier::default(),
            batch: None,
            tools: Vec::new(),
            size: Size { input_tokens: 1, max_output_tokens: 1, audio_ms: 0, characters: 0 },
            unseen_input_tokens: 0,
            fixed_output: false,
            max_wait_ms: 0,
            dry_run: false,
            labels: Default::default(),
        }
    }

    #[test]
    fn what_can_no_longer_be_settled_is_dropped() {
        let (mut fates, request) = (Fates::default(), request());
        let most = (0..1_000_000_u64).fold(0, |most, second| {
            let fate = Fate::Refused { rows: Vec::new(), reserved_nanos: 1 };
            fates.insert((second.to_string(), fate), Timestamp(second * 1_000), &request);
            most.max(fates.open.len())
        });
        // One each second can be settled for a day and ten minutes.
        let kept = usize::try_from((RESERVATION_TTL_MS + LATE_MS) / 1_000).unwrap();
        assert!(most <= 2 * kept + 2 && fates.open.len() >= kept, "{most}");
        assert!(fates.take("999999").is_some() && fates.take("999999").is_none());
        assert!(fates.take(&(999_999 - kept + 1).to_string()).is_some());
    }
}
