//! Requests for usage.

use tonic::Status;

use super::super::{
    convert::{operation_of, service_tier_of},
    page::{ListContext, PageRequest, PageTokens},
    proto,
    status::FieldErrors,
};
use crate::{
    domain::{
        calendar::{next_day, parse_day},
        policy::ReportRules,
    },
    reports::{Dimension, Granularity, Order, Subject, UsageFilter, UsagePlace, UsageQuery},
};

/// The most dimensions of one query.
const MAX_DIMENSIONS: usize = 4;
/// The longest interval: 13 months, and some days beside them.
const MAX_DAYS: usize = 400;
/// The most values of one list of a filter.
const MAX_VALUES: usize = 100;
/// The longest value of a filter: that of a label.
const MAX_VALUE_BYTES: usize = 256;

/// A well-formed `QueryUsageRequest`, and the tokens of the list.
pub(in crate::rpc) fn usage(
    mut request: proto::QueryUsageRequest,
    context: &ListContext,
    rules: &ReportRules,
) -> Result<(UsageQuery, PageTokens<UsagePlace>), Status> {
    let mut errors = FieldErrors::default();
    let PageRequest { size, after, tokens } = errors.page(&mut request, context);
    let (start_day, end_day) = errors.interval(&request.start_date, &request.end_date);
    let granularity = errors.granularity(request.granularity);
    let group_by = errors.group_by(request.group_by, Subject::Usage, rules);
    let filter = errors.usage_filter(request.filter.unwrap_or_default(), rules);
    let order = match request.order_by.as_str() {
        "" => None,
        text => {
            let order = Order::parse(text);
            if order.is_none() {
                errors.add("order_by", "is no amount of a row: write it as `amounts.cost desc`");
            }
            order
        }
    };
    let (subject, page_size) = (Subject::Usage, size);
    let query =
        UsageQuery { subject, start_day, end_day, granularity, group_by, filter, order, page_size, after };
    if query.needed() > 1 {
        errors.add("group_by", "at most one of user and labels: rows have one of them");
    }
    if query.needed() > 0 && granularity == Granularity::Hour {
        errors.add("granularity", "users and labels are kept by day");
    }
    errors.or((query, tokens))
}

/// A well-formed `QueryDenialsRequest`, and the tokens of the list.
pub(in crate::rpc) fn denials(
    mut request: proto::QueryDenialsRequest,
    context: &ListContext,
    rules: &ReportRules,
) -> Result<(UsageQuery, PageTokens<UsagePlace>), Status> {
    let mut errors = FieldErrors::default();
    let PageRequest { size, after, tokens } = errors.page(&mut request, context);
    let (start_day, end_day) = errors.interval(&request.start_date, &request.end_date);
    let granularity = errors.granularity(request.granularity);
    let group_by = errors.group_by(request.group_by, Subject::Denials, rules);
    let filter = errors.usage_filter(request.filter.unwrap_or_default(), rules);
    for (field, is_empty) in [("users", filter.users.is_empty()), ("labels", filter.labels.is_empty())] {
        if !is_empty {
            errors.add(&format!("filter.{field}"), "denials are not kept by it");
        }
    }
    let order = match request.order_by.as_str() {
        "" => None,
        text => {
            let order =
                Order::parse(&format!("amounts.{text}")).filter(|_| text.starts_with("request_count"));
            if order.is_none() {
                errors.add("order_by", "is no count of a row: write it as `request_count desc`");
            }
            order
        }
    };
    let (subject, page_size) = (Subject::Denials, size);
    let query =
        UsageQuery { subject, start_day, end_day, granularity, group_by, filter, order, page_size, after };
    errors.or((query, tokens))
}

impl FieldErrors {
    /// A day as `20261123`; 0: it is malformed.
    pub(super) fn day(&mut self, field: &str, text: &str) -> u32 {
        if text.is_empty() {
            self.add(field, "required: a day such as `2026-11-23`");
            return 0;
        }
        parse_day(text).unwrap_or_else(|error| {
            self.add(field, error.to_string());
            0
        })
    }

