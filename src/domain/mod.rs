//! What Tollgate knows, free of I/O: money, prices, windows, limits, policy and decisions.
//!
//! Nothing here awaits, logs, reads a clock or sees protobuf; time comes in as a [`Timestamp`].

pub mod actor;
pub mod alert;
pub mod batch;
pub mod bounds;
pub mod budget;
pub mod budget_alert;
pub mod calendar;
pub mod caller;
pub mod cooldown;
pub mod counter;
pub mod decision;
pub mod drift;
pub mod eligibility;
pub mod explain;
pub mod forecast;
pub mod holds;
pub mod key;
pub mod limit;
pub mod limit_kind;
pub mod limit_status;
pub mod money;
pub mod name;
pub mod occasion;
pub mod outage;
pub mod pause;
pub mod plan;
pub mod policy;
pub mod price;
pub mod rbac;
pub mod request;
pub mod secret;
pub mod snapshot;
pub mod tally;
pub mod text;
pub mod tools;
pub mod upstream;
pub mod window;

use serde::{Deserialize, Serialize};

/// The largest amount of a counter, a limit or a single hold: 2^53 − 1, the largest integer that both a `u64` and the
/// double of a Redis script hold exactly. As nano-USD it is $9,007,199.25 in one period.
pub const MAX_AMOUNT: u64 = (1 << 53) - 1;

/// Milliseconds since the Unix epoch, by the wall clock unless documented as a store's own time ([`Moment::store`]).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Timestamp(pub u64);

impl Timestamp {
    /// The instant `ms` milliseconds later; the end of time if that overflows.
    #[must_use]
    pub const fn plus(self, ms: u64) -> Self {
        Self(self.0.saturating_add(ms))
    }

    /// Milliseconds from `earlier` to this instant, 0 where `earlier` is later.
    #[must_use]
    pub const fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// One instant on two timelines.
///
/// A wall clock can be set, forwards or backwards. That must not erase or freeze what a store keeps, so windows, expiry and
/// cooldowns use the store's own time, which never goes back and runs at the pace of real time. Calendar periods, prices
/// and everything that people see use the wall clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Moment {
    /// The store's own time.
    pub store: Timestamp,
    /// The wall clock.
    pub wall: Timestamp,
}

impl Moment {
    /// The same instant with the wall clock at `wall`; the offset between store and wall clock stays the same.
    #[must_use]
    pub const fn at_wall(self, wall: Timestamp) -> Self {
        let store = Self { store: self.wall, wall: self.store }.to_wall(wall);
        Self { store, wall }
    }

    /// What the wall clock will show, or would have shown, at the instant `at` of the store's time, unless it is set again.
    #[must_use]
    pub const fn to_wall(self, at: Timestamp) -> Timestamp {
        if self.wall.0 >= self.store.0 {
            at.plus(self.wall.since(self.store))
        } else {
            Timestamp(at.since(Timestamp(self.store.since(self.wall))))
        }
    }
}
