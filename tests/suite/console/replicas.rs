//! Two replicas on one Redis: a person may be answered by either, and each page is of both.

use std::{fs, path::Path};

use tempfile::TempDir;

use super::{fill, policy, secret, text};
use crate::{
    envoy::http::{Answer, Request},
    harness::{Process, StoreKind, eventually},
    redis_server::{RedisServer, free_port},
};

/// 32 bytes in base64, for tests alone.
const SESSION_KEY: &str = "Zm9yIHRlc3RzLCBhbmQgbG9uZyBlbm91Z2ggZm9yIG9uZSE=";

struct Replica {
    process: Process,
    admin: std::net::SocketAddr,
    _directory: TempDir,
}

impl Replica {
    async fn start(redis: &RedisServer, session_key: &Path, policy: &str) -> Self {
        let (directory, admin) = (TempDir::new().unwrap(), free_port());
        let arguments = [
            format!("--store={}", redis.url()),
            format!("--admin={admin}"),
            format!("--console-session-key-files={}", session_key.display()),
            // A busy machine is not an outage.
            "--store-timeout=20s".to_owned(),
        ];
        let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
        let process = Process::start_arguments(directory.path(), policy, &arguments).await;
        Self { process, admin, _directory: directory }
    }

    /// The page at `path` for the browser that keeps `cookie`.
    async fn get(&self, cookie: &str, path: &str) -> Answer {
        let request = Request::new("GET", &format!("/console/acme{path}"));
        request.header("cookie", cookie).header("host", &self.admin.to_string()).send(self.admin).await
    }

    async fn page(&self, cookie: &str, path: &str) -> String {
        text(&self.get(cookie, path).await)
    }

    /// What a form of `page` is answered.
    async fn post(&self, cookie: &str, page: &str, path: &str, fields: &[(&str, &str)]) -> Answer {
        let page = self.page(cookie, page).await;
        let token = super::visit::value(&page, "form_token");
        let fields = [fields, &[("form_token", token.as_str())]].concat();
        let host = self.admin.to_string();
        let form = Request::form(path, &fields).header("cookie", cookie).header("host", &host);
        form.header("origin", &format!("http://{host}")).send(self.admin).await
    }
}

/// A policy in which the organization's first request raises an alert.
fn alerting() -> String {
    policy().replace(
        "budget = { monthly_usd = \"200\" }",
        "budget = { monthly_usd = \"0.01\", on_shortfall = \"warn\", alerts = [\"1%\"] }",
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_and_what_is_done_in_it_are_of_every_replica() {
    if !StoreKind::Redis.is_available() {
        return;
    }
    let (redis, shared) = (RedisServer::start(), TempDir::new().unwrap());
    let session_key = shared.path().join("key");
    fs::write(&session_key, SESSION_KEY).unwrap();
    let policy = alerting();
    let (one, two) = tokio::join!(
        Replica::start(&redis, &session_key, &policy),
        Replica::start(&redis, &session_key, &policy)
    );
    // Signed in at the one, and taken by the other.
    let form = Request::form("/auth/token", &[("token", &secret("admin"))]);
    let answer = form.header("host", &one.admin.to_string()).send(one.admin).await;
    let cookie = answer.header("set-cookie").unwrap().split(';').next().unwrap().to_owned();
    assert_eq!((answer.status, two.get(&cookie, "/keys").await.status), (303, 200));
    // On a busy machine one of them may not be ready for a while.
    eventually("each replica lists both", async || {
        one.page(&cookie, "/").await.contains(" of 2 ready")
            && two.page(&cookie, "/").await.contains(" of 2 ready")
    })
    .await;

    // A key of the one is in the list of the other, and a pause of the other is on the page of the one.
    let fields = [("name", "support-prod-web"), ("team", "support")];
    let answer = one.post(&cookie, "/keys", "/console/acme/keys", &fields).await;
    assert_eq!(answer.status, 200, "{}", text(&answer));
    let fields = [("kind", "team"), ("name", "spare"), ("reason", "INC-7")];
    let answer = two.post(&cookie, "/pauses", "/console/acme/pauses", &fields).await;
    assert_eq!(answer.status, 303, "{}", text(&answer));
    eventually("each has what the other did", async || {
        two.page(&cookie, "/keys").await.contains("support-prod-web")
            && one.page(&cookie, "/pauses").await.contains("INC-7")
    })
    .await;

    // Spent through the one: cost, decisions, the alert and the audit log are of both.
    fill(&one.process).await;
    for replica in [&one, &two] {
        eventually("the alert is listed", async || {
            replica.page(&cookie, "/alerts").await.contains("budget threshold")
        })
        .await;
        eventually("who did what is listed", async || {
            let page = replica.page(&cookie, "/audit").await;
            ["session.begin", "key.create", "pause.create"]
                .iter()
                .all(|action| page.contains(&format!("<code>{action}</code>")))
        })
        .await;
        eventually("what was spent is reported", async || {
            replica.page(&cookie, "/reports?by=model").await.contains("openai/gpt-oss-20b")
        })
        .await;
    }
    // The page of decisions watches from the first look on.
    eventually("decisions of the one are seen at the other", async || {
        fill(&one.process).await;
        two.page(&cookie, "/decisions?result=denied").await.contains("<time")
    })
    .await;

    // Signed out at the one, the cookie is worth nothing there.
    let answer = one.post(&cookie, "/keys", "/auth/sign-out", &[]).await;
    assert_eq!((answer.status, one.get(&cookie, "/keys").await.status), (303, 303));
    for replica in [one, two] {
        replica.process.stop().await;
    }
}
