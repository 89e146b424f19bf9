//! Operations of any kind, mostly of the kinds that meet a limit.

use std::fmt::Debug;

use proptest::prelude::*;
use tollgate::domain::{
    MAX_AMOUNT,
    counter::{CounterKey, CounterKind},
};

/// Operations of one case: enough to fill, free, settle and forget.
pub(super) const OPERATIONS: std::ops::Range<usize> = 10..100;

/// Slots of the counters: of a minute, of an hour, of a reservation's life, and of a length that divides none of them.
const SLOTS_MS: [u64; 4] = [1_000, 60_000, 10_000, 1_234];
pub(super) const COUNTERS: usize = 8;
const IDS: u128 = 8;
const GATES: usize = 3;
/// Rows of days, of hours, of users, of a label, and of denials by day and by hour; see `answers::set`.
const SERIES: usize = 6;
pub(super) const TEAMS: [&str; 4] = ["", "a", "b c", "ä|@"];

#[derive(Clone, Debug)]
pub(super) enum Operation {
    Reserve(Ask),
    Settle {
        id: u128,
        actual: Vec<u64>,
        /// Of budgets by number, and how much; those that are held already are left out.
        extras: Vec<(usize, u64)>,
        /// For every budget of the settlement.
        thresholds: Vec<u64>,
        /// Series, team, month, amount.
        lines: Vec<(usize, usize, u32, u64)>,
        /// Which gate is closed for how long, or lifted.
        close: Option<(usize, Option<u64>)>,
        keep_ms: u64,
    },
    Find(u128),
    Counters,
    Cooldowns,
    Lift(usize),
    Usage {
        series: usize,
        team: usize,
        month: u32,
    },
    Spenders(u32),
    Add {
        source: u8,
        number: u64,
        /// As of a settlement.
        lines: Vec<(usize, usize, u32, u64)>,
    },
    Denied(u32),
    /// Record, expected version, content.
    Write(u8, u64, u8),
    Registry,
    /// Secret, slot, requests.
    Use(u64, u32, u64),
    Uses,
    Clock(Step),
}

#[derive(Clone, Debug)]
pub(super) struct Ask {
    pub(super) id: u128,
    pub(super) may_repeat: bool,
    pub(super) fingerprint: u64,
    /// Counter, limit, kept, expiring.
    pub(super) holds: Vec<(usize, u64, u64, u64)>,
    pub(super) gates: Vec<usize>,
    /// Milliseconds before and after the present.
    pub(super) valid: (u64, u64),
    pub(super) ttl_ms: u64,
    pub(super) late_ms: u64,
    pub(super) note: Vec<u8>,
    pub(super) dry_run: bool,
}

#[derive(Clone, Debug)]
pub(super) enum Step {
    Forwards(u64),
    /// To the border of a slot of this counter so many slots on, and so many milliseconds past (or before) it.
    ToBorder {
        counter: usize,
        slots: u64,
        off: i64,
    },
    Backwards(u64),
    /// The wall clock alone, with no time passing.
    Ahead(u64),
}

/// Counter `index`: windows are even, budgets odd.
pub(super) fn counter(index: usize) -> (CounterKey, CounterKind) {
    let slot_ms = SLOTS_MS[index / 2 % SLOTS_MS.len()];
    let key = CounterKey::new(format!("counter {index}"));
    match index % 2 {
        0 => (key, CounterKind::Window { slot_ms }),
        _ => (key.in_period(20_261_101), CounterKind::Budget { slot_ms }),
    }
}

pub(super) fn gate(index: usize) -> CounterKey {
    CounterKey::new(format!("gate/{index}"))
}

/// Mostly small, so that limits are met and left again; now and then at the end of what a counter can hold.
fn amount() -> impl Strategy<Value = u64> {
    prop_oneof![
        60 => 0..=8_u64,
        1 => MAX_AMOUNT - 12..=MAX_AMOUNT,
        1 => 0..=MAX_AMOUNT,
    ]
}

fn limit() -> impl Strategy<Value = u64> {
    prop_oneof![10 => 10..=30_u64, 1 => 0..=10_u64, 3 => Just(MAX_AMOUNT), 1 => 0..=MAX_AMOUNT]
}

