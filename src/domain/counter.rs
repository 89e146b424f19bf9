//! The only thing that a store keeps: named counters, each with a part that stays and a part that expires by itself.
//!
//! Every limit is such a counter. A rate expires entirely, over the window's length. Requests in flight expire over a
//! reservation's time to live and return to zero when settled. A budget stays for its period; only what `on_unsettled`
//! would release expires. Expiry therefore needs no sweeper, and a crashed gateway leaks nothing.

use std::{
    fmt,
    hash::{Hash, Hasher},
    sync::Arc,
};

use serde::{Deserialize, Serialize};

use super::{MAX_AMOUNT, Timestamp, window::SlidingWindow};

/// The name of a counter and the calendar period it counts in. Small, and cheap to clone and to hash: an open reservation
/// holds about ten, and the name's hash is computed once.
#[derive(Clone, Serialize, Deserialize)]
#[serde(from = "(Arc<str>, u32)", into = "(Arc<str>, u32)")]
pub struct CounterKey {
    name: Arc<Name>,
    period: u32,
}

struct Name {
    hash: u64,
    text: Arc<str>,
}

impl CounterKey {
    /// A counter that belongs to no calendar period.
    #[must_use]
    pub fn new(name: impl Into<Arc<str>>) -> Self {
        let text = name.into();
        let mut first_eight = [0; 8];
        for (to, from) in first_eight.iter_mut().zip(blake3::hash(text.as_bytes()).as_bytes()) {
            *to = *from;
        }
        Self { name: Arc::new(Name { hash: u64::from_le_bytes(first_eight), text }), period: 0 }
    }

    /// The same counter in the period that starts on `first_day` (as `20261101`; 0: none).
    #[must_use]
    pub fn in_period(&self, first_day: u32) -> Self {
        Self { name: Arc::clone(&self.name), period: first_day }
    }

    /// The name without the period, such as `team/chatbot|tokens|minute`.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name.text
    }

    /// The first day of the period as `20261101`; 0: none.
    #[must_use]
    pub const fn period(&self) -> u32 {
        self.period
    }
}

impl PartialEq for CounterKey {
    fn eq(&self, other: &Self) -> bool {
        let (name, others) = (&self.name, &other.name);
        self.period == other.period
            && (Arc::ptr_eq(name, others) || (name.hash == others.hash && name.text == others.text))
    }
}

impl Eq for CounterKey {}

impl Hash for CounterKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.name.hash ^ (u64::from(self.period) << 32));
    }
}

/// `name` or `name@20261101`: the form in which a store writes a key.
impl fmt::Display for CounterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.period {
            0 => f.write_str(self.name()),
            period => write!(f, "{}@{period}", self.name()),
        }
    }
}

impl fmt::Debug for CounterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl From<(Arc<str>, u32)> for CounterKey {
    fn from((name, period): (Arc<str>, u32)) -> Self {
        Self::new(name).in_period(period)
    }
}

impl From<CounterKey> for (Arc<str>, u32) {
    fn from(key: CounterKey) -> Self {
        (Arc::clone(&key.name.text), key.period)
    }
}

/// How a counter accounts for amounts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum CounterKind {
    /// Only an expiring part: rates and requests in flight. Settling corrects the reservation's slot.
    Window {
        /// The length of a slot in milliseconds, a sixtieth of the window.
        slot_ms: u64,
    },
    /// A part that stays, a part that expires, and how much of it is settled: budgets.
    Budget {
        /// The length of a slot of the expiring part in milliseconds.
        slot_ms: u64,
    },
}

impl CounterKind {
    /// The length of a slot in milliseconds.
    #[must_use]
    pub const fn slot_ms(self) -> u64 {
        match self {
            Self::Window { slot_ms } | Self::Budget { slot_ms } => slot_ms,
        }
    }
}

/// What one reservation takes from one counter; with `&CounterKey`, as one of [`super::holds::Holds`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hold<K = CounterKey> {
    /// Which counter.
    pub counter: K,
    /// How it accounts for amounts.
    pub kind: CounterKind,
    /// The bound on usage, this hold included; [`MAX_AMOUNT`] if the counter has no bound.
    pub limit: u64,
    /// The part that stays until settled. Always 0 for a window.
    pub kept: u64,
    /// The part that expires by itself.
    pub expiring: u64,
}

impl Hold {
    /// The same, without its own counter key.
    #[must_use]
    pub const fn by_ref(&self) -> Hold<&CounterKey> {
        let Self { counter, kind, limit, kept, expiring } = self;
        Hold { counter, kind: *kind, limit: *limit, kept: *kept, expiring: *expiring }
    }
}

impl Hold<&CounterKey> {
    /// The same, with a counter key of its own.
    #[must_use]
    pub fn to_owned(self) -> Hold {
        let Self { counter, kind, limit, kept, expiring } = self;
        Hold { counter: counter.clone(), kind, limit, kept, expiring }
    }
}

impl<K> Hold<K> {
    /// How much of its limit the hold takes.
    #[must_use]
    pub const fn amount(&self) -> u64 {
        self.kept + self.expiring
    }
}

/// Thresholds that a counter remembers as reported. A policy allows half as many for one budget; more come together only if
/// it is edited repeatedly within a period. Then the counter forgets the oldest of those that the policy no longer has.
pub const MAX_REPORTED: usize = 64;

/// The state of a counter.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counter {
    base: u64,
    settled: u64,
    open: u64,
    expiring: SlidingWindow,
    /// The thresholds that were reported as reached, in that order. Kept apart from the other fields, whose format is older
    /// than thresholds.
    #[serde(skip)]
    reported: Vec<u64>,
}

