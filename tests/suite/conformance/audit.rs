//! The audit log, once for all stores.

use tollgate::{
    domain::Timestamp,
    store::{
        AUDIT_REMOVED, AuditEntry, AuditId, AuditKept, AuditLog as _, AuditRange, MAX_AUDIT_APPEND,
        MAX_AUDIT_LINE, MAX_AUDIT_PAGE, Store, StoreError,
    },
};

use super::{ask, behaviours, granted, rate};
use crate::harness::{Fixture, START, connect_again};

behaviours! {
    a_new_log_is_empty
    the_newest_events_come_first_whatever_the_order_of_adding
    an_event_is_added_once
    a_range_is_read_page_by_page
    a_line_may_hold_anything_and_has_a_bound
    what_is_too_old_goes_and_a_bounded_part_at_a_time
    what_is_too_many_goes
    nothing_goes_by_a_wall_clock_that_was_set_ahead
}

const DAY: u64 = 86_400_000;
/// What no test is past.
const ALL: AuditKept = AuditKept { ms: 400 * DAY, events: 1_000_000 };

/// The event number `n`, `after` milliseconds after the start.
fn event(after: u64, n: u32) -> AuditEntry {
    let id = AuditId::new(START.plus(after), n, n.wrapping_mul(0x9e37_79b9));
    AuditEntry { id, line: format!("{{\"n\":{n}}}").into() }
}

async fn append<S: Store>(f: &Fixture<S>, events: Vec<AuditEntry>) {
    assert_eq!(f.store.audit_append(events, ALL).await, Ok(0));
}

async fn page<S: Store>(f: &Fixture<S>, range: AuditRange, count: usize) -> Vec<AuditEntry> {
    f.store.audit_page(range, count).await.unwrap()
}

/// All events, the newest first.
async fn all<S: Store>(f: &Fixture<S>) -> Vec<AuditEntry> {
    let (mut range, mut all) = (AuditRange::default(), Vec::new());
    loop {
        let events = page(f, range, MAX_AUDIT_PAGE).await;
        let Some(last) = events.last() else { return all };
        range.before = Some(last.id);
        all.extend(events);
    }
}

async fn a_new_log_is_empty<S: Store>(f: &Fixture<S>) {
    assert_eq!(all(f).await, []);
    append(f, Vec::new()).await;
    assert_eq!(all(f).await, []);
}

/// Clocks of replicas differ.
async fn the_newest_events_come_first_whatever_the_order_of_adding<S: Store>(f: &Fixture<S>) {
    append(f, vec![event(5, 0), event(1, 1)]).await;
    append(f, vec![event(9, 2), event(5, 3), event(0, 4)]).await;
    assert_eq!(all(f).await, [event(9, 2), event(5, 3), event(5, 0), event(1, 1), event(0, 4)]);
}

async fn an_event_is_added_once<S: Store>(f: &Fixture<S>) {
    append(f, vec![event(1, 1), event(1, 1)]).await;
    append(f, vec![event(1, 1), event(2, 2)]).await;
    assert_eq!(all(f).await, [event(2, 2), event(1, 1)]);
}

async fn a_range_is_read_page_by_page<S: Store>(f: &Fixture<S>) {
    for n in 0..150 {
        append(f, vec![event(10 * u64::from(n), n)]).await;
    }
    let range = AuditRange {
        from: AuditId::first_at(START.plus(100)),
        before: Some(AuditId::first_at(START.plus(1_200))),
    };
    let (mut rest, mut told) = (range, Vec::new());
    for size in [1, 7, MAX_AUDIT_PAGE, MAX_AUDIT_PAGE] {
        let events = page(f, rest, size).await;
        assert!(events.len() == size || told.len() + events.len() == 110, "{}", events.len());
        rest.before = events.last().map(|event| event.id);
        told.extend(events);
        append(f, vec![event(5_000, 500)]).await;
    }
    assert_eq!(told, (10..120).rev().map(|n| event(10 * u64::from(n), n)).collect::<Vec<_>>());
    assert_eq!(page(f, range, 0).await, []);
    assert_eq!(page(f, range, usize::MAX).await.len(), MAX_AUDIT_PAGE);
    assert_eq!(page(f, AuditRange { before: Some(range.from), ..range }, 9).await, []);
}

