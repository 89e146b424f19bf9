//! Nothing of one organization counts with another, on either store.

use tempfile::TempDir;
use tollgate::rpc::proto::{
    Decision, GetSpendRequest, ListReplicasRequest, policy_service_client::PolicyServiceClient,
    status_service_client::StatusServiceClient,
};
use tonic::{Code, transport::Channel};

use super::{policy_of, question, to, token_of};
use crate::{
    access::reason,
    harness::{Process, StoreKind, eventually, nanos, organization, used},
    redis_server::{self, free_port},
};

/// What a team has spent and reserved.
async fn spend_of(client: &mut PolicyServiceClient<Channel>, token: &str) -> (u64, u64) {
    let answer = client.get_spend(to("", token, GetSpendRequest::default())).await.unwrap().into_inner();
    let [team] = &answer.teams[..] else { panic!("{answer:?}") };
    let spend = team.spend.clone().unwrap();
    (nanos(spend.spent), nanos(spend.reserved))
}

/// Three organizations of these names on a store, called alike in all else.
async fn start(store: StoreKind, directory: &TempDir, ids: &[String; 3]) -> Process {
    let policies = ids.each_ref().map(|id| (id.as_str(), policy_of(id, "")));
    let policies = policies.each_ref().map(|(id, text)| (*id, text.as_str()));
    let store = match store {
        StoreKind::Embedded => "--store=embedded:data".to_owned(),
        StoreKind::Redis => format!("--store={}", redis_server::shared().unwrap().url()),
    };
    let admin = format!("--admin={}", free_port());
    Process::start_several(directory.path(), &policies, &[&store, &admin, "--store-timeout=20s"]).await
}

async fn nothing_of_one_counts_with_another(store: StoreKind) {
    if !store.is_available() {
        return;
    }
    let (directory, ids) = (TempDir::new().unwrap(), [organization(), organization(), organization()]);
    let [first, second, third] = ids.each_ref().map(|id| token_of(id));
    let process = start(store, &directory, &ids).await;
    let mut client = process.client().await;
    let decided = client.authorize(to("", &first, question())).await.unwrap().into_inner();
    assert_eq!(decided.decision(), Decision::Allowed);
    let (spent, reserved) = spend_of(&mut client, &first).await;
    assert!(spent == 0 && reserved > 0);
    for other in [&second, &third] {
        assert_eq!(spend_of(&mut client, other).await, (0, 0));
        // A reservation is one of its own organization.
        let foreign = client.record_usage(to("", other, used(&decided.reservation_id, 1_000, 100))).await;
        assert_eq!(reason(&foreign.unwrap_err()), (Code::NotFound, "UNKNOWN_RESERVATION".to_owned()));
    }
    // A request id is unique within one.
    let mut question = question();
    question.request_id = "the same".to_owned();
    for token in [&first, &second, &third] {
        let (_, before) = spend_of(&mut client, token).await;
        let answer = client.authorize(to("", token, question.clone())).await.unwrap().into_inner();
        assert_eq!(answer.decision(), Decision::Allowed);
        assert!(spend_of(&mut client, token).await.1 > before);
    }
    client.record_usage(to("", &first, used(&decided.reservation_id, 1_000, 100))).await.unwrap();
    let before = [spend_of(&mut client, &first).await, spend_of(&mut client, &second).await];
    assert!(before[0].0 > 0 && before[1].0 == 0, "{before:?}");

    // It is all there after a restart.
    process.stop().await;
    let process = start(store, &directory, &ids).await;
    let mut client = process.client().await;
    let is_fresh = async || client.get_spend(to("", &first, GetSpendRequest::default())).await.is_ok();
    eventually("it serves again", is_fresh).await;
    assert_eq!([spend_of(&mut client, &first).await, spend_of(&mut client, &second).await], before);
    let mut status = StatusServiceClient::new(crate::harness::connect(process.address()).await);
    for token in [&first, &second, &third] {
        let replicas = async || {
            let answer = status.list_replicas(to("", token, ListReplicasRequest::default())).await;
            !answer.unwrap().into_inner().replicas.is_empty()
        };
        eventually("it is a replica of each", replicas).await;
    }
    process.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_of_one_counts_with_another_on_disk() {
    nothing_of_one_counts_with_another(StoreKind::Embedded).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_of_one_counts_with_another_in_redis() {
    nothing_of_one_counts_with_another(StoreKind::Redis).await;
}
