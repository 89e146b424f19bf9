//! The password for Redis is changed while the service runs: new connections log in with the new one, and no restart is needed.

use std::path::Path;

use redis::Connection;
use tempfile::TempDir;
use tollgate::rpc::proto::policy_service_client::PolicyServiceClient;
use tonic::{Code, transport::Channel};

use crate::{
    harness::{Process, StoreKind, chat, eventually, organization},
    redis_server::RedisServer,
};

const MODEL: &str = "m/test";
const PASSWORDS: [&str; 3] = ["first-secret", "second-secret", "third-secret"];

fn policy() -> String {
    format!(
        "[organization]\nid = \"{}\"\n[[prices]]\nmodel = \"{MODEL}\"\n\
         input_usd_per_million_tokens = \"0.001\"\noutput_usd_per_million_tokens = \"0.001\"\n\
         [teams.a]\nmodels = [\"{MODEL}\"]\nmax_output_tokens = 100\n",
        organization()
    )
}

async fn is_allowed(client: &mut PolicyServiceClient<Channel>) -> bool {
    match client.authorize(chat("a", MODEL, 1, 1)).await {
        Ok(answer) => {
            let answer = answer.into_inner();
            assert!(answer.violations.is_empty(), "{answer:?}");
            true
        }
        Err(status) => {
            assert_eq!(status.code(), Code::Unavailable, "{status:?}");
            false
        }
    }
}

/// Redis asks every login from now on for `password`. Connections that are open stay.
fn demand(by_hand: &mut Connection, password: &str) {
    redis::cmd("CONFIG").arg(&["SET", "requirepass", password]).query::<()>(by_hand).unwrap();
}

/// Ends every connection but this one.
fn end_connections(by_hand: &mut Connection) {
    let ended: i64 =
        redis::cmd("CLIENT").arg(&["KILL", "TYPE", "normal", "SKIPME", "yes"]).query(by_hand).unwrap();
    assert!(ended > 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_password_that_was_changed_needs_no_restart() {
    if !StoreKind::Redis.is_available() {
        return;
    }
    let (redis, directory) = (RedisServer::start(), TempDir::new().unwrap());
    let mut by_hand = redis::Client::open(redis.url()).unwrap().get_connection().unwrap();
    let file = directory.path().join("password");
    demand(&mut by_hand, PASSWORDS[0]);
    std::fs::write(&file, format!("{}\n", PASSWORDS[0])).unwrap();
    let arguments = [
        format!("--store={}", redis.url()),
        format!("--redis-password-file={}", file.display()),
        "--store-timeout=20s".to_owned(),
        "--admin-enabled=false".to_owned(),
    ];
    let process =
        Process::start_arguments(directory.path(), &policy(), &arguments.each_ref().map(String::as_str))
            .await;
    // Connections enough that both workers have some.
    let mut clients = Vec::new();
    for _ in 0..8 {
        let mut client = process.client().await;
        eventually("it decides", async || is_allowed(&mut client).await).await;
        clients.push(client);
    }

    // An open connection needs no password, so the file may change before or after Redis does.
    demand(&mut by_hand, PASSWORDS[1]);
    for client in &mut clients {
        assert!(is_allowed(client).await);
    }
    end_connections(&mut by_hand);
    eventually("the old password is refused", async || process.log().contains("redis refuses the login"))
        .await;
    assert!(!is_allowed(&mut clients[0]).await);
    // As while a file is written, or by mistake: the password before is tried, and the process stays.
    std::fs::write(&file, "").unwrap();
    let unusable = "the file with the password for redis is unusable; using the last password it held";
    eventually("the log tells of the empty file", async || process.log().contains(unusable)).await;
    std::fs::write(&file, PASSWORDS[1]).unwrap();
    for client in &mut clients {
        eventually("it decides again", async || is_allowed(client).await).await;
    }

    demand(&mut by_hand, PASSWORDS[2]);
    std::fs::write(&file, PASSWORDS[2]).unwrap();
    end_connections(&mut by_hand);
    for client in &mut clients {
        eventually("it decides with the third", async || is_allowed(client).await).await;
    }
    eventually("it is ready", async || process.is_serving().await == Some(true)).await;
    // The last good password also logs in where there is no file any more.
    std::fs::remove_file(&file).unwrap();
    end_connections(&mut by_hand);
    for client in &mut clients {
        eventually("it decides without the file", async || is_allowed(client).await).await;
    }
    let log = process.log();
    assert!(PASSWORDS.iter().all(|password| !log.contains(password)), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_environment_gives_the_password() {
    if !StoreKind::Redis.is_available() {
        return;
    }
    let (redis, directory) = (RedisServer::start(), TempDir::new().unwrap());
    let mut by_hand = redis::Client::open(redis.url()).unwrap().get_connection().unwrap();
    demand(&mut by_hand, PASSWORDS[0]);
    let store = format!("--store={}", redis.url());
    let arguments = [&*store, "--store-timeout=20s", "--admin-enabled=false"];
    let variables = [("TOLLGATE_REDIS_PASSWORD", Path::new(PASSWORDS[0]))];
    let process = Process::start_environment(directory.path(), &policy(), &arguments, &variables).await;
    let mut client = process.client().await;
    eventually("it decides", async || is_allowed(&mut client).await).await;
    let log = process.log();
    assert!(!log.contains(PASSWORDS[0]) && !log.contains("no setting"), "{log}");
}