async fn a_line_may_hold_anything_and_has_a_bound<S: Store>(f: &Fixture<S>) {
    let of = |n, line: Vec<u8>| AuditEntry { line: line.into(), ..event(n, 0) };
    let told =
        vec![of(4, vec![b'x'; MAX_AUDIT_LINE]), of(3, "ü\n\0".into()), of(2, vec![0, 255]), of(1, vec![])];
    append(f, told.clone()).await;
    let too_long = vec![of(5, Vec::new()), of(6, vec![b'x'; MAX_AUDIT_LINE + 1])];
    assert_eq!(f.store.audit_append(too_long, ALL).await, Err(StoreError::Overflow));
    let too_many = (0..=MAX_AUDIT_APPEND).map(|n| event(9, u32::try_from(n).unwrap())).collect();
    assert_eq!(f.store.audit_append(too_many, ALL).await, Err(StoreError::Overflow));
    assert_eq!(all(f).await, told);
}

async fn what_is_too_old_goes_and_a_bounded_part_at_a_time<S: Store>(f: &Fixture<S>) {
    for n in 0..5 {
        append(f, (0..40).map(|m| event(1_000 * u64::from(40 * n + m), m)).collect()).await;
    }
    let kept = AuditKept { ms: 10_000, ..ALL };
    // What is exactly as old stays.
    f.at(160_000);
    assert_eq!(f.store.audit_append(Vec::new(), kept).await, Ok(AUDIT_REMOVED));
    assert_eq!(f.store.audit_append(vec![event(160_001, 0)], kept).await, Ok(AUDIT_REMOVED + 1));
    assert_eq!(f.store.audit_append(Vec::new(), kept).await, Ok(150 - 2 * AUDIT_REMOVED - 1));
    assert_eq!(f.store.audit_append(Vec::new(), kept).await, Ok(0));
    let left = all(f).await;
    assert_eq!(
        (left.len(), left[50].id),
        (51, AuditId::new(START.plus(150_000), 30, 30_u32.wrapping_mul(0x9e37_79b9)))
    );
    // An event that comes too late goes at once.
    assert_eq!(f.store.audit_append(vec![event(0, 9)], kept).await, Ok(1));
    assert_eq!(all(f).await, left);
}

async fn what_is_too_many_goes<S: Store>(f: &Fixture<S>) {
    let kept = AuditKept { events: 3, ..ALL };
    assert_eq!(f.store.audit_append((0..3).map(|n| event(1, n)).collect(), kept).await, Ok(0));
    // A repeat is no more than was there.
    assert_eq!(f.store.audit_append(vec![event(1, 0)], kept).await, Ok(0));
    assert_eq!(f.store.audit_append(vec![event(1, 3), event(1, 4)], kept).await, Ok(2));
    assert_eq!(all(f).await, [event(1, 4), event(1, 3), event(1, 2)]);
    let fewer = AuditKept { events: 1, ..ALL };
    assert_eq!(f.store.audit_append(Vec::new(), fewer).await, Ok(2));
    assert_eq!(all(f).await, [event(1, 4)]);
}

async fn nothing_goes_by_a_wall_clock_that_was_set_ahead<S: Store>(f: &Fixture<S>) {
    // A store has a time of its own once something was taken.
    granted(f, ask(1, vec![rate("a", 5, 5)])).await;
    append(f, vec![event(0, 1)]).await;
    f.clock.step(Timestamp(START.0 + 900 * DAY));
    append(f, vec![event(900 * DAY, 2)]).await;
    assert_eq!(all(f).await.len(), 2);
}

#[tokio::test]
async fn the_count_of_events_outlasts_a_restart() {
    let f = Fixture::embedded();
    append(&f, (0..5).map(|n| event(1, n)).collect()).await;
    let f = connect_again(f);
    let kept = AuditKept { events: 3, ..ALL };
    assert_eq!(f.store.audit_append(vec![event(1, 5)], kept).await, Ok(3));
    assert_eq!(all(&f).await, [event(1, 5), event(1, 4), event(1, 3)]);
}

/// Organizations share a Redis and nothing else.
#[tokio::test]
async fn an_organization_has_a_log_of_its_own() {
    let (Some(one), Some(other)) = (Fixture::redis(), Fixture::redis()) else { return };
    append(&one, vec![event(1, 1)]).await;
    assert_eq!((all(&one).await.len(), all(&other).await.len()), (1, 0));
}
