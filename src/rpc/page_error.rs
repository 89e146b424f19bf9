//! What the pages refuse, as errors like those of the RPCs.

use tonic::Status;
use tonic_types::FieldViolation;

use super::{
    access,
    error::{Effect, Fields, Nothing, Outage, Resource, Retry, Unsure, table},
};
use crate::access::Refusal;

/// What is wrong with a request for a page, or with the page.
#[derive(Clone, Copy, Debug)]
pub enum PageFault {
    /// There is no such page, for anyone.
    UnknownPage,
    /// The page is only read.
    MethodNotAllowed,
    /// The request is for another host.
    ForeignHost,
    /// A change was asked for by a page of others.
    ForeignForm,
    /// The store does not answer.
    StoreUnavailable,
    /// Keys and pauses were not read within their bound.
    SnapshotStale,
    /// The page could not be made.
    Internal,
}

/// The guard's refusal of a caller.
#[must_use]
pub fn caller_refused(refusal: Refusal) -> Status {
    access::status(refusal)
}

/// An error of the page at `path`. `message` is for people.
#[must_use]
pub fn page_error(fault: PageFault, path: &str, message: &str) -> Status {
    match fault {
        PageFault::UnknownPage => {
            table::UNKNOWN_PAGE.error(message, Resource("tollgate.v1.Page", path.to_owned()))
        }
        PageFault::MethodNotAllowed => table::METHOD_NOT_ALLOWED.error(message, Nothing),
        PageFault::ForeignHost => {
            table::FOREIGN_HOST.error(message, Fields(vec![FieldViolation::new("host", message)]))
        }
        PageFault::ForeignForm => table::FOREIGN_FORM.error(message, Nothing),
        PageFault::StoreUnavailable => table::STORE_UNAVAILABLE.error(message, Outage(Effect::None)),
        PageFault::SnapshotStale => table::SNAPSHOT_STALE.error(message, Retry),
        PageFault::Internal => table::INTERNAL.error(message, Unsure),
    }
}
