//! Reads a policy document key by key into the types of the domain.

use std::{collections::HashSet, sync::Arc};

use jiff::tz::TimeZone;

use super::{
    access::{self, DeclaredAccess},
    alerts, batch, bounds,
    document::Node,
    envoy,
    findings::Findings,
    keys::DOCUMENT,
    limits::{budgets, budgets_with_month, in_flight, rates, rates_and_in_flight, shared},
    mode, outage,
    place::Place,
    prices::{self, Override},
    reports,
    section::{Located, Section},
    tools, upstream, values,
};
use crate::domain::{
    Timestamp,
    alert::AlertRoute,
    calendar::parse_time_zone,
    cooldown::DEFAULT_MAX_COOLDOWN_MS,
    key::VirtualKey,
    limit::{Limit, LimitMode, Limits, Period, Quantity, Subject, Window},
    plan::Templates,
    policy::{ModelPattern, OnExceed, OnUnsettled, Organization, ReportRules, Team},
    policy::{envoy::EnvoyPolicy, upstream::Projects},
    price::ToolPriceFrom,
    request::Operation,
    tally::TallyOfTeam,
};

/// The words of `on_exceed`.
pub(super) const ON_EXCEED: [(&str, OnExceed); 2] = [("deny", OnExceed::Deny), ("clamp", OnExceed::Clamp)];
/// The words of `on_unsettled`.
pub(super) const ON_UNSETTLED: [(&str, OnUnsettled); 3] = [
    ("charge_reserved", OnUnsettled::ChargeReserved),
    ("charge_input", OnUnsettled::ChargeInput),
    ("release", OnUnsettled::Release),
];

/// The declarations of a document, in their order and with their places, for checks across several keys.
pub(super) struct Declared {
    /// The organization.
    pub(super) organization: Organization,
    /// Its teams.
    pub(super) teams: Vec<DeclaredTeam>,
    /// Its prices.
    pub(super) prices: Vec<Override>,
    /// Its prices of tools.
    pub(super) tool_prices: Vec<Located<ToolPriceFrom>>,
    /// Its Envoy section.
    pub(super) envoy: EnvoyPolicy,
    /// Its Groq projects.
    pub(super) projects: Projects,
    /// What its usage is reported by.
    pub(super) reports: ReportRules,
    /// Its access rules.
    pub(super) access: Option<DeclaredAccess>,
    /// Where alerts go.
    pub(super) alerts: Vec<AlertRoute>,
}

/// A team and where it is declared.
pub(super) struct DeclaredTeam {
    /// Its place.
    pub(super) place: Place,
    /// The team.
    pub(super) team: Arc<Team>,
    /// Its models, with their places.
    pub(super) models: Vec<Located<ModelPattern>>,
    /// Its keys.
    pub(super) keys: Vec<DeclaredKey>,
}

/// A key and where it is declared.
pub(super) struct DeclaredKey {
    /// Its place.
    pub(super) place: Place,
    /// The SHA-256 of its secret.
    pub(super) sha256: Option<Located<[u8; 32]>>,
    /// Its models, with their places.
    pub(super) models: Vec<Located<ModelPattern>>,
    /// Its operations, with their places.
    pub(super) operations: Vec<Located<Operation>>,
    /// The key.
    pub(super) key: Arc<VirtualKey>,
}

