//! gRPC's codes.

/// gRPC's codes by their numbers, as OpenTelemetry's conventions name them.
pub const CODES: [&str; 17] = [
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
];

/// The name of a code.
#[must_use]
pub fn code_name(number: i32) -> &'static str {
    usize::try_from(number).ok().and_then(|number| CODES.get(number)).copied().unwrap_or("UNKNOWN")
}
