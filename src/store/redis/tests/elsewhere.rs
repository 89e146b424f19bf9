//! Servers that name each other: a slot that is being moved, Sentinels that disagree, and a server that wants a login.

use std::{net::TcpListener, process::Child};

use redis::{Connection as ByHand, Value};

use super::{server::Server, *};
use crate::store::redis::{
    dialer::{Address, Dialer},
    keeper::{Purpose, Target, connect},
    locator::Locator,
};

pub(super) fn ask(by_hand: &mut ByHand, words: &[&str]) -> Value {
    let (command, rest) = words.split_first().unwrap();
    redis::cmd(command).arg(rest).query(by_hand).unwrap()
}

pub(super) fn text(by_hand: &mut ByHand, words: &[&str]) -> String {
    redis::from_redis_value(ask(by_hand, words)).unwrap()
}

pub(super) fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < Duration::from_secs(20), "{what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn port(server: &Server) -> String {
    server.url().rsplit(':').next().unwrap().to_owned()
}

fn store_at(url: &str) -> RedisStore {
    RedisStore::connect(settings_at(url, "acme"), Clock::Manual(ManualClock::new(NOW))).unwrap()
}

pub(super) fn settings_at(url: &str, organization: &str) -> RedisSettings {
    RedisSettings {
        url: url.parse().unwrap(),
        access: RedisAccess::default(),
        organization: organization.into(),
        deadline: Duration::from_millis(400),
        layout: LayoutGate::default(),
        unreported: Unreported::default(),
        replay: ReplaySettings::default(),
    }
}

/// The connections of others than this test to a server, by their numbers.
pub(super) fn connections_to(server: &Server) -> Vec<String> {
    let list = text(&mut server.by_hand(), &["CLIENT", "LIST", "TYPE", "normal"]);
    // A node keeps the connection over which it has moved keys for a while.
    let is_other = |line: &&str| !line.contains("cmd=client") && !line.contains("cmd=restore");
    let others = list.lines().filter(is_other);
    let mut ids: Vec<_> = others.map(|line| line.split(' ').next().unwrap().to_owned()).collect();
    ids.sort();
    ids
}

/// Two nodes of a cluster. The first owns all slots, and moves that of the organization to the second, key by key.
pub(super) struct Move {
    pub(super) from: Server,
    pub(super) to: Server,
    slot: String,
    ids: [String; 2],
}

impl Move {
    pub(super) fn start(more: &[&str]) -> Option<Self> {
        let start = |bus: u16| {
            let bus = bus.to_string();
            let arguments = ["--cluster-enabled", "yes", "--cluster-port", &bus];
            Server::start_with(&[&arguments[..], more].concat())
        };
        let bus = free_port();
        let (from, to) = (start(free_port())?, start(bus)?);
        let (mut a, mut b) = (from.by_hand(), to.by_hand());
        for (by_hand, epoch) in [(&mut a, "1"), (&mut b, "2")] {
            ask(by_hand, &["CLUSTER", "SET-CONFIG-EPOCH", epoch]);
        }
        ask(&mut a, &["CLUSTER", "ADDSLOTSRANGE", "0", "16383"]);
        ask(&mut a, &["CLUSTER", "MEET", "127.0.0.1", &port(&to), &bus.to_string()]);
        let is_up = |by_hand: &mut ByHand| {
            let info = text(by_hand, &["CLUSTER", "INFO"]);
            info.contains("cluster_state:ok") && info.contains("cluster_known_nodes:2")
        };
        until("the cluster is up", || is_up(&mut a) && is_up(&mut b));
        let slot: i64 = redis::from_redis_value(ask(&mut a, &["CLUSTER", "KEYSLOT", "acme"])).unwrap();
        let ids = [text(&mut a, &["CLUSTER", "MYID"]), text(&mut b, &["CLUSTER", "MYID"])];
        Some(Self { from, to, slot: slot.to_string(), ids })
    }

