//! `ReportService.StreamDecisions`: decisions as they are made, for as long as the caller wants and may see them.

use std::{
    pin::Pin,
    sync::Arc,
    time::{Duration, Instant},
};

use prost::Message as _;
use tokio::{
    sync::mpsc,
    time::{sleep_until, timeout_at},
};
use tokio_stream::{Stream, wrappers::ReceiverStream};
use tonic::{Request, Response, Status};

use super::{
    access::{self, Again},
    deadline, decision_event,
    parse::{self, DecisionFilter},
    proto::{StreamDecisionsRequest, StreamDecisionsResponse},
    status,
};
use crate::{
    access::Guard,
    authorizer::{DecisionFeed, DecisionStream, FeedPage, NotWatched},
    domain::rbac::{Permission, TeamScope},
};

/// Its path.
const PATH: &str = "/tollgate.v1.ReportService/StreamDecisions";
/// What it needs.
const PERMISSION: Permission = Permission::ReadDecisions;
/// The least time between two messages: at most 4 a second.
const PAUSE: Duration = Duration::from_millis(250);
/// How many messages follow each other at once when a stream begins: what is kept is told in them. The next one comes a second later.
const AT_ONCE: u32 = 4;
/// How often it is looked at whether the caller still may see what it sees.
const JUDGED_EVERY: Duration = Duration::from_secs(2);
/// The most decisions that are looked at for one message.
const MAX_EVENTS: usize = 250;
/// The bytes of decisions past which another message begins. Clients take 4 MiB.
const MAX_BYTES: usize = 512 << 10;

/// The messages of a stream.
pub(super) type Watched = Pin<Box<dyn Stream<Item = Result<StreamDecisionsResponse, Status>> + Send>>;

/// Lets callers watch decisions.
#[derive(Clone, Debug)]
pub struct DecisionWatch {
    feed: Arc<DecisionFeed>,
    guard: Guard,
}

impl DecisionWatch {
    /// Shows what comes by `feed` to callers that `guard` lets through.
    #[must_use]
    pub const fn new(feed: Arc<DecisionFeed>, guard: Guard) -> Self {
        Self { feed, guard }
    }

