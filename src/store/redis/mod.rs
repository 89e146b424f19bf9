//! The shared store: Redis 7 or later, or Valkey, with one script per decision and one round trip. Under load one script makes
//! several decisions (`queue.rs`).
//!
//! `reserve.lua` and `records.lua` describe the data's layout. A [`RedisStore`] belongs to one runtime. It has one connection, and one more
//! for reports; clones share both, and so do stores of several organizations that are made together. All state is on the server, so any number of stores and processes decide as one.

mod audit;
mod batch;
mod connection;
mod cooldowns;
mod counters;
mod decisions;
mod dialer;
mod examine;
mod fault;
mod find;
mod keeper;
mod keyspace;
mod layout;
mod links;
mod load;
mod locator;
mod outbox;
mod password;
mod policies;
mod queue;
mod record;
mod redirect;
mod refusing;
mod registry;
mod remembered;
mod replay;
mod replicas;
mod reread;
mod reserve;
mod reserve_batch;
mod safety;
mod script;
mod server_time;
mod sets;
mod settings;
mod settle;
mod settle_batch;
mod settle_sum;
mod silence;
mod spend;
mod sweep;
mod terms;
#[cfg(test)]
pub(crate) mod tests;
mod tls;
mod together;
mod unreported;
mod wire;

use std::{
    sync::{Arc, OnceLock, atomic::AtomicU64},
    time::Duration,
};

use bytes::Bytes;
pub use dialer::RedisAccess;
pub use examine::{Examination, examine};
pub use layout::LayoutGate;
pub use password::Password;
use redis::Value;
pub use replay::{KnownHashKey, ReplaySettings};
pub use safety::{Hazard, Hazards};
pub use settings::{RedisSettings, SettingsError};
pub use tls::{RedisTls, RedisTlsError, RedisTlsFiles};
use tracing::Instrument as _;

use self::{
    connection::Connection,
    keyspace::Keyspace,
    queue::Queue,
    refusing::Refusing,
    remembered::Remembered,
    replay::Replay,
    server_time::{Bounds, ServerMoment, ServerTime},
    settings::Targets,
    settle::SettleCall,
    terms::TermsMemory,
    together::Together,
    wire::Reader,
};
use super::{
    AuditEntry, AuditKept, AuditLog, AuditRange, Backend, ClaimedEntry, Cooldown, Ledger, Load, LoadProbe,
    Outbox, OutboxClaim, OutboxEntry, OutboxId, OutboxKept, Record, Registry, RegistryChanges,
    RegistryWritten, ReplicaEntry, Replicas, ReservationId, Reserve, Reserved, Revision, SecretUse,
    SecretUses, Settle, SettleOutcome, StoreError, StoreKind, Unreported, Usage, UsageAddition, UsageAmounts,
    UsageKey, UsageSet,
};
use crate::domain::{
    Moment, Timestamp,
    counter::{CounterKey, CounterKind, CounterState},
    key::SecretId,
};
use crate::runtime::clock::{Clock, Monotonic};
pub use crate::syntax::redis_url::{RedisNode, RedisPlace, RedisUrl, RedisUrlError};

/// How often to try a reservation or a step of the sweep when the server's time was estimated too early, or its clock was set:
/// each answer corrects the estimate for the next attempt.
const ATTEMPTS: u32 = 3;

/// A store on a Redis server. Cheap to clone.
#[derive(Clone)]
pub struct RedisStore(Arc<Inner>);

struct Inner {
    connection: Connection,
    /// For reports, opened by the first one.
    reports: OnceLock<Connection>,
    /// For what all organizations share, where that is on another server; opened when it is first asked.
    deployment: OnceLock<Connection>,
    targets: Targets,
    keyspace: Keyspace,
    layout: LayoutGate,
    time: ServerTime,
    reservations: Queue<Arc<Reserve>, Reserved>,
    settlements: Queue<Arc<SettleCall>, Option<SettleOutcome>>,
    finds: Queue<ReservationId, Option<Record>>,
    refusing: Refusing,
    terms: TermsMemory,
    remembered: Remembered,
    replay: Replay,
    unreported: Unreported,
    /// Where the next look at those that wait to be booked begins: a cursor of `HSCAN`.
    unreported_from: AtomicU64,
}

impl RedisStore {
    /// Connects in the background, and again whenever the connection breaks. Must be called on the store's own runtime.
    ///
    /// With [`Clock::System`] the store uses the server's clock; with a manual clock it passes that clock's time to the server.
    ///
    /// # Errors
    /// The settings cannot be used. An unreachable server is no error here.
    pub fn connect(settings: RedisSettings, clock: Clock) -> Result<Self, SettingsError> {
        Self::connect_over(settings, clock, &Together::default())
    }

