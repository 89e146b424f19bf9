//! The pages of several organizations: each caller sees those of its own.

use std::net::SocketAddr;

use tempfile::TempDir;

use super::{open_policy, policy_of, question, to, token_of};
use crate::{
    envoy::http::{Answer, Request},
    harness::{Process, eventually},
    redis_server::free_port,
};

async fn get(admin: SocketAddr, path: &str, token: &str) -> Answer {
    let request = Request::new("GET", path);
    let request =
        if token.is_empty() { request } else { request.header("authorization", &format!("Bearer {token}")) };
    request.send(admin).await
}

#[tokio::test(flavor = "multi_thread")]
async fn each_caller_sees_the_pages_of_its_own_organization() {
    let (directory, admin) = (TempDir::new().unwrap(), free_port());
    let (acme, globex) = (policy_of("acme", ""), policy_of("globex", ""));
    let policies = [("acme", acme.as_str()), ("globex", globex.as_str())];
    let admin_flag = format!("--admin={admin}");
    let process = Process::start_several(directory.path(), &policies, &[&admin_flag]).await;
    let mut client = process.client().await;
    for organization in ["acme", "globex"] {
        client.authorize(to("", &token_of(organization), question())).await.unwrap();
    }
    for (own, other) in [("acme", "globex"), ("globex", "acme")] {
        let token = token_of(own);
        let status = get(admin, "/status", &token).await;
        assert_eq!((status.status, status.json()["status"]["organization"].as_str()), (200, Some(own)));
        let page = get(admin, &format!("/console/{own}/"), &token).await;
        assert!(page.status == 200 && page.text().contains("bot"), "{}", page.text());
        for path in ["", "teams/bot", "reports", "events"] {
            assert_ne!(get(admin, &format!("/console/{other}/{path}"), &token).await.status, 200, "{path}");
        }
        assert_eq!(get(admin, "/console/nowhere/", &token).await.status, 404);
        for path in ["teams/bot", "teams", "reports", "keys", "policy", "alerts"] {
            let page = get(admin, &format!("/console/{own}/{path}"), &token).await;
            assert_eq!(page.status, 200, "{path}: {}", page.text());
        }
        let has_own = format!("organization=\"{own}\"");
        let shows = async || get(admin, "/metrics", &token).await.text().contains(&has_own);
        eventually("its metrics are there", shows).await;
        let metrics = get(admin, "/metrics", &token).await.text();
        assert!(!metrics.contains(&format!("organization=\"{other}\"")), "{metrics}");
        // What is of one organization says so, what is of the process is there once.
        assert!(metrics.contains(&format!("tollgate_store_up{{{has_own}}} 1")), "{metrics}");
        assert_eq!(metrics.lines().filter(|line| line.starts_with("tollgate_build_info")).count(), 1);
        let ready = get(admin, "/readyz?verbose", &token).await.text();
        assert!(ready.contains(&format!("ok store of {own}")) && !ready.contains(other), "{ready}");
        let foreign = Request::new("GET", "/status")
            .header("authorization", &format!("Bearer {token}"))
            .header("tollgate-organization", other);
        assert_eq!(foreign.send(admin).await.status, 403);
    }
    assert_eq!(get(admin, "/readyz", "").await.text(), "ok\n");
    assert_eq!(get(admin, "/status", "").await.status, 401);
    process.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_leads_to_the_organization_whose_token_it_is() {
    let (directory, admin) = (TempDir::new().unwrap(), free_port());
    let (acme, globex) = (policy_of("acme", ""), policy_of("globex", ""));
    let policies = [("acme", acme.as_str()), ("globex", globex.as_str())];
    let process = Process::start_several(directory.path(), &policies, &[&format!("--admin={admin}")]).await;
    let home = Request::new("GET", "/").send(admin).await;
    assert_eq!((home.status, home.header("location")), (303, Some("/auth/sign-in")));
    let page = Request::new("GET", "/auth/sign-in").send(admin).await.text();
    assert!(!page.contains("acme") && !page.contains("globex"), "{page}");
    let sign_in = |return_to: &str| {
        Request::form("/auth/token", &[("token", &token_of("globex")), ("return_to", return_to)])
    };
    // To the page that was asked for, if it is one of its own.
    for (return_to, expected) in [
        ("", "/console/globex/"),
        ("/console/acme/teams", "/console/globex/"),
        ("/console/globex/teams", "/console/globex/teams"),
    ] {
        let answer = sign_in(return_to).send(admin).await;
        assert_eq!((answer.status, answer.header("location")), (303, Some(expected)), "{return_to}");
    }
    let answer = sign_in("").send(admin).await;
    let cookie = answer.header("set-cookie").unwrap().split(';').next().unwrap().to_owned();
    let with = |path: &str| Request::new("GET", path).header("cookie", &cookie);
    assert_eq!(with("/").send(admin).await.header("location"), Some("/console/globex/"));
    assert_eq!(with("/console/globex/").send(admin).await.status, 200);
    assert_ne!(with("/console/acme/").send(admin).await.status, 200);
    // A stranger learns no more of an organization that there is not than of one that there is.
    for id in ["acme", "nowhere"] {
        let stranger = Request::new("GET", &format!("/console/{id}/")).send(admin).await;
        let expected = format!("/auth/sign-in?return_to=%2Fconsole%2F{id}%2F");
        assert_eq!((stranger.status, stranger.header("location")), (303, Some(expected.as_str())));
    }
    process.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_callers_a_page_of_one_is_asked_for_by_name() {
    let (directory, admin) = (TempDir::new().unwrap(), free_port());
    let (acme, globex) = (open_policy("acme", ""), open_policy("globex", ""));
    let policies = [("acme", acme.as_str()), ("globex", globex.as_str())];
    let process = Process::start_several(directory.path(), &policies, &[&format!("--admin={admin}")]).await;
    let status = get(admin, "/status", "").await;
    assert!(status.status == 400 && status.text().contains("tollgate-organization"), "{}", status.text());
    let named = Request::new("GET", "/status").header("tollgate-organization", "globex").send(admin).await;
    assert_eq!(named.json()["status"]["organization"], "globex");
    for organization in ["acme", "globex"] {
        assert_eq!(get(admin, &format!("/console/{organization}/"), "").await.status, 200);
        let shows = async || {
            get(admin, "/metrics", "")
                .await
                .text()
                .contains(&format!("tollgate_store_up{{organization=\"{organization}\"}} 1"))
        };
        eventually("all metrics are there", shows).await;
    }
    let ready = get(admin, "/readyz?verbose", "").await.text();
    assert!(ready.contains("ok registry of acme") && ready.contains("ok registry of globex"), "{ready}");
    process.stop().await;
}
