//! What happens in one run: faults in an order that a seed decides.

use std::time::Duration;

/// What the length of a run is set by, in seconds, and its seed: `make chaos`.
const SECONDS: &str = "TOLLGATE_CHAOS_SECONDS";
const SEED: &str = "TOLLGATE_CHAOS_SEED";

/// Small pseudo-random numbers (SplitMix64).
pub(super) struct Dice(u64);

impl Dice {
    /// Below `sides`.
    pub(super) fn roll(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((z ^ (z >> 31)) % sides as u64).unwrap()
    }
}

/// Faults one after another: each of `all` once in an order that the seed decides, and again in another order for as long as the run is to
/// take.
pub(super) struct Plan<F> {
    dice: Dice,
    all: Vec<F>,
    due: Vec<F>,
    least: usize,
    until: std::time::Instant,
}

impl<F: Copy> Plan<F> {
    /// The plan of the run `name`: of `least` faults if no length is set.
    pub(super) fn new(name: &str, all: &[F], least: usize) -> Self {
        let from_environment =
            |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        let seed = from_environment(SEED).unwrap_or(u64::from(now.subsec_nanos()) ^ now.as_secs());
        let seconds = from_environment(SECONDS);
        println!("chaos {name}: {SEED}={seed}");
        let until = std::time::Instant::now() + Duration::from_secs(seconds.unwrap_or(0));
        Self { dice: Dice(seed), all: all.to_vec(), due: Vec::new(), least, until }
    }

    pub(super) const fn dice(&mut self) -> &mut Dice {
        &mut self.dice
    }

    /// The next one; `None`: the run is over.
    pub(super) fn next(&mut self) -> Option<F> {
        if self.least == 0 && std::time::Instant::now() >= self.until {
            return None;
        }
        self.least = self.least.saturating_sub(1);
        if self.due.is_empty() {
            self.due.clone_from(&self.all);
        }
        let place = self.dice.roll(self.due.len());
        Some(self.due.swap_remove(place))
    }
}
