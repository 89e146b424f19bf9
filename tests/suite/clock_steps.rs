//! A wall clock that is set, forwards or backwards, by little or by much, forgets nothing and locks nothing. Windows, expiry and
//! cooldowns go by the time that has passed.

use bytes::Bytes;
use proptest::{prelude::*, test_runner::TestRunner};
use tollgate::{
    domain::{
        Timestamp,
        counter::{CounterKey, CounterKind, Hold},
    },
    store::{ReservationId, Reserve, Reserved, Settle, SettleOutcome, Store},
};

use crate::{
    differential::config,
    harness::{Fixture, START, Server, StoreKind, chat, connect_again, connect_again_at},
};

const SLOT_MS: u64 = 1_000;
const WINDOW_MS: u64 = 60 * SLOT_MS;
const DAY_MS: u64 = 86_400_000;
const TTL_MS: u64 = 600_000;
const LIMIT: u64 = 10;
const KIND: CounterKind = CounterKind::Window { slot_ms: SLOT_MS };

fn counter() -> CounterKey {
    CounterKey::new("window")
}

fn ask(number: u128, amount: u64) -> Reserve {
    Reserve {
        id: ReservationId(number.to_be_bytes()),
        may_repeat: true,
        fingerprint: 0,
        holds: vec![Hold { counter: counter(), kind: KIND, limit: LIMIT, kept: 0, expiring: amount }].into(),
        gates: vec![CounterKey::new("gate")],
        valid: Timestamp(0)..Timestamp(u64::MAX),
        ttl_ms: TTL_MS,
        late_ms: DAY_MS,
        note: Bytes::new(),
        replaces: Bytes::new(),
        dry_run: false,
    }
}

async fn is_granted<S: Store>(f: &Fixture<S>, number: u128, amount: u64) -> bool {
    match f.store.reserve(ask(number, amount)).await.unwrap() {
        Reserved::Granted { .. } => true,
        Reserved::Refused { .. } => false,
        other => panic!("{other:?}"),
    }
}

async fn settle<S: Store>(f: &Fixture<S>, number: u128, actual: u64) -> u64 {
    let id = ReservationId(number.to_be_bytes());
    let record = f.store.find(id).await.unwrap().expect("the reservation");
    let settle = Settle {
        id,
        record,
        actual: vec![actual],
        extras: vec![],
        thresholds: vec![],
        lines: vec![],
        max_rows: 0,
        cooldown: None,
        keep_ms: TTL_MS,
        note: Bytes::new(),
    };
    match f.store.settle(settle).await.unwrap() {
        SettleOutcome::Settled(settlement) => settlement.counters[0].after.used,
        other => panic!("{other:?}"),
    }
}

async fn used<S: Store>(f: &Fixture<S>) -> u64 {
    f.store.counters(vec![(counter(), KIND)]).await.unwrap()[0].used
}

/// Backwards in milliseconds where negative.
fn step<S: Store>(f: &Fixture<S>, by_ms: i64) {
    f.clock.step(Timestamp(f.clock.now().0.saturating_add_signed(by_ms)));
}

const STEPS_MS: [i64; 8] =
    [-11_000, -2 * 3_600_000, -500, 500, 120_000, 2 * 3_600_000, 25 * 3_600_000, 31 * 86_400_000];

/// What is taken is given back whatever the clock does in between, and nothing else is.
async fn a_step_takes_nothing_and_gives_nothing<S: Store>(f: &Fixture<S>) {
    for (number, by_ms) in (0..).step_by(10).zip(STEPS_MS) {
        assert!(is_granted(f, number, LIMIT).await, "{by_ms}");
        step(f, by_ms);
        assert!(!is_granted(f, number + 1, 1).await, "{by_ms}: nothing is forgotten");
        let repeated = f.store.reserve(ask(number, LIMIT)).await.unwrap();
        assert!(matches!(repeated, Reserved::Repeated(_)), "{by_ms}: {repeated:?}");
        assert_eq!(settle(f, number, 0).await, 0, "{by_ms}: all is given back");
        assert!(is_granted(f, number + 2, LIMIT).await, "{by_ms}");
        step(f, -by_ms);
        assert!(!is_granted(f, number + 3, 1).await, "{by_ms}: nor on the way back");
        assert_eq!(settle(f, number + 2, 0).await, 0, "{by_ms}");
    }
}

/// A clock that was ahead for a second does not lock a window for longer than the window.
async fn what_was_taken_under_a_wrong_clock_expires_in_time<S: Store>(f: &Fixture<S>) {
    for (number, by_ms) in (0..).step_by(10).zip(STEPS_MS) {
        step(f, by_ms);
        assert!(is_granted(f, number, LIMIT).await, "{by_ms}");
        f.clock.pass(1_000);
        step(f, -by_ms);
        f.clock.pass(WINDOW_MS - 1_000);
        assert!(!is_granted(f, number + 1, 1).await, "{by_ms}: it counts for a window");
        f.clock.pass(SLOT_MS);
        assert_eq!(used(f).await, 0, "{by_ms}: and no longer");
    }
}

