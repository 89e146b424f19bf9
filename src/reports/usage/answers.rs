//! Whole answers: one is made at a time, and the last one is kept for its next pages.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::{Semaphore, SemaphorePermit},
    time::{Instant, sleep_until},
};

use super::{Groups, UsageError, UsageGroup, UsagePage, UsagePlace, UsageQuery, UsageRow, bounds};
use crate::{
    domain::{Timestamp, calendar::Calendar, rbac::TeamScope, snapshot::Snapshot},
    store::UsageAmounts,
};

/// The calls that wait for their turn. Further ones are refused: each turn may take seconds, and callers would have left before theirs.
const MAX_WAITING: usize = 16;
/// How long an answer is kept after its last page was asked for. At most [`super::MAX_GROUPS`] rows, some tens of megabytes.
const KEPT: Duration = Duration::from_secs(60);

/// A whole answer.
pub(super) struct Answer {
    /// In order.
    rows: Vec<(UsagePlace, UsageAmounts)>,
    total: UsageAmounts,
    /// Those in force when it was made.
    calendar: Calendar,
    policy_revision: Arc<str>,
    read_at: Timestamp,
}

impl Answer {
    /// The answer that these sums are.
    pub(super) fn of(groups: Groups, snapshot: &Snapshot, read_at: Timestamp) -> Self {
        let order = groups.query().order;
        let place = |(group, amounts): (UsageGroup, UsageAmounts)| {
            let rank = order.map_or(0, |order| order.rank(&amounts));
            (UsagePlace { rank, group }, amounts)
        };
        let mut rows: Vec<_> = groups.finish().into_iter().map(place).collect();
        let mut total = UsageAmounts::default();
        rows.iter().for_each(|(_, amounts)| total.add(amounts));
        rows.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
        let (calendar, policy_revision) = (snapshot.policy.calendar.clone(), Arc::clone(&snapshot.revision));
        Self { rows, total, calendar, policy_revision, read_at }
    }

    /// The page that `query` asks for.
    pub(super) fn page(&self, query: &UsageQuery) -> UsagePage {
        let first =
            query.after.as_ref().map_or(0, |after| self.rows.partition_point(|(place, _)| place <= after));
        let rest = self.rows.get(first..).unwrap_or_default();
        let rows = rest.iter().take(query.page_size).cloned().map(|(place, amounts)| {
            let (start, end) = bounds(query, &self.calendar, &place.group);
            UsageRow { place, start, end, amounts }
        });
        UsagePage {
            rows: rows.collect(),
            has_more: rest.len() > query.page_size,
            total: self.total,
            policy_revision: Arc::clone(&self.policy_revision),
            read_at: self.read_at,
        }
    }
}

/// An answer with more than one page, and what was asked.
struct Kept {
    query: UsageQuery,
    scope: TeamScope,
    answer: Arc<Answer>,
    until: Instant,
}

/// The turns of one core, and the last answer that had more than one page.
///
/// Protocol: the lock is held for a look only. Whatever takes an answer out drops it on another thread, as that takes milliseconds.
#[derive(Default)]
pub(super) struct Answers {
    turn: Turn,
    waiting: AtomicUsize,
    kept: Mutex<Option<Kept>>,
}

/// One at a time.
struct Turn(Semaphore);

impl Default for Turn {
    fn default() -> Self {
        Self(Semaphore::new(1))
    }
}

