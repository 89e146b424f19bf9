//! Where the server is that holds the organization's data: asked at each connect, and whenever there is a doubt.

mod sentinel;
mod slot;

use std::{cmp::Reverse, time::Duration};

use redis::{RedisError, Value};
use thiserror::Error;
use tokio::{
    task::JoinSet,
    time::{Instant, timeout, timeout_at},
};

use self::{sentinel::Sentinels, slot::Slot};
use super::dialer::{Address, Dialer, Link};
use crate::syntax::redis_url::{RedisNode, RedisPlace};

pub(super) use slot::slot_of;

/// How long those who are asked may take, connecting included. They are asked all at once.
const ASK_TIMEOUT: Duration = Duration::from_millis(500);
/// How long the others may take to say otherwise, once most have said the same.
const OTHERS: Duration = Duration::from_millis(50);
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
        Ok(self.ranked().await?.0)
    }

    /// The same, and how many of these are equally likely.
    async fn ranked(&self) -> Result<(Vec<Address>, usize), LocateError> {
        let (nodes, tied) = match self {
            Self::Fixed(address) => return Ok((vec![address.clone()], 1)),
            Self::Sentinel(sentinels) => sentinels.primaries().await?,
            Self::Slot(slot) => slot.owners().await?,
        };
        Ok((nodes.into_iter().map(Address::Node).collect(), tied))
    }

    /// Whether those who know say that the server is not at `address`. A fixed one may be: its name may lead elsewhere by now.
    pub(super) async fn is_elsewhere(&self, address: &Address) -> bool {
        match self {
            Self::Fixed(_) => true,
            Self::Sentinel(_) | Self::Slot(_) => match self.ranked().await {
                // Where those who know disagree, and none knows better, there is no reason to leave.
                Ok((candidates, tied)) => !candidates.iter().take(tied).any(|likeliest| likeliest == address),
                Err(_) => false,
            },
        }
    }

    /// The same without a reason: a single one is asked first, whose `turn` it is.
    pub(super) async fn may_be_elsewhere(&self, address: &Address, turn: usize) -> bool {
        match self {
            Self::Sentinel(sentinels) => {
                sentinels.suspects(address, turn).await && self.is_elsewhere(address).await
            }
            Self::Fixed(_) | Self::Slot(_) => false,
        }
    }

    /// Whether the server on a new connection is the one that takes writes, as far as it says.
    pub(super) async fn is_right(&self, connection: &mut Link) -> Result<bool, RedisError> {
        match self {
            Self::Sentinel(_) => sentinel::is_primary(connection).await,
            // A node says by `MOVED` that it is not; a fixed server is the right one whatever it says.
            Self::Fixed(_) | Self::Slot(_) => Ok(true),
        }
    }
}

/// The answers of several servers: what each named.
struct Answers<T> {
    /// The likeliest first: what is named with the highest epoch, then what most of them named, then by the order in which they are asked.
    named: Vec<T>,
    /// How many of these only the order ranks.
    tied: usize,
    /// How many answered that they know none.
    without: usize,
    error: Option<Unanswered>,
}

/// What some of them named.
struct Vote<T> {
    named: T,
    /// The highest with which it is named.
    epoch: u64,
    count: usize,
    /// The place of the first who named it.
    place: usize,
}

impl<T: Eq> Vote<T> {
    /// Adds what the one at `place` named; returns how many have named it.
    fn add(votes: &mut Vec<Self>, (epoch, named): (u64, T), place: usize) -> usize {
        if let Some(vote) = votes.iter_mut().find(|vote| vote.named == named) {
            (vote.epoch, vote.place) = (vote.epoch.max(epoch), vote.place.min(place));
            vote.count += 1;
            return vote.count;
        }
        votes.push(Self { named, epoch, count: 1, place });
        1
    }

    /// What was named, the likeliest first, and how many of these only the order ranks.
    fn rank(mut votes: Vec<Self>) -> (Vec<T>, usize) {
        votes.sort_by_key(|vote| (Reverse((vote.epoch, vote.count)), vote.place));
        let weight = |vote: &Self| (vote.epoch, vote.count);
        let tied = votes.iter().take_while(|vote| votes.first().map(weight) == Some(weight(vote))).count();
        (votes.into_iter().map(|vote| vote.named).collect(), tied)
    }
}

/// Asks `nodes` all at once, until all have said something, or most of them the same and the others had a moment to say otherwise: after a
/// failover, one may know it before the others. What they name has an epoch: a later one overrules.
async fn ask_all<T, F, A>(nodes: Vec<RedisNode>, ask: F) -> Answers<T>
where
    T: Eq + Send + 'static,
    F: Fn(RedisNode) -> A,
    A: Future<Output = Result<Option<(u64, T)>, RedisError>> + Send + 'static,
{
    let asked = nodes.len().min(MAX_ASKED);
    let mut tasks = JoinSet::new();
    for (place, node) in nodes.into_iter().take(MAX_ASKED).enumerate() {
        let answer = timeout(ASK_TIMEOUT, ask(node));
        tasks.spawn(async move { (place, answer.await) });
    }
    let (mut votes, mut without, mut error) = (Vec::new(), 0, None);
    // Each has its own time-out.
    let mut end = Instant::now() + 2 * ASK_TIMEOUT;
    while let Ok(Some(answer)) = timeout_at(end, tasks.join_next()).await {
        match answer {
            Ok((place, Ok(Ok(Some(named))))) => {
                if Vote::add(&mut votes, named, place) * 2 > asked {
                    end = end.min(Instant::now() + OTHERS);
                }
            }
            Ok((_, Ok(Ok(None)))) => without += 1,
            Ok((_, Ok(Err(failure)))) => error = Some(failure.into()),
            Ok((_, Err(_))) => error = error.or(Some(Unanswered::Slow)),
            // It panicked or was aborted.
            Err(_) => {}
        }
    }
    let (named, tied) = Vote::rank(votes);
    Answers { named, tied, without, error }
}

/// The text of a value, if it is one.
fn text(value: &Value) -> Option<&str> {
    match value {
        Value::BulkString(bytes) => std::str::from_utf8(bytes).ok(),
        Value::SimpleString(text) => Some(text),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ranked(named: &[(u64, &'static str)]) -> (Vec<&'static str>, usize) {
        let mut votes = Vec::new();
        for (place, named) in named.iter().enumerate() {
            Vote::add(&mut votes, *named, place);
        }
        Vote::rank(votes)
    }

    #[test]
    fn the_latest_epoch_overrules_then_the_majority_and_else_the_order() {
        assert_eq!(ranked(&[(1, "a"), (1, "a"), (2, "b")]), (vec!["b", "a"], 1));
        assert_eq!(ranked(&[(1, "a"), (1, "b"), (1, "b")]), (vec!["b", "a"], 1));
        for _ in 0..32 {
            assert_eq!(ranked(&[(1, "c"), (1, "a"), (0, "d"), (1, "b")]), (vec!["c", "a", "b", "d"], 3));
        }
        assert_eq!(ranked(&[]), (vec![], 0));
    }
}
