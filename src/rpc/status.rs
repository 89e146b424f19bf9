//! Errors as `google.rpc` details: what is wrong, where, and what to do.

use std::{fmt, time::Duration};

use tonic::Status;
use tonic_types::FieldViolation;

use super::{
    access,
    error::{
        Effect, Fields, Layout, Nothing, Outage, Precondition, Quota, Resource, Retry, Size, Spent, Unsure,
        shortened, table,
    },
};
use crate::{
    access::{OtherTeam, Refusal},
    alerts::TrialError,
    authorizer::{Failure, NotWatched},
    control::{KeyError, PauseError},
    domain::rbac::Permission,
    policy_file::{Finding, Severity, TookTooLong, masked},
    reports::{ListError, SpendError, UsageError},
    revisions::RevisionError,
    store::StoreError,
};

/// How an unreadable id or name is described.
pub(super) const MALFORMED: &str = "malformed";
/// The field whose errors have a reason of their own.
const PAGE_TOKEN: &str = "page_token";

// Types of resources.
const COOLDOWN: &str = "tollgate.v1.Cooldown";
const KEY: &str = "tollgate.v1.VirtualKey";
const PAUSE: &str = "tollgate.v1.Pause";
const RECEIVER: &str = "tollgate.v1.Receiver";
const REQUEST: &str = "tollgate.v1.Request";
const RESERVATION: &str = "tollgate.v1.Reservation";
const REVISION: &str = "tollgate.v1.PolicyRevision";
const SECRET: &str = "tollgate.v1.KeySecret";
const TEAM: &str = "tollgate.v1.Team";

/// The longest descriptions of malformed fields together, in bytes.
const MAX_NAMED_BYTES: usize = 2048;

/// The most errors of a proposed document that are named; `CheckPolicy` names all.
const MAX_NAMED_FAULTS: usize = 5;

/// The malformed fields of one request; if there are very many, only the first.
#[derive(Default)]
pub(super) struct FieldErrors(Vec<FieldViolation>);

impl FieldErrors {
    pub(super) fn add(&mut self, field: &str, description: impl Into<String>) {
        let description = shortened(description.into());
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
        // With other faults beside it, the request is to be corrected before its page can matter.
        let is_of_token = self.0.iter().all(|v| v.field == PAGE_TOKEN);
        let reason = if is_of_token { &table::PAGE_TOKEN_INVALID } else { &table::INVALID_REQUEST };
        reason.error(message, Fields(self.0))
    }
}

/// As many streams of events are open as may be.
#[must_use]
pub fn too_many_streams() -> Status {
    let message = "as many streams are open at this replica as may be: close pages that are not looked at";
    table::TOO_MANY_STREAMS.error(message, Quota("streams"))
}

/// One reader has `max` streams of events open, and may have no more.
#[must_use]
pub fn too_many_streams_of_reader(max: usize) -> Status {
    let message = format!(
        "{max} streams of yours are open at this replica, which is as many as one reader may have: close pages that are not looked at"
    );
    table::TOO_MANY_STREAMS.error(message, Quota("streams"))
}

/// What is asked for in the address of a page, or in a form, is malformed: `description` says what `field` has to be.
#[must_use]
pub fn invalid_field(field: &str, description: &str) -> Status {
    let mut errors = FieldErrors::default();
    errors.add(field, description);
    errors.into_status()
}

/// The status for a message of `length` bytes when a service takes `max`.
#[must_use]
pub fn message_too_large(length: usize, max: usize) -> Status {
    let message =
        format!("a message of {length} bytes is larger than this service takes, which is {max} bytes");
    table::MESSAGE_TOO_LARGE.error(message, Size(max))
}

/// The status for a call whose message did not arrive within `patience`.
#[must_use]
pub fn request_too_slow(patience: Duration) -> Status {
    table::DEADLINE_EXCEEDED.error(format!("the request was not complete within {patience:?}"), Unsure)
}

/// The status for a call that was given up at its caller's own deadline.
#[must_use]
pub fn deadline_exceeded() -> Status {
    table::DEADLINE_EXCEEDED.error("the call was given up at the deadline in its `grpc-timeout`", Unsure)
}

