//! The official SDKs of Python and Node through Envoy: a day of thousands of mixed requests, aborts and errors included, held
//! against the mock's own ledger to the nano-dollar.

use std::{
    path::Path,
    process::{Command, Output},
};

use tempfile::TempDir;
use tollgate::runtime::clock::ManualClock;

use super::edge::{Edge, Envoy, KEY, chat, digest, is_available, policy};
use crate::{
    clients,
    harness::{Process, START, Server, StoreKind, UPSTREAM_KEY, eventually, nanos},
    redis_server::RedisServer,
    support::mock_groq::MockGroq,
};

/// Requests of one day with each language's SDKs.
const PYTHON_REQUESTS: &str = "2000";
const NODE_REQUESTS: &str = "300";

pub(crate) fn python(script: &str) -> Command {
    let venv = clients::install_envoy().expect("asked for before");
    let mut command = Command::new(venv.join("bin/python"));
    command.arg("-B").arg(clients::sources().join("envoy/python").join(script));
    command
}

/// `None`, said loudly, where Node or the SDKs for it cannot be had.
fn node(script: &str) -> Option<Command> {
    match clients::install_envoy_node() {
        Ok(modules) => {
            let mut command = Command::new("node");
            command.arg(modules.join(script));
            Some(command)
        }
        Err(missing) => {
            clients::skip("SDKs of Node", &missing);
            None
        }
    }
}

/// Runs it to its end, apart from the runtime's own threads.
pub(crate) async fn run(mut command: Command) -> Output {
    tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
}

pub(crate) fn assert_success(output: &Output) {
    let [said, complained] = [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text));
    assert!(output.status.success(), "{}:\n{said}\n{complained}", output.status);
}

/// Both languages at once.
async fn play_a_day(envoy: &Envoy) {
    let base_url = format!("http://{}", envoy.address);
    let mut of_python = python("day.py");
    of_python.args([&base_url, KEY, "--requests", PYTHON_REQUESTS]);
    let of_node = node("day.mjs").map(|mut day| {
        day.args([&base_url, KEY, "--requests", NODE_REQUESTS]);
        day
    });
    let of_node = async {
        if let Some(day) = of_node {
            assert_success(&run(day).await);
        }
    };
    let (of_python, ()) = tokio::join!(run(of_python), of_node);
    assert_success(&of_python);
}

/// What was spent of each model is what the mock bills for it.
fn assert_same_by_model(spend: &tollgate::rpc::proto::SpendReport, mock: &MockGroq) {
    let ledger = mock.ledger();
    let billed: Vec<_> =
        ledger.models.iter().map(|(name, model)| ((*name).to_owned(), model.nanos)).collect();
    let mut spent: Vec<_> =
        spend.by_model.iter().map(|line| (line.name.clone(), nanos(line.spent.clone()))).collect();
    spent.sort();
    assert_eq!(spent, billed);
    assert!(ledger.aborted > 50 && ledger.errors.len() > 3, "the day was too quiet: {ledger:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_day_on_the_embedded_store_costs_what_groq_bills() {
    let Some(edge) = Edge::start(&policy(&[])).await else { return };
    play_a_day(&edge.envoy).await;
    let spend = edge.agrees().await;
    assert_same_by_model(&spend, &edge.mock);
}

/// What one replica admits, another one settles.
#[tokio::test(flavor = "multi_thread")]
async fn a_day_on_redis_with_two_replicas_costs_what_groq_bills() {
    if !is_available() || !StoreKind::Redis.is_available() {
        return;
    }
    let redis = RedisServer::start();
    let (mock, clock) = (MockGroq::start().await, ManualClock::new(START));
    let replica = || Server::start_on_redis(&redis, "acme", &policy(&[]), clock.clone());
    let (server, other) = (replica(), replica());
    let envoy = Envoy::start(&[server.address(), other.address()], mock.address(), &[]).await.unwrap();
    let edge = Edge { envoy, mock, server };
    play_a_day(&edge.envoy).await;
    let spend = edge.agrees().await;
    assert_same_by_model(&spend, &edge.mock);
    assert!(other.stop().await);
}

/// A policy of the clients' own directory, with its digests.
fn denials_policy() -> String {
    let text = std::fs::read_to_string(clients::sources().join("envoy/policy.toml")).unwrap();
    TEAMS.iter().fold(text, |text, team| {
        text.replace(&format!("SHA256 of tgk_of_{team}\""), &format!("{}\"", digest(&secret(team))))
    })
}

const TEAMS: [&str; 6] = ["roomy", "poor", "small", "slow-groq", "slow-openai", "single"];

pub(crate) fn secret(team: &str) -> String {
    format!("tgk_of_{team}")
}

/// A real process with the key in a file, as it is shipped.
pub(crate) async fn start_process(directory: &Path) -> Process {
    std::fs::create_dir_all(directory.join("groq-keys")).unwrap();
    std::fs::write(directory.join("groq-keys/first"), UPSTREAM_KEY).unwrap();
    let store = format!("embedded:{}", directory.join("data").display());
    Process::start(directory, &denials_policy(), &store).await
}

/// Such a process behind Envoy, before a mock of Groq.
pub(crate) async fn start_all(directory: &Path) -> (Process, MockGroq, Envoy) {
    let process = start_process(directory).await;
    let mock = MockGroq::start().await;
    let envoy = Envoy::start(&[process.address()], mock.address(), &[]).await.unwrap();
    (process, mock, envoy)
}

/// Puts a secret into a file: written beside and moved, as secrets are mounted.
pub(crate) fn mount(file: &Path, secret: &str) {
    let beside = file.with_file_name(".beside");
    std::fs::write(&beside, secret).unwrap();
    std::fs::rename(beside, file).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn sdks_raise_the_right_exception_and_retry_when_it_helps() {
    if !is_available() {
        return;
    }
    let directory = TempDir::new().unwrap();
    let (process, _mock, envoy) = start_all(directory.path()).await;
    let base_url = format!("http://{}", envoy.address);
    let keys: serde_json::Map<_, _> =
        TEAMS.iter().map(|team| ((*team).to_owned(), secret(team).into())).collect();
    let keys = serde_json::Value::from(keys).to_string();
    let mut of_python = python("denials.py");
    of_python.args([&base_url, &keys]);
    assert_success(&run(of_python).await);
    if let Some(mut of_node) = node("denials.mjs") {
        of_node.args([&base_url, &keys]);
        assert_success(&run(of_node).await);
    }
    let log = process.log();
    for secret in TEAMS.map(secret).iter().map(String::as_str).chain([UPSTREAM_KEY, "mock:"]) {
        assert!(!log.contains(secret), "`{secret}` is in the log:\n{log}");
    }
    assert!(log.contains("request denied"), "the log was not on:\n{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_is_stopped_settles_the_streams_under_way() {
    if !is_available() {
        return;
    }
    let directory = TempDir::new().unwrap();
    let (process, mock, envoy) = start_all(directory.path()).await;
    let fields = serde_json::json!({"stream": true, "max_tokens": 50});
    let request = chat(r#"{"completion_tokens":20,"chunk_ms":40}"#, &fields).key(&secret("roomy"));
    let (answer, ()) = tokio::join!(request.send(envoy.address), async {
        eventually("the request is at Groq", || async { mock.requests().len() == 1 }).await;
        process.stop().await;
    });
    assert_eq!(answer.status, 200);
    let again = start_process(directory.path()).await;
    let spend = super::edge::organization_spend(&mut again.client().await).await;
    assert_eq!(nanos(spend.spend.unwrap().spent), mock.ledger().nanos);
    assert_eq!(spend.unsettled_requests, 0);
}
