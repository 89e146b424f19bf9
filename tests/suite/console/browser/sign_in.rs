//! People who sign in through a real OpenID provider, on its own page.

use std::cell::RefCell;

use serde_json::json;
use tempfile::TempDir;

use super::{HOSTILE, play};
use crate::{
    access::{digest, provider::start_for},
    clients::skip,
    harness::Process,
    redis_server::free_port,
};

/// How long the provider vouches for a person, in seconds; sessions last a minute at least.
const ID_TOKEN_SECONDS: u32 = 8;
/// A service token for those whom the provider cannot let in.
const TOKEN: &str = "tgs_the_secret_of_ops";

#[tokio::test(flavor = "multi_thread")]
async fn people_sign_in_on_their_providers_page_and_come_back_to_where_they_were() {
    let (directory, admin) = (TempDir::new().unwrap(), free_port());
    // Another host than the provider's, as they are in the world: cookies of the one are not the other's.
    let base = format!("http://localhost:{}", admin.port());
    let console = base.clone();
    let started = tokio::task::spawn_blocking(move || start_for(&console, ID_TOKEN_SECONDS, HOSTILE));
    let (provider, said) = match started.await.unwrap() {
        Ok(started) => started,
        Err(missing) => return skip("OpenID provider's", &missing),
    };
    let file = directory.path().join("secret");
    std::fs::write(&file, said["secret"].as_str().unwrap()).unwrap();
    let issuer = said["issuer"].as_str().unwrap();
    let arguments = [
        format!("--admin={admin}"),
        format!("--console-url={base}"),
        format!("--console-oidc-issuer={issuer}"),
        "--console-oidc-client-id=tollgate-console".to_owned(),
        format!("--console-oidc-client-secret-file={}", file.display()),
    ];
    let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
    let process = Process::start_arguments(directory.path(), &policy(issuer), &arguments).await;
    let provider = RefCell::new(Some(provider));
    let asked = json!({ "provider": issuer, "token_of_ops": TOKEN, "hostile": HOSTILE });
    play("sign-in.mjs", &base, asked, async |wish| match wish {
        "silence" => drop(provider.take()),
        wish => panic!("it wishes for {wish}"),
    })
    .await;
    assert!(!process.log().contains("eyJ"), "a token is in the log");
    process.stop().await;
}

fn policy(issuer: &str) -> String {
    format!(
        "[organization]\nid = \"acme\"\n[teams.chatbot]\nmodels = [\"*\"]\nmax_output_tokens = 99\n\
         budget = {{ monthly_usd = \"5\" }}\n\
         [access.tokens.ops]\nsha256 = \"{}\"\nroles = [\"admin\"]\n\
         [[access.oidc]]\nissuer = \"{issuer}\"\naudience = \"elsewhere\"\nclaim = \"groups\"\n\
         [access.oidc.map.platform-admins]\nroles = [\"admin\"]\n\
         [access.oidc.map.finance]\nroles = [\"viewer\"]\nteams = [\"chatbot\"]\n",
        digest(TOKEN)
    )
}
