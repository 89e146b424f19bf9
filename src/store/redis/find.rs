//! Finding a reservation again.

use std::{sync::Arc, time::Duration};

use redis::Value;

use super::{
    Inner, bytes,
    load::Urgency,
    queue::{self, Group, Member, Queue},
    record,
};
use crate::store::{Record, ReservationId, StoreError};

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
        let mut cmd = redis::cmd("GET");
        cmd.arg(self.0.keyspace.reservation(member.call));
        self.0.found(self.0.connection.ask(&cmd).await?)
    }

    async fn together(&self, members: &[Member<ReservationId>]) -> Vec<Result<Option<Record>, StoreError>> {
        self.0.find_batch(members).await
    }

    fn missed(&self) -> StoreError {
        self.0.connection.missed_waiting("find")
    }
}

impl Inner {
    pub(super) async fn find(self: &Arc<Self>, id: ReservationId) -> Result<Option<Record>, StoreError> {
        let flight = self.connection.enter(Urgency::Relief)?;
        let found = queue::join(&Finds(Arc::clone(self)), Member::new(id)).await;
        flight.ended_with(&found, self.connection.deadline());
        found
    }

    /// Looks for several reservations in one step.
    pub(super) async fn find_batch(
        &self,
        members: &[Member<ReservationId>],
    ) -> Vec<Result<Option<Record>, StoreError>> {
        let mut cmd = redis::cmd("MGET");
        for member in members {
            cmd.arg(self.keyspace.reservation(member.call));
        }
        match self.connection.ask(&cmd).await {
            Ok(Value::Array(records)) if records.len() == members.len() => {
                records.into_iter().map(|record| self.found(record)).collect()
            }
            answer => {
                let error = answer.err().unwrap_or(StoreError::Corrupt);
                members.iter().map(|_| Err(error.clone())).collect()
            }
        }
    }

    fn found(&self, answer: Value) -> Result<Option<Record>, StoreError> {
        if answer == Value::Nil {
            return Ok(None);
        }
        let (record, gone_at) = record::decode(&bytes(answer)?)?;
        // The server keeps a record until the sweep reaches it.
        let now = self.time.now();
        let gone = !self.time.is_unknown() && now.store >= gone_at;
        Ok((!gone).then(|| record.by_the_wall(now)))
    }
}
