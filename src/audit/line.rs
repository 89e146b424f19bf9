//! An event on its way to the sinks.

use std::sync::{Arc, atomic::Ordering};

use super::Flood;
use crate::store::AuditId;

/// An event, written out.
#[derive(Debug)]
pub(super) struct Line {
    pub(super) id: AuditId,
    /// Without a newline.
    pub(super) text: String,
    /// Dropped with the line, once every sink has written it.
    pub(super) _waiting: Option<Waiting>,
}

/// Counts a refusal as waiting, until dropped.
#[derive(Debug)]
pub(super) struct Waiting(Arc<Flood>);

impl Waiting {
    pub(super) fn new(flood: &Arc<Flood>) -> Self {
        flood.waiting.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(flood))
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}
