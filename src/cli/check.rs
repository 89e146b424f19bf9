//! `tollgate check`: what a policy permits, and what is wrong with it.

use std::{
    io::{self, Write as _},
    path::PathBuf,
    sync::Arc,
};

use clap::Args;
use serde_json::{Value, json};

use super::{
    screen::{Exit, Failure, Screen},
    table::Style,
    text,
};
use crate::{
    domain::{
        Timestamp, explain,
        key::VirtualKey,
        limit::{Limit, LimitMode, Limits, OnShortfall, Quantity, Window},
        policy::{ModelPattern, OnExceed, OnUnsettled, Policy, Team},
        price::catalogue::{Inherited, Model, Origin, PriceFrom},
        tools::{ToolBound, ToolPattern},
    },
    policy_file::{Finding, PolicyReport, Severity, load_policy},
};

/// Reads a policy and reports what each team may do, then errors and warnings with file, line and key.
#[derive(Args)]
#[command(after_help = "Exit codes: 0 sound, 1 warnings with --strict, 2 errors.

Examples:
  tollgate check policy.toml
  tollgate check --strict policy.toml     in a pipeline, before the policy is rolled out")]
pub(super) struct Check {
    /// The policy (TOML, or JSON where the name ends in .json)
    #[arg(value_name = "FILE")]
    policy: PathBuf,
    /// Warnings count, too
    #[arg(long)]
    strict: bool,
    /// Print the findings as JSON: of each severity, file, line, column, path (the key), message and help
    #[arg(long)]
    json: bool,
}

impl Check {
    pub(super) fn run(self, screen: &mut Screen) -> Result<Exit, Failure> {
        let report = load_policy(&self.policy);
        match self.json {
            true => screen.json(&to_json(&report))?,
            false => print(screen, &report)?,
        }
        Ok(match (report.errors(), report.warnings()) {
            (0, 0) => Exit::Done,
            (0, _) if self.strict => Exit::Denied,
            (0, _) => Exit::Done,
            _ => Exit::Failed,
        })
    }
}

