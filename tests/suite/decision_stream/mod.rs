//! Decisions as they are made: over all replicas, by what callers may see, bounded, and for as long as they may.

mod command;
mod processes;

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use tollgate::rpc::{
    Effect,
    proto::{
        self, Decision, DecisionEvent, Quantity, Reason, Scope, StreamDecisionsRequest,
        StreamDecisionsResponse, authorize_request::Caller, policy_service_client::PolicyServiceClient,
        report_service_client::ReportServiceClient,
    },
};
use tonic::{Status, Streaming, transport::Channel};

use crate::{
    access::{by, digest},
    harness::{
        PATIENCE, START, Server, StoreKind, chat, connect,
        errors::{is_of, is_of_with},
        eventually, eventually_within,
    },
};

const MODEL: &str = "m/a";

/// Callers, and the teams of each; empty: all.
const CALLERS: [(&str, &str, &str); 3] = [
    ("all", "\"viewer\", \"gateway\"", ""),
    ("of-bot", "\"viewer\"", "teams = [\"bot\"]\n"),
    ("of-lab", "\"team-admin\"", "teams = [\"lab\"]\n"),
];

fn policy(organization: &str, callers: &[(&str, &str, &str)]) -> String {
    let tokens: String = callers
        .iter()
        .map(|(name, roles, teams)| {
            let digest = digest(&format!("tgs_{name}"));
            format!("[access.tokens.{name}]\nsha256 = \"{digest}\"\nroles = [{roles}]\n{teams}")
        })
        .collect();
    let key = digest("tgk_bot");
    format!(
        r#"
[organization]
id = "{organization}"
[teams.bot]
models = ["m/*"]
max_output_tokens = 1000
requests_per_minute = 1_000_000
[teams.bot.keys.bot-key]
sha256 = "{key}"
labels = {{ env = "prod" }}
[teams.lab]
models = ["m/*"]
max_output_tokens = 1000
requests_per_minute = 1
[[prices]]
model = "m/a"
input_usd_per_million_tokens = "1"
output_usd_per_million_tokens = "1"
[[prices]]
model = "m/b"
input_usd_per_million_tokens = "2"
output_usd_per_million_tokens = "2"
{tokens}"#
    )
}

/// A stream as a client sees it: what came so far, and how it ended.
struct Seen {
    state: Arc<Mutex<State>>,
    task: tokio::task::JoinHandle<()>,
}

#[derive(Default)]
struct State {
    events: Vec<DecisionEvent>,
    messages: usize,
    skipped: i64,
    ended: Option<Option<Status>>,
}

impl Drop for Seen {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Seen {
    async fn open(channel: &Channel, token: &str, request: StreamDecisionsRequest) -> Self {
        Self::follow(open(channel, token, request).await.unwrap())
    }

    fn follow(mut stream: Streaming<StreamDecisionsResponse>) -> Self {
        let state: Arc<Mutex<State>> = Arc::default();
        let kept = Arc::clone(&state);
        let task = tokio::spawn(async move {
            loop {
                let message = stream.message().await;
                let mut state = kept.lock().unwrap();
                match message {
                    Ok(Some(message)) => {
                        state.messages += 1;
                        state.skipped += message.skipped_count;
                        state.events.extend(message.events);
                    }
                    Ok(None) => return state.ended = Some(None),
                    Err(status) => return state.ended = Some(Some(status)),
                }
            }
        });
        Self { state, task }
    }

    fn events(&self) -> Vec<DecisionEvent> {
        self.state.lock().unwrap().events.clone()
    }

    fn messages(&self) -> usize {
        self.state.lock().unwrap().messages
    }

    fn skipped(&self) -> i64 {
        self.state.lock().unwrap().skipped
    }

    /// The users of the requests that were seen: each test names its own.
    fn users(&self) -> Vec<String> {
        self.events()
            .into_iter()
            .map(|event| event.request.map(|facts| facts.user).unwrap_or_default())
            .collect()
    }

