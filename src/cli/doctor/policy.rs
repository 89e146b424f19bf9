//! The settings and the policy, and who may ask by them.

use std::sync::Arc;

use super::{Case, finding::Findings};
use crate::{
    domain::policy::Policy,
    policy_file::{
        EXAMPLE_POLICY, Finding, PolicyReport, Severity, load_directory, load_policy, parse_policy,
    },
    settings::{Settings, check_exposure},
};

/// What the settings themselves show.
pub(super) fn of_settings(settings: &Settings) -> Findings {
    let mut found = Findings::on("settings");
    if !settings.unknown_variables.is_empty() {
        let names = settings.unknown_variables.join(", ");
        found.warning(
            format!("ignored, as they are no settings: {names}"),
            "remove them, or correct their names",
        );
    }
    for warning in &settings.warnings {
        found.warning(warning.as_str(), "");
    }
    if found.are_good() {
        found.good("read");
    }
    found
}

/// The policies that would be served, and what is wrong with them.
pub(super) fn load(settings: &Settings) -> (Findings, Vec<Arc<Policy>>) {
    let mut found = Findings::on("policy");
    let reports = match (&settings.policy_directory, &settings.policy) {
        (Some(path), _) => load_directory(path).unwrap_or_else(|error| {
            found.error(error.to_string(), "");
            Vec::new()
        }),
        (None, Some(path)) => vec![(path.clone(), load_policy(path))],
        (None, None) => {
            let help = "`tollgate init` writes a policy of your own; name it in `policy`";
            found.warning("the built-in example is served, for a first look only", help);
            let name = "policy.toml";
            vec![(name.into(), parse_policy(EXAMPLE_POLICY, name))]
        }
    };
    let mut policies = Vec::new();
    for (_, report) in reports {
        tell(&report, &mut found);
        policies.extend(report.policy.map(Arc::new));
    }
    (found, policies)
}

/// What is wrong with one, or what it is.
fn tell(report: &PolicyReport, found: &mut Findings) {
    for Finding { severity, file, line, column, key_path, message, help, other_file } in &report.findings {
        let place = line.zip(*column).map(|(line, column)| format!(":{line}:{column}")).unwrap_or_default();
        let key = if key_path.is_empty() { String::new() } else { format!("{key_path}: ") };
        let other = other_file.as_ref().map(|other| format!(", in `{other}`")).unwrap_or_default();
        let message = format!("{file}{place}: {key}{message}{other}");
        match severity {
            Severity::Error => found.error(message, help),
            Severity::Warning => found.warning(message, help),
        }
    }
    if let Some(policy) = &report.policy {
        let count = policy.teams.len();
        let teams = if count == 1 { "team" } else { "teams" };
        found.good(format!(
            "organization {}, {count} {teams}, revision {}",
            policy.organization.id, policy.revision
        ));
    }
}

/// Whether the service would listen where it is told to, and who is let in.
pub(super) fn access(Case { settings, policy, .. }: &Case, found: &mut Findings) {
    if let Err(error) = check_exposure(settings) {
        found.error(error.to_string(), "");
    }
    let Some(policy) = policy else { return };
    let (listen, is_forced) = (settings.listen, settings.allow_unauthenticated_listen);
    match (&policy.access, listen.ip().is_loopback()) {
        (Some(_), _) => {}
        (None, true) => found.warning(
            "the policy has no `[access]`: every caller on this machine may ask everything",
            "`tollgate tokens create NAME` makes a token and prints its lines for the policy",
        ),
        (None, false) if is_forced => found.warning(
            format!("the policy has no `[access]`: anyone who reaches {listen} may ask everything"),
            "`tollgate tokens create NAME` makes a token and prints its lines for the policy",
        ),
        (None, false) if settings.policy_directory.is_some() => found.error(
            format!("the organization would not be served on {listen}, as its policy has no `[access]` that says who may ask"),
            "`tollgate tokens create NAME` makes a token and prints its lines for the policy; or listen on loopback",
        ),
        (None, false) => found.error(
            format!("the service would not listen on {listen}, as the policy has no `[access]` that says who may ask"),
            "`tollgate tokens create NAME` makes a token and prints its lines for the policy; or listen on loopback",
        ),
    }
    if found.are_good() {
        found.good("callers have to show who they are");
    }
}
