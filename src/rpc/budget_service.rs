//! `tollgate.v1.BudgetService`.

use tonic::{Request, Response, Status};

use super::{
    access, answer,
    convert::{limit_mode, on_shortfall, period, scope},
    page::{self, ListContext},
    parse,
    proto::{self, ListBudgetsRequest, ListBudgetsResponse, budget_service_server::BudgetService},
    status,
};
use crate::{
    domain::{limit::LimitScope, rbac::Permission},
    reports::{BudgetReport, Budgets},
    store::Store,
};

/// Serves `BudgetService`.
#[derive(Clone, Debug)]
pub struct BudgetRpc<S> {
    budgets: Budgets<S>,
}

impl<S> BudgetRpc<S> {
    /// Serves these budgets.
    #[must_use]
    pub const fn new(budgets: Budgets<S>) -> Self {
        Self { budgets }
    }
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
        let show = |of: BudgetReport| (of.place.clone(), budget(of, &query.user));
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

fn budget(report: BudgetReport, user: &str) -> proto::Budget {
    let BudgetReport { place, limit, period: present, state, forecast } = report;
    let thresholds = limit.alerts.iter().map(|threshold| proto::Threshold {
        threshold: threshold.text.to_string(),
        amount: Some(answer::money(threshold.amount.nanos())),
        cross_time: None,
    });
    proto::Budget {
        limit_id: limit.id.to_string(),
        scope: scope(limit.scope).into(),
        team: place.team.to_string(),
        key: place.key.to_string(),
        user: if limit.scope == LimitScope::User { user.to_owned() } else { String::new() },
        period: period(place.period).into(),
        start_time: Some(answer::timestamp(present.start)),
        end_time: Some(answer::timestamp(present.end)),
        spend: Some(answer::spend_with(&state, forecast.as_ref())),
        on_shortfall: on_shortfall(limit.on_shortfall).into(),
        mode: limit_mode(limit.mode).into(),
        thresholds: thresholds.collect(),
    }
}
