//! Cooldowns after Groq's 429, from the report that opens one to the operator who lifts it; and who may report without a
//! reservation.

use std::process::{Command, Output};

use serde_json::{Value, json};
use tempfile::TempDir;
use tollgate::rpc::proto::{
    self, ActorKind, AuditEvent, Cooldown, Decision, LiftCooldownRequest, ListAuditEventsRequest,
    ListCooldownsRequest, Outcome, RecordUsageRequest, ServiceTier, audit_service_client::AuditServiceClient,
    policy_service_client::PolicyServiceClient, record_usage_request::Caller,
    upstream_service_client::UpstreamServiceClient,
};
use tonic::{Code, Status, transport::Channel};
use tonic_types::StatusExt as _;

use crate::{
    access::{by, digest},
    harness::{
        Process, START, Server, StoreKind, chat, connect, errors::is_of, eventually, json_of, nanos,
        team_spend, used,
    },
};

const SMALL: &str = "openai/gpt-oss-20b";
const LARGE: &str = "openai/gpt-oss-120b";
const ADMIN: &str = "tgs_secret_of_the_admin";
const OPERATOR: &str = "tgs_secret_of_the_operator";
const AUDITOR: &str = "tgs_secret_of_the_auditor";
const GATEWAY: &str = "tgs_secret_of_the_gateway";
const BOUND: &str = "tgs_secret_of_the_gateway_of_bot";

fn policy() -> String {
    let mut text = "[organization]\nid = \"acme\"\nmax_cooldown = \"1m\"\n\
                    [teams.bot]\nmodels = [\"*\"]\nunreserved = { max_cost_usd = \"0.001\", daily_usd = \"0.0015\" }\n\
                    [teams.lab]\nmodels = [\"*\"]\n\
                    [projects.main]\nkeys = [{ env = \"GROQ_MAIN\" }]\n\
                    [projects.lab]\nkeys = [{ env = \"GROQ_LAB\" }]\nteams = [\"lab\"]\n"
        .to_owned();
    for (name, secret, role) in [
        ("root", ADMIN, "admin"),
        ("ops", OPERATOR, "operator"),
        ("audit", AUDITOR, "auditor"),
        ("edge", GATEWAY, "gateway"),
        ("edge-of-bot", BOUND, "gateway"),
    ] {
        let teams = if secret == BOUND { "teams = [\"bot\"]\n" } else { "" };
        let digest = digest(secret);
        text += &format!("[access.tokens.{name}]\nsha256 = \"{digest}\"\nroles = [\"{role}\"]\n{teams}");
    }
    text
}

fn reason(status: &Status) -> (Code, String) {
    let info = status.get_details_error_info().unwrap_or_else(|| panic!("no reason: {status:?}"));
    is_of(status, &info.reason);
    (status.code(), info.reason)
}

struct Clients {
    calls: PolicyServiceClient<Channel>,
    upstream: UpstreamServiceClient<Channel>,
    audit: AuditServiceClient<Channel>,
}

impl Clients {
    fn new(channel: &Channel) -> Self {
        Self {
            calls: PolicyServiceClient::new(channel.clone()),
            upstream: UpstreamServiceClient::new(channel.clone()),
            audit: AuditServiceClient::new(channel.clone()),
        }
    }

    async fn reserve(&mut self, team: &str, model: &str, tier: ServiceTier) -> Option<String> {
        let mut request = chat(team, model, 10, 10);
        request.service_tier = tier.into();
        let answer = self.calls.authorize(by(GATEWAY, request)).await.unwrap().into_inner();
        (answer.decision() == Decision::Allowed).then_some(answer.reservation_id)
    }

    async fn limited(
        &mut self,
        token: &str,
        reservation_id: &str,
        seconds: i64,
    ) -> Result<Vec<String>, Status> {
        let request = RecordUsageRequest {
            reservation_id: reservation_id.to_owned(),
            outcome: Outcome::RateLimited.into(),
            upstream_retry_delay: Some(prost_types::Duration { seconds, nanos: 0 }),
            ..Default::default()
        };
        Ok(self.calls.record_usage(by(token, request)).await?.into_inner().warnings)
    }

    async fn refuse(&mut self, team: &str, model: &str, tier: ServiceTier, seconds: i64) {
        let id = self.reserve(team, model, tier).await.unwrap();
        self.limited(GATEWAY, &id, seconds).await.unwrap();
    }

