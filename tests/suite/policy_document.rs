//! What the service says of its policy document and of proposed ones, over gRPC and on the command line.

use std::{
    process::{Command, Output},
    time::{Duration, Instant},
};

use tempfile::TempDir;
use tollgate::rpc::proto::{
    CheckPolicyRequest, CheckPolicyResponse, DescribeTeamRequest, FindingSeverity, GetPolicyRequest,
    GetStatusRequest, PolicySnapshot, policy_document_service_client::PolicyDocumentServiceClient,
    status_service_client::StatusServiceClient,
};
use tonic::{Code, Request, Status, transport::Channel};

use crate::{
    access::digest,
    harness::{Process, START, Server, StoreKind, connect, errors::is_of, eventually, eventually_within},
};

const SECRET: &str = "correct-horse-battery-staple";
const TOKEN: &str = "tgs_a_secret_that_someone_left_in_a_comment";

/// A policy with a key and a token, and with both secrets in comments.
fn policy() -> String {
    format!(
        r#"# The key's secret is {SECRET}, and the token is `{TOKEN}`.
[organization]
id = "acme"
budget = {{ monthly_usd = "500.00" }}

[teams.bot]
models = ["openai/gpt-oss-20b", "openai/gpt-oss-120b", "no/such"]
max_output_tokens = 2_048
requests_per_minute = 60 # a minute
budget = {{ monthly_usd = "200.00", alerts = ["80%"] }}
labels = {{ note = "once sha256:{key}" }}

[teams.bot.keys.bot-prod-web]
sha256 = "{key}"

[teams.bot.keys.bot-prod-api]
sha256 = "\u00{first:x}{rest}"
"#,
        key = digest(SECRET),
        first = digest(TOKEN).as_bytes()[0],
        rest = &digest(TOKEN)[1..],
    )
}

async fn client(server: &Server) -> PolicyDocumentServiceClient<Channel> {
    let client = PolicyDocumentServiceClient::new(connect(server.address()).await);
    client.max_encoding_message_size(64 << 20)
}

/// Fails if `shown` has a secret of [`policy`], or more of a digest than its beginning.
fn reveals_nothing(shown: &str) {
    for secret in [SECRET, TOKEN] {
        let digest = digest(secret);
        assert!(!shown.contains(secret) && !shown.to_lowercase().contains(&digest[..16]), "{shown}");
    }
}

async fn check(
    client: &mut PolicyDocumentServiceClient<Channel>,
    document: impl Into<Vec<u8>>,
    format: &str,
) -> Result<CheckPolicyResponse, Status> {
    let request = CheckPolicyRequest { document: document.into().into(), format: format.to_owned() };
    Ok(client.check_policy(request).await?.into_inner())
}

