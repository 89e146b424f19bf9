//! `tollgate doctor`: what is wrong is found, said with what to do, and nothing is changed.

use std::{
    fs::{self, Permissions},
    net::TcpListener,
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use serde_json::Value;
use tempfile::TempDir;

use crate::{
    harness::{Process, StoreKind, eventually},
    redis_access::ACL,
    redis_server::{RedisServer, free_port},
    support::certificates::{Ca, Leaf},
};

/// Severity, subject, what was found and what helps.
type Told = (String, String, String, String);

const POLICY: &str = "[organization]\nid = \"acme\"\n[teams.bot]\nmodels = [\"openai/gpt-oss-20b\"]\nmax_output_tokens = 100\n";
/// A token, so that who may ask is no warning.
const ACCESS: &str = "[access.tokens.gate]\nsha256 = \"9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08\"\nroles = [\"gateway\"]\n";
/// All probes run at once, each for 2 s at most; the rest is what a busy machine takes to start a process.
const BOUND: Duration = Duration::from_secs(30);

/// A directory with a policy and settings, which name ports that are free.
pub(super) struct Case {
    directory: TempDir,
    settings: String,
}

impl Case {
    pub(super) fn new() -> Self {
        let directory = TempDir::new().unwrap();
        fs::write(directory.path().join("policy.toml"), format!("{POLICY}{ACCESS}")).unwrap();
        let settings = format!(
            "policy = \"policy.toml\"\nstore = \"embedded:data\"\nlisten = \"{}\"\nadmin = \"{}\"\n",
            free_port(),
            free_port()
        );
        Self { directory, settings }
    }

    pub(super) fn path(&self) -> &Path {
        self.directory.path()
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.path().join(name), text).unwrap();
        // As this process made it, whatever the umask is.
        fs::set_permissions(self.path().join(name), Permissions::from_mode(0o600)).unwrap();
    }

    /// The findings with `more` settings, and the exit code.
    fn examine(&self, more: &str, arguments: &[&str]) -> (Option<i32>, Vec<Told>) {
        self.write("tollgate.toml", &format!("{}{more}", self.settings));
        let begun = Instant::now();
        let mut command = Command::new(env!("CARGO_BIN_EXE_tollgate"));
        // Also those by which these tests are run, which are no settings.
        let ours = std::env::vars_os().map(|(name, _)| name);
        for name in ours.filter(|name| name.to_string_lossy().starts_with("TOLLGATE_")) {
            command.env_remove(name);
        }
        command.env_remove("GROQ_API_KEY").env_remove("OTEL_EXPORTER_OTLP_ENDPOINT").current_dir(self.path());
        command.args(["doctor", "--config", "tollgate.toml", "--json"]).args(arguments);
        let output = command.output().unwrap();
        assert!(begun.elapsed() < BOUND, "{:?}", begun.elapsed());
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let answer: Value = serde_json::from_str(&said)
            .unwrap_or_else(|error| panic!("{error}: {said}{}", String::from_utf8_lossy(&output.stderr)));
        let text = |finding: &Value, key: &str| finding[key].as_str().unwrap().to_owned();
        let findings = answer["findings"].as_array().unwrap().iter();
        let findings: Vec<Told> = findings
            .map(|finding| ["severity", "subject", "message", "help"].map(|key| text(finding, key)).into())
            .collect();
        for (severity, key) in [("error", "errors"), ("warning", "warnings")] {
            let count = findings.iter().filter(|(found, ..)| found == severity).count();
            assert_eq!(answer[key], count, "{said}");
        }
        assert!(!said.contains("hush"), "a secret is shown: {said}");
        (output.status.code(), findings)
    }

    /// Asserts that `more` settings lead to a finding on `subject` that says `word`, and the exit code of its severity.
    pub(super) fn finds(&self, more: &str, (severity, subject, word): (&str, &str, &str)) {
        let arguments: &[&str] =
            if self.path().join("envoy.yaml").exists() { &["--envoy", "envoy.yaml"] } else { &[] };
        let (code, findings) = self.examine(more, arguments);
        let is_said = findings.iter().any(|(found, on, message, help)| {
            found == severity && on == subject && format!("{message} {help}").contains(word)
        });
        assert!(is_said, "no {severity} of {subject} says `{word}` with {more}: {findings:#?}");
        let errs = findings.iter().any(|(severity, ..)| severity == "error");
        assert_eq!(code, Some(i32::from(errs)), "{findings:#?}");
    }
}

