//! Metrics as operators read them: over HTTP from the service, and through real programs.

mod collector;
mod page;
mod prometheus;
mod rows;

use std::net::SocketAddr;

use tempfile::TempDir;
use tollgate::rpc::proto::policy_service_client::PolicyServiceClient;
use tonic::transport::Channel;

use crate::{
    envoy::http::Request,
    harness::{Process, eventually},
    redis_server::free_port,
};

/// Two teams, one with a budget and a rate.
pub(crate) const POLICY: &str = r#"
[organization]
id = "acme"
budget = { monthly_usd = "500.00" }

[teams.chatbot]
models = ["openai/*"]
max_output_tokens = 1000
requests_per_minute = 4
budget = { monthly_usd = "200.00", daily_usd = "20.00" }

[teams.research]
models = ["*"]
"#;
pub(crate) const MODEL: &str = "openai/gpt-oss-20b";

/// A client of the service.
pub(crate) type Client = PolicyServiceClient<Channel>;

/// A service with its pages at the second.
pub(crate) async fn start(directory: &TempDir, policy: &str, arguments: &[&str]) -> (Process, SocketAddr) {
    let admin = free_port();
    let listen = format!("--admin={admin}");
    let arguments: Vec<_> = [&*listen].iter().chain(arguments).copied().collect();
    (Process::start_arguments(directory.path(), policy, &arguments).await, admin)
}

/// The page of metrics.
pub(crate) async fn page(admin: SocketAddr) -> String {
    let answer = Request::new("GET", "/metrics").send(admin).await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    String::from_utf8(answer.body.to_vec()).unwrap()
}

/// The value of the one row of `metric` with all of `labels`, such as `team="chatbot"`.
pub(crate) fn value(page: &str, metric: &str, labels: &[&str]) -> Option<f64> {
    let mut rows = page.lines().filter(|line| {
        let name = line.split(['{', ' ']).next();
        name == Some(metric) && labels.iter().all(|label| line.contains(label))
    });
    let row = rows.next()?;
    assert_eq!(rows.next(), None, "{metric} has several rows with {labels:?}");
    row.rsplit_once(' ')?.1.parse().ok()
}

/// Waits until a page has `metric` with these labels at `expected`.
pub(crate) async fn eventually_is(admin: SocketAddr, metric: &str, labels: &[&str], expected: f64) {
    let what = format!("{metric} {labels:?} is {expected}");
    eventually(&what, async || value(&page(admin).await, metric, labels) == Some(expected)).await;
}
