//! The policies that were in force, once for all stores.

use std::sync::Arc;

use bytes::Bytes;
use tollgate::{
    domain::Timestamp,
    store::{
        MAX_POLICIES, MAX_POLICY_DOCUMENT, MAX_POLICY_REPLICAS, MAX_POLICY_VALUE, PolicyRecord,
        PolicyRecords as _, Revision, Store, StoreError,
    },
};

use super::behaviours;
use crate::harness::{Fixture, START, connect_again};

behaviours! {
    a_new_store_has_no_policies
    a_policy_is_recorded_once_with_all_its_replicas
    the_last_hundred_are_kept_with_their_documents
    the_replicas_that_came_last_are_named
    what_is_said_and_documents_have_bounds
    policies_do_not_change_the_revision_of_the_registry
}

fn record(revision: &str, replica: &str) -> PolicyRecord {
    PolicyRecord {
        revision: revision.into(),
        at: START,
        replica: replica.into(),
        value: format!("of {revision}").into(),
        document: Some(format!("id = \"{revision}\"").into()),
    }
}

/// The revision, the time and the replicas of each.
async fn listed<S: Store>(f: &Fixture<S>) -> Vec<(String, Timestamp, String)> {
    let entries = f.store.policies().await.unwrap();
    let shown = entries.iter().map(|entry| {
        assert_eq!(entry.value, format!("of {}", entry.revision));
        (entry.revision.to_string(), entry.first, entry.replicas.join(" "))
    });
    shown.collect()
}

async fn document<S: Store>(f: &Fixture<S>, revision: &str) -> Option<Bytes> {
    f.store.policy_document(revision.into()).await.unwrap()
}

async fn a_new_store_has_no_policies<S: Store>(f: &Fixture<S>) {
    assert_eq!(listed(f).await, []);
    assert_eq!(document(f, "a").await, None);
}

async fn a_policy_is_recorded_once_with_all_its_replicas<S: Store>(f: &Fixture<S>) {
    assert_eq!(f.store.record_policy(record("b", "one")).await, Ok(true));
    assert_eq!(f.store.record_policy(record("b", "one")).await, Ok(false), "a repeat");
    let other = PolicyRecord {
        at: START.plus(9),
        value: "other".into(),
        document: Some("other".into()),
        ..record("b", "two\u{e9}")
    };
    assert_eq!(f.store.record_policy(other).await, Ok(false));
    // The order is that in which they were recorded, whatever the clocks of replicas say.
    let later = PolicyRecord { at: Timestamp(START.0 - 7), document: None, ..record("a", "two\u{e9}") };
    assert_eq!(f.store.record_policy(later).await, Ok(true));
    let expected = [("a", Timestamp(START.0 - 7), "two\u{e9}"), ("b", START, "one two\u{e9}")];
    let expected = expected.map(|(revision, at, replicas)| (revision.to_owned(), at, replicas.to_owned()));
    assert_eq!(listed(f).await, expected);
    assert_eq!(document(f, "b").await, Some("id = \"b\"".into()), "that of the first");
    assert_eq!(document(f, "a").await, None);
}

async fn the_last_hundred_are_kept_with_their_documents<S: Store>(f: &Fixture<S>) {
    for n in 0..MAX_POLICIES + 2 {
        // The names are in the other order.
        assert_eq!(f.store.record_policy(record(&format!("{:03}", 500 - n), "one")).await, Ok(true));
    }
    let revisions: Vec<_> = listed(f).await.into_iter().map(|(revision, ..)| revision).collect();
    let expected: Vec<_> = (2..MAX_POLICIES + 2).rev().map(|n| (500 - n).to_string()).collect();
    assert_eq!(revisions, expected);
    assert_eq!((document(f, "499").await, document(f, "498").await.is_some()), (None, true));
    // What has gone is recorded as if it were new.
    assert_eq!(f.store.record_policy(record("500", "two")).await, Ok(true));
    let listed = listed(f).await;
    assert_eq!((&*listed[0].0, &*listed[0].2, listed.len()), ("500", "two", MAX_POLICIES));
    assert_eq!(document(f, "498").await, None);
}

async fn the_replicas_that_came_last_are_named<S: Store>(f: &Fixture<S>) {
    for n in 0..MAX_POLICY_REPLICAS + 3 {
        f.store.record_policy(record("a", &format!("gate-{n}"))).await.unwrap();
    }
    let names: Vec<_> = f.store.policies().await.unwrap().remove(0).replicas;
    let expected: Vec<_> = (3..MAX_POLICY_REPLICAS + 3).map(|n| Arc::from(format!("gate-{n}"))).collect();
    assert_eq!(names, expected);
}

async fn what_is_said_and_documents_have_bounds<S: Store>(f: &Fixture<S>) {
    let any = |length: usize, byte: u8| Bytes::from(vec![byte; length]);
    let (value, text) = (any(MAX_POLICY_VALUE, 0xff), any(MAX_POLICY_DOCUMENT, b'\n'));
    let largest = PolicyRecord { value: value.clone(), document: Some(text.clone()), ..record("a", "one") };
    assert_eq!(f.store.record_policy(largest.clone()).await, Ok(true));
    assert_eq!(f.store.policies().await.unwrap()[0].value, value);
    assert_eq!(document(f, "a").await, Some(text));
    for larger in [
        PolicyRecord { value: any(MAX_POLICY_VALUE + 1, 0), ..largest.clone() },
        PolicyRecord { document: Some(any(MAX_POLICY_DOCUMENT + 1, 0)), ..largest.clone() },
        PolicyRecord { replica: "x".repeat(257).into(), ..largest.clone() },
        PolicyRecord { replica: "two\nlines".into(), ..largest.clone() },
    ] {
        assert_eq!(f.store.record_policy(larger).await, Err(StoreError::Overflow));
    }
    assert_eq!(f.store.policies().await.unwrap()[0].replicas.len(), 1);
}

async fn policies_do_not_change_the_revision_of_the_registry<S: Store>(f: &Fixture<S>) {
    f.store.registry_write("key/a".into(), 0, "{}".into()).await.unwrap();
    let before = f.store.registry_since(Revision::default()).await.unwrap();
    f.store.record_policy(record("key/a", "one")).await.unwrap();
    assert_eq!(f.store.registry_since(Revision::default()).await.unwrap(), before);
}

/// Organizations share a Redis and nothing else.
#[tokio::test]
async fn an_organization_has_policies_of_its_own() {
    let (Some(one), Some(other)) = (Fixture::redis(), Fixture::redis()) else { return };
    one.store.record_policy(record("a", "one")).await.unwrap();
    assert_eq!((listed(&one).await.len(), listed(&other).await.len()), (1, 0));
}

#[tokio::test]
async fn policies_survive_a_restart() {
    let fixture = Fixture::embedded();
    fixture.store.record_policy(record("a", "one")).await.unwrap();
    fixture.store.record_policy(record("a", "two")).await.unwrap();
    fixture.store.record_policy(record("b", "two")).await.unwrap();
    let before = listed(&fixture).await;
    let again = connect_again(fixture);
    assert_eq!((listed(&again).await, document(&again, "a").await.is_some()), (before, true));
}
