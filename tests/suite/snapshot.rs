//! What is in force: one snapshot per request, named in every answer.

use std::time::Duration;

use sha2::{Digest as _, Sha256};
use tollgate::rpc::proto::{
    self, Decision, GetSpendRequest, PauseRequest, PauseTarget, authorize_request::Caller,
    key_service_client::KeyServiceClient, pause_service_client::PauseServiceClient, pause_target::Target,
    policy_service_client::PolicyServiceClient,
};
use tonic::{Code, transport::Channel};

use crate::harness::{START, Server, StoreKind, chat, connect, errors::is_of, new_key};

const MODEL: &str = "openai/gpt-oss-20b";
const SECRET: &str = "a secret of the document";

fn policy(requests_per_minute: u64) -> String {
    format!(
        "[organization]\nid = \"acme\"\n[teams.bot]\nmodels = [\"{MODEL}\"]\nrequests_per_minute = {requests_per_minute}\n"
    )
}

/// A policy in which `team`, one of two, has the key of [`SECRET`] and each team one place in flight.
fn policy_with_key(team: &str) -> String {
    let digest: String = Sha256::digest(SECRET).iter().map(|byte| format!("{byte:02x}")).collect();
    let teams = ["bot", "other"].map(|name| {
        let key = if name == team {
            format!("[teams.{name}.keys.{name}-prod-web]\nsha256 = \"{digest}\"\n")
        } else {
            String::new()
        };
        format!("[teams.{name}]\nmodels = [\"{MODEL}\"]\nmax_in_flight = 1\n{key}")
    });
    format!("[organization]\nid = \"acme\"\n{}", teams.concat())
}

async fn revision(client: &mut PolicyServiceClient<Channel>) -> (Decision, String) {
    let answer = client.authorize(chat("bot", MODEL, 10, 10)).await.unwrap().into_inner();
    (answer.decision(), answer.policy_revision)
}

async fn every_answer_names_document_and_registry(store: StoreKind) {
    let server = Server::start(store, &policy(60), START).await;
    let mut client = server.client().await;
    let (_, first) = revision(&mut client).await;
    let (document, registry) = first.split_once('/').expect("two parts");
    assert_eq!((document.len(), registry), (16, "0"), "{first}");
    // An answer lists the limits that were asked for.
    let mut view = async |view: proto::LimitView, id: &str| {
        let request = proto::AuthorizeRequest {
            limit_view: view.into(),
            request_id: id.to_owned(),
            ..chat("bot", MODEL, 10, 10)
        };
        client.authorize(request).await.unwrap().into_inner()
    };
    let all = view(proto::LimitView::All, "views").await;
    let reservation_id = all.reservation_id.clone();
    let tightest = view(proto::LimitView::Tightest, "views").await;
    let none = view(proto::LimitView::None, "views").await;
    assert!([&tightest, &none].iter().all(|answer| answer.reservation_id == reservation_id), "one request");
    assert!(none.limits.is_empty(), "{none:?}");
    let quantities: Vec<_> = tightest.limits.iter().map(|limit| limit.quantity()).collect();
    let distinct: std::collections::HashSet<_> = all.limits.iter().map(|limit| limit.quantity()).collect();
    assert_eq!(quantities.len(), distinct.len(), "{tightest:?}");
    for kept in &tightest.limits {
        let of_quantity = all.limits.iter().filter(|limit| limit.quantity() == kept.quantity());
        let least = of_quantity.map(|limit| limit.remaining).min();
        assert_eq!(Some(kept.remaining), least, "{all:?}");
    }
    let mut keys = KeyServiceClient::new(connect(server.address()).await);
    keys.create_key(new_key("bot-prod-web", "bot")).await.unwrap();
    let created = format!("{document}/1");
    assert_eq!(revision(&mut client).await, (Decision::Allowed, created));
    let mut admin = PauseServiceClient::new(connect(server.address()).await);
    let target = Some(PauseTarget { target: Some(Target::Team("bot".to_owned())) });
    admin.pause(PauseRequest { target, reason: "why".to_owned() }).await.unwrap();
    let paused = format!("{document}/2");
    assert_eq!(revision(&mut client).await, (Decision::Denied, paused.clone()));
    let spend = client.get_spend(GetSpendRequest::default()).await.unwrap().into_inner();
    assert_eq!(spend.policy_revision, paused);
    // What is booked names them, too.
    let usage = Some(proto::Usage { input_tokens: 1, ..Default::default() });
    let report = proto::RecordUsageRequest {
        reservation_id,
        usage,
        outcome: proto::Outcome::Completed.into(),
        ..Default::default()
    };
    let booked = client.record_usage(report).await.unwrap().into_inner();
    assert_eq!(booked.policy_revision, paused);
    server.set_policy(&policy(61)).await;
    let (_, other) = revision(&mut client).await;
    let (changed, registry) = other.split_once('/').expect("two parts");
    assert!(changed != document && registry == "2", "{other}");
    server.set_policy(&policy(60)).await;
    assert_eq!(revision(&mut client).await.1, paused, "the same content has the same name");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_answer_names_document_and_registry_on_the_embedded_store() {
    every_answer_names_document_and_registry(StoreKind::Embedded).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_answer_names_document_and_registry_on_redis() {
    if StoreKind::Redis.is_available() {
        every_answer_names_document_and_registry(StoreKind::Redis).await;
    }
}

/// The id of a reservation is made from the team, so a request must not be decided for another one than it began for.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_given_to_another_team_ends_the_wait_of_its_request() {
    let server = Server::start(StoreKind::Embedded, &policy_with_key("bot"), START).await;
    let mut client = server.client().await;
    let request = proto::AuthorizeRequest {
        caller: Some(Caller::ApiKey(SECRET.to_owned())),
        request_id: "one".to_owned(),
        max_wait: Some(Duration::from_secs(60).try_into().unwrap()),
        ..chat("bot", MODEL, 10, 10)
    };
    let holding = client.authorize(chat("bot", MODEL, 10, 10)).await.unwrap().into_inner();
    assert_eq!(holding.decision(), Decision::Allowed);
    let mut other_handle = client.clone();
    let mut waiting = std::pin::pin!(other_handle.authorize(request.clone()));
    // A call that is sent later on the same connection and answered tells that the one before it has come to its wait.
    let behind = tokio::select! {
        biased;
        answer = &mut waiting => panic!("it does not wait: {answer:?}"),
        behind = client.authorize(chat("bot", MODEL, 10, 10)) => behind.unwrap().into_inner(),
    };
    assert_eq!(behind.decision(), Decision::Denied);
    server.set_policy(&policy_with_key("other")).await;
    let moved = waiting.await.unwrap_err();
    assert_eq!(moved.code(), Code::Unavailable, "{moved:?}");
    is_of(&moved, "SNAPSHOT_STALE");
    // Asked again, it is decided for the other team, which has its place free.
    let again = client.authorize(request).await.unwrap().into_inner();
    assert_eq!(again.decision(), Decision::Allowed, "{again:?}");
    assert!(again.limits.iter().any(|limit| limit.limit_id == "teams.other.max_in_flight"), "{again:?}");
}
