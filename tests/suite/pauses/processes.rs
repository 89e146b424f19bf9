//! Pauses over real processes: how fast one is everywhere, that it outlives them, who is told of it, and the command line.

use std::{
    process::{Command, Output},
    time::Duration,
};

use serde_json::{Value, json};
use tempfile::TempDir;
use tollgate::rpc::proto::{
    AuditEvent, ListAuditEventsRequest, ListPausesRequest, Reason, WholeOrganization,
    audit_service_client::AuditServiceClient, pause_service_client::PauseServiceClient, pause_target::Target,
    policy_service_client::PolicyServiceClient,
};
use tonic::transport::Channel;

use super::{Admin, MODEL, key, model, policy, request, team};
use crate::{
    access::{by, digest},
    harness::{Process, StoreKind, connect, eventually, json_of, organization},
    redis_server::RedisServer,
    replicas::{BOUND, until_all},
};

struct Replica {
    process: Process,
    admin: Admin,
    calls: PolicyServiceClient<Channel>,
}

impl Replica {
    async fn start(directory: &TempDir, policy: &str, store: &str) -> Self {
        Self::of(Process::start(directory.path(), policy, store).await).await
    }

    async fn of(process: Process) -> Self {
        let admin = Admin(PauseServiceClient::new(connect(process.address()).await));
        let calls = process.client().await;
        Self { process, admin, calls }
    }

    async fn is_paused(&mut self, caller: &str) -> bool {
        let answer = self.calls.authorize(request(caller, MODEL)).await.unwrap().into_inner();
        answer.violations.iter().any(|violation| violation.reason() == Reason::Paused)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pause_is_in_force_on_three_replicas_within_the_bound() {
    if !StoreKind::Redis.is_available() {
        return;
    }
    let (redis, directory) = (RedisServer::start(), TempDir::new().unwrap());
    let policy = policy(&organization());
    let mut replicas = Vec::new();
    for _ in 0..3 {
        replicas.push(Replica::start(&directory, &policy, &redis.url()).await);
    }
    let mut slowest = Duration::ZERO;
    let targets =
        [Target::Organization(WholeOrganization {}), team("bot"), key("bot-prod-declared"), model("m/*")];
    for (round, target) in targets.into_iter().cycle().take(12).enumerate() {
        let (by, other) = (round % 3, (round + 1) % 3);
        replicas[by].admin.pause(target.clone(), "INC-7").await.unwrap();
        assert!(replicas[by].is_paused("tgk_declared").await, "at once where it was ordered");
        slowest = slowest
            .max(until_all(&mut replicas, async |replica| replica.is_paused("tgk_declared").await).await);
        replicas[other].admin.resume(target).await.unwrap();
        assert!(!replicas[other].is_paused("tgk_declared").await, "at once where it was ordered");
        slowest = slowest
            .max(until_all(&mut replicas, async |replica| !replica.is_paused("tgk_declared").await).await);
    }
    println!("the slowest change took {slowest:?}");
    assert!(slowest < BOUND, "{slowest:?}");
}

/// A replica that has never read what is paused lets nobody pass; one that has goes on by it while the store is away.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_paused_is_known_before_anybody_passes() {
    if !StoreKind::Redis.is_available() {
        return;
    }
    let (redis, directory) = (RedisServer::start(), TempDir::new().unwrap());
    let policy = policy(&organization());
    let mut first = Replica::start(&directory, &policy, &redis.url()).await;
    first.admin.pause(team("bot"), "INC-7").await.unwrap();
    redis.freeze();
    let mut late = Replica::start(&directory, &policy, &redis.url()).await;
    assert!(first.is_paused("bot").await);
    let status = late.calls.authorize(request("bot", MODEL)).await.unwrap_err();
    assert_eq!(status.code(), tonic::Code::Unavailable, "{status:?}");
    assert_eq!(late.process.is_serving().await, Some(false), "nobody is to send it anything");
    redis.thaw();
    eventually("it decides, and nobody passed before", async || {
        match late.calls.authorize(request("bot", MODEL)).await {
            Ok(answer) => {
                let answer = answer.into_inner();
                assert_eq!(answer.violations.first().unwrap().reason(), Reason::Paused, "{answer:?}");
                true
            }
            Err(status) => {
                assert_eq!(status.code(), tonic::Code::Unavailable, "{status:?}");
                false
            }
        }
    })
    .await;
    eventually("it serves", async || late.process.is_serving().await == Some(true)).await;
}

/// A pause that Redis lost, and that is kept no longer, is not in force any more, and each replica says so.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pause_that_redis_lost_is_told() {
    if !StoreKind::Redis.is_available() {
        return;
    }
    let (mut redis, directory) = (RedisServer::start(), TempDir::new().unwrap());
    let process = Process::start_forgetful(directory.path(), &policy(&organization()), &redis.url()).await;
    let mut replica = Replica::of(process).await;
    replica.admin.pause(team("bot"), "INC-7").await.unwrap();
    assert!(replica.is_paused("bot").await);
    redis.kill();
    assert!(redis.restart());
    eventually("the loss is noticed", async || replica.process.log().contains("the store lost this pause"))
        .await;
    // The connection of another core finds out for itself that the one before has ended.
    eventually("nothing is paused", async || {
        let answer = replica.admin.0.clone().list_pauses(ListPausesRequest::default()).await;
        answer.is_ok_and(|answer| answer.into_inner().pauses.is_empty())
    })
    .await;
    assert!(!replica.process.log().contains("resumed"), "nobody resumed it");
}

