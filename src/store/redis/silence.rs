//! How many calls in a row had no answer on one connection.

use std::sync::atomic::{AtomicU64, Ordering};

/// A connection's number in the upper half, and its calls without an answer since its last answer in the lower. What an earlier
/// connection owes is not asked of the next, and what it answers does not speak for the next. It orders nothing else.
#[derive(Debug, Default)]
pub(super) struct Silence(AtomicU64);

const HALF: u32 = 32;
const LOWER: u64 = (1 << HALF) - 1;

impl Silence {
    /// A call on the connection `number` had no answer; returns how many in a row that makes.
    pub(super) fn missed(&self, number: u64) -> u32 {
        let count = |packed| if is_of(packed, number) { count(packed).saturating_add(1) } else { 1 };
        let update = |packed| Some(packed_of(number, count(packed)));
        match self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, update) {
            Ok(before) | Err(before) => count(before),
        }
    }

    /// The connection `number` answered.
    pub(super) fn answered(&self, number: u64) {
        let packed = self.0.load(Ordering::Relaxed);
        if is_of(packed, number) && count(packed) != 0 {
            self.0.store(packed_of(number, 0), Ordering::Relaxed);
        }
    }

    /// Whether the last call on the connection `number` had no answer.
    pub(super) fn is_silent(&self, number: u64) -> bool {
        let packed = self.0.load(Ordering::Relaxed);
        is_of(packed, number) && count(packed) != 0
    }
}

fn packed_of(number: u64, count: u32) -> u64 {
    // Numbers come back after four billion connections.
    (number << HALF) | u64::from(count)
}

fn is_of(packed: u64, number: u64) -> bool {
    packed >> HALF == number & LOWER
}

fn count(packed: u64) -> u32 {
    u32::try_from(packed & LOWER).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_connection_is_charged_its_own_silence() {
        let silence = Silence::default();
        assert_eq!([silence.missed(1), silence.missed(1)], [1, 2]);
        assert!(silence.is_silent(1) && !silence.is_silent(2));
        silence.answered(2);
        assert_eq!(silence.missed(1), 3, "another one answered");
        assert_eq!(silence.missed(2), 1, "the first one's silence is not its");
        silence.answered(1);
        assert!(silence.is_silent(2));
        silence.answered(2);
        assert!(!silence.is_silent(2));
        assert_eq!(silence.missed(2), 1);
    }
}
