//! What the outbox has, on its way to receivers: in one process, with a clock that stands still, so what is left behind stays there.

use serde_json::json;
use tollgate::{
    domain::counter::CounterKey,
    rpc::proto::{
        PauseRequest, PauseTarget, ResumeRequest, pause_service_client::PauseServiceClient,
        pause_target::Target,
    },
    store::{OUTBOX_KEPT, Outbox as _, OutboxEntry, budget_forecast},
};

use super::{
    receiver::{Answer, Receiver},
    webhook_of,
};
use crate::harness::{Fixture, START, Server, Ways, connect, eventually};

const POLICY: &str = r#"
[organization]
id = "acme"
[teams.team]
models = ["*"]
max_output_tokens = 9
budget = { monthly_usd = "9.00" }
[[alerts]]
receiver = "ops"
"#;

fn key() -> String {
    format!("{POLICY}[teams.team.keys.web]\nsha256 = \"{}\"\n", "ab".repeat(32))
}

/// The key is gone by the time its pause is over, and the team is told all the same: who was told that it began.
#[tokio::test]
async fn what_is_over_is_of_the_team_that_it_began_with() {
    let (receiver, fixture) = (Receiver::start(Answer::Status(200)).await, Fixture::embedded());
    let store = fixture.store.clone();
    let ways = Ways { receivers: vec![webhook_of(&receiver)], ..Ways::default() };
    let server = Server::start_in(fixture, &key(), ways);
    let alerts = tokio::spawn(server.deliver_alerts(store));
    let mut pauses = PauseServiceClient::new(connect(server.address()).await);
    let target = || Some(PauseTarget { target: Some(Target::Key("web".to_owned())) });
    pauses.pause(PauseRequest { target: target(), reason: "INC-7".to_owned() }).await.unwrap();
    eventually("it opens", async || receiver.requests().len() == 1).await;
    server.set_policy(POLICY).await;
    pauses.resume(ResumeRequest { target: target(), reason: "over".to_owned() }).await.unwrap();
    eventually("it is over", async || receiver.requests().len() == 2).await;
    let told: Vec<_> = receiver.requests().iter().map(|request| request.json()["data"].clone()).collect();
    assert_eq!(told[1]["state"], "ALERT_STATE_RESOLVED");
    for alert in told {
        assert_eq!((&alert["team"], &alert["key"]), (&"team".into(), &"web".into()), "{alert}");
    }
    alerts.abort();
}

/// An entry from which no delivery can be made leaves those behind it alone, and a forecast has the time at which it was made, although
/// its entry is of the period.
#[tokio::test]
async fn an_alert_that_cannot_be_queued_holds_up_no_other() {
    let (receiver, fixture) = (Receiver::start(Answer::Status(200)).await, Fixture::embedded());
    let store = fixture.store.clone();
    let alert = json!({ "alert": {
        "id": "000000000000", "kind": "ALERT_KIND_PAUSE", "severity": "SEVERITY_INFO", "state": "ALERT_STATE_OPEN",
        "createTime": "2026-11-23T10:00:00Z", "summary": "s".repeat(8_000), "organization": "acme",
    } });
    // The longest that the outbox takes, so what it says of a delivery is too much.
    let payload: Vec<_> = [&[2][..], alert.to_string().as_bytes()].concat();
    assert!((8_100..=8_192).contains(&payload.len()), "{}", payload.len());
    let long = OutboxEntry { id: "000000000000_open".parse().unwrap(), payload: payload.into() };
    let counter = CounterKey::new("team/team|usd|month").in_period(20_261_101);
    let forecast = budget_forecast(&counter, START, START.plus(86_400_000)).unwrap();
    // By its age the first would go with this.
    let kept = tollgate::store::OutboxKept { ms: u64::MAX, ..OUTBOX_KEPT };
    store.outbox_append(vec![long, forecast], kept).await.unwrap();
    let ways = Ways { receivers: vec![webhook_of(&receiver)], ..Ways::default() };
    let server = Server::start_in(fixture, POLICY, ways);
    let alerts = tokio::spawn(server.deliver_alerts(store));
    eventually("it has arrived", async || !receiver.requests().is_empty()).await;
    let requests = receiver.requests();
    let data = &requests[0].json()["data"];
    assert_eq!(data["kind"], "ALERT_KIND_BUDGET_FORECAST");
    assert_eq!(requests[0].header("webhook-id"), format!("{}_open", data["id"].as_str().unwrap()));
    assert_eq!(data["id"].as_str().unwrap()[..12], format!("{:012x}", START.0));
    assert_eq!(requests.len(), 1);
    alerts.abort();
}
