//! Errors as `google.rpc` details: what is wrong, where, and what to do.

use std::{collections::HashMap, fmt, time::Duration};

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, FieldViolation, StatusExt as _};

use super::access;
use crate::{
    access::{OtherTeam, Refusal, UNRESERVED_BOUND_EXCEEDED},
    authorizer::Failure,
    control::{KeyError, PauseError},
    domain::rbac::Permission,
    reports::SpendError,
    store::{LAYOUT, OLDEST_LAYOUT, StoreError, Unsupported},
};

pub(super) const DOMAIN: &str = "tollgate.v1";
/// The field whose errors have a reason of their own.
const PAGE_TOKEN: &str = "page_token";
/// How an unreadable id or name is described.
pub(super) const MALFORMED: &str = "malformed";
/// When to retry after an outage: connections are rebuilt within a second or two.
pub(super) const OUTAGE_RETRY: Duration = Duration::from_secs(1);

/// The longest description of one malformed field, and the longest of all together, in bytes. A status travels in HTTP
/// headers, twice in full and encoded each time; clients accept 16 KiB of headers and tear down the stream past that.
const MAX_DESCRIPTION_BYTES: usize = 256;
const MAX_NAMED_BYTES: usize = 2048;

/// The malformed fields of one request; if there are very many, only the first.
#[derive(Default)]
pub(super) struct FieldErrors(Vec<FieldViolation>);

impl FieldErrors {
    pub(super) fn add(&mut self, field: &str, description: impl Into<String>) {
        let mut description = description.into();
        if description.len() > MAX_DESCRIPTION_BYTES {
            description.truncate(description.floor_char_boundary(MAX_DESCRIPTION_BYTES));
            description.push('…');
        }
        let named: usize = self.0.iter().map(|v| v.field.len() + v.description.len()).sum();
        if self.0.is_empty() || named + field.len() + description.len() <= MAX_NAMED_BYTES {
            self.0.push(FieldViolation::new(field, description));
        }
    }

