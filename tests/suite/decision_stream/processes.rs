//! Streams of real processes: over two replicas, through changes of the policy and an outage.

use tempfile::TempDir;
use tollgate::rpc::{
    Effect,
    proto::{StreamDecisionsRequest, policy_service_client::PolicyServiceClient},
};
use tonic::transport::Channel;

use super::{CALLERS, MODEL, Seen, all, decide, names, open, policy};
use crate::{
    access::by,
    harness::{
        PATIENCE, Process, StoreKind, chat, connect,
        errors::{is_of, is_of_with},
        eventually, organization,
    },
    redis_server::{RedisServer, free_port},
};

pub(super) async fn start(directory: &TempDir, policy: &str, redis: &RedisServer, timeout: &str) -> Process {
    let (store, admin) = (format!("--store={}", redis.url()), format!("--admin={}", free_port()));
    Process::start_arguments(directory.path(), policy, &[&store, &admin, timeout]).await
}

/// Decides on the replica behind `at` until `seen` has seen one of these requests.
async fn until_seen(at: &Channel, seen: &Seen, user: &str) {
    eventually("a decision is seen", async || {
        decide(at, "bot", MODEL, user).await;
        seen.users().iter().any(|seen| seen == user)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_decision_on_one_replica_is_seen_on_the_other() {
    if !StoreKind::Redis.is_available() {
        return;
    }
    let (redis, directory) = (RedisServer::start(), TempDir::new().unwrap());
    let text = policy(&organization(), &CALLERS);
    let one = start(&directory, &text, &redis, "--store-timeout=20s").await;
    let other = start(&directory, &text, &redis, "--store-timeout=20s").await;
    let (at_one, at_other) = (connect(one.address()).await, connect(other.address()).await);
    let (seen, of_lab) =
        (Seen::open(&at_one, "tgs_all", all()).await, Seen::open(&at_one, "tgs_of-lab", all()).await);
    until_seen(&at_other, &seen, "there").await;
    until_seen(&at_one, &seen, "here").await;
    // Both publish now, so nothing of either is missing from here on.
    let before = seen.events().len();
    for n in 0..10 {
        decide(if n % 2 == 0 { &at_one } else { &at_other }, "bot", MODEL, "both").await;
    }
    eventually("all are seen", async || seen.users().iter().filter(|user| *user == "both").count() == 10)
        .await;
    let events = seen.events();
    let mut replicas: Vec<_> = events.iter().map(|event| event.replica.clone()).collect();
    replicas.sort();
    replicas.dedup();
    assert_eq!(replicas.len(), 2, "{replicas:?}");
    let mut ids: Vec<_> = events.iter().map(|event| event.id.clone()).collect();
    assert!(ids.is_sorted());
    ids.dedup();
    assert_eq!(ids.len(), events.len());
    assert!(of_lab.events().is_empty() && of_lab.skipped() == 0);
    // The other replica continues where this one was left.
    let rest = StreamDecisionsRequest { after_id: events[before - 1].id.clone(), ..all() };
    let rest = Seen::open(&at_other, "tgs_all", rest).await;
    eventually("the rest is seen", async || rest.events().len() >= 10).await;
    assert_eq!(rest.events()[..10], events[before..before + 10]);

    // One that stops tells its streams, and those of the other stay.
    one.stop().await;
    is_of_with(&seen.ends_within(PATIENCE).await, "SHUTTING_DOWN", Effect::None);
    until_seen(&at_other, &rest, "after").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_ends_with_the_permission() {
    let directory = TempDir::new().unwrap();
    let text = |callers: &[(&str, &str, &str)]| policy("acme", callers);
    let admin = format!("--admin={}", free_port());
    let process = Process::start_arguments(directory.path(), &text(&CALLERS), &[&admin]).await;
    let channel = connect(process.address()).await;
    let (all_of, of_bot) =
        (Seen::open(&channel, "tgs_all", all()).await, Seen::open(&channel, "tgs_of-bot", all()).await);
    let asked = StreamDecisionsRequest { teams: names(&["lab"]), ..all() };
    let of_lab = Seen::open(&channel, "tgs_of-lab", asked).await;
    until_seen(&channel, &of_bot, "before").await;
    // The first may see one team less than before, the second is not known any more, and the third has lost the team that it asked for.
    let fewer = [
        ("all", "\"viewer\", \"gateway\"", "teams = [\"bot\"]\n"),
        ("of-lab", "\"team-admin\"", "teams = [\"bot\"]\n"),
    ];
    std::fs::write(directory.path().join("policy.toml"), text(&fewer)).unwrap();
    is_of(&of_bot.ends_within(PATIENCE).await, "INVALID_TOKEN");
    is_of(&of_lab.ends_within(PATIENCE).await, "TEAM_NOT_PERMITTED");
    until_seen(&channel, &all_of, "still").await;
    let log = process.log();
    assert!(!log.contains("tgs_"), "{log}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_outage_ends_streams_and_is_over_with_the_store() {
    if !StoreKind::Redis.is_available() {
        return;
    }
    let (redis, directory) = (RedisServer::start(), TempDir::new().unwrap());
    let process =
        start(&directory, &policy(&organization(), &CALLERS), &redis, "--store-timeout=250ms").await;
    let channel = connect(process.address()).await;
    let seen = Seen::open(&channel, "tgs_all", all()).await;
    redis.freeze();
    ends_by_outage(&seen).await;
    let status = open(&channel, "tgs_all", all()).await.unwrap_err();
    is_of_with(&status, "STORE_UNAVAILABLE", Effect::None);
    redis.thaw();
    let mut again = None;
    eventually("decisions are shown again", async || {
        again = open(&channel, "tgs_all", all()).await.ok();
        again.is_some()
    })
    .await;
    let again = Seen::follow(again.unwrap());
    let mut client = PolicyServiceClient::new(channel.clone());
    eventually("one is seen", async || {
        let _ = client.authorize(by("tgs_all", chat("bot", MODEL, 1, 1))).await;
        !again.events().is_empty()
    })
    .await;
}

pub(super) async fn ends_by_outage(seen: &Seen) {
    is_of_with(&seen.ends_within(PATIENCE).await, "STORE_UNAVAILABLE", Effect::None);
}
