//! Values of fields, each with whether the contract permits it.

use std::collections::BTreeSet;

use proptest::{prelude::*, sample::select};
use prost_types::Duration as WireDuration;
use tonic::{Code, Status};

use super::{fields_of, is_clean};

/// The most of one request.
pub(super) const TOKENS: i64 = 100_000_000;
pub(super) const AUDIO_SECONDS: i64 = 100 * 3600;

/// A value and whether the contract permits it.
pub(super) type Judged<T> = (T, bool);

pub(super) fn count(most: i64) -> impl Strategy<Value = Judged<i64>> {
    select(vec![
        (0, true),
        (1, true),
        (most, true),
        (most + 1, false),
        (-1, false),
        (i64::MAX, false),
        (i64::MIN, false),
    ])
}

pub(super) fn text(least: usize, most: usize, good: &'static str) -> impl Strategy<Value = Judged<String>> {
    let of = |n: usize| "x".repeat(n);
    let mut values = vec![(good.to_owned(), true); 6];
    values.extend([
        (String::new(), least == 0),
        (of(most), true),
        (of(most + 1), false),
        (of(9_000), false),
        ("é".repeat(most / 2), true),
        ("a\0b".to_owned(), false),
        ("a\nb".to_owned(), false),
        ("\u{1b}[31m".to_owned(), false),
        ("\u{85}".to_owned(), false),
        ("🦀 {}%s'\"\\ $(x) ../..".to_owned(), true),
        (format!("{good}*"), true),
    ]);
    select(values)
}

pub(super) fn duration(most_seconds: i64) -> impl Strategy<Value = Judged<Option<WireDuration>>> {
    let of = |seconds, nanos| Some(WireDuration { seconds, nanos });
    select(vec![
        (None, true),
        (of(0, 0), true),
        (of(0, 1), true),
        (of(most_seconds, 0), true),
        (of(most_seconds, 1), false),
        (of(-1, 0), false),
        (of(0, -1), false),
        (of(i64::MAX, 999_999_999), false),
        (of(i64::MIN, -999_999_999), false),
        (of(i64::MAX, i32::MAX), false),
        (of(i64::MIN, i32::MIN), false),
    ])
}

/// An enum's value: those it has, and those it has not.
pub(super) fn variant(last: i32, unspecified_is_good: bool) -> impl Strategy<Value = Judged<i32>> {
    prop_oneof![
        6 => (1..=last).prop_map(|value| (value, true)),
        1 => Just((0, unspecified_is_good)),
        1 => select(vec![(last + 1, false), (-1, false), (i32::MAX, false), (i32::MIN, false)]),
    ]
}

/// The fields that are not as the contract permits.
pub(super) fn bad(judged: &[(&str, bool)]) -> BTreeSet<String> {
    judged.iter().filter(|(_, good)| !good).map(|(field, _)| (*field).to_owned()).collect()
}

/// With bad fields, `INVALID_ARGUMENT` that names just these; without, anything that is clean.
pub(super) fn names_just<T>(answer: Result<T, Status>, bad: &BTreeSet<String>) -> Result<(), TestCaseError> {
    match answer {
        Ok(_) => prop_assert!(bad.is_empty(), "accepted in spite of {:?}", bad),
        Err(status) => {
            is_clean(&status)?;
            prop_assert_eq!(status.code() == Code::InvalidArgument, !bad.is_empty(), "{:?}", status);
            prop_assert_eq!(&fields_of(&status), bad);
        }
    }
    Ok(())
}
