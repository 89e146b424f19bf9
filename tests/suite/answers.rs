//! No effect without an answer: what no caller got is released, and what cannot be answered in time is refused.

use std::{
    collections::HashSet,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use tempfile::TempDir;
use tokio::{
    io::AsyncWriteExt as _,
    net::{TcpListener, TcpStream},
    sync::watch,
};
use tollgate::rpc::{
    Effect,
    proto::{AuthorizeRequest, AuthorizeResponse, Decision, policy_service_client::PolicyServiceClient},
};
use tonic::{Code, Request, Status, transport::Channel};
use tonic_types::StatusExt as _;

use crate::{
    envoy::given_up::{
        DATA, END_HEADERS, END_STREAM, HEADERS, RST_STREAM, SETTINGS, answer_on, frame, head, headers,
    },
    harness::{
        Process, START, Server, StoreKind, chat, connect,
        errors::{is_of, is_of_with},
        eventually, nanos, team_spend, used,
    },
    redis_server::RedisServer,
};

const MODEL: &str = "openai/gpt-oss-20b";
const AUTHORIZE: &str = "/tollgate.v1.PolicyService/Authorize";

const POLICY: &str = r#"
[organization]
id = "acme"

[teams.chatbot]
models = ["openai/gpt-oss-20b"]
max_in_flight = 100000
budget = { monthly_usd = "1000.00" }
"#;

type Client = PolicyServiceClient<Channel>;
type Answer = Result<AuthorizeResponse, Status>;

fn request() -> AuthorizeRequest {
    chat("chatbot", MODEL, 100, 100)
}

/// Reservations that are open, and what they hold.
async fn held(client: &mut Client) -> (i64, u64) {
    let report = team_spend(client, "chatbot").await;
    (report.unsettled_requests, nanos(report.spend.unwrap().reserved))
}

async fn nothing_is_held(client: &Client) {
    eventually("nothing is held", || {
        let mut client = client.clone();
        async move { held(&mut client).await == (0, 0) }
    })
    .await;
}

/// The service says so, or on a busy machine the client's own timer does.
fn is_out_of_time(status: &Status) {
    match status.code() {
        Code::Cancelled => assert_eq!(status.message(), "Timeout expired"),
        code => {
            assert_eq!(code, Code::DeadlineExceeded, "{status:?}");
            is_of(status, "DEADLINE_EXCEEDED");
        }
    }
}

/// Calls at once, each with its answer.
async fn at_once(client: &Client, count: usize) -> Vec<Answer> {
    let calls: Vec<_> = (0..count)
        .map(|_| {
            let mut client = client.clone();
            tokio::spawn(async move { client.authorize(request()).await.map(tonic::Response::into_inner) })
        })
        .collect();
    let mut answers = Vec::new();
    for call in calls {
        answers.push(call.await.unwrap());
    }
    answers
}

/// A way to a server that lets what is sent to it pass only while it is open.
struct Gate {
    address: SocketAddr,
    open: watch::Sender<bool>,
}

impl Gate {
    async fn before(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (open, opened) = watch::channel(true);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let mut opened = opened.clone();
                tokio::spawn(async move {
                    let server = TcpStream::connect(server).await.unwrap();
                    let (mut from_client, mut to_client) = client.into_split();
                    let (mut from_server, mut to_server) = server.into_split();
                    tokio::spawn(async move { tokio::io::copy(&mut from_server, &mut to_client).await });
                    let mut bytes = [0; 65_536];
                    loop {
                        let read = tokio::io::AsyncReadExt::read(&mut from_client, &mut bytes).await;
                        let length = read.unwrap_or(0);
                        if opened.wait_for(|open| *open).await.is_err() || length == 0 {
                            return;
                        }
                        if to_server.write_all(&bytes[..length]).await.is_err() {
                            return;
                        }
                    }
                });
            }
        });
        Self { address, open }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_stalled_redis_comes_to_later_is_released() {
    if !StoreKind::Redis.is_available() {
        return;
    }
    let (redis, directory) = (RedisServer::start(), TempDir::new().unwrap());
    let process =
        Process::start_with(directory.path(), POLICY, &redis.url(), Duration::from_millis(250)).await;
    let client = PolicyServiceClient::new(connect(process.address()).await);
    eventually("redis is connected", || {
        let mut client = client.clone();
        async move { client.authorize(AuthorizeRequest { dry_run: true, ..request() }).await.is_ok() }
    })
    .await;
    redis.freeze();
    let answers = at_once(&client, 20).await;
    redis.thaw();
    for answer in answers {
        let status = answer.unwrap_err();
        assert_eq!(status.code(), Code::Unavailable);
        is_of_with(&status, "STORE_UNAVAILABLE", Effect::None);
    }
    nothing_is_held(&client).await;
    let report = team_spend(&mut client.clone(), "chatbot").await;
    assert_eq!((nanos(report.spend.unwrap().spent), report.requests), (0, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_timeout_of_a_caller_is_kept_and_holds_nothing() {
    if !StoreKind::Redis.is_available() {
        return;
    }
    let (redis, directory) = (RedisServer::start(), TempDir::new().unwrap());
    let gate = Gate::before(redis.address()).await;
    let url = format!("redis://{}", gate.address);
    let process = Process::start(directory.path(), POLICY, &url).await;
    let mut client = PolicyServiceClient::new(connect(process.address()).await);
    let open = client.authorize(request()).await.unwrap().into_inner();
    gate.open.send_replace(false);
    let began = Instant::now();
    for request_id in ["", "asked again"] {
        let message = AuthorizeRequest { request_id: request_id.to_owned(), ..request() };
        let mut call = Request::new(message);
        call.metadata_mut().insert("grpc-timeout", "50m".parse().unwrap());
        is_out_of_time(&client.authorize(call).await.unwrap_err());
    }
    let mut record = Request::new(used(&open.reservation_id, 1, 1));
    record.metadata_mut().insert("grpc-timeout", "50m".parse().unwrap());
    is_out_of_time(&client.record_usage(record).await.unwrap_err());
    assert!(began.elapsed() < Duration::from_secs(20), "it waited for the store");
    gate.open.send_replace(true);
    // Asked again with more time, it is the caller's.
    let again = AuthorizeRequest { request_id: "asked again".to_owned(), ..request() };
    let again = client.authorize(again).await.unwrap().into_inner();
    assert_eq!(again.decision(), Decision::Allowed);
    // The report had been sent: whether it took effect is what its caller has to ask, and is told.
    eventually("only what callers got is held", || {
        let mut client = client.clone();
        async move { held(&mut client).await.0 == 1 }
    })
    .await;
    for (reservation, is_recorded) in [(open.reservation_id, true), (again.reservation_id, false)] {
        let booked = client.record_usage(used(&reservation, 1, 1)).await.unwrap().into_inner();
        assert_eq!(booked.already_recorded, is_recorded, "{reservation}");
    }
    nothing_is_held(&client).await;
}

/// Each of so many calls is reset right behind its request.
async fn what_is_reset_holds_nothing(store: StoreKind) {
    const CALLS: u32 = 300;
    if !store.is_available() {
        return;
    }
    let server = Server::start(store, POLICY, START).await;
    let client = server.client().await;
    let mut socket = TcpStream::connect(server.address()).await.unwrap();
    let mut out = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    out.extend(frame(SETTINGS, 0, 0, &[]));
    let message = framed(&request());
    for call in 0..CALLS {
        let stream = 2 * call + 1;
        out.extend(frame(HEADERS, END_HEADERS, stream, &headers(AUTHORIZE)));
        out.extend(frame(DATA, END_STREAM, stream, &message));
        // CANCEL
        out.extend(frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes()));
    }
    let last = 2 * CALLS + 1;
    out.extend(frame(HEADERS, END_HEADERS, last, &headers(AUTHORIZE)));
    out.extend(frame(DATA, END_STREAM, last, &message));
    socket.write_all(&out).await.unwrap();
    answer_on(&mut socket, last).await;
    eventually("only the last, which was answered, is held", || {
        let mut client = client.clone();
        async move { held(&mut client).await.0 == 1 }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_reset_holds_nothing_on_the_embedded_store() {
    what_is_reset_holds_nothing(StoreKind::Embedded).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_reset_holds_nothing_on_redis() {
    what_is_reset_holds_nothing(StoreKind::Redis).await;
}

/// Sends so many requests on a connection that grants no window, and waits for the heads of the answers, with nothing behind.
async fn without_a_window(server: SocketAddr, message: &[u8], calls: u32) -> TcpStream {
    const INITIAL_WINDOW_SIZE: [u8; 6] = [0, 4, 0, 0, 0, 0];
    let mut socket = TcpStream::connect(server).await.unwrap();
    let mut out = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    out.extend(frame(SETTINGS, 0, 0, &INITIAL_WINDOW_SIZE));
    for call in 0..calls {
        let stream = 2 * call + 1;
        out.extend(frame(HEADERS, END_HEADERS, stream, &headers(AUTHORIZE)));
        out.extend(frame(DATA, END_STREAM, stream, message));
    }
    socket.write_all(&out).await.unwrap();
    for _ in 0..calls {
        head(&mut socket).await;
    }
    socket
}

/// A caller that grants no window gets no answer: whether it then gives the calls up or goes away, they hold nothing.
async fn what_has_no_window_holds_nothing(closes: bool) {
    const CALLS: u32 = 3;
    let server = Server::start(StoreKind::Embedded, POLICY, START).await;
    let client = server.client().await;
    let mut socket = without_a_window(server.address(), &framed(&request()), CALLS).await;
    assert_eq!(held(&mut client.clone()).await.0, i64::from(CALLS));
    if closes {
        drop(socket);
    } else {
        let resets = (0..CALLS).flat_map(|call| frame(RST_STREAM, 0, 2 * call + 1, &8_u32.to_be_bytes()));
        socket.write_all(&resets.collect::<Vec<_>>()).await.unwrap();
    }
    nothing_is_held(&client).await;
}

/// A message as gRPC frames it.
fn framed(message: &impl prost::Message) -> Vec<u8> {
    let message = message.encode_to_vec();
    let length = u32::try_from(message.len()).unwrap().to_be_bytes();
    [&[0], &length[..], &message].concat()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_has_no_window_holds_nothing_when_it_is_reset() {
    what_has_no_window_holds_nothing(false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_has_no_window_holds_nothing_when_its_caller_goes_away() {
    what_has_no_window_holds_nothing(true).await;
}

/// Released and asked again, a `request_id` is of one request for as long as that one is known.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_was_released_once_is_authorized_once() {
    // Longer than a release is remembered; the reservation has expired by then, and is known for a day.
    const LATER: Duration = Duration::from_secs(11 * 60);
    let named = || AuthorizeRequest { request_id: "asked again".to_owned(), ..request() };
    for store in [StoreKind::Embedded, StoreKind::Redis] {
        if !store.is_available() {
            continue;
        }
        let server = Server::start(store, POLICY, START).await;
        let mut client = server.client().await;
        // More often than by chance.
        for _ in 0..3 {
            let mut socket = without_a_window(server.address(), &framed(&named()), 1).await;
            socket.write_all(&frame(RST_STREAM, 0, 1, &8_u32.to_be_bytes())).await.unwrap();
            nothing_is_held(&client).await;
        }
        let answer = client.authorize(named()).await.unwrap().into_inner();
        assert_eq!(answer.decision(), Decision::Allowed);
        server.clock.pass(u64::try_from(LATER.as_millis()).unwrap());
        let spent = client.authorize(named()).await.unwrap_err();
        is_of(&spent, "REQUEST_ID_SPENT");
        let booked = client.record_usage(used(&answer.reservation_id, 1, 1)).await.unwrap().into_inner();
        assert!(!booked.already_recorded);
    }
}

/// What so many calls on each connection are answered, twice in a row.
async fn at_once_on_each(clients: &Arc<Vec<Client>>, callers: usize) -> Vec<Answer> {
    let calls: Vec<_> = (0..clients.len())
        .map(|number| {
            let clients = Arc::clone(clients);
            tokio::spawn(async move {
                let mut answers = at_once(&clients[number], callers).await;
                answers.extend(at_once(&clients[number], callers).await);
                answers
            })
        })
        .collect();
    let mut answers = Vec::new();
    for call in calls {
        answers.extend(call.await.unwrap());
    }
    answers
}

/// Far more calls at once than can be answered in time: each hold is of a call that was answered.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_overload_as_much_is_held_as_was_answered() {
    const CALLERS: usize = 500;
    if !StoreKind::Redis.is_available() {
        return;
    }
    let (redis, directory) = (RedisServer::start(), TempDir::new().unwrap());
    let process =
        Process::start_with(directory.path(), POLICY, &redis.url(), Duration::from_millis(60)).await;
    let clients: Vec<Client> = {
        let mut clients = Vec::new();
        for _ in 0..6 {
            clients.push(PolicyServiceClient::new(connect(process.address()).await));
        }
        clients
    };
    let clients = Arc::new(clients);
    let (mut allowed, mut refused, mut callers) = (HashSet::new(), 0, CALLERS);
    // A slow machine answers none of so many in time: then fewer, until there are calls of both kinds.
    while allowed.is_empty() {
        assert!(callers > 0, "a call alone is answered");
        for answer in at_once_on_each(&clients, callers).await {
            match answer {
                Ok(answer) => {
                    assert_eq!(answer.decision(), Decision::Allowed);
                    assert!(allowed.insert(answer.reservation_id));
                }
                Err(status) => {
                    assert_eq!(status.code(), Code::Unavailable, "{status:?}");
                    let reason = status.get_details_error_info().expect("a reason").reason;
                    is_of_with(&status, &reason, Effect::None);
                    refused += 1;
                }
            }
        }
        callers /= 2;
    }
    assert!(refused > 0, "it was no overload");
    let expected = i64::try_from(allowed.len()).unwrap();
    let client = clients[0].clone();
    eventually("as much is held as was answered", || {
        let mut client = client.clone();
        async move {
            let report = client
                .get_spend(tollgate::rpc::proto::GetSpendRequest {
                    team: "chatbot".to_owned(),
                    ..Default::default()
                })
                .await;
            report.is_ok_and(|report| report.into_inner().teams[0].unsettled_requests == expected)
        }
    })
    .await;
}
