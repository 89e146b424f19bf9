//! Replicas over real processes: each is listed by each, with what it has in force, and their Groq keys are told as one.

use std::{path::Path, process::Command};

use serde_json::Value;
use tempfile::TempDir;
use tollgate::{
    rpc::proto::{
        ListReplicasRequest, ListUpstreamKeysRequest, Outcome, PauseRequest, PauseTarget, RecordUsageRequest,
        Replica, UpstreamKey, UpstreamKeyState, WholeOrganization, pause_service_client::PauseServiceClient,
        pause_target::Target, status_service_client::StatusServiceClient,
        upstream_service_client::UpstreamServiceClient,
    },
    store::LAYOUT,
};

use crate::{
    harness::{Process, StoreKind, chat, connect, eventually, organization},
    redis_server::{RedisServer, free_port},
};

const MODEL: &str = "m/small";

fn policy(organization: &str, output: u32) -> String {
    format!(
        r#"
[organization]
id = "{organization}"
[teams.bot]
models = ["{MODEL}"]
max_output_tokens = {output}
[projects.main]
keys = [{{ env = "GROQ_FIRST" }}, {{ env = "GROQ_SECOND" }}]
[[prices]]
model = "{MODEL}"
input_usd_per_million_tokens = "0.001"
output_usd_per_million_tokens = "0.001"
"#
    )
}

async fn start(directory: &TempDir, policy: &str, redis: &RedisServer) -> Process {
    let store = format!("--store={}", redis.url());
    let admin = format!("--admin={}", free_port());
    // A busy machine is not an outage.
    let arguments = [&*store, &*admin, "--store-timeout=20s"];
    let keys = [("GROQ_FIRST", Path::new("gsk_first")), ("GROQ_SECOND", Path::new("gsk_second"))];
    Process::start_environment(directory.path(), policy, &arguments, &keys).await
}

async fn listed(by: &Process) -> Vec<Replica> {
    let mut client = StatusServiceClient::new(connect(by.address()).await);
    let answer = client.list_replicas(ListReplicasRequest::default()).await.unwrap().into_inner();
    assert_eq!(answer.next_page_token, "");
    answer.replicas
}

async fn upstream_keys(by: &Process) -> Vec<UpstreamKey> {
    let mut client = UpstreamServiceClient::new(connect(by.address()).await);
    client.list_upstream_keys(ListUpstreamKeysRequest {}).await.unwrap().into_inner().upstream_keys
}

/// What `process` decides by.
async fn revision(process: &Process) -> String {
    let answer = process.client().await.authorize(chat("bot", MODEL, 1, 1)).await.unwrap().into_inner();
    answer.policy_revision
}

/// Waits until every replica is listed with `revision`, by each of `processes`.
async fn follow(processes: [&Process; 2], revision: &str) {
    for by in processes {
        eventually("all replicas have the revision", async || {
            let replicas = listed(by).await;
            replicas.len() == 2 && replicas.iter().all(|replica| replica.policy_revision == revision)
        })
        .await;
    }
}

/// When each replica was last seen, by name.
fn seen(replicas: &[Replica]) -> Vec<(String, prost_types::Timestamp)> {
    replicas.iter().map(|replica| (replica.name.clone(), replica.last_seen_time.unwrap())).collect()
}

