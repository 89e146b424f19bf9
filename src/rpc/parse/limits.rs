//! Requests for limits and budgets.

use tonic::Status;

use super::super::{
    page::{ListContext, PageRequest, PageTokens},
    proto,
    status::FieldErrors,
};
use crate::{
    domain::{
        name::{MAX_NAME_BYTES, MAX_USER_BYTES},
        rbac::TeamScope,
    },
    reports::{BudgetPlace, BudgetQuery, LimitPlace, LimitQuery},
};

/// A well-formed `ListLimitsRequest` of a caller with `scope`, and the tokens of the list.
pub(in crate::rpc) fn limits(
    mut request: proto::ListLimitsRequest,
    context: &ListContext,
    scope: &TeamScope,
) -> Result<(LimitQuery, PageTokens<LimitPlace>), Status> {
    let mut errors = FieldErrors::default();
    let PageRequest { size, after, tokens } = errors.page(&mut request, context);
    let mut query = LimitQuery {
        team: errors.text("team", request.team, 0, MAX_NAME_BYTES),
        key: errors.text("key", request.key, 0, MAX_NAME_BYTES),
        user: errors.text("user", request.user, 0, MAX_USER_BYTES),
        page_size: size,
        after,
    };
    if query.team.is_empty() {
        query.team = scope.only_team().map(ToString::to_string).unwrap_or_default();
    }
    if query.team.is_empty() && query.key.is_empty() && !query.user.is_empty() {
        errors.add("user", "only with `team` or `key`: each team has users of its own");
    }
    errors.or((query, tokens))
}

/// A well-formed `ListBudgetsRequest`, and the tokens of the list.
pub(in crate::rpc) fn budgets(
    mut request: proto::ListBudgetsRequest,
    context: &ListContext,
) -> Result<(BudgetQuery, PageTokens<BudgetPlace>), Status> {
    let mut errors = FieldErrors::default();
    let PageRequest { size, after, tokens } = errors.page(&mut request, context);
    let query = BudgetQuery {
        team: errors.text("team", request.team, 0, MAX_NAME_BYTES),
        key: errors.text("key", request.key, 0, MAX_NAME_BYTES),
        user: errors.text("user", request.user, 0, MAX_USER_BYTES),
        page_size: size,
        after,
    };
    if !query.key.is_empty() && !query.user.is_empty() {
        errors.add("user", "not beside `key`: no budget is of both");
    }
    errors.or((query, tokens))
}
