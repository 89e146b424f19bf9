//! What connections may take, whoever is at their other end.

mod lists;
mod messages;
mod pages;
mod raw;

use std::time::Duration;

use tokio::task::JoinSet;
use tollgate::{rpc::proto, settings::ConnectionLimits};
use tonic_health::pb::HealthCheckRequest;

use self::raw::{DATA, GOAWAY, HEADERS, PING, PREFACE, Raw};
use crate::harness::{Server, chat, connect, eventually, used};

const MODEL: &str = "openai/gpt-oss-20b";
const POLICY: &str = r#"
[organization]
id = "acme"
[teams.t]
models = ["*"]
max_output_tokens = 100
max_in_flight = 1
[teams.other]
models = ["*"]
max_output_tokens = 100
"#;
const AUTHORIZE: &str = "/tollgate.v1.PolicyService/Authorize";
const WATCH: &str = "/grpc.health.v1.Health/Watch";
const SHORT: Duration = Duration::from_millis(200);

fn limits() -> ConnectionLimits {
    ConnectionLimits::default()
}

/// A call that waits for as long as the team's one place is taken.
fn waiting(seconds: i64) -> proto::AuthorizeRequest {
    let max_wait = Some(prost_types::Duration { seconds, nanos: 0 });
    proto::AuthorizeRequest { max_wait, ..chat("t", MODEL, 1, 1) }
}

async fn watch(raw: &mut Raw, stream: u32) {
    raw.call(stream, WATCH, &HealthCheckRequest::default()).await;
    assert!(raw.sees(DATA).await);
}

async fn is_served_by(raw: &mut Raw) -> bool {
    raw.call(1, AUTHORIZE, &chat("other", MODEL, 1, 1)).await;
    raw.is_answered(1).await
}

async fn is_served(server: &Server) -> bool {
    let mut client = server.client().await;
    client.authorize(chat("other", MODEL, 1, 1)).await.is_ok()
}

