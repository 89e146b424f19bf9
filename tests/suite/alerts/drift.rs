//! Drift that `tollgate reconcile --alert` finds: told once over all replicas, and over once a later file agrees.

use std::{
    fs,
    path::Path,
    process::{Command, Output},
};

use serde_json::{Value, json};
use tempfile::TempDir;
use tollgate::rpc::{
    google_type::Money,
    proto::{
        AlertKind, ListAlertsRequest, ListAuditEventsRequest, ReportDriftRequest, UsageDrift,
        alert_service_client::AlertServiceClient, audit_service_client::AuditServiceClient,
    },
};

use super::{
    lasting::is_message,
    policy,
    receiver::{Answer, Receiver},
    route, spend, start, webhook,
};
use crate::{
    access::{by, digest},
    harness::{
        Process, START, Server, StoreKind, chat, connect, errors::is_of, eventually, json_of, organization,
        used,
    },
    redis_server,
};

/// `tollgate reconcile usage.csv` of a server: how it ends, and what it says.
fn reconcile(server: &Process, directory: &Path, token: &str, arguments: &[&str]) -> (i32, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tollgate"));
    command
        .args(["reconcile", "usage.csv", "--color=never", "--address", &server.address().to_string()])
        .args(arguments)
        .env("TOLLGATE_TOKEN", token)
        .current_dir(directory);
    let Output { status, stdout, stderr } = tokio::task::block_in_place(|| command.output().unwrap());
    let said = [stdout, stderr].map(|text| String::from_utf8(text).unwrap()).concat();
    (status.code().unwrap(), said)
}

/// What Groq bills for [`spend`] of 600: so many nano-dollars, today.
fn bill(directory: &Path, nanos: u64) -> String {
    let today = jiff::Timestamp::now().to_zoned(jiff::tz::TimeZone::UTC).date();
    let header = "date,model,cost,num_requests,input_tokens,output_tokens";
    let text = format!("{header}\n{today},m/text,{nanos}e-9,1,599,1\n");
    fs::write(directory.join("usage.csv"), text).unwrap();
    today.to_string()
}

