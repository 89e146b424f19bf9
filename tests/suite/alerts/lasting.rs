//! Alerts that last: each opens once and is resolved once, over all replicas, and whichever of them dies.

use std::{
    fs,
    path::PathBuf,
    time::{Duration, Instant},
};

use prost_reflect::{DescriptorPool, DynamicMessage};
use serde_json::{Value, json};
use tempfile::TempDir;
use tollgate::{
    rpc::{
        DESCRIPTORS,
        proto::{
            self, LiftCooldownRequest, Outcome, PauseRequest, PauseTarget, RecordUsageRequest, ResumeRequest,
            WholeOrganization, pause_service_client::PauseServiceClient, pause_target::Target,
            record_usage_request::Caller, upstream_service_client::UpstreamServiceClient,
        },
    },
    runtime::clock::Clock,
    store::{LAYOUT, Replicas as _, redis::RedisStore},
};

use super::{
    receiver::{Answer, Receiver},
    start, webhook,
};
use crate::{
    harness::{Process, chat, connect, eventually, eventually_within, organization, settings, used},
    redis_server,
};

const MODEL: &str = "m/text";
/// A lease of a process that died may have to end first.
pub(super) const LEASE: Duration = Duration::from_secs(100);

pub(super) fn policy(organization: &str, kind: &str) -> String {
    format!(
        r#"
[organization]
id = "{organization}"
[teams.team]
models = ["m/text"]
max_output_tokens = 4000
unreserved = {{ max_cost_usd = "0.000001", daily_usd = "0.000001" }}
[teams.permitted]
models = ["m/text"]
max_output_tokens = 4000
on_store_outage = "allow"
[projects.main]
keys = [{{ file = "groq-key" }}]
[[prices]]
model = "m/text"
input_usd_per_million_tokens = "0.001"
output_usd_per_million_tokens = "0.001"
[[alerts]]
receiver = "ops"
kinds = ["{kind}"]
"#
    )
}

/// A receiver, and replicas that send to it: one on the embedded store, or two on Redis.
pub(super) struct Replicas {
    directory: TempDir,
    receiver: Receiver,
    policy: String,
    settings: String,
    store: String,
    servers: Vec<Process>,
}

impl Replicas {
    pub(super) async fn start(kind: &str, store: &str) -> Self {
        Self::start_of(&organization(), kind, store).await
    }

    pub(super) async fn start_of(organization: &str, kind: &str, store: &str) -> Self {
        let (directory, receiver) = (TempDir::new().unwrap(), Receiver::start(Answer::Status(200)).await);
        let (policy, settings) = (policy(organization, kind), webhook("ops", &receiver));
        fs::write(directory.path().join("groq-key"), "gsk_first").unwrap();
        let mut own =
            Self { directory, receiver, policy, settings, store: store.to_owned(), servers: Vec::new() };
        for _ in 0..if store.starts_with("redis") { 2 } else { 1 } {
            own.start_one().await;
        }
        own
    }

