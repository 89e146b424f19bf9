//! Pausing and resuming, from the one who orders it to the one who is denied: on both stores, over real gRPC.

mod lists;
mod processes;
mod records;

use tollgate::rpc::proto::{
    self, ActorKind, AuthorizeRequest, Decision, ListPausesRequest, Pause, PauseRequest, PauseResponse,
    PauseTarget, Reason, ResumeRequest, Scope, authorize_request::Caller,
    key_service_client::KeyServiceClient, pause_service_client::PauseServiceClient, pause_target::Target,
    policy_service_client::PolicyServiceClient,
};
use tonic::{Code, Status, transport::Channel};
use tonic_types::StatusExt as _;

use self::lists::pauses_come_in_pages_and_by_what_covers_a_team;
use crate::{
    access::digest,
    harness::{START, Server, StoreKind, chat, connect, errors::is_of, nanos, new_key, team_spend, used},
};

const MODEL: &str = "m/text";

fn policy(organization: &str) -> String {
    let digest = digest("tgk_declared");
    format!(
        r#"
[organization]
id = "{organization}"
[teams.bot]
models = ["m/text", "m/other"]
max_output_tokens = 4000
max_in_flight = 100
[teams.bot.keys.bot-prod-declared]
sha256 = "{digest}"
[teams.narrow]
models = ["m/text"]
max_in_flight = 1
[[prices]]
model = "m/text"
input_usd_per_million_tokens = "0.001"
output_usd_per_million_tokens = "0.001"
[[prices]]
model = "m/other"
input_usd_per_million_tokens = "0.001"
output_usd_per_million_tokens = "0.001"
"#
    )
}

/// Whoever orders, and whoever is denied.
struct Service {
    server: Server,
    admin: Admin,
    calls: PolicyServiceClient<Channel>,
    /// The secret of the key `bot-prod-created`.
    created: String,
}

#[derive(Clone)]
struct Admin(PauseServiceClient<Channel>);

impl Admin {
    async fn pause(&mut self, target: Target, reason: &str) -> Result<PauseResponse, Status> {
        let target = Some(PauseTarget { target: Some(target) });
        let request = PauseRequest { target, reason: reason.to_owned() };
        self.0.pause(request).await.map(tonic::Response::into_inner)
    }

    async fn resume(&mut self, target: Target) -> Option<Pause> {
        let target = Some(PauseTarget { target: Some(target) });
        let request = ResumeRequest { target, reason: "over".to_owned() };
        self.0.resume(request).await.unwrap().into_inner().ended_pause
    }

    async fn list(&mut self) -> Vec<Pause> {
        self.0.list_pauses(ListPausesRequest::default()).await.unwrap().into_inner().pauses
    }
}

fn team(name: &str) -> Target {
    Target::Team(name.to_owned())
}

fn key(name: &str) -> Target {
    Target::Key(name.to_owned())
}

fn model(name: &str) -> Target {
    Target::Model(name.to_owned())
}

/// A request by a team's name, or by a key's secret.
fn request(caller: &str, model: &str) -> AuthorizeRequest {
    let mut request = chat(caller, model, 10, 10);
    if caller.starts_with("tgk_") {
        request.caller = Some(Caller::ApiKey(caller.to_owned()));
    }
    request
}

impl Service {
    /// `None` where the store is not installed.
    async fn start(store: StoreKind) -> Option<Self> {
        if !store.is_available() {
            return None;
        }
        let server = Server::start(store, &policy("acme"), START).await;
        let channel = connect(server.address()).await;
        let new = new_key("bot-prod-created", "bot");
        let created = KeyServiceClient::new(channel.clone()).create_key(new).await.unwrap().into_inner();
        Some(Self {
            admin: Admin(PauseServiceClient::new(channel.clone())),
            calls: server.client().await,
            created: created.secret,
            server,
        })
    }

