//! Holds the code to the diagram in `src/lib.rs`: an arrow there is the only permitted direction of a `use`.

use std::path::{Path, PathBuf};

/// Each module and what it may use besides itself.
const MAY_USE: [(&str, &[&str]); 31] = [
    ("domain", &[]),
    ("groq", &["domain"]),
    ("runtime", &["domain"]),
    ("telemetry", &["domain"]),
    ("store", &["telemetry", "syntax", "runtime", "domain"]),
    ("syntax", &[]),
    ("watch", &[]),
    ("settings", &["syntax", "domain"]),
    ("policy_file", &["watch", "syntax", "domain"]),
    ("live", &["store", "runtime", "domain"]),
    ("spool", &["store", "runtime", "domain"]),
    ("authorizer", &["live", "spool", "store", "telemetry", "runtime", "domain"]),
    ("control", &["live", "store", "runtime", "domain"]),
    ("reports", &["live", "replicas", "spool", "store", "domain"]),
    ("replay", &["authorizer", "live", "store", "runtime", "domain"]),
    ("reconcile", &[]),
    ("audit", &["store", "runtime", "domain"]),
    ("access", &["audit", "live", "watch", "runtime", "domain"]),
    ("upstream", &["watch", "domain"]),
    (
        "alerts",
        &["live", "replicas", "upstream", "policy_file", "spool", "store", "settings", "runtime", "domain"],
    ),
    ("revisions", &["live", "policy_file", "store", "runtime", "domain"]),
    ("replicas", &["live", "upstream", "spool", "store", "runtime", "domain"]),
    (
        "rpc",
        &[
            "alerts",
            "audit",
            "authorizer",
            "control",
            "reports",
            "groq",
            "access",
            "upstream",
            "policy_file",
            "replicas",
            "revisions",
            "replay",
            "spool",
            "store",
            "telemetry",
            "runtime",
            "domain",
        ],
    ),
    ("report_text", &["rpc", "domain"]),
    ("http", &["access", "rpc"]),
    ("console", &["http", "report_text", "rpc", "access", "audit", "live", "runtime", "domain"]),
    (
        "server",
        &[
            "console",
            "http",
            "rpc",
            "alerts",
            "control",
            "reports",
            "authorizer",
            "access",
            "upstream",
            "replicas",
            "spool",
            "store",
            "telemetry",
            "settings",
            "watch",
            "runtime",
            "domain",
        ],
    ),
    (
        "app",
        &[
            "server",
            "console",
            "reports",
            "alerts",
            "live",
            "audit",
            "authorizer",
            "access",
            "upstream",
            "rpc",
            "policy_file",
            "revisions",
            "spool",
            "store",
            "telemetry",
            "settings",
            "runtime",
            "domain",
        ],
    ),
    (
        "cli",
        &[
            "app",
            "server",
            "rpc",
            "report_text",
            "replay",
            "reconcile",
            "audit",
            "access",
            "upstream",
            "spool",
            "store",
            "telemetry",
            "settings",
            "policy_file",
            "syntax",
            "runtime",
            "domain",
        ],
    ),
    ("main", &["cli"]),
    (
        "sim",
        &[
            "alerts",
            "authorizer",
            "control",
            "live",
            "policy_file",
            "spool",
            "store",
            "settings",
            "runtime",
            "domain",
        ],
    ),
];

/// What the domain must not know: waiting, logging, clocks and protobuf.
const NOT_IN_DOMAIN: [&str; 8] =
    ["async", "await", "tokio", "tracing", "SystemTime", "Instant::now", "tonic", "prost"];

/// Protobuf, and who may see it.
const PROTOBUF: [&str; 5] = ["tonic", "prost", "prost_types", "tonic_types", "tonic_health"];
const SEES_PROTOBUF: [&str; 7] = ["rpc", "report_text", "http", "console", "server", "cli", "telemetry"];

/// Modules that are built on another one's side of a boundary: the implementations of a store know the trait, not each other.
const STRANGERS: [(&str, &str); 2] = [("store/embedded", "store::redis"), ("store/redis", "store::embedded")];

