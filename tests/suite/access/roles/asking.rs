//! How each RPC is asked.

use std::{
    collections::BTreeSet,
    sync::atomic::{AtomicU32, Ordering},
};

use serde_json::json;
use tollgate::rpc::{
    envoy::service::{
        auth::v3::{
            CheckResponse, attribute_context::http_request::HeadersEntry,
            authorization_client::AuthorizationClient, check_response::HttpResponse,
        },
        ext_proc::v3::{ProcessingRequest, external_processor_client::ExternalProcessorClient},
    },
    proto::{
        self, alert_service_client::AlertServiceClient, audit_service_client::AuditServiceClient,
        budget_service_client::BudgetServiceClient, key_service_client::KeyServiceClient,
        organization_service_client::OrganizationServiceClient, pause_service_client::PauseServiceClient,
        policy_document_service_client::PolicyDocumentServiceClient,
        policy_service_client::PolicyServiceClient, report_service_client::ReportServiceClient,
        status_service_client::StatusServiceClient, upstream_service_client::UpstreamServiceClient,
    },
};
use tonic::{Code, Status, transport::Channel};
use tonic_reflection::pb::v1::{
    ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
    server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
};

use super::{MODEL, by, digest, secret};
use crate::{
    envoy::checks::{check, http},
    harness::{chat, new_key, used},
};

