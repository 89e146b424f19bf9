//! Decisions as they are made: the list as each role gets it, a denial with its numbers, and the events that follow.

use std::net::SocketAddr;

use tempfile::TempDir;
use tollgate::rpc::proto::AuthorizeRequest;

use super::{events::Stream, fill, page, policy, secret, start, text};
use crate::{
    access::by,
    harness::{Process, chat, eventually},
};

const DECISIONS: &str = "/console/acme/decisions";
const MODEL: &str = "openai/gpt-oss-20b";
const HOSTILE: &str = "<script>alert('m')</script>\u{202e}";

/// The page with what is asked of it, for a caller who may see it.
async fn list(admin: SocketAddr, name: &str, query: &str) -> String {
    let answer = page(admin, name, &format!("{DECISIONS}{query}")).await;
    assert_eq!(answer.status, 200, "{name} {query}: {}", text(&answer));
    text(&answer)
}

/// A request that no one answers for: only its decision matters.
async fn ask(process: &Process, request: AuthorizeRequest) {
    process.client().await.authorize(by(&secret("gateway"), request)).await.unwrap();
}

/// The ids of decisions that a text has after `before`, in its order.
fn ids(text: &str, before: &str) -> Vec<String> {
    let id = regex::Regex::new(&format!("{before}([0-9a-f]{{28}})")).unwrap();
    id.captures_iter(text).map(|found| found[1].to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn each_role_gets_the_decisions_that_it_may_see() {
    let directory = TempDir::new().unwrap();
    let (process, admin) = start(&directory, &policy()).await;
    // From here on decisions are kept for those who watch.
    let empty = list(admin, "admin", "").await;
    assert!(
        empty.contains("while a page like this is open") && empty.contains("tollgate authorize"),
        "{empty}"
    );
    fill(&process).await;
    eventually("all are shown", async || {
        let body = list(admin, "admin", "").await;
        ["REQUEST_RATE_EXCEEDED", "<td>research</td>", "<td>support</td>", "<td>spare</td>"]
            .iter()
            .all(|part| body.contains(part))
    })
    .await;
    let body = list(admin, "admin", "").await;
    assert!(body.contains("4 in the last minute, 1 of them denied"), "{body}");
    assert!(body.find("<td>spare</td>") < body.find("<td>research</td>"), "the newest first: {body}");
    for (name, others) in
        [("admin", true), ("auditor", true), ("operator", true), ("viewer", false), ("team-admin", false)]
    {
        let body = list(admin, name, "").await;
        assert!(
            body.contains("<td>support</td>") && body.contains("aria-current=\"page\">Decisions"),
            "{name}"
        );
        for other in ["research", "spare"] {
            assert_eq!(body.contains(other), others, "{name} and {other}: {body}");
        }
        assert!(body.len() < 100 * 1024, "{name}: {} bytes", body.len());
    }
    let denied = list(admin, "admin", "?result=denied").await;
    assert!(denied.contains("<td>spare</td>") && !denied.contains("<td>support</td>"), "{denied}");
    let of_team = list(admin, "admin", "?team=support&key=&model=&result=&reason=").await;
    assert!(of_team.contains("<td>support</td>") && !of_team.contains("<td>spare</td>"), "{of_team}");
    let of_model = list(admin, "admin", "?model=openai/gpt-oss-120b").await;
    assert!(of_model.contains("No decision of these"), "{of_model}");
    for (name, query, status) in [
        ("gateway", "", 403),
        ("viewer", "?team=research", 403),
        ("admin", "?result=perhaps", 400),
        ("admin", "?reason=none", 400),
        ("admin", "?open=1", 400),
        ("admin", "?hold=%3Cscript%3Ealert(1)%3C%2Fscript%3E00", 400),
    ] {
        let answer = page(admin, name, &format!("{DECISIONS}{query}")).await;
        assert_eq!(answer.status, status, "{name} {query}: {}", text(&answer));
        assert!(!text(&answer).contains("<script>"), "{query}");
    }
    process.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_denial_is_explained_with_its_numbers_and_what_others_wrote_is_text() {
    let directory = TempDir::new().unwrap();
    let (process, admin) = start(&directory, &policy()).await;
    list(admin, "admin", "").await;
    let user = "<img src=x onerror=alert(1)>".to_owned();
    ask(&process, AuthorizeRequest { user, ..chat("support", MODEL, 19_000, 4_096) }).await;
    ask(&process, chat("support", HOSTILE, 10, 10)).await;
    eventually("both are shown", async || {
        let body = list(admin, "admin", "?result=denied").await;
        body.contains("MAX_OUTPUT_TOKENS_EXCEEDED") && body.contains("&lt;script&gt;")
    })
    .await;
    let denied = list(admin, "viewer", "?result=denied&reason=max_output_tokens_exceeded").await;
    let open = ids(&denied, "open=").remove(0);
    assert!(
        denied.contains(&format!(
            "decisions?result=denied&amp;reason=MAX_OUTPUT_TOKENS_EXCEEDED&amp;open={open}"
        ))
    );
    let body = list(admin, "viewer", &format!("?result=denied&open={open}")).await;
    for part in [
        "One limit refused this request; waiting does not help",
        "data-label=\"Permits\">1,000<",
        "data-label=\"Asked\">4,096<",
        "data-label=\"Too much by\">3,096<",
        "class=\"past\"",
        "teams.support.max_output_tokens",
        "chat completion with <bdi>openai/gpt-oss-20b</bdi>, 19,000 input tokens, 4,096",
        "user <bdi>&lt;img src=x onerror=alert(1)&gt;</bdi>",
        "href=\"/console/acme/decisions?result=denied\">Close",
    ] {
        assert!(body.contains(part), "no {part}: {body}");
    }
    for query in ["", "?key=%22%3E%3Cscript%3E", "?model=%22%3E%3Cscript%3E", &format!("?open={open}")] {
        let body = list(admin, "admin", query).await;
        assert!(!body.contains("<script>") && !body.contains("<img"), "{query}: {body}");
    }
    // Held as it was when the first was the newest.
    let held = list(admin, "admin", &format!("?hold={open}")).await;
    assert!(held.contains("; held, 1 newer") && held.contains(">Follow<"), "{held}");
    assert!(held.contains("MAX_OUTPUT_TOKENS_EXCEEDED</span>") && !held.contains("alert(&#39;m"), "{held}");
    assert!(!held.contains("<bdi>&lt;script&gt;"), "{held}");
    let gone = list(admin, "admin", "?open=0000000000010000000000000001").await;
    assert!(gone.contains("This decision is not kept any more."), "{gone}");
    process.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn events_have_ids_that_resume_and_are_of_what_their_reader_may_see() {
    let directory = TempDir::new().unwrap();
    let (process, admin) = start(&directory, &policy()).await;
    let mut all = Stream::open(admin, "admin", "decisions").await;
    let mut own = Stream::open(admin, "viewer", "decisions").await;
    let mut denied = Stream::open(admin, "admin", "decisions,alerts&result=denied").await;
    for user in ["u-1", "u-2"] {
        for team in ["research", "support", "spare"] {
            ask(&process, AuthorizeRequest { user: user.to_owned(), ..chat(team, MODEL, 10, 10) }).await;
        }
        all.until(&format!("\"user\":\"{user}\"")).await;
    }
    all.until_count("event: decision", 6).await;
    own.until_count("event: decision", 2).await;
    denied.until_count("event: decision", 2).await;
    assert!(!own.read.contains("research") && !own.read.contains("spare"), "{}", own.read);
    assert!(
        !denied.read.contains("DECISION_ALLOWED") && denied.read.contains("\"spare\""),
        "{}",
        denied.read
    );
    assert!(all.read.contains("\"reservedCost\"") && !all.read.contains("event: lagged"), "{}", all.read);
    let known = ids(&all.read, "id: ?");
    assert_eq!(known.len(), 6, "{}", all.read);
    assert!(known.is_sorted(), "{known:?}");
    // By the header that browsers send, which goes before the address.
    let asked = format!("decisions&after={}", known[0]);
    let mut resumed = Stream::open_after(admin, "admin", &asked, &known[3]).await;
    resumed.until_count("event: decision", 2).await;
    assert_eq!(ids(&resumed.read, "id: ?"), known[4..], "{}", resumed.read);
    let mut after = Stream::open(admin, "admin", &asked).await;
    after.until_count("event: decision", 5).await;
    assert_eq!(ids(&after.read, "id: ?"), known[1..], "{}", after.read);
    for (name, topics, status) in [
        ("gateway", "decisions", 403),
        ("viewer", "decisions&team=research", 403),
        ("admin", "decisions&reason=none", 400),
        ("admin", "decisions&after=x", 400),
    ] {
        let answer = page(admin, name, &format!("/console/acme/events?topics={topics}")).await;
        assert_eq!(answer.status, status, "{name} {topics}: {}", text(&answer));
    }
    // Another policy, by which the reader may be another.
    let rewritten = policy().replace("[access.tokens.viewer]", "[access.tokens.other]");
    std::fs::write(directory.path().join("policy.toml"), rewritten).unwrap();
    own.until("event: end").await;
    let mut last = Stream::open(admin, "admin", "decisions").await;
    tokio::join!(process.stop(), last.until("event: end"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_denial_shows_its_event_and_the_limits_in_shadow_beside_those_that_refused() {
    let directory = TempDir::new().unwrap();
    let both = "[teams.both]\nmodels = [\"*\"]\nmax_output_tokens = 99\nmax_in_flight = 1\nrequests_per_minute = 1\nshadow = [\"requests_per_minute\"]\n";
    let (process, admin) = start(&directory, &(policy() + both)).await;
    list(admin, "admin", "").await;
    // The first one is in flight for as long as it is not reported.
    ask(&process, chat("both", MODEL, 10, 10)).await;
    ask(&process, chat("both", MODEL, 10, 10)).await;
    let shown = async || ids(&list(admin, "admin", "?team=both").await, "open=");
    eventually("it is shown", async || !shown().await.is_empty()).await;
    let open = shown().await.remove(0);
    let body = list(admin, "admin", &format!("?team=both&open={open}")).await;
    let (refused, shadow) = body.split_once("Limits in shadow would have refused it as well:").unwrap();
    assert!(refused.contains("teams.both.max_in_flight") && refused.contains("One limit refused"), "{body}");
    assert!(!refused.contains("teams.both.requests_per_minute"), "{body}");
    assert!(shadow.contains("<code>teams.both.requests_per_minute</code>"), "{body}");
    // The event is the message of the API, and what it says is text.
    let json = shadow.split("<pre class=\"json\"").nth(1).unwrap().split("</pre>").next().unwrap();
    let json =
        json.split_once('>').unwrap().1.replace("&quot;", "\"").replace("&gt;", ">").replace("&lt;", "<");
    let event: serde_json::Value = serde_json::from_str(&json.replace("&amp;", "&")).unwrap();
    assert_eq!((&event["id"], &event["team"]), (&open.as_str().into(), &"both".into()));
    assert_eq!(event["violations"][0]["limitId"], "teams.both.max_in_flight");
    assert_eq!(event["shadowViolations"][0]["limitId"], "teams.both.requests_per_minute");
    process.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn older_decisions_are_on_pages_of_a_list_that_is_held() {
    let directory = TempDir::new().unwrap();
    let (process, admin) = start(&directory, &policy()).await;
    list(admin, "admin", "").await;
    let count = regex::Regex::new("(\\d+) to (\\d+) of (\\d+); ").unwrap();
    let counted = |body: &str| {
        let found =
            count.captures(body).map(|found| [1, 2, 3].map(|place| found[place].parse::<usize>().unwrap()));
        found.unwrap_or_default()
    };
    let all = format!("?before={}", "f".repeat(28));
    // A replica tells of so many a second, so they come in parts.
    let mut kept = 0;
    while kept < 105 {
        for _ in 0..40 {
            ask(&process, chat("spare", MODEL, 10, 10)).await;
        }
        let before = kept;
        eventually("more are kept", async || {
            [.., kept] = counted(&list(admin, "admin", &all).await);
            kept > before
        })
        .await;
    }
    let first = list(admin, "admin", "?team=spare").await;
    let row_ids = |body: &str| ids(body, "data-id=\"");
    let newest = row_ids(&first);
    assert_eq!(newest.len(), 100);
    let older = regex::Regex::new("id=\"older\"[^>]*href=\"/console/acme/decisions([^\"]*)\">Older").unwrap();
    let link = older.captures(&first).unwrap()[1].replace("&amp;", "&");
    assert_eq!(link, format!("?team=spare&hold={}&before={}", newest[0], newest[99]));
    let second = list(admin, "admin", &link).await;
    let rest = row_ids(&second);
    let [from, to, whole] = counted(&second);
    assert_eq!((from, to, whole), (101, 100 + rest.len(), 100 + rest.len()));
    assert!(rest.iter().all(|id| *id < newest[99]) && second.contains(">Newest</a>"), "{second}");
    assert!(second.contains("data-held") && second.contains(">Follow<"), "{second}");
    // A row that is opened leaves the page as it is, and closing it as well.
    let opened = list(admin, "admin", &format!("{link}&open={}", rest[0])).await;
    assert_eq!(row_ids(&opened), rest);
    assert!(opened.contains(&format!("before={}\">Close", newest[99])), "{opened}");
    assert!(!list(admin, "admin", &format!("?before={}", "0".repeat(28))).await.contains("data-id"));
    assert_eq!(page(admin, "admin", &format!("{DECISIONS}?before=x")).await.status, 400);
    process.stop().await;
}