    fn connect_over(settings: RedisSettings, clock: Clock, links: &Together) -> Result<Self, SettingsError> {
        let keyspace = Keyspace::new(&settings.organization);
        let targets = settings.targets(&keyspace, links)?;
        let RedisSettings { deadline, layout, unreported, replay, .. } = settings;
        let inner = Arc::new(Inner {
            connection: Connection::open(targets.calls.clone(), deadline),
            reports: OnceLock::new(),
            deployment: OnceLock::new(),
            targets,
            keyspace,
            layout,
            time: ServerTime::new(clock),
            reservations: Queue::new(),
            settlements: Queue::new(),
            finds: Queue::new(),
            refusing: Refusing::new(),
            terms: TermsMemory::new(),
            remembered: Remembered::new(),
            replay: Replay::new(replay),
            unreported,
            unreported_from: AtomicU64::new(0),
        });
        if let Clock::System = inner.time.clock() {
            tokio::spawn(sweep::sweep_on(Arc::downgrade(&inner)).in_current_span());
        }
        if inner.replay.is_on() {
            tokio::spawn(replay::replay_on(&inner).in_current_span());
        }
        Ok(Self(inner))
    }

    /// Takes one step to remove entries that hold nothing any more, unless the next step is not due yet: it is due at the latest
    /// `every_ms` after the last. Returns how many counters were removed. A store on the system's clock does this by itself.
    ///
    /// # Errors
    /// The store could not be asked.
    pub async fn sweep(&self, every_ms: u64, fields: u64) -> Result<u64, StoreError> {
        self.0.sweep(every_ms, fields).await.map(|step| step.removed)
    }
}

impl Inner {
    /// Reads the time in the answer to a call that was sent at `sent` with `bounds`, and learns from it.
    fn read_time(
        &self,
        reader: &mut Reader<'_>,
        (sent, bounds): (Monotonic, &Bounds),
    ) -> Result<Moment, StoreError> {
        let told = read_moment(reader)?;
        self.time.learn(sent, bounds, &told);
        Ok(told.moment)
    }
}

/// Reads the time in an answer.
fn read_moment(reader: &mut Reader<'_>) -> Result<ServerMoment, StoreError> {
    let wall = Timestamp(reader.number()?);
    let moment = Moment { store: Timestamp(reader.number()?), wall };
    Ok(ServerMoment { moment, next: Timestamp(reader.number()?) })
}

/// The bytes of an answer that is a string.
fn bytes(value: Value) -> Result<Vec<u8>, StoreError> {
    match value {
        Value::BulkString(bytes) => Ok(bytes),
        _ => Err(StoreError::Corrupt),
    }
}

impl Backend for RedisStore {
    const KIND: StoreKind = StoreKind::Redis;

    fn moment(&self) -> Moment {
        self.0.time.now()
    }

    async fn read_clock(&self) -> Result<Timestamp, StoreError> {
        self.0.counters(&[]).await?;
        Ok(self.now())
    }

    fn deadline(&self) -> Duration {
        self.0.connection.deadline()
    }

    fn is_down(&self) -> bool {
        self.0.connection.is_down()
    }

    fn acts_within(&self) -> Option<Duration> {
        Some(self.0.acts_within())
    }

    fn probe(&self) -> Option<LoadProbe> {
        let inner = Arc::downgrade(&self.0);
        Some(Box::new(move || {
            let waiting = inner
                .upgrade()
                .map_or(0, |inner| inner.reservations.len() + inner.settlements.len() + inner.finds.len());
            Load { calls: waiting as u64, journal_bytes: None }
        }))
    }

    async fn ping(&self) -> Result<(), StoreError> {
        self.0.connection.run(&redis::cmd("PING")).await?;
        // No decision can be made before.
        self.0.know_time().await
    }
}

impl Ledger for RedisStore {
    async fn reserve(&self, reserve: Reserve) -> Result<Reserved, StoreError> {
        self.0.reserve(reserve).await
    }

    async fn find(&self, id: ReservationId) -> Result<Option<Record>, StoreError> {
        self.0.find(id).await
    }

    async fn settle(&self, settle: Settle) -> Result<SettleOutcome, StoreError> {
        // What is not recalled is settled as it is.
        self.0.settle(settle, false).await?.ok_or(StoreError::Corrupt)
    }