fn ask() -> impl Strategy<Value = Ask> {
    let hold = (0..COUNTERS, limit(), amount(), amount());
    let valid = prop_oneof![8 => Just((1, 1)), 1 => Just((1, 0)), 1 => Just((0, 5_000)), 1 => Just((u64::MAX, u64::MAX))];
    let times = (
        prop_oneof![1 => Just(0_u64), 1 => 1..=100_u64, 6 => Just(600_000)],
        prop_oneof![1 => Just(0_u64), 1 => 1..=100_u64, 4 => Just(60_000)],
    );
    (
        (0..IDS, prop::bool::weighted(0.6), 0..3_u64, prop::collection::vec(hold, 0..5)),
        (
            prop::collection::vec(0..GATES, 0..3),
            valid,
            times,
            prop::collection::vec(any::<u8>(), 0..9),
            prop::bool::weighted(0.1),
        ),
    )
        .prop_map(
            |((id, may_repeat, fingerprint, mut holds), (gates, valid, (ttl_ms, late_ms), note, dry_run))| {
                let mut taken = [false; COUNTERS];
                holds.retain_mut(|(index, _, kept, expiring)| {
                    // A window keeps nothing, and no hold is larger than the largest amount.
                    *kept = if *index % 2 == 0 { 0 } else { *kept };
                    *expiring = (*expiring).min(MAX_AMOUNT - *kept);
                    !std::mem::replace(&mut taken[*index], true)
                });
                Ask { id, may_repeat, fingerprint, holds, gates, valid, ttl_ms, late_ms, note, dry_run }
            },
        )
}

pub(super) fn operation() -> impl Strategy<Value = Operation> {
    let lines = || prop::collection::vec((0..SERIES, 0..TEAMS.len(), 202_610..=202_612_u32, amount()), 0..4);
    let (lines, more_lines) = (lines(), lines());
    let close = prop::option::weighted(
        0.5,
        (
            0..GATES,
            prop_oneof![3 => (0..=3_000_u64).prop_map(Some), 1 => Just(Some(86_400_000)), 2 => Just(None)],
        ),
    );
    let keep = prop_oneof![1 => Just(0_u64), 1 => 1..=100_u64, 8 => Just(600_000)];
    let actual = prop_oneof![20 => amount(), 1 => MAX_AMOUNT - 12..=MAX_AMOUNT];
    let extras = prop::collection::vec((0..COUNTERS / 2, amount()), 0..3);
    let thresholds = prop::collection::vec(1..40_u64, 0..4);
    let settle = (0..IDS + 1, prop::collection::vec(actual, 5), (extras, thresholds), lines, close, keep)
        .prop_map(|(id, actual, (mut extras, thresholds), mut lines, close, keep_ms)| {
            extras.sort_unstable();
            extras.dedup_by_key(|(budget, _)| *budget);
            // As the authorizer does: no line twice.
            lines.sort_unstable();
            lines.dedup_by_key(|(series, team, month, _)| (*series, *team, *month));
            Operation::Settle { id, actual, extras, thresholds, lines, close, keep_ms }
        });
    let step = prop_oneof![
        4 => (0..2_000_u64).prop_map(Step::Forwards),
        4 => (0..COUNTERS, prop_oneof![0..3_u64, 58..63_u64], -1..=1_i64)
            .prop_map(|(counter, slots, off)| Step::ToBorder { counter, slots, off }),
        1 => (0..10_000_000_u64).prop_map(Step::Forwards),
        1 => (0..100_000_u64).prop_map(Step::Backwards),
        1 => prop_oneof![0..2_000_u64, 0..10_000_000_u64].prop_map(Step::Ahead),
    ];
    prop_oneof![
        10 => ask().prop_map(Operation::Reserve),
        7 => settle,
        1 => (0..IDS).prop_map(Operation::Find),
        2 => Just(Operation::Counters),
        1 => Just(Operation::Cooldowns),
        1 => (0..GATES).prop_map(Operation::Lift),
        2 => (0..SERIES, 0..TEAMS.len(), 202_610..=202_612_u32)
            .prop_map(|(series, team, month)| Operation::Usage { series, team, month }),
        1 => (202_610..=202_612_u32).prop_map(Operation::Spenders),
        2 => (0..2_u8, 1..9_u64, more_lines).prop_map(|(source, number, lines)| Operation::Add { source, number, lines }),
        1 => (202_610..=202_612_u32).prop_map(Operation::Denied),
        2 => (0..3_u8, 0..6_u64, 0..3_u8).prop_map(|(name, expected, value)| Operation::Write(name, expected, value)),
        1 => Just(Operation::Registry),
        1 => (0..3_u64, 0..300_u32, 1..9_u64).prop_map(|(secret, slot, requests)| Operation::Use(secret, slot, requests)),
        1 => Just(Operation::Uses),
        6 => step.prop_map(Operation::Clock),
    ]
}
