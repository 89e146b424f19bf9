//! What a sliding window promises: never more than the limit in any interval of its length; a denial only where admitting
//! would break that, give or take a slot; and an instant to come back at that is true to the millisecond.

use bytes::Bytes;
use proptest::{prelude::*, test_runner::TestRunner};
use tollgate::store::Ledger as _;
use tollgate::{
    domain::{
        Timestamp,
        counter::{CounterKey, CounterKind, Hold},
    },
    rpc::proto::{self, policy_service_client::PolicyServiceClient},
    store::{Refusal, ReservationId, Reserve, Reserved, embedded::EmbeddedStore},
};
use tonic::transport::Channel;

use crate::{
    differential::config,
    harness::{Fixture, START, Server, StoreKind, chat},
};

const SLOTS: u64 = 60;
const CASES_IN_THE_STORE: u32 = 200;
const CASES_OVER_GRPC: u32 = 25;

/// What was admitted, and when.
type Admitted = Vec<(Timestamp, u64)>;

/// The most in any closed interval of `length`: it begins with an admission, for moving it to the next loses nothing.
fn most_in_any(admitted: &Admitted, length: u64) -> u64 {
    let sum_from = |begin: Timestamp| -> u64 {
        admitted
            .iter()
            .filter(|(at, _)| (begin..=begin.plus(length)).contains(at))
            .map(|(_, amount)| amount)
            .sum()
    };
    admitted.iter().map(|(at, _)| sum_from(*at)).max().unwrap_or(0)
}

/// What was admitted in the `length` before `now`.
fn in_the_last(admitted: &Admitted, now: Timestamp, length: u64) -> u64 {
    admitted.iter().filter(|(at, _)| at.plus(length) > now).map(|(_, amount)| amount).sum()
}

#[test]
fn the_oracle_sees_a_breach() {
    let admitted = [(0, 3), (59_999, 3), (60_000, 3), (60_001, 1)].map(|(at, n)| (Timestamp(at), n)).to_vec();
    assert_eq!(most_in_any(&admitted, 60_000), 9);
    assert_eq!(most_in_any(&admitted, 59_998), 7);
    assert_eq!(in_the_last(&admitted, Timestamp(61_000), 1_001), 4);
    assert_eq!(in_the_last(&admitted, Timestamp(61_000), 1_000), 1);
}

/// Waits that fall within a slot, around its borders, and around the window's.
fn wait(slot_ms: u64) -> impl Strategy<Value = u64> {
    let window = SLOTS * slot_ms;
    prop_oneof![
        4 => 0..=slot_ms / 4,
        3 => 0..=3 * slot_ms,
        2 => slot_ms - 1..=slot_ms + 1,
        2 => 0..=window / 4,
        1 => window - 1..=window + 1,
        1 => window + slot_ms - 1..=window + slot_ms + 1,
    ]
}

#[test]
fn a_window_holds_in_every_interval_and_denies_only_in_need() {
    let case =
        prop_oneof![Just(1_000_u64), Just(60_000), Just(1_440_000), Just(7)].prop_flat_map(|slot_ms| {
            let request = (wait(slot_ms), prop_oneof![5 => 1..=4_u64, 1 => 1..=40_u64]);
            (Just(slot_ms), 0..10 * slot_ms, 1..=30_u64, prop::collection::vec(request, 1..120))
        });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let result = TestRunner::new(config(CASES_IN_THE_STORE, "windows-store.txt")).run(
        &case,
        |(slot_ms, offset, limit, requests)| {
            let fixture = Fixture::embedded();
            fixture.at(offset);
            runtime.block_on(hold_the_window(&fixture, slot_ms, limit, &requests))
        },
    );
    if let Err(error) = result {
        panic!("{error}");
    }
}

