//! What one Redis forgot when it started again: replicas that go on book it again.

use std::{fs::OpenOptions, path::Path, sync::atomic::Ordering};

use tempfile::TempDir;
use tollgate::rpc::proto::{
    AuthorizeRequest, PauseRequest, PauseTarget, Reason, pause_service_client::PauseServiceClient,
    pause_target::Target,
};

use super::{COST, Fleet, MODEL, serve, serve_keeping, spent};
use crate::{
    harness::{Process, StoreKind, chat, connect, eventually, organization, used},
    redis_server::RedisServer,
};

/// The lines of the log that say what was booked again.
pub(super) fn replays(process: &Process) -> String {
    let log = process.log();
    log.lines().filter(|line| line.contains("redis had forgotten")).collect::<Vec<_>>().join("\n")
}

/// A Redis whose file is written in the background, as by default, in a directory that outlives it.
fn appending(directory: &Path) -> RedisServer {
    let directory = directory.to_str().unwrap().to_owned();
    let arguments = ["--appendonly", "yes", "--appendfsync", "everysec", "--dir", &directory];
    RedisServer::start_with(|_, _| arguments.map(str::to_owned).to_vec())
}

/// Redis dies with its machine, and its file lacks the last writes. Two replicas have acknowledged them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_replicas_book_once_what_a_restart_forgot() {
    if !StoreKind::Redis.is_available() {
        return;
    }
    let (data, directories) = (TempDir::new().unwrap(), [TempDir::new().unwrap(), TempDir::new().unwrap()]);
    let mut redis = appending(data.path());
    let file = data.path().join("appendonlydir/appendonly.aof.1.incr.aof");
    let length = || std::fs::metadata(&file).unwrap().len();
    let organization = organization();
    let one = serve(&directories[0], &organization, &redis.url()).await;
    let other = serve(&directories[1], &organization, &redis.url()).await;
    let fleets = [Fleet::start(&one).await, Fleet::start(&other).await];
    for fleet in &fleets {
        fleet.progress("calls are acknowledged").await;
    }
    let kept = length();
    for fleet in &fleets {
        fleet.progress("more calls are acknowledged, which the file will lack").await;
    }
    redis.kill();
    let lost = length() - kept;
    OpenOptions::new().write(true).open(&file).unwrap().set_len(kept).unwrap();
    assert!(redis.restart());
    for fleet in &fleets {
        fleet.progress("calls are acknowledged again").await;
    }
    let (mut acknowledged, mut forgotten) = (0, 0);
    for fleet in fleets {
        let ledger = fleet.stop().await;
        acknowledged += ledger.acknowledged.lock().unwrap().len() as u64;
        forgotten += ledger.forgotten.lock().unwrap().len();
    }
    println!("{acknowledged} acknowledged, {lost} bytes lost\n{}\n{}", replays(&one), replays(&other));
    assert_eq!((spent(&one).await, forgotten), (COST * acknowledged, 0));
    for process in [&one, &other] {
        // After what may have been on its way, so later than the books show it.
        eventually("it says so", async || replays(process).contains("settlements=")).await;
        assert!(!process.log().contains("not all of that can be booked again"), "{}", process.log());
    }
}

/// It forgets everything, also that requests are paused.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_empty_redis_gets_what_is_kept() {
    if !StoreKind::Redis.is_available() {
        return;
    }
    let (mut redis, directory) = (RedisServer::start(), TempDir::new().unwrap());
    let process = serve(&directory, &organization(), &redis.url()).await;
    let fleet = Fleet::start(&process).await;
    fleet.progress("calls are acknowledged").await;
    redis.kill();
    assert!(redis.restart());
    fleet.progress("calls are acknowledged again").await;
    assert_eq!(fleet.stop().await.compare(&process, None).await, 0);
    let mut pauses = PauseServiceClient::new(connect(process.address()).await);
    let target = Some(PauseTarget { target: Some(Target::Team("a".to_owned())) });
    pauses.pause(PauseRequest { target, reason: "an incident".to_owned() }).await.unwrap();
    redis.kill();
    assert!(redis.restart());
    eventually("it says so", async || replays(&process).contains("changes=1")).await;
    let mut client = process.client().await;
    eventually("it is paused again", async || {
        let answer = client.authorize(chat("a", MODEL, 100, 50)).await;
        let answer = answer.map(tonic::Response::into_inner).unwrap_or_default();
        answer.violations.first().is_some_and(|violation| violation.reason() == Reason::Paused)
    })
    .await;
}

/// A replica answers repeats of what another one made, which dies, and Redis forgets it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_repeat_was_told_outlives_the_replica_that_did_it() {
    if !StoreKind::Redis.is_available() {
        return;
    }
    let (mut redis, directories) = (RedisServer::start(), [TempDir::new().unwrap(), TempDir::new().unwrap()]);
    let organization = organization();
    let one = serve(&directories[0], &organization, &redis.url()).await;
    let other = serve(&directories[1], &organization, &redis.url()).await;
    let mut clients = [one.client().await, other.client().await];
    let request = |id: &str| AuthorizeRequest { request_id: id.to_owned(), ..chat("a", MODEL, 100, 50) };
    let settled = clients[0].authorize(request("settled")).await.unwrap().into_inner().reservation_id;
    let mut open = Vec::new();
    for client in &mut clients {
        open.push(client.authorize(request("open")).await.unwrap().into_inner().reservation_id);
        client.record_usage(used(&settled, 100, 50)).await.unwrap();
    }
    assert_eq!(open[0], open[1]);
    for process in [&one, &other] {
        let mut pauses = PauseServiceClient::new(connect(process.address()).await);
        let target = Some(PauseTarget { target: Some(Target::Team("a".to_owned())) });
        pauses.pause(PauseRequest { target, reason: "an incident".to_owned() }).await.unwrap();
    }
    one.kill();
    redis.kill();
    assert!(redis.restart());
    eventually("it says so", async || replays(&other).contains("changes=1")).await;
    assert_eq!(spent(&other).await, COST);
    clients[1].record_usage(used(&open[1], 100, 50)).await.unwrap();
    assert_eq!(spent(&other).await, 2 * COST);
    let denied = clients[1].authorize(request("another")).await.unwrap().into_inner();
    assert_eq!(denied.violations[0].reason(), Reason::Paused);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_window_nothing_is_kept() {
    if !StoreKind::Redis.is_available() {
        return;
    }
    let (mut redis, directory) = (RedisServer::start(), TempDir::new().unwrap());
    let process = serve_keeping(&directory, &organization(), &redis.url(), "0s").await;
    let fleet = Fleet::start(&process).await;
    fleet.progress("calls are acknowledged").await;
    let before = fleet.acknowledged() as u64;
    redis.kill();
    assert!(redis.restart());
    fleet.progress("calls are acknowledged again").await;
    fleet.ledger.is_over.store(true, Ordering::Relaxed);
    let acknowledged = fleet.stop().await.acknowledged.lock().unwrap().len() as u64;
    let booked = spent(&process).await / COST;
    assert!(booked <= acknowledged - before, "{booked} of {acknowledged} are booked, {before} were lost");
    assert!(!process.log().contains("is another than before") && replays(&process).is_empty());
}
