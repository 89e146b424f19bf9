//! One Redis that writes each command to its disk before it answers: nothing may be lost at all.

use std::time::Duration;

use tempfile::TempDir;

use super::{Fault, REPLICAS, Replicas, fleet::Fleet, plan::Plan, proxy::Proxy};
use crate::{
    harness::{StoreKind, eventually, organization},
    redis_server::RedisServer,
};

#[derive(Clone, Copy, Debug)]
enum Happens {
    ToReplica(Fault),
    /// The way of one replica to Redis.
    CutStore,
    DelayStore,
    FreezeRedis,
    KillRedis,
    /// Redis cannot write, and says so.
    FillDisk,
}

const ALL: [Happens; 10] = [
    Happens::ToReplica(Fault::Kill),
    Happens::ToReplica(Fault::Freeze),
    Happens::ToReplica(Fault::Stop),
    Happens::ToReplica(Fault::Cut),
    Happens::ToReplica(Fault::Delay),
    Happens::CutStore,
    Happens::DelayStore,
    Happens::FreezeRedis,
    Happens::KillRedis,
    Happens::FillDisk,
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_redis_that_keeps_everything_loses_nothing() {
    if !StoreKind::Redis.is_available() {
        return;
    }
    let mut redis = RedisServer::start_with(|_, _| {
        let kept = ["--appendonly", "yes", "--appendfsync", "always", "--dbfilename", "taken"];
        kept.map(str::to_owned).to_vec()
    });
    let mut ways = Vec::new();
    for _ in 0..REPLICAS {
        ways.push(Proxy::start(redis.address()).await);
    }
    let stores = ways.iter().map(|way| format!("redis://{}", way.address())).collect();
    let mut replicas = Replicas::start(TempDir::new().unwrap(), &organization(), stores).await;
    let mut fleet = Fleet::start(&replicas.addresses());
    fleet.progress("calls are acknowledged").await;
    let mut plan = Plan::new("alone", &ALL, ALL.len());
    while let Some(happens) = plan.next() {
        println!("{happens:?}");
        let index = plan.dice().roll(REPLICAS);
        match happens {
            Happens::ToReplica(fault) => replicas.suffer(fault, plan.dice(), &mut fleet).await,
            Happens::CutStore => ways[index].cut(Duration::from_secs(1)).await,
            Happens::DelayStore => {
                ways[index].delay(Duration::from_millis(400), Duration::from_secs(2)).await
            }
            Happens::FreezeRedis => {
                redis.freeze();
                tokio::time::sleep(Duration::from_secs(2)).await;
                redis.thaw();
            }
            Happens::KillRedis => {
                redis.die();
                assert!(redis.restart());
            }
            Happens::FillDisk => fill_disk(&redis).await,
        }
        fleet.progress("calls are acknowledged after it").await;
    }
    let ledger = fleet.stop().await;
    replicas.compare(&ledger, &[]).await;
}

/// A snapshot cannot be put in the place of a directory: Redis refuses writes as where its disk is full.
async fn fill_disk(redis: &RedisServer) {
    let mut by_hand = redis::Client::open(redis.url()).unwrap().get_connection().unwrap();
    let mut ask = |words: &[&str]| {
        let (command, rest) = words.split_first().unwrap();
        redis::cmd(command).arg(rest).query::<redis::Value>(&mut by_hand)
    };
    let taken = redis.directory().join("taken");
    let _ = std::fs::remove_file(&taken);
    std::fs::create_dir_all(&taken).unwrap();
    ask(&["CONFIG", "SET", "save", "1000 1000"]).unwrap();
    let is_refusal = |error: redis::RedisError| error.code() == Some("MISCONF");
    eventually("it refuses writes", async || {
        // Refused while it writes something else.
        let _ = ask(&["BGSAVE"]);
        ask(&["SET", "refused", "1"]).is_err_and(is_refusal)
    })
    .await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    std::fs::remove_dir(&taken).unwrap();
    ask(&["CONFIG", "SET", "save", ""]).unwrap();
    ask(&["DEL", "refused"]).unwrap();
}
