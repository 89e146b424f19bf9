//! Decisions as they are made, for those who watch.
//!
//! While no one watches, on this replica or another, a decision pays one look at a flag. While someone does, it is put into a bounded queue
//! or counted. One task of the process publishes what waits, and reads what all replicas have published for the streams that are open
//! here.

mod event;
mod offer;
mod pending;
mod relay;
mod stream;
mod tail;

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

pub use self::{
    event::FeedEvent,
    stream::{DecisionStream, FeedPage, NotWatched},
};
use self::{pending::Pending, tail::Tail};
use super::decision_log::Decision;

/// The decisions of this process on their way out, and those of all replicas on their way to its streams.
#[derive(Debug, Default)]
pub struct DecisionFeed {
    /// Whether decisions are published. Only the relay sets it; it orders nothing.
    is_open: AtomicBool,
    pending: Pending<Decision>,
    tail: Arc<Tail>,
}

impl DecisionFeed {
    /// Whether decisions are published.
    fn is_open(&self) -> bool {
        self.is_open.load(Ordering::Relaxed)
    }

    /// Ends all streams: this replica stops.
    pub fn close(&self) {
        self.tail.close();
    }
}
