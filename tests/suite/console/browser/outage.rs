//! What is seen while the store stops and comes back, the policy changes, and a session ends.

use serde_json::json;
use tempfile::TempDir;

use super::{play, visit::without_admin};
use crate::{
    console::{fill, policy, secret},
    harness::{Process, StoreKind},
    redis_server::{RedisServer, free_port},
};

/// A team that the policy has later.
const NEWCOMERS: &str = "[teams.newcomers]\nmodels = [\"*\"]\nmax_output_tokens = 9\n";

#[tokio::test(flavor = "multi_thread")]
async fn open_pages_tell_of_an_outage_and_take_up_where_they_were() {
    if !StoreKind::Redis.is_available() {
        return;
    }
    let (redis, directory, admin) = (RedisServer::start(), TempDir::new().unwrap(), free_port());
    let store = format!("--store={}", redis.url());
    let arguments = [&*store, &*format!("--admin={admin}"), "--store-timeout=2s"];
    let process = Process::start_arguments(directory.path(), &policy(), &arguments).await;
    let file = directory.path().join("policy.toml");
    let paths = [
        "/",
        "/decisions",
        "/teams",
        "/teams/support",
        "/keys",
        "/pauses",
        "/policy",
        "/reports",
        "/alerts",
        "/audit",
    ];
    let asked = json!({ "secret": secret("admin"), "paths": paths });
    play("outage.mjs", &format!("http://{admin}"), asked, async |wish| match wish {
        "freeze" => redis.freeze(),
        "thaw" => redis.thaw(),
        "spend" => fill(&process).await,
        "reload" => std::fs::write(&file, policy() + NEWCOMERS).unwrap(),
        "withdraw" => std::fs::write(&file, without_admin(&policy())).unwrap(),
        wish => panic!("it wishes for {wish}"),
    })
    .await;
    process.stop().await;
}
