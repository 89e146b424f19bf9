//! Reports: the page, and the files that are those of `tollgate report`.

use std::process::Command;

use serde_json::Value;
use tollgate::rpc::proto::policy_service_client::PolicyServiceClient;

use super::records::{HOSTILE, Site, policy, secret, tabs, text};
use crate::{
    access::by,
    envoy::http::{Answer, Request},
    harness::{chat, eventually},
};

/// A service with usage of two teams, of which one is named by a hostile user.
async fn start() -> Site {
    let site = Site::start(&policy(), "").await;
    site.book(("bot", "m/a", HOSTILE), 50).await;
    site.book(("bot", "m/b", "ann"), 20).await;
    site.book(("lab", "m/a", "bob"), 7).await;
    site
}

async fn file(site: &Site, name: &str, path: &str) -> Answer {
    site.send(Request::new("GET", &format!("/console/acme{path}")).key(&secret(name))).await
}

/// What `tollgate report` prints for the viewer.
async fn printed(site: &Site, arguments: &'static [&'static str]) -> String {
    let (address, token) = (site.process.address().to_string(), site.directory.path().join("viewer"));
    std::fs::write(&token, secret("viewer")).unwrap();
    let ask = move || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tollgate"));
        command.args(["report", "--color=never", "--address", &address, "--token-file"]).arg(token);
        command.args(arguments).env("TZ", "Asia/Kolkata").output().unwrap()
    };
    let output = tokio::task::spawn_blocking(ask).await.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_report_says_what_it_cost_and_who_spent_most() {
    let site = start().await;
    let page = site.page("viewer", "/reports").await;
    for part in [
        "<data value=\"0.097000000\" title=\"$0.097\">$0.10</data>",
        "Most of it by <strong>bot</strong>",
        "href=\"/console/acme/teams/bot\">bot</a>",
        "$0.10 of $1.00",
        "/console/acme/reports.focus.csv",
        ">18.0\u{a0}%<",
    ] {
        assert!(page.contains(part), "no `{part}`: {page}");
    }
    let page = site.page("viewer", "/reports?by=user&by=model&order=input_tokens").await;
    assert!(page.contains("=1+1,&lt;script&gt;alert(1)&lt;/script&gt;"), "{page}");
    assert!(page.contains("Share") && page.contains("<option value=\"labels.cost_center\">"), "{page}");
    let page = site.page("viewer", "/reports?team=lab&model=m%2Fa").await;
    assert!(page.contains("Only of team lab; model m/a.") && page.contains("$0.007"), "{page}");
    assert!(!page.contains("href=\"/console/acme/teams/bot\""), "{page}");
    // Of users, refused requests are not kept.
    let page = site.page("viewer", "/reports?user=ann").await;
    assert!(page.contains("Not counted."), "{page}");
    let page = site.page("viewer", "/reports?from=2026-01-05&to=2026-01-05").await;
    assert!(page.contains("Nothing was spent.") && page.contains("<h1>Mon 5 Jan 2026</h1>"), "{page}");
}

