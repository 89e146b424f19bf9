//! The outbox, as calls of its scripts.

use redis::Cmd;

use super::{
    Inner, bytes,
    keyspace::TIME_FIELD,
    script,
    wire::{Numbers, Reader, size},
};
use crate::store::{
    ClaimedEntry, MAX_OUTBOX_CLAIM, MAX_OUTBOX_PAGE, MAX_OUTBOX_PAYLOAD, OutboxClaim, OutboxEntry, OutboxId,
    OutboxKept, StoreError, outbox::check,
};

impl Inner {
    pub(super) async fn outbox_append(
        &self,
        entries: &[OutboxEntry],
        kept: OutboxKept,
    ) -> Result<usize, StoreError> {
        check(entries)?;
        self.know_time().await?;
        let length = entries.iter().map(|entry| entry.id.as_str().len() + entry.payload.len()).sum();
        let mut cmd = script::OUTBOX_APPEND.call_of(5, 7 + 2 * entries.len(), length);
        self.push_outbox(&mut cmd);
        cmd.arg(kept.entries).arg(kept.since(self.time.now()));
        for OutboxEntry { id, payload } in entries {
            cmd.arg(id.as_str()).arg(&**payload);
        }
        let answer = bytes(self.connection.call(&script::OUTBOX_APPEND, &cmd).await?)?;
        Reader::new(&answer).size()
    }

    pub(super) async fn outbox_claim(
        &self,
        queue: &str,
        count: usize,
        lease_ms: u64,
    ) -> Result<OutboxClaim, StoreError> {
        self.know_time().await?;
        let sent = self.time.reading();
        let bounds = self.time.for_effect(sent, self.connection.deadline_ms());
        let mut numbers = Numbers::with_capacity(5);
        bounds.push(&mut numbers);
        numbers.extend(&[size(count.min(MAX_OUTBOX_CLAIM)), lease_ms]);
        let mut cmd = script::OUTBOX_CLAIM.call(7);
        self.push_outbox(&mut cmd);
        let due = &self.keyspace.outbox_due;
        cmd.arg(&self.keyspace.counters);
        cmd.arg(if queue.is_empty() { due.clone() } else { format!("{due}:{queue}") });
        cmd.arg(numbers.bytes()).arg(numbers.format()).arg(TIME_FIELD);
        let answer = bytes(self.connection.call(&script::OUTBOX_CLAIM, &cmd).await?)?;
        let mut reader = Reader::new(&answer);
        self.read_time(&mut reader, (sent, &bounds))?;
        let mut claimed = OutboxClaim { entries: Vec::new(), pending: reader.number()? };
        while !reader.is_empty() {
            let claim = reader.number()?;
            claimed.entries.extend(read_entry(&mut reader)?.map(|entry| ClaimedEntry { claim, entry }));
        }
        Ok(claimed)
    }

    pub(super) async fn outbox_update(
        &self,
        claimed: &ClaimedEntry,
        next_ms: Option<u64>,
    ) -> Result<bool, StoreError> {
        let ClaimedEntry { entry: OutboxEntry { id, payload }, claim } = claimed;
        if payload.len() > MAX_OUTBOX_PAYLOAD {
            return Err(StoreError::Overflow);
        }
        self.know_time().await?;
        let sent = self.time.reading();
        let bounds = self.time.for_effect(sent, self.connection.deadline_ms());
        let mut numbers = Numbers::with_capacity(6);
        bounds.push(&mut numbers);
        numbers.extend(&[*claim, u64::from(next_ms.is_some()), next_ms.unwrap_or(0)]);
        let mut cmd = script::OUTBOX_UPDATE.call_of(6, 11, payload.len());
        self.push_outbox(&mut cmd);
        cmd.arg(&self.keyspace.counters);
        cmd.arg(numbers.bytes()).arg(numbers.format()).arg(TIME_FIELD).arg(id.as_str()).arg(&**payload);
        let answer = bytes(self.connection.call(&script::OUTBOX_UPDATE, &cmd).await?)?;
        let mut reader = Reader::new(&answer);
        self.read_time(&mut reader, (sent, &bounds))?;
        Ok(reader.number()? == 1)
    }

    pub(super) async fn outbox_page(
        &self,
        before: Option<&OutboxId>,
        count: usize,
    ) -> Result<Vec<OutboxEntry>, StoreError> {
        let mut cmd = script::OUTBOX_PAGE.call(5);
        self.push_outbox(&mut cmd);
        cmd.arg(before.map_or_else(|| "+".to_owned(), |id| format!("({id}")));
        cmd.arg(count.min(MAX_OUTBOX_PAGE));
        let answer = bytes(self.reports()?.call(&script::OUTBOX_PAGE, &cmd).await?)?;
        let (mut reader, mut entries) = (Reader::new(&answer), Vec::new());
        while !reader.is_empty() {
            entries.extend(read_entry(&mut reader)?);
        }
        Ok(entries)
    }

    /// The keys that all of these scripts have first.
    fn push_outbox(&self, cmd: &mut Cmd) {
        let keys = &self.keyspace;
        for key in [&keys.crossings, &keys.outbox, &keys.outbox_order, &keys.outbox_due, &keys.meta] {
            cmd.arg(key);
        }
    }
}

/// Reads the lengths of an id and a payload, and both. `None`: the id is none of ours; it holds up no other.
fn read_entry(reader: &mut Reader<'_>) -> Result<Option<OutboxEntry>, StoreError> {
    let (id, payload) = (reader.size()?, reader.size()?);
    let id = str::from_utf8(reader.bytes(id)?).ok().and_then(|id| id.parse().ok());
    let payload = reader.bytes(payload)?.to_vec().into();
    if id.is_none() {
        tracing::warn!("an entry of the outbox has an id that is none of ours");
    }
    Ok(id.map(|id| OutboxEntry { id, payload }))
}
