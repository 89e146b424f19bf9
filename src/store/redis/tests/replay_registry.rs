//! What a server forgot of the registry.

use super::{
    server::{Server, until_up},
    *,
};
use crate::store::{
    CarriedOver,
    redis::replay::{Kept, Write},
};

/// Values that begin with `-` end something, which ends with `-`; what begins with `#` is something else.
fn carries_over(_: &str, forgotten: &[u8], present: &[u8]) -> CarriedOver {
    match (forgotten.first(), present.first()) {
        (Some(b'-'), Some(b'#')) => CarriedOver::Another,
        (Some(b'-'), Some(b'-')) => CarriedOver::Nothing,
        (Some(b'-'), _) => CarriedOver::Value([&b"-"[..], present].concat().into()),
        _ => CarriedOver::Nothing,
    }
}

async fn store(server: &Server) -> RedisStore {
    let replay = ReplaySettings { carries_over: Some(carries_over), ..ReplaySettings::default() };
    let store = server.store_keeping("acme", Clock::Manual(ManualClock::new(NOW)), replay);
    until_up(&store).await;
    // It begins a generation.
    store.0.has_caught_up().await;
    store
}

fn write(name: &str, version: u64, value: &'static [u8]) -> Kept {
    Kept::Write(Arc::new(Write::new(name.into(), version, value.into())))
}

async fn record(store: &RedisStore, name: &str) -> Option<crate::store::RegistryRecord> {
    let changes = store.registry_since(Revision::default()).await.unwrap();
    changes.records.into_iter().find(|record| &*record.name == name)
}

async fn value(store: &RedisStore, name: &str) -> Option<Bytes> {
    record(store, name).await.map(|record| record.value)
}

#[tokio::test]
async fn what_was_revoked_stays_so_whatever_was_written_since() {
    let Some(server) = Server::start() else { return };
    let store = store(&server).await;
    for (name, since, changes, left_out, expected) in [
        ("key/changed", &b"since"[..], 1, 0, &b"-since"[..]),
        ("key/revoked-too", b"-since", 0, 0, b"-since"),
        ("key/another", b"#since", 0, 1, b"#since"),
    ] {
        let forgotten = vec![write(name, 9, b"-")];
        store.registry_write(name.into(), 0, Bytes::from_static(since)).await.unwrap();
        let done = store.0.write_again(forgotten.clone()).await.unwrap();
        assert_eq!((done.changes, done.left_out), (changes, left_out), "{name}");
        assert_eq!(value(&store, name).await.as_deref(), Some(expected));
        // Again, and after a later server has forgotten that as well.
        assert_eq!(store.0.write_again(forgotten.clone()).await.unwrap().changes, 0, "{name}");
        let version = record(&store, name).await.unwrap().version;
        store.registry_write(name.into(), version, Bytes::from_static(since)).await.unwrap();
        store.0.write_again(forgotten).await.unwrap();
        assert_eq!(value(&store, name).await.as_deref(), Some(expected));
    }
    // Of what ends nothing the later write counts.
    store.registry_write("key/b".into(), 0, Bytes::from_static(b"since")).await.unwrap();
    assert_eq!(store.0.write_again(vec![write("key/b", 99, b"forgotten")]).await.unwrap().changes, 0);
    assert_eq!(value(&store, "key/b").await.as_deref(), Some(&b"since"[..]));
}

/// Copies what is stored of the registry, as replication does.
fn replicate(from: &Server, to: &Server, keyspace: &Keyspace) {
    for key in [&keyspace.registry, &keyspace.revision] {
        let dump: Vec<u8> = redis::cmd("DUMP").arg(key).query(&mut from.by_hand()).unwrap();
        redis::cmd("RESTORE").arg(key).arg(0).arg(dump).arg("REPLACE").exec(&mut to.by_hand()).unwrap();
    }
}

/// A user that may not ask for `INFO` does not hear which process the server is, and so not when that took over.
#[tokio::test]
async fn without_info_what_a_server_forgot_is_known_by_what_it_took_the_place_of() {
    let put = async |store: &RedisStore, value: &'static str, version| {
        let written = store.registry_write("pause/a".into(), version, value.into()).await.unwrap();
        let RegistryWritten::Written { version } = written else { panic!("{written:?}") };
        version
    };
    // It knows nothing of the record, or the first of three writes, or others since, of which one has the number of the second.
    for (replicated, since, expected) in [
        (false, &[][..], "third"),
        (true, &[], "third"),
        (true, &["since"], "since"),
        (true, &["since", "again"], "again"),
    ] {
        let (Some(first), Some(second)) = (Server::start(), Server::start()) else { return };
        for server in [&first, &second] {
            redis::cmd("ACL").arg(&["SETUSER", "default", "-info"]).exec(&mut server.by_hand()).unwrap();
        }
        let settings = ReplaySettings { window: Duration::from_secs(600), ..ReplaySettings::default() };
        let keeps = first.store_keeping("acme", Clock::Manual(ManualClock::new(NOW)), settings);
        until_up(&keeps).await;
        let forgot = store(&second).await;
        let mut version = put(&keeps, "first", 0).await;
        if replicated {
            replicate(&first, &second, &keeps.0.keyspace);
        }
        let mut present = version;
        for value in ["second", "third"] {
            version = put(&keeps, value, version).await;
        }
        for value in since {
            present = put(&forgot, value, present).await;
        }
        for _ in 0..2 {
            forgot.0.write_again(keeps.0.kept()).await.unwrap();
            assert_eq!(value(&forgot, "pause/a").await.as_deref(), Some(expected.as_bytes()), "{since:?}");
        }
    }
}
