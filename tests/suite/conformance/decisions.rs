//! Decisions for those who watch them, once for all stores.

use bytes::Bytes;
use tollgate::{
    domain::Timestamp,
    store::{
        DECISIONS_KEPT, DECISIONS_KEPT_MS, DECISIONS_WATCHED_MS, DecisionId, MAX_DECISION_BYTES,
        MAX_DECISIONS_PUBLISHED, MAX_DECISIONS_READ, Store, StoreError,
    },
};

use super::{ask, behaviours, granted, rate};
use crate::harness::{Fixture, START};

behaviours! {
    what_is_not_watched_is_not_kept
    what_is_watched_is_read_in_its_order
    a_reader_continues_after_what_it_has
    watching_ends_by_itself
    the_last_ones_are_kept
    decisions_are_forgotten_after_a_while
    a_decision_may_be_told_in_any_bytes_and_there_is_a_bound
    a_wall_clock_that_is_set_changes_no_order
}

async fn publish<S: Store>(f: &Fixture<S>, decisions: &[&'static str]) -> bool {
    f.store.publish_decisions(decisions.iter().map(|told| Bytes::from(*told)).collect()).await.unwrap()
}

async fn read<S: Store>(f: &Fixture<S>, after: Option<DecisionId>) -> Vec<(DecisionId, Bytes)> {
    f.store.read_decisions(after, MAX_DECISIONS_READ).await.unwrap()
}

fn told(read: &[(DecisionId, Bytes)]) -> Vec<&str> {
    read.iter().map(|(_, told)| str::from_utf8(told).unwrap()).collect()
}

async fn what_is_not_watched_is_not_kept<S: Store>(f: &Fixture<S>) {
    assert!(!publish(f, &[]).await);
    assert!(!publish(f, &["a"]).await);
    assert_eq!(read(f, None).await, []);
    assert!(publish(f, &[]).await);
    assert!(publish(f, &["b"]).await);
    assert_eq!(told(&read(f, None).await), ["b"]);
}

async fn what_is_watched_is_read_in_its_order<S: Store>(f: &Fixture<S>) {
    read(f, None).await;
    // Three in one millisecond, of two calls, and a later one.
    publish(f, &["b", "a"]).await;
    publish(f, &["c"]).await;
    f.at(7);
    publish(f, &["d"]).await;
    let all = read(f, None).await;
    assert_eq!(told(&all), ["b", "a", "c", "d"]);
    for pair in all.windows(2) {
        assert!(pair[0].0 < pair[1].0, "{pair:?}");
        assert_eq!(pair[0].0.between(pair[1].0), 0);
    }
    for (id, _) in &all {
        assert_eq!(id.to_string().parse(), Ok(*id));
    }
}

async fn a_reader_continues_after_what_it_has<S: Store>(f: &Fixture<S>) {
    read(f, None).await;
    publish(f, &["a", "b", "c"]).await;
    let first = f.store.read_decisions(None, 2).await.unwrap();
    assert_eq!(told(&first), ["a", "b"]);
    let last = first[1].0;
    assert_eq!(told(&read(f, Some(last)).await), ["c"]);
    publish(f, &["d"]).await;
    assert_eq!(told(&read(f, Some(last)).await), ["c", "d"]);
    let newest = read(f, None).await[3].0;
    assert_eq!(read(f, Some(newest)).await, []);
}

async fn watching_ends_by_itself<S: Store>(f: &Fixture<S>) {
    read(f, None).await;
    f.at(DECISIONS_WATCHED_MS - 1);
    assert!(publish(f, &["a"]).await);
    f.at(DECISIONS_WATCHED_MS);
    assert!(!publish(f, &["b"]).await && !publish(f, &[]).await);
    // A reader that comes back finds what was there when it was.
    assert_eq!(told(&read(f, None).await), ["a"]);
    f.at(2 * DECISIONS_WATCHED_MS - 1);
    assert!(publish(f, &["c"]).await);
}

async fn the_last_ones_are_kept<S: Store>(f: &Fixture<S>) {
    let first = {
        read(f, None).await;
        publish(f, &["first"]).await;
        read(f, None).await[0].0
    };
    let (calls, some) = (DECISIONS_KEPT / MAX_DECISIONS_PUBLISHED + 1, vec!["x"; MAX_DECISIONS_PUBLISHED]);
    for _ in 0..calls {
        assert!(publish(f, &some).await);
    }
    let mut all = read(f, None).await;
    while let Some((last, _)) = all.last() {
        let more = read(f, Some(*last)).await;
        if more.is_empty() {
            break;
        }
        all.extend(more);
    }
    assert_eq!(all.len(), DECISIONS_KEPT);
    // How many are missing is known by the numbers.
    let lost = (calls * MAX_DECISIONS_PUBLISHED - DECISIONS_KEPT) as u64;
    assert_eq!(first.between(all[0].0), lost);
    assert_eq!(read(f, Some(first)).await[0].0, all[0].0);
}

async fn decisions_are_forgotten_after_a_while<S: Store>(f: &Fixture<S>) {
    read(f, None).await;
    publish(f, &["a"]).await;
    f.at(1_000);
    publish(f, &["b"]).await;
    f.at(DECISIONS_KEPT_MS + 500);
    let kept = read(f, None).await;
    assert_eq!(told(&kept), ["b"]);
    publish(f, &["c"]).await;
    assert_eq!(told(&read(f, Some(kept[0].0)).await), ["c"]);
    f.at(3 * DECISIONS_KEPT_MS);
    assert_eq!(read(f, None).await, []);
}

async fn a_decision_may_be_told_in_any_bytes_and_there_is_a_bound<S: Store>(f: &Fixture<S>) {
    read(f, None).await;
    let longest = Bytes::from(vec![0xff; MAX_DECISION_BYTES]);
    assert_eq!(f.store.publish_decisions(vec![longest.clone()]).await, Ok(true));
    let longer = Bytes::from(vec![b'x'; MAX_DECISION_BYTES + 1]);
    assert_eq!(f.store.publish_decisions(vec![longer]).await, Err(StoreError::Overflow));
    let many = vec![Bytes::new(); MAX_DECISIONS_PUBLISHED + 1];
    assert_eq!(f.store.publish_decisions(many).await, Err(StoreError::Overflow));
    let all: Vec<_> = read(f, None).await.into_iter().map(|(_, told)| told).collect();
    assert_eq!(all, [longest]);
}

async fn a_wall_clock_that_is_set_changes_no_order<S: Store>(f: &Fixture<S>) {
    // A store has a time of its own once something was taken.
    granted(f, ask(1, vec![rate("a", 5, 5)])).await;
    read(f, None).await;
    publish(f, &["a"]).await;
    f.clock.step(Timestamp(START.0 - 3_600_000));
    publish(f, &["b"]).await;
    f.clock.step(Timestamp(START.0 + 3_600_000));
    publish(f, &["c"]).await;
    let all = read(f, None).await;
    assert_eq!(told(&all), ["a", "b", "c"]);
    assert_eq!(told(&read(f, Some(all[0].0)).await), ["b", "c"]);
}

/// Organizations share a Redis and nothing else.
#[tokio::test]
async fn an_organization_has_decisions_of_its_own() {
    let (Some(one), Some(other)) = (Fixture::redis(), Fixture::redis()) else { return };
    read(&one, None).await;
    assert!(publish(&one, &["a"]).await && !publish(&other, &["b"]).await);
    assert_eq!((read(&one, None).await.len(), read(&other, None).await.len()), (1, 0));
}
