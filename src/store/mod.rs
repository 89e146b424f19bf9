//! What the service needs from a store, by subject: a [`Ledger`] of counters and reservations, the [`Usage`] that settlements add up,
//! a [`Registry`] of small records for all replicas, the [`AuditLog`] of what they recorded, the [`Replicas`] themselves,
//! the [`Outbox`] of what is to leave the store, the last [`Decisions`] for those who watch them, and [`PolicyRecords`] of the policies
//! that were in force.
//!
//! Counters are opaque names, and usage lines are dimensions and amounts. Both implementations follow the arithmetic of
//! [`crate::domain::counter`]; one conformance suite and a differential test hold them to the same behaviour.

mod answers;
mod audit;
mod breaker;
mod call;
mod cooldown;
mod decisions;
mod denials;
pub mod embedded;
mod layout;
mod ledger;
mod load;
mod notice;
mod observed;
mod outbox;
mod policies;
pub mod redis;
mod registry;
mod replicas;
mod retention;
mod unreported;
mod usage;
mod usage_amounts;

use std::{future::Future, time::Duration};

pub use answers::answers;
pub use audit::{
    AUDIT_REMOVED, AuditEntry, AuditId, AuditKept, AuditLog, AuditRange, MAX_AUDIT_APPEND, MAX_AUDIT_EVENTS,
    MAX_AUDIT_LINE, MAX_AUDIT_PAGE, NotAnAuditId,
};
pub use breaker::Breaker;
pub use call::{CallOutcome, StoreCall};
pub use cooldown::{Cooldown, CooldownChange};
pub use decisions::{
    DECISIONS_KEPT, DECISIONS_KEPT_MS, DECISIONS_WATCHED_MS, DecisionId, Decisions, MAX_DECISION_BYTES,
    MAX_DECISIONS_PUBLISHED, MAX_DECISIONS_READ, NotADecisionId,
};
pub use denials::DenialCause;
pub use layout::{LAYOUT, OLDEST_LAYOUT, Unsupported};
pub use ledger::{
    Extra, Ledger, MAX_GATES, MAX_HOLDS, MAX_NOTE, NotAReservationId, Record, Refusal, ReservationId,
    Reserve, Reserved, Settle, SettleOutcome, Settled, Settlement,
};
pub use load::{Load, LoadProbe};
pub use notice::{
    AlertId, MAX_A_DAY, Notice, budget_forecast, cooldown_notice, current_alert, outbox_at, outbox_find,
};
pub use observed::{CallTotals, Calls, Observed};
pub use outbox::{
    ClaimedEntry, Crossing, Exhaustion, MAX_OUTBOX_APPEND, MAX_OUTBOX_CLAIM, MAX_OUTBOX_PAGE,
    MAX_OUTBOX_PAYLOAD, NotAnOutboxId, OUTBOX_KEPT, OUTBOX_REMOVED, Outbox, OutboxClaim, OutboxEntry,
    OutboxId, OutboxKept, crossings,
};
pub use policies::{
    MAX_POLICIES, MAX_POLICY_DOCUMENT, MAX_POLICY_REPLICAS, MAX_POLICY_VALUE, PolicyEntry, PolicyRecord,
    PolicyRecords,
};
pub use registry::{
    CarriedOver, CarriesOver, MAX_REGISTRY_VALUE, MAX_USES, Registry, RegistryChanges, RegistryRecord,
    RegistryWritten, Revision, SecretUse, SecretUses, USE_SLOT_MS, USE_SLOTS_KEPT, use_slot,
};
pub use replicas::{MAX_REPLICA_VALUE, MAX_REPLICAS, ReplicaEntry, Replicas};
use thiserror::Error;
pub use unreported::Unreported;
pub use usage::{
    HOURS_KEPT_DAYS, MAX_ADDED_ROWS, OTHER_VALUE, ROWS_AT_ONCE, SETS_AT_ONCE, Series, Usage, UsageAddition,
    UsageKey, UsageSet, each_line,
};
pub(crate) use usage_amounts::written;
pub use usage_amounts::{USAGE_AMOUNTS, UsageAmounts};

use crate::domain::{Moment, Timestamp};

/// Why a store could not answer. No variant exposes an address, a key or a script's error to the caller; details are logged where
/// they happen.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum StoreError {
    /// Not reachable, or no answer in time. Whether the operation took effect is unknown; repeating it is safe.
    #[error("the store cannot be reached")]
    Unavailable,
    /// The store has more work than it can answer in time, so it did not get this call; nothing was changed.
    #[error("the service is overloaded; retry later")]
    Overloaded,
    /// A counter would exceed [`crate::domain::MAX_AMOUNT`]; nothing was changed.
    #[error("a counter would pass its largest amount")]
    Overflow,
    /// The store gave an answer that should be impossible.
    #[error("the store is inconsistent")]
    Corrupt,
    /// What is stored is for a release that knows more; nothing was changed.
    #[error(transparent)]
    LayoutUnsupported(#[from] Unsupported),
}

/// The longest that a reservation waits for a store that does not say: as long as `store_timeout` by default.
const DEADLINE: Duration = Duration::from_millis(250);

/// What keeps a store's state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreKind {
    /// A directory of this machine, or the memory of this process.
    Embedded,
    /// Redis, which several replicas share.
    Redis,
}

/// The time of a store, and whether it answers.
///
/// Every instant that goes in or comes out of a store is by the wall clock. A store keeps its data by a time of its own that never
/// goes back ([`Moment`]): if the wall clock is set, nothing is forgotten and nothing is locked.
pub trait Backend: Send + Sync + 'static {
    /// What keeps its state.
    const KIND: StoreKind;

    /// The best estimate of the store's time and of its wall clock, without a call to the store.
    fn moment(&self) -> Moment;

    /// The wall clock of [`Backend::moment`].
    fn now(&self) -> Timestamp {
        self.moment().wall
    }

    /// The store's wall clock. If it is not this process's own, this asks the store: an estimate dates from the last answer, and
    /// the clock might have been set since.
    fn read_clock(&self) -> impl Future<Output = Result<Timestamp, StoreError>> + Send {
        std::future::ready(Ok(self.now()))
    }

    /// Whether calls fail at once, without asking the store.
    fn is_down(&self) -> bool {
        false
    }

    /// What holds decisions back from it while it does not answer; `None`: nothing does.
    fn breaker(&self) -> Option<&Breaker> {
        None
    }

    /// The same of reports of usage that can be kept elsewhere.
    fn report_breaker(&self) -> Option<&Breaker> {
        None
    }

    /// The longest that a reservation waits for it.
    fn deadline(&self) -> Duration {
        DEADLINE
    }

    /// How long after a call the store may still take holds for a caller that has left; `None`: never.
    fn acts_within(&self) -> Option<Duration> {
        None
    }

    /// What says how much waits in it; `None`: nothing does, or another of its clones has told already.
    fn probe(&self) -> Option<LoadProbe> {
        None
    }

    /// Whether the store answers.
    fn ping(&self) -> impl Future<Output = Result<(), StoreError>> + Send;
}

/// Everything that the service needs of a store.
pub trait Store:
    Ledger + Usage + Registry + AuditLog + Replicas + Outbox + Decisions + PolicyRecords
{
}

impl<S: Ledger + Usage + Registry + AuditLog + Replicas + Outbox + Decisions + PolicyRecords> Store for S {}
