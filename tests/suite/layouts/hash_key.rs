//! The key that secrets are hashed with: one for all organizations of a store, and moved there from where it was.

use std::sync::Arc;

use bytes::Bytes;
use sha2::{Digest as _, Sha256};
use tollgate::{
    control::{Keys, NewKey},
    domain::key::{KeyLimits, Secret},
    live::{Follower, Live},
    runtime::{
        Entropy,
        clock::{Clock, ManualClock},
    },
    store::{Registry as _, Revision, Store, embedded::EmbeddedStore},
};

use super::POLICY;
use crate::{
    harness::{self, Fixture, START, StoreKind, connect_again, settings},
    redis_server::RedisServer,
};

const RECORD: &str = "hash-key";
const BEFORE: [u8; 32] = [7; 32];

struct Process<S> {
    follower: Follower<S>,
    keys: Keys<S>,
}

impl<S: Store + Clone> Process<S> {
    fn start(store: &S) -> Self {
        let policy = Arc::new(harness::policy(POLICY, START));
        let follower = Follower::new(store.clone(), Arc::new(Live::new(policy)));
        Self { keys: Keys::new(follower.clone(), Entropy::System), follower }
    }

    async fn create(&self, name: &str) -> Secret {
        let new = NewKey {
            name: name.to_owned(),
            team: "bot".to_owned(),
            labels: Default::default(),
            limits: KeyLimits::default(),
            expires_at: None,
        };
        self.keys.create_key(new).await.unwrap().1
    }

    /// The name of the key with this secret.
    async fn find(&self, secret: &Secret) -> Option<String> {
        self.follower.read().await.unwrap();
        let sha256 = Sha256::digest(secret.expose()).into();
        self.follower.snapshot().keys.find(&sha256).map(|(key, _)| key.name.to_string())
    }
}

async fn record<S: Store>(store: &S) -> Option<Bytes> {
    let records = store.registry_since(Revision::default()).await.unwrap().records;
    records.into_iter().find(|record| &*record.name == RECORD).map(|record| record.value)
}

/// A store of a release that kept the key in the registry, with a created key whose secret is hashed with it.
async fn earlier<S: Store + Clone>(store: &S) -> Secret {
    store.registry_write(RECORD.into(), 0, Bytes::from_static(&BEFORE)).await.unwrap();
    let secret = Secret::from_random([9; 32]);
    let sha256 = Sha256::digest(secret.expose()).into();
    let hash = tollgate::domain::key::HashKey::new(BEFORE).hash(&sha256);
    let kept = tollgate::domain::key::KeySecret {
        id: tollgate::domain::key::SecretId(5),
        hash,
        created_at: START,
        ends_at: None,
    };
    let kept = serde_json::to_string(&kept).unwrap();
    let key =
        format!(r#"{{"name":"bot-prod-web","team":"bot","created_at":1795428000000,"secrets":[{kept}]}}"#);
    store.registry_write("key/bot-prod-web".into(), 0, key.into()).await.unwrap();
    secret
}

async fn it_is_moved_and_no_secret_is_lost<S: Store + Clone>(store: &S) {
    let secret = earlier(store).await;
    for _ in 0..2 {
        let process = Process::start(store);
        assert_eq!(process.find(&secret).await.as_deref(), Some("bot-prod-web"));
        assert_eq!(store.hash_key(None).await, Ok(Some(BEFORE)));
        assert_eq!(record(store).await, Some(Bytes::new()), "removed, once it is where it belongs");
    }
    let process = Process::start(store);
    let other = process.create("bot-prod-two").await;
    assert_eq!(process.find(&other).await.as_deref(), Some("bot-prod-two"));
    assert_eq!(process.find(&secret).await.as_deref(), Some("bot-prod-web"));
}

#[tokio::test]
async fn it_is_moved_and_no_secret_is_lost_on_the_embedded_store() {
    it_is_moved_and_no_secret_is_lost(&Fixture::embedded().store).await;
}

#[tokio::test]
async fn it_is_moved_and_no_secret_is_lost_on_redis() {
    if !StoreKind::Redis.is_available() {
        return;
    }
    // One of its own: others create keys on the shared one.
    let redis = RedisServer::start();
    it_is_moved_and_no_secret_is_lost(&Fixture::of_redis(settings(&redis, "acme")).store).await;
}

#[tokio::test]
async fn an_organization_keeps_its_own_where_another_was_first() {
    let Fixture { store, .. } = &Fixture::embedded();
    assert_eq!(store.hash_key(Some([8; 32])).await, Ok(Some([8; 32])));
    let secret = earlier(store).await;
    for name in ["bot-prod-two", "bot-prod-three"] {
        let process = Process::start(store);
        assert_eq!(process.find(&secret).await.as_deref(), Some("bot-prod-web"));
        let other = process.create(name).await;
        assert_eq!(process.find(&other).await.as_deref(), Some(name));
        assert_eq!(record(store).await, Some(Bytes::from_static(&BEFORE)));
    }
}

#[tokio::test]
async fn it_outlasts_a_restart_and_raises_no_number() {
    let fixture = Fixture::embedded();
    let secret = Process::start(&fixture.store).create("bot-prod-web").await;
    assert_eq!(fixture.store.registry_since(Revision::default()).await.unwrap().revision.number, 1);
    let fixture = connect_again(fixture);
    assert_eq!(Process::start(&fixture.store).find(&secret).await.as_deref(), Some("bot-prod-web"));
}

#[tokio::test]
async fn organizations_of_one_server_share_it() {
    if !StoreKind::Redis.is_available() {
        return;
    }
    let redis = RedisServer::start();
    let [one, two] = ["one", "two"].map(|name| Fixture::of_redis(settings(&redis, name)).store);
    let secret = Process::start(&one).create("bot-prod-web").await;
    assert_eq!(Process::start(&one).find(&secret).await.as_deref(), Some("bot-prod-web"));
    assert_eq!(Process::start(&two).find(&secret).await, None);
    let shared = one.hash_key(None).await.unwrap();
    assert!(shared.is_some());
    Process::start(&two).create("bot-prod-web").await;
    assert_eq!(two.hash_key(None).await, Ok(shared));
}

/// A directory that the last release wrote, with a key whose secret is known.
#[tokio::test]
async fn a_directory_of_the_last_layout_keeps_its_secrets() {
    // In two parts, as it is no secret of anything: scanners need not report it.
    const SECRET: &str = concat!("tgk_", "IHcX2XrREYOmmQr9A49PF2I7VIpDIiVSeNR882czOGa0zrjoO");
    let directory = tempfile::TempDir::new().unwrap();
    let connection = rusqlite::Connection::open(directory.path().join("tollgate.db")).unwrap();
    connection.execute_batch(include_str!("../../../src/store/embedded/tests/layout_3.sql")).unwrap();
    drop(connection);
    let sha256 = Sha256::digest(SECRET).into();
    for _ in 0..2 {
        let store = EmbeddedStore::open(directory.path(), Clock::Manual(ManualClock::new(START))).unwrap();
        let process = Process::start(&store);
        process.follower.read().await.unwrap();
        let snapshot = process.follower.snapshot();
        assert_eq!(&*snapshot.keys.find(&sha256).unwrap().0.name, "chatbot-prod-web");
        assert_eq!(record(&store).await, Some(Bytes::new()));
        assert!(store.hash_key(None).await.unwrap().is_some());
    }
}
