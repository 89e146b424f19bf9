//! Settlements: which of them count, and how long a record is kept.

use std::sync::Arc;

use bytes::Bytes;
use tollgate::{
    domain::{MAX_AMOUNT, counter::CounterKey},
    store::{Reserve, Reserved, Settle, SettleOutcome, Settled, Store, StoreError},
};

use super::{
    KEEP, LATE, SLOT, TTL, WINDOW, again, ask, behaviours, budget, counted, granted, id, join_all, line,
    open, rate, record, settled, settling, state,
};
use crate::harness::{Fixture, START};

behaviours! {
    an_unsettled_record_is_forgotten_when_it_is_too_late
    a_settled_record_is_forgotten_when_it_was_kept_long_enough
    what_was_never_reserved_cannot_be_settled
    only_the_first_settlement_counts
    a_settlement_past_the_largest_amount_changes_nothing
    a_settlement_at_the_same_time_happens_once
}

async fn an_unsettled_record_is_forgotten_when_it_is_too_late<S: Store>(f: &Fixture<S>) {
    let request = again(ask(1, vec![budget("b", 100, 3, 0)]));
    granted(f, request.clone()).await;
    let settle = settling(f, 1, &[1]).await;
    f.at(TTL + LATE - 1);
    assert!(f.store.find(id(1)).await.unwrap().is_some());
    assert!(matches!(f.store.reserve(request.clone()).await.unwrap(), Reserved::Repeated(_)));
    f.at(TTL + LATE);
    assert_eq!(f.store.find(id(1)).await.unwrap(), None);
    assert_eq!(f.store.settle(settle).await.unwrap(), SettleOutcome::NotFound);
    assert_eq!(state(f, &budget("b", 0, 0, 0)).await, counted(3, 0, 1));
    assert_eq!(granted(f, request).await, [3]);
    assert_eq!(record(f, 1).await.reserved_at, START.plus(TTL + LATE));
}

async fn a_settled_record_is_forgotten_when_it_was_kept_long_enough<S: Store>(f: &Fixture<S>) {
    granted(f, ask(1, vec![budget("b", 100, 3, 0)])).await;
    f.at(TTL + LATE - 1);
    let settle = settling(f, 1, &[1]).await;
    settled(f, 1, &[1]).await;
    let settled_at = TTL + LATE - 1;
    f.at(settled_at + KEEP - 1);
    assert!(matches!(f.store.settle(settle.clone()).await.unwrap(), SettleOutcome::AlreadySettled(_)));
    f.at(settled_at + KEEP);
    assert_eq!(f.store.find(id(1)).await.unwrap(), None);
    assert_eq!(f.store.settle(settle).await.unwrap(), SettleOutcome::NotFound);
    assert_eq!(state(f, &budget("b", 0, 0, 0)).await, counted(1, 1, 0));
}

async fn what_was_never_reserved_cannot_be_settled<S: Store>(f: &Fixture<S>) {
    granted(f, ask(1, vec![rate("a", 5, 5)])).await;
    let mut settle = settling(f, 1, &[0]).await;
    settle.id = id(2);
    settle.lines = vec![line("team", 5)];
    settle.cooldown = Some((CounterKey::new("gate"), open(WINDOW)));
    assert_eq!(f.store.settle(settle).await.unwrap(), SettleOutcome::NotFound);
    assert_eq!(state(f, &rate("a", 5, 0)).await.used, 5);
    assert_eq!(f.store.spend(202_611, "team".into()).await.unwrap(), []);
    granted(f, Reserve { gates: vec![CounterKey::new("gate")], ..ask(3, vec![rate("b", 5, 5)]) }).await;
}

