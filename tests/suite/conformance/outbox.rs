//! The outbox, once for all stores.

use tollgate::{
    domain::counter::CounterKey,
    store::{
        ClaimedEntry, Crossing, Extra, Ledger as _, MAX_OUTBOX_APPEND, MAX_OUTBOX_CLAIM, MAX_OUTBOX_PAGE,
        MAX_OUTBOX_PAYLOAD, OUTBOX_REMOVED, OutboxEntry, OutboxId, OutboxKept, SettleOutcome, Store,
        StoreError,
    },
};

use super::{MONTH, ask, behaviours, budget, granted, join_all, rate, settling};
use crate::harness::{Fixture, START, connect_again};

behaviours! {
    a_new_outbox_is_empty
    an_entry_is_added_once
    a_queue_has_its_own_entries_and_the_longest_due_come_first
    a_claimed_entry_is_due_again_after_the_lease
    only_the_last_claim_updates_an_entry
    an_entry_that_is_done_stays_to_be_read
    entries_are_read_page_by_page
    a_payload_may_hold_anything_and_has_a_bound
    what_is_too_old_or_too_many_goes_and_a_bounded_part_at_a_time
    one_of_many_claims_gets_an_entry
    a_settlement_adds_each_threshold_that_it_reports
    a_settlement_adds_what_it_reports_once
}

const DAY: u64 = 86_400_000;
const LEASE: u64 = 60_000;
/// What no test is past.
const ALL: OutboxKept = OutboxKept { ms: 400 * DAY, entries: 1_000_000 };

fn id(after: u64, queue: &str) -> OutboxId {
    format!("{:012x}_open{queue}", START.plus(after).0).parse().unwrap()
}

/// An entry of a queue, which is "" or begins with `/`.
fn entry(after: u64, queue: &str) -> OutboxEntry {
    OutboxEntry { id: id(after, queue), payload: format!("\u{2}{after}").into() }
}

async fn append<S: Store>(f: &Fixture<S>, entries: Vec<OutboxEntry>) {
    assert_eq!(f.store.outbox_append(entries, ALL).await, Ok(0));
}

/// Claims what is due, and how many are not done.
async fn claim<S: Store>(f: &Fixture<S>, queue: &str, count: usize) -> (Vec<ClaimedEntry>, u64) {
    let claim = f.store.outbox_claim(queue.into(), count, LEASE).await.unwrap();
    (claim.entries, claim.pending)
}

async fn claimed<S: Store>(f: &Fixture<S>, queue: &str) -> Vec<OutboxEntry> {
    claim(f, queue, MAX_OUTBOX_CLAIM).await.0.into_iter().map(|claimed| claimed.entry).collect()
}

/// All entries, the last one first.
async fn all<S: Store>(f: &Fixture<S>) -> Vec<OutboxEntry> {
    let (mut before, mut all) = (None, Vec::new());
    loop {
        let entries = f.store.outbox_page(before, MAX_OUTBOX_PAGE).await.unwrap();
        let Some(last) = entries.last() else { return all };
        before = Some(last.id.clone());
        all.extend(entries);
    }
}

async fn a_new_outbox_is_empty<S: Store>(f: &Fixture<S>) {
    append(f, Vec::new()).await;
    assert_eq!((claim(f, "", 9).await, all(f).await), ((Vec::new(), 0), Vec::new()));
}

async fn an_entry_is_added_once<S: Store>(f: &Fixture<S>) {
    let other = OutboxEntry { payload: "\u{2}other".into(), ..entry(1, "") };
    append(f, vec![entry(1, ""), other.clone()]).await;
    let (mine, _) = claim(f, "", 9).await;
    assert!(f.store.outbox_update(mine[0].clone(), None).await.unwrap());
    // Neither when it is done.
    append(f, vec![other, entry(2, "")]).await;
    assert_eq!(all(f).await, [entry(2, ""), entry(1, "")]);
    assert_eq!(claimed(f, "").await, [entry(2, "")]);
}

async fn a_queue_has_its_own_entries_and_the_longest_due_come_first<S: Store>(f: &Fixture<S>) {
    append(f, vec![entry(5, "/b"), entry(1, "/a"), entry(2, ""), entry(3, "/a"), entry(4, "/a")]).await;
    let (first, pending) = claim(f, "a", 2).await;
    assert_eq!((first.len(), pending), (2, 3));
    assert_eq!(first[0].entry, entry(1, "/a"));
    f.at(10);
    for (claimed, next) in first.into_iter().zip([7, 3]) {
        assert!(f.store.outbox_update(claimed, Some(next)).await.unwrap());
    }
    // That one is due by now, and those that were updated are not.
    assert_eq!(claimed(f, "a").await, [entry(4, "/a")]);
    f.at(17);
    assert_eq!(claimed(f, "a").await, [entry(3, "/a"), entry(1, "/a")]);
    assert_eq!((claimed(f, "b").await, claimed(f, "").await), (vec![entry(5, "/b")], vec![entry(2, "")]));
    assert_eq!(claim(f, "c", 9).await, (Vec::new(), 0));
    // Counts without claiming.
    assert_eq!(claim(f, "a", 0).await, (Vec::new(), 3));
}

