//! How a server is told from the one before.

use super::{
    replay::{APPENDS, attempt, books, caught_up, keeping, made, used},
    server::{Server, until_up},
    *,
};

#[tokio::test]
async fn each_process_of_redis_has_a_generation_of_its_own() {
    let Some(mut server) = Server::start_with(&APPENDS) else { return };
    let store = server.store_keeping("acme", Clock::Manual(ManualClock::new(NOW)), keeping(60));
    let other = server.store_keeping("acme", Clock::Manual(ManualClock::new(NOW)), keeping(60));
    let generation = async || {
        until_up(&store).await;
        let mut get = redis::cmd("HGET");
        get.arg(&store.0.keyspace.meta).arg("generation");
        caught_up(&store).await;
        caught_up(&other).await;
        bytes(store.0.connection.run(&get).await.unwrap()).unwrap()
    };
    let first = generation().await;
    assert_eq!(first, generation().await, "many look, and it stays");
    server.kill();
    server.restart_with(&APPENDS);
    let second = generation().await;
    assert_ne!(first, second);
    assert_eq!(second, generation().await);
}

/// Asks a server for the words of an answer.
fn ask(server: &Server, words: &[&str]) -> String {
    let mut cmd = redis::cmd(words[0]);
    cmd.arg(&words[1..]);
    let answer: Value = cmd.query(&mut server.by_hand()).unwrap();
    redis::from_redis_value(answer).unwrap_or_default()
}

async fn follows(server: &Server, primary: &Server) {
    let url = primary.url();
    let port = url.rsplit(':').next().unwrap();
    ask(server, &["REPLICAOF", "127.0.0.1", port]);
    let start = Instant::now();
    while !ask(server, &["INFO", "replication"]).contains("master_link_status:up") {
        assert!(start.elapsed() < Duration::from_secs(20), "it does not follow");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// A primary is replaced, and is the primary again, all the while the same process: what it took when it was left is gone.
#[tokio::test]
async fn a_primary_that_is_back_is_another_one() {
    let prompt = ["--repl-diskless-sync-delay", "0"];
    let (Some(first), Some(second)) = (Server::start_with(&prompt), Server::start_with(&prompt)) else {
        return;
    };
    let store = first.store_keeping("acme", Clock::Manual(ManualClock::new(NOW)), keeping(600));
    until_up(&store).await;
    caught_up(&store).await;
    let record = made(&store, attempt(0, 1, 5)).await;
    follows(&second, &first).await;
    ask(&second, &["REPLICAOF", "NO", "ONE"]);
    store.settle(used(record, 0, 9)).await.unwrap();
    caught_up(&store).await;
    let before = books(&store, 1).await;
    follows(&first, &second).await;
    ask(&first, &["REPLICAOF", "NO", "ONE"]);
    // As Sentinels do with a primary that they replace.
    ask(&first, &["CLIENT", "KILL", "TYPE", "normal"]);
    until_up(&store).await;
    caught_up(&store).await;
    assert_eq!(books(&store, 1).await, before);
}

/// A server formats hundreds of lines for `INFO`, as long as it takes it for some decisions, and each core looks twice a second.
#[tokio::test]
async fn a_server_is_asked_who_it_is_once_for_each_connection() {
    let Some(server) = Server::start() else { return };
    let store = server.store_keeping("acme", Clock::Manual(ManualClock::new(NOW)), keeping(600));
    until_up(&store).await;
    caught_up(&store).await;
    let asked = || {
        let statistics = ask(&server, &["INFO", "commandstats"]);
        let calls = |line: &str| line.split_once("calls=")?.1.split(',').next()?.parse::<u64>().ok();
        let line = statistics.lines().find(|line| line.starts_with("cmdstat_info:"));
        line.and_then(calls).unwrap_or_default()
    };
    let before = asked();
    for _ in 0..50 {
        assert!(store.0.has_caught_up().await);
    }
    // This test asks as well.
    assert_eq!(asked(), before + 1);
    // Where the generation is another one, it is asked again.
    ask(&server, &["HSET", &store.0.keyspace.meta, "generation", "0123456789abcdef"]);
    caught_up(&store).await;
    assert!(asked() > before + 2);
    let before = asked();
    ask(&server, &["CLIENT", "KILL", "TYPE", "normal"]);
    until_up(&store).await;
    caught_up(&store).await;
    // Once, or twice where two looks were on their way.
    let more = asked() - before;
    assert!(more == 2 || more == 3, "{more}");
}

/// A replica that starts after a failover has no earlier server to compare this one with, and others may be about to write to it again.
#[tokio::test]
async fn a_store_that_is_new_does_not_say_that_what_another_may_write_again_is_unknown() {
    let Some(mut server) = Server::start_with(&APPENDS) else { return };
    let clock = || Clock::Manual(ManualClock::new(NOW));
    let first = server.store_keeping("acme", clock(), keeping(1));
    until_up(&first).await;
    caught_up(&first).await;
    let id = ReservationId([9; 16]);
    // Nothing was forgotten yet, and a new deployment is not made to wait.
    assert_eq!(first.find(id).await, Ok(None));
    drop(first);
    server.kill();
    server.restart_with(&APPENDS);
    let new = server.store_keeping("acme", clock(), keeping(1));
    until_up(&new).await;
    let start = Instant::now();
    assert_eq!(new.find(id).await, Err(StoreError::Unavailable));
    let settled = async |store: &RedisStore| {
        let since = Instant::now();
        while store.find(id).await != Ok(None) {
            assert!(since.elapsed() < Duration::from_secs(20), "it is never said to be unknown");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    settled(&new).await;
    assert!(start.elapsed() > Duration::from_secs(1), "{:?}", start.elapsed());
    // A server that does not say itself that it is another one: a replica that knew the one before does.
    let earlier = server.store_keeping("acme", clock(), keeping(1));
    until_up(&earlier).await;
    caught_up(&earlier).await;
    ask(&server, &["HSET", &earlier.0.keyspace.meta, "generation", "0123456789abcdef"]);
    let new = server.store_keeping("acme", clock(), keeping(1));
    until_up(&new).await;
    let start = Instant::now();
    while new.find(id).await != Err(StoreError::Unavailable) {
        assert!(start.elapsed() < Duration::from_secs(20), "another replica may be writing it again");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    settled(&new).await;
}
