//! `tollgate.v1.AlertService`.

use std::{collections::BTreeSet, sync::Arc};

use serde_json::{Value, json};
use tokio::sync::Semaphore;
use tonic::{Request, Response, Status};

use super::{
    access, answer, convert,
    json::from_json,
    page::{self, ListContext},
    parse,
    proto::{
        self, ListAlertsRequest, ListAlertsResponse, ListReceiversRequest, ListReceiversResponse,
        ReportDriftRequest, ReportDriftResponse, TestReceiverRequest, TestReceiverResponse,
        alert_service_server::AlertService,
    },
    recorded::Recorder,
    status::{self, FieldErrors},
};
use crate::{
    alerts::{self, DriftOutcome, ListedAlert, ListedDelivery, ReceiverReport, Receivers, TrialReport},
    audit::{Change, action},
    authorizer::{Authorizer, Failure},
    domain::{
        actor::Actor,
        drift::Days,
        name::MAX_NAME_BYTES,
        rbac::{Permission, TeamScope},
        snapshot::Snapshot,
    },
    runtime::{NoEntropy, Runtime},
    store::{AlertId, Store, StoreError},
};

/// Reads of the outbox by one core at a time, reports of drift among them: each may take some megabytes.
const MAX_READS: usize = 2;

/// Serves `AlertService`.
#[derive(Clone, Debug)]
pub struct AlertRpc<S> {
    authorizer: Authorizer<S>,
    receivers: Arc<Receivers>,
    runtime: Runtime,
    recorder: Recorder,
    reads: Arc<Semaphore>,
}

impl<S> AlertRpc<S> {
    /// Shows what the store of `authorizer` keeps of alerts, and tests `receivers` and takes reports of drift, which is recorded with `recorder`.
    #[must_use]
    pub fn new(
        authorizer: Authorizer<S>,
        receivers: Arc<Receivers>,
        runtime: Runtime,
        recorder: Recorder,
    ) -> Self {
        Self { authorizer, receivers, runtime, recorder, reads: Arc::new(Semaphore::new(MAX_READS)) }
    }
}

#[tonic::async_trait]
impl<S: Store + Clone> AlertService for AlertRpc<S> {
    async fn list_alerts(
        &self,
        request: Request<ListAlertsRequest>,
    ) -> Result<Response<ListAlertsResponse>, Status> {
        let scope = scope(&request)?;
        let organization = Arc::clone(&self.authorizer.snapshot().policy.organization.id);
        let context = ListContext { organization, now: self.authorizer.store().now() };
        let (filter, query, tokens) = parse::alerts(request.into_inner(), &context)?;
        for team in &filter.teams {
            access::within(&scope, team, Permission::ReadAlerts)?;
        }
        let place = Arc::clone(&self.reads).acquire_owned().await.map_err(|_| status::internal())?;
        let page = alerts::page(self.authorizer.store(), &query, |listed| {
            Some(alert(listed)).filter(|alert| filter.takes(alert, &scope))
        });
        let page = page.await;
        drop(place);
        let page = page.map_err(|error| status::undecided(&Failure::Store(error), ""))?;
        let (alerts, cut) = page::fill(page.alerts, usize::MAX, |listed| listed);
        let next_page_token = tokens.next(cut.or(page.next).as_ref());
        Ok(Response::new(ListAlertsResponse { alerts, next_page_token }))
    }

    async fn list_receivers(
        &self,
        request: Request<ListReceiversRequest>,
    ) -> Result<Response<ListReceiversResponse>, Status> {
        let names = names(&self.authorizer.snapshot(), &self.receivers, &scope(&request)?);
        let place = Arc::clone(&self.reads).acquire_owned().await.map_err(|_| status::internal())?;
        let reports = self.receivers.report(self.authorizer.store(), names).await;
        drop(place);
        let reports = reports.map_err(|error| status::undecided(&Failure::Store(error), ""))?;
        Ok(Response::new(ListReceiversResponse { receivers: reports.into_iter().map(receiver).collect() }))
    }

    async fn test_receiver(
        &self,
        request: Request<TestReceiverRequest>,
    ) -> Result<Response<TestReceiverResponse>, Status> {
        let actor = access::session(request.extensions()).actor();
        let mut errors = FieldErrors::default();
        let name = errors.text("name", request.into_inner().name, 1, MAX_NAME_BYTES);
        let name = errors.or(name)?;
        let trial = self.receivers.trial(&name).map_err(|error| status::untested(&error))?;
        let organization = Arc::clone(&self.authorizer.snapshot().policy.organization.id);
        let runtime = self.runtime.clone();
        let send = async move { trial.send(&organization, &runtime).await };
        let report = self.recorder.carry_out(send, move |sent| event(actor, name, sent)).await?;
        let TrialReport { status, duration, error, .. } = report.map_err(|_| status::internal())?;
        Ok(Response::new(TestReceiverResponse {
            delivered: error.is_none(),
            http_status: status.map(i32::from).unwrap_or_default(),
            duration: prost_types::Duration::try_from(duration).ok(),
            error: error.unwrap_or_default(),
        }))
    }

