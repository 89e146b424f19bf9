//! `tollgate.v1.BudgetService`.

use std::{collections::HashMap, sync::Arc};

use tonic::{Request, Response, Status};
use tracing::debug;

use super::{
    access, answer,
    convert::{limit_mode, on_shortfall, period, scope},
    page::{self, ListContext},
    parse,
    proto::{self, ListBudgetsRequest, ListBudgetsResponse, budget_service_server::BudgetService},
    status,
};
use crate::{
    alerts::{BudgetThreshold, Crossings},
    domain::{
        Timestamp,
        limit::{Limit, LimitScope, Threshold},
        rbac::Permission,
    },
    reports::{BudgetReport, Budgets},
    store::Store,
};

/// Serves `BudgetService`.
#[derive(Clone, Debug)]
pub struct BudgetRpc<S> {
    budgets: Budgets<S>,
    crossings: Crossings,
}

impl<S> BudgetRpc<S> {
    /// Serves these budgets. `crossings`: when their thresholds were crossed.
    #[must_use]
    pub const fn new(budgets: Budgets<S>, crossings: Crossings) -> Self {
        Self { budgets, crossings }
    }
}

impl<S: Store> BudgetRpc<S> {
    /// When the thresholds of these budgets were crossed. Where that cannot be read, there are still the budgets.
    async fn cross_times(&self, reports: &[BudgetReport], user: &str) -> CrossTimes {
        let reached = |report: &BudgetReport| {
            let (limit, spent) = (Arc::clone(&report.limit), report.state.spent);
            let reached = limit.alerts.iter().filter(|threshold| threshold.amount.nanos() <= spent);
            reached.map(|threshold| of(report, user, threshold)).collect::<Vec<_>>()
        };
        let reached = reports.iter().flat_map(reached).collect();
        let (store, snapshot) = (self.budgets.store(), self.budgets.snapshot());
        self.crossings.times(store, &snapshot, reached).await.unwrap_or_else(|error| {
            debug!(%error, "when thresholds were crossed cannot be read");
            CrossTimes::new()
        })
    }
}

type CrossTimes = HashMap<BudgetThreshold, Timestamp>;

/// The threshold in the budget's present period.
fn of(report: &BudgetReport, user: &str, threshold: &Threshold) -> BudgetThreshold {
    BudgetThreshold {
        limit_id: report.limit.id.to_string(),
        team: report.place.team.to_string(),
        key: report.place.key.to_string(),
        user: user_of(&report.limit, user),
        amount: threshold.amount.nanos(),
        end: report.period.end,
    }
}

fn user_of(limit: &Limit, user: &str) -> String {
    if limit.scope == LimitScope::User { user.to_owned() } else { String::new() }
}

#[tonic::async_trait]
impl<S: Store> BudgetService for BudgetRpc<S> {
    async fn list_budgets(
        &self,
        request: Request<ListBudgetsRequest>,
    ) -> Result<Response<ListBudgetsResponse>, Status> {
        let scope =
            access::session(request.extensions()).scope(Permission::ReadSpend).map_err(access::status)?;
        let context = ListContext { organization: self.budgets.organization(), now: self.budgets.now() };
        let (query, tokens) = parse::budgets(request.into_inner(), &context)?;
        if !query.team.is_empty() {
            access::within(&scope, &query.team, Permission::ReadSpend)?;
        }
        let page = self.budgets.page(&query, &scope).await.map_err(status::unlisted)?;
        let last = page.budgets.last().filter(|_| page.has_more).map(|budget| budget.place.clone());
        let crossed = self.cross_times(&page.budgets, &query.user).await;
        let show = |of: BudgetReport| (of.place.clone(), budget(of, &query.user, &crossed));
        let (budgets, cut) = page::fill(page.budgets, usize::MAX, show);
        Ok(Response::new(ListBudgetsResponse {
            budgets,
            next_page_token: tokens.next(cut.or(last).as_ref()),
            policy_revision: page.policy_revision.to_string(),
            read_time: Some(answer::timestamp(page.read_at)),
            time_zone: page.time_zone,
        }))
    }
}

fn budget(report: BudgetReport, user: &str, crossed: &CrossTimes) -> proto::Budget {
    let threshold = |threshold: &Threshold| {
        let cross_time = crossed.get(&of(&report, user, threshold));
        proto::Threshold {
            threshold: threshold.text.to_string(),
            amount: Some(answer::money(threshold.amount.nanos())),
            cross_time: cross_time.copied().map(answer::timestamp),
        }
    };
    let thresholds: Vec<_> = report.limit.alerts.iter().map(threshold).collect();
    let BudgetReport { place, limit, period: present, state, forecast } = report;
    proto::Budget {
        limit_id: limit.id.to_string(),
        scope: scope(limit.scope).into(),
        team: place.team.to_string(),
        key: place.key.to_string(),
        user: user_of(&limit, user),
        period: period(place.period).into(),
        start_time: Some(answer::timestamp(present.start)),
        end_time: Some(answer::timestamp(present.end)),
        spend: Some(answer::spend_with(&state, forecast.as_ref())),
        on_shortfall: on_shortfall(limit.on_shortfall).into(),
        mode: limit_mode(limit.mode).into(),
        thresholds,
    }
}
