//! The decision log of `Check`: also what is denied before there is anything to decide.

use serde_json::json;
use tempfile::TempDir;
use tollgate::rpc::{
    envoy::service::auth::v3::authorization_client::AuthorizationClient,
    proto::{PauseRequest, PauseTarget, pause_service_client::PauseServiceClient, pause_target::Target},
};

use super::{
    checks::{check, http, status},
    replay::{secret, start_process},
};
use crate::harness::{connect, eventually};

#[tokio::test(flavor = "multi_thread")]
async fn a_denial_that_needs_no_more_than_the_caller_is_logged() {
    let directory = TempDir::new().unwrap();
    let process = start_process(directory.path()).await;
    let channel = connect(process.address()).await;
    let target = Some(PauseTarget { target: Some(Target::Team("roomy".to_owned())) });
    let pause = PauseRequest { target, reason: "INC-7".to_owned() };
    PauseServiceClient::new(channel.clone()).pause(pause).await.unwrap();
    let mut client = AuthorizationClient::new(channel);
    let body = json!({"model": "openai/gpt-oss-20b", "max_tokens": 10, "messages": []});
    for (key, path, expected) in [
        ("tgk_guessed", "/openai/v1/chat/completions", 401),
        (&*secret("roomy"), "/openai/v1/models", 403),
        (&*secret("roomy"), "/openai/v1/chat/completions", 403),
    ] {
        let mut request = check("id", &[("authorization", &format!("Bearer {key}"))], &body);
        http(&mut request).path = path.to_owned();
        if path.ends_with("models") {
            http(&mut request).method = "GET".to_owned();
        }
        assert_eq!(status(&client.check(request).await.unwrap().into_inner()), expected, "{path}");
    }
    eventually("all is logged", async || process.log().matches("request denied").count() == 3).await;
    let log = process.log();
    let lines: Vec<_> = log.lines().filter(|line| line.contains("request denied")).collect();
    for (line, words) in lines.iter().zip([
        ["reason=\"invalid_key\"", "team=\"\"", ""],
        ["reason=\"paused\"", "team=\"roomy\"", "limit_id=teams.roomy"],
        ["reason=\"paused\"", "scope=\"team\"", "model=openai/gpt-oss-20b"],
    ]) {
        assert!(words.iter().all(|word| line.contains(word)), "{words:?}: {line}");
    }
    assert!(!log.contains("tgk_"), "a secret is in the log:\n{log}");
}
