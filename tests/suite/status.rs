//! What the service says about itself: over gRPC, over HTTP and on the command line.

use std::{
    net::SocketAddr,
    process::{Command, Output},
};

use serde_json::{Value, json};
use tempfile::TempDir;
use tollgate::rpc::{
    proto::{
        self, GetStatusRequest, policy_service_client::PolicyServiceClient,
        status_service_client::StatusServiceClient,
    },
    to_json,
};
use tonic::Code;

use crate::{
    access::{by, digest, reason},
    envoy::http::{Answer, Request},
    harness::{Process, connect, errors::is_of_json, eventually},
    redis_server::{self, RedisServer, free_port},
};

const POLICY: &str = "[organization]\nid = \"acme\"\n[teams.t]\nmodels = [\"*\"]\nmax_output_tokens = 9\n";
const ROLES: [&str; 2] = ["monitor", "viewer"];

fn secret(role: &str) -> String {
    format!("tgs_the_secret_of_the_{role}")
}

/// [`POLICY`] with a token for each of [`ROLES`], and a warning for each: the role is listed twice.
fn guarded() -> String {
    ROLES.iter().fold(POLICY.to_owned(), |text, role| {
        let digest = digest(&secret(role));
        text + &format!("[access.tokens.{role}]\nsha256 = \"{digest}\"\nroles = [\"{role}\", \"{role}\"]\n")
    })
}

/// A service with pages at the second.
async fn start(directory: &TempDir, policy: &str, arguments: &[&str]) -> (Process, SocketAddr) {
    let admin = free_port();
    let listen = format!("--admin={admin}");
    let arguments: Vec<_> = [&*listen].iter().chain(arguments).copied().collect();
    (Process::start_arguments(directory.path(), policy, &arguments).await, admin)
}

async fn status(process: &Process) -> proto::Status {
    let mut client = StatusServiceClient::new(connect(process.address()).await);
    client.get_status(GetStatusRequest {}).await.unwrap().into_inner().status.unwrap()
}

fn tollgate(process: &Process, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tollgate"));
    command.args(arguments).args(["--address", &process.address().to_string()]);
    command.env_remove("TOLLGATE_TOKEN").env_remove("TOLLGATE_ADDRESS").output().unwrap()
}

/// The exit code, and what was printed.
fn ended(output: &Output) -> (Option<i32>, String) {
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    (output.status.code(), printed + &String::from_utf8_lossy(&output.stderr))
}

fn text(answer: &Answer) -> String {
    String::from_utf8_lossy(&answer.body).into_owned()
}

