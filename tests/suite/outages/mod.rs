//! Decisions while the store does not answer, by each team's rule, and what becomes of them afterwards.

mod partial;

use std::time::{Duration, Instant};

use tempfile::TempDir;
use tollgate::{
    domain::Timestamp,
    rpc::Effect,
    rpc::proto::{
        self, AuthorizeRequest, AuthorizeResponse, Decision, Reason,
        policy_service_client::PolicyServiceClient, report_service_client::ReportServiceClient,
    },
    runtime::clock::ManualClock,
    store::Registry as _,
};
use tonic::{Code, transport::Channel};

use crate::{
    harness::{
        Fixture, Process, START, Server, StoreKind, Ways, chat, connect,
        errors::{is_of, is_of_with},
        eventually, nanos, settings, team_spend, used,
    },
    redis_server::RedisServer,
};

const MODEL: &str = "openai/gpt-oss-20b";
/// Long enough to tell one deadline from two where the machine is busy.
const DEADLINE: Duration = Duration::from_secs(1);

/// A team for each rule. Their budgets are too small for anything: with the store, everything would be denied.
const POLICY: &str = r#"
[organization]
id = "acme"

[teams.closed]
models = ["openai/gpt-oss-20b"]

[teams.open]
models = ["openai/gpt-oss-20b"]
on_store_outage = "allow"
max_output_tokens = 1000
budget = { monthly_usd = "0.01" }

[teams.bounded]
models = ["openai/gpt-oss-20b"]
on_store_outage = "allowance"
outage_allowance = { requests_per_minute = 3, usd_per_minute = "1" }

[teams.brief]
models = ["openai/gpt-oss-20b"]
on_store_outage = "allow"
max_outage = "1s"
"#;

type Client = PolicyServiceClient<Channel>;

fn of(team: &str) -> AuthorizeRequest {
    chat(team, MODEL, 100, 100)
}

async fn ask(client: &mut Client, request: AuthorizeRequest) -> Result<AuthorizeResponse, tonic::Status> {
    client.authorize(request).await.map(tonic::Response::into_inner)
}

fn is_degraded(answer: &AuthorizeResponse) {
    assert_eq!((answer.decision(), answer.degraded), (Decision::Allowed, true), "{answer:?}");
    assert!(
        answer.warnings.iter().any(|warning| warning.contains("the store does not answer")),
        "{answer:?}"
    );
    let id = &answer.reservation_id;
    assert!(id.starts_with("02") && id.len() > 33 && id.as_bytes()[32] == b'.', "{id}");
    assert!(answer.expire_time.is_some() && nanos(answer.reserved_cost.clone()) > 0, "{answer:?}");
}

/// What secrets are hashed with, and ids of reservations sealed, which a replica otherwise makes after five seconds.
pub(crate) async fn give_key(redis: &RedisServer, organization: &str, key: [u8; 32]) {
    let store = Fixture::of_redis(settings(redis, organization)).store;
    eventually("redis has its key", async || store.hash_key(Some(key)).await == Ok(Some(key))).await;
}

/// A service in this process that has served, on a Redis that is then gone, with what it has decided.
struct Outage {
    redis: RedisServer,
    server: Server,
    client: Client,
}

impl Outage {
    async fn begin(clock: &ManualClock) -> Self {
        Self::begin_with_key(clock, [9; 32]).await
    }

    /// The same with a key for secrets that is there already.
    async fn begin_with_key(clock: &ManualClock, key: [u8; 32]) -> Self {
        let mut redis = RedisServer::start();
        give_key(&redis, "acme", key).await;
        let server = Server::start_on_redis(&redis, "acme", POLICY, clock.clone());
        let mut client = server.client().await;
        // What is sealed needs a key, which is read with the registry.
        for team in ["closed", "open"] {
            let answer = ask(&mut client, of(team)).await.unwrap();
            assert_eq!((answer.decision(), answer.degraded), (Decision::Allowed, false));
        }
        redis.kill();
        Self { redis, server, client }
    }

