//! The spool of real processes: that are killed, stopped, or started on a directory of another's.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
};

use tempfile::TempDir;
use tokio::task::JoinSet;
use tollgate::rpc::proto::{self, status_service_client::StatusServiceClient};
use tonic::Code;

use super::{COST, Client, MODEL, POLICY, durable, is_spooled, keep_later, record, reserve, unreserved};
use crate::{
    envoy::http::Request,
    harness::{
        Process, StoreKind, chat, connect, errors::is_of, eventually, eventually_within, nanos, team_spend,
        used,
    },
    redis_server::{RedisServer, free_port},
};

/// Settings of a replica with a spool.
pub(super) struct Replica {
    directory: TempDir,
    more: Vec<String>,
    admin: SocketAddr,
}

impl Replica {
    pub(super) fn new(redis: &RedisServer, more: &[&str]) -> Self {
        let directory = TempDir::new().unwrap();
        let spool = directory.path().join("spool");
        let mut all = vec![
            format!("--store={}", redis.url()),
            "--store-timeout=1s".to_owned(),
            format!("--spool-directory={}", spool.display()),
        ];
        all.extend(more.iter().map(|more| (*more).to_owned()));
        Self { directory, more: all, admin: free_port() }
    }

    pub(super) fn spool(&self) -> PathBuf {
        self.directory.path().join("spool")
    }

    pub(super) async fn start(&self) -> Process {
        let admin = format!("--admin={}", self.admin);
        let arguments: Vec<_> = self.more.iter().map(String::as_str).chain([&*admin]).collect();
        Process::start_arguments(self.directory.path(), POLICY, &arguments).await
    }
}

pub(super) async fn serving(process: &Process) -> Client {
    let mut client = process.client().await;
    eventually("it serves", async || client.authorize(chat("t", MODEL, 1, 1)).await.is_ok()).await;
    client
}

pub(crate) async fn spool_of(process: &Process) -> proto::Spool {
    let mut client = StatusServiceClient::new(connect(process.address()).await);
    let answer = client.get_status(proto::GetStatusRequest {}).await.unwrap().into_inner();
    answer.status.unwrap().spool.expect("it has a spool")
}

pub(super) async fn is_empty(process: &Process) {
    eventually("the spool is empty", async || spool_of(process).await.record_count == 0).await;
}

