//! Announcements of replicas, once for all stores.

use bytes::Bytes;
use tollgate::{
    domain::Timestamp,
    store::{MAX_REPLICA_VALUE, MAX_REPLICAS, ReplicaEntry, Revision, Store, StoreError},
};

use super::{ask, behaviours, granted, rate};
use crate::harness::{Fixture, START};

behaviours! {
    a_new_store_has_no_replicas
    the_last_word_of_each_replica_is_listed_by_name
    a_replica_is_forgotten_an_hour_after_it_was_seen
    the_ones_seen_last_are_listed_if_there_are_too_many
    a_replica_may_say_anything_and_there_is_a_bound
    replicas_do_not_change_the_revision_of_the_registry
    a_wall_clock_that_is_set_forgets_no_replica
}

const HOUR: u64 = 3_600_000;

async fn announce<S: Store>(f: &Fixture<S>, name: &str, value: &'static str) {
    assert_eq!(f.store.announce_replica(name.into(), value.into()).await, Ok(()));
}

/// Each replica with when it was seen, in milliseconds after the start, and what it said.
async fn seen<S: Store>(f: &Fixture<S>) -> Vec<(String, u64, Bytes)> {
    let entries = f.store.replicas().await.unwrap();
    let entry =
        |ReplicaEntry { name, last_seen, value }| (String::from(&*name), last_seen.since(START), value);
    entries.into_iter().map(entry).collect()
}

fn said(name: &str, at: u64, value: &'static str) -> (String, u64, Bytes) {
    (name.to_owned(), at, value.into())
}

async fn a_new_store_has_no_replicas<S: Store>(f: &Fixture<S>) {
    assert_eq!(seen(f).await, []);
}

async fn the_last_word_of_each_replica_is_listed_by_name<S: Store>(f: &Fixture<S>) {
    announce(f, "gate-2:7", "two").await;
    f.at(5);
    announce(f, "gate-10:7", "ten").await;
    announce(f, "!time", "a name is only a name").await;
    f.at(9);
    announce(f, "gate-2:7", "two once more").await;
    let expected = [
        said("!time", 5, "a name is only a name"),
        said("gate-10:7", 5, "ten"),
        said("gate-2:7", 9, "two once more"),
    ];
    assert_eq!(seen(f).await, expected);
}

async fn a_replica_is_forgotten_an_hour_after_it_was_seen<S: Store>(f: &Fixture<S>) {
    announce(f, "a", "").await;
    f.at(1_000);
    announce(f, "b", "").await;
    f.at(HOUR - 1);
    assert_eq!(seen(f).await.len(), 2);
    f.at(HOUR);
    assert_eq!(seen(f).await, [said("b", 1_000, "")]);
    announce(f, "c", "").await;
    f.at(HOUR + 1_000);
    assert_eq!(seen(f).await, [said("c", HOUR, "")]);
    // It may come back.
    announce(f, "a", "").await;
    assert_eq!(seen(f).await, [said("a", HOUR + 1_000, ""), said("c", HOUR, "")]);
}

async fn the_ones_seen_last_are_listed_if_there_are_too_many<S: Store>(f: &Fixture<S>) {
    for n in 0..MAX_REPLICAS + 2 {
        f.at(u64::try_from(n).unwrap());
        // The names are in the other order.
        announce(f, &format!("{:04}", 5_000 - n), "").await;
    }
    let seen = seen(f).await;
    assert_eq!(seen.len(), MAX_REPLICAS);
    assert!(seen.is_sorted());
    assert_eq!(seen[0], said(&format!("{:04}", 5_000 - MAX_REPLICAS - 1), 1_001, ""));
    assert_eq!(seen[MAX_REPLICAS - 1], said("4998", 2, ""));
}

async fn a_replica_may_say_anything_and_there_is_a_bound<S: Store>(f: &Fixture<S>) {
    let longest = Bytes::from(vec![0xff; MAX_REPLICA_VALUE]);
    assert_eq!(f.store.announce_replica("a".into(), longest.clone()).await, Ok(()));
    let longer = Bytes::from(vec![b'x'; MAX_REPLICA_VALUE + 1]);
    assert_eq!(f.store.announce_replica("a".into(), longer).await, Err(StoreError::Overflow));
    assert_eq!(seen(f).await, [("a".to_owned(), 0, longest)]);
}

async fn replicas_do_not_change_the_revision_of_the_registry<S: Store>(f: &Fixture<S>) {
    f.store.registry_write("key/a".into(), 0, "{}".into()).await.unwrap();
    let before = f.store.registry_since(Revision::default()).await.unwrap();
    announce(f, "key/b", "{}").await;
    assert_eq!(f.store.registry_since(Revision::default()).await.unwrap(), before);
}

async fn a_wall_clock_that_is_set_forgets_no_replica<S: Store>(f: &Fixture<S>) {
    // A store has a time of its own once something was taken.
    granted(f, ask(1, vec![rate("a", 5, 5)])).await;
    announce(f, "a", "").await;
    f.clock.step(Timestamp(START.0 + 10 * HOUR));
    announce(f, "b", "").await;
    assert_eq!(seen(f).await, [said("a", 10 * HOUR, ""), said("b", 10 * HOUR, "")]);
}

/// Organizations share a Redis and nothing else.
#[tokio::test]
async fn an_organization_has_replicas_of_its_own() {
    let (Some(one), Some(other)) = (Fixture::redis(), Fixture::redis()) else { return };
    announce(&one, "a", "").await;
    assert_eq!((seen(&one).await.len(), seen(&other).await.len()), (1, 0));
}
