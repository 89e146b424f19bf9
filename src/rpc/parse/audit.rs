//! Requests for the audit log.

use tonic::Status;

use super::{
    super::{proto, status::FieldErrors},
    DEFAULT_PAGE,
};
use crate::audit;

/// The prefix of a page token of the audit log; the event that the previous page ended with follows.
pub(in crate::rpc) const AUDIT_BEFORE: &str = "before:";
const MAX_SUBJECT_BYTES: usize = 256;
/// An issuer and a subject.
const MAX_ACTOR_BYTES: usize = 512;

/// A well-formed `ListAuditEventsRequest`.
pub(in crate::rpc) fn audit(request: proto::ListAuditEventsRequest) -> Result<audit::Query, Status> {
    let mut errors = FieldErrors::default();
    let page_size = match errors.count("page_size", request.page_size.into(), audit::MAX_PAGE as u64) {
        0 => DEFAULT_PAGE,
        size => usize::try_from(size).unwrap_or(DEFAULT_PAGE),
    };
    let before = request.page_token.strip_prefix(AUDIT_BEFORE).and_then(|id| id.parse().ok());
    if before.is_none() && !request.page_token.is_empty() {
        errors.page_token();
    }
    if !request.action.is_empty() && !audit::action::ALL.contains(&request.action.as_str()) {
        errors.add("action", format!("is none of {}", audit::action::ALL.join(", ")));
    }
    let subject_prefix = errors.text("subject_prefix", request.subject_prefix, 0, MAX_SUBJECT_BYTES);
    let actor_name = errors.text("actor_name", request.actor_name, 0, MAX_ACTOR_BYTES);
    let mut instant = |field: &str, time: Option<prost_types::Timestamp>| {
        let time = time.map(|time| jiff::Timestamp::new(time.seconds, time.nanos))?;
        time.map_err(|_| errors.add(field, "is no instant")).ok()
    };
    let since = instant("since_time", request.since_time);
    let until = instant("until_time", request.until_time);
    match errors.is_empty() {
        true => Ok(audit::Query {
            page_size,
            before,
            action: request.action,
            subject_prefix,
            actor_name,
            since,
            until,
        }),
        false => Err(errors.into_status()),
    }
}
