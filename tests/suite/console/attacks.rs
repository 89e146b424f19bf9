//! What other sites, other hosts and hostile names try at the console. Forms have tests beside their pages, and signing in its own.

use tempfile::TempDir;
use tollgate::policy_file::parse_policy_at;

use super::{page, policy, secret, start, text};
use crate::{
    envoy::http::Request,
    harness::{Process, START},
    redis_server::free_port,
};

/// Addresses of each kind: of the organization, of its files and streams, and of the door.
const ADDRESSES: [(&str, &str); 9] = [
    ("GET", "/"),
    ("GET", "/console/acme/"),
    ("GET", "/console/acme/keys"),
    ("GET", "/console/acme/events?topics=budgets"),
    ("GET", "/console/acme/reports.csv"),
    ("POST", "/console/acme/keys"),
    ("POST", "/console/acme/pauses"),
    ("GET", "/auth/sign-in"),
    ("POST", "/auth/token"),
];

/// A page of another site that points its own name at this address is not answered, whatever it sends along.
#[tokio::test(flavor = "multi_thread")]
async fn a_foreign_host_reads_and_changes_nothing() {
    let directory = TempDir::new().unwrap();
    let (process, admin) = start(&directory, &policy()).await;
    for host in
        ["attacker.example", &format!("attacker.example:{}", admin.port()), "127.0.0.1.attacker.example"]
    {
        for (method, path) in ADDRESSES {
            let request = Request::new(method, path).header("host", host).key(&secret("admin"));
            let answer = request.send(admin).await;
            assert_eq!(answer.status, 421, "{host} {method} {path}: {}", text(&answer));
            assert!(answer.header("set-cookie").is_none(), "{host} {method} {path}");
        }
    }
    process.stop().await;
    // With an address in the settings, no other counts, the listener's own included.
    let (directory, admin) = (TempDir::new().unwrap(), free_port());
    let arguments = [format!("--admin={admin}"), "--console-url=https://tollgate.example.com".to_owned()];
    let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
    let process = Process::start_arguments(directory.path(), &policy(), &arguments).await;
    for (host, expected) in
        [("attacker.example", 421), (&*admin.to_string(), 421), ("tollgate.example.com", 200)]
    {
        let request = Request::new("GET", "/console/acme/").header("host", host).key(&secret("admin"));
        assert_eq!(request.send(admin).await.status, expected, "{host}");
    }
    process.stop().await;
}

/// A stream is of a page of the console: without a session, or from another site, there is none.
#[tokio::test(flavor = "multi_thread")]
async fn a_stream_without_rights_is_not_opened() {
    let directory = TempDir::new().unwrap();
    let (process, admin) = start(&directory, &policy()).await;
    let path = "/console/acme/events?topics=budgets,alerts,decisions";
    let ask =
        || Request::new("GET", path).header("accept", "text/event-stream").header("sec-fetch-mode", "cors");
    for (request, status) in [
        (ask(), 401),
        (ask().key("tgs_the_secret_of_no_one"), 401),
        (ask().header("cookie", "tollgate-dev=planted"), 401),
        (ask().key(&secret("admin")).header("sec-fetch-site", "cross-site"), 403),
        (ask().key(&secret("admin")).header("sec-fetch-site", "same-site"), 403),
        (ask().key(&secret("gateway")), 403),
    ] {
        let answer = request.send(admin).await;
        assert_eq!(answer.status, status, "{}", text(&answer));
        assert!(!text(&answer).contains("event:"), "{}", text(&answer));
    }
    // Of one team, whatever is asked for.
    let answer = page(admin, "viewer", "/console/acme/events?topics=budgets&team=research").await;
    assert_eq!(answer.status, 403, "{}", text(&answer));
    process.stop().await;
}

/// No name that a policy gives can be markup; what callers and providers say is shown as text, as the browser's tests see.
#[test]
fn no_name_of_a_policy_can_be_markup() {
    let team = "[teams.t]\nmodels = [\"*\"]\nmax_output_tokens = 9\n";
    let digest = "sha256 = \"5e884898da28047151d0e56f8dc6292773603d0d6aabbdd62a11ef721d1542d8\"\n";
    let price = "input_usd_per_million_tokens = \"1\"\noutput_usd_per_million_tokens = \"1\"\n";
    let places = [
        "[teams.\"NAME\"]\nmodels = [\"*\"]\nmax_output_tokens = 9\n".to_owned(),
        "[teams.t]\nmodels = [\"NAME\"]\nmax_output_tokens = 9\n".to_owned(),
        format!("{team}[teams.t.limits.\"NAME\"]\nrequests_per_minute = 1\n"),
        format!("{team}[teams.t.keys.\"NAME\"]\n{digest}"),
        format!("[access.tokens.\"NAME\"]\n{digest}roles = [\"admin\"]\n"),
        "[reports]\nlabels = [\"NAME\"]\n".to_owned(),
        "[projects.\"NAME\"]\nkeys = [{ env = \"KEY\" }]\n".to_owned(),
        "[[alerts]]\nreceiver = \"NAME\"\n".to_owned(),
        format!("[[prices]]\nmodel = \"NAME\"\n{price}"),
    ];
    for place in places {
        let findings = |name: &str| {
            let text = format!("[organization]\nid = \"acme\"\n{}", place.replace("NAME", name));
            parse_policy_at(&text, "policy.toml", START).to_string()
        };
        let refuses = |findings: &str| findings.contains("` is not ") || findings.contains("` cannot be ");
        for hostile in ["<b>", "\\\"><script>", "a&b", "x onload=y", "'"] {
            assert!(refuses(&findings(hostile)), "{place} {hostile}: {}", findings(hostile));
        }
        assert!(!refuses(&findings("x9")), "{place}: {}", findings("x9"));
    }
}
