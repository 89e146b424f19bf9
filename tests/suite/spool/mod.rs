//! Reports of usage while the store does not answer: acknowledged, kept, and booked once.

mod forgotten;
mod processes;
mod silent;

use std::{collections::BTreeMap, path::Path};

use tempfile::TempDir;
use tollgate::{
    domain::Timestamp,
    rpc::proto::{
        self, RecordUsageRequest, RecordUsageResponse, policy_service_client::PolicyServiceClient,
        record_usage_request::Caller, status_service_client::StatusServiceClient,
    },
    runtime::clock::{Clock, ManualClock},
    spool::{About, Entry, Kept, Spool},
    store::{ReservationId, redis::RedisStore},
};
use tonic::{Code, transport::Channel};

pub(crate) use self::processes::spool_of;
use crate::{
    access::digest,
    alerts::{
        receiver::{Answer, Receiver},
        webhook_of,
    },
    harness::{
        START, Server, StoreKind, Ways, chat, connect, errors::is_of, eventually, eventually_within, nanos,
        settings, team_spend, used,
    },
    outages::give_key,
    redis_server::RedisServer,
};

const MODEL: &str = "openai/gpt-oss-20b";
/// 1,000 input and 100 output tokens at the list price.
pub(crate) const COST: u64 = 105_000;
/// More than any of these tests needs.
const ROOM: u64 = 64 << 20;

pub(crate) const POLICY: &str = r#"
[organization]
id = "acme"

[teams.t]
models = ["openai/gpt-oss-20b", "openai/gpt-oss-120b"]
max_output_tokens = 1000

[teams.gone]
models = ["openai/gpt-oss-20b"]
on_store_outage = "allow"
"#;

pub(crate) type Client = PolicyServiceClient<Channel>;

/// A Redis that keeps what it was told when it is killed, in a directory that outlives it.
pub(crate) fn durable() -> (RedisServer, TempDir) {
    let kept = TempDir::new().unwrap();
    let place = kept.path().to_str().unwrap().to_owned();
    let redis = RedisServer::start_with(|_, _| {
        let all = ["--appendonly", "yes", "--appendfsync", "always", "--dir", &place];
        all.map(str::to_owned).to_vec()
    });
    (redis, kept)
}

/// Usage that has no reservation.
pub(crate) fn unreserved(request_id: &str, input_tokens: i64) -> RecordUsageRequest {
    RecordUsageRequest {
        caller: Some(Caller::Team("t".to_owned())),
        request_id: request_id.to_owned(),
        model: MODEL.to_owned(),
        operation: proto::Operation::ChatCompletion.into(),
        ..used("", input_tokens, 100)
    }
}

async fn reserve(client: &mut Client, team: &str) -> String {
    let answer = client.authorize(chat(team, MODEL, 1_000, 100)).await.unwrap().into_inner();
    assert!(!answer.reservation_id.is_empty(), "{answer:?}");
    answer.reservation_id
}

async fn record(client: &mut Client, report: RecordUsageRequest) -> RecordUsageResponse {
    client.record_usage(report).await.unwrap().into_inner()
}

/// A report is acknowledged, kept and priced, and nothing is said about the books.
fn is_spooled(answer: &RecordUsageResponse, cost: Option<u64>, already: bool) {
    let cost_told = answer.cost.clone().map(|cost| nanos(Some(cost)));
    assert_eq!((answer.spooled, cost_told, answer.already_recorded), (true, cost, already), "{answer:?}");
    assert!(answer.team_spend.is_none() && answer.organization_spend.is_none() && answer.alerts.is_empty());
}

/// A replica in this process with a spool, on a Redis of its own.
struct Replica {
    redis: RedisServer,
    server: Server,
    client: Client,
    clock: ManualClock,
    store: RedisStore,
    directory: TempDir,
}

impl Replica {
    async fn start(redis: RedisServer, ways: Ways) -> Self {
        Self::start_in(TempDir::new().unwrap(), redis, ways).await
    }

    async fn start_in(directory: TempDir, redis: RedisServer, ways: Ways) -> Self {
        give_key(&redis, "acme", [9; 32]).await;
        let clock = ManualClock::new(START);
        let spool = Spool::open(directory.path(), ROOM, "acme").unwrap();
        let ways = Ways { spool: Some(spool), ..ways };
        let server = Server::start_on_redis_with((&redis, "acme"), POLICY, clock.clone(), ways);
        let mut client = server.client().await;
        eventually("it serves", async || client.authorize(chat("t", MODEL, 1, 1)).await.is_ok()).await;
        let store = RedisStore::connect(settings(&redis, "acme"), Clock::Manual(clock.clone())).unwrap();
        Self { redis, server, client, clock, store, directory }
    }

