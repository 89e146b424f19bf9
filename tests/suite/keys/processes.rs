//! Keys over real processes: how fast a change is everywhere, what a crash loses, and what is written about secrets.

use std::time::Duration;

use tempfile::TempDir;
use tollgate::rpc::proto::{
    self, KeyLimits, Reason, key_service_client::KeyServiceClient, policy_service_client::PolicyServiceClient,
};
use tonic::transport::Channel;

use super::{MODEL, by_key, key};
use crate::{
    harness::{Process, StoreKind, chat, connect, eventually, organization},
    redis_server::RedisServer,
    replicas::{BOUND, until_all},
};

fn policy(organization: &str) -> String {
    format!(
        r#"
[organization]
id = "{organization}"
[teams.bot]
models = ["{MODEL}"]
max_output_tokens = 4000
[[prices]]
model = "{MODEL}"
input_usd_per_million_tokens = "0.001"
output_usd_per_million_tokens = "0.001"
"#
    )
}

struct Replica {
    process: Process,
    keys: KeyServiceClient<Channel>,
    calls: PolicyServiceClient<Channel>,
}

impl Replica {
    async fn start(directory: &TempDir, policy: &str, store: &str) -> Self {
        Self::of(Process::start(directory.path(), policy, store).await).await
    }

    async fn of(process: Process) -> Self {
        let keys = KeyServiceClient::new(connect(process.address()).await);
        let calls = process.client().await;
        Self { process, keys, calls }
    }

    async fn reason(&mut self, secret: &str) -> Option<Reason> {
        let answer = self.calls.authorize(by_key(secret)).await.unwrap().into_inner();
        answer.violations.first().map(proto::Violation::reason)
    }

    async fn create(&mut self, name: &str) -> String {
        self.keys.create_key(key(name, KeyLimits::default())).await.unwrap().into_inner().secret
    }

    async fn rotate(&mut self, name: &str, force: bool) -> String {
        let overlap = Some(prost_types::Duration::default());
        let request = proto::RotateKeyRequest { name: name.to_owned(), overlap, force };
        self.keys.rotate_key(request).await.unwrap().into_inner().secret
    }

