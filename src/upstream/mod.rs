//! The organization's own Groq keys: which key of a project is in use, when it was last used, and which one Groq refuses.
//!
//! A project has at most two live keys, so one can be replaced without interruption: the newest is used. If Groq refuses it
//! (401), the other one is used at once, until the refused one changes. If all are refused, the newest stays in use, since
//! there is no better choice.

mod reading;
mod source;

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use arc_swap::ArcSwap;
use tracing::{error, info};

pub use self::{
    reading::{KeysAtPlace, keys_at},
    source::UpstreamKeySource,
};
use crate::domain::{Timestamp, plan, upstream::UpstreamKey};

/// The keys of a project that are live at the same time: the newest, and the one that it replaces.
pub const MAX_LIVE: usize = 2;

/// No request runs longer, so an answer that arrives so long after a refusal is to a later one.
const LONGEST_REQUEST_MS: u64 = plan::RESERVATION_TTL_MS;

/// The Groq keys in force, shared by all cores. Their counts cover this process only.
#[derive(Debug, Default)]
pub struct UpstreamKeys {
    projects: ArcSwap<HashMap<Arc<str>, Vec<Arc<LiveKey>>>>,
}

/// A Groq key in force.
#[derive(Debug)]
pub struct LiveKey {
    /// Identifies it without revealing it: the project and a digest, `main/1f2e3d4c`.
    pub id: Arc<str>,
    /// The project.
    pub project: Arc<str>,
    /// Where it was found, for people.
    pub place: String,
    /// When it became available: when its file was written, or when the service started.
    pub since: Timestamp,
    key: UpstreamKey,
    uses: AtomicU64,
    /// 0: never. Plain numbers without ordering between them: each is only displayed, except `refused_at`, which is the
    /// only one that decides anything.
    last_used: AtomicU64,
    refused_at: AtomicU64,
}

/// The current role of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyUse {
    /// Requests use it.
    Used,
    /// It is used if Groq refuses the other one.
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

    /// Records that a request uses it at `now`.
    pub fn used(&self, now: Timestamp) {
        self.uses.fetch_add(1, Ordering::Relaxed);
        self.last_used.store(now.0, Ordering::Relaxed);
    }

    /// How many requests used it.
    #[must_use]
    pub fn uses(&self) -> u64 {
        self.uses.load(Ordering::Relaxed)
    }

    /// When it was last used.
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
    /// The key for requests of `project`; `None` if the project has none.
    #[must_use]
    pub fn pick(&self, project: &str) -> Option<Arc<LiveKey>> {
        best(self.projects.load().get(project)?).cloned()
    }

    /// Records that Groq refused the key `id`: the other one is used from now on. An id that is not in force changes
    /// nothing, since the answer to an old key may arrive late.
    pub fn refused(&self, id: &str, now: Timestamp) {
        let projects = self.projects.load();
        let Some(keys) = projects.values().find(|keys| keys.iter().any(|key| &*key.id == id)) else { return };
        for key in keys.iter().filter(|key| &*key.id == id) {
            // Many requests with it may be in flight; one alert is enough.
            if key.refused_at.swap(now.0.max(1), Ordering::Relaxed) > 0 {
                return;
            }
            match best(keys).filter(|best| best.refused_at().is_none()) {
                Some(other) => {
                    error!(upstream_key = id, place = key.place, falls_back_to = %other.id, "Groq refuses an upstream key")
                }
                None => {
                    error!(
                        upstream_key = id,
                        place = key.place,
                        "Groq refuses the last upstream key of its project"
                    )
                }
            }
        }
    }

    /// Records that Groq answered a request with the key `id`: if that was sent after it was refused, the key works again.
    pub fn worked(&self, id: &str, now: Timestamp) {
        let projects = self.projects.load();
        let Some(key) = projects.values().flatten().find(|key| &*key.id == id) else { return };
        let Some(refused_at) = key.refused_at() else { return };
        if now.since(refused_at) > LONGEST_REQUEST_MS && key.refused_at.swap(0, Ordering::Relaxed) > 0 {
            info!(
                upstream_key = id,
                place = key.place,
                "Groq takes an upstream key again that it had refused"
            );
        }
    }

    /// All keys, by project, the newest first, with their current roles.
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

    /// Puts these keys of each project in force. A key that stays keeps its state.
    fn replace(&self, found: HashMap<Arc<str>, Vec<LiveKey>>) {
        let before = self.projects.load();
        let keep = |key: LiveKey| {
            let known = before.get(&key.project).into_iter().flatten().find(|known| known.id == key.id);
            known.cloned().unwrap_or_else(|| {
                tracing::info!(upstream_key = %key.id, place = key.place, "an upstream key is in force");
                Arc::new(key)
            })
        };
        let kept = found.into_iter().map(|(project, keys)| (project, keys.into_iter().map(keep).collect()));
        self.projects.store(Arc::new(kept.collect()));
    }

    /// Keys for tests and tools, without files: each project with the texts of its keys, the newest first.
    ///
    /// # Errors
    /// A text cannot be a key.
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

/// The newest key that Groq has not refused; if all are refused, the newest.
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
        // There is no better choice than the newest.
        let old = keys.pick("main").unwrap();
        keys.refused(&old.id, NOW);
        assert_eq!(keys.pick("main").unwrap().bearer(), "Bearer gsk_new");
        assert!(keys.pick("none").is_none());
    }

    #[test]
    fn an_answer_long_after_the_refusal_shows_that_a_key_works_again() {
        let keys = UpstreamKeys::fixed(&[("main", &["gsk_only"])]).unwrap();
        let key = keys.pick("main").unwrap();
        keys.worked(&key.id, NOW);
        keys.refused(&key.id, NOW);
        // The answer to a request from before.
        keys.worked(&key.id, NOW.plus(LONGEST_REQUEST_MS));
        assert_eq!(key.refused_at(), Some(NOW));
        keys.worked(&key.id, NOW.plus(LONGEST_REQUEST_MS + 1));
        assert_eq!((key.refused_at(), keys.all()[0].1), (None, KeyUse::Used));
        keys.worked("main/00000000", NOW);
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
        // The answer to a key that is gone arrives late.
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