    pub(super) async fn open(
        &self,
        request: Request<StreamDecisionsRequest>,
    ) -> Result<Response<Watched>, Status> {
        let scope = access::session(request.extensions()).scope(PERMISSION).map_err(access::status)?;
        let again = Again::of(&request, &self.guard, PATH);
        let until = deadline::of(request.metadata());
        let (filter, after) = parse::decisions(request.into_inner())?;
        let view = View { filter, scope };
        view.check()?;
        let stream = self.feed.watch(after).await.map_err(|ended| status::not_watched(&ended))?;
        // The next message is made when the one before is on its way: a slow reader misses decisions, and is told how many.
        let (messages, receiver) = mpsc::channel(1);
        tokio::spawn(async move {
            tokio::select! {
                ended = show(stream, view, again, until, &messages) => {
                    if let Err(status) = ended {
                        // If there is no one left to tell, it is over as well.
                        let _ = messages.send(Err(status)).await;
                    }
                }
                () = messages.closed() => {}
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }
}

/// What a caller sees of all decisions.
struct View {
    filter: DecisionFilter,
    scope: TeamScope,
}

/// Sends messages until something ends it. The channel has one sender, this task, and one receiver, the call.
async fn show(
    mut stream: DecisionStream,
    mut view: View,
    again: Option<Again>,
    until: Option<Instant>,
    messages: &mpsc::Sender<Result<StreamDecisionsResponse, Status>>,
) -> Result<(), Status> {
    let mut judged = Instant::now();
    let mut sent = 0_u32;
    loop {
        let due = judged + JUDGED_EVERY;
        let end = until.map_or(due, |until| until.min(due));
        let page = timeout_at(end.into(), stream.next(MAX_EVENTS)).await;
        let now = Instant::now();
        if until.is_some_and(|until| until <= now) {
            return Err(status::deadline_exceeded());
        }
        if due <= now {
            if let Some(again) = &again {
                view.scope = again.scope(PERMISSION).await.map_err(access::status)?;
                view.check()?;
            }
            judged = Instant::now();
        }
        let Ok(page) = page else { continue };
        for message in view.messages(&page.map_err(|ended: NotWatched| status::not_watched(&ended))?) {
            sent = sent.saturating_add(1);
            let next = Instant::now() + pause(sent);
            if messages.send(Ok(message)).await.is_err() {
                return Ok(());
            }
            sleep_until(next.into()).await;
        }
    }
}

/// The least time after a message of this number, from 1.
const fn pause(number: u32) -> Duration {
    match number {
        ..AT_ONCE => Duration::ZERO,
        AT_ONCE => PAUSE.saturating_mul(AT_ONCE),
        _ => PAUSE,
    }
}

impl View {
    /// Refuses a team that is asked for and is none of the caller's.
    fn check(&self) -> Result<(), Status> {
        self.filter.teams.iter().try_for_each(|team| access::within(&self.scope, team, PERMISSION))
    }

    /// What to tell of `page`: nothing, a message, or more where they would be too long.
    fn messages(&self, page: &FeedPage) -> Vec<StreamDecisionsResponse> {
        let Self { filter, scope } = self;
        let skipped = page.events.iter().flat_map(|event| &event.skipped);
        let skipped = skipped.filter(|(team, _)| filter.is_of(team, scope)).map(|(_, count)| *count);
        let missed = if filter.is_of_all(scope) { page.missed } else { page.missed.min(1) };
        let skipped = skipped.fold(missed, u64::saturating_add);
        let mut messages = Vec::new();
        let mut message = StreamDecisionsResponse {
            skipped_count: i64::try_from(skipped).unwrap_or(i64::MAX),
            ..StreamDecisionsResponse::default()
        };
        let mut length = 0;
        for event in page.events.iter().filter(|event| filter.takes(event, scope)) {
            let event = decision_event::shown(event);
            length += event.encoded_len();
            if length > MAX_BYTES && !message.events.is_empty() {
                length = event.encoded_len();
                messages.push(std::mem::take(&mut message));
            }
            message.events.push(event);
        }
        if !message.events.is_empty() || message.skipped_count > 0 {
            messages.push(message);
        }
        messages
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{authorizer::FeedEvent, rpc::decision_event::tests::event};

    fn with(skipped: &[(&str, u64)], event: FeedEvent) -> Arc<FeedEvent> {
        let skipped = skipped.iter().map(|(team, count)| (Arc::from(*team), *count)).collect();
        Arc::new(FeedEvent { skipped, ..event })
    }

    fn filter(teams: &[&str]) -> DecisionFilter {
        let teams = teams.iter().map(|team| (*team).to_owned()).collect();
        parse::decisions(StreamDecisionsRequest { teams, ..Default::default() }).unwrap().0
    }

    /// How many events each message has, and the first count.
    fn told(view: &View, page: &FeedPage) -> (Vec<usize>, i64) {
        let messages = view.messages(page);
        let first = messages.first().map_or(0, |message| message.skipped_count);
        assert!(messages.iter().skip(1).all(|message| message.skipped_count == 0));
        (messages.iter().map(|message| message.events.len()).collect(), first)
    }

    #[test]
    fn what_is_left_out_of_other_teams_is_not_told() {
        let own = TeamScope::Teams(Arc::new(["bot".into()].into()));
        let view = |scope: &TeamScope, teams: &[&str]| View { filter: filter(teams), scope: scope.clone() };
        let events = vec![
            with(&[("bot", 2), ("lab", 30), ("", 400)], event("lab", "", "m", &[])),
            with(&[("bot", 1)], event("bot", "", "m", &["paused"])),
        ];
        let page = FeedPage { events, missed: 5_000 };
        assert_eq!(told(&view(&TeamScope::All, &[]), &page), (vec![2], 5_433));
        assert_eq!(told(&view(&own, &[]), &page), (vec![1], 4));
        assert_eq!(told(&view(&TeamScope::All, &["lab"]), &page), (vec![1], 31));
        let page = FeedPage { missed: 0, ..page };
        assert_eq!(told(&view(&TeamScope::All, &["none"]), &page), (vec![], 0));
        let page = FeedPage { events: vec![with(&[("bot", 9)], event("lab", "", "m", &[]))], missed: 0 };
        assert_eq!(told(&view(&own, &[]), &page), (vec![0], 9), "a count without a decision is told");
    }

    /// No second, wherever it begins, has more than four messages.
    #[test]
    fn four_messages_come_at_once_and_never_more_in_a_second() {
        let mut at = Duration::ZERO;
        let times: Vec<_> = (1..20)
            .map(|number| {
                let sent = at;
                at += pause(number);
                sent
            })
            .collect();
        assert_eq!(times[..5], [0, 0, 0, 0, 1_000].map(Duration::from_millis));
        for from in &times {
            let until = *from + Duration::from_secs(1);
            let within = times.iter().filter(|at| (*from..until).contains(*at));
            assert!(within.count() <= 4, "{times:?}");
        }
    }

    #[test]
    fn a_message_has_a_bound() {
        let long = event("bot", "", &"m".repeat(100 << 10), &[]);
        let long = Arc::new(long);
        let page = FeedPage { events: vec![long; 12], missed: 3 };
        let view = View { filter: filter(&[]), scope: TeamScope::All };
        assert_eq!(told(&view, &page), (vec![5, 5, 2], 3));
    }
}