    async fn report_drift(
        &self,
        request: Request<ReportDriftRequest>,
    ) -> Result<Response<ReportDriftResponse>, Status> {
        let actor = access::session(request.extensions()).actor();
        let report = parse::drift(request.into_inner())?;
        let (days, drifts) = (report.days, report.drifts.len());
        let place = Arc::clone(&self.reads).acquire_owned().await.map_err(|_| status::internal())?;
        let store = self.authorizer.store().clone();
        let change = async move {
            let outcome = alerts::report_drift(&store, &report, store.now()).await;
            drop(place);
            outcome
        };
        let done =
            self.recorder.carry_out(change, move |done| Some(drift_event(actor, (days, drifts), done)));
        let DriftOutcome { opened, resolved } =
            done.await?.map_err(|error| status::failure(&Failure::Store(error), ""))?;
        let count = |alerts: &[AlertId]| i32::try_from(alerts.len()).unwrap_or(i32::MAX);
        let (opened_count, resolved_count) = (count(&opened), count(&resolved));
        Ok(Response::new(ReportDriftResponse { opened_count, resolved_count }))
    }
}

/// The teams whose alerts the caller may see.
fn scope<T>(request: &Request<T>) -> Result<TeamScope, Status> {
    access::session(request.extensions()).scope(Permission::ReadAlerts).map_err(access::status)
}

/// The receivers that a caller of `scope` may see: all, or those to which alerts of its teams go.
fn names(snapshot: &Snapshot, receivers: &Receivers, scope: &TeamScope) -> BTreeSet<Arc<str>> {
    let routes = snapshot.policy.alerts.iter();
    match scope {
        TeamScope::All => {
            routes.map(|route| Arc::clone(&route.receiver)).chain(receivers.names().map(Arc::from)).collect()
        }
        TeamScope::Teams(own) => {
            let leads_there = |teams: &Vec<Arc<str>>| teams.iter().any(|team| own.contains(team));
            let routes = routes.filter(|route| route.teams.as_ref().is_none_or(leads_there));
            routes.map(|route| Arc::clone(&route.receiver)).collect()
        }
    }
}

/// What is recorded about a test.
fn event(actor: Actor, subject: String, sent: &Result<TrialReport, NoEntropy>) -> Option<Change> {
    let TrialReport { alert, status, error, .. } = sent.as_ref().ok()?;
    let known = [
        ("alert", Some(alert.as_str().into())),
        ("delivered", Some(error.is_none().into())),
        ("http_status", status.map(Value::from)),
        ("error", error.as_deref().map(Value::from)),
    ];
    let after = known.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect();
    let outcome = if error.is_none() { "done" } else { "failed" };
    Some(Change { actor, action: action::ALERT_TEST, subject, before: Value::Null, after, outcome })
}

/// What is recorded about a report of what drifts over some days, and how much does.
fn drift_event(
    actor: Actor,
    (days, drifts): (Days, usize),
    done: &Result<DriftOutcome, StoreError>,
) -> Change {
    let after = match done {
        Ok(DriftOutcome { opened, resolved }) => {
            json!({ "drift_count": drifts, "opened_count": opened.len(), "resolved_count": resolved.len() })
        }
        Err(_) => json!({ "drift_count": drifts }),
    };
    Change {
        actor,
        action: action::ALERT_REPORT_DRIFT,
        subject: days.to_string(),
        before: Value::Null,
        after,
        outcome: if done.is_ok() { "done" } else { "unknown" },
    }
}

/// An alert as the contract shows it. Of one that this release cannot read as a whole, as a later one may write it, the texts.
fn alert(listed: ListedAlert) -> proto::Alert {
    let ListedAlert { id, json, deliveries } = listed;
    let text = |field: &str| json.get(field).and_then(Value::as_str).unwrap_or_default().to_owned();
    let alert = from_json(&json).unwrap_or_else(|_| proto::Alert {
        team: text("team"),
        key: text("key"),
        user: text("user"),
        limit_id: text("limitId"),
        summary: text("summary"),
        organization: text("organization"),
        ..Default::default()
    });
    let deliveries = deliveries.into_iter().map(|(receiver, listed)| delivery(receiver, listed)).collect();
    proto::Alert { id: id.to_string(), deliveries, ..alert }
}

fn delivery(receiver: String, listed: ListedDelivery) -> proto::Delivery {
    let ListedDelivery { state, attempts, last_attempt, next_attempt, error } = listed;
    proto::Delivery {
        receiver,
        state: state.map(convert::delivery_state).unwrap_or_default().into(),
        attempt_count: i32::try_from(attempts).unwrap_or(i32::MAX),
        last_attempt_time: last_attempt.map(answer::timestamp),
        next_attempt_time: next_attempt.map(answer::timestamp),
        error,
    }
}

fn receiver(report: ReceiverReport) -> proto::Receiver {
    let ReceiverReport { name, kind, host, state, pending } = report;
    proto::Receiver {
        name: name.to_string(),
        kind: kind.map(convert::receiver_kind).unwrap_or_default().into(),
        host,
        state: state.map(convert::delivery_state).unwrap_or_default().into(),
        pending_count: answer::int(pending),
    }
}
