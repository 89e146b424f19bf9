//! What changes while a page is open, as server-sent events.
//!
//! Each is one message of the contract in protobuf's JSON. A stream tells what its reader may see and no more: it ends when the policy
//! changes, and browsers then ask again, as who they are by the new one.

mod streams;

use std::{collections::HashMap, convert::Infallible, sync::Arc, time::Duration};

use axum::{
    Extension,
    extract::State,
    http::HeaderMap,
    response::{
        Sse,
        sse::{Event, KeepAlive},
    },
};
use prost::{Message, Name};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep, sleep_until, timeout},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

pub use self::streams::Streams;

use self::streams::Place;
use super::{
    Console, alerts,
    asked::Asked,
    decisions::{Filter, Tail, Words},
    fault::Fault,
    view::View,
};
use crate::{
    domain::{rbac::Permission, snapshot::document_revision},
    rpc::{
        proto::{AlertState, ListAlertsRequest, ListBudgetsRequest},
        to_json,
    },
};

/// How often what is watched is read.
const EVERY: Duration = Duration::from_secs(2);
/// The least time between two events.
const PACE: Duration = Duration::from_millis(250);
/// How long a reader may take none of the events that wait for it.
const UNREAD: Duration = Duration::from_secs(30);
/// Events that a reader has not taken yet. Past them nothing is read: what is told later is as it is then.
const MAX_UNREAD: usize = 16;
/// How long a stream lasts. Then its reader asks again, as who they are by then: a session may have ended.
const LIFE: Duration = Duration::from_secs(600);
/// How often a stream without events says that it is alive.
const COMMENT: Duration = Duration::from_secs(15);
/// The most budgets and alerts that are watched by one stream: those that a page shows.
const MAX_WATCHED: usize = 200;

/// What is asked for.
#[derive(Clone, Debug, Default, Deserialize)]
pub(super) struct Query {
    /// `decisions`, `budgets` and `alerts`, separated by commas.
    #[serde(default)]
    topics: String,
    /// The decisions and budgets of one team; which decisions.
    #[serde(flatten)]
    words: Words,
    /// The decision after which to begin, where the browser does not know the last one.
    #[serde(default)]
    after: String,
}

/// What a stream tells of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Topic {
    Decisions,
    Budgets,
    Alerts,
}

/// Those of `topics` that the reader of a page may follow.
pub(super) fn permitted(view: &View, topics: &str) -> String {
    let known = topics.split(',').filter(|name| Topic::of(name).is_some_and(|(_, needs)| view.may(needs)));
    known.collect::<Vec<_>>().join(",")
}

impl Topic {
    fn of(name: &str) -> Option<(Self, Permission)> {
        match name {
            "decisions" => Some((Self::Decisions, Permission::ReadDecisions)),
            "budgets" => Some((Self::Budgets, Permission::ReadSpend)),
            "alerts" => Some((Self::Alerts, Permission::ReadAlerts)),
            _ => None,
        }
    }
}

/// Why a stream looks about.
enum Turn {
    /// The service stops.
    Stops,
    /// Decisions were made, or are not told any longer.
    Made(Result<Vec<Event>, Status>),
    /// What is watched is to be read.
    Due,
}

/// A reader that watches.
struct Watcher {
    view: View,
    topics: Vec<Topic>,
    team: String,
    decisions: Option<Tail>,
    told: mpsc::Sender<Event>,
    /// What was last seen of each thing; `None` until it was read once.
    seen: Option<HashMap<String, Value>>,
    revision: Arc<str>,
    /// Whether the last reading failed.
    fails: bool,
    _place: Place,
}

/// The stream.
pub(super) async fn show(
    State(console): State<Console>,
    Extension(view): Extension<View>,
    headers: HeaderMap,
    Asked(Query { topics, words, after }): Asked<Query>,
) -> Result<Sse<impl tokio_stream::Stream<Item = Result<Event, Infallible>>>, Fault> {
    // Of a page elsewhere, browsers say so.
    if headers.get("sec-fetch-site").is_some_and(|site| site != "same-origin" && site != "none") {
        return Err(Fault::foreign_form());
    }
    let mut wanted = Vec::new();
    for name in topics.split(',') {
        let (topic, needs) = Topic::of(name)
            .ok_or_else(|| Fault::in_address("topics", "`decisions`, `budgets` or `alerts`"))?;
        let may = match words.team.as_str() {
            "" => view.may(needs),
            team => view.may_for(needs, team),
        };
        if !may {
            return Err(Fault::missing(needs));
        }
        wanted.push(topic);
    }
    let place = console.0.streams.place(&view.reader())?;
    let (told, events) = mpsc::channel(MAX_UNREAD);
    let revision = Arc::clone(&view.snapshot().revision);
    let team = words.team.clone();
    let decisions = match wanted.contains(&Topic::Decisions) {
        true => {
            let after = headers.get("last-event-id").and_then(|id| id.to_str().ok()).unwrap_or(&after);
            Some(Tail::open(&view, Filter::of(words)?, after, PACE).await?)
        }
        false => None,
    };
    let watcher = Watcher {
        view,
        topics: wanted,
        team,
        decisions,
        told,
        seen: None,
        revision,
        fails: false,
        _place: place,
    };
    tokio::spawn(watcher.run(console));
    let events = tokio_stream::StreamExt::map(ReceiverStream::new(events), Ok);
    Ok(Sse::new(events).keep_alive(KeepAlive::new().interval(COMMENT)))
}

