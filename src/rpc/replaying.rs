//! Replays of usage for `PolicyDocumentService.ReplayPolicy`: one task of the core reads rows, a thread of its own plays them.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{
    runtime::Builder,
    sync::{OwnedSemaphorePermit, mpsc},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::{
    answer::{int, money},
    findings::count,
    proto::{ReplayLine, ReplayPolicyResponse, ReplayResult, ReplaySource},
    status::{self, FieldErrors},
};
use crate::{
    authorizer::Failure,
    domain::{Timestamp, key::VirtualKey, policy::Policy},
    replay::{HourlyReplay, ReplayError, Replayed, Row, Spread},
    reports::{PastRow, PastUsage},
    runtime::{Tasks, TemporaryDirectory},
    store::Usage,
};

/// The most requests that are played.
const MAX_REQUESTS: u64 = 10_000_000;
/// The most lines of an answer: half a megabyte, with the longest names.
const MAX_LINES: usize = 1_000;
/// How often a caller is told how far it is.
const TOLD_EVERY: Duration = Duration::from_millis(250);
/// How many requests are played between two looks at the time and at the caller: a few milliseconds.
const LOOK_EVERY: u64 = 64;
/// Answers that wait for the caller to read them. What has no room is not told, but the last.
const ANSWERS: usize = 4;

/// The stream of answers.
pub(super) type Answers = ReceiverStream<Result<ReplayPolicyResponse, Status>>;

/// What is played.
pub(super) struct Play {
    /// The proposed policy.
    pub(super) policy: Policy,
    /// The keys that were created, revoked ones included.
    pub(super) created: Vec<Arc<VirtualKey>>,
    /// When the interval begins and ends.
    pub(super) interval: (Timestamp, Timestamp),
    /// When it is given up.
    pub(super) until: Instant,
    /// The tasks of the core; a replay ends when those are cut off.
    pub(super) tasks: Tasks,
    /// What others wait for.
    pub(super) place: OwnedSemaphorePermit,
}

/// Plays `usage`. The replay ends when the answers are no longer read.
pub(super) fn start<S: Usage>(play: Play, usage: PastUsage<S>) -> Answers {
    let (rows, played) = mpsc::channel(1);
    let (answers, receiver) = mpsc::channel(ANSWERS);
    play.tasks.spawn(read(usage, rows));
    tokio::task::spawn_blocking(move || {
        let (answered, place) = (run(&play, played, &answers), play.place);
        // The next one may begin before the caller has read this.
        drop(place);
        if let Some(last) = answered.transpose() {
            // Its caller may have left.
            let _ = answers.blocking_send(last);
        }
    });
    ReceiverStream::new(receiver)
}

/// Reads rows until there are no more, or nothing plays them any more.
async fn read<S: Usage>(mut usage: PastUsage<S>, rows: mpsc::Sender<Result<Vec<Spread>, Status>>) {
    let mut total = 0_u64;
    loop {
        let piece = match usage.next().await {
            Ok(None) => return,
            Ok(Some(piece)) => {
                total = piece.iter().fold(total, |sum, row| sum.saturating_add(row.amounts.requests));
                match total {
                    0..=MAX_REQUESTS => Ok(piece.into_iter().map(spread).collect()),
                    _ => Err(too_many()),
                }
            }
            Err(error) => Err(status::unanswered(error)),
        };
        let is_last = piece.is_err();
        if rows.send(piece).await.is_err() || is_last {
            return;
        }
    }
}

fn too_many() -> Status {
    let mut errors = FieldErrors::default();
    errors.add("end_date", "more than 10,000,000 requests were made in the interval; ask for a shorter one");
    errors.into_status()
}

fn spread(row: PastRow) -> Spread {
    let PastRow { key, amounts, start, end } = row;
    Spread { key, amounts, start, end }
}

/// Why a replay is given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Late,
    Gone,
    Stopping,
}

