//! What the service says that another policy would have done with its usage, over gRPC and on the command line.

use std::{
    process::Command,
    time::{Duration, Instant},
};

use tempfile::TempDir;
use tollgate::{
    rpc::proto::{
        self, ReplayPolicyRequest, ReplayResult, ReplaySource, authorize_request::Caller,
        key_service_client::KeyServiceClient, policy_document_service_client::PolicyDocumentServiceClient,
        policy_service_client::PolicyServiceClient,
    },
    store::{Series, Usage as _, UsageAddition, UsageAmounts, UsageKey, UsageSet},
};
use tonic::{Code, Request, Status, transport::Channel};

use crate::{
    harness::{
        Fixture, Process, START, Server, StoreKind, Ways, chat, connect, errors::is_of, eventually,
        eventually_within, nanos, new_key, used,
    },
    redis_server::free_port,
};

const MODEL: &str = "openai/gpt-oss-20b";
const HOUR: u64 = 3_600_000;

fn policy(limits: &str) -> String {
    format!("[organization]\nid = \"acme\"\n[teams.bot]\nmodels = [\"*\"]\n{limits}\n")
}

/// Of the day of [`START`].
fn asked(document: impl Into<Vec<u8>>) -> ReplayPolicyRequest {
    ReplayPolicyRequest {
        document: document.into().into(),
        start_date: "2026-11-23".to_owned(),
        end_date: "2026-11-24".to_owned(),
        ..Default::default()
    }
}

type Client = PolicyDocumentServiceClient<Channel>;

/// The result, and how many answers came before.
async fn replayed(
    client: &mut Client,
    request: impl tonic::IntoRequest<ReplayPolicyRequest>,
) -> Result<(ReplayResult, usize), Status> {
    let mut answers = client.replay_policy(request).await?.into_inner();
    let (mut last, mut before) = (0.0, 0);
    while let Some(answer) = answers.message().await? {
        assert!(answer.progress >= last && answer.progress <= 1.0, "{answer:?} after {last}");
        last = answer.progress;
        if let Some(result) = answer.result {
            assert!(answers.message().await?.is_none(), "the result is the last");
            return Ok((result, before));
        }
        before += 1;
    }
    panic!("a replay without a result");
}

async fn client(server: &Server) -> Client {
    PolicyDocumentServiceClient::new(connect(server.address()).await)
}

/// A request that is allowed and settled; its cost.
async fn spend(client: &mut PolicyServiceClient<Channel>, request: proto::AuthorizeRequest) -> u64 {
    let allowed = client.authorize(request).await.unwrap().into_inner();
    assert_eq!(allowed.decision(), proto::Decision::Allowed, "{allowed:?}");
    let booked = client.record_usage(used(&allowed.reservation_id, 300, 100)).await.unwrap().into_inner();
    nanos(booked.cost)
}

/// The lines: what refuses, how many, how many of them new, and what that saves.
fn lines(result: &ReplayResult) -> Vec<(&str, i64, i64, u64)> {
    let all = result.lines.iter();
    all.map(|line| {
        assert_eq!(line.team, "bot");
        (&*line.limit_id, line.refused_count, line.newly_refused_count, nanos(line.cost.clone()))
    })
    .collect()
}

