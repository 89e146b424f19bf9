//! `max_wait`: first come, first served at each limit, and nothing is left behind by who goes away.

use std::time::Duration;

use calls::in_order;
use tollgate::rpc::{
    Effect,
    proto::{AuthorizeResponse, Decision},
};
use tonic::Status;

use crate::{
    harness::{START, Server, StoreKind, chat, connect, errors::is_of_with, eventually, organization, used},
    redis_server::{self, RedisServer},
};

const POLICY: &str = r#"
[organization]
id = "acme"

[teams.chatbot]
models = ["openai/gpt-oss-20b"]
max_in_flight = 1

[teams.research]
models = ["openai/gpt-oss-20b"]
max_in_flight = 1
"#;

mod calls {
    use std::time::Duration;

    use tokio::{sync::mpsc, task::JoinHandle};
    use tollgate::rpc::proto::{
        AuthorizeRequest, AuthorizeResponse, policy_service_client::PolicyServiceClient,
    };
    use tonic::{Status, transport::Channel};

    /// An answer with its request's place.
    pub(super) type Answer = (usize, Result<AuthorizeResponse, Status>);

    /// Sends the requests one after the other on one connection, so that they arrive in order; tells of each answer, with
    /// the request's place, when it comes.
    pub(super) fn in_order(
        client: &PolicyServiceClient<Channel>,
        requests: Vec<AuthorizeRequest>,
    ) -> (mpsc::UnboundedReceiver<Answer>, Vec<JoinHandle<()>>) {
        let (sender, receiver) = mpsc::unbounded_channel();
        let calls = requests.into_iter().enumerate().map(|(place, mut request)| {
            request.max_wait = Some(Duration::from_secs(60).try_into().unwrap());
            let (mut client, sender) = (client.clone(), sender.clone());
            tokio::spawn(async move {
                let answer = client.authorize(request).await.map(tonic::Response::into_inner);
                let _ = sender.send((place, answer));
            })
        });
        let calls = calls.collect();
        (receiver, calls)
    }
}

fn reservation(answer: Result<AuthorizeResponse, Status>) -> String {
    let answer = answer.expect("an answer");
    assert_eq!(answer.decision(), Decision::Allowed, "{answer:?}");
    answer.reservation_id
}

async fn those_who_wait_are_served_in_turn(store: StoreKind) {
    let server = Server::start(store, POLICY, START).await;
    let mut client = server.client().await;
    let request = chat("chatbot", "openai/gpt-oss-20b", 100, 100);
    let first = client.authorize(request.clone()).await.map(tonic::Response::into_inner);
    let mut open = reservation(first);
    let (mut answers, _calls) = in_order(&client, vec![request.clone(); 5]);

    // Another team is not held up.
    let other =
        client.authorize(chat("research", "openai/gpt-oss-20b", 100, 100)).await.unwrap().into_inner();
    assert_eq!(other.decision(), Decision::Allowed);

    for expected in 0..5 {
        assert!(answers.try_recv().is_err(), "nobody passes before there is room");
        client.record_usage(used(&open, 100, 100)).await.unwrap();
        let (place, answer) = answers.recv().await.expect("somebody waits");
        assert_eq!(place, expected, "first come first served");
        open = reservation(answer);
    }
}

async fn who_goes_away_loses_its_place(store: StoreKind) {
    let server = Server::start(store, POLICY, START).await;
    let mut client = server.client().await;
    let request = chat("chatbot", "openai/gpt-oss-20b", 100, 100);
    let open = reservation(client.authorize(request.clone()).await.map(tonic::Response::into_inner));
    let (mut answers, calls) = in_order(&client, vec![request.clone(); 3]);
    // A call that is answered on the same connection tells that those before it have arrived.
    client.authorize(chat("research", "openai/gpt-oss-20b", 100, 100)).await.unwrap();
    calls[0].abort();
    client.record_usage(used(&open, 100, 100)).await.unwrap();
    let (place, answer) = answers.recv().await.expect("somebody waits");
    assert_eq!(place, 1, "the next in turn");
    client.record_usage(used(&reservation(answer), 100, 100)).await.unwrap();
    let (place, _) = answers.recv().await.expect("somebody waits");
    assert_eq!(place, 2);
}