/// `tollgate` with these arguments, its exit code and what it printed.
fn tollgate(process: &Process, arguments: &[&str]) -> (Option<i32>, String) {
    let address = process.address().to_string();
    let mut command = Command::new(env!("CARGO_BIN_EXE_tollgate"));
    command.args(arguments).args(["--address", &address]);
    let output = tokio::task::block_in_place(|| command.output().unwrap());
    let text =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    (output.status.code(), text)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_replica_is_listed_by_each_until_it_dies() {
    if !StoreKind::Redis.is_available() {
        return;
    }
    let (redis, directory, organization) = (RedisServer::start(), TempDir::new().unwrap(), organization());
    let first = start(&directory, &policy(&organization, 100), &redis).await;
    let second = start(&directory, &policy(&organization, 100), &redis).await;
    follow([&first, &second], &revision(&first).await).await;
    let replicas = listed(&first).await;
    assert!(replicas[0].name < replicas[1].name, "{replicas:?}");
    for replica in &replicas {
        assert_eq!(replica.version, env!("CARGO_PKG_VERSION"));
        assert_eq!(u32::try_from(replica.layout), Ok(LAYOUT));
        assert!(replica.ready, "{replica:?}");
        let (start, seen) = (replica.start_time.unwrap(), replica.last_seen_time.unwrap());
        assert!((start.seconds, start.nanos) <= (seen.seconds, seen.nanos), "{replica:?}");
    }

    // What changes the registry and what changes the document is seen of all.
    let target = Some(PauseTarget { target: Some(Target::Organization(WholeOrganization {})) });
    let pause = PauseRequest { target, reason: "INC-7".to_owned() };
    let paused = PauseServiceClient::new(connect(second.address()).await).pause(pause).await;
    paused.unwrap();
    let after_pause = revision(&second).await;
    assert_ne!(after_pause, replicas[0].policy_revision);
    follow([&first, &second], &after_pause).await;
    std::fs::write(directory.path().join("policy.toml"), policy(&organization, 200)).unwrap();
    eventually("the document is in force", async || revision(&first).await != after_pause).await;
    follow([&first, &second], &revision(&first).await).await;

    let (code, table) = tollgate(&second, &["replicas"]);
    assert_eq!(code, Some(0), "{table}");
    assert!(replicas.iter().all(|replica| table.contains(&replica.name)), "{table}");
    let (_, json) = tollgate(&second, &["replicas", "list", "--json", "--limit", "1"]);
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["replicas"].as_array().unwrap().len(), 1);
    assert_eq!(json["replicas"][0]["name"], replicas[0].name);

    // One dies: it stays in the list, as it was last seen.
    first.kill();
    let before = seen(&listed(&second).await);
    let changed = async || {
        let now = seen(&listed(&second).await);
        assert!(now.iter().map(|(name, _)| name).eq(before.iter().map(|(name, _)| name)), "{now:?}");
        now.iter().zip(&before).filter(|(now, before)| now != before).count()
    };
    eventually("one is seen again", async || changed().await > 0).await;
    assert_eq!(changed().await, 1, "a dead replica was seen");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn groq_keys_are_told_over_all_replicas() {
    if !StoreKind::Redis.is_available() {
        return;
    }
    let (redis, directory, organization) = (RedisServer::start(), TempDir::new().unwrap(), organization());
    let policy = policy(&organization, 100);
    let (first, second) =
        (start(&directory, &policy, &redis).await, start(&directory, &policy, &redis).await);
    let [mut at_first, mut at_second] = [first.client().await, second.client().await];
    // Both use the same key, and Groq refuses it to the second, which then uses the other.
    let mut used = Vec::new();
    for _ in 0..2 {
        used.push(at_first.authorize(chat("bot", MODEL, 1, 1)).await.unwrap().into_inner().upstream_key);
    }
    let refused = at_second.authorize(chat("bot", MODEL, 1, 1)).await.unwrap().into_inner();
    used.push(refused.upstream_key.clone());
    assert!(used.iter().all(|key| !key.is_empty() && *key == used[0]), "{used:?}");
    let report = RecordUsageRequest {
        reservation_id: refused.reservation_id,
        outcome: Outcome::Failed.into(),
        upstream_status: 401,
        upstream_key: refused.upstream_key,
        ..Default::default()
    };
    at_second.record_usage(report).await.unwrap();
    let other = at_second.authorize(chat("bot", MODEL, 1, 1)).await.unwrap().into_inner().upstream_key;
    assert_ne!(other, used[0]);

    let of = |keys: &[UpstreamKey], name: &str| keys.iter().find(|key| key.name == name).cloned().unwrap();
    for by in [&first, &second] {
        eventually("the list is that of both", async || {
            let keys = upstream_keys(by).await;
            let (dead, live) = (of(&keys, &used[0]), of(&keys, &other));
            (dead.request_count, live.request_count) == (3, 1) && live.replicas.len() == 2
        })
        .await;
        let keys = upstream_keys(by).await;
        assert_eq!(keys.len(), 2, "{keys:?}");
        for (name, state, of_replicas) in [
            (&used[0], UpstreamKeyState::Refused, [UpstreamKeyState::Used, UpstreamKeyState::Refused]),
            (&other, UpstreamKeyState::Used, [UpstreamKeyState::Used, UpstreamKeyState::Standby]),
        ] {
            let key = of(&keys, name);
            assert_eq!(key.state(), state, "{key:?}");
            let mut states: Vec<_> = key.replicas.iter().map(|seen| seen.state()).collect();
            states.sort_by_key(|state| of_replicas.iter().position(|known| known == state));
            assert_eq!(states, of_replicas, "{key:?}");
            assert_eq!(key.replicas.iter().map(|seen| seen.request_count).sum::<i64>(), key.request_count);
            assert_eq!(
                key.last_use_time,
                key.replicas
                    .iter()
                    .filter_map(|seen| seen.last_use_time)
                    .max_by_key(|at| (at.seconds, at.nanos))
            );
            let refused: Vec<_> = key.replicas.iter().filter_map(|seen| seen.refuse_time).collect();
            assert_eq!(key.refuse_time.as_slice(), refused);
        }
    }
    let (code, table) = tollgate(&first, &["upstream-keys"]);
    assert_eq!(code, Some(1), "{table}");
    assert_eq!(table.matches("main/").count(), 2, "one row for each key: {table}");
    let (_, json) = tollgate(&first, &["upstream-keys", "list", "--json"]);
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["upstreamKeys"][0]["replicas"].as_array().unwrap().len(), 2, "{json}");
    assert!(!first.log().contains("gsk_") && !second.log().contains("gsk_"));
}
