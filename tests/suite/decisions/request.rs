//! The requests that a case's fields make.

use std::collections::HashMap;

use tollgate::rpc::proto;

use super::{
    case::{Authorize, Batch, Record, Spend, ToolUsage, Usage},
    units::Millis,
};

/// What steps named, by the names they gave.
pub(crate) type Names = HashMap<String, String>;

/// An `AuthorizeRequest`.
pub(crate) fn authorize(fields: &Authorize) -> Result<proto::AuthorizeRequest, String> {
    use proto::authorize_request::Caller;
    Ok(proto::AuthorizeRequest {
        user: fields.user.clone(),
        request_id: fields.request_id.clone(),
        model: fields.model.clone(),
        operation: fields.operation.into(),
        service_tier: fields.service_tier.into(),
        input_tokens: fields.input_tokens,
        input_bytes: fields.input_bytes,
        max_output_tokens: fields.max_output_tokens,
        audio_duration: fields.audio_duration.map(Millis::to_duration),
        character_count: fields.character_count,
        max_wait: fields.max_wait.map(Millis::to_duration),
        dry_run: fields.dry_run,
        labels: fields.labels.clone().into_iter().collect(),
        batch: fields.batch.map(batch),
        tools: fields.tools.clone(),
        limit_view: proto::LimitView::Unspecified.into(),
        caller: one_caller(&fields.team, &fields.api_key, Caller::Team, Caller::ApiKey)?,
    })
}

fn one_caller<C>(
    team: &Option<String>,
    api_key: &Option<String>,
    by_team: impl Fn(String) -> C,
    by_key: impl Fn(String) -> C,
) -> Result<Option<C>, String> {
    match (team, api_key) {
        (Some(_), Some(_)) => Err("both `team` and `api_key`".to_owned()),
        (team, api_key) => Ok(team.clone().map(by_team).or_else(|| api_key.clone().map(by_key))),
    }
}

fn batch(fields: Batch) -> proto::Batch {
    proto::Batch {
        line_operation: fields.line_operation.into(),
        request_count: fields.request_count,
        completion_window: fields.completion_window.map(Millis::to_duration),
    }
}

fn usage(fields: &Usage) -> proto::Usage {
    let tool = |tool: &ToolUsage| proto::ToolUsage {
        tool: tool.tool.clone(),
        call_count: tool.call_count,
        run_duration: tool.run_duration.map(Millis::to_duration),
    };
    proto::Usage {
        input_tokens: fields.input_tokens,
        cached_input_tokens: fields.cached_input_tokens,
        output_tokens: fields.output_tokens,
        reasoning_tokens: fields.reasoning_tokens,
        audio_duration: fields.audio_duration.map(Millis::to_duration),
        character_count: fields.character_count,
        tool_calls: fields.tool_calls.iter().map(tool).collect(),
        request_count: fields.request_count,
    }
}

/// A `RecordUsageRequest`; its reservation is one of `reservations` where it is given by name.
pub(crate) fn record(fields: &Record, reservations: &Names) -> Result<proto::RecordUsageRequest, String> {
    use proto::record_usage_request::Caller;
    let reservation_id = match &fields.reservation {
        Some(name) => reservations.get(name).ok_or_else(|| format!("no step is named `{name}`"))?.clone(),
        None => fields.reservation_id.clone(),
    };
    let caller = one_caller(&fields.team, &fields.api_key, Caller::Team, Caller::ApiKey)?;
    Ok(proto::RecordUsageRequest {
        reservation_id,
        user: fields.user.clone(),
        request_id: fields.request_id.clone(),
        model: fields.model.clone(),
        operation: fields.operation.into(),
        service_tier: fields.service_tier.into(),
        usage: fields.usage.as_ref().map(usage),
        upstream_status: fields.upstream_status,
        upstream_key: String::new(),
        outcome: fields.outcome.into(),
        upstream_retry_delay: fields.upstream_retry_delay.map(Millis::to_duration),
        batch: fields.batch.map(batch),
        labels: Default::default(),
        caller,
    })
}

/// A `GetSpendRequest`; its page comes after one of `pages` where that is given by name.
pub(crate) fn spend(fields: &Spend, pages: &Names) -> Result<proto::GetSpendRequest, String> {
    let page_token = match &fields.page_after {
        Some(name) => pages.get(name).ok_or_else(|| format!("no step is named `{name}`"))?.clone(),
        None => fields.page_token.clone(),
    };
    Ok(proto::GetSpendRequest {
        team: fields.team.clone(),
        month: fields.month.clone(),
        page_size: fields.page_size,
        page_token,
    })
}