/// The status for a call that was still open shortly before the end of the service's drain.
#[must_use]
pub fn shutting_down(effect: Effect) -> Status {
    table::SHUTTING_DOWN.error("this replica stops; ask another one", Outage(effect))
}

/// What a call of the RPC at `path` can have changed when it is given up: `Authorize` and `Check` give back what they took.
#[must_use]
pub fn effect_of(path: &str) -> Effect {
    match path.rsplit('/').next().unwrap_or_default() {
        "Authorize" | "Check" | "DescribeTeam" | "CheckPolicy" | "ReplayPolicy" => Effect::None,
        method if ["Get", "List", "Query", "Stream"].iter().any(|reads| method.starts_with(reads)) => {
            Effect::None
        }
        _ => Effect::Unknown,
    }
}

/// The status for a fault of the service. Details stay in the log.
pub(super) fn internal() -> Status {
    failure(&Failure::Internal, "")
}

/// The status for what could not be booked or changed: if the store did not answer, it may have happened nonetheless.
/// Internal details stay in the log. `asked` is the reservation or the request's id.
pub(super) fn failure(failure: &Failure, asked: &str) -> Status {
    failure_of(failure, Effect::Unknown, asked)
}

/// It is not known which organization a call is for, as a store does not answer that may know it. Nothing was done.
#[must_use]
pub fn store_silent() -> Status {
    store_failure(&StoreError::Unavailable, Effect::None)
}

/// The status for what could not be decided or read: nothing was changed, or what was taken is released. `asked` is the
/// request's id.
pub(super) fn undecided(failure: &Failure, asked: &str) -> Status {
    failure_of(failure, Effect::None, asked)
}

/// Why there is no report of spend.
pub(super) fn unreported(error: SpendError) -> Status {
    let failure = match error {
        SpendError::Store(error) => Failure::Store(error),
        SpendError::UnknownTeam(team) => Failure::UnknownTeam(team),
        SpendError::Internal => Failure::Internal,
        SpendError::HistoryNotKept(month) => {
            let subject = format!("{:04}-{:02}", month / 100, month % 100);
            return table::HISTORY_NOT_KEPT.error(error.to_string(), Precondition(subject));
        }
    };
    undecided(&failure, "")
}

/// Why there is no answer about usage.
pub(super) fn unanswered(error: UsageError) -> Status {
    let failure = match error {
        UsageError::Store(error) => Failure::Store(error),
        UsageError::Internal => Failure::Internal,
        UsageError::Busy => return table::OVERLOADED.error(error.to_string(), Retry),
        UsageError::HistoryNotKept { day, .. } => {
            let subject = format!("{:04}-{:02}-{:02}", day / 10_000, day / 100 % 100, day % 100);
            return table::HISTORY_NOT_KEPT.error(error.to_string(), Precondition(subject));
        }
        UsageError::TooManyGroups => {
            let mut errors = FieldErrors::default();
            errors.add("group_by", error.to_string());
            return errors.into_status();
        }
    };
    undecided(&failure, "")
}

/// Why there is no list of limits or budgets.
pub(super) fn unlisted(error: ListError) -> Status {
    let message = error.to_string();
    let failure = match error {
        ListError::Store(error) => Failure::Store(error),
        ListError::UnknownTeam(team) => Failure::UnknownTeam(team),
        ListError::Internal => Failure::Internal,
        ListError::UnknownKey(name) => return table::UNKNOWN_KEY.error(message, Resource(KEY, name)),
        ListError::SeveralTeams(_) => {
            let mut errors = FieldErrors::default();
            errors.add("team", message);
            return errors.into_status();
        }
    };
    undecided(&failure, "")
}

/// `effect`: what a caller has to expect after an outage.
fn store_failure(error: &StoreError, effect: Effect) -> Status {
    let message = error.to_string();
    match error {
        StoreError::Unavailable => table::STORE_UNAVAILABLE.error(message, Outage(effect)),
        // The store was never asked.
        StoreError::Overloaded => table::OVERLOADED.error(message, Retry),
        StoreError::LayoutUnsupported(unsupported) => {
            table::LAYOUT_UNSUPPORTED.error(message, Layout(*unsupported))
        }
        StoreError::Overflow => table::AMOUNT_OUT_OF_RANGE.error(message, Nothing),
        StoreError::Corrupt => table::INTERNAL.error(message, Unsure),
    }
}

