//! Time and random numbers, which tests and simulations replace, tasks that outlive their call, and
//! directories that outlive nothing.

pub mod clock;
mod entropy;
pub mod lines;
mod log_span;
mod replica;
#[cfg(test)]
pub(crate) mod simulated;
mod tasks;
mod temporary;

pub use entropy::{Entropy, NoEntropy};
pub use log_span::{ORGANIZATION_FIELD, organization_span};
pub use replica::replica_name;
pub use tasks::Tasks;
pub use temporary::TemporaryDirectory;

use clock::Clock;

/// How tables are hashed whose order decides what happens next. Random, so that no caller can choose names that collide; always the same in
/// unit tests, where a simulation has to be repeatable.
#[cfg(not(test))]
pub(crate) type Hashing = std::collections::hash_map::RandomState;
/// See the other.
#[cfg(test)]
pub(crate) type Hashing = std::hash::BuildHasherDefault<std::collections::hash_map::DefaultHasher>;

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
