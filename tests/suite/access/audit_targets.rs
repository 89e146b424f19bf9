//! Where the real process writes its audit log, and whom it knows there.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
    sync::mpsc,
    thread,
};

use serde_json::{Value, json};
use tempfile::TempDir;
use tollgate::rpc::proto::{
    GetSpendRequest, ListAuditEventsRequest, audit_service_client::AuditServiceClient,
    policy_service_client::PolicyServiceClient,
};
use tonic::{
    Code,
    transport::{Certificate, Channel, ClientTlsConfig, Identity},
};

use super::{by, digest, reason};
use crate::{
    harness::{PATIENCE, Process, StoreKind, connect, eventually, organization},
    redis_server,
    support::certificates::{Ca, Leaf},
    tls::open,
};

const AUDITOR: &str = "tgs_secret_of_the_auditor";
const GATEWAY: &str = "tgs_secret_of_the_gateway";

fn policy(organization: &str) -> String {
    format!(
        "[organization]\nid = \"{organization}\"\n[teams.own]\nmodels = [\"*\"]\n\
         [access.tokens.auditor]\nsha256 = \"{}\"\nroles = [\"auditor\"]\n\
         [access.tokens.edge]\nsha256 = \"{}\"\nroles = [\"gateway\"]\n",
        digest(AUDITOR),
        digest(GATEWAY),
    )
}

/// Asks what a gateway may not, and is refused.
async fn refused(channel: &Channel) {
    let status =
        PolicyServiceClient::new(channel.clone()).get_spend(by(GATEWAY, GetSpendRequest::default())).await;
    assert_eq!(reason(&status.unwrap_err()), (Code::PermissionDenied, "PERMISSION_MISSING".to_owned()));
}

/// `tollgate serve` in a directory with a policy.
fn tollgate(directory: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tollgate"));
    command.args(["serve", "--policy=policy.toml", "--admin-enabled=false"]).args(arguments);
    command.env_remove("TOLLGATE_CONFIG").current_dir(directory).stdin(Stdio::null());
    command
}

/// Ended when dropped.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Who did what to what, without the address.
fn told(event: &Value) -> [&str; 4] {
    let text = |value: &'static str| event.pointer(value).and_then(Value::as_str).unwrap();
    [text("/actor/kind"), text("/actor/name"), text("/action"), text("/subject")]
}

const REFUSED: [&str; 4] = ["service_token", "edge", "role.denied", "tollgate.v1.PolicyService/GetSpend"];

