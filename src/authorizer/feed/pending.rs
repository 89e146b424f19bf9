//! What waits to be published: a bounded number, denials apart from the others, and a count of what there was no room for.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

/// The most that a process publishes within any second: more than people can read, and a small part of what a store can take.
pub(super) const PER_SECOND: usize = 50;
/// How often it publishes in a second.
pub(super) const TURNS_PER_SECOND: usize = 4;
/// Threads that do not share their counts; with more, some do.
const SHARES: usize = 16;

/// Which come first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rank {
    Denied,
    Allowed,
}

/// What waits. Decisions are offered by all cores, and one task takes them.
///
/// Protocol: a queue's length is a number of its own that is read without its lock, so that an offer to a full queue takes none; the queue
/// itself is looked at under the lock. Counts of what was left out are by thread.
#[derive(Debug)]
pub(super) struct Pending<T> {
    denied: Queue<T>,
    allowed: Queue<T>,
    skipped: [Mutex<Skipped>; SHARES],
}

/// By team; an empty name is of callers that belong to none.
type Skipped = HashMap<Arc<str>, u64>;

#[derive(Debug)]
struct Queue<T> {
    length: AtomicUsize,
    waiting: Mutex<VecDeque<T>>,
}

impl<T> Default for Pending<T> {
    fn default() -> Self {
        let queue = || Queue { length: AtomicUsize::new(0), waiting: Mutex::default() };
        Self { denied: queue(), allowed: queue(), skipped: Default::default() }
    }
}

impl<T> Pending<T> {
    /// Takes what `make` makes, if there is room; otherwise it only counts for `team`.
    pub(super) fn offer(&self, rank: Rank, team: &Arc<str>, make: impl FnOnce() -> T) {
        let queue = match rank {
            Rank::Denied => &self.denied,
            Rank::Allowed => &self.allowed,
        };
        // A queue has what goes out in a second, so nothing waits for longer than that if it is of the first rank.
        if queue.length.load(Ordering::Relaxed) >= PER_SECOND || !queue.push(make()) {
            self.skip(team, 1);
        }
    }

    /// Counts `more` of `team` that are not published.
    pub(super) fn skip(&self, team: &Arc<str>, more: u64) {
        let Some(share) = self.skipped.get(share()) else { return };
        let mut skipped = lock(share);
        match skipped.get_mut(team) {
            Some(count) => *count = count.saturating_add(more),
            None => drop(skipped.insert(Arc::clone(team), more)),
        }
    }

    /// The first `quota`, denials before the others.
    pub(super) fn take(&self, quota: usize) -> Vec<T> {
        let mut taken = self.denied.take(quota);
        taken.extend(self.allowed.take(quota.saturating_sub(taken.len())));
        taken
    }

    /// What was left out since the last call, of at most `teams` teams; the rest stays for the next.
    pub(super) fn take_skipped(&self, teams: usize) -> BTreeMap<Arc<str>, u64> {
        let mut all: BTreeMap<Arc<str>, u64> = BTreeMap::new();
        for (team, count) in self.skipped.iter().flat_map(|share| std::mem::take(&mut *lock(share))) {
            let sum = all.entry(team).or_default();
            *sum = sum.saturating_add(count);
        }
        let rest = match all.keys().nth(teams).cloned() {
            Some(first) => all.split_off(&first),
            None => BTreeMap::new(),
        };
        rest.iter().for_each(|(team, count)| self.skip(team, *count));
        all
    }

    /// Forgets all of it.
    pub(super) fn clear(&self) {
        self.take(usize::MAX);
        self.skipped.iter().for_each(|share| lock(share).clear());
    }
}

impl<T> Queue<T> {
    fn push(&self, offered: T) -> bool {
        let mut waiting = lock(&self.waiting);
        let has_room = waiting.len() < PER_SECOND;
        if has_room {
            waiting.push_back(offered);
            self.length.store(waiting.len(), Ordering::Relaxed);
        }
        has_room
    }

    fn take(&self, most: usize) -> Vec<T> {
        let mut waiting = lock(&self.waiting);
        let count = most.min(waiting.len());
        let taken = waiting.drain(..count).collect();
        self.length.store(waiting.len(), Ordering::Relaxed);
        taken
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing panics while one is held.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The share of this thread.
fn share() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static OWN: usize = NEXT.fetch_add(1, Ordering::Relaxed) % SHARES;
    }
    OWN.with(|own| *own)
}

