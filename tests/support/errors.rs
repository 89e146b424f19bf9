//! Whether an error is as the table of errors has it. What includes this has the table's types in scope.

use std::collections::BTreeSet;

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

use super::{ERROR_DOMAIN, ERRORS, Effect};

/// Asserts that `status` is of `reason` in all that the table says of it: the code, the message beside `ErrorInfo`, the metadata,
/// and what may have happened.
#[track_caller]
pub(crate) fn is_of(status: &Status, reason: &str) {
    let row = ERRORS.iter().find(|row| row.reason == reason).expect(reason);
    is_of_with(status, reason, row.effect);
}

/// The same for a call that may have changed less than others with this reason.
#[track_caller]
pub(crate) fn is_of_with(status: &Status, reason: &str, effect: Effect) {
    let row = ERRORS.iter().find(|row| row.reason == reason).expect(reason);
    let details = status.get_error_details();
    let info = details.error_info().unwrap_or_else(|| panic!("no reason: {status:?}"));
    let told = (status.code(), &*info.reason, &*info.domain);
    assert_eq!(told, (row.code, row.reason, ERROR_DOMAIN), "{status:?}");
    let beside_it: Vec<_> = [row.detail].into_iter().filter(|detail| !detail.is_empty()).collect();
    assert_eq!(beside(&details), beside_it, "{status:?}");
    let keys: BTreeSet<&str> = info.metadata.keys().map(String::as_str).collect();
    assert_eq!(keys, row.metadata.iter().copied().collect(), "{status:?}");
    if let Some(told) = info.metadata.get("effect") {
        assert_eq!(told, effect.name(), "{status:?}");
    }
    for violation in details.bad_request().iter().flat_map(|bad| &bad.field_violations) {
        assert!(!violation.description.is_empty(), "{status:?}");
    }
}

/// The messages beside `ErrorInfo`.
pub(crate) fn beside(details: &ErrorDetails) -> Vec<&'static str> {
    [
        ("BadRequest", details.bad_request().is_some()),
        ("ResourceInfo", details.resource_info().is_some()),
        ("PreconditionFailure", details.precondition_failure().is_some()),
        ("QuotaFailure", details.quota_failure().is_some()),
        ("RetryInfo", details.retry_info().is_some()),
    ]
    .into_iter()
    .filter_map(|(name, is_there)| is_there.then_some(name))
    .collect()
}

/// The message that the contract puts beside `ErrorInfo` in every error of this status.
pub(crate) const fn detail_of(code: Code) -> Option<&'static str> {
    match code {
        Code::InvalidArgument => Some("BadRequest"),
        Code::NotFound | Code::AlreadyExists | Code::Aborted => Some("ResourceInfo"),
        Code::FailedPrecondition => Some("PreconditionFailure"),
        Code::ResourceExhausted => Some("QuotaFailure"),
        Code::Unavailable => Some("RetryInfo"),
        _ => None,
    }
}

/// Asserts that `json` is a `google.rpc.Status` of `reason`, as the table has it.
#[allow(dead_code, reason = "not every program that includes this asks for pages")]
#[track_caller]
pub(crate) fn is_of_json(json: &serde_json::Value, reason: &str) {
    let row = ERRORS.iter().find(|row| row.reason == reason).expect(reason);
    assert_eq!(json["code"], i32::from(row.code), "{json}");
    let details = json["details"].as_array().unwrap();
    let of = |name: &str| {
        let kind = format!("type.googleapis.com/google.rpc.{name}");
        details.iter().find(|detail| detail["@type"] == kind)
    };
    let info = of("ErrorInfo").unwrap_or_else(|| panic!("no reason: {json}"));
    assert_eq!(
        (info["reason"].as_str(), info["domain"].as_str()),
        (Some(reason), Some(ERROR_DOMAIN)),
        "{json}"
    );
    assert_eq!(details.len(), 1 + usize::from(!row.detail.is_empty()), "{json}");
    assert!(row.detail.is_empty() || of(row.detail).is_some(), "{json}");
}
