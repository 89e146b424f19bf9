//! How the organization of a call is found: by credential, by key, by reservation, or by its name.

use std::process::Command;

use tempfile::TempDir;
use tollgate::rpc::proto::{
    AuthorizeRequest, CreateKeyRequest, Decision, GetSpendRequest, ListOrganizationsRequest,
    RecordUsageRequest, VirtualKey, authorize_request, key_service_client::KeyServiceClient,
    organization_service_client::OrganizationServiceClient, record_usage_request,
};
use tonic::{Code, Request, Status};

use super::{open_policy, policy_of, question, to, token_of};
use crate::{
    access::{by, reason},
    harness::{Process, connect, nanos, used},
};

/// A secret that the service makes, of a policy's key.
const SECRET: &str = "tg_a_secret_of_globex";

async fn closed(directory: &TempDir) -> Process {
    let (acme, globex) = (policy_of("acme", ""), policy_of("globex", ""));
    let policies = [("acme", acme.as_str()), ("globex", globex.as_str())];
    Process::start_several(directory.path(), &policies, &["--admin-enabled=false"]).await
}

async fn open(directory: &TempDir) -> Process {
    let (acme, globex) = (open_policy("acme", ""), open_policy("globex", SECRET));
    let policies = [("acme", acme.as_str()), ("globex", globex.as_str())];
    Process::start_several(directory.path(), &policies, &["--admin-enabled=false"]).await
}

