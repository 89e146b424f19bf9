//! Holds the log to one vocabulary: every field of every line has a name from one list, and messages are constant text.

use std::path::Path;

use crate::layering::collect;

/// The fields that any line may have.
const COMMON: [&str; 30] = [
    "address",
    "cost_nano_usd",
    "decision",
    "degraded",
    "duration_seconds",
    "error",
    "key",
    "labels",
    "limit",
    "limit_id",
    "model",
    "operation",
    "organization",
    "policy_revision",
    "project",
    "quantity",
    "reason",
    "replica",
    "request_id",
    "requested",
    "reservation_id",
    "reserved_nano_usd",
    "retry_delay_seconds",
    "rpc",
    "scope",
    "service_tier",
    "span_id",
    "team",
    "trace_id",
    "used",
];

/// What lines of one subject say beside them. A name means one thing in all of them: `file` and `directory` are of this machine,
/// `path` is in the policy, `files` is a kind of files, a `key` is a virtual key and an `upstream_key` one of Groq's.
const OF_SUBJECTS: &[(&str, &[&str])] = &[
    ("budgets", &["threshold", "spent_nano_usd", "budget_nano_usd", "period", "period_start"]),
    ("budgets", &["unsettled_requests"]),
    ("alerts", &["receiver", "alert", "summary", "attempts", "pending"]),
    ("decisions", &["max_output_tokens", "dry_run", "user", "wait_duration_seconds", "more_violations"]),
    ("decisions", &["shadow_violations"]),
    ("settlements", &["outcome", "result", "input_tokens", "output_tokens"]),
    ("settlements", &["left_out", "reservations", "reports", "denials"]),
    (
        "keys and pauses",
        &["secret_id", "version", "overlap_seconds", "pause", "pause_reason", "actor", "entry"],
    ),
    ("Groq's keys", &["upstream_key", "falls_back_to", "place"]),
    ("files", &["file", "files", "directory", "line", "column", "copy", "closed", "interval_seconds"]),
    ("the policy", &["path", "document_revision", "teams", "help", "other_file"]),
    ("settings", &["setting", "variables", "warning", "hazard", "drain_timeout_seconds"]),
    (
        "connections",
        &["cause", "silent", "unread", "evicted", "refused", "code", "page", "valid_from", "valid_until"],
    ),
    ("connections", &["max_connections", "usable_connections", "max_handshakes", "connection"]),
    ("the issuer of tokens", &["issuer", "keys"]),
    ("the store", &["redis_key", "removed", "bytes", "layout", "direction", "by_seconds"]),
    ("the store", &["silence_seconds", "wait_seconds", "entries", "settlements", "changes"]),
    ("logs", &["log", "lines", "events", "event_id"]),
];

const MACROS: [&str; 13] = [
    // A macro of the code that passes the level.
    "level",
    "error",
    "warn",
    "info",
    "debug",
    "trace",
    "event",
    "span",
    "error_span",
    "warn_span",
    "info_span",
    "debug_span",
    "trace_span",
];

#[test]
fn every_field_of_the_log_has_a_known_name() {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/src");
    let (mut files, mut breaches, mut lines) = (Vec::new(), Vec::new(), 0);
    collect(Path::new(root), &mut files);
    let mut unused: Vec<_> = OF_SUBJECTS.iter().flat_map(|(_, names)| *names).copied().collect();
    for path in &files {
        let text = std::fs::read_to_string(path).unwrap();
        for call in calls(&text) {
            lines += 1;
            unused.retain(|name| !fields(&parts(call)).contains(name));
            breaches.extend(check(call).map(|breach| format!("{}: {breach}: {call}", path.display())));
        }
    }
    assert!(lines > 100, "only {lines} lines are logged");
    assert!(breaches.is_empty(), "forbidden:\n{}", breaches.join("\n"));
    assert!(unused.is_empty(), "no line has these fields any more: {unused:?}");
}