    /// Moves the keys, and leaves the slot where it is.
    pub(super) fn move_keys(&self) {
        let (mut from, mut to) = (self.from.by_hand(), self.to.by_hand());
        ask(&mut to, &["CLUSTER", "SETSLOT", &self.slot, "IMPORTING", &self.ids[0]]);
        ask(&mut from, &["CLUSTER", "SETSLOT", &self.slot, "MIGRATING", &self.ids[1]]);
        let keys = ask(&mut from, &["CLUSTER", "GETKEYSINSLOT", &self.slot, "1000"]);
        let keys: Vec<String> = redis::from_redis_value(keys).unwrap();
        assert!(!keys.is_empty());
        let port = port(&self.to);
        let start = ["MIGRATE", "127.0.0.1", &port, "", "0", "5000", "KEYS"];
        let words: Vec<&str> = start.into_iter().chain(keys.iter().map(String::as_str)).collect();
        ask(&mut from, &words);
    }

    pub(super) fn move_slot(&self) {
        for server in [&self.to, &self.from] {
            ask(&mut server.by_hand(), &["CLUSTER", "SETSLOT", &self.slot, "NODE", &self.ids[1]]);
        }
    }

    /// The connections of the store to the owner, by their numbers.
    fn connections(&self) -> Vec<String> {
        connections_to(&self.from)
    }

    pub(super) fn url(&self) -> String {
        format!("redis+cluster://127.0.0.1:{}", port(&self.from))
    }
}

