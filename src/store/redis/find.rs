//! Finding a reservation again.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use redis::{Cmd, Value};

use super::{
    Inner, bytes,
    load::Urgency,
    queue::{self, Group, Member, Queue},
    record::Parts,
    script,
    terms::{Known, TermsHash},
    wire::Reader,
};
use crate::{
    domain::Timestamp,
    store::{Record, ReservationId, StoreError},
};

/// What an answer for one reservation was: its record's bytes, if there are any.
type Found = Result<Option<Vec<u8>>, StoreError>;

/// The look-ups of a store, several of which may be one call.
#[derive(Clone)]
struct Finds(Arc<Inner>);

impl Group for Finds {
    type Call = ReservationId;
    type Answer = Option<Record>;

    fn queue(&self) -> &Queue<ReservationId, Option<Record>> {
        &self.0.finds
    }

    fn deadline(&self) -> Duration {
        self.0.connection.deadline()
    }

    fn holds(_: &ReservationId) -> usize {
        0
    }

    async fn alone(&self, member: &Member<ReservationId>) -> Result<Option<Record>, StoreError> {
        let found = self.together(std::slice::from_ref(member)).await;
        found.into_iter().next().unwrap_or(Err(StoreError::Corrupt))
    }

    async fn together(&self, members: &[Member<ReservationId>]) -> Vec<Result<Option<Record>, StoreError>> {
        self.0.find_batch(members).await
    }

    fn missed(&self, since: Instant) -> StoreError {
        self.0.connection.missed_waiting("find", since)
    }
}

impl Inner {
    pub(super) async fn find(self: &Arc<Self>, id: ReservationId) -> Result<Option<Record>, StoreError> {
        let found = self.find_stored(id).await?;
        if found.is_none() && Box::pin(self.may_be_forgotten()).await {
            // It may be there again in a moment.
            return Err(StoreError::Unavailable);
        }
        Ok(found)
    }

    /// The same where nothing is waited for that a failover forgot.
    pub(super) async fn find_stored(
        self: &Arc<Self>,
        id: ReservationId,
    ) -> Result<Option<Record>, StoreError> {
        let flight = self.connection.enter(Urgency::Relief)?;
        let found = queue::join(&Finds(Arc::clone(self)), Member::new(id)).await;
        flight.ended_with(&found, self.connection.deadline());
        found
    }

    /// The reservation as this process remembers it, while it can be settled.
    pub(super) fn recall(&self, id: ReservationId) -> Option<Record> {
        let bytes = self.remembered.get(id)?;
        let parts = Parts::of(&bytes).ok()?;
        let known = parts.terms().map(|hash| self.terms.known(hash));
        let now = self.time.now();
        if self.time.is_unknown() || now.store >= parts.gone_at || known.as_ref().is_some_and(Option::is_none)
        {
            return None;
        }
        parts.record(known.flatten().as_deref()).ok().map(|record| record.by_the_wall(now))
    }

    /// Looks for several reservations in one step.
    pub(super) async fn find_batch(
        &self,
        members: &[Member<ReservationId>],
    ) -> Vec<Result<Option<Record>, StoreError>> {
        match self.found(members).await {
            Ok(found) => {
                let found = members.iter().zip(found).map(|(member, found)| {
                    found
                        .and_then(|bytes| bytes.map(|bytes| self.read_found(member.call, &bytes)).transpose())
                });
                found.map(|found| found.map(Option::flatten)).collect()
            }
            Err(error) => members.iter().map(|_| Err(error.clone())).collect(),
        }
    }

    /// What is stored of each, once the terms that they refer to are known as far as they can be.
    async fn found(&self, members: &[Member<ReservationId>]) -> Result<Vec<Found>, StoreError> {
        let mut cmd = redis::cmd("HMGET");
        cmd.arg(&self.keyspace.records);
        for member in members {
            cmd.arg(&member.call.0);
        }
        let found = texts(self.connection.ask(&cmd).await?, members.len())?;
        let mut found: Vec<Found> = found.into_iter().map(Ok).collect();
        let missing: Vec<_> = members
            .iter()
            .zip(&found)
            .filter(|(_, found)| **found == Ok(None))
            .map(|(member, _)| member.call)
            .collect();
        if !missing.is_empty() && self.has_earlier().await? {
            let missing = match self.find_earlier(&missing).await {
                Ok(found) => found,
                // A server that takes no writes refuses the script; what was found does not depend on it.
                Err(error) => missing.iter().map(|_| Err(error.clone())).collect(),
            };
            let places = found.iter_mut().filter(|found| **found == Ok(None));
            places.zip(missing).for_each(|(place, found)| *place = found);
        }
        self.learn_terms(found.iter().flatten().flatten().map(Vec::as_slice)).await?;
        Ok(found)
    }