fn failure_of(failure: &Failure, effect: Effect, asked: &str) -> Status {
    let message = failure.to_string();
    let of = |kind| Resource(kind, asked.to_owned());
    match failure {
        Failure::Store(error) => store_failure(error, effect),
        Failure::ShuttingDown => table::SHUTTING_DOWN.error(message, Outage(effect)),
        Failure::DeadlineExceeded => table::DEADLINE_EXCEEDED.error(message, Unsure),
        Failure::SnapshotStale | Failure::KeyMoved => table::SNAPSHOT_STALE.error(message, Retry),
        Failure::Internal => table::INTERNAL.error(message, Unsure),
        Failure::RequestIdReused => table::REQUEST_ID_REUSED.error(message, of(REQUEST)),
        Failure::RequestIdSpent(reservation) => {
            table::REQUEST_ID_SPENT.error(message, Spent(of(REQUEST), *reservation))
        }
        Failure::UnknownReservation => table::UNKNOWN_RESERVATION.error(message, of(RESERVATION)),
        // The same words answer for what a caller may not see and for what does not exist.
        Failure::OtherTeam => access::status(Refusal::OtherTeam(Permission::Record, OtherTeam::Unnamed)),
        Failure::UnknownTeam(team) => table::UNKNOWN_TEAM.error(message, Resource(TEAM, team.clone())),
        // What was given may be a secret.
        Failure::UnknownKey => table::INVALID_KEY.error(message, Resource(KEY, String::new())),
        Failure::NotPriced(_) => table::MODEL_NOT_PRICED.error(message, Precondition("model".to_owned())),
        Failure::ImpossibleUsage(excesses) => {
            let mut errors = FieldErrors::default();
            excesses.iter().for_each(|excess| errors.add(&excess.field, excess.message.clone()));
            errors.into_status()
        }
        Failure::UnreservedBound(_) => {
            table::UNRESERVED_BOUND_EXCEEDED.error(message, Precondition("unreserved".to_owned()))
        }
        Failure::SpoolFull => table::SPOOL_FULL.error(message, Quota("spool")),
        Failure::TooManyWindows => {
            let mut errors = FieldErrors::default();
            errors.add("descriptors", message);
            errors.into_status()
        }
        Failure::UnknownTool(_) => table::TOOL_NOT_PRICED.error(message, Precondition("tools".to_owned())),
    }
}

/// The status for a policy document that is not looked at, as others are at the moment.
#[must_use]
pub fn busy_with_documents() -> Status {
    table::OVERLOADED.error("other policy documents are being worked on", Retry)
}

/// The status for a proposed policy document whose check was given up.
pub(super) fn unchecked(error: TookTooLong) -> Status {
    table::DEADLINE_EXCEEDED.error(error.to_string(), Unsure)
}

/// The status for a replay that was given up.
pub(super) fn replay_took_too_long() -> Status {
    let message = "the interval was not replayed in time; ask for a shorter one";
    table::DEADLINE_EXCEEDED.error(message, Unsure)
}

/// The status for a proposed policy document with errors, of which the first are named.
pub(super) fn faulty_document(findings: &[Finding]) -> Status {
    let mut errors = FieldErrors::default();
    let faults = findings.iter().filter(|finding| finding.severity == Severity::Error);
    for finding in faults.take(MAX_NAMED_FAULTS) {
        let line = finding.line.map(|line| format!("line {line}: ")).unwrap_or_default();
        let path =
            if finding.key_path.is_empty() { String::new() } else { format!("{}: ", finding.key_path) };
        errors.add("document", masked(&format!("{line}{path}{}", finding.message)).into_owned());
    }
    errors.into_status()
}

