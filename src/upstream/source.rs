//! Reads the Groq keys from the places that the policy names, and reads them again whenever they change.

use std::{
    collections::HashMap,
    env::VarError,
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::SystemTime,
};

use arc_swap::ArcSwap;

use super::{LiveKey, MAX_LIVE, UpstreamKeys};
use crate::domain::{
    Timestamp,
    policy::{
        Policy,
        upstream::{KeyPlace, Projects},
    },
    secret::MalformedSecret,
    upstream::UpstreamKey,
};
use crate::watch::{FileSource, Pace, Watch};

/// A key file is one short line; a wrong file is not read to its end.
const MAX_BYTES: u64 = 4096;
/// The most files of a directory that are read; a mounted secret has a few.
const MAX_FILES: usize = 64;

/// Keeps the Groq keys in force up to date until it is dropped.
#[derive(Debug)]
pub struct UpstreamKeySource {
    keys: Arc<UpstreamKeys>,
    _watch: Watch<KeyFiles>,
}

impl UpstreamKeySource {
    /// Reads the keys from the places in `policy`, now and whenever the files change or the policy names other places.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub fn start(policy: Arc<ArcSwap<Policy>>) -> io::Result<Self> {
        let keys = Arc::<UpstreamKeys>::default();
        let mut files = KeyFiles { policy, places: KeyPlaces::new(Arc::clone(&keys)) };
        let content = files.read();
        let seen = KeyFiles::digest(&content);
        files.places.put_in_force(content);
        Ok(Self { keys, _watch: Watch::start("upstream-keys", files, seen, Pace::WITHIN_A_SECOND)? })
    }

    /// The keys in force.
    #[must_use]
    pub fn keys(&self) -> Arc<UpstreamKeys> {
        Arc::clone(&self.keys)
    }
}

/// A key, the place where it was found, and when it became available.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Candidate {
    key: UpstreamKey,
    place: String,
    since: Timestamp,
}

/// What is at a place of Groq keys; never a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeysAtPlace {
    /// How many keys are there.
    pub count: usize,
    /// Whether each begins as Groq's do.
    pub look_like_groq: bool,
}

/// Looks for keys at `place`, as the service does.
///
/// # Errors
/// Why there is none, in words that hold no key. [`None`]: an environment variable that is not set.
pub fn keys_at(place: &KeyPlace) -> Result<KeysAtPlace, Option<String>> {
    let keys = read(place, milliseconds(SystemTime::now()));
    let keys = keys.map_err(|reason| Some(reason).filter(|reason| reason != NOT_SET))?;
    let look_like_groq = keys.iter().all(|candidate| candidate.key.looks_like_groq());
    Ok(KeysAtPlace { count: keys.len(), look_like_groq })
}

/// A place of a project, and the keys that are there, or why there are none.
struct Reading {
    at: (Arc<str>, KeyPlace),
    keys: Result<Vec<Candidate>, String>,
}

/// The files that the policy names.
struct KeyFiles {
    policy: Arc<ArcSwap<Policy>>,
    places: KeyPlaces,
}

impl FileSource for KeyFiles {
    const NAME: &'static str = "the Groq key files";

    type Content = Vec<Reading>;

    fn paths(&self) -> Vec<PathBuf> {
        let policy = self.policy.load();
        let places = policy.projects.all().iter().flat_map(|project| &project.places);
        let paths = places.filter_map(|place| match place {
            KeyPlace::Environment(_) => None,
            KeyPlace::File(path) | KeyPlace::Directory(path) => Some(path.clone()),
        });
        paths.collect()
    }

    fn read(&self) -> Vec<Reading> {
        self.places.read(&self.policy.load().projects)
    }

    fn digest(content: &Vec<Reading>) -> blake3::Hash {
        let mut hasher = blake3::Hasher::new();
        let mut feed = |bytes: &[u8]| {
            hasher.update(&bytes.len().to_le_bytes());
            hasher.update(bytes);
        };
        for Reading { at: (project, place), keys } in content {
            feed(project.as_bytes());
            feed(place.to_string().as_bytes());
            match keys {
                Ok(keys) => {
                    feed(&keys.len().to_le_bytes());
                    for Candidate { key, place, since } in keys {
                        feed(key.bearer().as_bytes());
                        feed(place.as_bytes());
                        feed(&since.0.to_le_bytes());
                    }
                }
                Err(reason) => feed(reason.as_bytes()),
            }
        }
        hasher.finalize()
    }

    /// Always good: a place without a valid key keeps its last one.
    fn apply(&mut self, content: Vec<Reading>, _: bool) -> bool {
        self.places.put_in_force(content);
        true
    }
}

