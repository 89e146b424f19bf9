//! Alerts that arrive: the real process, with receivers over HTTP and HTTPS.

mod alertmanager;
mod drift;
mod foresight;
mod lasting;
mod lists;
mod outage;
pub(crate) mod receiver;
mod routing;
mod several;
mod trials;

use std::{fs, path::Path, time::Duration};

use aws_lc_rs::hmac;
use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde_json::json;
use tempfile::TempDir;
use tollgate::{
    rpc::proto::Decision,
    settings::{ReceiverKind, ReceiverSettings, ReceiverUrl},
};

use self::receiver::{Answer, Receiver, Request};
use crate::{
    harness::{Process, chat, eventually, eventually_within, organization, used},
    redis_server::{self, free_port},
    support::certificates::{Ca, Leaf},
};

const MODEL: &str = "m/text";

/// A team whose budget is crossed at 500 and 800 nano-dollars, and the routes of its alerts.
fn policy(organization: &str, routes: &str) -> String {
    format!(
        r#"
[organization]
id = "{organization}"
[teams.team]
models = ["m/text"]
max_output_tokens = 4000
budget = {{ monthly_usd = "0.000001", alerts = ["50%", "80%"] }}
[teams.other]
models = ["m/text"]
[teams.last]
models = ["m/text"]
max_output_tokens = 4000
budget = {{ monthly_usd = "0.00" }}
[[prices]]
model = "m/text"
input_usd_per_million_tokens = "0.001"
output_usd_per_million_tokens = "0.001"
{routes}"#
    )
}

fn route(receiver: &str) -> String {
    format!("[[alerts]]\nreceiver = \"{receiver}\"\n")
}

/// A receiver in the settings, on this machine.
fn setting(name: &str, kind: &str, url: &str, more: &str) -> String {
    format!("[receivers.{name}]\nkind = \"{kind}\"\nurl = \"{url}\"\nallow_private = true\n{more}\n")
}

fn webhook(name: &str, receiver: &Receiver) -> String {
    setting(name, "webhook", &format!("http://{}/in", receiver.address), "timeout = \"1s\"")
}

/// `ops`, as the settings say it.
pub(crate) fn webhook_of(receiver: &Receiver) -> ReceiverSettings {
    ReceiverSettings {
        name: "ops".to_owned(),
        kind: ReceiverKind::Webhook,
        url: ReceiverUrl::Here(format!("http://{}/in", receiver.address)),
        secret_files: Vec::new(),
        tls_ca_file: None,
        timeout: Duration::from_secs(1),
        retry_for: Duration::from_secs(86_400),
        allow_private: true,
    }
}

async fn start(directory: &Path, policy: &str, settings: &str, store: &str) -> Process {
    fs::write(directory.join("settings.toml"), settings).unwrap();
    let store = format!("--store={store}");
    let arguments = ["--config=settings.toml", "--admin-enabled=false", "--store-timeout=20s", &*store];
    Process::start_arguments(directory, policy, &arguments).await
}

/// Spends so much of the budget, in nano-dollars.
async fn spend(server: &Process, amount: i64) {
    let mut client = server.client().await;
    let answer = client.authorize(chat("team", MODEL, amount, 1)).await.unwrap().into_inner();
    client.record_usage(used(&answer.reservation_id, amount - 1, 1)).await.unwrap();
}

