//! What a policy says of Envoy: read, and what is wrong with it.

use std::sync::Arc;

use super::{said, sound};
use crate::domain::policy::envoy::{CallerSource, FreeGroup, KeyPlace, OnOutage};

const TEAM: &str = "[organization]\nid = \"acme\"\n[teams.t]\nmodels = [\"openai/gpt-oss-20b\"]\n";

#[test]
fn reads_what_holds_for_envoy() {
    let policy = sound(
        "[organization]\nid = \"acme\"\n[teams.t]\nmodels = [\"*\"]\n[envoy]\n\
         callers = [\"principal\", \"header\", \"api_key\"]\nteam_header = \"X-Team\"\nuser_header = \"x-user\"\n\
         principals = { \"spiffe://acme/web\" = \"t\" }\nallow = [\"files\", \"models\"]\nrequest_phase = true\n\
         include_usage = true\naudio_bytes_per_second = 32_000\non_outage = \"deny\"\n[groq]\nkey_file = \"/run/key\"\n",
    );
    let envoy = &policy.envoy;
    let principals = [(Arc::from("spiffe://acme/web"), Arc::from("t"))].into();
    let header = CallerSource::Header("x-team".into());
    assert_eq!(envoy.callers, [CallerSource::Principal(principals), header, CallerSource::ApiKey]);
    assert_eq!(envoy.user_header.as_deref(), Some("x-user"));
    assert_eq!(envoy.free, [FreeGroup::Files, FreeGroup::Models]);
    assert!(envoy.request_phase && envoy.include_usage);
    assert_eq!((envoy.audio_bytes_per_second, envoy.on_outage), (32_000, OnOutage::Deny));
    assert_eq!(policy.upstream_key, KeyPlace::File("/run/key".into()));

    let silent = sound("[organization]\nid = \"acme\"\n[teams.t]\nmodels = [\"*\"]\n");
    assert_eq!(silent.envoy.callers, [CallerSource::ApiKey]);
    assert_eq!(silent.envoy.free, [FreeGroup::Models]);
    assert!(!silent.envoy.request_phase && silent.envoy.on_outage == OnOutage::Error);
    assert_eq!(silent.upstream_key, KeyPlace::Environment("GROQ_API_KEY".to_owned()));
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
        (
            "[groq]\nkey_env = \"A\"\nkey_file = \"b\"",
            "7:1: error: groq.key_file: ",
            "`key_env` is given as well",
        ),
        ("[groq]\nkey_file = \"\"", "6:1: error: groq.key_file: ", "must not be empty"),
        ("[groq]\nkey_env = \"gsk_secret\"", "6:1: error: groq.key_env: ", "not the name of a variable"),
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
