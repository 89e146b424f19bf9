//! The pages of the policy: what each role sees, what changed, and what is said of a proposal.

use std::net::SocketAddr;

use tempfile::TempDir;

use super::{fill, page, policy, secret, start, text};
use crate::{
    access::digest,
    envoy::http::{Answer, Request},
    harness::eventually,
};

const POLICY: &str = "/console/acme/policy";
const PROPOSAL: &str = "/console/acme/policy/proposal";
/// What a person could leave in a file.
const LEFT: &str = "tgs_a_secret_that_someone_left_in_a_comment";

/// Sends a proposal as a program does: with its credential, and without the form's token.
async fn propose(admin: SocketAddr, name: &str, fields: &[(&str, &str)]) -> Answer {
    Request::parts(PROPOSAL, fields, None).key(&secret(name)).send(admin).await
}

/// As an editor writes a file, so that it is whole at once.
fn write(directory: &TempDir, text: &str) {
    let new = directory.path().join("new.toml");
    std::fs::write(&new, text).unwrap();
    std::fs::rename(new, directory.path().join("policy.toml")).unwrap();
}

fn contains_all(body: &str, parts: &[&str]) {
    for part in parts {
        assert!(body.contains(part), "{part} is missing: {body}");
    }
}

/// The page of the policy, once it has `part`.
async fn page_with(admin: SocketAddr, part: &str) -> String {
    let mut body = String::new();
    eventually(part, async || {
        body = text(&page(admin, "admin", POLICY).await);
        body.contains(part)
    })
    .await;
    body
}

