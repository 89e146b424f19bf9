//! What no client can bring about at will, through the conversion that each error passes.

use tonic::{Code, Status, body::Body, codegen::http::Response};
use tonic_types::StatusExt as _;

use super::{ERROR_DOMAIN, ERRORS, Effect, explain_end, explained, table};
use crate::{control::PauseError, domain::pause::Target, rpc::status};

// The tests of the suite hold the errors that they provoke to the table in the same way.
#[path = "../../../tests/support/errors.rs"]
mod errors;

use errors::{beside, detail_of, is_of};

/// Others have to win the race for one record eight times in a row.
#[test]
fn a_pause_that_others_keep_changing_has_its_reason() {
    is_of(&status::pause(&PauseError::Changed(Target::Organization)), "PAUSE_CHANGED");
}

fn status_of(answer: &Response<Body>) -> Status {
    Status::from_header_map(answer.headers()).unwrap()
}

#[test]
fn a_bare_status_keeps_its_code_and_gets_a_reason_and_details() {
    for (code, reason) in [
        (Code::Cancelled, "CANCELLED"),
        (Code::Unknown, "UNKNOWN"),
        (Code::InvalidArgument, "INVALID_REQUEST"),
        (Code::DeadlineExceeded, "DEADLINE_EXCEEDED"),
        (Code::NotFound, "UNKNOWN_SERVICE"),
        (Code::AlreadyExists, "ALREADY_EXISTS"),
        (Code::PermissionDenied, "PERMISSION_DENIED"),
        (Code::ResourceExhausted, "RESOURCE_EXHAUSTED"),
        (Code::FailedPrecondition, "FAILED_PRECONDITION"),
        (Code::Aborted, "ABORTED"),
        (Code::OutOfRange, "OUT_OF_RANGE"),
        (Code::Unimplemented, "UNKNOWN_RPC"),
        (Code::Internal, "INTERNAL"),
        (Code::Unavailable, "UNAVAILABLE"),
        (Code::DataLoss, "DATA_LOSS"),
        (Code::Unauthenticated, "UNAUTHENTICATED"),
    ] {
        let explained = status_of(&explained(Status::new(code, "why: é\n").into_http()));
        assert_eq!((explained.code(), explained.message()), (code, "why: é\n"));
        let details = explained.get_error_details();
        let info = details.error_info().unwrap();
        assert_eq!((&*info.reason, &*info.domain), (reason, ERROR_DOMAIN));
        assert_eq!(beside(&details), detail_of(code).into_iter().collect::<Vec<_>>(), "{code:?}");
        assert_eq!(info.metadata.contains_key("effect"), code == Code::Unavailable);
        if ERRORS.iter().any(|row| row.reason == reason) {
            is_of(&explained, reason);
        }
    }
}

/// A symbol that is asked of reflection comes back in the message.
#[test]
fn a_long_message_leaves_room_in_the_headers() {
    for code in [Code::NotFound, Code::InvalidArgument, Code::Unimplemented, Code::Unknown] {
        let answer = explained(Status::new(code, "é".repeat(30_000)).into_http::<Body>());
        let bytes: usize =
            answer.headers().iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
        assert!(bytes < 16 * 1024, "{code:?}: {bytes}");
        assert!(status_of(&answer).message().ends_with('…'));
    }
}

#[test]
fn what_a_library_does_not_implement_is_an_rpc_or_a_compression() {
    let mut status = Status::unimplemented("x");
    is_of(&status_of(&explained(status.clone().into_http())), "UNKNOWN_RPC");
    status.metadata_mut().insert("grpc-accept-encoding", "identity,gzip".parse().unwrap());
    let answer = explained(status.into_http());
    is_of(&status_of(&answer), "COMPRESSION_UNSUPPORTED");
    // Clients choose by it how to send the next message.
    assert_eq!(answer.headers()["grpc-accept-encoding"], "identity,gzip");
}

#[test]
fn what_a_library_does_not_know_is_a_service_and_at_the_end_of_a_stream_a_symbol() {
    let mut answer: Response<Body> = Status::not_found("x").into_http();
    let mut trailers = answer.headers().clone();
    answer.extensions_mut().insert(7);
    let answer = explained(answer);
    is_of(&status_of(&answer), "UNKNOWN_SERVICE");
    assert_eq!(answer.extensions().get(), Some(&7));
    explain_end(&mut trailers);
    is_of(&Status::from_header_map(&trailers).unwrap(), "UNKNOWN_SYMBOL");
}

#[test]
fn what_has_a_reason_or_is_no_error_stays() {
    let with_reason = table::OVERLOADED.error("x", super::Retry).into_http::<Body>();
    let headers = with_reason.headers().clone();
    assert_eq!(*explained(with_reason).headers(), headers);
    assert!(explained(Response::new(Body::empty())).headers().is_empty());
    let mut end = Status::new(Code::Ok, "").into_http::<()>().headers().clone();
    let before = end.clone();
    explain_end(&mut end);
    assert_eq!(end, before);
}
