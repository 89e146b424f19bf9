//! Tests reading the Envoy section of a policy, valid and faulty.

use std::sync::Arc;

use super::{said, sound};
use crate::domain::policy::{
    envoy::{CallerSource, FreeGroup, OnOutage},
    upstream::KeyPlace,
};

const TEAM: &str = "[organization]\nid = \"acme\"\n[teams.t]\nmodels = [\"openai/gpt-oss-20b\"]\n";

#[test]
fn reads_what_holds_for_envoy() {
    let policy = sound(
        "[organization]\nid = \"acme\"\n[teams.t]\nmodels = [\"*\"]\n[envoy]\n\
         callers = [\"principal\", \"header\", \"api_key\"]\nteam_header = \"X-Team\"\nuser_header = \"x-user\"\n\
         principals = { \"spiffe://acme/web\" = \"t\" }\nallow = [\"files\", \"models\"]\nrequest_phase = true\n\
         include_usage = true\naudio_bytes_per_second = 32_000\non_outage = \"deny\"\n\
         label_headers = { cost_center = \"X-Cost-Center\", env = \"x-env\" }\n",
    );
    let envoy = &policy.envoy;
    let principals = [(Arc::from("spiffe://acme/web"), Arc::from("t"))].into();
    let header = CallerSource::Header("x-team".into());
    assert_eq!(envoy.callers, [CallerSource::Principal(principals), header, CallerSource::ApiKey]);
    assert_eq!(envoy.user_header.as_deref(), Some("x-user"));
    let header = |label: &str, header: &str| (Arc::from(label), Arc::from(header));
    assert_eq!(envoy.label_headers, [header("cost_center", "x-cost-center"), header("env", "x-env")]);
    assert_eq!(envoy.free, [FreeGroup::Files, FreeGroup::Models]);
    assert!(envoy.request_phase && envoy.include_usage);
    assert_eq!((envoy.audio_bytes_per_second, envoy.on_outage), (32_000, OnOutage::Deny));

    let silent = sound("[organization]\nid = \"acme\"\n[teams.t]\nmodels = [\"*\"]\n");
    assert_eq!(silent.envoy.callers, [CallerSource::ApiKey]);
    assert_eq!(silent.envoy.free, [FreeGroup::Models]);
    assert!(!silent.envoy.request_phase && silent.envoy.on_outage == OnOutage::Error);
}

#[test]
fn what_is_wrong_is_said_with_its_place() {
    for (text, place, message) in [
        ("[envoy]\ncallers = [\"apikey\"]", "6:12: error: envoy.callers[0]: ", "did you mean `api_key`?"),
        ("[envoy]\ncallers = [\"header\"]", "6:12: error: envoy.callers[0]: ", "needs `team_header`"),
        ("[envoy]\ncallers = []", "6:1: warning: envoy.callers: ", "every request through Envoy is refused"),
        (
            "[envoy]\ncallers = [\"route\", \"route\"]",
            "6:21: warning: envoy.callers[1]: ",
            "`route` is listed twice",
        ),
        ("[envoy]\nteam_header = \"x-team\"", "6:1: warning: envoy.team_header: ", "never read"),
        (
            "[envoy]\ncallers = [\"header\"]\nteam_header = \"x team\"",
            "7:1: error: envoy.team_header: ",
            "not the name of a header",
        ),
        ("[envoy]\nuser_header = \"Authorization\"", "6:1: error: envoy.user_header: ", "has another use"),
        (
            "[envoy]\ncallers = [\"header\"]\nteam_header = \"x-a\"\nuser_header = \"X-A\"",
            "8:1: error: envoy.user_header: ",
            "the same header as `team_header`",
        ),
        (
            "[envoy]\nlabel_headers = { a = \"x a\" }",
            "6:19: error: envoy.label_headers.a: ",
            "not the name of a header",
        ),
        (
            "[envoy]\nlabel_headers = { a = \"Host\" }",
            "6:19: error: envoy.label_headers.a: ",
            "has another use",
        ),
        (
            "[envoy]\nlabel_headers = { \"\" = \"x-a\" }",
            "6:19: error: envoy.label_headers.\"\": ",
            "not a label of requests",
        ),
        ("[envoy]\nprincipals = { a = \"t\" }", "6:1: warning: envoy.principals: ", "never read"),
        (
            "[envoy]\ncallers = [\"principal\"]\nprincipals = { a = \"x\" }",
            "7:16: error: envoy.principals.a: ",
            "the policy has no team `x`",
        ),
        ("[envoy]\nallow = [\"model\"]", "6:10: error: envoy.allow[0]: ", "did you mean `models`?"),
        ("[envoy]\nrequest_phase = \"on\"", "6:1: error: envoy.request_phase: ", "expected true or false"),
        ("[envoy]\ninclude_usage = true", "6:1: warning: envoy.include_usage: ", "without `request_phase`"),
        (
            "[envoy]\naudio_bytes_per_second = 0",
            "6:1: error: envoy.audio_bytes_per_second: ",
            "`0` is not between 1 and",
        ),
        ("[envoy]\non_outage = \"allow\"", "6:1: error: envoy.on_outage: ", "\"error\", \"deny\""),
        ("[envoy]\ncaller = []", "6:1: error: envoy.caller: ", "did you mean `callers`?"),
    ] {
        let text = format!("{TEAM}{text}");
        let said = said(&text);
        let found = said
            .iter()
            .any(|said| said.starts_with(&format!("policy.toml:{place}")) && said.contains(message));
        assert!(found, "{text}\n{}\nexpected {place} … {message}", said.join("\n"));
        assert!(!said.iter().any(|said| said.contains("gsk_secret")), "{}", said.join("\n"));
    }
}

