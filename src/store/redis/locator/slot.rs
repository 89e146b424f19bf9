//! Which node of a cluster owns a slot.

use std::sync::{Mutex, PoisonError};

use redis::{RedisError, Value};

use super::super::dialer::{Address, Dialer};
use super::{LocateError, MAX_ASKED, Unanswered, ask_all, text};
use crate::syntax::redis_url::RedisNode;

/// The slots of every cluster.
const SLOTS: u16 = 16_384;

/// A slot, and the nodes that know who owns it.
pub(in super::super) struct Slot {
    dialer: Dialer,
    number: u16,
    /// Those of the settings.
    seeds: Vec<RedisNode>,
    /// Those that others named when they were last asked. Locked for an assignment at a time.
    known: Mutex<Vec<RedisNode>>,
}

/// Who owns the slot, as one node sees it, and all nodes that it named.
type View = (Option<RedisNode>, Vec<RedisNode>);

impl Slot {
    pub(super) const fn new(dialer: Dialer, seeds: Vec<RedisNode>, number: u16) -> Self {
        Self { dialer, number, seeds, known: Mutex::new(Vec::new()) }
    }

    /// The owners that nodes name, the likeliest first, and how many of these are equally likely: while one is replaced, or beside one that
    /// is cut off, there may be two.
    pub(super) async fn owners(&self) -> Result<(Vec<RedisNode>, usize), LocateError> {
        let (nodes, number) = (self.asked(), self.number);
        let (found, mut learnt) = tokio::sync::mpsc::channel(MAX_ASKED);
        let ask = |node| {
            let (dialer, found) = (self.dialer.clone(), found.clone());
            async move {
                let (owner, nodes) = view_of(&dialer, node, number).await?;
                // It has room for one of each.
                let _ = found.try_send(nodes);
                // `CLUSTER SLOTS`, which needs the least of an ACL, tells no epoch.
                Ok(owner.map(|owner| (0, owner)))
            }
        };
        let answers = ask_all(nodes, ask).await;
        let mut known = Vec::new();
        while let Ok(nodes) = learnt.try_recv() {
            known.extend(nodes.into_iter().filter(|node| !self.seeds.contains(node)));
        }
        known.sort_by(|a: &RedisNode, b| (&a.host, a.port).cmp(&(&b.host, b.port)));
        known.dedup();
        if !known.is_empty() {
            *self.known.lock().unwrap_or_else(PoisonError::into_inner) = known;
        }
        match (answers.named.is_empty(), answers.without, answers.error) {
            (false, ..) => Ok((answers.named, answers.tied)),
            (true, 1.., _) => Err(LocateError::NoOwner(self.number)),
            (true, 0, error) => Err(LocateError::NoNode(error.unwrap_or(Unanswered::Slow))),
        }
    }

    /// The nodes to ask: those of the settings, and others that are known.
    fn asked(&self) -> Vec<RedisNode> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        self.seeds.iter().chain(&*known).take(MAX_ASKED).cloned().collect()
    }
}

async fn view_of(dialer: &Dialer, node: RedisNode, slot: u16) -> Result<View, RedisError> {
    let mut connection = dialer.connect(&Address::Node(node.clone())).await?;
    let mut cmd = redis::cmd("CLUSTER");
    cmd.arg("SLOTS");
    let answer = connection.send_packed_command(&cmd).await?;
    // Others that ask it now may do so over the same link. It ends with the last.
    let _link = connection.sound();
    let answer = answer.extract_error()?;
    Ok(view(&answer, slot, &node.host))
}

/// Reads `[[first, last, [host, port, …], [host, port, …] …] …]`. No host, or an unknown one, is that of the node that was asked.
fn view(answer: &Value, slot: u16, asked: &str) -> View {
    let (mut owner, mut nodes) = (None, Vec::new());
    let Value::Array(ranges) = answer else { return (None, nodes) };
    for range in ranges {
        let Value::Array(range) = range else { continue };
        let [Value::Int(first), Value::Int(last), servers @ ..] = range.as_slice() else { continue };
        let servers: Vec<_> = servers.iter().filter_map(|server| node_of(server, asked)).collect();
        if (*first..=*last).contains(&i64::from(slot)) {
            owner = servers.first().cloned();
        }
        nodes.extend(servers);
    }
    (owner, nodes)
}

fn node_of(server: &Value, asked: &str) -> Option<RedisNode> {
    let Value::Array(server) = server else { return None };
    let [host, Value::Int(port), ..] = server.as_slice() else { return None };
    let host = text(host).filter(|host| !host.is_empty() && *host != "?").unwrap_or(asked);
    Some(RedisNode { host: host.to_owned(), port: u16::try_from(*port).ok().filter(|port| *port > 0)? })
}

/// The slot of a key: that of its hash tag, if it has one.
pub(in super::super) fn slot_of(key: &str) -> u16 {
    let tag = key.split_once('{').and_then(|(_, rest)| rest.split_once('}')).map(|(tag, _)| tag);
    let hashed = tag.filter(|tag| !tag.is_empty()).unwrap_or(key);
    crc16(hashed.as_bytes()) % SLOTS
}

/// The check sum of Redis Cluster: CRC-16/XMODEM.
fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |crc, byte| {
        (0..8).fold(crc ^ (u16::from(*byte) << 8), |crc: u16, _| {
            if crc & 0x8000 == 0 { crc << 1 } else { (crc << 1) ^ 0x1021 }
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_those_of_the_specification() {
        // The check value of the specification, and slots as `CLUSTER KEYSLOT` tells them.
        assert_eq!(crc16(b"123456789"), 0x31c3);
        for (key, slot) in [("foo", 12182), ("somekey", 11058), ("{user1000}.following", slot_of("user1000"))]
        {
            assert_eq!(slot_of(key), slot, "{key}");
        }
        assert_eq!(slot_of("foo{}{bar}"), crc16(b"foo{}{bar}") % SLOTS, "an empty tag is none");
        assert_eq!(slot_of("foo{{bar}}zap"), slot_of("{bar"));
    }

    #[test]
    fn views_are_read() {
        let host = |text: &str| Value::BulkString(text.as_bytes().to_vec());
        let server =
            |name: Value, port| Value::Array(vec![name, Value::Int(port), host("id"), Value::Array(vec![])]);
        let range = |first, last, servers: Vec<Value>| {
            Value::Array([vec![Value::Int(first), Value::Int(last)], servers].concat())
        };
        let answer = Value::Array(vec![
            range(0, 99, vec![server(host("a"), 1), server(Value::Nil, 2)]),
            range(100, 16_383, vec![server(host(""), 3), server(host("b"), 0)]),
            Value::Nil,
        ]);
        let node = |host: &str, port| RedisNode { host: host.to_owned(), port };
        let nodes = vec![node("a", 1), node("asked", 2), node("asked", 3)];
        assert_eq!(view(&answer, 99, "asked"), (Some(node("a", 1)), nodes.clone()));
        assert_eq!(view(&answer, 100, "asked"), (Some(node("asked", 3)), nodes));
        assert_eq!(view(&Value::Array(vec![]), 5, "asked"), (None, vec![]));
    }
}
