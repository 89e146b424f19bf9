//! The organizations that a caller is of, and where their pages are; several of them in one process.

mod apart;
mod envoy;
mod followers;
mod found;
mod links;
mod logs;
mod pages;
mod people;
mod policies;
mod secured;
mod shards;

use std::process::Command;

use tempfile::TempDir;
use tollgate::rpc::proto::{
    AuthorizeRequest, ListOrganizationsRequest, organization_service_client::OrganizationServiceClient,
};
use tonic::Request;

use crate::{
    access::{by, digest},
    envoy::http::Request as Page,
    harness::{Process, chat, connect, eventually},
    redis_server::free_port,
};

const POLICY: &str = "[organization]\nid = \"acme\"\n[teams.bot]\nmodels = [\"*\"]\nmax_output_tokens = 9\n";

fn tollgate(process: &Process, arguments: &[&str]) -> String {
    let address = process.address().to_string();
    let output = Command::new(env!("CARGO_BIN_EXE_tollgate"))
        .args(arguments)
        .args(["--address", &address])
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn there_is_one_and_its_pages_are_where_it_says() {
    let (directory, admin) = (TempDir::new().unwrap(), free_port());
    let process = Process::start_arguments(directory.path(), POLICY, &[&format!("--admin={admin}")]).await;
    let mut client = OrganizationServiceClient::new(connect(process.address()).await);
    let answer = client.list_organizations(ListOrganizationsRequest::default()).await.unwrap().into_inner();
    assert_eq!(answer.next_page_token, "");
    let [organization] = &answer.organizations[..] else { panic!("{answer:?}") };
    assert_eq!(organization.id, "acme");
    let place = format!("http://{admin}");
    assert_eq!(organization.console_url, format!("{place}/console/acme/"));
    let path = organization.console_url.strip_prefix(&place).unwrap();
    let is_there = async || Page::new("GET", path).send(admin).await.status == 200;
    eventually("the page is there", is_there).await;

    let table = tollgate(&process, &["organizations"]);
    assert_eq!(table, tollgate(&process, &["organizations", "list"]));
    assert!(table.contains("acme") && table.contains(&organization.console_url), "{table}");
    let json: serde_json::Value =
        serde_json::from_str(&tollgate(&process, &["organizations", "list", "--json"])).unwrap();
    assert_eq!(json["organizations"][0]["id"], "acme");
    assert_eq!(json["organizations"][0]["consoleUrl"], organization.console_url);
    process.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_console_there_is_no_address() {
    let directory = TempDir::new().unwrap();
    let process = Process::start_arguments(directory.path(), POLICY, &["--admin-enabled=false"]).await;
    let table = tollgate(&process, &["organizations", "list"]);
    assert!(table.lines().any(|line| line.split_whitespace().eq(["acme", "-"])), "{table}");
    process.stop().await;
}

/// What tells two organizations apart that are called alike in all else: each has a team `bot` with a budget, and a token of its own.
fn policy_of(organization: &str, rest: &str) -> String {
    let digest = digest(&token_of(organization));
    format!(
        "[organization]\nid = \"{organization}\"\n{rest}\n[teams.bot]\nmodels = [\"*\"]\nmax_output_tokens = 1000\n\
         budget = {{ monthly_usd = \"5\" }}\n[access.tokens.ops]\nsha256 = \"{digest}\"\nroles = [\"admin\"]\n"
    )
}

/// The secret of the token of an organization.
fn token_of(organization: &str) -> String {
    format!("tgs_the_secret_of_an_admin_of_{organization}")
}

/// A policy that knows no callers, with a key of this secret.
fn open_policy(organization: &str, secret: &str) -> String {
    let key = match secret {
        "" => String::new(),
        secret => format!("[teams.bot.keys.main]\nsha256 = \"{}\"\n", digest(secret)),
    };
    format!(
        "[organization]\nid = \"{organization}\"\n[teams.bot]\nmodels = [\"*\"]\nmax_output_tokens = 1000\n\
         budget = {{ monthly_usd = \"5\" }}\n{key}"
    )
}

/// `message` for `organization`, by the holder of `token`; where either is empty, without it.
fn to<T>(organization: &str, token: &str, message: T) -> Request<T> {
    let mut request = by(token, message);
    if !organization.is_empty() {
        request.metadata_mut().insert("tollgate-organization", organization.parse().unwrap());
    }
    request
}

/// What a request of the team `bot` reserves.
fn question() -> AuthorizeRequest {
    chat("bot", "openai/gpt-oss-20b", 1_000, 100)
}
