//! What usage is asked for.

use std::{collections::BTreeMap, sync::Arc};

use crate::{
    domain::{
        decision::Reason,
        request::{Operation, ServiceTier},
    },
    store::{DenialCause, Series, UsageAmounts, UsageKey},
};

/// How long each row of an answer is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Granularity {
    /// All of the interval.
    #[default]
    Total,
    /// An hour of a day, counted from where the day begins.
    Hour,
    /// A day.
    Day,
    /// A week from Monday, as far as it is in the interval.
    Week,
    /// A month, as far as it is in the interval.
    Month,
}

/// What is reported.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Subject {
    /// What settlements booked.
    #[default]
    Usage,
    /// Requests that were refused: only the requests of its amounts count.
    Denials,
}

/// What rows are grouped by.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Dimension {
    Team,
    Key,
    User,
    Model,
    Operation,
    ServiceTier,
    Project,
    Label(Arc<str>),
    Reason,
    LimitId,
}

/// What stands in the path of a label.
const LABELS: &str = "labels.";

impl Dimension {
    /// The dimension at a path of `UsageDimensions`, such as `team` or `labels.cost_center`.
    #[must_use]
    pub fn of_path(path: &str) -> Option<Self> {
        Some(match path {
            "team" => Self::Team,
            "key" => Self::Key,
            "user" => Self::User,
            "model" => Self::Model,
            "operation" => Self::Operation,
            "service_tier" => Self::ServiceTier,
            "project" => Self::Project,
            "reason" => Self::Reason,
            "limit_id" => Self::LimitId,
            path => Self::Label(path.strip_prefix(LABELS).filter(|label| !label.is_empty())?.into()),
        })
    }

    /// Whether rows of a subject have it.
    #[must_use]
    pub const fn is_of(&self, subject: Subject) -> bool {
        match self {
            Self::Reason | Self::LimitId => matches!(subject, Subject::Denials),
            Self::User | Self::Label(_) => matches!(subject, Subject::Usage),
            _ => true,
        }
    }

    /// The series whose rows have values of this dimension, if others have none.
    #[must_use]
    pub fn series(&self) -> Option<Series> {
        match self {
            Self::User => Some(Series::Users),
            Self::Label(name) => Some(Series::Label(Arc::clone(name))),
            _ => None,
        }
    }

    /// What a row has here. Operation and tier are their names; what is not known is empty.
    pub(super) fn of(&self, row: &UsageKey, value: &Arc<str>) -> Arc<str> {
        match self {
            Self::Team => Arc::clone(&row.set.team),
            Self::Key => Arc::clone(&row.key),
            Self::Model => Arc::clone(&row.model),
            Self::Operation => row.operation.map_or("", Operation::name).into(),
            Self::ServiceTier => row.service_tier.map_or("", ServiceTier::name).into(),
            Self::Project => Arc::clone(&row.project),
            Self::User | Self::Label(_) => Arc::clone(value),
            Self::Reason => DenialCause::of_text(&row.value).reason.map_or("", Reason::name).into(),
            Self::LimitId => DenialCause::of_text(&row.value).limit_id,
        }
    }
}

/// Which rows count: those that each list that is not empty has a value of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub struct UsageFilter {
    pub teams: Vec<String>,
    pub keys: Vec<String>,
    pub users: Vec<String>,
    pub models: Vec<String>,
    pub operations: Vec<Operation>,
    pub service_tiers: Vec<ServiceTier>,
    pub projects: Vec<String>,
    pub labels: BTreeMap<String, String>,
}

impl UsageFilter {
    pub(super) fn has_team(&self, team: &str) -> bool {
        holds(&self.teams, team)
    }

    /// Whether a row of a team that counts does.
    pub(super) fn has(&self, row: &UsageKey) -> bool {
        holds(&self.keys, &row.key)
            && holds(&self.models, &row.model)
            && holds(&self.projects, &row.project)
            && (self.operations.is_empty() || row.operation.is_some_and(|of| self.operations.contains(&of)))
            && (self.service_tiers.is_empty()
                || row.service_tier.is_some_and(|of| self.service_tiers.contains(&of)))
    }