    /// A `page_token` that asks for no page. Where nothing else is wrong, the status has a reason of its own.
    pub(super) fn page_token(&mut self, why: impl fmt::Display) {
        self.add(PAGE_TOKEN, why.to_string());
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn into_status(self) -> Status {
        let message =
            self.0.iter().map(|v| format!("`{}`: {}", v.field, v.description)).collect::<Vec<_>>().join("; ");
        let is_of_token = self.0.iter().all(|v| v.field == PAGE_TOKEN);
        let reason = if is_of_token { "PAGE_TOKEN_INVALID" } else { "INVALID_REQUEST" };
        let mut details = ErrorDetails::with_bad_request(self.0);
        details.set_error_info(reason, DOMAIN, HashMap::new());
        Status::with_error_details(Code::InvalidArgument, message, details)
    }
}

/// The status for a message of `length` bytes when a service takes `max`.
#[must_use]
pub fn message_too_large(length: usize, max: usize) -> Status {
    let mut details = ErrorDetails::new();
    let facts = HashMap::from([("maxBytes".to_owned(), max.to_string())]);
    details.set_error_info("MESSAGE_TOO_LARGE", DOMAIN, facts);
    let message =
        format!("a message of {length} bytes is larger than this service takes, which is {max} bytes");
    Status::with_error_details(Code::ResourceExhausted, message, details)
}

/// The status for a call whose message did not arrive within `patience`.
#[must_use]
pub fn request_too_slow(patience: Duration) -> Status {
    timed_out(format!("the request was not complete within {patience:?}"))
}

/// The status for a call that was given up at its caller's own deadline.
#[must_use]
pub fn deadline_exceeded() -> Status {
    timed_out("the call was given up at the deadline in its `grpc-timeout`".to_owned())
}

fn timed_out(message: String) -> Status {
    let mut details = ErrorDetails::new();
    details.set_error_info("DEADLINE_EXCEEDED", DOMAIN, HashMap::new());
    Status::with_error_details(Code::DeadlineExceeded, message, details)
}

/// The status for a fault of the service. Details stay in the log.
pub(super) fn internal() -> Status {
    failure(&Failure::Internal)
}

/// The status for what could not be booked or changed: if the store did not answer, it may have happened nonetheless.
/// Internal details stay in the log.
pub(super) fn failure(failure: &Failure) -> Status {
    failure_of(failure, "unknown")
}

/// The status for what could not be decided or read: nothing was changed, or what was taken is released.
pub(super) fn undecided(failure: &Failure) -> Status {
    failure_of(failure, "none")
}

/// Why there is no report of spend.
pub(super) fn unreported(error: SpendError) -> Status {
    let failure = match error {
        SpendError::Store(error) => Failure::Store(error),
        SpendError::UnknownTeam(team) => Failure::UnknownTeam(team),
        SpendError::Internal => Failure::Internal,
        SpendError::HistoryNotKept(_) => {
            let mut details = ErrorDetails::new();
            details.set_error_info("HISTORY_NOT_KEPT", DOMAIN, HashMap::new());
            return Status::with_error_details(Code::FailedPrecondition, error.to_string(), details);
        }
    };
    undecided(&failure)
}

fn unavailable(reason: &str, message: &str, effect: &str) -> Status {
    let mut details = ErrorDetails::new();
    details.set_error_info(reason, DOMAIN, HashMap::from([("effect".to_owned(), effect.to_owned())]));
    details.set_retry_info(Some(OUTAGE_RETRY));
    Status::with_error_details(Code::Unavailable, message, details)
}

/// The status of a process that must leave its store alone: nothing was changed. Another replica may answer.
fn layout_unsupported(unsupported: Unsupported) -> Status {
    let mut facts = HashMap::from([("effect".to_owned(), "none".to_owned())]);
    let found = match unsupported {
        Unsupported::Newer { found } => Some((found, LAYOUT)),
        Unsupported::Older { found } => Some((found, OLDEST_LAYOUT)),
        Unsupported::Entry => None,
    };
    if let Some((found, known)) = found {
        facts.insert("foundLayout".to_owned(), found.to_string());
        facts.insert("knownLayout".to_owned(), known.to_string());
    }
    let mut details = ErrorDetails::new();
    details.set_error_info("LAYOUT_UNSUPPORTED", DOMAIN, facts);
    details.set_retry_info(Some(OUTAGE_RETRY));
    Status::with_error_details(Code::Unavailable, unsupported.to_string(), details)
}

/// `effect`: what a caller has to expect after an outage.
fn failure_of(failure: &Failure, effect: &str) -> Status {
    let info = |reason: &str| {
        let mut details = ErrorDetails::new();
        details.set_error_info(reason, DOMAIN, HashMap::new());
        details
    };
    let message = failure.to_string();
    match failure {
        Failure::Store(StoreError::Unavailable) => unavailable("STORE_UNAVAILABLE", &message, effect),
        // The store was never asked, so nothing was changed in any case.
        Failure::Store(StoreError::Overloaded) => unavailable("OVERLOADED", &message, "none"),
        Failure::Store(StoreError::LayoutUnsupported(unsupported)) => layout_unsupported(*unsupported),
        Failure::DeadlineExceeded => {
            Status::with_error_details(Code::DeadlineExceeded, message, info("DEADLINE_EXCEEDED"))
        }
        Failure::SnapshotStale | Failure::KeyMoved => {
            let mut details = info("SNAPSHOT_STALE");
            details.set_retry_info(Some(OUTAGE_RETRY));
            Status::with_error_details(Code::Unavailable, message, details)
        }
        Failure::Store(StoreError::Overflow) => {
            Status::with_error_details(Code::OutOfRange, message, info("AMOUNT_OUT_OF_RANGE"))
        }
        Failure::Store(StoreError::Corrupt) | Failure::Internal => {
            Status::with_error_details(Code::Internal, message, info("INTERNAL"))
        }
        Failure::RequestIdReused => {
            Status::with_error_details(Code::AlreadyExists, message, info("REQUEST_ID_REUSED"))
        }
        Failure::RequestIdSpent(reservation) => {
            let metadata = HashMap::from([("reservationId".to_owned(), reservation.to_string())]);
            let mut details = ErrorDetails::new();
            details.set_error_info("REQUEST_ID_SPENT", DOMAIN, metadata);
            Status::with_error_details(Code::AlreadyExists, message, details)
        }
        Failure::UnknownReservation => {
            Status::with_error_details(Code::NotFound, message, info("UNKNOWN_RESERVATION"))
        }
        // The same words answer for what a caller may not see and for what does not exist.
        Failure::OtherTeam => access::status(Refusal::OtherTeam(Permission::Record, OtherTeam::Unnamed)),
        Failure::UnknownTeam(_) => Status::with_error_details(Code::NotFound, message, info("UNKNOWN_TEAM")),
        Failure::UnknownKey => Status::with_error_details(Code::NotFound, message, info("INVALID_KEY")),
        Failure::NotPriced(_) => {
            Status::with_error_details(Code::FailedPrecondition, message, info("MODEL_NOT_PRICED"))
        }
        Failure::ImpossibleUsage(excesses) => {
            let mut errors = FieldErrors::default();
            excesses.iter().for_each(|excess| errors.add(&excess.field, excess.message.clone()));
            errors.into_status()
        }
        Failure::UnreservedBound(_) => {
            let info = info(UNRESERVED_BOUND_EXCEEDED);
            Status::with_error_details(Code::FailedPrecondition, message, info)
        }
        Failure::UnknownTool(_) => {
            Status::with_error_details(Code::FailedPrecondition, message, info("TOOL_NOT_PRICED"))
        }
    }
}

/// The status when no such cooldown is in force.
pub(super) fn unknown_cooldown(project: &str, model: &str) -> Status {
    let message = format!("no cooldown of `{model}` is in force in the project `{project}`");
    let mut details = ErrorDetails::new();
    details.set_error_info("UNKNOWN_COOLDOWN", DOMAIN, HashMap::new());
    details.set_resource_info("tollgate.v1.Cooldown", format!("{project}/{model}"), "", "");
    Status::with_error_details(Code::NotFound, message, details)
}

/// The status when nothing was paused or resumed.
pub(super) fn pause(error: &PauseError) -> Status {
    let (code, reason) = match error {
        PauseError::Unread(error) | PauseError::Unwritten(error) => {
            return failure(&Failure::Store(error.clone()));
        }
        PauseError::Internal => return internal(),
        PauseError::Unknown { .. } => (Code::NotFound, "UNKNOWN_TARGET"),
        PauseError::TooMany => (Code::ResourceExhausted, "TOO_MANY_PAUSES"),
        PauseError::Changed(_) => (Code::Aborted, "PAUSE_CHANGED"),
    };
    let mut details = ErrorDetails::new();
    details.set_error_info(reason, DOMAIN, HashMap::new());
    Status::with_error_details(code, error.to_string(), details)
}

/// The status for a key that could not be created, shown or changed.
pub(super) fn key_failure(error: &KeyError) -> Status {
    let with = |code, reason: &str| {
        let mut details = ErrorDetails::new();
        details.set_error_info(reason, DOMAIN, HashMap::new());
        Status::with_error_details(code, error.to_string(), details)
    };
    match error {
        KeyError::Store(error) => failure(&Failure::Store(error.clone())),
        KeyError::Invalid(breaches) => {
            let mut errors = FieldErrors::default();
            breaches.iter().for_each(|breach| errors.add(breach.field, breach.message.clone()));
            errors.into_status()
        }
        KeyError::Unknown(_) | KeyError::NotCreated(_) => with(Code::NotFound, "UNKNOWN_KEY"),
        KeyError::UnknownSecret(_) => with(Code::NotFound, "UNKNOWN_SECRET"),
        KeyError::Exists(_) => with(Code::AlreadyExists, "KEY_EXISTS"),
        KeyError::Changed(_) => with(Code::Aborted, "KEY_CHANGED"),
        KeyError::Revoked(_) => with(Code::FailedPrecondition, "KEY_REVOKED"),
        KeyError::InUse(_) => with(Code::FailedPrecondition, "SECRET_IN_USE"),
        KeyError::OnlySecret(_) => with(Code::FailedPrecondition, "ONLY_SECRET"),
        KeyError::TooMany => with(Code::ResourceExhausted, "TOO_MANY_KEYS"),
        KeyError::Internal => failure(&Failure::Internal),
    }
}