#[test]
fn a_sound_case_is_sound_and_nothing_is_changed() {
    let case = Case::new();
    let (code, findings) = case.examine("", &["--strict"]);
    assert_eq!(code, Some(0), "{findings:#?}");
    let subjects: Vec<_> = findings.iter().map(|(_, subject, ..)| subject.as_str()).collect();
    let all = [
        "settings",
        "policy",
        "access",
        "listen",
        "admin",
        "store",
        "tls",
        "files",
        "groq_keys",
        "oidc",
        "receivers",
        "otlp",
    ];
    assert_eq!(subjects, all, "{findings:#?}");
    assert!(findings.iter().all(|(severity, ..)| severity == "ok"), "{findings:#?}");
    let mut names: Vec<_> = fs::read_dir(case.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert_eq!(names, ["policy.toml", "tollgate.toml"]);
    // For people, and with settings that cannot be read.
    let doctor = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tollgate"));
        let output = command.arg("doctor").args(arguments).current_dir(case.path()).output().unwrap();
        let text = [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap()).concat();
        (output.status.code(), text)
    };
    let (code, text) = doctor(&["--config", "tollgate.toml"]);
    assert_eq!(code, Some(0), "{text}");
    assert!(text.starts_with("ok       settings   read\n") && text.ends_with("\nsound\n"), "{text}");
    let (code, text) = doctor(&["--config", "none.toml"]);
    assert_eq!((code, text.contains("none.toml")), (Some(2), true), "{text}");
}

#[test]
fn warnings_count_where_they_are_to() {
    let case = Case::new();
    case.write("policy.toml", POLICY);
    let (code, findings) = case.examine("", &[]);
    assert_eq!(code, Some(0), "{findings:#?}");
    assert!(
        findings.iter().any(|(severity, on, ..)| severity == "warning" && on == "access"),
        "{findings:#?}"
    );
    assert_eq!(case.examine("", &["--strict"]).0, Some(1));
}

#[test]
fn each_thing_that_is_wrong_here_is_found() {
    let case = Case::new();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap();
    let of = |name: &str, text: &str, mode: u32| {
        case.write(name, text);
        fs::set_permissions(case.path().join(name), Permissions::from_mode(mode)).unwrap();
    };
    of("open-secret", "hush", 0o644);
    of("slack-url", "https://no-such-host.invalid/hush", 0o600);
    let nobody = free_port();
    let receiver = |name: &str, rest: &str| format!("[receivers.{name}]\nkind = \"slack\"\n{rest}\n");
    for (more, finding) in [
        ("audit_file = \"x\"\naudit_sinks = [\"store\"]\n".to_owned(), ("warning", "settings", "audit_file")),
        (
            "console_session_key_files = [\"none\"]\n".to_owned(),
            ("error", "files", "`none` (console_session_key_files)"),
        ),
        (
            "console_session_key_files = [\"open-secret\"]\n".to_owned(),
            ("warning", "files", "every user of this machine"),
        ),
        (
            "tls_cert_file = \"none\"\ntls_key_file = \"none\"\n".to_owned(),
            ("error", "tls", "`none` cannot be read"),
        ),
        (
            receiver("ops", "url_file = \"slack-url\""),
            ("error", "receivers", "no name server knows no-such-host.invalid"),
        ),
        (receiver("ops", "url_file = \"open-secret\""), ("error", "receivers", "its address is none")),
        (receiver("ops", "url = \"http://127.0.0.1/hush\""), ("ok", "receivers", "ops: 127.0.0.1 is known")),
        (format!("otlp_endpoint = \"http://{nobody}\"\n"), ("error", "otlp", "cannot be reached")),
        (format!("otlp_endpoint = \"http://{port}\"\n"), ("ok", "otlp", "takes connections")),
    ] {
        case.finds(&more, finding);
    }
    // In place of what is set already.
    for (from, to, finding) in [
        ("embedded:data", "embedded:policy.toml".to_owned(), ("error", "store", "policy.toml")),
        ("embedded:data", format!("redis://:hush@{nobody}"), ("error", "store", "cannot be asked")),
        ("policy.toml", "none.toml".to_owned(), ("error", "policy", "none.toml")),
    ] {
        let settings = case.settings.replacen(from, &to, 1);
        Case { settings, directory: copy(&case) }.finds("", finding);
    }
    let listens = |setting: &str| {
        let lines = case.settings.lines().map(|line| match line.starts_with(setting) {
            true => format!("{setting} = \"{port}\"\n"),
            false => format!("{line}\n"),
        });
        Case { settings: lines.collect(), directory: copy(&case) }
    };
    for setting in ["listen", "admin"] {
        listens(setting).finds("", ("error", setting, "is in use"));
    }
    case.write("policy.toml", "[organization]\nid = 7\n");
    case.finds("", ("error", "policy", "organization.id"));
}

