//! A real OpenID provider, and a browser between it and the console.

use std::net::SocketAddr;

use serde_json::Value;
use tempfile::TempDir;

use super::browser::Browser;
use crate::{
    access::provider::start,
    clients::skip,
    envoy::http::Request,
    harness::{Process, eventually},
    redis_server::free_port,
};

const OVERVIEW: &str = "/console/acme/";

fn policy(said: &Value) -> String {
    format!(
        "[organization]\nid = \"acme\"\n[teams.chatbot]\nmodels = [\"*\"]\nmax_output_tokens = 99\n\
         [[access.oidc]]\nissuer = {}\naudience = \"elsewhere\"\nclaim = \"groups\"\n\
         [access.oidc.map.platform-admins]\nroles = [\"admin\"]\n[access.oidc.map.finance]\nroles = [\"viewer\"]\n",
        said["issuer"]
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn people_sign_in_through_a_real_provider() {
    let directory = TempDir::new().unwrap();
    let admin = free_port();
    let console = format!("http://{admin}");
    let url = console.clone();
    let (_provider, said) = match tokio::task::spawn_blocking(move || start(&url)).await.unwrap() {
        Ok(started) => started,
        Err(missing) => return skip("OpenID provider's", &missing),
    };
    let secret = directory.path().join("secret");
    std::fs::write(&secret, said["secret"].as_str().unwrap()).unwrap();
    let issuer = said["issuer"].as_str().unwrap();
    let arguments = [
        format!("--admin={admin}"),
        format!("--console-url={console}"),
        format!("--console-oidc-issuer={issuer}"),
        "--console-oidc-client-id=tollgate-console".to_owned(),
        format!("--console-oidc-client-secret-file={}", secret.display()),
    ];
    let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
    let process = Process::start_arguments(directory.path(), &policy(&said), &arguments).await;

    let mut ada = Browser { login: Some("ada"), ..Browser::default() };
    let (page, _) = ada.follow(admin, "/console/acme/?month=2026-11").await;
    let link = "/auth/sign-in?with=provider&return_to=%2Fconsole%2Facme%2F%3Fmonth%3D2026-11";
    assert!(page.text().contains(&link.replace('&', "&amp;")), "{}", page.text());
    let (page, at) = ada.follow(admin, link).await;
    assert_eq!(
        (page.status, &*at),
        (200, &*format!("{console}/console/acme/?month=2026-11")),
        "{}",
        page.text()
    );
    assert!(page.text().contains("ada of Acme"), "{}", page.text());
    let attempt = (admin, "tollgate-dev-sign-in".to_owned());
    assert!(!ada.cookies.contains_key(&attempt), "an attempt is over with its answer");

    // Asked again without a question: the same session continues, with a new cookie.
    let before = ada.session(admin).unwrap().clone();
    let form = super::browser::hidden(&page.text(), "form_token");
    let (page, at) = ada.follow(admin, "/auth/sign-in?with=silent&return_to=%2Fconsole%2Facme%2F").await;
    assert_eq!((page.status, &*at), (200, &*format!("{console}{OVERVIEW}")));
    assert_eq!(super::browser::hidden(&page.text(), "form_token"), form);
    assert_ne!(ada.session(admin), Some(&before));

    // Who is not signed in there cannot come in without a question: the page is shown, and nothing repeats.
    let mut stranger = Browser::default();
    let (page, at) = stranger.follow(admin, "/auth/sign-in?with=silent&return_to=%2Fconsole%2Facme%2F").await;
    assert!(
        page.status == 200 && at.contains("/auth/sign-in?why=ended&return_to=%2Fconsole%2Facme%2F"),
        "{at}"
    );
    // Who has no role is told so.
    let mut vera = Browser { login: Some("vera"), ..Browser::default() };
    let (page, _) = vera.follow(admin, "/auth/sign-in?with=provider").await;
    assert_eq!((page.status, vera.session(admin)), (403, None));
    assert!(page.text().contains("none of your groups has a role"), "{}", page.text());
    // Who is refused there.
    let mut mallory = Browser { login: Some("mallory"), ..Browser::default() };
    let (page, _) = mallory.follow(admin, "/auth/sign-in?with=provider").await;
    assert_eq!((page.status, mallory.session(admin)), (403, None));
    assert!(
        page.text().contains("did not let you in") && !page.text().contains("not today"),
        "{}",
        page.text()
    );

    answers_that_do_not_count(admin).await;
    let audit = directory.path().join("data/audit.jsonl");
    let recorded = || std::fs::read_to_string(&audit).unwrap_or_default();
    let begun = format!("\"name\":\"{issuer}#ada\"");
    eventually("the session is recorded", async || recorded().contains(&begun)).await;
    eventually("so is the one without a role", async || recorded().contains("NO_ROLE")).await;
    assert_eq!(recorded().matches("\"action\":\"session.begin\"").count(), 3, "{}", recorded());
    let said_secret = said["secret"].as_str().unwrap();
    assert!(!process.log().contains(said_secret) && !process.log().contains("eyJ"), "a secret is in the log");
    process.stop().await;
}

/// The answer of the provider to a sign-in of `browser`, which is not sent on, and the cookie of the attempt.
async fn answered(browser: &mut Browser, admin: SocketAddr) -> (String, String) {
    let mut next =
        browser.get(admin, "/auth/sign-in?with=provider").await.header("location").unwrap().to_owned();
    let answer = loop {
        let (host, path) = next.strip_prefix("http://").unwrap().split_once('/').unwrap();
        let to = host.parse().unwrap();
        if to == admin {
            break format!("/{path}");
        }
        let location = browser.get(to, &format!("/{path}")).await.header("location").unwrap().to_owned();
        next = if location.starts_with('/') { format!("http://{to}{location}") } else { location };
    };
    assert!(answer.contains("iss="), "the provider names itself: {answer}");
    let attempt = &browser.cookies[&(admin, "tollgate-dev-sign-in".to_owned())];
    (answer, format!("tollgate-dev-sign-in={attempt}"))
}

/// Answers of another browser, of no attempt, changed, or sent twice.
async fn answers_that_do_not_count(admin: SocketAddr) {
    let mut finn = Browser { login: Some("finn"), ..Browser::default() };
    let (invented, of_invented) = answered(&mut finn, admin).await;
    let (answer, own) = answered(&mut finn, admin).await;
    let ask = async |path: &str, cookie: &str| {
        let request = Request::new("GET", path).header("cookie", cookie).header("host", &admin.to_string());
        let answer = request.send(admin).await;
        let code = path.split(['=', '&']).nth(1).unwrap().to_owned();
        assert!(
            !answer.text().contains(&code)
                && answer.all("set-cookie").all(|set| !set.starts_with("tollgate-dev="))
        );
        (answer.status, answer.text())
    };
    let session = finn.session(admin).cloned().unwrap_or_default();
    let changed = |from: &str, to: &str| answer.replacen(from, to, 1);
    for (path, cookie, said) in [
        (answer.clone(), "x=y", "does not count any more"),
        (answer.clone(), &format!("tollgate-dev-sign-in={session}x"), "does not count any more"),
        (changed("state=", "state=x"), &own, "does not count any more"),
        (changed("state=", "stat="), &own, "does not count any more"),
        (format!("{answer}&code=other"), &own, "not one that it would send"),
        (changed("iss=", "iss=x"), &own, "not one that it would send"),
        (changed("iss=", "is="), &own, "not one that it would send"),
        (changed("code=", "cod="), &own, "not one that it would send"),
        // A code that the provider did not give: it is asked once about an attempt.
        (invented.replacen("code=", "code=x", 1), &of_invented, "does not answer as it should"),
        (invented.replacen("code=", "code=y", 1), &of_invented, "does not count any more"),
        (invented.clone(), &of_invented, "does not count any more"),
    ] {
        let (status, text) = ask(&path, cookie).await;
        assert!(status >= 400 && text.contains(said), "{path}: {status} {text}");
    }
    // As it was, it counts, once.
    let arrived = finn.get(admin, &answer).await;
    assert_eq!((arrived.status, finn.session(admin).is_some()), (303, true), "{}", arrived.text());
    let (status, text) = ask(&answer, &own).await;
    assert!(status == 400 && text.contains("does not count any more"), "{status} {text}");
}