/// The revisions that a page links to, in its order.
fn revisions(body: &str) -> Vec<String> {
    let links = body.split("/policy/revisions/").skip(1);
    let mut found: Vec<_> = links.map(|rest| rest.split('"').next().unwrap().to_owned()).collect();
    found.dedup();
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn each_role_reads_and_checks_what_it_may() {
    let directory = TempDir::new().unwrap();
    let commented = format!("# {LEFT}\n{}", policy());
    let (process, admin) = start(&directory, &commented).await;
    page_with(admin, "first on record").await;
    for (name, reads, checks) in [
        ("admin", true, true),
        ("operator", true, true),
        ("auditor", true, false),
        ("viewer", false, false),
        ("team-admin", false, false),
        ("gateway", false, false),
    ] {
        let answer = page(admin, name, POLICY).await;
        let body = text(&answer);
        assert_eq!(answer.status, if reads { 200 } else { 403 }, "{name}: {body}");
        if reads {
            contains_all(
                &body,
                &["[teams.research]", "first on record", "on 1 of 1 replicas", "0\u{a0}errors"],
            );
        }
        assert_eq!(body.contains("href=\"/console/acme/policy\""), reads, "{name}: {body}");
        assert_eq!(body.contains("/policy/proposal"), checks, "{name}: {body}");
        assert!(!body.contains(LEFT) && !body.contains(&digest(&secret("admin"))[..16]), "{name}: {body}");
        assert!(body.len() < 100 * 1024, "{name}: {} bytes", body.len());
        let empty = page(admin, name, PROPOSAL).await;
        let sent = propose(admin, name, &[("text", &policy())]).await;
        let expected = if checks { 200 } else { 403 };
        assert_eq!((empty.status, sent.status), (expected, expected), "{name}: {}", text(&sent));
        assert_eq!(text(&sent).contains("No key differs"), checks, "{name}: {}", text(&sent));
    }
    for (path, status) in [
        ("/policy/revisions/0123456789abcdef", 404),
        ("/policy/revisions/%3Cscript%3E", 404),
        ("/policy?line=x", 400),
        ("/policy?line=18446744073709551615", 200),
        ("/policy?older=%3Cscript%3E", 400),
    ] {
        let answer = page(admin, "admin", &format!("/console/acme{path}")).await;
        assert_eq!(answer.status, status, "{path}: {}", text(&answer));
        assert!(!text(&answer).contains("<script>"), "{path}");
    }
    process.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_changes_has_a_history_and_a_rejected_one_its_findings() {
    let directory = TempDir::new().unwrap();
    let (process, admin) = start(&directory, &policy()).await;
    page_with(admin, "first on record").await;
    let second = policy().replace("monthly_usd = \"200\"", "monthly_usd = \"150\"");
    write(&directory, &second);
    let changed =
        "<code>teams.support.budget.monthly_usd</code>: <code>150</code> instead of <code>200</code>";
    page_with(admin, changed).await;
    let third = second.replace("[teams.spare]", "# by <b>hand</b>\n[teams.spare]\nmax_in_flight = 3");
    write(&directory, &third);
    let body = page_with(admin, "<code>teams.spare.max_in_flight</code>: new: <code>3</code>").await;
    contains_all(&body, &[changed, "change of the file", "# by &lt;b&gt;hand&lt;/b&gt;"]);
    let found = revisions(&body);
    let [newest, middle, oldest] = &found[..] else { panic!("three revisions: {found:?}") };
    let address = |revision: &str, query: &str| format!("{POLICY}/revisions/{revision}{query}");

    let shown = text(&page(admin, "auditor", &address(newest, "")).await);
    contains_all(&shown, &["1\u{a0}change", middle, "</span>max_in_flight = 3</span>", "new: ", "In force"]);
    // From the first to the last, by the keys and by the lines.
    let shown = text(&page(admin, "auditor", &address(newest, &format!("?with={oldest}"))).await);
    contains_all(
        &shown,
        &["2\u{a0}changes", "<code>200</code>", "<code>150</code>", "class=\"gone\"", "class=\"new\""],
    );
    contains_all(
        &shown,
        &["monthly_usd = &quot;200&quot;", "monthly_usd = &quot;150&quot;", "&lt;b&gt;hand"],
    );
    let first = text(&page(admin, "auditor", &address(oldest, "")).await);
    contains_all(&first, &["nothing to compare it with", "[teams.research]", "Not in force here"]);
    assert_eq!(page(admin, "admin", &address(newest, "?with=none")).await.status, 404);
    for name in ["viewer", "team-admin", "gateway"] {
        assert_eq!(page(admin, name, &address(newest, "")).await.status, 403, "{name}");
    }

    write(&directory, &third.replace("max_in_flight = 3", "max_in_flihgt = 3"));
    let body = page_with(admin, "was rejected").await;
    let line = third.lines().position(|line| line.starts_with("max_in_flight")).unwrap() + 1;
    contains_all(
        &body,
        &["teams.spare.max_in_flihgt", &format!("Line </span>{line}</span>"), "max_in_flight = 3"],
    );
    process.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_large_document_a_page_shows_a_part_and_its_lines_are_not_kept() {
    let directory = TempDir::new().unwrap();
    let (process, admin) =
        start(&directory, &(policy() + &"# A line that says nothing at all.\n".repeat(40_000))).await;
    let body = page_with(admin, "first on record").await;
    assert!(body.len() < 100 * 1024, "{} bytes", body.len());
    contains_all(&body, &["Lines 1 to 400 of ", "?line=401#document", "ends at 1 MiB", "[teams.support]"]);
    let later = text(&page(admin, "admin", &format!("{POLICY}?line=900")).await);
    contains_all(&later, &["Lines 801 to 1200", "?line=401#document", "?line=1201#document"]);
    assert!(!later.contains("[teams.support]") && later.len() < 100 * 1024, "{later}");
    let answer = page(admin, "admin", &format!("{POLICY}/revisions/{}", revisions(&body)[0])).await;
    assert_eq!(answer.status, 200);
    contains_all(
        &text(&answer),
        &["The lines are not shown.", "is not kept, as it has more than 1 MiB", "In force"],
    );
    process.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proposal_is_told_its_findings_at_their_lines_and_stays_in_the_form() {
    let directory = TempDir::new().unwrap();
    let (process, admin) = start(&directory, &policy()).await;
    let hostile = "</textarea><script>alert(1)</script>";
    let faulty =
        policy().replace("[teams.spare]", &format!("# {hostile} {LEFT}\n[teams.spare]\nmod = \"{hostile}\""));
    let line = faulty.lines().position(|line| line.starts_with("mod =")).unwrap() + 1;
    let answer =
        propose(admin, "operator", &[("text", &faulty.replace('\n', "\r\n")), ("replay", "yes")]).await;
    let body = text(&answer);
    assert_eq!(answer.status, 200, "{body}");
    contains_all(&body, &["1\u{a0}error", "would not be put in force", "<code>teams.spare.mod</code>"]);
    let at = body.find(&format!("id=\"line-{line}\" class=\"line-over\"")).unwrap();
    assert!(body[at..].find("<strong>Error</strong>").is_some_and(|place| place < 300), "{}", &body[at..]);
    // A replay was asked for, but there is nothing to play to. The text is all there, and only in the form.
    assert!(!body.contains("What it would have refused") && !body.contains("<script>"), "{body}");
    let (before, form) = body.split_once("<textarea").unwrap();
    assert!(!before.contains(LEFT), "{before}");
    contains_all(form, &[LEFT, "&lt;/textarea&gt;&lt;script&gt;alert(1)", "[teams.research]\nmodels"]);

    // A file goes before the text, may have any bytes, and may be another organization's.
    let other = policy().replace("\"acme\"", "\"other\"");
    let send = async |file: &[u8]| {
        let request = Request::parts(PROPOSAL, &[("text", "x")], Some(("file", file)));
        request.key(&secret("admin")).send(admin).await
    };
    let body = text(&send(other.as_bytes()).await);
    contains_all(&body, &["organization.id", "<strong>Error</strong>", "id = &quot;other&quot;"]);
    let answer = send(b"\xff\xfe[").await;
    assert_eq!(answer.status, 200, "{}", text(&answer));
    contains_all(&text(&answer), &["<strong>Error</strong>"]);
    let sound = policy().replace("monthly_usd = \"200\"", "monthly_usd = \"150\"");
    let body = text(&send(sound.as_bytes()).await);
    contains_all(
        &body,
        &[
            "could be put in force",
            "<code>150</code> instead of <code>200</code>",
            "put in force by its file",
        ],
    );
    assert!(!body.contains("What it would have refused"), "{body}");
    // What is in force is what it was.
    assert!(text(&page(admin, "admin", POLICY).await).contains("monthly_usd = &quot;200&quot;"));

    for (fields, said) in [
        (&[("text", "  \r\n ")][..], "Nothing was sent"),
        (&[], "Nothing was sent"),
        (&[("text", &*sound), ("days", "401"), ("replay", "yes")], "A number from 1 to 400"),
        (&[("text", &*sound), ("days", "x"), ("replay", "yes")], "A number from 1 to 400"),
    ] {
        let answer = propose(admin, "admin", fields).await;
        assert_eq!(answer.status, 400, "{said}");
        contains_all(&text(&answer), &[said, "aria-invalid=\"true\""]);
    }
    let large = vec![b'#'; 33 << 20];
    assert_eq!(send(&large).await.status, 400);
    let answer = Request::form(PROPOSAL, &[("text", "x")]).key(&secret("admin")).send(admin).await;
    assert_eq!(answer.status, 400, "{}", text(&answer));
    let log = process.log();
    assert!(!log.contains(LEFT) && !log.contains("alert(1)"), "{log}");
    process.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_smaller_budget_shows_what_it_would_have_refused() {
    let directory = TempDir::new().unwrap();
    let (process, admin) = start(&directory, &policy()).await;
    fill(&process).await;
    let smaller = policy().replace("monthly_usd = \"200\"", "monthly_usd = \"0.000001\"");
    let fields = [("text", &*smaller), ("days", "2"), ("replay", "yes")];
    let answer = propose(admin, "operator", &fields).await;
    let body = text(&answer);
    assert_eq!(answer.status, 200, "{body}");
    contains_all(
        &body,
        &["Over the last 2\u{a0}days it would have refused about 2\u{a0}requests that were allowed."],
    );
    contains_all(
        &body,
        &["teams.support.budget.monthly_usd", "data-label=\"Were allowed\">2<", "Saved", ", about: "],
    );
    contains_all(&body, &["checked", "value=\"2\""]);
    // As it is, it would have refused nothing.
    let body = text(&propose(admin, "operator", &[("text", &policy()), ("replay", "yes")]).await);
    contains_all(&body, &["would have refused nothing", "Over the last 7\u{a0}days"]);
    process.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proposal_of_another_page_is_refused() {
    let directory = TempDir::new().unwrap();
    // Without `[access]`, a browser needs no credential that could be missing.
    let open = "[organization]\nid = \"acme\"\n[teams.t]\nmodels = [\"*\"]\nmax_output_tokens = 9\n";
    let (process, admin) = start(&directory, open).await;
    let form = text(&Request::new("GET", PROPOSAL).send(admin).await);
    let token = form.split("name=\"form_token\" value=\"").nth(1).unwrap().split('"').next().unwrap();
    let host = format!("127.0.0.1:{}", admin.port());
    let own = format!("http://{host}");
    let send = |fields: &[(&str, &str)]| Request::parts(PROPOSAL, fields, None).header("host", &host);
    let with_token = [("form_token", token), ("text", open)];
    for (request, status) in [
        (send(&with_token).header("origin", &own).header("sec-fetch-site", "same-origin"), 200),
        (send(&with_token).header("origin", &own), 200),
        (send(&with_token).header("origin", "https://evil.example"), 403),
        (send(&with_token).header("origin", &own).header("sec-fetch-site", "cross-site"), 403),
        (send(&with_token).header("origin", "null"), 403),
        (send(&with_token), 403),
        (send(&[("text", open)]).header("origin", &own), 403),
        (send(&[("form_token", "x"), ("text", open)]).header("origin", &own), 403),
        // What comes before the token is not read.
        (send(&[("text", open), ("form_token", token)]).header("origin", &own), 403),
        (send(&[]).header("origin", &own), 403),
    ] {
        let answer = request.send(admin).await;
        assert_eq!(answer.status, status, "{request:?}: {}", text(&answer));
        assert_eq!(text(&answer).contains("could be put in force"), status == 200, "{request:?}");
    }
    process.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_script_is_told_how_far_a_replay_is_and_then_the_page() {
    let directory = TempDir::new().unwrap();
    let (process, admin) = start(&directory, &policy()).await;
    fill(&process).await;
    let smaller = policy().replace("monthly_usd = \"200\"", "monthly_usd = \"0.000001\"");
    let follow = async |fields: &[(&str, &str)]| {
        let form = Request::parts(PROPOSAL, fields, None).header("accept", "application/x-ndjson, text/html");
        form.key(&secret("operator")).send(admin).await
    };
    let answer = follow(&[("text", &smaller), ("replay", "yes")]).await;
    assert_eq!((answer.status, answer.header("content-type")), (200, Some("application/x-ndjson")));
    let told = text(&answer);
    let lines: Vec<serde_json::Value> =
        told.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let (last, before) = lines.split_last().unwrap();
    assert!(
        before.iter().all(|line| line["percent"].as_u64().is_some_and(|percent| percent <= 100)),
        "{told}"
    );
    let body = last["page"].as_str().unwrap();
    contains_all(body, &["<main id=\"main\">", "it would have refused about 2\u{a0}requests", "data-follow"]);
    // What cannot be read is told as a page, with its code.
    let answer = follow(&[("text", " ")]).await;
    assert_eq!(answer.status, 400);
    contains_all(&text(&answer), &["Nothing was sent"]);
    // As many as there may be are answered, and their places are free again.
    for _ in 0..4 {
        assert_eq!(follow(&[("text", &smaller)]).await.status, 200);
    }
    process.stop().await;
}
