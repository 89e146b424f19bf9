//! One check from question to answer: in time or not at all, and with nothing left reserved if there is no answer.

use std::{
    pin::pin,
    time::{Duration, Instant},
};

use tokio::time::{self, Timeout, timeout, timeout_at};

use super::{Authorizer, Decided, Failure, PendingCheck, Question, queue::Turn, ticket};
use crate::{
    domain::{Timestamp, policy::Team, request::AuthorizeRequest},
    runtime::clock::Clock,
    store::{Reserve, Reserved, Store, StoreError, StoreKind},
    telemetry::trace,
};

/// The warning for a dry run with `max_wait`.
const DRY_RUN_WAITS_FOR_NOTHING: &str = "max_wait was ignored: a dry run is answered at once";

impl<S: Store + Clone> Authorizer<S> {
    /// Decides one request: at once or, with `max_wait`, when it fits or the wait is over; in any case before `until`. A
    /// reservation is released unless the check that comes with the decision hears that the answer was delivered.
    ///
    /// # Errors
    /// If no decision could be made. Nothing stays reserved then.
    pub async fn authorize(
        &self,
        question: Question<'_>,
        until: Option<Instant>,
    ) -> Result<(Decided, PendingCheck<S>), Failure> {
        let caller = question.caller.as_ref().ok().filter(|caller| caller.check(self.store.now()).is_ok());
        if let Some(caller) = caller.filter(|_| !question.request.dry_run) {
            self.count_use(caller);
        }
        let team = caller.map(|caller| caller.team);
        let (decided, check) = match by(until, self.check(question, team, until)).await? {
            Ok(checked) => checked,
            Err(failure) => self.without_store(question, until, failure)?,
        };
        self.count_decision(question, &decided);
        self.log_decision(question, check.id, &decided);
        self.show_decision(question, &decided);
        Ok((decided, check))
    }

    async fn check(
        &self,
        question: Question<'_>,
        team: Option<&Team>,
        until: Option<Instant>,
    ) -> Result<(Decided, PendingCheck<S>), Failure> {
        let request = question.request;
        let start = self.clock.monotonic();
        let deadline = start.plus(Duration::from_millis(request.max_wait_ms));
        let check = self.begin(request, team, until).await?;
        // Until the registry is read the first time, it is not known whose request this is, and so neither what it repeats.
        let max_wait_ms = if question.caller.is_ok() { request.max_wait_ms } else { 0 };
        // Of a call that is traced; nothing else has spans.
        let _span = trace::child(if max_wait_ms > 0 && !request.dry_run { "wait" } else { "decide" });
        let decided = match (max_wait_ms, request.dry_run) {
            (0, _) => self.decide(question, &check, Turn::LAST).await?,
            // It takes nothing, so it must not keep room from requests that do.
            (_, true) => {
                let mut decided = self.decide(question, &check, Turn::LAST).await?;
                decided.warnings.push(DRY_RUN_WAITS_FOR_NOTHING.to_owned());
                decided
            }
            (_, false) => {
                // Boxed, as are the other rare turns: a future is as large as its largest turn, and is moved more than once.
                let decided = Box::pin(self.decide_in_turn(question, &check, deadline)).await?;
                Decided { waited: Some(self.clock.monotonic().since(start)), ..decided }
            }
        };
        self.record_duration(&decided, start);
        Ok((decided, check))
    }

    async fn begin(
        &self,
        request: &AuthorizeRequest,
        team: Option<&Team>,
        until: Option<Instant>,
    ) -> Result<PendingCheck<S>, Failure> {
        let named = !request.request_id.is_empty() && !request.dry_run;
        match team.filter(|_| named) {
            Some(team) => {
                let (id, began) = (ticket::derived_id(&team.name, &request.request_id), time::Instant::now());
                let mut check = Box::pin(PendingCheck::shared(self, id, until));
                let check = match team.outage.degrades() {
                    true => self.wait_for_store(until, check.as_mut()).await?,
                    false => check.await,
                };
                // It has waited for a release of the same reservation, of which the store said nothing: not for the store once more.
                if began.elapsed() >= self.store.deadline() {
                    return Err(StoreError::Unavailable.into());
                }
                Ok(check)
            }
            // It has no name, or reserves nothing.
            None => PendingCheck::alone(self, until),
        }
    }

    /// Asks the store, and keeps in `check` whether it may have reserved. `degrades`: whether the request can be decided without it.
    pub(super) async fn reserve(
        &self,
        reserve: Reserve,
        check: &PendingCheck<S>,
        degrades: bool,
    ) -> Result<Reserved, Failure> {
        if check.until.is_some_and(|until| until <= time::Instant::now().into_std()) {
            return Err(Failure::DeadlineExceeded);
        }
        // Then nothing needs a release, however long the outage lasts.
        if self.store.is_down() || self.store.breaker().is_some_and(|breaker| breaker.holds_back(degrades)) {
            self.shared.failing.failed(&self.clock);
            return Err(StoreError::Unavailable.into());
        }
        if !reserve.dry_run {
            check.asks();
        }
        let mut span = trace::child("store reserve");
        span.say("db.system.name", if S::KIND == StoreKind::Redis { "redis" } else { "sqlite" });
        let mut asked = pin!(self.store.reserve(reserve));
        let reserved = match degrades {
            false => asked.await,
            true => match self.wait_for_store(check.until, asked.as_mut()).await {
                Ok(reserved) => reserved,
                Err(Failure::Store(error)) => Err(error),
                Err(failure) => return Err(failure),
            },
        };
        drop(span);
        match &reserved {
            Ok(_) => self.shared.failing.answered(),
            Err(StoreError::Unavailable) => self.shared.failing.failed(&self.clock),
            Err(_) => {}
        }
        match &reserved {
            Ok(Reserved::Granted { .. }) => {}
            // What another attempt reserved, or what is already settled, is not this check's to release.
            Ok(Reserved::Repeated(record)) if !check.made(record) => check.took_nothing(),
            Ok(Reserved::Repeated(_)) => {}
            Ok(Reserved::Refused { .. } | Reserved::OutOfDate { .. })
            | Err(StoreError::Overloaded | StoreError::Overflow | StoreError::LayoutUnsupported(_)) => {
                check.took_nothing();
            }
            Err(StoreError::Unavailable | StoreError::Corrupt) => check.had_no_answer(),
        }
        Ok(reserved?)
    }

    /// When the caller has left, by the store's clock: a store that answers only after this must take nothing.
    pub(super) fn left_at(&self, until: Option<Instant>) -> Timestamp {
        match (until, &self.clock) {
            (Some(until), Clock::System) => {
                let left = until.saturating_duration_since(time::Instant::now().into_std()).as_millis();
                self.store.now().plus(u64::try_from(left).unwrap_or(u64::MAX))
            }
            // A manual clock does not measure the caller's time.
            _ => Timestamp(u64::MAX),
        }
    }
}

/// The task, which fails at `until` if it has not completed; with `None` it takes as long as it takes.
pub fn by<F: Future>(until: Option<Instant>, task: F) -> Timeout<F> {
    // Not an async function: its future would have room for `task` twice, as its argument and as what it waits for.
    match until {
        Some(until) => timeout_at(until.into(), task),
        None => timeout(Duration::MAX, task),
    }
}
