//! What announcements leave on a server.

use super::*;
use crate::store::{MAX_REPLICAS, replicas::REPLICAS_STORED};

/// Each of them a part.
#[tokio::test]
async fn announcements_remove_what_is_past_its_time() {
    let Some(server) = Server::start() else { return };
    let clock = ManualClock::new(NOW);
    let store = server.ready(&clock).await;
    let mut length = redis::cmd("HLEN");
    length.arg(&store.0.keyspace.replicas);
    for n in 0..40 {
        store.0.announce_replica(&n.to_string(), b"").await.unwrap();
    }
    clock.pass(3_600_000);
    let mut kept = Vec::new();
    for _ in 0..20 {
        store.0.announce_replica("last", b"").await.unwrap();
        let Value::Int(count) = store.0.connection.run(&length).await.unwrap() else { panic!("no number") };
        kept.push(count);
    }
    assert!(kept[0] >= 25 && kept.is_sorted_by(|earlier, later| earlier >= later), "{kept:?}");
    assert_eq!(kept.last(), Some(&1), "{kept:?}");
}

/// Processes that start again and again leave an entry each.
#[tokio::test]
async fn a_server_keeps_a_bounded_number_of_replicas() {
    let Some(server) = Server::start() else { return };
    let clock = ManualClock::new(NOW);
    let store = server.ready(&clock).await;
    let mut length = redis::cmd("HLEN");
    length.arg(&store.0.keyspace.replicas);
    let started = REPLICAS_STORED + 40;
    for n in 0..started {
        clock.pass(1);
        store.0.announce_replica(&format!("gate-1:{n}"), b"").await.unwrap();
    }
    let kept = store.0.connection.run(&length).await.unwrap();
    assert_eq!(kept, Value::Int(i64::try_from(REPLICAS_STORED).unwrap()));
    let listed = store.0.replicas().await.unwrap();
    assert_eq!(listed.len(), MAX_REPLICAS);
    let last = format!("gate-1:{}", started - 1);
    assert!(listed.iter().any(|entry| *entry.name == *last), "{last}");
}
