//! A store that is silent, and reports that do not wait for it.

use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use super::{
    COST, durable, is_spooled,
    processes::{Replica, books, is_empty, serving},
    record, reserve, unreserved,
};
use crate::harness::{StoreKind, eventually, used};

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
