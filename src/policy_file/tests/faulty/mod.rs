//! Faulty policies: each line here is a fault and the expected finding, word for word or in part.

mod mode;
mod outage;
mod prices;

use super::*;

const HEAD: &str = "[organization]\nid = \"acme\"\n";
const TEAM: &str = "[organization]\nid = \"acme\"\n[teams.t]\nmodels = [\"openai/gpt-oss-20b\"]\n";
const SHA: &str = "sha256 = \"abababababababababababababababababababababababababababababababab\"\n";

/// Expects exactly these findings, in this order: each begins with `line:column: severity: key: `, and the message follows.
fn expect(text: &str, findings: &[(&str, &str)]) {
    let said = said(text);
    assert_eq!(said.len(), findings.len(), "{text}\n{}", said.join("\n"));
    for (said, (place, message)) in said.iter().zip(findings) {
        let begins = format!("policy.toml:{place}");
        assert!(
            said.starts_with(&begins) && said.contains(message),
            "{text}\n{said}\nexpected {begins} … {message}"
        );
    }
}

#[test]
fn syntax() {
    for (text, place, message) in [
        ("[organization", "1:14: error: ", "invalid table header"),
        ("[organization]\nid = \"a\"\nid = \"b\"", "3:1: error: ", "duplicate key `id`"),
        ("[teams.a]\n[teams.b]\n[teams.a]", "3:1: error: ", "duplicate key `a`"),
        ("id = 99999999999999999999", "1:6: error: ", "number too large"),
    ] {
        expect(text, &[(place, message)]);
    }
}

#[test]
fn the_organization() {
    for (text, place, message) in [
        ("", ": error: ", "`organization` is missing"),
        ("[organization]", "1:2: error: organization: ", "`id` is missing"),
        ("[organization]\nid = 5", "2:1: error: organization.id: ", "expected a string, found an integer"),
        ("[organization]\nid = \"Acme Inc\"", "2:1: error: organization.id: ", "`Acme Inc` is not a name"),
        ("organization = 1", "1:1: error: organization: ", "expected a table, found an integer"),
        (
            "[organization]\nid = \"a\"\ntime_zone = \"Berlin\"",
            "3:1: error: organization.time_zone: ",
            "`Europe/Berlin`",
        ),
        (
            "[organization]\nid = \"a\"\ntime_zon = \"UTC\"",
            "3:1: error: organization.time_zon: ",
            "did you mean `time_zone`?",
        ),
        (
            "[organization]\nid = \"a\"\ncolour = 1",
            "3:1: error: organization.colour: ",
            "known keys here: id, time_zone",
        ),
        (
            "organisation = 1\n[organization]\nid = \"a\"",
            "1:1: error: organisation: ",
            "did you mean `organization`?",
        ),
    ] {
        let text = text.to_owned();
        let said = said(&text);
        assert_eq!(said.len(), 1, "{}", said.join("\n"));
        let separator = if place.starts_with(':') { "" } else { ":" };
        let begins = format!("policy.toml{separator}{place}");
        assert!(said[0].starts_with(&begins) && said[0].contains(message), "{}\n{begins}", said[0]);
    }
}