/// Plays all rows, on a runtime of its own: the engine is made of tasks. `None`: nothing is left to tell.
fn run(
    play: &Play,
    mut rows: mpsc::Receiver<Result<Vec<Spread>, Status>>,
    answers: &mpsc::Sender<Result<ReplayPolicyResponse, Status>>,
) -> Result<Option<ReplayPolicyResponse>, Status> {
    let failed = |what: &dyn std::fmt::Display| {
        tracing::error!(error = %what, "a policy cannot be replayed");
        status::internal()
    };
    let runtime = Builder::new_current_thread().enable_all().build().map_err(|error| failed(&error))?;
    let directory = TemporaryDirectory::new("replay").map_err(|error| failed(&error))?;
    let engine_failed = |error: ReplayError| match error {
        ReplayError::Engine(failure @ Failure::Store(_)) => failed(&failure),
        error => failed(&error),
    };
    let replayed = runtime.block_on(async {
        let store = directory.path().join("store");
        let (policy, revision) = (play.policy.clone(), Arc::clone(&play.policy.revision));
        let replay = HourlyReplay::open(policy, &play.created, play.interval.0, &store);
        let mut replay = replay.map_err(engine_failed)?;
        let (mut watch, mut end) = (Watch::new(play, answers), None);
        while let Some(piece) = rows.recv().await {
            let continues = |time| {
                end = watch.look(time);
                end.is_none()
            };
            if !replay.play(&piece?, continues).await.map_err(engine_failed)? {
                break;
            }
        }
        match end {
            None => Ok(Some(result(replay.finish(), &revision))),
            Some(End::Gone) => Ok(None),
            Some(End::Late) => Err(status::replay_took_too_long()),
            Some(End::Stopping) => Err(status::shutting_down(super::Effect::None)),
        }
    })?;
    Ok(replayed.map(|result| ReplayPolicyResponse { progress: 1.0, result: Some(result) }))
}

/// Looks whether a replay is to go on, and tells its caller how far it is.
struct Watch<'p> {
    play: &'p Play,
    answers: &'p mpsc::Sender<Result<ReplayPolicyResponse, Status>>,
    count: u64,
    told: Instant,
}

impl<'p> Watch<'p> {
    fn new(play: &'p Play, answers: &'p mpsc::Sender<Result<ReplayPolicyResponse, Status>>) -> Self {
        Self { play, answers, count: 0, told: Instant::now() }
    }

    /// Called before each request, which is made at `time`.
    fn look(&mut self, time: Timestamp) -> Option<End> {
        self.count += 1;
        if self.count % LOOK_EVERY != 1 {
            return None;
        }
        let now = Instant::now();
        if self.answers.is_closed() {
            return Some(End::Gone);
        }
        if self.play.tasks.is_cut() {
            return Some(End::Stopping);
        }
        if now >= self.play.until {
            return Some(End::Late);
        }
        if now.duration_since(self.told) >= TOLD_EVERY {
            self.told = now;
            let (start, end) = self.play.interval;
            let share = Duration::from_millis(time.since(start)).as_secs_f64()
                / Duration::from_millis(end.since(start).max(1)).as_secs_f64();
            let progress = share.clamp(0.0, 1.0);
            // One that is not read in time is of no interest.
            let _ = self.answers.try_send(Ok(ReplayPolicyResponse { progress, result: None }));
        }
        None
    }
}

fn result(replayed: Replayed, revision: &str) -> ReplayResult {
    let lines = replayed.rows.iter().take(MAX_LINES).map(line).collect();
    ReplayResult {
        source: ReplaySource::HourlyUsage.into(),
        decisions: int(replayed.decisions),
        lines,
        saved: Some(money(replayed.saved_nanos)),
        stay_allowed_count: int(replayed.stay_allowed),
        newly_refused_count: int(replayed.newly_refused),
        newly_allowed_count: int(replayed.newly_allowed),
        stay_refused_count: int(replayed.stay_refused),
        unknown_key_count: int(replayed.unknown_keys),
        unbooked_count: int(replayed.unbooked),
        line_count: count(replayed.rows.len()),
        document_revision: revision.to_owned(),
    }
}

fn line(row: &Row) -> ReplayLine {
    let mut group = row.group.iter().cloned();
    ReplayLine {
        team: group.next().unwrap_or_default(),
        limit_id: group.next().unwrap_or_default(),
        refused_count: int(row.refused),
        cost: Some(money(row.cost_nanos)),
        newly_refused_count: int(row.newly_refused),
        shadow_count: int(row.in_shadow),
    }
}