/// The `ErrorInfo` of an error in JSON.
fn info(error: &Value) -> Value {
    let is_info = |detail: &&Value| detail["@type"] == "type.googleapis.com/google.rpc.ErrorInfo";
    error["details"].as_array().unwrap().iter().find(is_info).unwrap_or_else(|| panic!("{error}")).clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_is_the_answer_of_get_status() {
    let directory = TempDir::new().unwrap();
    let (process, admin) = start(&directory, &guarded(), &[]).await;
    let mut client = StatusServiceClient::new(connect(process.address()).await);
    let answer = client.get_status(by(&secret("monitor"), GetStatusRequest {})).await.unwrap().into_inner();
    let page = Request::new("GET", "/status").key(&secret("monitor")).send(admin).await;
    assert_eq!((page.status, page.header("content-type")), (200, Some("application/json")));
    assert_eq!(page.header("cache-control"), Some("no-store"));
    let (mut rpc, mut page) = (to_json(&answer).unwrap(), page.json());
    // What changes from one moment to the next.
    for json in [&mut rpc, &mut page] {
        let calls = json["status"]["store"]["calls"].take();
        let names = |call: &Value| call["operation"].as_str().unwrap().to_owned();
        assert!(calls.as_array().unwrap().iter().map(names).any(|name| name == "registry_since"), "{calls}");
        assert!(json["status"]["snapshot"]["readTime"].take().is_string());
    }
    assert_eq!(rpc, page);
    let status = answer.status.unwrap();
    let (snapshot, store) = (status.snapshot.unwrap(), status.store.unwrap());
    assert_eq!((&*status.version, &*status.organization), (env!("CARGO_PKG_VERSION"), "acme"));
    assert_eq!((snapshot.team_count, snapshot.key_count, snapshot.pause_count), (1, 0, 0));
    assert!(snapshot.fresh && store.reachable && snapshot.policy_revision.contains('/'), "{snapshot:?}");
    assert_eq!(store.kind(), proto::StoreKind::Embedded);
    assert_eq!(status.findings.len(), ROLES.len());
    assert!(status.findings.iter().all(|finding| finding.severity() == proto::FindingSeverity::Warning));

    let refused = client.get_status(by(&secret("viewer"), GetStatusRequest {})).await.unwrap_err();
    assert_eq!(reason(&refused), (Code::PermissionDenied, "PERMISSION_MISSING".to_owned()));
    let token = directory.path().join("token");
    std::fs::write(&token, secret("monitor")).unwrap();
    let token = ["status", "--token-file", token.to_str().unwrap()];
    let (code, printed) = ended(&tollgate(&process, &token));
    assert_eq!(code, Some(0), "{printed}");
    for part in [
        "organization acme",
        "1 team, 0 keys, 0 pauses",
        "embedded, answers",
        "registry_since",
        ": warning: access.tokens.monitor",
    ] {
        assert!(printed.contains(part), "no `{part}`:\n{printed}");
    }
    let (_, printed) = ended(&tollgate(&process, &[&token[..], &["--json"]].concat()));
    let printed: Value = serde_json::from_str(&printed).unwrap();
    assert_eq!(printed["status"]["snapshot"]["policyRevision"], json!(snapshot.policy_revision));
    assert_eq!(ended(&tollgate(&process, &["status"])).0, Some(2));
    process.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_that_does_not_load_stands_in_the_status_until_one_does() {
    let directory = TempDir::new().unwrap();
    let (process, _) = start(&directory, POLICY, &[]).await;
    let before = status(&process).await;
    assert_eq!(before.rejected, None);
    let file = directory.path().join("policy.toml");
    std::fs::write(&file, POLICY.replace("max_output_tokens", "max_output_token")).unwrap();
    eventually("it is rejected", async || status(&process).await.rejected.is_some()).await;
    let rejected = status(&process).await.rejected.unwrap();
    let finding = &rejected.findings[0];
    assert_eq!((finding.severity(), finding.line), (proto::FindingSeverity::Error, Some(5)));
    assert_eq!(finding.path, "teams.t.max_output_token");
    assert!(finding.file.ends_with("policy.toml") && rejected.reject_time.is_some(), "{rejected:?}");
    // Exactly what the check of that file says.
    let checked = Command::new(env!("CARGO_BIN_EXE_tollgate")).args(["check", "--json"]).arg(&file).output();
    let checked: Value = serde_json::from_slice(&checked.unwrap().stdout).unwrap();
    let mut shown = to_json(finding).unwrap();
    assert_eq!(shown["severity"].take(), "FINDING_SEVERITY_ERROR");
    let mut of_check = checked["findings"][0].clone();
    assert_eq!(of_check["severity"].take(), "error");
    assert_eq!(shown, of_check);

    let (code, printed) = ended(&tollgate(&process, &["status"]));
    assert_eq!(code, Some(0), "the policy before it is in force");
    assert!(printed.contains("did not load") && printed.contains("policy.toml:5:1: error: "), "{printed}");
    let revision = |status: &proto::Status| status.snapshot.as_ref().unwrap().policy_revision.clone();
    assert_eq!(revision(&status(&process).await), revision(&before));

    std::fs::write(&file, POLICY.replace("= 9", "= 8")).unwrap();
    eventually("the next one loads", async || status(&process).await.rejected.is_none()).await;
    process.stop().await;
}

/// The answer has a bound, and what keeps a policy from loading is in it.
#[tokio::test(flavor = "multi_thread")]
async fn of_many_findings_the_first_are_told_and_errors_before_warnings() {
    let directory = TempDir::new().unwrap();
    let warned = |number| format!("[teams.warned-{number}]\nmodels = [\"*\"]\nrequests_per_minute = 0\n");
    let warned: String = (0..150).map(warned).collect();
    let (process, _) = start(&directory, &format!("{POLICY}{warned}"), &[]).await;
    let told = status(&process).await;
    assert_eq!((told.findings.len(), told.finding_count), (100, 150));
    assert_eq!(told.findings[0].path, "teams.warned-0.requests_per_minute");
    let faulty = format!("{POLICY}{warned}[teams.last]\nmodels = [\"*\"]\nmax_output_token = 9\n");
    std::fs::write(directory.path().join("policy.toml"), faulty).unwrap();
    eventually("it is rejected", async || status(&process).await.rejected.is_some()).await;
    let rejected = status(&process).await.rejected.unwrap();
    assert_eq!((rejected.findings.len(), rejected.finding_count), (100, 151));
    assert_eq!(rejected.findings[0].path, "teams.last.max_output_token");
    assert_eq!(rejected.findings[1].path, "teams.warned-0.requests_per_minute");
    let (_, printed) = ended(&tollgate(&process, &["status"]));
    assert!(printed.contains("and 50 more") && printed.contains("and 51 more"), "{printed}");
    process.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_its_store_a_replica_is_not_ready_and_says_why() {
    if !redis_server::is_installed() {
        return;
    }
    let redis = RedisServer::start();
    let directory = TempDir::new().unwrap();
    let store = format!("--store={}", redis.url());
    let (process, admin) = start(&directory, POLICY, &[&store]).await;
    let ask =
        async |path: &str, accept: &str| Request::new("GET", path).header("accept", accept).send(admin).await;
    eventually("it is ready", async || ask("/readyz", "*/*").await.status == 200).await;
    eventually("it serves", async || ended(&tollgate(&process, &["health"])).0 == Some(0)).await;
    assert_eq!(ended(&tollgate(&process, &["health"])).1, "serving\n");
    assert_eq!(status(&process).await.store.unwrap().kind(), proto::StoreKind::Redis);

    redis.freeze();
    eventually("neither check passes", async || {
        let checks = ask("/readyz?verbose", "*/*").await;
        let lines = text(&checks);
        checks.status == 503
            && lines.starts_with("not ok store: the store does not answer\nnot ok registry: ")
            && lines.ends_with(" s ago\n")
    })
    .await;
    assert_eq!(text(&ask("/readyz", "*/*").await), "the store does not answer\n");
    let refused = ask("/readyz?verbose", "application/json").await;
    assert_eq!((refused.status, &refused.json()["code"]), (503, &json!(14)));
    let retry = json!({ "@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "1s" });
    assert!(refused.json()["details"].as_array().unwrap().contains(&retry), "{}", refused.json());
    assert_eq!(info(&refused.json())["reason"], "STORE_UNAVAILABLE");
    eventually("it does not serve", async || ended(&tollgate(&process, &["health"])).0 == Some(1)).await;
    assert_eq!(ended(&tollgate(&process, &["health", "--json"])).1, "{\n  \"status\": \"NOT_SERVING\"\n}\n");
    let (code, printed) = ended(&tollgate(&process, &["status"]));
    assert_eq!(code, Some(1), "{printed}");
    assert!(printed.contains("redis, does not answer") && printed.contains("not in time"), "{printed}");
    let of_json = |calls: &proto::StoreCalls| calls.outcome() == proto::StoreCallOutcome::Failed;
    assert!(status(&process).await.store.unwrap().calls.iter().any(of_json), "failed calls are counted");

    redis.thaw();
    eventually("it is ready again", async || ask("/readyz?verbose", "*/*").await.status == 200).await;
    let unknown = ended(&tollgate(&process, &["health", "--service", "tollgate.v1.NoService"]));
    assert_eq!(unknown.0, Some(2), "{unknown:?}");
    let service = ["health", "--service", "tollgate.v1.PolicyService"];
    eventually("it serves again", async || ended(&tollgate(&process, &service)).0 == Some(0)).await;
    let address = process.address();
    process.stop().await;
    let gone = Command::new(env!("CARGO_BIN_EXE_tollgate"))
        .args(["health", "--address", &address.to_string()])
        .output()
        .unwrap();
    assert_eq!(ended(&gone).0, Some(2));
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_of_pages_are_json_for_programs_and_text_for_people() {
    let directory = TempDir::new().unwrap();
    let (process, admin) = start(&directory, &guarded(), &[]).await;
    for (method, path, token, status, reason) in [
        ("GET", "/status", None, 401, "MISSING_CREDENTIAL"),
        ("GET", "/status", Some("viewer"), 403, "PERMISSION_MISSING"),
        ("GET", "/readyz?verbose", Some("viewer"), 403, "PERMISSION_MISSING"),
        ("GET", "/nothing", None, 404, "UNKNOWN_PAGE"),
        ("POST", "/nothing", Some("monitor"), 404, "UNKNOWN_PAGE"),
        ("POST", "/livez", None, 405, "METHOD_NOT_ALLOWED"),
        ("DELETE", "/status", Some("monitor"), 405, "METHOD_NOT_ALLOWED"),
    ] {
        let request = Request::new(method, path);
        let request = token.map_or(request.clone(), |role| request.key(&secret(role)));
        let as_json = request.clone().header("accept", "application/json").send(admin).await;
        assert_eq!((as_json.status, as_json.header("content-type")), (status, Some("application/json")));
        let json = as_json.json();
        is_of_json(&json, reason);
        let as_text = request.clone().header("accept", "text/html, */*").send(admin).await;
        assert_eq!(as_text.header("content-type"), Some("text/plain; charset=utf-8"));
        assert_eq!(text(&as_text), format!("{}\n", json["message"].as_str().unwrap()));
        for answer in [as_json, as_text, request.send(admin).await] {
            assert_eq!((answer.status, answer.header("cache-control")), (status, Some("no-store")));
            assert_eq!(answer.header("www-authenticate"), (status == 401).then_some("Bearer"));
            assert_eq!(answer.header("allow"), (status == 405).then_some("GET, HEAD"));
        }
    }
    let told = async |method, path| {
        Request::new(method, path).header("accept", "application/json").send(admin).await.json()
    };
    is_of_json(&told("GET", "/nothing").await, "UNKNOWN_PAGE");
    is_of_json(&told("POST", "/livez").await, "METHOD_NOT_ALLOWED");
    process.stop().await;

    // Without credentials, a page of another site must not read these.
    let directory = TempDir::new().unwrap();
    let (process, admin) = start(&directory, POLICY, &[]).await;
    let foreign = Request::new("GET", "/status").header("host", "attacker.example");
    let answer = foreign.header("accept", "application/json").send(admin).await;
    is_of_json(&answer.json(), "FOREIGN_HOST");
    assert_eq!(answer.status, 421);
    process.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_denial_asks_the_store_once() {
    let directory = TempDir::new().unwrap();
    let process =
        Process::start_arguments(directory.path(), &(POLICY.to_owned() + "requests_per_minute = 1\n"), &[])
            .await;
    let mut client = PolicyServiceClient::new(connect(process.address()).await);
    let request = proto::AuthorizeRequest {
        caller: Some(proto::authorize_request::Caller::Team("t".to_owned())),
        model: "openai/gpt-oss-20b".to_owned(),
        operation: proto::Operation::ChatCompletion.into(),
        input_tokens: 9,
        ..Default::default()
    };
    for decision in [proto::Decision::Allowed, proto::Decision::Denied] {
        let answer = client.authorize(request.clone()).await.unwrap().into_inner();
        assert_eq!(answer.decision(), decision, "{answer:?}");
    }
    let calls = status(&process).await.store.unwrap().calls;
    let reserved: i64 =
        calls.iter().filter(|calls| calls.operation == "reserve").map(|calls| calls.count).sum();
    assert_eq!(reserved, 2, "{calls:?}");
    process.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_without_a_drain_is_a_good_end_where_no_call_is_open() {
    let directory = TempDir::new().unwrap();
    let arguments = ["--store=embedded:data", "--drain-timeout=0s", "--admin-enabled=false"];
    let process = Process::start_arguments(directory.path(), POLICY, &arguments).await;
    let mut client = process.client().await;
    client.get_spend(proto::GetSpendRequest::default()).await.unwrap();
    drop(client);
    let ended = process.stop().await;
    assert!(ended.success(), "{ended}");
}