#[test]
fn numbers_and_money() {
    for (line, severity, key, message) in [
        (
            "requests_per_minute = -1",
            "error",
            "requests_per_minute",
            "`-1` is not between 0 and 9007199254740991",
        ),
        (
            "requests_per_minute = 1.5",
            "error",
            "requests_per_minute",
            "expected a whole number, found a fractional",
        ),
        (
            "requests_per_minute = \"60\"",
            "error",
            "requests_per_minute",
            "expected a whole number, found a string",
        ),
        ("tokens_per_day = 9007199254740992", "error", "tokens_per_day", "is not between 0 and"),
        ("audio_seconds_per_day = 9007199254741", "error", "audio_seconds_per_day", "0 and 9007199254740"),
        ("tokens_per_hour = 0", "warning", "tokens_per_hour", "nothing will ever pass"),
        ("max_cooldown = \"999ms\"", "error", "max_cooldown", "`999ms` is not from 1s to 1h"),
        ("max_cooldown = \"1h1ms\"", "error", "max_cooldown", "`1h1ms` is not from 1s to 1h"),
        ("max_cooldown = \"300\"", "error", "max_cooldown", "such as \"5m\""),
        ("max_cooldown = 300", "error", "max_cooldown", "expected a string, found an integer"),
        ("max_in_flight = 0", "warning", "max_in_flight", "nothing will ever pass"),
        ("budget.monthly_usd = 200", "error", "budget.monthly_usd", "write it as a string: \"200\""),
        ("budget.monthly_usd = 200.5", "error", "budget.monthly_usd", "a fractional number is not exact"),
        (
            "budget.monthly_usd = \"$200\"",
            "error",
            "budget.monthly_usd",
            "`$200` is not an amount of dollars",
        ),
        ("budget.monthly_usd = \"-1\"", "error", "budget.monthly_usd", "`-1` is not an amount of dollars"),
        ("budget.daily_usd = \"0\"", "warning", "budget.daily_usd", "nothing will ever pass"),
        ("budget.yearly_usd = \"1\"", "error", "budget", "a budget without an amount"),
        ("budget = \"200\"", "error", "budget", "expected a table, found a string"),
        (
            "budget = { monthly_usd = \"1\", daily_usd = \"2\" }",
            "warning",
            "budget.daily_usd",
            "never refuses anything",
        ),
        (
            "budget = { daily_usd = \"2\", on_shortfall = \"block\" }",
            "error",
            "budget.on_shortfall",
            "`block` is not one of",
        ),
        (
            "budget = { daily_usd = \"2\", min_output_tokens = 5 }",
            "warning",
            "budget.min_output_tokens",
            "no effect",
        ),
        ("request_per_minute = 5", "error", "request_per_minute", "did you mean `requests_per_minute`?"),
    ] {
        let said = said(&format!("{HEAD}{line}"));
        let begins = |s: &String| {
            s.starts_with("policy.toml:3:") && s.contains(&format!(": {severity}: organization.{key}: "))
        };
        assert!(said.iter().any(|s| begins(s) && s.contains(message)), "{line}\n{}", said.join("\n"));
        assert_eq!(parse(&format!("{HEAD}{line}")).policy.is_none(), severity == "error", "{line}");
    }
}

#[test]
fn alerts() {
    for (alerts, severity, message) in [
        ("[\"0%\"]", "error", "`0%` is neither a percentage nor dollars"),
        ("[\"1001%\"]", "error", "`1001%` is neither"),
        ("[\"80\"]", "error", "`80` is neither"),
        ("[\"+80%\"]", "error", "`+80%` is neither"),
        ("[\"%\"]", "error", "`%` is neither"),
        ("[\"$0\"]", "error", "`$0` is neither"),
        ("[\"$-4\"]", "error", "`$-4` is neither"),
        ("[80]", "error", "expected a string, found an integer"),
        ("\"80%\"", "error", "expected a list of strings, found a string"),
        ("[\"80%\", \"80%\"]", "warning", "`80%` is listed twice"),
        ("[\"$600\"]", "warning", "`$600` is more than the month's budget"),
    ] {
        let said = said(&format!("{HEAD}budget = {{ monthly_usd = \"500\", alerts = {alerts} }}"));
        assert!(
            said.len() == 1 && said[0].contains(&format!(": {severity}: organization.budget.alerts")),
            "{said:?}"
        );
        assert!(said[0].contains(message), "{said:?}");
    }
    let many = |count| (1..=count).map(|percent| format!("\"{percent}%\"")).collect::<Vec<_>>().join(", ");
    let budget = |alerts| format!("{HEAD}budget = {{ monthly_usd = \"500\", alerts = [{alerts}] }}");
    expect(&budget(many(32)), &[]);
    expect(&budget(many(33)), &[("3:33: error: organization.budget.alerts: ", "33 thresholds are too many")]);
    expect(
        &format!("{HEAD}budget = {{ daily_usd = \"5\", alerts = [\"80%\", \"$4\"] }}"),
        &[("3:46: error: organization.budget.alerts[1]: ", "`$4` without a monthly budget")],
    );
    expect(
        &format!("{HEAD}budget = {{ alerts = [\"80%\"] }}"),
        &[("3:1: error: organization.budget: ", "a budget without an amount")],
    );
}

