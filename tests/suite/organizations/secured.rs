//! Organizations that share connections over TLS, or over a socket, with a password that changes.

use std::path::Path;

use tempfile::TempDir;
use tollgate::rpc::proto::Decision;

use super::{policy_of, question, to, token_of};
use crate::{
    harness::{Process, StoreKind, eventually, organization},
    redis_access::{ACL, end_connections, tls_arguments, write_server},
    redis_server::{RedisServer, free_port},
    support::certificates::{Ca, Leaf, Pair},
};

/// How Redis is reached.
#[derive(Clone, Copy, Debug)]
enum Way {
    Tls(u16),
    Socket,
}

impl Way {
    /// What Redis is told.
    fn of_redis(self, directory: &Path, ca: &Ca) -> Vec<String> {
        match self {
            Self::Tls(port) => {
                write_server(directory, ca, ca);
                tls_arguments(directory, port)
            }
            Self::Socket => vec!["--unixsocket".to_owned(), socket(directory)],
        }
    }

    /// What the service is told.
    fn of_service(self, redis: &RedisServer, directory: &Path, ca: &Ca) -> Vec<String> {
        let port = match self {
            Self::Tls(port) => port,
            Self::Socket => return vec![format!("--store=redis+unix://{}", socket(redis.directory()))],
        };
        let Pair { cert, key } = ca.issue(Leaf::client("tollgate"));
        let write = |name: &str, pem: &str| {
            let file = directory.join(name);
            std::fs::write(&file, pem).unwrap();
            file.display().to_string()
        };
        vec![
            format!("--store=rediss://127.0.0.1:{port}"),
            format!("--redis-tls-ca-file={}", write("ca.pem", &ca.pem)),
            format!("--redis-tls-cert-file={}", write("client.pem", &cert)),
            format!("--redis-tls-key-file={}", write("client-key.pem", &key)),
        ]
    }
}

fn socket(directory: &Path) -> String {
    directory.join("redis.sock").display().to_string()
}

async fn a_new_password_is_used_for_all(way: Way) {
    if !StoreKind::Redis.is_available() {
        return;
    }
    let (directory, ca) = (TempDir::new().unwrap(), Ca::new("of all"));
    let redis = RedisServer::start_with(|directory, _| way.of_redis(directory, &ca));
    let mut by_hand = redis::Client::open(redis.url()).unwrap().get_connection().unwrap();
    let mut demand = |rules: &[&str]| {
        redis::cmd("ACL").arg("SETUSER").arg("tollgate").arg(rules).query::<()>(&mut by_hand).unwrap();
    };
    demand(&[&["on", ">first-secret"][..], ACL].concat());
    let file = directory.path().join("password");
    std::fs::write(&file, "first-secret").unwrap();

    let ids = [organization(), organization(), organization()];
    let policies = ids.each_ref().map(|id| (id.as_str(), policy_of(id, "")));
    let policies = policies.each_ref().map(|(id, text)| (*id, text.as_str()));
    let mut arguments = way.of_service(&redis, directory.path(), &ca);
    arguments.push(format!("--redis-password-file={}", file.display()));
    let more = ["--redis-username=tollgate", "--store-timeout=1s", "--admin-enabled=false"];
    let arguments: Vec<_> = arguments.iter().map(String::as_str).chain(more).collect();
    let process = Process::start_several(directory.path(), &policies, &arguments).await;
    let client = process.client().await;
    let is_decided = async |id: &String| {
        let answer = client.clone().authorize(to("", &token_of(id), question())).await;
        answer.is_ok_and(|answer| answer.into_inner().decision() == Decision::Allowed)
    };
    for id in &ids {
        eventually("each is decided for", async || is_decided(id).await).await;
    }

    let mut demand = |rules: &[&str]| {
        redis::cmd("ACL").arg("SETUSER").arg("tollgate").arg(rules).query::<()>(&mut by_hand).unwrap();
    };
    demand(&["resetpass", ">second-secret"]);
    end_connections(&mut by_hand);
    eventually("the old one is refused", async || process.log().contains("redis refuses the login")).await;
    for id in &ids {
        assert!(!is_decided(id).await, "{id} has a connection by the old password");
    }
    std::fs::write(&file, "second-secret").unwrap();
    for id in &ids {
        eventually("each is decided for again", async || is_decided(id).await).await;
    }
    assert!(!process.log().contains("-secret"), "{}", process.log());
    process.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_password_is_used_for_all_over_tls() {
    a_new_password_is_used_for_all(Way::Tls(free_port().port())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_password_is_used_for_all_over_a_socket() {
    a_new_password_is_used_for_all(Way::Socket).await;
}
