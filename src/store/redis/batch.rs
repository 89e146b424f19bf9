//! What the batches of reservations and of settlements share: places of counters and gates, and calls that are sent one by one.

use std::{collections::HashMap, future, hash::Hash, task::Poll};

use super::wire::size;

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

/// The answers of `calls`, which are all sent before the first is answered, in their order. So the server comes to them in that order,
/// unless it has to learn a script first.
pub(super) async fn each<F: Future>(calls: impl Iterator<Item = F>) -> Vec<F::Output> {
    let mut calls: Vec<_> = calls.map(|call| (Box::pin(call), None)).collect();
    future::poll_fn(|context| {
        let mut are_ready = true;
        for (call, answer) in &mut calls {
            if answer.is_none()
                && let Poll::Ready(ready) = call.as_mut().poll(context)
            {
                *answer = Some(ready);
            }
            are_ready &= answer.is_some();
        }
        if are_ready { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
    calls.into_iter().filter_map(|(_, answer)| answer).collect()
}