const OPERATOR: &str = "tgs_secret_of_the_operator";
const AUDITOR: &str = "tgs_secret_of_the_auditor";
const GATEWAY: &str = "tgs_secret_of_the_gateway";

fn guarded() -> String {
    let mut text = policy("acme");
    for (name, secret, role) in
        [("ops", OPERATOR, "operator"), ("audit", AUDITOR, "auditor"), ("edge", GATEWAY, "gateway")]
    {
        let digest = digest(secret);
        text += &format!("[access.tokens.{name}]\nsha256 = \"{digest}\"\nroles = [\"{role}\"]\n");
    }
    text
}

async fn events(channel: &Channel) -> Vec<AuditEvent> {
    let mut client = AuditServiceClient::new(channel.clone());
    let answer = client.list_audit_events(by(AUDITOR, ListAuditEventsRequest::default())).await.unwrap();
    let mut events = answer.into_inner().events;
    events.reverse();
    events
}

/// `tollgate` with these arguments, as the holder of `token`.
fn tollgate(process: &Process, token: &str, arguments: &[&str]) -> Output {
    let address = process.address().to_string();
    let mut command = Command::new(env!("CARGO_BIN_EXE_tollgate"));
    command.args(arguments).args(["--address", &address]).env("TOLLGATE_TOKEN", token);
    tokio::task::block_in_place(|| command.output().unwrap())
}

fn printed(output: &Output, code: i32) -> String {
    let text =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{text}");
    text
}

