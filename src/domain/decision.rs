//! Decisions: allowed, or denied with every limit that refused.

use super::{
    Timestamp,
    limit::{LimitMode, LimitScope, Quantity},
    money::NanoUsd,
};

/// Why a request is refused. Answers, logs and metrics all share this list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "each is explained in the contract, under the same name")]
pub enum Reason {
    UnknownTeam,
    InvalidKey,
    KeyRevoked,
    KeyExpired,
    ModelNotAllowed,
    ModelNotPriced,
    OperationNotAllowed,
    MaxOutputTokensExceeded,
    RequestRateExceeded,
    TokenRateExceeded,
    AudioRateExceeded,
    TooManyInFlight,
    TeamBudgetExhausted,
    KeyBudgetExhausted,
    OrganizationBudgetExhausted,
    Paused,
    UpstreamRateLimited,
    StoreUnavailable,
    ToolNotAllowed,
    ToolNotPriced,
    BatchTooLarge,
    TooManyUnsettled,
    OutageAllowanceExhausted,
}

impl Reason {
    /// How many there are.
    pub const COUNT: usize = Self::ALL.len();
    /// All of them, in their order.
    pub const ALL: [Self; 23] = [
        Self::UnknownTeam,
        Self::InvalidKey,
        Self::KeyRevoked,
        Self::KeyExpired,
        Self::ModelNotAllowed,
        Self::ModelNotPriced,
        Self::OperationNotAllowed,
        Self::MaxOutputTokensExceeded,
        Self::RequestRateExceeded,
        Self::TokenRateExceeded,
        Self::AudioRateExceeded,
        Self::TooManyInFlight,
        Self::TeamBudgetExhausted,
        Self::KeyBudgetExhausted,
        Self::OrganizationBudgetExhausted,
        Self::Paused,
        Self::UpstreamRateLimited,
        Self::StoreUnavailable,
        Self::ToolNotAllowed,
        Self::ToolNotPriced,
        Self::BatchTooLarge,
        Self::TooManyUnsettled,
        Self::OutageAllowanceExhausted,
    ];

    /// The short form of the contract's name, such as `token_rate_exceeded`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::UnknownTeam => "unknown_team",
            Self::InvalidKey => "invalid_key",
            Self::KeyRevoked => "key_revoked",
            Self::KeyExpired => "key_expired",
            Self::ModelNotAllowed => "model_not_allowed",
            Self::ModelNotPriced => "model_not_priced",
            Self::OperationNotAllowed => "operation_not_allowed",
            Self::MaxOutputTokensExceeded => "max_output_tokens_exceeded",
            Self::RequestRateExceeded => "request_rate_exceeded",
            Self::TokenRateExceeded => "token_rate_exceeded",
            Self::AudioRateExceeded => "audio_rate_exceeded",
            Self::TooManyInFlight => "too_many_in_flight",
            Self::TeamBudgetExhausted => "team_budget_exhausted",
            Self::KeyBudgetExhausted => "key_budget_exhausted",
            Self::OrganizationBudgetExhausted => "organization_budget_exhausted",
            Self::Paused => "paused",
            Self::UpstreamRateLimited => "upstream_rate_limited",
            Self::StoreUnavailable => "store_unavailable",
            Self::ToolNotAllowed => "tool_not_allowed",
            Self::ToolNotPriced => "tool_not_priced",
            Self::BatchTooLarge => "batch_too_large",
            Self::TooManyUnsettled => "too_many_unsettled",
            Self::OutageAllowanceExhausted => "outage_allowance_exhausted",
        }
    }
}

impl Reason {
    /// The reason with this short name.
    #[must_use]
    pub fn of_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.name() == name)
    }
}

/// When a refused request would pass if nothing else happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// Never.
    Never,
    /// After this many milliseconds, and not before.
    After(u64),
}

/// One limit that refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Why.
    pub reason: Reason,
    /// The scope that the limit counts; `None` if no counter is involved.
    pub scope: Option<LimitScope>,
    /// Its place in the policy; empty if no limit is involved.
    pub limit_id: String,
    /// The Groq project in cooldown; empty for any other reason.
    pub project: String,
    /// What it counts.
    pub quantity: Measure,
    /// The bound.
    pub limit: u64,
    /// What is used.
    pub used: u64,
    /// What the request asks for.
    pub requested: u64,
    /// When it would pass.
    pub retry: Retry,
    /// A message for people.
    pub message: String,
}

/// What refuses a request, and what is in shadow and would.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Violations {
    /// What refuses it.
    pub refusing: Vec<Violation>,
    /// What would, without being in shadow.
    pub shadow: Vec<Violation>,
}

impl Violations {
    /// Adds one of something in this mode.
    pub fn add(&mut self, mode: LimitMode, violation: Violation) {
        match mode {
            LimitMode::Enforce => self.refusing.push(violation),
            LimitMode::Shadow => self.shadow.push(violation),
        }
    }
}

/// One that refuses.
impl From<Violation> for Violations {
    fn from(violation: Violation) -> Self {
        Self { refusing: vec![violation], shadow: Vec::new() }
    }
}

/// The quantity in which a violation is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Measure {
    /// Nothing.
    None,
    /// What a limit counts.
    Of(Quantity),
    /// Output tokens of one request.
    OutputTokens,
}

impl Measure {
    /// The short form of the contract's name, such as `tokens`; `None` for nothing.
    #[must_use]
    pub const fn name(self) -> Option<&'static str> {
        match self {
            Self::None => None,
            Self::Of(quantity) => Some(quantity.name()),
            Self::OutputTokens => Some("output_tokens"),
        }
    }
}

/// An allowed request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Allowed {
    /// The reservation; `None` for a dry run.
    pub reservation: Option<(String, Timestamp)>,
    /// The output tokens granted.
    pub max_output_tokens: u64,
    /// The worst case reserved.
    pub reserved_cost: NanoUsd,
    /// Warnings for the caller.
    pub warnings: Vec<String>,
}
