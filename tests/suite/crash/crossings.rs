//! A `kill -9` between a settlement and the delivery of what it crossed.

use tempfile::TempDir;
use tollgate::{
    runtime::clock::Clock,
    store::{Crossing, Outbox, StoreError, embedded::EmbeddedStore, redis::RedisStore},
};

use super::MODEL;
use crate::{
    harness::{Process, chat, organization, settings, used},
    redis_server,
};

fn policy(organization: &str) -> String {
    let policy = super::policy(organization);
    policy.replace(
        "[teams.team]",
        "[teams.team]\nbudget = { monthly_usd = \"0.000001\", alerts = [\"50%\", \"80%\"] }",
    )
}

/// Settles what crosses both thresholds, and kills the process as soon as it has answered.
async fn cross_and_kill(server: Process) {
    let mut client = server.client().await;
    let answer = client.authorize(chat("team", MODEL, 500, 400)).await.unwrap().into_inner();
    let report = client.record_usage(used(&answer.reservation_id, 500, 400)).await.unwrap().into_inner();
    let crossed: Vec<_> = report.alerts.iter().map(|alert| &*alert.threshold).collect();
    assert_eq!(crossed, ["50%", "80%"]);
    server.kill();
}

async fn holds_both<S: Outbox>(store: &S) -> Result<(), StoreError> {
    let entries = store.outbox_page(None, 9).await?;
    let crossings: Vec<_> = entries.iter().filter_map(|entry| Crossing::read(&entry.payload)).collect();
    let found: Vec<_> =
        crossings.iter().map(|crossing| (&*crossing.counter, crossing.amount, crossing.settled)).collect();
    assert_eq!(found, [("team/team|usd|month", 800, 900), ("team/team|usd|month", 500, 900)]);
    Ok(())
}

#[tokio::test]
async fn a_crossing_is_in_the_outbox_of_the_embedded_store_when_its_settlement_is_answered() {
    let directory = TempDir::new().unwrap();
    cross_and_kill(Process::start(directory.path(), &policy("acme"), "embedded:data").await).await;
    let store = EmbeddedStore::open(&directory.path().join("data"), Clock::System).unwrap();
    holds_both(&store).await.unwrap();
}

#[tokio::test]
async fn a_crossing_is_in_the_outbox_of_redis_when_its_settlement_is_answered() {
    let Some(redis) = redis_server::shared() else { return };
    let settings = settings(redis, &organization());
    let directory = TempDir::new().unwrap();
    let policy = policy(&settings.organization);
    cross_and_kill(Process::start(directory.path(), &policy, &redis.url()).await).await;
    holds_both(&RedisStore::connect(settings, Clock::System).unwrap()).await.unwrap();
}