    fn recall(&self, id: ReservationId) -> Option<Record> {
        self.0.recall(id)
    }

    async fn settle_recalled(&self, settle: Settle) -> Result<Option<SettleOutcome>, StoreError> {
        self.0.settle(settle, true).await
    }

    fn found_settled(&self, settle: Settle) {
        self.0.found_settled(settle);
    }

    async fn counters(&self, keys: Vec<(CounterKey, CounterKind)>) -> Result<Vec<CounterState>, StoreError> {
        self.0.counters(&keys).await
    }

    async fn cooldowns(&self) -> Result<Vec<(CounterKey, Cooldown)>, StoreError> {
        self.0.cooldowns().await
    }

    async fn lift_cooldowns(
        &self,
        gates: Vec<CounterKey>,
    ) -> Result<Vec<(CounterKey, Cooldown)>, StoreError> {
        self.0.lift_cooldowns(&gates).await
    }
}

impl Usage for RedisStore {
    async fn spenders(&self, month: u32) -> Result<Vec<Arc<str>>, StoreError> {
        self.0.spenders(month).await
    }

    async fn usage(&self, set: UsageSet) -> Result<Vec<(UsageKey, UsageAmounts)>, StoreError> {
        Ok(self.0.usage_of(&[set]).await?.pop().unwrap_or_default())
    }

    async fn usage_of(&self, sets: &[UsageSet]) -> Result<Vec<Vec<(UsageKey, UsageAmounts)>>, StoreError> {
        self.0.usage_of(sets).await
    }

    async fn denied(&self, month: u32) -> Result<Vec<Arc<str>>, StoreError> {
        self.0.denied(month).await
    }

    async fn add_usage(&self, addition: UsageAddition) -> Result<(), StoreError> {
        self.0.add_usage(&addition).await
    }
}

impl Registry for RedisStore {
    async fn registry_since(&self, known: Revision) -> Result<RegistryChanges, StoreError> {
        self.0.registry_since(known).await
    }

    async fn registry_write(
        &self,
        name: Arc<str>,
        expected_version: u64,
        value: Bytes,
    ) -> Result<RegistryWritten, StoreError> {
        self.0.registry_write(&name, expected_version, &value).await
    }

    fn registry_found(&self, name: &Arc<str>, version: u64, value: Bytes) {
        self.0.replay.found(name, version, &value);
    }

    async fn hash_key(&self, proposed: Option<[u8; 32]>) -> Result<Option<[u8; 32]>, StoreError> {
        self.0.hash_key(proposed.as_ref()).await
    }

    async fn add_uses(&self, uses: Vec<SecretUse>) -> Result<(), StoreError> {
        self.0.add_uses(&uses).await
    }

    async fn uses(&self, secrets: Vec<SecretId>) -> Result<Vec<SecretUses>, StoreError> {
        self.0.uses(&secrets).await
    }
}

impl AuditLog for RedisStore {
    async fn audit_append(&self, events: Vec<AuditEntry>, kept: AuditKept) -> Result<usize, StoreError> {
        self.0.audit_append(&events, kept).await
    }

    async fn audit_page(&self, range: AuditRange, count: usize) -> Result<Vec<AuditEntry>, StoreError> {
        self.0.audit_page(range, count).await
    }
}

impl Outbox for RedisStore {
    async fn outbox_append(&self, entries: Vec<OutboxEntry>, kept: OutboxKept) -> Result<usize, StoreError> {
        self.0.outbox_append(&entries, kept).await
    }

    async fn outbox_claim(
        &self,
        queue: Arc<str>,
        count: usize,
        lease_ms: u64,
    ) -> Result<OutboxClaim, StoreError> {
        self.0.outbox_claim(&queue, count, lease_ms).await
    }

    async fn outbox_update(&self, claimed: ClaimedEntry, next_ms: Option<u64>) -> Result<bool, StoreError> {
        self.0.outbox_update(&claimed, next_ms).await
    }

    async fn outbox_page(
        &self,
        before: Option<OutboxId>,
        count: usize,
    ) -> Result<Vec<OutboxEntry>, StoreError> {
        self.0.outbox_page(before.as_ref(), count).await
    }
}

impl Replicas for RedisStore {
    async fn announce_replica(&self, name: Arc<str>, value: Bytes) -> Result<(), StoreError> {
        self.0.announce_replica(&name, &value).await
    }

    async fn replicas(&self) -> Result<Vec<ReplicaEntry>, StoreError> {
        self.0.replicas().await
    }
}