#[tokio::test(flavor = "multi_thread")]
async fn silent_connections_are_closed() {
    let server = Server::start_bounded(POLICY, ConnectionLimits { handshake: SHORT, ..limits() });
    let mut silent = Raw::connect(server.address()).await;
    let mut half = Raw::connect(server.address()).await;
    half.send(&PREFACE[..10]).await;
    let mut greeted = Raw::greet(server.address()).await;
    let mut begun = Raw::greet(server.address()).await;
    // A head that never ends.
    begun.frame(HEADERS, 0, 1, &[0]).await;
    silent.rest().await;
    half.rest().await;
    // Who speaks HTTP/2 is told.
    assert!(greeted.sees(GOAWAY).await);
    greeted.rest().await;
    begun.rest().await;
    assert!(is_served(&server).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_does_not_come_in_is_given_up() {
    let server = Server::start_bounded(POLICY, ConnectionLimits { handshake: SHORT, ..limits() });
    let mut raw = Raw::greet(server.address()).await;
    raw.head(1, AUTHORIZE).await;
    assert!(raw.is_answered(1).await);
    raw.head(3, AUTHORIZE).await;
    raw.frame(DATA, 0, 3, &[0, 0, 0, 0, 9, 1]).await;
    assert!(raw.is_answered(3).await);
    // A stream of messages begins with one.
    raw.head(5, "/envoy.service.ext_proc.v3.ExternalProcessor/Process").await;
    assert!(raw.is_answered(5).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crowd_of_silent_connections_keeps_no_client_out() {
    let server = Server::start_bounded(POLICY, ConnectionLimits { max: Some(20), ..limits() });
    let mut client = server.client().await;
    client.authorize(chat("other", MODEL, 1, 1)).await.unwrap();
    let mut crowd = JoinSet::new();
    for _ in 0..200 {
        let mut raw = Raw::connect(server.address()).await;
        crowd.spawn(async move { raw.rest().await });
    }
    // All have been accepted once no more are left than there is room for beside the client. Each core accepts on a socket of its own, so
    // one of the crowd that still waits there could come after a new client, and push it out before that has said anything.
    for _ in 0..200 - 19 {
        crowd.join_next().await.unwrap().unwrap();
    }
    // The client of before, on its connection, and a new one, which takes the place of another of the crowd.
    client.authorize(chat("other", MODEL, 1, 1)).await.unwrap();
    assert!(is_served(&server).await);
    crowd.join_next().await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crowd_that_watches_the_health_keeps_no_client_out() {
    let server = Server::start_bounded(POLICY, ConnectionLimits { max: Some(20), ..limits() });
    let mut used = Vec::new();
    for _ in 0..5 {
        let mut raw = Raw::greet(server.address()).await;
        assert!(is_served_by(&mut raw).await);
        used.push(raw);
    }
    let mut crowd = Vec::new();
    for index in 0..40 {
        let mut raw = Raw::greet(server.address()).await;
        match index % 3 {
            0 => watch(&mut raw, 1).await,
            // Calls that do not come in, which are open as well.
            1 => raw.head(1, AUTHORIZE).await,
            _ => raw.head(1, "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo").await,
        }
        crowd.push(raw);
    }
    // Those of before go on, on their connections, and a new one is served.
    for mut raw in used {
        raw.call(3, AUTHORIZE, &chat("other", MODEL, 1, 1)).await;
        assert!(raw.is_answered(3).await);
    }
    assert!(is_served(&server).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn where_no_connection_is_idle_another_is_refused() {
    let server = Server::start_bounded(POLICY, ConnectionLimits { max: Some(1), ..limits() });
    let mut busy = Raw::greet(server.address()).await;
    busy.call(1, AUTHORIZE, &chat("t", MODEL, 1, 1)).await;
    assert!(busy.is_answered(1).await);
    busy.call(5, AUTHORIZE, &waiting(30)).await;
    // Answers come in the order of these calls: that one waits by now.
    busy.call(7, AUTHORIZE, &chat("other", MODEL, 1, 1)).await;
    assert!(busy.is_answered(7).await);
    let mut refused = Raw::connect(server.address()).await;
    assert_eq!(refused.rest().await, 0, "nothing was said to it");
    // The one that was there goes on.
    busy.call(9, AUTHORIZE, &chat("other", MODEL, 1, 1)).await;
    assert!(busy.is_answered(9).await);
    drop(busy);
    eventually("the place is free again", async || {
        is_served_by(&mut Raw::greet(server.address()).await).await
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_connection_is_closed_whatever_it_pings() {
    let server = Server::start_bounded(POLICY, ConnectionLimits { idle: SHORT, ..limits() });
    let mut raw = Raw::greet(server.address()).await;
    assert!(is_served_by(&mut raw).await);
    let told = async {
        loop {
            raw.frame(PING, 0, 0, &[0; 8]).await;
            match raw.next().await {
                Some(frame) if frame.kind == GOAWAY => break true,
                Some(_) => {}
                None => break false,
            }
        }
    };
    assert!(told.await);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_connection_ends_with_its_open_calls() {
    let bounds = ConnectionLimits { max_age: SHORT, ..limits() };
    let server = Server::start_bounded(POLICY, bounds);
    let first = server.client().await.authorize(chat("t", MODEL, 1, 1)).await.unwrap().into_inner();
    let mut raw = Raw::greet(server.address()).await;
    raw.call(1, AUTHORIZE, &waiting(30)).await;
    assert!(raw.sees(GOAWAY).await);
    // The call that waits is answered on the connection that is about to end, when its turn has come.
    server.client().await.record_usage(used(&first.reservation_id, 1, 1)).await.unwrap();
    assert!(raw.is_answered(1).await);
    // A client that does not follow loses what is open when the grace is over.
    let bounds = ConnectionLimits { max_age: SHORT, grace: SHORT, ..limits() };
    let server = Server::start_bounded(POLICY, bounds);
    let mut raw = Raw::greet(server.address()).await;
    raw.call(1, WATCH, &HealthCheckRequest::default()).await;
    assert!(raw.sees(GOAWAY).await);
    raw.rest().await;
    let mut client = server.client().await;
    eventually("clients connect again", async || client.authorize(chat("other", MODEL, 1, 1)).await.is_ok())
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn small_answers_without_room_are_not_made_without_end() {
    let bounds = ConnectionLimits { max_unread: 64 << 10, handshake: SHORT, ..limits() };
    let server = Server::start_bounded(POLICY, bounds);
    let mut raw = Raw::greet_without_window(server.address()).await;
    for call in 0..100 {
        raw.call(2 * call + 1, "/grpc.health.v1.Health/Check", &HealthCheckRequest::default()).await;
    }
    // It answers pings and all else that is no answer; what is not taken closes it.
    raw.rest().await;
}

/// A policy whose list of keys is large.
fn many_keys(count: usize) -> String {
    let keys = (0..count).map(|index| {
        let digest = format!("{index:064x}");
        format!("[teams.other.keys.key-{index:0>60}]\nsha256 = \"{digest}\"\n")
    });
    POLICY.to_owned() + &keys.collect::<String>()
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_that_are_not_read_are_not_made_without_end() {
    const CALLS: u32 = 200;
    let bounds = ConnectionLimits { max: Some(1), max_unread: 64 << 10, handshake: SHORT, ..limits() };
    let server = Server::start_bounded(&many_keys(1_000), bounds);
    let _first = server.client().await.authorize(chat("t", MODEL, 1, 1)).await.unwrap();
    let request = proto::ListKeysRequest { page_size: 1_000, ..Default::default() };
    let page = {
        let channel = connect(server.address()).await;
        let mut client = proto::key_service_client::KeyServiceClient::new(channel);
        prost::Message::encoded_len(&client.list_keys(request.clone()).await.unwrap().into_inner())
    };
    assert!(page > 50_000, "{page}");
    let mut raw = Raw::greet(server.address()).await;
    // A call that waits keeps its place against others, so that only what is unread can end it.
    raw.call(1, AUTHORIZE, &waiting(30)).await;
    for call in 1..=CALLS {
        raw.call(2 * call + 1, "/tollgate.v1.KeyService/ListKeys", &request).await;
    }
    // Nothing is read: the sockets take some of it, and then no more. From the first answer on it keeps its place until it is closed.
    eventually("it is answered", async || raw.waiting(48 << 10).await).await;
    eventually("its place is free", async || is_served_by(&mut Raw::greet(server.address()).await).await)
        .await;
    let read = raw.rest().await;
    // The server's side of the socket takes up to 4 MiB.
    assert!(read < page * CALLS as usize / 2, "{read} bytes of {CALLS} answers of {page}");
    // One that reads gets all of them, however many it asks for at once.
    let mut raw = Raw::greet(server.address()).await;
    for call in 0..20 {
        raw.call(2 * call + 1, "/tollgate.v1.KeyService/ListKeys", &request).await;
    }
    let mut answered = 0;
    while answered < 20 {
        answered += usize::from(raw.next().await.expect("an open connection").ends);
    }
}
