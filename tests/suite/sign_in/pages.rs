//! The real process: in by a token, out by a form, and what it refuses.

use tempfile::TempDir;

use super::{
    TOKEN,
    browser::{Browser, hidden},
    policy_of,
};
use crate::{
    envoy::http::Request,
    harness::{Process, eventually},
    redis_server::free_port,
};

const OVERVIEW: &str = "/console/acme/";

#[tokio::test(flavor = "multi_thread")]
async fn a_person_comes_in_by_a_token_and_goes_out_by_a_form() {
    let directory = TempDir::new().unwrap();
    let admin = free_port();
    let process =
        Process::start_arguments(directory.path(), &policy_of(TOKEN), &[&format!("--admin={admin}")]).await;
    let mut browser = Browser::default();
    // Who comes without a session is shown the way in, and returns to where they wanted to be.
    let (page, at) = browser.follow(admin, "/console/acme/?month=2026-11").await;
    assert!(at.ends_with("/auth/sign-in?return_to=%2Fconsole%2Facme%2F%3Fmonth%3D2026-11"), "{at}");
    let return_to = hidden(&page.text(), "return_to");
    assert_eq!((page.status, &*return_to), (200, "/console/acme/?month=2026-11"));
    let policy = page.header("content-security-policy").unwrap();
    assert!(policy.contains("form-action 'self'") && policy.contains("frame-ancestors 'none'"), "{policy}");
    assert_eq!(
        (page.header("cache-control"), page.header("referrer-policy")),
        (Some("no-store"), Some("same-origin"))
    );

    // A wrong token is told so and not repeated.
    for (token, said) in
        [("tgs_wrong_secret", "does not have this token"), ("eyJ.x.y", "begins with tgs_"), ("", "tgs_")]
    {
        let answer = browser.post(admin, "/auth/token", &[("token", token), ("return_to", &return_to)]).await;
        assert_eq!((answer.status, browser.session(admin)), (401, None), "{token}");
        assert!(answer.text().contains(said) && !answer.text().contains("wrong_secret"), "{}", answer.text());
        assert_eq!(hidden(&answer.text(), "return_to"), return_to);
    }
    let answer = browser.post(admin, "/auth/token", &[("token", TOKEN), ("return_to", &return_to)]).await;
    assert_eq!((answer.status, answer.header("location")), (303, Some(&*return_to)));
    let cookie = answer.header("set-cookie").unwrap();
    assert!(
        cookie.starts_with("tollgate-dev=") && cookie.ends_with("; Path=/; HttpOnly; SameSite=Lax"),
        "{cookie}"
    );
    let first = browser.session(admin).unwrap().clone();
    let page = browser.get(admin, OVERVIEW).await;
    assert_eq!(page.status, 200);
    assert!(page.text().contains("ops") && page.text().contains("Sign out"), "{}", page.text());
    let metrics = Request::new("GET", "/metrics").key(TOKEN).send(admin).await.text();
    assert!(metrics.contains("\ntollgate_sessions 1\n"), "{metrics}");

    // Signing in again is another session, and the one before ends with it.
    browser.post(admin, "/auth/token", &[("token", TOKEN)]).await;
    let second = browser.session(admin).unwrap().clone();
    assert_ne!(first, second);
    let old =
        Request::new("GET", OVERVIEW).header("cookie", &format!("tollgate-dev={first}")).send(admin).await;
    assert_eq!(old.status, 303);

    // A form without its token, or of another site, signs no one out.
    let form_token = hidden(&browser.get(admin, OVERVIEW).await.text(), "form_token");
    let sign_out = |token: &str| Request::form("/auth/sign-out", &[("form_token", token)]);
    let own = format!("http://{admin}");
    for request in [
        sign_out(&form_token),
        sign_out(&form_token).header("origin", "https://evil.example"),
        sign_out(&form_token).header("origin", &own).header("sec-fetch-site", "cross-site"),
        sign_out("").header("origin", &own),
        sign_out("wrong").header("origin", &own).header("sec-fetch-site", "same-origin"),
    ] {
        let answer = browser.send(admin, request).await;
        assert_eq!((answer.status, browser.session(admin)), (403, Some(&second)));
    }
    let answer = browser.post(admin, "/auth/sign-out", &[("form_token", &form_token)]).await;
    assert_eq!((answer.status, answer.header("location")), (303, Some("/auth/sign-in?why=signed-out")));
    assert_eq!(browser.session(admin), None);
    // A copy of the cookie is worth nothing any more.
    let copy =
        Request::new("GET", OVERVIEW).header("cookie", &format!("tollgate-dev={second}")).send(admin).await;
    assert_eq!(
        (copy.status, copy.header("location")),
        (303, Some("/auth/sign-in?why=ended&return_to=%2Fconsole%2Facme%2F"))
    );

    let audit = directory.path().join("data/audit.jsonl");
    let recorded = || std::fs::read_to_string(&audit).unwrap_or_default();
    let count = |action: &str| recorded().matches(&format!("\"action\":\"{action}\"")).count();
    eventually("both sessions are recorded", async || {
        count("session.begin") == 2 && count("session.end") == 2
    })
    .await;
    assert!(
        recorded().contains("\"name\":\"ops\"") && !recorded().contains("INVALID_TOKEN"),
        "{}",
        recorded()
    );
    let said = [process.log(), recorded()].concat();
    for secret in [TOKEN, "wrong_secret", &first, &second, &form_token] {
        assert!(!said.contains(secret), "`{secret}` is in the log or the audit log");
    }
    process.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_one_is_sent_elsewhere_and_no_other_site_signs_in() {
    let directory = TempDir::new().unwrap();
    let admin = free_port();
    let process =
        Process::start_arguments(directory.path(), &policy_of(TOKEN), &[&format!("--admin={admin}")]).await;
    for elsewhere in [
        "//evil.example/",
        "https://evil.example/console/",
        "/\\evil.example",
        "/console/../auth/sign-out",
        "javascript:x",
    ] {
        let mut browser = Browser::default();
        let answer = browser.post(admin, "/auth/token", &[("token", TOKEN), ("return_to", elsewhere)]).await;
        assert_eq!((answer.status, answer.header("location")), (303, Some("/")), "{elsewhere}");
        let path = format!(
            "/auth/sign-in?return_to={}",
            form_urlencoded::byte_serialize(elsewhere.as_bytes()).collect::<String>()
        );
        let page = Browser::default().get(admin, &path).await;
        assert!(page.status == 200 && !page.text().contains("evil"), "{}", page.text());
    }
    let form = || Request::form("/auth/token", &[("token", TOKEN)]);
    for (request, status) in [
        (form(), 303),
        (form().header("origin", "https://evil.example"), 403),
        (form().header("origin", "null"), 403),
        (form().header("sec-fetch-site", "cross-site"), 403),
        (form().header("sec-fetch-site", "same-site").header("origin", &format!("http://{admin}")), 403),
        (Request::form("/auth/token", &[("token", &"x".repeat(20_000))]), 413),
        (Request::new("GET", "/auth/token"), 405),
        (Request::new("GET", "/auth/sign-out"), 405),
        (Request::new("GET", "/auth/callback?code=c0de&state=x"), 404),
        (Request::new("GET", "/auth/other"), 404),
    ] {
        let answer = request.header("host", &admin.to_string()).send(admin).await;
        assert_eq!(answer.status, status, "{}", answer.text());
        assert!(!answer.text().contains("c0de"));
    }
    // Programs that send their token with each request need no session, and are told what is wrong in place of a page.
    let json = Request::new("GET", OVERVIEW).header("accept", "application/json").send(admin).await;
    assert_eq!(json.status, 401);
    assert_eq!(Request::new("GET", OVERVIEW).key(TOKEN).send(admin).await.status, 200);
    process.stop().await;
}
