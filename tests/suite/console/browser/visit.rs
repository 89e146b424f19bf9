//! A person who comes, sees what changes, changes something, and leaves.

use serde_json::json;
use tempfile::TempDir;
use tollgate::rpc::proto::AuthorizeRequest;

use super::{HOSTILE, no_wish, play};
use crate::{
    access::{by, digest},
    console::{fill, policy, secret, start},
    harness::{Process, chat},
};

/// A person signs in by the form, sees what changes while they look, makes a key whose secret is shown once, pauses a team, loses
/// their role while they look, and signs out.
#[tokio::test(flavor = "multi_thread")]
async fn a_person_visits_the_console() {
    let directory = TempDir::new().unwrap();
    let (process, admin) = start(&directory, &policy()).await;
    let asked = json!({ "secret": secret("admin"), "other": secret("auditor"), "hostile": HOSTILE });
    let file = directory.path().join("policy.toml");
    play("visit.mjs", &format!("http://{admin}"), asked, async |wish| match wish {
        "spend" => fill(&process).await,
        "ask" => ask_hostile(&process).await,
        "withdraw" => std::fs::write(&file, without_admin(&policy())).unwrap(),
        wish => panic!("it wishes for {wish}"),
    })
    .await;
    process.stop().await;
}

/// Each kind of change, by the keyboard alone, and where pages have no script.
#[tokio::test(flavor = "multi_thread")]
async fn each_change_is_made_by_keyboard_alone_and_without_script() {
    let directory = TempDir::new().unwrap();
    let (process, admin) = start(&directory, &policy()).await;
    let proposal = policy().replace("monthly_usd = \"200\"", "monthly_usd = \"100\"");
    let asked = json!({ "secret": secret("admin"), "proposal": proposal });
    play("change.mjs", &format!("http://{admin}"), asked, no_wish).await;
    process.stop().await;
}

/// The policy in which the administrator's token is another person's.
pub(super) fn without_admin(policy: &str) -> String {
    policy
        .replace("[access.tokens.admin]", "[access.tokens.former]")
        .replace(&digest(&secret("admin")), &digest("tgs_of_another"))
}

/// A denied request with hostile words in all that a caller may say, which pages that are open take up by their script.
async fn ask_hostile(process: &Process) {
    let mut client = process.client().await;
    let request = AuthorizeRequest {
        user: HOSTILE.to_owned(),
        labels: [("environment".to_owned(), HOSTILE.to_owned())].into(),
        ..chat("spare", HOSTILE, 10, 10)
    };
    client.authorize(by(&secret("gateway"), request)).await.unwrap();
}