    /// Whether layout 4 has left records where it had them; the sweep moves them.
    async fn has_earlier(&self) -> Result<bool, StoreError> {
        let mut cmd = redis::cmd("EXISTS");
        cmd.arg(&self.keyspace.earlier);
        Ok(self.connection.ask(&cmd).await? == Value::Int(1))
    }

    /// Looks where layout 4 had its records, and moves those that are found.
    pub(super) async fn find_earlier(&self, ids: &[ReservationId]) -> Result<Vec<Found>, StoreError> {
        let mut cmd = script::FIND.call(3);
        cmd.arg(&self.keyspace.records).arg(&self.keyspace.earlier).arg(&self.keyspace.meta);
        for id in ids {
            cmd.arg(&id.0);
        }
        let answer = bytes(self.connection.send(&script::FIND, &cmd).await?)?;
        let mut reader = Reader::new(&answer);
        let found = ids.iter().map(|_| match reader.size()? {
            0 => Ok(Ok(None)),
            1 => reader.bytes(1).map(|_| Err(StoreError::Corrupt)),
            length => reader.bytes(length).map(|bytes| Ok(Some(bytes.to_vec()))),
        });
        found.collect()
    }

    /// Asks for the terms that these records refer to and that are not known.
    pub(super) async fn learn_terms<'r>(
        &self,
        records: impl Iterator<Item = &'r [u8]>,
    ) -> Result<(), StoreError> {
        self.learn_these(records.filter_map(|record| Parts::of(record).ok()?.terms()).collect()).await
    }

    /// The same for the terms with these hashes.
    pub(super) async fn learn_these(&self, mut unknown: Vec<TermsHash>) -> Result<(), StoreError> {
        unknown.retain(|hash| self.terms.known(*hash).is_none());
        unknown.sort_unstable();
        unknown.dedup();
        if unknown.is_empty() {
            return Ok(());
        }
        let mut cmd: Cmd = redis::cmd("HMGET");
        cmd.arg(&self.keyspace.terms);
        for hash in &unknown {
            cmd.arg(hash);
        }
        let found = texts(self.connection.ask(&cmd).await?, unknown.len())?;
        for (hash, body) in unknown.into_iter().zip(found) {
            // Behind how long they are kept. Where there are none, each record that refers to them says so.
            if let Some((_, body)) = body.as_ref().and_then(|body| body.split_first_chunk::<8>()) {
                // Where they are damaged, too.
                drop(self.terms.learn(hash, body));
            }
        }
        Ok(())
    }

    /// Reads a record. The terms that it refers to must be known, or Redis lost them.
    pub(super) fn read_record(&self, bytes: &[u8]) -> Result<(Record, Timestamp), StoreError> {
        let parts = Parts::of(bytes)?;
        let gone_at = parts.gone_at;
        let known: Option<Arc<Known>> = parts.terms().and_then(|hash| self.terms.known(hash));
        let record = parts.record(known.as_deref()).inspect_err(|_| {
            tracing::error!("a reservation cannot be read, or what it refers to is missing");
        })?;
        Ok((record, gone_at))
    }

    fn read_found(&self, id: ReservationId, bytes: &[u8]) -> Result<Option<Record>, StoreError> {
        let (record, gone_at) = self.read_record(bytes)?;
        // The server keeps a record until the sweep reaches it.
        let now = self.time.now();
        if !self.time.is_unknown() && now.store >= gone_at {
            return Ok(None);
        }
        match record.settlement {
            None => self.remembered.insert(id, bytes.into()),
            Some(_) => self.remembered.forget(id),
        }
        Ok(Some(record.by_the_wall(now)))
    }
}

/// The strings in an answer of so many.
fn texts(answer: Value, count: usize) -> Result<Vec<Option<Vec<u8>>>, StoreError> {
    let Value::Array(values) = answer else { return Err(StoreError::Corrupt) };
    if values.len() != count {
        return Err(StoreError::Corrupt);
    }
    let text = |value| if value == Value::Nil { Ok(None) } else { bytes(value).map(Some) };
    values.into_iter().map(text).collect()
}
