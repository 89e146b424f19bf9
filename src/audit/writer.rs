//! The thread that writes the log.

use std::{
    io::{self, Write},
    sync::{
        atomic::Ordering,
        mpsc::{Receiver, RecvTimeoutError, TryRecvError},
    },
    thread,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use serde_json::{Value, json};
use tracing::error;

use super::{
    Flood, Message,
    event::{Change, Event, action},
};
use crate::domain::{
    actor::Actor,
    text::{Notation, written_out},
};

/// How long refusals are counted before the number left out is reported.
const TELL_AFTER: Duration = Duration::from_secs(1);
/// How long to wait before trying a failing disk again.
const RETRY: Duration = Duration::from_secs(1);

/// Writes events as lines, each with one write.
pub(super) struct Writer<W> {
    out: W,
    /// Makes what was written durable.
    sync: fn(&mut W) -> io::Result<()>,
    /// The time in the last id, and the number of the event within it.
    last: (u64, u32),
    /// When to report the refusals left out.
    tell_at: Option<Instant>,
    is_durable: bool,
}

impl<W: Write> Writer<W> {
    /// Writes to `out`, whose last event has the time `last_ms` in its id.
    pub(super) const fn new(out: W, sync: fn(&mut W) -> io::Result<()>, last_ms: u64) -> Self {
        // The count within that millisecond is unknown, so the next millisecond begins.
        Self { out, sync, last: (last_ms.saturating_add(1), 0), tell_at: None, is_durable: true }
    }

    /// Runs until no sender is left.
    pub(super) fn run(&mut self, events: &Receiver<Message>, flood: &Flood) {
        while let Some(message) = self.next(events, flood) {
            match message {
                Message::Event { at, change, is_denial } => {
                    self.write(at, change);
                    if is_denial {
                        flood.waiting.fetch_sub(1, Ordering::Relaxed);
                    }
                }
                Message::LeftOut => self.tell_at = Some(Instant::now() + TELL_AFTER),
                Message::Flush(done) => {
                    self.tell(flood);
                    self.make_durable();
                    let _ = done.send(self.is_durable);
                }
            }
        }
        self.tell(flood);
        self.make_durable();
    }

    /// The next message. If none is there yet, what was written is made durable first: many events share one wait.
    fn next(&mut self, events: &Receiver<Message>, flood: &Flood) -> Option<Message> {
        loop {
            match events.try_recv() {
                Ok(message) => return Some(message),
                Err(TryRecvError::Disconnected) => return None,
                Err(TryRecvError::Empty) => self.make_durable(),
            }
            let wait = match self.tell_at {
                Some(tell_at) => tell_at.saturating_duration_since(Instant::now()),
                None if self.is_durable => return events.recv().ok(),
                None => RETRY,
            };
            match events.recv_timeout(wait) {
                Ok(message) => return Some(message),
                Err(RecvTimeoutError::Timeout) => {
                    if self.tell_at.is_some_and(|tell_at| tell_at <= Instant::now()) {
                        self.tell(flood);
                    }
                }
                Err(RecvTimeoutError::Disconnected) => return None,
            }
        }
    }

    fn tell(&mut self, flood: &Flood) {
        self.tell_at = None;
        let left_out = flood.left_out.swap(0, Ordering::Relaxed);
        if left_out > 0 {
            let change = Change {
                actor: Actor::system("flood"),
                action: action::ROLE_DENIED,
                subject: String::new(),
                before: Value::Null,
                after: json!({ "left_out": left_out }),
                outcome: "LEFT_OUT",
            };
            self.write(Timestamp::now(), change);
        }
    }

    fn write(&mut self, at: Timestamp, change: Change) {
        let now = u64::try_from(at.as_millisecond()).unwrap_or(0);
        self.last = match self.last {
            (ms, count) if now <= ms => (ms, count.saturating_add(1)),
            _ => (now, 0),
        };
        let Change { actor, action, subject, before, after, outcome } = change;
        let event = Event {
            id: Event::make_id(self.last.0, self.last.1),
            time: at,
            actor,
            action: action.to_owned(),
            subject,
            before,
            after,
            outcome: outcome.to_owned(),
        };
        // Text, numbers and lists of them are always JSON.
        let Ok(line) = serde_json::to_string(&event) else { return };
        let mut line = written_out(&line, Notation::Json, |_| false).into_owned();
        line.push('\n');
        // After a partial write the rest of the line is lost, and the next event starts a line of its own: readers skip the
        // broken one.
        let mut failed = false;
        while let Err(reason) = self.out.write_all(line.as_bytes()) {
            error!(%reason, "the audit log cannot be written; trying again, and keeping what is to be written");
            if !failed {
                line.insert(0, '\n');
                failed = true;
            }
            thread::sleep(RETRY);
        }
        self.is_durable = false;
    }

    fn make_durable(&mut self) {
        if self.is_durable {
            return;
        }
        match (self.sync)(&mut self.out) {
            Ok(()) => self.is_durable = true,
            Err(reason) => {
                error!(%reason, "the audit log is written, but not known to be durable; trying again");
            }
        }
    }
}
