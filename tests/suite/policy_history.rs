//! The policies that were in force: recorded by real processes on both stores, and shown without their secrets.

use std::{path::Path, process::Command};

use tempfile::TempDir;
use tollgate::{
    rpc::proto::{
        GetPolicyRevisionRequest, GetPolicyRevisionResponse, ListPolicyRevisionsRequest,
        ListPolicyRevisionsResponse, PolicyRevision,
        policy_document_service_client::PolicyDocumentServiceClient,
    },
    store::{MAX_POLICIES, PolicyRecord, PolicyRecords as _},
};
use tonic::{Status, transport::Channel};

use crate::{
    access::digest,
    harness::{
        Fixture, Process, START, Server, StoreKind, Ways, connect, errors::is_of, eventually, organization,
    },
    redis_server::{RedisServer, free_port},
};

const SECRET: &str = "correct-horse-battery-staple";
const TOKEN: &str = "tgs_a_secret_that_someone_left_in_a_comment";

/// A policy with a limit, the digest of a secret, and two secrets in a comment.
fn policy(organization: &str, requests_per_minute: u32) -> String {
    format!(
        "# The secrets: {SECRET} and {TOKEN}.\n[organization]\nid = \"{organization}\"\n\
         [teams.bot]\nmodels = [\"openai/gpt-oss-20b\"]\nrequests_per_minute = {requests_per_minute}\n\
         [teams.bot.keys.bot-prod-web]\nsha256 = \"{}\"\n",
        digest(SECRET)
    )
}

fn reveals_nothing(shown: &str) {
    for secret in [SECRET, TOKEN] {
        assert!(!shown.contains(secret) && !shown.contains(&digest(secret)[..16]), "{shown}");
    }
}

type Client = PolicyDocumentServiceClient<Channel>;

async fn client(process: &Process) -> Client {
    PolicyDocumentServiceClient::new(connect(process.address()).await)
}

async fn listed(client: &mut Client) -> Vec<PolicyRevision> {
    let request = ListPolicyRevisionsRequest::default();
    client.list_policy_revisions(request).await.unwrap().into_inner().revisions
}

async fn get(
    client: &mut Client,
    revision: &str,
    compare_with: &str,
) -> Result<GetPolicyRevisionResponse, Status> {
    let request = GetPolicyRevisionRequest {
        document_revision: revision.to_owned(),
        compare_with: compare_with.to_owned(),
    };
    Ok(client.get_policy_revision(request).await?.into_inner())
}

/// The path of each change, with both values.
fn changes(revision: &PolicyRevision) -> Vec<(&str, &str, &str)> {
    let text = |value: &'_ Option<String>| value.as_deref().unwrap_or("-").to_owned().leak() as &str;
    revision.changes.iter().map(|change| (&*change.path, text(&change.before), text(&change.after))).collect()
}

/// Waits until as many revisions are listed.
async fn wait_for(client: &mut Client, count: usize) -> Vec<PolicyRevision> {
    let mut found = Vec::new();
    eventually("the policies are recorded", async || {
        found = listed(client).await;
        found.len() == count
    })
    .await;
    found
}

fn tollgate(process: &Process, arguments: &[&str]) -> (Option<i32>, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tollgate"));
    command.args(arguments).args(["--address", &process.address().to_string()]);
    command.env_remove("TOLLGATE_TOKEN").env_remove("TOLLGATE_ADDRESS");
    let output = tokio::task::block_in_place(|| command.output().unwrap());
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    (output.status.code(), printed + &String::from_utf8_lossy(&output.stderr))
}

async fn start(directory: &Path, text: &str, store: &str) -> Process {
    let (store, admin) = (format!("--store={store}"), format!("--admin={}", free_port()));
    Process::start_arguments(directory, text, &[&store, &admin, "--store-timeout=20s"]).await
}

fn write(directory: &TempDir, text: &str) {
    // As an editor does, so that it is whole at once.
    let new = directory.path().join("new.toml");
    std::fs::write(&new, text).unwrap();
    std::fs::rename(new, directory.path().join("policy.toml")).unwrap();
}

