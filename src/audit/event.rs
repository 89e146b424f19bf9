//! What an event of the audit log is.

use std::{net::IpAddr, net::SocketAddr, sync::Arc};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::domain::access::{Principal, PrincipalKind};

/// What can be done. Names, so that a log can be read that a newer version wrote.
pub mod action {
    /// A new policy came into force.
    pub const POLICY_RELOAD: &str = "policy.reload";
    /// A new policy did not load.
    pub const POLICY_REJECTED: &str = "policy.rejected";
    /// Somebody asked what their roles do not permit.
    pub const ROLE_DENIED: &str = "role.denied";
    /// A key was made.
    pub const KEY_CREATE: &str = "key.create";
    /// A key was changed.
    pub const KEY_UPDATE: &str = "key.update";
    /// A key has a new secret.
    pub const KEY_ROTATE: &str = "key.rotate";
    /// A key was revoked.
    pub const KEY_REVOKE: &str = "key.revoke";
    /// A team, a key, a model or the organization was paused.
    pub const PAUSE: &str = "pause";
    /// It goes on.
    pub const RESUME: &str = "resume";

    /// All of them.
    pub const ALL: [&str; 9] = [
        POLICY_RELOAD,
        POLICY_REJECTED,
        ROLE_DENIED,
        KEY_CREATE,
        KEY_UPDATE,
        KEY_ROTATE,
        KEY_REVOKE,
        PAUSE,
        RESUME,
    ];
}

/// How somebody was recognised.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ActorKind {
    /// The service itself.
    System,
    /// By a service token.
    ServiceToken,
    /// By a client certificate.
    Certificate,
    /// By a token of an OpenID provider.
    Oidc,
    /// Not at all, as the policy knows no callers.
    Anybody,
}

impl ActorKind {
    /// Its name in the log.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::System => "system",
            Self::ServiceToken => "service-token",
            Self::Certificate => "certificate",
            Self::Oidc => "oidc",
            Self::Anybody => "anybody",
        }
    }
}

/// Who did something.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Actor {
    /// How they were recognised.
    pub kind: ActorKind,
    /// The name of the service token or the certificate, the subject of a token, or what made the service do it.
    pub name: Arc<str>,
    /// From where; without the port, which says nothing.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub address: Option<IpAddr>,
}

impl Actor {
    /// The service itself, because of `cause`.
    #[must_use]
    pub fn system(cause: &str) -> Self {
        Self { kind: ActorKind::System, name: cause.into(), address: None }
    }

    /// Whoever called from `address`; `None` where the policy knows no callers.
    #[must_use]
    pub fn caller(principal: Option<&Principal>, address: Option<SocketAddr>) -> Self {
        let kind = match principal.map(|principal| principal.kind) {
            Some(PrincipalKind::ServiceToken) => ActorKind::ServiceToken,
            Some(PrincipalKind::Certificate) => ActorKind::Certificate,
            Some(PrincipalKind::Oidc) => ActorKind::Oidc,
            None => ActorKind::Anybody,
        };
        let name = principal.map_or_else(|| "".into(), |principal| Arc::clone(&principal.name));
        Self { kind, name, address: address.map(|address| address.ip().to_canonical()) }
    }
}

/// What is recorded; its time and its id come by themselves.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    /// Who.
    pub actor: Actor,
    /// What: one of [`action`].
    pub action: &'static str,
    /// To what.
    pub subject: String,
    /// What was; `null` where nothing was. Small, and without secrets.
    pub before: Value,
    /// What is.
    pub after: Value,
    /// `done`, or why not.
    pub outcome: &'static str,
}

/// An event of the log, as it stands there.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// Unique, and greater than that of every event before: milliseconds since 1970, a count within, and a random rest.
    pub id: String,
    /// When.
    pub time: Timestamp,
    /// Who.
    pub actor: Actor,
    /// What.
    pub action: String,
    /// To what.
    pub subject: String,
    /// What was.
    #[serde(default)]
    pub before: Value,
    /// What is.
    #[serde(default)]
    pub after: Value,
    /// `done`, or why not.
    pub outcome: String,
}

/// Digits of an id that are its time.
const TIME_DIGITS: usize = 12;

impl Event {
    /// An id for the event number `count` within the millisecond `ms`.
    pub(super) fn make_id(ms: u64, count: u32) -> String {
        let mut random = [0; 4];
        // Without randomness the ids of this log are unique all the same; only those of several replicas could meet.
        let _ = getrandom::fill(&mut random);
        format!("{ms:0TIME_DIGITS$x}{count:08x}{:08x}", u32::from_le_bytes(random))
    }

    /// The time in its id, which never goes back within a file.
    pub(super) fn id_ms(&self) -> Option<u64> {
        u64::from_str_radix(self.id.get(..TIME_DIGITS)?, 16).ok()
    }
}
