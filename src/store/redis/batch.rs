//! What the batches of reservations and of settlements share: places of counters and gates, and answers one after the other.

use std::{collections::HashMap, hash::Hash};

use super::wire::{Reader, size};
use crate::store::StoreError;

/// Different things in the order in which they came first, and their places, which begin with 1 as in Lua.
pub(super) struct Places<K> {
    places: HashMap<K, u64>,
    keys: Vec<K>,
}

impl<K: Copy + Eq + Hash> Places<K> {
    pub(super) fn new() -> Self {
        Self { places: HashMap::new(), keys: Vec::new() }
    }

    /// The place of `key`, and whether it is new.
    pub(super) fn place(&mut self, key: K) -> (u64, bool) {
        let next = size(self.keys.len() + 1);
        let place = *self.places.entry(key).or_insert(next);
        if place == next {
            self.keys.push(key);
        }
        (place, place == next)
    }

    pub(super) fn keys(&self) -> &[K] {
        &self.keys
    }
}

/// The entry at a place of [`Places`].
pub(super) fn at<T>(entries: &mut [T], place: u64) -> Option<&mut T> {
    entries.get_mut(usize::try_from(place.checked_sub(1)?).ok()?)
}

/// The next answer of several, each behind its length. A length of 0 stands for a call that failed on the server.
pub(super) fn next_answer<'a>(reader: &mut Reader<'a>) -> Result<&'a [u8], StoreError> {
    match reader.size()? {
        0 => {
            tracing::error!("redis refused a call of several; a key of it holds foreign data");
            Err(StoreError::Corrupt)
        }
        length => reader.bytes(length),
    }
}
