//! The organizations that a caller is of, and where their pages are.

use std::process::Command;

use tempfile::TempDir;
use tollgate::rpc::proto::{
    ListOrganizationsRequest, organization_service_client::OrganizationServiceClient,
};

use crate::{
    envoy::http::Request,
    harness::{Process, connect, eventually},
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
    let is_there = async || Request::new("GET", path).send(admin).await.status == 200;
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
