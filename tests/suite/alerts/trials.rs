//! Tests of receivers: the real process, real HTTP, and what is left of them in the audit log, on the screen and in the metrics.

use std::{
    net::SocketAddr,
    process::{Command, Output},
};

use aws_lc_rs::hmac;
use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde_json::{Value, json};
use tempfile::TempDir;
use tollgate::rpc::proto::{
    AuditEvent, DeliveryState, ListAuditEventsRequest, ListReceiversRequest, Receiver as Shown, ReceiverKind,
    TestReceiverRequest, TestReceiverResponse, alert_service_client::AlertServiceClient,
    audit_service_client::AuditServiceClient,
};
use tonic::{Code, Status, transport::Channel};

use super::{
    policy,
    receiver::{Answer, Receiver, Request},
    route, setting, spend, start, webhook,
};
use crate::{
    access::reason,
    harness::{Process, connect, eventually, eventually_within, json_of},
    redis_server::free_port,
    telemetry,
};

use DeliveryState::{Failing, Pending, Sent, Unspecified};

type Client = AlertServiceClient<Channel>;

async fn test(client: &mut Client, name: &str) -> Result<TestReceiverResponse, Status> {
    let answer = client.test_receiver(TestReceiverRequest { name: name.to_owned() }).await?;
    Ok(answer.into_inner())
}

fn is_signed(request: &Request, key: &[u8]) {
    let (id, time) = (request.header("webhook-id"), request.header("webhook-timestamp"));
    let signed = [format!("{id}.{time}.").as_bytes(), &request.body].concat();
    let code = request.header("webhook-signature").strip_prefix("v1,").unwrap();
    let code = BASE64_STANDARD.decode(code).unwrap();
    hmac::verify(&hmac::Key::new(hmac::HMAC_SHA256, key), &signed, &code).unwrap();
}

async fn events(process: &Process) -> Vec<AuditEvent> {
    let mut client = AuditServiceClient::new(connect(process.address()).await);
    let request = ListAuditEventsRequest { action: "alert.test".to_owned(), ..Default::default() };
    client.list_audit_events(request).await.unwrap().into_inner().events
}

