//! Backups under load, put back and served: nothing acknowledged before is missing, nothing is there that was not sent by then.

use std::{
    path::{Path, PathBuf},
    process::{Command, Output},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use tempfile::TempDir;
use tollgate::rpc::proto;
use tonic::Code;

use super::{Client, MODEL, policy};
use crate::{
    harness::{Process, StoreKind, chat, eventually, is_installed, nanos, team_spend, used},
    redis_server::RedisServer,
};

const CALLERS: u64 = 8;
/// Booked before a backup is made: the load is real by then.
const LEAST_NANOS: u64 = 100_000;

/// What callers have sent, and what was acknowledged of it, in nano-dollars.
#[derive(Default)]
struct Load {
    sent: AtomicU64,
    acknowledged: AtomicU64,
    ends: AtomicBool,
}

impl Load {
    async fn call(self: Arc<Self>, mut client: Client) {
        for number in 0_i64.. {
            if self.ends.load(Ordering::SeqCst) {
                return;
            }
            let answer = client.authorize(chat("team", MODEL, 1_000, 1_000)).await.unwrap().into_inner();
            let (input, output) = (number % 1_000 + 1, number * 7 % 1_000);
            let cost = u64::try_from(input + output).unwrap();
            self.sent.fetch_add(cost, Ordering::SeqCst);
            let answer = client.record_usage(used(&answer.reservation_id, input, output)).await.unwrap();
            assert_eq!(nanos(answer.into_inner().cost), cost);
            self.acknowledged.fetch_add(cost, Ordering::SeqCst);
        }
    }

    /// Makes a backup by `make` while callers are at work; the least and the most that it may say was spent, and a reservation that
    /// is open in it.
    async fn around(self: Arc<Self>, server: &Process, make: impl FnOnce()) -> (u64, u64, String) {
        eventually("it serves", async || server.is_serving().await == Some(true)).await;
        let mut client = server.client().await;
        let open = client.authorize(chat("team", MODEL, 5, 5)).await.unwrap().into_inner().reservation_id;
        let mut callers = Vec::new();
        for _ in 0..CALLERS {
            callers.push(tokio::spawn(Arc::clone(&self).call(server.client().await)));
        }
        let acknowledged = || self.acknowledged.load(Ordering::SeqCst);
        eventually("the callers are at work", async || acknowledged() >= LEAST_NANOS).await;
        let least = acknowledged();
        tokio::task::block_in_place(make);
        let most = self.sent.load(Ordering::SeqCst);
        eventually("the callers are still at work", async || acknowledged() > most).await;
        self.ends.store(true, Ordering::SeqCst);
        for caller in callers {
            caller.await.unwrap();
        }
        (least, most, open)
    }
}

/// Asserts that the books of `server` are whole, and those of the moment of the backup.
async fn is_of_then(server: &Process, (least, most, open): &(u64, u64, String), later: &str) {
    eventually("it serves", async || server.is_serving().await == Some(true)).await;
    let mut client = server.client().await;
    let report = team_spend(&mut client, "team").await;
    let spent = nanos(report.spend.unwrap().spent);
    assert!((*least..=*most).contains(&spent), "{spent} of {least} to {most}");
    let lines: u64 = report.by_model.iter().map(|line| nanos(line.spent.clone())).sum();
    assert_eq!(lines, spent, "counters and lines are of one moment");
    // What was open then is settled once; what came later is not known.
    for again in [false, true] {
        let answer = client.record_usage(used(open, 5, 5)).await.unwrap().into_inner();
        assert_eq!((nanos(answer.cost), answer.already_recorded), (10, again));
    }
    assert_eq!(nanos(team_spend(&mut client, "team").await.spend.unwrap().spent), spent + 10);
    // As after a failover, it is not said at once.
    let mut refused = Code::Unavailable;
    eventually("what came later is said to be unknown", async || {
        refused = client.record_usage(used(later, 5, 5)).await.unwrap_err().code();
        refused != Code::Unavailable
    })
    .await;
    assert_eq!(refused, Code::NotFound);
}

/// A reservation that is made after a backup.
async fn reserve_later(server: &Process) -> String {
    let mut client = server.client().await;
    let request = proto::AuthorizeRequest { request_id: "later".to_owned(), ..chat("team", MODEL, 5, 5) };
    client.authorize(request).await.unwrap().into_inner().reservation_id
}

fn store(directory: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tollgate"));
    command.env_remove("TOLLGATE_STORE").arg("store").args(arguments).current_dir(directory);
    command.output().unwrap()
}

/// What it printed, to both; `code`: how it has to end.
fn said(output: &Output, code: i32) -> String {
    let text =
        [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text).into_owned()).concat();
    assert_eq!(output.status.code(), Some(code), "{text}");
    text
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_under_load_is_put_back_as_of_its_moment() {
    let directory = TempDir::new().unwrap();
    let server = Process::start(directory.path(), &policy("acme"), "embedded:data").await;
    let backup = || {
        let text = said(&store(directory.path(), &["backup", "backup", "--store", "embedded:data"]), 0);
        assert!(text.contains("`data` was copied to `backup`") && text.contains("whole"), "{text}");
    };
    let then = Arc::<Load>::default().around(&server, backup).await;
    let later = reserve_later(&server).await;
    let busy = said(&store(directory.path(), &["restore", "backup", "--store", "embedded:data"]), 2);
    assert!(busy.contains("is open in another process"), "{busy}");
    let busy = said(&store(directory.path(), &["restore", "data", "--store", "embedded:new"]), 2);
    assert!(busy.contains("tollgate store backup"), "{busy}");
    assert!(!directory.path().join("new").exists());
    let full = said(&store(directory.path(), &["backup", "backup", "--store", "embedded:data"]), 2);
    assert!(full.contains("not there yet"), "{full}");
    server.kill();
    let text = said(&store(directory.path(), &["restore", "backup", "--store", "embedded:restored"]), 0);
    assert!(text.contains("the backup in `backup` is the store in `restored`"), "{text}");
    said(&store(directory.path(), &["verify", "--store", "embedded:restored"]), 0);
    let server = Process::start(directory.path(), &policy("acme"), "embedded:restored").await;
    is_of_then(&server, &then, &later).await;
    server.stop().await;
    // A backup is a store by itself, and one of a store that no process has open is as good.
    said(&store(directory.path(), &["backup", "again", "--store", "embedded:restored"]), 0);
    said(&store(directory.path(), &["verify", "--store", "embedded:again"]), 0);
    let full = said(&store(directory.path(), &["restore", "backup", "--store", "embedded:restored"]), 2);
    assert!(full.contains("not there yet"), "{full}");
}

/// The data of a server, as the operations page says it is copied, by whether it has an append-only file.
fn copy_of(redis: &RedisServer, to: &Path, appends: bool) {
    let port = redis.address().port().to_string();
    let cli = |arguments: &[&str]| {
        let output = Command::new("redis-cli").args(["-p", &port]).args(arguments).output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    if !appends {
        cli(&["--rdb", to.join("dump.rdb").to_str().unwrap()]);
        return;
    }
    cli(&["CONFIG", "SET", "auto-aof-rewrite-percentage", "0"]);
    let is_idle = || cli(&["INFO", "persistence"]).contains("aof_rewrite_in_progress:0");
    assert!((0..1_000).any(|_| is_idle()), "a rewrite does not end");
    let from: PathBuf = redis.directory().join("appendonlydir");
    assert!(
        Command::new("cp").arg("-r").args([&from, &to.join("appendonlydir")]).status().unwrap().success()
    );
    cli(&["CONFIG", "SET", "auto-aof-rewrite-percentage", "100"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_of_redis_under_load_is_served_as_of_its_moment() {
    if !StoreKind::Redis.is_available() || !is_installed("redis-cli") {
        return;
    }
    for appends in [false, true] {
        let (directory, copy) = (TempDir::new().unwrap(), TempDir::new().unwrap());
        let redis = RedisServer::start_from(copy.path(), appends);
        let server = Process::start(directory.path(), &policy("acme"), &redis.url()).await;
        let make = || copy_of(&redis, copy.path(), appends);
        let then = Arc::<Load>::default().around(&server, make).await;
        let later = reserve_later(&server).await;
        server.kill();
        drop(redis);
        let redis = RedisServer::start_from(copy.path(), appends);
        let server = Process::start(directory.path(), &policy("acme"), &redis.url()).await;
        is_of_then(&server, &then, &later).await;
        server.stop().await;
    }
}