/// Reads the whole document. Faulty parts are reported and left out.
pub(super) fn document(root: &Node, findings: &Findings) -> Option<Declared> {
    let root = Section::open(root, &DOCUMENT, Place::ROOT, findings)?;
    root.missing("organization", "begin with [organization] and its `id`");
    let organization = match root.section("organization") {
        Some(section) => organization(section),
        None => unnamed(),
    };
    let teams = findings
        .while_few(root.named("teams"))
        .map(|(name, section)| team(name, section, &organization.time_zone));
    let teams: Vec<DeclaredTeam> = teams.collect();
    let priced = findings.while_few(root.tables("prices"));
    let prices = priced.filter_map(|section| prices::read(section, &organization.time_zone)).collect();
    let priced = root.tables("tool_prices").into_iter();
    let tool_prices = priced.filter_map(|section| tools::price(section, &organization.time_zone)).collect();
    let known: HashSet<&str> = teams.iter().map(|declared| &*declared.team.name).collect();
    let is_team = |name: &str| known.contains(name);
    let envoy = root.section("envoy").map(|section| envoy::read(section, &is_team)).unwrap_or_default();
    let names: Vec<_> = teams.iter().map(|declared| Arc::clone(&declared.team.name)).collect();
    let projects = upstream::read(&root, &names).unwrap_or_default();
    let names: Vec<&str> = teams.iter().map(|declared| &*declared.team.name).collect();
    let access = root.section("access").map(|section| access::read(section, &names, &organization.time_zone));
    let routes = findings.while_few(root.tables("alerts"));
    let alerts = routes.filter_map(|section| alerts::read(section, &is_team)).collect();
    let reports = root.section("reports").map(reports::read).unwrap_or_default();
    root.finish();
    Some(Declared { organization, teams, prices, tool_prices, envoy, projects, reports, access, alerts })
}

/// Replaces an organization that could not be read, so the rest is still checked.
fn unnamed() -> Organization {
    let id = Arc::from("");
    let max_cooldown_ms = DEFAULT_MAX_COOLDOWN_MS;
    let month = Window::Calendar(Period::Month);
    let month = Subject::organization().limit(Arc::clone(&id), Quantity::NanoUsd, month);
    Organization {
        id,
        time_zone: TimeZone::UTC,
        max_cooldown_ms,
        limits: Limits { month: month.into(), others: Vec::new() },
        model_limits: Vec::new(),
    }
}

fn organization(section: Section<'_>) -> Organization {
    section.missing("id", "a short name that never changes, such as \"acme\": it names the counters");
    let id = section.text("id");
    if let Some(id) = &id {
        values::check_name(id.value, &id.place, section.findings);
    }
    let subject = Subject::organization();
    let time_zone = time_zone(&section);
    let mode = mode::of(&section, LimitMode::default());
    let mut limits = budgets_with_month(&section, &subject, mode);
    limits.others.extend(shared(rates_and_in_flight(&section, &subject, mode)));
    let model_limits = model_limits(&section, &subject, mode);
    let max_cooldown_ms = bounds::max_cooldown(&section);
    section.finish();
    let id = id.map_or("", |id| id.value).into();
    Organization { id, time_zone, max_cooldown_ms, limits, model_limits }
}

fn time_zone(section: &Section<'_>) -> TimeZone {
    let Some(name) = section.text("time_zone") else { return TimeZone::UTC };
    match parse_time_zone(name.value) {
        Ok(zone) => zone,
        Err(error) => {
            section.findings.error(&name.place, error.to_string(), "");
            TimeZone::UTC
        }
    }
}

fn model_limits(
    section: &Section<'_>,
    subject: &Subject,
    mode: LimitMode,
) -> Vec<(ModelPattern, Vec<Arc<Limit>>)> {
    let mut limits = Vec::new();
    for (name, inner) in section.findings.while_few(section.named("limits")) {
        let pattern = values::model_pattern(name, &inner.place, section.findings);
        let mode = mode::of(&inner, mode);
        let read = shared(rates(&inner, &subject.model(name), mode));
        limits.extend(pattern.map(|pattern| (pattern, read)));
        inner.finish();
    }
    limits
}

