//! A gateway with everything around it.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::Instant,
};

use serde_json::{Value, json};
use tempfile::TempDir;
use tollgate::rpc::proto;

use super::Language;
use crate::{
    access::digest,
    clients,
    envoy::http::{Answer, Exchange, Request},
    harness::{PATIENCE, Process, eventually, nanos},
    redis_server::free_port,
    support::mock_groq::{MockGroq, UPSTREAM_KEY},
};

const PATH: &str = "/openai/v1/chat/completions";
pub(super) const SMALL: &str = "openai/gpt-oss-20b";
pub(super) const LARGE: &str = "openai/gpt-oss-120b";

/// What is never settled is charged its input: that is what the mock bills for an answer in one piece that was left.
const POLICY: &str = r#"
[organization]
id = "acme"
budget = { monthly_usd = "100000.00" }

[envoy]
request_phase = true

[teams.roomy]
models = ["*"]
max_output_tokens = 2048
on_exceed = "clamp"
on_unsettled = "charge_input"

[teams.single]
models = ["*"]
max_output_tokens = 2048
max_in_flight = 1

[teams.strict]
models = ["openai/gpt-oss-20b"]
max_output_tokens = 50
requests_per_minute = 1

[teams.poor]
models = ["*"]
max_output_tokens = 2048
budget = { monthly_usd = "0.00001" }

[teams.small]
models = ["*"]
max_output_tokens = 2048
tokens_per_minute = 10
"#;
const TEAMS: [&str; 5] = ["roomy", "single", "strict", "poor", "small"];

/// The secret of a team's key.
pub(super) fn secret(team: &str) -> String {
    format!("tgk_of_{team}")
}

pub(super) fn policy() -> String {
    let key =
        |team: &str| format!("[teams.{team}.keys.{team}-test-web]\nsha256 = \"{}\"\n", digest(&secret(team)));
    POLICY.to_owned() + &TEAMS.map(key).concat()
}

/// A chat request of `team` that the mock answers as `directive` says, with `fields` besides.
pub(super) fn chat(team: &str, directive: &Value, fields: &Value) -> Request {
    let content = format!("mock:{directive}");
    let mut body = json!({"model": SMALL, "messages": [{"role": "user", "content": content}]});
    for (name, value) in fields.as_object().unwrap() {
        body[name] = value.clone();
    }
    Request::json(PATH, &secret(team), &body)
}

/// A gateway's process. Killed when dropped.
pub(super) struct Gateway {
    child: Child,
    pub(super) address: SocketAddr,
    log: PathBuf,
}

impl Gateway {
    pub(super) async fn start(language: Language, directory: &TempDir, variables: &[(&str, &str)]) -> Self {
        let log = directory.path().join(language.built());
        let to_log = fs::File::create(&log).unwrap();
        let child = program(language)
            .env("LISTEN", "127.0.0.1:0")
            .env("GROQ_API_KEY", UPSTREAM_KEY)
            .env_remove("TEAM")
            .env_remove("TOLLGATE_TOKEN")
            .envs(variables.iter().copied())
            .stdin(Stdio::null())
            .stdout(to_log.try_clone().unwrap())
            .stderr(to_log)
            .spawn()
            .unwrap();
        let mut gateway = Self { child, address: SocketAddr::from(([127, 0, 0, 1], 0)), log };
        eventually("the gateway listens", async || {
            assert!(gateway.child.try_wait().unwrap().is_none(), "the gateway ended:\n{}", gateway.log());
            let log = gateway.log();
            let line = log.lines().find_map(|line| line.strip_prefix("gateway listens on "));
            line.inspect(|address| gateway.address = address.parse().unwrap()).is_some()
        })
        .await;
        gateway
    }

    fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("the gateway's log:\n{}", self.log());
        }
    }
}

/// Waits until nothing is reserved; what was spent, in nano-dollars.
pub(super) async fn settled(tollgate: &Process) -> u64 {
    let client = tollgate.client().await;
    let report = async || {
        let answer = client.clone().get_spend(proto::GetSpendRequest::default()).await.unwrap();
        answer.into_inner().organization.expect("the organization's report")
    };
    eventually("everything is settled", async || {
        let report = report().await;
        report.unsettled_requests == 0 && nanos(report.spend.unwrap().reserved) == 0
    })
    .await;
    nanos(report().await.spend.unwrap().spent)
}

/// Waits until its store answers.
pub(super) async fn serves(tollgate: &Process) {
    eventually("it serves", async || tollgate.is_serving().await == Some(true)).await;
}

/// What starts it.
fn program(language: Language) -> Command {
    let built = clients::installed(language.built());
    match language {
        Language::TypeScript => {
            let mut program = Command::new("node");
            program.arg(built.join("dist/src/gateway.js"));
            program
        }
        Language::Python => {
            let source = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/gateway-python/gateway.py");
            let mut program = Command::new(built.join("bin/python"));
            program.args(["-B", source]).env("PYTHONPATH", built.join("gen"));
            program
        }
        Language::Go => Command::new(built.join("gateway")),
    }
}

