//! Groq's own keys: replaced under load without a failed request, and left at once when Groq refuses them.

use std::{fs, path::Path};

use serde_json::json;
use tempfile::TempDir;
use tollgate::rpc::proto::{
    self, ListUpstreamKeysRequest, UpstreamKeyState, upstream_service_client::UpstreamServiceClient,
};

use super::{
    edge::{chat, is_available},
    replay::{assert_success, mount, python, run, secret, start_all, start_process},
};
use crate::harness::{Process, UPSTREAM_KEY, connect, eventually};

/// The states of all keys with their names, the newest first.
async fn states(process: &Process) -> Vec<(UpstreamKeyState, String)> {
    let mut client = UpstreamServiceClient::new(connect(process.address()).await);
    let answer = client.list_upstream_keys(ListUpstreamKeysRequest {}).await.unwrap().into_inner();
    answer.upstream_keys.iter().map(|key| (key.state(), key.name.clone())).collect()
}

fn add_key(directory: &Path, name: &str, key: &str) {
    mount(&directory.join("groq-keys").join(name), key);
}

/// While the official SDK goes on, for twelve seconds, a new key comes, the old one is taken away, and Groq ends it.
#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_replaced_under_load_without_a_failed_request() {
    if !is_available() {
        return;
    }
    let directory = TempDir::new().unwrap();
    let (process, mock, envoy) = start_all(directory.path()).await;
    mock.accept_keys(&[UPSTREAM_KEY, "gsk_next"]);
    let mut load = python("rotation.py");
    load.args([&format!("http://{}", envoy.address), &secret("roomy"), "12"]);
    let load = tokio::spawn(run(load));
    let goes_up = async |key: &str| {
        let received = mock.requests().pop();
        received.is_some_and(|last| last.headers["authorization"] == format!("Bearer {key}"))
    };
    eventually("requests go up", || goes_up(UPSTREAM_KEY)).await;
    add_key(directory.path(), "next", "gsk_next\n");
    eventually("the next key is used", || goes_up("gsk_next")).await;
    let [used, standby] = states(&process).await.try_into().unwrap();
    assert_eq!((used.0, standby.0), (UpstreamKeyState::Used, UpstreamKeyState::Standby));
    fs::remove_file(directory.path().join("groq-keys/first")).unwrap();
    eventually("the old key is gone", || async { states(&process).await.len() == 1 }).await;
    // What was admitted with the old key is at Groq by now, or never will be: only new requests are under way.
    let sent = mock.ledger().requests;
    eventually("requests go on", || async { mock.ledger().requests > sent + 64 }).await;
    mock.accept_keys(&["gsk_next"]);
    let sent = mock.ledger().requests;
    eventually("requests go on", || async { mock.ledger().requests > sent + 64 }).await;
    // It ends by itself, long after all this.
    assert!(!load.is_finished(), "the load was over too early");
    assert_success(&load.await.unwrap());
    assert!(!process.log().contains("gsk_"), "{}", process.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_groq_refuses_is_left_at_once() {
    if !is_available() {
        return;
    }
    let directory = TempDir::new().unwrap();
    let (process, mock, envoy) = start_all(directory.path()).await;
    add_key(directory.path(), "next", "gsk_dead");
    eventually("both keys are known", || async { states(&process).await.len() == 2 }).await;
    let request = chat("{}", &json!({"max_tokens": 3})).key(&secret("roomy"));
    assert_eq!(request.send(envoy.address).await.status, 401);
    let is_refused = || async { states(&process).await[0].0 == UpstreamKeyState::Refused };
    eventually("the dead key is known", is_refused).await;
    assert_eq!(request.send(envoy.address).await.status, 200);
    let dead = states(&process).await[0].1.clone();
    let log = process.log();
    assert!(log.contains("Groq refuses an upstream key") && log.contains(&dead), "{log}");
    assert!(!log.contains("gsk_"), "{log}");
    // Another key in its place is used again.
    add_key(directory.path(), "next", "gsk_fresh");
    mock.accept_keys(&["gsk_fresh"]);
    eventually("the fresh key is used", || async { request.send(envoy.address).await.status == 200 }).await;
    assert_eq!(states(&process).await[0].0, UpstreamKeyState::Used);
}

/// A gateway that holds the keys itself is told which one to use, and tells that it was refused.
#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_reports_a_refused_key() {
    let directory = TempDir::new().unwrap();
    let process = start_process(directory.path()).await;
    add_key(directory.path(), "next", "gsk_next");
    eventually("both keys are known", || async { states(&process).await.len() == 2 }).await;
    let [(_, newest), (_, older)] = states(&process).await.try_into().unwrap();
    let mut client = process.client().await;
    let request = crate::harness::chat("roomy", "openai/gpt-oss-20b", 10, 10);
    let allowed = client.authorize(request.clone()).await.unwrap().into_inner();
    assert_eq!(allowed.upstream_key, newest);
    let report = proto::RecordUsageRequest {
        reservation_id: allowed.reservation_id,
        outcome: proto::Outcome::Failed.into(),
        upstream_status: 401,
        upstream_key: newest.clone(),
        ..Default::default()
    };
    client.record_usage(report.clone()).await.unwrap();
    assert_eq!(client.authorize(request).await.unwrap().into_inner().upstream_key, older);
    assert_eq!(states(&process).await[0], (UpstreamKeyState::Refused, newest));
    for (status, outcome) in [(200, proto::Outcome::Failed), (401, proto::Outcome::Aborted)] {
        let report =
            proto::RecordUsageRequest { upstream_status: status, outcome: outcome.into(), ..report.clone() };
        let status = client.record_usage(report).await.unwrap_err();
        assert!(status.message().contains("upstream_status"), "{status:?}");
    }
}
