//! Policies that load, and policies that do not.

use std::{collections::HashSet, sync::Arc};

use super::*;
use crate::domain::{
    Timestamp,
    limit::{Limit, LimitScope, OnShortfall, Window},
    policy::{Policy, user_counter},
    request::ServiceTier,
};

/// 2026-11-23T12:00:00Z.
const NOW: Timestamp = Timestamp(1_795_435_200_000);

/// Reads a policy. Whatever a test reads, its schema has to agree about.
fn parse(text: &str) -> PolicyReport {
    let report = parse_policy_at(text, "policy.toml", NOW);
    schema::agrees(text, &report);
    report
}

fn sound(text: &str) -> Policy {
    let report = parse(text);
    assert!(report.findings.is_empty(), "{report}");
    report.policy.unwrap()
}

fn sound_but_for_warnings(text: &str) -> Policy {
    let report = parse(text);
    assert_eq!(report.errors(), 0, "{text}\n{report}");
    report.policy.unwrap()
}

fn said(text: &str) -> Vec<String> {
    parse(text).findings.iter().map(ToString::to_string).collect()
}

#[test]
fn the_examples_load_without_a_finding() {
    for text in [EXAMPLE_POLICY, include_str!("../../../examples/policy-legacy.toml")] {
        let policy = sound(text);
        let mut teams: Vec<_> = policy.teams.keys().map(ToString::to_string).collect();
        teams.sort();
        assert_eq!(teams, ["analytics", "chatbot", "research"]);
        for model in policy.teams.values().flat_map(|team| &team.models) {
            let name = model.to_string();
            let priced = policy.catalogue.rates(&name, ServiceTier::OnDemand, NOW).is_some();
            assert!(priced || name.ends_with('*'), "{name}");
        }
    }
    assert!(sound(include_str!("../../../deploy/envoy/policy.toml")).envoy.request_phase);
}

#[test]
fn the_example_still_loads_without_its_comments() {
    // Its commented-out lines are valid as well, once the digest is a real one.
    let wanted =
        ["[teams.chatbot.keys", "sha256", "models = [\"openai/gpt-oss-20b\"]", "budget = { daily", "expires"];
    let wanted = wanted.into_iter().chain([
        "[[prices]]",
        "model =",
        "from =",
        "input_usd",
        "cached_input",
        "output_usd",
        "[envoy]",
        "callers",
        "request_phase",
        "[projects.main]",
        "keys =",
        "[access.",
        "[[access.",
        "roles =",
        "teams =",
        "issuer =",
        "audience =",
        "claim =",
    ]);
    let wanted: Vec<_> = wanted.collect();
    let line = |line: &str| {
        let bare = line.strip_prefix("# ").unwrap_or(line);
        if wanted.iter().any(|w| bare.starts_with(w)) { bare.to_owned() } else { line.to_owned() }
    };
    let text: Vec<_> = EXAMPLE_POLICY.lines().map(line).collect();
    let text = text.join("\n").replace("64 hexadecimal digits", &"5e".repeat(32));
    let text = text.replace("64 other hexadecimal digits", &"5f".repeat(32));
    let policy = sound(&text);
    assert_eq!(policy.keys.ordered().len(), 1);
    assert!(policy.envoy.request_phase);
    let access = policy.access.as_ref().unwrap();
    assert_eq!((access.tokens.len(), access.issuers.len()), (1, 1));
    assert_ne!(policy.revision, sound(EXAMPLE_POLICY).revision);
}

fn named<'a>(limits: impl IntoIterator<Item = &'a Arc<Limit>>, id: &str) -> &'a Limit {
    limits
        .into_iter()
        .find(|limit| &*limit.id == id)
        .unwrap_or_else(|| panic!("{id} is not among the limits"))
}

