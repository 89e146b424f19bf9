//! `mode` and `shadow`.

use super::*;
use crate::domain::limit::LimitMode;

#[test]
fn a_mode_is_one_of_two_words() {
    for (text, place) in [
        ("[organization]\nid = \"a\"\nmode = \"off\"", "3:1: error: organization.mode: "),
        (&format!("{TEAM}mode = \"warn\""), "5:1: error: teams.t.mode: "),
        (&format!("{TEAM}per_user = {{ mode = \"x\" }}"), "5:14: error: teams.t.per_user.mode: "),
        (&format!("{TEAM}[teams.t.keys.k]\n{SHA}mode = \"\""), "7:1: error: teams.t.keys.k.mode: "),
        (
            &format!("{TEAM}budget = {{ daily_usd = \"1\", mode = \"SHADOW\" }}"),
            "5:29: error: teams.t.budget.mode: ",
        ),
        (
            &format!("{TEAM}[teams.t.limits.\"openai/gpt-oss-20b\"]\nrequests_per_day = 1\nmode = \"on\""),
            "7:1: error: teams.t.limits.\"openai/gpt-oss-20b\".mode: ",
        ),
    ] {
        expect(text, &[(place, "is not one of \"enforce\", \"shadow\"")]);
    }
    expect(&format!("{TEAM}mode = true"), &[("5:1: error: teams.t.mode: ", "expected a string")]);
    expect(
        &format!("{TEAM}batch = {{ mode = \"shadow\" }}"),
        &[
            ("5:1: warning: teams.t.batch: ", "caps nothing"),
            ("5:11: error: teams.t.batch.mode: ", "unknown key `mode`"),
        ],
    );
}

#[test]
fn single_limits_in_shadow_are_set_beside_it() {
    let rate = "requests_per_minute = 5\n";
    for (list, finding) in [
        ("[\"requests_per_minut\"]", ("error: teams.t.shadow[0]: ", "did you mean `requests_per_minute`?")),
        ("[\"tokens_per_day\"]", ("error: teams.t.shadow[0]: ", "`tokens_per_day` is not set here")),
        ("[\"models\"]", ("error: teams.t.shadow[0]: ", "limits that can be listed: requests_per_minute")),
        ("[\"budget\"]", ("error: teams.t.shadow[0]: ", "write `mode = \"shadow\"` into the budget")),
        (
            "[\"requests_per_minute\", \"requests_per_minute\"]",
            ("warning: teams.t.shadow[1]: ", "listed twice"),
        ),
        ("\"requests_per_minute\"", ("error: teams.t.shadow: ", "expected a list of strings")),
        ("[5]", ("error: teams.t.shadow[0]: ", "expected a string")),
    ] {
        let said = said(&format!("{TEAM}{rate}shadow = {list}"));
        assert!(said.len() == 1 && said[0].contains(finding.0) && said[0].contains(finding.1), "{said:?}");
    }
    expect(
        &format!("{TEAM}{rate}mode = \"shadow\"\nshadow = [\"requests_per_minute\"]"),
        &[("7:1: warning: teams.t.shadow: ", "the whole table is in shadow")],
    );
    for sound in ["shadow = []", "shadow = [\"requests_per_minute\"]"] {
        expect(&format!("{TEAM}{rate}{sound}"), &[]);
    }
}

/// The mode of each limit, by its id.
fn modes(text: &str) -> Vec<(String, bool)> {
    let policy = sound(text);
    let mut limits: Vec<_> = policy.organization.limits.iter().cloned().collect();
    limits.extend(policy.organization.model_limits.iter().flat_map(|(_, limits)| limits.clone()));
    for team in policy.teams.values() {
        limits.extend(team.limits.iter().cloned());
        limits.extend(team.model_limits.iter().flat_map(|(_, limits)| limits.clone()));
        limits.extend(team.user_limits.iter().cloned().chain(team.batch.open.clone()));
        limits.push(team.unreserved.daily.clone());
    }
    limits.extend(policy.keys.ordered().iter().flat_map(|key| key.limits.clone()));
    let bounded = limits.iter().filter(|limit| limit.bound.is_some());
    bounded.map(|limit| (limit.id.to_string(), limit.mode == LimitMode::Shadow)).collect()
}

#[test]
fn a_table_has_the_mode_of_the_one_around_it() {
    let text = format!(
        "{TEAM}mode = \"shadow\"\nrequests_per_day = 9\nbudget = {{ daily_usd = \"1\", monthly_usd = \"2\", mode = \"enforce\" }}\n\
         per_user = {{ mode = \"enforce\", requests_per_hour = 1, requests_per_day = 2, shadow = [\"requests_per_day\"] }}\n\
         batch = {{ max_open = 1 }}\nlimits.\"openai/*\" = {{ tokens_per_day = 1 }}\n\
         [teams.t.keys.t-prod-k]\n{SHA}requests_per_day = 8\n"
    );
    let mut modes = modes(&text);
    modes.sort();
    modes.dedup();
    let expected = [
        ("teams.t.batch.max_open", true),
        ("teams.t.budget.daily_usd", false),
        ("teams.t.budget.monthly_usd", false),
        ("teams.t.keys.t-prod-k.requests_per_day", false),
        ("teams.t.limits.\"openai/*\".tokens_per_day", true),
        ("teams.t.max_unsettled", false),
        ("teams.t.per_user.requests_per_day", true),
        ("teams.t.per_user.requests_per_hour", false),
        ("teams.t.requests_per_day", true),
        // A bound on reports, not on requests.
        ("teams.t.unreserved.daily_usd", false),
    ];
    assert_eq!(modes, expected.map(|(id, shadow)| (id.to_owned(), shadow)));
}
