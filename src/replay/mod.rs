//! Plays recorded decisions to another policy: what it would have refused, and what that would have saved.
//!
//! The real engine decides, on an empty store and under a clock that stands where each line stood. What a replay cannot know is
//! counted and told: a request that was denied and would be allowed has no usage, so its worst case is held until it expires.
//!
//! In memory are the place of each line and the reservations that can still be settled; lines are read as they are played.

mod fates;
mod hourly;
mod outcome;
mod record;

use std::{
    io::{BufRead, Seek},
    path::Path,
    sync::Arc,
};

use thiserror::Error;

use self::{
    fates::{Fate, Fates},
    record::Event,
};
pub use self::{
    hourly::{HourlyReplay, Spread},
    outcome::{By, Replayed, Row},
    record::{ReadError, Recorded},
};
use crate::{
    authorizer::{Authorizer, Bounds, Decided, Failure, LoggedDecision, LoggedSettlement, Question, Shared},
    domain::{
        Timestamp,
        key::{KeyRecord, VirtualKey},
        policy::Policy,
        rbac::TeamScope,
        request::Caller,
        snapshot::Snapshot,
    },
    live::Live,
    runtime::clock::{Clock, ManualClock},
    store::embedded::{EmbeddedStore, OpenError},
};

/// Why recorded decisions could not be replayed.
#[derive(Debug, Error)]
pub enum ReplayError {
    /// The store of the replay.
    #[error(transparent)]
    Store(#[from] OpenError),
    /// The record, read once more.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The engine could not decide or book a line.
    #[error("line {line}: {failure}")]
    Failed {
        /// The line.
        line: u32,
        /// Why.
        failure: Failure,
    },
    /// The engine could not decide or book a request that was made of usage.
    #[error("{0}")]
    Engine(#[from] Failure),
}

struct Replay {
    authorizer: Authorizer<EmbeddedStore>,
    clock: ManualClock,
    /// What decides: nothing is paused, and created keys are as they were before they were revoked.
    snapshot: Arc<Snapshot>,
    fates: Fates,
    result: Replayed,
}

/// Plays `recorded` to `policy`, on an empty store in `directory`; refusals are counted by `by`.
///
/// # Errors
/// If the store cannot be opened, or fails, or the record can no longer be read.
pub async fn replay<R: BufRead + Seek>(
    policy: Policy,
    recorded: Recorded<R>,
    by: Vec<By>,
    directory: &Path,
) -> Result<Replayed, ReplayError> {
    let (mut lines, places, skipped) = recorded.into_parts();
    let start = places.first().map_or(Timestamp(0), |place| place.time);
    let mut replay = Replay::open(policy, &[], Replayed::new(by, skipped), (start, directory))?;
    for place in places {
        replay.clock.set(place.time);
        let played = match lines.read(place)? {
            Event::Decided(decision) => replay.decide(*decision).await,
            Event::Settled(settlement) => replay.settle(*settlement).await,
        };
        played.map_err(|failure| ReplayError::Failed { line: place.line, failure })?;
    }
    Ok(replay.result.finished())
}

impl Replay {
    /// By `policy` and the created keys of `created`, from `start` on, on an empty store in `directory`.
    fn open(
        policy: Policy,
        created: &[Arc<VirtualKey>],
        result: Replayed,
        (start, directory): (Timestamp, &Path),
    ) -> Result<Self, OpenError> {
        let clock = ManualClock::new(start);
        let store = EmbeddedStore::open_scratch(directory, Clock::Manual(clock.clone()))?;
        let policy = Arc::new(policy);
        let mut snapshot = Snapshot { is_pending: false, ..Snapshot::pending(Arc::clone(&policy)) };
        for key in created.iter().filter_map(|key| without_end(key)) {
            snapshot.keys.replace(None, Some(&Arc::new(key)));
        }
        let shared = Arc::new(Shared::new(Arc::new(Live::new(policy))));
        let authorizer = Authorizer::new(store, Clock::Manual(clock.clone()).into(), shared);
        Ok(Self { authorizer, clock, snapshot: Arc::new(snapshot), fates: Fates::default(), result })
    }

    async fn decide(&mut self, logged: LoggedDecision) -> Result<(), Failure> {
        let LoggedDecision { time, key, reasons, is_extra, reservation_id, reserved_nanos, request } = logged;
        let Some(request) = request.filter(|_| !is_extra && !reasons.iter().any(|of| is_of_no_policy(of)))
        else {
            self.result.skipped += 1;
            return Ok(());
        };
        let (snapshot, fresh) = (Arc::clone(&self.snapshot), Ok(()));
        let Caller::Team(team) = &request.caller else { return Ok(()) };
        let caller = snapshot.resolve_names(team, &key);
        if !key.is_empty() && caller.as_ref().is_ok_and(|caller| caller.key.is_none()) {
            self.result.unknown_key(&key);
        }
        let question = Question { request: &request, snapshot: &snapshot, caller: &caller, fresh: &fresh };
        let (Decided { outcome, shadow_violations, .. }, check) =
            self.authorizer.authorize(question, None).await?;
        let was_allowed = reasons.is_empty();
        let facts = (team.as_str(), request.model.as_str());
        self.result.shadow(facts, &shadow_violations);
        let fate = match outcome {
            Ok(allowed) => {
                check.delivered();
                self.result.allowed(was_allowed);
                let id = allowed.reservation.and_then(|(id, _)| id.parse().ok());
                id.map(Fate::Reserved)
            }
            Err(violations) => {
                let rows = self.result.refused(facts, was_allowed, &violations, reserved_nanos);
                Some(Fate::Refused { rows, reserved_nanos })
            }
        };
        if let Some((id, fate)) = reservation_id.zip(fate) {
            self.fates.insert((id, fate), time, &request);
        }
        Ok(())
    }

    async fn settle(&mut self, logged: LoggedSettlement) -> Result<(), Failure> {
        let LoggedSettlement { reservation_id, subject, outcome, usage, cost_nanos, key, .. } = logged;
        if logged.is_repeat {
            return Ok(());
        }
        match self.fates.take(&reservation_id) {
            // Its usage may still be reported, if another replica gave the answer to a repeat of the request.
            Some((fate, until)) if logged.is_release => {
                let (released, booked) = match fate {
                    Fate::Reserved(id) | Fate::Released(id) => {
                        let booked = self.authorizer.settle(id, None, outcome, 0, &TeamScope::All).await;
                        (Fate::Released(id), booked.map(|_| ()))
                    }
                    Fate::Refused { rows, reserved_nanos } => {
                        self.result.settled(&rows, cost_nanos, reserved_nanos);
                        (Fate::Refused { rows, reserved_nanos: 0 }, Ok(()))
                    }
                };
                self.fates.put_back(reservation_id, released, until);
                self.note(booked)
            }
            Some((Fate::Reserved(id), _)) => {
                let booked = self.authorizer.settle(id, usage, outcome, 0, &TeamScope::All).await;
                self.note(booked.map(|_| ()))
            }
            Some((Fate::Released(id), _)) => {
                let booked = self.authorizer.settle_released(id, usage, outcome).await;
                self.note(booked.map(|_| ()))
            }
            Some((Fate::Refused { rows, reserved_nanos }, _)) => {
                self.result.settled(&rows, cost_nanos, reserved_nanos);
                Ok(())
            }
            None if logged.is_unreserved => {
                let snapshot = Arc::clone(&self.snapshot);
                let Caller::Team(team) = &subject.caller else { return Ok(()) };
                let caller = snapshot.resolve_names(team, &key);
                let booked = self
                    .authorizer
                    .settle_unreserved((&snapshot, &caller), &subject, usage, outcome, 0, Bounds::None)
                    .await;
                self.note(booked.map(|_| ()))
            }
            None => {
                self.result.unmatched += 1;
                Ok(())
            }
        }
    }

    /// Counts what the policy cannot book, such as tools without a price; only a store that fails ends the replay.
    fn note(&mut self, booked: Result<(), Failure>) -> Result<(), Failure> {
        match booked {
            Err(failure @ Failure::Store(_)) => Err(failure),
            Err(_) => {
                self.result.unbooked += 1;
                Ok(())
            }
            Ok(()) => Ok(()),
        }
    }
}

/// A created key as it was before it was revoked, and without secrets: what it did is on record.
fn without_end(key: &VirtualKey) -> Option<VirtualKey> {
    let stored = key.stored.as_ref()?;
    let record =
        KeyRecord { revoked_at: None, expires_at: None, secrets: Vec::new(), ..(*stored.record).clone() };
    Some(VirtualKey::created(stored.version, Arc::new(record)))
}

/// Whether a denial came of what no policy document decides: of a key or a pause at that time, of Groq, or of the store.
fn is_of_no_policy(reason: &str) -> bool {
    use crate::domain::decision::Reason;
    [
        Reason::InvalidKey,
        Reason::KeyRevoked,
        Reason::KeyExpired,
        Reason::Paused,
        Reason::UpstreamRateLimited,
        Reason::StoreUnavailable,
        Reason::OutageAllowanceExhausted,
    ]
    .iter()
    .any(|of| of.name() == reason)
}
