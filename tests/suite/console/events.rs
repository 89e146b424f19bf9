//! Streams of what changes while a page is open.

use std::net::SocketAddr;

use serde_json::json;
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
use tollgate::{
    runtime::clock::Clock,
    store::{OUTBOX_KEPT, Outbox as _, OutboxEntry, redis::RedisStore},
};

use super::{fill, page, policy, secret, start, text};
use crate::{
    harness::{PATIENCE, Process, StoreKind, eventually, settings},
    redis_server::{RedisServer, free_port},
};

/// A stream of events of `topics`, as the caller `name`.
pub(super) struct Stream {
    connection: TcpStream,
    pub(super) read: String,
}

impl Stream {
    pub(super) async fn open(admin: SocketAddr, name: &str, topics: &str) -> Self {
        Self::open_after(admin, name, topics, "").await
    }

    /// The same, where the last event that came before had the id `last`.
    pub(super) async fn open_after(admin: SocketAddr, name: &str, topics: &str, last: &str) -> Self {
        let last = if last.is_empty() { String::new() } else { format!("last-event-id: {last}\r\n") };
        let mut connection = TcpStream::connect(admin).await.unwrap();
        let request = format!(
            "GET /console/acme/events?topics={topics} HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {}\r\n{last}\r\n",
            secret(name)
        );
        connection.write_all(request.as_bytes()).await.unwrap();
        let mut stream = Self { connection, read: String::new() };
        stream.until("\r\n\r\n").await;
        stream
    }

    /// Reads until `part` has come.
    pub(super) async fn until(&mut self, part: &str) {
        self.until_count(part, 1).await;
    }

    /// Reads until `part` has come so many times, and the event that it is in is whole.
    pub(super) async fn until_count(&mut self, part: &str, count: usize) {
        let reading = async {
            let mut bytes = [0; 4096];
            while !self.has(part, count) {
                let count = self.connection.read(&mut bytes).await.unwrap();
                assert!(count > 0, "it ended: {}", self.read);
                self.read.push_str(&String::from_utf8_lossy(&bytes[..count]));
            }
        };
        let came = tokio::time::timeout(PATIENCE, reading).await.is_ok();
        assert!(came, "{part} does not come: {}", self.read);
    }

    fn has(&self, part: &str, count: usize) -> bool {
        let last = self.read.match_indices(part).nth(count - 1);
        last.is_some_and(|(at, _)| part.ends_with("\r\n\r\n") || self.read[at..].contains("\n\n"))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_tells_what_its_reader_may_see_and_ends_with_the_policy_and_the_service() {
    let directory = TempDir::new().unwrap();
    let (process, admin) = start(&directory, &policy()).await;
    let mut all = Stream::open(admin, "admin", "budgets,alerts").await;
    let mut own = Stream::open(admin, "viewer", "budgets").await;
    assert!(all.read.contains("text/event-stream"), "{}", all.read);
    // From here on each has read once what it watches.
    all.until("event: snapshot").await;
    own.until("event: snapshot").await;
    fill(&process).await;
    all.until("teams.research.budget.monthly_usd").await;
    own.until("event: budget").await;
    own.until("teams.support.budget.monthly_usd").await;
    assert!(!own.read.contains("research") && !own.read.contains("organization.budget"), "{}", own.read);
    // A policy that no longer knows one of them.
    let rewritten = policy().replace("[access.tokens.viewer]", "[access.tokens.other]");
    std::fs::write(directory.path().join("policy.toml"), rewritten).unwrap();
    own.until("event: end").await;
    let mut last = Stream::open(admin, "admin", "alerts").await;
    tokio::join!(process.stop(), last.until("event: end"));
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_are_refused_without_rights_and_past_their_number() {
    let directory = TempDir::new().unwrap();
    let (process, admin) = start(&directory, &policy()).await;
    for (name, topics, status) in [
        ("gateway", "budgets", 403),
        ("operator", "budgets", 403),
        ("gateway", "alerts", 403),
        ("admin", "everything", 400),
        ("admin", "", 400),
    ] {
        let answer = page(admin, name, &format!("/console/acme/events?topics={topics}")).await;
        assert_eq!(answer.status, status, "{name} {topics}: {}", text(&answer));
    }
    // Of one reader eight, of whatever they are, and another reader has eight as well.
    let mut open = Vec::new();
    for reader in ["admin", "auditor"] {
        for _ in 0..8 {
            open.push(Stream::open(admin, reader, "alerts").await);
        }
        let answer = page(admin, reader, "/console/acme/events?topics=alerts").await;
        assert_eq!((answer.status, answer.header("retry-after")), (429, Some("30")), "{}", text(&answer));
        assert!(text(&answer).contains("8 streams of yours are open"), "{}", text(&answer));
    }
    // One that is left makes room for another.
    open.remove(0);
    eventually("there is room again", async || {
        Stream::open(admin, "admin", "alerts").await.read.contains("text/event-stream")
    })
    .await;
    drop(open);
    process.stop().await;
}

/// An entry of the outbox for the alert of `ms`, in `state`, as releases write it.
fn entry(ms: u64, end: &str, state: &str) -> OutboxEntry {
    let id = format!("{ms:012x}0b0c0d0e0f100000");
    let at = jiff::Timestamp::from_millisecond(i64::try_from(ms).unwrap()).unwrap().to_string();
    let alert = json!({
        "id": id, "kind": "ALERT_KIND_UNSETTLED_HIGH", "severity": "SEVERITY_WARNING", "state": state, "createTime": at, "summary": "s",
        "organization": "acme",
    });
    let payload = [&[2], json!({ "alert": alert }).to_string().as_bytes()].concat().into();
    OutboxEntry { id: format!("{id}_{end}").parse().unwrap(), payload }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_open_alert_behind_more_than_one_answer_is_watched() {
    if !StoreKind::Redis.is_available() {
        return;
    }
    let redis = RedisServer::start();
    let store = RedisStore::connect(settings(&redis, "acme"), Clock::System).unwrap();
    // More that are over than one answer looks through, and before them one that lasts.
    let old = Clock::System.now().0 - 60_000;
    let mut entries = vec![entry(old, "open", "ALERT_STATE_OPEN")];
    entries.extend((1..=4_200).map(|number| entry(old + number, "open", "ALERT_STATE_RESOLVED")));
    for entries in entries.chunks(64) {
        store.outbox_append(entries.to_vec(), OUTBOX_KEPT).await.unwrap();
    }
    let directory = TempDir::new().unwrap();
    let admin = free_port();
    let arguments =
        [format!("--store={}", redis.url()), "--store-timeout=20s".to_owned(), format!("--admin={admin}")];
    let process =
        Process::start_arguments(directory.path(), &policy(), &arguments.each_ref().map(String::as_str))
            .await;
    let mut stream = Stream::open(admin, "admin", "alerts").await;
    // From here on it has read once what it watches.
    stream.until("event: snapshot").await;
    let over = entry(old, "resolved", "ALERT_STATE_RESOLVED");
    store.outbox_append(vec![over], OUTBOX_KEPT).await.unwrap();
    stream.until_count("event: snapshot", 2).await;
    process.stop().await;
}
