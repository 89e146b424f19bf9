//! What a refusal by a limit is called.

use crate::domain::{
    decision::Reason,
    limit::{Limit, LimitScope, Quantity},
};

/// The reason that a refusal by the limit reports.
#[must_use]
pub const fn reason_of(limit: &Limit) -> Reason {
    match (limit.quantity, limit.scope) {
        (Quantity::Requests, _) => Reason::RequestRateExceeded,
        (Quantity::Tokens, _) => Reason::TokenRateExceeded,
        (Quantity::AudioMilliseconds, _) => Reason::AudioRateExceeded,
        (Quantity::RequestsInFlight, _) => Reason::TooManyInFlight,
        (Quantity::UnsettledRequests, _) => Reason::TooManyUnsettled,
        (Quantity::NanoUsd, LimitScope::Organization | LimitScope::OrganizationModel) => {
            Reason::OrganizationBudgetExhausted
        }
        (Quantity::NanoUsd, LimitScope::Team | LimitScope::TeamModel) => Reason::TeamBudgetExhausted,
        (Quantity::NanoUsd, LimitScope::Key | LimitScope::User) => Reason::KeyBudgetExhausted,
    }
}
