//! Errors that need a service in a state of its own: full, overloaded, ending, or asked from elsewhere.

use std::{
    net::{SocketAddr, UdpSocket},
    time::Duration,
};

use tempfile::TempDir;
use tollgate::{
    domain::{key::MAX_KEYS, pause::MAX_PAUSES},
    rpc::{
        Effect,
        proto::{
            self, key_service_client::KeyServiceClient, pause_service_client::PauseServiceClient,
            policy_service_client::PolicyServiceClient,
        },
    },
    store::Registry as _,
};
use tonic::{Request, Status, client::Grpc, codegen::http::uri::PathAndQuery, transport::Channel};
use tonic_prost::ProstCodec;
use tonic_types::StatusExt as _;

use super::{MODEL, POLICY};
use crate::{
    harness::Server,
    harness::{
        Fixture, Process, StoreKind, Ways, chat, connect,
        errors::{is_of, is_of_with},
        eventually, new_key,
    },
    redis_server::RedisServer,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_registry_says_so() {
    let fixture = Fixture::embedded();
    let mut writes = tokio::task::JoinSet::new();
    let pause = r#"{"reason":"r","by":{"kind":"system","name":"n"},"since":1}"#;
    // A key whose record cannot be read is one all the same.
    let keys = (0..MAX_KEYS).map(|number| (format!("key/lab-test-k{number}"), "{}"));
    let pauses = (0..MAX_PAUSES).map(|number| (format!("pause/team/t{number}"), pause));
    for (name, value) in keys.chain(pauses) {
        let store = fixture.store.clone();
        writes.spawn(async move { store.registry_write(name.into(), 0, value.into()).await.unwrap() });
    }
    writes.join_all().await;
    let server = Server::start_in(fixture, POLICY, Ways::default());
    let channel = connect(server.address()).await;
    let mut keys = KeyServiceClient::new(channel.clone());
    is_of(&keys.create_key(new_key("bot-prod-web", "bot")).await.unwrap_err(), "TOO_MANY_KEYS");
    let name = "lab-test-k7".to_owned();
    is_of(&keys.get_key(proto::GetKeyRequest { name, ..Default::default() }).await.unwrap_err(), "INTERNAL");
    let mut pauses = PauseServiceClient::new(channel);
    let target = proto::PauseTarget { target: Some(proto::pause_target::Target::Team("bot".to_owned())) };
    let pause = proto::PauseRequest { target: Some(target), reason: "why".to_owned() };
    is_of(&pauses.pause(pause).await.unwrap_err(), "TOO_MANY_PAUSES");
    assert!(server.stop().await);
}

/// Redis does not answer, so every call that was sent to it stays in flight until its time is over.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_than_redis_can_answer_in_time_is_refused_at_once() {
    const TIMEOUT: Duration = Duration::from_millis(60);
    const CALLS: usize = 1_000;
    if !StoreKind::Redis.is_available() {
        return;
    }
    let (redis, directory) = (RedisServer::start(), TempDir::new().unwrap());
    let process = Process::start_with(directory.path(), POLICY, &redis.url(), TIMEOUT).await;
    let client = PolicyServiceClient::new(connect(process.address()).await);
    let is_decided = async || client.clone().authorize(chat("bot", MODEL, 1, 1)).await.is_ok();
    eventually("more calls come than are sent", async || {
        eventually("redis answers", is_decided).await;
        redis.freeze();
        let calls = (0..CALLS).map(|_| {
            let mut client = client.clone();
            async move { client.authorize(chat("bot", MODEL, 1, 1)).await }
        });
        let answers = calls.collect::<tokio::task::JoinSet<_>>().join_all().await;
        redis.thaw();
        let overloaded = |status: &Status| {
            let info = status.get_details_error_info().expect("a reason");
            is_of_with(status, &info.reason, Effect::None);
            info.reason == "OVERLOADED"
        };
        let refused: Vec<Status> = answers.into_iter().filter_map(Result::err).filter(overloaded).collect();
        refused.iter().for_each(|status| is_of(status, "OVERLOADED"));
        !refused.is_empty()
    })
    .await;
}

/// The address of this machine in its network, if it has one: a caller from there is not on loopback. Nothing is sent.
fn own_address() -> Option<SocketAddr> {
    let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
    socket.connect("192.0.2.1:9").ok()?;
    socket.local_addr().ok().filter(|address| !address.ip().is_loopback())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_caller_on_another_machine_needs_a_policy_with_access() {
    let Some(own) = own_address() else {
        assert!(std::env::var_os("CI").is_none_or(|ci| ci != "true"), "this machine has no network");
        eprintln!("skipped: this machine has no address but loopback");
        return;
    };
    let ways = Ways { address: "0.0.0.0:0", ..Ways::default() };
    let server = Server::start_in(Fixture::embedded(), POLICY, ways);
    let port = server.address().port();
    for (host, is_near) in [(own.ip(), false), ([127, 0, 0, 1].into(), true)] {
        let mut calls = PolicyServiceClient::new(connect((host, port).into()).await);
        match calls.authorize(chat("bot", MODEL, 1, 1)).await {
            Ok(_) => assert!(is_near, "{host}"),
            Err(status) => {
                assert!(!is_near, "{host}");
                is_of(&status, "ACCESS_NOT_CONFIGURED");
            }
        }
    }
    assert!(server.stop().await);
}

/// A call whose message never comes.
async fn unfinished(channel: Channel, path: &'static str) -> Status {
    let mut client = Grpc::new(channel);
    client.ready().await.unwrap();
    let codec = ProstCodec::<proto::AuthorizeRequest, proto::AuthorizeResponse>::default();
    let messages = Request::new(tokio_stream::pending());
    client.client_streaming(messages, PathAndQuery::from_static(path), codec).await.unwrap_err()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_that_outlasts_the_drain_is_told() {
    let ways = Ways { drain: Duration::from_secs(1), ..Ways::default() };
    let server = Server::start_in(Fixture::embedded(), POLICY, ways);
    let channel = connect(server.address()).await;
    let calls = [
        ("/tollgate.v1.PolicyService/Authorize", Effect::None),
        ("/envoy.service.auth.v3.Authorization/Check", Effect::None),
        ("/tollgate.v1.PolicyService/GetSpend", Effect::None),
        ("/tollgate.v1.KeyService/ListKeys", Effect::None),
        ("/tollgate.v1.PolicyService/RecordUsage", Effect::Unknown),
        ("/tollgate.v1.KeyService/CreateKey", Effect::Unknown),
        ("/tollgate.v1.PauseService/Pause", Effect::Unknown),
    ];
    let open = calls.map(|(path, effect)| {
        let call = unfinished(channel.clone(), path);
        tokio::spawn(async move { is_of_with(&call.await, "SHUTTING_DOWN", effect) })
    });
    // A call that is answered later on the same connection tells that those before it have arrived.
    PolicyServiceClient::new(channel).authorize(chat("bot", MODEL, 1, 1)).await.unwrap();
    assert!(server.stop().await, "none is left");
    for call in open {
        call.await.unwrap();
    }
}
