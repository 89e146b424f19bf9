//! Counters of budgets: what they keep, what expires, and the thresholds that are reported.

use tollgate::{
    domain::{
        MAX_AMOUNT,
        counter::{CounterKey, Hold},
    },
    store::{Settle, SettleOutcome, Settled, Store},
};

use super::{
    SLOT, WINDOW, ask, behaviours, budget, counted, frees_at, granted, refused, settled, settling, state,
};
use crate::harness::{Fixture, START};

behaviours! {
    a_budget_keeps_what_is_reserved_and_books_what_is_used
    the_expiring_part_of_a_budget_expires_by_itself
    a_budget_can_be_overdrawn_by_what_was_really_used
    a_threshold_that_is_watched_is_reported_once_however_many_there_are
    periods_are_counters_of_their_own
}

async fn a_budget_keeps_what_is_reserved_and_books_what_is_used<S: Store>(f: &Fixture<S>) {
    let b = budget("b", 100, 30, 0);
    granted(f, ask(1, vec![b.clone()])).await;
    granted(f, ask(2, vec![b.clone()])).await;
    granted(f, ask(3, vec![b.clone()])).await;
    assert_eq!(state(f, &b).await, counted(90, 0, 3));
    assert_eq!(frees_at(f, ask(4, vec![b.clone()])).await, None);
    let settled_after = |settled_before, used, settled, open| {
        [Settled { settled_before, after: counted(used, settled, open) }]
    };
    assert_eq!(settled(f, 2, &[10]).await, settled_after(0, 70, 10, 2));
    f.at(1000 * WINDOW);
    assert_eq!(state(f, &b).await, counted(70, 10, 2));
    granted(f, ask(4, vec![b.clone()])).await;
    refused(f, ask(5, vec![budget("b", 100, 1, 0)])).await;
    assert_eq!(settled(f, 4, &[30]).await, settled_after(10, 100, 40, 2));
}

async fn the_expiring_part_of_a_budget_expires_by_itself<S: Store>(f: &Fixture<S>) {
    let b = budget("b", 100, 20, 60);
    granted(f, ask(1, vec![b.clone()])).await;
    assert_eq!(state(f, &b).await, counted(80, 0, 1));
    let told = frees_at(f, ask(2, vec![budget("b", 100, 40, 0)])).await;
    assert_eq!(told, Some(START.plus(61 * SLOT)));
    assert_eq!(frees_at(f, ask(2, vec![budget("b", 100, 81, 0)])).await, None);
    f.at(61 * SLOT);
    assert_eq!(state(f, &b).await, counted(20, 0, 1));
    granted(f, ask(2, vec![b.clone()])).await;
    // The first gives back nothing that expired, and books all it used.
    assert_eq!(settled(f, 1, &[50]).await[0].after, counted(130, 50, 1));
    assert_eq!(settled(f, 2, &[1]).await[0].after, counted(51, 51, 0));
}

async fn a_budget_can_be_overdrawn_by_what_was_really_used<S: Store>(f: &Fixture<S>) {
    granted(f, ask(1, vec![budget("b", 100, 90, 0)])).await;
    assert_eq!(settled(f, 1, &[1_000]).await[0].after, counted(1_000, 1_000, 0));
    assert_eq!(frees_at(f, ask(2, vec![budget("b", 100, 1, 0)])).await, None);
    assert_eq!(granted(f, ask(2, vec![budget("b", 1_001, 1, 0)])).await, [1_000]);
}

/// Past how many are remembered, thresholds are forgotten that are watched no more: the first to be reported before later ones.
async fn a_threshold_that_is_watched_is_reported_once_however_many_there_are<S: Store>(f: &Fixture<S>) {
    let (many, others) = ((1..=70).collect::<Vec<u64>>(), (71..=80).collect::<Vec<u64>>());
    let none = Vec::new();
    let first_six = (1..=6).collect::<Vec<u64>>();
    let steps = [
        (100, &many, &many),
        (1, &many, &none),
        (1, &many, &none),
        // The sixteen oldest of the eighty make room.
        (1, &others, &others),
        (1, &others, &none),
        (1, &first_six, &first_six),
        (1, &first_six, &none),
    ];
    for (number, (actual, watched, expected)) in (1..).zip(steps) {
        granted(f, ask(number, vec![budget("a", MAX_AMOUNT, actual, 0)])).await;
        let settle =
            Settle { thresholds: vec![(0, watched.clone())], ..settling(f, number, &[actual]).await };
        let SettleOutcome::Settled(settlement) = f.store.settle(settle).await.unwrap() else {
            panic!("settled")
        };
        let expected: Vec<_> = expected.iter().map(|amount| (0, *amount)).collect();
        assert_eq!(settlement.reported, expected, "{number}");
    }
}

async fn periods_are_counters_of_their_own<S: Store>(f: &Fixture<S>) {
    let of = |period| {
        let counter = CounterKey::new("b").in_period(period);
        Hold { counter, ..budget("b", 10, 10, 0) }
    };
    for (number, period) in [(1, 20_261_101), (2, 20_261_201), (3, 0)] {
        assert_eq!(granted(f, ask(number, vec![of(period)])).await, [0]);
    }
    settled(f, 1, &[3]).await;
    for (period, expected) in
        [(20_261_101, counted(3, 3, 0)), (20_261_201, counted(10, 0, 1)), (0, counted(10, 0, 1))]
    {
        assert_eq!(state(f, &of(period)).await, expected);
    }
}
