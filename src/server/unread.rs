//! Counts how much of its answers a client has not read.
//!
//! Every larger piece of an answer counts from the moment it is made until the last reference to it is dropped: when it was
//! written to the socket, or when the call was given up. A small one counts as what its call takes, until the connection takes
//! it: otherwise a client that gives no room for answers could have a thousand of them made.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    task::{Context, Poll, Waker},
};

use hyper::body::Bytes;
use tokio::sync::Notify;

/// Smaller pieces are not counted byte by byte, which would cost an allocation. A decision with a dozen limits is smaller.
const COUNTED: usize = 2 * 1024;
/// The memory of a call with a small answer: its stream, its buffers and the answer. Measured with 1,000 calls of a client that
/// gave no window.
pub(super) const SMALL: usize = 8 * 1024;

/// The count of one connection. All its tasks run on one thread, so the atomics order nothing and are never contended.
#[derive(Debug)]
pub(super) struct Unread {
    bytes: AtomicUsize,
    max: usize,
    /// How often the count went above `max` or back below it: odd while it is above.
    crossings: AtomicU64,
    /// Notified when the count goes above `max`.
    exceeded: Notify,
    /// Bodies that wait for the count to fall. Locked only if a client reads too slowly.
    waiting: Mutex<Vec<Waker>>,
}

impl Unread {
    pub(super) fn new(max: usize) -> Self {
        Self {
            bytes: AtomicUsize::new(0),
            max,
            crossings: AtomicU64::new(0),
            exceeded: Notify::new(),
            waiting: Mutex::default(),
        }
    }

    /// Counts `piece` until it is dropped.
    pub(super) fn count(self: &Arc<Self>, piece: Bytes) -> Bytes {
        if Self::is_small(&piece) {
            return piece;
        }
        self.add(piece.len());
        Bytes::from_owner(Counted { piece, unread: Arc::clone(self) })
    }

    /// Whether `piece` is too small for [`Unread::count`]: then [`SMALL`] bytes are to be [added](Unread::add), and released when
    /// the connection has taken it.
    pub(super) const fn is_small(piece: &Bytes) -> bool {
        piece.len() < COUNTED
    }

    pub(super) fn add(&self, length: usize) {
        let before = self.bytes.fetch_add(length, Ordering::Relaxed);
        if before < self.max && before + length >= self.max {
            self.crossings.fetch_add(1, Ordering::Relaxed);
            self.exceeded.notify_one();
        }
    }

    /// Ready when another piece may be made.
    pub(super) fn poll_room(&self, cx: &Context<'_>) -> Poll<()> {
        if self.bytes.load(Ordering::Relaxed) < self.max {
            return Poll::Ready(());
        }
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        // No wake-up is lost if the count fell in between: the thread that lowers it takes this lock afterwards.
        if self.bytes.load(Ordering::Relaxed) < self.max {
            return Poll::Ready(());
        }
        waiting.push(cx.waker().clone());
        Poll::Pending
    }

    /// A number that stays the same while the bound is exceeded without a break; `None` while it is not exceeded.
    pub(super) fn excess(&self) -> Option<u64> {
        Some(self.crossings.load(Ordering::Relaxed)).filter(|crossings| crossings % 2 == 1)
    }

    /// Returns once the bound is exceeded, or if it was exceeded since the last call.
    pub(super) async fn exceeded(&self) {
        self.exceeded.notified().await;
    }

    pub(super) fn release(&self, length: usize) {
        let before = self.bytes.fetch_sub(length, Ordering::Relaxed);
        if before >= self.max && before - length < self.max {
            self.crossings.fetch_add(1, Ordering::Relaxed);
            let waiting = std::mem::take(&mut *self.waiting.lock().unwrap_or_else(PoisonError::into_inner));
            waiting.into_iter().for_each(Waker::wake);
        }
    }
}

/// A piece of an answer that subtracts itself from the count when dropped.
struct Counted {
    piece: Bytes,
    unread: Arc<Unread>,
}

impl AsRef<[u8]> for Counted {
    fn as_ref(&self) -> &[u8] {
        &self.piece
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.unread.release(self.piece.len());
    }
}

#[cfg(test)]
mod tests {
    use std::task::Wake;

    use super::*;

    struct Woken(AtomicUsize);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn a_piece_counts_until_its_last_part_is_dropped() {
        let unread = Arc::new(Unread::new(10_000));
        let woken = Arc::new(Woken(AtomicUsize::new(0)));
        let waker = Waker::from(Arc::clone(&woken));
        let cx = Context::from_waker(&waker);
        let small = unread.count(Bytes::from(vec![0; COUNTED - 1]));
        assert_eq!(unread.bytes.load(Ordering::Relaxed), 0);
        let mut first = unread.count(Bytes::from(vec![1; 6_000]));
        assert!(unread.poll_room(&cx).is_ready() && unread.excess().is_none());
        let second = unread.count(Bytes::from(vec![2; 6_000]));
        assert!(unread.poll_room(&cx).is_pending());
        let excess = unread.excess();
        assert!(excess.is_some());
        let part = first.split_to(100);
        drop(first);
        assert_eq!((unread.excess(), woken.0.load(Ordering::Relaxed)), (excess, 0));
        drop(part);
        assert_eq!((unread.excess(), woken.0.load(Ordering::Relaxed)), (None, 1));
        assert!(unread.poll_room(&cx).is_ready());
        drop((second, small));
        assert_eq!(unread.bytes.load(Ordering::Relaxed), 0);
    }
}
