//! Several processes with the same session keys.

use std::{net::SocketAddr, path::Path};

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

const KEYS: [&str; 2] =
    ["Zm9yIHRlc3RzLCBhbmQgbG9uZyBlbm91Z2ggZm9yIG9uZSE=", "YW5vdGhlciBvbmUgdGhhdCBjb21lcyBpbiBpdHMgcGxhY2U="];

/// Whether the replica at `admin` takes a session.
async fn takes(admin: SocketAddr, session: &str) -> bool {
    let request = Request::new("GET", "/console/acme/").header("cookie", &format!("tollgate-dev={session}"));
    request.send(admin).await.status == 200
}

/// A new session of the replica at `admin`.
async fn sign_in(admin: SocketAddr) -> String {
    let mut browser = Browser::default();
    browser.post(admin, "/auth/token", &[("token", TOKEN)]).await;
    browser.session(admin).expect("a session").clone()
}

async fn start(directory: &Path, keys: &[&Path]) -> (Process, SocketAddr) {
    start_with(directory, keys, &policy_of(TOKEN)).await
}

async fn start_with(directory: &Path, keys: &[&Path], policy: &str) -> (Process, SocketAddr) {
    let admin = free_port();
    let keys: Vec<_> = keys.iter().map(|path| path.to_str().unwrap()).collect();
    let keys = format!("--console-session-key-files={}", keys.join(","));
    let arguments = [format!("--admin={admin}"), keys];
    let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
    (Process::start_arguments(directory, policy, &arguments).await, admin)
}

#[tokio::test(flavor = "multi_thread")]
async fn replicas_with_one_key_know_each_others_sessions_while_it_is_replaced() {
    let directories = [(); 3].map(|()| TempDir::new().unwrap());
    let [first, second] = ["first", "second"].map(|name| directories[0].path().join(name));
    std::fs::write(&first, KEYS[0]).unwrap();
    std::fs::write(&second, KEYS[0]).unwrap();
    let other = directories[2].path().join("other");
    std::fs::write(&other, KEYS[1]).unwrap();
    let (one, at_one) = start(directories[0].path(), &[&first, &second]).await;
    let (two, at_two) = start(directories[1].path(), &[&first, &second]).await;
    let (three, at_three) = start(directories[2].path(), &[&other]).await;
    let old = sign_in(at_one).await;
    assert!(takes(at_one, &old).await && takes(at_two, &old).await && !takes(at_three, &old).await);

    // The new key comes first; the old one still opens.
    std::fs::write(&first, KEYS[1]).unwrap();
    for admin in [at_one, at_two] {
        eventually("the new key seals", async || takes(at_three, &sign_in(admin).await).await).await;
        assert!(takes(admin, &old).await);
    }
    // A file that holds no key changes nothing.
    std::fs::write(&second, "short").unwrap();
    eventually("it is refused", async || one.log().contains("session keys are not usable")).await;
    assert!(takes(at_one, &old).await);
    // Without the old key its sessions are over, and only those.
    let new = sign_in(at_two).await;
    std::fs::write(&second, KEYS[1]).unwrap();
    for admin in [at_one, at_two] {
        eventually("the old key is out of force", async || !takes(admin, &old).await).await;
        assert!(takes(admin, &new).await);
    }
    for process in [one, two, three] {
        assert!(KEYS.iter().all(|key| !process.log().contains(key)));
        process.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_taken_out_of_the_policy_ends_its_sessions() {
    let directory = TempDir::new().unwrap();
    let key = directory.path().join("key");
    std::fs::write(&key, KEYS[0]).unwrap();
    let (process, admin) = start(directory.path(), &[&key]).await;
    let session = sign_in(admin).await;
    assert!(takes(admin, &session).await);
    std::fs::write(directory.path().join("policy.toml"), policy_of("tgs_another_secret_of_an_operator"))
        .unwrap();
    eventually("the session ends", async || !takes(admin, &session).await).await;
    process.stop().await;
}

/// What a form of the replica at `admin` holds, for a reader without a session.
async fn token_of(admin: SocketAddr, key: Option<&str>) -> String {
    let request = Request::new("GET", "/console/acme/pauses").header("host", &admin.to_string());
    let page = of(request, key).send(admin).await;
    assert_eq!(page.status, 200, "{}", page.text());
    hidden(&page.text(), "form_token")
}

/// Whether the replica at `admin` takes a form with this token, from a browser.
async fn takes_form(admin: SocketAddr, key: Option<&str>, token: &str) -> bool {
    let form = [("form_token", token), ("kind", "team"), ("name", "t"), ("reason", "tried")];
    let request = Request::form("/console/acme/pauses", &form)
        .header("host", &admin.to_string())
        .header("origin", &format!("http://{admin}"));
    let answer = of(request, key).send(admin).await;
    assert!(answer.status == 403 || answer.status < 400 || answer.status == 409, "{}", answer.text());
    answer.status != 403
}

fn of(request: Request, key: Option<&str>) -> Request {
    match key {
        Some(key) => request.key(key),
        None => request,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn forms_of_callers_without_a_session_are_known_by_replicas_with_the_key() {
    let open = "[organization]\nid = \"acme\"\n[teams.t]\nmodels = [\"*\"]\nmax_output_tokens = 9\n";
    for (policy, key) in [(policy_of(TOKEN), Some(TOKEN)), (open.to_owned(), None)] {
        let directories = [(); 4].map(|()| TempDir::new().unwrap());
        let [first, second, other] =
            ["first", "second", "other"].map(|name| directories[3].path().join(name));
        std::fs::write(&first, KEYS[0]).unwrap();
        std::fs::write(&second, KEYS[0]).unwrap();
        std::fs::write(&other, KEYS[1]).unwrap();
        let (one, at_one) = start_with(directories[0].path(), &[&first, &second], &policy).await;
        let (two, at_two) = start_with(directories[1].path(), &[&first, &second], &policy).await;
        let (three, at_three) = start_with(directories[2].path(), &[&other], &policy).await;
        let old = token_of(at_one, key).await;
        assert_eq!(token_of(at_two, key).await, old);
        assert!(takes_form(at_two, key, &old).await && !takes_form(at_three, key, &old).await);
        // A new key comes first; forms by the old one are taken until that is replaced as well.
        std::fs::write(&first, KEYS[1]).unwrap();
        let new = token_of(at_three, key).await;
        for admin in [at_one, at_two] {
            eventually("forms have the new key", async || token_of(admin, key).await == new).await;
            assert!(takes_form(admin, key, &old).await && takes_form(admin, key, &new).await);
        }
        std::fs::write(&second, KEYS[1]).unwrap();
        eventually("the old key is out of force", async || !takes_form(at_two, key, &old).await).await;
        assert!(takes_form(at_two, key, &new).await && !takes_form(at_two, key, "").await);
        for process in [one, two, three] {
            process.stop().await;
        }
    }
}