async fn a_claimed_entry_is_due_again_after_the_lease<S: Store>(f: &Fixture<S>) {
    append(f, vec![entry(1, "")]).await;
    for turn in 0..3 {
        f.at(turn * LEASE);
        let (entries, _) = claim(f, "", 9).await;
        assert_eq!(entries, [ClaimedEntry { entry: entry(1, ""), claim: turn + 1 }]);
        f.at((turn + 1) * LEASE - 1);
        assert_eq!(claim(f, "", 9).await, (Vec::new(), 1));
    }
}

async fn only_the_last_claim_updates_an_entry<S: Store>(f: &Fixture<S>) {
    append(f, vec![entry(1, "")]).await;
    let (first, _) = claim(f, "", 9).await;
    f.at(LEASE);
    let (second, _) = claim(f, "", 9).await;
    let with = |claimed: &ClaimedEntry, payload: &'static str| {
        let entry = OutboxEntry { payload: payload.into(), ..claimed.entry.clone() };
        ClaimedEntry { entry, claim: claimed.claim }
    };
    assert_eq!(f.store.outbox_update(with(&first[0], "first"), None).await, Ok(false));
    assert_eq!(f.store.outbox_update(with(&second[0], "second"), Some(5)).await, Ok(true));
    assert_eq!(f.store.outbox_update(with(&second[0], "third"), None).await, Ok(true));
    // It is done.
    assert_eq!(f.store.outbox_update(with(&second[0], "fourth"), Some(5)).await, Ok(false));
    let unknown = ClaimedEntry { entry: entry(9, ""), claim: 0 };
    assert_eq!(f.store.outbox_update(unknown, None).await, Ok(false));
    assert_eq!(all(f).await, [OutboxEntry { payload: "third".into(), ..entry(1, "") }]);
}

async fn an_entry_that_is_done_stays_to_be_read<S: Store>(f: &Fixture<S>) {
    append(f, vec![entry(1, "/a")]).await;
    let (mine, _) = claim(f, "a", 9).await;
    assert!(f.store.outbox_update(mine[0].clone(), None).await.unwrap());
    f.at(10 * LEASE);
    assert_eq!((claim(f, "a", 9).await, all(f).await), ((Vec::new(), 0), vec![entry(1, "/a")]));
}

async fn entries_are_read_page_by_page<S: Store>(f: &Fixture<S>) {
    for n in 0..150 {
        append(f, vec![entry(n, "/q"), entry(n, "")]).await;
    }
    let (mut before, mut told) = (None, Vec::new());
    for size in [1, 8, usize::MAX, MAX_OUTBOX_PAGE, MAX_OUTBOX_PAGE] {
        let entries = f.store.outbox_page(before, size).await.unwrap();
        assert_eq!(entries.len(), size.min(MAX_OUTBOX_PAGE));
        before = entries.last().map(|entry| entry.id.clone());
        told.extend(entries);
    }
    let expected = (0..150).rev().flat_map(|n| [entry(n, "/q"), entry(n, "")]);
    assert_eq!(told, expected.take(201).collect::<Vec<_>>());
    assert_eq!(f.store.outbox_page(Some(id(0, "")), 9).await, Ok(Vec::new()));
}

async fn a_payload_may_hold_anything_and_has_a_bound<S: Store>(f: &Fixture<S>) {
    let of = |n, payload: Vec<u8>| OutboxEntry { payload: payload.into(), ..entry(n, "") };
    let told = vec![of(3, vec![b'x'; MAX_OUTBOX_PAYLOAD]), of(2, vec![0, 255]), of(1, vec![])];
    append(f, told.clone()).await;
    let long = of(4, vec![b'x'; MAX_OUTBOX_PAYLOAD + 1]);
    assert_eq!(f.store.outbox_append(vec![long.clone()], ALL).await, Err(StoreError::Overflow));
    let many = (0..=MAX_OUTBOX_APPEND as u64).map(|n| entry(n, "")).collect();
    assert_eq!(f.store.outbox_append(many, ALL).await, Err(StoreError::Overflow));
    let (mut mine, _) = claim(f, "", 9).await;
    let longer = ClaimedEntry { entry: long, ..mine.remove(0) };
    assert_eq!(f.store.outbox_update(longer, None).await, Err(StoreError::Overflow));
    assert_eq!(all(f).await, told);
}

