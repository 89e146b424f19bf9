//! Every page, at each width.

use serde_json::json;
use tempfile::TempDir;
use tollgate::rpc::proto::{
    PauseRequest, PauseTarget, key_service_client::KeyServiceClient,
    pause_service_client::PauseServiceClient, pause_target::Target,
};

use super::{HOSTILE, no_wish, play};
use crate::{
    access::by,
    console::{fill, policy, secret, start},
    harness::{Process, chat, connect, new_key, used},
};

/// Pages of the organization `acme`, below its root.
const PAGES: [&str; 18] = [
    "/",
    "/?month=2026-10",
    "/decisions",
    "/decisions?result=denied&team=support",
    "/teams",
    "/teams/support",
    "/teams/support?by=labels.environment",
    "/teams/research",
    "/keys",
    "/keys/support-prod-web?team=support",
    "/keys?state=revoked",
    "/pauses",
    "/policy",
    "/policy/proposal",
    "/reports",
    "/reports?by=team,model",
    "/alerts",
    "/audit",
];

#[tokio::test(flavor = "multi_thread")]
async fn every_page_is_whole_at_every_width_in_both_schemes() {
    let directory = TempDir::new().unwrap();
    let (process, admin) = start(&directory, &policy()).await;
    fill(&process).await;
    furnish(&process).await;
    let paths = PAGES.map(|path| format!("/console/acme{path}"));
    let asked = json!({ "token": secret("admin"), "paths": paths });
    play("look.mjs", &format!("http://{admin}"), asked, no_wish).await;
    process.stop().await;
}

/// A created key with a label, a pause, and usage of hostile names.
async fn furnish(process: &Process) {
    let channel = connect(process.address()).await;
    let mut keys = KeyServiceClient::new(channel.clone());
    let mut request = new_key("support-prod-web", "support");
    request.key.as_mut().unwrap().labels = [("app".to_owned(), HOSTILE.to_owned())].into();
    keys.create_key(by(&secret("admin"), request)).await.unwrap();
    let request = PauseRequest {
        target: Some(PauseTarget { target: Some(Target::Team("spare".to_owned())) }),
        reason: HOSTILE.to_owned(),
    };
    PauseServiceClient::new(channel).pause(by(&secret("admin"), request)).await.unwrap();
    let mut client = process.client().await;
    let mut request = chat("support", "openai/gpt-oss-20b", 1_000, 500);
    request.user = HOSTILE.to_owned();
    request.labels = [("environment".to_owned(), HOSTILE.to_owned())].into();
    let answer = client.authorize(by(&secret("gateway"), request)).await.unwrap().into_inner();
    client.record_usage(by(&secret("gateway"), used(&answer.reservation_id, 1_000, 400))).await.unwrap();
}
