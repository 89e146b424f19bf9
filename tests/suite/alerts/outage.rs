//! Alerts of a store that does not answer, and of reservations without reports.

use tollgate::domain::Timestamp;

use super::{
    lasting::{LEASE, Replicas, policy},
    receiver::{Answer, Receiver},
    webhook_of,
};
use crate::{
    harness::{Fixture, START, Server, Ways, chat, eventually, eventually_within, organization, used},
    outages::give_key,
    redis_server::{self, RedisServer},
};

const MODEL: &str = "m/text";

/// The receiver is told while the store is silent, and once more by the same id that it answers again.
#[tokio::test]
async fn an_outage_of_the_store_is_told_during_it() {
    if !redis_server::is_installed() {
        return;
    }
    let redis = RedisServer::start();
    let organization = organization();
    give_key(&redis, &organization, [9; 32]).await;
    let replicas = Replicas::start_of(&organization, "store_outage", &redis.url()).await;
    replicas.are_ready().await;
    redis.freeze();
    // Each replica tells of it by itself, with one id.
    eventually_within(LEASE, "both have told", async || replicas.arrived().len() == 2).await;
    replicas.decide_without_the_store().await;
    let opened = replicas.arrived();
    assert_eq!(opened[0].0, opened[1].0);
    redis.thaw();
    let is_resolved = async || replicas.arrived().iter().any(|(id, _)| id.ends_with("_resolved"));
    eventually_within(LEASE, "it is over", is_resolved).await;
    let arrived = replicas.arrived();
    let (id, resolved) = arrived.last().unwrap();
    let opened = &opened[0].1;
    // Each replica counts its own, and the first to see the end tells.
    assert_eq!(resolved["store"]["degradedCount"], "1", "{resolved}");
    assert_eq!(*id, format!("{}_resolved", opened["id"].as_str().unwrap()));
    assert!(opened["store"]["endTime"].is_null() && resolved["store"]["endTime"].is_string(), "{resolved}");
    assert_eq!((&resolved["severity"], arrived.len()), (&"SEVERITY_CRITICAL".into(), 3), "{arrived:?}");
    // Another one is another alert. For a replica that has not seen the end the first lasts.
    replicas.have_logged("an alert is resolved").await;
    redis.freeze();
    eventually_within(LEASE, "both have told", async || replicas.arrived().len() == 5).await;
    let arrived = replicas.arrived();
    assert_eq!(arrived[3].0, arrived[4].0);
    assert_ne!(arrived[3].1["id"], opened["id"]);
    redis.thaw();
}

/// Under a clock that the test moves: reservations expire after ten minutes.
#[tokio::test]
async fn reservations_without_a_report_are_told_until_reports_arrive() {
    let receiver = Receiver::start(Answer::Status(200)).await;
    let fixture = Fixture::embedded();
    let (store, clock) = (fixture.store.clone(), fixture.clock.clone());
    let ways = Ways { receivers: vec![webhook_of(&receiver)], ..Ways::default() };
    let server = Server::start_in(fixture, &policy("acme", "unsettled_high"), ways);
    let alerts = tokio::spawn(server.deliver_alerts(store));
    let mut client = server.client().await;
    let mut now = START;
    let mut request = async |is_reported: bool| {
        now = now.plus(10_000);
        clock.set(now);
        let id = client.authorize(chat("team", MODEL, 10, 1)).await.unwrap().into_inner().reservation_id;
        if is_reported {
            client.record_usage(used(&id, 1, 1)).await.unwrap();
        }
        now
    };
    for number in 0..24 {
        request(number % 2 == 0).await;
    }
    let last = request(true).await;
    clock.set(last.plus(11 * 60_000 + 1));
    let states = || {
        let requests = receiver.requests();
        let states =
            requests.iter().map(|request| request.json()["data"]["state"].as_str().unwrap().to_owned());
        states.collect::<Vec<_>>()
    };
    eventually("it opens", async || states() == ["ALERT_STATE_OPEN"]).await;
    let data = receiver.requests()[0].json()["data"].clone();
    assert_eq!(data["team"], "team");
    let count = |name: &str| data["facts"][name].as_str().unwrap().parse::<u64>().unwrap();
    assert!((10..=12).contains(&count("expired_count")), "{data}");
    assert!(count("request_count") > count("expired_count"));
    clock.set(Timestamp(last.0 + 3 * 3_600_000));
    eventually("it is over", async || states() == ["ALERT_STATE_OPEN", "ALERT_STATE_RESOLVED"]).await;
    alerts.abort();
}
