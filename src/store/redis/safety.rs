//! Whether the server keeps the data it is given.

use std::{fmt, sync::Arc};

use arc_swap::ArcSwap;
use redis::Value;

use super::{Inner, RedisStore};
use crate::store::StoreError;

/// How often `INFO` is asked for before it is taken to be refused: an answer may only be late.
const INFO_ATTEMPTS: u32 = 3;

/// A property of a server that can lose counters, and with them the record of what was spent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hazard {
    /// It removes keys when its memory is full.
    Evicts {
        /// Its `maxmemory-policy`, such as `volatile-lru`.
        policy: String,
    },
    /// It does not say whether it evicts: it refuses `INFO`, or leaves the policy out.
    MayEvict,
    /// It writes neither an append-only file nor snapshots.
    KeepsNothing,
    /// It has replicas, or Sentinels that replace it by one, and acknowledges what none of them has.
    LosesAcknowledged,
    /// It writes no append-only file, and does not say whether it takes snapshots: managed servers refuse `CONFIG`.
    MayKeepNothing,
}

/// What the last check of a server found; always nothing with the embedded store.
pub type Hazards = Arc<ArcSwap<Vec<Hazard>>>;

/// What can happen, and what to do about it.
impl fmt::Display for Hazard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Evicts { policy } => write!(
                f,
                "redis removes keys when its memory is full (maxmemory-policy is `{policy}`): budgets and reservations can be \
                 lost; set `maxmemory-policy noeviction`"
            ),
            Self::MayEvict => f.write_str(
                "redis does not say whether it removes keys when its memory is full (`maxmemory_policy` in `INFO`): budgets and \
                 reservations could be lost; permit `INFO`, and set `maxmemory-policy noeviction`",
            ),
            Self::MayKeepNothing => f.write_str(
                "redis does not say whether it keeps anything over a restart (`appendonly` is off, and `CONFIG GET save` is \
                 refused): all that was spent could be forgotten; set `appendonly yes`",
            ),
            Self::LosesAcknowledged => f.write_str(
                "redis takes writes that no replica has (`min-replicas-to-write` is 0): a failover forgets what was spent before it, for \
                 some ten seconds of a planned one; set `min-replicas-to-write 1` and `min-replicas-max-lag 1` on it and its replicas",
            ),
            Self::KeepsNothing => f.write_str(
                "redis keeps nothing over a restart (`appendonly` is off, `save` is empty): all that was spent would be \
                 forgotten; set `appendonly yes`",
            ),
        }
    }
}

impl Hazard {
    /// Whether the service refuses to start on it when Redis has to be safe. A mere possibility is no reason: most managed
    /// servers do not say how they take snapshots.
    #[must_use]
    pub const fn is_reason_to_refuse(&self) -> bool {
        !matches!(self, Self::MayKeepNothing)
    }
}

impl RedisStore {
    /// The hazards of the server for budgets, as far as it reports them: a managed one may refuse to say how it persists.
    ///
    /// # Errors
    /// The server does not answer.
    pub async fn hazards(&self) -> Result<Vec<Hazard>, StoreError> {
        self.0.hazards().await
    }
}

impl Inner {
    async fn hazards(&self) -> Result<Vec<Hazard>, StoreError> {
        let info = self.info().await?;
        let takes_snapshots = match keeps_a_log(&info) {
            true => None,
            false => self.takes_snapshots().await,
        };
        Ok(hazards_of(&info, takes_snapshots, self.targets.calls.locator.has_sentinels()))
    }

    /// The text of `INFO`; empty if the server answers but refuses it.
    async fn info(&self) -> Result<String, StoreError> {
        for _ in 0..INFO_ATTEMPTS {
            let answer = self.connection.run_at_any_layout(redis::cmd("INFO").arg("everything")).await;
            if let Ok(answer) = answer {
                return redis::from_redis_value(answer).map_err(|_| StoreError::Corrupt);
            }
        }
        self.connection.run_at_any_layout(&redis::cmd("PING")).await.map(|_| String::new())
    }

    /// Whether the server takes snapshots; `None` if it does not say.
    async fn takes_snapshots(&self) -> Option<bool> {
        let answer =
            self.connection.run_at_any_layout(redis::cmd("CONFIG").arg("GET").arg("save")).await.ok()?;
        says_when(&answer)
    }
}

/// What `info`, the text of `INFO`, shows of a server; `takes_snapshots`: `None` if it does not say. With Sentinels it can be replaced by a
/// replica even while it has none.
pub(super) fn hazards_of(info: &str, takes_snapshots: Option<bool>, has_sentinels: bool) -> Vec<Hazard> {
    let evicts = match field(info, "maxmemory_policy") {
        Some("noeviction") => None,
        Some(policy) => Some(Hazard::Evicts { policy: policy.to_owned() }),
        None => Some(Hazard::MayEvict),
    };
    let forgets = match takes_snapshots {
        _ if keeps_a_log(info) => None,
        Some(true) => None,
        Some(false) => Some(Hazard::KeepsNothing),
        None => Some(Hazard::MayKeepNothing),
    };
    let number = |name| field(info, name).and_then(|number| number.parse::<u64>().ok());
    let has_replicas = number("connected_slaves").is_some_and(|count| count > 0) || has_sentinels;
    // The line is there only where both settings are.
    let is_unbounded = !info.is_empty() && has_replicas && number("min_slaves_good_slaves").is_none();
    let loses = is_unbounded.then_some(Hazard::LosesAcknowledged);
    evicts.into_iter().chain(forgets).chain(loses).collect()
}

/// Whether it writes an append-only file.
fn keeps_a_log(info: &str) -> bool {
    field(info, "aof_enabled") == Some("1")
}

/// Whether an answer to `CONFIG GET save` names any moment for a snapshot; `None`: it is none.
pub(super) fn says_when(answer: &Value) -> Option<bool> {
    let is_empty = match answer {
        Value::Array(answer) => match answer.as_slice() {
            [_, Value::BulkString(save)] => save.is_empty(),
            _ => return None,
        },
        Value::Map(answer) => match answer.as_slice() {
            [(_, Value::BulkString(save))] => save.is_empty(),
            _ => return None,
        },
        _ => return None,
    };
    Some(!is_empty)
}

/// The value of a line `name:value` of `INFO`.
pub(super) fn field<'a>(info: &'a str, name: &str) -> Option<&'a str> {
    info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim_end)
}
