//! Which organization a line of the log names, where there are several.

use std::collections::HashSet;

use serde_json::Value;
use tempfile::TempDir;
use tollgate::rpc::proto::{CreateKeyRequest, VirtualKey, key_service_client::KeyServiceClient};

use super::{policy_of, question, to, token_of};
use crate::{
    harness::{Process, StoreKind, connect, eventually, organization, used},
    redis_server::{RedisServer, free_port},
};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

/// What spans say of the lines with this message.
fn spans(log: &str, message: &str) -> Vec<Value> {
    let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    lines.filter(|line| line["message"] == message).map(|mut line| line["span"].take()).collect()
}

/// Waits until there is a line with this message for each of `ids`. Each of them is about one of those.
async fn each_is_named(process: &Process, message: &str, ids: &[String; 2]) {
    let all = || {
        let spans = spans(&process.log(), message);
        let named = spans.iter().map(|span| span["organization"].as_str().map(str::to_owned));
        named.collect::<Vec<_>>()
    };
    let has = |id: &String| all().iter().flatten().any(|named| named == id);
    eventually(message, async || ids.iter().all(has)).await;
    let is_one = |named: &Option<String>| named.as_ref().is_some_and(|named| ids.contains(named));
    assert!(all().iter().all(is_one), "{message}: {:?}", all());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lines_say_whose_they_are() {
    if !StoreKind::Redis.is_available() {
        return;
    }
    let (directory, mut redis) = (TempDir::new().unwrap(), RedisServer::start());
    let ids = [organization(), organization()];
    let policies = ids.each_ref().map(|id| (id.as_str(), policy_of(id, "")));
    let policies = policies.each_ref().map(|(id, text)| (*id, text.as_str()));
    let store = format!("--store={}", redis.url());
    let spool = format!("--spool-directory={}", directory.path().join("spool").display());
    // Spans wait in memory: there is no collector.
    let traces = format!("--otlp-endpoint=http://{}", free_port());
    let arguments = [&*store, &spool, &traces, "--log-format=json", "--admin-enabled=false"];
    let process = Process::start_several(directory.path(), &policies, &arguments).await;

    let mut keys = KeyServiceClient::new(connect(process.address()).await);
    let request = |name: &str| {
        let key = VirtualKey { name: name.to_owned(), team: "bot".to_owned(), ..Default::default() };
        CreateKeyRequest { key: Some(key), ..Default::default() }
    };
    keys.create_key(to("", &token_of(&ids[0]), request("bot-prod-a"))).await.unwrap();
    let mut traced = to("", &token_of(&ids[1]), request("bot-prod-b"));
    let parent = format!("00-{TRACE}-00f067aa0ba902b7-01");
    traced.metadata_mut().insert("traceparent", parent.parse().unwrap());
    keys.create_key(traced).await.unwrap();
    let created = || spans(&process.log(), "key created");
    eventually("both are logged", async || created().len() == 2).await;
    let [plain, traced] = &created()[..] else { panic!("{:?}", created()) };
    assert_eq!((&plain["organization"], &plain["trace_id"]), (&ids[0].as_str().into(), &Value::Null));
    assert_eq!((&traced["organization"], &traced["trace_id"]), (&ids[1].as_str().into(), &TRACE.into()));

    let mut client = process.client().await;
    let allowed =
        async |id| client.clone().authorize(to("", &token_of(id), question())).await.unwrap().into_inner();
    let reservations = [allowed(&ids[0]).await.reservation_id, allowed(&ids[1]).await.reservation_id];
    redis.kill();
    let unread = "a worker cannot read the registry over its connection; trying again";
    each_is_named(&process, unread, &ids).await;
    for (id, reservation) in ids.iter().zip(&reservations) {
        client.record_usage(to("", &token_of(id), used(reservation, 10, 10))).await.unwrap();
        // The audit log records this.
        let policy = directory.path().join(format!("policies/{id}.toml"));
        std::fs::write(policy, policy_of(id, "").replace("\"5\"", "\"6\"")).unwrap();
    }
    each_is_named(&process, "the store does not take what is spooled; trying again", &ids).await;
    let unwritten =
        "the audit log cannot be written to the store; trying again, and keeping what is to be written";
    each_is_named(&process, unwritten, &ids).await;
    let log = process.log_path().to_owned();
    process.stop().await;
    let log = std::fs::read_to_string(log).unwrap();
    let kept =
        spans(&log, "reports of usage are kept in the spool, and delivered after the next start with it");
    let named: HashSet<_> = kept.iter().map(|span| span["organization"].as_str().unwrap()).collect();
    assert_eq!(named, ids.iter().map(String::as_str).collect());
}