/// With the address in redirections and without it, which then is that of the node that was asked.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_follow_keys_before_their_slot_has_moved() {
    for more in [&[][..], &["--cluster-preferred-endpoint-type", "unknown-endpoint"]] {
        let Some(cluster) = Move::start(more) else { return };
        let store = store_at(&cluster.url());
        until_up(&store).await;
        let id = ReservationId([1; 16]);
        store.reserve(request(1, vec![hold("w", WINDOW, 100, 0, 6)])).await.unwrap();
        let before = cluster.connections();
        cluster.move_keys();
        for _ in 0..3 {
            assert!(store.find(id).await.unwrap().is_some(), "{more:?}");
        }
        let errors = text(&mut cluster.from.by_hand(), &["INFO", "errorstats"]);
        assert!(errors.contains("errorstat_ASK:count=3"), "{errors}");
        assert_eq!(cluster.connections(), before, "the owner is still asked first");
        cluster.move_slot();
        until_up(&store).await;
        assert!(store.find(id).await.unwrap().is_some(), "{more:?}");
        store.reserve(request(2, vec![hold("w", WINDOW, 100, 0, 6)])).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_keys_have_moved_to_and_that_fails_costs_no_connection_to_their_owner() {
    let Some(mut cluster) = Move::start(&[]) else { return };
    let store = store_at(&cluster.url());
    until_up(&store).await;
    let id = ReservationId([1; 16]);
    store.reserve(request(1, vec![hold("w", WINDOW, 100, 0, 6)])).await.unwrap();
    cluster.move_keys();
    assert!(store.find(id).await.unwrap().is_some());
    let before = cluster.connections();
    cluster.to.signal("-STOP");
    // More than are silence.
    for _ in 0..5 {
        assert_eq!(store.find(id).await, Err(StoreError::Unavailable));
    }
    assert_eq!(cluster.connections(), before);
    cluster.to.signal("-CONT");
    let start = Instant::now();
    while store.find(id).await.is_err() {
        assert!(start.elapsed() < Duration::from_secs(10), "it is not asked again");
    }
    cluster.to.kill();
    for _ in 0..5 {
        assert_eq!(store.find(id).await, Err(StoreError::Unavailable));
    }
    assert_eq!(cluster.connections(), before);
}

/// A Sentinel that knows no other one.
pub(super) struct Sentinel {
    child: Child,
    pub(super) port: u16,
    _directory: tempfile::TempDir,
}

impl Sentinel {
    pub(super) fn start(primary: &Server, epoch: u64) -> Self {
        let (directory, own) = (tempfile::tempdir().unwrap(), free_port());
        let config = directory.path().join("sentinel.conf");
        let lines = format!(
            "port {own}\nbind 127.0.0.1\ndir {}\nsentinel monitor main 127.0.0.1 {} 1\n\
             sentinel config-epoch main {epoch}\n",
            directory.path().display(),
            port(primary)
        );
        std::fs::write(&config, lines).unwrap();
        let mut command = std::process::Command::new("redis-server");
        command.arg(&config).arg("--sentinel").stdout(std::process::Stdio::null());
        let child = command.stderr(std::process::Stdio::null()).spawn().unwrap();
        let sentinel = Self { child, port: own, _directory: directory };
        until("the Sentinel listens", || std::net::TcpStream::connect(("127.0.0.1", own)).is_ok());
        sentinel
    }
}

impl Drop for Sentinel {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn sentinels(all: &[&Sentinel]) -> Locator {
    let nodes: Vec<_> = all.iter().map(|sentinel| format!("127.0.0.1:{}", sentinel.port)).collect();
    let url: RedisUrl = format!("redis+sentinel://{}/main", nodes.join(",")).parse().unwrap();
    let dialer = Dialer::new(&url, RedisAccess::default());
    Locator::new(&url.place, dialer, "")
}

fn address(server: &Server) -> Address {
    Address::Node(RedisNode { host: "127.0.0.1".to_owned(), port: port(server).parse().unwrap() })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_sentinels_disagree_the_latest_failover_counts_and_else_the_one_in_use() {
    let (Some(one), Some(two)) = (Server::start(), Server::start()) else { return };
    let (first, second) = (address(&one), address(&two));
    let [a, b] = [Sentinel::start(&one, 3), Sentinel::start(&two, 3)];
    for _ in 0..8 {
        let tied = sentinels(&[&a, &b]);
        assert_eq!(tied.candidates().await.unwrap(), [first.clone(), second.clone()]);
        assert_eq!(sentinels(&[&b, &a]).candidates().await.unwrap(), [second.clone(), first.clone()]);
        assert!(!tied.is_elsewhere(&first).await && !tied.is_elsewhere(&second).await);
        assert!(tied.is_elsewhere(&Address::Socket("/elsewhere".into())).await);
    }
    // Two that do not know of it yet are overruled.
    let (c, later) = (Sentinel::start(&one, 3), Sentinel::start(&two, 4));
    for _ in 0..8 {
        let told = sentinels(&[&a, &c, &later]);
        assert_eq!(told.candidates().await.unwrap(), [second.clone(), first.clone()]);
        assert!(told.is_elsewhere(&first).await && !told.is_elsewhere(&second).await);
    }
}

/// It closes the connection on a script before a login, and a client that is writing then may hear of nothing but that.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_wants_a_login_is_known_by_that() {
    let Some(server) = Server::start_with(&["--requirepass", "secret"]) else { return };
    let url: RedisUrl = server.url().parse().unwrap();
    let dialer = Dialer::new(&url, RedisAccess::default());
    let target = Target {
        locator: Arc::new(Locator::new(&url.place, dialer.clone(), "")),
        dialer,
        purpose: Purpose::Organization { meta: "meta".to_owned(), counters: "counters".to_owned() },
        layout: LayoutGate::default(),
        span: tracing::Span::none(),
    };
    let start = Instant::now();
    while std::net::TcpStream::connect(format!("127.0.0.1:{}", port(&server))).is_err() {
        assert!(start.elapsed() < Duration::from_secs(10), "it does not listen");
    }
    for turn in 0..50 {
        let refused = connect(&target, None).await.err().expect("no login, no connection");
        assert!(refused.is_login_refused(), "{turn}: {refused}");
    }
}
