//! The service that pages of records are read from: people of each role, and usage with hostile names.

use std::net::SocketAddr;

use tempfile::TempDir;
use tollgate::rpc::proto::{AuthorizeRequest, policy_service_client::PolicyServiceClient};
use tonic::transport::Channel;

use crate::{
    access::{by, digest},
    envoy::http::{Answer, Request},
    harness::{Process, chat, connect, eventually, used},
    redis_server::free_port,
};

/// A user who would like to be a formula and markup.
pub(super) const HOSTILE: &str = "=1+1,<script>alert(1)</script>";

const TEAMS: &str = r#"
[organization]
id = "acme"
time_zone = "Asia/Kolkata"
budget = { monthly_usd = "1.00", alerts = ["1%"] }
[reports]
labels = ["cost_center"]
[teams.bot]
models = ["m/*"]
max_output_tokens = 1000
budget = { monthly_usd = "0.50" }
[teams.lab]
models = ["m/a"]
max_output_tokens = 1000
[[prices]]
model = "m/a"
input_usd_per_million_tokens = "1000"
output_usd_per_million_tokens = "1000"
[[prices]]
model = "m/b"
input_usd_per_million_tokens = "2000"
output_usd_per_million_tokens = "2000"
[[alerts]]
receiver = "ops"
"#;

/// The people, and their roles.
const PEOPLE: [(&str, &str, &str); 6] = [
    ("admin", "admin", ""),
    ("auditor", "auditor", ""),
    ("operator", "operator", ""),
    ("viewer", "viewer", ""),
    ("bound", "viewer", "teams = [\"bot\"]\n"),
    ("gateway", "gateway", ""),
];

/// A service with its pages.
pub(super) struct Site {
    pub(super) process: Process,
    pub(super) admin: SocketAddr,
    pub(super) directory: TempDir,
}

/// The token of a person.
pub(super) fn secret(name: &str) -> String {
    format!("tgs_secret_of_{name}")
}

/// [`TEAMS`] with each of [`PEOPLE`].
pub(super) fn policy() -> String {
    PEOPLE.iter().fold(TEAMS.to_owned(), |text, (name, role, teams)| {
        let digest = digest(&secret(name));
        text + &format!("[access.tokens.{name}]\nsha256 = \"{digest}\"\nroles = [\"{role}\"]\n{teams}")
    })
}

/// [`TEAMS`] without `[access]`: anyone may do everything.
pub(super) fn open_policy() -> String {
    TEAMS.to_owned()
}

impl Site {
    pub(super) async fn start(policy: &str, settings: &str) -> Self {
        let directory = TempDir::new().unwrap();
        std::fs::write(directory.path().join("settings.toml"), settings).unwrap();
        let admin = free_port();
        let arguments = ["--config=settings.toml", &*format!("--admin={admin}")];
        let process = Process::start_arguments(directory.path(), policy, &arguments).await;
        let site = Self { process, admin, directory };
        eventually("the pages are served", async || {
            site.send(Request::new("GET", "/livez")).await.status == 200
        })
        .await;
        site
    }

    pub(super) async fn send(&self, request: Request) -> Answer {
        request.send(self.admin).await
    }

    /// What `name` gets at `path` below the organization's pages.
    pub(super) async fn get(&self, name: &str, path: &str) -> (u16, String) {
        let request = Request::new("GET", &format!("/console/acme{path}")).key(&secret(name));
        let answer = self.send(request).await;
        (answer.status, text(&answer))
    }

    /// The same, which has to be there, with no part of it that `name` could have made.
    pub(super) async fn page(&self, name: &str, path: &str) -> String {
        let (status, page) = self.get(name, path).await;
        assert_eq!(status, 200, "{name} {path}: {page}");
        assert!(!page.contains("<script>alert") && page.len() <= 100 * 1024, "{} bytes: {page}", page.len());
        assert!(!page.contains("style=\""), "{page}");
        page
    }

    pub(super) async fn channel(&self) -> Channel {
        connect(self.process.address()).await
    }

    /// Books a request of so many input tokens, as the gateway.
    pub(super) async fn book(&self, (team, model, user): (&str, &str, &str), tokens: i64) {
        let mut client = PolicyServiceClient::new(self.channel().await);
        let labels = [("cost_center".to_owned(), format!("{user}-7"))].into();
        let request = AuthorizeRequest { user: user.to_owned(), labels, ..chat(team, model, tokens, 1) };
        let answer = client.authorize(by(&secret("gateway"), request)).await.unwrap().into_inner();
        assert!(!answer.reservation_id.is_empty(), "{answer:?}");
        let used = used(&answer.reservation_id, tokens, 0);
        client.record_usage(by(&secret("gateway"), used)).await.unwrap();
    }
}

/// The body of an answer.
pub(super) fn text(answer: &Answer) -> String {
    String::from_utf8_lossy(&answer.body).into_owned()
}

/// The value of the first field called `name` in a page.
pub(super) fn value(page: &str, name: &str) -> String {
    let after = page.split(&format!("name=\"{name}\"")).nth(1).unwrap_or_else(|| panic!("no {name}: {page}"));
    after.split("value=\"").nth(1).unwrap().split('"').next().unwrap().to_owned()
}

/// What leads to the pages, in order.
pub(super) fn tabs(page: &str) -> Vec<&str> {
    let nav = page.split("<nav").nth(1).unwrap().split("</nav>").next().unwrap();
    nav.split("href=\"/console/acme/").skip(1).map(|link| link.split('"').next().unwrap()).collect()
}
