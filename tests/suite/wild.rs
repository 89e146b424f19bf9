//! Settings as platforms and people write them: the real process starts, or says what to write.

use std::{path::Path, process::Command};

use tempfile::TempDir;
use tollgate::rpc::proto::{GetStatusRequest, status_service_client::StatusServiceClient};

use crate::{
    harness::{Process, connect, eventually},
    redis_server::{self, RedisServer},
};

const POLICY: &str = "[organization]\nid = \"acme\"\n[teams.t]\nmodels = [\"openai/gpt-oss-20b\"]\n";

#[tokio::test(flavor = "multi_thread")]
async fn variables_of_the_platform_do_not_stop_the_start() {
    let directory = TempDir::new().unwrap();
    let variables = [
        ("TOLLGATE_REDIS_PORT", "tcp://10.0.0.1:6379"),
        ("TOLLGATE_REDIS_PORT_6379_TCP_ADDR", "10.0.0.1"),
        ("TOLLGATE_GATEWAY_SERVICE_HOST", "10.0.0.2"),
        ("TOLLGATE_CONFIG", ""),
        ("TOLLGATE_STORE", ""),
        ("TOLLGATE_THREADS", ""),
        ("TOLLGATE_STROE", "redis://cache"),
    ]
    .map(|(name, value)| (name, Path::new(value)));
    let process =
        Process::start_environment(directory.path(), POLICY, &["--admin", "localhost:0"], &variables).await;
    let warned = || {
        let log = process.log();
        log.lines().filter(|line| line.contains("are no settings")).map(ToOwned::to_owned).collect::<Vec<_>>()
    };
    eventually("the warning is written", async || !warned().is_empty()).await;
    let warned = warned();
    assert_eq!(warned.len(), 1, "{warned:?}");
    assert!(
        warned[0].contains("`TOLLGATE_STROE` is no setting; did you mean `TOLLGATE_STORE`?"),
        "{warned:?}"
    );
    assert!(!warned[0].contains("PORT") && !warned[0].contains("SERVICE"), "{warned:?}");
    process.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unsafe_redis_is_warned_of_or_refused() {
    if !redis_server::is_installed() {
        return;
    }
    // As tests start it, it keeps nothing.
    let redis = RedisServer::start();
    let directory = TempDir::new().unwrap();
    let process = Process::start(directory.path(), POLICY, &redis.url()).await;
    eventually("the warning is written", async || {
        process.log().contains("redis keeps nothing over a restart")
    })
    .await;
    let warned = async || {
        let channel = connect(process.address()).await;
        let answer = StatusServiceClient::new(channel).get_status(GetStatusRequest {}).await.unwrap();
        answer.into_inner().status.unwrap().redis_warnings
    };
    eventually("it stands in the status", async || {
        warned().await.iter().any(|warning| warning.contains("redis keeps nothing over a restart"))
    })
    .await;
    process.stop().await;
    let refused = Command::new(env!("CARGO_BIN_EXE_tollgate"))
        .args(["serve", "--listen", "127.0.0.1:0", "--admin-enabled=false", "--store", &redis.url()])
        .env("TOLLGATE_REQUIRE_SAFE_REDIS", "true")
        .env_remove("TOLLGATE_CONFIG")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&refused.stderr);
    assert_eq!(refused.status.code(), Some(2), "{said}");
    assert!(said.contains("`require_safe_redis` is set: redis keeps nothing"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_does_not_say_whether_it_is_safe_is_not_taken_to_be() {
    if !redis_server::is_installed() {
        return;
    }
    for (denied, hazard, is_refused) in [
        ("config", "does not say whether it keeps", false),
        ("info", "does not say whether it removes", true),
    ] {
        let redis = RedisServer::start();
        let mut connection = redis::Client::open(redis.url()).unwrap().get_connection().unwrap();
        redis::cmd("ACL").arg(&["SETUSER", "default", &format!("-{denied}")]).exec(&mut connection).unwrap();
        let directory = TempDir::new().unwrap();
        let process = Process::start(directory.path(), POLICY, &redis.url()).await;
        eventually("the warning is written", async || process.log().contains(hazard)).await;
        process.stop().await;
        if is_refused {
            let mut command = Command::new(env!("CARGO_BIN_EXE_tollgate"));
            command.args([
                "serve",
                "--listen",
                "127.0.0.1:0",
                "--admin-enabled=false",
                "--require-safe-redis",
            ]);
            let refused =
                command.args(["--store", &redis.url()]).env_remove("TOLLGATE_CONFIG").output().unwrap();
            let said = String::from_utf8_lossy(&refused.stderr);
            assert_eq!(refused.status.code(), Some(2), "{said}");
            assert!(said.contains("`require_safe_redis` is set: redis does not say"), "{said}");
        }
    }
}
