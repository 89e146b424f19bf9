//! The thread that makes the lines of the log.

use std::{
    sync::{
        Arc,
        atomic::Ordering,
        mpsc::{Receiver, RecvTimeoutError},
    },
    time::{Duration, Instant},
};

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{
    Flood, Message, Origin,
    event::{Change, Event, action, exact},
    line::{Line, Waiting},
    sink::{Order, Orders},
};
use crate::{
    domain::{
        self,
        actor::Actor,
        text::{Notation, written_out},
    },
    runtime::Entropy,
    store::{AuditId, MAX_AUDIT_LINE},
};

/// How long refusals are counted before the number left out is reported.
const TELL_AFTER: Duration = Duration::from_secs(1);

/// Makes a line of each event, and gives it to each sink.
pub(super) struct Recorder {
    origin: Origin,
    sinks: Vec<Orders>,
    flood: Arc<Flood>,
    /// Events so far, by which those of one millisecond are told apart.
    count: u32,
    /// When to report the refusals left out.
    tell_at: Option<Instant>,
}

impl Recorder {
    pub(super) const fn new(origin: Origin, sinks: Vec<Orders>, flood: Arc<Flood>) -> Self {
        Self { origin, sinks, flood, count: 0, tell_at: None }
    }

    /// Runs until no sender is left.
    pub(super) fn run(&mut self, events: &Receiver<Message>) {
        while let Some(message) = self.next(events) {
            match message {
                Message::Event { at, change, waiting } => self.write(at, change, waiting),
                Message::LeftOut => self.tell_at = Some(Instant::now() + TELL_AFTER),
                Message::Flush(done) => {
                    self.tell();
                    self.sinks.iter().for_each(|sink| sink.send(Order::Flush(done.clone())));
                }
            }
        }
        self.tell();
    }

    fn next(&mut self, events: &Receiver<Message>) -> Option<Message> {
        loop {
            let Some(tell_at) = self.tell_at else { return events.recv().ok() };
            match events.recv_timeout(tell_at.saturating_duration_since(Instant::now())) {
                Ok(message) => return Some(message),
                Err(RecvTimeoutError::Timeout) => self.tell(),
                Err(RecvTimeoutError::Disconnected) => return None,
            }
        }
    }

    fn tell(&mut self) {
        self.tell_at = None;
        let left_out = self.flood.left_out.swap(0, Ordering::Relaxed);
        if left_out > 0 {
            let change = Change {
                actor: Actor::system("flood"),
                action: action::ROLE_DENIED,
                subject: String::new(),
                before: Value::Null,
                after: json!({ "left_out": left_out }),
                outcome: "LEFT_OUT",
            };
            self.write(Timestamp::now(), change, None);
        }
    }

    fn write(&mut self, at: Timestamp, change: Change, waiting: Option<Waiting>) {
        let ms = domain::Timestamp(u64::try_from(at.as_millisecond()).unwrap_or(0));
        // Without randomness the ids of this process are still unique; only those of different replicas could collide.
        let random = u32::from_le_bytes(Entropy::System.bytes().unwrap_or_default());
        let id = AuditId::new(ms, self.count, random);
        self.count = self.count.wrapping_add(1);
        let Change { actor, action, subject, before, after, outcome } = change;
        let mut event = Event {
            v: Event::VERSION,
            id: id.to_string(),
            time: at,
            actor,
            action: action.to_owned(),
            subject,
            before: exact(before),
            after: exact(after),
            outcome: outcome.to_owned(),
            replica: self.origin.replica.to_string(),
            organization: self.origin.organization.to_string(),
        };
        let Some(mut text) = written(&event) else { return };
        if text.len() > MAX_AUDIT_LINE {
            let left_out = json!({ "left_out_bytes": text.len() });
            (event.before, event.after) = (Value::Null, left_out);
            let Some(shorter) = written(&event) else { return };
            text = shorter;
        }
        let line = Arc::new(Line { id, text, _waiting: waiting });
        self.sinks.iter().for_each(|sink| sink.send(Order::Write(Arc::clone(&line))));
    }
}

/// The event as it stands in the log. Text, numbers and lists of them are always JSON.
fn written(event: &Event) -> Option<String> {
    let line = serde_json::to_string(event).ok()?;
    Some(written_out(&line, Notation::Json, |_| false).into_owned())
}
