//! Where alerts go: `[[alerts]]`.

use std::sync::Arc;

use super::{
    section::{Located, Section},
    values,
};
use crate::domain::alert::{AlertKind, AlertRoute, Severity};
use crate::syntax::suggestion::did_you_mean;

/// Reads one `[[alerts]]`; nothing if it names no receiver.
pub(super) fn read(section: Section<'_>, is_team: &dyn Fn(&str) -> bool) -> Option<AlertRoute> {
    section.missing("receiver", "the name of a receiver that the settings describe, under [receivers.NAME]");
    let receiver = section.text("receiver");
    if let Some(receiver) = &receiver {
        values::check_name(receiver.value, &receiver.place, section.findings);
    }
    let kinds = section.texts("kinds").map(|list| some(&section, list, kind));
    let team = |section: &Section<'_>, Located { value, place }: Located<&str>| {
        if !is_team(value) {
            section.findings.error(&place, format!("there is no team `{value}`"), "declare it under [teams]");
        }
        Some(Arc::from(value))
    };
    let teams = section.texts("teams").map(|list| some(&section, list, team));
    let min_severity = section.choice("min_severity", &Severity::NAMES);
    section.finish();
    let min_severity = min_severity.map_or(Severity::Info, |severity| severity.value);
    receiver.map(|receiver| AlertRoute { receiver: receiver.value.into(), kinds, teams, min_severity })
}

/// The items of a list, which an empty one would make useless.
fn some<T>(
    section: &Section<'_>,
    list: Located<Vec<Located<&str>>>,
    read: impl Fn(&Section<'_>, Located<&str>) -> Option<T>,
) -> Vec<T> {
    if list.value.is_empty() {
        section.findings.error(
            &list.place,
            "an empty list takes no alert",
            "for all of them, leave the key out",
        );
    }
    list.value.into_iter().filter_map(|item| read(section, item)).collect()
}

fn kind(section: &Section<'_>, Located { value, place }: Located<&str>) -> Option<AlertKind> {
    let kind = AlertKind::of_name(value);
    if kind.is_none() {
        let names = AlertKind::ALL.map(AlertKind::name);
        let help =
            did_you_mean(value, names).unwrap_or_else(|| format!("the kinds are {}", names.join(", ")));
        section.findings.error(&place, format!("`{value}` is no kind of alert"), help);
    }
    kind
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy_file::parse_policy;

    const HEAD: &str = "[organization]\nid = \"o\"\n[teams.a]\nmodels = [\"*\"]\nmax_output_tokens = 9\n";

    #[test]
    fn routes_are_read_with_their_defaults() {
        let text = format!(
            "{HEAD}[[alerts]]\nreceiver = \"ops\"\n[[alerts]]\nreceiver = \"team-a\"\nteams = [\"a\"]\nkinds = [\"budget_threshold\"]\nmin_severity = \"critical\"\n"
        );
        let report = parse_policy(&text, "policy.toml");
        let routes = report.policy.expect("sound").alerts;
        let all =
            AlertRoute { receiver: "ops".into(), kinds: None, teams: None, min_severity: Severity::Info };
        let own = AlertRoute {
            receiver: "team-a".into(),
            kinds: Some(vec![AlertKind::BudgetThreshold]),
            teams: Some(vec!["a".into()]),
            min_severity: Severity::Critical,
        };
        assert_eq!(routes, [all, own]);
    }

    #[test]
    fn a_faulty_route_is_refused() {
        for (line, error) in [
            ("kinds = [\"budget_threshold\"]", "`receiver` is missing"),
            ("receiver = \"Not A Name\"", "Not A Name"),
            ("receiver = \"r\"\nteams = [\"b\"]", "there is no team `b`"),
            ("receiver = \"r\"\nteams = []", "an empty list takes no alert"),
            ("receiver = \"r\"\nkinds = [\"budget_treshold\"]", "is no kind of alert"),
            ("receiver = \"r\"\nmin_severity = \"high\"", "`high` is not one of"),
            ("receiver = \"r\"\nteam = \"a\"", "unknown key `team`"),
        ] {
            let report = parse_policy(&format!("{HEAD}[[alerts]]\n{line}\n"), "policy.toml");
            let shown = report.findings.iter().any(|finding| finding.to_string().contains(error));
            assert!(report.policy.is_none() && shown, "{line}: {:?}", report.findings);
        }
    }
}