/// A directory with the same files.
fn copy(case: &Case) -> TempDir {
    let directory = TempDir::new().unwrap();
    for entry in fs::read_dir(case.path()).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, directory.path().join(path.file_name().unwrap())).unwrap();
    }
    directory
}

#[test]
fn a_policy_that_asks_for_what_is_not_there_is_found_out() {
    let case = Case::new();
    let nobody = free_port();
    for (more, finding) in [
        (
            "[projects.main]\nkeys = [{ env = \"NO_SUCH_GROQ_KEY\" }]\n".to_owned(),
            ("error", "groq_keys", "NO_SUCH_GROQ_KEY"),
        ),
        ("[projects.main]\nkeys = [{ file = \"groq\" }]\n".to_owned(), ("ok", "groq_keys", "groq: a key")),
        (
            "[projects.main]\nkeys = [{ file = \"odd\" }]\n".to_owned(),
            ("warning", "groq_keys", "does not begin with `gsk_`"),
        ),
        (
            format!(
                "[[access.oidc]]\nissuer = \"http://{nobody}\"\naudience = \"a\"\nclaim = \"groups\"\n[access.oidc.map.x]\nroles = [\"admin\"]\n"
            ),
            ("error", "oidc", "cannot be reached"),
        ),
        ("[[alerts]]\nreceiver = \"ops\"\n".to_owned(), ("warning", "receivers", "[receivers.ops]")),
    ] {
        case.write("groq", "gsk_hush\n");
        case.write("odd", "hush\n");
        case.write("policy.toml", &format!("{POLICY}{ACCESS}{more}"));
        case.finds("", finding);
    }
    // Envoy's configuration beside a policy that does not count on its third filter, and one that cannot be read.
    case.write("policy.toml", &format!("{POLICY}{ACCESS}"));
    case.write("envoy.yaml", include_str!("../../../deploy/envoy/envoy.yaml"));
    case.finds("", ("warning", "envoy", "request_phase"));
    case.finds("store_timeout = \"1s\"\n", ("error", "envoy", "grpc_service.timeout of ext_authz"));
    case.write("envoy.yaml", "a: [");
    case.finds("", ("error", "envoy", "envoy.yaml"));
}

