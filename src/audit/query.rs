//! Reads the log in the store, from its newest event.

use jiff::Timestamp;
use tracing::error;

use super::Event;
use crate::{
    domain,
    store::{AuditEntry, AuditId, AuditLog, AuditRange, MAX_AUDIT_PAGE, StoreError},
};

/// The most events read for one page, and about the most bytes: a filter that matches little gets pages with few events, not a
/// slow answer.
const MAX_READ: usize = 4_096;
const MAX_READ_BYTES: usize = 16 << 20;
/// The most bytes of lines on one page.
const MAX_ANSWER: usize = 1 << 20;

/// Which events to return. An event must match all filters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Query {
    /// The most events to return.
    pub page_size: usize,
    /// [`Page::next`] of the previous page; `None`: the newest.
    pub before: Option<AuditId>,
    /// Only this action; empty: all.
    pub action: String,
    /// Only subjects with this prefix.
    pub subject_prefix: String,
    /// Only actors of this name; empty: all.
    pub actor_name: String,
    /// Only events at this time or later.
    pub since: Option<Timestamp>,
    /// Only events before this time.
    pub until: Option<Timestamp>,
}

/// One page of events.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Page {
    /// Newest first, each with its id in the store.
    pub events: Vec<(AuditId, Event)>,
    /// Before which event the next page begins; `None`: this was the last page.
    pub next: Option<AuditId>,
}

/// The page of the log in `store` that `query` asks for.
///
/// # Errors
/// The store cannot be read.
pub async fn page<S: AuditLog>(store: &S, query: &Query) -> Result<Page, StoreError> {
    let (mut events, mut answered) = (Vec::new(), 0);
    let (mut read, mut read_bytes) = (0, 0);
    let mut range = query.range();
    loop {
        let entries = store.audit_page(range, MAX_AUDIT_PAGE).await?;
        let mut left = entries.len();
        let is_end = left < MAX_AUDIT_PAGE;
        for AuditEntry { id, line } in entries {
            (left, read, read_bytes) = (left - 1, read + 1, read_bytes + line.len());
            if let Some(event) = parse(id, &line).filter(|event| query.takes(event)) {
                answered += line.len();
                if answered > MAX_ANSWER && !events.is_empty() {
                    return Ok(Page { events, next: range.before });
                }
                events.push((id, event));
            }
            range.before = Some(id);
            let is_full = events.len() >= query.page_size.max(1);
            if (is_full || read >= MAX_READ || read_bytes >= MAX_READ_BYTES) && !(is_end && left == 0) {
                return Ok(Page { events, next: Some(id) });
            }
        }
        if is_end {
            return Ok(Page { events, next: None });
        }
    }
}

fn parse(id: AuditId, line: &[u8]) -> Option<Event> {
    let event = serde_json::from_slice(line);
    event.inspect_err(|error| error!(event_id = %id, %error, "an event of the audit log cannot be read")).ok()
}

impl Query {
    fn range(&self) -> AuditRange {
        let at = |ms| AuditId::first_at(domain::Timestamp(u64::try_from(ms).unwrap_or(0)));
        let from = self.since.map(|since| at(since.as_millisecond())).unwrap_or_default();
        // An event of the same millisecond may be before it.
        let until = self.until.map(|until| at(until.as_millisecond().saturating_add(1)));
        let before = match (self.before, until) {
            (Some(before), Some(until)) => Some(before.min(until)),
            (before, until) => before.or(until),
        };
        AuditRange { from, before }
    }

    fn takes(&self, event: &Event) -> bool {
        (self.action.is_empty() || self.action == event.action)
            && (self.actor_name.is_empty() || *self.actor_name == *event.actor.name)
            && event.subject.starts_with(&self.subject_prefix)
            && self.since.is_none_or(|since| event.time >= since)
            && self.until.is_none_or(|until| event.time < until)
    }
}
