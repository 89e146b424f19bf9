//! What the pages refuse, as errors like those of the RPCs.

use std::collections::HashMap;

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

use super::{
    access,
    status::{DOMAIN, OUTAGE_RETRY},
};
use crate::access::Refusal;

/// The guard's refusal of a caller.
#[must_use]
pub fn caller_refused(refusal: Refusal) -> Status {
    access::status(refusal)
}

/// An error of a page itself, with `reason` in its `ErrorInfo`. An outage says when to try again.
#[must_use]
pub fn page_error(code: Code, reason: &'static str, message: impl Into<String>) -> Status {
    let mut details = ErrorDetails::new();
    details.set_error_info(reason, DOMAIN, HashMap::new());
    if code == Code::Unavailable {
        details.set_retry_info(Some(OUTAGE_RETRY));
    }
    Status::with_error_details(code, message, details)
}
