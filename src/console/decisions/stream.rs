//! Decisions as server-sent events.

use axum::response::sse::Event;
use tokio::time::{Duration, Instant, sleep_until};
use tonic::{Status, Streaming};

use super::{BEFORE_ALL, filter::Filter};
use crate::{
    console::view::View,
    rpc::{proto::StreamDecisionsResponse, to_json},
};

/// Decisions on their way to a reader.
pub(in super::super) struct Tail {
    stream: Streaming<StreamDecisionsResponse>,
    filter: Filter,
    /// Whether what was skipped is what was missed, and not all that there ever was.
    counts: bool,
    /// The least time between two messages.
    pace: Duration,
    due: Instant,
}

impl Tail {
    /// Those that `filter` takes, from the one after `after` on; empty: from now on.
    ///
    /// # Errors
    /// The reader may not see them, there are too many streams, or the store does not answer.
    pub(in super::super) async fn open(
        view: &View,
        filter: Filter,
        after: &str,
        pace: Duration,
    ) -> Result<Self, Status> {
        let request = filter.request(after.to_owned());
        let stream = view.api().reports().stream_decisions(request).await?.into_inner();
        Ok(Self { stream, filter, counts: after != BEFORE_ALL, pace, due: Instant::now() })
    }

    /// Waits for the next events. What is dropped while it waits has lost nothing.
    ///
    /// # Errors
    /// The stream ended.
    pub(in super::super) async fn next(&mut self) -> Result<Vec<Event>, Status> {
        sleep_until(self.due).await;
        loop {
            let message = self.stream.message().await?;
            let message = message.ok_or_else(|| Status::unavailable("the stream ended"))?;
            let events = self.events(message);
            if !events.is_empty() {
                self.due = Instant::now() + self.pace;
                return Ok(events);
            }
        }
    }

    fn events(&mut self, message: StreamDecisionsResponse) -> Vec<Event> {
        let StreamDecisionsResponse { events, skipped_count } = message;
        let mut told = Vec::with_capacity(events.len() + 1);
        if skipped_count > 0 && self.counts {
            let lagged = StreamDecisionsResponse { events: Vec::new(), skipped_count };
            // Every message of the contract is JSON.
            let lagged = to_json(&lagged).ok();
            told.extend(lagged.map(|lagged| Event::default().event("lagged").data(lagged.to_string())));
        }
        self.counts = true;
        for event in events.into_iter().filter(|event| self.filter.takes(event)) {
            if let Ok(json) = to_json(&event) {
                told.push(Event::default().event("decision").id(event.id).data(json.to_string()));
            }
        }
        told
    }
}
