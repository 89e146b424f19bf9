//! What tests run: stores, a service in this process under a clock that they move, and real server processes.

// The unit tests of errors take it as well.
#[path = "../../support/errors.rs"]
pub(crate) mod errors;
mod fixture;
mod process;
mod programs;
mod requests;
mod server;

use std::{
    net::SocketAddr,
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

use tempfile::TempDir;
use tollgate::{
    domain::{Timestamp, policy::Policy},
    policy_file::parse_policy_at,
    rpc::{ERROR_DOMAIN, ERRORS, Effect},
    store::redis::{LayoutGate, RedisAccess, RedisSettings, ReplaySettings},
};
use tonic::transport::{Channel, Endpoint};

use crate::redis_server::{self, RedisServer};

pub(crate) use fixture::{Fixture, connect_again, connect_again_at};
pub(crate) use process::Process;
pub(crate) use programs::is_installed;
pub(crate) use requests::{chat, nanos, team_spend, used};
pub(crate) use server::{Server, Ways};

/// 2026-11-23T10:00:00Z, a whole hour: every slot length in use begins anew there.
pub(crate) const START: Timestamp = Timestamp(1_795_428_000_000);

/// The Groq key that the service sends on.
pub(crate) const UPSTREAM_KEY: &str = "gsk_mock_upstream_key";

/// The bound on every wait for a condition. A test that reaches it has failed.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// How long a store on Redis waits for its answer in these tests: long enough for a machine that builds meanwhile.
const REDIS_DEADLINE: Duration = Duration::from_secs(5);

/// The stores that the service runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StoreKind {
    Embedded,
    Redis,
}

impl StoreKind {
    /// Whether tests can run on it here. Where not, a line on the standard error says so; with `CI=true` it fails.
    pub(crate) fn is_available(self) -> bool {
        self == Self::Embedded || redis_server::is_installed()
    }
}

/// An organization that no other test uses.
pub(crate) fn organization() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("org-{}", NEXT.fetch_add(1, Ordering::Relaxed))
}

/// A directory in memory where there is one: most tests open a store for each case, and few are about the disk.
fn scratch() -> TempDir {
    TempDir::new_in("/dev/shm").or_else(|_| TempDir::new()).unwrap()
}

/// Settings for a store of `organization` on `redis`.
pub(crate) fn settings(redis: &RedisServer, organization: &str) -> RedisSettings {
    RedisSettings {
        url: redis.url().parse().unwrap(),
        access: RedisAccess::default(),
        organization: organization.to_owned(),
        deadline: REDIS_DEADLINE,
        layout: LayoutGate::default(),
        unreported: tollgate::store::Unreported::default(),
        replay: ReplaySettings {
            window: Duration::from_secs(5),
            released: tollgate::app::released(),
            carries_over: Some(tollgate::app::carried_over),
            ..ReplaySettings::default()
        },
    }
}

/// The policy in `text`, or a panic with everything that is wrong with it.
pub(crate) fn policy(text: &str, now: Timestamp) -> Policy {
    let report = parse_policy_at(text, "policy.toml", now);
    let findings: Vec<String> = report.findings.iter().map(ToString::to_string).collect();
    report.policy.unwrap_or_else(|| panic!("the policy does not load:\n{}\n{text}", findings.join("\n")))
}

/// A connection, as soon as there is somebody to talk to.
pub(crate) async fn connect(address: SocketAddr) -> Channel {
    let endpoint = Endpoint::from_shared(format!("http://{address}")).unwrap().tcp_nodelay(true);
    let started = Instant::now();
    loop {
        match endpoint.connect().await {
            Ok(channel) => return channel,
            Err(error) => assert!(started.elapsed() < PATIENCE, "cannot connect to {address}: {error}"),
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Asks until `condition` holds; a panic that names `what` when it does not within [`PATIENCE`].
pub(crate) async fn eventually(what: &str, condition: impl AsyncFnMut() -> bool) {
    eventually_within(PATIENCE, what, condition).await;
}

/// The same, within `patience`: for what has to wait for a time limit of the service first.
pub(crate) async fn eventually_within(
    patience: Duration,
    what: &str,
    mut condition: impl AsyncFnMut() -> bool,
) {
    let started = Instant::now();
    while !condition().await {
        assert!(started.elapsed() < patience, "not within {patience:?}: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// The request to create a key that may do all that its team may.
pub(crate) fn new_key(name: &str, team: &str) -> tollgate::rpc::proto::CreateKeyRequest {
    let (name, team) = (name.to_owned(), team.to_owned());
    let key = tollgate::rpc::proto::VirtualKey { name, team, ..Default::default() };
    tollgate::rpc::proto::CreateKeyRequest { key: Some(key), ..Default::default() }
}

/// A `Struct` as JSON; `null` if there is none.
pub(crate) fn json_of(fields: Option<&prost_types::Struct>) -> serde_json::Value {
    use prost_types::value::Kind;
    fn of(value: &prost_types::Value) -> serde_json::Value {
        match value.kind.as_ref().expect("a value has a kind") {
            Kind::NullValue(_) => serde_json::Value::Null,
            Kind::BoolValue(is_true) => (*is_true).into(),
            // Whole numbers as such.
            Kind::NumberValue(number) => {
                number.to_string().parse::<i64>().map_or_else(|_| (*number).into(), Into::into)
            }
            Kind::StringValue(text) => text.clone().into(),
            Kind::ListValue(list) => list.values.iter().map(of).collect(),
            Kind::StructValue(inner) => json_of(Some(inner)),
        }
    }
    let fields = fields.map(|fields| fields.fields.iter().map(|(name, value)| (name.clone(), of(value))));
    fields.map_or(serde_json::Value::Null, |fields| serde_json::Value::Object(fields.collect()))
}