#[test]
fn reads_projects() {
    let base = "[organization]\nid = \"acme\"\n[teams.a]\nmodels = [\"*\"]\n[teams.b]\nmodels = [\"*\"]\n";
    let policy = sound(&format!(
        "{base}[projects.main]\nkeys = [{{ env = \"KEY\" }}, {{ file = \"/f\" }}]\n\
         [projects.lab]\nkeys = [{{ directory = \"/d\" }}]\nteams = [\"b\"]\n"
    ));
    let of = |team| policy.projects.of(team).map(|project| (&*project.name, project.places.len()));
    assert_eq!((of("a"), of("b"), of("else")), (Some(("main", 2)), Some(("lab", 1)), Some(("main", 2))));
    assert!(policy.projects.is_declared());
    let silent = sound(base);
    assert_eq!(silent.projects.of("a").unwrap().places, [KeyPlace::Environment("GROQ_API_KEY".to_owned())]);
    assert!(!silent.projects.is_declared());
    // The settings may say where the keys are.
    let elsewhere = sound(&format!("{base}[projects.main]\n"));
    assert_eq!(elsewhere.projects.of("a").unwrap().places, []);
}

#[test]
fn what_is_wrong_with_projects_is_said_with_its_place() {
    for (text, place, message) in [
        ("[projects.Main]\nkeys = []", "5:11: error: projects.Main: ", "`Main` is not a name"),
        ("[projects.a]\nkeys = [{}]", "6:9: error: projects.a.keys[0]: ", "names no place"),
        (
            "[projects.a]\nkeys = [{ env = \"A\", file = \"b\" }]",
            "6:22: error: projects.a.keys[0].file: ",
            "another place is given as well",
        ),
        (
            "[projects.a]\nkeys = [{ env = \"gsk_secret\" }]",
            "6:11: error: projects.a.keys[0].env: ",
            "not the name of a place",
        ),
        ("[projects.a]\nkeys = []\nteams = [\"x\"]", "7:10: error: projects.a.teams[0]: ", "no team `x`"),
        (
            "[projects.a]\nkeys = []\n[projects.b]\nkeys = []",
            "7:11: error: projects.b: ",
            "`a` is the project of all other teams already",
        ),
        (
            "[projects.a]\nkeys = []\nteams = [\"t\"]\n[projects.b]\nkeys = []\nteams = [\"t\"]",
            "10:10: error: projects.b.teams[0]: ",
            "`t` is of project `a` already",
        ),
        ("[projects.a]\nkeys = []\nteams = []", "3:8: warning: teams.t: ", "team `t` is of no project"),
    ] {
        let text = format!("{TEAM}{text}");
        let said = said(&text);
        let found = said
            .iter()
            .any(|said| said.starts_with(&format!("policy.toml:{place}")) && said.contains(message));
        assert!(found, "{text}\n{}\nexpected {place} … {message}", said.join("\n"));
        assert!(!said.iter().any(|said| said.contains("gsk_secret")), "{}", said.join("\n"));
    }
}
