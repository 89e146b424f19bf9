//! Who may see the pages for operators.

use serde_json::json;
use tempfile::TempDir;
use tollgate::domain::rbac::PAGES;

use super::digest;
use crate::{
    envoy::http::Request,
    harness::{Process, eventually},
    redis_server::free_port,
};

const ORGANIZATION: &str =
    "[organization]\nid = \"acme\"\n[teams.t]\nmodels = [\"*\"]\nmax_output_tokens = 9\n";
const ROLES: [&str; 6] = ["admin", "operator", "auditor", "monitor", "viewer", "gateway"];

fn secret(role: &str) -> String {
    format!("tgs_the_secret_of_the_{role}")
}

fn policy() -> String {
    ROLES.iter().fold(ORGANIZATION.to_owned(), |text, role| {
        let digest = digest(&secret(role));
        text + &format!("[access.tokens.{role}]\nsha256 = \"{digest}\"\nroles = [\"{role}\"]\n")
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn the_state_is_for_those_who_may_read_it_and_health_for_all() {
    let directory = TempDir::new().unwrap();
    let admin = free_port();
    let process = Process::start_arguments(directory.path(), &policy(), &[&format!("--admin={admin}")]).await;
    let ask = async |path: &str, token: Option<&str>| {
        let request = Request::new("GET", path).header("accept", "application/json");
        token.map_or(request.clone(), |token| request.key(token)).send(admin).await
    };
    // It listens before it is ready.
    eventually("the service is ready", async || ask("/readyz", None).await.status == 200).await;
    for (path, _) in PAGES {
        let answer = ask(path, None).await;
        let is_for_some = ["/status", "/readyz?verbose", "/metrics"].contains(&path);
        assert_eq!(answer.status, if is_for_some { 401 } else { 200 }, "{path}");
    }
    for path in ["/statu", "/status/", "/tollgate.v1.PauseService/ListPauses"] {
        assert_eq!(ask(path, Some(&secret("admin"))).await.status, 404, "{path}");
    }
    // However it is asked for.
    for (method, path, expected) in [
        ("HEAD", "/status", 401),
        ("POST", "/status", 401),
        ("OPTIONS", "/status", 401),
        ("GET", "/status?x=/livez", 401),
        ("GET", "/readyz?x&verbose=1", 401),
        ("GET", "/readyz?x=verbose", 200),
        ("GET", "/livez?verbose", 200),
        ("POST", "/readyz?verbose", 401),
        ("GET", "//status", 404),
        ("GET", "/%73tatus", 404),
        ("GET", "/livez/../status", 404),
        ("GET", "http://elsewhere/status", 401),
    ] {
        assert_eq!(Request::new(method, path).send(admin).await.status, expected, "{method} {path}");
    }
    for (role, expected) in ROLES.into_iter().zip([200, 200, 200, 200, 403, 403]) {
        let answer = ask("/status", Some(&secret(role))).await;
        assert_eq!(answer.status, expected, "{role}");
        let json = answer.json();
        match expected {
            200 => assert_eq!(json["status"]["store"]["reachable"], true),
            _ => assert!(json["message"].as_str().unwrap().contains("`read-status`"), "{json}"),
        }
    }
    let unknown = ask("/status", Some("tgs_the_secret_of_nobody")).await;
    assert_eq!((unknown.status, unknown.header("www-authenticate")), (401, Some("Bearer")));
    assert!(unknown.json().get("status").is_none());
    let audit = directory.path().join("data/audit.jsonl");
    let recorded = || std::fs::read_to_string(&audit).unwrap_or_default();
    eventually("both refusals are recorded", async || recorded().matches("role.denied").count() == 2).await;
    assert!(recorded().contains(r#""subject":"GET /status""#), "{}", recorded());
    assert!(!process.log().contains("tgs_") && !recorded().contains("tgs_"));
    process.stop().await;
}

/// Without `[access]`, whoever is on this machine.
#[tokio::test]
async fn in_development_mode_the_pages_are_open_on_this_machine() {
    let directory = TempDir::new().unwrap();
    let admin = free_port();
    let process =
        Process::start_arguments(directory.path(), ORGANIZATION, &[&format!("--admin={admin}")]).await;
    let answer = Request::new("GET", "/status").send(admin).await;
    assert_eq!((answer.status, &answer.json()["status"]["store"]["reachable"]), (200, &json!(true)));
    let checks = Request::new("GET", "/readyz?verbose").send(admin).await;
    assert_eq!((checks.status, &*String::from_utf8_lossy(&checks.body)), (200, "ok store\nok registry\n"));
    process.stop().await;
}
