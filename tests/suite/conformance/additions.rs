//! Rows that are added to without a settlement.

use std::sync::Arc;

use tollgate::{
    domain::MAX_AMOUNT,
    store::{MAX_ADDED_ROWS, Series, Store, StoreError, UsageAddition, UsageAmounts, UsageKey, UsageSet},
};

use super::{behaviours, line};
use crate::harness::Fixture;

behaviours! {
    an_addition_counts_once_for_each_number_of_its_source
    an_addition_is_whole_or_not_at_all
    teams_with_denials_come_in_order_by_month
    denials_beyond_the_bound_are_one_row_for_each_reason
    denials_of_long_ago_are_added_to
}

fn denial(
    series: Series,
    day: u32,
    team: &str,
    key: &str,
    value: &str,
    count: u64,
) -> (UsageKey, UsageAmounts) {
    let hour = if series == Series::DenialHours { 7 } else { 0 };
    let of_day = UsageKey::of_day(0, team.into(), day, "m".into(), key.into());
    let set = UsageSet { series, period: day, team: team.into() };
    let row = UsageKey { set, hour, value: value.into(), ..of_day };
    (row, UsageAmounts { requests: count, ..UsageAmounts::default() })
}

fn added(source: u8, number: u64, lines: Vec<(UsageKey, UsageAmounts)>) -> UsageAddition {
    UsageAddition { source: [source; 16], number, lines, max_rows: 2 }
}

/// The keys, values and counts of a day.
async fn read<S: Store>(f: &Fixture<S>, series: Series, day: u32) -> Vec<(String, String, u64)> {
    let rows = f.store.usage(UsageSet { series, period: day, team: "t".into() }).await.unwrap();
    let row = |(key, amounts): (UsageKey, UsageAmounts)| {
        (key.key.to_string(), key.value.to_string(), amounts.requests)
    };
    rows.into_iter().map(row).collect()
}

fn rows(expected: &[(&str, &str, u64)]) -> Vec<(String, String, u64)> {
    let row = |(key, value, count): &(&str, &str, u64)| ((*key).to_owned(), (*value).to_owned(), *count);
    expected.iter().map(row).collect()
}

const DAY: u32 = 20_261_123;

async fn an_addition_counts_once_for_each_number_of_its_source<S: Store>(f: &Fixture<S>) {
    let one = |series| denial(series, DAY, "t", "k", "paused|", 1);
    let both = || vec![one(Series::Denials), one(Series::DenialHours)];
    for (source, number, sum) in [(1, 1, 1), (1, 1, 1), (1, 2, 2), (2, 1, 3), (1, 1, 3), (2, 1, 3), (1, 3, 4)]
    {
        f.store.add_usage(added(source, number, both())).await.unwrap();
        for series in [Series::Denials, Series::DenialHours] {
            assert_eq!(read(f, series, DAY).await, rows(&[("k", "paused|", sum)]), "{source} {number}");
        }
    }
    // Rows of one addition with the same key are one.
    f.store.add_usage(added(1, 4, vec![one(Series::Denials), one(Series::Denials)])).await.unwrap();
    assert_eq!(read(f, Series::Denials, DAY).await, rows(&[("k", "paused|", 6)]));
}

async fn an_addition_is_whole_or_not_at_all<S: Store>(f: &Fixture<S>) {
    f.store
        .add_usage(added(1, 1, vec![denial(Series::Denials, DAY, "t", "k", "paused|", MAX_AMOUNT)]))
        .await
        .unwrap();
    let more = || {
        vec![
            denial(Series::Denials, DAY, "t", "j", "paused|", 1),
            denial(Series::Denials, DAY, "t", "k", "paused|", 1),
        ]
    };
    assert_eq!(f.store.add_usage(added(1, 2, more())).await, Err(StoreError::Overflow));
    assert_eq!(read(f, Series::Denials, DAY).await, rows(&[("k", "paused|", MAX_AMOUNT)]));
    let too_many = (0..=MAX_ADDED_ROWS).map(|n| denial(Series::Denials, DAY, "t", &n.to_string(), "x|", 1));
    let too_many = UsageAddition { max_rows: 1_000, ..added(1, 3, too_many.collect()) };
    assert_eq!(f.store.add_usage(too_many).await, Err(StoreError::Overflow));
    // It did not take its number.
    f.store.add_usage(added(1, 2, vec![denial(Series::Denials, DAY, "t", "j", "paused|", 1)])).await.unwrap();
    assert_eq!(read(f, Series::Denials, DAY).await.len(), 2);
}

