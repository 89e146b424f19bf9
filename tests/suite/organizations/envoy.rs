//! Envoy's protocols in a deployment of several organizations: the route names one, or the client's key says which.

use std::path::Path;

use serde_json::json;
use tempfile::TempDir;
use tollgate::rpc::envoy::{
    extensions::common::ratelimit::v3::{RateLimitDescriptor, rate_limit_descriptor::Entry},
    service::{
        auth::v3::{CheckResponse, authorization_client::AuthorizationClient, check_response::HttpResponse},
        ratelimit::v3::{
            RateLimitRequest, rate_limit_response::Code as Limited,
            rate_limit_service_client::RateLimitServiceClient,
        },
    },
};
use tonic::Code;

use super::{open_policy, policy_of, to, token_of};
use crate::{
    access::{by, reason},
    envoy::checks::{check, status},
    harness::{Process, connect},
};

const SECRET: &str = "tg_a_secret_of_globex";

fn body() -> serde_json::Value {
    json!({"model": "openai/gpt-oss-20b", "max_tokens": 10, "messages": []})
}

fn with_envoy(policy: &str) -> String {
    format!("{policy}[envoy]\ncallers = [\"api_key\", \"route\"]\n")
}

/// With a Groq key of each organization in the settings.
async fn start(directory: &TempDir, policies: &[(&str, &str)]) -> Process {
    let mut settings = "[groq_keys]\n".to_owned();
    for (organization, _) in policies {
        let key = directory.path().join(format!("key-of-{organization}"));
        std::fs::write(&key, format!("gsk_of_{organization}")).unwrap();
        settings.push_str(&format!("\"{organization}/default\" = [{{ file = \"{}\" }}]\n", key.display()));
    }
    std::fs::write(directory.path().join("settings.toml"), settings).unwrap();
    // What stands there is sent for none of several.
    let variables = [("GROQ_API_KEY", Path::new("gsk_of_another"))];
    let arguments = ["--admin-enabled=false", "--config=settings.toml"];
    Process::start_several_with(directory.path(), policies, &arguments, &variables).await
}

/// The Groq key with which a request is let through.
fn key_of(answer: &CheckResponse) -> String {
    assert_eq!(status(answer), 200, "{answer:?}");
    let Some(HttpResponse::OkResponse(ok)) = &answer.http_response else { panic!("{answer:?}") };
    let headers = ok.headers.iter().filter_map(|option| option.header.as_ref());
    let authorization = headers.clone().find(|header| header.key == "authorization").expect("a key");
    String::from_utf8(authorization.value.to_vec()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_route_or_the_key_says_which_organization_is_asked() {
    let directory = TempDir::new().unwrap();
    let (acme, globex) = (with_envoy(&open_policy("acme", "")), with_envoy(&open_policy("globex", SECRET)));
    let policies = [("acme", acme.as_str()), ("globex", globex.as_str())];
    let process = start(&directory, &policies).await;
    let mut client = AuthorizationClient::new(connect(process.address()).await);
    let routed = |organization: &str| {
        let mut request = check("one", &[], &body());
        let extensions = &mut request.attributes.as_mut().unwrap().context_extensions;
        extensions.insert("tollgate_team".to_owned(), "bot".to_owned());
        if !organization.is_empty() {
            extensions.insert("tollgate_organization".to_owned(), organization.to_owned());
        }
        request
    };
    for organization in ["acme", "globex"] {
        let answer = client.check(routed(organization)).await.unwrap().into_inner();
        assert_eq!(key_of(&answer), format!("Bearer gsk_of_{organization}"));
    }
    for organization in ["", "nowhere"] {
        let refused = client.check(routed(organization)).await.unwrap_err();
        assert_eq!(reason(&refused), (Code::InvalidArgument, "ORGANIZATION_REQUIRED".to_owned()));
    }
    let bearer = format!("Bearer {SECRET}");
    // What is no key of theirs says nothing, as it may be for something else.
    let odd = check("three", &[("authorization", "Bearer a_placeholder_of_an_sdk")], &body());
    let refused = client.check(odd).await.unwrap_err();
    assert_eq!(reason(&refused), (Code::InvalidArgument, "ORGANIZATION_REQUIRED".to_owned()));
    let keyed = check("two", &[("authorization", &bearer)], &body());
    assert_eq!(key_of(&client.check(keyed).await.unwrap().into_inner()), "Bearer gsk_of_globex");
    process.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_route_does_not_lead_out_of_the_organization_of_envoys_own_credential() {
    let directory = TempDir::new().unwrap();
    let (acme, globex) = (with_envoy(&policy_of("acme", "")), with_envoy(&policy_of("globex", "")));
    let policies = [("acme", acme.as_str()), ("globex", globex.as_str())];
    let process = start(&directory, &policies).await;
    let mut client = AuthorizationClient::new(connect(process.address()).await);
    let routed = |organization: &str| {
        let mut request = check("one", &[], &body());
        let extensions = &mut request.attributes.as_mut().unwrap().context_extensions;
        extensions.insert("tollgate_team".to_owned(), "bot".to_owned());
        extensions.insert("tollgate_organization".to_owned(), organization.to_owned());
        request
    };
    let own = client.check(by(&token_of("acme"), routed("acme"))).await.unwrap().into_inner();
    assert_eq!(status(&own), 200);
    let other = client.check(by(&token_of("acme"), routed("globex"))).await.unwrap_err();
    assert_eq!(reason(&other), (Code::PermissionDenied, "ORGANIZATION_NOT_PERMITTED".to_owned()));
    process.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_domain_of_a_rate_limit_is_the_organization() {
    let directory = TempDir::new().unwrap();
    let (acme, globex) = (open_policy("acme", ""), open_policy("globex", ""));
    let policies = [("acme", acme.as_str()), ("globex", globex.as_str())];
    let process = Process::start_several(directory.path(), &policies, &["--admin-enabled=false"]).await;
    let mut client = RateLimitServiceClient::new(connect(process.address()).await);
    let asked = |domain: &str| RateLimitRequest {
        domain: domain.to_owned(),
        descriptors: vec![RateLimitDescriptor {
            entries: vec![Entry { key: "tollgate_team".to_owned(), value: "bot".to_owned() }],
            ..Default::default()
        }],
        ..Default::default()
    };
    for domain in ["acme", "globex"] {
        let answer = client.should_rate_limit(asked(domain)).await.unwrap().into_inner();
        assert_eq!(answer.overall_code(), Limited::Ok, "{domain}");
    }
    let unknown = client.should_rate_limit(asked("nowhere")).await.unwrap_err();
    assert_eq!(reason(&unknown), (Code::InvalidArgument, "ORGANIZATION_REQUIRED".to_owned()));
    let other = client.should_rate_limit(to("acme", "", asked("globex"))).await.unwrap_err();
    assert_eq!(reason(&other), (Code::InvalidArgument, "INVALID_REQUEST".to_owned()));
    process.stop().await;
}