#[tokio::test]
async fn steps_change_nothing_in_the_model() {
    a_step_takes_nothing_and_gives_nothing(&Fixture::model()).await;
    what_was_taken_under_a_wrong_clock_expires_in_time(&Fixture::model()).await;
}

#[tokio::test]
async fn steps_change_nothing_in_the_embedded_store() {
    a_step_takes_nothing_and_gives_nothing(&Fixture::embedded()).await;
    what_was_taken_under_a_wrong_clock_expires_in_time(&Fixture::embedded()).await;
}

#[tokio::test]
async fn steps_change_nothing_in_redis() {
    let (Some(one), Some(other)) = (Fixture::redis(), Fixture::redis()) else { return };
    a_step_takes_nothing_and_gives_nothing(&one).await;
    what_was_taken_under_a_wrong_clock_expires_in_time(&other).await;
}

#[tokio::test]
async fn a_restart_at_an_earlier_clock_locks_nothing() {
    let f = Fixture::embedded();
    assert!(is_granted(&f, 1, 4).await && is_granted(&f, 2, 6).await);
    settle(&f, 1, 4).await;
    step(&f, -2 * 3_600_000);
    let f = connect_again(f);
    assert!(!is_granted(&f, 3, 1).await);
    assert_eq!(settle(&f, 2, 0).await, 4, "the slot of the reservation is found");
    f.clock.pass(WINDOW_MS + SLOT_MS);
    assert_eq!(used(&f).await, 0);
}

#[tokio::test]
async fn a_clock_that_is_put_right_before_a_restart_forgets_nothing() {
    let f = Fixture::embedded();
    step(&f, -2 * 3_600_000);
    let f = connect_again(f);
    assert!(is_granted(&f, 1, LIMIT).await);
    step(&f, 2 * 3_600_000);
    let f = connect_again(f);
    assert!(!is_granted(&f, 2, 1).await, "the window has not passed");
    assert_eq!(settle(&f, 1, 3).await, 3, "the reservation is there");
    f.clock.pass(WINDOW_MS + SLOT_MS);
    assert_eq!(used(&f).await, 0);
}

