//! The console: what it answers over HTTP, and what real Chromium makes of it.

mod alerts;
mod attacks;
mod audit;
mod browser;
mod decisions;
mod events;
mod keys;
mod overview;
mod pauses;
mod policy;
mod records;
mod replicas;
mod reports;
mod teams;
mod visit;

use std::{fmt::Write as _, net::SocketAddr};

use tempfile::TempDir;

use crate::{
    access::{by, digest},
    envoy::http::{Answer, Request},
    harness::{Process, chat, used},
    redis_server::free_port,
};

/// Callers of the console: a name, which is also its role, and whether it is bound to the team `support`.
const CALLERS: [(&str, bool); 6] = [
    ("admin", false),
    ("operator", false),
    ("auditor", false),
    ("viewer", true),
    ("team-admin", true),
    ("gateway", false),
];

/// Two teams with a budget, one without; a token for each of [`CALLERS`].
pub(crate) fn policy() -> String {
    let mut text = "[organization]\nid = \"acme\"\ntime_zone = \"Europe/Berlin\"\nbudget = { monthly_usd = \"500\" }\n\
                    [reports]\nlabels = [\"environment\"]\n\
                    [teams.support]\nmodels = [\"*\"]\nmax_output_tokens = 1000\nbudget = { monthly_usd = \"200\" }\n\
                    [teams.research]\nmodels = [\"*\"]\nmax_output_tokens = 1000\n\
                    budget = { monthly_usd = \"0.000001\", on_shortfall = \"warn\" }\n\
                    [teams.spare]\nmodels = [\"*\"]\nmax_output_tokens = 1000\nrequests_per_minute = 0\n"
        .to_owned();
    for (name, bound) in CALLERS {
        let teams = if bound { "teams = [\"support\"]\n" } else { "" };
        let digest = digest(&secret(name));
        // Writing to a string cannot fail.
        let _ = write!(text, "[access.tokens.{name}]\nsha256 = \"{digest}\"\nroles = [\"{name}\"]\n{teams}");
    }
    text
}

pub(crate) fn secret(name: &str) -> String {
    format!("tgs_the_secret_of_the_{name}")
}

/// A service with `policy`, whose pages are at the second.
pub(crate) async fn start(directory: &TempDir, policy: &str) -> (Process, SocketAddr) {
    let admin = free_port();
    (Process::start_arguments(directory.path(), policy, &[&format!("--admin={admin}")]).await, admin)
}

/// The page at `path` for the caller `name`.
pub(crate) async fn page(admin: SocketAddr, name: &str, path: &str) -> Answer {
    Request::new("GET", path).key(&secret(name)).send(admin).await
}

pub(crate) fn text(answer: &Answer) -> String {
    String::from_utf8_lossy(&answer.body).into_owned()
}

/// A request of each team that has room, settled; and one that is denied.
pub(crate) async fn fill(process: &Process) {
    let mut client = process.client().await;
    for team in ["support", "support", "research", "spare"] {
        let request = by(&secret("gateway"), chat(team, "openai/gpt-oss-20b", 1_000, 500));
        let answer = client.authorize(request).await.unwrap().into_inner();
        if !answer.reservation_id.is_empty() {
            let report = by(&secret("gateway"), used(&answer.reservation_id, 1_000, 400));
            client.record_usage(report).await.unwrap();
        }
    }
}
