//! The wait of one request.

use std::{sync::Arc, time::Duration};

use super::{
    OUTAGE, Obstacle, Place, Turn, Until,
    lines::{Chance, Next},
};
use crate::{
    authorizer::{Authorizer, Decided, Failure, PendingCheck, Question, View, overtaken::has_moved},
    domain::{counter::CounterKey, decision::Retry, explain},
    runtime::clock::Monotonic,
    store::{Store, StoreError},
};

/// How soon the head of a line asks again after the store gave no answer: often enough to continue right after an outage.
const AFTER_FAILURE: Duration = Duration::from_millis(100);
/// The warning for a request with `max_wait` that was decided at once.
const TOO_MANY_WAIT: &str = "max_wait was ignored: too many requests of this team or of all teams wait";

/// How a wait ended.
enum Woken {
    /// It may ask; the question was drawn from the pace, or is free.
    Asks { paced: bool },
    /// The wait is over.
    Over,
}

/// The store's last answer to a request, and when it came.
struct Last {
    decided: Result<Decided, Failure>,
    at: Monotonic,
}

impl<S: Store + Clone> Authorizer<S> {
    /// Decides when the request fits, or at the `deadline` that `max_wait` sets; at each limit in order of arrival.
    pub(in crate::authorizer) async fn decide_in_turn(
        &self,
        question: Question<'_>,
        check: &PendingCheck<S>,
        deadline: Monotonic,
    ) -> Result<Decided, Failure> {
        let mut place = self.shared.queue.enter(deadline);
        let mut paced = false;
        let mut revision = Arc::clone(&question.snapshot.revision);
        let mut decided = self.decide(question, check, place.turn).await;
        loop {
            let last = Last { decided, at: self.clock.monotonic() };
            if paced && last.is_granted() {
                self.shared.queue.pace.put_back();
            }
            let Some(obstacle) = last.obstacle().filter(|_| !self.goes_without(question, &last)) else {
                place.passed = last.is_granted();
                return last.decided;
            };
            if place.team.is_none() {
                place.team = question.caller.as_ref().ok().map(|caller| Arc::clone(&caller.team.name));
            }
            if !place.stand(obstacle) {
                return last.decided.map(|mut decided| {
                    decided.warnings.push(TOO_MANY_WAIT.to_owned());
                    decided
                });
            }
            self.watch_lines();
            // What is in force may have changed after the decision and before the request stood in line, where the watch would not
            // tell it.
            if !Arc::ptr_eq(&revision, &self.shared.live.peek().revision) {
                place.offer_chance();
            }
            match self.turn_of(&mut place, &last, deadline).await {
                Woken::Over => {
                    let decided = self.last_word((question, check), &mut place, last).await;
                    return self.unless_cut(decided, deadline);
                }
                Woken::Asks { paced: drawn } => paced = drawn,
            }
            place.asks();
            (decided, revision) = self.decide_again(question, check, place.turn).await;
        }
    }

    /// Whether the request needs no wait, as it is decided without the store.
    fn goes_without(&self, question: Question<'_>, last: &Last) -> bool {
        last.decided.as_ref().is_err_and(|failure| self.degrades(question.caller, failure))
    }

    /// Decides by what is in force now, and returns its revision: a pause, a revocation or a new limit takes effect while its
    /// request waits.
    async fn decide_again(
        &self,
        question: Question<'_>,
        check: &PendingCheck<S>,
        turn: Turn,
    ) -> (Result<Decided, Failure>, Arc<str>) {
        let request = question.request;
        let View { snapshot, fresh } = self.view(check.until).await;
        let caller = snapshot.resolve(&request.caller);
        let current = Question { request, snapshot: &snapshot, caller: &caller, fresh: &fresh };
        let decided = match has_moved(question.caller, &caller) {
            true => Err(Failure::KeyMoved),
            false => self.decide(current, check, turn).await,
        };
        (decided, Arc::clone(&snapshot.revision))
    }