    async fn status(&self) -> proto::Spool {
        let mut client = StatusServiceClient::new(connect(self.server.address()).await);
        let answer = client.get_status(proto::GetStatusRequest {}).await.unwrap().into_inner();
        answer.status.unwrap().spool.expect("it has a spool")
    }

    /// What a team spent, with the requests; `None`: the store does not answer yet.
    async fn spent(&mut self, team: &str) -> Option<(u64, i64)> {
        let request = proto::GetSpendRequest { team: team.to_owned(), ..Default::default() };
        let report = self.client.get_spend(request).await.ok()?.into_inner().teams.pop()?;
        Some((nanos(report.spend?.spent), report.requests))
    }

    async fn is_delivered(&mut self, team: &str, spent: (u64, i64)) {
        eventually("all is booked", async || {
            self.status().await.record_count == 0 && self.spent(team).await == Some(spent)
        })
        .await;
    }
}

/// All kinds of reports, each repeated, and nothing is in the books twice or not at all.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reports_are_acknowledged_in_an_outage_and_booked_once_after_it() {
    if !StoreKind::Redis.is_available() {
        return;
    }
    let (redis, _kept) = durable();
    let mut replica = Replica::start(redis, Ways::default()).await;
    let with_key =
        format!("{POLICY}\n[teams.t.keys.worker]\nsha256 = \"{}\"\n", digest("tg_the_secret_of_the_worker"));
    replica.server.set_policy(&with_key).await;
    let other = Server::start_on_redis(&replica.redis, "acme", POLICY, replica.clock.clone());
    let mut elsewhere = other.client().await;
    let own = reserve(&mut replica.client, "t").await;
    let foreign = reserve(&mut elsewhere, "t").await;
    let request = proto::AuthorizeRequest { request_id: "r-2".to_owned(), ..chat("t", MODEL, 1_000, 100) };
    let named = replica.client.authorize(request).await.unwrap().into_inner().reservation_id;
    // One report before the outage, and its repeat in it.
    let before = reserve(&mut replica.client, "t").await;
    let first = record(&mut replica.client, used(&before, 1_000, 100)).await;
    assert_eq!((first.spooled, nanos(first.cost)), (false, COST));
    let outage_id = {
        replica.redis.kill();
        reserve(&mut replica.client, "gone").await
    };
    let client = &mut replica.client;
    for (report, cost) in [
        (used(&own, 1_000, 100), Some(COST)),
        // Only the store knows the prices of what another replica reserved.
        (used(&foreign, 1_000, 100), None),
        (unreserved("r-1", 1_000), Some(COST)),
        (used(&named, 1_000, 100), Some(COST)),
        (used(&outage_id, 1_000, 100), Some(COST)),
        // It was booked before: only the store remembers with what.
        (used(&before, 1_000, 100), None),
    ] {
        let reservation = report.reservation_id.clone();
        let answer = record(client, report.clone()).await;
        is_spooled(&answer, cost, false);
        if !reservation.is_empty() {
            assert_eq!(answer.reservation_id, reservation);
        }
        is_spooled(&record(client, report).await, cost, true);
    }
    // Other usage of a reservation is its repeat; under a `request_id` it may be another request's.
    is_spooled(&record(client, used(&own, 1, 1)).await, Some(COST), true);
    // As of a gateway that another replica has told that its reservation is forgotten.
    is_spooled(&record(client, unreserved("r-2", 1_000)).await, Some(COST), true);
    let with_key = Caller::ApiKey("tg_the_secret_of_the_worker".to_owned());
    for other in [
        unreserved("r-1", 7),
        unreserved("r-2", 7),
        RecordUsageRequest { model: "openai/gpt-oss-120b".to_owned(), ..unreserved("r-2", 1_000) },
        RecordUsageRequest { model: "openai/gpt-oss-120b".to_owned(), ..unreserved("r-1", 1_000) },
        RecordUsageRequest { operation: proto::Operation::Response.into(), ..unreserved("r-1", 1_000) },
        RecordUsageRequest { caller: Some(with_key), ..unreserved("r-1", 1_000) },
    ] {
        let reused = client.record_usage(other).await.unwrap_err();
        is_of(&reused, "REQUEST_ID_REUSED");
    }
    // What cannot be booked is refused as ever.
    let too_much = client.record_usage(used(&own, 10_000_000_000, 1)).await.unwrap_err();
    assert_eq!(too_much.code(), Code::InvalidArgument);
    let spool = replica.status().await;
    assert_eq!((spool.record_count, nanos(spool.cost), spool.refused_count), (6, 4 * COST, 0));
    assert!(spool.oldest_time.is_some() && (1..spool.max_byte_count).contains(&spool.byte_count));

    assert!(replica.redis.restart());
    let _delivery = replica.server.deliver_spooled(replica.store.clone());
    replica.is_delivered("t", (5 * COST, 5)).await;
    replica.is_delivered("gone", (COST, 1)).await;
    assert_eq!(replica.status().await.delivered_count, 6);
    // After it, a report is the repeat that it is, at any replica.
    for client in [&mut replica.client, &mut elsewhere] {
        for report in [
            used(&own, 1_000, 100),
            used(&foreign, 1_000, 100),
            unreserved("r-1", 1_000),
            unreserved("r-2", 1_000),
            used(&outage_id, 1_000, 100),
        ] {
            let answer = record(client, report).await;
            assert_eq!((answer.spooled, answer.already_recorded, nanos(answer.cost)), (false, true, COST));
        }
    }
    assert_eq!(replica.spent("t").await, Some((5 * COST, 5)));
}

