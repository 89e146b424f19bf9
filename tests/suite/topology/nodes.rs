//! Redis servers in a topology.

use std::path::Path;

use redis::{Connection, Value};
use tempfile::TempDir;

use crate::{
    guard::Guarded,
    harness::{eventually, eventually_within},
    redis_server::{RedisServer, cluster_port, free_port},
};

/// What bounds the loss of a failover: docs/operations.md.
const SAFE: [&str; 6] =
    ["--min-replicas-to-write", "1", "--min-replicas-max-lag", "1", "--repl-diskless-sync-delay", "0"];
/// How long a cluster's node may be silent, in milliseconds.
const NODE_TIMEOUT: &str = "1000";

/// The password of servers that Sentinels watch; the Sentinels have none.
const PASSWORD: &str = "secret-of-the-servers";

/// A connection by hand.
fn by_hand(server: &RedisServer) -> Connection {
    let mut connection = redis::Client::open(server.url()).unwrap().get_connection().unwrap();
    // Servers of a cluster want no password, and say so.
    let _ = redis::cmd("AUTH").arg(PASSWORD).query::<()>(&mut connection);
    connection
}

fn ask(server: &RedisServer, words: &[&str]) -> Value {
    try_ask(server, words).unwrap()
}

fn try_ask(server: &RedisServer, words: &[&str]) -> redis::RedisResult<Value> {
    let (command, rest) = words.split_first().unwrap();
    redis::cmd(command).arg(rest).query(&mut by_hand(server))
}

fn text(server: &RedisServer, words: &[&str]) -> String {
    redis::from_redis_value(ask(server, words)).unwrap()
}