#[test]
fn teams() {
    for (lines, findings) in [
        ("[teams.t]", &[("3:8: error: teams.t: ", "`models` is missing")][..]),
        ("[teams.\"a b\"]\nmodels = [\"*\"]", &[("3:8: error: teams.\"a b\": ", "`a b` is not a name")]),
        ("[teams.\"a/b\"]\nmodels = [\"*\"]", &[("3:8: error: teams.\"a/b\": ", "`a/b` is not a name")]),
        (
            "[teams.t]\nmodels = []",
            &[(
                "4:1: error: teams.t.models: `models` lists nothing",
                "`[\"*\"]` is every model; to permit nothing, pause",
            )],
        ),
        (
            "[teams.t]\nmodels = [\"*\", \"*\"]",
            &[("4:16: warning: teams.t.models[1]: ", "`*` is listed twice")],
        ),
        (
            "[teams.t]\nmodels = [\"o*i\"]",
            &[("4:11: error: teams.t.models[0]: ", "`o*i` is not the name of a model")],
        ),
        (
            "[teams.t]\nmodels = [\"a|b\"]",
            &[("4:11: error: teams.t.models[0]: ", "`a|b` is not the name of a model")],
        ),
        (
            "[teams.t]\nmodels = [\"\"]",
            &[("4:11: error: teams.t.models[0]: ", "`` is not the name of a model")],
        ),
        (
            "[teams.t]\nmodels = [\"*\"]\noperations = [\"respond\"]",
            &[("5:15: error: ", "did you mean `response`?")],
        ),
        (
            "[teams.t]\nmodels = [\"*\"]\noperations = [\"chat\", \"responses\", \"embeddings\"]",
            &[
                ("5:15: error: teams.t.operations[0]: `chat` is not an operation", "write `chat_completion`"),
                ("5:23: error: teams.t.operations[1]: `responses` is not", "write `response`"),
                ("5:36: error: teams.t.operations[2]: `embeddings` is not", "write `embedding`"),
            ],
        ),
        (
            "[teams.t]\nmodels = [\"*\"]\noperations = []",
            &[(
                "5:1: error: teams.t.operations: `operations` lists nothing",
                "for every operation, leave the key out",
            )],
        ),
        (
            "[teams.t]\nmodels = [\"*\"]\non_exceed = \"clamp\"",
            &[("5:1: warning: ", "`clamp` without `max_output")],
        ),
        (
            "[teams.t]\nmodels = [\"*\"]\non_exceed = \"cut\"",
            &[("5:1: error: ", "not one of \"deny\", \"clamp\"")],
        ),
        (
            "[teams.t]\nmodels = [\"*\"]\non_unsettled = \"free\"",
            &[("5:1: error: ", "\"charge_reserved\", ")],
        ),
        (
            "[teams.t]\nmodels = [\"*\"]\nmax_output_tokens = 0",
            &[("5:1: warning: ", "nothing that writes text")],
        ),
        ("[teams]\nt = 5", &[("4:1: error: teams.t: ", "expected a table, found an integer")]),
        (
            "[teams.t]\nmodel = [\"*\"]\nrequests_per_minute = -1",
            &[
                ("3:8: error: teams.t: ", "`models` is missing"),
                ("4:1: error: teams.t.model: ", "did you mean `models`?"),
                ("5:1: error: teams.t.requests_per_minute: ", "`-1`"),
            ],
        ),
    ] {
        expect(&format!("{HEAD}{lines}"), findings);
    }
}