/// The state of a counter at one instant, for reports.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CounterState {
    /// Everything that counts: settled and reserved.
    pub used: u64,
    /// The settled amount. Budgets only.
    pub settled: u64,
    /// Reservations that are not settled yet, expired ones included. Budgets only.
    pub open: u64,
}

/// Why a hold does not fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shortage {
    /// What is used now.
    pub used: u64,
    /// When the hold would fit if nothing else happened: at an instant, or not before the counter's period ends (for a
    /// window: never).
    pub frees_at: Option<Timestamp>,
}

impl Counter {
    /// The highest usage at any time after the counter's last change: time alone only lowers it.
    #[must_use]
    pub const fn used_at_most(&self) -> u64 {
        self.base + self.expiring.total()
    }

    /// The state now.
    pub fn state(&mut self, now: Timestamp, kind: CounterKind) -> CounterState {
        CounterState {
            used: self.base + self.expiring.used(now, kind.slot_ms()),
            settled: self.settled,
            open: self.open,
        }
    }

    /// The settled amount, which does not change with time. Budgets only.
    #[must_use]
    pub const fn settled(&self) -> u64 {
        self.settled
    }

    /// Whether `hold` fits now; returns the amount used if so.
    ///
    /// # Errors
    /// The shortage, if it does not fit.
    pub fn check<K>(&mut self, now: Timestamp, hold: &Hold<K>) -> Result<u64, Shortage> {
        let used = self.state(now, hold.kind).used;
        let wanted = used + hold.amount();
        if wanted <= hold.limit {
            return Ok(used);
        }
        let excess = wanted - hold.limit;
        Err(Shortage { used, frees_at: self.expiring.frees_at(hold.kind.slot_ms(), excess) })
    }

    /// Takes `hold`, which was checked at the same instant.
    pub fn take<K>(&mut self, now: Timestamp, hold: &Hold<K>) {
        self.expiring.add(now, hold.kind.slot_ms(), hold.expiring);
        if let CounterKind::Budget { .. } = hold.kind {
            self.base += hold.kept;
            self.open += 1;
        }
    }

    /// Whether [`Counter::settle`] with the same arguments keeps every part within [`MAX_AMOUNT`].
    pub fn can_settle<K>(&mut self, now: Timestamp, hold: &Hold<K>, actual: u64) -> bool {
        let used = self.state(now, hold.kind).used;
        self.has_room(used, actual)
    }

    /// Whether [`Counter::can_settle`] holds at any time. Leaves the counter unchanged.
    #[must_use]
    pub const fn can_surely_settle(&self, actual: u64) -> bool {
        self.has_room(self.used_at_most(), actual)
    }

    const fn has_room(&self, used: u64, actual: u64) -> bool {
        actual <= MAX_AMOUNT && used + actual <= MAX_AMOUNT && self.settled + actual <= MAX_AMOUNT
    }

    /// Replaces `hold`, taken at `then`, with the actual usage.
    ///
    /// A window returns the difference to the slot where it was reserved, while that slot still counts, and adds an excess
    /// to the current slot. A budget returns its expiring part the same way and books the usage.
    pub fn settle<K>(&mut self, now: Timestamp, then: Timestamp, hold: &Hold<K>, actual: u64) {
        let slot_ms = hold.kind.slot_ms();
        match hold.kind {
            CounterKind::Window { .. } if actual > hold.expiring => {
                self.expiring.add(now, slot_ms, actual - hold.expiring);
            }
            CounterKind::Window { .. } => {
                self.expiring.take_back(now, then, slot_ms, hold.expiring - actual);
            }
            CounterKind::Budget { .. } => {
                self.expiring.take_back(now, then, slot_ms, hold.expiring);
                self.base = (self.base + actual).saturating_sub(hold.kept);
                self.settled += actual;
                self.open = self.open.saturating_sub(1);
            }
        }
    }

    /// Books the usage of a reservation that holds nothing of this budget.
    pub fn book(&mut self, now: Timestamp, kind: CounterKind, amount: u64) {
        self.expiring.used(now, kind.slot_ms());
        self.base += amount;
        self.settled += amount;
    }

    /// Reports each of `thresholds` that the settled amount has reached and that was not reported before.
    pub fn report(&mut self, thresholds: impl Iterator<Item = u64>) -> Vec<u64> {
        let mut new = Vec::new();
        for threshold in thresholds {
            if threshold <= self.settled && !self.reported.contains(&threshold) {
                self.reported.push(threshold);
                new.push(threshold);
            }
        }
        new
    }

    /// Forgets the oldest thresholds past [`MAX_REPORTED`], except those in `watched`: they would be reported again.
    pub fn forget_reported(&mut self, watched: impl Fn(u64) -> bool) {
        let mut excess = self.reported.len().saturating_sub(MAX_REPORTED);
        if excess > 0 {
            self.reported.retain(|threshold| {
                let stays = excess == 0 || watched(*threshold);
                excess -= usize::from(!stays);
                stays
            });
        }
    }

    /// The thresholds that were reported.
    #[must_use]
    pub fn reported(&self) -> &[u64] {
        &self.reported
    }

    /// The same counter with these thresholds reported.
    #[must_use]
    pub fn with_reported(self, reported: Vec<u64>) -> Self {
        Self { reported, ..self }
    }

    /// Whether the counter holds nothing worth keeping.
    #[must_use]
    pub fn is_idle(&self, now: Timestamp, kind: CounterKind) -> bool {
        self.base == 0 && self.settled == 0 && self.open == 0 && self.expiring.is_idle(now, kind.slot_ms())
    }
}