const FULL: &str = r#"
[organization]
id = "acme"
budget = { monthly_usd = "500", weekly_usd = "100.01", alerts = ["33%", "$400"] }
tokens_per_day = 7
limits."openai/gpt-oss-120b".requests_per_minute = 1_000
[teams.chatbot]
models = ["openai/*"]
requests_per_minute = 60
audio_seconds_per_hour = 90
max_in_flight = 5
[teams.chatbot.limits."openai/*"]
tokens_per_hour = 8
[teams.chatbot.per_user]
requests_per_minute = 2
budget = { daily_usd = "1" }
[teams.chatbot.keys.chatbot-prod-web]
sha256 = "ABABABABABABABABABABABABABABABABabababababababababababababababab"
operations = ["chat_completion"]
budget = { daily_usd = "5", on_shortfall = "clamp", min_output_tokens = 9 }
max_in_flight = 2
expires = 2026-12-01T00:00:00+01:00
"#;

#[test]
fn limits_are_named_after_their_place_and_counted_by_whom_what_and_when() {
    let policy = sound(FULL);
    let team = &policy.teams["chatbot"];
    let key = policy.keys.find(&[0xab; 32]).unwrap();
    assert_eq!((&*key.team, &*key.name), ("chatbot", "chatbot-prod-web"));
    assert_eq!(key.expires_at, Some(Timestamp(1_796_079_600_000)));
    let of_organization: Vec<Arc<Limit>> = policy.organization.limits.iter().cloned().collect();
    let of_team: Vec<Arc<Limit>> = team.limits.iter().cloned().collect();
    for (limits, id, bound, counter) in [
        (&of_organization, "organization.budget.monthly_usd", Some(500_000_000_000), "org|usd|month"),
        (&of_organization, "organization.budget.weekly_usd", Some(100_010_000_000), "org|usd|week"),
        (&of_organization, "organization.tokens_per_day", Some(7), "org|tokens|day"),
        (
            &policy.organization.model_limits[0].1,
            "organization.limits.\"openai/gpt-oss-120b\".requests_per_minute",
            Some(1_000),
            "org/model/openai/gpt-oss-120b|requests|minute",
        ),
        (&of_team, "teams.chatbot.budget.monthly_usd", None, "team/chatbot|usd|month"),
        (&of_team, "teams.chatbot.requests_per_minute", Some(60), "team/chatbot|requests|minute"),
        (&of_team, "teams.chatbot.audio_seconds_per_hour", Some(90_000), "team/chatbot|audio|hour"),
        (&of_team, "teams.chatbot.max_in_flight", Some(5), "team/chatbot|in_flight"),
        (
            &team.model_limits[0].1,
            "teams.chatbot.limits.\"openai/*\".tokens_per_hour",
            Some(8),
            "team/chatbot/model/openai/*|tokens|hour",
        ),
        (
            &team.user_limits,
            "teams.chatbot.per_user.requests_per_minute",
            Some(2),
            "team/chatbot/user|requests|minute",
        ),
        (
            &team.user_limits,
            "teams.chatbot.per_user.budget.daily_usd",
            Some(1_000_000_000),
            "team/chatbot/user|usd|day",
        ),
        (
            &key.limits,
            "teams.chatbot.keys.chatbot-prod-web.budget.daily_usd",
            Some(5_000_000_000),
            "team/chatbot/key/chatbot-prod-web|usd|day",
        ),
    ] {
        let limit = named(limits, id);
        assert_eq!((limit.bound, limit.counter.name(), limit.counter.period()), (bound, counter, 0), "{id}");
    }
    let daily = named(&key.limits, "teams.chatbot.keys.chatbot-prod-web.budget.daily_usd");
    assert_eq!(
        (daily.on_shortfall, daily.min_output_tokens, daily.scope),
        (OnShortfall::Clamp, 9, LimitScope::Key)
    );
}

#[test]
fn the_first_limit_of_organization_and_team_is_the_months() {
    let text = "[organization]\nid = \"a\"\nbudget.daily_usd = \"1\"\n[teams.t]\nmodels = [\"*\"]\nrequests_per_day = 1";
    let policy = sound(text);
    for limits in [&policy.organization.limits, &policy.teams["t"].limits] {
        assert_eq!(limits.month.window, Window::Calendar(crate::domain::limit::Period::Month));
        let written =
            limits.iter().filter(|limit| limit.quantity != crate::domain::limit::Quantity::UnsettledRequests);
        // The declared one and the requests in flight, which are counted without a bound too.
        assert_eq!((limits.month.bound, written.count()), (None, 3));
        assert_eq!((limits.others[1].window, limits.others[1].bound), (Window::InFlight, None));
    }
}