/// What a team spent, and its requests.
pub(super) async fn books(client: &mut Client) -> (u64, i64) {
    let report = team_spend(client, "t").await;
    (nanos(report.spend.unwrap().spent), report.requests)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_killed_replica_has_acknowledged_is_booked_once_after_it_starts_again() {
    if !StoreKind::Redis.is_available() {
        return;
    }
    let (mut redis, _kept) = durable();
    let replica = Replica::new(&redis, &[]);
    let process = replica.start().await;
    let mut client = serving(&process).await;
    let mut reports = vec![unreserved("r-1", 1_000)];
    for _ in 0..5 {
        reports.push(used(&reserve(&mut client, "t").await, 1_000, 100));
    }
    redis.kill();
    for report in &reports {
        is_spooled(&record(&mut client, report.clone()).await, Some(COST), false);
    }
    process.kill();
    // It has not the reservations in its memory any more, and a store that still does not answer.
    let process = replica.start().await;
    let mut client = process.client().await;
    for report in &reports {
        is_spooled(&record(&mut client, report.clone()).await, Some(COST), true);
    }
    let page = Request::new("GET", "/metrics").send(replica.admin).await;
    let page = String::from_utf8_lossy(&page.body).into_owned();
    assert!(page.contains("\ntollgate_spool_records 6\n"), "{page}");
    assert!(page.contains("\ntollgate_spool_oldest_timestamp_seconds "), "{page}");
    let ready = Request::new("GET", "/readyz?verbose").send(replica.admin).await;
    let ready = String::from_utf8_lossy(&ready.body).into_owned();
    assert!(ready.contains("not ok store") && ready.contains("\nok spool: 6 records in "), "{ready}");
    assert!(redis.restart());
    is_empty(&process).await;
    let all = (6 * COST, 6);
    let mut client = serving(&process).await;
    assert_eq!(books(&mut client).await, all);
    // Killed once more, with nothing left to do twice.
    process.kill();
    let process = replica.start().await;
    let mut client = serving(&process).await;
    for report in reports {
        let answer = record(&mut client, report).await;
        assert_eq!((answer.spooled, answer.already_recorded), (false, true));
    }
    assert_eq!(books(&mut client).await, all);
}

/// What is said on `/readyz?verbose` of the spool.
async fn ready_line(replica: &Replica) -> String {
    let page = Request::new("GET", "/readyz?verbose").send(replica.admin).await;
    let page = String::from_utf8_lossy(&page.body).into_owned();
    page.lines().find(|line| line.contains("spool")).expect("it has a spool").to_owned()
}

/// What a command says of a replica.
fn said(process: &Process, arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_tollgate"))
        .args(arguments)
        .args(["--address", &process.address().to_string()])
        .env_remove("TOLLGATE_TOKEN")
        .env_remove("TOLLGATE_ADDRESS")
        .output()
        .unwrap();
    // A store that does not answer is no success.
    assert!(matches!(output.status.code(), Some(0 | 1)), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// A disk that takes nothing is in the status, beside readiness, and on the command line, until it does.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_fails_is_shown_in_each_place() {
    if !StoreKind::Redis.is_available() {
        return;
    }
    let (mut redis, _kept) = durable();
    let replica = Replica::new(&redis, &[]);
    let process = replica.start().await;
    let mut client = serving(&process).await;
    redis.kill();
    is_spooled(&record(&mut client, unreserved("r-1", 1_000)).await, Some(COST), false);
    let people = rusqlite::Connection::open(replica.spool().join("spool.db")).unwrap();
    people.busy_timeout(std::time::Duration::from_secs(10)).unwrap();
    people.execute_batch("BEGIN IMMEDIATE").unwrap();
    let refused = client.record_usage(unreserved("r-2", 1_000)).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable);
    let fault = "its disk fails: database is locked";
    assert_eq!(spool_of(&process).await.error, fault);
    let line = ready_line(&replica).await;
    assert!(line.starts_with("not ok spool: 1 records") && line.ends_with(fault), "{line}");
    let shown = said(&process, &["status"]);
    assert!(shown.contains(fault), "{shown}");
    people.execute_batch("ROLLBACK").unwrap();
    eventually("it can be written again", async || spool_of(&process).await.error.is_empty()).await;
    is_spooled(&record(&mut client, unreserved("r-2", 1_000)).await, Some(COST), false);
    assert!(ready_line(&replica).await.starts_with("ok spool: 2 records"));
    assert!(redis.restart());
    is_empty(&process).await;
    assert_eq!(books(&mut client).await, (2 * COST, 2));
}

/// What waits is on the command line, with its cost, wherever people look for it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waits_is_said_on_the_command_line() {
    if !StoreKind::Redis.is_available() {
        return;
    }
    let (mut redis, _kept) = durable();
    let replica = Replica::new(&redis, &[]);
    keep_later(&replica.spool(), 3).await;
    let process = replica.start().await;
    let mut client = serving(&process).await;
    let shown = said(&process, &["status"]);
    assert!(
        shown.contains("3 reports ($0.000315") && shown.contains("wait to be booked, the oldest since 20"),
        "{shown}"
    );
    let shown = said(&process, &["spend"]);
    assert!(
        shown.contains("3 reports ($0.000315") && shown.contains("of acme are in none of these"),
        "{shown}"
    );
    let shown = said(&process, &["spend", "--team", "t"]);
    assert!(shown.contains("of t are in none of these"), "{shown}");
    eventually_within(std::time::Duration::from_secs(30), "the replica has told of it", async || {
        let shown = said(&process, &["replicas", "list"]);
        let row = shown.lines().nth(1).unwrap_or_default().to_owned();
        shown.starts_with("NAME") && row.split_whitespace().nth(3) == Some("3")
    })
    .await;
    let json = said(&process, &["status", "--json"]);
    assert!(json.contains("\"recordCount\": \"3\"") || json.contains("\"recordCount\":\"3\""), "{json}");
    redis.kill();
    let id = "01".to_owned() + &"7".repeat(30);
    is_spooled(&record(&mut client, used(&id, 1_000, 100)).await, None, false);
    let shown = said(&process, &["record", &id, "--input-tokens", "1000", "--output-tokens", "100"]);
    assert!(shown.contains("spooled:") && shown.contains("kept before; nothing was kept again"), "{shown}");
}

