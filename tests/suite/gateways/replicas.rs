//! A gateway before two replicas on one Redis: both get calls, and one that ends takes none of the gateway's requests with it.

use std::{
    net::SocketAddr,
    path::Path,
    sync::atomic::{AtomicU32, Ordering},
};

use serde_json::json;
use tempfile::TempDir;
use tokio::task::JoinSet;

use super::{
    Language,
    running::{Gateway, chat, policy, serves, settled},
};
use crate::{
    envoy::http::Request,
    harness::{Process, eventually},
    redis_server::{RedisServer, free_port},
    support::mock_groq::{MockGroq, UPSTREAM_KEY},
};

struct Replica {
    process: Process,
    metrics: SocketAddr,
}

impl Replica {
    async fn start(directory: &Path, store: &str) -> Self {
        let metrics = free_port();
        let (store, admin) = (format!("--store={store}"), format!("--admin={metrics}"));
        let arguments = [&*store, "--store-timeout=20s", &admin];
        let key = [("GROQ_API_KEY", Path::new(UPSTREAM_KEY))];
        let process = Process::start_environment(directory, &policy(), &arguments, &key).await;
        serves(&process).await;
        Self { process, metrics }
    }

    /// The decisions and settlements that it has answered.
    async fn answered(&self) -> u64 {
        let page = Request::new("GET", "/metrics").send(self.metrics).await.text();
        let is_counted = |line: &&str| {
            ["tollgate_decisions_total{", "tollgate_settlements_total{"]
                .iter()
                .any(|name| line.starts_with(name))
        };
        let rows = page.lines().filter(is_counted);
        rows.map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()).sum()
    }
}

/// Sends requests, some at a time, which all succeed.
async fn send(gateway: SocketAddr, count: u32) {
    static SENT: AtomicU32 = AtomicU32::new(0);
    let mut asked = JoinSet::new();
    for _ in 0..count {
        let tokens = 1 + SENT.fetch_add(1, Ordering::Relaxed) % 40;
        let request = chat("roomy", &json!({"completion_tokens": tokens}), &json!({}));
        asked.spawn(async move { request.send(gateway).await });
        while asked.len() >= 4 {
            let answer = asked.join_next().await.unwrap().unwrap();
            assert_eq!(answer.status, 200, "{}", answer.text());
        }
    }
    for answer in asked.join_all().await {
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
}

/// What each has answered, once that is `calls` together: two for each request.
async fn counted(one: &Replica, other: &Replica, calls: u64) -> [u64; 2] {
    let mut counts = [0; 2];
    eventually("all calls are counted", async || {
        counts = [one.answered().await, other.answered().await];
        counts.iter().sum::<u64>() == calls
    })
    .await;
    counts
}

pub(super) async fn share_the_calls(language: Language) {
    if !tokio::task::spawn_blocking(move || language.is_available()).await.unwrap() {
        return;
    }
    let (redis, directories) = (RedisServer::start(), [TempDir::new().unwrap(), TempDir::new().unwrap()]);
    let mock = MockGroq::start().await;
    let one = Replica::start(directories[0].path(), &redis.url()).await;
    let other = Replica::start(directories[1].path(), &redis.url()).await;
    let both = format!("ipv4:{},{}", one.process.address(), other.process.address());
    let groq = format!("http://{}", mock.address());
    let known = [("TOLLGATE_ADDRESS", both.as_str()), ("GROQ_BASE_URL", groq.as_str())];
    let gateway = Gateway::start(language, &directories[0], &known).await;

    // The first ones may come before the second connection is there.
    send(gateway.address, 10).await;
    let before = counted(&one, &other, 20).await;
    send(gateway.address, 40).await;
    let after = counted(&one, &other, 100).await;
    let of = [after[0] - before[0], after[1] - before[1]];
    assert!(of.iter().all(|share| (30..=50).contains(share)), "{of:?} of 80 calls");
    assert_eq!(settled(&one.process).await, mock.ledger().nanos);

    other.process.stop().await;
    send(gateway.address, 40).await;
    eventually("all is reported", async || settled(&one.process).await == mock.ledger().nanos).await;
    assert_eq!(mock.ledger().requests, 90);
}
