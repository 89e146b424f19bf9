//! Sentinel and Cluster through TLS, by a CA of the settings and by those of the machine.

use std::path::Path;

use tempfile::TempDir;
use tonic::Code;

use super::{MODEL, policy};
use crate::{
    guard::Guarded,
    harness::{Process, StoreKind, chat, eventually, organization},
    redis_server::{RedisServer, cluster_port, free_port},
    support::certificates::{Ca, Leaf, Pair},
};

/// What a server or a Sentinel is told of its certificates; clients show none.
fn arguments(directory: &Path, ca: &Ca, port: u16) -> Vec<(&'static str, String)> {
    let write = |name: &str, text: &str| {
        let path = directory.join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let Pair { cert, key } = ca.issue(Leaf::server());
    // By which it asks other servers.
    let client = ca.issue(Leaf::client("server"));
    vec![
        ("tls-port", port.to_string()),
        ("tls-cert-file", write("server.pem", &cert)),
        ("tls-key-file", write("server-key.pem", &key)),
        ("tls-client-cert-file", write("client.pem", &client.cert)),
        ("tls-client-key-file", write("client-key.pem", &client.key)),
        ("tls-ca-cert-file", write("ca.pem", &ca.pem)),
        ("tls-auth-clients", "no".to_owned()),
    ]
}

fn words(arguments: Vec<(&'static str, String)>) -> Vec<String> {
    arguments.into_iter().flat_map(|(name, value)| [format!("--{name}"), value]).collect()
}

/// Serves on `store`, which it trusts by the CA of the settings or, without one, by those that the machine is said to have.
async fn decides(store: &str, ca: &Ca) {
    for is_of_the_machine in [false, true] {
        let directory = TempDir::new().unwrap();
        let path = directory.path().join("ca.pem");
        std::fs::write(&path, &ca.pem).unwrap();
        let (store, file) = (format!("--store={store}"), format!("--redis-tls-ca-file={}", path.display()));
        let mut arguments = vec![&*store, "--store-timeout=20s", "--admin-enabled=false"];
        let mut variables = Vec::new();
        match is_of_the_machine {
            true => variables.push(("SSL_CERT_FILE", path.as_path())),
            false => arguments.push(&file),
        }
        let policy = policy(&organization());
        let process = Process::start_environment(directory.path(), &policy, &arguments, &variables).await;
        let mut client = process.client().await;
        eventually("it decides through TLS", async || match client.authorize(chat("a", MODEL, 1, 1)).await {
            Ok(answer) => answer.into_inner().violations.is_empty(),
            Err(status) => {
                assert_eq!(status.code(), Code::Unavailable, "{status:?}");
                false
            }
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sentinels_and_their_primary_are_asked_through_tls() {
    if !StoreKind::Redis.is_available() {
        return;
    }
    let (ca, port, own) = (Ca::new("servers"), free_port().port(), free_port().port());
    let _primary = RedisServer::start_with(|directory, _| words(arguments(directory, &ca, port)));
    let directory = TempDir::new().unwrap();
    let mut lines =
        format!("port 0\nbind 127.0.0.1\ndir {}\ntls-replication yes\n", directory.path().display());
    for (name, value) in arguments(directory.path(), &ca, own) {
        lines += &format!("{name} {value}\n");
    }
    lines += &format!("sentinel monitor main 127.0.0.1 {port} 1\n");
    let config = directory.path().join("sentinel.conf");
    std::fs::write(&config, lines).unwrap();
    let arguments = [config.to_str().unwrap(), "--sentinel"];
    let _sentinel = Guarded::start(directory.path(), Path::new("redis-server"), &arguments);
    decides(&format!("rediss+sentinel://127.0.0.1:{own}/main"), &ca).await;
}

/// The node of the settings owns nothing: where the owner is, and that it is asked through TLS, is learnt from it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_of_a_cluster_are_asked_through_tls() {
    if !StoreKind::Redis.is_available() {
        return;
    }
    // The port of the bus follows from that of TLS.
    let (ca, ports) = (Ca::new("servers"), [cluster_port().port(), cluster_port().port()]);
    let start = |port: u16| {
        RedisServer::start_with(|directory, _| {
            let more = ["--cluster-enabled", "yes", "--tls-cluster", "yes"].map(str::to_owned);
            [words(arguments(directory, &ca, port)), more.to_vec()].concat()
        })
    };
    let nodes = ports.map(start);
    let mut by_hand =
        nodes.each_ref().map(|node| redis::Client::open(node.url()).unwrap().get_connection().unwrap());
    let ask = |by_hand: &mut redis::Connection, words: &[&str]| {
        redis::cmd("CLUSTER").arg(words).query::<redis::Value>(by_hand).unwrap()
    };
    for (index, by_hand) in by_hand.iter_mut().enumerate() {
        ask(by_hand, &["SET-CONFIG-EPOCH", &(index + 1).to_string()]);
    }
    ask(&mut by_hand[0], &["ADDSLOTSRANGE", "0", "16383"]);
    ask(&mut by_hand[0], &["MEET", "127.0.0.1", &ports[1].to_string()]);
    for by_hand in &mut by_hand {
        eventually("the cluster is up", async || {
            let info: String = redis::from_redis_value(ask(by_hand, &["INFO"])).unwrap();
            info.contains("cluster_state:ok") && info.contains("cluster_known_nodes:2")
        })
        .await;
    }
    decides(&format!("rediss+cluster://127.0.0.1:{}", ports[1]), &ca).await;
}
