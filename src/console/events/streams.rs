//! How many streams there are at the same time, and their end.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    time::timeout,
};

use crate::console::fault::Fault;

/// Streams at the same time, of all readers together.
const MAX: usize = 64;
/// Of one reader: a browser opens six connections to a host at most, and one person may have more than one browser.
const MAX_OF_READER: usize = 8;
/// How long the end of all streams is waited for.
const END: Duration = Duration::from_secs(1);

/// The streams of a process. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Streams {
    places: Arc<Semaphore>,
    readers: Arc<Mutex<HashMap<String, usize>>>,
    stop: Arc<watch::Sender<bool>>,
}

/// The place of one stream, until dropped.
#[derive(Debug)]
pub(super) struct Place {
    _place: OwnedSemaphorePermit,
    reader: String,
    readers: Arc<Mutex<HashMap<String, usize>>>,
}

impl Default for Streams {
    fn default() -> Self {
        Self {
            places: Arc::new(Semaphore::new(MAX)),
            readers: Arc::default(),
            stop: Arc::new(watch::channel(false).0),
        }
    }
}

impl Streams {
    /// Ends all of them: none ends by itself. Their readers are told, within a bound.
    pub async fn end(&self) {
        self.stop.send_replace(true);
        let all = u32::try_from(MAX).unwrap_or(u32::MAX);
        // A reader that takes nothing is left.
        let _ = timeout(END, self.places.acquire_many(all)).await;
    }

    /// Tells when they are to end.
    pub(super) fn stops(&self) -> watch::Receiver<bool> {
        self.stop.subscribe()
    }

    /// A place for a stream of `reader`.
    ///
    /// # Errors
    /// The reader, or all readers together, have as many as may be.
    pub(super) fn place(&self, reader: &str) -> Result<Place, Fault> {
        let mut readers = lock(&self.readers);
        let count = readers.get(reader).copied().unwrap_or_default();
        if count >= MAX_OF_READER {
            return Err(Fault::too_many_streams_of_reader(MAX_OF_READER));
        }
        let place = Arc::clone(&self.places).try_acquire_owned().map_err(|_| Fault::too_many_streams())?;
        readers.insert(reader.to_owned(), count + 1);
        Ok(Place { _place: place, reader: reader.to_owned(), readers: Arc::clone(&self.readers) })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut readers = lock(&self.readers);
        if let Some(count) = readers.get_mut(&self.reader) {
            *count -= 1;
            if *count == 0 {
                readers.remove(&self.reader);
            }
        }
    }
}

fn lock(readers: &Mutex<HashMap<String, usize>>) -> MutexGuard<'_, HashMap<String, usize>> {
    // A panic while holding the lock leaves only whole entries behind.
    readers.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn one_reader_leaves_room_for_others() {
        let streams = Streams::default();
        let take = |reader: &str| streams.place(reader);
        let mut own: Vec<_> = (0..MAX_OF_READER).map(|_| take("ada").unwrap()).collect();
        assert!(take("ada").is_err());
        let mut others: Vec<_> =
            (MAX_OF_READER..MAX).map(|number| take(&format!("{}", number / 8)).unwrap()).collect();
        assert!(take("bob").is_err(), "all places are taken");
        own.pop();
        assert!(take("bob").is_ok());
        assert!(take("ada").is_ok());
        own.clear();
        others.clear();
        assert!(lock(&streams.readers).is_empty(), "readers without streams are forgotten");
        streams.end().await;
    }
}
