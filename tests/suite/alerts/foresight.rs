//! Budgets that will not last.

use std::time::Duration;

use tollgate::{
    domain::Timestamp,
    rpc::proto::{AuthorizeRequest, authorize_request::Caller},
    settings::{ReceiverKind, ReceiverSettings, ReceiverUrl},
};

use super::receiver::{Answer, Receiver};
use crate::access::digest;
use crate::harness::{Fixture, Server, Ways, chat, eventually, used};

const POLICY: &str = r#"
[organization]
id = "acme"
time_zone = "Europe/Berlin"
[[alerts]]
receiver = "ops"
kinds = ["budget_forecast"]
[teams.bot]
models = ["m/*"]
max_output_tokens = 1000
budget = { monthly_usd = "145", weekly_usd = "80", daily_usd = "4", on_shortfall = "warn" }
[teams.quiet]
models = ["m/*"]
max_output_tokens = 1000
budget = { monthly_usd = "1000" }
[teams.quiet.keys.web]
sha256 = "DIGEST"
budget = { monthly_usd = "145", weekly_usd = "80", on_shortfall = "warn" }
[[prices]]
model = "m/a"
input_usd_per_million_tokens = "1000"
output_usd_per_million_tokens = "1000"
"#;
const DAY_MS: u64 = 86_400_000;
/// 14 October 2026, a Wednesday, 10:00 in Berlin.
const FIRST: Timestamp = Timestamp(1_791_964_800_000);
/// 11 November 2026, a Wednesday, 12:00 in Berlin.
const NOON: Timestamp = Timestamp(1_794_394_800_000);

/// $10 on each working day of four weeks make $210 of a month, and $50 of a week.
#[tokio::test(flavor = "multi_thread")]
async fn a_budget_that_will_not_last_is_told_once() {
    let receiver = Receiver::start(Answer::Status(200)).await;
    let fixture = Fixture::embedded();
    let (store, clock) = (fixture.store.clone(), fixture.clock.clone());
    let settings = ReceiverSettings {
        name: "ops".to_owned(),
        kind: ReceiverKind::Webhook,
        url: ReceiverUrl::Here(format!("http://{}/in", receiver.address)),
        secret_files: Vec::new(),
        tls_ca_file: None,
        timeout: Duration::from_secs(1),
        retry_for: Duration::from_secs(86_400),
        allow_private: true,
    };
    let policy = POLICY.replace("DIGEST", &digest("tgk_web"));
    let server = Server::start_in(fixture, &policy, Ways { receivers: vec![settings], ..Ways::default() });
    let mut client = server.client().await;
    let mut book = async |at: Timestamp, tokens: i64| {
        clock.set(at);
        for team in ["bot", "quiet"] {
            let request = match team {
                "bot" => chat(team, "m/a", tokens, 0),
                _ => AuthorizeRequest {
                    caller: Some(Caller::ApiKey("tgk_web".to_owned())),
                    ..chat(team, "m/a", tokens, 0)
                },
            };
            let id = client.authorize(request).await.unwrap().into_inner().reservation_id;
            client.record_usage(used(&id, tokens, 0)).await.unwrap();
        }
    };
    for day in (0..28).filter(|day| (day + 2) % 7 < 5) {
        book(FIRST.plus(day * DAY_MS), 10_000).await;
    }
    book(NOON, 5_000).await;
    // The day's budget is used up, of which other alerts tell, and the week's lasts.
    let told =
        || receiver.requests().iter().map(|request| request.json()["data"].clone()).collect::<Vec<_>>();
    let alerts = tokio::spawn(server.deliver_alerts(store.clone()));
    eventually("the team's and the key's are told", async || told().len() > 1).await;
    alerts.abort();
    // Another replica looks at all teams in turn, and finds one more that will not last.
    server.set_policy(&policy.replace("\"1000\" }", "\"190\" }")).await;
    let alerts = tokio::spawn(server.deliver_alerts(store));
    eventually("the other is told", async || told().len() > 2).await;
    alerts.abort();
    let all = told();
    let (first, last) = all.split_at(2);
    let of_key = first.iter().find(|alert| alert["key"] == "web").unwrap();
    assert_eq!(
        (&of_key["team"], &of_key["limitId"]),
        (&"quiet".into(), &"teams.quiet.keys.web.budget.monthly_usd".into())
    );
    assert_eq!(of_key["forecast"]["exhaustTime"], "2026-11-20T11:00:00Z");
    let [Some(bot), Some(quiet)] = [first.iter().find(|alert| alert["team"] == "bot"), last.first()] else {
        panic!("{:?}", told())
    };
    assert_eq!(
        (&bot["kind"], &bot["severity"]),
        (&"ALERT_KIND_BUDGET_FORECAST".into(), &"SEVERITY_WARNING".into())
    );
    assert_eq!((&bot["team"], &bot["limitId"]), (&"bot".into(), &"teams.bot.budget.monthly_usd".into()));
    assert_eq!(bot["forecast"]["exhaustTime"], "2026-11-20T11:00:00Z");
    assert_eq!(quiet["limitId"], "teams.quiet.budget.monthly_usd");
    assert!(server.stop().await);
}
