//! The real process: what it refuses to listen on, what its commands send, and what its log does not hold.

use std::process::{Command, Output};

use tempfile::TempDir;
use tollgate::rpc::proto::{GetSpendRequest, policy_service_client::PolicyServiceClient};

use super::{by, digest};
use crate::harness::{Process, chat, connect, eventually, used};

const TOKEN: &str = "tgs_the_secret_of_an_administrator";
const KEY: &str = "tgk_the_secret_of_a_client";

fn open_policy() -> String {
    format!(
        "[organization]\nid = \"acme\"\n[teams.t]\nmodels = [\"*\"]\nmax_output_tokens = 9\n[teams.t.keys.t-test-web]\nsha256 = \"{}\"\n",
        digest(KEY)
    )
}

fn closed_policy() -> String {
    format!("{}[access.tokens.admin]\nsha256 = \"{}\"\nroles = [\"admin\"]\n", open_policy(), digest(TOKEN))
}

fn tollgate(arguments: &[&str], token: Option<&str>) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tollgate"));
    command.args(arguments).env_remove("TOLLGATE_TOKEN").env_remove("TOLLGATE_CONFIG");
    command.envs(token.map(|token| ("TOLLGATE_TOKEN", token))).output().unwrap()
}

#[test]
fn it_does_not_listen_for_everyone_by_accident() {
    let directory = TempDir::new().unwrap();
    let policy = directory.path().join("policy.toml");
    std::fs::write(&policy, open_policy()).unwrap();
    let store = format!("embedded:{}", directory.path().join("data").display());
    // TLS is another question.
    let serve = ["serve", "--allow-insecure-listen", "--admin-enabled=false", "--store", &store];
    let serve = [&serve[..], &["--policy", policy.to_str().unwrap(), "--listen"]].concat();
    for address in ["0.0.0.0:0", "[::]:0", "192.0.2.1:50051"] {
        let output = tollgate(&[&serve[..], &[address]].concat(), None);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{address}: {said}");
        for words in ["[access]", "tollgate tokens create", "--allow-unauthenticated-listen"] {
            assert!(said.contains(words), "{address}: {said}");
        }
    }
    // Forced by name, or with somebody known, it goes on, as far as to find that the address is not this machine's.
    let forced =
        tollgate(&[&serve[..], &["192.0.2.1:50051", "--allow-unauthenticated-listen"]].concat(), None);
    let said = String::from_utf8_lossy(&forced.stderr).into_owned();
    assert!(said.contains("anyone who reaches the port may ask everything"), "{said}");
    assert!(said.contains("cannot listen on 192.0.2.1:50051"), "{said}");
    std::fs::write(&policy, closed_policy()).unwrap();
    let known = tollgate(&[&serve[..], &["192.0.2.1:50051"]].concat(), None);
    let said = String::from_utf8_lossy(&known.stderr).into_owned();
    assert!(said.contains("cannot listen on 192.0.2.1:50051"), "{said}");
}

#[test]
fn a_new_token_comes_with_its_lines_for_the_policy() {
    let output = tollgate(&["tokens", "create", "edge"], None);
    let said = String::from_utf8(output.stdout).unwrap();
    let secret = said.split_whitespace().find(|word| word.starts_with("tgs_")).expect("a secret");
    assert!(said.contains(&format!("[access.tokens.edge]\n  sha256 = \"{}\"", digest(secret))), "{said}");
    assert_eq!(tollgate(&["tokens", "create", "Edge Gateway"], None).status.code(), Some(2));
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_send_a_token_and_the_log_holds_none() {
    let directory = TempDir::new().unwrap();
    let store = format!("embedded:{}", directory.path().join("data").display());
    let process = Process::start(directory.path(), &closed_policy(), &store).await;
    let address = process.address().to_string();
    let file = directory.path().join("token");
    std::fs::write(&file, format!("{TOKEN}\n")).unwrap();
    let spend = ["spend", "--address", &address];
    let from_file = [&spend[..], &["--token-file", file.to_str().unwrap()]].concat();
    for (arguments, token, code, words) in [
        (spend.as_slice(), Some(TOKEN), 0, "acme (all)"),
        (&from_file, None, 0, "acme (all)"),
        (&spend, None, 2, "UNAUTHENTICATED: no credential"),
        (&spend, Some("tgs_wrong"), 2, "UNAUTHENTICATED: the bearer token is not valid"),
        (&spend, Some("two words"), 2, "does not hold a token"),
    ] {
        let output = tokio::task::block_in_place(|| tollgate(arguments, token));
        let said =
            [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat();
        assert_eq!(output.status.code(), Some(code), "{said}");
        assert!(said.contains(words) && !said.contains("tgs_"), "{said}");
    }
    // Every RPC that carries a secret, with the right one and with others.
    let mut client = PolicyServiceClient::new(connect(process.address()).await);
    let claims = "eyJhbGciOiJFUzI1NiJ9.eyJpc3MiOiJodHRwczovL3gifQ.c2lnbmF0dXJl";
    for token in [TOKEN, "tgs_guessed_secret", claims] {
        for key in [KEY, "tgk_guessed_secret"] {
            let mut request = chat("", "openai/gpt-oss-20b", 10, 99);
            request.caller = Some(tollgate::rpc::proto::authorize_request::Caller::ApiKey(key.to_owned()));
            let _ = client.authorize(by(token, request)).await;
        }
        let _ = client.record_usage(by(token, used("01000000000000000000000000000000", 1, 1))).await;
        let _ = client.get_spend(by(token, GetSpendRequest::default())).await;
    }
    eventually("the log is written", async || process.log().contains("caller refused")).await;
    let log = process.log();
    for secret in [TOKEN, KEY, "guessed_secret", claims, "c2lnbmF0dXJl"] {
        assert!(!log.contains(secret), "`{secret}` is in the log:\n{log}");
    }
    process.stop().await;
}