fn events(file: &Path) -> Vec<Value> {
    let text = fs::read_to_string(file).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The actions and subjects of what is listed, of the newest first.
async fn listed(channel: &Channel) -> Vec<(String, String)> {
    let mut admin = AuditServiceClient::new(channel.clone());
    let listed = admin.list_audit_events(by(AUDITOR, ListAuditEventsRequest::default())).await.unwrap();
    listed.into_inner().events.into_iter().map(|event| (event.action, event.subject)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_whose_role_does_not_permit_the_call_is_recorded() {
    let directory = TempDir::new().unwrap();
    let at = directory.path();
    let (servers, clients) = (Ca::new("of servers"), Ca::new("of clients"));
    servers.issue(Leaf::server()).write(at, "server");
    fs::write(at.join("clients.pem"), &clients.pem).unwrap();
    let name = "spiffe://acme/edge";
    let text = policy("acme") + &format!("[access.certificates.\"{name}\"]\nroles = [\"gateway\"]\n");
    let tls = [
        "--tls-cert-file=server.pem",
        "--tls-key-file=server-key.pem",
        "--tls-client-ca-file=clients.pem",
        "--admin-enabled=false",
    ];
    let process = Process::start_arguments(at, &text, &[&tls[..], &["--audit-file=audit"]].concat()).await;
    let pair = clients.issue(Leaf::client("edge").uri(name));
    let config = ClientTlsConfig::new()
        .ca_certificate(Certificate::from_pem(&servers.pem))
        .identity(Identity::from_pem(&pair.cert, &pair.key));
    let channel = open(process.address(), config).await.unwrap();
    let status = PolicyServiceClient::new(channel).get_spend(GetSpendRequest::default()).await.unwrap_err();
    assert_eq!(reason(&status), (Code::PermissionDenied, "PERMISSION_MISSING".to_owned()));
    process.stop().await;
    let events = events(&at.join("audit"));
    let expected = json!({"kind": "certificate", "name": name, "address": "127.0.0.1"});
    assert_eq!(events.iter().map(|event| &event["actor"]).collect::<Vec<_>>(), [&expected]);
    assert_eq!(events[0]["outcome"], "PERMISSION_MISSING");
}

#[tokio::test(flavor = "multi_thread")]
async fn standard_output_gets_the_events_and_no_file_does() {
    let directory = TempDir::new().unwrap();
    let at = directory.path();
    fs::write(at.join("policy.toml"), policy("acme")).unwrap();
    // By hand, as what is written to the standard error is not to be among it.
    let mut command =
        tollgate(at, &["--store=embedded:data", "--listen=127.0.0.1:0", "--audit-sinks=stdout"]);
    let mut process = Killed(command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap());
    let output = BufReader::new(process.0.stdout.take().unwrap());
    let (to_test, said) = mpsc::channel();
    thread::spawn(move || output.lines().try_for_each(|line| to_test.send(line.unwrap())));
    let next = || said.recv_timeout(PATIENCE).expect("nothing more on the standard output");
    let address = loop {
        if let Some(address) = next().strip_prefix("Tollgate listens on ") {
            break address.parse().unwrap();
        }
    };
    let channel = connect(address).await;
    refused(&channel).await;
    assert_eq!(listed(&channel).await, []);
    // It comes at once, and not only when the process ends.
    let event = loop {
        if let Ok(event) = serde_json::from_str::<Value>(&next()) {
            break event;
        }
    };
    assert_eq!(told(&event), REFUSED);
    assert!(!at.join("data/audit.jsonl").exists() && !at.join("stdout").exists());
}

/// Replicas on one Redis share no directory: each is to be given a file of its own, and none writes one unasked.
#[tokio::test(flavor = "multi_thread")]
async fn on_redis_each_replica_needs_a_file_of_its_own() {
    if !StoreKind::Redis.is_available() {
        return;
    }
    let directory = TempDir::new().unwrap();
    let at = directory.path();
    let (redis, text) = (redis_server::shared().unwrap().url(), policy(&organization()));
    let store = format!("--store={redis}");
    let replica = async |more: &[&str]| {
        let arguments = [&[&*store, "--store-timeout=20s", "--admin-enabled=false"], more].concat();
        Process::start_arguments(at, &text, &arguments).await
    };
    let without = replica(&[]).await;
    let channel = connect(without.address()).await;
    refused(&channel).await;
    let first = replica(&["--audit-file=first"]).await;
    refused(&connect(first.address()).await).await;
    // Another one is told that this one has the file, and what to do; without that, it would find that it cannot listen.
    let nowhere = ["--listen=192.0.2.1:1", "--allow-insecure-listen", "--audit-file=first"];
    let mut second = tollgate(at, &[&[&*store], &nowhere[..]].concat());
    let second = tokio::task::block_in_place(|| second.output().unwrap());
    let said = String::from_utf8_lossy(&second.stderr);
    assert_eq!(second.status.code(), Some(2), "{said}");
    for words in ["the audit log `first`", "another process writes it", "--audit-file"] {
        assert!(said.contains(words), "{said}");
    }
    let second = replica(&["--audit-file=second"]).await;
    refused(&connect(second.address()).await).await;
    // Each replica tells of all of them, and of each event once.
    let denied = ("role.denied".to_owned(), "tollgate.v1.PolicyService/GetSpend".to_owned());
    for process in [&without, &first, &second] {
        let channel = connect(process.address()).await;
        eventually("all are listed", async || listed(&channel).await == vec![denied.clone(); 3]).await;
    }
    for process in [without, first, second] {
        process.stop().await;
    }
    for file in ["first", "second"] {
        let events = events(&at.join(file));
        assert_eq!(events.iter().map(told).collect::<Vec<_>>(), [REFUSED], "{file}");
    }
    assert!(!at.join("audit.jsonl").exists());
}
