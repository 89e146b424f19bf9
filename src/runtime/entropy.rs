//! Random numbers: the system's, or a sequence that a seed decides.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use thiserror::Error;

/// The system gives no random numbers.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("the system gives no random numbers: {0}")]
pub struct NoEntropy(#[source] getrandom::Error);

/// Gives random bytes.
#[derive(Clone, Default)]
pub enum Entropy {
    /// Those of the system, which no one can guess.
    #[default]
    System,
    /// The sequence of a seed, for runs that must be repeatable. Copies share it.
    Seeded(Arc<Mutex<blake3::OutputReader>>),
}

impl Entropy {
    /// The sequence of `seed`.
    #[must_use]
    pub fn seeded(seed: u64) -> Self {
        let stream = blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof();
        Self::Seeded(Arc::new(Mutex::new(stream)))
    }

    /// `N` random bytes. The system's take a system call.
    ///
    /// # Errors
    /// The system gives none.
    pub fn bytes<const N: usize>(&self) -> Result<[u8; N], NoEntropy> {
        let mut bytes = [0; N];
        match self {
            Self::System => getrandom::fill(&mut bytes).map_err(NoEntropy)?,
            // Nothing panics while it is held.
            Self::Seeded(stream) => {
                stream.lock().unwrap_or_else(PoisonError::into_inner).fill(&mut bytes);
            }
        }
        Ok(bytes)
    }
}

impl fmt::Debug for Entropy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::System => "System",
            Self::Seeded(_) => "Seeded",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_one_sequence_and_the_system_none_that_repeats() {
        let sequence = |entropy: &Entropy| [entropy.bytes::<16>().unwrap(), entropy.bytes().unwrap()];
        let first = sequence(&Entropy::seeded(7));
        assert_eq!(sequence(&Entropy::seeded(7)), first);
        assert_ne!(sequence(&Entropy::seeded(8)), first);
        assert_ne!(first[0], first[1]);
        let system = sequence(&Entropy::System);
        assert_ne!(system[0], system[1]);
    }
}
