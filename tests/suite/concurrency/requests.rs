//! Requests a day and places in flight under load.

use std::{
    collections::HashSet,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
};

use tollgate::rpc::proto::{self, Decision};

use super::{
    CALLERS, IN_FLIGHT, REQUESTS, Replicas, all_at_once, authorize, keeps_to_its_limits, nothing_is_left_open,
};
use crate::harness::{StoreKind, team_spend, used};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_are_counted_to_the_last_by_one_process() {
    requests_are_counted_to_the_last(StoreKind::Embedded).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_are_counted_to_the_last_by_three_on_redis() {
    requests_are_counted_to_the_last(StoreKind::Redis).await;
}

async fn requests_are_counted_to_the_last(store: StoreKind) {
    let Some(replicas) = Replicas::start(store).await else { return };
    let clients = replicas.clients().await;
    let granted = all_at_once(CALLERS, |number| {
        let mut client = clients[usize::try_from(number % 3).unwrap()].clone();
        async move {
            let mut granted = Vec::new();
            loop {
                let answer = authorize(&mut client, "rated").await;
                keeps_to_its_limits(&answer);
                if answer.decision() == Decision::Denied {
                    assert_eq!(answer.violations[0].reason(), proto::Reason::RequestRateExceeded);
                    return granted;
                }
                let request = used(&answer.reservation_id, 1, 1);
                client.record_usage(request).await.unwrap();
                granted.push(answer.reservation_id);
            }
        }
    })
    .await;
    let granted: Vec<String> = granted.into_iter().flatten().collect();
    assert_eq!(granted.len(), REQUESTS);
    assert_eq!(granted.iter().collect::<HashSet<_>>().len(), REQUESTS);
    let mut client = clients[0].clone();
    assert_eq!(nothing_is_left_open(&mut client, "rated").await, 2 * REQUESTS as u64);
    assert_eq!(team_spend(&mut client, "rated").await.requests, i64::try_from(REQUESTS).unwrap());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn places_in_flight_are_given_back_by_one_process() {
    places_in_flight_are_given_back(StoreKind::Embedded).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn places_in_flight_are_given_back_by_three_on_redis() {
    places_in_flight_are_given_back(StoreKind::Redis).await;
}

async fn places_in_flight_are_given_back(store: StoreKind) {
    let Some(replicas) = Replicas::start(store).await else { return };
    let clients = replicas.clients().await;
    let flying = Arc::new(AtomicI64::new(0));
    let most = i64::try_from(IN_FLIGHT).unwrap();
    all_at_once(CALLERS, |number| {
        let (clients, flying) = (clients.clone(), flying.clone());
        async move {
            let mut client = clients[usize::try_from(number % 3).unwrap()].clone();
            let answer = loop {
                let answer = authorize(&mut client, "flying").await;
                keeps_to_its_limits(&answer);
                if answer.decision() == Decision::Allowed {
                    break answer;
                }
                assert_eq!(answer.violations[0].reason(), proto::Reason::TooManyInFlight);
                tokio::task::yield_now().await;
            };
            // Between the answer and the report the place is surely taken.
            let now = flying.fetch_add(1, Ordering::SeqCst) + 1;
            assert!(now <= most, "{now} in flight");
            tokio::task::yield_now().await;
            flying.fetch_sub(1, Ordering::SeqCst);
            let mut other = clients[usize::try_from((number + 1) % 3).unwrap()].clone();
            let request = match number % 3 {
                0 => used(&answer.reservation_id, 1, 1),
                1 => proto::RecordUsageRequest {
                    outcome: proto::Outcome::NotSent.into(),
                    usage: None,
                    ..used(&answer.reservation_id, 0, 0)
                },
                _ => proto::RecordUsageRequest {
                    outcome: proto::Outcome::Failed.into(),
                    usage: None,
                    ..used(&answer.reservation_id, 0, 0)
                },
            };
            other.record_usage(request).await.unwrap();
        }
    })
    .await;
    let mut client = clients[0].clone();
    nothing_is_left_open(&mut client, "flying").await;
    for place in 1..=IN_FLIGHT {
        assert_eq!(authorize(&mut client, "flying").await.decision(), Decision::Allowed, "place {place}");
    }
    assert_eq!(authorize(&mut client, "flying").await.decision(), Decision::Denied);
}