    /// Why the request is denied; empty: it is not.
    async fn reasons(&mut self, request: AuthorizeRequest) -> Vec<(Reason, Scope, String)> {
        let answer = self.calls.authorize(request).await.unwrap().into_inner();
        assert_eq!(answer.decision() == Decision::Allowed, answer.violations.is_empty(), "{answer:?}");
        let told = |violation: &proto::Violation| {
            assert!(!violation.retryable, "no waiting helps");
            (violation.reason(), violation.scope(), violation.limit_id.clone())
        };
        answer.violations.iter().map(told).collect()
    }
}

/// Declares tests that run on both stores.
macro_rules! on_both {
    ($($name:ident)*) => {
        mod embedded {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                super::$name(super::Service::start(super::StoreKind::Embedded).await.unwrap()).await;
            })*
        }
        mod redis {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                let Some(service) = super::Service::start(super::StoreKind::Redis).await else { return };
                super::$name(service).await;
            })*
        }
    };
}

on_both! {
    a_pause_denies_what_it_covers_and_nothing_else
    every_pause_that_denies_is_told
    what_is_under_way_goes_on_and_who_waits_is_denied
    a_repeat_is_denied_and_what_it_reserved_can_be_given_back
    a_pause_can_be_repeated_and_replaced
    what_cannot_be_paused_is_named
    pauses_come_in_pages_and_by_what_covers_a_team
}

async fn a_pause_denies_what_it_covers_and_nothing_else(mut service: Service) {
    let created = service.created.clone();
    let asked = [
        ("bot", "m/text"),
        ("bot", "m/other"),
        ("tgk_declared", "m/text"),
        (created.as_str(), "m/text"),
        ("narrow", "m/text"),
    ];
    for (target, scope, place, denied) in [
        (Target::Organization(proto::WholeOrganization {}), Scope::Organization, "organization", "12345"),
        (team("bot"), Scope::Team, "teams.bot", "1234-"),
        (team("narrow"), Scope::Team, "teams.narrow", "----5"),
        (key("bot-prod-declared"), Scope::Key, "teams.bot.keys.bot-prod-declared", "--3--"),
        (key("bot-prod-created"), Scope::Key, "teams.bot.keys.bot-prod-created", "---4-"),
        (model("m/text"), Scope::OrganizationModel, "models.m/text", "1-345"),
        (model("m/o*"), Scope::OrganizationModel, "models.m/o*", "-2---"),
    ] {
        let paused = service.admin.pause(target.clone(), "INC-7").await.unwrap().pause.unwrap();
        assert_eq!(service.admin.list().await, std::slice::from_ref(&paused));
        for ((caller, model), denied) in asked.iter().zip(denied.chars()) {
            for dry_run in [false, true] {
                let request = AuthorizeRequest { dry_run, ..request(caller, model) };
                let answer = service.calls.authorize(request).await.unwrap().into_inner();
                if denied == '-' {
                    assert_eq!(answer.decision(), Decision::Allowed, "{target:?} {caller} {answer:?}");
                    // Room for the next one.
                    if !dry_run {
                        service.calls.record_usage(used(&answer.reservation_id, 1, 1)).await.unwrap();
                    }
                    continue;
                }
                let [violation] = answer.violations.as_slice() else {
                    panic!("{target:?} {caller} {answer:?}")
                };
                assert_eq!(
                    (violation.reason(), violation.scope(), violation.limit_id.as_str()),
                    (Reason::Paused, scope, place)
                );
                assert!(violation.message.ends_with("is paused: INC-7"), "{}", violation.message);
                assert!(!violation.retryable && answer.retry_delay.is_none());
            }
        }
        assert_eq!(service.admin.resume(target).await, Some(paused));
        assert_eq!(service.admin.list().await, []);
        for (caller, model) in asked {
            let answer = service.calls.authorize(request(caller, model)).await.unwrap().into_inner();
            assert_eq!(answer.decision(), Decision::Allowed, "resumed");
            service.calls.record_usage(used(&answer.reservation_id, 1, 1)).await.unwrap();
        }
    }
    // What was denied is nowhere counted.
    // Under each of the four pauses that are not of it, and after each of the seven.
    assert_eq!(team_spend(&mut service.calls, "narrow").await.requests, 4 + 7);
    assert!(service.server.stop().await);
}