    /// Whether a value of the user or of the label that the query is about counts.
    pub(super) fn has_value(&self, value: &str) -> bool {
        holds(&self.users, value) && self.labels.values().all(|wanted| *wanted == *value)
    }
}

fn holds(list: &[String], value: &str) -> bool {
    list.is_empty() || list.iter().any(|known| *known == *value)
}

/// The names of amounts in the contract, in the order of [`UsageAmounts::to_numbers`].
const AMOUNTS: [&str; crate::store::USAGE_AMOUNTS] = [
    "cost",
    "request_count",
    "input_tokens",
    "cached_input_tokens",
    "output_tokens",
    "reasoning_tokens",
    "audio_duration",
    "character_count",
    "input_cost",
    "cached_input_cost",
    "output_cost",
    "tool_call_count",
    "tool_cost",
    "unsettled_count",
    "aborted_count",
    "failed_count",
    "rate_limited_count",
    "degraded_count",
];

/// An amount that rows are ordered by, before their period and their dimensions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Order {
    amount: usize,
    descending: bool,
}

impl Order {
    /// The order of a text such as `amounts.cost desc`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut words = text.split_whitespace();
        let name = words.next()?.strip_prefix("amounts.")?;
        let amount = AMOUNTS.iter().position(|known| *known == name)?;
        let descending = match (words.next(), words.next()) {
            (None, _) | (Some("asc"), None) => false,
            (Some("desc"), None) => true,
            _ => return None,
        };
        Some(Self { amount, descending })
    }

    /// Smaller for what comes first.
    pub(super) fn rank(self, amounts: &UsageAmounts) -> u64 {
        let amount = amounts.to_numbers().get(self.amount).copied().unwrap_or(0);
        if self.descending { u64::MAX - amount } else { amount }
    }
}

/// What to report.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UsageQuery {
    /// What to report of.
    pub subject: Subject,
    /// The first day, as `20261123`.
    pub start_day: u32,
    /// The first day after the last.
    pub end_day: u32,
    /// How long each row is.
    pub granularity: Granularity,
    /// At most 4, at most one of which has a series of its own.
    pub group_by: Vec<Dimension>,
    /// Which rows count.
    pub filter: UsageFilter,
    /// By period and dimensions, if not given.
    pub order: Option<Order>,
    /// The most rows of a page.
    pub page_size: usize,
    /// Continue after this place.
    pub after: Option<UsagePlace>,
}

impl UsageQuery {
    /// The series that has values of the user or the label that it groups or filters by; `None`: it does neither.
    pub(super) fn series(&self) -> Option<Series> {
        let grouped = self.group_by.iter().find_map(Dimension::series);
        let of_users = || (!self.filter.users.is_empty()).then_some(Series::Users);
        let label = || self.filter.labels.keys().next().map(|name| Series::Label(name.as_str().into()));
        grouped.or_else(of_users).or_else(label)
    }

    pub(super) fn hour_of(&self, row: &UsageKey) -> u8 {
        if self.granularity == Granularity::Hour { row.hour } else { 0 }
    }

    /// How many series it needs, which may be one at most: rows have a user or a label, never both.
    #[must_use]
    pub fn needed(&self) -> usize {
        let grouped = self.group_by.iter().filter_map(Dimension::series);
        let users = (!self.filter.users.is_empty()).then_some(Series::Users);
        let labels = self.filter.labels.keys().map(|name| Series::Label(name.as_str().into()));
        grouped.chain(users).chain(labels).collect::<std::collections::BTreeSet<_>>().len()
    }
}

/// The place of a row: what it is ordered by, its period, and the values of its dimensions.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct UsagePlace {
    /// By the amount that rows are ordered by; 0 if by none.
    pub rank: u64,
    /// The period and the values.
    pub group: UsageGroup,
}

/// What rows are added up by.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct UsageGroup {
    /// The first day of the period, or the interval if that begins later, as `20261123`.
    pub day: u32,
    /// The hour of the day; 0 unless by hour.
    pub hour: u8,
    /// The values of the dimensions, in the order in which they were asked for.
    pub values: Vec<Arc<str>>,
}
