//! Statuses that come from the libraries below: they get a reason and its details.

use tonic::{Code, Status, body::Body, codegen::http::Response};
use tonic_types::FieldViolation;

use super::{Fields, Nothing, Resource, Unsure, shortened, table};

const STATUS: &str = "grpc-status";
const DETAILS: &str = "grpc-status-details-bin";

/// `answer`, with a reason if it is an error without one. Belongs around all services.
#[must_use]
pub fn explained(answer: Response<Body>) -> Response<Body> {
    let headers = answer.headers();
    // An answer that is no error has its status in trailers.
    if !headers.contains_key(STATUS) || headers.contains_key(DETAILS) {
        return answer;
    }
    match Status::from_header_map(headers) {
        Some(status) if status.code() != Code::Ok => {
            let mut explained = with_reason(&status).into_http();
            explained.extensions_mut().extend(answer.into_parts().0.extensions);
            explained
        }
        _ => answer,
    }
}

fn with_reason(status: &Status) -> Status {
    let message = status.message();
    match status.code() {
        Code::InvalidArgument => malformed(message),
        // What is not served was refused before; this is what the libraries call an unknown compression.
        Code::Unimplemented => table::COMPRESSION_UNSUPPORTED.error(message, Nothing),
        Code::NotFound => {
            let service = Resource("grpc.health.v1.Health", String::new());
            table::UNKNOWN_SERVICE.error(message, service)
        }
        Code::DeadlineExceeded => table::DEADLINE_EXCEEDED.error(message, Unsure),
        _ => table::INTERNAL.error(message, Unsure),
    }
}

/// The status for a request that is malformed as a whole.
pub(in crate::rpc) fn malformed(message: &str) -> Status {
    let violation = FieldViolation::new("", shortened(message.to_owned()));
    table::INVALID_REQUEST.error(message, Fields(vec![violation]))
}

#[cfg(test)]
mod tests {
    use tonic_types::StatusExt as _;

    use super::*;

    fn reason(answer: &Response<Body>) -> (Code, String) {
        let status = Status::from_header_map(answer.headers()).unwrap();
        (status.code(), status.get_details_error_info().map(|info| info.reason).unwrap_or_default())
    }

    #[test]
    fn a_status_without_a_reason_gets_one_and_others_stay() {
        for (status, code, expected) in [
            (Status::invalid_argument("x"), Code::InvalidArgument, "INVALID_REQUEST"),
            (Status::unimplemented("x"), Code::Unimplemented, "COMPRESSION_UNSUPPORTED"),
            (Status::not_found("x"), Code::NotFound, "UNKNOWN_SERVICE"),
            (Status::internal("x"), Code::Internal, "INTERNAL"),
            (Status::data_loss("x"), Code::Internal, "INTERNAL"),
            (table::UNKNOWN_RPC.error("x", Nothing), Code::Unimplemented, "UNKNOWN_RPC"),
        ] {
            assert_eq!(reason(&explained(status.into_http())), (code, expected.to_owned()));
        }
        assert!(explained(Response::new(Body::empty())).headers().is_empty(), "no error");
    }
}