#[test]
fn bounds_on_reports_are_there_without_a_word() {
    let bare = sound("[organization]\nid = \"a\"\n[teams.t]\nmodels = [\"*\"]");
    let said = sound(
        "[organization]\nid = \"a\"\nmax_cooldown = \"1h\"\n[teams.t]\nmodels = [\"*\"]\nmax_unsettled = 10_000_000\n\
         unreserved = { max_cost_usd = \"0\", daily_usd = \"0.5\" }",
    );
    for (policy, cooldown, unsettled, cost, daily) in [
        (&bare, 300_000, 100_000, 10_000_000_000, 100_000_000_000),
        (&said, 3_600_000, 10_000_000, 0, 500_000_000),
    ] {
        let team = &policy.teams["t"];
        let limit = named(&team.limits, "teams.t.max_unsettled");
        assert_eq!((policy.organization.max_cooldown_ms, limit.bound), (cooldown, Some(unsettled)));
        assert_eq!((team.unreserved.max_cost.nanos(), team.unreserved.daily.bound), (cost, Some(daily)));
        assert_eq!(&*team.unreserved.daily.id, "teams.t.unreserved.daily_usd");
        assert_eq!(team.unreserved.daily.counter.name(), "team/t/unreserved|usd|day");
    }
}

#[test]
fn bounds_on_reports_have_bounds_of_their_own() {
    for faulty in [
        "max_unsettled = 0",
        "max_unsettled = 10_000_001",
        "unreserved = { daily = \"1\" }",
        "unreserved = 5",
    ] {
        let text = format!("[organization]\nid = \"a\"\n[teams.t]\nmodels = [\"*\"]\n{faulty}");
        assert!(parse(&text).policy.is_none(), "{faulty}");
    }
}

#[test]
fn alerts_are_of_each_periods_budget_and_dollars_of_the_months() {
    let policy = sound(FULL);
    let shown = |id: &str| -> Vec<_> {
        let alerts = &named(&policy.organization.limits, id).alerts;
        alerts.iter().map(|a| (a.text.to_string(), a.amount.to_string(), a.percent)).collect()
    };
    let alert = |text: &str, amount: &str, percent| (text.to_owned(), amount.to_owned(), percent);
    assert_eq!(
        shown("organization.budget.monthly_usd"),
        [alert("33%", "165.00", 33), alert("$400", "400.00", 80)],
    );
    assert_eq!(shown("organization.budget.weekly_usd"), [alert("33%", "33.0033", 33)]);
}

#[test]
fn a_users_counter_ends_with_the_user() {
    let policy = sound(FULL);
    let shared = &policy.teams["chatbot"].user_limits[0].counter;
    assert_eq!(
        user_counter(&shared.in_period(20_261_123), "a|b").to_string(),
        "team/chatbot/user|usd|day|a|b@20261123"
    );
    assert_ne!(user_counter(shared, "a"), user_counter(shared, "b"));
}

#[test]
fn no_two_limits_share_a_counter() {
    let policy = sound(FULL);
    let team = &policy.teams["chatbot"];
    let by_model =
        policy.organization.model_limits.iter().chain(&team.model_limits).flat_map(|(_, limits)| limits);
    let keys = policy.keys.ordered().iter().flat_map(|key| &key.limits);
    let all = policy
        .organization
        .limits
        .iter()
        .chain(&team.limits)
        .chain(&team.user_limits)
        .chain(keys)
        .chain(by_model);
    let names: Vec<_> = all.map(|limit| limit.counter.name()).collect();
    assert_eq!(names.iter().collect::<HashSet<_>>().len(), names.len());
}

#[test]
fn a_mark_before_the_text_is_passed_over_and_yaml_is_named() {
    for (text, name) in [
        ("\u{feff}{\"organization\": {\"id\": \"acme\"}}", "policy.json"),
        ("\u{feff}[organization]\nid = \"acme\"\n", "policy.toml"),
    ] {
        let report = parse_policy_at(text, name, NOW);
        assert!(report.findings.is_empty() && report.policy.is_some(), "{report}");
    }
    for name in ["policy.yaml", "policy.YML"] {
        let report = parse_policy_at("organization:\n  id: acme\n", name, NOW);
        assert!(report.to_string().contains("YAML is not read; write TOML, or JSON"), "{report}");
    }
}