fn team(name: &str, section: Section<'_>, zone: &TimeZone) -> DeclaredTeam {
    values::check_name(name, &section.place, section.findings);
    section.missing(
        "models",
        "list what the team may use, such as [\"openai/gpt-oss-20b\"]; [\"*\"] is every model",
    );
    let models = values::models(&section, "`[\"*\"]` is every model").unwrap_or_default();
    let operations = values::operations(&section, "for every operation, leave the key out");
    let operations = operations.map(|list| list.into_iter().map(|l| l.value).collect());
    let max_output_tokens = max_output_tokens(&section);
    let subject = Subject::team(name);
    let mode = mode::of(&section, LimitMode::default());
    let mut limits = budgets_with_month(&section, &subject, mode);
    limits.others.extend(shared(rates_and_in_flight(&section, &subject, mode)));
    limits.others.extend(bounds::max_unsettled(&section, &subject).map(Arc::new));
    let team = Arc::new(Team {
        name: Arc::from(name),
        models: models.iter().map(|l| l.value.clone()).collect(),
        operations: operations.unwrap_or_else(|| Operation::ALL.to_vec()),
        max_output_tokens,
        on_exceed: on_exceed(&section),
        mode,
        on_unsettled: on_unsettled(&section),
        limits,
        model_limits: model_limits(&section, &subject, mode),
        user_limits: match section.section("per_user") {
            Some(user) => user_limits(user, name, mode),
            None => vec![in_flight(&section.place.key("per_user"), &Subject::user(name)).into()],
        },
        batch: batch::caps(section.section("batch"), &section.place.key("batch"), &subject, mode),
        tools: tools::bounds(&section),
        unreserved: bounds::unreserved(&section, &subject),
        outage: outage::rules(&section),
        labels: values::labels(&section),
        budget_counters: subject.budget_counters(),
        templates: Templates::default(),
        tally: TallyOfTeam::default(),
    });
    let keys = section.findings.while_few(section.named("keys"));
    let keys = keys.map(|(key_name, inner)| key(name, key_name, inner, zone)).collect();
    let place = section.place.clone();
    section.finish();
    DeclaredTeam { place, team, models, keys }
}

fn max_output_tokens(section: &Section<'_>) -> Option<u64> {
    let most = section.count("max_output_tokens")?;
    if most.value == 0 {
        let help = "for no cap of its own, leave the key out";
        section.findings.warning(&most.place, "nothing that writes text will ever pass", help);
    }
    Some(most.value)
}

fn on_exceed(section: &Section<'_>) -> OnExceed {
    let Some(chosen) = section.choice("on_exceed", &ON_EXCEED) else { return OnExceed::default() };
    if chosen.value == OnExceed::Clamp && !section.has("max_output_tokens") {
        let help = "set `max_output_tokens`: without it, only the model's own maximum is clamped to";
        section.findings.warning(&chosen.place, "`clamp` without `max_output_tokens`", help);
    }
    chosen.value
}

fn on_unsettled(section: &Section<'_>) -> OnUnsettled {
    section.choice("on_unsettled", &ON_UNSETTLED).map(|l| l.value).unwrap_or_default()
}

fn user_limits(section: Section<'_>, team: &str, mode: LimitMode) -> Vec<Arc<Limit>> {
    let subject = Subject::user(team);
    let mode = mode::of(&section, mode);
    let mut limits = budgets(&section, &subject, mode);
    limits.extend(rates_and_in_flight(&section, &subject, mode));
    section.finish();
    shared(limits)
}

fn key(team: &str, name: &str, section: Section<'_>, zone: &TimeZone) -> DeclaredKey {
    values::check_name(name, &section.place, section.findings);
    section.missing(
        "sha256",
        "the SHA-256 of the key's secret in hexadecimal: printf %s \"$SECRET\" | sha256sum",
    );
    let sha256 = values::sha256(&section);
    let models = values::models(&section, "for the team's models, leave the key out");
    let operations = values::operations(&section, "for the team's operations, leave the key out");
    let labels = values::labels(&section);
    let expires_at: Option<Timestamp> = values::instant(&section, "expires", zone).map(|l| l.value);
    let subject = Subject::key(team, name);
    let max_output_tokens = max_output_tokens(&section);
    // Its own, whatever its team's is.
    let mode = mode::of(&section, LimitMode::default());
    let mut limits = budgets(&section, &subject, mode);
    limits.extend(rates_and_in_flight(&section, &subject, mode));
    let key = Arc::new(VirtualKey {
        name: Arc::from(name),
        team: Arc::from(team),
        models: models.as_ref().map(|list| list.iter().map(|l| l.value.clone()).collect()),
        operations: operations.as_ref().map(|list| list.iter().map(|l| l.value).collect()),
        max_output_tokens,
        mode,
        expires_at,
        labels,
        limits: shared(limits),
        stored: None,
        budget_counters: subject.budget_counters(),
        templates: Templates::default(),
    });
    let place = section.place.clone();
    section.finish();
    DeclaredKey {
        place,
        sha256,
        models: models.unwrap_or_default(),
        operations: operations.unwrap_or_default(),
        key,
    }
}