/// `id`: that of the alert that has arrived, the first of seven.
async fn are_recorded(process: &Process, id: &str) {
    eventually("all are recorded", async || events(process).await.len() == 7).await;
    let events = events(process).await;
    let last = &events[6];
    let after = json!({ "alert": id, "delivered": true, "http_status": 200 });
    assert_eq!((&*last.subject, &*last.outcome, json_of(last.after.as_ref())), ("good", "done", after));
    let broken = &events[4];
    assert_eq!((&*broken.subject, &*broken.outcome), ("broken", "failed"));
    assert_eq!(json_of(broken.after.as_ref())["error"], "answered 500");
    let told = format!("{events:?}{}", process.log());
    assert!(!told.contains("hush") && !told.contains("whsec"), "{told}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_test_is_sent_as_alerts_are_and_is_recorded() {
    let directory = TempDir::new().unwrap();
    let answers =
        [200, 410, 500, 307].map(|status| async move { Receiver::start(Answer::Status(status)).await });
    let [good, gone, broken, redirecting] = answers;
    let (good, gone, broken, redirecting) = (good.await, gone.await, broken.await, redirecting.await);
    let hanging = Receiver::start(Answer::Hang).await;
    let key = [7_u8; 24];
    let secret = format!("whsec_{}\n", BASE64_STANDARD.encode(key));
    std::fs::write(directory.path().join("secret"), secret).unwrap();
    let url = format!("http://{}/in?token=hush", good.address);
    let settings = setting("good", "webhook", &url, "secret_files = [\"secret\"]")
        + &webhook("gone", &gone)
        + &webhook("broken", &broken)
        + &webhook("redirecting", &redirecting)
        + &webhook("hanging", &hanging)
        + &webhook("private", &good).replace("allow_private = true\n", "")
        + &setting("down", "slack", &format!("http://{}/", free_port()), "");
    let process = start(directory.path(), &policy("acme", ""), &settings, "embedded:data").await;
    let mut client = Client::new(connect(process.address()).await);

    let answer = test(&mut client, "good").await.unwrap();
    assert_eq!((answer.delivered, answer.http_status, &*answer.error), (true, 200, ""));
    let duration = answer.duration.unwrap();
    assert!(duration.seconds < 60 && (duration.seconds, duration.nanos) > (0, 0), "{duration:?}");
    let request = good.requests().remove(0);
    is_signed(&request, &key);
    let body = request.json();
    assert_eq!((&body["type"], &body["data"]["kind"]), (&"alert.test".into(), &"ALERT_KIND_TEST".into()));
    assert_eq!(
        (&body["data"]["severity"], &body["data"]["organization"]),
        (&"SEVERITY_INFO".into(), &"acme".into())
    );
    assert_eq!(format!("{}_open", body["data"]["id"].as_str().unwrap()), request.header("webhook-id"));

    for (name, status, error) in [
        ("gone", 410, "answered 410"),
        ("broken", 500, "answered 500"),
        ("redirecting", 307, "redirects are not followed"),
        ("hanging", 0, "no answer in time"),
        ("private", 0, "its address is private"),
        ("down", 0, "cannot be reached"),
    ] {
        let answer = test(&mut client, name).await.unwrap();
        assert_eq!((answer.delivered, answer.http_status), (false, status), "{name}");
        assert!(answer.error.contains(error), "{name}: {}", answer.error);
    }
    let followed = redirecting.requests().iter().any(|request| request.line.contains("/elsewhere"));
    assert!(!followed && good.requests().len() == 1, "a redirect, or a private address, was asked");
    for (name, expected) in [
        ("none", (Code::NotFound, "UNKNOWN_RECEIVER")),
        ("../good", (Code::NotFound, "UNKNOWN_RECEIVER")),
        ("", (Code::InvalidArgument, "INVALID_REQUEST")),
        ("a\nb", (Code::InvalidArgument, "INVALID_REQUEST")),
        (&"x".repeat(65), (Code::InvalidArgument, "INVALID_REQUEST")),
    ] {
        let refused = test(&mut client, name).await.unwrap_err();
        let (code, why) = reason(&refused);
        assert_eq!((code, &*why), expected, "{name}");
    }
    are_recorded(&process, body["data"]["id"].as_str().unwrap()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tests_that_hang_are_bounded() {
    let directory = TempDir::new().unwrap();
    let hanging = Receiver::start(Answer::Hang).await;
    let settings = webhook("hanging", &hanging).replace("\"1s\"", "\"6s\"");
    let process = start(directory.path(), &policy("acme", ""), &settings, "embedded:data").await;
    let client = Client::new(connect(process.address()).await);
    let tests: Vec<_> = (0..4)
        .map(|_| {
            let mut client = client.clone();
            tokio::spawn(async move { test(&mut client, "hanging").await })
        })
        .collect();
    eventually("four are on their way", async || hanging.requests().len() == 4).await;
    let refused = test(&mut client.clone(), "hanging").await.unwrap_err();
    assert_eq!(reason(&refused), (Code::Unavailable, "OVERLOADED".to_owned()));
    for test in tests {
        test.abort();
    }
    // They continue without their callers, and are recorded.
    eventually_within(std::time::Duration::from_secs(60), "all are recorded", async || {
        events(&process).await.len() == 4
    })
    .await;
    assert_eq!(test(&mut client.clone(), "hanging").await.unwrap().error, "no answer in time");
}

/// `tollgate` with these arguments.
fn tollgate(process: &Process, arguments: &[&str], code: i32) -> String {
    let address = process.address().to_string();
    let mut command = Command::new(env!("CARGO_BIN_EXE_tollgate"));
    command.args(arguments).args(["--address", &address]).env_remove("TOLLGATE_TOKEN");
    let Output { status, stdout, stderr } = tokio::task::block_in_place(|| command.output().unwrap());
    let text = String::from_utf8_lossy(&stdout).into_owned() + &String::from_utf8_lossy(&stderr);
    assert_eq!(status.code(), Some(code), "{arguments:?}: {text}");
    text
}

fn states(receivers: &[Shown]) -> Vec<(&str, ReceiverKind, DeliveryState)> {
    receivers.iter().map(|receiver| (&*receiver.name, receiver.kind(), receiver.state())).collect()
}

/// `tollgate alerts test`.
fn the_command_tests(process: &Process) {
    assert!(
        tollgate(process, &["alerts", "test", "good"], 0).starts_with("good has the test: it answered 200")
    );
    let failed = tollgate(process, &["alerts", "test", "broken"], 1);
    assert!(failed.starts_with("broken does not have the test: answered 500"), "{failed}");
    let json: Value =
        serde_json::from_str(&tollgate(process, &["alerts", "test", "broken", "--json"], 1)).unwrap();
    assert_eq!((&json["delivered"], &json["httpStatus"]), (&false.into(), &500.into()));
    assert!(tollgate(process, &["alerts", "test", "none"], 2).contains("no receiver `none`"));
}

/// What the metrics say of one crossing that `good` has and `broken` has not.
async fn metrics_say(admin: SocketAddr) {
    telemetry::eventually_is(admin, "tollgate_alerts", &["kind=\"budget_threshold\"", "state=\"open\""], 1.0)
        .await;
    let page = telemetry::page(admin).await;
    let count = |receiver: &str, result: &str| {
        let labels = [format!("receiver=\"{receiver}\""), format!("result=\"{result}\"")];
        let labels: Vec<_> = labels.iter().map(String::as_str).collect();
        telemetry::value(&page, "tollgate_alert_deliveries_total", &labels)
    };
    assert_eq!(
        (count("good", "sent"), count("good", "failing"), count("quiet", "expired")),
        (Some(1.0), Some(0.0), Some(0.0))
    );
    assert!(count("broken", "failing").unwrap() >= 1.0, "{page}");
    assert!(!page.contains("hush"), "{page}");
}

/// From a crossing to what the list, the commands and the metrics say of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_commands_and_the_metrics_say_what_arrives() {
    let directory = TempDir::new().unwrap();
    let (good, broken) =
        (Receiver::start(Answer::Status(200)).await, Receiver::start(Answer::Status(500)).await);
    let hidden = format!("http://hush:hush@{}/hush?hush", good.address);
    std::fs::write(directory.path().join("url"), hidden).unwrap();
    let settings = webhook("good", &good)
        + &webhook("broken", &broken)
        + "[receivers.quiet]\nkind = \"slack\"\nurl_file = \"url\"\n[receivers.lost]\nkind = \"slack\"\nurl_file = \"none\"\n";
    let routes = ["good", "broken", "unknown"].map(route).concat();
    std::fs::write(directory.path().join("settings.toml"), settings).unwrap();
    let admin = free_port();
    let listen = format!("--admin={admin}");
    let arguments = ["--config=settings.toml", "--store=embedded:data", "--store-timeout=20s", &*listen];
    let process = Process::start_arguments(directory.path(), &policy("acme", &routes), &arguments).await;
    assert_eq!(tollgate(&process, &["alerts"], 0), "there is no such alert\n");
    spend(&process, 600).await;
    let mut client = Client::new(connect(process.address()).await);
    let mut receivers =
        async || client.list_receivers(ListReceiversRequest {}).await.unwrap().into_inner().receivers;
    let expected = [
        ("broken", ReceiverKind::Webhook, Failing),
        ("good", ReceiverKind::Webhook, Sent),
        ("lost", ReceiverKind::Slack, Unspecified),
        ("quiet", ReceiverKind::Slack, Unspecified),
        ("unknown", ReceiverKind::Unspecified, Pending),
    ];
    eventually("both were tried", async || states(&receivers().await) == expected).await;
    let hosts: Vec<_> = receivers().await.into_iter().map(|receiver| receiver.host).collect();
    assert_eq!(hosts, ["127.0.0.1", "127.0.0.1", "", "127.0.0.1", ""]);
    let shown = tollgate(&process, &["alerts", "receivers"], 1);
    assert!(
        ["webhook", "failing", "not in the settings", "127.0.0.1"].iter().all(|word| shown.contains(word)),
        "{shown}"
    );
    assert!(!shown.contains("hush"), "{shown}");
    for arguments in [
        &["alerts"][..],
        &["alerts", "list", "--kind", "budget-threshold", "--state", "open", "--since", "1h"],
    ] {
        let shown = tollgate(&process, arguments, 0);
        for word in [
            "budget_threshold",
            "warning",
            "team has spent 50% of its monthly budget",
            "good sent",
            "broken failing",
        ] {
            assert!(shown.contains(word), "{word}: {shown}");
        }
    }
    let others = ["alerts", "list", "--team", "other,last", "--min-severity", "critical"];
    assert_eq!(tollgate(&process, &others, 0), "there is no such alert\n");
    assert!(tollgate(&process, &["alerts", "list", "--kind", "fire"], 2).contains("budget_threshold"));
    let list: Value =
        serde_json::from_str(&tollgate(&process, &["alerts", "--json", "--limit", "1"], 0)).unwrap();
    assert_eq!((&list["alerts"][0]["team"], &list["alerts"][1]), (&"team".into(), &Value::Null));
    assert_eq!(list["alerts"][0]["budget"]["threshold"], "50%");
    the_command_tests(&process);
    metrics_say(admin).await;
    // Once it answers, nothing fails.
    broken.answers(Answer::Status(204));
    eventually_within(std::time::Duration::from_secs(60), "it has arrived", async || {
        states(&receivers().await)[0].2 == Sent
    })
    .await;
    tollgate(&process, &["alerts", "receivers"], 0);
}