#[tokio::test]
async fn turns_are_kept_on_the_embedded_store() {
    those_who_wait_are_served_in_turn(StoreKind::Embedded).await;
    who_goes_away_loses_its_place(StoreKind::Embedded).await;
}

#[tokio::test]
async fn turns_are_kept_on_redis() {
    if StoreKind::Redis.is_available() {
        those_who_wait_are_served_in_turn(StoreKind::Redis).await;
        who_goes_away_loses_its_place(StoreKind::Redis).await;
    }
}

#[tokio::test]
async fn a_wait_that_is_over_is_answered_with_what_refuses() {
    let server = Server::start(StoreKind::Embedded, POLICY, START).await;
    let mut client = server.client().await;
    let request = chat("chatbot", "openai/gpt-oss-20b", 100, 100);
    let _open = reservation(client.authorize(request.clone()).await.map(tonic::Response::into_inner));
    let (mut answers, _calls) = in_order(&client, vec![request.clone(); 2]);
    client.authorize(chat("research", "openai/gpt-oss-20b", 100, 100)).await.unwrap();
    server.clock.set(START.plus(Duration::from_secs(60).as_millis().try_into().unwrap()));
    for _ in 0..2 {
        let (_, answer) = answers.recv().await.expect("both are answered");
        let answer = answer.expect("an answer");
        assert_eq!(answer.decision(), Decision::Denied);
        assert_eq!(answer.violations.len(), 1);
        assert_eq!(answer.violations[0].limit_id, "teams.chatbot.max_in_flight");
    }
}

#[tokio::test]
async fn a_wait_ends_when_its_time_has_passed_though_the_clock_was_set_back() {
    let server = Server::start(StoreKind::Embedded, POLICY, START).await;
    let mut client = server.client().await;
    let request = chat("chatbot", "openai/gpt-oss-20b", 100, 100);
    let _open = reservation(client.authorize(request.clone()).await.map(tonic::Response::into_inner));
    let (mut answers, _calls) = in_order(&client, vec![request.clone()]);
    client.authorize(chat("research", "openai/gpt-oss-20b", 100, 100)).await.unwrap();
    server.clock.step(tollgate::domain::Timestamp(START.0 - 3_600_000));
    server.clock.pass(60_000);
    let (_, answer) = answers.recv().await.expect("an answer");
    assert_eq!(answer.expect("an answer").decision(), Decision::Denied);
}

#[tokio::test]
async fn a_stop_ends_every_wait_and_tells_who_watches() {
    use tonic_health::pb::{
        HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
    };
    let server = Server::start(StoreKind::Embedded, POLICY, START).await;
    let mut client = server.client().await;
    let request = chat("chatbot", "openai/gpt-oss-20b", 100, 100);
    let _open = reservation(client.authorize(request.clone()).await.map(tonic::Response::into_inner));
    let (mut answers, _calls) = in_order(&client, vec![request.clone(); 2]);
    client.authorize(chat("research", "openai/gpt-oss-20b", 100, 100)).await.unwrap();
    let mut watched = Vec::new();
    // Several connections, as the kernel chooses which core has each.
    for _ in 0..4 {
        let mut health = HealthClient::new(connect(server.address()).await);
        let mut states = health.watch(HealthCheckRequest::default()).await.unwrap().into_inner();
        while states.message().await.unwrap().unwrap().status() != ServingStatus::Serving {}
        watched.push(states);
    }
    assert!(server.stop().await, "all calls end by themselves");
    // Another replica may have room in time.
    for _ in 0..2 {
        let (_, answer) = answers.recv().await.expect("both are answered");
        is_of_with(&answer.unwrap_err(), "SHUTTING_DOWN", Effect::None);
    }
    for mut states in watched {
        let last = states.message().await.unwrap().expect("a last word");
        assert_eq!(last.status(), ServingStatus::NotServing);
        assert!(states.message().await.unwrap().is_none(), "and no more");
    }
}

