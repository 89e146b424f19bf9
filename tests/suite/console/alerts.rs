//! The page of alerts: what each role sees, and tests of receivers.

use tollgate::rpc::proto::{
    ListAlertsRequest, PauseRequest, PauseTarget, alert_service_client::AlertServiceClient,
    pause_service_client::PauseServiceClient, pause_target::Target,
};

use super::records::{Site, open_policy, policy, secret, text, value};
use crate::{
    access::by,
    alerts::receiver::{Answer, Receiver},
    envoy::http::Request,
    harness::{connect, eventually},
};

fn settings(receiver: &Receiver) -> String {
    let url = format!("http://{}/in", receiver.address);
    format!("[receivers.ops]\nkind = \"slack\"\nurl = \"{url}\"\nallow_private = true\ntimeout = \"1s\"\n")
}

const TEST: &str = "/console/acme/alerts/receivers/ops/test";

#[tokio::test(flavor = "multi_thread")]
async fn alerts_are_listed_with_what_became_of_them() {
    let receiver = Receiver::start(Answer::Status(500)).await;
    let site = Site::start(&policy(), &settings(&receiver)).await;
    let empty = site.page("viewer", "/alerts").await;
    assert!(empty.contains("There was none.") && empty.contains("<h2 id=\"open\">"), "{empty}");
    site.book(("bot", "m/a", "ann"), 50).await;
    eventually("the alert is listed, and fails to arrive", async || {
        let page = site.page("viewer", "/alerts").await;
        page.contains("budget threshold") && page.contains("failing") && page.contains("500")
    })
    .await;
    let page = site.page("viewer", "/alerts?kind=budget_threshold&state=open").await;
    assert!(page.contains("budget threshold, <code>"), "{page}");
    for query in ["state=resolved", "kind=pause", "since=2090-01-01"] {
        let page = site.page("viewer", &format!("/alerts?{query}")).await;
        assert!(
            page.contains("None that the filters leave.") && !page.contains("budget threshold, "),
            "{query}: {page}"
        );
    }
    for query in ["state=maybe", "kind=party", "since=monday"] {
        assert_eq!(site.get("viewer", &format!("/alerts?{query}")).await.0, 400, "{query}");
    }
    // The alert is of the organization.
    let page = site.page("bound", "/alerts").await;
    assert!(page.contains("There was none.") && !page.contains("budget threshold, "), "{page}");
    assert_eq!(site.get("bound", "/alerts?team=lab").await.0, 403);
    assert_eq!(site.get("gateway", "/alerts").await.0, 403);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_test_tells_its_result_and_is_audited() {
    let receiver = Receiver::start(Answer::Status(200)).await;
    let site = Site::start(&policy(), &settings(&receiver)).await;
    // Those who may test have a button.
    for (name, may) in [("admin", true), ("operator", true), ("auditor", false), ("viewer", false)] {
        let page = site.page(name, "/alerts").await;
        assert_eq!(page.contains("aria-label=\"Send a test to ops\""), may, "{name}: {page}");
        let answer = site.send(Request::form(TEST, &[]).key(&secret(name))).await;
        assert_eq!(answer.status, if may { 303 } else { 403 }, "{name}");
        if may {
            let address = answer.header("location").unwrap().trim_start_matches("/console/acme").to_owned();
            let page = site.page(name, &address).await;
            assert!(page.contains("<strong>ops has the test.</strong> It answered 200"), "{page}");
            // Words of others are not told as the console's.
            let page = site.page(name, &address.replace("tested=ops", "tested=evil")).await;
            assert!(!page.contains("evil") && !page.contains("has the test"), "{page}");
        }
    }
    receiver.answers(Answer::Status(404));
    let answer = site.send(Request::form(TEST, &[]).key(&secret("admin"))).await;
    let address = answer.header("location").unwrap().trim_start_matches("/console/acme").to_owned();
    let page = site.page("admin", &address).await;
    assert!(page.contains("ops does not have the test: ") && page.contains("404"), "{page}");
    let unknown = Request::form("/console/acme/alerts/receivers/none/test", &[]).key(&secret("admin"));
    assert_eq!(site.send(unknown).await.status, 404);
    eventually("each test is in the audit log", async || {
        let page = site.page("auditor", "/audit?action=alert.test").await;
        page.matches("<code>alert.test</code>").count() == 3 && page.contains("failed")
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_test_is_sent_by_a_form_of_ours_alone() {
    let receiver = Receiver::start(Answer::Status(200)).await;
    let site = Site::start(&open_policy(), &settings(&receiver)).await;
    let host = site.admin.to_string();
    let origin = format!("http://{host}");
    let page = site.send(Request::new("GET", "/console/acme/alerts").header("host", &host)).await;
    let token = value(&text(&page), "form_token");
    let form = |token: &str, origin: &str| {
        let form = Request::form(TEST, &[("form_token", token)]).header("host", &host);
        if origin.is_empty() { form } else { form.header("origin", origin) }
    };
    for (what, request) in [
        ("no token", form("", &origin)),
        ("another token", form(&"0".repeat(64), &origin)),
        ("a foreign origin", form(&token, "http://attacker.example")),
        ("no origin", form(&token, "")),
    ] {
        assert_eq!(site.send(request).await.status, 403, "{what}");
    }
    assert!(receiver.requests().is_empty());
    assert_eq!(site.send(form(&token, &origin)).await.status, 303);
    assert_eq!(receiver.requests().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_page_says_how_many_alerts_are_open_to_those_who_may_read_them() {
    let receiver = Receiver::start(Answer::Status(200)).await;
    let site = Site::start(&policy(), &settings(&receiver)).await;
    let target = PauseTarget { target: Some(Target::Team("lab".to_owned())) };
    let pause = PauseRequest { target: Some(target), reason: "INC-7".to_owned() };
    let mut pauses = PauseServiceClient::new(connect(site.process.address()).await);
    pauses.pause(by(&secret("operator"), pause)).await.unwrap();
    let mut alerts = AlertServiceClient::new(connect(site.process.address()).await);
    eventually("the alert is open", async || {
        let listed = alerts.list_alerts(by(&secret("admin"), ListAlertsRequest::default())).await.unwrap();
        !listed.into_inner().alerts.is_empty()
    })
    .await;
    let counted = "Alerts <span class=\"count\">1</span>";
    // A page does not wait long for the first count: a later one has it.
    for name in ["admin", "operator", "viewer"] {
        let is_counted = async || site.page(name, "/teams").await.contains(counted);
        eventually(&format!("{name} sees the count"), is_counted).await;
    }
    // It is of another team.
    let page = site.page("bound", "/alerts").await;
    assert!(page.contains(">Alerts</a>") || page.contains(">Alerts </a>"), "{page}");
    assert!(!site.page("bound", "/alerts").await.contains("Alerts <span"));
    assert!(!site.page("gateway", "/teams").await.contains("Alerts"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_waits_for_what_a_form_began() {
    let receiver = Receiver::start(Answer::Hang).await;
    let site = Site::start(&policy(), &settings(&receiver)).await;
    let (admin, form) = (site.admin, Request::form(TEST, &[]).key(&secret("admin")));
    let sent = tokio::spawn(async move { form.send(admin).await });
    eventually("the test is on its way", async || receiver.requests().len() == 1).await;
    // The receiver answers never, so the test ends by its timeout: past the end of all calls of the service.
    let audit = site.directory.path().join("data/audit.jsonl");
    site.process.stop().await;
    let recorded = std::fs::read_to_string(&audit).unwrap();
    assert!(recorded.contains("\"action\":\"alert.test\""), "{recorded}");
    assert_eq!(sent.await.unwrap().status, 303);
}
