//! The outbox of the model.

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use tollgate::{
    domain::Timestamp,
    store::{
        ClaimedEntry, MAX_OUTBOX_APPEND, MAX_OUTBOX_CLAIM, MAX_OUTBOX_PAGE, MAX_OUTBOX_PAYLOAD,
        OUTBOX_REMOVED, Outbox, OutboxClaim, OutboxEntry, OutboxId, OutboxKept, StoreError,
    },
};

use super::Model;

pub(super) type Entries = BTreeMap<OutboxId, Stored>;

#[derive(Clone, Debug)]
pub(super) struct Stored {
    payload: Bytes,
    /// `None`: it is done.
    due: Option<Timestamp>,
    claim: u64,
}

pub(super) fn add(entries: &mut Entries, OutboxEntry { id, payload }: OutboxEntry) {
    entries.entry(id).or_insert(Stored { payload, due: Some(Timestamp(0)), claim: 0 });
}

impl Outbox for Model {
    async fn outbox_append(&self, added: Vec<OutboxEntry>, kept: OutboxKept) -> Result<usize, StoreError> {
        let long = |entry: &OutboxEntry| entry.payload.len() > MAX_OUTBOX_PAYLOAD;
        if added.len() > MAX_OUTBOX_APPEND || added.iter().any(long) {
            return Err(StoreError::Overflow);
        }
        let (since, most) = (kept.since(self.moment()), OUTBOX_REMOVED + added.len());
        let entries = &mut self.state.lock().unwrap().outbox;
        added.into_iter().for_each(|entry| add(entries, entry));
        let mut removed = 0;
        while removed < most
            && entries
                .first_key_value()
                .is_some_and(|(id, _)| *id.as_str() < *since || entries.len() as u64 > kept.entries)
        {
            entries.pop_first();
            removed += 1;
        }
        Ok(removed)
    }

    async fn outbox_claim(
        &self,
        queue: Arc<str>,
        count: usize,
        lease_ms: u64,
    ) -> Result<OutboxClaim, StoreError> {
        let now = self.moment().store;
        let entries = &mut self.state.lock().unwrap().outbox;
        let mut pending: Vec<_> = entries
            .iter_mut()
            .filter_map(|(id, stored)| (id.queue() == &*queue).then_some((stored.due?, id, stored)))
            .collect();
        let mut claimed = OutboxClaim { entries: Vec::new(), pending: pending.len() as u64 };
        pending.sort_by(|(a, a_id, _), (b, b_id, _)| (a, a_id).cmp(&(b, b_id)));
        let due = pending.into_iter().filter(|(due, ..)| *due <= now);
        for (_, id, stored) in due.take(count.min(MAX_OUTBOX_CLAIM)) {
            stored.claim += 1;
            stored.due = Some(now.plus(lease_ms));
            let entry = OutboxEntry { id: id.clone(), payload: stored.payload.clone() };
            claimed.entries.push(ClaimedEntry { entry, claim: stored.claim });
        }
        Ok(claimed)
    }

    async fn outbox_update(&self, claimed: ClaimedEntry, next_ms: Option<u64>) -> Result<bool, StoreError> {
        let ClaimedEntry { entry, claim } = claimed;
        if entry.payload.len() > MAX_OUTBOX_PAYLOAD {
            return Err(StoreError::Overflow);
        }
        let now = self.moment().store;
        let entries = &mut self.state.lock().unwrap().outbox;
        let stored = entries.get_mut(&entry.id);
        let Some(stored) = stored.filter(|stored| stored.claim == claim && stored.due.is_some()) else {
            return Ok(false);
        };
        (stored.payload, stored.due) = (entry.payload, next_ms.map(|ms| now.plus(ms)));
        Ok(true)
    }

    async fn outbox_page(
        &self,
        before: Option<OutboxId>,
        count: usize,
    ) -> Result<Vec<OutboxEntry>, StoreError> {
        let entries = &self.state.lock().unwrap().outbox;
        let entries =
            entries.iter().rev().filter(|(id, _)| before.as_ref().is_none_or(|before| *id < before));
        let entries =
            entries.map(|(id, stored)| OutboxEntry { id: id.clone(), payload: stored.payload.clone() });
        Ok(entries.take(count.min(MAX_OUTBOX_PAGE)).collect())
    }
}
