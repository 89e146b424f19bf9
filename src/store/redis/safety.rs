//! Whether the server keeps what it is given.

use std::fmt;

use redis::Value;

use super::{Inner, RedisStore};
use crate::store::StoreError;

/// Something about a server because of which counters can be lost, and with them what was spent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hazard {
    /// It removes keys when its memory is full.
    Evicts {
        /// Its `maxmemory-policy`, such as `volatile-lru`.
        policy: String,
    },
    /// It writes neither an append-only file nor snapshots.
    KeepsNothing,
}

/// What can happen, and what to do about it.
impl fmt::Display for Hazard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Evicts { policy } => write!(
                f,
                "redis removes keys when its memory is full (maxmemory-policy is `{policy}`): budgets and reservations can be \
                 lost; set `maxmemory-policy noeviction`"
            ),
            Self::KeepsNothing => f.write_str(
                "redis keeps nothing over a restart (`appendonly` is off, `save` is empty): all that was spent would be \
                 forgotten; set `appendonly yes`",
            ),
        }
    }
}

impl RedisStore {
    /// What makes the server unsafe for budgets, as far as it tells: a managed one may refuse to say how it persists.
    ///
    /// # Errors
    /// The server does not answer, or does not let us ask.
    pub async fn hazards(&self) -> Result<Vec<Hazard>, StoreError> {
        self.0.hazards().await
    }
}

impl Inner {
    async fn hazards(&self) -> Result<Vec<Hazard>, StoreError> {
        let info = self.info().await?;
        let mut hazards = Vec::new();
        let policy = field(&info, "maxmemory_policy").unwrap_or("noeviction");
        if policy != "noeviction" {
            hazards.push(Hazard::Evicts { policy: policy.to_owned() });
        }
        if field(&info, "aof_enabled") == Some("0") && self.takes_no_snapshots().await {
            hazards.push(Hazard::KeepsNothing);
        }
        Ok(hazards)
    }

    async fn info(&self) -> Result<String, StoreError> {
        let answer = self.link.run(redis::cmd("INFO").arg("everything")).await?;
        redis::from_redis_value(answer).map_err(|_| StoreError::Corrupt)
    }

    /// Whether the server says that it takes none. Managed servers take them without saying so.
    async fn takes_no_snapshots(&self) -> bool {
        match self.link.run(redis::cmd("CONFIG").arg("GET").arg("save")).await {
            Ok(Value::Array(answer)) => {
                matches!(answer.as_slice(), [_, Value::BulkString(save)] if save.is_empty())
            }
            Ok(Value::Map(answer)) => {
                matches!(answer.as_slice(), [(_, Value::BulkString(save))] if save.is_empty())
            }
            Ok(_) | Err(_) => false,
        }
    }
}

/// The value of a line `name:value` of `INFO`.
fn field<'a>(info: &'a str, name: &str) -> Option<&'a str> {
    info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim_end)
}
