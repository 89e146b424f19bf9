//! One request id, sent by many at once.

use std::collections::{BTreeMap, HashSet};

use tollgate::rpc::proto::{self, Decision};

use super::{
    INPUT, MODEL, OUTPUT, Replicas, WORST_CASE, all_at_once, nothing_is_left_open, record_everywhere,
};
use crate::harness::{StoreKind, chat, eventually, nanos, team_spend, used};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_request_id_is_one_reservation_in_one_process() {
    one_request_id_is_one_reservation(StoreKind::Embedded).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_request_id_is_one_reservation_in_three_on_redis() {
    one_request_id_is_one_reservation(StoreKind::Redis).await;
}

async fn one_request_id_is_one_reservation(store: StoreKind) {
    const IDS: u64 = 40;
    let Some(replicas) = Replicas::start(store).await else { return };
    let clients = replicas.clients().await;
    let answers = all_at_once(IDS * 6, |number| {
        let mut client = clients[usize::try_from(number % 3).unwrap()].clone();
        let request_id = format!("request {}", number / 6);
        async move {
            let request = proto::AuthorizeRequest {
                request_id: request_id.clone(),
                ..chat("rated", MODEL, INPUT, OUTPUT)
            };
            (request_id, client.authorize(request).await.unwrap().into_inner())
        }
    })
    .await;
    let mut reservations: BTreeMap<String, HashSet<_>> = BTreeMap::new();
    for (request_id, answer) in answers {
        assert_eq!(answer.decision(), Decision::Allowed);
        let expires = answer.expire_time.unwrap();
        reservations.entry(request_id).or_default().insert((
            answer.reservation_id,
            expires.seconds,
            expires.nanos,
            answer.max_output_tokens,
        ));
    }
    assert_eq!(reservations.len(), usize::try_from(IDS).unwrap());
    assert!(reservations.values().all(|answers| answers.len() == 1), "{reservations:?}");
    let mut client = clients[0].clone();
    let report = team_spend(&mut client, "rated").await;
    assert_eq!(report.unsettled_requests, i64::try_from(IDS).unwrap());
    assert_eq!(nanos(report.spend.unwrap().reserved), IDS * WORST_CASE);
    // The same id for another request is refused by whatever replica is asked.
    for client in &mut clients.clone() {
        let request = proto::AuthorizeRequest {
            request_id: "request 7".to_owned(),
            ..chat("rated", MODEL, INPUT + 1, OUTPUT)
        };
        assert_eq!(client.authorize(request).await.unwrap_err().code(), tonic::Code::AlreadyExists);
    }
    for answers in reservations.into_values() {
        let (reservation, ..) = answers.into_iter().next().unwrap();
        record_everywhere(&clients, &used(&reservation, INPUT, 5)).await;
    }
    assert_eq!(nothing_is_left_open(&mut client, "rated").await, IDS * 1_005);
}

/// Usage that nobody asked for before, reported by all at once under one id, is booked once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unreserved_usage_is_booked_once_over_three_on_redis() {
    let Some(replicas) = Replicas::start(StoreKind::Redis).await else { return };
    let clients = replicas.clients().await;
    for number in 0..20 {
        let request = proto::RecordUsageRequest {
            caller: Some(proto::record_usage_request::Caller::Team("rated".to_owned())),
            request_id: format!("lost {number}"),
            model: MODEL.to_owned(),
            operation: proto::Operation::ChatCompletion.into(),
            ..used("", 10, 10)
        };
        record_everywhere(&clients, &request).await;
    }
    let mut client = clients[2].clone();
    eventually("every replica sees the same", || {
        let mut client = client.clone();
        async move { team_spend(&mut client, "rated").await.requests == 20 }
    })
    .await;
    assert_eq!(nothing_is_left_open(&mut client, "rated").await, 400);
}
