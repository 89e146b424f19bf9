//! What an event of the audit log is.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::domain::actor::Actor;

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
    /// A cooldown after Groq's 429 was lifted.
    pub const COOLDOWN_LIFT: &str = "cooldown.lift";

    /// All of them.
    pub const ALL: [&str; 10] = [
        POLICY_RELOAD,
        POLICY_REJECTED,
        ROLE_DENIED,
        KEY_CREATE,
        KEY_UPDATE,
        KEY_ROTATE,
        KEY_REVOKE,
        PAUSE,
        RESUME,
        COOLDOWN_LIFT,
    ];
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
    /// Unique, and greater than that of every event before: milliseconds since 1970, a count within, and a random rest. It
    /// comes first in the line, where a page finds it.
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
/// Digits of an id: the time, the count and the rest.
const ID_DIGITS: usize = TIME_DIGITS + 8 + 8;

/// Whether `text` could be an id.
pub(super) fn is_id(text: &str) -> bool {
    text.len() == ID_DIGITS && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

impl Event {
    /// An id for the event number `count` within the millisecond `ms`.
    pub(super) fn make_id(ms: u64, count: u32) -> String {
        let mut random = [0; 4];
        // Without randomness the ids of this log are unique all the same; only those of several replicas could meet.
        let _ = getrandom::fill(&mut random);
        format!("{ms:0TIME_DIGITS$x}{count:08x}{:08x}", u32::from_le_bytes(random))
    }

    /// How the line of the event `id` begins.
    pub(super) fn beginning(id: &str) -> String {
        format!("{{\"id\":\"{id}\"")
    }

    /// The time in its id, which never goes back within a file.
    pub(super) fn id_ms(&self) -> Option<u64> {
        u64::from_str_radix(self.id.get(..TIME_DIGITS)?, 16).ok()
    }
}
