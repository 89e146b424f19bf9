//! What announcements leave on a server.

use super::*;

/// Announcements remove what is past its time, each of them a part.
#[tokio::test]
async fn a_server_keeps_no_more_replicas_than_are_listed() {
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