async fn hold_the_window(
    f: &Fixture<EmbeddedStore>,
    slot_ms: u64,
    limit: u64,
    requests: &[(u64, u64)],
) -> Result<(), TestCaseError> {
    let window = SLOTS * slot_ms;
    let mut admitted = Admitted::new();
    for (number, (wait, amount)) in requests.iter().enumerate() {
        let now = f.clock.now().plus(*wait);
        f.clock.set(now);
        let request = |dry_run| one_hold(number, slot_ms, limit, *amount, dry_run);
        match f.store.reserve(request(false)).await.unwrap() {
            Reserved::Granted { .. } => {
                admitted.push((now, *amount));
                let most = most_in_any(&admitted, window);
                prop_assert!(most <= limit, "{} of {} in one window: {:?}", most, limit, admitted);
            }
            Reserved::Refused { refusals, .. } => {
                let recent = in_the_last(&admitted, now, window + slot_ms);
                prop_assert!(
                    recent + amount > limit,
                    "{} denied without need after {:?} at {:?}",
                    amount,
                    admitted,
                    now
                );
                let Refusal { frees_at, .. } = refusals[0];
                prop_assert_eq!(frees_at.is_none(), *amount > limit);
                if let Some(at) = frees_at {
                    f.clock.travel(Timestamp(at.0 - 1));
                    let before = f.store.reserve(request(true)).await.unwrap();
                    prop_assert!(
                        matches!(before, Reserved::Refused { .. }),
                        "fits before {:?}: {:?}",
                        at,
                        before
                    );
                    f.clock.travel(at);
                    let then = f.store.reserve(request(true)).await.unwrap();
                    prop_assert!(
                        matches!(then, Reserved::Granted { .. }),
                        "does not fit at {:?}: {:?}",
                        at,
                        then
                    );
                    f.clock.travel(now);
                }
            }
            other => return Err(TestCaseError::fail(format!("{other:?}"))),
        }
    }
    Ok(())
}

fn one_hold(number: usize, slot_ms: u64, limit: u64, amount: u64, dry_run: bool) -> Reserve {
    let kind = CounterKind::Window { slot_ms };
    Reserve {
        id: ReservationId((number as u128).to_be_bytes()),
        may_repeat: false,
        fingerprint: 0,
        holds: vec![Hold { counter: CounterKey::new("window"), kind, limit, kept: 0, expiring: amount }]
            .into(),
        gates: Vec::new(),
        valid: Timestamp(0)..Timestamp(u64::MAX),
        ttl_ms: 1,
        late_ms: 1,
        note: Bytes::new(),
        replaces: Bytes::new(),
        dry_run,
    }
}

const MODEL: &str = "openai/gpt-oss-20b";

/// Limits that all come to bind: two windows of requests, two of tokens, one of the model and one of the organization.
const POLICY: &str = r#"
[organization]
id = "acme"
[organization.limits."openai/gpt-oss-20b"]
requests_per_minute = 9
[teams.team]
models = ["openai/gpt-oss-20b"]
max_output_tokens = 1000
requests_per_minute = 8
requests_per_hour = 40
tokens_per_minute = 4000
tokens_per_hour = 15000
[teams.team.limits."openai/*"]
tokens_per_minute = 3500
"#;

const MINUTE: u64 = 60_000;
const HOUR: u64 = 60 * MINUTE;

/// Every limit of [`POLICY`]: its id, whether it counts tokens, its window and its bound.
const LIMITS: [(&str, bool, u64, u64); 6] = [
    ("organization.limits.\"openai/gpt-oss-20b\".requests_per_minute", false, MINUTE, 9),
    ("teams.team.requests_per_minute", false, MINUTE, 8),
    ("teams.team.requests_per_hour", false, HOUR, 40),
    ("teams.team.tokens_per_minute", true, MINUTE, 4000),
    ("teams.team.tokens_per_hour", true, HOUR, 15_000),
    ("teams.team.limits.\"openai/*\".tokens_per_minute", true, MINUTE, 3500),
];

#[test]
fn decisions_on_several_limits_hold_on_the_embedded_store() {
    decisions_hold(StoreKind::Embedded, "windows-grpc-embedded.txt");
}

#[test]
fn decisions_on_several_limits_hold_on_redis() {
    if StoreKind::Redis.is_available() {
        decisions_hold(StoreKind::Redis, "windows-grpc-redis.txt");
    }
}