    async fn page(&mut self, page_size: i32, page_token: &str) -> Result<(Vec<Cooldown>, String), Status> {
        let request = ListCooldownsRequest { page_size, page_token: page_token.to_owned() };
        let page = self.upstream.list_cooldowns(by(AUDITOR, request)).await?.into_inner();
        Ok((page.cooldowns, page.next_page_token))
    }

    async fn lift(&mut self, project: &str, model: &str, tier: ServiceTier) -> Result<Vec<Cooldown>, Status> {
        let request = LiftCooldownRequest {
            project: project.to_owned(),
            model: model.to_owned(),
            service_tier: tier.into(),
            reason: "INC-7".to_owned(),
        };
        Ok(self.upstream.lift_cooldown(by(OPERATOR, request)).await?.into_inner().ended_cooldowns)
    }

    async fn events(&mut self, action: &str) -> Vec<AuditEvent> {
        let request = ListAuditEventsRequest { action: action.to_owned(), ..Default::default() };
        self.audit.list_audit_events(by(AUDITOR, request)).await.unwrap().into_inner().events
    }
}

fn named(cooldowns: &[Cooldown]) -> Vec<(&str, &str, ServiceTier)> {
    cooldowns.iter().map(|c| (c.project.as_str(), c.model.as_str(), c.service_tier())).collect()
}

