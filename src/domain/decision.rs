//! Decisions: allowed, or denied with every limit that refused.

use serde::{Deserialize, Serialize};

use super::{
    Timestamp,
    limit::{LimitScope, Quantity},
    money::NanoUsd,
};

/// Why a request is refused. Answers, logs and metrics all share this list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
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

/// The state of a limit after a decision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LimitStatus {
    /// Its place in the policy.
    pub limit_id: std::sync::Arc<str>,
    /// The scope that it counts.
    pub scope: LimitScope,
    /// What it counts.
    pub quantity: Quantity,
    /// The bound.
    pub limit: u64,
    /// What is used.
    pub used: u64,
    /// The longest time until none of it counts any more, in milliseconds.
    pub reset_ms: u64,
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
