//! How often waiting requests may ask the store in vain.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

/// The time that one question in vain costs: 100 of them a second are about 1% of what one Redis decides, so those who wait
/// cost the others about that much.
const PER_QUESTION: Duration = Duration::from_millis(10);
/// Questions that may come at once after a quiet time.
const BURST: u32 = 100;

/// A bucket of questions for one process, first come first served. Real time on purpose: it protects a real store, also
/// where a test stops the clock by which requests wait.
#[derive(Debug, Default)]
pub(super) struct Pace(Mutex<Option<Instant>>);

impl Pace {
    /// Draws a question: when it may be asked.
    pub(super) fn draw(&self, now: Instant) -> Instant {
        let mut next = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let at = Self::earliest(*next, now);
        *next = at.checked_add(PER_QUESTION);
        at.max(now)
    }

    /// Draws a question if it may be asked now.
    pub(super) fn draw_now(&self, now: Instant) -> bool {
        let mut next = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let at = Self::earliest(*next, now);
        if at > now {
            return false;
        }
        *next = at.checked_add(PER_QUESTION);
        true
    }

    /// Returns a question that was not asked, or not in vain.
    pub(super) fn put_back(&self) {
        let mut next = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *next = next.and_then(|at| at.checked_sub(PER_QUESTION));
    }

    fn earliest(next: Option<Instant>, now: Instant) -> Instant {
        let filled = now.checked_sub(PER_QUESTION.saturating_mul(BURST - 1)).unwrap_or(now);
        next.map_or(filled, |at| at.max(filled))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_followed_by_an_even_pace() {
        // Far enough from the machine's start for a whole burst to lie behind.
        let (pace, now) = (Pace::default(), Instant::now() + Duration::from_secs(60));
        for _ in 0..BURST {
            assert!(pace.draw_now(now));
        }
        assert!(!pace.draw_now(now));
        assert_eq!(pace.draw(now), now + PER_QUESTION);
        assert_eq!(pace.draw(now), now + PER_QUESTION * 2);
        pace.put_back();
        assert_eq!(pace.draw(now), now + PER_QUESTION * 2);
    }
}
