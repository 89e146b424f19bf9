//! Waiting for room: first come first served within a team.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::sync::{Notify, OwnedMutexGuard, watch};

use super::{Authorizer, Decided, Failure, PendingCheck};
use crate::{
    domain::{
        decision::Retry,
        explain,
        permit::Who,
        request::{AuthorizeRequest, Caller},
    },
    store::{Store, clock::Monotonic},
};

/// How often the head of a queue asks again although nothing told it to: room may be made through another replica, and
/// only the store knows.
const POLL: Duration = Duration::from_millis(100);

/// Requests that wait, by team.
///
/// A team's *turn* is a fair lock: who holds it is the head of the team's queue and the only one of its waiters to ask the
/// store. `settled` wakes all heads when a reservation is settled in this process. A turn is dropped from the map by the
/// last one to leave it. `closed` only ever turns true, which ends every wait, present and future.
#[derive(Debug, Default)]
pub struct Queue {
    turns: Mutex<HashMap<Arc<str>, Arc<tokio::sync::Mutex<()>>>>,
    heads: AtomicUsize,
    settled: Notify,
    closed: watch::Sender<bool>,
}

impl Queue {
    /// Tells the waiting that a reservation was settled.
    pub fn settled(&self) {
        if self.heads.load(Ordering::Relaxed) > 0 {
            self.settled.notify_waiters();
        }
    }

    /// Lets nobody wait any more: whoever waits is decided at once.
    pub fn close(&self) {
        self.closed.send_replace(true);
    }

    fn is_closed(&self) -> bool {
        *self.closed.borrow()
    }

    async fn closing(&self) {
        // The sender is held by `self`, so the channel cannot close before it says so.
        let _ = self.closed.subscribe().wait_for(|closed| *closed).await;
    }

    fn turn(&self, team: &Arc<str>) -> Arc<tokio::sync::Mutex<()>> {
        let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
        turns.entry(team.clone()).or_default().clone()
    }

    fn leave(&self, team: &Arc<str>, turn: Arc<tokio::sync::Mutex<()>>) {
        let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
        drop(turn);
        if turns.get(team).is_some_and(|turn| Arc::strong_count(turn) == 1) {
            turns.remove(team);
        }
    }
}

/// Takes its place in the team's queue; gives it up when dropped, so a cancelled call leaves nothing behind.
struct Place<'q> {
    queue: &'q Queue,
    team: Arc<str>,
    turn: Option<Arc<tokio::sync::Mutex<()>>>,
}

impl<'q> Place<'q> {
    fn take(queue: &'q Queue, team: Arc<str>) -> Self {
        let turn = Some(queue.turn(&team));
        Self { queue, team, turn }
    }

    async fn head(&self) -> Option<Head<'q>> {
        let guard = Arc::clone(self.turn.as_ref()?).lock_owned().await;
        self.queue.heads.fetch_add(1, Ordering::Relaxed);
        Some(Head { queue: self.queue, _turn: guard })
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        if let Some(turn) = self.turn.take() {
            self.queue.leave(&self.team, turn);
        }
    }
}

/// The head of a team's queue, until dropped.
struct Head<'q> {
    queue: &'q Queue,
    _turn: OwnedMutexGuard<()>,
}

impl Drop for Head<'_> {
    fn drop(&mut self) {
        self.queue.heads.fetch_sub(1, Ordering::Relaxed);
    }
}

impl<S: Store + Clone> Authorizer<S> {
    /// Decides when the request fits, or when `max_wait` is over; each team's requests in the order they came.
    pub(super) async fn decide_in_turn(
        &self,
        request: &AuthorizeRequest,
        check: &PendingCheck<S>,
    ) -> Result<Decided, Failure> {
        let deadline = self.clock.monotonic().plus(Duration::from_millis(request.max_wait_ms));
        let Some(team) = self.team_of(&request.caller) else { return self.decide(request, check).await };
        let place = Place::take(&self.shared.queue, team);
        let head = tokio::select! {
            biased;
            head = place.head() => head,
            () = self.clock.sleep_until(deadline) => None,
            () = self.shared.queue.closing() => None,
        };
        let Some(_head) = head else { return self.decide(request, check).await };
        loop {
            // Made before the question is put, so that what is settled in between is not missed.
            let settled = self.shared.queue.settled.notified();
            let decided = self.decide(request, check).await?;
            let now = self.clock.monotonic();
            let Some(again_at) = worth_waiting(&decided, now, deadline) else { return Ok(decided) };
            if self.shared.queue.is_closed() {
                return Ok(decided);
            }
            tokio::select! {
                () = settled => {}
                () = self.shared.queue.closing() => {}
                () = self.clock.sleep_until(again_at) => {}
                () = tokio::time::sleep(POLL) => {}
            }
        }
    }

    pub(super) fn team_of(&self, caller: &Caller) -> Option<Arc<str>> {
        let policy = self.shared.policy.load();
        Who::find(&policy, caller, self.store.now()).ok().map(|who| who.team.name.clone())
    }
}

/// When to ask again: when the decision says, or when the wait is over. `None` where the decision is final.
fn worth_waiting(decided: &Decided, now: Monotonic, deadline: Monotonic) -> Option<Monotonic> {
    let Err(violations) = &decided.outcome else { return None };
    match explain::retry(violations) {
        Retry::After(ms) if now < deadline => Some(now.plus(Duration::from_millis(ms)).min(deadline)),
        _ => None,
    }
}
