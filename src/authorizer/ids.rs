//! Ids of reservations that are not derived from a `request_id`.

use std::sync::{Mutex, PoisonError};

use tracing::error;

use super::Failure;
use crate::{runtime::Entropy, store::ReservationId};

/// Gives unguessable ids on one core, without a system call for each. The lock is held for a few nanoseconds, and other cores
/// have their own.
#[derive(Debug)]
pub(super) struct Ids {
    entropy: Entropy,
    /// `None`: no id was needed yet.
    stream: Mutex<Option<IdStream>>,
}

impl Ids {
    pub(super) fn new(entropy: Entropy) -> Self {
        Self { entropy, stream: Mutex::default() }
    }

    /// The next id.
    pub(super) fn next(&self) -> Result<ReservationId, Failure> {
        // Nothing panics while it is held.
        let mut stream = self.stream.lock().unwrap_or_else(PoisonError::into_inner);
        match &mut *stream {
            Some(stream) => Ok(stream.next()),
            None => {
                let seed = self.entropy.bytes().map_err(|error| {
                    error!(%error, "no reservation can be named");
                    Failure::Internal
                })?;
                Ok(stream.insert(IdStream::new(&seed)).next())
            }
        }
    }
}

/// A stream of ids from one random seed.
#[derive(Debug)]
struct IdStream {
    stream: blake3::OutputReader,
    ready: Vec<[u8; 16]>,
}

impl IdStream {
    /// Ids made at once: the hash gives 64 bytes for the price of 16, and more for less.
    const BATCH: usize = 64;

    fn new(seed: &[u8; 32]) -> Self {
        Self { stream: blake3::Hasher::new_keyed(seed).finalize_xof(), ready: Vec::new() }
    }

    fn next(&mut self) -> ReservationId {
        if self.ready.is_empty() {
            self.ready.resize(Self::BATCH, [0; 16]);
            self.stream.fill(self.ready.as_flattened_mut());
        }
        ReservationId::versioned(self.ready.pop().unwrap_or_default())
    }
}
