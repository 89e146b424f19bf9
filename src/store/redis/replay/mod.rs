//! What a failover forgot is booked again.
//!
//! Redis acknowledges before its replicas have a write, and before its file has it. So a store keeps what was acknowledged to it until that
//! must have happened: for a time, which holds whatever server it is, whereas `WAITAOF` says too much on some of them. Each process of Redis
//! has a generation of its own (`generation.lua`). A task reads it on each new connection and twice a second. When it is another one, all that is kept
//! is looked up, and what is missing is written again; what is there stays as it is, so any number of stores may do that, and any number of
//! times.

mod again;
mod bookings;
mod pass;
mod restore;
mod ring;

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::Ordering},
    time::{Duration, Instant},
};

use bytes::Bytes;
use tokio::{sync::Notify, time::timeout};

#[cfg(test)]
pub(super) use self::bookings::beside;
pub(super) use self::ring::{Kept, Write};
use self::{pass::Pass, ring::Ring};
use super::{Inner, bytes, script, settle::SettleCall};
use crate::{
    domain::Timestamp,
    runtime::Entropy,
    store::{CarriesOver, Record, Reserve, SettleOutcome, StoreError},
};

/// How often the generation is read while nothing seems to have changed.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// How long after another generation was found other replicas may still be writing theirs, at least and at most; in between, as long as
/// what they keep. Until then what is unknown is not said to be.
const SETTLES: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(10));
/// How many entries are dropped at once: a fraction of a millisecond.
const DROPPED: usize = 256;

/// What a store keeps of that which was acknowledged to it.
#[derive(Clone, Debug, Default)]
pub struct ReplaySettings {
    /// For how long: zero for not at all.
    pub window: Duration,
    /// The note of settlements that leave their id free, as in [`Reserve::replaces`].
    pub released: Bytes,
    /// What becomes of a change of the registry whose record was written since; `None`: the later write counts.
    pub carries_over: Option<CarriesOver>,
    /// The key that secrets are hashed with. Stores made of clones of these settings share it.
    pub hash_key: KnownHashKey,
}

/// The key that secrets are hashed with, as a store gave it last: without it, keys that are written again would be worth nothing.
#[derive(Clone, Default)]
pub struct KnownHashKey(Arc<Mutex<Option<[u8; 32]>>>);

impl KnownHashKey {
    pub(super) fn get(&self) -> Option<[u8; 32]> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn set(&self, key: [u8; 32]) {
        // Nothing panics while it is held.
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(key);
    }
}

impl fmt::Debug for KnownHashKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KnownHashKey")
    }
}

/// The generation of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Seen {
    generation: [u8; 16],
    /// The connection over which it was read.
    connection: u64,
    /// Whether the server says which process it is. Otherwise any new connection may lead to another.
    is_named: bool,
}

impl Seen {
    /// Whether what was acknowledged when `earlier` was read may be missing now.
    fn may_lack(&self, earlier: &Self) -> bool {
        let is_named = self.is_named && earlier.is_named;
        self.generation != earlier.generation || (!is_named && self.connection != earlier.connection)
    }
}

/// The answer to a look.
struct Look {
    seen: Seen,
    /// How long ago the generation took the place of another, or a store was last writing again to it; `None`: neither ever.
    replayed_ago: Option<Duration>,
}

/// What a store keeps, and what it knows of the server.
///
/// Protocol: the task alone changes `known`, once what is kept is on the server of that generation. So whatever finds another generation than
/// the known one has met a server that may lack something.
#[derive(Debug)]
pub(super) struct Replay {
    settings: ReplaySettings,
    /// Locked to add an entry or to look at them, never across an await. Only this store's own core adds.
    ring: Mutex<Ring>,
    known: Mutex<Option<Seen>>,
    /// What the last look found, if it had an answer: over that connection the server has said who it is.
    looked: Mutex<Option<Seen>>,
    /// Until when others may be writing again what is missing.
    settles_at: Mutex<Option<Instant>>,
    wake: Arc<Notify>,
}

impl Replay {
    pub(super) fn new(settings: ReplaySettings) -> Self {
        Self {
            settings,
            ring: Mutex::default(),
            known: Mutex::new(None),
            looked: Mutex::new(None),
            settles_at: Mutex::new(None),
            wake: Arc::default(),
        }
    }

