//! What one of those who watch sees.

use std::sync::Arc;

use thiserror::Error;
use tokio::sync::watch;

use super::{
    DecisionFeed,
    event::FeedEvent,
    tail::{Look, MAX_STREAMS, Tail},
};
use crate::store::{DecisionId, StoreError};

/// Why decisions are not shown, or not any longer.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum NotWatched {
    /// There are as many streams as there may be.
    #[error("{MAX_STREAMS} streams of decisions are open at this replica; close one, or ask another replica")]
    TooMany,
    /// The store does not answer.
    #[error("decisions are not shown: {0}")]
    Store(#[from] StoreError),
    /// This replica stops.
    #[error("this replica stops; ask another one")]
    ShuttingDown,
}

/// Some decisions that follow each other.
#[derive(Debug)]
pub struct FeedPage {
    /// The decisions.
    pub events: Vec<Arc<FeedEvent>>,
    /// How many between them, or before the first of them, are not kept any more or cannot be read.
    pub missed: u64,
}

/// All decisions from some place on. It counts among the streams of its process until it is dropped.
#[derive(Debug)]
pub struct DecisionStream {
    tail: Arc<Tail>,
    changed: watch::Receiver<()>,
    /// The last that was returned.
    after: Option<DecisionId>,
}

impl DecisionFeed {
    /// Watches from now on, or from the one after `after`, as far as it is kept. Returns once the store was read: each decision of this
    /// process that is made later is seen, unless there are too many.
    ///
    /// # Errors
    /// There are too many streams, the store does not answer, or this replica stops.
    pub async fn watch(&self, after: Option<DecisionId>) -> Result<DecisionStream, NotWatched> {
        let failures = self.tail.failures();
        let changed = self.tail.join().ok_or(NotWatched::TooMany)?;
        let mut stream = DecisionStream { tail: Arc::clone(&self.tail), changed, after: None };
        loop {
            match self.tail.begin(failures) {
                Look::Current(last) => {
                    // What no store has told yet is as good as none.
                    stream.after = after.map_or(last, |after| Some(after).min(last));
                    return Ok(stream);
                }
                Look::Failed(error) => return Err(error.into()),
                Look::Closed => return Err(NotWatched::ShuttingDown),
                Look::Nothing | Look::Events(..) => stream.has_changed().await?,
            }
        }
    }
}

impl DecisionStream {
    /// Waits for the next decisions, and returns at most `count` of them. What is dropped while it waits has lost nothing.
    ///
    /// # Errors
    /// The store has not answered for two seconds, or this replica stops.
    pub async fn next(&mut self, count: usize) -> Result<FeedPage, NotWatched> {
        loop {
            match self.tail.look(self.after, count) {
                Look::Events(events, missed) => {
                    self.after = events.last().map(|event| event.id).or(self.after);
                    return Ok(FeedPage { events, missed });
                }
                Look::Failed(error) => return Err(error.into()),
                Look::Closed => return Err(NotWatched::ShuttingDown),
                Look::Nothing | Look::Current(_) => self.has_changed().await?,
            }
        }
    }

    async fn has_changed(&mut self) -> Result<(), NotWatched> {
        // The sender lives as long as the tail.
        self.changed.changed().await.map_err(|_| NotWatched::ShuttingDown)
    }
}

impl Drop for DecisionStream {
    fn drop(&mut self) {
        self.tail.leave();
    }
}