    async fn start_one(&mut self) {
        let server = start(self.directory.path(), &self.policy, &self.settings, &self.store).await;
        self.servers.push(server);
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn last(&self) -> &Process {
        self.servers.last().unwrap()
    }

    /// Waits until all have read what they decide by.
    pub(super) async fn are_ready(&self) {
        for server in &self.servers {
            eventually("it is ready", async || server.is_serving().await == Some(true)).await;
        }
    }

    /// Each replica decides a request that its team permits without the store, which is given up in time.
    pub(super) async fn decide_without_the_store(&self) {
        let mut asked = tokio::task::JoinSet::new();
        for server in &self.servers {
            let mut client = server.client().await;
            asked.spawn(async move {
                let mut request = tonic::Request::new(chat("permitted", MODEL, 10, 1));
                request.set_timeout(Duration::from_secs(8));
                let decided = client.authorize(request).await.unwrap().into_inner();
                assert!(decided.degraded, "{decided:?}");
            });
        }
        asked.join_all().await;
    }

    /// What has arrived: each id with the alert, in the order of arrival.
    pub(super) fn arrived(&self) -> Vec<(String, Value)> {
        let requests = self.receiver.requests();
        let read = requests.iter().map(|request| {
            let data = request.json()["data"].clone();
            (request.header("webhook-id").to_owned(), data)
        });
        read.collect()
    }

    /// Waits until each replica has logged `message`.
    pub(super) async fn have_logged(&self, message: &str) {
        let have_all = async || self.servers.iter().all(|server| server.log().contains(message));
        eventually_within(LEASE, message, have_all).await;
    }

    /// Waits until `count` have arrived, and returns the last.
    async fn alert(&self, count: usize) -> Value {
        eventually_within(LEASE, "it has arrived", async || self.arrived().len() >= count).await;
        let arrived = self.arrived();
        assert_eq!(arrived.len(), count, "{arrived:?}");
        arrived[count - 1].1.clone()
    }

    /// Waits for the resolution of `opened`, and holds both to each other.
    async fn resolution(&self, opened: &Value, count: usize) -> Value {
        let resolved = self.alert(count).await;
        let id = opened["id"].as_str().unwrap();
        let ids: Vec<_> = self.arrived().into_iter().map(|(id, _)| id).skip(count - 2).collect();
        assert_eq!(ids, [format!("{id}_open"), format!("{id}_resolved")]);
        for field in ["id", "kind", "severity", "team", "createTime", "organization"] {
            assert_eq!(resolved[field], opened[field], "{field}");
        }
        let states = (&opened["state"], &resolved["state"]);
        assert_eq!(states, (&"ALERT_STATE_OPEN".into(), &"ALERT_STATE_RESOLVED".into()));
        assert!(opened["resolveTime"].is_null() && resolved["resolveTime"].is_string(), "{resolved}");
        resolved
    }
}

/// The embedded store, and Redis where it is installed.
fn stores() -> impl Iterator<Item = String> {
    let redis = redis_server::shared().map(|redis| redis.url());
    std::iter::once("embedded:data".to_owned()).chain(redis)
}

/// Holds JSON to the message of the contract with this name.
pub(super) fn is_message(name: &str, value: &Value) {
    let pool = DescriptorPool::decode(DESCRIPTORS).unwrap();
    let message = pool.get_message_by_name(&format!("tollgate.v1.{name}")).unwrap();
    DynamicMessage::deserialize(message, value).unwrap();
}

/// Groq answers a request of `server` with 429.
pub(super) async fn limited(server: &Process, delay: Duration) {
    let mut client = server.client().await;
    let id = client.authorize(chat("team", MODEL, 10, 1)).await.unwrap().into_inner().reservation_id;
    report_limited(server, id, delay).await;
}

pub(super) async fn lift(server: &Process) {
    let lift = LiftCooldownRequest {
        project: "main".to_owned(),
        model: MODEL.to_owned(),
        reason: "test".to_owned(),
        ..Default::default()
    };
    UpstreamServiceClient::new(connect(server.address()).await).lift_cooldown(lift).await.unwrap();
}

async fn report_limited(server: &Process, reservation_id: String, delay: Duration) {
    let report = RecordUsageRequest {
        reservation_id,
        outcome: Outcome::RateLimited.into(),
        upstream_retry_delay: Some(delay.try_into().unwrap()),
        ..Default::default()
    };
    server.client().await.record_usage(report).await.unwrap();
}

#[tokio::test]
async fn a_cooldown_opens_and_is_resolved_once() {
    for store in stores() {
        let replicas = Replicas::start("upstream_cooldown", &store).await;
        let server = replicas.last();
        let mut client = server.client().await;
        let other = client.authorize(chat("team", MODEL, 10, 1)).await.unwrap().into_inner().reservation_id;
        limited(server, Duration::from_secs(60)).await;
        let opened = replicas.alert(1).await;
        assert_eq!(opened["kind"], "ALERT_KIND_UPSTREAM_COOLDOWN");
        let cooldown = &opened["cooldown"];
        is_message("Cooldown", cooldown);
        let known = ["project", "model", "serviceTier", "reporterTeam", "requestedDelay"];
        let known = known.map(|field| cooldown[field].as_str().unwrap());
        assert_eq!(known, ["main", MODEL, "SERVICE_TIER_ON_DEMAND", "team", "60s"]);
        // A renewal is the same alert.
        report_limited(server, other, Duration::from_secs(120)).await;
        lift(server).await;
        let resolved = replicas.resolution(&opened, 2).await;
        assert_eq!(resolved["cooldown"]["startTime"], cooldown["startTime"]);
        // The next is another, which ends by itself.
        limited(server, Duration::from_secs(2)).await;
        let next = replicas.alert(3).await;
        assert_ne!(next["id"], opened["id"]);
        replicas.resolution(&next, 4).await;
    }
}

/// It was answered, so it is told, although it was over when the next process looked.
#[tokio::test]
async fn a_cooldown_is_told_after_a_kill() {
    for store in stores() {
        let mut replicas = Replicas::start("upstream_cooldown", &store).await;
        let length = Duration::from_millis(500);
        limited(replicas.last(), length).await;
        let answered = Instant::now();
        replicas.servers.drain(..).for_each(Process::kill);
        eventually("it is over", async || answered.elapsed() > length).await;
        replicas.start_one().await;
        let opened = replicas.alert(1).await;
        replicas.resolution(&opened, 2).await;
    }
}

async fn pause(server: &Process, target: Target) {
    let mut pauses = PauseServiceClient::new(connect(server.address()).await);
    let target = Some(PauseTarget { target: Some(target) });
    pauses.pause(PauseRequest { target, reason: "INC-7".to_owned() }).await.unwrap();
}

async fn resume(server: &Process, target: Target) {
    let mut pauses = PauseServiceClient::new(connect(server.address()).await);
    let target = Some(PauseTarget { target: Some(target) });
    pauses.resume(ResumeRequest { target, reason: "over".to_owned() }).await.unwrap();
}

#[tokio::test]
async fn each_pause_opens_and_is_resolved_once() {
    for store in stores() {
        let replicas = Replicas::start("pause", &store).await;
        let targets = [
            (Target::Team("team".to_owned()), json!({ "team": "team" })),
            (Target::Model("m/*".to_owned()), json!({ "model": "m/*" })),
            (Target::Organization(WholeOrganization {}), json!({ "organization": {} })),
        ];
        for (number, (target, expected)) in targets.into_iter().enumerate() {
            pause(&replicas.servers[0], target.clone()).await;
            let opened = replicas.alert(2 * number + 1).await;
            is_message("Pause", &opened["pause"]);
            assert_eq!(opened["severity"], "SEVERITY_INFO");
            assert_eq!(
                (&opened["pause"]["target"], &opened["pause"]["reason"]),
                (&expected, &"INC-7".into())
            );
            resume(replicas.last(), target).await;
            replicas.resolution(&opened, 2 * number + 2).await;
        }
    }
}

/// The registry has it, so it is told, although the replica that was asked has died.
#[tokio::test]
async fn a_pause_is_told_after_a_kill() {
    let team = || Target::Team("team".to_owned());
    for store in stores() {
        let mut replicas = Replicas::start("pause", &store).await;
        pause(replicas.last(), team()).await;
        replicas.servers.drain(..).for_each(Process::kill);
        replicas.start_one().await;
        let opened = replicas.alert(1).await;
        resume(replicas.last(), team()).await;
        replicas.servers.drain(..).for_each(Process::kill);
        replicas.start_one().await;
        replicas.resolution(&opened, 2).await;
    }
}

#[tokio::test]
async fn a_refused_key_opens_and_is_resolved_by_another() {
    for store in stores() {
        let replicas = Replicas::start("upstream_key_refused", &store).await;
        for server in &replicas.servers {
            let mut client = server.client().await;
            let answer = client.authorize(chat("team", MODEL, 10, 1)).await.unwrap().into_inner();
            let report = RecordUsageRequest {
                reservation_id: answer.reservation_id,
                outcome: Outcome::Failed.into(),
                upstream_status: 401,
                upstream_key: answer.upstream_key,
                ..Default::default()
            };
            client.record_usage(report).await.unwrap();
        }
        let opened = replicas.alert(1).await;
        is_message("UpstreamKey", &opened["upstreamKey"]);
        assert_eq!(opened["severity"], "SEVERITY_CRITICAL");
        assert_eq!(opened["upstreamKey"]["state"], "UPSTREAM_KEY_STATE_REFUSED");
        fs::write(replicas.path("groq-key"), "gsk_second").unwrap();
        replicas.resolution(&opened, 2).await;
        assert!(!replicas.last().log().contains("gsk_"));
    }
}

#[tokio::test]
async fn a_rejected_policy_opens_and_is_resolved_by_a_good_one() {
    for store in stores() {
        let replicas = Replicas::start("policy_rejected", &store).await;
        let write = |text: &str| fs::write(replicas.path("policy.toml"), text).unwrap();
        write(&(replicas.policy.clone() + "\n[teams.team.oops]\nx = 1\n"));
        let opened = replicas.alert(1).await;
        let facts = &opened["facts"];
        let has = |field: &str, part: &str| facts[field].as_str().unwrap().contains(part);
        assert!(has("file", "policy.toml") && has("finding", "oops"), "{opened}");
        write(&(replicas.policy.clone() + "# the same\n"));
        replicas.resolution(&opened, 2).await;
        // And the same fault once more.
        write(&(replicas.policy.clone() + "\n[teams.team.oops]\nx = 1\n"));
        assert_ne!(replicas.alert(3).await["id"], opened["id"]);
    }
}

/// The announcement of an earlier release is recorded as that release would record it, while its layout still stands.
#[tokio::test]
async fn a_replica_of_an_earlier_release_is_told_of_until_it_is_replaced() {
    let Some(redis) = redis_server::shared() else { return };
    let replicas = Replicas::start("layout_mismatch", &redis.url()).await;
    let organization = replicas.policy.split('"').nth(1).unwrap();
    let store = RedisStore::connect(settings(redis, organization), Clock::System).unwrap();
    let announce = async |layout: u32| {
        let said = format!(r#"{{"v":1,"version":"0.0.9","layout":{layout},"ready":true}}"#);
        store.announce_replica("gate-9:1".into(), said.into()).await.unwrap();
    };
    announce(LAYOUT - 1).await;
    let opened = replicas.alert(1).await;
    let facts = json!({
        "replica": "gate-9:1", "replica_count": "1", "known_layout": (LAYOUT - 1).to_string(), "layout": LAYOUT.to_string(),
    });
    assert_eq!(opened["facts"], facts, "{opened}");
    announce(LAYOUT).await;
    replicas.resolution(&opened, 2).await;
}

#[tokio::test]
async fn refused_reports_without_a_reservation_are_told_once_a_day() {
    for store in stores() {
        let replicas = Replicas::start("unreserved_refused", &store).await;
        for (number, server) in replicas.servers.iter().chain(&replicas.servers).enumerate() {
            let report = RecordUsageRequest {
                caller: Some(Caller::Team("team".to_owned())),
                request_id: format!("r-{number}"),
                model: MODEL.to_owned(),
                operation: proto::Operation::ChatCompletion.into(),
                ..used("", 100_000, 1)
            };
            server.client().await.record_usage(report).await.unwrap_err();
        }
        let alert = replicas.alert(1).await;
        let fields = (&alert["kind"], &alert["team"], &alert["severity"]);
        assert_eq!(
            fields,
            (&"ALERT_KIND_UNRESERVED_REFUSED".into(), &"team".into(), &"SEVERITY_WARNING".into())
        );
        assert!(alert["facts"]["message"].as_str().unwrap().contains("without a reservation"), "{alert}");
    }
}