/// A question and its answer: `y` for an answer, `o` for one about the own team only, `-` for a refusal.
pub(super) async fn ask(channel: &Channel, token: &str, rpc: &str, team: &str) -> Result<char, Status> {
    let mut client = PolicyServiceClient::new(channel.clone());
    match rpc {
        "Authorize" => drop(client.authorize(by(token, chat(team, MODEL, 10, 10))).await?),
        "Authorize by key" => {
            let mut request = chat("", MODEL, 10, 10);
            request.caller = Some(proto::authorize_request::Caller::ApiKey(format!("tgk_{team}")));
            drop(client.authorize(by(token, request)).await?);
        }
        "RecordUsage" => {
            let id = reserve(&mut client, team).await;
            if let Err(status) = client.record_usage(by(token, used(&id, 10, 10))).await {
                let booked = client.record_usage(by(&secret("admin"), used(&id, 10, 10))).await?.into_inner();
                assert!(!booked.already_recorded, "{rpc} was refused and took effect");
                return Err(status);
            }
        }
        "GetSpend" => {
            let request = proto::GetSpendRequest { team: team.to_owned(), ..Default::default() };
            let answer = client.get_spend(by(token, request)).await?.into_inner();
            let teams: Vec<_> = answer.teams.iter().map(|team| team.name.as_str()).collect();
            match (team, answer.organization.is_some(), teams.as_slice()) {
                ("", true, ["other", "own"]) => {}
                ("", false, ["own"]) => return Ok('o'),
                (asked, false, [told]) if asked == *told => {}
                other => panic!("{other:?}"),
            }
        }
        "QueryUsage" => {
            let mut client = ReportServiceClient::new(channel.clone());
            let teams = Some(team).filter(|team| !team.is_empty()).map(str::to_owned).into_iter().collect();
            let request = proto::QueryUsageRequest {
                start_date: "2026-11-01".to_owned(),
                end_date: "2026-12-01".to_owned(),
                group_by: vec!["team".to_owned()],
                filter: Some(proto::UsageFilter { teams, ..Default::default() }),
                ..Default::default()
            };
            let answer = client.query_usage(by(token, request)).await?.into_inner();
            let teams = answer.rows.iter().map(|row| row.dimensions.as_ref().unwrap().team.as_str());
            // Usage of both was recorded before, by the first who may.
            match (team, teams.collect::<Vec<_>>().as_slice()) {
                ("", ["other", "own"]) => {}
                ("", ["own"]) => return Ok('o'),
                (asked, [told]) if asked == *told => {}
                other => panic!("{other:?}"),
            }
        }
        "QueryDenials" => {
            let mut client = ReportServiceClient::new(channel.clone());
            let teams = Some(team).filter(|team| !team.is_empty()).map(str::to_owned).into_iter().collect();
            let request = proto::QueryDenialsRequest {
                start_date: "2026-11-01".to_owned(),
                end_date: "2026-12-01".to_owned(),
                group_by: vec!["team".to_owned()],
                filter: Some(proto::UsageFilter { teams, ..Default::default() }),
                ..Default::default()
            };
            let answer = client.query_denials(by(token, request)).await?.into_inner();
            // Whose denials are shown to whom is tested with those that there are.
            assert_eq!(answer.next_page_token, "");
        }
        "ListLimits" => {
            let mut client = ReportServiceClient::new(channel.clone());
            let request = proto::ListLimitsRequest { team: team.to_owned(), ..Default::default() };
            let answer = client.list_limits(by(token, request)).await?.into_inner();
            return Ok(told(team, answer.limits.iter().map(|limit| limit.limit_id.as_str())));
        }
        "StreamDecisions" => {
            let mut client = ReportServiceClient::new(channel.clone());
            let teams = Some(team).filter(|team| !team.is_empty()).map(str::to_owned).into_iter().collect();
            let request = proto::StreamDecisionsRequest { teams, ..Default::default() };
            // Which decisions a caller sees is tested with those that there are.
            drop(client.stream_decisions(by(token, request)).await?);
        }
        "ListBudgets" => {
            let mut client = BudgetServiceClient::new(channel.clone());
            let request = proto::ListBudgetsRequest { team: team.to_owned(), ..Default::default() };
            let answer = client.list_budgets(by(token, request)).await?.into_inner();
            return Ok(told(team, answer.budgets.iter().map(|budget| budget.limit_id.as_str())));
        }
        "Check" => drop(admitted(checked(channel, token, team, "check").await?)?),
        "ListKeys" => {
            let mut keys = KeyServiceClient::new(channel.clone());
            for of in ["own", "other"] {
                create(&mut keys, of).await;
            }
            let request = proto::ListKeysRequest { team: team.to_owned(), ..Default::default() };
            let answer = keys.list_keys(by(token, request)).await?.into_inner();
            let teams: BTreeSet<_> = answer.keys.iter().map(|key| key.team.as_str()).collect();
            match (team, teams.into_iter().collect::<Vec<_>>().as_slice()) {
                ("", ["other", "own"]) => {}
                ("", ["own"]) => return Ok('o'),
                (asked, [told]) if asked == *told => {}
                other => panic!("{other:?}"),
            }
        }
        "CreateKey" | "GetKey" | "UpdateKey" | "RotateKey" | "RevokeKey" | "RevokeKeySecret" => {
            manage(channel, token, rpc, team).await?;
        }
        "ListUpstreamKeys" => {
            let mut client = UpstreamServiceClient::new(channel.clone());
            drop(client.list_upstream_keys(by(token, proto::ListUpstreamKeysRequest {})).await?);
        }
        "ListReplicas" => {
            let mut client = StatusServiceClient::new(channel.clone());
            drop(client.list_replicas(by(token, proto::ListReplicasRequest::default())).await?);
        }
        "ListOrganizations" => {
            let mut client = OrganizationServiceClient::new(channel.clone());
            let request = by(token, proto::ListOrganizationsRequest::default());
            let answer = client.list_organizations(request).await?.into_inner();
            let ids: Vec<_> = answer.organizations.iter().map(|organization| &*organization.id).collect();
            assert_eq!(ids, ["acme"]);
        }
        "ListAuditEvents" => {
            let mut client = AuditServiceClient::new(channel.clone());
            drop(client.list_audit_events(by(token, proto::ListAuditEventsRequest::default())).await?);
        }
        "Pause" => {
            // Of what no other question asks for.
            let request = proto::PauseRequest { target: target(), reason: "INC-7".to_owned() };
            drop(PauseServiceClient::new(channel.clone()).pause(by(token, request)).await?);
        }
        "Resume" => {
            let request = proto::ResumeRequest { target: target(), reason: "over".to_owned() };
            drop(PauseServiceClient::new(channel.clone()).resume(by(token, request)).await?);
        }
        "ListPauses" => {
            let mut client = PauseServiceClient::new(channel.clone());
            drop(client.list_pauses(by(token, proto::ListPausesRequest::default())).await?);
        }
        "ListCooldowns" => {
            let mut client = UpstreamServiceClient::new(channel.clone());
            drop(client.list_cooldowns(by(token, proto::ListCooldownsRequest::default())).await?);
        }
        "LiftCooldown" => {
            let request = proto::LiftCooldownRequest {
                project: "default".to_owned(),
                model: MODEL.to_owned(),
                reason: "INC-7".to_owned(),
                ..Default::default()
            };
            match UpstreamServiceClient::new(channel.clone()).lift_cooldown(by(token, request)).await {
                // There is none.
                Err(status) if status.code() == Code::NotFound => {}
                answer => drop(answer?),
            }
        }
        "ListAlerts" => {
            let teams = Some(team.to_owned()).filter(|team| !team.is_empty()).into_iter().collect();
            let request = proto::ListAlertsRequest { teams, ..Default::default() };
            let mut client = AlertServiceClient::new(channel.clone());
            drop(client.list_alerts(by(token, request)).await?);
            // There is none, so that all see the same; `alerts::lists` says what a caller of teams sees.
            let is_bound = matches!(client.list_alerts(by(token, of_team("other"))).await, Err(status) if status.code() == Code::PermissionDenied);
            return Ok(if team.is_empty() && is_bound { 'o' } else { 'y' });
        }
        "ListReceivers" => {
            let mut client = AlertServiceClient::new(channel.clone());
            drop(client.list_receivers(by(token, proto::ListReceiversRequest {})).await?);
        }
        "TestReceiver" => {
            let request = proto::TestReceiverRequest { name: "none".to_owned() };
            match AlertServiceClient::new(channel.clone()).test_receiver(by(token, request)).await {
                // There is none.
                Err(status) if status.code() == Code::NotFound => {}
                answer => drop(answer?),
            }
        }
        "ReportDrift" => {
            let (start_date, end_date) = ("2026-11-01".to_owned(), "2026-12-01".to_owned());
            let request = proto::ReportDriftRequest { start_date, end_date, drifts: Vec::new() };
            drop(AlertServiceClient::new(channel.clone()).report_drift(by(token, request)).await?);
        }
        "GetPolicy" => {
            let answer = documents(channel).get_policy(by(token, proto::GetPolicyRequest {})).await?;
            let document = answer.into_inner().policy.unwrap().document;
            assert!(
                document.contains("[access.tokens.admin]") && !document.contains(&digest(&secret("admin")))
            );
        }
        "ListPolicyRevisions" => {
            let request = proto::ListPolicyRevisionsRequest::default();
            drop(documents(channel).list_policy_revisions(by(token, request)).await?);
        }
        "GetPolicyRevision" => {
            let document_revision = "none".to_owned();
            let request = proto::GetPolicyRevisionRequest { document_revision, ..Default::default() };
            match documents(channel).get_policy_revision(by(token, request)).await {
                // There is none.
                Err(status) if status.code() == Code::NotFound => {}
                answer => drop(answer?),
            }
        }
        "DescribeTeam" => {
            let request = proto::DescribeTeamRequest { team: team.to_owned() };
            let answer = documents(channel).describe_team(by(token, request)).await?.into_inner();
            assert_eq!(answer.limits.unwrap().max_output_tokens, Some(99));
        }
        "CheckPolicy" => {
            let document = b"[organization]\nid = \"acme\"\n".as_slice().into();
            let request = proto::CheckPolicyRequest { document, ..Default::default() };
            // It would open the service to all.
            let checked = documents(channel).check_policy(by(token, request)).await?.into_inner();
            assert!(!checked.sound && !format!("{checked:?}").contains(&digest(&secret("admin"))));
        }
        "ReplayPolicy" => {
            let request = proto::ReplayPolicyRequest {
                document: b"[organization]\nid = \"acme\"\n".as_slice().into(),
                start_date: "2026-11-23".to_owned(),
                end_date: "2026-11-24".to_owned(),
                ..Default::default()
            };
            match documents(channel).replay_policy(by(token, request)).await {
                // It would open the service to all.
                Err(status) if status.code() == Code::InvalidArgument => {}
                answer => drop(answer?),
            }
        }
        "GetStatus" => {
            let mut client = StatusServiceClient::new(channel.clone());
            drop(client.get_status(by(token, proto::GetStatusRequest {})).await?);
        }
        "Process" => drop(process(channel, token, Vec::new()).await?),
        "Reflection" => drop(reflect(channel, token, MessageRequest::ListServices(String::new())).await?),
        other => panic!("{other}"),
    }
    Ok('y')
}