/// What has arrived: each id with the alert, in the order of arrival.
fn arrived(receiver: &Receiver) -> Vec<(String, Value)> {
    let requests = receiver.requests();
    let read = requests.iter();
    read.map(|request| (request.header("webhook-id").to_owned(), request.json()["data"].clone())).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn drift_that_a_comparison_finds_is_told_once_and_resolved_by_one_that_agrees() {
    let redis = redis_server::shared().map(|redis| redis.url());
    for store in std::iter::once("embedded:data".to_owned()).chain(redis) {
        let (directory, receiver) = (TempDir::new().unwrap(), Receiver::start(Answer::Status(200)).await);
        let policy = policy(&organization(), &(route("ops") + "kinds = [\"usage_drift\"]\n"));
        let settings = webhook("ops", &receiver);
        let mut servers = vec![start(directory.path(), &policy, &settings, &store).await];
        if store.starts_with("redis") {
            servers.push(start(directory.path(), &policy, &settings, &store).await);
        }
        let (one, other) = (&servers[0], servers.last().unwrap());
        let run = |server, arguments: &[&str]| reconcile(server, directory.path(), "", arguments);
        spend(one, 600).await;
        let today = bill(directory.path(), 1_200);
        let exact = "--tolerance=0";
        // Without the flag nothing is told.
        let (code, said) = run(one, &[exact]);
        assert!(code == 1 && !said.contains("Alerts"), "{said}");
        // To a cent it agrees.
        let (code, said) = run(one, &["--alert"]);
        assert!(
            code == 0 && said.ends_with("\nAlerts of drift: 0 opened, 0 resolved, 0 open before\n"),
            "{said}"
        );
        let (code, said) = run(one, &[exact, "--alert"]);
        assert!(
            code == 1 && said.ends_with("\nAlerts of drift: 1 opened, 0 resolved, 0 open before\n"),
            "{said}"
        );
        let (code, said) = run(other, &[exact, "--alert", "--json"]);
        let result: Value = serde_json::from_str(&said).unwrap();
        let expected = json!({ "opened_count": 0, "resolved_count": 0, "open_before_count": 1 });
        assert_eq!((code, &result["alerts"], &result["has_drift"]), (1, &expected, &json!(true)));
        eventually("it has arrived", async || !receiver.requests().is_empty()).await;
        bill(directory.path(), 600);
        let (code, said) = run(other, &[exact, "--alert"]);
        assert!(
            code == 0 && said.ends_with("\nAlerts of drift: 0 opened, 1 resolved, 0 open before\n"),
            "{said}"
        );
        eventually("its end has arrived", async || receiver.requests().len() >= 2).await;
        is_told(&receiver, &today);
        is_listed_and_recorded(other).await;
    }
}

/// One alert that opened and is over.
fn is_told(receiver: &Receiver, today: &str) {
    let arrived = arrived(receiver);
    let [(opened_id, opened), (resolved_id, resolved)] = &*arrived else { panic!("{arrived:?}") };
    let id = opened["id"].as_str().unwrap();
    assert_eq!((opened_id, resolved_id), (&format!("{id}_open"), &format!("{id}_resolved")));
    assert_eq!(
        (&opened["kind"], &opened["severity"]),
        (&json!("ALERT_KIND_USAGE_DRIFT"), &json!("SEVERITY_WARNING"))
    );
    assert_eq!(
        (&opened["state"], &resolved["state"]),
        (&json!("ALERT_STATE_OPEN"), &json!("ALERT_STATE_RESOLVED"))
    );
    assert!(opened["resolveTime"].is_null() && resolved["resolveTime"].is_string(), "{resolved}");
    assert_eq!(opened["createTime"], resolved["createTime"]);
    let drift = &opened["drift"];
    is_message("UsageDrift", drift);
    assert_eq!(drift, &resolved["drift"]);
    let usd = |nanos: u64| json!({ "currencyCode": "USD", "nanos": nanos });
    let told = (&drift["model"], &drift["booked"], &drift["billed"], &drift["project"]);
    assert_eq!(told, (&json!("m/text"), &usd(600), &usd(1_200), &Value::Null));
    let (start, end) = (drift["startDate"].as_str().unwrap(), drift["endDate"].as_str().unwrap());
    assert!(start.ends_with("-01") && end.ends_with("-01") && start <= today && today < end, "{drift}");
    let cause = format!("as many tokens, billed at 200.0% of what we book since {today}: ");
    assert!(drift["likelyCause"].as_str().unwrap().starts_with(&cause), "{drift}");
    let summary = opened["summary"].as_str().unwrap();
    assert!(
        summary.starts_with("Groq billed $0.0000012 for m/text from ") && summary.contains(&cause),
        "{summary}"
    );
}

async fn is_listed_and_recorded(server: &Process) {
    let channel = connect(server.address()).await;
    let mut client = AlertServiceClient::new(channel.clone());
    let mut listed = async || {
        let request = ListAlertsRequest { kinds: vec![AlertKind::UsageDrift.into()], ..Default::default() };
        client.list_alerts(request).await.unwrap().into_inner().alerts
    };
    let sent = tollgate::rpc::proto::DeliveryState::Sent;
    eventually("its end is sent", async || {
        listed().await.first().is_some_and(|alert| {
            alert.resolve_time.is_some() && alert.deliveries.first().is_some_and(|one| one.state() == sent)
        })
    })
    .await;
    let alerts = listed().await;
    assert_eq!(alerts.len(), 1, "{alerts:?}");
    let Some(tollgate::rpc::proto::alert::Detail::Drift(drift)) = &alerts[0].detail else {
        panic!("{alerts:?}")
    };
    assert_eq!((&*drift.model, drift.billed.as_ref().unwrap().nanos), ("m/text", 1_200));
    let mut log = AuditServiceClient::new(channel);
    let mut events = async || {
        let request =
            ListAuditEventsRequest { action: "alert.report_drift".to_owned(), ..Default::default() };
        log.list_audit_events(request).await.unwrap().into_inner().events
    };
    eventually("all are recorded", async || events().await.len() == 4).await;
    let events = events().await;
    let days = format!("{}/{}", drift.start_date, drift.end_date);
    let counts = [[0, 0, 1], [1, 0, 0], [1, 1, 0], [0, 0, 0]];
    for (event, [drifts, opened, resolved]) in events.iter().zip(counts) {
        let after = json!({ "drift_count": drifts, "opened_count": opened, "resolved_count": resolved });
        let told = (&*event.subject, &*event.outcome, json_of(event.after.as_ref()));
        assert_eq!(told, (&*days, "done", after));
    }
}

/// An auditor may compare, and that is shown; to report it needs another role as well.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_comparison_is_shown_where_it_may_not_be_reported() {
    let directory = TempDir::new().unwrap();
    let callers = [("auditor", "\"auditor\""), ("cron", "\"operator\", \"viewer\""), ("edge", "\"gateway\"")];
    let tokens: String = callers
        .iter()
        .map(|(name, roles)| {
            let digest = digest(&format!("tgs_secret_of_the_{name}"));
            format!("[access.tokens.{name}]\nsha256 = \"{digest}\"\nroles = [{roles}]\n")
        })
        .collect();
    let server = start(directory.path(), &policy("acme", &tokens), "", "embedded:data").await;
    let edge = "tgs_secret_of_the_edge";
    let mut client = server.client().await;
    let answer = client.authorize(by(edge, chat("team", "m/text", 600, 1))).await.unwrap().into_inner();
    client.record_usage(by(edge, used(&answer.reservation_id, 599, 1))).await.unwrap();
    bill(directory.path(), 1_200);
    let run = |token: &str, arguments: &[&str]| {
        let arguments = [&["--tolerance=0", "--alert"], arguments].concat();
        reconcile(&server, directory.path(), token, &arguments)
    };
    for arguments in [&[][..], &["--json"]] {
        let (code, said) = run("tgs_secret_of_the_auditor", arguments);
        assert_eq!(code, 2, "{said}");
        for part in ["m/text", "what drifts was not reported: PERMISSION_DENIED", "report-drift"] {
            assert!(said.contains(part), "{part}: {said}");
        }
    }
    let (code, said) = run("tgs_secret_of_the_cron", &[]);
    assert!(code == 1 && said.contains("Alerts of drift: 1 opened"), "{said}");
}