async fn every_pause_that_denies_is_told(mut service: Service) {
    for target in [
        model("m/*"),
        key("bot-prod-declared"),
        model("x*"),
        team("bot"),
        Target::Organization(proto::WholeOrganization {}),
    ] {
        match service.admin.pause(target.clone(), "all of it").await {
            Ok(_) => {}
            Err(status) => assert_eq!((status.code(), target), (Code::NotFound, model("x*"))),
        }
    }
    let reasons = service.reasons(request("tgk_declared", "m/unknown")).await;
    let told: Vec<_> =
        reasons.iter().map(|(reason, scope, place)| (*reason, *scope, place.as_str())).collect();
    assert_eq!(
        told,
        [
            (Reason::Paused, Scope::Organization, "organization"),
            (Reason::Paused, Scope::Team, "teams.bot"),
            (Reason::Paused, Scope::Key, "teams.bot.keys.bot-prod-declared"),
            (Reason::Paused, Scope::OrganizationModel, "models.m/*"),
            (Reason::ModelNotAllowed, Scope::Unspecified, "teams.bot.models"),
            (Reason::ModelNotPriced, Scope::Unspecified, "prices"),
        ]
    );
    let listed: Vec<_> =
        service.admin.list().await.into_iter().map(|pause| pause.target.unwrap().target).collect();
    let expected = [
        Target::Organization(proto::WholeOrganization {}),
        team("bot"),
        key("bot-prod-declared"),
        model("m/*"),
    ];
    assert_eq!(listed, expected.map(Some));
    // A change of the document does not end a pause.
    service.server.set_policy(&policy("acme").replace("4000", "3000")).await;
    assert_eq!(service.reasons(request("bot", MODEL)).await.len(), 3);
}

async fn what_is_under_way_goes_on_and_who_waits_is_denied(mut service: Service) {
    let first = service.calls.authorize(request("narrow", MODEL)).await.unwrap().into_inner();
    assert_eq!(first.decision(), Decision::Allowed);
    let mut waiting = request("narrow", MODEL);
    waiting.max_wait = Some(prost_types::Duration { seconds: 60, nanos: 0 });
    let (mut waiter, mut others) = (service.calls.clone(), service.calls.clone());
    let mut waiter = std::pin::pin!(waiter.authorize(waiting));
    // A call that is answered on the same connection tells that the one before it has arrived.
    tokio::select! {
        biased;
        answer = &mut waiter => panic!("there is no room: {answer:?}"),
        marker = others.authorize(request("bot", MODEL)) => drop(marker.unwrap()),
    }
    service.admin.pause(team("narrow"), "INC-7").await.unwrap();
    let denied = waiter.await.unwrap().into_inner();
    assert_eq!(denied.violations.iter().map(proto::Violation::reason).collect::<Vec<_>>(), [Reason::Paused]);
    // What was granted is booked all the same, and so is what was never authorized.
    let booked = service.calls.record_usage(used(&first.reservation_id, 10, 10)).await.unwrap().into_inner();
    assert!(!booked.already_recorded && booked.cost.is_some());
    let unreserved = proto::RecordUsageRequest {
        caller: Some(proto::record_usage_request::Caller::Team("narrow".to_owned())),
        request_id: "unreserved".to_owned(),
        model: MODEL.to_owned(),
        operation: proto::Operation::ChatCompletion.into(),
        ..used("", 10, 10)
    };
    service.calls.record_usage(unreserved).await.unwrap();
    assert_eq!(team_spend(&mut service.calls, "narrow").await.requests, 2);
}

/// Whoever did not hear that they may must not send now, and can give the reservation back by the id that they know.
async fn a_repeat_is_denied_and_what_it_reserved_can_be_given_back(mut service: Service) {
    let request = AuthorizeRequest { request_id: "lost".to_owned(), ..request("bot", MODEL) };
    assert_eq!(service.reasons(request.clone()).await, []);
    service.admin.pause(team("bot"), "INC-7").await.unwrap();
    assert_eq!(service.reasons(request.clone()).await[0].0, Reason::Paused);
    let not_sent = proto::RecordUsageRequest {
        caller: Some(proto::record_usage_request::Caller::Team("bot".to_owned())),
        request_id: "lost".to_owned(),
        model: MODEL.to_owned(),
        operation: proto::Operation::ChatCompletion.into(),
        outcome: proto::Outcome::NotSent.into(),
        ..Default::default()
    };
    service.calls.record_usage(not_sent).await.unwrap();
    let report = team_spend(&mut service.calls, "bot").await;
    assert_eq!((report.requests, report.unsettled_requests), (0, 0));
    assert_eq!(nanos(report.spend.unwrap().reserved), 0);
}

