//! Sentinel: a primary that dies, and one that is replaced as planned.

use std::{
    process::Command,
    time::{Duration, Instant},
};

use tempfile::TempDir;

use super::{Fleet, KEPT, nodes::Watched, replay::replays, serve, serve_keeping};
use crate::{
    harness::{StoreKind, eventually, organization},
    redis_server::RedisServer,
};

/// How long before and after the order of a planned failover acknowledged writes may be lost: `min-replicas-max-lag` and the second for
/// which Redis looks at it, and a busy machine.
const LAG: Duration = Duration::from_secs(4);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_primary_that_dies_is_left_for_the_next() {
    if !StoreKind::Redis.is_available() {
        return;
    }
    let (mut watched, directory) = (Watched::start(true).await, Watched::directory());
    let process = serve(&directory, &organization(), &watched.url()).await;
    let fleet = Fleet::start(&process).await;
    fleet.progress("calls are acknowledged").await;
    let killed = Instant::now();
    watched.servers[0].kill();
    eventually("a replica is promoted", async || watched.primary() != watched.servers[0].address().port())
        .await;
    fleet.progress("calls are acknowledged again").await;
    let after = killed.elapsed();
    let ledger = fleet.stop().await;
    println!("back after {after:?}");
    // What was on its way to the replicas is booked again.
    assert_eq!(ledger.compare(&process, None).await, 0);
    assert!(process.log().contains("connected to redis"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_planned_failover_loses_no_more_than_its_bound() {
    planned(true, "0s").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_planned_failover_loses_nothing_that_is_kept() {
    planned(true, KEPT).await;
}

/// Redis alone would take writes for ten seconds that are lost: the Sentinels that are asked each second say where to go, and what is kept
/// is booked again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_primary_that_takes_lost_writes_is_left_in_time() {
    planned(false, KEPT).await;
}

async fn planned(is_safe: bool, window: &str) {
    if !StoreKind::Redis.is_available() {
        return;
    }
    let (watched, directory) = (Watched::start(is_safe).await, Watched::directory());
    let process = serve_keeping(&directory, &organization(), &watched.url(), window).await;
    let fleet = Fleet::start(&process).await;
    fleet.progress("calls are acknowledged").await;
    let before = process.log().matches("connected to redis").count();
    let ordered = Instant::now();
    watched.ask_sentinel(0, &["SENTINEL", "FAILOVER", "main"]).unwrap();
    eventually("a replica is promoted", async || watched.primary() != watched.servers[0].address().port())
        .await;
    let promoted = Instant::now();
    // It may still take writes, but no one asks it any more.
    eventually("the service follows", async || watched.clients(0) == 0).await;
    assert!(process.log().matches("connected to redis").count() > before);
    fleet.progress("calls are acknowledged by the new one").await;
    let ledger = fleet.stop().await;
    println!("promoted after {:?}", promoted - ordered);
    let at_risk = (window == "0s").then_some((ordered, promoted + LAG));
    ledger.compare(&process, at_risk).await;
    println!("{}", replays(&process));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unbounded_failover_is_warned_of_or_refused() {
    if !StoreKind::Redis.is_available() {
        return;
    }
    let kept = || vec!["--appendonly".to_owned(), "yes".to_owned()];
    let primary = RedisServer::start_with(|_, _| kept());
    let port = primary.address().port().to_string();
    let follow = ["--replicaof".to_owned(), "127.0.0.1".to_owned(), port];
    let replica = RedisServer::start_with(|_, _| {
        [&follow[..], &["--repl-diskless-sync-delay".into(), "0".into()]].concat()
    });
    let mut by_hand = redis::Client::open(primary.url()).unwrap().get_connection().unwrap();
    let mut ask = |words: &[&str]| {
        let (command, rest) = words.split_first().unwrap();
        redis::from_redis_value::<String>(redis::cmd(command).arg(rest).query(&mut by_hand).unwrap()).unwrap()
    };
    eventually("it follows", async || ask(&["INFO", "replication"]).contains("state=online")).await;
    let directory = TempDir::new().unwrap();
    let process = serve(&directory, &organization(), &primary.url()).await;
    let warning = "redis takes writes that no replica has";
    eventually("the warning is written", async || process.log().contains(warning)).await;
    let start = || {
        Command::new(env!("CARGO_BIN_EXE_tollgate"))
            .args(["serve", "--listen", "127.0.0.1:0", "--admin-enabled=false", "--require-safe-redis"])
            .args(["--store", &primary.url(), "--store-timeout", "5s"])
            .env_remove("TOLLGATE_CONFIG")
            .output()
            .unwrap()
    };
    let refused = start();
    let said = String::from_utf8_lossy(&refused.stderr);
    assert_eq!(refused.status.code(), Some(2), "{said}");
    assert!(said.contains("`require_safe_redis` is set: redis takes writes that no replica has"), "{said}");
    // With the bound there is nothing to warn of.
    ask(&["CONFIG", "SET", "min-replicas-to-write", "1"]);
    let other = TempDir::new().unwrap();
    let process = serve(&other, &organization(), &primary.url()).await;
    eventually("it is ready", async || process.is_serving().await == Some(true)).await;
    assert!(!process.log().contains(warning), "{}", process.log());
    drop(replica);
}