fn drift(model: String, days: (&str, &str), cause: String) -> UsageDrift {
    let usd = |units| Some(Money { currency_code: "USD".to_owned(), units, nanos: 999_999_999 });
    UsageDrift {
        start_date: days.0.to_owned(),
        end_date: days.1.to_owned(),
        project: "p".repeat(128),
        model,
        booked: usd(9_007_198),
        billed: usd(9_007_198),
        likely_cause: cause,
    }
}

/// The largest report that there may be is taken whole, and resolved; one that is larger is refused, and other RPCs have their bounds.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_largest_report_is_taken_and_larger_ones_are_refused() {
    let stores = [StoreKind::Embedded, StoreKind::Redis].into_iter().filter(|store| store.is_available());
    for store in stores {
        let text = "[organization]\nid = \"acme\"\n[teams.bot]\nmodels = [\"*\"]\n";
        let server = Server::start(store, text, START).await;
        let mut client = AlertServiceClient::new(connect(server.address()).await);
        let days = ("2026-11-01", "2026-12-01");
        let request = |count: usize| ReportDriftRequest {
            start_date: days.0.to_owned(),
            end_date: days.1.to_owned(),
            drifts: (0..count)
                .map(|number| drift(format!("{number:0256}"), days, "\"".repeat(400)))
                .collect(),
        };
        let mut report = async |count| {
            let answer = client.report_drift(request(count)).await?.into_inner();
            Ok::<_, tonic::Status>((answer.opened_count, answer.resolved_count))
        };
        is_of(&report(1_001).await.unwrap_err(), "INVALID_REQUEST");
        is_of(&report(1_300).await.unwrap_err(), "MESSAGE_TOO_LARGE");
        assert_eq!(report(1_000).await.unwrap(), (1_000, 0));
        assert_eq!(report(1_000).await.unwrap(), (0, 0));
        assert_eq!(report(1).await.unwrap(), (0, 999));
        let teams = vec!["x".repeat(64 << 10)];
        let list = client.list_alerts(ListAlertsRequest { teams, ..Default::default() }).await;
        is_of(&list.unwrap_err(), "MESSAGE_TOO_LARGE");
        assert!(server.stop().await);
    }
}