#[tokio::test]
async fn a_sweep_under_a_clock_that_is_ahead_forgets_nothing() {
    let f = Fixture::embedded();
    assert!(is_granted(&f, 1, LIMIT).await);
    step(&f, 25 * 3_600_000);
    f.store.checkpoint().await.unwrap();
    step(&f, -25 * 3_600_000);
    f.store.checkpoint().await.unwrap();
    assert!(!is_granted(&f, 2, 1).await);
    assert_eq!(settle(&f, 1, 3).await, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_step_within_a_slot_changes_no_reset() {
    let policy = "[organization]\nid = \"acme\"\n[teams.chatbot]\nmodels = [\"openai/gpt-oss-20b\"]\nrequests_per_minute = 60\n";
    for store in [StoreKind::Embedded, StoreKind::Redis] {
        if !store.is_available() {
            continue;
        }
        let server = Server::start(store, policy, START).await;
        let mut client = server.client().await;
        let mut resets = async || {
            let answer = client.authorize(chat("chatbot", "openai/gpt-oss-20b", 10, 10)).await.unwrap();
            let limits = answer.into_inner().limits;
            assert!(!limits.is_empty(), "{store:?}");
            limits.iter().map(|limit| limit.reset_delay).collect::<Vec<_>>()
        };
        let before = resets().await;
        server.clock.step(START.plus(300));
        assert_eq!(resets().await, before, "{store:?}: no time has passed");
    }
}

#[derive(Clone, Debug)]
enum Event {
    Pass(u64),
    Step(i64),
    Reserve(u64),
    /// The open reservation at this place, with this much used.
    Settle(usize, u64),
    Sweep,
    /// The embedded store is closed, the clock set back by so much, and the store opened: at no later time, as a clock that is
    /// set forwards while the store is closed cannot be told from time that has passed.
    Restart(i64),
}

fn event() -> impl Strategy<Value = Event> {
    let far = 40 * 86_400_000_i64;
    let step = prop_oneof![3 => -2_000..2_000_i64, 2 => -200_000..200_000_i64, 2 => -far..far];
    prop_oneof![
        4 => prop_oneof![0..3_000_u64, 0..WINDOW_MS].prop_map(Event::Pass),
        4 => step.prop_map(Event::Step),
        8 => (1..=LIMIT).prop_map(Event::Reserve),
        5 => (0..8_usize, 0..=LIMIT).prop_map(|(place, actual)| Event::Settle(place, actual)),
        1 => Just(Event::Sweep),
        1 => prop_oneof![Just(0), -far..0].prop_map(Event::Restart),
    ]
}

/// What `fixture` comes to after one event that only it knows.
trait Special: Store + Sized {
    async fn sweep_now(fixture: Fixture<Self>) -> Fixture<Self>;
    /// The clock is set by so much in between.
    fn restart(fixture: Fixture<Self>, by_ms: i64) -> Fixture<Self>;
}

impl Special for tollgate::store::embedded::EmbeddedStore {
    async fn sweep_now(fixture: Fixture<Self>) -> Fixture<Self> {
        fixture.store.checkpoint().await.unwrap();
        fixture
    }

    fn restart(fixture: Fixture<Self>, by_ms: i64) -> Fixture<Self> {
        connect_again_at(fixture, by_ms)
    }
}

impl Special for tollgate::store::redis::RedisStore {
    async fn sweep_now(fixture: Fixture<Self>) -> Fixture<Self> {
        fixture.store.sweep(0, 1_000).await.unwrap();
        fixture
    }

    fn restart(fixture: Fixture<Self>, by_ms: i64) -> Fixture<Self> {
        step(&fixture, by_ms);
        fixture
    }
}

impl Special for crate::model::Model {
    async fn sweep_now(fixture: Fixture<Self>) -> Fixture<Self> {
        fixture
    }

    fn restart(fixture: Fixture<Self>, by_ms: i64) -> Fixture<Self> {
        step(&fixture, by_ms);
        fixture
    }
}

/// The most that was admitted in any window of true time; what was given back counts from then on no more.
fn most(admitted: &[(u64, u64)]) -> u64 {
    let in_window = |from: u64| -> u64 {
        let inside = admitted.iter().filter(|(at, _)| (from..=from + WINDOW_MS).contains(at));
        inside.map(|(_, amount)| amount).sum()
    };
    admitted.iter().map(|(at, _)| in_window(*at)).max().unwrap_or(0)
}

async fn play<S: Special>(mut f: Fixture<S>, events: &[Event]) -> Result<(), TestCaseError> {
    let true_ms = |f: &Fixture<S>| f.clock.monotonic().as_millis();
    let (mut admitted, mut open) = (Vec::new(), Vec::new());
    for (number, event) in (0..).zip(events) {
        match event {
            Event::Pass(ms) => f.clock.pass(*ms),
            Event::Step(by_ms) => step(&f, *by_ms),
            Event::Reserve(amount) => {
                if is_granted(&f, number, *amount).await {
                    open.push((number, *amount, admitted.len()));
                    admitted.push((true_ms(&f), *amount));
                }
            }
            Event::Settle(place, actual) if *place < open.len() => {
                let (number, amount, at) = open.swap_remove(*place);
                // What was never used may be admitted once more; what was used counts where it was admitted.
                let actual = (*actual).min(amount);
                settle(&f, number, actual).await;
                admitted[at].1 = actual;
            }
            Event::Settle(..) => {}
            Event::Sweep => f = S::sweep_now(f).await,
            Event::Restart(by_ms) => {
                f = S::restart(f, *by_ms);
            }
        }
        let most = most(&admitted);
        prop_assert!(most <= LIMIT, "{} of {} in one window: {:?}", most, LIMIT, admitted);
    }
    for (number, amount, _) in open {
        settle(&f, number, amount).await;
    }
    f.clock.pass(WINDOW_MS + SLOT_MS);
    prop_assert_eq!(used(&f).await, 0, "a fresh store has used nothing");
    prop_assert!(is_granted(&f, u128::MAX, LIMIT).await, "and grants everything");
    Ok(())
}

fn run<S: Special>(file: &str, cases: u32, fixture: impl Fn() -> Fixture<S>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let _entered = runtime.enter();
    let events = prop::collection::vec(event(), 1..60);
    let result = TestRunner::new(config(cases, file))
        .run(&events, |events| runtime.block_on(play(fixture(), &events)));
    if let Err(error) = result {
        panic!("{error}");
    }
}

#[test]
fn any_sequence_of_steps_keeps_the_model_right() {
    run("clock-steps-model.txt", 200, Fixture::model);
}

#[test]
fn any_sequence_of_steps_keeps_the_embedded_store_right() {
    run("clock-steps-embedded.txt", 100, Fixture::embedded);
}

#[test]
fn any_sequence_of_steps_keeps_redis_right() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let found = {
        let _entered = runtime.enter();
        Fixture::redis().is_some()
    };
    if found {
        run("clock-steps-redis.txt", 100, || Fixture::redis().expect("there was one a moment ago"));
    }
}
