//! Who may read the page, and what it must not have.

use tempfile::TempDir;
use tollgate::telemetry::METRICS;

use super::{MODEL, POLICY, page, start};
use crate::{
    access::digest,
    envoy::http::Request,
    harness::{chat, used},
};

#[tokio::test(flavor = "multi_thread")]
async fn the_page_is_for_those_who_may_read_metrics() {
    let directory = TempDir::new().unwrap();
    let roles = ["admin", "operator", "auditor", "monitor", "viewer", "gateway"];
    let secret = |role: &str| format!("tgs_the_secret_of_the_{role}");
    let policy = roles.iter().fold(POLICY.to_owned(), |text, role| {
        let digest = digest(&secret(role));
        text + &format!("[access.tokens.{role}]\nsha256 = \"{digest}\"\nroles = [\"{role}\"]\n")
    });
    let (process, admin) = start(&directory, &policy, &[]).await;
    for (role, expected) in roles.into_iter().zip([200, 200, 200, 200, 403, 403]) {
        let answer = Request::new("GET", "/metrics").key(&secret(role)).send(admin).await;
        assert_eq!(answer.status, expected, "{role}");
    }
    assert_eq!(Request::new("GET", "/metrics").send(admin).await.status, 401);
    let answer = Request::new("GET", "/metrics").key(&secret("monitor")).send(admin).await;
    let page = String::from_utf8_lossy(&answer.body).into_owned();
    for (rpc, reason, count) in [("/metrics", "permission_missing", 2), ("/metrics", "missing_credential", 1)]
    {
        let row = format!("tollgate_access_refusals_total{{reason=\"{reason}\",rpc=\"{rpc}\"}} {count}\n");
        // The page may be that of a moment ago.
        let is_told = page.contains(&row);
        assert!(is_told || page.contains("tollgate_build_info"), "{page}");
    }
    assert!(!page.contains("tgs_"), "{page}");
    process.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_names_only_metrics_of_the_list_and_nothing_that_callers_choose() {
    let directory = TempDir::new().unwrap();
    let (process, admin) = start(&directory, POLICY, &[]).await;
    let mut client = process.client().await;
    let mut request = chat("chatbot", MODEL, 100, 100);
    request.user = "the-user".to_owned();
    request.request_id = "the-request".to_owned();
    request.labels.insert("the-label".to_owned(), "the-value".to_owned());
    let allowed = client.authorize(request).await.unwrap().into_inner();
    client.record_usage(used(&allowed.reservation_id, 100, 50)).await.unwrap();
    let unheard_of = client.authorize(chat("research", "the-model", 1, 1)).await.unwrap().into_inner();
    assert!(unheard_of.reservation_id.is_empty());
    client.authorize(chat("the-team", MODEL, 1, 1)).await.unwrap();
    let page = page(admin).await;
    let names = page.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next());
    for name in names.clone() {
        assert!(METRICS.iter().any(|spec| spec.prometheus == name), "{name}");
    }
    assert!(names.count() > 25, "{page}");
    let reservation = &*allowed.reservation_id;
    for chosen in [
        "the-user",
        "the-request",
        "the-label",
        "the-value",
        "the-model",
        "the-team",
        reservation,
        "127.0.0.1",
    ] {
        assert!(!page.contains(chosen), "{chosen}:\n{page}");
    }
    assert!(!page.contains("=\"\""), "{page}");
    process.stop().await;
}