fn decisions_hold(store: StoreKind, regressions: &str) {
    let request = (prop_oneof![wait(MINUTE / SLOTS), wait(HOUR / SLOTS)], 1..=1_200_i64, 0..=1_000_i64);
    let requests = prop::collection::vec(request, 1..60);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let case = (0..HOUR, requests);
    let result = TestRunner::new(config(CASES_OVER_GRPC, regressions)).run(&case, |(offset, requests)| {
        runtime.block_on(async {
            let server = Server::start(store, POLICY, START.plus(offset)).await;
            let mut client = server.client().await;
            hold_every_limit(&server, &mut client, &requests).await
        })
    });
    if let Err(error) = result {
        panic!("{error}");
    }
}

async fn hold_every_limit(
    server: &Server,
    client: &mut PolicyServiceClient<Channel>,
    requests: &[(u64, i64, i64)],
) -> Result<(), TestCaseError> {
    let mut admitted: Vec<Admitted> = vec![Admitted::new(); 2];
    for (wait, input, output) in requests {
        let now = server.clock.now().plus(*wait);
        server.clock.set(now);
        let request = chat("team", MODEL, *input, *output);
        let answer = client.authorize(request.clone()).await.unwrap().into_inner();
        if answer.decision() == proto::Decision::Allowed {
            let tokens = u64::try_from(input + answer.max_output_tokens).unwrap();
            admitted[0].push((now, 1));
            admitted[1].push((now, tokens));
            for (id, counts_tokens, window, limit) in LIMITS {
                let most = most_in_any(&admitted[usize::from(counts_tokens)], window);
                prop_assert!(most <= limit, "{} of {} in one window of {}", most, limit, id);
            }
            continue;
        }
        prop_assert!(!answer.violations.is_empty());
        for violation in &answer.violations {
            let known = LIMITS.iter().find(|(id, ..)| *id == violation.limit_id);
            let Some((_, counts_tokens, window, limit)) = known else {
                prop_assert!(false, "an unknown limit: {:?}", violation);
                continue;
            };
            let recent = in_the_last(&admitted[usize::from(*counts_tokens)], now, window + window / SLOTS);
            let requested = u64::try_from(violation.requested).unwrap();
            prop_assert!(
                recent + requested > *limit,
                "denied without need after {}: {:?}",
                recent,
                violation
            );
            let delay = millis(violation.retry_delay.as_ref());
            prop_assert_eq!(delay.is_some(), violation.retryable, "{:?}", violation);
            prop_assert_eq!(violation.retryable, requested <= *limit, "{:?}", violation);
            if let Some(delay) = delay {
                prop_assert!(delay > 0);
                for (at, refuses) in [(now.plus(delay - 1), true), (now.plus(delay), false)] {
                    let later = dry(server, client, at, &request).await;
                    let found = later.violations.iter().any(|v| v.limit_id == violation.limit_id);
                    prop_assert_eq!(found, refuses, "{:?} at +{} ms", violation, at.since(now));
                }
            }
        }
        let whole = millis(answer.retry_delay.as_ref());
        prop_assert_eq!(whole.is_some(), answer.violations.iter().all(|violation| violation.retryable));
        if let Some(delay) = whole {
            for (at, decision) in
                [(now.plus(delay - 1), proto::Decision::Denied), (now.plus(delay), proto::Decision::Allowed)]
            {
                let later = dry(server, client, at, &request).await;
                prop_assert_eq!(
                    later.decision(),
                    decision,
                    "at +{} of {} ms: {:?}",
                    at.since(now),
                    delay,
                    later.violations
                );
            }
        }
        server.clock.travel(now);
    }
    Ok(())
}

async fn dry(
    server: &Server,
    client: &mut PolicyServiceClient<Channel>,
    at: Timestamp,
    request: &proto::AuthorizeRequest,
) -> proto::AuthorizeResponse {
    server.clock.travel(at);
    let request = proto::AuthorizeRequest { dry_run: true, ..request.clone() };
    client.authorize(request).await.unwrap().into_inner()
}

fn millis(duration: Option<&prost_types::Duration>) -> Option<u64> {
    duration.map(|d| u64::try_from(d.seconds * 1000 + i64::from(d.nanos) / 1_000_000).unwrap())
}