fn refused<T: std::fmt::Debug>(answer: Result<T, Status>, code: Code, expected: &str) {
    assert_eq!(reason(&answer.unwrap_err()), (code, expected.to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_credential_says_of_which_organization_its_holder_is() {
    let directory = TempDir::new().unwrap();
    let process = closed(&directory).await;
    let mut client = process.client().await;
    let (acme, globex) = (token_of("acme"), token_of("globex"));
    for (organization, token) in [("", &acme), ("acme", &acme), ("", &globex), ("globex", &globex)] {
        let answer = client.authorize(to(organization, token, question())).await.unwrap().into_inner();
        assert_eq!(answer.decision(), Decision::Allowed, "{organization} {token}");
    }
    // It is not said whether there is an organization of that name.
    for named in ["globex", "nowhere", "ACME", "a b"] {
        let answer = client.authorize(to(named, &acme, question())).await;
        refused(answer, Code::PermissionDenied, "ORGANIZATION_NOT_PERMITTED");
    }
    // A stranger learns nothing of which there are.
    for named in ["", "acme", "nowhere"] {
        let answer = client.authorize(to(named, "", question())).await;
        refused(answer, Code::Unauthenticated, "MISSING_CREDENTIAL");
        let answer = client.authorize(to(named, "tgs_of_none_of_them_as_far_as_is_known", question())).await;
        refused(answer, Code::Unauthenticated, "INVALID_TOKEN");
    }
    let mut organizations = OrganizationServiceClient::new(connect(process.address()).await);
    let list = organizations.list_organizations(by(&globex, ListOrganizationsRequest::default())).await;
    let ids: Vec<_> = list.unwrap().into_inner().organizations.into_iter().map(|one| one.id).collect();
    assert_eq!(ids, ["globex"]);
    process.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_without_a_credential_names_its_organization_or_a_key_or_a_reservation() {
    let directory = TempDir::new().unwrap();
    let process = open(&directory).await;
    let mut client = process.client().await;
    refused(client.authorize(question()).await, Code::InvalidArgument, "ORGANIZATION_REQUIRED");
    refused(
        client.get_spend(GetSpendRequest::default()).await,
        Code::InvalidArgument,
        "ORGANIZATION_REQUIRED",
    );
    refused(client.authorize(to("nowhere", "", question())).await, Code::NotFound, "UNKNOWN_ORGANIZATION");
    let mut twice = to("acme", "", question());
    twice.metadata_mut().append("tollgate-organization", "globex".parse().unwrap());
    refused(client.authorize(twice).await, Code::InvalidArgument, "ORGANIZATION_REQUIRED");

    let named = client.authorize(to("acme", "", question())).await.unwrap().into_inner();
    let caller = authorize_request::Caller::ApiKey(SECRET.to_owned());
    let keyed = AuthorizeRequest { caller: Some(caller), ..question() };
    let keyed = client.authorize(keyed).await.unwrap().into_inner();
    assert_eq!([named.decision(), keyed.decision()], [Decision::Allowed; 2]);
    // Reports name the reservation, which is of one organization.
    for id in [&named.reservation_id, &keyed.reservation_id] {
        client.record_usage(used(id, 1_000, 100)).await.unwrap();
    }
    for organization in ["acme", "globex"] {
        let spend = client.get_spend(to(organization, "", GetSpendRequest::default())).await.unwrap();
        let spend = spend.into_inner();
        assert_eq!(spend.teams.len(), 1);
        assert!(nanos(spend.teams[0].spend.clone().unwrap().spent) > 0, "{organization}");
    }
    // Usage without a reservation, by key.
    let caller = record_usage_request::Caller::ApiKey(SECRET.to_owned());
    let unreserved = RecordUsageRequest {
        caller: Some(caller),
        request_id: "r".to_owned(),
        model: "openai/gpt-oss-20b".to_owned(),
        operation: tollgate::rpc::proto::Operation::ChatCompletion.into(),
        ..used("", 10, 10)
    };
    client.record_usage(unreserved).await.unwrap();
    // What is of none is refused as ever.
    let caller = authorize_request::Caller::ApiKey("tg_of_no_organization".to_owned());
    let unknown = AuthorizeRequest { caller: Some(caller), ..question() };
    let denied = client.authorize(unknown).await.unwrap().into_inner();
    assert_eq!(denied.decision(), Decision::Denied);
    let (known, last) = named.reservation_id.split_at(31);
    let never = format!("{known}{}", if last == "0" { "1" } else { "0" });
    refused(client.record_usage(used(&never, 1, 1)).await, Code::NotFound, "UNKNOWN_RESERVATION");
    // One request id, and a reservation of that name in each organization: it has to be said which is meant.
    let both = AuthorizeRequest { request_id: "the same".to_owned(), ..question() };
    let id = client.authorize(to("acme", "", both.clone())).await.unwrap().into_inner().reservation_id;
    let other = client.authorize(to("globex", "", both)).await.unwrap().into_inner().reservation_id;
    assert_eq!(id, other);
    refused(client.record_usage(used(&id, 1, 1)).await, Code::InvalidArgument, "ORGANIZATION_REQUIRED");
    client.record_usage(to("globex", "", used(&id, 1, 1))).await.unwrap();

    let mut organizations = OrganizationServiceClient::new(connect(process.address()).await);
    let list = organizations.list_organizations(ListOrganizationsRequest::default()).await;
    let ids: Vec<_> = list.unwrap().into_inner().organizations.into_iter().map(|one| one.id).collect();
    assert_eq!(ids, ["acme", "globex"]);
    process.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_created_key_is_found_at_once() {
    let directory = TempDir::new().unwrap();
    let process = open(&directory).await;
    let mut keys = KeyServiceClient::new(connect(process.address()).await);
    let key = VirtualKey { name: "bot-prod-web".to_owned(), team: "bot".to_owned(), ..Default::default() };
    let request = CreateKeyRequest { key: Some(key), ..Default::default() };
    let created = keys.create_key(to("acme", "", request)).await.unwrap().into_inner();
    let caller = authorize_request::Caller::ApiKey(created.secret);
    let question = AuthorizeRequest { caller: Some(caller), ..question() };
    let answer = process.client().await.authorize(question).await.unwrap().into_inner();
    assert_eq!(answer.decision(), Decision::Allowed);
    process.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_organization_is_named_or_not() {
    let directory = TempDir::new().unwrap();
    let text = open_policy("acme", "");
    let process = Process::start_arguments(directory.path(), &text, &["--admin-enabled=false"]).await;
    let mut client = process.client().await;
    for named in ["", "acme"] {
        let answer = client.authorize(to(named, "", question())).await.unwrap().into_inner();
        assert_eq!(answer.decision(), Decision::Allowed);
    }
    let other = client.authorize(to("globex", "", question())).await.unwrap_err();
    assert_eq!(reason(&other), (Code::NotFound, "UNKNOWN_ORGANIZATION".to_owned()));
    // What is for no organization does not look at it.
    let mut health = tonic_health::pb::health_client::HealthClient::new(connect(process.address()).await);
    let mut check = Request::new(tonic_health::pb::HealthCheckRequest::default());
    check.metadata_mut().insert("tollgate-organization", "globex".parse().unwrap());
    assert!(health.check(check).await.is_ok());
    process.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_name_the_organization() {
    let directory = TempDir::new().unwrap();
    let process = open(&directory).await;
    let address = process.address().to_string();
    let run = |arguments: &[&str], variable: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tollgate"));
        command.args(arguments).args(["--address", &address]).env("TOLLGATE_ORGANIZATION", variable);
        let output = command.output().unwrap();
        let text = [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap()).concat();
        (output.status.code(), text)
    };
    let (code, text) = run(&["spend", "--organization", "globex"], "");
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("globex"), "{text}");
    assert_eq!(run(&["spend"], "acme").0, Some(0));
    let (code, text) = run(&["spend"], "");
    assert!(code == Some(2) && text.contains("tollgate-organization"), "{text}");
    let (code, text) = run(&["spend", "--organization", "nowhere"], "");
    assert!(code == Some(2) && text.contains("there is no organization `nowhere`"), "{text}");
    let (code, text) = run(&["organizations"], "");
    assert!(code == Some(0) && text.contains("acme") && text.contains("globex"), "{text}");
    process.stop().await;
}