#[test]
fn models_and_limits_of_models() {
    for (lines, place, message) in [
        ("models = [\"openai/gpt-oss-12b\"]", "4:11: warning: ", "did you mean `openai/gpt-oss-120b`?"),
        ("models = [\"gpt-5\"]", "4:11: warning: ", "`gpt-5` is no known model and has no price"),
        ("models = [\"qwen/qwen3-32b\"]", "4:11: warning: ", "was shut down by Groq on 2026-07-17"),
        ("models = [\"llama-3.1-8b-instant\"]", "4:11: warning: ", "sold by contract only"),
        ("models = [\"allam-2-7b\"]", "4:11: warning: ", "`allam-2-7b` has no price"),
        ("models = [\"mistral/*\"]", "4:11: warning: ", "`mistral/*` matches no known model"),
        ("models = [\"openai/*\"]\nmax_output_tokens = 65537", "5:1: warning: ", "can produce, 65536"),
        (
            "models = [\"openai/*\"]\n[teams.t.limits.\"qwen/*\"]\ntokens_per_day = 1",
            "5:17: warning: ",
            "may not use `qwen/*`",
        ),
        ("models = [\"openai/*\"]\n[teams.t.limits.\"openai/*\"]", "5:17: warning: ", "limits nothing"),
        (
            "models = [\"openai/*\"]\n[teams.t.limits.\"o p\"]\ntokens_per_day = 1",
            "5:17: error: ",
            "`o p` is not the name",
        ),
        (
            "models = [\"openai/*\"]\n[teams.t.limits.\"openai/*\"]\nbudget.daily_usd = \"1\"",
            "5:17: warning: ",
            "nothing",
        ),
    ] {
        let said = said(&format!("{HEAD}[teams.t]\n{lines}"));
        let fits =
            |s: &&String| s.starts_with(&format!("policy.toml:{place}teams.t.")) && s.contains(message);
        assert!(said.iter().find(fits).is_some(), "{lines}\n{}", said.join("\n"));
    }
}

#[test]
fn a_key_never_widens_its_team() {
    let team = "max_output_tokens = 100\noperations = [\"chat_completion\"]\nrequests_per_minute = 10\nmax_in_flight = 2\n\
        budget.daily_usd = \"5\"\n[teams.t.keys.k]\n";
    for (line, key, message) in [
        ("models = [\"openai/*\"]", "models[0]", "`openai/*` is not among the models of team `t`"),
        ("operations = [\"batch\"]", "operations[0]", "`batch` is not among the operations of team `t`"),
        (
            "max_output_tokens = 101",
            "max_output_tokens",
            "`101` is more than the team's `max_output_tokens`, 100",
        ),
        ("requests_per_minute = 11", "requests_per_minute", "`11` is more than the team's, 10"),
        ("max_in_flight = 3", "max_in_flight", "`3` is more than the team's, 2"),
        ("budget.daily_usd = \"5.01\"", "budget.daily_usd", "`5.01` is more than the team's, 5.00"),
    ] {
        expect(
            &format!("{TEAM}{team}{SHA}{line}"),
            &[("12:", &format!("error: teams.t.keys.k.{key}: {message}"))],
        );
    }
    // A limit equal to the team's, or in another window, is not higher.
    let equal = "models = [\"openai/gpt-oss-20b\"]\nmax_output_tokens = 100\nrequests_per_minute = 10\nrequests_per_day = 99";
    expect(&format!("{TEAM}{team}{SHA}{equal}"), &[]);
    let user = "requests_per_minute = 10\n[teams.t.per_user]\nrequests_per_minute = 11";
    expect(
        &format!("{TEAM}{user}"),
        &[("7:1: warning: teams.t.per_user.requests_per_minute: ", "larger than the team's")],
    );
}

