//! Reports that the store has booked by the time they are delivered: recognized while it remembers, and kept aside afterwards.

use tollgate::store::Ledger as _;

use super::{COST, MODEL, POLICY, Replica, durable, is_spooled, record, reserve};
use crate::{
    harness::{START, Server, StoreKind, Ways, chat, eventually, used},
    redis_server::RedisServer,
};

/// A replica on whose disk are two reports that the store has booked: by this replica's own call, which was not answered in time, and by another
/// replica to which its gateway repeated it. Then `minutes` have passed.
async fn booked_elsewhere(redis: RedisServer, minutes: u64) -> (Replica, [String; 2]) {
    let mut replica = Replica::start(redis, Ways::default()).await;
    let [id, repeated] = [reserve(&mut replica.client, "t").await, reserve(&mut replica.client, "t").await];
    // Frozen, it has the call in its socket, and books it when it is thawed: its caller has heard that it is spooled by then.
    replica.redis.freeze();
    for id in [&id, &repeated] {
        is_spooled(&record(&mut replica.client, used(id, 1_000, 100)).await, Some(COST), false);
    }
    replica.redis.thaw();
    let other = Server::start_on_redis(&replica.redis, "acme", POLICY, replica.clock.clone());
    let mut other = other.client().await;
    eventually("the other replica books it", async || {
        other.record_usage(used(&repeated, 1_000, 100)).await.is_ok()
    })
    .await;
    eventually("it is booked", async || replica.spent("t").await == Some((2 * COST, 2))).await;
    replica.clock.set(START.plus(minutes * 60_000));
    (replica, [id, repeated])
}

/// While the store remembers, what it has booked before is recognized.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_store_has_booked_is_not_booked_again() {
    if !StoreKind::Redis.is_available() {
        return;
    }
    let (redis, _kept) = durable();
    let (mut replica, ids) = booked_elsewhere(redis, 8).await;
    for id in ids {
        eventually("the store remembers it", async || {
            matches!(replica.store.find(id.parse().unwrap()).await, Ok(Some(_)))
        })
        .await;
    }
    let _delivery = replica.server.deliver_spooled(replica.store.clone());
    replica.is_delivered("t", (2 * COST, 2)).await;
    assert_eq!(replica.status().await.refused_count, 0);
}

/// After ten minutes it has forgotten, and no one can tell: then it is kept aside, and not booked once more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_store_has_booked_and_forgotten_is_kept_aside() {
    if !StoreKind::Redis.is_available() {
        return;
    }
    let (redis, _kept) = durable();
    let (mut replica, ids) = booked_elsewhere(redis, 20).await;
    for id in &ids {
        eventually("the store forgets it", async || {
            let _ = replica.client.authorize(chat("t", MODEL, 1, 1)).await;
            matches!(replica.store.find(id.parse().unwrap()).await, Ok(None))
        })
        .await;
    }
    let _delivery = replica.server.deliver_spooled(replica.store.clone());
    replica.is_delivered("t", (2 * COST, 2)).await;
    let status = replica.status().await;
    assert_eq!((status.refused_count, status.delivered_count), (2, 0));
    let refused = rusqlite::Connection::open(replica.directory.path().join("spool.db")).unwrap();
    for id in ids {
        let told = "SELECT why || ' ' || in_words FROM refused WHERE id = ?";
        let told: String = refused.query_row(told, [&id], |row| row.get(0)).unwrap();
        assert!(told.contains("no longer tells whether it was booked"), "{told}");
        assert!(told.contains(r#""input_tokens":1000"#) && told.contains(r#""team":"t""#), "{told}");
    }
}