/// How many may be published in a turn, so that turns that are a quarter of a second apart publish at most [`PER_SECOND`] in any second.
#[derive(Debug, Default)]
pub(super) struct Quota {
    /// What the turns before this one have published, the oldest first.
    published: [usize; TURNS_PER_SECOND - 1],
}

impl Quota {
    /// What is left for this turn.
    pub(super) fn left(&self) -> usize {
        PER_SECOND.saturating_sub(self.published.iter().sum())
    }

    /// Ends this turn, which has published `count`.
    pub(super) fn ends_with(&mut self, count: usize) {
        self.published.rotate_left(1);
        if let Some(last) = self.published.last_mut() {
            *last = count;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn team(name: &str) -> Arc<str> {
        name.into()
    }

    /// One turn: what it publishes.
    fn turn(pending: &Pending<(Rank, usize)>, quota: &mut Quota) -> Vec<(Rank, usize)> {
        let taken = pending.take(quota.left());
        quota.ends_with(taken.len());
        taken
    }

    #[test]
    fn a_second_has_at_most_fifty_and_denials_are_first() {
        let (pending, mut quota) = (Pending::default(), Quota::default());
        let mut published: Vec<Vec<(Rank, usize)>> = Vec::new();
        // 400 a second that are allowed, and 40 that are denied, each after many that are allowed.
        for number in 0..12 {
            for n in 0..100 {
                pending.offer(Rank::Allowed, &team("a"), || (Rank::Allowed, 100 * number + n));
            }
            for n in 0..10 {
                pending.offer(Rank::Denied, &team("b"), || (Rank::Denied, 10 * number + n));
            }
            published.push(turn(&pending, &mut quota));
        }
        for second in published.windows(TURNS_PER_SECOND) {
            assert!(second.iter().map(Vec::len).sum::<usize>() <= PER_SECOND, "{published:?}");
        }
        let all = published.concat();
        let denied: Vec<_> = all.iter().filter(|(rank, _)| *rank == Rank::Denied).map(|(_, n)| *n).collect();
        // The last may still wait.
        assert!(denied.iter().copied().eq(0..denied.len()) && denied.len() >= 90, "{denied:?}");
        let skipped = pending.take_skipped(10);
        let waiting = pending.take(usize::MAX).len();
        assert_eq!(all.len() + waiting + usize::try_from(skipped[&team("a")]).unwrap(), 12 * 110);
        assert_eq!(skipped.keys().cloned().collect::<Vec<_>>(), [team("a")], "no denial is left out");
    }

    #[test]
    fn few_are_all_published_at_once() {
        let (pending, mut quota) = (Pending::default(), Quota::default());
        for n in 0..PER_SECOND {
            pending.offer(Rank::Allowed, &team("a"), || (Rank::Allowed, n));
        }
        assert_eq!(turn(&pending, &mut quota).len(), PER_SECOND);
        pending.offer(Rank::Denied, &team("a"), || (Rank::Denied, 0));
        for _ in 0..TURNS_PER_SECOND - 1 {
            assert!(turn(&pending, &mut quota).is_empty());
        }
        assert_eq!(turn(&pending, &mut quota), [(Rank::Denied, 0)]);
        assert!(pending.take_skipped(10).is_empty());
    }

    #[test]
    fn what_is_left_out_is_counted_by_team_whichever_thread_offers_it() {
        let pending = Pending::default();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for n in 0..300 {
                        pending.offer(Rank::Denied, &team(["a", "b", ""][n % 3]), || n);
                    }
                });
            }
        });
        let waiting = pending.take(usize::MAX);
        assert_eq!(waiting.len(), PER_SECOND);
        let (some, rest) = (pending.take_skipped(2), pending.take_skipped(2));
        assert!(some.keys().map(|name| &**name).eq(["", "a"]) && rest.keys().map(|name| &**name).eq(["b"]));
        let sum: u64 = some.values().chain(rest.values()).sum();
        assert_eq!(usize::try_from(sum).unwrap() + waiting.len(), 4 * 300);
        pending.skip(&team("a"), 7);
        pending.clear();
        assert!(pending.take_skipped(9).is_empty());
    }
}
