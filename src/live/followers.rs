//! One follower for the registries of all organizations of a process, on each worker.

use std::{future::pending, time::Duration};

use tokio::{
    sync::watch,
    task::{Id, JoinSet},
    time::{Instant, sleep_until},
};
use tracing::{Instrument as _, error};

use super::follower::{Follower, WRITE_USES, reads_every};
use crate::store::Registry;

/// How much sooner than it is due a registry is read where another is due: so that all are read at the same time soon after one was read by
/// itself, as for a change.
const TOGETHER: Duration = Duration::from_millis(125);

/// Follows the registries of `followers` on the worker with this number, and writes down uses, until told to stop, as [`Follower::follow`]
/// does for one. All that are due are read at once, and none waits for another.
pub async fn follow_each<S: Registry + Clone>(
    followers: Vec<Follower<S>>,
    worker: u32,
    stop: watch::Receiver<bool>,
) {
    // One needs no more than itself.
    if let [one] = &followers[..] {
        return one.follow(worker, stop).await;
    }
    tokio::join!(read_each(&followers, reads_every(worker), stop.clone()), write_each(&followers, stop));
}

async fn read_each<S: Registry + Clone>(
    followers: &[Follower<S>],
    every: Duration,
    mut stop: watch::Receiver<bool>,
) {
    let mut at_work = AtWork::new(followers.len());
    // When each is to be looked at, unless it is being read.
    let mut looks = vec![Instant::now(); followers.len()];
    loop {
        let resting = looks.iter().enumerate().filter(|(index, _)| !at_work.has(*index));
        let next = resting.map(|(_, look)| *look).min();
        tokio::select! {
            biased;
            _ = stop.wait_for(|stop| *stop) => break,
            index = at_work.ended() => {
                if let (Some(look), Some(follower)) = (looks.get_mut(index), followers.get(index)) {
                    *look = Instant::now() + every;
                    follower.live.watch_age();
                }
            }
            () = until(next) => look_at_each(followers, every, &mut looks, &mut at_work),
        }
    }
    at_work.end().await;
}

/// Begins to read those that are due.
fn look_at_each<S: Registry + Clone>(
    followers: &[Follower<S>],
    every: Duration,
    looks: &mut [Instant],
    at_work: &mut AtWork,
) {
    let now = Instant::now();
    let due = |follower: &Follower<S>| {
        let age = follower.live.freshness().age();
        age.map_or(Duration::ZERO, |age| every.saturating_sub(age))
    };
    let resting = followers.iter().zip(looks).enumerate().filter(|(index, _)| !at_work.has(*index));
    let resting: Vec<_> =
        resting.map(|(index, (follower, look))| (index, follower, look, due(follower))).collect();
    let is_one_due = resting.iter().any(|(_, _, look, due)| **look <= now && due.is_zero());
    for (index, follower, look, due) in resting {
        follower.live.watch_age();
        if is_one_due && *look <= now + TOGETHER && due <= TOGETHER {
            let (follower, span) = (follower.clone(), follower.live.span().clone());
            let reading = async move {
                // Logged where it fails; the next turn tries again.
                let _ = follower.read().await;
            };
            at_work.begin(index, reading.instrument(span));
        } else if *look <= now {
            *look = now + due;
        }
    }
}

async fn write_each<S: Registry + Clone>(followers: &[Follower<S>], mut stop: watch::Receiver<bool>) {
    let (mut at_work, mut next) = (AtWork::new(followers.len()), Instant::now() + WRITE_USES);
    loop {
        tokio::select! {
            biased;
            _ = stop.wait_for(|stop| *stop) => break,
            _ = at_work.ended() => {}
            () = sleep_until(next) => {
                next = Instant::now() + WRITE_USES;
                for (index, follower) in followers.iter().enumerate() {
                    if !at_work.has(index) {
                        let (follower, span) = (follower.clone(), follower.live.span().clone());
                        let writing = async move { follower.live.write_uses(&follower.store).await };
                        at_work.begin(index, writing.instrument(span));
                    }
                }
            }
        }
    }
    at_work.end().await;
}

/// Returns at `next`; never if there is nothing to wait for.
async fn until(next: Option<Instant>) {
    match next {
        Some(next) => sleep_until(next).await,
        None => pending().await,
    }
}

/// What is being done for each of several: one thing at a time.
struct AtWork {
    tasks: JoinSet<()>,
    of: Vec<Option<Id>>,
}

impl AtWork {
    fn new(count: usize) -> Self {
        Self { tasks: JoinSet::new(), of: vec![None; count] }
    }

    fn has(&self, index: usize) -> bool {
        self.of.get(index).is_some_and(Option::is_some)
    }

    fn begin(&mut self, index: usize, work: impl Future<Output = ()> + Send + 'static) {
        if let Some(of) = self.of.get_mut(index) {
            *of = Some(self.tasks.spawn(work).id());
        }
    }

    /// The next for which it has ended; never while nothing is done.
    async fn ended(&mut self) -> usize {
        loop {
            let id = match self.tasks.join_next_with_id().await {
                Some(Ok((id, ()))) => id,
                Some(Err(failed)) => {
                    error!(
                        "a reading of a registry, or a writing of its uses, had panicked; it is tried again"
                    );
                    failed.id()
                }
                None => pending().await,
            };
            let found = self.of.iter_mut().enumerate().find(|(_, of)| **of == Some(id));
            if let Some((index, of)) = found {
                *of = None;
                return index;
            }
        }
    }

    /// Waits until all has ended.
    async fn end(mut self) {
        while self.tasks.join_next().await.is_some() {}
    }
}