/// What is told to a question about `team` that was answered with these limits, each team of which has a budget.
fn told<'a>(team: &str, ids: impl Iterator<Item = &'a str>) -> char {
    let teams: BTreeSet<_> = ids.filter_map(|id| id.split('.').nth(1)).collect();
    match (team, teams.into_iter().collect::<Vec<_>>().as_slice()) {
        ("", ["other", "own"]) => 'y',
        ("", ["own"]) => 'o',
        (asked, [told]) if asked == *told => 'y',
        other => panic!("{other:?}"),
    }
}

fn documents(channel: &Channel) -> PolicyDocumentServiceClient<Channel> {
    PolicyDocumentServiceClient::new(channel.clone())
}

fn of_team(team: &str) -> proto::ListAlertsRequest {
    proto::ListAlertsRequest { teams: vec![team.to_owned()], ..Default::default() }
}

fn target() -> Option<proto::PauseTarget> {
    let model = "llama-3.1-8b-instant".to_owned();
    Some(proto::PauseTarget { target: Some(proto::pause_target::Target::Model(model)) })
}

/// A name that no key has had.
fn new_name(team: &str) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("{team}-test-{}", NEXT.fetch_add(1, Ordering::Relaxed))
}

/// Makes a key of `team`, as somebody who may.
pub(super) async fn create(client: &mut KeyServiceClient<Channel>, team: &str) -> String {
    let name = new_name(team);
    client.create_key(by(&secret("admin"), new_key(&name, team))).await.unwrap();
    name
}

