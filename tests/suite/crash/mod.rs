//! Ends that nobody planned: `kill -9` in full load, restarts, and a Redis that hangs, dies and comes back.

mod backup;
mod crossings;
mod outage;

use std::{
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use tempfile::TempDir;
use tollgate::{
    rpc::proto::{
        self, Decision, RecordUsageRequest, policy_service_client::PolicyServiceClient,
        record_usage_request::Caller,
    },
    runtime::clock::Clock,
    store::embedded::EmbeddedStore,
};
use tonic::{Code, transport::Channel};

use crate::harness::{Process, chat, eventually, nanos, team_spend, used};

type Client = PolicyServiceClient<Channel>;

const MODEL: &str = "m/text";
const ROUNDS: u32 = 3;
/// More rounds are played until a kill has come between a report and its answer, but not for ever.
const MOST_ROUNDS: u32 = 12;
const CALLERS: u64 = 16;
/// Booked before the power goes: the load is real by then.
const LEAST_RECORDS: usize = 400;
/// How late an answer may be on a machine that is busy.
const LATENESS: Duration = Duration::from_millis(1_600);

fn policy(organization: &str) -> String {
    format!(
        r#"
[organization]
id = "{organization}"
[teams.team]
models = ["m/text"]
max_output_tokens = 4000
[teams.three]
models = ["m/text"]
requests_per_day = 3
max_output_tokens = 4000
[[prices]]
model = "m/text"
input_usd_per_million_tokens = "0.001"
output_usd_per_million_tokens = "0.001"
"#
    )
}

/// What the callers know when the server is gone.
#[derive(Default)]
struct Books {
    acknowledged: u64,
    records: usize,
    /// Sent, and never answered.
    in_doubt: Vec<(RecordUsageRequest, u64)>,
}

/// One gateway: asks, uses, reports, until the server is gone.
async fn call_until_gone(mut client: Client, caller: String, books: Arc<Mutex<Books>>) {
    for number in 0_i64.. {
        let request_id = format!("{caller}, {number}");
        let request =
            proto::AuthorizeRequest { request_id: request_id.clone(), ..chat("team", MODEL, 1_000, 1_000) };
        let Ok(answer) = client.authorize(request).await else { return };
        let (input, output) = (number % 1_000, number * 7 % 1_000);
        let cost = u64::try_from(input + output).unwrap();
        let request =
            RecordUsageRequest { request_id, ..used(&answer.into_inner().reservation_id, input, output) };
        let sent = RecordUsageRequest { request_id: String::new(), ..request.clone() };
        let answer = client.record_usage(sent).await;
        let mut books = books.lock().unwrap();
        match answer {
            Ok(answer) => {
                assert_eq!(nanos(answer.into_inner().cost), cost);
                books.acknowledged += cost;
                books.records += 1;
            }
            Err(_) => {
                books.in_doubt.push((request, cost));
                return;
            }
        }
    }
}

/// Reports again what was in doubt, the way a gateway does: by the reservation, or, where the crash took that, by its
/// `request_id`.
async fn report_again(client: &mut Client, request: &RecordUsageRequest) -> u64 {
    let sent = RecordUsageRequest { request_id: String::new(), ..request.clone() };
    let answer = match client.record_usage(sent).await {
        Err(status) if status.code() == Code::NotFound => {
            let unreserved = RecordUsageRequest {
                reservation_id: String::new(),
                caller: Some(Caller::Team("team".to_owned())),
                model: MODEL.to_owned(),
                operation: proto::Operation::ChatCompletion.into(),
                ..request.clone()
            };
            client.record_usage(unreserved).await
        }
        answer => answer,
    };
    nanos(answer.unwrap().into_inner().cost)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_acknowledged_spend_is_lost_by_a_kill() {
    let directory = TempDir::new().unwrap();
    let policy = policy("acme");
    let (mut total, mut doubted) = (0, 0);
    for round in 0..MOST_ROUNDS {
        if round >= ROUNDS && doubted > 0 {
            break;
        }
        let server = Process::start(directory.path(), &policy, "embedded:data").await;
        let books: Arc<Mutex<Books>> = Arc::default();
        let mut callers = Vec::new();
        for caller in 0..CALLERS {
            let client = server.client().await;
            callers.push(tokio::spawn(call_until_gone(client, format!("{round}, {caller}"), books.clone())));
        }
        eventually("the callers are at work", || async { books.lock().unwrap().records >= LEAST_RECORDS })
            .await;
        server.kill();
        for caller in callers {
            caller.await.unwrap();
        }
        let Books { acknowledged, in_doubt, .. } = std::mem::take(&mut *books.lock().unwrap());
        doubted += in_doubt.len();
        let doubtful: u64 = in_doubt.iter().map(|(_, cost)| cost).sum();
        let server = Process::start(directory.path(), &policy, "embedded:data").await;
        let mut client = server.client().await;
        let spent = nanos(team_spend(&mut client, "team").await.spend.unwrap().spent);
        let least = total + acknowledged;
        assert!((least..=least + doubtful).contains(&spent), "{spent} of {least} to {}", least + doubtful);
        for (request, cost) in &in_doubt {
            for _ in 0..2 {
                assert_eq!(report_again(&mut client, request).await, *cost);
            }
        }
        total = least + doubtful;
        let report = team_spend(&mut client, "team").await;
        assert_eq!(nanos(report.spend.unwrap().spent), total);
        let lines: u64 = report.by_model.iter().map(|line| nanos(line.spent.clone())).sum();
        assert_eq!(lines, total);
        server.kill();
    }
    assert!(doubted > 0, "every kill came in an idle moment");
}

#[tokio::test]
async fn a_restart_keeps_windows_reservations_and_ids() {
    for graceful in [true, false] {
        let directory = TempDir::new().unwrap();
        let policy = policy("acme");
        let server = Process::start(directory.path(), &policy, "embedded:data").await;
        let mut client = server.client().await;
        let request = |n: i64| proto::AuthorizeRequest {
            request_id: format!("id {n}"),
            ..chat("three", MODEL, 100, n)
        };
        let mut made = Vec::new();
        for n in 1..=3 {
            made.push(client.authorize(request(n)).await.unwrap().into_inner());
        }
        assert_eq!(client.authorize(request(4)).await.unwrap().into_inner().decision(), Decision::Denied);
        // What is settled is on disk, and with it every reservation before.
        client.record_usage(used(&made[0].reservation_id, 100, 1)).await.unwrap();
        drop(client);
        if graceful {
            server.stop().await;
        } else {
            server.kill();
        }
        let server = Process::start(directory.path(), &policy, "embedded:data").await;
        let mut client = server.client().await;
        assert_eq!(client.authorize(request(4)).await.unwrap().into_inner().decision(), Decision::Denied);
        let report = team_spend(&mut client, "three").await;
        assert_eq!(report.unsettled_requests, 2);
        let spend = report.spend.unwrap();
        assert_eq!((nanos(spend.spent), nanos(spend.reserved)), (101, 205));
        for (n, made) in (1..).zip(&made) {
            let again = client.authorize(request(n)).await.map(tonic::Response::into_inner);
            match again {
                // Its id is spent.
                Err(status) => assert_eq!((status.code(), n), (Code::AlreadyExists, 1), "{status:?}"),
                Ok(again) => assert_eq!(
                    (&again.reservation_id, &again.expire_time, n > 1),
                    (&made.reservation_id, &made.expire_time, true)
                ),
            }
            let answer = client.record_usage(used(&made.reservation_id, 100, n)).await.unwrap().into_inner();
            assert_eq!(
                (nanos(answer.cost), answer.already_recorded),
                (u64::try_from(100 + n).unwrap(), n == 1)
            );
        }
        let spend = team_spend(&mut client, "three").await.spend.unwrap();
        assert_eq!((nanos(spend.spent), nanos(spend.reserved)), (306, 0));
    }
}

/// How long reservations may be unknown to the disk.
const MAX_AGE: Duration = Duration::from_millis(100);

/// The disk stalls, and the process is killed before it comes back: what is forgotten was reserved in a moment, however long
/// the stall was, and everything after it was refused.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_kill_during_a_stall_of_the_disk_forgets_a_moment() {
    let directory = TempDir::new().unwrap();
    let [source, library, stalled] =
        ["slow_sync.c", "slow_sync.so", "stalled"].map(|name| directory.path().join(name));
    std::fs::write(&source, include_str!("slow_sync.c")).unwrap();
    // The compiler that has built SQLite.
    let mut compiler = std::process::Command::new("cc");
    assert!(compiler.args(["-shared", "-fPIC", "-o"]).args([&library, &source]).status().unwrap().success());
    let policy = policy("acme");
    let server = Process::start_environment(
        directory.path(),
        &policy,
        &["--store=embedded:data", "--store-timeout=50ms", "--admin-enabled=false"],
        &[("LD_PRELOAD", &library), ("SLOW_SYNC", &stalled)],
    )
    .await;
    let mut client = server.client().await;
    std::fs::File::create(&stalled).unwrap();
    let began = Instant::now();
    let mut reserved = Vec::new();
    let mut refused = 0;
    while refused < 20 {
        assert!(began.elapsed() < Duration::from_secs(20), "{} reservations, none refused", reserved.len());
        let asked = Instant::now();
        match client.authorize(chat("team", MODEL, 1, 1)).await {
            Ok(answer) => reserved.push((asked, Instant::now(), answer.into_inner().reservation_id)),
            Err(status) => {
                assert_eq!(status.code(), Code::Unavailable, "{status:?}");
                refused += 1;
            }
        }
    }
    server.kill();
    std::fs::remove_file(&stalled).unwrap();
    let server = Process::start(directory.path(), &policy, "embedded:data").await;
    let mut client = server.client().await;
    let mut forgotten = Vec::new();
    for (asked, answered, id) in reserved {
        match client.record_usage(used(&id, 1, 1)).await {
            Ok(_) => {}
            Err(status) => {
                assert_eq!(status.code(), Code::NotFound, "{status:?}");
                forgotten.push((asked, answered));
            }
        }
    }
    if let (Some((_, first)), Some((last, _))) = (forgotten.first(), forgotten.last()) {
        let apart = last.saturating_duration_since(*first);
        assert!(apart < MAX_AGE + LATENESS, "{} forgotten, {apart:?} apart", forgotten.len());
    }
}

/// A damaged store is refused with the way out, which keeps every dollar that was booked.
#[tokio::test]
async fn a_damaged_directory_is_salvaged() {
    let directory = TempDir::new().unwrap();
    let policy = policy("acme");
    let server = Process::start(directory.path(), &policy, "embedded:data").await;
    let mut client = server.client().await;
    let made = client.authorize(chat("team", MODEL, 100, 100)).await.unwrap().into_inner();
    client.record_usage(used(&made.reservation_id, 100, 50)).await.unwrap();
    drop(client);
    server.stop().await;
    // Into the tables, and out of the journal.
    let store = EmbeddedStore::open(&directory.path().join("data"), Clock::System).unwrap();
    store.checkpoint().await.unwrap();
    drop(store);
    let database = directory.path().join("data/tollgate.db");
    let mut bytes = std::fs::read(&database).unwrap();
    let name = MODEL.as_bytes();
    let places: Vec<_> = (0..bytes.len() - name.len()).filter(|at| bytes[*at..].starts_with(name)).collect();
    assert!(places.len() >= 2, "the model is in the lines of the team and the organization");
    places.into_iter().for_each(|at| bytes[at] ^= 1);
    std::fs::write(&database, bytes).unwrap();
    let run = |arguments: &[&str]| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_tollgate"));
        let output = command.args(arguments).current_dir(directory.path()).output().unwrap();
        let said = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        (output.status.code(), said.concat())
    };
    let (code, said) =
        run(&["serve", "--listen=127.0.0.1:0", "--admin-enabled=false", "--store=embedded:data"]);
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("`tollgate store salvage NEW-DIRECTORY --store embedded:data`"), "{said}");
    assert_eq!(run(&["store", "verify", "--store=embedded:data"]).0, Some(2));
    let (code, said) = run(&["store", "salvage", "salvaged", "--store=embedded:data"]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("a line of model `(salvaged)` was added with $0.00000015"), "{said}");
    assert_eq!(
        run(&["store", "verify", "--store=embedded:salvaged"]),
        (Some(0), "the store in `salvaged` is whole\n".to_owned())
    );
    let server = Process::start(directory.path(), &policy, "embedded:salvaged").await;
    let report = team_spend(&mut server.client().await, "team").await;
    assert_eq!(nanos(report.spend.unwrap().spent), 150);
    let lines: u64 = report.by_model.iter().map(|line| nanos(line.spent.clone())).sum();
    assert_eq!(lines, 150);
}

/// Two processes on one directory would each believe to be alone, also where the file is gone that releases before looked at.
#[tokio::test]
async fn a_directory_has_one_process() {
    let directory = TempDir::new().unwrap();
    let policy = policy("acme");
    let _first = Process::start(directory.path(), &policy, "embedded:data").await;
    std::fs::remove_file(directory.path().join("data/lock")).unwrap();
    let second = std::process::Command::new(env!("CARGO_BIN_EXE_tollgate"))
        .args(["serve", "--listen", "127.0.0.1:0", "--admin-enabled=false", "--store", "embedded:data"])
        .current_dir(directory.path())
        .output()
        .unwrap();
    assert!(!second.status.success());
    let said = String::from_utf8_lossy(&second.stderr);
    assert!(said.contains("--store embedded:DIRECTORY"), "{said}");
}