async fn what_is_too_old_or_too_many_goes_and_a_bounded_part_at_a_time<S: Store>(f: &Fixture<S>) {
    for n in 0..5 {
        append(f, (0..40).map(|m| entry(1_000 * (40 * n + m), "/q")).collect()).await;
    }
    let kept = OutboxKept { ms: 10_000, ..ALL };
    f.at(160_000);
    assert_eq!(f.store.outbox_append(Vec::new(), kept).await, Ok(OUTBOX_REMOVED));
    assert_eq!(f.store.outbox_append(vec![entry(160_001, "/q")], kept).await, Ok(OUTBOX_REMOVED + 1));
    assert_eq!(f.store.outbox_append(Vec::new(), kept).await, Ok(150 - 2 * OUTBOX_REMOVED - 1));
    assert_eq!(f.store.outbox_append(Vec::new(), kept).await, Ok(0));
    assert_eq!((all(f).await.len(), claim(f, "q", 0).await.1), (51, 51));
    let fewer = OutboxKept { entries: 2, ..ALL };
    assert_eq!(f.store.outbox_append(vec![entry(199_001, "/q")], fewer).await, Ok(50));
    assert_eq!(claimed(f, "q").await, [entry(199_000, "/q"), entry(199_001, "/q")]);
}

async fn one_of_many_claims_gets_an_entry<S: Store>(f: &Fixture<S>) {
    append(f, (0..20).map(|n| entry(n, "")).collect()).await;
    let mut entries: Vec<_> = join_all((0..8).map(|_| claim(f, "", 3))).await;
    let mut entries: Vec<_> = entries.drain(..).flat_map(|(entries, _)| entries).collect();
    assert!(entries.iter().all(|claimed| claimed.claim == 1));
    entries.sort_by(|a, b| a.entry.id.cmp(&b.entry.id));
    assert_eq!(
        entries.into_iter().map(|claimed| claimed.entry).collect::<Vec<_>>(),
        (0..20).map(|n| entry(n, "")).collect::<Vec<_>>()
    );
}

async fn a_settlement_adds_each_threshold_that_it_reports<S: Store>(f: &Fixture<S>) {
    f.at(7);
    granted(f, ask(0x0102_0304_0506_0708, vec![rate("r", 90, 1), budget("a", 90, 10, 0)])).await;
    let mut settle = settling(f, 0x0102_0304_0506_0708, &[1, 40]).await;
    let counter = CounterKey::new("b").in_period(20_261_130);
    settle.extras = vec![Extra { counter, kind: MONTH, amount: 8 }];
    settle.thresholds = vec![(1, vec![20, 30, 41]), (2, vec![8, 9])];
    f.at(8);
    assert!(matches!(f.store.settle(settle).await, Ok(SettleOutcome::Settled(_))));
    let time = START.plus(8).0;
    let expected = [("a", 20_261_101, 20, 40), ("a", 20_261_101, 30, 40), ("b", 20_261_130, 8, 8)];
    let (entries, pending) = claim(f, "", 9).await;
    assert_eq!(pending, 3);
    for (n, (claimed, (name, period, amount, settled))) in entries.iter().zip(expected).enumerate() {
        assert_eq!(claimed.entry.id.as_str(), format!("{time:012x}030405060708{n:04x}_open"));
        let crossing = Crossing { amount, settled, counter: name.to_owned(), period };
        assert_eq!(Crossing::read(&claimed.entry.payload), Some(crossing));
    }
    assert_eq!((entries.len(), all(f).await.len()), (3, 3));
}

async fn a_settlement_adds_what_it_reports_once<S: Store>(f: &Fixture<S>) {
    for number in [1, 2] {
        granted(f, ask(number, vec![budget("a", 90, 10, 0)])).await;
    }
    for number in [1, 2] {
        let mut settle = settling(f, number, &[30]).await;
        settle.thresholds = vec![(0, vec![20])];
        f.store.settle(settle.clone()).await.unwrap();
        assert!(matches!(f.store.settle(settle).await, Ok(SettleOutcome::AlreadySettled(_))));
    }
    assert_eq!(all(f).await.len(), 1);
}

/// What a settlement added is on disk when it is answered.
#[tokio::test]
async fn entries_and_claims_outlast_a_restart() {
    let f = Fixture::embedded();
    granted(&f, ask(1, vec![budget("a", 90, 10, 0)])).await;
    let mut settle = settling(&f, 1, &[30]).await;
    settle.thresholds = vec![(0, vec![20, 25])];
    f.store.settle(settle).await.unwrap();
    append(&f, vec![entry(1, "/q")]).await;
    let before = all(&f).await;
    assert_eq!(claimed(&f, "q").await.len(), 1);
    let f = connect_again(f);
    assert_eq!((before.len(), &before), (3, &all(&f).await));
    assert_eq!(claim(&f, "q", 9).await, (Vec::new(), 1));
    assert_eq!(claimed(&f, "").await.len(), 2);
}

/// Organizations share a Redis and nothing else.
#[tokio::test]
async fn an_organization_has_an_outbox_of_its_own() {
    let (Some(one), Some(other)) = (Fixture::redis(), Fixture::redis()) else { return };
    append(&one, vec![entry(1, "")]).await;
    assert_eq!((all(&one).await.len(), all(&other).await.len(), claimed(&other, "").await.len()), (1, 0, 0));
}