async fn a_smaller_budget_refuses_what_would_have_exceeded_it(store: StoreKind) {
    let server = Server::start(store, &policy(""), START).await;
    let (mut calls, mut client) = (server.client().await, client(&server).await);
    let mut cost = 0;
    for number in 0..20 {
        // Ten in each of two hours.
        server.clock.set(START.plus(number / 10 * HOUR + number % 10 * 1_000));
        cost = spend(&mut calls, chat("bot", MODEL, 400, 200)).await;
    }
    server.clock.set(START.plus(3 * HOUR));
    let (result, _) = replayed(&mut client, asked(policy(""))).await.unwrap();
    assert_eq!((result.source(), result.decisions), (ReplaySource::HourlyUsage, 20));
    assert_eq!((result.stay_allowed_count, result.newly_refused_count, result.lines.len()), (20, 0, 0));
    assert!(result.saved.is_none_or(|saved| nanos(Some(saved)) == 0));

    // Twelve fit, and not one more.
    let usd = format!("{}.{:09}", 12 * cost / 1_000_000_000, 12 * cost % 1_000_000_000);
    let smaller = policy(&format!("budget = {{ daily_usd = \"{usd}\" }}"));
    let (result, _) = replayed(&mut client, asked(smaller)).await.unwrap();
    assert_eq!((result.decisions, result.stay_allowed_count, result.newly_refused_count), (20, 12, 8));
    assert_eq!(nanos(result.saved.clone()), 8 * cost);
    assert_eq!(lines(&result), [("teams.bot.budget.daily_usd", 8, 8, 8 * cost)]);
    // Ten in an hour are one in six minutes, wherever in the hour they came.
    let (result, _) = replayed(&mut client, asked(policy("requests_per_minute = 1"))).await.unwrap();
    assert_eq!(result.newly_refused_count, 0, "{result:?}");
    let (result, _) = replayed(&mut client, asked(policy("requests_per_hour = 5"))).await.unwrap();
    assert_eq!(result.newly_refused_count, 10, "{result:?}");
    // A cap on each request, in shadow and not; and a team that is gone.
    let capped = "max_output_tokens = 99\nmode = \"shadow\"";
    let (result, _) = replayed(&mut client, asked(policy(capped))).await.unwrap();
    assert_eq!((result.newly_refused_count, result.lines[0].shadow_count), (0, 20), "{result:?}");
    let gone = policy("").replace("teams.bot", "teams.other");
    let (result, _) = replayed(&mut client, asked(gone)).await.unwrap();
    assert_eq!((result.newly_refused_count, nanos(result.saved.clone())), (20, 20 * cost));
    // None of it was applied, and no usage was added.
    let (again, _) = replayed(&mut client, asked(policy(""))).await.unwrap();
    assert_eq!((again.decisions, again.newly_refused_count), (20, 0));
    let tomorrow = ReplayPolicyRequest {
        start_date: "2026-11-24".to_owned(),
        end_date: "2026-11-25".to_owned(),
        ..asked(policy(""))
    };
    assert_eq!(replayed(&mut client, tomorrow).await.unwrap().0.decisions, 0);
    assert!(server.stop().await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_smaller_budget_refuses_what_would_have_exceeded_it_in_the_embedded_store() {
    a_smaller_budget_refuses_what_would_have_exceeded_it(StoreKind::Embedded).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_smaller_budget_refuses_what_would_have_exceeded_it_in_redis() {
    if StoreKind::Redis.is_available() {
        a_smaller_budget_refuses_what_would_have_exceeded_it(StoreKind::Redis).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn created_keys_take_part_with_their_own_limits() {
    let server = Server::start(StoreKind::Embedded, &policy(""), START).await;
    let (mut calls, mut client) = (server.client().await, client(&server).await);
    let mut keys = KeyServiceClient::new(connect(server.address()).await);
    let created = keys.create_key(new_key("bot-prod-web", "bot")).await.unwrap().into_inner();
    let mut by_key = chat("", MODEL, 400, 200);
    by_key.caller = Some(Caller::ApiKey(created.secret));
    let mut cost = 0;
    for _ in 0..6 {
        cost = spend(&mut calls, by_key.clone()).await;
    }
    spend(&mut calls, chat("bot", MODEL, 400, 200)).await;
    server.clock.set(START.plus(2 * HOUR));
    let (result, _) = replayed(&mut client, asked(policy(""))).await.unwrap();
    assert_eq!((result.decisions, result.newly_refused_count, result.unknown_key_count), (7, 0, 0));
    // Its limits are those of now, and hold although it is revoked.
    let limits = proto::KeyLimits { requests_per_hour: Some(2), ..Default::default() };
    let key = Some(proto::VirtualKey {
        name: "bot-prod-web".to_owned(),
        limits: Some(limits),
        ..Default::default()
    });
    keys.update_key(proto::UpdateKeyRequest { key, ..Default::default() }).await.unwrap();
    keys.revoke_key(proto::RevokeKeyRequest { name: "bot-prod-web".to_owned() }).await.unwrap();
    let (result, _) = replayed(&mut client, asked(policy(""))).await.unwrap();
    assert_eq!(lines(&result), [("teams.bot.keys.bot-prod-web.requests_per_hour", 4, 4, 4 * cost)]);
    assert!(server.stop().await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_played_is_named() {
    let server = Server::start(StoreKind::Embedded, &policy(""), START).await;
    let mut client = client(&server).await;
    let sound = asked(policy(""));
    let between = |start: &str, end: &str| ReplayPolicyRequest {
        start_date: start.to_owned(),
        end_date: end.to_owned(),
        ..sound.clone()
    };
    for (request, field) in [
        (asked(""), "document"),
        (asked(policy("requests_per_minutes = 1")), "document"),
        (asked(policy("").replace("acme", "other")), "document"),
        (asked(&b"\xff"[..]), "document"),
        (ReplayPolicyRequest { format: "yaml".to_owned(), ..sound.clone() }, "format"),
        (between("", "2026-11-24"), "start_date"),
        (between("2026-11-23", "today"), "end_date"),
        (between("2026-11-23", "2026-11-23"), "end_date"),
        (between("2025-11-23", "2026-12-30"), "end_date"),
    ] {
        let refused = replayed(&mut client, request).await.unwrap_err();
        is_of(&refused, "INVALID_REQUEST");
        assert!(refused.message().contains(&format!("`{field}`: ")), "{field}: {refused:?}");
    }
    let secret = format!("tgs_{}", "a".repeat(40));
    let refused =
        replayed(&mut client, asked(policy(&format!("models = [\"{secret}\"]")))).await.unwrap_err();
    assert!(!refused.message().contains(&secret), "{refused:?}");
    let refused = replayed(&mut client, between("2024-01-01", "2024-01-02")).await.unwrap_err();
    is_of(&refused, "HISTORY_NOT_KEPT");
    let refused = replayed(&mut client, asked(vec![b'#'; 32 << 20])).await.unwrap_err();
    is_of(&refused, "MESSAGE_TOO_LARGE");
    assert!(server.stop().await);
}

/// A server with as many requests in an hour.
async fn busy(requests: u64) -> Server {
    let fixture = Fixture::embedded();
    let day = UsageKey::of_day(202_611, "bot".into(), 20_261_123, MODEL.into(), "".into());
    let hours = UsageSet { series: Series::Hours, period: 20_261_123, team: "bot".into() };
    let hour = UsageKey { set: hours, hour: 3, ..day.clone() };
    let amounts = UsageAmounts { requests, cost_nanos: requests, ..UsageAmounts::default() };
    let lines = vec![(day, amounts), (hour, amounts)];
    let addition = UsageAddition { source: [1; 16], number: 1, lines, max_rows: 9 };
    fixture.store.add_usage(addition).await.unwrap();
    Server::start_in(fixture, &policy(""), Ways::default())
}

/// Waits until another replay can be made, which is of few requests.
async fn has_room(client: &Client, other: &ReplayPolicyRequest) {
    let mut client = client.clone();
    let room = async || replayed(&mut client, other.clone()).await.is_ok();
    eventually_within(Duration::from_secs(20), "there is room again", room).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn one_replay_runs_at_a_time_and_ends_when_its_caller_leaves() {
    let server = busy(9_000_000).await;
    let mut client = client(&server).await;
    let mut long = client.replay_policy(asked(policy(""))).await.unwrap().into_inner();
    assert!(long.message().await.unwrap().unwrap().result.is_none(), "it tells how far it is");
    let other = ReplayPolicyRequest {
        start_date: "2026-11-22".to_owned(),
        end_date: "2026-11-23".to_owned(),
        ..asked(policy(""))
    };
    is_of(&replayed(&mut client, other.clone()).await.unwrap_err(), "OVERLOADED");
    // Decisions are made beside it.
    let started = Instant::now();
    server.client().await.authorize(chat("bot", MODEL, 10, 10)).await.unwrap();
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
    drop(long);
    has_room(&client, &other).await;
    // A caller's own deadline ends it, too.
    let mut request = Request::new(asked(policy("")));
    request.set_timeout(Duration::from_millis(700));
    let late = replayed(&mut client, request).await.unwrap_err();
    assert!(matches!(late.code(), Code::DeadlineExceeded | Code::Cancelled), "{late:?}");
    has_room(&client, &other).await;
    // A stop is not held up by one.
    let mut long = client.replay_policy(asked(policy(""))).await.unwrap().into_inner();
    let reader = tokio::spawn(async move {
        loop {
            match long.message().await {
                Ok(Some(answer)) => assert!(answer.result.is_none()),
                ended => return ended,
            }
        }
    });
    server.stop().await;
    let ended = reader.await.unwrap();
    assert!(ended.is_err(), "{ended:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_requests_than_can_be_played_are_refused() {
    let server = busy(10_000_001).await;
    let refused = replayed(&mut client(&server).await, asked(policy(""))).await.unwrap_err();
    is_of(&refused, "INVALID_REQUEST");
    assert!(refused.message().contains("`end_date`: more than 10,000,000 requests"), "{refused:?}");
    assert!(server.stop().await);
}

fn tollgate(process: &Process, arguments: &[&str]) -> (Option<i32>, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tollgate"));
    command.args(arguments).args(["--address", &process.address().to_string()]);
    command.env_remove("TOLLGATE_TOKEN").env_remove("TOLLGATE_ADDRESS");
    let output = tokio::task::block_in_place(|| command.output().unwrap());
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    (output.status.code(), printed + &String::from_utf8_lossy(&output.stderr))
}

/// A day, as `date` says it.
fn day(which: &str) -> String {
    let output = Command::new("date").args(["-u", "-d", which, "+%F"]).output().unwrap();
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_command_prints_what_the_service_says() {
    let directory = TempDir::new().unwrap();
    let admin = format!("--admin={}", free_port());
    let process = Process::start_arguments(directory.path(), &policy(""), &[&admin]).await;
    let mut calls = process.client().await;
    eventually("it decides", async || calls.authorize(chat("bot", MODEL, 1, 1)).await.is_ok()).await;
    for _ in 0..5 {
        spend(&mut calls, chat("bot", MODEL, 400, 200)).await;
    }
    let proposed = directory.path().join("proposed.toml");
    std::fs::write(&proposed, policy("requests_per_hour = 0")).unwrap();
    let (from, to) = (day("yesterday"), day("tomorrow"));
    let arguments = ["replay", "--policy", proposed.to_str().unwrap(), "--from", &from, "--to", &to];
    let (code, printed) = tollgate(&process, &arguments);
    assert_eq!(code, Some(0), "{printed}");
    for words in [
        "5 requests decided again",
        "5 allowed then, refused now",
        "teams.bot.requests_per_hour",
        "Approximate: ",
    ] {
        assert!(printed.contains(words), "{words}: {printed}");
    }
    let (_, printed) = tollgate(&process, &[&arguments[..], &["--json"]].concat());
    let json: serde_json::Value = serde_json::from_str(&printed).unwrap();
    assert_eq!(
        (&json["source"], &json["newlyRefusedCount"]),
        (&"REPLAY_SOURCE_HOURLY_USAGE".into(), &"5".into())
    );
    assert_eq!(json["lines"][0]["limitId"], "teams.bot.requests_per_hour");

    std::fs::write(&proposed, policy("requests_per_hours = 0")).unwrap();
    let (code, printed) = tollgate(&process, &arguments);
    assert!(code == Some(2) && printed.contains("document: line 5: "), "{printed}");
    for (arguments, words) in [
        (&["--from", "2026-11-24", "--to", "2026-11-23"][..], "--to is before --from"),
        (&["--from", "soon", "--to", "2026-11-23"], "--from `soon`"),
        (&["--from", "2026-11-23"], "--to"),
        (&["--from", "2026-11-23", "--to", "2026-11-23", "--decisions", "x"], "cannot be used with"),
        (&[], "--decisions"),
    ] {
        let arguments = [&["replay", "--policy", proposed.to_str().unwrap()], arguments].concat();
        let (code, printed) = tollgate(&process, &arguments);
        assert!(code == Some(2) && printed.contains(words), "{words}: {printed}");
    }
    process.stop().await;
}