    /// Waits until it is the request's turn to ask, or the wait is over.
    async fn turn_of(&self, place: &mut Place<'_>, last: &Last, deadline: Monotonic) -> Woken {
        let queue = &self.shared.queue;
        let woken = Arc::clone(&place.woken);
        let mut over = std::pin::pin!(async {
            tokio::select! {
                biased;
                () = self.clock.sleep_until(deadline) => {}
                () = queue.closing() => {}
            }
        });
        loop {
            let chance = match place.next() {
                Next::Ask(chance) => chance,
                Next::Wait => {
                    tokio::select! {
                        biased;
                        () = &mut over => return Woken::Over,
                        () = woken.notified() => continue,
                    }
                }
                // By real time, because outages last in real time.
                Next::AskAgain => {
                    tokio::select! {
                        biased;
                        () = &mut over => return Woken::Over,
                        () = woken.notified() => continue,
                        () = tokio::time::sleep(AFTER_FAILURE) => Chance::Paced,
                    }
                }
                Next::AskAt(at) => {
                    tokio::select! {
                        biased;
                        () = &mut over => return Woken::Over,
                        () = woken.notified() => continue,
                        () = self.clock.sleep_until(at) => Chance::Paced,
                    }
                }
            };
            if let Ok(Decided { blocked: Some(blocked), .. }) = &last.decided
                && place.falls_behind(blocked)
            {
                continue;
            }
            if chance == Chance::Free {
                return Woken::Asks { paced: false };
            }
            tokio::select! {
                biased;
                () = &mut over => return Woken::Over,
                () = queue.pace.draw() => return Woken::Asks { paced: true },
            }
        }
    }

    /// The answer when the wait is over: by a last question if the pace permits one, otherwise by what is known. Many waits
    /// may end at once, and their questions would hold up requests that do not wait.
    async fn last_word(
        &self,
        (question, check): (Question<'_>, &PendingCheck<S>),
        place: &mut Place<'_>,
        last: Last,
    ) -> Result<Decided, Failure> {
        if self.shared.queue.pace.draw_now() {
            let (decided, _) = self.decide_again(question, check, place.turn).await;
            place.passed = decided.as_ref().is_ok_and(|decided| decided.outcome.is_ok());
            if place.passed {
                self.shared.queue.pace.put_back();
            }
            return decided;
        }
        let now = self.clock.monotonic();
        let (frees_at, fails) = place.outlook();
        if fails {
            return Err(StoreError::Unavailable.into());
        }
        let passed = millis(now.since(last.at));
        let mut decided = last.decided?;
        for violation in decided.outcome.as_mut().err().into_iter().flatten() {
            explain::after(violation, passed, frees_at.map_or(0, |at| millis(at.since(now))));
        }
        decided.limits.pass(passed);
        Ok(decided)
    }

    /// The last word, unless only the end of this service keeps the request from waiting on: at another replica it can.
    fn unless_cut(&self, decided: Result<Decided, Failure>, deadline: Monotonic) -> Result<Decided, Failure> {
        let last = Last { decided, at: self.clock.monotonic() };
        let would_wait = last.at < deadline && last.obstacle().is_some();
        if would_wait && self.shared.queue.is_closed() { Err(Failure::ShuttingDown) } else { last.decided }
    }
}

impl Last {
    fn is_granted(&self) -> bool {
        self.decided.as_ref().is_ok_and(|decided| decided.outcome.is_ok())
    }

    /// What blocks the request; `None` if waiting cannot help, or is over.
    fn obstacle(&self) -> Option<Obstacle> {
        match &self.decided {
            Ok(Decided { outcome: Err(violations), blocked: Some(blocked), .. }) => {
                let Retry::After(ms) = explain::retry(violations) else { return None };
                let frees_at = Some(self.at.plus(Duration::from_millis(ms)));
                Some(Obstacle { counter: blocked.by.clone(), until: blocked.until, frees_at })
            }
            Err(
                Failure::Store(StoreError::Unavailable | StoreError::Overloaded) | Failure::SnapshotStale,
            ) => {
                let frees_at = Some(self.at.plus(AFTER_FAILURE));
                Some(Obstacle { counter: CounterKey::new(OUTAGE), until: Until::Answered, frees_at })
            }
            _ => None,
        }
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
