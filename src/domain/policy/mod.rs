//! The validated policy document, as the hot path reads it. [`crate::policy_file`] builds it from the documents that people write.

mod document;
pub mod envoy;
mod reports;
pub mod upstream;

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    str::FromStr,
    sync::Arc,
};

use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};
use thiserror::Error;

pub use self::{
    document::{DocumentFormat, PolicyDocument, ShownDocument},
    reports::ReportRules,
};
use self::{envoy::EnvoyPolicy, upstream::Projects};
use super::{
    alert::AlertRoute,
    batch::BatchCaps,
    calendar::Calendar,
    cooldown::Gates,
    counter::CounterKey,
    key::DeclaredKeys,
    limit::{BudgetCounters, Limit, LimitMode, Limits},
    money::NanoUsd,
    name::MAX_MODEL_BYTES,
    outage::OutageRules,
    plan::Templates,
    price::{ToolCatalogue, catalogue::Catalogue},
    rbac::AccessPolicy,
    request::Operation,
    tally::TallyOfTeam,
    tools::ToolBounds,
};

/// A complete policy.
#[derive(Clone, Debug)]
pub struct Policy {
    /// The hash of its content, 16 hexadecimal digits.
    pub revision: Arc<str>,
    /// The organization.
    pub organization: Organization,
    /// Days, weeks and months in the organization's time zone.
    pub calendar: Calendar,
    /// What models cost: the built-in prices, overridden by the policy's own.
    pub catalogue: Catalogue,
    /// What Groq's built-in tools cost, in the same way.
    pub tools: ToolCatalogue,
    /// The teams by name.
    pub teams: HashMap<Arc<str>, Arc<Team>>,
    /// The keys that it declares.
    pub keys: DeclaredKeys,
    /// How requests through Envoy are handled.
    pub envoy: EnvoyPolicy,
    /// The organization's Groq projects, whose keys authenticate requests to Groq.
    pub projects: Projects,
    /// The cooldowns that Groq's own refusals open.
    pub gates: Gates,
    /// What usage is reported by.
    pub reports: ReportRules,
    /// Who may call; `None`: anyone on this machine.
    pub access: Option<AccessPolicy>,
    /// Where alerts go.
    pub alerts: Vec<AlertRoute>,
    /// What it was read from.
    pub document: Arc<PolicyDocument>,
}

/// The counter of one user, from the counter that the limits in [`Team::user_limits`] share. The user comes last, so
/// nothing in its name can turn it into another counter.
#[must_use]
pub fn user_counter(counter: &CounterKey, user: &str) -> CounterKey {
    CounterKey::new(format!("{}|{user}", counter.name())).in_period(counter.period())
}

/// The counter of a team's dollars in a month: that of [`Limits::month`], even for a team that is no longer in the policy.
#[must_use]
pub fn team_month_counter(team: &str) -> CounterKey {
    CounterKey::new(format!("team/{team}|usd|month"))
}

/// The team whose dollars in a month the counter tracks, empty for the organization; `None` for every other counter.
#[must_use]
pub fn spender_of(counter: &CounterKey) -> Option<&str> {
    let subject = counter.name().strip_suffix("|usd|month")?;
    match subject.strip_prefix("team/") {
        Some(team) => Some(team).filter(|team| !team.contains('/')),
        None => (subject == "org").then_some(""),
    }
}

/// The inverse: the counter of the dollars of `spender` in a month.
#[must_use]
pub fn month_counter(spender: &str) -> CounterKey {
    if spender.is_empty() { CounterKey::new("org|usd|month") } else { team_month_counter(spender) }
}

/// The organization's part of a policy.
#[derive(Clone, Debug)]
pub struct Organization {
    /// Its id, which prefixes its counters in a shared store.
    pub id: Arc<str>,
    /// The time zone of its days, weeks and months.
    pub time_zone: TimeZone,
    /// The longest cooldown that one report of Groq's 429 opens, in milliseconds.
    pub max_cooldown_ms: u64,
    /// Its budgets and limits.
    pub limits: Limits,
    /// Groq's own limits and other limits that all teams share, by model.
    pub model_limits: Vec<(ModelPattern, Vec<Arc<Limit>>)>,
}