    /// A decision without the store.
    async fn degraded(&mut self, request: AuthorizeRequest) -> AuthorizeResponse {
        let answer = ask(&mut self.client, request).await.unwrap();
        is_degraded(&answer);
        answer
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_team_has_its_rule_while_the_store_is_down() {
    if !StoreKind::Redis.is_available() {
        return;
    }
    let clock = ManualClock::new(START);
    let mut outage = Outage::begin(&clock).await;
    let status = ask(&mut outage.client, of("closed")).await.unwrap_err();
    is_of_with(&status, "STORE_UNAVAILABLE", Effect::None);
    outage.degraded(of("open")).await;
    // What no counter is needed for refuses as ever, and is clamped as ever.
    let client = &mut outage.client;
    let refused = ask(client, chat("open", "openai/gpt-oss-120b", 1, 1)).await.unwrap();
    assert_eq!(refused.violations[0].reason(), Reason::ModelNotAllowed);
    let refused = ask(client, chat("open", MODEL, 1, 1_001)).await.unwrap();
    assert_eq!(refused.violations[0].reason(), Reason::MaxOutputTokensExceeded);
    let unknown = ask(client, of("nobody")).await.unwrap();
    assert_eq!((unknown.violations[0].reason(), unknown.degraded), (Reason::UnknownTeam, false));
    // A dry run takes nothing, and names nothing.
    let dry = AuthorizeRequest { dry_run: true, ..of("bounded") };
    for _ in 0..4 {
        let answer = ask(client, dry.clone()).await.unwrap();
        assert_eq!(
            (answer.decision(), answer.degraded, &*answer.reservation_id),
            (Decision::Allowed, true, "")
        );
    }
    // Over all connections, and so all workers, of this replica.
    for _ in 0..3 {
        let mut another = outage.server.client().await;
        is_degraded(&ask(&mut another, of("bounded")).await.unwrap());
    }
    let denied = ask(client, of("bounded")).await.unwrap();
    let violation = &denied.violations[0];
    let said =
        (violation.reason(), &*violation.limit_id, violation.limit, violation.used, violation.requested);
    let limit = "teams.bounded.outage_allowance.requests_per_minute";
    assert_eq!(said, (Reason::OutageAllowanceExhausted, limit, 3, 3, 1));
    assert!(denied.degraded && violation.retryable && denied.retry_delay.is_some(), "{denied:?}");
    clock.set(START.plus(62_000));
    is_degraded(&ask(client, of("bounded")).await.unwrap());
}

/// The replica that decided is gone, and so is all that Redis held: any replica books it, once, for as long as it can be reported.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_decided_without_the_store_is_booked_once_by_any_replica() {
    if !StoreKind::Redis.is_available() {
        return;
    }
    let clock = ManualClock::new(START);
    let mut outage = Outage::begin(&clock).await;
    let request = AuthorizeRequest { user: "ann".to_owned(), ..of("open") };
    let [first, second] = [outage.degraded(request.clone()).await, outage.degraded(request).await];
    assert_ne!(first.reservation_id, second.reservation_id);
    assert!(outage.redis.restart());
    let other = Server::start_on_redis(&outage.redis, "acme", POLICY, clock.clone());
    // The replica that was there before gives the store its key again; one that is new takes it.
    let mut client = outage.client.clone();
    eventually("the first replica serves", async || ask(&mut client, of("closed")).await.is_ok()).await;
    let store = Fixture::of_redis(settings(&outage.redis, "acme")).store;
    eventually("the store has its key again", async || store.hash_key(None).await == Ok(Some([9; 32]))).await;
    outage.server.stop().await;
    let mut client = other.client().await;
    eventually("the other replica serves", async || ask(&mut client, of("closed")).await.is_ok()).await;
    clock.set(START.plus(60_000));
    let report = used(&first.reservation_id, 1_000_000, 100_000);
    let booked = client.record_usage(report.clone()).await.unwrap().into_inner();
    // By the list price, of which the budget could not have paid a tenth.
    assert_eq!((nanos(booked.cost), booked.already_recorded), (105_000_000, false));
    assert_eq!(booked.reservation_id, first.reservation_id);
    assert_eq!(nanos(booked.team_spend.unwrap().spent), 105_000_000);
    // A repeat is one after hours as well, when other settlements are forgotten.
    for after in [61_000, 12 * 60_000, 23 * 3_600_000] {
        clock.set(START.plus(after));
        let repeated = client.record_usage(report.clone()).await.unwrap().into_inner();
        assert_eq!((nanos(repeated.cost), repeated.already_recorded), (105_000_000, true), "{after}");
    }
    assert_eq!(nanos(team_spend(&mut client, "open").await.spend.unwrap().spent), 105_000_000);
    let of_the_day = proto::QueryUsageRequest {
        start_date: "2026-11-23".to_owned(),
        end_date: "2026-11-24".to_owned(),
        ..Default::default()
    };
    let mut reports = ReportServiceClient::new(connect(other.address()).await);
    let usage = reports.query_usage(of_the_day).await.unwrap().into_inner();
    let amounts = usage.total.unwrap();
    assert_eq!((amounts.degraded_count, amounts.request_count), (1, 1));
    // Past the time for reports it is unknown, as any reservation is; and it was never charged.
    clock.set(START.plus(24 * 3_600_000 + 10 * 60_000 + 60_000));
    let late = client.record_usage(used(&second.reservation_id, 1, 1)).await.unwrap_err();
    is_of(&late, "UNKNOWN_RESERVATION");
    for (changed, code) in [
        (first.reservation_id[..32].to_owned(), Code::InvalidArgument),
        (format!("{}A", first.reservation_id), Code::NotFound),
        (first.reservation_id.replace("02", "01"), Code::InvalidArgument),
    ] {
        let refused = client.record_usage(used(&changed, 1, 1)).await.unwrap_err();
        assert_eq!(refused.code(), code, "{changed}");
    }
}

/// The embedded store books them alike. Its process can hardly have made them, so another has, with the same key.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_embedded_store_books_what_was_decided_without_it() {
    if !StoreKind::Redis.is_available() {
        return;
    }
    let clock = ManualClock::new(START);
    let mut outage = Outage::begin_with_key(&clock, [7; 32]).await;
    let answer = outage.degraded(of("open")).await;
    let fixture = Fixture::embedded();
    assert_eq!(fixture.store.hash_key(Some([7; 32])).await, Ok(Some([7; 32])));
    let moved = fixture.clock.clone();
    let server = Server::start_in(fixture, POLICY, Ways::default());
    let mut client = server.client().await;
    eventually("it serves", async || ask(&mut client, of("closed")).await.is_ok()).await;
    let report = used(&answer.reservation_id, 1_000_000, 100_000);
    for (at, is_repeat) in [(1_000, false), (2_000, true), (23 * 3_600_000, true)] {
        moved.set(Timestamp(START.0 + at));
        let booked = client.record_usage(report.clone()).await.unwrap().into_inner();
        assert_eq!((nanos(booked.cost), booked.already_recorded), (105_000_000, is_repeat), "{at}");
    }
    assert_eq!(nanos(team_spend(&mut client, "open").await.spend.unwrap().spent), 105_000_000);
}

