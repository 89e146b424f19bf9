//! The overview, as each role gets it.

use tempfile::TempDir;

use super::{fill, page, policy, start, text};
use crate::{envoy::http::Request, harness::eventually};

const OVERVIEW: &str = "/console/acme/";

#[tokio::test(flavor = "multi_thread")]
async fn each_role_gets_the_rows_that_it_may_see() {
    let directory = TempDir::new().unwrap();
    let (process, admin) = start(&directory, &policy()).await;
    fill(&process).await;
    // Denials are written every few seconds.
    eventually("the denial is counted", async || {
        text(&page(admin, "admin", OVERVIEW).await).contains("data-label=\"Refused today\">1<")
    })
    .await;
    for (name, sees, does_not) in [
        (
            "admin",
            &["support", "research", "spare", "$500.00", "has spent its", "Service"] as &[_],
            &[] as &[&str],
        ),
        ("auditor", &["support", "research", "spare", "$500.00", "Service"], &[]),
        (
            "operator",
            &["Service", "and not what is spent"],
            &["$500.00", "$200.00", "$0.00", "Nothing was spent", "Requests today"],
        ),
        ("viewer", &["support", "$200.00"], &["research", "spare", "$500.00", "Service", "Unsettled"]),
        ("team-admin", &["support", "$200.00"], &["research", "spare", "$500.00", "Service"]),
        (
            "gateway",
            &["There is no team", "Nothing that you may see"],
            &["support", "$500.00", "$0.00", "Service", "Budgets hold", "no model is in cooldown"],
        ),
    ] {
        let answer = page(admin, name, OVERVIEW).await;
        let body = text(&answer);
        assert_eq!(answer.status, 200, "{name}: {body}");
        for expected in sees {
            assert!(body.contains(expected), "{name} does not see {expected}: {body}");
        }
        for forbidden in does_not {
            assert!(!body.contains(forbidden), "{name} sees {forbidden}: {body}");
        }
        assert!(body.len() < 100 * 1024, "{name}: {} bytes", body.len());
    }
    process.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_says_who_it_is_for_and_what_browsers_may_do() {
    let directory = TempDir::new().unwrap();
    let (process, admin) = start(&directory, &policy()).await;
    let answer = page(admin, "admin", OVERVIEW).await;
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
    let policy = answer.header("content-security-policy").unwrap();
    assert!(policy.contains("default-src 'none'") && policy.contains("frame-ancestors 'none'"), "{policy}");
    assert!(!policy.contains("unsafe"), "{policy}");
    let body = text(&answer);
    assert!(body.contains("admin</span>"), "{body}");
    let handler = regex::Regex::new(" (style|on[a-z]+)=\"").unwrap();
    assert!(!handler.is_match(&body) && !body.contains("<script>"), "inline: {body}");
    // Files are kept, under names that change with them.
    let style = body.split('"').find(|part| part.ends_with(".css")).unwrap();
    let answer = Request::new("GET", style).send(admin).await;
    assert_eq!(
        (answer.status, answer.header("cache-control")),
        (200, Some("public, max-age=31536000, immutable"))
    );
    for (path, status) in [
        ("/", 303),
        ("/console", 303),
        ("/assets/console.css", 404),
        ("/favicon.ico", 200),
        ("/console/other/", 404),
        ("/console/acme/nowhere", 404),
        ("/console/acme/?month=2026-13", 400),
        ("/console/acme/?month=2999-01", 400),
        ("/console/acme/?sort=everything", 400),
        ("/console/acme/?q=%22%3E%3Cscript%3Ealert(1)%3C%2Fscript%3E", 200),
    ] {
        let answer = page(admin, "admin", path).await;
        assert_eq!(answer.status, status, "{path}");
        assert!(!text(&answer).contains("<script>"), "{path}");
    }
    for path in [OVERVIEW, "/console/acme/?month=2026-10"] {
        let unknown = Request::new("GET", path);
        let answer = unknown.send(admin).await;
        assert_eq!(answer.status, 303, "{path}");
        assert!(answer.header("location").unwrap().starts_with("/auth/sign-in"), "{path}");
        assert_eq!(unknown.header("accept", "application/json").send(admin).await.status, 401, "{path}");
    }
    process.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn in_development_mode_only_this_machine_reads_it_by_its_own_names() {
    let directory = TempDir::new().unwrap();
    let open = "[organization]\nid = \"acme\"\n[teams.t]\nmodels = [\"*\"]\nmax_output_tokens = 9\n";
    let (process, admin) = start(&directory, open).await;
    let answer = Request::new("GET", OVERVIEW).send(admin).await;
    assert_eq!(answer.status, 200);
    assert!(text(&answer).contains("Anyone who reaches this address"));
    for path in [OVERVIEW, "/", "/favicon.ico"] {
        let answer = Request::new("GET", path).header("host", "attacker.example").send(admin).await;
        assert_eq!(answer.status, 421, "{path}");
    }
    process.stop().await;
}