/// Over HTTPS, with both secrets of a rotation, checked as a receiver would.
#[tokio::test]
async fn an_alert_arrives_signed() {
    let directory = TempDir::new().unwrap();
    let ca = Ca::new("a CA");
    let receiver = Receiver::start_https(&ca.issue(Leaf::server())).await;
    fs::write(directory.path().join("ca.pem"), &ca.pem).unwrap();
    let keys = [[7_u8; 24], [9; 24]];
    for (name, key) in ["new", "old"].iter().zip(keys) {
        let secret = format!("whsec_{}\n", BASE64_STANDARD.encode(key));
        fs::write(directory.path().join(name), secret).unwrap();
    }
    let url = format!("https://localhost:{}/in?token=hush", receiver.address.port());
    let files = "secret_files = [\"new\", \"old\"]\ntls_ca_file = \"ca.pem\"";
    let settings = setting("ops", "webhook", &url, files);
    let policy = policy("acme", &route("ops"));
    let server = start(directory.path(), &policy, &settings, "embedded:data").await;
    spend(&server, 600).await;
    eventually("it has arrived", async || !receiver.requests().is_empty()).await;
    let request = receiver.requests().remove(0);
    assert_eq!(request.line, "POST /in?token=hush HTTP/1.1");
    let (id, time) = (request.header("webhook-id"), request.header("webhook-timestamp"));
    let body = request.json();
    assert_eq!(format!("{}_open", body["data"]["id"].as_str().unwrap()), id);
    let signed = [format!("{id}.{time}.").as_bytes(), &request.body].concat();
    let signatures: Vec<_> = request.header("webhook-signature").split(' ').collect();
    assert_eq!(signatures.len(), 2);
    for (signature, key) in signatures.iter().zip(keys) {
        let code = BASE64_STANDARD.decode(signature.strip_prefix("v1,").unwrap()).unwrap();
        hmac::verify(&hmac::Key::new(hmac::HMAC_SHA256, &key), &signed, &code).unwrap();
    }
    let usd = |nanos: u64| json!({ "currencyCode": "USD", "nanos": nanos });
    assert_eq!(body["type"], "alert.budget_threshold");
    assert_eq!(body["data"]["team"], "team");
    assert_eq!(body["data"]["limitId"], "teams.team.budget.monthly_usd");
    assert_eq!(body["data"]["severity"], "SEVERITY_WARNING");
    let crossing = json!({ "threshold": "50%", "amount": usd(500), "spent": usd(600), "budget": usd(1_000) });
    assert_eq!(body["data"]["budget"], crossing);
    let log = server.log();
    assert!(!log.contains("hush") && !log.contains("whsec"), "{log}");
    // One more crossing is one more alert, and the first is not sent again.
    spend(&server, 300).await;
    eventually("the second has arrived", async || receiver.thresholds() == ["50%", "80%"]).await;
    assert_eq!(receiver.requests().len(), 2);
}

/// A receiver that is down, one that fails, and one that hangs: none delays another, and each gets what it missed.
#[tokio::test]
async fn a_receiver_that_was_down_misses_nothing_and_one_that_hangs_delays_no_other() {
    let directory = TempDir::new().unwrap();
    let (hanging, failing) =
        (Receiver::start(Answer::Hang).await, Receiver::start(Answer::Status(503)).await);
    let (redirecting, good) =
        (Receiver::start(Answer::Status(307)).await, Receiver::start(Answer::Status(200)).await);
    let down = free_port();
    let settings =
        [("hanging", &hanging), ("failing", &failing), ("redirecting", &redirecting), ("good", &good)];
    let settings: String = settings.iter().map(|(name, receiver)| webhook(name, receiver)).collect();
    let settings = settings + &setting("down", "webhook", &format!("http://{down}/in"), "");
    let routes: String = ["hanging", "failing", "redirecting", "good", "down"].map(route).concat();
    let server = start(directory.path(), &policy("acme", &routes), &settings, "embedded:data").await;
    spend(&server, 900).await;
    eventually("the good one has both", async || good.thresholds() == ["50%", "80%"]).await;
    assert_eq!(good.requests().len(), 2);
    eventually("the others were tried", async || {
        [&hanging, &failing, &redirecting].iter().all(|receiver| receiver.requests().len() >= 2)
    })
    .await;
    let late = Receiver::start_at(down, Answer::Status(200), None).await;
    failing.answers(Answer::Status(200));
    hanging.answers(Answer::Status(200));
    redirecting.answers(Answer::Status(200));
    for receiver in [&late, &failing, &hanging, &redirecting] {
        eventually("both have arrived", async || receiver.thresholds() == ["50%", "80%"]).await;
    }
    let ids = |receiver: &Receiver| {
        let requests = receiver.requests();
        let mut ids: Vec<_> =
            requests.iter().map(|request| request.header("webhook-id").to_owned()).collect();
        ids.sort();
        ids.dedup();
        ids
    };
    assert_eq!((ids(&failing), ids(&late)), (ids(&good), ids(&good)), "repeats have one id");
    let followed = redirecting.requests().iter().any(|request| request.line.contains("/elsewhere"));
    assert!(!followed, "a redirect was followed");
    assert_eq!(good.requests().len(), 2, "what has arrived is not sent again");
}

/// Another process delivers what the one that died had not, on either store.
#[tokio::test]
async fn an_alert_arrives_after_a_kill() {
    let redis = redis_server::shared().map(|redis| redis.url());
    for store in std::iter::once("embedded:data".to_owned()).chain(redis) {
        let directory = TempDir::new().unwrap();
        let address = free_port();
        let settings = setting("ops", "webhook", &format!("http://{address}/"), "");
        let policy = policy(&organization(), &route("ops"));
        let server = start(directory.path(), &policy, &settings, &store).await;
        spend(&server, 900).await;
        server.kill();
        let receiver = Receiver::start_at(address, Answer::Status(200), None).await;
        let _server = start(directory.path(), &policy, &settings, &store).await;
        // A lease of the first process may have to end.
        let lease = Duration::from_secs(100);
        eventually_within(lease, "both have arrived", async || receiver.thresholds() == ["50%", "80%"]).await;
    }
}