fn to_json(report: &PolicyReport) -> Value {
    let finding = |finding: &Finding| {
        json!({
            "severity": if finding.severity == Severity::Error { "error" } else { "warning" },
            "file": &*finding.file,
            "line": finding.line,
            "column": finding.column,
            "path": finding.key_path,
            "message": finding.message,
            "help": finding.help,
        })
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
        print_organization(screen, policy)?;
        let mut teams: Vec<_> = policy.teams.values().collect();
        teams.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        for team in teams {
            print_team(screen, policy, team)?;
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

fn heading(screen: &mut Screen, text: &str) -> io::Result<()> {
    let text = Style::Bold.paint(text, screen.colour);
    writeln!(screen, "{text}")
}

/// A name and its description, one line each; nothing if there is none.
fn entry(screen: &mut Screen, name: &str, lines: &[String]) -> io::Result<()> {
    for (i, line) in lines.iter().enumerate() {
        writeln!(screen, "  {:<12}{line}", if i == 0 { name } else { "" })?;
    }
    Ok(())
}

fn print_organization(screen: &mut Screen, policy: &Policy) -> io::Result<()> {
    let organization = &policy.organization;
    let zone = organization.time_zone.iana_name().unwrap_or("UTC");
    heading(screen, &format!("organization {} ({zone})", organization.id))?;
    print_limits(screen, &organization.limits, &organization.model_limits)?;
    let stated = |model: &Model| -> Vec<String> {
        let own = model.prices.iter().filter(|price| price.origin == Origin::Policy);
        own.map(|price| format!("{}: {}", model.name, price_in_words(price))).collect()
    };
    entry(screen, "prices", &policy.catalogue.models().flat_map(stated).collect::<Vec<_>>())?;
    writeln!(screen)
}

fn print_team(screen: &mut Screen, policy: &Policy, team: &Team) -> io::Result<()> {
    heading(screen, &format!("team {}", team.name))?;
    entry(screen, "models", &[patterns(&team.models)])?;
    let operations: Vec<_> = team.operations.iter().map(ToString::to_string).collect();
    entry(
        screen,
        "operations",
        &[if operations.is_empty() { "none".to_owned() } else { operations.join(", ") }],
    )?;
    if team.mode == LimitMode::Shadow {
        let line = "in shadow: models, operations, output, caps on batches, and tools refuse nothing";
        entry(screen, "mode", &[line.to_owned()])?;
    }
    if let Some(most) = team.max_output_tokens {
        let more = match team.on_exceed {
            OnExceed::Deny => "a request for more is denied",
            OnExceed::Clamp => "a request for more is granted that",
        };
        entry(screen, "output", &[format!("at most {} tokens; {more}", text::group(most.into()))])?;
    }
    print_limits(screen, &team.limits, &team.model_limits)?;
    entry(screen, "each user", &team.user_limits.iter().filter_map(limit).collect::<Vec<_>>())?;
    entry(screen, "batches", &batches(team))?;
    entry(screen, "tools", &[tools(team)])?;
    let unsettled = match team.on_unsettled {
        OnUnsettled::ChargeReserved => "charged the worst case",
        OnUnsettled::ChargeInput => "charged the estimated input",
        OnUnsettled::Release => "charged nothing",
    };
    let bound = team.limits.iter().find(|limit| limit.window == Window::Unsettled).and_then(limit);
    let bound = bound.map_or_else(String::new, |bound| format!("; at most {bound}"));
    entry(screen, "unreported", &[format!("{unsettled}{bound}")])?;
    let keys = policy.keys.ordered().iter().filter(|key| key.team == team.name);
    entry(screen, "keys", &keys.map(|key| key_line(key)).collect::<Vec<_>>())?;
    writeln!(screen)
}

fn print_limits(
    screen: &mut Screen,
    own: &Limits,
    by_model: &[(ModelPattern, Vec<Arc<Limit>>)],
) -> io::Result<()> {
    let (budgets, rates): (Vec<_>, Vec<_>) =
        own.iter().partition(|limit| limit.quantity == Quantity::NanoUsd);
    let rates = rates.into_iter().filter(|limit| limit.quantity != Quantity::UnsettledRequests).collect();
    let of = |limits: Vec<&Arc<Limit>>| limits.into_iter().filter_map(limit).collect::<Vec<_>>();
    let budgets = of(budgets);
    entry(screen, "budget", if budgets.is_empty() { &[] } else { &budgets })?;
    if budgets.is_empty() {
        entry(screen, "budget", &["none".to_owned()])?;
    }
    let mut limits = of(rates);
    for (pattern, of_model) in by_model {
        let lines = of_model.iter().filter_map(limit).collect::<Vec<_>>();
        limits.push(format!("{pattern}: {}", lines.join(", ")));
    }
    entry(screen, "limits", &limits)
}

/// A price of the policy. A rate that it leaves out comes from an earlier price, and is marked as such.
fn price_in_words(price: &PriceFrom) -> String {
    let (rates, given) = (&price.rates, &price.given);
    let rates = [
        (rates.input, given.input, "a million input tokens"),
        (rates.cached_input, given.cached_input, "a million cached input tokens"),
        (rates.output, given.output, "a million output tokens"),
        (rates.audio_per_hour, given.audio_per_hour, "an hour of audio"),
        (rates.per_million_characters, given.per_million_characters, "a million characters"),
    ];
    let words = rates.into_iter().filter_map(|(rate, given, unit)| {
        let origin = price.inherited.filter(|_| given.is_none()).map(origin).unwrap_or_default();
        Some(format!("{} {unit}{origin}", text::dollars(rate?.nanos().into())))
    });
    let mut line = words.collect::<Vec<_>>().join(", ");
    if let Some(tier) = price.tier {
        line.push_str(&format!("; tier {tier:?}").to_lowercase());
    }
    if let Some(from) = price.from {
        line.push_str(&format!("; from {}", instant(from)));
    }
    line
}

/// The source of a rate that a price leaves out.
fn origin(from: Inherited) -> String {
    match (from.origin, from.since) {
        (Origin::BuiltIn, _) => " (from the list price)".to_owned(),
        (Origin::Policy, None) => " (from the price before)".to_owned(),
        (Origin::Policy, Some(since)) => format!(" (from the price before, of {})", instant(since)),
    }
}

fn instant(at: Timestamp) -> String {
    let instant = i64::try_from(at.0).ok().and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
    instant.map(|at| at.to_string()).unwrap_or_default()
}

/// The caps on one batch of the team; nothing if it has none of its own.
fn batches(team: &Team) -> Vec<String> {
    let caps = &team.batch;
    let count = |cap: Option<u64>, what: &str| Some(format!("at most {} {what}", text::group(cap?.into())));
    let lines = [
        count(caps.max_requests, "lines"),
        count(caps.max_input_tokens, "input tokens"),
        count(caps.max_output_tokens, "output tokens"),
        caps.max_cost.map(|most| format!("at most {}", text::dollars(most.nanos().into()))),
        caps.open.as_ref().and_then(limit).map(|open| format!("{open} at a time")),
    ];
    lines.into_iter().flatten().collect()
}

/// Groq's tools that requests may enable, and what is reserved for each.
fn tools(team: &Team) -> String {
    let bound = |(pattern, bound): (&ToolPattern, ToolBound)| {
        let run = explain::duration(bound.max_run_ms);
        format!("{pattern} ({} calls, {run})", text::group(bound.max_calls.into()))
    };
    let bounds: Vec<_> = team.tools.iter().map(bound).collect();
    if bounds.is_empty() { "none".to_owned() } else { bounds.join(", ") }
}

fn patterns(models: &[ModelPattern]) -> String {
    let names: Vec<_> = models.iter().map(ToString::to_string).collect();
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

fn key_line(key: &VirtualKey) -> String {
    let mut line = key.name.to_string();
    if let Some(models) = &key.models {
        line.push_str(&format!("; only {}", patterns(models)));
    }
    if let Some(operations) = &key.operations {
        let names: Vec<_> = operations.iter().map(ToString::to_string).collect();
        line.push_str(&format!("; only {}", names.join(", ")));
    }
    if let Some(most) = key.max_output_tokens {
        line.push_str(&format!("; at most {} output tokens", text::group(most.into())));
    }
    if key.mode == LimitMode::Shadow {
        line.push_str("; in shadow, so that it refuses nothing");
    }
    for limit in key.limits.iter().filter_map(limit) {
        line.push_str(&format!("; {limit}"));
    }
    if let Some(end) = key.expires_at.and_then(|at| i64::try_from(at.0).ok()) {
        let end = jiff::Timestamp::from_millisecond(end).map(|at| at.to_string()).unwrap_or_default();
        line.push_str(&format!("; until {end}"));
    }
    line
}

/// A limit in words; `None` for one that only counts.
fn limit(limit: &Arc<Limit>) -> Option<String> {
    let bound = limit.bound?;
    let count = text::group(bound.into());
    let amount = match limit.quantity {
        Quantity::Requests => format!("{count} requests"),
        Quantity::Tokens => format!("{count} tokens"),
        Quantity::AudioMilliseconds => format!("{} seconds of audio", text::group((bound / 1000).into())),
        Quantity::NanoUsd => text::dollars(bound.into()),
        Quantity::RequestsInFlight | Quantity::UnsettledRequests => format!("{count} requests"),
    };
    let window = match limit.window {
        Window::Sliding(span) => format!("in any {}", span.name()),
        Window::Calendar(period) => format!("a {}", period.name()),
        Window::InFlight => "in flight".to_owned(),
        Window::OpenBatches => "open as batches".to_owned(),
        Window::Unsettled | Window::UnsettledBatches => "at a time".to_owned(),
    };
    let mode = match limit.mode {
        LimitMode::Enforce => "",
        LimitMode::Shadow => " (in shadow)",
    };
    if limit.quantity != Quantity::NanoUsd {
        return Some(format!("{amount} {window}{mode}"));
    }
    let shortfall = match limit.on_shortfall {
        OnShortfall::Deny => "then requests are denied".to_owned(),
        OnShortfall::Clamp => {
            format!("then answers get shorter, to {} tokens", text::group(limit.min_output_tokens.into()))
        }
        OnShortfall::Warn => "then requests are allowed with a warning".to_owned(),
    };
    let alerts: Vec<_> = limit.alerts.iter().map(|alert| &*alert.text).collect();
    let alerts = if alerts.is_empty() { String::new() } else { format!("; alerts at {}", alerts.join(", ")) };
    Some(format!("{amount} {window}{mode}, {shortfall}{alerts}"))
}