const LIMITED: &str = r#"
[organization]
id = "acme"

[teams.chatbot]
models = ["openai/gpt-oss-20b", "openai/gpt-oss-120b"]

[teams.chatbot.limits."openai/gpt-oss-20b"]
tokens_per_minute = 1_000

[teams.research]
models = ["openai/gpt-oss-20b"]
"#;

async fn order_is_kept_at_the_limit_and_nowhere_else(store: StoreKind) {
    let server = Server::start(store, LIMITED, START).await;
    let mut client = server.client().await;
    let open = client.authorize(chat("chatbot", "openai/gpt-oss-20b", 400, 400)).await;
    let open = reservation(open.map(tonic::Response::into_inner));
    // So long ago that its tokens are free again before the wait is over.
    server.clock.pass(5_000);
    let (mut answers, _calls) = in_order(&client, vec![chat("chatbot", "openai/gpt-oss-20b", 300, 300)]);

    // There is room for 200 tokens, but it is for the one that waits. A dry run takes none of it until that one is there.
    let small = chat("chatbot", "openai/gpt-oss-20b", 50, 50);
    eventually("the request waits", async || {
        let dry = tollgate::rpc::proto::AuthorizeRequest { dry_run: true, ..small.clone() };
        client.clone().authorize(dry).await.unwrap().into_inner().decision() == Decision::Denied
    })
    .await;
    let denied = client.authorize(small.clone()).await.unwrap().into_inner();
    assert_eq!(denied.decision(), Decision::Denied);
    let [violation] = &denied.violations[..] else { panic!("{denied:?}") };
    assert!(violation.retryable && violation.message.contains("earlier requests wait"), "{violation:?}");
    assert!(violation.limit_id.contains("tokens_per_minute"), "{violation:?}");
    // The second in line behind it, with the same limit, and others whose limits are free.
    let (mut second, _calls) = in_order(&client, vec![small.clone()]);
    for free in ["chatbot/openai/gpt-oss-120b", "research/openai/gpt-oss-20b"] {
        let (team, model) = free.split_once('/').unwrap();
        let (mut other, _calls) = in_order(&client, vec![chat(team, model, 50, 50)]);
        reservation(other.recv().await.unwrap().1);
    }
    assert!(second.try_recv().is_err(), "it does not overtake");

    client.record_usage(used(&open, 50, 50)).await.unwrap();
    reservation(answers.recv().await.unwrap().1);
    reservation(second.recv().await.unwrap().1);
    // With the line gone, so is what it was for.
    reservation(client.authorize(small).await.map(tonic::Response::into_inner));
}

#[tokio::test]
async fn order_is_kept_at_each_limit_on_the_embedded_store() {
    order_is_kept_at_the_limit_and_nowhere_else(StoreKind::Embedded).await;
}

#[tokio::test]
async fn order_is_kept_at_each_limit_on_redis() {
    if StoreKind::Redis.is_available() {
        order_is_kept_at_the_limit_and_nowhere_else(StoreKind::Redis).await;
    }
}

#[tokio::test]
async fn a_wait_outlasts_a_restart_of_redis() {
    use tollgate::runtime::clock::ManualClock;
    if !redis_server::is_installed() {
        return;
    }
    let mut redis = RedisServer::start();
    let server = Server::start_on_redis(&redis, &organization(), POLICY, ManualClock::new(START));
    let mut client = server.client().await;
    let request = chat("chatbot", "openai/gpt-oss-20b", 100, 100);
    reservation(client.authorize(request.clone()).await.map(tonic::Response::into_inner));
    let (mut before, _calls) = in_order(&client, vec![request.clone()]);
    // A call that is answered on the same connection tells that the one before it has arrived.
    client.authorize(chat("research", "openai/gpt-oss-20b", 100, 100)).await.unwrap();
    redis.kill();
    let refused = client.authorize(request.clone()).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::Unavailable, "{refused:?}");
    let (mut during, _calls) = in_order(&client, vec![chat("research", "openai/gpt-oss-20b", 100, 100)]);
    assert!(redis.restart());
    // The server forgot everything with its restart, so there is room.
    reservation(before.recv().await.unwrap().1);
    reservation(during.recv().await.unwrap().1);
}