#[tokio::test]
async fn routes_choose_and_a_private_address_is_refused() {
    let directory = TempDir::new().unwrap();
    let [mine, others, critical, private] =
        [const { Answer::Status(200) }; 4].map(|answer| async move { Receiver::start(answer).await });
    let (mine, others, critical, private) = (mine.await, others.await, critical.await, private.await);
    let slack = setting("mine", "slack", &format!("http://{}/services/x", mine.address), "");
    let settings = slack
        + &webhook("others", &others)
        + &webhook("critical", &critical)
        + &webhook("private", &private).replace("allow_private = true\n", "");
    let routes = [
        route("mine") + "teams = [\"team\"]\n",
        route("mine") + "kinds = [\"budget_threshold\"]\n",
        route("others") + "teams = [\"other\"]\n",
        route("critical") + "min_severity = \"critical\"\n",
        route("private"),
        route("unknown"),
    ];
    let server = start(directory.path(), &policy("acme", &routes.concat()), &settings, "embedded:data").await;
    spend(&server, 600).await;
    eventually("it has arrived", async || !mine.requests().is_empty()).await;
    let text = mine.requests()[0].json()["text"].as_str().unwrap().to_owned();
    assert_eq!(text, "team has spent 50% of its monthly budget: $0.0000006 of $0.000001");
    let said = |what: &str| server.log().contains(what);
    eventually("the refusal is logged", async || said("its address is private; `allow_private`")).await;
    assert!(said("the policy sends alerts to a receiver that the settings do not have"));
    // Two routes lead there, and it came once.
    assert_eq!(mine.requests().len(), 1);
    assert!([&others, &critical, &private].iter().all(|receiver| receiver.requests().is_empty()));
}

/// Reserved and not reported, it crosses no threshold. Each replica meets the denial, and one alert comes of it.
#[tokio::test]
async fn the_first_denial_by_a_budget_arrives_once_over_replicas() {
    let Some(redis) = redis_server::shared() else { return };
    let directory = TempDir::new().unwrap();
    let receiver = Receiver::start(Answer::Status(200)).await;
    let settings = webhook("ops", &receiver);
    let policy = policy(&organization(), &(route("ops") + "kinds = [\"budget_exhausted\"]\n"));
    let servers = [
        start(directory.path(), &policy, &settings, &redis.url()).await,
        start(directory.path(), &policy, &settings, &redis.url()).await,
    ];
    let mut client = servers[0].client().await;
    client.authorize(chat("team", MODEL, 900, 1)).await.unwrap();
    for server in &servers {
        let denied = server.client().await.authorize(chat("team", MODEL, 900, 1)).await.unwrap();
        assert_eq!(denied.into_inner().decision(), Decision::Denied);
    }
    eventually("it has arrived", async || !receiver.requests().is_empty()).await;
    client.authorize(chat("team", MODEL, 900, 1)).await.unwrap();
    // What comes later is sent later: once it has arrived, so has all that came before.
    let denied = client.authorize(chat("last", MODEL, 900, 1)).await.unwrap().into_inner();
    assert_eq!(denied.decision(), Decision::Denied);
    let of_last = |request: &Request| request.json()["data"]["team"] == "last";
    eventually("the last has arrived", async || receiver.requests().iter().any(of_last)).await;
    let requests: Vec<_> = receiver.requests().into_iter().filter(|request| !of_last(request)).collect();
    assert_eq!(requests.len(), 1);
    let data = &requests[0].json()["data"];
    assert_eq!(
        (&data["kind"], &data["severity"]),
        (&"ALERT_KIND_BUDGET_EXHAUSTED".into(), &"SEVERITY_CRITICAL".into())
    );
    assert_eq!(data["limitId"], "teams.team.budget.monthly_usd");
    let summary = "team has used up its monthly budget of $0.000001, which has denied a request ($0.00 spent, the rest is reserved or too \
                   little for the request)";
    assert_eq!(data["summary"], summary);
    // It is of the time of the denial, and not of the budget's period, so that it is where lists of the newest have it.
    let time = u64::from_str_radix(&data["id"].as_str().unwrap()[..12], 16).unwrap();
    let created: jiff::Timestamp = data["createTime"].as_str().unwrap().parse().unwrap();
    assert_eq!(i64::try_from(time).unwrap(), created.as_millisecond());
}