/// Redis has lost all that it held: what a replica knows of its reservations is enough, once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_store_has_lost_is_booked_by_what_the_replica_knows() {
    if !StoreKind::Redis.is_available() {
        return;
    }
    let mut replica = Replica::start(RedisServer::start(), Ways::default()).await;
    let [own, gone] = [reserve(&mut replica.client, "t").await, reserve(&mut replica.client, "gone").await];
    replica.redis.kill();
    for id in [&own, &gone] {
        is_spooled(&record(&mut replica.client, used(id, 1_000, 100)).await, Some(COST), false);
    }
    // An id that no store will know, of which the replica knows nothing either.
    let unknown = "01".to_owned() + &"7".repeat(30);
    is_spooled(&record(&mut replica.client, used(&unknown, 5, 5)).await, None, false);
    // A team that has left the policy has spent what it has spent.
    let without = POLICY.split("[teams.gone]").next().unwrap();
    replica.server.set_policy(without).await;
    assert!(replica.redis.restart());
    give_key(&replica.redis, "acme", [9; 32]).await;
    let _delivery = replica.server.deliver_spooled(replica.store.clone());
    replica.is_delivered("t", (COST, 1)).await;
    replica.is_delivered("gone", (COST, 1)).await;
    // It is not dropped: people find it.
    assert_eq!(replica.status().await.refused_count, 1);
    let refused = rusqlite::Connection::open(replica.directory.path().join("spool.db")).unwrap();
    let sql = "SELECT id || ' ' || why || ' ' || in_words FROM refused";
    let told: String = refused.query_row(sql, [], |row| row.get(0)).unwrap();
    assert!(told.starts_with(&unknown) && told.contains("no such reservation"), "{told}");
    assert!(told.contains(r#""input_tokens":5"#), "{told}");
}

/// Puts as many reports of a later release into a spool, each of [`COST`].
async fn keep_later(directory: &Path, count: u8) {
    let spool = Spool::open(directory, ROOM, "acme").unwrap();
    for number in 0..count {
        let about = About { team: "t".into(), cost_nanos: Some(COST), at: START, digest: 7, tried_at: None };
        let entry = Entry { id: ReservationId([number; 16]), about, record: vec![2, number].into() };
        assert_eq!(spool.keep(entry).await, Ok(Kept::New));
    }
}

/// What a later release has spooled waits for one, and holds up nothing of this one's.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reports_of_a_later_release_wait_and_others_pass_them() {
    if !StoreKind::Redis.is_available() {
        return;
    }
    let (directory, later) = (TempDir::new().unwrap(), 150);
    // More than are taken at once.
    keep_later(directory.path(), later).await;
    let (redis, _kept) = durable();
    let mut replica = Replica::start_in(directory, redis, Ways::default()).await;
    replica.redis.kill();
    is_spooled(&record(&mut replica.client, unreserved("r-1", 1_000)).await, Some(COST), false);
    assert!(replica.redis.restart());
    let delivery = replica.server.deliver_spooled(replica.store.clone());
    let waiting = i64::from(later);
    eventually("this release's own is booked", async || {
        replica.status().await.record_count == waiting && replica.spent("t").await == Some((COST, 1))
    })
    .await;
    assert_eq!(replica.status().await.refused_count, 0);
    // One that comes after it is delivered as well.
    replica.redis.kill();
    is_spooled(&record(&mut replica.client, unreserved("r-2", 1_000)).await, Some(COST), false);
    assert!(replica.redis.restart());
    eventually("the next is booked, too", async || {
        replica.status().await.record_count == waiting && replica.spent("t").await == Some((2 * COST, 2))
    })
    .await;
    drop(delivery);
    // They are as they were.
    let kept = rusqlite::Connection::open(replica.directory.path().join("spool.db")).unwrap();
    let kept: u8 =
        kept.query_row("SELECT count(*) FROM spooled WHERE tried IS NULL", [], |row| row.get(0)).unwrap();
    assert_eq!(kept, later);
}