/// Counts a call that waits.
struct Waiting<'w>(&'w AtomicUsize);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Answers {
    /// Waits for the turn.
    pub(super) async fn turn(&self) -> Result<SemaphorePermit<'_>, UsageError> {
        let waiting = Waiting(&self.waiting);
        if self.waiting.fetch_add(1, Ordering::Relaxed) >= MAX_WAITING {
            return Err(UsageError::Busy);
        }
        let turn = self.turn.0.acquire().await;
        drop(waiting);
        turn.map_err(|_| UsageError::Internal)
    }

    /// The answer to the same question that had a page before this one.
    pub(super) fn find(&self, query: &UsageQuery, scope: &TeamScope, now: Instant) -> Option<Arc<Answer>> {
        query.after.as_ref()?;
        let mut kept = self.lock();
        let kept = kept.as_mut().filter(|kept| kept.until > now && kept.scope == *scope)?;
        if kept.query != whole(query) {
            return None;
        }
        kept.until = now + KEPT;
        Some(Arc::clone(&kept.answer))
    }

    /// Keeps an answer for its next pages, instead of the one before it.
    pub(super) fn keep(self: &Arc<Self>, query: &UsageQuery, scope: &TeamScope, answer: Arc<Answer>) {
        let until = Instant::now() + KEPT;
        let kept = Kept { query: whole(query), scope: scope.clone(), answer, until };
        let before = self.lock().replace(kept);
        drop_elsewhere(before);
        let answers = Arc::downgrade(self);
        tokio::spawn(async move {
            let mut next = until;
            loop {
                sleep_until(next).await;
                let Some(answers) = answers.upgrade() else { return };
                match answers.end(Instant::now()) {
                    Some(until) => next = until,
                    None => return,
                }
            }
        });
    }

    /// Drops the answer if its time is over; else says when it is. `None`: there is none any more.
    fn end(&self, now: Instant) -> Option<Instant> {
        let mut kept = self.lock();
        let until = kept.as_ref()?.until;
        if until > now {
            return Some(until);
        }
        let over = kept.take();
        drop(kept);
        drop_elsewhere(over);
        None
    }

    fn lock(&self) -> MutexGuard<'_, Option<Kept>> {
        // Nothing panics while it is held.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn drop_elsewhere(kept: Option<Kept>) {
    if let Some(kept) = kept {
        tokio::task::spawn_blocking(move || drop(kept));
    }
}

/// What all pages of an answer are asked for with.
fn whole(query: &UsageQuery) -> UsageQuery {
    UsageQuery { page_size: 0, after: None, ..query.clone() }
}

#[cfg(test)]
mod tests {
    use std::{
        pin::pin,
        task::{Context, Waker},
    };

    use jiff::tz::TimeZone;

    use super::*;

    fn query(after: Option<u32>) -> UsageQuery {
        let place = |day| UsagePlace { rank: 0, group: UsageGroup { day, hour: 0, values: Vec::new() } };
        UsageQuery { page_size: 1, after: after.map(place), ..UsageQuery::default() }
    }

    fn answer() -> Arc<Answer> {
        let (total, calendar) = (UsageAmounts::default(), Calendar::new(TimeZone::UTC));
        Arc::new(Answer {
            rows: Vec::new(),
            total,
            calendar,
            policy_revision: "".into(),
            read_at: Timestamp(0),
        })
    }

    #[tokio::test]
    async fn an_answer_is_kept_for_a_minute_after_its_last_page() {
        let (answers, all, now) = (Arc::new(Answers::default()), TeamScope::All, Instant::now());
        answers.keep(&query(None), &all, answer());
        let found = |query: &UsageQuery, scope: &TeamScope, at| answers.find(query, scope, at).is_some();
        assert!(!found(&query(None), &all, now), "a first page is of an answer of its own");
        assert!(!found(&UsageQuery { start_day: 1, ..query(Some(1)) }, &all, now));
        assert!(!found(&query(Some(1)), &TeamScope::Teams(Arc::default()), now));
        let mut at = now;
        for _ in 0..3 {
            at += KEPT - Duration::from_secs(1);
            assert!(found(&UsageQuery { page_size: 7, ..query(Some(1)) }, &all, at));
            assert_eq!(answers.end(at), Some(at + KEPT));
        }
        at += KEPT;
        assert!(!found(&query(Some(1)), &all, at));
        assert_eq!((answers.end(at), answers.lock().is_none()), (None, true));
    }

    #[tokio::test]
    async fn only_so_many_wait_for_their_turn() {
        let (answers, mut cx) = (Answers::default(), Context::from_waker(Waker::noop()));
        let held = answers.turn().await.unwrap();
        let mut waiting: Vec<_> = (0..MAX_WAITING).map(|_| Box::pin(answers.turn())).collect();
        assert!(waiting.iter_mut().all(|turn| turn.as_mut().poll(&mut cx).is_pending()));
        assert_eq!(answers.turn().await.err(), Some(UsageError::Busy));
        // One that gives up makes room.
        waiting.pop();
        let mut last = pin!(answers.turn());
        assert!(last.as_mut().poll(&mut cx).is_pending());
        drop((held, waiting));
        assert!(last.await.is_ok());
    }
}
