//! Any sequence of operations gets the same answers from the embedded store, from Redis and from the plain model.

use std::{cell::RefCell, collections::BTreeMap, fmt::Debug, path::PathBuf, sync::Arc};

use bytes::Bytes;
use proptest::{
    prelude::*,
    test_runner::{Config, FileFailurePersistence, TestRunner},
};
use tollgate::{
    domain::{
        MAX_AMOUNT, Timestamp,
        counter::{CounterKey, CounterKind, Hold},
        key::SecretId,
    },
    store::{
        Cooldown, CooldownChange, Extra, Record, RegistryRecord, RegistryWritten, ReservationId, Reserve,
        Reserved, Revision, SecretUse, SecretUses, Settle, SettleOutcome, SpendAmounts, SpendKey, Store,
        StoreError, USE_SLOT_MS, USE_SLOTS_KEPT, clock::ManualClock,
    },
};

use crate::{
    harness::{Fixture, START},
    model::Model,
};

/// Cases of one run of the tests; `PROPTEST_CASES` asks for more.
const CASES: u32 = 300;
/// Operations of one case: enough to fill, free, settle and forget.
const OPERATIONS: std::ops::Range<usize> = 10..100;

/// Slots of the counters: of a minute, of an hour, of a reservation's life, and of a length that divides none of them.
const SLOTS_MS: [u64; 4] = [1_000, 60_000, 10_000, 1_234];
const COUNTERS: usize = 8;
const IDS: u128 = 8;
const GATES: usize = 3;
const TEAMS: [&str; 4] = ["", "a", "b c", "ä|@"];

/// Where failures are kept, so that they are tried first ever after.
pub(crate) fn config(cases: u32, file: &str) -> Config {
    let asked = std::env::var("PROPTEST_CASES").ok().and_then(|text| text.parse().ok());
    let file = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/regressions")).join(file);
    let path: &'static str = Box::leak(file.to_str().unwrap().to_owned().into_boxed_str());
    Config {
        cases: asked.unwrap_or(cases),
        failure_persistence: Some(Box::new(FileFailurePersistence::Direct(path))),
        ..Config::default()
    }
}

#[derive(Clone, Debug)]
enum Operation {
    Reserve(Ask),
    Settle {
        id: u128,
        actual: Vec<u64>,
        /// Of budgets by number, and how much; those that are held already are left out.
        extras: Vec<(usize, u64)>,
        /// For every budget of the settlement.
        thresholds: Vec<u64>,
        lines: Vec<(usize, u32, u64)>,
        /// Which gate is closed for how long, or lifted.
        close: Option<(usize, Option<u64>)>,
        keep_ms: u64,
    },
    Find(u128),
    Counters,
    Cooldowns,
    Lift(usize),
    Spend {
        month: u32,
        team: usize,
    },
    Spenders(u32),
    /// Record, expected version, content.
    Write(u8, u64, u8),
    Registry,
    /// Secret, slot, requests.
    Use(u64, u32, u64),
    Uses,
    Clock(Step),
}

#[derive(Clone, Debug)]
struct Ask {
    id: u128,
    may_repeat: bool,
    fingerprint: u64,
    /// Counter, limit, kept, expiring.
    holds: Vec<(usize, u64, u64, u64)>,
    gates: Vec<usize>,
    /// Milliseconds before and after the present.
    valid: (u64, u64),
    ttl_ms: u64,
    late_ms: u64,
    note: Vec<u8>,
    dry_run: bool,
}

