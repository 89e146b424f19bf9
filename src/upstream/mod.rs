//! The organization's own Groq keys: which of a project's is used, when it was used last, and which one Groq refuses.
//!
//! A project has at most two live keys, so that one can be replaced without a pause: the newest is used. When Groq refuses it
//! (401), the other one is used at once, until the refused one changes. Where all are refused the newest is tried on, since
//! nothing better is known.

mod source;

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use arc_swap::ArcSwap;
use tracing::error;

pub use self::source::UpstreamKeySource;
use crate::domain::{Timestamp, upstream::UpstreamKey};

/// The keys of a project that are in use at once: the newest, and the one that it replaces.
pub const MAX_LIVE: usize = 2;

/// The Groq keys in force, shared by all cores. What is counted of them is of this process alone.
#[derive(Debug, Default)]
pub struct UpstreamKeys {
    projects: ArcSwap<HashMap<Arc<str>, Vec<Arc<LiveKey>>>>,
}

/// A Groq key in force.
#[derive(Debug)]
pub struct LiveKey {
    /// Names it without telling it: the project and a digest, `main/1f2e3d4c`.
    pub id: Arc<str>,
    /// The project.
    pub project: Arc<str>,
    /// Where it was found, for people.
    pub place: String,
    /// Since when it is there: when its file was written, or the service started.
    pub since: Timestamp,
    key: UpstreamKey,
    uses: AtomicU64,
    /// 0: never. Plain numbers without an order among them: each is only shown, but `refused_at`, which decides alone.
    last_used: AtomicU64,
    refused_at: AtomicU64,
}

/// What a key is used for now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyUse {
    /// Requests go out with it.
    Used,
    /// It would be, if the other were refused.
    Standby,
    /// Groq refused it.
    Refused,
}

impl LiveKey {
    fn new(project: &Arc<str>, key: UpstreamKey, place: String, since: Timestamp) -> Self {
        let id = format!("{project}/{}", key.fingerprint()).into();
        let (uses, last_used, refused_at) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
        Self { id, project: Arc::clone(project), place, since, key, uses, last_used, refused_at }
    }

    /// The value of the `authorization` header.
    #[must_use]
    pub fn bearer(&self) -> &str {
        self.key.bearer()
    }

    /// A request goes out with it at `now`.
    pub fn used(&self, now: Timestamp) {
        self.uses.fetch_add(1, Ordering::Relaxed);
        self.last_used.store(now.0, Ordering::Relaxed);
    }

    /// Requests that went out with it.
    #[must_use]
    pub fn uses(&self) -> u64 {
        self.uses.load(Ordering::Relaxed)
    }

    /// When the last one did.
    #[must_use]
    pub fn last_used(&self) -> Option<Timestamp> {
        at(&self.last_used)
    }

    /// When Groq refused it.
    #[must_use]
    pub fn refused_at(&self) -> Option<Timestamp> {
        at(&self.refused_at)
    }
}

fn at(time: &AtomicU64) -> Option<Timestamp> {
    Some(time.load(Ordering::Relaxed)).filter(|ms| *ms > 0).map(Timestamp)
}

impl UpstreamKeys {
    /// The key with which requests of `project` go out; `None` where the project has none.
    #[must_use]
    pub fn pick(&self, project: &str) -> Option<Arc<LiveKey>> {
        best(self.projects.load().get(project)?).cloned()
    }

    /// Groq refused the key called `id`: the other one is used from now on. An id that is not in force changes nothing, as
    /// the answer to an old key may come late.
    pub fn refused(&self, id: &str, now: Timestamp) {
        let projects = self.projects.load();
        let Some(keys) = projects.values().find(|keys| keys.iter().any(|key| &*key.id == id)) else { return };
        for key in keys.iter().filter(|key| &*key.id == id) {
            // Many requests may be under way with it; one alert is enough.
            if key.refused_at.swap(now.0.max(1), Ordering::Relaxed) > 0 {
                return;
            }
            match best(keys).filter(|best| best.refused_at().is_none()) {
                Some(other) => {
                    error!(key = id, place = key.place, falls_back_to = %other.id, "Groq refuses an upstream key")
                }
                None => {
                    error!(key = id, place = key.place, "Groq refuses the last upstream key of its project")
                }
            }
        }
    }

    /// All keys, by project, the newest first, with what they are used for.
    #[must_use]
    pub fn all(&self) -> Vec<(Arc<LiveKey>, KeyUse)> {
        let projects = self.projects.load();
        let mut names: Vec<_> = projects.keys().collect();
        names.sort();
        let keys = names.into_iter().filter_map(|name| projects.get(name)).flat_map(|keys| {
            let used = best(keys).map(|key| Arc::clone(&key.id));
            keys.iter().map(move |key| {
                let state = match (key.refused_at(), used.as_ref() == Some(&key.id)) {
                    (Some(_), _) => KeyUse::Refused,
                    (None, true) => KeyUse::Used,
                    (None, false) => KeyUse::Standby,
                };
                (Arc::clone(key), state)
            })
        });
        keys.collect()
    }

