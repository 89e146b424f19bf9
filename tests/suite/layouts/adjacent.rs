//! The last release beside this one, in processes of both: on one Redis, and one after the other on one directory. Where both write the
//! same layout neither notices; where this one raises it, the last one leaves the store alone and loses nothing.
//!
//! `make test-upgrade` builds the last release and names its program here. Without it these tests are skipped.

use std::{io::Write as _, path::PathBuf};

use redis::Commands as _;
use tempfile::TempDir;
use tollgate::{
    rpc::{
        google_type::Money,
        proto::{
            AuthorizeRequest, Decision, GetSpendRequest, authorize_request::Caller,
            key_service_client::KeyServiceClient, policy_service_client::PolicyServiceClient,
        },
    },
    store::LAYOUT,
};
use tonic::transport::Channel;

use super::META;
use crate::{
    harness::{Process, chat, connect, errors::is_of, eventually, nanos, new_key, used},
    redis_server::RedisServer,
};

/// Names the program of the last release.
const LAST: &str = "TOLLGATE_LAST_RELEASE";

/// $1 for a token, so that a request of 10 costs $10.
const POLICY: &str = r#"
[organization]
id = "acme"
[teams.bot]
models = ["m/a"]
max_output_tokens = 10
max_in_flight = 3
budget = { monthly_usd = "1000" }
[[prices]]
model = "m/a"
input_usd_per_million_tokens = "1000000"
output_usd_per_million_tokens = "1000000"
"#;

fn last() -> Option<PathBuf> {
    let last = std::env::var_os(LAST).filter(|last| !last.is_empty()).map(PathBuf::from);
    if last.is_none() {
        let notice = format!(
            "\nSKIPPED: the last release was NOT run beside this one: {LAST} does not name its program\n"
        );
        std::io::stderr().write_all(notice.as_bytes()).unwrap();
    }
    last
}

type Client = PolicyServiceClient<Channel>;

/// Asks for $`dollars`; the reservation's id.
async fn reserve(client: &mut Client, dollars: i64) -> String {
    let answer = client.authorize(chat("bot", "m/a", dollars - 1, 1)).await.unwrap().into_inner();
    assert_eq!(answer.decision(), Decision::Allowed, "{answer:?}");
    answer.reservation_id
}

/// Reports all that was asked for; what it cost, in dollars.
async fn report(client: &mut Client, reservation_id: &str, dollars: i64) -> u64 {
    let report = client.record_usage(used(reservation_id, dollars - 1, 1)).await.unwrap().into_inner();
    usd(report.cost)
}

fn usd(money: Option<Money>) -> u64 {
    nanos(money) / 1_000_000_000
}

/// What the team has spent and reserved in the month, in dollars.
async fn spend(client: &mut Client) -> (u64, u64) {
    let asked = GetSpendRequest { team: "bot".to_owned(), ..Default::default() };
    let spend = client.get_spend(asked).await.unwrap().into_inner().teams[0].spend.clone().unwrap();
    (usd(spend.spent), usd(spend.reserved))
}

async fn create_key(process: &Process) -> String {
    let mut keys = KeyServiceClient::new(connect(process.address()).await);
    keys.create_key(new_key("bot-prod-web", "bot")).await.unwrap().into_inner().secret
}

/// Whether the created key is known.
async fn knows(client: &mut Client, secret: &str) -> bool {
    let caller = Some(Caller::ApiKey(secret.to_owned()));
    let asked = AuthorizeRequest { caller, dry_run: true, ..chat("bot", "m/a", 0, 1) };
    client.authorize(asked).await.is_ok_and(|answer| answer.into_inner().decision() == Decision::Allowed)
}