    pub(super) const fn is_on(&self) -> bool {
        !self.settings.window.is_zero()
    }

    /// How long after another generation was found others may still be writing again what is missing.
    fn settles_within(&self) -> Duration {
        let (least, most) = SETTLES;
        self.settings.window.clamp(least, most)
    }

    /// Keeps a reservation.
    pub(super) fn reserved(&self, reserve: &Arc<Reserve>) {
        if self.is_on() {
            self.ring().push(Kept::Reservation(Arc::clone(reserve)));
        }
    }

    /// Keeps the reservation that answers a repeat of its request: the core that made it may be gone.
    pub(super) fn repeated(&self, reserve: &Reserve, record: &Record, now: Timestamp) {
        // Else the caller is told that the request is over, or another one.
        let answers = record.fingerprint == reserve.fingerprint
            && record.settlement.is_none()
            && now < record.expires_at;
        if answers && self.is_on() {
            self.ring().push(Kept::Reservation(Arc::new(Reserve {
                may_repeat: true,
                holds: record.holds.clone(),
                gates: Vec::new(),
                ttl_ms: record.expires_at.since(record.reserved_at).max(1),
                note: record.note.clone(),
                dry_run: false,
                ..reserve.clone()
            })));
        }
    }

    /// Keeps a settlement, also one that repeats another: it is acknowledged as well.
    pub(super) fn settled(&self, call: &Arc<SettleCall>, outcome: &SettleOutcome) {
        let is_ours = match outcome {
            SettleOutcome::Settled(_) => true,
            SettleOutcome::AlreadySettled(settlement) => settlement.note == call.settle.note,
            SettleOutcome::NotFound => false,
        };
        if is_ours && self.is_on() {
            self.ring().push(Kept::Settlement(Arc::clone(call)));
        }
    }

    /// Keeps a change of the registry: a write with this mark, over the version `expected`.
    pub(super) fn wrote(
        &self,
        name: &Arc<str>,
        value: &[u8],
        (expected, version, mark): (u64, u64, [u8; 8]),
    ) {
        if self.is_on() {
            let mut ring = self.ring();
            let write = Write::new(Arc::clone(name), version, value.into());
            let write = write.over(expected, mark, ring.last_write(name));
            ring.push(Kept::Write(Arc::new(write)));
        }
    }

    /// Keeps a record of the registry that was found as it was to be.
    pub(super) fn found(&self, name: &Arc<str>, version: u64, value: &[u8]) {
        if version == 0 || !self.is_on() {
            return;
        }
        let mut ring = self.ring();
        // This core may have written it since it was found.
        let is_later = |last: &Write| last.version.load(Ordering::Relaxed) > version;
        if !ring.last_write(name).is_some_and(is_later) {
            ring.push(Kept::Write(Arc::new(Write::new(Arc::clone(name), version, value.into()))));
        }
    }

    /// Takes note of the key that secrets are hashed with.
    pub(super) fn read_hash_key(&self, key: [u8; 32]) {
        self.settings.hash_key.set(key);
    }

    fn ring(&self) -> MutexGuard<'_, Ring> {
        // Nothing panics while it is held.
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn known(&self) -> MutexGuard<'_, Option<Seen>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn looked(&self) -> MutexGuard<'_, Option<Seen>> {
        self.looked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn settles_at(&self) -> MutexGuard<'_, Option<Instant>> {
        self.settles_at.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets go of what has been acknowledged for longer than it is kept, on a server that has been the same for all that time.
    async fn expire(&self, now: Instant) {
        let Some(until) = now.checked_sub(self.settings.window) else { return };
        loop {
            let expired = self.ring().expire(until, DROPPED);
            if expired.is_empty() {
                return;
            }
            drop(expired);
            tokio::task::yield_now().await;
        }
    }
}

/// Watches the generation of `store`, and writes again what another one lacks, until the store is dropped.
pub(super) fn replay_on(store: &Arc<Inner>) -> impl Future<Output = ()> + use<> {
    let (mut states, wake) = (store.connection.states(), Arc::clone(&store.replay.wake));
    let store = Arc::downgrade(store);
    async move {
        let mut pass = None;
        loop {
            let changed = async {
                tokio::select! {
                    biased;
                    changed = states.changed() => changed.is_ok(),
                    () = wake.notified() => true,
                }
            };
            if timeout(LOOK_EVERY, changed).await == Ok(false) {
                // What keeps the connection has ended.
                return;
            }
            let Some(store) = store.upgrade() else { return };
            store.look_and_replay(&mut pass).await;
        }
    }
}

impl Inner {
    /// Whether what was not found may have been forgotten by a failover, and be written again shortly.
    pub(super) async fn may_be_forgotten(&self) -> bool {
        if !self.replay.is_on() {
            return false;
        }
        if self.replay.settles_at().is_some_and(|at| Instant::now() < at) {
            return true;
        }
        let Ok(look) = self.look().await else { return true };
        let may_lack = self.replay.known().is_some_and(|known| look.seen.may_lack(&known));
        if may_lack {
            self.replay.wake.notify_one();
        }
        // A store that is new has no earlier server to compare this one with, but others may be writing to it again.
        may_lack || look.replayed_ago.is_some_and(|ago| ago < self.replay.settles_within())
    }

