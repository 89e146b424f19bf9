//! Any sequence of operations gets the same answers from the embedded store, from Redis and from the plain model.

mod answers;
mod operations;

use std::{cell::RefCell, collections::BTreeMap, path::PathBuf};

use answers::{Answer, apply};
use operations::{OPERATIONS, Operation, Step, counter, operation};
use proptest::{
    prelude::*,
    test_runner::{Config, FileFailurePersistence, TestRunner},
};
use tollgate::{
    domain::Timestamp,
    runtime::clock::ManualClock,
    store::{RegistryWritten, Reserved, SettleOutcome, Store, StoreError},
};

use crate::{
    harness::{Fixture, START},
    model::Model,
};

/// Cases of one run of the tests; `PROPTEST_CASES` asks for more.
const CASES: u32 = 300;

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