    async fn revoke(&mut self, name: &str) {
        let request = proto::RevokeKeyRequest { name: name.to_owned() };
        self.keys.revoke_key(request).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_is_in_force_on_three_replicas_within_the_bound() {
    if !StoreKind::Redis.is_available() {
        return;
    }
    let (redis, directory) = (RedisServer::start(), TempDir::new().unwrap());
    let policy = policy(&organization());
    let mut replicas = Vec::new();
    for _ in 0..3 {
        replicas.push(Replica::start(&directory, &policy, &redis.url()).await);
    }
    let mut slowest = Duration::ZERO;
    for round in 0..8 {
        let (name, by) = (format!("bot-prod-{round}"), round % 3);
        let first = replicas[by].create(&name).await;
        assert_eq!(replicas[by].reason(&first).await, None, "at once where it was made");
        slowest = slowest
            .max(until_all(&mut replicas, async |replica| replica.reason(&first).await.is_none()).await);
        let second = replicas[(by + 1) % 3].rotate(&name, true).await;
        slowest = slowest.max(
            until_all(&mut replicas, async |replica| {
                replica.reason(&first).await == Some(Reason::KeyExpired)
            })
            .await,
        );
        slowest = slowest
            .max(until_all(&mut replicas, async |replica| replica.reason(&second).await.is_none()).await);
        replicas[(by + 2) % 3].revoke(&name).await;
        slowest = slowest.max(
            until_all(&mut replicas, async |replica| {
                replica.reason(&second).await == Some(Reason::KeyRevoked)
            })
            .await,
        );
    }
    println!("the slowest change took {slowest:?}");
    assert!(slowest < BOUND, "{slowest:?}");
    // Each replica counted its own, and one shows the sum.
    eventually("the uses of all replicas are shown by one", || {
        let (mut keys, name) = (replicas[0].keys.clone(), "bot-prod-0".to_owned());
        async move {
            let shown = keys
                .get_key(proto::GetKeyRequest { name, ..Default::default() })
                .await
                .unwrap()
                .into_inner()
                .key
                .unwrap();
            shown.secrets.iter().map(|secret| secret.requests_last_24_hours).sum::<i64>() >= 7
        }
    })
    .await;
}

/// Many make and end keys at once, on all replicas: every one that was acknowledged is there, as it was left.
async fn nothing_is_lost_under_load(replicas: &mut [Replica]) {
    const MAKERS: usize = 12;
    const EACH: usize = 6;
    let mut makers = Vec::new();
    for maker in 0..MAKERS {
        let mut keys = replicas[maker % replicas.len()].keys.clone();
        makers.push(tokio::spawn(async move {
            let mut made = Vec::new();
            for number in 0..EACH {
                let name = format!("bot-load-{maker}.{number}");
                let secret =
                    keys.create_key(key(&name, KeyLimits::default())).await.unwrap().into_inner().secret;
                let revoked = number % 2 == 0;
                if revoked {
                    let request = proto::RevokeKeyRequest { name: name.clone() };
                    keys.revoke_key(request).await.unwrap();
                }
                // All of them change one key, each a label of its own.
                let shared =
                    proto::GetKeyRequest { name: "bot-load-shared".to_owned(), ..Default::default() };
                loop {
                    let mut key = keys.get_key(shared.clone()).await.unwrap().into_inner().key.unwrap();
                    let count: usize = key.labels.get("count").map_or(0, |count| count.parse().unwrap());
                    key.labels.insert("count".to_owned(), (count + 1).to_string());
                    let update_mask = Some(prost_types::FieldMask { paths: vec!["labels".to_owned()] });
                    let request =
                        proto::UpdateKeyRequest { key: Some(key), update_mask, ..Default::default() };
                    match keys.update_key(request).await {
                        Ok(_) => break,
                        Err(status) => assert_eq!(status.code(), tonic::Code::Aborted, "{status:?}"),
                    }
                }
                made.push((name, secret, revoked));
            }
            made
        }));
    }
    let mut made = Vec::new();
    for maker in makers {
        made.extend(maker.await.unwrap());
    }
    for replica in replicas {
        let request = proto::ListKeysRequest { page_size: 1000, ..Default::default() };
        let list = replica.keys.list_keys(request).await.unwrap().into_inner().keys;
        assert_eq!(list.len(), MAKERS * EACH + 1);
        let shared = list.iter().find(|key| key.name == "bot-load-shared").unwrap();
        assert_eq!(shared.labels["count"], (MAKERS * EACH).to_string());
        for (name, secret, revoked) in &made {
            let expected = revoked.then_some(Reason::KeyRevoked);
            assert_eq!(replica.reason(secret).await, expected, "{name}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_under_load_on_three_replicas() {
    if !StoreKind::Redis.is_available() {
        return;
    }
    let (redis, directory) = (RedisServer::start(), TempDir::new().unwrap());
    let policy = policy(&organization());
    let mut replicas = Vec::new();
    for _ in 0..3 {
        replicas.push(Replica::start(&directory, &policy, &redis.url()).await);
    }
    replicas[0].create("bot-load-shared").await;
    nothing_is_lost_under_load(&mut replicas).await;
}

/// The embedded store, and then `kill -9`: all is there again. And nothing that the process wrote shows a secret.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_acknowledged_key_is_lost_by_a_kill_and_no_secret_is_written() {
    let directory = TempDir::new().unwrap();
    let policy = policy("acme");
    let mut replicas = vec![Replica::start(&directory, &policy, "embedded:data").await];
    let mut secrets = vec![replicas[0].create("bot-load-shared").await];
    nothing_is_lost_under_load(&mut replicas).await;
    let [mut replica] = <[Replica; 1]>::try_from(replicas).ok().unwrap();
    let mut expected = Vec::new();
    for number in 0..20 {
        let name = format!("bot-kill-{number}");
        let first = replica.create(&name).await;
        assert_eq!(replica.reason(&first).await, None);
        let second = replica.rotate(&name, true).await;
        expected.push((first.clone(), Some(Reason::KeyExpired)));
        let revoked = number % 2 == 0;
        if revoked {
            replica.revoke(&name).await;
            expected[usize::try_from(2 * number).unwrap()].1 = Some(Reason::KeyRevoked);
        }
        expected.push((second.clone(), revoked.then_some(Reason::KeyRevoked)));
        secrets.extend([first, second]);
    }
    let last = replica.create("bot-kill-last").await;
    let mut written = replica.process.log();
    replica.process.kill();
    let mut replica = Replica::start(&directory, &policy, "embedded:data").await;
    assert_eq!(replica.reason(&last).await, None);
    for (secret, expected) in &expected {
        assert_eq!(replica.reason(secret).await, *expected);
    }
    // A secret that is wrong in every way a process can be told one.
    let typo = format!("{}{}", &last[..last.len() - 1], if last.ends_with('x') { 'y' } else { 'x' });
    assert_eq!(replica.reason(&typo).await, Some(Reason::InvalidKey));
    written.push_str(&replica.process.log());
    assert!(written.contains("key created") && written.contains("request denied"), "{written}");
    secrets.extend([last, typo]);
    for secret in &secrets {
        let sha256 = <sha2::Sha256 as sha2::Digest>::digest(secret.as_bytes());
        let sha256: String = sha256.iter().map(|byte| format!("{byte:02x}")).collect();
        for trace in [secret.as_str(), &secret[4..20], sha256.as_str()] {
            assert!(!written.contains(trace), "the log shows a secret");
        }
        // Nor does anything in its directory hold one.
        for file in std::fs::read_dir(directory.path().join("data")).unwrap() {
            let bytes = std::fs::read(file.unwrap().path()).unwrap_or_default();
            assert!(!bytes.windows(secret.len()).any(|window| window == secret.as_bytes()));
        }
    }
}

/// Redis that lost its memory has no keys: they are refused. Those made then work, and none of before comes back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_that_redis_lost_are_refused() {
    if !StoreKind::Redis.is_available() {
        return;
    }
    let (mut redis, directory) = (RedisServer::start(), TempDir::new().unwrap());
    let process = Process::start_forgetful(directory.path(), &policy(&organization()), &redis.url()).await;
    let mut replica = Replica::of(process).await;
    let lost = replica.create("bot-prod-web").await;
    assert_eq!(replica.reason(&lost).await, None);
    redis.kill();
    assert!(redis.restart());
    let mut other = String::new();
    eventually("a key is made over the new connection", async || {
        match replica.keys.create_key(key("bot-prod-web", KeyLimits::default())).await {
            Ok(answer) => other = answer.into_inner().secret,
            Err(status) => assert!(
                matches!(status.code(), tonic::Code::Unavailable | tonic::Code::AlreadyExists),
                "{status:?}"
            ),
        }
        !other.is_empty()
    })
    .await;
    // Each connection finds out for itself that the one before has ended.
    eventually("the other key is taken", || {
        let (mut calls, request) = (replica.calls.clone(), by_key(&other));
        async move { calls.authorize(request).await.is_ok() }
    })
    .await;
    assert_eq!(replica.reason(&other).await, None);
    assert_eq!(replica.reason(&lost).await, Some(Reason::InvalidKey));
}

/// A replica that could not read the keys yet cannot say that one does not exist.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_the_store_nobody_says_that_a_key_is_unknown() {
    if !StoreKind::Redis.is_available() {
        return;
    }
    let (mut redis, directory) = (RedisServer::start(), TempDir::new().unwrap());
    redis.kill();
    let mut replica = Replica::start(&directory, &policy(&organization()), &redis.url()).await;
    let secret = secret_of([1; 32]);
    let status = replica.calls.authorize(by_key(&secret)).await.unwrap_err();
    assert_eq!(status.code(), tonic::Code::Unavailable, "{status:?}");
    let made = replica.keys.create_key(key("bot-prod-web", KeyLimits::default())).await;
    assert_eq!(made.unwrap_err().code(), tonic::Code::Unavailable);
    // A typo needs no look-up.
    let typo = format!("{}x", &secret[..52]);
    assert_eq!(replica.reason(&typo).await, Some(Reason::InvalidKey));
    assert!(redis.restart());
    eventually("the keys are read", || {
        let mut calls = replica.calls.clone();
        async move { calls.authorize(by_key(&secret_of([1; 32]))).await.is_ok() }
    })
    .await;
    assert_eq!(replica.reason(&secret).await, Some(Reason::InvalidKey));
}

fn secret_of(bytes: [u8; 32]) -> String {
    tollgate::domain::key::Secret::from_random(bytes).expose().to_owned()
}

/// A decision by a created key is one call of the store, as it is by the name of a team; counting its use is none of the key's
/// record.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_decision_asks_the_store_about_a_key() {
    const CALLS: u64 = 1_000;
    if !StoreKind::Redis.is_available() {
        return;
    }
    let (redis, directory) = (RedisServer::start(), TempDir::new().unwrap());
    let mut replica = Replica::start(&directory, &policy(&organization()), &redis.url()).await;
    let made = replica.keys.create_key(key("bot-prod-web", KeyLimits::default())).await.unwrap().into_inner();
    let (secret, made) = (made.secret, made.key.unwrap().etag);
    let mut by_hand = redis::Client::open(redis.url()).unwrap().get_connection().unwrap();
    let mut commands = || -> u64 {
        let told: String = redis::cmd("INFO").arg("commandstats").query(&mut by_hand).unwrap();
        let calls = told.lines().filter(|line| !line.starts_with("cmdstat_info"));
        calls.filter_map(|line| line.split_once("calls=")?.1.split(',').next()?.parse::<u64>().ok()).sum()
    };
    // What one decision by a team's name costs, the commands within its script counted.
    let mut decide = async |request: proto::AuthorizeRequest| {
        let before = commands();
        for _ in 0..CALLS {
            let answer = replica.calls.authorize(request.clone()).await.unwrap().into_inner();
            assert!(answer.violations.is_empty(), "{answer:?}");
        }
        commands() - before
    };
    let by_team = decide(chat("bot", MODEL, 10, 10)).await;
    let by_key = decide(by_key(&secret)).await;
    println!("{CALLS} decisions: {by_team} commands by team, {by_key} by key");
    // One more each would be twice this. What goes on beside, health and the following of the registry, is a few a second.
    assert!(by_key < by_team + CALLS / 2, "{by_team} by team, {by_key} by key");
    // All were counted, and the record is as it was written.
    let get = proto::GetKeyRequest { name: "bot-prod-web".to_owned(), ..Default::default() };
    let shown = replica.keys.get_key(get).await.unwrap().into_inner().key.unwrap();
    assert_eq!(shown.secrets[0].requests_last_24_hours, i64::try_from(CALLS).unwrap());
    assert_eq!(shown.etag, made);
}