/// The path of each change, with both values.
fn changes(checked: &CheckPolicyResponse) -> Vec<(&str, Option<&str>, Option<&str>)> {
    let all = checked.changes.iter();
    all.map(|change| (&*change.path, change.before.as_deref(), change.after.as_deref())).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_policy_is_shown_as_written_without_digests_and_secrets() {
    let server = Server::start(StoreKind::Embedded, &policy(), START).await;
    let mut client = client(&server).await;
    let shown = client.get_policy(GetPolicyRequest {}).await.unwrap().into_inner().policy.unwrap();
    let PolicySnapshot { policy_revision, document, format, load_time, .. } = &shown;
    assert!(policy_revision.ends_with("/0") && load_time.is_some(), "{shown:?}");
    assert_eq!((format.as_str(), shown.team_count, shown.key_count, shown.pause_count), ("toml", 1, 2, 0));
    assert!(!shown.truncated);
    reveals_nothing(document);
    let beginnings = [SECRET, TOKEN].map(|secret| digest(secret)[..8].to_owned());
    let expected = policy()
        .replace(
            &format!("\\u00{:x}{}", digest(TOKEN).as_bytes()[0], &digest(TOKEN)[1..]),
            &format!("{}…", beginnings[1]),
        )
        .replace(&digest(SECRET), &format!("{}…", beginnings[0]))
        .replace(SECRET, "…")
        .replace(TOKEN, "tgs_…");
    assert_eq!(*document, expected);
    // What another policy puts in its place.
    server.set_policy("{\"organization\": {\"id\": \"acme\"}}").await;
    let shown = client.get_policy(GetPolicyRequest {}).await.unwrap().into_inner().policy.unwrap();
    assert_eq!((&*shown.document, &*shown.format), ("{\"organization\": {\"id\": \"acme\"}}", "json"));
    assert_ne!(shown.policy_revision, *policy_revision);
    assert!(server.stop().await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_team_is_described_in_words_and_in_values() {
    let server = Server::start(StoreKind::Embedded, &policy(), START).await;
    let mut client = client(&server).await;
    let of = |team: &str| DescribeTeamRequest { team: team.to_owned() };
    let described = client.describe_team(of("bot")).await.unwrap().into_inner();
    for sentence in [
        "Models: openai/gpt-oss-20b, openai/gpt-oss-120b, no/such.",
        "Output: at most 2,048 tokens; a request for more is denied.",
        "Budget: $200.00 a month, then requests are denied; alerts at 80%.",
        "Limits: 60 requests in any minute.",
        "Keys: bot-prod-api.",
        "Keys: bot-prod-web.",
    ] {
        assert!(described.sentences.iter().any(|said| said == sentence), "{sentence}: {described:#?}");
    }
    assert_eq!(described.models, ["openai/gpt-oss-120b", "openai/gpt-oss-20b"], "what has a price, by name");
    let limits = described.limits.unwrap();
    assert_eq!(limits.models, ["openai/gpt-oss-20b", "openai/gpt-oss-120b", "no/such"]);
    assert_eq!((limits.operations.len(), limits.max_output_tokens), (7, Some(2_048)));
    assert_eq!((limits.requests_per_minute, limits.requests_per_day), (Some(60), None));
    assert_eq!(limits.monthly_budget.unwrap().units, 200);
    assert_eq!((limits.daily_budget, limits.budget_alerts), (None, vec!["80%".to_owned()]));
    is_of(&client.describe_team(of("none")).await.unwrap_err(), "UNKNOWN_TEAM");
    is_of(&client.describe_team(of("")).await.unwrap_err(), "INVALID_REQUEST");
    assert!(server.stop().await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_proposal_is_compared_with_what_is_in_force_and_changes_nothing() {
    let server = Server::start(StoreKind::Embedded, &policy(), START).await;
    let mut client = client(&server).await;
    let before = client.get_policy(GetPolicyRequest {}).await.unwrap().into_inner().policy.unwrap();
    let same = check(&mut client, policy(), "").await.unwrap();
    assert!(same.sound && same.changes.is_empty() && same.change_count == 0, "{same:?}");
    assert_eq!(same.policy_revision, before.policy_revision);
    assert_eq!(same.policy_revision, format!("{}/0", same.document_revision));
    assert_eq!((same.finding_count, same.findings[0].severity()), (1, FindingSeverity::Warning));

    let proposed = policy()
        .replace("requests_per_minute = 60", "tokens_per_minute = 1_000")
        .replace(&format!("\"{}\"", digest(SECRET)), &format!("\"{}\"", digest("another")))
        .replace("500.00", "400.00");
    let checked = check(&mut client, proposed, "toml").await.unwrap();
    assert!(checked.sound && checked.document_revision != same.document_revision);
    let cut = |secret| format!("{}…", &digest(secret)[..8]);
    assert_eq!(
        changes(&checked),
        [
            ("organization.budget.monthly_usd", Some("500.00"), Some("400.00")),
            ("teams.bot.keys.bot-prod-web.sha256", Some(&*cut(SECRET)), Some(&*cut("another"))),
            ("teams.bot.requests_per_minute", Some("60"), None),
            ("teams.bot.tokens_per_minute", None, Some("1000")),
        ]
    );
    // What is taken away is shown as little.
    let gone = check(&mut client, "[organization]\nid = \"acme\"\n", "").await.unwrap();
    let paths: Vec<_> = gone.changes.iter().map(|change| change.path.as_str()).collect();
    assert!(gone.sound && paths.contains(&"teams.bot.keys.bot-prod-api.sha256"), "{paths:?}");
    reveals_nothing(&format!("{gone:?}"));

    let faulty =
        check(&mut client, policy().replace("max_output_tokens", "max_output_token"), "").await.unwrap();
    let finding =
        faulty.findings.iter().find(|finding| finding.severity() == FindingSeverity::Error).unwrap();
    assert_eq!((finding.path.as_str(), finding.line), ("teams.bot.max_output_token", Some(8)));
    assert!(!faulty.sound && faulty.document_revision.is_empty() && faulty.change_count == 2, "{faulty:?}");
    assert!(finding.file.is_empty() && finding.column == Some(1) && !finding.help.is_empty());

    let other = check(&mut client, policy().replace("\"acme\"", "\"other\""), "").await.unwrap();
    assert!(!other.sound && other.changes.is_empty(), "{other:?}");
    assert_eq!(client.get_policy(GetPolicyRequest {}).await.unwrap().into_inner().policy.unwrap(), before);
    assert!(server.stop().await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_proposals_are_findings_and_never_more() {
    let server = Server::start(StoreKind::Embedded, &policy(), START).await;
    let mut client = client(&server).await;
    let brackets = "[".repeat(1 << 20);
    let keys = (0..200_000).map(|n| format!("k{n} = 1\n")).collect::<String>();
    let values = format!("a = [{}]", "1,".repeat(4 << 20));
    let secret = format!(
        "[organization]\nid = \"acme\"\nsecret = \"{TOKEN}\"\n\"{TOKEN}\" = 1\n[teams.\"{0}\"]\nmode = \"{0}\"\n",
        digest(TOKEN)
    );
    for (document, format) in [
        (b"\xff\xfe\x00".to_vec(), ""),
        (b"id = \"\xc3\x28\"".to_vec(), "toml"),
        (vec![0; 1 << 20], ""),
        (format!("a = {brackets}").into_bytes(), ""),
        (format!("{{\"a\": {brackets}").into_bytes(), ""),
        (format!("{} = 1", ["a"; 100_000].join(".")).into_bytes(), ""),
        (keys.into_bytes(), ""),
        (values.into_bytes(), ""),
        (format!("{{{}\"a\": 1}}", "\"a\": 1,".repeat(100_000)).into_bytes(), "json"),
        (b"teams:\n  bot: {}\n".to_vec(), ""),
        (secret.into_bytes(), ""),
    ] {
        let begins = String::from_utf8_lossy(&document[..document.len().min(40)]).into_owned();
        let checked = check(&mut client, document, format).await;
        let checked = checked.unwrap_or_else(|status| panic!("{begins}: {status:?}"));
        assert!(!checked.sound && checked.finding_count > 0 && checked.findings.len() <= 100, "{begins}");
        assert!(checked.findings.iter().all(|finding| finding.message.len() < 2_100), "{begins}");
        reveals_nothing(&format!("{checked:?}"));
    }
    is_of(&check(&mut client, "", "").await.unwrap_err(), "INVALID_REQUEST");
    is_of(&check(&mut client, "a = 1", "yaml").await.unwrap_err(), "INVALID_REQUEST");
    // A message of 32 MiB and a little is too large here, and one of 64 KiB for the service's other RPCs.
    is_of(&check(&mut client, vec![b'#'; 32 << 20], "").await.unwrap_err(), "MESSAGE_TOO_LARGE");
    let largest = check(&mut client, vec![b'#'; (32 << 20) - 64], "").await.unwrap();
    assert_eq!(largest.findings[0].message, "`organization` is missing");
    let team = "x".repeat(64 << 10);
    let refused = client.describe_team(DescribeTeamRequest { team }).await.unwrap_err();
    is_of(&refused, "MESSAGE_TOO_LARGE");
    assert!(server.stop().await);
}

/// A document whose check takes longer than any bound of this test: each pattern is compared with all before it.
fn endless() -> String {
    let models: String = (0..900_000).map(|n| format!("\"m{n}\",")).collect();
    format!("[organization]\nid = \"acme\"\n[teams.bot]\nmodels = [{models}]\n")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn one_proposal_is_checked_at_a_time_beside_the_decisions_and_not_for_ever() {
    let server = Server::start(StoreKind::Embedded, &policy(), START).await;
    let mut endless_client = client(&server).await;
    let started = Instant::now();
    let slow = tokio::spawn(async move {
        loop {
            match check(&mut endless_client, endless(), "").await {
                // It met one of those below.
                Err(status) if status.code() == Code::Unavailable => {}
                answer => return answer,
            }
        }
    });
    let mut client = client(&server).await;
    let mut refused = None;
    eventually_within(Duration::from_secs(60), "another proposal is refused", async || {
        refused = check(&mut client, policy(), "").await.err();
        refused.is_some()
    })
    .await;
    is_of(&refused.unwrap(), "OVERLOADED");
    // Nothing else waits for it.
    let asked = Instant::now();
    let mut status = StatusServiceClient::new(connect(server.address()).await);
    status.get_status(GetStatusRequest {}).await.unwrap();
    client.get_policy(GetPolicyRequest {}).await.unwrap();
    assert!(!slow.is_finished() && asked.elapsed() < Duration::from_secs(5), "{:?}", asked.elapsed());
    let late = slow.await.unwrap().unwrap_err();
    is_of(&late, "DEADLINE_EXCEEDED");
    assert!(started.elapsed() < Duration::from_secs(60), "{:?}", started.elapsed());
    assert!(check(&mut client, policy(), "").await.unwrap().sound, "there is room again");
    // A caller's own deadline ends the work, too.
    let mut request = Request::new(CheckPolicyRequest { document: endless().into(), ..Default::default() });
    request.set_timeout(Duration::from_millis(500));
    let status = client.check_policy(request).await.unwrap_err();
    assert!(matches!(status.code(), Code::DeadlineExceeded | Code::Cancelled), "{status:?}");
    let room = async || check(&mut client, policy(), "").await.is_ok();
    eventually_within(Duration::from_secs(30), "there is room again", room).await;
    assert!(server.stop().await);
}

fn tollgate(process: &Process, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tollgate"));
    command.args(arguments).args(["--address", &process.address().to_string()]);
    command.env_remove("TOLLGATE_TOKEN").env_remove("TOLLGATE_ADDRESS").output().unwrap()
}

/// The exit code, and what was printed.
fn ended(output: &Output) -> (Option<i32>, String) {
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    (output.status.code(), printed + &String::from_utf8_lossy(&output.stderr))
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_show_describe_and_compare() {
    let directory = TempDir::new().unwrap();
    let process = Process::start_arguments(directory.path(), &policy(), &[]).await;
    let (code, printed) = ended(&tollgate(&process, &["policy", "show"]));
    assert_eq!(code, Some(0), "{printed}");
    assert!(
        printed.contains("1 team, 2 keys, 0 pauses")
            && printed.contains("requests_per_minute = 60 # a minute")
    );
    reveals_nothing(&printed);
    let (code, printed) = ended(&tollgate(&process, &["policy", "describe", "bot"]));
    assert_eq!(code, Some(0), "{printed}");
    assert!(printed.contains("  Limits: 60 requests in any minute.\n"), "{printed}");
    let (code, printed) = ended(&tollgate(&process, &["policy", "describe", "none"]));
    assert!(code == Some(2) && printed.contains("NOT_FOUND"), "{printed}");

    let proposed = directory.path().join("proposed.toml");
    let compare = |text: String, more: &[&str]| {
        std::fs::write(&proposed, text).unwrap();
        let arguments = [&["check", "--compare", proposed.to_str().unwrap()], more].concat();
        ended(&tollgate(&process, &arguments))
    };
    let (code, printed) = compare(policy(), &[]);
    assert!(code == Some(0) && printed.contains("no changes to policy "), "{printed}");
    assert!(
        printed.contains("proposed.toml:7:") && printed.contains("it would load, with warnings"),
        "{printed}"
    );
    assert_eq!(compare(policy(), &["--strict"]).0, Some(1));
    let (code, printed) = compare(policy().replace("= 60", "= 30"), &[]);
    assert!(code == Some(0) && printed.contains("teams.bot.requests_per_minute: 60 → 30\n"), "{printed}");
    assert!(printed.contains("1 change to policy "), "{printed}");
    let (code, printed) = compare("[organization]\nid = \"other\"\n".to_owned(), &[]);
    assert!(code == Some(2) && printed.contains("it would not load: 1 error"), "{printed}");
    let (_, printed) = compare(policy(), &["--json"]);
    let json: serde_json::Value = serde_json::from_str(&printed).unwrap();
    assert_eq!((&json["sound"], &json["changeCount"]), (&true.into(), &0.into()));

    // What a reload puts in force is shown, and what it changed.
    std::fs::write(directory.path().join("policy.toml"), policy().replace("= 60", "= 45")).unwrap();
    eventually("the new policy is shown", async || {
        ended(&tollgate(&process, &["policy", "show"])).1.contains("requests_per_minute = 45 # a minute")
    })
    .await;
    reveals_nothing(&process.log());
    process.stop().await;
}