#[tokio::test]
async fn a_dry_run_waits_for_nothing_and_holds_up_no_request() {
    let server = Server::start(StoreKind::Embedded, LIMITED, START).await;
    let mut client = server.client().await;
    let open = client.authorize(chat("chatbot", "openai/gpt-oss-20b", 400, 400)).await;
    reservation(open.map(tonic::Response::into_inner));
    let dry = tollgate::rpc::proto::AuthorizeRequest {
        dry_run: true,
        max_wait: Some(Duration::from_secs(60).try_into().unwrap()),
        ..chat("chatbot", "openai/gpt-oss-20b", 300, 300)
    };
    // The clock stands still, so a wait would not end.
    let denied = client.authorize(dry).await.unwrap().into_inner();
    assert_eq!(denied.decision(), Decision::Denied);
    assert!(denied.warnings.iter().any(|warning| warning.contains("max_wait was ignored")), "{denied:?}");
    let small = chat("chatbot", "openai/gpt-oss-20b", 50, 50);
    reservation(client.authorize(small).await.map(tonic::Response::into_inner));
}

#[tokio::test]
async fn a_wait_that_cannot_end_in_time_holds_up_no_other_request() {
    let server = Server::start(StoreKind::Embedded, LIMITED, START).await;
    let mut client = server.client().await;
    let open = client.authorize(chat("chatbot", "openai/gpt-oss-20b", 400, 400)).await;
    let open = reservation(open.map(tonic::Response::into_inner));
    // Its tokens are free again in 61 seconds, and the wait is over in 60.
    let (mut answers, _calls) = in_order(&client, vec![chat("chatbot", "openai/gpt-oss-20b", 300, 300)]);
    // Enough of them that it waits long before the last.
    for _ in 0..50 {
        let small = chat("chatbot", "openai/gpt-oss-20b", 1, 1);
        reservation(client.authorize(small).await.map(tonic::Response::into_inner));
    }
    assert!(answers.try_recv().is_err(), "it waits on");
    client.record_usage(used(&open, 50, 50)).await.unwrap();
    reservation(answers.recv().await.expect("it is woken by what was given back").1);
}

#[tokio::test]
async fn what_is_given_back_on_another_replica_is_noticed_beside_many_lines() {
    const TEAMS: usize = 300;
    if !StoreKind::Redis.is_available() {
        return;
    }
    let teams =
        (0..TEAMS).map(|i| format!("[teams.t{i}]\nmodels = [\"openai/gpt-oss-20b\"]\nmax_in_flight = 1\n"));
    let policy = format!("[organization]\nid = \"acme\"\n{}", teams.collect::<String>());
    let (redis, organization) = (redis_server::shared().unwrap(), organization());
    let clock = tollgate::runtime::clock::ManualClock::new(START);
    let here = Server::start_on_redis(redis, &organization, &policy, clock.clone());
    let there = Server::start_on_redis(redis, &organization, &policy, clock);
    let (mut client, mut other) = (here.client().await, there.client().await);
    let requests: Vec<_> = (0..TEAMS).map(|i| chat(&format!("t{i}"), "openai/gpt-oss-20b", 1, 1)).collect();
    let mut open = String::new();
    for request in requests.clone() {
        open = reservation(client.authorize(request).await.map(tonic::Response::into_inner));
    }
    let (mut answers, _calls) = in_order(&client, requests.clone());
    client.authorize(requests[0].clone()).await.unwrap();
    other.record_usage(used(&open, 1, 1)).await.unwrap();
    // One question of each head in turn took 6 seconds, and 100 seconds beside 5,000 lines.
    let answer = tokio::time::timeout(Duration::from_secs(3), answers.recv()).await;
    let (place, answer) = answer.expect("within a few rounds of reading").expect("an answer");
    assert_eq!(place, TEAMS - 1);
    reservation(answer);
}