fn owned(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

/// A primary, two replicas, and three Sentinels.
pub(super) struct Watched {
    pub(super) servers: Vec<RedisServer>,
    sentinels: Vec<(u16, Guarded)>,
    _directories: Vec<TempDir>,
}

impl Watched {
    pub(super) async fn start(is_safe: bool) -> Self {
        let safe = if is_safe { owned(&SAFE) } else { owned(&SAFE[4..]) };
        let primary = RedisServer::start_with(|_, _| safe.clone());
        let port = primary.address().port().to_string();
        let mut servers = vec![primary];
        for _ in 0..2 {
            let replica = [owned(&["--replicaof", "127.0.0.1", &port]), safe.clone()].concat();
            servers.push(RedisServer::start_with(|_, _| replica.clone()));
        }
        for replica in &servers[1..] {
            eventually("a replica follows", async || {
                text(replica, &["INFO", "replication"]).contains("master_link_status:up")
            })
            .await;
        }
        for server in &servers {
            ask(server, &["CONFIG", "SET", "masterauth", PASSWORD, "requirepass", PASSWORD]);
        }
        let (mut sentinels, mut directories) = (Vec::new(), Vec::new());
        for _ in 0..3 {
            let (directory, own) = (TempDir::new().unwrap(), free_port().port());
            let config = directory.path().join("sentinel.conf");
            let lines = format!(
                "port {own}\nbind 127.0.0.1\ndir {}\nsentinel monitor main 127.0.0.1 {port} 2\n\
                 sentinel auth-pass main {PASSWORD}\n\
                 sentinel down-after-milliseconds main 1000\nsentinel failover-timeout main 6000\n\
                 sentinel parallel-syncs main 2\n",
                directory.path().display()
            );
            std::fs::write(&config, lines).unwrap();
            let arguments = [config.to_str().unwrap(), "--sentinel"];
            let guard = Guarded::start(directory.path(), Path::new("redis-server"), &arguments);
            sentinels.push((own, guard));
            directories.push(directory);
        }
        let watched = Self { servers, sentinels, _directories: directories };
        for index in 0..3 {
            eventually("a Sentinel knows all others", async || watched.knows_all(index)).await;
        }
        watched
    }

    fn knows_all(&self, index: usize) -> bool {
        let count = |what| {
            let answer = self.ask_sentinel(index, &["SENTINEL", what, "main"]);
            matches!(answer, Ok(Value::Array(found)) if found.len() == 2)
        };
        count("SENTINELS") && count("REPLICAS")
    }

    pub(super) fn ask_sentinel(&self, index: usize, words: &[&str]) -> redis::RedisResult<Value> {
        let (command, rest) = words.split_first().unwrap();
        let client = redis::Client::open(format!("redis://127.0.0.1:{}", self.sentinels[index].0))?;
        redis::cmd(command).arg(rest).query(&mut client.get_connection()?)
    }

    /// The port of the primary, as a Sentinel knows it.
    pub(super) fn primary(&self) -> u16 {
        let answer = self.ask_sentinel(0, &["SENTINEL", "GET-MASTER-ADDR-BY-NAME", "main"]).unwrap();
        redis::from_redis_value::<(String, u16)>(answer).unwrap().1
    }

    /// A directory with the file of the password.
    pub(super) fn directory() -> TempDir {
        let directory = TempDir::new().unwrap();
        std::fs::write(directory.path().join("password"), PASSWORD).unwrap();
        directory
    }

    /// How many clients a server has that are neither Sentinels nor replicas.
    pub(super) fn clients(&self, index: usize) -> usize {
        let list = text(&self.servers[index], &["CLIENT", "LIST", "TYPE", "normal"]);
        let is_other = |line: &&str| line.contains("name=sentinel") || line.contains("cmd=client");
        list.lines().filter(|line| !is_other(line)).count()
    }

    /// `redis+sentinel://…`, with all of them.
    pub(super) fn url(&self) -> String {
        let nodes: Vec<_> = self.sentinels.iter().map(|(port, _)| format!("127.0.0.1:{port}")).collect();
        format!("redis+sentinel://{}/main", nodes.join(","))
    }
}

/// Three owners of a third of the slots each, and a replica of each.
pub(super) struct Cluster {
    /// The owners, then their replicas in the same order.
    pub(super) nodes: Vec<RedisServer>,
    pub(super) ids: Vec<String>,
}

impl Cluster {
    pub(super) async fn start() -> Self {
        let common = ["--cluster-enabled", "yes", "--cluster-node-timeout", NODE_TIMEOUT];
        let common = [owned(&common), owned(&["--cluster-replica-validity-factor", "0"])].concat();
        // A replica that is promoted has none of its own here, and is to take writes all the same.
        let options = |index| [owned(if index < 3 { &SAFE } else { &SAFE[4..] }), common.clone()].concat();
        let nodes: Vec<_> =
            (0..6).map(|index| RedisServer::start_at(cluster_port, |_, _| options(index))).collect();
        let ids: Vec<_> = nodes.iter().map(|node| text(node, &["CLUSTER", "MYID"])).collect();
        for (index, node) in nodes.iter().enumerate() {
            ask(node, &["CLUSTER", "SET-CONFIG-EPOCH", &(index + 1).to_string()]);
            if index < 3 {
                let (first, last) = (16_384 * index / 3, 16_384 * (index + 1) / 3 - 1);
                ask(node, &["CLUSTER", "ADDSLOTSRANGE", &first.to_string(), &last.to_string()]);
            }
            let port = nodes[0].address().port().to_string();
            if index > 0 {
                ask(node, &["CLUSTER", "MEET", "127.0.0.1", &port]);
            }
        }
        let cluster = Self { nodes, ids };
        for node in &cluster.nodes {
            eventually("a node knows all others", async || {
                text(node, &["CLUSTER", "INFO"]).contains("cluster_known_nodes:6")
            })
            .await;
        }
        for (replica, id) in cluster.nodes[3..].iter().zip(&cluster.ids) {
            eventually("a replica has an owner", async || {
                try_ask(replica, &["CLUSTER", "REPLICATE", id]).is_ok()
            })
            .await;
        }
        for replica in &cluster.nodes[3..] {
            eventually("a replica follows", async || {
                text(replica, &["INFO", "replication"]).contains("master_link_status:up")
            })
            .await;
        }
        for node in &cluster.nodes {
            eventually("the cluster is up, and each knows the replicas", async || {
                let all = text(node, &["CLUSTER", "NODES"]);
                text(node, &["CLUSTER", "INFO"]).contains("cluster_state:ok")
                    && all.lines().filter(|line| line.contains("slave")).count() == 3
            })
            .await;
        }
        cluster
    }

    /// The number of the owner of an organization's slot, and the slot.
    pub(super) fn owner(&self, organization: &str) -> (usize, u16) {
        let slot = ask(&self.nodes[0], &["CLUSTER", "KEYSLOT", organization]);
        let slot: u16 = redis::from_redis_value(slot).unwrap();
        let owner = (0..3).find(|index| usize::from(slot) < 16_384 * (index + 1) / 3).unwrap();
        (owner, slot)
    }

    /// Some of its nodes, as a store's address.
    pub(super) fn url(&self, seeds: &[usize]) -> String {
        let nodes: Vec<_> = seeds.iter().map(|index| self.nodes[*index].address().to_string()).collect();
        format!("redis+cluster://{}", nodes.join(","))
    }

    /// Waits until this node is an owner.
    pub(super) async fn promoted(&self, index: usize) {
        eventually_within(std::time::Duration::from_secs(20), "the replica is promoted", async || {
            text(&self.nodes[index], &["INFO", "replication"]).contains("role:master")
        })
        .await;
    }

    /// Moves a slot with its keys from one owner to another, as `redis-cli --cluster reshard` does.
    pub(super) fn reshard(&self, slot: u16, from: usize, to: usize) -> usize {
        let number = slot.to_string();
        let (source, target) = (&self.nodes[from], &self.nodes[to]);
        ask(target, &["CLUSTER", "SETSLOT", &number, "IMPORTING", &self.ids[from]]);
        ask(source, &["CLUSTER", "SETSLOT", &number, "MIGRATING", &self.ids[to]]);
        let port = target.address().port().to_string();
        let mut moved = 0;
        loop {
            let keys = ask(source, &["CLUSTER", "GETKEYSINSLOT", &number, "3"]);
            let keys: Vec<String> = redis::from_redis_value(keys).unwrap();
            if keys.is_empty() {
                break;
            }
            moved += keys.len();
            let start = ["MIGRATE", "127.0.0.1", &port, "", "0", "5000", "KEYS"];
            let keys: Vec<&str> = start.into_iter().chain(keys.iter().map(String::as_str)).collect();
            ask(source, &keys);
        }
        for node in [target, source] {
            ask(node, &["CLUSTER", "SETSLOT", &number, "NODE", &self.ids[to]]);
        }
        moved
    }
}