/// Why a revision of the policy is not shown.
pub(super) fn no_revision(error: RevisionError) -> Status {
    let message = error.to_string();
    match error {
        RevisionError::Store(error) => undecided(&Failure::Store(error), ""),
        RevisionError::Internal => internal(),
        RevisionError::Unknown(revision) => {
            table::UNKNOWN_REVISION.error(message, Resource(REVISION, revision))
        }
        RevisionError::NotKept(revision) | RevisionError::NotComparable(_, revision) => {
            table::HISTORY_NOT_KEPT.error(message, Precondition(revision))
        }
    }
}

/// The status when no such cooldown is in force.
pub(super) fn unknown_cooldown(project: &str, model: &str) -> Status {
    let message = format!("no cooldown of `{model}` is in force in the project `{project}`");
    table::UNKNOWN_COOLDOWN.error(message, Resource(COOLDOWN, format!("{project}/{model}")))
}

/// The status when a receiver was not tested.
pub(super) fn untested(error: &TrialError) -> Status {
    let message = error.to_string();
    match error {
        TrialError::Unknown(name) => table::UNKNOWN_RECEIVER.error(message, Resource(RECEIVER, name.clone())),
        TrialError::TooMany => table::OVERLOADED.error(message, Retry),
    }
}

/// Why decisions are not shown, or not any longer.
pub(super) fn not_watched(ended: &NotWatched) -> Status {
    match ended {
        NotWatched::TooMany => table::TOO_MANY_STREAMS.error(ended.to_string(), Quota("streams")),
        NotWatched::Store(error) => store_failure(error, Effect::None),
        NotWatched::ShuttingDown => shutting_down(Effect::None),
    }
}

/// The status when nothing was paused or resumed.
pub(super) fn pause(error: &PauseError) -> Status {
    let message = error.to_string();
    match error {
        PauseError::Unread(error) => store_failure(error, Effect::None),
        PauseError::Unwritten(error) => store_failure(error, Effect::Unknown),
        PauseError::Internal => internal(),
        PauseError::Unknown { target, .. } => {
            table::UNKNOWN_TARGET.error(message, Resource(PAUSE, target.describe()))
        }
        PauseError::TooMany => table::TOO_MANY_PAUSES.error(message, Quota("pauses")),
        PauseError::Changed(target) => {
            table::PAUSE_CHANGED.error(message, Resource(PAUSE, target.describe()))
        }
    }
}

/// The status for a key that could not be shown. Nothing was changed.
pub(super) fn unread_key(error: &KeyError) -> Status {
    match error {
        KeyError::Store(error) => store_failure(error, Effect::None),
        error => key_failure(error),
    }
}

/// The status for a key that could not be created or changed.
pub(super) fn key_failure(error: &KeyError) -> Status {
    let message = error.to_string();
    let key = |name: &str| Resource(KEY, name.to_owned());
    let state = |name: &str| Precondition(name.to_owned());
    match error {
        KeyError::Store(error) => store_failure(error, Effect::Unknown),
        KeyError::Invalid(breaches) => {
            let mut errors = FieldErrors::default();
            breaches.iter().for_each(|breach| errors.add(breach.field, breach.message.clone()));
            errors.into_status()
        }
        KeyError::Unknown(name) | KeyError::NotCreated(name) => table::UNKNOWN_KEY.error(message, key(name)),
        // The resource that lacks the secret is named.
        KeyError::UnknownSecret(name) => {
            table::UNKNOWN_SECRET.error(message, Resource(SECRET, name.to_string()))
        }
        KeyError::Exists(name) => table::KEY_EXISTS.error(message, key(name)),
        KeyError::Changed(name) => table::KEY_CHANGED.error(message, key(name)),
        KeyError::Revoked(name) => table::KEY_REVOKED.error(message, state(name)),
        KeyError::InUse(name) => table::SECRET_IN_USE.error(message, state(name)),
        KeyError::OnlySecret(name) => table::ONLY_SECRET.error(message, state(name)),
        KeyError::TooMany => table::TOO_MANY_KEYS.error(message, Quota("keys")),
        KeyError::Internal => internal(),
    }
}

#[cfg(test)]
mod tests;