/// On both stores.
async fn start(store: StoreKind) -> Option<(Server, Clients)> {
    if !store.is_available() {
        return None;
    }
    let server = Server::start(store, &policy(), START).await;
    let clients = Clients::new(&connect(server.address()).await);
    Some((server, clients))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cooldowns_are_listed_in_pages_and_lifted() {
    use ServiceTier::{Flex, OnDemand, Unspecified};
    for store in [StoreKind::Embedded, StoreKind::Redis] {
        let Some((server, mut clients)) = start(store).await else { continue };
        assert_eq!(clients.page(0, "").await.unwrap(), (vec![], String::new()));
        clients.refuse("bot", SMALL, OnDemand, 5).await;
        clients.refuse("bot", SMALL, Flex, 3_600).await;
        clients.refuse("lab", LARGE, OnDemand, 5).await;
        let (first, token) = clients.page(2, "").await.unwrap();
        assert_eq!(named(&first), [("lab", LARGE, OnDemand), ("main", SMALL, OnDemand)]);
        let (second, end) = clients.page(2, &token).await.unwrap();
        assert_eq!((named(&second), end), (vec![("main", SMALL, Flex)], String::new()));
        let seconds = |at: &Option<prost_types::Timestamp>| at.as_ref().unwrap().seconds;
        let flex = &second[0];
        assert_eq!(seconds(&flex.end_time) - seconds(&flex.start_time), 60, "capped");
        assert_eq!(
            (flex.reporter_team.as_str(), flex.requested_delay.as_ref().unwrap().seconds),
            ("bot", 3_600)
        );
        // A larger page is as large as may be; what is no page of this list is refused.
        assert_eq!(clients.page(i32::MAX, "").await.unwrap().0.len(), 3);
        let negative = clients.page(-1, "").await.unwrap_err();
        assert_eq!(reason(&negative), (Code::InvalidArgument, "INVALID_REQUEST".to_owned()));
        let malformed = clients.page(0, "after:bot").await.unwrap_err();
        assert_eq!(reason(&malformed), (Code::InvalidArgument, "PAGE_TOKEN_INVALID".to_owned()));
        assert!(malformed.message().starts_with("`page_token`: malformed: "), "{malformed:?}");

        assert_eq!(clients.reserve("bot", SMALL, Flex).await, None);
        for (project, model, tier) in [
            ("lab", SMALL, Unspecified),
            ("main", LARGE, Unspecified),
            ("lab", LARGE, Flex),
            ("none", SMALL, Flex),
        ] {
            let unknown = clients.lift(project, model, tier).await.unwrap_err();
            assert_eq!(reason(&unknown), (Code::NotFound, "UNKNOWN_COOLDOWN".to_owned()));
        }
        assert_eq!(named(&clients.lift("lab", LARGE, OnDemand).await.unwrap()), [("lab", LARGE, OnDemand)]);
        let both = clients.lift("main", SMALL, Unspecified).await.unwrap();
        assert_eq!(named(&both), [("main", SMALL, OnDemand), ("main", SMALL, Flex)]);
        assert!(clients.reserve("bot", SMALL, Flex).await.is_some());
        assert_eq!(clients.page(0, "").await.unwrap().0, []);
        eventually("both are recorded", async || clients.events("cooldown.lift").await.len() == 2).await;
        let event = clients.events("cooldown.lift").await.remove(0);
        let [before, after] = [&event.before, &event.after].map(|state| json_of(state.as_ref()));
        assert_eq!(
            (event.actor.unwrap().name.as_str(), event.subject.as_str()),
            ("ops", "main/openai/gpt-oss-20b")
        );
        assert_eq!(
            (&before["cooldowns"][1]["service_tier"], &before["cooldowns"][1]["reporter_team"]),
            (&"flex".into(), &"bot".into())
        );
        assert_eq!((after, event.outcome.as_str()), (json!({ "reason": "INC-7" }), "done"));
        assert!(server.stop().await);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_report_out_of_reach_opens_no_cooldown() {
    let (server, mut clients) = start(StoreKind::Embedded).await.unwrap();
    let other = clients.reserve("lab", SMALL, ServiceTier::OnDemand).await.unwrap();
    let own = clients.reserve("bot", SMALL, ServiceTier::OnDemand).await.unwrap();
    for id in [other.as_str(), "01000000000000000000000000000000"] {
        let refused = clients.limited(BOUND, id, 3_600).await.unwrap_err();
        assert_eq!(reason(&refused), (Code::PermissionDenied, "TEAM_NOT_PERMITTED".to_owned()));
    }
    assert_eq!(clients.page(0, "").await.unwrap().0, []);
    let warnings = clients.limited(BOUND, &own, 3_600).await.unwrap();
    assert!(warnings.len() == 1 && warnings[0].contains("organization.max_cooldown"), "{warnings:?}");
    assert_eq!(named(&clients.page(0, "").await.unwrap().0), [("main", SMALL, ServiceTier::OnDemand)]);
    assert!(server.stop().await);
}

fn unreserved(request_id: &str, output_tokens: i64) -> RecordUsageRequest {
    RecordUsageRequest {
        caller: Some(Caller::Team("bot".to_owned())),
        request_id: request_id.to_owned(),
        model: SMALL.to_owned(),
        operation: proto::Operation::ChatCompletion.into(),
        ..used("", 0, output_tokens)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_an_admin_reports_past_the_bound() {
    let (server, mut clients) = start(StoreKind::Embedded).await.unwrap();
    // 300 nano-dollars a token: of $0.001 for one report, and $0.0015 for a day.
    for (token, request_id, tokens, passes) in [
        (GATEWAY, "1", 3_334, false),
        (GATEWAY, "2", 3_333, true),
        (BOUND, "3", 3_333, false),
        (ADMIN, "4", 33_333, true),
        (BOUND, "5", 1_667, true),
        (GATEWAY, "6", 1, false),
    ] {
        let booked = clients.calls.record_usage(by(token, unreserved(request_id, tokens))).await;
        assert_eq!(booked.is_ok(), passes, "{request_id}: {booked:?}");
        if let Err(status) = booked {
            assert_eq!(reason(&status), (Code::FailedPrecondition, "UNRESERVED_BOUND_EXCEEDED".to_owned()));
        }
    }
    eventually("all three are recorded", async || clients.events("role.denied").await.len() == 3).await;
    for (event, name) in clients.events("role.denied").await.iter().rev().zip(["edge", "edge-of-bot", "edge"])
    {
        assert_eq!(event.actor.as_ref().unwrap().name, name);
        assert_eq!(event.subject, "tollgate.v1.PolicyService/RecordUsage");
        assert_eq!(
            (event.outcome.as_str(), json_of(event.after.as_ref())),
            ("UNRESERVED_BOUND_EXCEEDED", json!({ "team": "bot" }))
        );
    }
    let mut request =
        tonic::Request::new(proto::GetSpendRequest { team: "bot".to_owned(), ..Default::default() });
    request.metadata_mut().insert("authorization", format!("Bearer {ADMIN}").parse().unwrap());
    let spend = clients.calls.get_spend(request).await.unwrap().into_inner().teams.remove(0);
    let spent = nanos(spend.spend.unwrap().spent);
    assert_eq!((spent, spend.requests, spend.unsettled_requests), ((3_333 + 33_333 + 1_667) * 300, 3, 0));
    assert!(server.stop().await);
}

/// Where the policy knows no callers, nobody is known to be an admin.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_access_everybody_is_held_to_the_bound() {
    let policy = policy().split("[access").next().unwrap().to_owned();
    let server = Server::start(StoreKind::Embedded, &policy, START).await;
    let mut client = server.client().await;
    let refused = client.record_usage(unreserved("1", 3_334)).await.unwrap_err();
    assert_eq!(reason(&refused).1, "UNRESERVED_BOUND_EXCEEDED");
    assert_eq!(team_spend(&mut client, "bot").await.requests, 0);
    let request = ListAuditEventsRequest { action: "role.denied".to_owned(), ..Default::default() };
    let mut log = AuditServiceClient::new(connect(server.address()).await);
    let mut events = Vec::new();
    eventually("it is recorded", async || {
        events = log.list_audit_events(request.clone()).await.unwrap().into_inner().events;
        events.len() == 1
    })
    .await;
    assert_eq!(events[0].actor.as_ref().unwrap().kind(), ActorKind::Anyone);
    assert!(server.stop().await);
}

/// `tollgate` with these arguments, as the holder of `token`.
fn tollgate(process: &Process, token: &str, arguments: &[&str]) -> Output {
    let address = process.address().to_string();
    let mut command = Command::new(env!("CARGO_BIN_EXE_tollgate"));
    command.args(arguments).args(["--address", &address]).env("TOLLGATE_TOKEN", token);
    tokio::task::block_in_place(|| command.output().unwrap())
}

fn printed(output: &Output, code: i32) -> String {
    let text =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{text}");
    text
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_commands_list_and_lift() {
    let directory = TempDir::new().unwrap();
    let store = format!("embedded:{}", directory.path().join("data").display());
    let process = Process::start(directory.path(), &policy(), &store).await;
    let run = |process: &Process, token, arguments: &[&str], code| {
        printed(&tollgate(process, token, arguments), code)
    };
    assert_eq!(run(&process, AUDITOR, &["cooldowns"], 0), "nothing is in cooldown\n");
    let mut clients = Clients::new(&connect(process.address()).await);
    clients.refuse("bot", SMALL, ServiceTier::OnDemand, 3_600).await;
    let lift = ["cooldowns", "lift", SMALL, "--project", "main", "--reason", "INC-7"];
    let refused = run(&process, AUDITOR, &lift, 2);
    assert!(refused.contains("PERMISSION_DENIED") && refused.contains("`lift-cooldowns`"), "{refused}");
    // It outlives the process, however that ends.
    process.kill();
    let process = Process::start(directory.path(), &policy(), &store).await;
    for arguments in [&["cooldowns"][..], &["cooldowns", "list"]] {
        let list = run(&process, AUDITOR, arguments, 0);
        assert!(["main", SMALL, "on_demand", "bot", "1h"].iter().all(|word| list.contains(word)), "{list}");
    }
    let list: Value = serde_json::from_str(&run(&process, AUDITOR, &["cooldowns", "--json"], 0)).unwrap();
    assert_eq!(list["cooldowns"][0]["serviceTier"], "SERVICE_TIER_ON_DEMAND");
    assert_eq!(list["cooldowns"][0]["requestedDelay"], "3600s");
    let default = run(&process, OPERATOR, &["cooldowns", "lift", SMALL, "--reason", "INC-7"], 2);
    assert!(default.contains("NOT_FOUND") && default.contains("`default`"), "{default}");
    let lifted = run(&process, OPERATOR, &lift, 0);
    assert!(lifted.starts_with("openai/gpt-oss-20b is asked for again in main"), "{lifted}");
    assert_eq!(run(&process, AUDITOR, &["cooldowns"], 0), "nothing is in cooldown\n");
    // What was lifted stays so.
    process.kill();
    let process = Process::start(directory.path(), &policy(), &store).await;
    assert_eq!(run(&process, AUDITOR, &["cooldowns"], 0), "nothing is in cooldown\n");
}