/// What is known about each place.
struct KeyPlaces {
    keys: Arc<UpstreamKeys>,
    started: Timestamp,
    /// The last keys from each place: while a file is being replaced, its previous key remains.
    last: HashMap<(Arc<str>, KeyPlace), Vec<Candidate>>,
    /// The last message about a place without a valid key, so each message is logged once.
    said: HashMap<(Arc<str>, KeyPlace), String>,
}

impl KeyPlaces {
    fn new(keys: Arc<UpstreamKeys>) -> Self {
        let (last, said) = (HashMap::new(), HashMap::new());
        Self { keys, started: milliseconds(SystemTime::now()), last, said }
    }

    fn read(&self, projects: &Projects) -> Vec<Reading> {
        let places = projects.all().iter().flat_map(|project| {
            project.places.iter().map(|place| (Arc::clone(&project.name), place.clone()))
        });
        places.map(|at| Reading { keys: read(&at.1, self.started), at }).collect()
    }

    fn put_in_force(&mut self, content: Vec<Reading>) {
        self.last.retain(|at, _| content.iter().any(|reading| reading.at == *at));
        self.said.retain(|at, _| content.iter().any(|reading| reading.at == *at));
        let mut candidates: HashMap<Arc<str>, Vec<Candidate>> = HashMap::new();
        for Reading { at, keys } in content {
            let of_project = candidates.entry(Arc::clone(&at.0)).or_default();
            of_project.extend(self.usable(at, keys));
        }
        let live = candidates.into_iter().map(|(project, keys)| (Arc::clone(&project), live(&project, keys)));
        self.keys.replace(live.collect());
    }

    /// Warns once about each key that does not look like one of Groq's. The key is used anyway: a proxy may expect a
    /// different one.
    fn warn_of_odd(&mut self, at: &(Arc<str>, KeyPlace), keys: &[Candidate]) {
        let Some(odd) = keys.iter().find(|candidate| !candidate.key.looks_like_groq()) else {
            self.said.remove(at);
            return;
        };
        let said = odd.key.fingerprint();
        if self.said.get(at) != Some(&said) {
            tracing::warn!(project = %at.0, place = odd.place, "a Groq key does not begin with `gsk_`; it is used as it stands");
            self.said.insert(at.clone(), said);
        }
    }

    /// The keys to use of those that were read at a place.
    fn usable(&mut self, at: (Arc<str>, KeyPlace), keys: Result<Vec<Candidate>, String>) -> Vec<Candidate> {
        match keys {
            Ok(keys) => {
                self.warn_of_odd(&at, &keys);
                self.last.insert(at, keys.clone());
                keys
            }
            Err(reason) => {
                let last = self.last.get(&at).cloned().unwrap_or_default();
                if self.said.get(&at) != Some(&reason) {
                    let (project, place) = (&at.0, at.1.to_string());
                    // Without Envoy no key is needed.
                    match reason == NOT_SET && last.is_empty() {
                        true => tracing::debug!(%project, place, error = reason, "there is no Groq key"),
                        false => tracing::warn!(%project, place, error = reason, "a Groq key cannot be read"),
                    }
                    self.said.insert(at, reason);
                }
                last
            }
        }
    }
}

/// The message for a variable that is not set.
const NOT_SET: &str = "it is not set";

/// The newest keys, each once.
fn live(project: &Arc<str>, mut candidates: Vec<Candidate>) -> Vec<LiveKey> {
    // Of equally new ones, the first that the policy names.
    candidates.sort_by_key(|candidate| std::cmp::Reverse(candidate.since));
    let mut keys: Vec<LiveKey> = Vec::new();
    for Candidate { key, place, since } in candidates {
        let key = LiveKey::new(project, key, place, since);
        if keys.len() < MAX_LIVE && keys.iter().all(|known| known.id != key.id) {
            keys.push(key);
        }
    }
    keys
}

fn read(place: &KeyPlace, started: Timestamp) -> Result<Vec<Candidate>, String> {
    match place {
        KeyPlace::Environment(name) => {
            let text = std::env::var(name).map_err(|error| match error {
                VarError::NotPresent => NOT_SET.to_owned(),
                VarError::NotUnicode(_) => MalformedSecret::NotOneWord.to_string(),
            })?;
            Ok(vec![candidate(&text, place.to_string(), started)?])
        }
        KeyPlace::File(path) => Ok(vec![read_file(path)?]),
        KeyPlace::Directory(path) => {
            let entries = fs::read_dir(path).map_err(|error| error.to_string())?;
            let files =
                entries.filter_map(Result::ok).map(|entry| entry.path()).filter(|path| is_secret(path));
            let mut files: Vec<_> = files.collect();
            files.sort();
            // One invalid key file does not remove the others.
            let keys = files.iter().take(MAX_FILES).map(|file| read_file(file));
            let (keys, faults): (Vec<_>, Vec<_>) = keys.partition(Result::is_ok);
            match (keys.is_empty(), faults.into_iter().find_map(Result::err)) {
                (true, Some(fault)) => Err(fault),
                (true, None) => Err("the directory holds no file".to_owned()),
                (false, _) => Ok(keys.into_iter().filter_map(Result::ok).collect()),
            }
        }
    }
}

