//! Reading counters, and with them the server's clock.

use super::{
    Inner, bytes,
    keyspace::{TIME_FIELD, counter_field},
    read_moment, record, script,
    wire::{Numbers, Reader},
};
use crate::{
    domain::{
        Timestamp,
        counter::{CounterKey, CounterKind, CounterState},
    },
    store::StoreError,
};

impl Inner {
    pub(super) async fn counters(
        &self,
        keys: &[(CounterKey, CounterKind)],
    ) -> Result<Vec<CounterState>, StoreError> {
        self.know_time().await?;
        self.read_counters(keys).await
    }

    /// Asks for the server's clock if it is not known yet.
    ///
    /// # Errors
    /// The server could not be asked, or other processes may know better: then a later call may succeed.
    pub(super) async fn know_time(&self) -> Result<(), StoreError> {
        if self.time.is_unknown() {
            self.read_counters(&[]).await?;
            if self.time.is_unknown() {
                return Err(StoreError::Unavailable);
            }
        }
        Ok(())
    }

    async fn read_counters(
        &self,
        keys: &[(CounterKey, CounterKind)],
    ) -> Result<Vec<CounterState>, StoreError> {
        let sent = self.time.reading();
        let bounds = self.time.for_effect(sent, self.connection.deadline_ms());
        let mut numbers = Numbers::with_capacity(3 + keys.len());
        bounds.push(&mut numbers);
        for (_, kind) in keys {
            numbers.push_slot(*kind);
        }
        let mut cmd = script::COUNTERS.call(2);
        cmd.arg(&self.keyspace.counters)
            .arg(&self.keyspace.history)
            .arg(numbers.bytes())
            .arg(numbers.format());
        for (key, _) in keys {
            cmd.arg(&*counter_field(key));
        }
        cmd.arg(TIME_FIELD);
        let answer = bytes(self.connection.decide(&script::COUNTERS, &cmd).await?)?;
        let mut reader = Reader::new(&answer);
        let told = read_moment(&mut reader)?;
        let last = Timestamp(reader.number()?);
        if self.time.is_unknown() {
            self.time.first_look(sent, &told, last);
        } else {
            self.time.learn(sent, &bounds, &told);
        }
        keys.iter().map(|_| record::state(&mut reader)).collect()
    }
}