#[test]
fn keys() {
    for (lines, findings) in [
        ("", &[("5:15: error: teams.t.keys.k: ", "`sha256` is missing")][..]),
        ("sha256 = \"hunter2\"", &[("6:1: error: teams.t.keys.k.sha256: ", "not 64 hexadecimal digits")]),
        (
            "sha256 = \"ééééééééééééééééééééééééééééééééé\"",
            &[("6:1: error: teams.t.keys.k.sha256: ", "not 64 hexadecimal digits")],
        ),
    ] {
        expect(&format!("{TEAM}[teams.t.keys.k]\n{lines}"), findings);
        assert!(!said(&format!("{TEAM}[teams.t.keys.k]\n{lines}")).join("").contains("hunter2"));
    }
    for (line, place, message) in [
        (
            "models = []",
            "7:1: error: teams.t.keys.k.models: ",
            "for the team's models, leave the key out; to permit",
        ),
        ("operations = []", "7:1: error: teams.t.keys.k.operations: ", "or set `requests_per_minute = 0`"),
        ("labels = { \"\" = \"x\" }", "7:12: error: teams.t.keys.k.labels.\"\": ", "keys have 1 to 64 bytes"),
        ("labels = { cost_center = 7 }", "7:12: error: ", "expected a string, found an integer"),
        ("labels = [\"a\"]", "7:1: error: ", "expected a table, found a list"),
        ("expires = 2026-11-23", "7:1: warning: teams.t.keys.k.expires: ", "has expired"),
        ("expires = \"soon\"", "7:1: error: teams.t.keys.k.expires: ", "`soon` is not a date"),
        ("expires = 5", "7:1: error: teams.t.keys.k.expires: ", "expected a date, found an integer"),
        ("expires = 12:00:00", "7:1: error: teams.t.keys.k.expires: ", "`12:00:00` is not a date"),
        ("[teams.t.keys.l]\n".trim(), "7:15: error: teams.t.keys.l: ", "`sha256` is missing"),
    ] {
        expect(&format!("{TEAM}[teams.t.keys.k]\n{SHA}{line}"), &[(place, message)]);
    }
    let many = |count| (0..count).map(|n| format!("l{n} = \"\"")).collect::<Vec<_>>().join(", ");
    let labels = |count| format!("{TEAM}[teams.t.keys.k]\n{SHA}labels = {{ {} }}", many(count));
    expect(&labels(16), &[]);
    expect(&labels(17), &[("7:1: error: teams.t.keys.k.labels: ", "17 labels; at most 16 are permitted")]);
    expect(
        &format!("{TEAM}[teams.t.keys.k]\n{SHA}[teams.u]\nmodels = [\"*\"]\n[teams.u.keys.k]\n{SHA}"),
        &[("10:1: error: teams.u.keys.k.sha256: ", "the same as the secret of `teams.t.keys.k`")],
    );
}

#[test]
fn teams_together() {
    let two = |each: &str| {
        format!("[teams.a]\nmodels = [\"*\"]\n{each}\n[teams.b]\nmodels = [\"openai/*\"]\n{each}")
    };
    let budget =
        |cap: &str| format!("{HEAD}budget.monthly_usd = \"{cap}\"\n{}", two("budget.monthly_usd = \"60\""));
    expect(&budget("120"), &[]);
    expect(
        &budget("119.99"),
        &[(
            "3:8: warning: organization.budget.monthly_usd: ",
            "the teams' budgets come to 120.00, more than the organization's 119.99",
        )],
    );
    let rates = |cap: u32| {
        let limit = format!("[organization.limits.\"openai/gpt-oss-20b\"]\ntokens_per_minute = {cap}\n");
        format!("{HEAD}{limit}{}", two("tokens_per_minute = 60\nlimits.\"openai/*\".tokens_per_minute = 50"))
    };
    expect(&rates(100), &[]);
    expect(
        &rates(99),
        &[(
            "4:1: warning: organization.limits.\"openai/gpt-oss-20b\".tokens_per_minute: ",
            "come to 100, more than the organization's 99",
        )],
    );
}
