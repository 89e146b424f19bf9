//! Plays requests in order of time: everything that happens at one instant is sent at once, and time moves on when all of it
//! is answered.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use tokio::task::JoinSet;
use tonic::{Code, Status};

use super::{
    ledger::Ledger,
    traffic::{Ending, Job, Repeat},
};
use crate::{
    cli::{
        client::{self, Client},
        screen::Failure,
    },
    rpc::proto,
};

/// How often a call is sent before the run gives up. Every call is safe to repeat.
const ATTEMPTS: u32 = 20;
/// How long to wait before a call is sent again.
const PAUSE: Duration = Duration::from_millis(250);

/// A request that was allowed and is in flight.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) job: Job,
    pub(super) reservation: String,
    pub(super) granted: u64,
    pub(super) reserved_cost: i128,
    /// Its admission lies between these.
    pub(super) admitted: (u64, u64),
}

/// What happens at an instant.
pub(super) enum Event {
    /// A request is made.
    Arrives(Box<Job>),
    /// A request has ended.
    Ends(Box<Held>),
}

/// The outcome of an event.
pub(super) enum Played {
    /// The answers to one request for a decision.
    Decided(Box<Job>, Vec<proto::AuthorizeResponse>, (u64, u64)),
    /// The answers to one report.
    Recorded(Box<Held>, Vec<proto::RecordUsageResponse>),
    /// The answers to one report of usage without a decision; `None` if it has no price.
    Unasked(Box<Job>, Option<Vec<proto::RecordUsageResponse>>),
}

/// The time: simulated, or measured.
pub(super) trait Time: Send + Sync + 'static {
    /// Milliseconds.
    fn now(&self) -> u64;
    /// Sets it to `at`, if it can be set.
    fn set(&self, at: u64);
}

/// Events in the order of time.
pub(super) struct Stage {
    clients: Vec<Client>,
    events: BTreeMap<u64, Vec<Event>>,
    next_client: usize,
}

impl Stage {
    pub(super) const fn new(clients: Vec<Client>) -> Self {
        Self { clients, events: BTreeMap::new(), next_client: 0 }
    }

    /// Plans an event.
    pub(super) fn plan(&mut self, at: u64, event: Event) {
        self.events.entry(at).or_default().push(event);
    }

    /// The instant of the next events.
    pub(super) fn next_at(&self) -> Option<u64> {
        self.events.keys().next().copied()
    }

    /// Plays the events of the next instant.
    pub(super) async fn step<T: Time>(&mut self, time: &Arc<T>, ledger: &mut Ledger) -> Result<(), Failure> {
        let Some((at, events)) = self.events.pop_first() else { return Ok(()) };
        time.set(at);
        let mut playing = JoinSet::new();
        for event in events {
            if let Event::Ends(held) = &event {
                ledger.leaves(held);
            }
            let Some(client) = self.client() else { break };
            playing.spawn(play(client, event, Arc::clone(time)));
        }
        let mut all = Vec::new();
        while let Some(played) = playing.join_next().await {
            let played = played.map_err(|error| Failure::new(format!("a call was cut off: {error}")))?;
            all.push(played.map_err(|status| client::explain(&status))?);
        }
        for played in all {
            if let Some(held) = ledger.enter(played) {
                self.plan(at + held.job.lasts_ms, Event::Ends(Box::new(held)));
            }
        }
        Ok(())
    }

    /// The connections in turn, so that every core of the service takes part.
    fn client(&mut self) -> Option<Client> {
        self.next_client = (self.next_client + 1) % self.clients.len().max(1);
        self.clients.get(self.next_client).cloned()
    }
}

async fn play<T: Time>(client: Client, event: Event, time: Arc<T>) -> Result<Played, Status> {
    match event {
        Event::Arrives(job) if job.ending == Ending::Unasked => {
            let report = job.report("", job.size.max_output_tokens);
            match record(client, &job, report).await {
                Ok(answers) => Ok(Played::Unasked(job, Some(answers))),
                Err(status) if status.code() == Code::FailedPrecondition => Ok(Played::Unasked(job, None)),
                Err(status) => Err(status),
            }
        }
        Event::Arrives(job) => {
            let from = time.now();
            let ask = || authorize(client.clone(), job.request.clone());
            let answers = match job.repeat {
                Repeat::Never | Repeat::WhenSettled => vec![ask().await?],
                Repeat::Afterwards => vec![ask().await?, ask().await?],
                Repeat::AtOnce => {
                    let (one, other) = tokio::join!(ask(), ask());
                    vec![one?, other?]
                }
            };
            Ok(Played::Decided(job, answers, (from, time.now())))
        }
        Event::Ends(held) => {
            let report = held.job.report(&held.reservation, held.granted);
            let mut answers = record(client.clone(), &held.job, report.clone()).await?;
            if held.job.repeat == Repeat::WhenSettled {
                // This is refused, as the id belongs to a request that is over. If it were taken, the final reservations would
                // show it.
                match authorize(client.clone(), held.job.request.clone()).await {
                    Err(status) if status.code() == Code::AlreadyExists => {}
                    other => drop(other?),
                }
                answers.extend(record(client, &held.job, report).await?);
            }
            Ok(Played::Recorded(held, answers))
        }
    }
}

async fn record(
    client: Client,
    job: &Job,
    report: proto::RecordUsageRequest,
) -> Result<Vec<proto::RecordUsageResponse>, Status> {
    let times = if job.record_twice { 2 } else { 1 };
    let mut answers = Vec::with_capacity(times);
    for _ in 0..times {
        let call = || {
            let (mut client, report) = (client.clone(), report.clone());
            async move { client.record_usage(report).await }
        };
        answers.push(patiently(call).await?);
    }
    Ok(answers)
}

async fn authorize(
    client: Client,
    request: proto::AuthorizeRequest,
) -> Result<proto::AuthorizeResponse, Status> {
    let call = || {
        let (mut client, request) = (client.clone(), request.clone());
        async move { client.authorize(request).await }
    };
    patiently(call).await
}

/// Sends a call again while the service cannot answer.
async fn patiently<T, F>(call: impl Fn() -> F) -> Result<T, Status>
where
    F: Future<Output = Result<tonic::Response<T>, Status>>,
{
    let mut attempt = 1;
    loop {
        match call().await {
            Ok(response) => return Ok(response.into_inner()),
            Err(status) if attempt < ATTEMPTS && passes(status.code()) => {
                attempt += 1;
                tokio::time::sleep(PAUSE).await;
            }
            Err(status) => return Err(status),
        }
    }
}

/// Whether the failure may pass. A call that was cut off may have taken effect; its repeat shows whether it did.
const fn passes(code: Code) -> bool {
    matches!(code, Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled)
}