/// A Redis that is silent: the first requests wait for it, those after them do not, and the metrics say so.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_do_not_wait_for_a_store_that_is_silent() {
    if !StoreKind::Redis.is_available() {
        return;
    }
    let (redis, directory) = (RedisServer::start(), TempDir::new().unwrap());
    give_key(&redis, "acme", [9; 32]).await;
    let process = Process::start_with(directory.path(), POLICY, &redis.url(), DEADLINE).await;
    let mut client = process.client().await;
    eventually("it serves", async || ask(&mut client, of("closed")).await.is_ok()).await;
    redis.freeze();
    let mut times = Vec::new();
    eventually("it has decided for seconds", async || {
        let started = Instant::now();
        is_degraded(&ask(&mut client, of("open")).await.unwrap());
        times.push(started.elapsed());
        times.len() >= 200
    })
    .await;
    // One deadline, and what a busy machine takes; never two in a row.
    let longest = times.iter().max().unwrap();
    assert!(*longest < 2 * DEADLINE, "{longest:?}");
    // All but the first, and those that find out.
    let waited = times.iter().filter(|time| **time >= DEADLINE / 2).count();
    assert!((1..=20).contains(&waited), "{waited} of {}", times.len());
    let brief = async || match ask(&mut process.client().await, of("brief")).await {
        Ok(answer) => {
            is_degraded(&answer);
            false
        }
        Err(status) => status.code() == Code::Unavailable,
    };
    eventually("the outage is too long for one team", brief).await;
    is_degraded(&ask(&mut client, of("open")).await.unwrap());
    redis.thaw();
    let decides = async || !ask(&mut client, of("open")).await.unwrap().degraded;
    eventually("the store decides again", decides).await;
}
