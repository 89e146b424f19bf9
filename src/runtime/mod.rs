//! Time and random numbers, which tests and simulations replace, tasks that outlive their call, and
//! directories that outlive nothing.

pub mod clock;
mod entropy;
pub mod lines;
mod replica;
mod tasks;
mod temporary;

pub use entropy::{Entropy, NoEntropy};
pub use replica::replica_name;
pub use tasks::Tasks;
pub use temporary::TemporaryDirectory;

use clock::Clock;

/// The time and the random numbers of a service.
#[derive(Clone, Debug, Default)]
pub struct Runtime {
    /// Its clock.
    pub clock: Clock,
    /// Where its ids and secrets come from.
    pub entropy: Entropy,
}

impl From<Clock> for Runtime {
    fn from(clock: Clock) -> Self {
        Self { clock, entropy: Entropy::System }
    }
}
