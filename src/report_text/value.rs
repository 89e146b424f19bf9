//! The values of a row as texts and integers.

use jiff::Timestamp;

use crate::rpc::{google_type::Money, proto::UsageDimensions};

const NANOS: i128 = 1_000_000_000;

/// An amount of money in billionths; 0 if it is not set.
pub(crate) fn nanos(money: Option<&Money>) -> i128 {
    money.map_or(0, |money| i128::from(money.units) * NANOS + i128::from(money.nanos))
}

/// An instant from the wire as RFC 3339 in UTC.
pub(crate) fn instant(timestamp: &prost_types::Timestamp) -> String {
    Timestamp::new(timestamp.seconds, timestamp.nanos)
        .map_or_else(|_| "-".to_owned(), |instant| instant.to_string())
}

/// The value of the dimension with this path, as people read it.
pub(crate) fn value(dimensions: &UsageDimensions, path: &str) -> String {
    let short = |name: &str, prefix: &str| name.trim_start_matches(prefix).to_ascii_lowercase();
    match path {
        "team" => dimensions.team.clone(),
        "key" => dimensions.key.clone(),
        "user" => dimensions.user.clone(),
        "model" => dimensions.model.clone(),
        "operation" => short(dimensions.operation().as_str_name(), "OPERATION_"),
        "service_tier" => short(dimensions.service_tier().as_str_name(), "SERVICE_TIER_"),
        "project" => dimensions.project.clone(),
        "reason" => short(dimensions.reason().as_str_name(), "REASON_"),
        "limit_id" => dimensions.limit_id.clone(),
        label => dimensions
            .labels
            .values()
            .next()
            .filter(|_| label.starts_with("labels."))
            .cloned()
            .unwrap_or_default(),
    }
}