    /// Puts these keys of each project in force. What is known of one that stays, stays.
    fn replace(&self, found: HashMap<Arc<str>, Vec<LiveKey>>) {
        let before = self.projects.load();
        let keep = |key: LiveKey| {
            let known = before.get(&key.project).into_iter().flatten().find(|known| known.id == key.id);
            known.cloned().unwrap_or_else(|| {
                tracing::info!(key = %key.id, place = key.place, "an upstream key is in force");
                Arc::new(key)
            })
        };
        let kept = found.into_iter().map(|(project, keys)| (project, keys.into_iter().map(keep).collect()));
        self.projects.store(Arc::new(kept.collect()));
    }

    /// Keys for tests and tools, which have no files: each project with the texts of its keys, the newest first.
    ///
    /// # Errors
    /// Where a text can be no key.
    pub fn fixed(projects: &[(&str, &[&str])]) -> Result<Self, crate::domain::secret::MalformedSecret> {
        let keys = Self::default();
        let mut found = HashMap::new();
        for (project, texts) in projects {
            let project: Arc<str> = Arc::from(*project);
            let parse = |text: &&str| {
                let key = UpstreamKey::parse(text)?;
                Ok(LiveKey::new(&project, key, "given".to_owned(), Timestamp(0)))
            };
            found.insert(Arc::clone(&project), texts.iter().map(parse).collect::<Result<_, _>>()?);
        }
        keys.replace(found);
        Ok(keys)
    }
}

/// The newest that Groq has not refused, or the newest.
fn best(keys: &[Arc<LiveKey>]) -> Option<&Arc<LiveKey>> {
    keys.iter().find(|key| key.refused_at().is_none()).or_else(|| keys.first())
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp(1_000);

    #[test]
    fn the_newest_is_used_until_groq_refuses_it() {
        let keys = UpstreamKeys::fixed(&[("main", &["gsk_new", "gsk_old"]), ("lab", &["gsk_lab"])]).unwrap();
        let new = keys.pick("main").unwrap();
        new.used(NOW);
        assert_eq!((new.bearer(), new.uses(), new.last_used()), ("Bearer gsk_new", 1, Some(NOW)));
        keys.refused(&new.id, NOW);
        assert_eq!(keys.pick("main").unwrap().bearer(), "Bearer gsk_old");
        assert_eq!(keys.pick("lab").unwrap().bearer(), "Bearer gsk_lab");
        let states: Vec<_> =
            keys.all().iter().map(|(key, state)| (key.project.to_string(), *state)).collect();
        let expected = [("lab", KeyUse::Used), ("main", KeyUse::Refused), ("main", KeyUse::Used)];
        assert_eq!(states, expected.map(|(project, state)| (project.to_owned(), state)));
        // Nothing better is known than the newest.
        let old = keys.pick("main").unwrap();
        keys.refused(&old.id, NOW);
        assert_eq!(keys.pick("main").unwrap().bearer(), "Bearer gsk_new");
        assert!(keys.pick("none").is_none());
    }

    #[test]
    fn a_key_that_stays_keeps_what_is_known_of_it() {
        let keys = UpstreamKeys::fixed(&[("main", &["gsk_new", "gsk_old"])]).unwrap();
        let new = keys.pick("main").unwrap();
        new.used(NOW);
        keys.refused(&new.id, NOW);
        let project: Arc<str> = "main".into();
        let live = |text: &str| {
            LiveKey::new(&project, UpstreamKey::parse(text).unwrap(), "x".to_owned(), Timestamp(5))
        };
        keys.replace([(Arc::clone(&project), vec![live("gsk_newest"), live("gsk_new")])].into());
        let states: Vec<_> = keys.all().into_iter().map(|(key, state)| (key.uses(), state)).collect();
        assert_eq!(states, [(0, KeyUse::Used), (1, KeyUse::Refused)]);
        // The answer to a key that is gone comes late.
        keys.refused("main/00000000", NOW);
    }

    #[test]
    fn an_id_does_not_tell_the_key() {
        let keys = UpstreamKeys::fixed(&[("main", &["gsk_secret"])]).unwrap();
        let key = keys.pick("main").unwrap();
        assert!(key.id.starts_with("main/") && key.id.len() == "main/".len() + 8, "{}", key.id);
        assert!(!format!("{keys:?}").contains("secret"));
    }
}
