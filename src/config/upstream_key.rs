//! The Groq key in force: read from where the policy says, and again when that changes.

use std::{
    fs, io,
    sync::{
        Arc,
        mpsc::{self, RecvTimeoutError},
    },
    thread,
    time::Duration,
};

use arc_swap::{ArcSwap, ArcSwapOption};

use crate::domain::{
    policy::{Policy, envoy::KeyPlace},
    upstream::UpstreamKey,
};

/// How often the key is looked at: the bound within which a changed file, or another place in the policy, is in force. A
/// read of a small file costs microseconds, and sees what no watch does: mounted secrets, network disks, swapped links.
const POLL: Duration = Duration::from_secs(1);
/// A key file is one short line; a wrong file is not read to its end.
const MAX_BYTES: u64 = 4096;

/// The Groq key in force; none where there is none.
pub type SharedUpstreamKey = Arc<ArcSwapOption<UpstreamKey>>;

/// Keeps the Groq key in force, until dropped.
#[derive(Debug)]
pub struct UpstreamKeySource {
    key: SharedUpstreamKey,
    /// Closed when dropped, which ends the thread.
    _running: mpsc::Sender<()>,
}

impl UpstreamKeySource {
    /// Reads the key from where `policy` says, now and every second from now on.
    ///
    /// # Errors
    /// Where no thread can be started.
    pub fn start(policy: Arc<ArcSwap<Policy>>) -> io::Result<Self> {
        let key = SharedUpstreamKey::default();
        let (running, ended) = mpsc::channel();
        let mut reader = Reader { key: Arc::clone(&key), said: None };
        reader.look(&policy.load().upstream_key);
        thread::Builder::new().name("upstream-key".to_owned()).spawn(move || {
            while ended.recv_timeout(POLL) == Err(RecvTimeoutError::Timeout) {
                reader.look(&policy.load().upstream_key);
            }
        })?;
        Ok(Self { key, _running: running })
    }

    /// The key in force; the same pointer for ever, so it can be kept.
    #[must_use]
    pub fn key(&self) -> SharedUpstreamKey {
        Arc::clone(&self.key)
    }
}

struct Reader {
    key: SharedUpstreamKey,
    /// What was said last of a key that cannot be had, so that it is said once.
    said: Option<String>,
}

impl Reader {
    /// A key that cannot be read (a file that is being replaced) leaves the one in force.
    fn look(&mut self, place: &KeyPlace) {
        match read(place) {
            Ok(key) => {
                self.said = None;
                if self.key.load().as_deref() != Some(&key) {
                    self.key.store(Some(Arc::new(key)));
                    tracing::info!(place = %shown(place), "the Groq key is in force");
                }
            }
            Err(reason) => {
                let absent = self.key.load().is_none();
                if self.said.as_ref() != Some(&reason) {
                    // Whoever does not use Envoy needs no key.
                    match (absent, place) {
                        (true, KeyPlace::Environment(_)) => {
                            tracing::debug!(place = %shown(place), reason, "there is no Groq key")
                        }
                        _ => tracing::warn!(place = %shown(place), reason, "the Groq key cannot be read"),
                    }
                    self.said = Some(reason);
                }
            }
        }
    }
}

fn shown(place: &KeyPlace) -> String {
    match place {
        KeyPlace::Environment(name) => format!("environment variable {name}"),
        KeyPlace::File(path) => path.display().to_string(),
    }
}

fn read(place: &KeyPlace) -> Result<UpstreamKey, String> {
    let text = match place {
        KeyPlace::Environment(name) => std::env::var(name).map_err(|_| "it is not set".to_owned())?,
        KeyPlace::File(path) => {
            let size = fs::metadata(path).map_err(|error| error.to_string())?.len();
            if size > MAX_BYTES {
                return Err(format!("{size} bytes are more than a key has"));
            }
            fs::read_to_string(path).map_err(|error| error.to_string())?
        }
    };
    UpstreamKey::parse(&text).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reader() -> Reader {
        Reader { key: SharedUpstreamKey::default(), said: None }
    }

    fn bearer(reader: &Reader) -> Option<String> {
        reader.key.load().as_ref().map(|key| key.bearer().to_owned())
    }

    #[test]
    fn a_changed_file_is_read_again_and_a_missing_one_changes_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let place = KeyPlace::File(directory.path().join("key"));
        let mut reader = reader();
        reader.look(&place);
        assert_eq!(bearer(&reader), None);
        for (text, expected) in [("gsk_one\n", "Bearer gsk_one"), ("gsk_two", "Bearer gsk_two")] {
            fs::write(directory.path().join("key"), text).unwrap();
            reader.look(&place);
            assert_eq!(bearer(&reader).as_deref(), Some(expected));
        }
        for text in ["", "two words", &"x".repeat(5000)] {
            fs::write(directory.path().join("key"), text).unwrap();
            reader.look(&place);
            assert_eq!(bearer(&reader).as_deref(), Some("Bearer gsk_two"), "{text:?}");
        }
        fs::remove_file(directory.path().join("key")).unwrap();
        reader.look(&place);
        assert_eq!(bearer(&reader).as_deref(), Some("Bearer gsk_two"));
    }
}