async fn manage(channel: &Channel, token: &str, rpc: &str, team: &str) -> Result<(), Status> {
    let mut client = KeyServiceClient::new(channel.clone());
    if rpc == "CreateKey" {
        let request = new_key(&new_name(team), team);
        return client.create_key(by(token, request)).await.map(drop);
    }
    let name = create(&mut client, team).await;
    match rpc {
        "GetKey" => {
            client.get_key(by(token, proto::GetKeyRequest { name, ..Default::default() })).await.map(drop)
        }
        "UpdateKey" => {
            let key = Some(proto::VirtualKey { name, ..Default::default() });
            let update_mask = Some(prost_types::FieldMask { paths: vec!["labels".to_owned()] });
            let request = proto::UpdateKeyRequest { key, update_mask, ..Default::default() };
            client.update_key(by(token, request)).await.map(drop)
        }
        "RotateKey" => {
            let request = proto::RotateKeyRequest { name, ..Default::default() };
            client.rotate_key(by(token, request)).await.map(drop)
        }
        "RevokeKey" => client.revoke_key(by(token, proto::RevokeKeyRequest { name })).await.map(drop),
        _ => {
            let request = proto::RotateKeyRequest { name: name.clone(), ..Default::default() };
            let rotated = client.rotate_key(by(&secret("admin"), request)).await?.into_inner();
            let secret_id = rotated.key.unwrap().secrets[0].secret_id.clone();
            let request = proto::RevokeKeySecretRequest { name, secret_id, force: false };
            client.revoke_key_secret(by(token, request)).await.map(drop)
        }
    }
}

pub(super) async fn reserve(client: &mut PolicyServiceClient<Channel>, team: &str) -> String {
    let answer = client.authorize(by(&secret("admin"), chat(team, MODEL, 10, 10))).await.unwrap();
    answer.into_inner().reservation_id
}

pub(super) async fn checked(
    channel: &Channel,
    token: &str,
    team: &str,
    id: &str,
) -> Result<CheckResponse, Status> {
    let body = json!({"model": MODEL, "max_tokens": 10, "messages": []});
    let mut request = check(&format!("{id}/{token}/{team}"), &[("x-team", team)], &body);
    let header = HeadersEntry { key: "authorization".into(), value: "Bearer of the client".into() };
    http(&mut request).headers.push(header);
    Ok(AuthorizationClient::new(channel.clone()).check(by(token, request)).await?.into_inner())
}

/// A denial of `Check` as the status that other RPCs have.
pub(super) fn admitted(answer: CheckResponse) -> Result<CheckResponse, Status> {
    match &answer.http_response {
        Some(HttpResponse::OkResponse(_)) => Ok(answer),
        Some(HttpResponse::DeniedResponse(denied)) if denied.status.as_ref().unwrap().code == 403 => {
            Err(Status::permission_denied(denied.body.clone()))
        }
        other => panic!("{other:?}"),
    }
}

pub(super) async fn process(
    channel: &Channel,
    token: &str,
    steps: Vec<ProcessingRequest>,
) -> Result<usize, Status> {
    let mut client = ExternalProcessorClient::new(channel.clone());
    let mut replies = client.process(by(token, tokio_stream::iter(steps))).await?.into_inner();
    let mut count = 0;
    while replies.message().await?.is_some() {
        count += 1;
    }
    Ok(count)
}

async fn reflect(
    channel: &Channel,
    token: &str,
    question: MessageRequest,
) -> Result<MessageResponse, Status> {
    let request = ServerReflectionRequest { host: String::new(), message_request: Some(question) };
    let mut client = ServerReflectionClient::new(channel.clone());
    let mut answers =
        client.server_reflection_info(by(token, tokio_stream::iter([request]))).await?.into_inner();
    Ok(answers.message().await?.expect("an answer").message_response.expect("an answer"))
}