/// A file of a mounted secret, excluding the hidden ones that are used to swap it.
fn is_secret(path: &Path) -> bool {
    let hidden = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'));
    !hidden && path.is_file()
}

fn read_file(path: &Path) -> Result<Candidate, String> {
    let shown = path.display().to_string();
    let fault = |reason: String| format!("{shown}: {reason}");
    let metadata = fs::metadata(path).map_err(|error| fault(error.to_string()))?;
    if metadata.len() > MAX_BYTES {
        return Err(fault(format!("{} bytes are more than a key has", metadata.len())));
    }
    let text = fs::read_to_string(path).map_err(|error| fault(error.to_string()))?;
    let since = metadata.modified().map(milliseconds).unwrap_or_default();
    candidate(&text, shown.clone(), since).map_err(fault)
}

fn candidate(text: &str, place: String, since: Timestamp) -> Result<Candidate, String> {
    let key = UpstreamKey::parse(text).map_err(|error| error.to_string())?;
    Ok(Candidate { key, place, since })
}

fn milliseconds(time: SystemTime) -> Timestamp {
    let since_epoch = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Timestamp(u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use std::{fs::File, time::Duration};

    use super::*;
    use crate::domain::policy::upstream::Project;

    /// Writes a key with the modification time `second`.
    fn write(path: &Path, text: &str, second: u64) {
        fs::write(path, text).unwrap();
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(second);
        File::options().write(true).open(path).unwrap().set_modified(time).unwrap();
    }

    fn projects(places: Vec<KeyPlace>) -> Projects {
        Projects::new(vec![(Project { name: "main".into(), places }, None)])
    }

    fn look(reader: &mut KeyPlaces, projects: &Projects) {
        let content = reader.read(projects);
        reader.put_in_force(content);
    }

    fn used(reader: &KeyPlaces) -> Vec<String> {
        let keys = reader.keys.projects.load();
        keys["main"].iter().map(|key| key.bearer().trim_start_matches("Bearer ").to_owned()).collect()
    }

    #[test]
    fn a_changed_file_is_read_again_and_a_missing_one_changes_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key");
        let policy = projects(vec![KeyPlace::File(path.clone())]);
        let mut reader = KeyPlaces::new(Arc::default());
        look(&mut reader, &policy);
        assert!(used(&reader).is_empty());
        for (second, text) in [(1, "gsk_one\n"), (2, "gsk_two")] {
            write(&path, text, second);
            look(&mut reader, &policy);
            assert_eq!(used(&reader), [text.trim()]);
        }
        for text in ["", "two words", &"x".repeat(5000)] {
            write(&path, text, 3);
            look(&mut reader, &policy);
            assert_eq!(used(&reader), ["gsk_two"], "{text:?}");
        }
        fs::remove_file(&path).unwrap();
        look(&mut reader, &policy);
        assert_eq!(used(&reader), ["gsk_two"]);
    }

    #[test]
    fn the_two_newest_of_a_directory_are_live() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| -> PathBuf { directory.path().join(name) };
        let policy = projects(vec![KeyPlace::Directory(directory.path().to_owned())]);
        let mut reader = KeyPlaces::new(Arc::default());
        for (name, text, second) in
            [("a", "gsk_a", 1), ("b", "gsk_b", 3), ("c", "gsk_c", 2), (".hidden", "gsk_h", 9), ("bad", "", 9)]
        {
            write(&path(name), text, second);
        }
        look(&mut reader, &policy);
        assert_eq!(used(&reader), ["gsk_b", "gsk_c"]);
        // A key that was removed is no longer used.
        fs::remove_file(path("b")).unwrap();
        look(&mut reader, &policy);
        assert_eq!(used(&reader), ["gsk_c", "gsk_a"]);
    }

    #[test]
    fn the_same_key_in_two_places_is_one() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        write(&path("a"), "gsk_same", 1);
        write(&path("b"), "gsk_same", 2);
        let mut reader = KeyPlaces::new(Arc::default());
        look(&mut reader, &projects(vec![KeyPlace::File(path("a")), KeyPlace::File(path("b"))]));
        assert_eq!(used(&reader), ["gsk_same"]);
    }
}