#[test]
fn certificates_are_read_with_their_keys_and_dates() {
    let case = Case::new();
    let (ca, now) = (Ca::new("a CA"), jiff::Timestamp::now());
    let days = |days: i64| {
        let at = now + jiff::SignedDuration::from_hours(24 * days);
        let date = at.to_zoned(jiff::tz::TimeZone::UTC).date();
        (i32::from(date.year()), u8::try_from(date.month()).unwrap(), u8::try_from(date.day()).unwrap())
    };
    let tls = "tls_cert_file = \"cert\"\ntls_key_file = \"key\"\ntls_client_ca_file = \"ca\"\n";
    case.write("ca", &ca.pem);
    for (from, until, severity, word) in [
        (-2, 90, "ok", "is valid until"),
        (-2, 20, "warning", "expires on"),
        (-9, -2, "error", "expired on"),
        (5, 90, "error", "is not valid before"),
    ] {
        let pair = ca.issue(Leaf::server().valid(days(from), days(until)));
        case.write("cert", &pair.cert);
        case.write("key", &pair.key);
        case.finds(tls, (severity, "tls", word));
    }
    let [one, other] = [(), ()].map(|()| ca.issue(Leaf::server()));
    case.write("cert", &one.cert);
    case.write("key", &other.key);
    case.finds(tls, ("error", "tls", "does not match the first certificate"));
    case.write("key", &one.key);
    case.write("ca", "none");
    case.finds(tls, ("error", "tls", "holds no certificate"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_runs_is_known_with_and_without_tls() {
    for tls in [false, true] {
        let case = Case::new();
        let pair = Ca::new("a CA").issue(Leaf::server());
        case.write("cert", &pair.cert);
        case.write("key", &pair.key);
        let admin = free_port().to_string();
        let files = ["--tls-cert-file=cert", "--tls-key-file=key", "--admin-tls"];
        let arguments = ["--store=embedded:data", "--admin", &admin];
        let arguments = [&arguments[..], if tls { &files } else { &[] }].concat();
        let process = Process::start_arguments(case.path(), &format!("{POLICY}{ACCESS}"), &arguments).await;
        let settings = format!(
            "policy = \"policy.toml\"\nstore = \"embedded:data\"\nlisten = \"{}\"\nadmin = \"{admin}\"\n",
            process.address()
        );
        let case = Case { settings, ..case };
        let more =
            if tls { "tls_cert_file = \"cert\"\ntls_key_file = \"key\"\nadmin_tls = true\n" } else { "" };
        if !tls {
            eventually("it serves", async || process.is_serving().await == Some(true)).await;
        }
        tokio::task::block_in_place(|| {
            for subject in ["listen", "admin"] {
                case.finds(more, ("ok", subject, "Tollgate serves on"));
            }
            case.finds(more, ("ok", "store", "a process has it open"));
            // A program that is not what the settings say.
            let other = if tls { "" } else { "tls_cert_file = \"cert\"\ntls_key_file = \"key\"\n" };
            case.finds(other, ("error", "listen", "is in use"));
        });
        process.stop().await;
        tokio::task::block_in_place(|| {
            case.finds(more, ("ok", "listen", "is free"));
            case.finds(more, ("ok", "store", "no process has it open"));
            fs::set_permissions(case.path().join("data"), Permissions::from_mode(0o755)).unwrap();
            case.finds(more, ("warning", "store", "chmod 700 data"));
        });
    }
}

#[test]
fn redis_is_looked_at_and_not_written_to() {
    if !StoreKind::Redis.is_available() {
        return;
    }
    let case = Case::new();
    let redis = RedisServer::start();
    let mut connection = redis::Client::open(redis.url()).unwrap().get_connection().unwrap();
    let mut run = |command: &str| {
        let mut words = command.split(' ');
        let mut cmd = redis::cmd(words.next().unwrap());
        cmd.arg(words.collect::<Vec<_>>()).query::<redis::Value>(&mut connection).unwrap()
    };
    let with = |url: &str| Case {
        settings: case.settings.replacen("embedded:data", url, 1),
        directory: copy(&case),
    };
    let here = with(&redis.url());
    here.finds("", ("warning", "store", "keeps nothing over a restart"));
    here.finds("require_safe_redis = true\n", ("error", "store", "would not start"));
    run("CONFIG SET appendonly yes");
    here.finds("", ("ok", "store", "Redis"));
    assert_eq!(run("DBSIZE"), redis::Value::Int(0), "nothing was written");
    run("CONFIG SET maxmemory-policy allkeys-lru");
    here.finds("", ("warning", "store", "noeviction"));
    run("CONFIG SET maxmemory-policy noeviction");
    here.finds("store_timeout = \"1ms\"\n", ("ok", "policy", "acme"));
    // A user who may do less than a store needs, and one who may do what the page of operations says.
    run("ACL SETUSER poor on >hush ~tollgate:* +@read +@scripting +@connection +info");
    let address = redis.address();
    let rule = ACL.join(" ");
    let page = include_str!("../../../docs/operations.md").split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(page.contains(&rule));
    with(&format!("redis://poor:hush@{address}")).finds("", ("error", "store", &rule));
    run(&format!("ACL SETUSER rich on >hush {rule}"));
    with(&format!("redis://rich:hush@{address}")).finds("", ("ok", "store", "Redis"));
    with(&format!("redis://rich:wrong-hush@{address}")).finds("", ("error", "store", "cannot be asked"));
    run("HSET tollgate:{acme}:meta layout 99 min_layout 99");
    here.finds("", ("error", "store", "layout 99"));
    run("DEL tollgate:{acme}:meta");
    // A replica takes no writes, and a primary that waits for none forgets.
    let replica = RedisServer::start();
    let mut of_replica = redis::Client::open(replica.url()).unwrap().get_connection().unwrap();
    let (host, port) = (address.ip().to_string(), address.port().to_string());
    let _: () = redis::cmd("REPLICAOF").arg(&[host, port]).query(&mut of_replica).unwrap();
    let mut is_up = || {
        let info: String = redis::cmd("INFO").arg("replication").query(&mut of_replica).unwrap();
        info.contains("master_link_status:up")
    };
    let begun = Instant::now();
    while !is_up() {
        assert!(begun.elapsed() < BOUND, "the replica does not follow");
    }
    here.finds("", ("warning", "store", "min-replicas-to-write"));
    with(&replica.url()).finds("", ("error", "store", "takes no writes"));
    run("CONFIG SET min-replicas-to-write 1");
    here.finds("", ("ok", "store", "Redis"));
    // A server that is silent holds nothing up.
    redis.freeze();
    here.finds("", ("error", "store", "no answer within 1 s"));
    redis.thaw();
}
