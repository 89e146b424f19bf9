//! The wait of one request.

use std::time::Duration;

use tokio::time::Instant;

use super::{
    Place, Turn,
    lines::{Chance, Next},
};
use crate::{
    authorizer::{Authorizer, Decided, Failure, PendingCheck},
    domain::{counter::CounterKey, decision::Retry, explain, request::AuthorizeRequest},
    store::{Store, StoreError, clock::Monotonic},
};

/// How soon the head of a line asks again after the store gave no answer: often enough to go on right after an outage.
const AFTER_FAILURE: Duration = Duration::from_millis(100);
/// The line of those that came during an outage and have not been decided yet. No counter has this name.
const OUTAGE: &str = "\0outage";

/// How a wait ended.
enum Woken {
    /// It may ask; the question was drawn from the pace, or is free.
    Asks { paced: bool },
    /// The wait is over.
    Over,
}

/// The last answer of the store to a request, and when it came.
struct Last {
    decided: Result<Decided, Failure>,
    at: Monotonic,
}

impl<S: Store + Clone> Authorizer<S> {
    /// Decides when the request fits, or at the `deadline` that `max_wait` sets; at each limit in the order in which requests came.
    pub(in crate::authorizer) async fn decide_in_turn(
        &self,
        request: &AuthorizeRequest,
        check: &PendingCheck<S>,
        deadline: Monotonic,
    ) -> Result<Decided, Failure> {
        let Some(mut place) = self.shared.queue.enter() else {
            return self.decide(request, check, Turn::LAST).await;
        };
        let mut paced = false;
        loop {
            let decided = self.decide(request, check, place.turn).await;
            let last = Last { decided, at: self.clock.monotonic() };
            if paced && last.is_granted() {
                self.shared.queue.pace.put_back();
            }
            if !last.stands_in(&mut place) {
                place.passed = last.is_granted();
                return last.decided;
            }
            match self.turn_of(&mut place, &last, deadline).await {
                Woken::Over => return self.last_word((request, check), &mut place, last).await,
                Woken::Asks { paced: drawn } => paced = drawn,
            }
            place.asks();
        }
    }

    /// Waits until it is the request's turn to ask, or the wait is over.
    async fn turn_of(&self, place: &mut Place<'_>, last: &Last, deadline: Monotonic) -> Woken {
        let queue = &self.shared.queue;
        let woken = std::sync::Arc::clone(&place.woken);
        let mut over = std::pin::pin!(async {
            tokio::select! {
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
                Next::AskAt(at, poll) => {
                    tokio::select! {
                        biased;
                        () = &mut over => return Woken::Over,
                        () = woken.notified() => continue,
                        () = self.clock.sleep_until(at.unwrap_or(deadline)) => Chance::Paced,
                        () = tokio::time::sleep(poll) => Chance::Paced,
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
            let at = queue.pace.draw(Instant::now());
            tokio::select! {
                biased;
                () = &mut over => {
                    queue.pace.put_back();
                    return Woken::Over;
                }
                () = tokio::time::sleep_until(at) => return Woken::Asks { paced: true },
            }
        }
    }

    /// The answer when the wait is over: by a last question where the pace permits one, else by what is known. Many waits may
    /// end at once, and their questions would hold up requests that do not wait.
    async fn last_word(
        &self,
        (request, check): (&AuthorizeRequest, &PendingCheck<S>),
        place: &mut Place<'_>,
        last: Last,
    ) -> Result<Decided, Failure> {
        if self.shared.queue.pace.draw_now(Instant::now()) {
            let decided = self.decide(request, check, place.turn).await;
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
        decided.limits.iter_mut().for_each(|limit| limit.reset_ms = limit.reset_ms.saturating_sub(passed));
        Ok(decided)
    }
}

impl Last {
    fn is_granted(&self) -> bool {
        self.decided.as_ref().is_ok_and(|decided| decided.outcome.is_ok())
    }

    /// Puts the request in the line of what keeps it; `false` where waiting cannot help, or is over.
    fn stands_in(&self, place: &mut Place<'_>) -> bool {
        match &self.decided {
            Ok(Decided { outcome: Err(violations), blocked: Some(blocked), .. }) => {
                let Retry::After(ms) = explain::retry(violations) else { return false };
                let frees_at = self.at.plus(Duration::from_millis(ms));
                place.stand(blocked.by.clone(), Some(frees_at), false);
                true
            }
            Err(
                Failure::Store(StoreError::Unavailable | StoreError::Overloaded) | Failure::SnapshotStale,
            ) => {
                let line = place.line.clone().unwrap_or_else(|| CounterKey::new(OUTAGE));
                place.stand(line, Some(self.at.plus(AFTER_FAILURE)), true);
                true
            }
            _ => false,
        }
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