    /// Asks the server for its generation. A look without an answer may have met a replica, so the next one asks who it is.
    async fn look(&self) -> Result<Look, StoreError> {
        let before = *self.replay.looked();
        let look = self.look_after(before).await;
        *self.replay.looked() = look.as_ref().ok().map(|look| look.seen);
        look
    }

    async fn look_after(&self, before: Option<Seen>) -> Result<Look, StoreError> {
        let connection = self.connection.number().ok_or(StoreError::Unavailable)?;
        let before = before.filter(|before| before.connection == connection);
        let next = Entropy::System.bytes().map(u64::from_le_bytes).map_err(|_| StoreError::Unavailable)?;
        let mut cmd = script::GENERATION.call(2);
        cmd.arg(&self.keyspace.meta).arg(&self.keyspace.revision).arg(format!("{next:016x}"));
        let generation = |seen: Option<Seen>| seen.map_or_else(Vec::new, |seen| seen.generation.to_vec());
        cmd.arg(generation(before)).arg(generation(*self.replay.known()));
        let answer = bytes(self.connection.call(&script::GENERATION, &cmd).await?)?;
        if self.connection.number() != Some(connection) {
            return Err(StoreError::Unavailable);
        }
        let (generation, rest) = answer.split_first_chunk::<16>().ok_or(StoreError::Corrupt)?;
        let (said, ago) = rest.split_first().ok_or(StoreError::Corrupt)?;
        let is_named = match before {
            Some(before) if *said == b'-' => before.is_named,
            _ => *said == b'1',
        };
        let ago = str::from_utf8(ago).ok().and_then(|ago| ago.parse().ok());
        let seen = Seen { generation: *generation, connection, is_named };
        Ok(Look { seen, replayed_ago: ago.map(Duration::from_millis) })
    }

    async fn look_and_replay(self: &Arc<Self>, pass: &mut Option<Pass>) {
        let (begun, number) = (Instant::now(), self.replay.ring().next());
        // The next turn tries again.
        let Ok(Look { seen, .. }) = self.look().await else { return };
        let known = *self.replay.known();
        if known.is_none_or(|known| !seen.may_lack(&known)) {
            (*self.replay.known(), *pass) = (Some(seen), None);
            self.replay.ring().mark(begun, number);
            self.replay.expire(begun).await;
            self.say_what_had_no_room();
            return;
        }
        if self.gives_up((seen, begun), pass) {
            return;
        }
        *self.replay.settles_at() = Some(begun + self.replay.settles_within());
        let mut current = self.pass_for(seen, begun, pass.take());
        if let Err(error) = self.go_on(&mut current).await {
            tracing::debug!(%error, "not all of what redis has forgotten can be booked again yet");
            *pass = Some(current);
        }
    }

    /// Whether what is kept is on the server that answers now.
    #[cfg(test)]
    pub(super) async fn has_caught_up(&self) -> bool {
        let seen = self.look().await.ok().map(|look| look.seen);
        seen.is_some() && *self.replay.known() == seen
    }

    /// The last of what is kept about each subject.
    #[cfg(test)]
    pub(super) fn kept(&self) -> Vec<Kept> {
        self.replay.ring().latest(0)
    }

    fn say_what_had_no_room(&self) {
        let left_out = self.replay.ring().take_left_out();
        if left_out > 0 {
            tracing::warn!(
                left_out,
                "more was acknowledged within redis_replay_window than is kept: a failover now would forget some of it"
            );
        }
    }
}
