//! Which server is the primary, as Sentinels say.

use redis::{Pipeline, RedisError, Value};
use tokio::time::timeout;

use super::super::{
    dialer::{Address, Dialer, Link},
    fault::{self, Remedy},
};
use super::{ASK_TIMEOUT, LocateError, Unanswered, ask_all, text};
use crate::syntax::redis_url::RedisNode;

/// The Sentinels of a primary.
pub(in super::super) struct Sentinels {
    dialer: Dialer,
    sentinels: Vec<RedisNode>,
    primary: String,
}

impl Sentinels {
    pub(super) const fn new(dialer: Dialer, sentinels: Vec<RedisNode>, primary: String) -> Self {
        Self { dialer, sentinels, primary }
    }

    /// The primaries that Sentinels name, the likeliest first, and how many of these are equally likely: during a failover, or beside one
    /// that is cut off, there may be two.
    pub(super) async fn primaries(&self) -> Result<(Vec<RedisNode>, usize), LocateError> {
        let ask = |node| {
            let (dialer, primary) = (self.dialer.clone(), self.primary.clone());
            async move { named_by(&dialer, node, &primary).await }
        };
        let answers = ask_all(self.sentinels.clone(), ask).await;
        match (answers.named.is_empty(), answers.without, answers.error) {
            (false, ..) => Ok((answers.named, answers.tied)),
            (true, 1.., _) => Err(LocateError::UnknownPrimary(self.primary.clone())),
            (true, 0, error) => Err(LocateError::NoSentinel(error.unwrap_or(Unanswered::Slow))),
        }
    }

    /// Whether the Sentinel whose `turn` it is names another primary than that at `address`. One that does not answer suspects nothing.
    pub(super) async fn suspects(&self, address: &Address, turn: usize) -> bool {
        let Some(node) = turn.checked_rem(self.sentinels.len()).and_then(|turn| self.sentinels.get(turn))
        else {
            return false;
        };
        let named = timeout(ASK_TIMEOUT, named_by(&self.dialer, node.clone(), &self.primary)).await;
        matches!(named, Ok(Ok(Some((_, named)))) if Address::Node(named.clone()) != *address)
    }
}

/// The primary that this Sentinel names, if it knows one, and the epoch of the failover that made it one: each has a later epoch than those
/// before it.
async fn named_by(
    dialer: &Dialer,
    sentinel: RedisNode,
    primary: &str,
) -> Result<Option<(u64, RedisNode)>, RedisError> {
    let mut connection = dialer.connect_to_sentinel(&Address::Node(sentinel)).await?;
    let mut pipeline = Pipeline::new();
    for words in ["GET-MASTER-ADDR-BY-NAME", "MASTER"] {
        pipeline.cmd("SENTINEL").arg(words).arg(primary);
    }
    let mut answers = connection.send_packed_commands(&pipeline, 0, pipeline.len()).await?.into_iter();
    // Others that ask it now may do so over the same link. It ends with the last.
    let _link = connection.sound();
    let Value::Array(answer) = answers.next().unwrap_or(Value::Nil).extract_error()? else { return Ok(None) };
    // An ACL may permit only the first.
    let epoch = answers.next().as_ref().and_then(epoch_of).unwrap_or(0);
    let [host, port] = answer.as_slice() else { return Ok(None) };
    let port = text(port).and_then(|port| port.parse().ok());
    let node = text(host).zip(port).map(|(host, port)| RedisNode { host: host.to_owned(), port });
    Ok(node.map(|node| (epoch, node)))
}

/// Reads `config-epoch` in the names and values with which `SENTINEL MASTER` describes a primary.
fn epoch_of(answer: &Value) -> Option<u64> {
    let Value::Array(answer) = answer else { return None };
    let mut pairs = answer.chunks_exact(2);
    let value = pairs.find_map(|pair| match pair {
        [name, value] if text(name) == Some("config-epoch") => text(value),
        _ => None,
    });
    value?.parse().ok()
}

/// Whether the server takes itself for a primary. One whose ACL does not say is believed: it would say so when it is written to.
pub(super) async fn is_primary(connection: &mut Link) -> Result<bool, RedisError> {
    match connection.send_packed_command(&redis::cmd("ROLE")).await.and_then(Value::extract_error) {
        Ok(Value::Array(answer)) => Ok(answer.first().and_then(text) == Some("master")),
        Ok(_) => Ok(true),
        Err(error) if fault::remedy(&error) == Some(Remedy::Operator) => Ok(true),
        Err(error) => Err(error),
    }
}