async fn a_pause_can_be_repeated_and_replaced(mut service: Service) {
    let first = service.admin.pause(team("bot"), "one").await.unwrap();
    assert_eq!(first.replaced_pause, None);
    service.server.clock.set(START.plus(5_000));
    // The same by the same for the same reason.
    let repeated = service.admin.pause(team("bot"), "one").await.unwrap();
    assert_eq!(repeated, first);
    let replaced = service.admin.pause(team("bot"), "two").await.unwrap();
    assert_eq!(replaced.replaced_pause, first.pause);
    let replaced = replaced.pause.unwrap();
    assert_eq!(
        (replaced.reason.as_str(), replaced.actor.as_ref().unwrap().kind()),
        ("two", ActorKind::Anyone)
    );
    let since = first.pause.unwrap().create_time.unwrap();
    assert_eq!(replaced.create_time.unwrap().seconds, since.seconds + 5);
    // A team that is gone can be resumed, and not be paused.
    let without = policy("acme").replace("[teams.narrow]", "[teams.elsewhere]");
    service.admin.pause(team("narrow"), "one").await.unwrap();
    service.server.set_policy(&without).await;
    assert!(service.admin.resume(team("narrow")).await.is_some());
    assert_eq!(service.admin.resume(team("narrow")).await, None, "it is not paused any more");
    let status = service.admin.pause(team("narrow"), "one").await.unwrap_err();
    assert_eq!(status.code(), Code::NotFound, "{status:?}");
}

async fn what_cannot_be_paused_is_named(mut service: Service) {
    let long = "x".repeat(257);
    for (target, reason, field) in [
        (None, "why", "target"),
        (Some(team("")), "why", "target.team"),
        (Some(team("Bot")), "why", "target.team"),
        (Some(team("bot/x")), "why", "target.team"),
        (Some(key("a b")), "why", "target.key"),
        (Some(model("")), "why", "target.model"),
        (Some(model("m/*x")), "why", "target.model"),
        (Some(team("bot")), "", "reason"),
        (Some(team("bot")), "  ", "reason"),
        (Some(team("bot")), "two\nlines", "reason"),
        (Some(team("bot")), long.as_str(), "reason"),
    ] {
        let target = target.map(|target| PauseTarget { target: Some(target) });
        let reason = reason.to_owned();
        let resume = ResumeRequest { target: target.clone(), reason: reason.clone() };
        for status in [
            service.admin.0.pause(PauseRequest { target, reason }).await.unwrap_err(),
            service.admin.0.resume(resume).await.unwrap_err(),
        ] {
            assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");
            let details = status.get_error_details();
            let fields: Vec<_> =
                details.bad_request().unwrap().field_violations.iter().map(|v| &v.field).collect();
            assert_eq!(fields, [field], "{status:?}");
        }
    }
    for (target, words) in [
        (team("bto"), "the team `bto`: the policy has no such team"),
        (
            key("bot-prod-nobody"),
            "the key `bot-prod-nobody`: neither the policy nor the service has such a key",
        ),
        (model("m/txt"), "the model `m/txt`: no model with a price is called so"),
        (model("M/Text"), "write `m/text`"),
        (model("M/*"), "write `m/*`"),
        (model("z*"), "the model `z*`: no model"),
    ] {
        let status = service.admin.pause(target, "why").await.unwrap_err();
        assert_eq!(status.code(), Code::NotFound);
        is_of(&status, "UNKNOWN_TARGET");
        assert!(status.message().contains(words), "{}", status.message());
    }
    assert_eq!(service.admin.list().await, []);
}
