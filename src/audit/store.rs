//! The log in the store.

use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{sync::mpsc::UnboundedReceiver, time::timeout};
use tracing::{debug, error, info};

use super::{
    line::Line,
    sink::{FAREWELL, Order},
};
use crate::store::{
    AUDIT_REMOVED, AuditEntry, AuditKept, AuditLog, MAX_AUDIT_APPEND, MAX_AUDIT_EVENTS, StoreError,
};

/// How long to wait before trying a store again that did not answer.
const RETRY: Duration = Duration::from_secs(1);
/// After so long without an event, what is past its time is removed all the same.
const TIDY: Duration = Duration::from_secs(600);
/// The most calls that remove something at one time: with the next ones, the rest goes.
const TIDY_CALLS: usize = 100;

/// Appends lines to the store, many with one call.
pub(super) struct StoreWriter<S> {
    store: S,
    kept: AuditKept,
    queue: VecDeque<Order>,
    is_failing: bool,
}

impl<S: AuditLog> StoreWriter<S> {
    pub(super) fn new(store: S, kept: Duration) -> Self {
        let ms = u64::try_from(kept.as_millis()).unwrap_or(u64::MAX);
        let kept = AuditKept { ms, events: MAX_AUDIT_EVENTS };
        Self { store, kept, queue: VecDeque::new(), is_failing: false }
    }

    /// Runs until no sender is left and everything is written, or a moment has passed since then.
    pub(super) async fn run(&mut self, orders: &mut UnboundedReceiver<Order>) {
        let mut until = None;
        loop {
            // All that is there, so that many events share one call.
            while let Ok(order) = orders.try_recv() {
                self.queue.push_back(order);
            }
            if self.queue.is_empty() {
                match timeout(TIDY, orders.recv()).await {
                    Ok(Some(order)) => self.queue.push_back(order),
                    Ok(None) => return,
                    Err(_) => self.tidy().await,
                }
                continue;
            }
            let Err(error) = self.write().await else { continue };
            self.failed(&error);
            self.pause(orders).await;
            if orders.is_closed() && orders.is_empty() {
                let until = *until.get_or_insert_with(|| Instant::now() + FAREWELL);
                if until <= Instant::now() {
                    error!(
                        events = self.queue.len(),
                        "the last events of the audit log are not in the store"
                    );
                    return;
                }
            }
        }
    }

    /// Writes the first lines of the queue, or answers that they are written.
    async fn write(&mut self) -> Result<(), StoreError> {
        let lines = self.queue.iter().map_while(|order| match order {
            Order::Write(line) => Some(Arc::clone(line)),
            Order::Flush(_) => None,
        });
        let lines: Vec<_> = lines.take(MAX_AUDIT_APPEND).collect();
        if !lines.is_empty() {
            self.store.audit_append(lines.iter().map(|line| entry(line)).collect(), self.kept).await?;
            self.queue.drain(..lines.len());
            if std::mem::take(&mut self.is_failing) {
                info!("the audit log is written to the store again");
            }
        } else if let Some(Order::Flush(done)) = self.queue.pop_front() {
            let _ = done.send(true);
        }
        Ok(())
    }

    fn failed(&mut self, error: &StoreError) {
        if !std::mem::replace(&mut self.is_failing, true) {
            error!(%error, "the audit log cannot be written to the store; trying again, and keeping what is to be written");
        }
        self.refuse_flushes();
    }

    /// Those who asked are told at once that not everything is durable.
    fn refuse_flushes(&mut self) {
        self.queue.retain(|order| match order {
            Order::Write(_) => true,
            Order::Flush(done) => {
                let _ = done.send(false);
                false
            }
        });
    }

    /// Takes what comes until the next attempt.
    async fn pause(&mut self, orders: &mut UnboundedReceiver<Order>) {
        let until = tokio::time::Instant::now() + RETRY;
        loop {
            match tokio::time::timeout_at(until, orders.recv()).await {
                Ok(Some(order)) => {
                    self.queue.push_back(order);
                    self.refuse_flushes();
                }
                Ok(None) => return tokio::time::sleep_until(until).await,
                Err(_) => return,
            }
        }
    }

    async fn tidy(&self) {
        for _ in 0..TIDY_CALLS {
            match self.store.audit_append(Vec::new(), self.kept).await {
                Ok(AUDIT_REMOVED) => {}
                Ok(_) => return,
                Err(error) => return debug!(%error, "what is past its time stays in the audit log for now"),
            }
        }
    }
}

fn entry(line: &Line) -> AuditEntry {
    AuditEntry { id: line.id, line: line.text.clone().into() }
}
