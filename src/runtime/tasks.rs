//! Tasks that outlive the calls which began them.

use std::{sync::Arc, time::Duration};

use tokio::runtime::Handle;
use tokio_util::{
    sync::{CancellationToken, WaitForCancellationFuture},
    task::TaskTracker,
};
use tracing::Instrument as _;

/// The tasks of one core, which are waited for when the service ends. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Tasks(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    tracker: TaskTracker,
    /// Tasks are to stop waiting.
    stop: CancellationToken,
    /// Shortly before the drain ends: tasks that follow an open answer must finish now, so that it is still settled.
    cut: CancellationToken,
}

impl Tasks {
    /// Runs `task` to its end, whatever happens to its call. What it logs is in the span of the call.
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.0.tracker.spawn(task.in_current_span());
    }

    /// The same, unless [`Tasks::end`] was called, which would not wait for it; whether it runs.
    pub fn spawn_unless_ending(&self, task: impl Future<Output = ()> + Send + 'static) -> bool {
        // Counts as a task, so an end that begins after the look at it waits.
        let token = self.0.tracker.token();
        if self.is_ending() {
            return false;
        }
        self.0.tracker.spawn(task.in_current_span());
        drop(token);
        true
    }

    /// Runs `task` from a destructor, which may run after its runtime has ended; then nothing is left to run a task.
    pub fn spawn_if_possible(&self, task: impl Future<Output = ()> + Send + 'static) {
        if let Ok(runtime) = Handle::try_current() {
            self.0.tracker.spawn_on(task.in_current_span(), &runtime);
        }
    }

    /// Tasks that have not ended.
    #[must_use]
    pub fn count(&self) -> usize {
        self.0.tracker.len()
    }

    /// Tells tasks that follow an open answer to finish now, shortly before the drain ends, so that it is still settled; and calls
    /// that are open to be given up.
    pub fn cut(&self) {
        self.0.cut.cancel();
    }

    /// Resolves at [`Tasks::cut`].
    pub fn cut_off(&self) -> WaitForCancellationFuture<'_> {
        self.0.cut.cancelled()
    }

    /// Whether [`Tasks::cut`] was called.
    #[must_use]
    pub fn is_cut(&self) -> bool {
        self.0.cut.is_cancelled()
    }

    /// Whether [`Tasks::end`] was called.
    #[must_use]
    pub fn is_ending(&self) -> bool {
        self.0.stop.is_cancelled()
    }

    /// Waits, unless the service ends.
    pub async fn pause(&self, length: Duration) {
        tokio::select! {
            () = tokio::time::sleep(length) => {}
            () = self.0.stop.cancelled() => {}
        }
    }

    /// Waits even if the service ends, but then no longer than `at_end`; whether the whole `length` has passed.
    pub async fn sit_out(&self, length: Duration, at_end: Duration) -> bool {
        let whole = tokio::time::sleep(length);
        tokio::pin!(whole);
        tokio::select! {
            () = &mut whole => return true,
            () = self.0.stop.cancelled() => {}
        }
        tokio::time::timeout(at_end, whole).await.is_ok()
    }

    /// Ends all pauses, and waits until all tasks have ended.
    pub async fn end(&self) {
        self.0.stop.cancel();
        self.0.tracker.close();
        self.0.tracker.wait().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_sat_out_is_cut_only_by_its_bound() {
        let (tasks, short, long) = (Tasks::default(), Duration::from_millis(1), Duration::from_secs(3600));
        assert!(tasks.sit_out(short, Duration::ZERO).await);
        tasks.end().await;
        assert!(tasks.sit_out(short, long).await, "the end does not shorten it");
        assert!(!tasks.sit_out(long, short).await, "the end bounds it");
    }
    #[tokio::test]
    async fn an_end_waits_for_all_that_has_begun_and_nothing_begins_after_it() {
        let (tasks, (begin, begun)) = (Tasks::default(), tokio::sync::oneshot::channel::<()>());
        let (done, mut over) = tokio::sync::oneshot::channel();
        assert!(tasks.spawn_unless_ending(async move {
            let _ = begun.await;
            let _ = done.send(());
        }));
        let end = tasks.end();
        tokio::pin!(end);
        assert!(is_pending(end.as_mut()).await);
        assert!(!tasks.spawn_unless_ending(async {}));
        begin.send(()).unwrap();
        end.await;
        assert_eq!(over.try_recv(), Ok(()));
    }

    /// Whether a future still waits after it was asked once.
    async fn is_pending(mut future: std::pin::Pin<&mut impl Future<Output = ()>>) -> bool {
        std::future::poll_fn(|context| std::task::Poll::Ready(future.as_mut().poll(context).is_pending()))
            .await
    }
}
