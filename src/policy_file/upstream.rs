//! Reads the Groq projects of a policy: `[projects.NAME]`.

use std::{collections::HashMap, path::PathBuf, sync::Arc};

use super::{
    place::Place,
    section::{Located, Section},
    values,
};
use crate::domain::policy::upstream::{KeyPlace, MAX_PLACES, Project, Projects};

/// Reads all projects; `None` if there are none. `teams` are the policy's teams.
pub(super) fn read(root: &Section<'_>, teams: &[Arc<str>]) -> Option<Projects> {
    let findings = root.findings;
    let mut declared = Vec::new();
    let mut of_team: HashMap<Arc<str>, &str> = HashMap::new();
    let mut rest: Option<&str> = None;
    for (name, section) in root.named("projects") {
        values::check_name(name, &section.place, findings);
        let places = places(&section);
        let named = section.texts("teams");
        if let Some(named) = &named {
            for Located { value: team, place } in findings.while_few(&named.value) {
                if !teams.iter().any(|known| **known == **team) {
                    findings.error(place, format!("the policy has no team `{team}`"), "");
                } else if let Some(other) = of_team.insert(Arc::from(*team), name) {
                    findings.error(place, format!("`{team}` is of project `{other}` already"), "");
                }
            }
        } else if let Some(other) = rest.replace(name) {
            let message = format!("`{other}` is the project of all other teams already");
            findings.error(&section.place, message, "give one of the two its `teams`");
        }
        let named = named.map(|named| named.value.iter().map(|team| Arc::from(team.value)).collect());
        declared.push((Project { name: Arc::from(name), places }, named));
        section.finish();
    }
    if declared.is_empty() {
        return None;
    }
    if rest.is_none() {
        for team in teams.iter().filter(|team| !of_team.contains_key(*team)) {
            let message = format!("team `{team}` is of no project: its requests through Envoy are refused");
            findings.warning(&Place::ROOT.key("teams").key(team), message, "");
        }
    }
    Some(Projects::new(declared))
}

fn places(section: &Section<'_>) -> Vec<KeyPlace> {
    let tables = section.tables("keys");
    let at = section.place.key("keys");
    if tables.len() > MAX_PLACES {
        let message = format!("{} places; at most {MAX_PLACES} are permitted", tables.len());
        section.findings.error(&at, message, "");
    }
    tables.into_iter().filter_map(place).collect()
}

fn place(section: Section<'_>) -> Option<KeyPlace> {
    let given = [
        section.text("env").map(|at| (at, KeyPlace::Environment as fn(String) -> KeyPlace)),
        section
            .text("file")
            .map(|at| (at, (|path| KeyPlace::File(PathBuf::from(path))) as fn(String) -> KeyPlace)),
        section
            .text("directory")
            .map(|at| (at, (|path| KeyPlace::Directory(PathBuf::from(path))) as fn(String) -> KeyPlace)),
    ];
    let mut given = given.into_iter().flatten();
    let (first, second) = (given.next(), given.next());
    let findings = section.findings;
    let place = match (first, second) {
        (Some((value, make)), None) => {
            // The value is not shown: it may be the key itself.
            if value.value.is_empty() || value.value.starts_with("gsk_") {
                let help = "say where the key is, never the key itself";
                findings.error(&value.place, "not the name of a place", help);
            }
            Some(make(value.value.to_owned()))
        }
        (Some(_), Some((other, _))) => {
            findings.error(&other.place, "another place is given as well", "one table for each place");
            None
        }
        (None, _) => {
            findings.error(&section.place, "names no place", "one of `env`, `file` and `directory`");
            None
        }
    };
    section.finish();
    place
}
