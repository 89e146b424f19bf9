//! How often waiting requests may ask the store in vain.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::{sync::Notify, time::Instant};

/// The time that one question in vain costs: 100 of them a second are about 1% of what one Redis decides, so waiting requests
/// cost the others about that much.
const PER_QUESTION: Duration = Duration::from_millis(10);
/// Questions that may come at once after a quiet time, or be with the store at the same time.
const BURST: u32 = 100;

/// A bucket of questions for one process, first come, first served. A granted question is put back and lets the next go at
/// once, so only questions in vain cost time. Real time on purpose: it protects a real store, even if a test stops the clock
/// that requests wait by.
#[derive(Debug, Default)]
pub(super) struct Pace {
    /// When the next question may be asked. Held for a look.
    next: Mutex<Option<Instant>>,
    /// Held by the first request that draws, until it may ask.
    first: tokio::sync::Mutex<()>,
    /// Wakes it when a question was put back.
    returned: Notify,
}

impl Pace {
    /// Draws a question as soon as it may be asked. If it is dropped earlier, it has drawn none.
    pub(super) async fn draw(&self) {
        let _first = self.first.lock().await;
        while let Err(at) = self.try_draw(Instant::now()) {
            tokio::select! {
                biased;
                () = tokio::time::sleep_until(at) => {}
                () = self.returned.notified() => {}
            }
        }
    }

    /// Draws a question if it may be asked now.
    pub(super) fn draw_now(&self) -> bool {
        self.try_draw(Instant::now()).is_ok()
    }

    /// Returns a question that was not in vain.
    pub(super) fn put_back(&self) {
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        *next = next.and_then(|at| at.checked_sub(PER_QUESTION));
        drop(next);
        self.returned.notify_one();
    }

    /// Draws, or returns when the next may be drawn.
    fn try_draw(&self, now: Instant) -> Result<(), Instant> {
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        let filled = now.checked_sub(PER_QUESTION.saturating_mul(BURST - 1)).unwrap_or(now);
        let at = next.map_or(filled, |at| at.max(filled));
        if at > now {
            return Err(at);
        }
        *next = at.checked_add(PER_QUESTION);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn a_burst_is_followed_by_an_even_pace() {
        // Far enough from the machine's start for a whole burst to lie behind it.
        let (pace, now) = (Pace::default(), Instant::now() + Duration::from_secs(60));
        for _ in 0..BURST {
            assert!(pace.try_draw(now).is_ok());
        }
        assert_eq!(pace.try_draw(now), Err(now + PER_QUESTION));
        pace.put_back();
        assert!(pace.try_draw(now).is_ok());
        assert_eq!(pace.try_draw(now), Err(now + PER_QUESTION));
    }

    #[tokio::test]
    async fn what_is_granted_costs_no_time_and_what_is_in_vain_does() {
        // If all were in vain, those past the burst would take 11 seconds.
        let granted = time_of(1200, true).await;
        assert!(granted < Duration::from_secs(5), "{granted:?}");
        let in_vain = time_of(150, false).await;
        assert!(in_vain >= PER_QUESTION * 50, "{in_vain:?}");
    }

    /// How long this many questions take if they are drawn at once.
    async fn time_of(crowd: usize, granted: bool) -> Duration {
        let (pace, begin) = (Arc::new(Pace::default()), Instant::now());
        let questions = (0..crowd).map(|_| {
            let pace = Arc::clone(&pace);
            tokio::spawn(async move {
                pace.draw().await;
                tokio::task::yield_now().await;
                if granted {
                    pace.put_back();
                }
            })
        });
        for question in questions.collect::<Vec<_>>() {
            question.await.unwrap();
        }
        begin.elapsed()
    }
}
