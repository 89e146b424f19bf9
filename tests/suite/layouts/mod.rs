//! Stores of other releases: what a process leaves alone, what it reads, and what it moves.

mod adjacent;
mod directories;
mod entries;
mod hash_key;

use tollgate::{
    rpc::proto::{self, Decision, policy_service_client::PolicyServiceClient},
    runtime::clock::ManualClock,
    store::LAYOUT,
};
use tonic::{Code, Status, transport::Channel};
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};
use tonic_types::StatusExt as _;

use crate::{
    envoy::checks,
    harness::{START, Server, StoreKind, chat, connect, errors::is_of, eventually, used},
    redis_server::RedisServer,
};

const MODEL: &str = "openai/gpt-oss-20b";
const POLICY: &str = "[organization]\nid = \"acme\"\n[teams.bot]\nmodels = [\"openai/gpt-oss-20b\"]\nrequests_per_minute = 60\n";
const META: &str = "tollgate:{acme}:meta";

/// A Redis, and a connection past the service.
struct ByHand {
    redis: RedisServer,
    connection: redis::Connection,
}

impl ByHand {
    fn start() -> Self {
        let redis = RedisServer::start();
        let connection = redis::Client::open(redis.url()).unwrap().get_connection().unwrap();
        Self { redis, connection }
    }

    fn run<T: redis::FromRedisValue>(&mut self, command: &[&str]) -> T {
        redis::cmd(command[0]).arg(&command[1..]).query(&mut self.connection).unwrap()
    }

    fn set_layout(&mut self, layout: u32) {
        let _: u32 =
            self.run(&["HSET", META, "layout", &layout.to_string(), "min_layout", &LAYOUT.to_string()]);
    }

    /// All keys of the organization but [`META`], with their bytes.
    fn data(&mut self) -> Vec<(String, Vec<u8>)> {
        let mut keys: Vec<String> = self.run(&["KEYS", "tollgate:*"]);
        keys.retain(|key| key != META);
        keys.sort();
        keys.into_iter().map(|key| (key.clone(), self.run(&["DUMP", &key]))).collect()
    }
}

/// Asserts that nothing was done because of the layout `found`.
fn is_unsupported(status: &Status, found: u32) {
    let details = status.get_error_details();
    let info = details.error_info().expect("an ErrorInfo");
    assert_eq!(status.code(), Code::Unavailable, "{status:?}");
    is_of(status, "LAYOUT_UNSUPPORTED");
    let fact = |name: &str| info.metadata.get(name).cloned().unwrap_or_default();
    let facts = ["effect", "foundLayout", "knownLayout"].map(fact);
    assert_eq!(facts, ["none".to_owned(), found.to_string(), LAYOUT.to_string()]);
    let both = format!("layout {found}, and this release knows layouts up to {LAYOUT}");
    assert!(status.message().contains(&both), "{status:?}");
    assert!(details.retry_info().is_some());
}

async fn is_allowed(client: &mut PolicyServiceClient<Channel>) -> bool {
    let answer = client.authorize(chat("bot", MODEL, 10, 10)).await;
    answer.is_ok_and(|answer| answer.into_inner().decision() == Decision::Allowed)
}

