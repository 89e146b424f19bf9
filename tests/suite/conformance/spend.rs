//! Lines of spend, and reports of them.

use std::sync::Arc;

use tollgate::{
    domain::MAX_AMOUNT,
    store::{
        OTHER_VALUE, Series, Settle, SettleOutcome, Store, StoreError, USAGE_AMOUNTS, UsageAmounts, UsageKey,
        UsageSet,
    },
};

use super::{ask, behaviours, granted, line, line_of, rate, settling, state};
use crate::harness::Fixture;

behaviours! {
    spend_lines_past_the_largest_amount_change_nothing
    spend_lines_add_up_and_come_in_order
    spenders_come_in_order_without_the_organization
    a_long_report_is_whole_and_in_order
    sets_of_rows_are_apart_and_in_order
    rows_of_users_beyond_the_bound_are_one
    a_set_of_long_ago_keeps_its_bound
    several_sets_are_read_at_once
}

async fn spend<S: Store>(f: &Fixture<S>, number: u128, lines: Vec<(UsageKey, UsageAmounts)>) {
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
    let amounts = |n: u64| {
        let numbers: Vec<u64> = (n..).take(USAGE_AMOUNTS).collect();
        UsageAmounts::from_numbers(&numbers)
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
        let expected: Vec<u64> = (0..).map(each).take(USAGE_AMOUNTS).collect();
        assert_eq!(found.to_numbers().to_vec(), expected);
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

fn set(series: Series, period: u32) -> UsageSet {
    UsageSet { series, period, team: "t".into() }
}

/// A row with all dimensions.
fn row(series: Series, hour: u8, value: &str, cost: u64) -> (UsageKey, UsageAmounts) {
    let period = if series.is_monthly() { 202_611 } else { 20_261_123 };
    let (key, amounts) = line_of(202_611, "t", 20_261_123, "m", "k", cost);
    let (operation, service_tier) = UsageKey::of_codes([2, 3]);
    let set = set(series, period);
    (
        UsageKey { set, hour, value: value.into(), operation, service_tier, project: "p".into(), ..key },
        amounts,
    )
}

async fn sets_of_rows_are_apart_and_in_order<S: Store>(f: &Fixture<S>) {
    let label = |name: &str| Series::Label(name.into());
    let rows = vec![
        row(Series::Days, 0, "", 1),
        row(Series::Hours, 24, "", 2),
        row(Series::Hours, 3, "", 3),
        row(Series::Hours, 10, "", 4),
        row(Series::Users, 0, "u|1", 5),
        row(label("a"), 0, "x", 6),
        row(label("ab"), 0, "x", 7),
    ];
    for number in 1..=2 {
        spend(f, number, rows.clone()).await;
    }
    let twice = |(key, amounts): (UsageKey, UsageAmounts)| {
        let mut sum = amounts;
        sum.add(&amounts);
        (key, sum)
    };
    let read = |series, period| f.store.usage(set(series, period));
    let expected = |places: &[usize]| places.iter().map(|at| twice(rows[*at].clone())).collect::<Vec<_>>();
    assert_eq!(read(Series::Days, 202_611).await.unwrap(), expected(&[0]));
    assert_eq!(read(Series::Hours, 20_261_123).await.unwrap(), expected(&[2, 3, 1]));
    assert_eq!(read(Series::Users, 20_261_123).await.unwrap(), expected(&[4]));
    assert_eq!(read(label("a"), 20_261_123).await.unwrap(), expected(&[5]));
    assert_eq!(read(label("ab"), 20_261_123).await.unwrap(), expected(&[6]));
    assert_eq!(read(label("b"), 20_261_123).await.unwrap(), []);
    assert_eq!(read(Series::Hours, 20_261_124).await.unwrap(), []);
    assert_eq!(f.store.spenders(202_611).await.unwrap(), ["t"].map(Arc::from));
}

/// The values and costs of users on a day.
async fn users<S: Store>(f: &Fixture<S>) -> Vec<(String, u64)> {
    let rows = f.store.usage(set(Series::Users, 20_261_123)).await.unwrap();
    rows.iter().map(|(key, amounts)| (key.value.to_string(), amounts.cost_nanos)).collect()
}

async fn rows_of_users_beyond_the_bound_are_one<S: Store>(f: &Fixture<S>) {
    // Those of one settlement, those of later ones, and those that are there already.
    for (number, values) in [(1, ["a", "b"]), (2, ["c", "d"]), (3, ["d", "a"]), (4, [OTHER_VALUE, "e"])] {
        granted(f, ask(number, vec![rate("spending", MAX_AMOUNT, 1)])).await;
        let lines = values.into_iter().map(|value| row(Series::Users, 0, value, 1)).collect();
        let settle = Settle { lines, max_rows: 3, ..settling(f, number, &[1]).await };
        assert!(matches!(f.store.settle(settle).await.unwrap(), SettleOutcome::Settled(_)));
    }
    let sums = [(OTHER_VALUE, 4), ("a", 2), ("b", 1), ("c", 1)];
    assert_eq!(users(f).await, sums.map(|(value, cost)| (value.to_owned(), cost)));
}

/// As that of a batch which is reported days after it was authorized: the rows may not be in memory any more.
async fn a_set_of_long_ago_keeps_its_bound<S: Store>(f: &Fixture<S>) {
    for (number, value) in [(1_u32, "a"), (2, "b"), (3, "c"), (4, "a")] {
        granted(f, ask(number.into(), vec![rate("spending", MAX_AMOUNT, 1)])).await;
        let lines = vec![row(Series::Users, 0, value, 1), row(Series::Hours, 7, "", 1)];
        let settle = Settle { lines, max_rows: 1, ..settling(f, number.into(), &[1]).await };
        assert!(matches!(f.store.settle(settle).await.unwrap(), SettleOutcome::Settled(_)));
        f.at(u64::from(number) * 5 * 86_400_000);
    }
    assert_eq!(users(f).await, [("(other)".to_owned(), 2), ("a".to_owned(), 2)]);
    let hours = f.store.usage(set(Series::Hours, 20_261_123)).await.unwrap();
    assert_eq!(
        hours,
        [row(Series::Hours, 7, "", 4)].map(|(key, amounts)| (key, UsageAmounts { requests: 4, ..amounts }))
    );
}

/// More sets, and more rows of one, than a store reads at once; and sets without rows in between.
async fn several_sets_are_read_at_once<S: Store>(f: &Fixture<S>) {
    let of_team = |team: u32, series: Series, rows: u64| {
        let key = |number: u64| {
            let (key, amounts) = row(series.clone(), 0, "", number + 1);
            let set = UsageSet { team: format!("t{team:03}").into(), ..key.set };
            (UsageKey { set, key: format!("k{number:04}").into(), ..key }, amounts)
        };
        (0..rows).map(key).collect::<Vec<_>>()
    };
    let (mut sets, mut expected) = (Vec::new(), Vec::new());
    for team in 0..150_u32 {
        let series = if team % 2 == 0 { Series::Days } else { Series::Hours };
        let rows = match team {
            _ if team % 5 == 0 => 0,
            77 => 1_500,
            _ => u64::from(team % 7) * 30,
        };
        let lines = of_team(team, series.clone(), rows);
        let period = if series.is_monthly() { 202_611 } else { 20_261_123 };
        sets.push(UsageSet { series, period, team: format!("t{team:03}").into() });
        for (part, lines) in (0..).zip(lines.chunks(400)) {
            spend(f, u128::from(team) * 10 + part, lines.to_vec()).await;
        }
        expected.push(lines);
    }
    assert_eq!(f.store.usage_of(&[]).await.unwrap(), Vec::<Vec<_>>::new());
    let (mut left, mut together) = (sets.as_slice(), Vec::new());
    while !left.is_empty() {
        let read = f.store.usage_of(left).await.unwrap();
        assert!(!read.is_empty() && read.len() <= left.len());
        left = &left[read.len()..];
        together.extend(read);
    }
    assert!(together == expected);
}