async fn only_the_first_settlement_counts<S: Store>(f: &Fixture<S>) {
    granted(f, ask(1, vec![rate("a", 100, 10), budget("b", 100, 6, 4)])).await;
    let mut first = settling(f, 1, &[3, 5]).await;
    first.lines = vec![line("team", 5)];
    f.at(5);
    let SettleOutcome::Settled(done) = f.store.settle(first.clone()).await.unwrap() else {
        panic!("not settled")
    };
    let after = [counted(3, 0, 0), counted(5, 5, 0)].map(|after| Settled { settled_before: 0, after });
    assert_eq!(done.counters, after);
    f.at(SLOT);
    let other = Settle {
        actual: vec![90, 90],
        lines: vec![line("team", 90), line("other", 90)],
        max_rows: 10,
        cooldown: Some((CounterKey::new("gate"), open(WINDOW))),
        note: Bytes::from_static(b"other"),
        ..first
    };
    for _ in 0..3 {
        assert_eq!(f.store.settle(other.clone()).await.unwrap(), SettleOutcome::AlreadySettled(done.clone()));
    }
    assert_eq!(state(f, &rate("a", 0, 0)).await, counted(3, 0, 0));
    assert_eq!(state(f, &budget("b", 0, 0, 0)).await, counted(5, 5, 0));
    assert_eq!(f.store.spend(202_611, "team".into()).await.unwrap(), [line("team", 5)]);
    assert_eq!(f.store.spenders(202_611).await.unwrap(), [Arc::from("team")]);
    granted(f, Reserve { gates: vec![CounterKey::new("gate")], ..ask(2, vec![]) }).await;
}

async fn a_settlement_past_the_largest_amount_changes_nothing<S: Store>(f: &Fixture<S>) {
    let holds = || vec![rate("small", 100, 5), rate("a", MAX_AMOUNT, 5), budget("b", MAX_AMOUNT, 5, 0)];
    granted(
        f,
        ask(1, vec![rate("a", MAX_AMOUNT, MAX_AMOUNT - 10), budget("b", MAX_AMOUNT, MAX_AMOUNT - 10, 0)]),
    )
    .await;
    granted(f, ask(2, holds())).await;
    for actual in [[1, 6, 0], [1, 0, 6], [1, u64::MAX, 0], [1, 0, u64::MAX], [MAX_AMOUNT + 1, 0, 0]] {
        let mut settle = settling(f, 2, &actual).await;
        settle.lines = vec![line("team", 1)];
        settle.cooldown = Some((CounterKey::new("gate"), open(WINDOW)));
        assert_eq!(f.store.settle(settle).await, Err(StoreError::Overflow), "{actual:?}");
    }
    assert_eq!(record(f, 2).await.settlement, None);
    for (hold, expected) in
        holds().iter().zip([counted(5, 0, 0), counted(MAX_AMOUNT - 5, 0, 0), counted(MAX_AMOUNT - 5, 0, 2)])
    {
        assert_eq!(state(f, hold).await, expected);
    }
    assert_eq!(f.store.spend(202_611, "team".into()).await.unwrap(), []);
    granted(f, Reserve { gates: vec![CounterKey::new("gate")], ..ask(3, vec![]) }).await;
    settled(f, 2, &[1, 5, 5]).await;
}

async fn a_settlement_at_the_same_time_happens_once<S: Store>(f: &Fixture<S>) {
    granted(f, ask(1, vec![budget("b", 100, 5, 0)])).await;
    let mut settles = Vec::new();
    for amount in 0..64 {
        let mut settle = settling(f, 1, &[amount]).await;
        settle.lines = vec![line("team", amount)];
        settles.push(settle);
    }
    let answers = join_all(settles.into_iter().map(|settle| f.store.settle(settle))).await;
    let done: Vec<_> = answers
        .iter()
        .filter_map(|answer| match answer {
            Ok(SettleOutcome::Settled(settlement)) => Some(settlement),
            _ => None,
        })
        .collect();
    assert_eq!(done.len(), 1);
    for answer in &answers {
        let Ok(SettleOutcome::Settled(seen) | SettleOutcome::AlreadySettled(seen)) = answer else {
            panic!("{answer:?}")
        };
        assert_eq!(seen, done[0]);
    }
    let after = state(f, &budget("b", 0, 0, 0)).await;
    assert_eq!(after, done[0].counters[0].after);
    assert_eq!(f.store.spend(202_611, "team".into()).await.unwrap(), [line("team", after.settled)]);
}
