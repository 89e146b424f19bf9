//! Redis servers in a topology.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use redis::{Connection, Value};
use tempfile::TempDir;

use crate::{
    guard::Guarded,
    harness::{eventually, eventually_within},
    redis_server::{RedisServer, cluster_port, free_port, signal},
};

/// What bounds the loss of a failover: docs/operations.md.
const SAFE: [&str; 6] =
    ["--min-replicas-to-write", "1", "--min-replicas-max-lag", "1", "--repl-diskless-sync-delay", "0"];
/// How long a cluster's node may be silent, in milliseconds.
const NODE_TIMEOUT: &str = "1000";

/// The password of servers that Sentinels watch; the Sentinels have none.
const PASSWORD: &str = "secret-of-the-servers";

/// How long a Sentinel may take that is asked.
const ASK_TIMEOUT: Duration = Duration::from_secs(1);
/// How long it takes at most until all is as before a fault.
const SETTLED: Duration = Duration::from_secs(60);

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
pub(crate) struct Watched {
    pub(crate) servers: Vec<RedisServer>,
    sentinels: Vec<(u16, Guarded)>,
    directories: Vec<TempDir>,
    /// Those of Sentinels that were killed: their end takes the directory with it.
    former: Vec<Guarded>,
}

impl Watched {
    pub(crate) async fn start(is_safe: bool) -> Self {
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
        let watched = Self { servers, sentinels, directories, former: Vec::new() };
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

    pub(crate) fn ask_sentinel(&self, index: usize, words: &[&str]) -> redis::RedisResult<Value> {
        let (command, rest) = words.split_first().unwrap();
        let client = redis::Client::open(format!("redis://127.0.0.1:{}", self.sentinels[index].0))?;
        let connection = &mut client.get_connection_with_timeout(ASK_TIMEOUT)?;
        // It may stand still.
        connection.set_read_timeout(Some(ASK_TIMEOUT))?;
        redis::cmd(command).arg(rest).query(connection)
    }

    /// The number of the primary, as soon as a Sentinel that answers knows it.
    pub(crate) async fn primary_index(&self) -> usize {
        let mut found = None;
        eventually("a Sentinel names the primary", async || {
            let port = self.named();
            found = self.servers.iter().position(|server| Some(server.address().port()) == port);
            found.is_some()
        })
        .await;
        found.unwrap()
    }

    /// The port of the primary, as the first Sentinel knows it that answers.
    pub(crate) fn named(&self) -> Option<u16> {
        let words = ["SENTINEL", "GET-MASTER-ADDR-BY-NAME", "main"];
        let answer = (0..3).find_map(|index| self.ask_sentinel(index, &words).ok())?;
        redis::from_redis_value::<(String, u16)>(answer).ok().map(|(_, port)| port)
    }

    /// Starts a server again that died: empty, until it has followed the primary.
    pub(crate) fn revive(&mut self, index: usize) {
        assert!(self.servers[index].restart());
        ask(&self.servers[index], &["CONFIG", "SET", "masterauth", PASSWORD, "requirepass", PASSWORD]);
    }

    /// Sends a signal to a Sentinel; returns its process.
    pub(crate) fn signal_sentinel(&self, index: usize, name: &str) -> String {
        let info = self.ask_sentinel(index, &["INFO", "server"]).unwrap();
        let info: String = redis::from_redis_value(info).unwrap();
        let pid = info.lines().find_map(|line| line.strip_prefix("process_id:")).unwrap().trim().to_owned();
        signal(&pid, name);
        pid
    }

    /// Starts a Sentinel again that was killed.
    pub(crate) fn revive_sentinel(&mut self, index: usize) {
        let directory = self.directories[index].path();
        let config = directory.join("sentinel.conf");
        let guard =
            Guarded::start(directory, Path::new("redis-server"), &[config.to_str().unwrap(), "--sentinel"]);
        self.former.push(std::mem::replace(&mut self.sentinels[index].1, guard));
    }

    /// Waits until all servers and Sentinels are as before a fault: who follows whom may be another.
    pub(crate) async fn settled(&self) {
        eventually_within(SETTLED, "the servers follow and the Sentinels agree", async || {
            let Some(primary) = self.named() else { return false };
            let agree = (0..3).all(|index| {
                let words = ["SENTINEL", "GET-MASTER-ADDR-BY-NAME", "main"];
                let answer = self.ask_sentinel(index, &words).ok();
                let port = answer.and_then(|answer| redis::from_redis_value::<(String, u16)>(answer).ok());
                port.is_some_and(|(_, port)| port == primary)
                    && self.ask_sentinel(index, &["SENTINEL", "CKQUORUM", "main"]).is_ok()
            });
            let server = self.servers.iter().find(|server| server.address().port() == primary);
            agree
                && server.is_some_and(|server| {
                    let info = try_ask(server, &["INFO", "replication"]).ok();
                    let info = info.and_then(|info| redis::from_redis_value::<String>(info).ok());
                    info.is_some_and(|info| info.matches("state=online").count() == 2)
                })
        })
        .await;
    }

    /// The port of the primary, as a Sentinel knows it.
    pub(crate) fn primary(&self) -> u16 {
        let answer = self.ask_sentinel(0, &["SENTINEL", "GET-MASTER-ADDR-BY-NAME", "main"]).unwrap();
        redis::from_redis_value::<(String, u16)>(answer).unwrap().1
    }

    /// A directory with the file of the password.
    pub(crate) fn directory() -> TempDir {
        let directory = TempDir::new().unwrap();
        std::fs::write(directory.path().join("password"), PASSWORD).unwrap();
        directory
    }

    /// How many clients a server has that are neither Sentinels nor replicas.
    pub(crate) fn clients(&self, index: usize) -> usize {
        let list = text(&self.servers[index], &["CLIENT", "LIST", "TYPE", "normal"]);
        let is_other = |line: &&str| line.contains("name=sentinel") || line.contains("cmd=client");
        list.lines().filter(|line| !is_other(line)).count()
    }

    /// `redis+sentinel://…`, with all of them.
    pub(crate) fn url(&self) -> String {
        let nodes: Vec<_> = self.sentinels.iter().map(|(port, _)| format!("127.0.0.1:{port}")).collect();
        format!("redis+sentinel://{}/main", nodes.join(","))
    }
}

/// Three owners of a third of the slots each, and a replica of each.
pub(crate) struct Cluster {
    /// The owners, then their replicas in the same order.
    pub(crate) nodes: Vec<RedisServer>,
    pub(crate) ids: Vec<String>,
}

impl Cluster {
    pub(crate) async fn start() -> Self {
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
    pub(crate) fn owner(&self, organization: &str) -> (usize, u16) {
        let slot = ask(&self.nodes[0], &["CLUSTER", "KEYSLOT", organization]);
        let slot: u16 = redis::from_redis_value(slot).unwrap();
        let owner = (0..3).find(|index| usize::from(slot) < 16_384 * (index + 1) / 3).unwrap();
        (owner, slot)
    }

    /// Some of its nodes, as a store's address.
    pub(crate) fn url(&self, seeds: &[usize]) -> String {
        let nodes: Vec<_> = seeds.iter().map(|index| self.nodes[*index].address().to_string()).collect();
        format!("redis+cluster://{}", nodes.join(","))
    }

    /// Waits until this node is an owner.
    pub(crate) async fn promoted(&self, index: usize) {
        eventually_within(Duration::from_secs(20), "the replica is promoted", async || {
            text(&self.nodes[index], &["INFO", "replication"]).contains("role:master")
        })
        .await;
    }

    /// What a node says of itself in `CLUSTER NODES`.
    fn own_line(&self, index: usize) -> Option<String> {
        let all = try_ask(&self.nodes[index], &["CLUSTER", "NODES"]).ok()?;
        let all: String = redis::from_redis_value(all).ok()?;
        all.lines().find(|line| line.contains("myself")).map(str::to_owned)
    }

    pub(crate) fn is_owner(&self, index: usize) -> bool {
        self.own_line(index).is_some_and(|line| line.contains("master"))
    }

    /// The numbers of the owners.
    pub(crate) fn owners(&self) -> Vec<usize> {
        (0..6).filter(|index| self.is_owner(*index)).collect()
    }

    /// The one that follows an owner, or the owner of one that follows.
    pub(crate) const fn partner(index: usize) -> usize {
        (index + 3) % 6
    }

    /// The number of the owner of a slot, once a node says that it is.
    pub(crate) async fn owner_now(&self, slot: u16) -> usize {
        let has = |index: usize| {
            let line = self.own_line(index).filter(|line| line.contains("master")).unwrap_or_default();
            line.split(' ').skip(8).any(|range| {
                let (first, last) = range.split_once('-').unwrap_or((range, range));
                first.parse().is_ok_and(|first: u16| first <= slot)
                    && last.parse().is_ok_and(|last: u16| slot <= last)
            })
        };
        let mut found = None;
        eventually("a node owns the slot", async || {
            found = (0..6).find(|index| has(*index));
            found.is_some()
        })
        .await;
        found.unwrap()
    }

    /// Waits until all nodes are as before a fault: who follows whom may be another.
    pub(crate) async fn settled(&self) {
        let started = Instant::now();
        loop {
            let said: Vec<[String; 3]> = self.nodes.iter().map(state).collect();
            let Some(_) = said.iter().find(|said| !is_well(said)) else { break };
            assert!(started.elapsed() < SETTLED, "three own, three follow, and all know it: {said:#?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        // As at the start: one that is promoted has none that follows, and is to take writes all the same.
        for (index, node) in self.nodes.iter().enumerate() {
            let least = if self.is_owner(index) { "1" } else { "0" };
            ask(node, &["CONFIG", "SET", "min-replicas-to-write", least]);
        }
    }

    /// Moves a slot with its keys from one owner to another, as `redis-cli --cluster reshard` does.
    pub(crate) fn reshard(&self, slot: u16, from: usize, to: usize) -> usize {
        let number = slot.to_string();
        let (source, target) = (&self.nodes[from], &self.nodes[to]);
        ask(target, &["CLUSTER", "SETSLOT", &number, "IMPORTING", &self.ids[from]]);
        ask(source, &["CLUSTER", "SETSLOT", &number, "MIGRATING", &self.ids[to]]);
        let port = target.address().port().to_string();
        let (started, mut moved) = (Instant::now(), 0);
        loop {
            let keys = ask(source, &["CLUSTER", "GETKEYSINSLOT", &number, "3"]);
            let keys: Vec<String> = redis::from_redis_value(keys).unwrap();
            if keys.is_empty() {
                break;
            }
            let start = ["MIGRATE", "127.0.0.1", &port, "", "0", "5000", "KEYS"];
            let words: Vec<&str> = start.into_iter().chain(keys.iter().map(String::as_str)).collect();
            match try_ask(source, &words) {
                Ok(_) => moved += keys.len(),
                // On a busy machine followers lag, and neither takes writes until they have caught up.
                Err(error) => {
                    let lags = error.to_string().contains("NOREPLICAS");
                    assert!(lags && started.elapsed() < SETTLED, "the slot cannot be moved: {error}");
                    std::thread::sleep(Duration::from_millis(20));
                }
            }
        }
        for node in [target, source] {
            ask(node, &["CLUSTER", "SETSLOT", &number, "NODE", &self.ids[to]]);
        }
        moved
    }
}

/// What a node of a cluster knows of all, of the cluster, and of who follows it.
fn state(node: &RedisServer) -> [String; 3] {
    let words = [&["CLUSTER", "NODES"][..], &["CLUSTER", "INFO"], &["INFO", "replication"]];
    words.map(|words| {
        let answer = try_ask(node, words).ok();
        answer.and_then(|answer| redis::from_redis_value(answer).ok()).unwrap_or_default()
    })
}

fn is_well([nodes, cluster, replication]: &[String; 3]) -> bool {
    nodes.lines().filter(|line| line.contains("master")).count() == 3
        && !nodes.contains("fail")
        && cluster.contains("cluster_state:ok")
        && (!replication.contains("role:slave") || replication.contains("master_link_status:up"))
}
