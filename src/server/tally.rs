//! Counts closed connections, so misbehaving clients do not flood the log.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use tracing::warn;

/// How often a log line says what was closed.
pub(super) const EVERY: Duration = Duration::from_secs(1);

/// Why a connection was closed or refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cause {
    /// The first request, or the rest of one, did not arrive in time.
    Silent,
    /// It had no open call for too long.
    Idle,
    /// It reached its maximum age.
    Aged,
    /// The client does not read its answers.
    Unread,
    /// Another connection needed its place.
    Evicted,
    /// No place was free.
    Refused,
}

impl Cause {
    /// All of them, in their order.
    pub(super) const ALL: [Self; 6] =
        [Self::Silent, Self::Idle, Self::Aged, Self::Unread, Self::Evicted, Self::Refused];

    /// Its name in logs.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Silent => "silent",
            Self::Idle => "idle",
            Self::Aged => "aged",
            Self::Unread => "unread",
            Self::Evicted => "evicted",
            Self::Refused => "refused",
        }
    }
}

/// Counts per cause since the last line. They are independent and order nothing.
#[derive(Debug, Default)]
pub(super) struct Tally {
    silent: AtomicU64,
    unread: AtomicU64,
    evicted: AtomicU64,
    refused: AtomicU64,
}

impl Tally {
    pub(super) fn add(&self, cause: Cause) {
        let count = match cause {
            Cause::Silent => &self.silent,
            Cause::Unread => &self.unread,
            Cause::Evicted => &self.evicted,
            Cause::Refused => &self.refused,
            // The usual ends of a connection.
            Cause::Idle | Cause::Aged => return,
        };
        count.fetch_add(1, Ordering::Relaxed);
    }

    /// Logs one line for everything since the last one.
    pub(super) fn say(&self) {
        let take = |count: &AtomicU64| match count.load(Ordering::Relaxed) {
            0 => 0,
            _ => count.swap(0, Ordering::Relaxed),
        };
        let (silent, unread) = (take(&self.silent), take(&self.unread));
        if silent + unread > 0 {
            warn!(silent, unread, "connections closed: no request in time, or answers not read");
        }
        let (evicted, refused) = (take(&self.evicted), take(&self.refused));
        if evicted + refused > 0 {
            warn!(
                evicted,
                refused,
                "no place is left for another connection: unused and idle ones make room, others are refused"
            );
        }
    }
}