    async fn ends_within(&self, patience: Duration) -> Status {
        eventually_within(patience, "the stream ends", async || self.state.lock().unwrap().ended.is_some())
            .await;
        self.state.lock().unwrap().ended.clone().unwrap().expect("it ends with an error")
    }
}

async fn open(
    channel: &Channel,
    token: &str,
    request: StreamDecisionsRequest,
) -> Result<Streaming<StreamDecisionsResponse>, Status> {
    let mut client = ReportServiceClient::new(channel.clone());
    Ok(client.stream_decisions(by(token, request)).await?.into_inner())
}

fn all() -> StreamDecisionsRequest {
    StreamDecisionsRequest::default()
}

fn names(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

/// Asks for a decision on a request of `user`.
async fn decide(channel: &Channel, team: &str, model: &str, user: &str) -> proto::AuthorizeResponse {
    let request = proto::AuthorizeRequest { user: user.to_owned(), ..chat(team, model, 10, 20) };
    let mut client = PolicyServiceClient::new(channel.clone());
    client.authorize(by("tgs_all", request)).await.unwrap().into_inner()
}

async fn decisions_are_shown_as_they_are_made(store: StoreKind) {
    if !store.is_available() {
        return;
    }
    let server = Server::start(store, &policy("acme", &CALLERS), START).await;
    let channel = connect(server.address()).await;
    let seen = Seen::open(&channel, "tgs_all", all()).await;
    let (bot, lab) = (
        Seen::open(&channel, "tgs_of-bot", all()).await,
        Seen::open(&channel, "tgs_of-lab", StreamDecisionsRequest { teams: names(&["lab"]), ..all() }).await,
    );
    let denied =
        StreamDecisionsRequest { decisions: vec![Decision::Denied.into()], models: names(&["m/b"]), ..all() };
    let denied = Seen::open(&channel, "tgs_all", denied).await;
    let rate = StreamDecisionsRequest { reasons: vec![Reason::RequestRateExceeded.into()], ..all() };
    let rate = Seen::open(&channel, "tgs_all", rate).await;
    let of_key =
        Seen::open(&channel, "tgs_all", StreamDecisionsRequest { keys: names(&["bot-key"]), ..all() }).await;

    let mut client = PolicyServiceClient::new(channel.clone());
    let with_key = proto::AuthorizeRequest {
        caller: Some(Caller::ApiKey("tgk_bot".to_owned())),
        user: "u-key".to_owned(),
        labels: [("env".to_owned(), "test".to_owned()), ("job".to_owned(), "7".to_owned())].into(),
        tools: names(&["browser_search"]),
        ..chat("", "m/a", 10, 20)
    };
    let granted = client.authorize(by("tgs_all", with_key)).await.unwrap().into_inner();
    decide(&channel, "lab", "m/a", "u-1").await;
    let refused = decide(&channel, "lab", "m/b", "u-2").await;
    let unknown = proto::AuthorizeRequest {
        caller: Some(Caller::ApiKey("tgk_unknown".to_owned())),
        user: "u-3".to_owned(),
        ..chat("", "m/b", 1, 1)
    };
    client.authorize(by("tgs_all", unknown)).await.unwrap();
    // Neither a dry run nor an answer that is told again.
    let dry = proto::AuthorizeRequest { dry_run: true, user: "u-dry".to_owned(), ..chat("bot", "m/a", 1, 1) };
    client.authorize(by("tgs_all", dry)).await.unwrap();
    for _ in 0..2 {
        let named = proto::AuthorizeRequest {
            request_id: "one".to_owned(),
            user: "u-4".to_owned(),
            ..chat("bot", "m/a", 1, 1)
        };
        client.authorize(by("tgs_all", named)).await.unwrap();
    }
    decide(&channel, "bot", "m/b", "u-last").await;

    eventually("all are seen", async || {
        seen.events().len() == 6 && bot.events().len() == 3 && lab.events().len() == 2
    })
    .await;
    assert_eq!(seen.users(), ["u-key", "u-1", "u-2", "u-3", "u-4", "u-last"]);
    assert_eq!(bot.users(), ["u-key", "u-4", "u-last"]);
    assert_eq!(lab.users(), ["u-1", "u-2"]);
    eventually("filters hold", async || {
        denied.events().len() == 2 && rate.events().len() == 1 && of_key.events().len() == 1
    })
    .await;
    assert_eq!(denied.users(), ["u-2", "u-3"]);
    assert_eq!((rate.users(), of_key.users()), (names(&["u-2"]), names(&["u-key"])));
    for stream in [&seen, &bot, &lab, &denied, &rate, &of_key] {
        assert_eq!(stream.skipped(), 0);
    }

    let events = seen.events();
    assert!(events.iter().map(|event| &event.id).is_sorted());
    let allowed = &events[0];
    assert_eq!(
        (allowed.decision(), allowed.operation()),
        (Decision::Allowed, proto::Operation::ChatCompletion)
    );
    assert_eq!(
        (allowed.team.as_str(), allowed.key.as_str(), allowed.model.as_str()),
        ("bot", "bot-key", "m/a")
    );
    assert_eq!(allowed.time.unwrap().seconds, i64::try_from(START.0 / 1000).unwrap());
    assert_eq!(allowed.reservation_id, granted.reservation_id);
    assert_eq!(allowed.reserved_cost, granted.reserved_cost);
    assert_eq!(allowed.policy_revision, granted.policy_revision);
    assert_eq!(
        allowed.labels,
        [("env", "test"), ("job", "7")].map(|(name, value)| (name.to_owned(), value.to_owned())).into()
    );
    let facts = allowed.request.as_ref().unwrap();
    assert_eq!(
        (facts.input_tokens, facts.max_output_tokens, facts.tools.as_slice()),
        (10, 20, &names(&["browser_search"])[..])
    );
    assert!(!allowed.replica.is_empty() && allowed.violations.is_empty());
    // A denial is explained as its caller had it.
    let explained = &events[2];
    assert_eq!((explained.decision(), explained.reservation_id.as_str()), (Decision::Denied, ""));
    assert_eq!(explained.violations, refused.violations);
    let violation = &explained.violations[0];
    assert_eq!((violation.scope(), violation.quantity()), (Scope::Team, Quantity::Requests));
    assert!(violation.message.contains("requests"), "{violation:?}");
    let stranger = &events[3];
    assert_eq!((stranger.team.as_str(), stranger.violations[0].reason()), ("", Reason::InvalidKey));
    assert!(!format!("{events:?}").contains("tgk_") && !format!("{events:?}").contains("tgs_"));

    // After one that was seen, those that came since are shown; after one that no store has told, none.
    let rest = StreamDecisionsRequest { after_id: events[3].id.clone(), ..all() };
    let rest = Seen::open(&channel, "tgs_all", rest).await;
    eventually("the rest is seen", async || rest.events().len() == 2).await;
    assert_eq!(rest.events(), events[4..]);
    let future = StreamDecisionsRequest { after_id: "f".repeat(28), ..all() };
    let future = Seen::open(&channel, "tgs_all", future).await;
    decide(&channel, "bot", "m/a", "u-now").await;
    eventually("it is seen", async || !future.events().is_empty()).await;
    assert_eq!(future.users(), ["u-now"]);
    assert!(server.stop().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn decisions_are_shown_as_they_are_made_on_the_embedded_store() {
    decisions_are_shown_as_they_are_made(StoreKind::Embedded).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn decisions_are_shown_as_they_are_made_on_redis() {
    decisions_are_shown_as_they_are_made(StoreKind::Redis).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_none_of_the_callers_is_refused() {
    let server = Server::start(StoreKind::Embedded, &policy("acme", &CALLERS), START).await;
    let channel = connect(server.address()).await;
    let teams = |teams: &[&str]| StreamDecisionsRequest { teams: names(teams), ..all() };
    for (token, request) in [("tgs_of-bot", teams(&["bot", "lab"])), ("tgs_of-lab", teams(&["none"]))] {
        let status = open(&channel, token, request).await.unwrap_err();
        is_of(&status, "TEAM_NOT_PERMITTED");
    }
    let malformed = StreamDecisionsRequest { after_id: "x".to_owned(), reasons: vec![99], ..all() };
    let status = open(&channel, "tgs_all", malformed).await.unwrap_err();
    is_of(&status, "INVALID_REQUEST");
    assert!(status.message().contains("`after_id`") && status.message().contains("`reasons`"), "{status:?}");
    assert!(server.stop().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_has_a_bounded_number_of_streams() {
    let server = Server::start(StoreKind::Embedded, &policy("acme", &CALLERS), START).await;
    let channel = connect(server.address()).await;
    let mut streams = Vec::new();
    for _ in 0..64 {
        streams.push(open(&channel, "tgs_all", all()).await.unwrap());
    }
    let status = open(&channel, "tgs_all", all()).await.unwrap_err();
    is_of(&status, "TOO_MANY_STREAMS");
    // One that its client leaves makes room.
    drop(streams.pop());
    eventually("there is room again", async || open(&channel, "tgs_all", all()).await.is_ok()).await;
    assert!(server.stop().await);
}

/// More than a replica shows: denials are kept, and what is left out is counted for those who may see it.
#[tokio::test(flavor = "multi_thread")]
async fn a_flood_is_thinned_and_denials_are_kept() {
    const ALLOWED: usize = 600;
    const DENIED: usize = 30;
    let server = Server::start(StoreKind::Embedded, &policy("acme", &CALLERS), START).await;
    let channel = connect(server.address()).await;
    let (seen, bot, lab) = (
        Seen::open(&channel, "tgs_all", all()).await,
        Seen::open(&channel, "tgs_of-bot", all()).await,
        Seen::open(&channel, "tgs_of-lab", all()).await,
    );
    let opened = tokio::time::Instant::now();
    decide(&channel, "lab", MODEL, "first").await;
    for n in 0..ALLOWED {
        decide(&channel, "bot", MODEL, "many").await;
        if n % (ALLOWED / DENIED) == 0 {
            decide(&channel, "lab", MODEL, "denied").await;
        }
    }
    let told = |seen: &Seen| seen.events().len() + usize::try_from(seen.skipped()).unwrap();
    // What was left out is said with the next decision.
    eventually("all are seen or counted", async || {
        decide(&channel, "bot", MODEL, "more").await;
        seen.skipped() > 0 && bot.skipped() > 0 && told(&seen) > ALLOWED + DENIED
    })
    .await;
    let users = seen.users();
    let count = |user: &str| users.iter().filter(|seen| *seen == user).count();
    assert_eq!(count("denied"), DENIED, "each denial is kept");
    assert!(count("many") < ALLOWED, "not all others are");
    eventually("those of the lab are seen", async || lab.events().len() == DENIED + 1).await;
    assert_eq!(lab.skipped(), 0, "of the lab nothing was left out");
    // At most 4 messages and 50 decisions a second, of each as many at once in the beginning.
    let (messages, seconds) = (seen.messages(), usize::try_from(opened.elapsed().as_secs()).unwrap() + 2);
    assert!(messages <= 4 * seconds, "{messages} messages in {seconds} s");
    assert!(users.len() <= 50 * seconds, "{} decisions in {seconds} s", users.len());
    assert!(server.stop().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_ends_with_the_drain() {
    let server = Server::start(StoreKind::Embedded, &policy("acme", &CALLERS), START).await;
    let channel = connect(server.address()).await;
    let seen = Seen::open(&channel, "tgs_all", all()).await;
    let started = tokio::time::Instant::now();
    // The drain may take 5 seconds, and this is no reason for it to.
    assert!(server.stop().await);
    assert!(started.elapsed() < Duration::from_secs(4), "{:?}", started.elapsed());
    is_of_with(&seen.ends_within(PATIENCE).await, "SHUTTING_DOWN", Effect::None);
}
