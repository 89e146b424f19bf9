//! The events of the audit log.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{domain::actor::Actor, runtime::Entropy};

/// The actions. They are names, so that an older version can read the log of a newer one.
pub mod action {
    /// A new policy took effect.
    pub const POLICY_RELOAD: &str = "policy.reload";
    /// A new policy failed to load.
    pub const POLICY_REJECTED: &str = "policy.rejected";
    /// A caller asked for something that their roles do not permit.
    pub const ROLE_DENIED: &str = "role.denied";
    /// A key was created.
    pub const KEY_CREATE: &str = "key.create";
    /// A key was changed.
    pub const KEY_UPDATE: &str = "key.update";
    /// A key got a new secret.
    pub const KEY_ROTATE: &str = "key.rotate";
    /// A key was revoked.
    pub const KEY_REVOKE: &str = "key.revoke";
    /// One secret of a key was revoked.
    pub const KEY_REVOKE_SECRET: &str = "key.revoke_secret";
    /// A team, a key, a model or the organization was paused.
    pub const PAUSE: &str = "pause";
    /// A pause was lifted.
    pub const RESUME: &str = "resume";
    /// A cooldown after Groq's 429 was lifted.
    pub const COOLDOWN_LIFT: &str = "cooldown.lift";

    /// All of them.
    pub const ALL: [&str; 11] = [
        POLICY_RELOAD,
        POLICY_REJECTED,
        ROLE_DENIED,
        KEY_CREATE,
        KEY_UPDATE,
        KEY_ROTATE,
        KEY_REVOKE,
        KEY_REVOKE_SECRET,
        PAUSE,
        RESUME,
        COOLDOWN_LIFT,
    ];
}

/// What to record; the log adds the time and the id.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    /// Who did it.
    pub actor: Actor,
    /// What was done: one of [`action`].
    pub action: &'static str,
    /// What it was done to.
    pub subject: String,
    /// The state before; `null` if there was none. Small, and without secrets.
    pub before: Value,
    /// The state after.
    pub after: Value,
    /// `done`, or why not.
    pub outcome: &'static str,
}

/// An event as it stands in the log.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// Unique, and greater than the id of every event before: milliseconds since 1970, a count within the millisecond, and a
    /// random rest. It comes first in the line, where a page finds it.
    pub id: String,
    /// When it happened.
    pub time: Timestamp,
    /// Who did it.
    pub actor: Actor,
    /// What was done.
    pub action: String,
    /// What it was done to.
    pub subject: String,
    /// The state before.
    #[serde(default)]
    pub before: Value,
    /// The state after.
    #[serde(default)]
    pub after: Value,
    /// `done`, or why not.
    pub outcome: String,
}

/// The digits of an id that hold its time.
const TIME_DIGITS: usize = 12;
/// The digits of an id: the time, the count and the rest.
const ID_DIGITS: usize = TIME_DIGITS + 8 + 8;

/// Whether `text` could be an id.
pub(super) fn is_id(text: &str) -> bool {
    text.len() == ID_DIGITS && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

impl Event {
    /// An id for the event number `count` within the millisecond `ms`.
    pub(super) fn make_id(ms: u64, count: u32) -> String {
        // Without randomness the ids of this log are still unique; only those of different replicas could collide.
        let random = Entropy::System.bytes().unwrap_or_default();
        format!("{ms:0TIME_DIGITS$x}{count:08x}{:08x}", u32::from_le_bytes(random))
    }

    /// How the line of the event `id` begins.
    pub(super) fn beginning(id: &str) -> String {
        format!("{{\"id\":\"{id}\"")
    }

    /// The time in the id, which never goes back within a file.
    pub(super) fn id_ms(&self) -> Option<u64> {
        u64::from_str_radix(self.id.get(..TIME_DIGITS)?, 16).ok()
    }
}