/// A mock of Groq, the service in a process of its own, and the gateway between.
pub(super) struct Scene {
    gateway: Gateway,
    tollgate: Option<Process>,
    tollgate_address: SocketAddr,
    /// Where its metrics are, until it is restarted.
    metrics: SocketAddr,
    pub(super) mock: MockGroq,
    directory: TempDir,
}

impl Scene {
    /// `variables`: more of the gateway's environment.
    pub(super) async fn start(language: Language, variables: &[(&str, &str)]) -> Self {
        let directory = TempDir::new().unwrap();
        let mock = MockGroq::start().await;
        // Only Envoy's path needs Groq's key in the service.
        let key = [("GROQ_API_KEY", Path::new(UPSTREAM_KEY))];
        let metrics = free_port();
        let admin = format!("--admin={metrics}");
        let arguments = ["--store=embedded:./data", "--store-timeout=20s", &admin];
        let tollgate = Process::start_environment(directory.path(), &policy(), &arguments, &key).await;
        serves(&tollgate).await;
        let tollgate_address = tollgate.address();
        let (groq, governed) = (format!("http://{}", mock.address()), tollgate_address.to_string());
        let known = [("TOLLGATE_ADDRESS", governed.as_str()), ("GROQ_BASE_URL", groq.as_str())];
        let gateway = Gateway::start(language, &directory, &[&known, variables].concat()).await;
        Self { gateway, tollgate: Some(tollgate), tollgate_address, metrics, mock, directory }
    }

    pub(super) fn tollgate(&self) -> &Process {
        self.tollgate.as_ref().expect("the service runs")
    }

    pub(super) async fn stop_tollgate(&mut self) {
        self.tollgate.take().expect("the service runs").stop().await;
    }

    /// Starts it where it was, with what it had stored.
    pub(super) async fn start_tollgate(&mut self) {
        let address = self.tollgate_address;
        let tollgate = Process::start_at(address, self.directory.path(), &policy(), "embedded:./data").await;
        serves(&tollgate).await;
        self.tollgate = Some(tollgate);
    }

    pub(super) async fn send(&self, request: &Request) -> Answer {
        request.send(self.gateway.address).await
    }

    /// Sends it. The client leaves when the exchange is dropped.
    pub(super) async fn begin(&self, request: &Request) -> Exchange {
        request.start(self.gateway.address).await
    }

    /// Waits until so many requests of `team` wait for room.
    pub(super) async fn waiting(&self, team: &str, count: u32) {
        let row = format!("team=\"{team}\"}} ");
        eventually("as many wait", async || {
            let page = Request::new("GET", "/metrics").send(self.metrics).await.text();
            let mut rows = page.lines().filter(|line| line.starts_with("tollgate_requests_waiting{"));
            let shown = rows.find_map(|line| line.split_once(&row)).map_or("0", |(_, value)| value);
            shown.parse() == Ok(count)
        })
        .await;
    }

    /// Waits until a request whose body has `text` is at Groq.
    pub(super) async fn is_at_groq(&self, text: &str) {
        let has = |body: &[u8]| String::from_utf8_lossy(body).contains(text);
        eventually("the request is at Groq", async || self.mock.requests().iter().any(|r| has(&r.body)))
            .await;
    }

    /// Waits until nothing is reserved; what was spent, in nano-dollars.
    pub(super) async fn settled(&self) -> u64 {
        settled(self.tollgate()).await
    }

    /// Waits until nothing is reserved, and holds what was spent against the mock's ledger, to the nano-dollar.
    pub(super) async fn agrees(&self) {
        self.is_short_of(0).await;
    }

    /// The same where so much of Groq's bill is known to be missing.
    pub(super) async fn is_short_of(&self, missing: u64) {
        let spent = self.settled().await;
        let ledger = self.mock.ledger();
        assert_eq!(spent + missing, ledger.nanos, "spent, and what Groq bills: {ledger:?}");
    }

    /// Whether the gateway takes connections.
    pub(super) async fn accepts(&self) -> bool {
        tokio::net::TcpStream::connect(self.gateway.address).await.is_ok()
    }

    /// Asks the gateway to end.
    pub(super) fn terminate(&self) {
        let pid = self.gateway.child.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
    }

    /// Waits until the gateway has ended.
    pub(super) async fn ended(&mut self) -> ExitStatus {
        let started = Instant::now();
        loop {
            if let Some(status) = self.gateway.child.try_wait().unwrap() {
                return status;
            }
            assert!(started.elapsed() < PATIENCE, "the gateway does not end:\n{}", self.gateway.log());
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    }
}