/// A team's part of a policy.
#[derive(Clone, Debug)]
pub struct Team {
    /// Its name.
    pub name: Arc<str>,
    /// The models it may use.
    pub models: Vec<ModelPattern>,
    /// The operations it may perform.
    pub operations: Vec<Operation>,
    /// The most output tokens of one request.
    pub max_output_tokens: Option<u64>,
    /// What happens to a request for more.
    pub on_exceed: OnExceed,
    /// Whether its lists and caps refuse: models, operations, output tokens, batches, tools. Each of its limits has its own mode.
    pub mode: LimitMode,
    /// What an expired reservation is charged.
    pub on_unsettled: OnUnsettled,
    /// Its budgets and limits.
    pub limits: Limits,
    /// Its limits by model.
    pub model_limits: Vec<(ModelPattern, Vec<Arc<Limit>>)>,
    /// Limits of each of its users.
    pub user_limits: Vec<Arc<Limit>>,
    /// The caps on its batches.
    pub batch: BatchCaps,
    /// Which of Groq's built-in tools its requests may enable.
    pub tools: ToolBounds,
    /// What gateways may report for it without a reservation.
    pub unreserved: UnreservedBounds,
    /// What holds for it while the store does not answer.
    pub outage: OutageRules,
    /// Labels of its requests that neither they nor their keys have.
    pub labels: BTreeMap<String, String>,
    /// The counters of its budgets.
    pub budget_counters: BudgetCounters,
    /// What its requests without a key share.
    pub templates: Templates,
    /// What is counted of it.
    pub tally: TallyOfTeam,
}

/// How much usage without a reservation gateways may report for a team.
#[derive(Clone, Debug)]
pub struct UnreservedBounds {
    /// The place of `max_cost` in the policy.
    pub max_cost_id: Arc<str>,
    /// The most that one report may cost.
    pub max_cost: NanoUsd,
    /// The most that all reports of a day may cost.
    pub daily: Arc<Limit>,
}

/// What happens to a request for more output tokens than permitted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnExceed {
    /// It is denied.
    #[default]
    Deny,
    /// It is granted fewer.
    Clamp,
}

/// What budgets are charged for a reservation that expires unsettled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnUnsettled {
    /// The worst case.
    #[default]
    ChargeReserved,
    /// The estimated input.
    ChargeInput,
    /// Nothing.
    Release,
}

/// An exact model name, or a prefix written with `*` at the end.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum ModelPattern {
    /// This model.
    Exact(Arc<str>),
    /// Every model whose name has this prefix.
    Prefix(Arc<str>),
}

impl ModelPattern {
    /// Whether it matches `model`.
    #[must_use]
    pub fn matches(&self, model: &str) -> bool {
        match self {
            Self::Exact(name) => **name == *model,
            Self::Prefix(prefix) => model.starts_with(&**prefix),
        }
    }
}

impl ModelPattern {
    /// Whether it matches every model that `other` matches.
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        match (self, other) {
            (_, Self::Exact(name)) => self.matches(name),
            (Self::Prefix(prefix), Self::Prefix(longer)) => longer.starts_with(&**prefix),
            (Self::Exact(_), Self::Prefix(_)) => false,
        }
    }

    /// Whether some name matches both.
    #[must_use]
    pub fn overlaps(&self, other: &Self) -> bool {
        self.covers(other) || other.covers(self)
    }
}

/// The text is neither the name of a model nor a prefix of one.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("not the name of a model, such as `openai/gpt-oss-20b`, or its beginning with `*` at the end")]
pub struct NotAModel;

impl FromStr for ModelPattern {
    type Err = NotAModel;

    fn from_str(text: &str) -> Result<Self, NotAModel> {
        let (name, pattern) = match text.strip_suffix('*') {
            Some(prefix) => (prefix, Self::Prefix(Arc::from(prefix))),
            None => (text, Self::Exact(Arc::from(text))),
        };
        let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'/' | b'.' | b'_' | b':' | b'-');
        let sound = name.bytes().all(plain) && !text.is_empty() && text.len() <= MAX_MODEL_BYTES;
        sound.then_some(pattern).ok_or(NotAModel)
    }
}

impl TryFrom<String> for ModelPattern {
    type Error = NotAModel;

    fn try_from(text: String) -> Result<Self, NotAModel> {
        text.parse()
    }
}

impl From<ModelPattern> for String {
    fn from(pattern: ModelPattern) -> Self {
        pattern.to_string()
    }
}

/// As the policy writes it.
impl fmt::Display for ModelPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(name) => f.write_str(name),
            Self::Prefix(prefix) => write!(f, "{prefix}*"),
        }
    }
}
