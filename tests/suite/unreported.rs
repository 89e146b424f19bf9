//! Reservations that were never reported, in the usage history.

use tollgate::{
    rpc::proto::{self, Granularity, QueryUsageRequest, report_service_client::ReportServiceClient},
    runtime::clock::Clock,
    store::redis::RedisStore,
};

use crate::{
    harness::{Fixture, START, Server, StoreKind, Ways, chat, connect, organization, settings, used},
    redis_server,
};

const POLICY: &str = r#"
[organization]
id = "acme"
[teams.bot]
models = ["m/*"]
max_output_tokens = 1000
[teams.other]
models = ["m/*"]
max_output_tokens = 1000
[[prices]]
model = "m/a"
input_usd_per_million_tokens = "1"
output_usd_per_million_tokens = "1"
"#;
/// How long a reservation can be reported: its life, and a day.
const REPORTABLE_MS: u64 = 600_000 + 86_400_000;

/// What is told of each team: requests, and how many of them or beside them were not settled.
async fn told(server: &Server, granularity: Granularity) -> Vec<(String, i64, i64)> {
    let request = QueryUsageRequest {
        start_date: "2026-11-20".to_owned(),
        end_date: "2026-12-01".to_owned(),
        granularity: granularity.into(),
        group_by: vec!["team".to_owned()],
        ..Default::default()
    };
    let mut reports = ReportServiceClient::new(connect(server.address()).await);
    let answer = reports.query_usage(request).await.unwrap().into_inner();
    let row = |row: proto::UsageRow| {
        let (of, amounts) = (row.dimensions.unwrap(), row.amounts.unwrap());
        (of.team, amounts.request_count, amounts.unsettled_count)
    };
    answer.rows.into_iter().map(row).collect()
}

fn row(team: &str, requests: i64, unsettled: i64) -> (String, i64, i64) {
    (team.to_owned(), requests, unsettled)
}

/// `sweep` has the store forget what is over.
async fn they_count_once_they_cannot_be_reported(server: Server, sweep: impl AsyncFn()) {
    let mut client = server.client().await;
    let mut ids = Vec::new();
    for team in ["bot", "bot", "bot", "bot", "other"] {
        let answer = client.authorize(chat(team, "m/a", 10, 10)).await.unwrap().into_inner();
        assert!(!answer.reservation_id.is_empty(), "{answer:?}");
        ids.push(answer.reservation_id);
    }
    client.record_usage(used(&ids[0], 10, 10)).await.unwrap();
    server.clock.set(START.plus(REPORTABLE_MS - 1));
    sweep().await;
    // Late, and just in time.
    client.record_usage(used(&ids[1], 10, 10)).await.unwrap();
    assert_eq!(told(&server, Granularity::Total).await, [row("bot", 2, 0)]);
    server.clock.set(START.plus(REPORTABLE_MS));
    for _ in 0..3 {
        sweep().await;
        assert_eq!(told(&server, Granularity::Total).await, [row("bot", 2, 2), row("other", 0, 1)]);
    }
    // On the day of their `Authorize`, and in no hour.
    assert_eq!(told(&server, Granularity::Day).await, [row("bot", 2, 2), row("other", 0, 1)]);
    assert_eq!(told(&server, Granularity::Hour).await, [row("bot", 2, 0)]);
    // Too late, so that nothing is taken back.
    client.record_usage(used(&ids[2], 10, 10)).await.unwrap_err();
    // They have spent nothing: what was reserved stays reserved.
    let spend = client.get_spend(proto::GetSpendRequest::default()).await.unwrap().into_inner();
    let other = spend.teams.iter().find(|team| team.name == "other").unwrap();
    assert!(other.by_model.is_empty() && other.by_day.is_empty(), "{other:?}");
    assert!(server.stop().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn they_count_in_the_embedded_store() {
    let fixture = Fixture::embedded();
    let store = fixture.store.clone();
    let server = Server::start_in(fixture, POLICY, Ways::default());
    let unreported = store.unreported();
    they_count_once_they_cannot_be_reported(server, async || store.checkpoint().await.unwrap()).await;
    assert_eq!(unreported.teams(), [("bot".into(), 2), ("other".into(), 1)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn they_count_on_redis() {
    if !StoreKind::Redis.is_available() {
        return;
    }
    let redis = redis_server::shared().unwrap();
    let (organization, clock) = (organization(), tollgate::runtime::clock::ManualClock::new(START));
    let server = Server::start_on_redis(redis, &organization, POLICY, clock.clone());
    let settings = settings(redis, &organization);
    let store = RedisStore::connect(settings.clone(), Clock::Manual(clock)).unwrap();
    let sweep = async || {
        // The first may only learn that the clock was moved.
        for _ in 0..2 {
            store.sweep(0, 1_000).await.unwrap();
        }
    };
    they_count_once_they_cannot_be_reported(server, sweep).await;
    assert_eq!(settings.unreported.teams(), [("bot".into(), 2), ("other".into(), 1)]);
}