impl Watcher {
    /// Tells of changes until the reader leaves, the policy changes or the service stops.
    async fn run(mut self, console: Console) {
        let mut stop = console.0.streams.stops();
        let ends = Instant::now() + LIFE;
        // What happened between the page and its stream is not told: whatever it shows of this is read again.
        if let Ok(now) = self.read().await {
            self.compare(now).await;
        }
        if !self.tell_snapshot().await {
            return;
        }
        let mut due = Instant::now() + EVERY;
        loop {
            let turn = tokio::select! {
                () = self.told.closed() => return,
                _ = stop.wait_for(|stop| *stop) => Turn::Stops,
                made = next(&mut self.decisions) => Turn::Made(made),
                () = sleep_until(due) => Turn::Due,
            };
            match turn {
                Turn::Stops => return self.end("the service stops").await,
                // This replica stops, or the store does not answer.
                Turn::Made(Err(_)) => return self.end("ask again").await,
                Turn::Made(Ok(events)) => match self.tell_all(events).await {
                    true => continue,
                    false => return,
                },
                Turn::Due => due = Instant::now() + EVERY,
            }
            if Instant::now() >= ends {
                return self.end("ask again").await;
            }
            if self.view.session().is_some_and(|session| !console.0.door.still_knows(session)) {
                return self.end("the session is over").await;
            }
            let snapshot = console.0.live.snapshot();
            if document_revision(&snapshot.revision) != document_revision(&self.revision) {
                return self.end("the policy changed").await;
            }
            if snapshot.revision != self.revision {
                self.revision = Arc::clone(&snapshot.revision);
                if !self.tell_snapshot().await {
                    return;
                }
            }
            if !self.look().await {
                return;
            }
        }
    }

    /// Tells what is another than before; whether its reader still listens. Of an outage it tells the beginning and the end: the page,
    /// read again, says what it is then.
    async fn look(&mut self) -> bool {
        let read = self.read().await;
        let turns = std::mem::replace(&mut self.fails, read.is_err()) != read.is_err();
        let told = match read {
            Ok(now) => self.compare(now).await,
            Err(_) => true,
        };
        told && (!turns || self.tell_snapshot().await)
    }

    /// All that is watched as it is: its kind, what it is, and its message.
    async fn read(&self) -> Result<Vec<(&'static str, String, Value)>, Status> {
        let api = self.view.api();
        let mut found = Vec::new();
        if self.topics.contains(&Topic::Budgets) {
            let page_size = i32::try_from(MAX_WATCHED).unwrap_or(i32::MAX);
            let request = ListBudgetsRequest { team: self.team.clone(), page_size, ..Default::default() };
            let budgets = api.budgets().list_budgets(request).await?.into_inner().budgets;
            found.extend(budgets.iter().filter_map(|budget| one("budget", budget.limit_id.clone(), budget)));
        }
        if self.topics.contains(&Topic::Alerts) {
            let request = ListAlertsRequest { states: vec![AlertState::Open.into()], ..Default::default() };
            // An answer ends after so many entries of the outbox, however few of them are of open alerts.
            let (alerts, _) = alerts::list(&self.view, request, MAX_WATCHED).await?;
            found.extend(alerts.iter().filter_map(|alert| one("alert", alert.id.clone(), alert)));
        }
        Ok(found)
    }

    /// Tells what is another than before; whether its reader still listens.
    async fn compare(&mut self, now: Vec<(&'static str, String, Value)>) -> bool {
        let before = self.seen.take();
        let mut seen = HashMap::with_capacity(now.len());
        for (kind, name, message) in now {
            let is_news = before.as_ref().is_some_and(|before| before.get(&name) != Some(&message));
            if is_news && !self.tell(kind, &message).await {
                return false;
            }
            seen.insert(name, message);
        }
        // What is over has no message of its own: whatever shows it is to be read again.
        let is_over = before.is_some_and(|before| before.keys().any(|name| !seen.contains_key(name)));
        self.seen = Some(seen);
        !is_over || self.tell_snapshot().await
    }

    /// Tells of `events`; whether the reader takes them.
    async fn tell_all(&self, events: Vec<Event>) -> bool {
        for event in events {
            if !self.send(event).await {
                return false;
            }
        }
        true
    }

    async fn tell(&self, kind: &str, message: &Value) -> bool {
        let told = self.send(Event::default().event(kind).data(message.to_string())).await;
        sleep(PACE).await;
        told
    }

    /// Whether the reader takes it: one that has left, or takes nothing, has no place.
    async fn send(&self, event: Event) -> bool {
        timeout(UNREAD, self.told.send(event)).await.is_ok_and(|told| told.is_ok())
    }

    async fn tell_snapshot(&self) -> bool {
        self.tell("snapshot", &json!({ "policyRevision": &*self.revision })).await
    }

    async fn end(&self, why: &str) {
        self.tell("end", &json!({ "reason": why })).await;
    }
}

/// The next decisions; never, where none are asked for.
async fn next(decisions: &mut Option<Tail>) -> Result<Vec<Event>, Status> {
    match decisions {
        Some(tail) => tail.next().await,
        None => std::future::pending().await,
    }
}

/// Every message of the contract is JSON.
fn one<M: Message + Name>(
    kind: &'static str,
    name: String,
    message: &M,
) -> Option<(&'static str, String, Value)> {
    to_json(message).ok().map(|message| (kind, name, message))
}
