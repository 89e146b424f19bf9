//! Limits: a bound on one quantity, for one scope, over one window.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{counter::CounterKey, money::NanoUsd};

/// The scope that a limit counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum LimitScope {
    /// The whole organization.
    Organization,
    /// One model or pattern of models in the organization.
    OrganizationModel,
    /// One team.
    Team,
    /// One model or pattern of models in one team.
    TeamModel,
    /// One key.
    Key,
    /// One user of a team.
    User,
}

impl LimitScope {
    /// All of them, in their order.
    pub const ALL: [Self; 6] =
        [Self::Organization, Self::OrganizationModel, Self::Team, Self::TeamModel, Self::Key, Self::User];

    /// The short form of the contract's name, such as `team_model`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Organization => "organization",
            Self::OrganizationModel => "organization_model",
            Self::Team => "team",
            Self::TeamModel => "team_model",
            Self::Key => "key",
            Self::User => "user",
        }
    }
}

/// What a limit counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Quantity {
    /// Requests.
    Requests,
    /// Input tokens that were not cached, and output tokens.
    Tokens,
    /// Audio in milliseconds.
    AudioMilliseconds,
    /// Billionths of a US dollar.
    NanoUsd,
    /// Requests in flight.
    RequestsInFlight,
    /// Reservations without a report, expired ones included.
    UnsettledRequests,
}

impl Quantity {
    /// The short form of the contract's name, such as `requests_in_flight`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Requests => "requests",
            Self::Tokens => "tokens",
            Self::AudioMilliseconds => "audio_milliseconds",
            Self::NanoUsd => "nano_usd",
            Self::RequestsInFlight => "requests_in_flight",
            Self::UnsettledRequests => "unsettled_requests",
        }
    }
}

/// The window over which a limit counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Window {
    /// Every interval of this length.
    Sliding(Span),
    /// The current calendar period, in the organization's time zone.
    Calendar(Period),
    /// Now: reservations that are neither settled nor expired.
    InFlight,
    /// The same for batches, which live for days.
    OpenBatches,
    /// Now: reservations that are not settled and still can be; without batches.
    Unsettled,
    /// The same for batches, which can be settled for longer.
    UnsettledBatches,
}

impl Window {
    /// Its name in metrics: the length of a window or a period, `batches` for what counts only those, else `none`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Sliding(span) => span.name(),
            Self::Calendar(period) => period.name(),
            Self::InFlight | Self::Unsettled => "none",
            Self::OpenBatches | Self::UnsettledBatches => "batches",
        }
    }
}

/// The length of a sliding window.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Span {
    /// 60 seconds.
    Minute,
    /// 60 minutes.
    Hour,
    /// 24 hours, whatever the calendar says.
    Day,
}

impl Span {
    /// The length in milliseconds.
    #[must_use]
    pub const fn length_ms(self) -> u64 {
        match self {
            Self::Minute => 60_000,
            Self::Hour => 3_600_000,
            Self::Day => 86_400_000,
        }
    }

    /// `minute`, `hour` or `day`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Minute => "minute",
            Self::Hour => "hour",
            Self::Day => "day",
        }
    }
}

/// A calendar period in the organization's time zone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Period {
    /// From midnight.
    Day,
    /// From Monday.
    Week,
    /// From the first of the month.
    Month,
}

impl Period {
    /// All of them, the shortest first.
    pub const ALL: [Self; 3] = [Self::Day, Self::Week, Self::Month];

    /// `day`, `week` or `month`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Day => "day",
            Self::Week => "week",
            Self::Month => "month",
        }
    }
}

/// What happens if a budget cannot cover a request's worst case.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnShortfall {
    /// The request is denied.
    #[default]
    Deny,
    /// As many output tokens are granted as the rest of the budget can pay for, at least [`Limit::min_output_tokens`].
    Clamp,
    /// The request is allowed, with a warning.
    Warn,
}

impl OnShortfall {
    /// Each with the short form of the contract's name.
    pub const NAMES: [(&'static str, Self); 3] =
        [("deny", Self::Deny), ("clamp", Self::Clamp), ("warn", Self::Warn)];
}

/// Whether a limit refuses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LimitMode {
    /// It refuses.
    #[default]
    Enforce,
    /// It counts and is reported, and refuses nothing.
    Shadow,
}

impl LimitMode {
    /// Each with the short form of the contract's name.
    pub const NAMES: [(&'static str, Self); 2] = [("enforce", Self::Enforce), ("shadow", Self::Shadow)];
}

/// A point of a budget that is reported once per period when it is crossed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Threshold {
    /// As the policy writes it: `80%` or `$400`.
    pub text: Arc<str>,
    /// The amount, rounded up to the nano-USD.
    pub amount: NanoUsd,
    /// The share of the budget in percent, rounded down; determines the log level of the crossing.
    pub percent: u64,
}

/// One limit of the policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limit {
    /// Its place in the policy, such as `teams.chatbot.requests_per_minute`.
    pub id: Arc<str>,
    /// The scope that it counts.
    pub scope: LimitScope,
    /// What it counts.
    pub quantity: Quantity,
    /// The window over which it counts.
    pub window: Window,
    /// The bound in the quantity's unit; `None` if it only counts (a month without a budget).
    pub bound: Option<u64>,
    /// The counter, without the period (and, for [`LimitScope::User`], without the user).
    pub counter: CounterKey,
    /// Whether it refuses.
    pub mode: LimitMode,
    /// Budgets only: what happens on a shortfall.
    pub on_shortfall: OnShortfall,
    /// Budgets only: the fewest output tokens worth granting under [`OnShortfall::Clamp`], at least 1.
    pub min_output_tokens: u64,
    /// Budgets only: in ascending order of amount.
    pub alerts: Vec<Threshold>,
}

/// The budgets and limits of an organization or a team.
#[derive(Clone, Debug)]
pub struct Limits {
    /// The dollars of a month. Without a budget it has no bound and only counts.
    pub month: Arc<Limit>,
    /// All others.
    pub others: Vec<Arc<Limit>>,
}

impl Limits {
    /// All of them, the month first.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Limit>> + Clone {
        self.into_iter()
    }
}

