//! Stores of several organizations that are made together: one link to a server for each purpose, and nothing else in common.

use super::{
    elsewhere::{Move, Sentinel, ask, connections_to, settings_at, text, until},
    server::Server,
    *,
};

const COUNT: usize = 12;

fn names() -> impl Iterator<Item = String> {
    (0..COUNT).map(|index| format!("organization-{index}"))
}

fn together(settings: impl IntoIterator<Item = RedisSettings>) -> Vec<RedisStore> {
    RedisStore::connect_together(settings, &Clock::Manual(ManualClock::new(NOW))).unwrap()
}

async fn all_up(stores: &[RedisStore]) {
    for store in stores {
        until_up(store).await;
    }
}

/// Each reserves from a counter of its own.
async fn each_is_its_own(stores: &[RedisStore], id: u8, used: u64) {
    for store in stores {
        let holds = vec![hold("w", WINDOW, 100, 0, 6)];
        let Ok(Reserved::Granted { used: found, .. }) = store.reserve(request(id, holds)).await else {
            panic!("it is not granted")
        };
        assert_eq!(found, [used]);
    }
}

fn received(server: &Server) -> u64 {
    let info = text(&mut server.by_hand(), &["INFO", "stats"]);
    let count = info.lines().find_map(|line| line.strip_prefix("total_connections_received:"));
    count.unwrap().trim().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_have_as_many_connections_as_one() {
    let Some(server) = Server::start() else { return };
    let stores = together(names().map(|name| server.settings_of(&name)));
    all_up(&stores).await;
    each_is_its_own(&stores, 1, 0).await;
    assert_eq!(connections_to(&server).len(), 1);
    // Reports have one beside, so that none of them holds up a decision.
    for store in &stores {
        store.audit_page(AuditRange::default(), 1).await.unwrap();
    }
    assert_eq!(connections_to(&server).len(), 2);
    let others = together([server.settings_of("acme"), server.settings_of("globex")]);
    all_up(&others).await;
    assert_eq!(connections_to(&server).len(), 3, "those that are made apart are apart");
    drop(others);
    until("their link is gone", || connections_to(&server).len() == 2);
    // One that goes takes nothing with it.
    let mut stores = stores;
    stores.truncate(1);
    each_is_its_own(&stores, 2, 6).await;
    assert_eq!(connections_to(&server).len(), 2);
    drop(stores);
    until("the last takes the link with it", || connections_to(&server).is_empty());
}

#[tokio::test]
async fn another_login_has_a_link_of_its_own() {
    let Some(server) = Server::start() else { return };
    ask(&mut server.by_hand(), &["ACL", "SETUSER", "other", "on", ">secret", "~*", "&*", "+@all"]);
    let access = RedisAccess {
        username: Some("other".to_owned()),
        password: Some(Password::fixed("secret")),
        ..RedisAccess::default()
    };
    let other = RedisSettings { access, ..server.settings_of("globex") };
    let stores = together([server.settings_of("acme"), other.clone(), server.settings_of("initech"), other]);
    all_up(&stores).await;
    assert_eq!(connections_to(&server).len(), 2);
}

#[tokio::test]
async fn a_link_that_is_killed_or_whose_server_restarts_is_made_again_once() {
    let Some(mut server) = Server::start() else { return };
    let stores = together(names().map(|name| server.settings_of(&name)));
    all_up(&stores).await;
    for turn in 1..=3 {
        let before = received(&server);
        ask(&mut server.by_hand(), &["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]);
        all_up(&stores).await;
        each_is_its_own(&stores, turn, 6 * (u64::from(turn) - 1)).await;
        assert_eq!(connections_to(&server).len(), 1, "{turn}");
        // The link, and the few by hand.
        let made = received(&server) - before;
        assert!(made <= 5, "{made} connections for one link");
    }
    server.kill();
    for store in &stores {
        assert_eq!(store.ping().await, Err(StoreError::Unavailable));
    }
    server.restart();
    all_up(&stores).await;
    each_is_its_own(&stores, 9, 0).await;
    assert_eq!(connections_to(&server).len(), 1);
    let made = received(&server);
    assert!(made <= 6, "{made} connections for one link");
}

/// A server that stands still is found silent by the calls of one organization; the others leave the link with it.
#[tokio::test]
async fn one_that_is_silent_is_left_by_all() {
    let Some(server) = Server::start() else { return };
    let stores = together(names().map(|name| server.settings_of(&name)));
    all_up(&stores).await;
    let numbers = || stores.iter().map(|store| store.0.connection.number()).collect::<Vec<_>>();
    assert_eq!(numbers(), [Some(1); COUNT]);
    server.signal("-STOP");
    for _ in 0..3 {
        assert_eq!(stores[5].ping().await, Err(StoreError::Unavailable));
    }
    let start = Instant::now();
    while numbers().contains(&Some(1)) {
        assert!(start.elapsed() < Duration::from_secs(10), "{:?}", numbers());
        tokio::task::yield_now().await;
    }
    server.signal("-CONT");
    all_up(&stores).await;
    assert_eq!(connections_to(&server).len(), 1);
}

/// What the server refuses one organization costs the others nothing.
#[tokio::test]
async fn what_one_may_not_do_disturbs_no_other() {
    let Some(server) = Server::start() else { return };
    let rules = ["ACL", "SETUSER", "default", "resetkeys", "~tollgate:{acme}:*", "~tollgate:meta"];
    ask(&mut server.by_hand(), &rules);
    let stores = together(["acme", "globex"].map(|name| server.settings_of(name)));
    until_up(&stores[0]).await;
    let link = connections_to(&server);
    for id in 0..5 {
        assert!(stores[1].reserve(request(id, vec![hold("w", WINDOW, 100, 0, 6)])).await.is_err());
        each_is_its_own(&stores[..1], id, 6 * u64::from(id)).await;
    }
    assert_eq!(connections_to(&server), link);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_a_cluster_those_on_one_node_share_until_a_slot_moves() {
    let Some(cluster) = Move::start(&[]) else { return };
    let stores = together(["acme", "globex", "initech"].map(|name| settings_at(&cluster.url(), name)));
    all_up(&stores).await;
    each_is_its_own(&stores, 1, 0).await;
    let before = connections_to(&cluster.from);
    assert_eq!((before.len(), connections_to(&cluster.to).len()), (1, 0));
    // Half of the way: what has moved is asked for there, over a link apart.
    cluster.move_keys();
    assert!(stores[0].find(ReservationId([1; 16])).await.unwrap().is_some());
    assert_eq!((connections_to(&cluster.from), connections_to(&cluster.to).len()), (before.clone(), 1));
    cluster.move_slot();
    each_is_its_own(&stores, 2, 6).await;
    // The others stay on the very link that they had.
    assert_eq!((connections_to(&cluster.from), connections_to(&cluster.to).len()), (before.clone(), 1));
    assert_eq!(stores[1].0.connection.number(), Some(1));
    drop(stores);
    until("nothing stays", || {
        connections_to(&cluster.from).is_empty() && connections_to(&cluster.to).is_empty()
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn behind_sentinels_they_share_and_one_looks_for_all() {
    let Some(server) = Server::start() else { return };
    let sentinel = Sentinel::start(&server, 0);
    let url = format!("redis+sentinel://127.0.0.1:{}/main", sentinel.port);
    let client = redis::Client::open(format!("redis://127.0.0.1:{}", sentinel.port)).unwrap();
    let mut by_hand = client.get_connection().unwrap();
    let mut asked = || {
        let info = text(&mut by_hand, &["INFO", "stats"]);
        let count = info.lines().find_map(|line| line.strip_prefix("total_connections_received:"));
        count.unwrap().trim().parse::<u64>().unwrap()
    };
    let stores = together(names().map(|name| settings_at(&url, &name)));
    all_up(&stores).await;
    let own = |server: &Server| {
        let list = text(&mut server.by_hand(), &["CLIENT", "LIST", "TYPE", "normal"]);
        list.lines().filter(|line| !line.contains("name=sentinel") && !line.contains("cmd=client")).count()
    };
    assert_eq!(own(&server), 1);
    let (before, start) = (asked(), Instant::now());
    until("it was looked at for a while", || start.elapsed() > Duration::from_secs(4));
    // Each of the twelve alone would ask once a second.
    let (looks, most) = (asked() - before, 2 * start.elapsed().as_secs() + 2);
    assert!((3..=most).contains(&looks), "{looks}");
    each_is_its_own(&stores, 1, 0).await;
}
