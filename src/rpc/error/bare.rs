//! Statuses that come from the libraries below: they get a reason and its details.

use tonic::{
    Code, Status,
    body::Body,
    codegen::http::{HeaderMap, Response},
};
use tonic_types::FieldViolation;

use super::{
    Detail, Effect, Fields, Nothing, Outage, Precondition, Quota, Reason, Resource, Unsure, shortened, table,
};

const STATUS: &str = "grpc-status";
const DETAILS: &str = "grpc-status-details-bin";
/// Comes with the refusal of a compression, and names those that are taken.
const ENCODINGS: &str = "grpc-accept-encoding";

/// `answer`, with a reason if it is an error without one. All else that it says stays. Belongs around all services.
#[must_use]
pub fn explained(mut answer: Response<Body>) -> Response<Body> {
    let service = || Resource("grpc.health.v1.Health", String::new());
    explain(answer.headers_mut(), |message| table::UNKNOWN_SERVICE.error(message, service()));
    answer
}

/// Gives a reason to `trailers` that are an error without one. Of the services that stream, only reflection has such errors.
pub fn explain_end(trailers: &mut HeaderMap) {
    let symbol = || Resource("grpc.reflection.v1.Symbol", String::new());
    explain(trailers, |message| table::UNKNOWN_SYMBOL.error(message, symbol()));
}

/// `not_found`: the status for what the library does not know.
fn explain(headers: &mut HeaderMap, not_found: impl FnOnce(&str) -> Status) {
    // An answer that is no error has its status in trailers.
    if !headers.contains_key(STATUS) || headers.contains_key(DETAILS) {
        return;
    }
    let Some(status) = Status::from_header_map(headers).filter(|status| status.code() != Code::Ok) else {
        return;
    };
    let message = status.message();
    let explained = match status.code() {
        Code::InvalidArgument => malformed(message),
        Code::NotFound => not_found(message),
        Code::Unimplemented if headers.contains_key(ENCODINGS) => {
            table::COMPRESSION_UNSUPPORTED.error(message, Nothing)
        }
        Code::Unimplemented => table::UNKNOWN_RPC.error(message, Nothing),
        Code::DeadlineExceeded => table::DEADLINE_EXCEEDED.error(message, Unsure),
        Code::Internal => table::INTERNAL.error(message, Unsure),
        code => by_code(code, message),
    };
    // It cannot fail: any message can be encoded. If it did, the status would stay as it was.
    let _ = explained.add_header(headers);
}

/// The status for which the table has no reason, because no library makes it today: the name of its code is its reason.
fn by_code(code: Code, message: &str) -> Status {
    fn named<D: Detail>(name: &'static str, code: Code, message: &str, detail: D) -> Status {
        Reason::new(name, code, "").error(message, detail)
    }
    let resource = || Resource("", String::new());
    match code {
        Code::Cancelled => named("CANCELLED", code, message, Nothing),
        Code::AlreadyExists => named("ALREADY_EXISTS", code, message, resource()),
        Code::Aborted => named("ABORTED", code, message, resource()),
        Code::FailedPrecondition => named("FAILED_PRECONDITION", code, message, Precondition(String::new())),
        Code::ResourceExhausted => named("RESOURCE_EXHAUSTED", code, message, Quota("call")),
        Code::OutOfRange => named("OUT_OF_RANGE", code, message, Nothing),
        Code::Unauthenticated => named("UNAUTHENTICATED", code, message, Nothing),
        Code::PermissionDenied => named("PERMISSION_DENIED", code, message, Nothing),
        Code::Unavailable => named("UNAVAILABLE", code, message, Outage(Effect::Unknown)),
        Code::DataLoss => named("DATA_LOSS", code, message, Nothing),
        _ => named("UNKNOWN", code, message, Nothing),
    }
}

/// The status for a request that is malformed as a whole.
pub(in crate::rpc) fn malformed(message: &str) -> Status {
    let violation = FieldViolation::new("", shortened(message.to_owned()));
    table::INVALID_REQUEST.error(message, Fields(vec![violation]))
}