#[test]
fn json_says_the_same_as_toml() {
    let json = r#"{"teams": {"t": {"models": ["openai/*"], "budget": {"monthly_usd": "20"}}},
        "prices": [{"from": "2026-12-01", "model": "m", "usd_per_million_characters": "1"}],
        "organization": {"id": "acme", "tokens_per_day": 1000}}"#;
    let toml = "[organization]\ntokens_per_day = 1_000 # a day\nid = 'acme'\n[[prices]]\nmodel = 'm'\nfrom = 2026-12-01\n\
        usd_per_million_characters = '1'\n[teams.t]\nmodels = ['openai/*']\n[teams.t.budget]\nmonthly_usd = '20'";
    let from_json = parse_policy_at(json, "policy.json", NOW);
    assert!(from_json.findings.is_empty(), "{from_json}");
    assert_eq!(from_json.policy.unwrap().revision, sound(toml).revision);
    for (json, message) in [
        ("{\"organization\": {\"id\": \"a\", \"id\": \"b\"}}", "policy.json:1:39: error: duplicate key `id`"),
        (
            "{\"organization\": {\"id\": null}}",
            "policy.json: error: organization.id: expected a string, found null",
        ),
        ("[]", "policy.json: error: expected a table, found a list"),
        ("{", "policy.json:1:1: error: EOF while parsing an object"),
    ] {
        let report = parse_policy_at(json, "policy.json", NOW).to_string();
        assert!(report.contains(message), "{report}");
    }
}

#[test]
fn the_revision_is_of_the_meaning() {
    let base = "[organization]\nid = \"acme\"\nbudget = { monthly_usd = \"5\" }\n[teams.t]\nmodels = [\"*\"]";
    let revision = |text: &str| sound(text).revision;
    assert_eq!(revision(base).len(), 16);
    for same in [
        "# hello\n[teams.t]\nmodels = [ '*', ]\n[organization]\nid = 'acme'\nbudget.monthly_usd = '5'",
        "organization.budget.monthly_usd = \"5\"\norganization.id = \"acme\"\nteams.t.models = [\"*\"]",
    ] {
        assert_eq!(revision(same), revision(base));
    }
    let changes =
        [("acme", "acne"), ("\"5\"", "\"6\""), ("[\"*\"]", "[\"openai/*\"]"), ("teams.t]", "teams.u]")];
    let mut seen = HashSet::from([revision(base)]);
    for (from, to) in changes {
        assert!(seen.insert(revision(&base.replace(from, to))), "{to}");
    }
    assert!(seen.insert(revision(&format!("{base}\nmax_in_flight = 1"))));
}

#[test]
fn a_mutilated_policy_never_panics() {
    use proptest::test_runner::{Config, TestRunner};
    let source: Vec<char> = format!("{EXAMPLE_POLICY}{FULL}").chars().collect();
    let inserts: Vec<&str> =
        vec!["", "\"", "[", "]", "{", "}", "=", ".", "-", "9999999999999999999", "\n", "é", "*", "0"];
    let edit = (0..source.len(), 0..40_usize, proptest::sample::select(inserts));
    let edits = proptest::collection::vec(edit, 1..4);
    let mut runner = TestRunner::new(Config { cases: 300, failure_persistence: None, ..Config::default() });
    runner
        .run(&(edits, proptest::bool::ANY), |(edits, whole)| {
            let end = if whole { source.len() } else { source.len() - FULL.chars().count() };
            let mut text = source[..end].to_vec();
            for (at, length, insert) in edits {
                let at = at.min(text.len());
                let to = (at + length).min(text.len());
                text.splice(at..to, insert.chars());
            }
            let text: String = text.into_iter().collect();
            let report = parse(&text);
            assert_eq!(report.policy.is_some(), report.errors() == 0);
            let _ = report.to_string();
            let _ = parse_policy_at(&text, "policy.json", NOW);
            Ok(())
        })
        .unwrap();
}

mod access;
mod envoy;
mod faulty;
mod reference;
pub(super) mod schema;
