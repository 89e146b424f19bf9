//! Many organizations in one process need no more connections to Redis than one.

use std::{
    collections::HashSet,
    time::{Duration, Instant},
};

use tempfile::TempDir;
use tollgate::rpc::proto::{
    AuthorizeRequest, CreateKeyRequest, Decision, RevokeKeyRequest, VirtualKey, authorize_request,
    key_service_client::KeyServiceClient, policy_service_client::PolicyServiceClient,
};
use tonic::transport::Channel;

use super::{policy_of, question, to, token_of};
use crate::{
    harness::{Process, StoreKind, connect, eventually, organization},
    redis_server::{RedisServer, free_port},
    topology::nodes::Cluster,
};

const COUNT: usize = 12;
/// As [`Process`] starts them.
const WORKERS: usize = 2;
/// What has stores of its own beside the workers: the audit log, pages, metrics, alerts, the spool, the record of policies, and the look at
/// what makes Redis unsafe.
const BESIDE: usize = 7;
/// Of each for calls, and for reports.
const MOST: usize = 2 * (WORKERS + BESIDE);

fn ids(count: usize) -> Vec<String> {
    (0..count).map(|_| organization()).collect()
}

async fn start(directory: &TempDir, ids: &[String], store: &str) -> Process {
    let texts: Vec<_> = ids.iter().map(|id| policy_of(id, "")).collect();
    let policies: Vec<_> = ids.iter().zip(&texts).map(|(id, text)| (id.as_str(), text.as_str())).collect();
    let (admin, store) = (format!("--admin={}", free_port()), format!("--store={store}"));
    Process::start_several(directory.path(), &policies, &[&store, &admin, "--store-timeout=1s"]).await
}

async fn is_decided(client: &mut PolicyServiceClient<Channel>, id: &str) -> bool {
    match client.authorize(to("", &token_of(id), question())).await {
        Ok(answer) => answer.into_inner().decision() == Decision::Allowed,
        Err(_) => false,
    }
}

async fn all_are_decided(process: &Process, ids: &[String]) {
    let mut client = process.client().await;
    for id in ids {
        eventually("each is decided for", async || is_decided(&mut client, id).await).await;
    }
}

fn ask<T: redis::FromRedisValue>(server: &RedisServer, words: &[&str]) -> T {
    let mut by_hand = redis::Client::open(server.url()).unwrap().get_connection().unwrap();
    redis::cmd(words[0]).arg(&words[1..]).query(&mut by_hand).unwrap()
}

/// How many connections others than this test have to a server; those of the bus of a cluster and of replicas are none.
fn connections(server: &RedisServer) -> usize {
    let list: String = ask(server, &["CLIENT", "LIST", "TYPE", "normal"]);
    list.lines().filter(|line| !line.contains("cmd=client")).count()
}

