//! `tollgate check`: what a policy permits, and what is wrong with it.

use std::{
    io::{self, Write as _},
    path::PathBuf,
};

use clap::Args;
use serde_json::{Value, json};

use super::{
    client::{self, CallArgs},
    compare,
    screen::{Exit, Failure, Screen},
    table::Style,
};
use crate::policy_file::{
    Described, Finding, PolicyReport, Severity, describe_organization, describe_team, load_directory,
    load_policy,
};

/// Reads a policy and reports what each team may do, then errors and warnings with file, line and key.
#[derive(Args)]
#[command(after_help = "Exit codes: 0 sound, 1 warnings with --strict, 2 errors.

Examples:
  tollgate check policy.toml
  tollgate check --strict policy.toml     in a pipeline, before the policy is rolled out
  tollgate check policies                 those of several organizations, as they would be served together
  tollgate check --compare policy.toml    what it would change of the policy that the service has in force")]
pub(super) struct Check {
    /// The policy (TOML, or JSON where the name ends in .json), or a directory with one for each organization
    #[arg(value_name = "FILE")]
    policy: PathBuf,
    /// Warnings count, too
    #[arg(long)]
    strict: bool,
    /// Ask the service what the policy would change, and whether it could replace the one in force
    #[arg(long)]
    compare: bool,
    /// Print the findings as JSON: of each severity, file, line, column, path (the key), message, help and other_file (that of another
    /// organization, if it is why), of a directory by file; with --compare, the service's answer
    #[arg(long)]
    json: bool,
    /// With --compare: the service's gRPC address; https://HOST:PORT for one with TLS
    #[arg(long, value_name = "HOST:PORT", env = "TOLLGATE_ADDRESS", default_value = client::ADDRESS, value_parser = client::address)]
    address: String,
    #[command(flatten)]
    call: CallArgs,
}

impl Check {
    pub(super) fn run(self, screen: &mut Screen) -> Result<Exit, Failure> {
        if self.compare {
            return compare::run(screen, &self.policy, (&self.address, &self.call), (self.json, self.strict));
        }
        if self.policy.is_dir() {
            return self.all(screen);
        }
        let report = load_policy(&self.policy);
        match self.json {
            true => screen.json(&to_json(&report))?,
            false => print(screen, &report)?,
        }
        Ok(self.exit(report.errors(), report.warnings()))
    }

    /// The policies of several organizations.
    fn all(&self, screen: &mut Screen) -> Result<Exit, Failure> {
        let reports = load_directory(&self.policy).map_err(|error| Failure::new(error.to_string()))?;
        let count = |of: fn(&PolicyReport) -> usize| reports.iter().map(|(_, report)| of(report)).sum();
        let (errors, warnings) = (count(PolicyReport::errors), count(PolicyReport::warnings));
        if self.json {
            let one = |(file, report): &(PathBuf, PolicyReport)| {
                let mut one = to_json(report);
                if let Some(one) = one.as_object_mut() {
                    one.insert("file".to_owned(), file.display().to_string().into());
                }
                one
            };
            let policies: Vec<_> = reports.iter().map(one).collect();
            screen.json(&json!({ "policies": policies, "errors": errors, "warnings": warnings }))?;
            return Ok(self.exit(errors, warnings));
        }
        for (i, (file, report)) in reports.iter().enumerate() {
            if i > 0 {
                writeln!(screen)?;
            }
            writeln!(screen, "{}", Style::Bold.paint(&file.display().to_string(), screen.colour))?;
            print(screen, report)?;
        }
        Ok(self.exit(errors, warnings))
    }

    const fn exit(&self, errors: usize, warnings: usize) -> Exit {
        match (errors, warnings) {
            (0, 0) => Exit::Done,
            (0, _) if self.strict => Exit::Denied,
            (0, _) => Exit::Done,
            _ => Exit::Failed,
        }
    }
}

fn to_json(report: &PolicyReport) -> Value {
    let finding = |finding: &Finding| {
        let mut told = json!({
            "severity": if finding.severity == Severity::Error { "error" } else { "warning" },
            "file": &*finding.file,
            "line": finding.line,
            "column": finding.column,
            "path": finding.key_path,
            "message": finding.message,
            "help": finding.help,
        });
        if let (Some(other), Some(told)) = (&finding.other_file, told.as_object_mut()) {
            told.insert("other_file".to_owned(), (**other).into());
        }
        told
    };
    json!({
        "revision": report.policy.as_ref().map(|policy| &*policy.revision),
        "errors": report.errors(),
        "warnings": report.warnings(),
        "findings": report.findings.iter().map(finding).collect::<Vec<_>>(),
    })
}

fn print(screen: &mut Screen, report: &PolicyReport) -> io::Result<()> {
    if let Some(policy) = &report.policy {
        let organization = &policy.organization;
        let zone = organization.time_zone.iana_name().unwrap_or("UTC");
        section(
            screen,
            &format!("organization {} ({zone})", organization.id),
            &describe_organization(policy),
        )?;
        let mut teams: Vec<_> = policy.teams.values().collect();
        teams.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        for team in teams {
            section(screen, &format!("team {}", team.name), &describe_team(policy, team))?;
        }
    }
    let (errors, warnings) = (report.errors(), report.warnings());
    let style = match (errors, warnings) {
        (0, 0) => Style::Green,
        (0, _) => Style::Yellow,
        _ => Style::Red,
    };
    // The report ends with its summary: only that is coloured; the findings keep the format that editors and pipelines read.
    let whole = report.to_string();
    let (findings, summary) = whole.rsplit_once('\n').unwrap_or(("", &whole));
    if !findings.is_empty() {
        writeln!(screen, "{findings}")?;
    }
    let summary = style.paint(summary, screen.colour);
    writeln!(screen, "{summary}")
}

/// What the policy says, each subject beside its lines.
fn section(screen: &mut Screen, heading: &str, subjects: &[Described]) -> io::Result<()> {
    let heading = Style::Bold.paint(heading, screen.colour);
    writeln!(screen, "{heading}")?;
    for Described { subject, lines } in subjects {
        for (i, line) in lines.iter().enumerate() {
            writeln!(screen, "  {:<12}{line}", if i == 0 { subject } else { "" })?;
        }
    }
    writeln!(screen)
}
