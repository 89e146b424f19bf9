//! `tollgate.v1.ReportService`.

use std::sync::Arc;

use tonic::{Request, Response, Status};

use super::{
    access, answer,
    convert::{operation, reason, service_tier},
    page::{self, ListContext},
    parse,
    proto::{
        self, ListLimitsRequest, ListLimitsResponse, QueryDenialsRequest, QueryDenialsResponse,
        QueryUsageRequest, QueryUsageResponse, StreamDecisionsRequest, report_service_server::ReportService,
    },
    status,
    watching::{DecisionWatch, Watched},
};
use crate::{
    access::{OtherTeam, Refusal},
    domain::{
        decision::Reason,
        rbac::{Permission, TeamScope},
        request::{Operation, ServiceTier},
        snapshot::Snapshot,
    },
    reports::{
        Dimension, LimitPlace, LimitReports, ListError, UsagePage, UsageQuery, UsageReports, UsageRow,
    },
    store::{Store, UsageAmounts},
};

/// Serves `ReportService`.
#[derive(Clone, Debug)]
pub struct ReportRpc<S> {
    usage: UsageReports<S>,
    limits: LimitReports<S>,
    watch: DecisionWatch,
}

impl<S: Store> ReportRpc<S> {
    /// Serves these reports, and decisions by `watch`.
    #[must_use]
    pub const fn new(usage: UsageReports<S>, limits: LimitReports<S>, watch: DecisionWatch) -> Self {
        Self { usage, limits, watch }
    }

    fn context(&self, snapshot: &Snapshot) -> ListContext {
        let organization = Arc::clone(&snapshot.policy.organization.id);
        ListContext { organization, now: self.usage.now() }
    }

    async fn page(&self, query: &Arc<UsageQuery>, scope: &TeamScope) -> Result<UsagePage, Status> {
        for team in &query.filter.teams {
            access::within(scope, team, Permission::ReadSpend)?;
        }
        self.usage.page(Arc::clone(query), scope).await.map_err(status::unanswered)
    }
}

#[tonic::async_trait]
impl<S: Store> ReportService for ReportRpc<S> {
    type StreamDecisionsStream = Watched;

    async fn query_usage(
        &self,
        request: Request<QueryUsageRequest>,
    ) -> Result<Response<QueryUsageResponse>, Status> {
        let scope = scope(&request)?;
        let snapshot = self.usage.snapshot();
        let context = self.context(&snapshot);
        let (query, tokens) = parse::usage(request.into_inner(), &context, &snapshot.policy.reports)?;
        let query = Arc::new(query);
        let page = self.page(&query, &scope).await?;
        let last = page.rows.last().filter(|_| page.has_more).map(|row| row.place.clone());
        let show = |of: UsageRow| (of.place.clone(), row(&of, &query.group_by));
        let (rows, cut) = page::fill(page.rows, usize::MAX, show);
        Ok(Response::new(QueryUsageResponse {
            rows,
            total: Some(amounts(&page.total)),
            next_page_token: tokens.next(cut.or(last).as_ref()),
            policy_revision: page.policy_revision.to_string(),
            read_time: Some(answer::timestamp(page.read_at)),
        }))
    }

    async fn query_denials(
        &self,
        request: Request<QueryDenialsRequest>,
    ) -> Result<Response<QueryDenialsResponse>, Status> {
        let scope = scope(&request)?;
        let snapshot = self.usage.snapshot();
        let context = self.context(&snapshot);
        let (query, tokens) = parse::denials(request.into_inner(), &context, &snapshot.policy.reports)?;
        let query = Arc::new(query);
        let page = self.page(&query, &scope).await?;
        let last = page.rows.last().filter(|_| page.has_more).map(|row| row.place.clone());
        let show = |of: UsageRow| (of.place.clone(), denied(&of, &query.group_by));
        let (rows, cut) = page::fill(page.rows, usize::MAX, show);
        Ok(Response::new(QueryDenialsResponse {
            rows,
            total_request_count: answer::int(page.total.requests),
            next_page_token: tokens.next(cut.or(last).as_ref()),
            policy_revision: page.policy_revision.to_string(),
            read_time: Some(answer::timestamp(page.read_at)),
        }))
    }