async fn teams_with_denials_come_in_order_by_month<S: Store>(f: &Fixture<S>) {
    let of = |day, team: &str| denial(Series::Denials, day, team, "", "paused|", 1);
    let rows =
        vec![of(DAY, "zebra"), of(20_261_101, "ant"), of(DAY, "ant"), of(DAY, ""), of(20_261_031, "older")];
    f.store.add_usage(added(1, 1, rows)).await.unwrap();
    f.store
        .add_usage(added(1, 2, vec![denial(Series::DenialHours, DAY, "hours", "", "x|", 1)]))
        .await
        .unwrap();
    let teams = |month| async move { f.store.denied(month).await.unwrap() };
    assert_eq!(teams(202_611).await, ["ant", "zebra"].map(Arc::from));
    assert_eq!(teams(202_610).await, ["older"].map(Arc::from));
    assert_eq!(teams(202_612).await, Vec::<Arc<str>>::new());
    // They have spent nothing, and teams that spent were not denied.
    assert_eq!(f.store.spenders(202_611).await.unwrap(), Vec::<Arc<str>>::new());
    f.store.add_usage(added(1, 3, vec![line("spender", 1)])).await.unwrap();
    assert_eq!(f.store.spenders(202_611).await.unwrap(), ["spender"].map(Arc::from));
    assert_eq!(teams(202_611).await, ["ant", "zebra"].map(Arc::from));
}

async fn denials_beyond_the_bound_are_one_row_for_each_reason<S: Store>(f: &Fixture<S>) {
    let of = |series, key: &str, value: &str| denial(series, DAY, "t", key, value, 1);
    let all = [
        ("a", "paused|"),
        ("b", "paused|x|y"),
        ("c", "paused|"),
        ("d", "paused|"),
        ("c", "invalid_key|"),
        ("a", "paused|"),
    ];
    let lines = all.map(|(key, value)| of(Series::Denials, key, value));
    f.store.add_usage(added(1, 1, lines.to_vec())).await.unwrap();
    f.store.add_usage(added(1, 2, vec![of(Series::Denials, "e", "paused|")])).await.unwrap();
    let expected = [
        ("(other)", "invalid_key|(other)", 1),
        ("(other)", "paused|(other)", 3),
        ("a", "paused|", 2),
        ("b", "paused|x|y", 1),
    ];
    let mut found = read(f, Series::Denials, DAY).await;
    found.sort();
    assert_eq!(found, rows(&expected));
    // A day of hours has room for 24 times as many.
    let hours = (0..50).map(|n| of(Series::DenialHours, &format!("k{n:02}"), "paused|"));
    f.store.add_usage(added(1, 3, hours.collect())).await.unwrap();
    let found = read(f, Series::DenialHours, DAY).await;
    assert_eq!((found.len(), &found[0]), (49, &rows(&[("(other)", "paused|(other)", 2)])[0]));
}

async fn denials_of_long_ago_are_added_to<S: Store>(f: &Fixture<S>) {
    for (number, days) in [(1, 0), (2, 5), (3, 70)] {
        f.at(days * 86_400_000);
        f.store
            .add_usage(added(1, number, vec![denial(Series::Denials, DAY, "t", "k", "paused|", 1)]))
            .await
            .unwrap();
        assert_eq!(read(f, Series::Denials, DAY).await, rows(&[("k", "paused|", number)]));
        assert_eq!(f.store.denied(202_611).await.unwrap(), ["t"].map(Arc::from));
    }
}
