//! Whether what came is what was expected.

use serde_json::Value;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use super::{answer::differences, expect::Expect};

impl Expect {
    /// Whether what came is what was expected; if not, why in words.
    pub(crate) fn judge(&self, came: Result<Value, Status>) -> Result<(), String> {
        match (self, came) {
            (Self::Answer(expected), Ok(came)) => {
                let differences = differences(expected, &came);
                if differences.is_empty() {
                    Ok(())
                } else {
                    Err(format!("{}\nthe answer was {came:#}", differences.join("\n")))
                }
            }
            (Self::Answer(_), Err(status)) => Err(format!(
                "expected an answer, came the error {}: {}",
                code_name(status.code()),
                status.message()
            )),
            (Self::Error { code, .. }, Ok(came)) => {
                Err(format!("expected the error {code}, came the answer {came:#}"))
            }
            (Self::Error { code, field, message_contains }, Err(status)) => {
                let mut differences = Vec::new();
                if code != code_name(status.code()) {
                    differences.push(format!(
                        "expected the error {code}, came {}: {}",
                        code_name(status.code()),
                        status.message()
                    ));
                }
                if let Some(field) = field {
                    let details = status.get_details_bad_request();
                    let named = details.into_iter().flat_map(|details| details.field_violations);
                    let fields: Vec<String> = named.map(|violation| violation.field).collect();
                    if !fields.contains(field) {
                        differences.push(format!(
                            "expected the field `{field}` to be named, came {fields:?}: {}",
                            status.message()
                        ));
                    }
                }
                if let Some(part) = message_contains.as_ref().filter(|part| !status.message().contains(*part))
                {
                    differences.push(format!("expected an error with `{part}`, came `{}`", status.message()));
                }
                if differences.is_empty() { Ok(()) } else { Err(differences.join("\n")) }
            }
        }
    }
}

const fn code_name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}
