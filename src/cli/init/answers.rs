//! What a new organization is to be: each answer read and checked as it comes, from a flag or from a terminal.

use std::{fs, path::Path};

use jiff::tz::TimeZone;

use super::tier::Tier;
use crate::domain::{
    money::NanoUsd,
    name::{MAX_NAME_BYTES, is_name},
};

/// The most teams: a policy of more is better written by a program.
pub(super) const MAX_TEAMS: usize = 100;

/// A team and its dollars of a month.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Team {
    pub(super) name: String,
    pub(super) monthly: NanoUsd,
}

/// Everything that is asked for.
#[derive(Clone, Debug)]
pub(super) struct Answers {
    pub(super) organization: String,
    /// At least one, each once.
    pub(super) teams: Vec<Team>,
    pub(super) tier: Tier,
    /// The IANA name of a zone.
    pub(super) time_zone: String,
    /// The sum of the teams' dollars.
    pub(super) monthly: NanoUsd,
}

/// The name of an organization.
pub(super) fn organization(text: &str) -> Result<String, String> {
    name(text, "an organization")
}

/// `NAME=USD`.
pub(super) fn team(text: &str) -> Result<Team, String> {
    let Some((of, dollars)) = text.split_once('=') else {
        return Err(format!("`{text}` says no budget; write NAME=USD, such as chatbot=200"));
    };
    let of = name(of.trim(), "a team")?;
    let dollars = dollars.trim().trim_start_matches('$');
    let monthly: NanoUsd = dollars.parse().map_err(|error| format!("{error}"))?;
    match monthly == NanoUsd::ZERO {
        true => Err(format!("team `{of}` could spend nothing: give it dollars of a month, such as {of}=200")),
        false => Ok(Team { name: of, monthly }),
    }
}

/// The IANA name of a zone, spelled as the database has it.
pub(super) fn time_zone(text: &str) -> Result<String, String> {
    let zone = TimeZone::get(text).ok();
    let name = zone.as_ref().and_then(TimeZone::iana_name).map(str::to_owned);
    name.ok_or_else(|| {
        format!("`{text}` is no time zone; write one of IANA's names, such as Europe/Berlin or UTC")
    })
}

fn name(text: &str, what: &str) -> Result<String, String> {
    match is_name(text) {
        true => Ok(text.to_owned()),
        false => Err(format!(
            "`{text}` is not the name of {what}: 1 to {MAX_NAME_BYTES} lower-case letters, digits, `_`, `.` and `-`, beginning with a \
             letter or a digit"
        )),
    }
}

/// Adds `team` to `teams`, unless they have one of its name.
pub(super) fn add(teams: &mut Vec<Team>, team: Team) -> Result<(), String> {
    if teams.iter().any(|known| known.name == team.name) {
        return Err(format!("team `{}` is given twice", team.name));
    }
    if teams.len() == MAX_TEAMS {
        return Err(format!("more than {MAX_TEAMS} teams: add the others to the policy afterwards"));
    }
    sum(teams)
        .and_then(|before| before.checked_add(team.monthly))
        .ok_or_else(|| format!("the budgets come to more than the largest amount, {}", NanoUsd::MAX))?;
    teams.push(team);
    Ok(())
}

/// The dollars of all teams together; `None` above the largest amount.
pub(super) fn sum(teams: &[Team]) -> Option<NanoUsd> {
    teams.iter().try_fold(NanoUsd::ZERO, |sum, team| sum.checked_add(team.monthly))
}

/// The zone of this machine, or UTC where it does not say.
pub(super) fn zone_of_this_machine() -> String {
    let variable = std::env::var("TZ").ok();
    let link = || fs::read_link("/etc/localtime").ok();
    let of_link = |path: &Path| {
        let path = path.to_str()?;
        Some(path.split_once("zoneinfo/")?.1.to_owned())
    };
    let named = variable.or_else(|| of_link(&link()?));
    named.and_then(|name| time_zone(name.trim_start_matches(':')).ok()).unwrap_or_else(|| "UTC".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn teams_have_a_name_and_a_budget() {
        for (text, name, shown) in [
            ("chatbot=200", "chatbot", "200.00"),
            ("a.b = $12.5", "a.b", "12.50"),
            ("x=0.000000001", "x", "0.000000001"),
        ] {
            let team = team(text).unwrap();
            assert_eq!((&*team.name, &*team.monthly.to_string()), (name, shown), "{text}");
        }
        for (text, word) in [
            ("", "NAME=USD"),
            ("chatbot", "NAME=USD"),
            ("=5", "not the name of a team"),
            ("Chat Bot=5", "not the name of a team"),
            ("a]\n[access=5", "not the name of a team"),
            ("a\"b=5", "not the name of a team"),
            ("a=", "not an amount"),
            ("a=-5", "not an amount"),
            ("a=1e9", "not an amount"),
            ("a=5=6", "not an amount"),
            ("a=0", "could spend nothing"),
            ("a=9999999999", "largest amount"),
        ] {
            let fault = team(text).unwrap_err();
            assert!(fault.contains(word), "{text}: {fault}");
        }
    }

    #[test]
    fn a_team_is_given_once_and_all_fit_together() {
        let mut teams = Vec::new();
        let mut give = |text: &str| add(&mut teams, team(text).unwrap());
        assert_eq!(give("a=9007199"), Ok(()));
        assert!(give("a=1").unwrap_err().contains("given twice"));
        assert!(give("b=1").unwrap_err().contains("largest amount"));
        let mut teams = Vec::new();
        for number in 0..MAX_TEAMS {
            add(&mut teams, team(&format!("t{number}=1")).unwrap()).unwrap();
        }
        assert!(add(&mut teams, team("more=1").unwrap()).unwrap_err().contains("more than 100"));
        assert_eq!(sum(&teams), NanoUsd::new(100_000_000_000));
    }

    #[test]
    fn zones_are_those_of_iana() {
        assert_eq!(time_zone("europe/berlin").as_deref(), Ok("Europe/Berlin"));
        assert_eq!(time_zone("UTC").as_deref(), Ok("UTC"));
        for bad in ["", "Berlin", "Europe/Berlin\"", "../etc/passwd", "+01:00"] {
            assert!(time_zone(bad).unwrap_err().contains("no time zone"), "{bad}");
        }
        assert!(time_zone(&zone_of_this_machine()).is_ok());
    }
}