async fn is_serving(server: &Server) -> bool {
    let mut health = HealthClient::new(connect(server.address()).await);
    let answer = health.check(HealthCheckRequest::default()).await.unwrap();
    answer.into_inner().status() == ServingStatus::Serving
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_of_a_later_layout_is_left_alone_until_it_has_a_known_one() {
    if !StoreKind::Redis.is_available() {
        return;
    }
    let mut by_hand = ByHand::start();
    by_hand.set_layout(LAYOUT + 1);
    let server = Server::start_on_redis(&by_hand.redis, "acme", POLICY, ManualClock::new(START));
    let mut client = server.client().await;
    is_unsupported(&client.authorize(chat("bot", MODEL, 10, 10)).await.unwrap_err(), LAYOUT + 1);
    let report = used(&format!("01{:030x}", 7), 1, 1);
    is_unsupported(&client.record_usage(report).await.unwrap_err(), LAYOUT + 1);
    is_unsupported(&client.get_spend(proto::GetSpendRequest::default()).await.unwrap_err(), LAYOUT + 1);
    // By default `on_outage` lets Envoy's `failure_mode_allow` decide, which may let requests pass.
    let body = serde_json::json!({"model": MODEL, "max_tokens": 10, "messages": []});
    let asked = checks::check("1", &[("authorization", "Bearer some secret")], &body);
    assert_eq!(checks::status(&checks::ask(&server, asked).await), 503);
    assert_eq!(by_hand.data(), [], "nothing was written");
    eventually("it is not ready", async || !is_serving(&server).await).await;
    by_hand.set_layout(LAYOUT);
    eventually("the release that raised it was taken back", async || is_allowed(&mut client).await).await;
    eventually("it is ready", async || is_serving(&server).await).await;
    assert!(server.stop().await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_layout_that_is_raised_stops_a_running_process() {
    if !StoreKind::Redis.is_available() {
        return;
    }
    let mut by_hand = ByHand::start();
    let server = Server::start_on_redis(&by_hand.redis, "acme", POLICY, ManualClock::new(START));
    let mut client = server.client().await;
    eventually("it decides", async || is_allowed(&mut client).await).await;
    let open = client.authorize(chat("bot", MODEL, 10, 10)).await.unwrap().into_inner().reservation_id;
    assert!(open.starts_with("01"), "{open}");
    by_hand.set_layout(LAYOUT + 1);
    eventually("it stops deciding", async || !is_allowed(&mut client).await).await;
    let before = by_hand.data();
    is_unsupported(&client.authorize(chat("bot", MODEL, 10, 10)).await.unwrap_err(), LAYOUT + 1);
    is_unsupported(&client.record_usage(used(&open, 1, 1)).await.unwrap_err(), LAYOUT + 1);
    assert!(by_hand.data() == before, "it changes nothing that is there");
    by_hand.set_layout(LAYOUT);
    eventually("it decides again", async || is_allowed(&mut client).await).await;
    client.record_usage(used(&open, 1, 1)).await.unwrap();
    assert!(server.stop().await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_holds_data_of_an_unknown_layout_is_left_alone() {
    if !StoreKind::Redis.is_available() {
        return;
    }
    let mut by_hand = ByHand::start();
    let _: u32 = by_hand.run(&["HSET", META, "layout", "4", "min_layout", "2"]);
    let server = Server::start_on_redis(&by_hand.redis, "acme", POLICY, ManualClock::new(START));
    let refused = server.client().await.authorize(chat("bot", MODEL, 10, 10)).await.unwrap_err();
    assert!(
        refused.message().contains("data of layout 2, and this release reads layouts from 4"),
        "{refused:?}"
    );
    assert!(server.stop().await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_process_says_which_layout_there_is_and_again_where_it_was_lost() {
    if !StoreKind::Redis.is_available() {
        return;
    }
    let mut by_hand = ByHand::start();
    let server = Server::start_on_redis(&by_hand.redis, "acme", POLICY, ManualClock::new(START));
    let mut client = server.client().await;
    eventually("it decides", async || is_allowed(&mut client).await).await;
    let meta = |by_hand: &mut ByHand| {
        let fields = ["layout", "min_layout", "generation", "create_time"];
        fields.map(|field| by_hand.run::<Option<String>>(&["HGET", META, field]).unwrap_or_default())
    };
    let [layout, min_layout, generation, created] = meta(&mut by_hand);
    assert_eq!((&*layout, &*min_layout), ("8", "8"));
    assert!(generation.len() == 16 && u64::from_str_radix(&generation, 16).is_ok(), "{generation}");
    assert!(created.parse::<u64>().unwrap() > 1_700_000_000_000, "{created}");
    let _: String = by_hand.run(&["FLUSHALL"]);
    eventually("it says so again", async || meta(&mut by_hand)[0] == layout).await;
    assert_ne!(meta(&mut by_hand)[2], generation, "another state of the server");
    assert!(server.stop().await);
}