#[tokio::test(flavor = "multi_thread")]
async fn the_commands_pause_and_the_log_says_who_and_why() {
    let directory = TempDir::new().unwrap();
    let store = format!("embedded:{}", directory.path().join("data").display());
    let process = Process::start(directory.path(), &guarded(), &store).await;
    let run = |token, arguments: &[&str], code| printed(&tollgate(&process, token, arguments), code);
    assert_eq!(run(AUDITOR, &["pauses"], 0), "nothing is paused\n");
    let nothing: Value = serde_json::from_str(&run(AUDITOR, &["pauses", "list", "--json"], 0)).unwrap();
    assert_eq!(nothing["pauses"], json!([]));
    assert_eq!(run(OPERATOR, &["pause", "team", "bot", "--reason", "INC-7"], 0), "team bot is paused\n");
    let again = run(OPERATOR, &["pauses", "create", "team", "bot", "--reason", "INC-8"], 0);
    assert_eq!(again, "team bot was paused already; the reason before: INC-7\n");
    // Once more, which changes nothing.
    assert_eq!(run(OPERATOR, &["pause", "team", "bot", "--reason", "INC-8"], 0), "team bot is paused\n");
    let list = run(AUDITOR, &["pauses"], 0);
    assert!(
        list.contains("team bot") && list.contains("service_token ops") && list.contains("INC-8"),
        "{list}"
    );
    let list: Value = serde_json::from_str(&run(AUDITOR, &["pauses", "--json"], 0)).unwrap();
    assert_eq!(list["pauses"][0]["target"], json!({ "team": "bot" }));
    assert_eq!(list["pauses"][0]["actor"]["name"], "ops");
    assert_eq!(run(AUDITOR, &["pauses", "list", "--team", "narrow"], 0), "nothing is paused\n");
    run(OPERATOR, &["pause", "model", MODEL, "--reason", "INC-9"], 0);
    let of_bot = run(AUDITOR, &["pauses", "--team", "bot", "--limit", "1", "--json"], 0);
    let of_bot: Value = serde_json::from_str(&of_bot).unwrap();
    assert_eq!((of_bot["pauses"].as_array().unwrap().len(), &of_bot["nextPageToken"]), (1, &json!("")));
    assert!(run(AUDITOR, &["pauses", "--team", "narrow"], 0).contains(&format!("model {MODEL}")));
    run(OPERATOR, &["resume", "model", MODEL, "--reason", "INC-9"], 0);
    let denied = run(GATEWAY, &["authorize", "--team", "bot", "--model", MODEL, "--input-tokens", "1"], 1);
    assert!(denied.contains("PAUSED") && denied.contains("the team `bot` is paused: INC-8"), "{denied}");
    // What may not be, and what is wrong.
    let refused = run(AUDITOR, &["pause", "organization", "--reason", "x"], 2);
    assert!(refused.contains("PERMISSION_DENIED") && refused.contains("`pause`"), "{refused}");
    for (arguments, words) in [
        (&["pause", "team", "--reason", "x"][..], "<NAME>"),
        (&["pause", "team", "bot"], "--reason <TEXT>"),
        (&["pause", "organization", "acme", "--reason", "x"], "takes no name"),
        (&["pause", "team", "bto", "--reason", "x"], "the policy has no such team"),
        (&["resume", "user", "eve", "--reason", "x"], "organization, team, key, model"),
    ] {
        let refused = run(OPERATOR, arguments, 2);
        assert!(refused.contains(words), "{arguments:?}: {refused}");
    }
    // It outlives the process, however that ends.
    process.kill();
    let process = Process::start(directory.path(), &guarded(), &store).await;
    let run = |token, arguments: &[&str], code| printed(&tollgate(&process, token, arguments), code);
    assert!(run(AUDITOR, &["pauses"], 0).contains("INC-8"));
    let ended = run(OPERATOR, &["resume", "team", "bot", "--reason", "mended"], 0);
    assert_eq!(ended, "team bot goes on; it was paused: INC-8\n");
    assert_eq!(
        run(OPERATOR, &["pauses", "end", "team", "bot", "--reason", "mended"], 0),
        "team bot was not paused\n"
    );
    run(GATEWAY, &["authorize", "--team", "bot", "--model", MODEL, "--input-tokens", "1"], 0);
    recorded(&events(&connect(process.address()).await).await);
}

/// Each order once, with who and why.
fn recorded(events: &[AuditEvent]) {
    let told: Vec<_> = events
        .iter()
        .filter(|event| event.subject == "team/bot")
        .map(|event| {
            let actor = event.actor.as_ref().unwrap();
            assert_eq!((actor.name.as_str(), actor.address.as_str()), ("ops", "127.0.0.1"));
            let [before, after] = [&event.before, &event.after].map(|state| json_of(state.as_ref()));
            assert!(
                before.is_null() || before["actor"]["name"] == "ops" && before["create_time"].is_string(),
                "{before}"
            );
            let before = before["reason"].as_str().map(str::to_owned);
            (event.action.as_str(), before, after, event.outcome.as_str())
        })
        .collect();
    let some = |reason: &str| Some(reason.to_owned());
    let expected = [
        ("pause.create", None, json!({ "paused": true, "reason": "INC-7" }), "done"),
        ("pause.create", some("INC-7"), json!({ "paused": true, "reason": "INC-8" }), "done"),
        ("pause.create", some("INC-8"), json!({ "paused": true, "reason": "INC-8" }), "unchanged"),
        ("pause.end", some("INC-8"), json!({ "paused": false, "reason": "mended" }), "done"),
        ("pause.end", None, json!({ "paused": false, "reason": "mended" }), "unchanged"),
    ];
    assert_eq!(told, expected);
}
