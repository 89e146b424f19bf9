//! The audit log: who changed what, and who was refused, of all replicas.

mod changes;
mod page;

use axum::Extension;
use jiff::{ToSpan as _, civil::Date};
use maud::Markup;
use serde::Deserialize;
use tonic::Status;

use super::{asked, fault::Fault, frame::Tab, view::View};
use crate::rpc::proto::{AuditEvent, ListAuditEventsRequest};

/// Events on one page.
const ROWS: usize = 40;
/// The most answers that a page is put together of: one may have no event.
const MAX_ANSWERS: usize = 10;

/// What of the log is asked for. The address holds all of it, so it can be sent to others.
#[derive(Clone, Debug, Default, Deserialize)]
pub(super) struct Asked {
    /// The first day, in the organization's zone.
    #[serde(default)]
    since: String,
    /// The last day.
    #[serde(default)]
    until: String,
    /// The name of the actor.
    #[serde(default)]
    actor: String,
    #[serde(default)]
    action: String,
    /// How the subject begins.
    #[serde(default)]
    subject: String,
    /// Continues the list.
    #[serde(default)]
    after: String,
    /// The event that is opened.
    #[serde(default)]
    open: String,
}

impl Asked {
    fn is_filtered(&self) -> bool {
        let filters = [&self.since, &self.until, &self.actor, &self.action, &self.subject];
        filters.iter().any(|filter| !filter.is_empty())
    }

    /// The address of the list behind `after`, with `open` opened.
    fn address(&self, view: &View, after: &str, open: &str) -> String {
        let Self { since, until, actor, action, subject, .. } = self;
        view.query(
            "/audit",
            &[
                ("since", since),
                ("until", until),
                ("actor", actor),
                ("action", action),
                ("subject", subject),
                ("after", after),
                ("open", open),
            ],
        )
    }
}

/// The page.
pub(super) async fn show(
    Extension(view): Extension<View>,
    asked::Asked(asked): asked::Asked<Asked>,
) -> Result<Markup, Fault> {
    let (events, next) = list(&view, request(&view, &asked)?).await?;
    Ok(view.page(Tab::Audit, "Audit", page::body(&view, &asked, &events, &next)))
}

fn request(view: &View, asked: &Asked) -> Result<ListAuditEventsRequest, Fault> {
    let start = |field: &str, day: &str, later: i64| {
        if day.is_empty() {
            return Ok(None);
        }
        let day = day.parse::<Date>().ok().and_then(|day| day.checked_add(later.days()).ok());
        let start = day.and_then(|day| day.to_zoned(view.zone().clone()).ok());
        let start = start.ok_or_else(|| Fault::in_address(field, "a day, such as 2026-11-23"))?;
        Ok::<_, Fault>(Some(prost_types::Timestamp { seconds: start.timestamp().as_second(), nanos: 0 }))
    };
    Ok(ListAuditEventsRequest {
        page_size: 0,
        page_token: asked.after.clone(),
        action: asked.action.clone(),
        subject_prefix: asked.subject.trim().to_owned(),
        since_time: start("since", &asked.since, 0)?,
        until_time: start("until", &asked.until, 1)?,
        actor_name: asked.actor.trim().to_owned(),
    })
}

/// A page of events, and what continues it.
async fn list(view: &View, mut request: ListAuditEventsRequest) -> Result<(Vec<AuditEvent>, String), Status> {
    let mut found = Vec::new();
    for _ in 0..MAX_ANSWERS {
        request.page_size = i32::try_from(ROWS.saturating_sub(found.len())).unwrap_or(1);
        let page = view.api().audit().list_audit_events(request.clone()).await?.into_inner();
        found.extend(page.events);
        request.page_token = page.next_page_token;
        if found.len() >= ROWS || request.page_token.is_empty() {
            break;
        }
    }
    Ok((found, request.page_token))
}
