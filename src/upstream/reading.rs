//! Reads what is at a place of Groq keys.

use std::{env::VarError, fs, path::Path, time::SystemTime};

use crate::domain::{Timestamp, policy::upstream::KeyPlace, secret::MalformedSecret, upstream::UpstreamKey};

/// A key file is one short line; a wrong file is not read to its end.
const MAX_BYTES: u64 = 4096;
/// The most files of a directory that are read; a mounted secret has a few.
const MAX_FILES: usize = 64;

/// The message for a variable that is not set.
pub(super) const NOT_SET: &str = "it is not set";

/// A key, the place where it was found, and when it became available.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Candidate {
    pub(super) key: UpstreamKey,
    pub(super) place: String,
    pub(super) since: Timestamp,
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

/// The keys at `place`, or why there are none. `started`: since when one in the environment is there.
pub(super) fn read(place: &KeyPlace, started: Timestamp) -> Result<Vec<Candidate>, String> {
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

pub(super) fn milliseconds(time: SystemTime) -> Timestamp {
    let since_epoch = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Timestamp(u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX))
}