/// The same once everything that runs beside has begun: the most that there are within some readings.
async fn settled(server: &RedisServer) -> usize {
    let (start, mut most) = (Instant::now(), 0);
    eventually("some time has passed", async || {
        most = most.max(connections(server));
        start.elapsed() > Duration::from_secs(3)
    })
    .await;
    most
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_organizations_have_the_connections_of_one() {
    if !StoreKind::Redis.is_available() {
        return;
    }
    let mut counts = Vec::new();
    for count in [1, COUNT] {
        let (redis, directory, ids) = (RedisServer::start(), TempDir::new().unwrap(), ids(count));
        let process = start(&directory, &ids, &redis.url()).await;
        all_are_decided(&process, &ids).await;
        counts.push(settled(&redis).await);
        process.stop().await;
    }
    println!("connections of 1 and of {COUNT} organizations: {counts:?}");
    // What only some of the time is asked for may be open in one and not in the other.
    assert!(counts[1] <= MOST && counts[1] <= counts[0] + WORKERS + BESIDE, "{counts:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn links_that_break_are_mended_for_all() {
    if !StoreKind::Redis.is_available() {
        return;
    }
    let (mut redis, directory, ids) = (RedisServer::start(), TempDir::new().unwrap(), ids(COUNT));
    let process = start(&directory, &ids, &redis.url()).await;
    all_are_decided(&process, &ids).await;
    for _ in 0..2 {
        let _: i64 = ask(&redis, &["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]);
        all_are_decided(&process, &ids).await;
    }
    assert!(settled(&redis).await <= MOST);
    redis.kill();
    let mut client = process.client().await;
    eventually("none is decided for", async || !is_decided(&mut client, &ids[3]).await).await;
    assert!(redis.restart());
    all_are_decided(&process, &ids).await;
    // Each link was dialled once, whatever the number of those that wanted it. Some are by hand.
    let stats: String = ask(&redis, &["INFO", "stats"]);
    let received = stats.lines().find_map(|line| line.strip_prefix("total_connections_received:"));
    let received: usize = received.unwrap().trim().parse().unwrap();
    assert!(received <= 3 * MOST, "{received} connections were made");
    eventually("it is ready", async || process.is_serving().await == Some(true)).await;
    assert!(settled(&redis).await <= MOST);
    process.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_that_is_revoked_in_one_of_many_is_of_no_use_a_second_later() {
    if !StoreKind::Redis.is_available() {
        return;
    }
    let (redis, ids) = (RedisServer::start(), ids(COUNT));
    let directories = [TempDir::new().unwrap(), TempDir::new().unwrap()];
    let one = start(&directories[0], &ids, &redis.url()).await;
    let other = start(&directories[1], &ids, &redis.url()).await;
    all_are_decided(&other, &ids).await;
    let mut keys = KeyServiceClient::new(connect(one.address()).await);
    let mut client = other.client().await;
    for id in [&ids[0], &ids[7], &ids[COUNT - 1]] {
        let token = token_of(id);
        let key =
            VirtualKey { name: "bot-prod-web".to_owned(), team: "bot".to_owned(), ..Default::default() };
        let request = CreateKeyRequest { key: Some(key), ..Default::default() };
        let created = keys.create_key(to("", &token, request)).await.unwrap().into_inner();
        let caller = authorize_request::Caller::ApiKey(created.secret);
        let asked = AuthorizeRequest { caller: Some(caller), ..question() };
        let mut is_allowed = async || {
            let answer = client.authorize(to("", &token, asked.clone())).await;
            answer.is_ok_and(|answer| answer.into_inner().decision() == Decision::Allowed)
        };
        eventually("the other replica knows it", &mut is_allowed).await;
        let revoke = RevokeKeyRequest { name: "bot-prod-web".to_owned() };
        keys.revoke_key(to("", &token, revoke)).await.unwrap();
        let revoked = Instant::now();
        while revoked.elapsed() < Duration::from_secs(1) {
            is_allowed().await;
        }
        assert!(!is_allowed().await, "{id}");
    }
    one.stop().await;
    other.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_a_cluster_there_are_as_many_for_each_node() {
    if !StoreKind::Redis.is_available() {
        return;
    }
    let mut cluster = Cluster::start().await;
    for node in &cluster.nodes {
        let _: () = ask(node, &["CONFIG", "SET", "cluster-require-full-coverage", "no"]);
    }
    let (directory, ids) = (TempDir::new().unwrap(), ids(COUNT));
    let owners: HashSet<_> = ids.iter().map(|id| cluster.owner(id).0).collect();
    let process = start(&directory, &ids, &cluster.url(&[0, 1, 2])).await;
    all_are_decided(&process, &ids).await;
    for owner in owners {
        let count = settled(&cluster.nodes[owner]).await;
        println!("connections to a node: {count}");
        // And what all organizations share, and questions where the slots are.
        assert!(count <= MOST + WORKERS + 2, "{count}");
    }
    let (there, elsewhere): (Vec<_>, Vec<_>) = ids.iter().partition(|id| cluster.owner(id).0 == 0);
    // A node and what would take its place: those on the others do not notice.
    cluster.nodes[3].kill();
    cluster.nodes[0].kill();
    let mut client = process.client().await;
    for id in &there {
        eventually("it is not decided for", async || !is_decided(&mut client, id).await).await;
    }
    for _ in 0..5 {
        for id in &elsewhere {
            assert!(is_decided(&mut client, id).await, "{id}");
        }
    }
    process.stop().await;
}
