//! Reads the Groq keys from the places that the policy names, and reads them again whenever they change.

use std::{collections::HashMap, io, path::PathBuf, sync::Arc, time::SystemTime};

use arc_swap::ArcSwap;
use tracing::{Span, debug, warn};

use super::{
    LiveKey, MAX_LIVE, UpstreamKeys,
    reading::{Candidate, NOT_SET, milliseconds, read},
};
use crate::domain::{
    Timestamp,
    policy::{
        Policy,
        upstream::{GroqKeys, KeyPlace, Projects},
    },
};
use crate::watch::{FileSource, Pace, Watch};

/// Keeps the Groq keys in force up to date until it is dropped.
#[derive(Debug)]
pub struct UpstreamKeySource {
    keys: Arc<UpstreamKeys>,
    _watch: Watch<KeyFiles>,
}

impl UpstreamKeySource {
    /// Reads the keys from the places in `policy`, now and whenever the files change or the policy names other places. `named`: places that
    /// are read instead of those.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub fn start(policy: Arc<ArcSwap<Policy>>, named: GroqKeys) -> io::Result<Self> {
        let keys = Arc::<UpstreamKeys>::default();
        let places = KeyPlaces::new(Arc::clone(&keys));
        let mut files = KeyFiles { policy, named, places, odd: Default::default(), span: Span::current() };
        let content = files.read();
        let seen = KeyFiles::digest(&content);
        files.put_in_force(content);
        Ok(Self { keys, _watch: Watch::start("upstream-keys", files, seen, Pace::WITHIN_A_SECOND)? })
    }

    /// The keys in force.
    #[must_use]
    pub fn keys(&self) -> Arc<UpstreamKeys> {
        Arc::clone(&self.keys)
    }
}

/// A place of a project, and the keys that are there, or why there are none.
struct Reading {
    at: (Arc<str>, KeyPlace),
    keys: Result<Vec<Candidate>, String>,
}

/// The files that the settings name, or else the policy.
struct KeyFiles {
    policy: Arc<ArcSwap<Policy>>,
    named: GroqKeys,
    places: KeyPlaces,
    /// The projects without a place, and those that only the settings have, as they were said.
    odd: (Vec<String>, Vec<String>),
    /// For what is logged of it.
    span: Span,
}

impl FileSource for KeyFiles {
    const NAME: &'static str = "the Groq key files";

    type Content = Vec<Reading>;

    fn paths(&self) -> Vec<PathBuf> {
        let policy = self.policy.load();
        let projects = policy.projects.all().iter();
        let places = projects.flat_map(|project| self.named.places(&policy.organization.id, project));
        let paths = places.filter_map(|place| match place {
            KeyPlace::Environment(_) => None,
            KeyPlace::File(path) | KeyPlace::Directory(path) => Some(path.clone()),
        });
        paths.collect()
    }

    fn read(&self) -> Vec<Reading> {
        let policy = self.policy.load();
        self.places.read((&policy.organization.id, &policy.projects), &self.named)
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
        self.put_in_force(content);
        true
    }
}

impl KeyFiles {
    fn put_in_force(&mut self, content: Vec<Reading>) {
        let span = self.span.clone();
        let _span = span.enter();
        let policy = self.policy.load();
        let organization = &*policy.organization.id;
        let projects = policy.projects.all().iter();
        let without = projects.filter(|project| self.named.places(organization, project).is_empty());
        let without: Vec<_> = without.map(|project| project.name.to_string()).collect();
        let unknown = self.named.unknown(organization, &policy.projects).map(str::to_owned).collect();
        let before = std::mem::replace(&mut self.odd, (without, unknown));
        if before != self.odd {
            for project in &self.odd.0 {
                warn!(
                    organization,
                    project,
                    "a project has no Groq key: name a place in `groq_keys` of the settings, or in the policy"
                );
            }
            for project in &self.odd.1 {
                warn!(
                    organization,
                    project, "`groq_keys` of the settings has a project that the policy does not have"
                );
            }
        }
        self.places.put_in_force(content);
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

    fn read(&self, (organization, projects): (&str, &Projects), named: &GroqKeys) -> Vec<Reading> {
        let places = projects.all().iter().flat_map(|project| {
            let places = named.places(organization, project).iter();
            places.map(|place| (Arc::clone(&project.name), place.clone()))
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
            warn!(project = %at.0, place = odd.place, "a Groq key does not begin with `gsk_`; it is used as it stands");
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
                        true => debug!(%project, place, error = reason, "there is no Groq key"),
                        false => warn!(%project, place, error = reason, "a Groq key cannot be read"),
                    }
                    self.said.insert(at, reason);
                }
                last
            }
        }
    }
}

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

#[cfg(test)]
mod tests {
    use std::{
        fs::{self, File},
        path::Path,
        time::Duration,
    };

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
        let content = reader.read(("acme", projects), &GroqKeys::default());
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
    #[test]
    fn places_of_the_settings_stand_before_those_of_the_policy() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        write(&path("of-policy"), "gsk_policy", 2);
        write(&path("of-settings"), "gsk_settings", 1);
        let project = |name: &str, places| Project { name: name.into(), places };
        let lab = (project("lab", Vec::new()), Some(vec!["a".into()]));
        let of_policy = vec![KeyPlace::File(path("of-policy"))];
        let projects = Projects::new(vec![(project("main", of_policy.clone()), None), lab]);
        let mut reader = KeyPlaces::new(Arc::default());
        let mut read = |named: &GroqKeys| {
            let content = reader.read(("acme", &projects), named);
            reader.put_in_force(content);
            let bearer = |project| reader.keys.pick(project).map(|key| key.bearer().to_owned());
            ["main", "lab"].map(bearer)
        };
        assert_eq!(read(&GroqKeys::default()), [Some("Bearer gsk_policy".to_owned()), None]);
        let mut named = GroqKeys::default();
        named.insert("", "main", vec![KeyPlace::File(path("of-settings"))]);
        named.insert("acme", "lab", of_policy.clone());
        named.insert("", "gone", of_policy.clone());
        named.insert("other", "elsewhere", of_policy);
        assert_eq!(named.unknown("acme", &projects).collect::<Vec<_>>(), ["gone"]);
        assert_eq!(read(&named), ["settings", "policy"].map(|of| Some(format!("Bearer gsk_{of}"))));
    }
}
