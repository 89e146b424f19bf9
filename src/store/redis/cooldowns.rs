//! Closed gates: listing them, and opening them on request.

use std::sync::Arc;

use super::{
    Inner, bytes,
    keyspace::{gate_field, gate_of},
    script,
    wire::{Numbers, Reader},
};
use crate::{
    domain::{Timestamp, counter::CounterKey},
    store::{Cooldown, StoreError},
};

impl Inner {
    /// There are few: one for each project, model and service tier that Groq refused lately.
    pub(super) async fn cooldowns(&self) -> Result<Vec<(CounterKey, Cooldown)>, StoreError> {
        self.know_time().await?;
        let mut cmd = redis::cmd("HGETALL");
        cmd.arg(&self.keyspace.cooldowns);
        let answer = self.connection.run(&cmd).await?;
        let fields: Vec<(String, Vec<u8>)> =
            redis::from_redis_value(answer).map_err(|_| StoreError::Corrupt)?;
        let now = self.time.now();
        let mut closed = Vec::with_capacity(fields.len());
        for (field, value) in fields {
            let gate = gate_of(&field).ok_or(StoreError::Corrupt)?;
            let cooldown = cooldown(&value)?;
            if cooldown.is_in_force(now.store) {
                closed.push((gate, cooldown.by_the_wall(now)));
            }
        }
        closed.sort_by_cached_key(|(gate, _)| gate.to_string());
        Ok(closed)
    }

    pub(super) async fn lift_cooldowns(
        &self,
        gates: &[CounterKey],
    ) -> Result<Vec<(CounterKey, Cooldown)>, StoreError> {
        self.know_time().await?;
        let now = self.time.now();
        let mut numbers = Numbers::with_capacity(1);
        numbers.push(now.store.0);
        let mut cmd = script::LIFT_COOLDOWNS.call(2);
        cmd.arg(&self.keyspace.counters).arg(&self.keyspace.cooldowns).arg(numbers.bytes());
        for gate in gates {
            cmd.arg(gate_field(gate));
        }
        let answer = bytes(self.connection.call(&script::LIFT_COOLDOWNS, &cmd).await?)?;
        let mut reader = Reader::new(&answer);
        let mut lifted = Vec::new();
        while !reader.is_empty() {
            let (number, length) = (reader.size()?, reader.size()?);
            let gate = gates.get(number).ok_or(StoreError::Corrupt)?;
            lifted.push((gate.clone(), cooldown(reader.bytes(length)?)?.by_the_wall(now)));
        }
        Ok(lifted)
    }
}

/// Parses the particulars as `settle.lua` writes them.
fn cooldown(value: &[u8]) -> Result<Cooldown, StoreError> {
    let mut reader = Reader::new(value);
    let mut time = || reader.number().map(Timestamp);
    let (start, end, refused) = (time()?, time()?, time()?);
    let requested_ms = reader.number()?;
    let reporter: Arc<str> = str::from_utf8(reader.rest()).map_err(|_| StoreError::Corrupt)?.into();
    Ok(Cooldown { start, begun: start, end, refused, requested_ms, reporter })
}
