//! The bounds on a connection, whatever its peer.

use std::{ops::RangeInclusive, time::Duration};

use clap::Args;
use serde::Serialize;

use super::Settings;

/// The most connections of one process: more need several replicas.
const MAX_CONNECTIONS: u32 = 65_536;
/// The lower bound is where a test of a deadline would only test the scheduler; beyond a year is effectively unlimited.
const TIMEOUTS: RangeInclusive<Duration> = Duration::from_millis(10)..=Duration::from_secs(365 * 86_400);
/// Orchestrators kill a process long before a grace period of an hour ends.
const MAX_GRACE: Duration = Duration::from_secs(3_600);
/// From less than one answer to more memory than a replica has for all its clients.
const UNREAD: RangeInclusive<u64> = 1 << 10..=1 << 30;

/// The bounds on connections.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectionLimits {
    /// The most connections; `None`: the process's limit of open files, less a reserve.
    pub max: Option<u32>,
    /// From the connection to its first request, including TLS and preface; also for the rest of a request that has begun.
    pub handshake: Duration,
    /// How long a connection without an open call is kept.
    pub idle: Duration,
    /// The maximum age of a connection, give or take a tenth.
    pub max_age: Duration,
    /// How long open calls may take on a connection that is closing.
    pub grace: Duration,
    /// Bytes of answers that a client may leave unread for as long as `handshake`.
    pub max_unread: u64,
}

impl Default for ConnectionLimits {
    fn default() -> Self {
        Self {
            max: None,
            handshake: Duration::from_secs(10),
            idle: Duration::from_secs(15 * 60),
            max_age: Duration::from_secs(30 * 60),
            grace: Duration::from_secs(30),
            max_unread: 1 << 20,
        }
    }
}

/// [`ConnectionLimits`] as typed on the command line.
#[derive(Args, Clone, Debug, Default, Serialize)]
pub struct ConnectionFlags {
    /// The most connections for gRPC; past them the oldest idle one is closed [default: the limit of open files
    /// less 256, at most 65536]
    #[arg(long, value_name = "NUMBER")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_connections: Option<u32>,
    /// How long a connection may take to TLS and its first request [default: 10s]
    #[arg(long, value_name = "TIME")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connection_handshake_timeout: Option<String>,
    /// How long to keep a connection without an open call [default: 15m]
    #[arg(long, value_name = "TIME")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connection_idle_timeout: Option<String>,
    /// How long to keep a connection at all, give or take a tenth [default: 30m]
    #[arg(long, value_name = "TIME")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connection_max_age: Option<String>,
    /// How long the open calls of a connection past its age may take [default: 30s]
    #[arg(long, value_name = "TIME")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connection_max_age_grace: Option<String>,
    /// How much of its answers a client may leave unread before it is closed [default: 1MiB]
    #[arg(long, value_name = "SIZE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connection_max_unread: Option<String>,
}

impl Settings {
    /// The bounds on connections.
    #[must_use]
    pub const fn connection_limits(&self) -> ConnectionLimits {
        ConnectionLimits {
            max: self.max_connections,
            handshake: self.connection_handshake_timeout,
            idle: self.connection_idle_timeout,
            max_age: self.connection_max_age,
            grace: self.connection_max_age_grace,
            max_unread: self.connection_max_unread,
        }
    }

    /// The first of these settings that is out of bounds, and its bounds.
    pub(super) fn check_connections(&self) -> Result<(), (&'static str, String)> {
        if let Some(max) = self.max_connections.filter(|max| !(1..=MAX_CONNECTIONS).contains(max)) {
            return Err(("max_connections", format!("`{max}` is not between 1 and {MAX_CONNECTIONS}")));
        }
        for (key, timeout) in [
            ("connection_handshake_timeout", self.connection_handshake_timeout),
            ("connection_idle_timeout", self.connection_idle_timeout),
            ("connection_max_age", self.connection_max_age),
        ] {
            if !TIMEOUTS.contains(&timeout) {
                return Err((key, format!("{timeout:?} is not between 10ms and 365d")));
            }
        }
        if self.connection_max_age_grace > MAX_GRACE {
            let reason = format!("{:?} is not between 0s and 1h", self.connection_max_age_grace);
            return Err(("connection_max_age_grace", reason));
        }
        if !UNREAD.contains(&self.connection_max_unread) {
            let reason = format!("{} B are not between 1KiB and 1GiB", self.connection_max_unread);
            return Err(("connection_max_unread", reason));
        }
        Ok(())
    }
}