/// A file that changes twice, and a restart with a third change.
async fn what_a_process_takes_into_force_is_on_record(organization: &str, store: &str) {
    let directory = TempDir::new().unwrap();
    let process = start(directory.path(), &policy(organization, 60), store).await;
    let mut asked = client(&process).await;
    let first = wait_for(&mut asked, 1).await;
    assert_eq!((&*first[0].source, first[0].change_count, &*first[0].previous_revision), ("start", 0, ""));
    for (limit, count) in [(45, 2), (30, 3)] {
        write(&directory, &policy(organization, limit));
        wait_for(&mut asked, count).await;
    }
    // What does not load is not recorded, and neither is the same with another comment.
    write(&directory, "[organization]");
    write(&directory, &(policy(organization, 30) + "# again\n"));
    write(&directory, &policy(organization, 20));
    let found = wait_for(&mut asked, 4).await;
    let sources: Vec<_> = found.iter().map(|revision| &*revision.source).collect();
    assert_eq!(sources, ["file change", "file change", "file change", "start"]);
    for (at, before, after) in [(0, "30", "20"), (1, "45", "30"), (2, "60", "45")] {
        assert_eq!(changes(&found[at]), [("teams.bot.requests_per_minute", before, after)]);
        assert_eq!(found[at].previous_revision, found[at + 1].document_revision);
        assert!(found[at].document_kept && found[at].change_count == 1 && found[at].first_time.is_some());
    }
    reveals_nothing(&format!("{found:?}"));
    let revision = |at: usize| &*found[at].document_revision;
    let shown = get(&mut asked, revision(1), "").await.unwrap();
    assert!(shown.document.contains("requests_per_minute = 30") && shown.format == "toml", "{shown:?}");
    assert_eq!((&*shown.compared_with, shown.change_count), (revision(2), 1));
    let from_the_start = get(&mut asked, revision(0), revision(3)).await.unwrap();
    let change = &from_the_start.changes[0];
    assert_eq!((change.before.as_deref(), change.after.as_deref()), (Some("60"), Some("20")));
    reveals_nothing(&format!("{shown:?}{from_the_start:?}"));

    let (code, printed) = tollgate(&process, &["policy", "history"]);
    assert_eq!(code, Some(0), "{printed}");
    let lines: Vec<_> = printed.lines().collect();
    assert!(lines.len() == 5 && lines[1].starts_with(&format!("{} *", revision(0))), "{printed}");
    let (_, printed) = tollgate(&process, &["policy", "history", "--json", "--limit", "1"]);
    let json: serde_json::Value = serde_json::from_str(&printed).unwrap();
    assert_eq!((&json["revisions"][0]["changeCount"], &json["revisions"][1]), (&1.into(), &().into()));
    let (code, printed) = tollgate(&process, &["policy", "diff", revision(0)]);
    assert_eq!(code, Some(0), "{printed}");
    assert!(
        printed.starts_with("teams.bot.requests_per_minute: 30 → 20\n1 change from policy "),
        "{printed}"
    );
    let (_, printed) = tollgate(&process, &["policy", "diff", &format!("{}/0", revision(3)), revision(1)]);
    assert!(printed.contains("teams.bot.requests_per_minute: 60 → 30\n"), "{printed}");
    let (_, printed) = tollgate(&process, &["policy", "diff", revision(3)]);
    assert!(printed.contains("nothing is known"), "{printed}");
    let (code, printed) = tollgate(&process, &["policy", "diff", "0000"]);
    assert!(code == Some(2) && printed.contains("NOT_FOUND"), "{printed}");
    reveals_nothing(&process.log());
    process.stop().await;

    // Another start is another replica, and compares with what is on record.
    let process = start(directory.path(), &policy(organization, 10), store).await;
    let mut asked = client(&process).await;
    let found = wait_for(&mut asked, 5).await;
    assert_eq!((&*found[0].source, &*found[0].previous_revision), ("start", &*found[1].document_revision));
    assert_eq!(changes(&found[0]), [("teams.bot.requests_per_minute", "20", "10")]);
    assert_ne!(found[0].replicas, found[1].replicas);
    process.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn policies_are_on_record_in_the_embedded_store() {
    what_a_process_takes_into_force_is_on_record("acme", "embedded:data").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn policies_are_on_record_in_redis() {
    if StoreKind::Redis.is_available() {
        let redis = RedisServer::start();
        what_a_process_takes_into_force_is_on_record(&organization(), &redis.url()).await;
    }
}

/// A document that two take is one revision, by a signal as well, and a store that stands still delays the record alone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicas_record_a_document_once_and_after_an_outage() {
    if !StoreKind::Redis.is_available() {
        return;
    }
    let (redis, organization) = (RedisServer::start(), organization());
    let directories = [TempDir::new().unwrap(), TempDir::new().unwrap()];
    let mut processes = Vec::new();
    for directory in &directories {
        let (store, admin) = (format!("--store={}", redis.url()), format!("--admin={}", free_port()));
        let arguments = [&*store, &*admin, "--store-timeout=500ms"];
        let text = policy(&organization, 60);
        processes.push(Process::start_arguments(directory.path(), &text, &arguments).await);
    }
    let mut asked = client(&processes[0]).await;
    eventually("both are named", async || {
        let found = listed(&mut asked).await;
        found.len() == 1 && found[0].replicas.len() == 2
    })
    .await;
    redis.freeze();
    for directory in &directories {
        write(directory, &policy(&organization, 45));
    }
    eventually("both have it in force", async || {
        processes.iter().all(|process| tollgate(process, &["policy", "show"]).1.contains("minute = 45"))
    })
    .await;
    redis.thaw();
    eventually("it is recorded by both", async || {
        let request = ListPolicyRevisionsRequest::default();
        let answer = asked.list_policy_revisions(request).await.map(tonic::Response::into_inner);
        answer.is_ok_and(|ListPolicyRevisionsResponse { revisions, .. }| {
            revisions.len() == 2 && revisions[0].replicas.len() == 2
        })
    })
    .await;
    let found = listed(&mut asked).await;
    assert_eq!(changes(&found[0]), [("teams.bot.requests_per_minute", "60", "45")]);
    for process in processes {
        process.stop().await;
    }
}

/// A policy with this many bytes of comments.
fn large(bytes: usize, limit: u32) -> String {
    policy("acme", limit) + &format!("# {}\n", "x".repeat(98)).repeat(bytes / 101)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_document_of_more_than_a_megabyte_is_recorded_without_its_text() {
    let directory = TempDir::new().unwrap();
    let process = start(directory.path(), &large(900 << 10, 60), "embedded:data").await;
    let mut asked = client(&process).await;
    wait_for(&mut asked, 1).await;
    write(&directory, &large(1200 << 10, 45));
    let found = wait_for(&mut asked, 2).await;
    assert_eq!([found[0].document_kept, found[1].document_kept], [false, true]);
    // What it changed is known all the same.
    assert_eq!(changes(&found[0]), [("teams.bot.requests_per_minute", "60", "45")]);
    let [large, small] = [0, 1].map(|at: usize| &*found[at].document_revision);
    assert!(get(&mut asked, small, "").await.unwrap().document.len() > 800 << 10);
    for (revision, compare_with) in [(large, ""), (small, large), (large, small)] {
        is_of(&get(&mut asked, revision, compare_with).await.unwrap_err(), "HISTORY_NOT_KEPT");
    }
    process.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn revisions_are_listed_in_pages_and_only_known_ones_are_shown() {
    let fixture = Fixture::embedded();
    let store = fixture.store.clone();
    let record = async |number: usize, document: Option<&'static str>| {
        let record = PolicyRecord {
            revision: format!("{number:016x}").into(),
            at: START,
            replica: "gate-1:1:00000000".into(),
            value: "{\"v\":9,\"source\":\"upload\",\"document\":true}".into(),
            document: document.map(Into::into),
        };
        store.record_policy(record).await.unwrap();
    };
    for number in 0..MAX_POLICIES {
        record(number, Some("a = 1")).await;
    }
    let server = Server::start_in(fixture, &policy("acme", 1), Ways::default());
    let mut asked = PolicyDocumentServiceClient::new(connect(server.address()).await);
    let page = |page_token: String| ListPolicyRevisionsRequest { page_size: 60, page_token };
    let first = asked.list_policy_revisions(page(String::new())).await.unwrap().into_inner();
    assert_eq!((first.revisions.len(), &*first.revisions[0].document_revision), (60, "0000000000000063"));
    assert!(first.policy_revision.ends_with("/0"));
    // One more comes in between, and the oldest goes.
    record(MAX_POLICIES, Some("{")).await;
    let rest = asked.list_policy_revisions(page(first.next_page_token)).await.unwrap().into_inner();
    let revisions: Vec<_> = rest.revisions.iter().map(|revision| &*revision.document_revision).collect();
    let expected: Vec<_> = (1..40).rev().map(|number| format!("{number:016x}")).collect();
    assert_eq!((revisions, &*rest.next_page_token), (expected.iter().map(|text| &**text).collect(), ""));
    is_of(&asked.list_policy_revisions(page("x".to_owned())).await.unwrap_err(), "PAGE_TOKEN_INVALID");

    let known = "0000000000000063";
    assert_eq!(get(&mut asked, known, "").await.unwrap().document, "a = 1");
    for (revision, compare_with) in [("0000000000000000", ""), (known, "0000000000000000")] {
        is_of(&get(&mut asked, revision, compare_with).await.unwrap_err(), "UNKNOWN_REVISION");
    }
    for (revision, compare_with, reason) in [
        // What is on record of it is no document.
        (known, "0000000000000064", "HISTORY_NOT_KEPT"),
        ("", "", "INVALID_REQUEST"),
        (&*"x".repeat(65), "", "INVALID_REQUEST"),
        (known, &*"x".repeat(65), "INVALID_REQUEST"),
    ] {
        is_of(&get(&mut asked, revision, compare_with).await.unwrap_err(), reason);
    }
    assert!(server.stop().await);
}