#[test]
fn a_forbidden_line_of_the_log_is_caught() {
    for (caught, text) in [
        (false, r#"warn!("all is well");"#),
        (false, r#"warn!(%error, key = name(a, "b{"), team, "all is well");"#),
        (false, r#"warn!(parent: None, key, "all is well");"#),
        (false, r#"let x = line_error!("{}", x);"#),
        (
            false,
            "info!(target: \"a\", key, \"well\")\n#[cfg(test)]\nmod tests { fn f() { warn!(odd, \"no\") } }",
        ),
        (true, r#"warn!(error = %e, "all is {well}");"#),
        (true, r#"tracing::warn!("all is {}", well);"#),
        (true, r#"warn!(error = format!("{well}"), "all");"#),
        (true, r#"warn!(cost_nanos = 7, "all is well");"#),
        (true, r#"warn!(?peer, "all is well");"#),
        (true, r#"warn!(self.key, "all is well");"#),
    ] {
        let breaches = calls(text).into_iter().flat_map(check).count();
        assert_eq!(breaches > 0, caught, "{text}");
    }
}

/// What is wrong with one call.
fn check(call: &str) -> impl Iterator<Item = String> {
    let parts = parts(call);
    let known =
        |name: &&str| COMMON.contains(name) || OF_SUBJECTS.iter().any(|(_, names)| names.contains(name));
    let unknown = fields(&parts).into_iter().filter(|name| !known(name));
    let mut breaches: Vec<_> = unknown.map(|name| format!("unknown field `{name}`")).collect();
    let message = parts.iter().position(|part| part.starts_with('"'));
    // The name of a span stands first.
    let is_constant =
        message.is_some_and(|at| (at == 0 || at + 1 == parts.len()) && !parts[at].contains('{'));
    if !is_constant || call.contains("format!(") {
        breaches.push("the message is not constant: put values into fields".to_owned());
    }
    breaches.into_iter()
}

/// The names of the fields among the arguments.
fn fields<'a>(parts: &[&'a str]) -> Vec<&'a str> {
    // What says where a line belongs is no field.
    let is_field = |part: &&&str| !["\"", "target:", "parent:"].iter().any(|start| part.starts_with(start));
    let fields = parts.iter().filter(is_field);
    let name = |part: &&'a str| {
        let name = part.split_once('=').map_or(*part, |(name, _)| name);
        name.trim().trim_start_matches(['%', '?'])
    };
    fields.map(name).collect()
}

/// The arguments of each call of a macro that logs, without those of tests.
fn calls(text: &str) -> Vec<&str> {
    let text = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
    let mut calls = Vec::new();
    for (at, _) in text.match_indices("!(") {
        let is_name = |c: char| c.is_alphanumeric() || c == '_';
        let name = text[..at].rsplit(|c| !is_name(c)).next().unwrap();
        let is_comment = text[..at].rsplit('\n').next().unwrap().trim_start().starts_with("//");
        if MACROS.contains(&name) && !is_comment {
            let rest = &text[at + 2..];
            calls.push(&rest[..ends(rest, &[')']).next().unwrap()]);
        }
    }
    calls
}

/// The arguments, without what surrounds them.
fn parts(call: &str) -> Vec<&str> {
    let mut start = 0;
    let ends: Vec<_> = ends(call, &[',']).chain([call.len()]).collect();
    let cut = ends.into_iter().map(|end| {
        let part = call[start..end].trim();
        start = (end + 1).min(call.len());
        part
    });
    cut.filter(|part| !part.is_empty()).collect()
}

/// Where one of `marks` stands outside of strings and brackets.
fn ends<'a>(text: &'a str, marks: &'a [char]) -> impl Iterator<Item = usize> + 'a {
    let (mut depth, mut is_text, mut is_escaped) = (0, false, false);
    text.char_indices().filter_map(move |(at, c)| {
        if is_text {
            (is_text, is_escaped) = (is_escaped || c != '"', !is_escaped && c == '\\');
            return None;
        }
        let is_end = depth == 0 && marks.contains(&c);
        match c {
            '"' => is_text = true,
            '(' | '[' | '{' => depth += 1,
            ')' | ']' | '}' => depth -= 1,
            _ => {}
        }
        is_end.then_some(at)
    })
}
