//! A store that does not answer, and reports that do not wait for it.

use std::time::{Duration, Instant};

use tempfile::TempDir;
use tokio::task::JoinSet;
use tollgate::rpc::proto::{self, StoreCallOutcome, status_service_client::StatusServiceClient};

use super::{
    COST, POLICY, durable, is_spooled,
    processes::{Replica, books, is_empty, serving},
    record, reserve, unreserved,
};
use crate::harness::{Process, StoreKind, connect, eventually, used};

/// Where only reports come, they find out by themselves that the store does not answer, and that it does again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reports_do_not_wait_for_a_store_that_is_silent() {
    if !StoreKind::Redis.is_available() {
        return;
    }
    let (redis, _kept) = durable();
    // Its calls have a second.
    let replica = Replica::new(&redis, &[]);
    let process = replica.start().await;
    let mut client = serving(&process).await;
    let mut reports = Vec::new();
    for _ in 0..10 {
        reports.push(used(&reserve(&mut client, "t").await, 1_000, 100));
    }
    reports.extend((0..90).map(|number| unreserved(&format!("r-{number}"), 1_000)));
    redis.freeze();
    let count = i64::try_from(reports.len()).unwrap();
    let began = Instant::now();
    let mut waited = 0;
    for report in reports {
        let started = Instant::now();
        is_spooled(&record(&mut client, report).await, Some(COST), false);
        waited += usize::from(started.elapsed() >= Duration::from_millis(500));
    }
    // Three of each core, those that find out, and what a busy machine takes.
    assert!((1..=20).contains(&waited), "{waited} in {:?}", began.elapsed());
    // As many at once wait no longer than one.
    let mut tasks = JoinSet::new();
    for number in 0..100 {
        let mut client = client.clone();
        tasks.spawn(async move {
            is_spooled(
                &record(&mut client, unreserved(&format!("s-{number}"), 1_000)).await,
                Some(COST),
                false,
            );
        });
    }
    tasks.join_all().await;
    redis.thaw();
    is_empty(&process).await;
    let all = u64::try_from(count).unwrap() + 100;
    assert_eq!(books(&mut client).await, (all * COST, count + 100));
    // It is asked again.
    eventually("a report is booked at once", async || {
        !record(&mut client, unreserved("last", 1_000)).await.spooled
    })
    .await;
}

/// Look-ups and settlements that the store of a process did not answer.
async fn failed_calls(process: &Process) -> i64 {
    let mut client = StatusServiceClient::new(connect(process.address()).await);
    let answer = client.get_status(proto::GetStatusRequest {}).await.unwrap().into_inner();
    let calls = answer.status.unwrap().store.unwrap().calls;
    let failed = calls.into_iter().filter(|calls| {
        matches!(&*calls.operation, "find" | "settle") && calls.outcome() == StoreCallOutcome::Failed
    });
    failed.map(|calls| calls.count).sum()
}

/// Where nothing else says that the store does not take them, as the embedded one whose disk is full, a few find out.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_few_reports_find_out_that_the_store_does_not_take_them() {
    let directory = TempDir::new().unwrap();
    let (data, spool) = (directory.path().join("data"), directory.path().join("spool"));
    let store = format!("--store=embedded:{}", data.display());
    let spool = format!("--spool-directory={}", spool.display());
    let arguments = [&*store, &spool, "--store-timeout=1s", "--admin-enabled=false"];
    let process = Process::start_arguments(directory.path(), POLICY, &arguments).await;
    let mut client = process.client().await;
    let mut ids = Vec::new();
    for _ in 0..100 {
        ids.push(reserve(&mut client, "t").await);
    }
    let people = rusqlite::Connection::open(data.join("tollgate.db")).unwrap();
    people.busy_timeout(Duration::from_secs(10)).unwrap();
    let full = "CREATE TRIGGER full BEFORE INSERT ON journal BEGIN SELECT RAISE(FAIL, 'full'); END";
    people.execute_batch(full).unwrap();
    for id in &ids {
        assert!(record(&mut client, used(id, 1_000, 100)).await.spooled);
    }
    // Three of each core, one each 250 ms, and the attempts to deliver them.
    let failed = failed_calls(&process).await;
    assert!((1..=50).contains(&failed), "{failed}");
    people.execute_batch("DROP TRIGGER full").unwrap();
    is_empty(&process).await;
    assert_eq!(books(&mut client).await, (100 * COST, 100));
}
