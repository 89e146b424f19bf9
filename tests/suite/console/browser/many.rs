//! As many teams and keys as a large organization has.

use std::fmt::Write as _;

use serde_json::json;
use tempfile::TempDir;
use tollgate::rpc::proto::key_service_client::KeyServiceClient;

use super::{no_wish, play};
use crate::{
    access::digest,
    console::start,
    harness::{connect, new_key},
};

const TEAMS: usize = 1_000;
const KEYS_OF_EACH: usize = 10;

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_keys_of_a_thousand_teams_are_found() {
    let directory = TempDir::new().unwrap();
    let (process, admin) = start(&directory, &policy()).await;
    let mut keys = KeyServiceClient::new(connect(process.address()).await);
    keys.create_key(new_key("team-0777-prod-created", "team-0777")).await.unwrap();
    let paths = [
        "/",
        "/teams",
        "/teams/team-0777",
        "/keys",
        "/keys/team-0777-prod-k3?team=team-0777",
        "/decisions",
        "/pauses",
        "/policy",
        "/policy/proposal",
        "/reports",
        "/alerts",
        "/audit",
    ];
    let asked = json!({ "paths": paths });
    play("many.mjs", &format!("http://{admin}"), asked, no_wish).await;
    process.stop().await;
}

/// Declares all of them. Anyone may do everything: callers have tests of their own.
fn policy() -> String {
    let mut text = "[organization]\nid = \"acme\"\nbudget = { monthly_usd = \"500\" }\n".to_owned();
    for team in 0..TEAMS {
        // Writing to a string cannot fail.
        let _ = write!(
            text,
            "[teams.team-{team:04}]\nmodels = [\"*\"]\nmax_output_tokens = 99\nbudget = {{ monthly_usd = \"20\" }}\n"
        );
        for key in 0..KEYS_OF_EACH {
            let name = format!("team-{team:04}-prod-k{key}");
            let digest = digest(&name);
            let _ = write!(text, "[teams.team-{team:04}.keys.{name}]\nsha256 = \"{digest}\"\n");
        }
    }
    text
}