    async fn list_limits(
        &self,
        request: Request<ListLimitsRequest>,
    ) -> Result<Response<ListLimitsResponse>, Status> {
        let scope = scope(&request)?;
        let context = self.context(&self.usage.snapshot());
        let (query, tokens) = parse::limits(request.into_inner(), &context, &scope)?;
        if !query.team.is_empty() {
            access::within(&scope, &query.team, Permission::ReadSpend)?;
        }
        let page = self.limits.page(&query, &scope).await.map_err(|error| match error {
            // A key outside the caller's teams is refused the same way.
            ListError::UnknownKey(name) if scope != TeamScope::All => {
                access::status(Refusal::OtherTeam(Permission::ReadSpend, OtherTeam::Key(name)))
            }
            error => status::unlisted(error),
        })?;
        let last = page.iter().last().filter(|_| page.has_more).map(|(place, _)| place.clone());
        let show = |(place, limit): (&LimitPlace, _)| (place.clone(), answer::limit_status(&limit));
        let (limits, cut) = page::fill(page.iter(), usize::MAX, show);
        Ok(Response::new(ListLimitsResponse {
            limits,
            next_page_token: tokens.next(cut.or(last).as_ref()),
            policy_revision: page.policy_revision.to_string(),
            read_time: Some(answer::timestamp(page.read_at)),
        }))
    }

    async fn stream_decisions(
        &self,
        request: Request<StreamDecisionsRequest>,
    ) -> Result<Response<Watched>, Status> {
        self.watch.open(request).await
    }
}

fn scope<T>(request: &Request<T>) -> Result<TeamScope, Status> {
    access::session(request.extensions()).scope(Permission::ReadSpend).map_err(access::status)
}

fn dimensions(values: &[Arc<str>], group_by: &[Dimension]) -> proto::UsageDimensions {
    let mut dimensions = proto::UsageDimensions::default();
    for (dimension, value) in group_by.iter().zip(values) {
        let value = value.to_string();
        match dimension {
            Dimension::Team => dimensions.team = value,
            Dimension::Key => dimensions.key = value,
            Dimension::User => dimensions.user = value,
            Dimension::Model => dimensions.model = value,
            Dimension::Operation => {
                let of = value.parse::<Operation>().map(operation);
                dimensions.operation = of.unwrap_or(proto::Operation::Unspecified).into();
            }
            Dimension::ServiceTier => {
                let of = value.parse::<ServiceTier>().map(service_tier);
                dimensions.service_tier = of.unwrap_or(proto::ServiceTier::Unspecified).into();
            }
            Dimension::Project => dimensions.project = value,
            Dimension::Label(name) => {
                dimensions.labels.insert(name.to_string(), value);
            }
            Dimension::Reason => {
                let of = Reason::of_name(&value).map(reason);
                dimensions.reason = of.unwrap_or(proto::Reason::Unspecified).into();
            }
            Dimension::LimitId => dimensions.limit_id = value,
        }
    }
    dimensions
}

fn denied(row: &UsageRow, group_by: &[Dimension]) -> proto::DenialRow {
    proto::DenialRow {
        start_time: Some(answer::timestamp(row.start)),
        end_time: Some(answer::timestamp(row.end)),
        dimensions: Some(dimensions(&row.place.group.values, group_by)),
        request_count: answer::int(row.amounts.requests),
    }
}

fn row(row: &UsageRow, group_by: &[Dimension]) -> proto::UsageRow {
    proto::UsageRow {
        start_time: Some(answer::timestamp(row.start)),
        end_time: Some(answer::timestamp(row.end)),
        dimensions: Some(dimensions(&row.place.group.values, group_by)),
        amounts: Some(amounts(&row.amounts)),
    }
}

fn amounts(amounts: &UsageAmounts) -> proto::UsageAmounts {
    let (int, money) = (answer::int, |nanos| Some(answer::money(nanos)));
    proto::UsageAmounts {
        cost: money(amounts.cost_nanos),
        request_count: int(amounts.requests),
        input_tokens: int(amounts.input_tokens),
        cached_input_tokens: int(amounts.cached_input_tokens),
        output_tokens: int(amounts.output_tokens),
        reasoning_tokens: int(amounts.reasoning_tokens),
        audio_duration: Some(answer::duration(amounts.audio_ms)),
        character_count: int(amounts.characters),
        tool_call_count: int(amounts.tool_calls),
        tool_cost: money(amounts.tool_cost_nanos),
        input_cost: money(amounts.input_cost_nanos),
        cached_input_cost: money(amounts.cached_input_cost_nanos),
        output_cost: money(amounts.output_cost_nanos),
        unsettled_count: int(amounts.unsettled),
        aborted_count: int(amounts.aborted),
        failed_count: int(amounts.failed),
        rate_limited_count: int(amounts.rate_limited),
        degraded_count: int(amounts.degraded),
    }
}