#[test]
fn every_use_goes_down_the_diagram() {
    let mut files = Vec::new();
    collect(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/src")), &mut files);
    assert!(files.len() > 30, "only {} files found", files.len());
    let mut seen = std::collections::BTreeSet::new();
    let mut breaches = Vec::new();
    for path in &files {
        let place = path.strip_prefix(concat!(env!("CARGO_MANIFEST_DIR"), "/src")).unwrap();
        let text = std::fs::read_to_string(path).unwrap();
        seen.insert(module_of(place));
        breaches.extend(check(place, &text));
    }
    for (module, _) in MAY_USE {
        assert!(seen.contains(module), "there is no module `{module}` any more: bring this test up to date");
    }
    assert!(breaches.is_empty(), "forbidden:\n{}", breaches.join("\n"));
}

#[test]
fn a_forbidden_line_is_caught() {
    let caught = |place: &str, text: &str| !check(Path::new(place), text).is_empty();
    for (place, text) in [
        ("domain/limit.rs", "use crate::store::Store;"),
        ("domain/limit.rs", "use crate::{\n    domain::Timestamp,\n    settings::Settings,\n};"),
        ("domain/limit.rs", "use super::super::store::Store;"),
        ("domain/limit.rs", "use crate::runtime::Entropy;"),
        ("cli/serve.rs", "use crate::authorizer::Shared;"),
        ("server/mod.rs", "use crate::app::App;"),
        ("domain/limit.rs", "fn f() { tollgate::store::x() }"),
        ("domain/limit.rs", "async fn f() {}"),
        ("domain/limit.rs", "use std::time::{Duration, SystemTime};"),
        ("domain/limit.rs", "let now = Instant::now();"),
        ("domain/limit.rs", "tracing::info!(\"hello\");"),
        ("domain.rs", "use tonic::Status;"),
        ("store/redis/mod.rs", "use crate::authorizer::Queue;"),
        ("store/redis/mod.rs", "let x = crate::rpc::proto::Reason::Paused;"),
        ("store/redis/connection.rs", "use crate::{store::{embedded::EmbeddedStore}};"),
        ("store/mod.rs", "use prost::Message;"),
        ("authorizer/mod.rs", "use crate::{domain::x, server::{self, Options}};"),
        ("authorizer/mod.rs", "use tonic::Status;"),
        ("authorizer/mod.rs", "use crate::control::Keys;"),
        ("control/keys.rs", "use crate::authorizer::Authorizer;"),
        ("rpc/parse.rs", "use crate::settings::Settings;"),
        ("policy_file/load.rs", "use crate::settings::Settings;"),
        ("settings/layer.rs", "use crate::policy_file::Finding;"),
        ("policy_file/load.rs", "pub use crate::runtime::clock::Clock;"),
        ("access/guard.rs", "use tonic::Status;"),
        ("access/guard.rs", "use crate::rpc::Peer;"),
        ("server/mod.rs", "use crate::cli::run;"),
        ("main.rs", "use tollgate::server::Server;"),
        ("elsewhere.rs", "use crate::domain::Timestamp;"),
    ] {
        assert!(caught(place, text), "not caught in {place}: {text}");
    }
    for (place, text) in [
        ("domain/limit.rs", "use super::money::NanoUsd;"),
        ("domain/limit.rs", "// as crate::store::Store does, without async\n/// see [`crate::settings`]"),
        ("domain/limit.rs", "let text = \"async\"; let asynchronous = 1;"),
        ("store/redis/mod.rs", "use crate::{domain::{Timestamp, counter::Hold}, store::Store};"),
        ("rpc/parse.rs", "use tonic::Status; use crate::authorizer::SpendQuery;"),
        (
            "server/mod.rs",
            "use crate::{authorizer::Shared, rpc::PolicyRpc, store::Store, settings::Settings};",
        ),
        ("cli/serve.rs", "use crate::{\n server::Server,\n settings::{Settings, store_url::X},\n};"),
        ("main.rs", "fn main() { tollgate::cli::run() }"),
        ("lib.rs", "pub mod server;"),
    ] {
        assert!(
            !caught(place, text),
            "wrongly caught in {place}: {text}: {:?}",
            check(Path::new(place), text)
        );
    }
}

pub(crate) fn collect(directory: &Path, files: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

/// `store` for `store/redis/connection.rs` and for `store.rs`.
fn module_of(place: &Path) -> String {
    let first = place.components().next().unwrap().as_os_str().to_str().unwrap();
    first.trim_end_matches(".rs").to_owned()
}

/// Everything in `text`, the file at `place` within `src`, that the architecture forbids.
fn check(place: &Path, text: &str) -> Vec<String> {
    let module = module_of(place);
    if module == "lib" {
        return Vec::new();
    }
    let code = code_of(text);
    let mut breaches = Vec::new();
    let mut breach = |what: String| breaches.push(format!("src/{}: {what}", place.display()));
    let Some((_, may_use)) = MAY_USE.iter().find(|(name, _)| *name == module) else {
        breach(format!("`{module}` is not in the diagram of src/lib.rs"));
        return breaches;
    };
    let paths = paths_of(place, &code);
    for path in &paths {
        let used = path.split("::").next().unwrap_or_default();
        let is_module = MAY_USE.iter().any(|(name, _)| *name == used);
        if is_module && used != module && !may_use.contains(&used) {
            breach(format!("`{module}` may not use `{path}`"));
        }
        for (own, other) in STRANGERS {
            if place.with_extension("").starts_with(own)
                && format!("{path}::").starts_with(&format!("{other}::"))
            {
                breach(format!("`{own}` may not use `{path}`"));
            }
        }
    }
    let words = words_of(&code);
    let has = |phrase: &str| {
        let phrase: Vec<&str> = phrase.split("::").collect();
        words.windows(phrase.len()).any(|window| window == phrase)
    };
    if module == "domain" {
        NOT_IN_DOMAIN
            .into_iter()
            .filter(|word| has(word))
            .for_each(|word| breach(format!("`{word}` in the domain")));
    }
    if !SEES_PROTOBUF.contains(&module.as_str()) {
        PROTOBUF
            .into_iter()
            .filter(|word| has(word))
            .for_each(|word| breach(format!("`{word}` outside of `rpc`")));
    }
    breaches
}

/// The text without comments and without what stands in string literals.
fn code_of(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(next) = rest.chars().next() {
        let skipped = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            rest.find("*/").map_or(rest.len(), |end| end + 2)
        } else if let Some(raw) = rest.strip_prefix("r#\"") {
            code.push('"');
            raw.find("\"#").map_or(rest.len(), |end| end + 5)
        } else if rest.starts_with("'\"'") || rest.starts_with("'\\\"'") {
            rest[1..].find("'").map_or(rest.len(), |end| end + 2)
        } else if next == '"' {
            code.push('"');
            end_of_string(rest)
        } else {
            code.push(next);
            next.len_utf8()
        };
        rest = &rest[skipped..];
    }
    code
}

/// The length of the string literal that `text` begins with.
fn end_of_string(text: &str) -> usize {
    let mut escaped = false;
    let end = text.char_indices().skip(1).find(|(_, c)| {
        let closes = *c == '"' && !escaped;
        escaped = *c == '\\' && !escaped;
        closes
    });
    end.map_or(text.len(), |(at, _)| at + 1)
}

fn words_of(code: &str) -> Vec<&str> {
    code.split(|c: char| !c.is_alphanumeric() && c != '_').filter(|word| !word.is_empty()).collect()
}

/// Every path from the crate's root, such as `runtime::clock::Clock`, groups taken apart.
fn paths_of(place: &Path, code: &str) -> Vec<String> {
    let compact: String =
        code.split_whitespace().collect::<Vec<_>>().join(" ").replace(" ::", "::").replace(":: ", "::");
    let mut paths = Vec::new();
    for root in ["crate::", "tollgate::"] {
        for (at, _) in compact.match_indices(root) {
            let before = compact[..at].chars().next_back();
            // `$crate` and `some_crate::` are others.
            if !before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == '$') {
                expand("", &compact[at + root.len()..], &mut paths);
            }
        }
    }
    // `super::super` from a file of depth two is the root; no deeper file is met often enough to be worth more.
    let depth = place.with_extension("").components().filter(|part| part.as_os_str() != "mod").count();
    let climb = "super::".repeat(depth);
    for (at, _) in compact.match_indices(&climb) {
        expand("", &compact[at + climb.len()..], &mut paths);
    }
    paths
}

/// Reads one path, or a group of paths, from the start of `text`; answers what is left.
fn expand<'a>(prefix: &str, text: &'a str, paths: &mut Vec<String>) -> &'a str {
    let text = text.trim_start();
    if let Some(mut rest) = text.strip_prefix('{') {
        loop {
            rest = rest.trim_start_matches([' ', ',']);
            if rest.is_empty() {
                return rest;
            }
            if let Some(after) = rest.strip_prefix('}') {
                return after;
            }
            let left = expand(prefix, rest, paths);
            // Whatever else stands in a group (`as Name`, `*`) is passed over.
            rest = if left.len() == rest.len() { left.get(1..).unwrap_or_default() } else { left };
        }
    }
    let end = text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len());
    let path = format!("{prefix}{}", &text[..end]);
    match text[end..].strip_prefix("::") {
        Some(rest) if end > 0 => expand(&format!("{path}::"), rest, paths),
        _ => {
            if end > 0 {
                paths.push(path);
            }
            &text[end..]
        }
    }
}
