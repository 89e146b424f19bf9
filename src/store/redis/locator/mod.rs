//! Where the server is that holds the organization's data: asked at each connect, and whenever there is a doubt.

mod sentinel;
mod slot;

use std::{collections::HashMap, hash::Hash, time::Duration};

use redis::{RedisError, Value, aio::MultiplexedConnection};
use thiserror::Error;
use tokio::{task::JoinSet, time::timeout};

use self::{sentinel::Sentinels, slot::Slot};
use super::dialer::{Address, Dialer};
use crate::syntax::redis_url::{RedisNode, RedisPlace};

pub(super) use slot::slot_of;

/// How long those who are asked may take, connecting included. They are asked all at once.
const ASK_TIMEOUT: Duration = Duration::from_millis(500);
/// The most servers that are asked at once.
const MAX_ASKED: usize = 16;

/// Who knows where the server is.
pub(super) enum Locator {
    /// It stays where it is.
    Fixed(Address),
    /// Sentinels know.
    Sentinel(Sentinels),
    /// The nodes of a cluster know which of them owns the organization's slot.
    Slot(Slot),
}

/// Why it is not known where the server is.
#[derive(Debug, Error)]
pub(super) enum LocateError {
    #[error("no Sentinel knows a primary named `{0}`")]
    UnknownPrimary(String),
    #[error("no Sentinel answers ({0})")]
    NoSentinel(Unanswered),
    #[error("no node of the cluster owns slot {0}")]
    NoOwner(u16),
    #[error("no node of the cluster answers ({0})")]
    NoNode(Unanswered),
}

/// What those who were asked said instead of an answer. Names no password.
#[derive(Debug, Error)]
pub(super) enum Unanswered {
    #[error("{0}")]
    Error(#[from] RedisError),
    #[error("not within {} ms", ASK_TIMEOUT.as_millis())]
    Slow,
}

impl Locator {
    /// For the organization or other data with this key.
    pub(super) fn new(place: &RedisPlace, dialer: Dialer, key: &str) -> Self {
        match place {
            RedisPlace::Server { node, .. } => Self::Fixed(Address::Node(node.clone())),
            RedisPlace::Socket(path) => Self::Fixed(Address::Socket(path.clone())),
            RedisPlace::Sentinel { sentinels, primary } => {
                Self::Sentinel(Sentinels::new(dialer, sentinels.clone(), primary.clone()))
            }
            RedisPlace::Cluster { nodes } => Self::Slot(Slot::new(dialer, nodes.clone(), slot_of(key))),
        }
    }

    /// Whether several servers hold data, each other's: keys of different slots are on different ones.
    pub(super) const fn is_cluster(&self) -> bool {
        matches!(self, Self::Slot(_))
    }

    /// Whether Sentinels replace the server by a replica.
    pub(super) const fn has_sentinels(&self) -> bool {
        matches!(self, Self::Sentinel(_))
    }

    /// How often to ask where the server is although nothing is wrong: in a planned failover the old primary takes writes until it is told,
    /// and they are lost. The nodes of a cluster say so themselves.
    pub(super) const fn asks_every(&self) -> Option<Duration> {
        match self {
            Self::Sentinel(_) => Some(Duration::from_secs(1)),
            Self::Fixed(_) | Self::Slot(_) => None,
        }
    }

    /// Where the server may be, the likeliest place first.
    pub(super) async fn candidates(&self) -> Result<Vec<Address>, LocateError> {
        let nodes = match self {
            Self::Fixed(address) => return Ok(vec![address.clone()]),
            Self::Sentinel(sentinels) => sentinels.primaries().await?,
            Self::Slot(slot) => slot.owners().await?,
        };
        Ok(nodes.into_iter().map(Address::Node).collect())
    }

    /// Whether those who know say that the server is not at `address`. A fixed one may be: its name may lead elsewhere by now.
    pub(super) async fn is_elsewhere(&self, address: &Address) -> bool {
        match self {
            Self::Fixed(_) => true,
            Self::Sentinel(_) | Self::Slot(_) => match self.candidates().await {
                Ok(candidates) => candidates.first().is_some_and(|likeliest| likeliest != address),
                Err(_) => false,
            },
        }
    }

    /// The same without a reason: a single one is asked first.
    pub(super) async fn may_be_elsewhere(&self, address: &Address) -> bool {
        match self {
            Self::Sentinel(sentinels) => {
                sentinels.suspects(address).await && self.is_elsewhere(address).await
            }
            Self::Fixed(_) | Self::Slot(_) => false,
        }
    }

    /// Whether the server on a new connection is the one that takes writes, as far as it says.
    pub(super) async fn is_right(&self, connection: &mut MultiplexedConnection) -> Result<bool, RedisError> {
        match self {
            Self::Sentinel(_) => sentinel::is_primary(connection).await,
            // A node says by `MOVED` that it is not; a fixed server is the right one whatever it says.
            Self::Fixed(_) | Self::Slot(_) => Ok(true),
        }
    }
}

/// The answers of several servers: what each named, with the number of those that named it, most first.
struct Answers<T> {
    named: Vec<T>,
    /// How many answered that they know none.
    without: usize,
    error: Option<Unanswered>,
}

/// Asks `nodes` all at once, until most of them say the same or all have said something.
async fn ask_all<T, F, A>(nodes: Vec<RedisNode>, ask: F) -> Answers<T>
where
    T: Clone + Eq + Hash + Send + 'static,
    F: Fn(RedisNode) -> A,
    A: Future<Output = Result<Option<T>, RedisError>> + Send + 'static,
{
    let asked = nodes.len().min(MAX_ASKED);
    let mut tasks = JoinSet::new();
    for node in nodes.into_iter().take(MAX_ASKED) {
        tasks.spawn(timeout(ASK_TIMEOUT, ask(node)));
    }
    let (mut votes, mut without, mut error) = (HashMap::<T, usize>::new(), 0, None);
    while let Some(answer) = tasks.join_next().await {
        match answer {
            Ok(Ok(Ok(Some(named)))) => {
                let count = votes.entry(named).or_insert(0);
                *count += 1;
                if *count * 2 > asked {
                    break;
                }
            }
            Ok(Ok(Ok(None))) => without += 1,
            Ok(Ok(Err(failure))) => error = Some(failure.into()),
            Ok(Err(_)) => error = error.or(Some(Unanswered::Slow)),
            // It panicked or was aborted.
            Err(_) => {}
        }
    }
    let mut votes: Vec<_> = votes.into_iter().collect();
    votes.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    Answers { named: votes.into_iter().map(|(named, _)| named).collect(), without, error }
}

/// The text of a value, if it is one.
fn text(value: &Value) -> Option<&str> {
    match value {
        Value::BulkString(bytes) => std::str::from_utf8(bytes).ok(),
        Value::SimpleString(text) => Some(text),
        _ => None,
    }
}