#[tokio::test(flavor = "multi_thread")]
async fn two_adjacent_releases_share_a_redis() {
    let Some(program) = last() else { return };
    let (redis, directory) = (RedisServer::start(), TempDir::new().unwrap());
    let mut by_hand = redis::Client::open(redis.url()).unwrap().get_connection().unwrap();
    let last = Process::start_release(&program, directory.path(), POLICY, &redis.url()).await;
    let mut old = last.client().await;
    let [open, done, kept] =
        [reserve(&mut old, 10).await, reserve(&mut old, 20).await, reserve(&mut old, 30).await];
    assert_eq!(report(&mut old, &done, 20).await, 20);
    let secret = create_key(&last).await;
    let layout: u32 = by_hand.hget(META, "layout").unwrap();

    let own = Process::start(directory.path(), POLICY, &redis.url()).await;
    let mut new = own.client().await;
    eventually("this release serves", async || own.is_serving().await == Some(true)).await;
    assert_eq!(by_hand.hget::<_, _, u32>(META, "layout").unwrap(), LAYOUT);
    assert_eq!(spend(&mut new).await, (20, 40));
    eventually("it knows the key", async || knows(&mut new, &secret).await).await;
    assert_eq!(report(&mut new, &open, 10).await, 10);
    assert_eq!(report(&mut new, &done, 20).await, 20, "a repeat");
    let fresh = reserve(&mut new, 5).await;
    if layout < LAYOUT {
        // It says what to do, and touches nothing.
        eventually("the last release stops serving", async || last.is_serving().await == Some(false)).await;
        for status in [
            old.authorize(chat("bot", "m/a", 0, 1)).await.unwrap_err(),
            old.record_usage(used(&kept, 29, 1)).await.unwrap_err(),
        ] {
            is_of(&status, "LAYOUT_UNSUPPORTED");
        }
        assert_eq!(report(&mut new, &kept, 30).await, 30);
        assert_eq!(report(&mut new, &fresh, 5).await, 5);
    } else {
        assert_eq!(last.is_serving().await, Some(true));
        // Three are in flight at most, over both.
        let third = reserve(&mut old, 1).await;
        let refused = new.authorize(chat("bot", "m/a", 0, 1)).await.unwrap().into_inner();
        assert_eq!(refused.decision(), Decision::Denied, "{refused:?}");
        assert_eq!(report(&mut new, &third, 1).await, 1);
        assert_eq!(report(&mut old, &fresh, 5).await, 5);
        assert_eq!(spend(&mut old).await, spend(&mut new).await);
        // This release is taken back.
        own.stop().await;
        assert_eq!(report(&mut old, &kept, 30).await, 30);
        assert_eq!(spend(&mut old).await, (66, 0));
        return;
    }
    assert_eq!(spend(&mut new).await, (65, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn two_adjacent_releases_open_one_directory() {
    let Some(program) = last() else { return };
    let directory = TempDir::new().unwrap();
    let last = Process::start_release(&program, directory.path(), POLICY, "embedded:data").await;
    let mut old = last.client().await;
    let (open, done) = (reserve(&mut old, 10).await, reserve(&mut old, 20).await);
    assert_eq!(report(&mut old, &done, 20).await, 20);
    let secret = create_key(&last).await;
    last.stop().await;

    let own = Process::start(directory.path(), POLICY, "embedded:data").await;
    let mut new = own.client().await;
    assert_eq!(spend(&mut new).await, (20, 10));
    assert!(knows(&mut new, &secret).await);
    assert_eq!(report(&mut new, &open, 10).await, 10);
    assert_eq!(report(&mut new, &done, 20).await, 20, "a repeat");
    own.stop().await;

    // Back again.
    let data = directory.path().join("data");
    let copies = std::fs::read_dir(&data).unwrap().filter_map(|entry| {
        let name = entry.unwrap().file_name().into_string().unwrap();
        name.strip_prefix("tollgate.db.layout-").map(str::to_owned)
    });
    let copies: Vec<_> = copies.collect();
    match copies.first() {
        Some(layout) => {
            assert!(layout.parse::<u32>().unwrap() < LAYOUT, "{copies:?}");
            let output = Process::refused(&program, directory.path(), "embedded:data");
            let said = format!("has layout {LAYOUT}");
            assert!(output.contains(&said) && output.contains("use the release that raised it"), "{output}");
        }
        None => {
            let last = Process::start_release(&program, directory.path(), POLICY, "embedded:data").await;
            assert_eq!(spend(&mut last.client().await).await, (30, 0));
            last.stop().await;
        }
    }
}
