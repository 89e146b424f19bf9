//! Requests for the audit log.

use tonic::Status;

use super::super::{
    page::{ListContext, PageRequest, PageTokens},
    proto,
    status::FieldErrors,
};
use crate::{audit, store::AuditId};

const MAX_SUBJECT_BYTES: usize = 256;
/// An issuer and a subject.
const MAX_ACTOR_BYTES: usize = 512;

/// A well-formed `ListAuditEventsRequest`, and the tokens of the list.
pub(in crate::rpc) fn audit(
    mut request: proto::ListAuditEventsRequest,
    context: &ListContext,
) -> Result<(audit::Query, PageTokens<AuditId>), Status> {
    let mut errors = FieldErrors::default();
    let PageRequest { size, after: before, tokens } = errors.page(&mut request, context);
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
    let action = request.action;
    let query = audit::Query { page_size: size, before, action, subject_prefix, actor_name, since, until };
    errors.or((query, tokens))
}
