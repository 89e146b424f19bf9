//! The bounds on a connection, whatever its peer.

use std::time::Duration;

use super::Settings;

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
        Settings::default().connection_limits()
    }
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
}
