//! What is asked, and by what it is decided.

use std::sync::Arc;

use super::Failure;
use crate::domain::{
    caller::ResolvedCaller, decision::Violation, request::AuthorizeRequest, snapshot::Snapshot,
};

/// A request with the snapshot that decides it, and its caller there.
#[derive(Clone, Copy)]
pub struct Question<'a> {
    /// The request.
    pub request: &'a AuthorizeRequest,
    /// The snapshot that decides it. Each further attempt of a waiting request has a question with a newer one.
    pub snapshot: &'a Snapshot,
    /// The caller, as found in the snapshot.
    pub caller: &'a Result<ResolvedCaller<'a>, Violation>,
    /// Whether the snapshot was young enough.
    pub fresh: &'a Result<(), Failure>,
}

/// What was in force at one moment, and whether it was young enough to decide by.
#[derive(Clone, Debug)]
pub struct View {
    /// What was in force.
    pub snapshot: Arc<Snapshot>,
    /// Why it may be out of date.
    pub fresh: Result<(), Failure>,
}