/// A full spool refuses and drops nothing: exactly what was acknowledged is booked.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_spool_refuses_and_what_it_took_is_booked() {
    if !StoreKind::Redis.is_available() {
        return;
    }
    let (mut redis, _kept) = durable();
    let replica = Replica::new(&redis, &["--spool-max-size=2MiB"]);
    let process = replica.start().await;
    let client = serving(&process).await;
    redis.kill();
    let mut tasks = JoinSet::new();
    for task in 0..16 {
        let mut client = client.clone();
        tasks.spawn(async move {
            for number in 0..10_000_i64 {
                match client.record_usage(unreserved(&format!("{task}-{number}"), 1_000)).await {
                    Ok(answer) => is_spooled(&answer.into_inner(), Some(COST), false),
                    Err(status) => {
                        is_of(&status, "SPOOL_FULL");
                        assert_eq!(status.code(), Code::ResourceExhausted);
                        return number;
                    }
                }
            }
            panic!("it is never full");
        });
    }
    let acknowledged: i64 = tasks.join_all().await.into_iter().sum();
    let spool = spool_of(&process).await;
    assert_eq!((spool.record_count, spool.max_byte_count), (acknowledged, 2 << 20));
    assert!(spool.byte_count <= spool.max_byte_count && acknowledged > 300, "{spool:?}");
    assert!(redis.restart());
    is_empty(&process).await;
    let mut client = serving(&process).await;
    let spent = u64::try_from(acknowledged).unwrap() * COST;
    assert_eq!(books(&mut client).await, (spent, acknowledged));
    // And there is room for the next outage.
    redis.kill();
    is_spooled(&record(&mut client, unreserved("next", 1_000)).await, Some(COST), false);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_keeps_what_the_store_does_not_take_and_delivers_what_it_does() {
    if !StoreKind::Redis.is_available() {
        return;
    }
    let (mut redis, _kept) = durable();
    let replica = Replica::new(&redis, &[]);
    let process = replica.start().await;
    let mut client = serving(&process).await;
    redis.kill();
    for number in 0..20 {
        is_spooled(&record(&mut client, unreserved(&number.to_string(), 1_000)).await, Some(COST), false);
    }
    let log = stopped(process).await;
    assert!(log.contains("reports of usage are kept in the spool") && log.contains("reports=20"), "{log}");
    // What waits here is delivered by the stop, as the store answers again: the pause between two attempts is longer by then.
    let process = replica.start().await;
    assert_eq!(spool_of(&process).await.record_count, 20);
    assert!(redis.restart());
    let log = stopped(process).await;
    assert!(log.contains("no report of usage is left in the spool"), "{log}");
    let process = replica.start().await;
    let mut client = serving(&process).await;
    assert_eq!((spool_of(&process).await.record_count, books(&mut client).await), (0, (20 * COST, 20)));
}

/// Stops it, and returns what it has logged.
async fn stopped(process: Process) -> String {
    let path = process.log_path().to_owned();
    process.stop().await;
    std::fs::read_to_string(path).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_two_processes_have_one_spool() {
    if !StoreKind::Redis.is_available() {
        return;
    }
    let redis = RedisServer::start();
    let replica = Replica::new(&redis, &[]);
    let process = replica.start().await;
    serving(&process).await;
    let second = |policy: &Path, spool: &Path| {
        let listen = format!("--listen={}", free_port());
        let command = ["serve", "--admin-enabled=false", &listen];
        let output = Command::new(env!("CARGO_BIN_EXE_tollgate"))
            .args(command)
            .arg(format!("--store={}", redis.url()))
            .arg("--policy")
            .arg(policy)
            .arg("--spool-directory")
            .arg(spool)
            .env_remove("TOLLGATE_CONFIG")
            .output()
            .unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let policy = replica.directory.path().join("policy.toml");
    let (code, said) = second(&policy, &replica.spool());
    assert!(code == Some(2) && said.contains("every replica needs a spool of its own"), "{code:?} {said}");
    // Nor what another organization's replica has acknowledged.
    let mut client = process.client().await;
    redis.freeze();
    is_spooled(&record(&mut client, unreserved("r-1", 1_000)).await, Some(COST), false);
    process.kill();
    redis.thaw();
    let other = replica.directory.path().join("other.toml");
    std::fs::write(&other, POLICY.replace("\"acme\"", "\"other\"")).unwrap();
    let (code, said) = second(&other, &replica.spool());
    assert!(
        code == Some(2) && said.contains("holds 1 reports of the organization `acme`"),
        "{code:?} {said}"
    );
}