/// People are told of what waits for long and of an outage's reports, see it in each place, and hear when it is over.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backlog_is_told_and_shown_until_it_is_delivered() {
    if !StoreKind::Redis.is_available() {
        return;
    }
    let receiver = Receiver::start(Answer::Status(200)).await;
    let ways = Ways { receivers: vec![webhook_of(&receiver)], ..Ways::default() };
    let (redis, _kept) = durable();
    let mut replica = Replica::start(redis, ways).await;
    let routed = POLICY.to_owned() + "[[alerts]]\nreceiver = \"ops\"\nkinds = [\"spool_backlog\"]\n";
    replica.server.set_policy(&routed).await;
    let alerts = tokio::spawn(replica.server.deliver_alerts(replica.store.clone()));
    replica.redis.kill();
    is_spooled(&record(&mut replica.client, unreserved("r-1", 1_000)).await, Some(COST), false);
    assert!(replica.redis.restart());
    // Nothing delivers here, as where the store takes no writes of this kind.
    let mut report = None;
    eventually("the store answers again", async || {
        let request = proto::GetSpendRequest::default();
        report = replica.client.get_spend(request).await.ok().map(tonic::Response::into_inner);
        report.is_some()
    })
    .await;
    let report = report.unwrap();
    let told = |report: &proto::SpendReport| {
        (report.spooled_requests, report.spooled_cost.clone().map(|cost| nanos(Some(cost))))
    };
    assert_eq!(told(report.organization.as_ref().unwrap()), (1, Some(COST)));
    let teams: BTreeMap<_, _> = report.teams.iter().map(|team| (team.name.as_str(), told(team))).collect();
    assert_eq!(teams, BTreeMap::from([("gone", (0, None)), ("t", (1, Some(COST)))]));
    let mut status = StatusServiceClient::new(connect(replica.server.address()).await);
    eventually_within(std::time::Duration::from_secs(30), "the replica says so", async || {
        let listed = status.list_replicas(proto::ListReplicasRequest::default()).await;
        let listed = listed.map(|listed| listed.into_inner().replicas).unwrap_or_default();
        listed.iter().any(|replica| replica.spooled_requests == 1)
    })
    .await;
    assert!(receiver.requests().is_empty());
    replica.clock.set(Timestamp(START.0 + 61_000));
    eventually("people are told", async || receiver.requests().len() == 1).await;
    let opened = receiver.requests()[0].json();
    assert_eq!(
        (&opened["type"], &opened["data"]["severity"]),
        (&"alert.spool_backlog".into(), &"SEVERITY_CRITICAL".into())
    );
    assert_eq!(
        (&opened["data"]["facts"]["record_count"], &opened["data"]["state"]),
        (&"1".into(), &"ALERT_STATE_OPEN".into())
    );
    let _delivery = replica.server.deliver_spooled(replica.store.clone());
    replica.is_delivered("t", (COST, 1)).await;
    eventually("people hear that it is over", async || receiver.requests().len() == 2).await;
    let over = receiver.requests()[1].json();
    assert_eq!(
        (&over["data"]["id"], &over["data"]["state"]),
        (&opened["data"]["id"], &"ALERT_STATE_RESOLVED".into())
    );
    assert_eq!(team_spend(&mut replica.client, "t").await.spooled_requests, 0);
    alerts.abort();
}
