//! Callers that wait for the disk.

use std::thread::{self, ThreadId};

use tokio::sync::oneshot;

use crate::store::StoreError;

/// The number of waiters at which to look for those that have gone away; after that, twice the number left.
const MANY: usize = 1024;

/// Callers that may be answered once an op is on disk. Dropping one tells it that the store is unavailable.
#[derive(Default)]
pub(super) struct Waiters {
    all: Vec<Waiter>,
    /// When to look for callers that have gone away.
    crowded: usize,
}

struct Waiter {
    after: u64,
    /// The thread on which the caller is most likely woken.
    worker: ThreadId,
    done: oneshot::Sender<Crowd>,
}

/// The notification of a waiter.
pub(super) struct Heard(oneshot::Receiver<Crowd>);

impl Heard {
    pub(super) async fn on_disk(self) -> Result<(), StoreError> {
        match self.0.await {
            // Dropped here, on the worker that its callers are on.
            Ok(_others) => Ok(()),
            Err(_) => Err(StoreError::Unavailable),
        }
    }
}

/// Callers of one worker, told together. Waking a sleeping worker is a system call: the writer makes one for each worker, and the
/// caller that it wakes tells the others, on their own worker. If it is dropped anywhere, it still tells them.
#[derive(Default)]
struct Crowd(Vec<oneshot::Sender<Crowd>>);

impl Drop for Crowd {
    fn drop(&mut self) {
        for done in self.0.drain(..) {
            // A caller that gave up is not told.
            let _ = done.send(Self::default());
        }
    }
}

impl Waiters {
    pub(super) const fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// How many wait, those included that have gone away since.
    pub(super) const fn len(&self) -> usize {
        self.all.len()
    }

    /// Waits for op `after`.
    pub(super) fn wait(&mut self, after: u64) -> Heard {
        if self.all.len() >= self.crowded.max(MANY) {
            self.all.retain(|waiter| !waiter.done.is_closed());
            self.crowded = self.all.len() * 2;
        }
        let (done, heard) = oneshot::channel();
        self.all.push(Waiter { after, worker: thread::current().id(), done });
        Heard(heard)
    }

    /// Takes out those that waited for an op up to `durable`.
    pub(super) fn reached(&mut self, durable: u64) -> Self {
        let all = self.all.extract_if(.., |waiter| waiter.after <= durable).collect();
        Self { all, crowded: 0 }
    }

    /// Tells all of them that their ops are on disk.
    pub(super) fn tell(self) {
        let mut workers: Vec<(ThreadId, Vec<oneshot::Sender<Crowd>>)> = Vec::new();
        for Waiter { worker, done, .. } in self.all {
            match workers.iter_mut().find(|(known, _)| *known == worker) {
                Some((_, crowd)) => crowd.push(done),
                None => workers.push((worker, vec![done])),
            }
        }
        for (_, mut crowd) in workers {
            // A caller that gave up passes nothing on.
            while let Some(first) = crowd.pop() {
                match first.send(Crowd(crowd)) {
                    Ok(()) => break,
                    Err(mut rest) => crowd = std::mem::take(&mut rest.0),
                }
            }
        }
    }
}