    /// The days of an interval: the first, and the one after the last.
    pub(in crate::rpc) fn interval(&mut self, start: &str, end: &str) -> (u32, u32) {
        let (start, end) = (self.day("start_date", start), self.day("end_date", end));
        if start > 0 && end > 0 {
            let days = std::iter::successors(Some(start), |day| next_day(*day)).take(MAX_DAYS + 1);
            let count = days.take_while(|day| *day < end).count();
            if end <= start {
                self.add("end_date", "must be after `start_date`: it is the day after the last");
            } else if count > MAX_DAYS {
                self.add("end_date", format!("must be at most {MAX_DAYS} days after `start_date`"));
            }
        }
        (start, end)
    }

    fn granularity(&mut self, value: i32) -> Granularity {
        let Ok(granularity) = proto::Granularity::try_from(value) else {
            self.add("granularity", format!("{value} is not a granularity"));
            return Granularity::Total;
        };
        match granularity {
            proto::Granularity::Unspecified | proto::Granularity::Total => Granularity::Total,
            proto::Granularity::Hour => Granularity::Hour,
            proto::Granularity::Day => Granularity::Day,
            proto::Granularity::Week => Granularity::Week,
            proto::Granularity::Month => Granularity::Month,
        }
    }

    fn group_by(&mut self, paths: Vec<String>, subject: Subject, rules: &ReportRules) -> Vec<Dimension> {
        let known = match subject {
            Subject::Usage => "team, key, user, model, operation, service_tier, project, labels.NAME",
            Subject::Denials => "team, key, model, operation, service_tier, project, reason, limit_id",
        };
        let mut dimensions = Vec::new();
        if paths.len() > MAX_DIMENSIONS {
            self.add(
                "group_by",
                format!("{} dimensions; at most {MAX_DIMENSIONS} are permitted", paths.len()),
            );
        }
        for path in paths.into_iter().take(MAX_DIMENSIONS) {
            match Dimension::of_path(&path).filter(|dimension| dimension.is_of(subject)) {
                Some(Dimension::Label(label)) if !rules.has(&label) => self.unknown_label("group_by", &label),
                Some(dimension) if dimensions.contains(&dimension) => {
                    self.add("group_by", format!("`{path}` stands there twice"));
                }
                Some(dimension) => dimensions.push(dimension),
                None => self.add("group_by", format!("`{path}` is none of {known}")),
            }
        }
        dimensions
    }

    fn unknown_label(&mut self, field: &str, label: &str) {
        self.add(field, format!("`{label}` is no label that the policy's `reports.labels` names"));
    }

    fn usage_filter(&mut self, filter: proto::UsageFilter, rules: &ReportRules) -> UsageFilter {
        let mut texts = |field: &str, values: Vec<String>| {
            if values.len() > MAX_VALUES {
                let message = format!("{} values; at most {MAX_VALUES} are permitted", values.len());
                self.add(&format!("filter.{field}"), message);
            }
            let text = |value| self.text(&format!("filter.{field}"), value, 0, MAX_VALUE_BYTES);
            values.into_iter().take(MAX_VALUES).map(text).collect::<Vec<_>>()
        };
        let (teams, keys) = (texts("teams", filter.teams), texts("keys", filter.keys));
        let (users, models) = (texts("users", filter.users), texts("models", filter.models));
        let projects = texts("projects", filter.projects);
        // A few values, however often they are named.
        let distinct = |mut values: Vec<i32>| {
            values.sort_unstable();
            values.dedup();
            values.into_iter().take(MAX_VALUES)
        };
        let operations = distinct(filter.operations).filter_map(|value| {
            let known = proto::Operation::try_from(value).ok().and_then(operation_of);
            if known.is_none() {
                self.add("filter.operations", format!("{value} is not an operation"));
            }
            known
        });
        let operations = operations.collect();
        let tiers = distinct(filter.service_tiers).filter_map(|value| {
            let known = proto::ServiceTier::try_from(value).ok().and_then(service_tier_of);
            if known.is_none() {
                self.add("filter.service_tiers", format!("{value} is not a service tier"));
            }
            known
        });
        let service_tiers = tiers.collect();
        for label in filter.labels.keys().filter(|label| !rules.has(label)) {
            self.unknown_label("filter.labels", label);
        }
        let labels = filter.labels.into_iter().collect();
        UsageFilter { teams, keys, users, models, operations, service_tiers, projects, labels }
    }
}
