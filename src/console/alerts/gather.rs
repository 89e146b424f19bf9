//! What the page of alerts is made of.

use std::collections::HashSet;

use jiff::civil::Date;
use tonic::Status;

use super::Asked;
use crate::{
    console::{fault::Fault, view::View},
    rpc::proto::{Alert, AlertKind, AlertState, ListAlertsRequest, ListReceiversRequest, Receiver},
};

/// Alerts on one page.
const ROWS: usize = 50;
/// The most answers that a page is put together of: with filters that match little, one may have no alert.
const MAX_ANSWERS: usize = 10;

/// The kinds that begin and end. The others are moments, and stay open.
pub(super) const LASTING: [AlertKind; 9] = [
    AlertKind::UpstreamCooldown,
    AlertKind::UpstreamKeyRefused,
    AlertKind::Pause,
    AlertKind::StoreOutage,
    AlertKind::UnsettledHigh,
    AlertKind::UsageDrift,
    AlertKind::PolicyRejected,
    AlertKind::LayoutMismatch,
    AlertKind::SpoolBacklog,
];

/// What the page shows.
pub(super) struct Gathered {
    /// What has begun and lasts, on the first page.
    pub(super) open: Vec<Alert>,
    /// All others, the newest first.
    pub(super) alerts: Vec<Alert>,
    /// Continues them; empty: these were the last.
    pub(super) next: String,
    pub(super) receivers: Vec<Receiver>,
}

/// Asks for it.
pub(super) async fn gather(view: &View, asked: &Asked) -> Result<Gathered, Fault> {
    let all = request(view, asked)?;
    let kinds = if all.kinds.is_empty() { LASTING.map(i32::from).to_vec() } else { all.kinds.clone() };
    let lasting = kinds.into_iter().filter(|kind| LASTING.iter().any(|of| i32::from(*of) == *kind));
    let open = ListAlertsRequest {
        kinds: lasting.collect(),
        states: vec![AlertState::Open.into()],
        page_token: String::new(),
        ..all.clone()
    };
    let asks_for_open = asked.after.is_empty() && asked.state != "resolved" && !open.kinds.is_empty();
    let (open, (mut alerts, next), receivers) = tokio::try_join!(
        async {
            match asks_for_open {
                true => Ok::<_, Status>(list(view, open, ROWS).await?.0),
                false => Ok(Vec::new()),
            }
        },
        list(view, all, ROWS),
        receivers(view, asked),
    )?;
    let shown: HashSet<&str> = open.iter().map(|alert| alert.id.as_str()).collect();
    alerts.retain(|alert| !shown.contains(alert.id.as_str()));
    Ok(Gathered { open, alerts, next, receivers })
}

/// The receivers, on the first page.
async fn receivers(view: &View, asked: &Asked) -> Result<Vec<Receiver>, Status> {
    match asked.after.is_empty() {
        true => Ok(view.api().alerts().list_receivers(ListReceiversRequest {}).await?.into_inner().receivers),
        false => Ok(Vec::new()),
    }
}

fn request(view: &View, asked: &Asked) -> Result<ListAlertsRequest, Fault> {
    let kinds = match asked.kind.as_str() {
        "" => Vec::new(),
        name => {
            let known = AlertKind::from_str_name(&format!("ALERT_KIND_{}", name.to_ascii_uppercase()));
            vec![
                known.ok_or_else(|| Fault::in_address("kind", "the kind of an alert, such as pause"))?.into(),
            ]
        }
    };
    let states = match asked.state.as_str() {
        "" => Vec::new(),
        "open" => vec![AlertState::Open.into()],
        "resolved" => vec![AlertState::Resolved.into()],
        _ => return Err(Fault::in_address("state", "open or resolved")),
    };
    let since_time = match asked.since.as_str() {
        "" => None,
        day => {
            let start = day.parse::<Date>().ok().and_then(|day| day.to_zoned(view.zone().clone()).ok());
            let start = start.ok_or_else(|| Fault::in_address("since", "a day, such as 2026-11-23"))?;
            Some(prost_types::Timestamp { seconds: start.timestamp().as_second(), nanos: 0 })
        }
    };
    let teams = if asked.team.is_empty() { Vec::new() } else { vec![asked.team.clone()] };
    let page_token = asked.after.clone();
    Ok(ListAlertsRequest { teams, kinds, states, since_time, page_token, ..Default::default() })
}

/// At most `rows` alerts, and what continues them; empty: there are no others.
///
/// # Errors
/// The service refuses, or does not answer.
pub(in crate::console) async fn list(
    view: &View,
    mut request: ListAlertsRequest,
    rows: usize,
) -> Result<(Vec<Alert>, String), Status> {
    let mut found = Vec::new();
    for _ in 0..MAX_ANSWERS {
        request.page_size = i32::try_from(rows.saturating_sub(found.len())).unwrap_or(1);
        let page = view.api().alerts().list_alerts(request.clone()).await?.into_inner();
        found.extend(page.alerts);
        request.page_token = page.next_page_token;
        if found.len() >= rows || request.page_token.is_empty() {
            break;
        }
    }
    Ok((found, request.page_token))
}