#[tokio::test(flavor = "multi_thread")]
async fn refused_requests_are_counted_by_reason_and_team() {
    let site = start().await;
    let mut client = PolicyServiceClient::new(site.channel().await);
    let request = chat("lab", "m/b", 1, 0);
    let answer = client.authorize(by(&secret("gateway"), request)).await.unwrap().into_inner();
    assert!(answer.reservation_id.is_empty(), "{answer:?}");
    eventually("the refusal is counted", async || {
        site.page("viewer", "/reports").await.contains("<span class=\"reason\">MODEL_NOT_ALLOWED</span>")
    })
    .await;
    // A reader of one team does not learn of it.
    let page = site.page("bound", "/reports").await;
    assert!(page.contains("None was.") && !page.contains("MODEL_NOT_ALLOWED"), "{page}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_is_told_at_its_field() {
    let site = start().await;
    for (query, fault) in [
        ("from=2026-11-09&to=2026-11-08", "to-fault\">`2026-11-08` is before `2026-11-09`"),
        ("from=yesterday&to=2026-11-08", "from-fault\">`yesterday` is not a day"),
        ("from=2001-01-01&to=2001-01-02", "from-fault\">"),
        ("by=weekday", "by-fault\">"),
        ("by=user&by=labels.cost_center", "by-fault\">"),
        ("label=7", "label-fault\">`7` is not NAME=VALUE"),
    ] {
        let (status, page) = site.get("viewer", &format!("/reports?{query}")).await;
        assert_eq!(status, 400, "{query}: {page}");
        assert!(page.contains(fault) && page.contains("aria-invalid=\"true\""), "{query}: {page}");
        let (status, _) = site.get("viewer", &format!("/reports.csv?{query}")).await;
        assert!((400..410).contains(&status), "{query}: {status}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_role_gets_its_teams_or_nothing() {
    let site = start().await;
    for path in ["/reports", "/reports.csv", "/reports.json", "/reports.focus.csv", "/reports?by=key"] {
        let (status, own) = site.get("bound", path).await;
        let of_lab = [">lab<", ",lab,", "\"lab\""].iter().any(|lab| own.contains(lab));
        let of_bot = ["0.09", "90000000", ",0.05,"].iter().any(|cost| own.contains(cost));
        assert!(status == 200 && !of_lab && of_bot, "{path}: {own}");
        for name in ["operator", "gateway"] {
            let (status, page) = site.get(name, path).await;
            assert!(status == 403 && !page.contains("0.09"), "{name} {path}: {page}");
        }
        // People are shown the way in, programs are told.
        let unknown = Request::new("GET", &format!("/console/acme{path}"));
        assert_eq!(site.send(unknown.clone()).await.status, 303);
        assert_eq!(site.send(unknown.header("accept", "application/json")).await.status, 401);
    }
    let (status, page) = site.get("bound", "/reports?team=lab").await;
    assert_eq!(status, 403, "{page}");
    assert_eq!(tabs(&site.page("bound", "/reports").await), ["", "decisions", "teams", "reports", "alerts"]);
    assert_eq!(
        tabs(&site.page("auditor", "/reports").await),
        ["", "decisions", "teams", "keys", "pauses", "policy", "reports", "alerts", "audit"]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn files_are_those_that_the_command_prints() {
    let site = start().await;
    let csv = file(&site, "viewer", "/reports.csv?by=user,model").await;
    assert_eq!(csv.header("content-type"), Some("text/csv; charset=utf-8"));
    let disposition = csv.header("content-disposition").unwrap();
    assert!(
        disposition.starts_with("attachment; filename=\"tollgate-acme-2") && disposition.ends_with(".csv\"")
    );
    assert_eq!(text(&csv), printed(&site, &["--by=user,model", "--csv"]).await);
    assert!(text(&csv).contains("\"'=1+1,<script>alert(1)</script>\",m/a,"), "{}", text(&csv));
    let focus = file(&site, "viewer", "/reports.focus.csv?by=user").await;
    assert_eq!(text(&focus), printed(&site, &["--focus"]).await);
    assert_eq!(text(&focus).lines().count(), 4, "{}", text(&focus));
    let json = file(&site, "viewer", "/reports.json?by=model").await;
    assert_eq!(json.header("content-type"), Some("application/json"));
    let mut json = json.json();
    let mut command: Value = serde_json::from_str(&printed(&site, &["--by=model", "--json"]).await).unwrap();
    for json in [&mut json, &mut command] {
        assert!(json["readTime"].take().is_string());
    }
    assert_eq!(json, command);
}

/// More rows than one answer of the service has.
#[tokio::test(flavor = "multi_thread")]
async fn long_files_and_lists_are_whole() {
    let policy = policy().replace("[reports]", "[reports]\nmax_values = 1000");
    let policy = policy.replace("\"1.00\"", "\"9.00\"").replace("\"0.50\"", "\"9.00\"");
    let site = Site::start(&policy, "").await;
    let users = 1..=60;
    for user in users.clone() {
        site.book(("bot", "m/a", &format!("u{user:02}")), user.into()).await;
    }
    let first = site.page("viewer", "/reports?by=user").await;
    let count = |page: &str| users.clone().filter(|user| page.contains(&format!(">u{user:02}<"))).count();
    assert_eq!((count(&first), first.contains(">u60<"), first.contains(">u10<")), (50, true, false));
    let next = first.split("rel=\"next\" href=\"/console/acme").nth(1).unwrap();
    let next = next.split('"').next().unwrap().replace("&amp;", "&");
    let second = site.page("viewer", &next).await;
    assert_eq!((count(&second), second.contains(">u10<")), (10, true), "{second}");
    assert_eq!(text(&file(&site, "viewer", "/reports.csv?by=user").await).lines().count(), 61);
}
