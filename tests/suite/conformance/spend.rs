//! Lines of spend, and reports of them.

use std::sync::Arc;

use tollgate::{
    domain::MAX_AMOUNT,
    store::{Settle, SettleOutcome, SpendAmounts, SpendKey, Store, StoreError},
};

use super::{ask, behaviours, granted, line, line_of, rate, settling, state};
use crate::harness::Fixture;

behaviours! {
    spend_lines_past_the_largest_amount_change_nothing
    spend_lines_add_up_and_come_in_order
    spenders_come_in_order_without_the_organization
    a_long_report_is_whole_and_in_order
}

async fn spend<S: Store>(f: &Fixture<S>, number: u128, lines: Vec<(SpendKey, SpendAmounts)>) {
    granted(f, ask(number, vec![rate("spending", MAX_AMOUNT, 1)])).await;
    let settle = Settle { lines, ..settling(f, number, &[1]).await };
    assert!(matches!(f.store.settle(settle).await.unwrap(), SettleOutcome::Settled(_)));
}

async fn spend_lines_past_the_largest_amount_change_nothing<S: Store>(f: &Fixture<S>) {
    for number in 1..=2 {
        granted(f, ask(number, vec![rate("a", 100, 5)])).await;
    }
    let mut first = settling(f, 1, &[5]).await;
    first.lines = vec![line("team", MAX_AMOUNT - 1), line("", 1)];
    assert!(matches!(f.store.settle(first).await.unwrap(), SettleOutcome::Settled(_)));
    let mut second = settling(f, 2, &[1]).await;
    second.lines = vec![line("team", 2), line("", 1)];
    assert_eq!(f.store.settle(second.clone()).await, Err(StoreError::Overflow));
    assert_eq!(state(f, &rate("a", 0, 0)).await.used, 10);
    assert_eq!(f.store.spend(202_611, "".into()).await.unwrap(), [line("", 1)]);
    second.lines = vec![line("team", 1), line("", 1)];
    assert!(matches!(f.store.settle(second).await.unwrap(), SettleOutcome::Settled(_)));
    let total = f.store.spend(202_611, "team".into()).await.unwrap()[0].1;
    assert_eq!((total.cost_nanos, total.requests), (MAX_AMOUNT, 2));
}

async fn spend_lines_add_up_and_come_in_order<S: Store>(f: &Fixture<S>) {
    let amounts = |n| SpendAmounts {
        cost_nanos: n,
        requests: n + 1,
        input_tokens: n + 2,
        cached_input_tokens: n + 3,
        output_tokens: n + 4,
        reasoning_tokens: n + 5,
        audio_ms: n + 6,
        characters: n + 7,
    };
    let key = |month, team: &str, day, model: &str, key: &str| line_of(month, team, day, model, key, 0).0;
    let in_order = [
        key(202_611, "t", 20_261_101, "a", ""),
        key(202_611, "t", 20_261_101, "a", "k"),
        key(202_611, "t", 20_261_101, "b", ""),
        key(202_611, "t", 20_261_102, "a", ""),
        key(202_611, "t", 20_261_110, "a", ""),
    ];
    for (number, at) in [(1_u32, 3), (2, 0), (3, 4), (4, 2), (5, 1), (6, 3), (7, 0), (8, 0)] {
        let key = in_order[at].clone();
        spend(f, number.into(), vec![(key, amounts(u64::from(number)))]).await;
    }
    spend(f, 9, vec![(key(202_612, "t", 20_261_201, "a", ""), amounts(50))]).await;
    spend(f, 10, vec![(key(202_611, "t2", 20_261_101, "a", ""), amounts(60))]).await;
    let sums = [(17, 3), (5, 1), (4, 1), (7, 2), (3, 1)];
    let lines = f.store.spend(202_611, "t".into()).await.unwrap();
    assert_eq!(lines.iter().map(|(key, _)| key.clone()).collect::<Vec<_>>(), in_order);
    for ((_, found), (sum, records)) in lines.iter().zip(sums) {
        let each = |more: u64| sum + more * records;
        let expected = SpendAmounts {
            cost_nanos: each(0),
            requests: each(1),
            input_tokens: each(2),
            cached_input_tokens: each(3),
            output_tokens: each(4),
            reasoning_tokens: each(5),
            audio_ms: each(6),
            characters: each(7),
        };
        assert_eq!(*found, expected);
    }
    assert_eq!(f.store.spend(202_612, "t".into()).await.unwrap().len(), 1);
    assert_eq!(f.store.spend(202_611, "nobody".into()).await.unwrap(), []);
}

async fn spenders_come_in_order_without_the_organization<S: Store>(f: &Fixture<S>) {
    assert_eq!(f.store.spenders(202_611).await.unwrap(), Vec::<Arc<str>>::new());
    for (number, team) in [(1, "zebra"), (2, "ant"), (3, ""), (4, "Ant"), (5, "ant"), (6, "ant-2")] {
        spend(f, number, vec![line(team, 1), line_of(202_611, "", 20_261_123, "model", "", 1)]).await;
    }
    spend(f, 7, vec![line_of(202_610, "older", 20_261_001, "model", "", 1)]).await;
    let names = |month| async move { f.store.spenders(month).await.unwrap() };
    assert_eq!(names(202_611).await, ["Ant", "ant", "ant-2", "zebra"].map(Arc::from));
    assert_eq!(names(202_610).await, ["older"].map(Arc::from));
    assert_eq!(names(202_612).await, Vec::<Arc<str>>::new());
}

/// Longer than what any store reads at once.
async fn a_long_report_is_whole_and_in_order<S: Store>(f: &Fixture<S>) {
    const KEYS: u64 = 1_000;
    for number in 0..10 {
        // Not in their order, and each twice.
        let keys = (0..KEYS / 5).map(|key| (key * 5 + number) % KEYS);
        let lines = keys.map(|key| line_of(202_611, "t", 20_261_101, "a", &format!("k{key:04}"), key));
        spend(f, u128::from(number), lines.collect()).await;
    }
    let lines = f.store.spend(202_611, "t".into()).await.unwrap();
    let read: Vec<_> = lines.iter().map(|(key, amounts)| (&*key.key, amounts.cost_nanos)).collect();
    let names: Vec<_> = (0..KEYS).map(|key| (format!("k{key:04}"), 2 * key)).collect();
    let expected: Vec<_> = names.iter().map(|(name, cost)| (name.as_str(), *cost)).collect();
    assert_eq!(read, expected);
}
