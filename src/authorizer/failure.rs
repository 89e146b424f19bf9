//! Why a request could be neither allowed nor denied, or usage not be booked.

use thiserror::Error;
use tokio::time::error::Elapsed;

use crate::{
    domain::bounds::Excess,
    live::Unfresh,
    store::{MAX_HOLDS, ReservationId, StoreError},
};

/// Why a request could be neither allowed nor denied, or usage could not be booked.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum Failure {
    /// The store did not answer.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Pauses and keys were not read within the bound, and cannot be read now.
    #[error("pauses and keys could not be read within their bound")]
    SnapshotStale,
    /// The key was moved to another team while its request waited or was decided.
    #[error("the key was moved to another team at this moment; try again")]
    KeyMoved,
    /// `request_id` was used before, with another request.
    #[error("`request_id` was used before for a different request; use a new id for a new request")]
    RequestIdReused,
    /// The reservation under `request_id` is over: it was settled, or it expired.
    #[error("the request of this `request_id` is over; use a new id for a new request")]
    RequestIdSpent(ReservationId),
    /// The reservation is unknown.
    #[error("no such reservation: it was never issued, or was settled or expired too long ago")]
    UnknownReservation,
    /// It belongs to a team that the caller may not report for.
    #[error("no reservation of a team that the caller may report for")]
    OtherTeam,
    /// The team is not in the policy.
    #[error("the policy has no team `{0}`")]
    UnknownTeam(String),
    /// The key is not in the policy.
    #[error("the API key is not one of the policy's")]
    UnknownKey,
    /// The usage has no price.
    #[error("{0}")]
    NotPriced(String),
    /// More was reported than the request, or all lines of the batch, can have used.
    #[error("more is reported than can have been used")]
    ImpossibleUsage(Vec<Excess>),
    /// A tool has no price.
    #[error("{0}")]
    UnknownTool(String),
    /// More usage is reported without a reservation than the policy lets gateways report.
    #[error("{0}")]
    UnreservedBound(String),
    /// The store does not answer, and what is kept until it does has reached its bound.
    #[error(
        "the store does not answer, and this replica keeps as many reports as it may until it does; retry later, or ask another one"
    )]
    SpoolFull,
    /// One call counts in more windows than a store takes in one step.
    #[error(
        "the descriptors have more windows together than one call can count in, which is {MAX_HOLDS}: send fewer"
    )]
    TooManyWindows,
    /// The caller's own deadline has passed.
    #[error("the call's deadline is over")]
    DeadlineExceeded,
    /// The service stops, and the request was still waiting for room.
    #[error("this replica stops; ask another one, where the request can wait")]
    ShuttingDown,
    /// A fault of the service; details are in its log.
    #[error("internal error")]
    Internal,
}

impl Failure {
    /// Whether this release must leave the store alone.
    #[must_use]
    pub const fn is_unsupported(&self) -> bool {
        matches!(self, Self::Store(StoreError::LayoutUnsupported(_)))
    }

    /// The failure of a step that follows one which took something: even if the store was not asked again, something has changed.
    pub(super) fn after_a_change(self) -> Self {
        match self {
            Self::Store(StoreError::Overloaded | StoreError::LayoutUnsupported(_)) => {
                StoreError::Unavailable.into()
            }
            failure => failure,
        }
    }
}

impl From<Elapsed> for Failure {
    fn from(_: Elapsed) -> Self {
        Self::DeadlineExceeded
    }
}

impl From<Unfresh> for Failure {
    fn from(error: Unfresh) -> Self {
        match error {
            Unfresh::Store(error) => Self::Store(error),
            Unfresh::Stale => Self::SnapshotStale,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Unsupported;

    #[test]
    fn what_failed_after_a_change_is_not_said_to_have_changed_nothing() {
        let unavailable = Failure::from(StoreError::Unavailable);
        let newer = StoreError::LayoutUnsupported(Unsupported::Newer { found: 9 });
        for error in [StoreError::Overloaded, newer, StoreError::Unavailable] {
            assert_eq!(Failure::after_a_change(error.into()).to_string(), unavailable.to_string());
        }
        let reused = Failure::RequestIdReused.to_string();
        assert_eq!(Failure::RequestIdReused.after_a_change().to_string(), reused);
    }
}