#[derive(Clone, Debug)]
enum Step {
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
fn counter(index: usize) -> (CounterKey, CounterKind) {
    let slot_ms = SLOTS_MS[index / 2 % SLOTS_MS.len()];
    let key = CounterKey::new(format!("counter {index}"));
    match index % 2 {
        0 => (key, CounterKind::Window { slot_ms }),
        _ => (key.in_period(20_261_101), CounterKind::Budget { slot_ms }),
    }
}

fn gate(index: usize) -> CounterKey {
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

fn operation() -> impl Strategy<Value = Operation> {
    let lines = prop::collection::vec((0..TEAMS.len(), 202_610..=202_612_u32, amount()), 0..3);
    let close = prop::option::weighted(
        0.5,
        (
            0..GATES,
            prop_oneof![3 => (0..=3_000_u64).prop_map(Some), 1 => Just(Some(86_400_000)), 2 => Just(None)],
        ),
    );
    let keep = prop_oneof![1 => Just(0_u64), 1 => 1..=100_u64, 4 => Just(600_000)];
    let actual = prop_oneof![20 => amount(), 1 => MAX_AMOUNT - 12..=MAX_AMOUNT];
    let extras = prop::collection::vec((0..COUNTERS / 2, amount()), 0..3);
    let thresholds = prop::collection::vec(1..40_u64, 0..4);
    let settle = (0..IDS + 1, prop::collection::vec(actual, 5), (extras, thresholds), lines, close, keep)
        .prop_map(|(id, actual, (mut extras, thresholds), mut lines, close, keep_ms)| {
            extras.sort_unstable();
            extras.dedup_by_key(|(budget, _)| *budget);
            // As the authorizer does: no line twice.
            lines.sort_unstable();
            lines.dedup_by_key(|(team, month, _)| (*team, *month));
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
        6 => settle,
        1 => (0..IDS).prop_map(Operation::Find),
        2 => Just(Operation::Counters),
        1 => Just(Operation::Cooldowns),
        1 => (0..GATES).prop_map(Operation::Lift),
        1 => (202_610..=202_612_u32, 0..TEAMS.len()).prop_map(|(month, team)| Operation::Spend { month, team }),
        1 => (202_610..=202_612_u32).prop_map(Operation::Spenders),
        2 => (0..3_u8, 0..6_u64, 0..3_u8).prop_map(|(name, expected, value)| Operation::Write(name, expected, value)),
        1 => Just(Operation::Registry),
        1 => (0..3_u64, 0..300_u32, 1..9_u64).prop_map(|(secret, slot, requests)| Operation::Use(secret, slot, requests)),
        1 => Just(Operation::Uses),
        6 => step.prop_map(Operation::Clock),
    ]
}

/// What a store answered.
#[derive(Debug, PartialEq)]
enum Answer {
    Reserved(Result<Reserved, StoreError>),
    Settled(Option<Record>, Result<SettleOutcome, StoreError>),
    Found(Result<Option<Record>, StoreError>),
    Counters(Result<Vec<tollgate::domain::counter::CounterState>, StoreError>),
    Cooldowns(Result<Vec<(CounterKey, Cooldown)>, StoreError>),
    Spend(Result<Vec<(SpendKey, SpendAmounts)>, StoreError>),
    Spenders(Result<Vec<Arc<str>>, StoreError>),
    Written(Result<RegistryWritten, StoreError>),
    Registry(Result<Vec<RegistryRecord>, StoreError>),
    Used(Result<(), StoreError>),
    Uses(Result<Vec<SecretUses>, StoreError>),
    Moved,
}

/// The note of settlements that leave their id free.
const FREE: &[u8] = b"free";

async fn apply<S: Store>(store: &S, operation: &Operation, now: Timestamp) -> Answer {
    match operation.clone() {
        Operation::Reserve(ask) => Answer::Reserved(store.reserve(reserve(ask, now)).await),
        Operation::Settle { id, actual, extras, thresholds, lines, close, keep_ms } => {
            let id = ReservationId(id.to_be_bytes());
            let record = store.find(id).await.unwrap();
            // Where nothing is known, what was known once is as good as anything.
            let known = record.clone().unwrap_or_else(nothing);
            let holds = known.holds.len();
            let extra = |(budget, amount)| {
                let (counter, kind) = counter(2 * budget + 1);
                Extra { counter, kind, amount }
            };
            let mut extras: Vec<Extra> = extras.into_iter().map(extra).collect();
            extras.retain(|extra| known.holds.iter().all(|hold| hold.counter != extra.counter));
            let all = known.holds.iter().map(|hold| hold.kind).chain(extras.iter().map(|extra| extra.kind));
            let budgets = all.enumerate().filter(|(_, kind)| matches!(kind, CounterKind::Budget { .. }));
            let thresholds = budgets.map(|(index, _)| (index, thresholds.clone())).collect();
            let lines = lines.into_iter().map(|(team, month, amount)| line(team, month, amount)).collect();
            let settle = Settle {
                id,
                record: known,
                actual: actual.into_iter().chain([1; 5]).take(holds).collect(),
                extras,
                thresholds,
                lines,
                cooldown: close.map(|(index, ms)| (gate(index), ms.map_or(CooldownChange::Lift, open))),
                keep_ms,
                note: Bytes::from_static(if keep_ms % 2 == 0 { FREE } else { b"settled" }),
            };
            Answer::Settled(record, store.settle(settle).await)
        }
        Operation::Find(id) => Answer::Found(store.find(ReservationId(id.to_be_bytes())).await),
        Operation::Counters => Answer::Counters(store.counters((0..COUNTERS).map(counter).collect()).await),
        Operation::Cooldowns => Answer::Cooldowns(store.cooldowns().await),
        Operation::Lift(index) => Answer::Cooldowns(store.lift_cooldowns(vec![gate(index)]).await),
        Operation::Spend { month, team } => Answer::Spend(store.spend(month, TEAMS[team].into()).await),
        Operation::Spenders(month) => Answer::Spenders(store.spenders(month).await),
        Operation::Write(name, expected, value) => {
            let value = vec![value; value.into()].into();
            Answer::Written(store.registry_write(format!("record {name}").into(), expected, value).await)
        }
        Operation::Registry => {
            let changes = store.registry_since(Revision::default()).await;
            Answer::Registry(changes.map(|changes| changes.records))
        }
        Operation::Use(secret, slot, requests) => {
            let last_used = Timestamp(u64::from(slot) * USE_SLOT_MS + 1);
            let added = SecretUse { secret: SecretId(secret), slot, requests, last_used };
            Answer::Used(store.add_uses(vec![added]).await)
        }
        Operation::Uses => {
            let uses = store.uses((0..3).map(SecretId).collect()).await;
            Answer::Uses(uses.map(|uses| uses.into_iter().map(recent).collect()))
        }
        Operation::Clock(_) => Answer::Moved,
    }
}

fn reserve(ask: Ask, now: Timestamp) -> Reserve {
    let hold = |(index, limit, kept, expiring)| {
        let (counter, kind) = counter(index);
        Hold { counter, kind, limit, kept, expiring }
    };
    Reserve {
        id: ReservationId(ask.id.to_be_bytes()),
        may_repeat: ask.may_repeat,
        fingerprint: ask.fingerprint,
        holds: ask.holds.into_iter().map(hold).collect(),
        gates: ask.gates.into_iter().map(gate).collect(),
        valid: Timestamp(now.0.saturating_sub(ask.valid.0))..now.plus(ask.valid.1),
        ttl_ms: ask.ttl_ms,
        late_ms: ask.late_ms,
        note: ask.note.into(),
        // What half of the settlements leave.
        replaces: Bytes::from_static(FREE),
        dry_run: ask.dry_run,
    }
}

/// Without what a store may have forgotten or not.
fn recent(mut uses: SecretUses) -> SecretUses {
    let newest = uses.slots.last().map_or(0, |(slot, _)| *slot);
    uses.slots.retain(|(slot, _)| slot + USE_SLOTS_KEPT >= newest);
    uses
}

fn nothing() -> Record {
    let (counter, kind) = counter(0);
    Record {
        fingerprint: 0,
        reserved_at: START,
        expires_at: START,
        holds: [Hold { counter, kind, limit: 1, kept: 0, expiring: 1 }].into(),
        note: Bytes::new(),
        settlement: None,
    }
}

fn open(length_ms: u64) -> CooldownChange {
    CooldownChange::Open { length_ms, requested_ms: length_ms / 2, reporter: TEAMS[1].into() }
}

fn line(team: usize, month: u32, amount: u64) -> (SpendKey, SpendAmounts) {
    let key = SpendKey {
        month,
        team: TEAMS[team].into(),
        day: month * 100 + 1,
        model: "m m".into(),
        key: "".into(),
    };
    (key, SpendAmounts { cost_nanos: amount, requests: 1, characters: amount / 2, ..SpendAmounts::default() })
}

fn moved(now: Timestamp, step: &Step) -> Timestamp {
    match step {
        Step::Forwards(ms) | Step::Ahead(ms) => now.plus(*ms),
        Step::Backwards(ms) => Timestamp(now.0 - ms),
        Step::ToBorder { counter: index, slots, off } => {
            let slot_ms = counter(*index).1.slot_ms();
            let border = (now.0 / slot_ms + slots) * slot_ms;
            Timestamp(border.saturating_add_signed(*off)).max(now)
        }
    }
}

/// Plays `operations` to a store and the model side by side.
async fn compare<S: Store>(
    name: &str,
    (store, clock): (&S, &ManualClock),
    operations: &[Operation],
    seen: &Seen,
) -> Result<(), TestCaseError> {
    let mut now = START;
    clock.set(now);
    let model_clock = ManualClock::new(now);
    let model = Model::new(model_clock.clone());
    for (index, operation) in operations.iter().enumerate() {
        if let Operation::Clock(step) = operation {
            now = moved(now, step);
            for clock in [clock, &model_clock] {
                match step {
                    Step::Ahead(_) => clock.step(now),
                    _ => clock.set(now),
                }
            }
        }
        let (expected, found) = (apply(&model, operation, now).await, apply(store, operation, now).await);
        seen.note(&expected);
        prop_assert_eq!(found, expected, "{} at operation {}: {:?} at {:?}", name, index, operation, now);
    }
    Ok(())
}

fn run(file: &str, play: impl Fn(Vec<Operation>, &Seen) -> Result<(), TestCaseError>) {
    let strategy = prop::collection::vec(operation(), OPERATIONS);
    let (config, seen) = (config(CASES, file), Seen::default());
    let cases = config.cases;
    let result = TestRunner::new(config).run(&strategy, |operations| play(operations, &seen));
    if let Err(error) = result {
        panic!("{error}");
    }
    // Sequences that never meet a limit would agree on nothing worth knowing.
    let seen = seen.0.into_inner();
    if cases < 100 {
        return;
    }
    println!("answers in {cases} cases: {seen:?}");
    for (answer, least_in_100) in KINDS {
        let times = seen.get(answer).copied().unwrap_or(0);
        assert!(
            times * 100 >= least_in_100 * cases,
            "`{answer}` came only {times} times in {cases} cases: {seen:?}"
        );
    }
}

/// The kinds of answers and how often each comes in a hundred cases at the least.
const KINDS: [(&str, u32); 11] = [
    ("granted", 100),
    ("refused for a while", 40),
    ("refused for ever", 50),
    ("closed", 15),
    ("repeated", 50),
    ("out of date", 20),
    ("settled", 50),
    ("a threshold reported", 20),
    ("already settled", 30),
    ("overflow", 3),
    ("a record written", 20),
];

/// How often each kind of answer came.
#[derive(Default)]
struct Seen(RefCell<BTreeMap<&'static str, u32>>);

impl Seen {
    fn note(&self, answer: &Answer) {
        let kinds: &[(&'static str, bool)] = match answer {
            Answer::Reserved(Ok(Reserved::Granted { .. })) => &[("granted", true)],
            Answer::Reserved(Ok(Reserved::Repeated(_))) => &[("repeated", true)],
            Answer::Reserved(Ok(Reserved::OutOfDate { .. })) => &[("out of date", true)],
            Answer::Reserved(Ok(Reserved::Refused { refusals, closed, .. })) => &[
                ("closed", !closed.is_empty()),
                ("refused for a while", refusals.iter().any(|refusal| refusal.frees_at.is_some())),
                ("refused for ever", refusals.iter().any(|refusal| refusal.frees_at.is_none())),
            ],
            Answer::Settled(_, Ok(SettleOutcome::Settled(settlement))) => {
                &[("settled", true), ("a threshold reported", !settlement.reported.is_empty())]
            }
            Answer::Settled(_, Ok(SettleOutcome::AlreadySettled(_))) => &[("already settled", true)],
            Answer::Written(Ok(RegistryWritten::Written { .. })) => &[("a record written", true)],
            Answer::Settled(_, Err(StoreError::Overflow)) => &[("overflow", true)],
            _ => &[],
        };
        for (kind, _) in kinds.iter().filter(|(_, holds)| *holds) {
            *self.0.borrow_mut().entry(kind).or_default() += 1;
        }
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

#[test]
fn the_embedded_store_answers_as_the_model_does() {
    let runtime = runtime();
    run("differential-embedded.txt", |operations, seen| {
        let fixture = Fixture::embedded();
        runtime.block_on(compare("embedded", (&fixture.store, &fixture.clock), &operations, seen))
    });
}

#[test]
fn redis_answers_as_the_model_does() {
    let runtime = runtime();
    let _entered = runtime.enter();
    if Fixture::redis().is_none() {
        return;
    }
    run("differential-redis.txt", |operations, seen| {
        let fixture = Fixture::redis().expect("there was one a moment ago");
        runtime.block_on(compare("redis", (&fixture.store, &fixture.clock), &operations, seen))
    });
}