impl<'l> IntoIterator for &'l Limits {
    type Item = &'l Arc<Limit>;
    type IntoIter = std::iter::Chain<std::iter::Once<&'l Arc<Limit>>, std::slice::Iter<'l, Arc<Limit>>>;

    fn into_iter(self) -> Self::IntoIter {
        std::iter::once(&self.month).chain(&self.others)
    }
}

/// The counters of the budgets of one subject, whether or not it has them, without the period that they count in.
#[derive(Clone, Debug)]
pub struct BudgetCounters {
    day: CounterKey,
    week: CounterKey,
    month: CounterKey,
}

impl BudgetCounters {
    /// The counter of the budget of such a period.
    #[must_use]
    pub const fn of(&self, period: Period) -> &CounterKey {
        match period {
            Period::Day => &self.day,
            Period::Week => &self.week,
            Period::Month => &self.month,
        }
    }
}

/// The scopes that limits count, and the prefixes of their counters' names.
///
/// A counter is named `who|quantity|window` (`team/chatbot|tokens|minute`), or `who|in_flight` and `who|unsettled`. The
/// bound is not part of the name, so a limit keeps its count when its bound is edited. The parts cannot contain the
/// separators.
#[derive(Clone, Debug)]
pub struct Subject {
    scope: LimitScope,
    name: String,
}

impl Subject {
    /// The organization.
    #[must_use]
    pub fn organization() -> Self {
        Self { scope: LimitScope::Organization, name: "org".to_owned() }
    }

    /// A team.
    #[must_use]
    pub fn team(team: &str) -> Self {
        Self { scope: LimitScope::Team, name: format!("team/{team}") }
    }

    /// A key of a team.
    #[must_use]
    pub fn key(team: &str, key: &str) -> Self {
        Self { scope: LimitScope::Key, name: format!("team/{team}/key/{key}") }
    }

    /// Each user of a team.
    #[must_use]
    pub fn user(team: &str) -> Self {
        Self { scope: LimitScope::User, name: format!("team/{team}/user") }
    }

    /// One model or pattern of models in this organization or team.
    #[must_use]
    pub fn model(&self, pattern: &str) -> Self {
        let scope = if self.scope == LimitScope::Organization {
            LimitScope::OrganizationModel
        } else {
            LimitScope::TeamModel
        };
        Self { scope, name: format!("{}/model/{pattern}", self.name) }
    }

    fn counter(&self, quantity: Quantity, window: Window) -> CounterKey {
        let what = match quantity {
            Quantity::Requests => "requests",
            Quantity::Tokens => "tokens",
            Quantity::AudioMilliseconds => "audio",
            Quantity::NanoUsd => "usd",
            Quantity::RequestsInFlight => "in_flight",
            Quantity::UnsettledRequests => "unsettled",
        };
        CounterKey::new(match window {
            Window::Sliding(span) => format!("{}|{what}|{}", self.name, span.name()),
            Window::Calendar(period) => format!("{}|{what}|{}", self.name, period.name()),
            Window::InFlight | Window::Unsettled => format!("{}|{what}", self.name),
            Window::OpenBatches => format!("{}|batches", self.name),
            Window::UnsettledBatches => format!("{}|{what}_batches", self.name),
        })
    }

    /// A limit without a bound on usage that is reported without a reservation, in dollars.
    #[must_use]
    pub fn unreserved(&self, id: Arc<str>, window: Window) -> Limit {
        let subject = Self { scope: self.scope, name: format!("{}/unreserved", self.name) };
        subject.limit(id, Quantity::NanoUsd, window)
    }

    /// The counters of its budgets (for [`LimitScope::User`], without the user).
    #[must_use]
    pub fn budget_counters(&self) -> BudgetCounters {
        let of = |period| self.counter(Quantity::NanoUsd, Window::Calendar(period));
        BudgetCounters { day: of(Period::Day), week: of(Period::Week), month: of(Period::Month) }
    }

    /// A limit without a bound, with the id `id`.
    #[must_use]
    pub fn limit(&self, id: Arc<str>, quantity: Quantity, window: Window) -> Limit {
        Limit {
            id,
            scope: self.scope,
            quantity,
            window,
            bound: None,
            counter: self.counter(quantity, window),
            mode: LimitMode::default(),
            on_shortfall: OnShortfall::default(),
            min_output_tokens: 1,
            alerts: Vec::new(),
        }
    }
}
