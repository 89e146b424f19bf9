//! The keys that seal sessions: of files, which are read again when they change, or of this process alone.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use thiserror::Error;
use tracing::{info, warn};

use super::super::sealed::{Seal, SealKey};
use crate::{
    domain::secret::{self, MalformedSecret},
    runtime::Entropy,
    watch::{FileSource, Pace, Watch},
};

/// The least characters of a key: `openssl rand -base64 32` prints 44, and fewer are likely a word that someone thought of.
const MIN_LEN: usize = 32;
/// The most; a wrong file is not read to its end.
const MAX_LEN: u64 = 4_096;

/// Why there is no key to seal sessions with.
#[derive(Debug, Error)]
pub enum SessionKeyError {
    /// A file cannot be read, or holds no key.
    #[error("the session key `{path}` cannot be used: {reason}; `openssl rand -base64 32` makes one")]
    File {
        /// The file.
        path: String,
        /// What is wrong with it; never its content.
        reason: String,
    },
    /// The system gives no random numbers for a key.
    #[error("no session key can be made: the system gives no random numbers")]
    NoEntropy,
    /// The files cannot be watched.
    #[error("the session keys cannot be watched: {0}")]
    Watch(#[from] io::Error),
}

/// The keys in force, kept up to date until dropped.
#[derive(Debug)]
pub(super) struct SessionKeys {
    pub(super) seal: Arc<Seal>,
    /// `None`: the key is not of a file.
    _watch: Option<Watch<KeyFiles>>,
}

impl SessionKeys {
    /// The keys in `files`: the first seals, all of them open. Without files, one that `entropy` gives.
    ///
    /// # Errors
    /// A file holds no key.
    pub(super) fn open(files: &[PathBuf], entropy: &Entropy) -> Result<Self, SessionKeyError> {
        if files.is_empty() {
            let secret = entropy.bytes::<32>().map_err(|_| SessionKeyError::NoEntropy)?;
            let key = SealKey::of_secret(&secret).ok_or(SessionKeyError::NoEntropy)?;
            return Ok(Self { seal: Arc::new(Seal::new(vec![key])), _watch: None });
        }
        let source = KeyFiles { files: files.to_vec(), seal: Arc::new(Seal::new(Vec::new())) };
        let content = source.read();
        let seen = KeyFiles::digest(&content);
        source.put_in_force(content)?;
        let seal = Arc::clone(&source.seal);
        let watch = Watch::start("session-keys", source, seen, Pace::WITHIN_A_SECOND)?;
        Ok(Self { seal, _watch: Some(watch) })
    }
}

/// The files that the settings name.
struct KeyFiles {
    files: Vec<PathBuf>,
    seal: Arc<Seal>,
}

impl KeyFiles {
    fn put_in_force(&self, content: Vec<Reading>) -> Result<(), SessionKeyError> {
        let key = |(path, text): (&PathBuf, Reading)| {
            let fault = |reason: String| SessionKeyError::File { path: path.display().to_string(), reason };
            let secret = text.map_err(fault)?;
            SealKey::of_secret(secret.as_bytes()).ok_or(SessionKeyError::NoEntropy)
        };
        let keys: Result<Vec<_>, _> = self.files.iter().zip(content).map(key).collect();
        self.seal.replace(keys?);
        Ok(())
    }
}

/// The secret in a file, or why there is none.
type Reading = Result<String, String>;

impl FileSource for KeyFiles {
    const NAME: &'static str = "the session keys";

    type Content = Vec<Reading>;

    fn paths(&self) -> Vec<PathBuf> {
        self.files.clone()
    }

    fn read(&self) -> Vec<Reading> {
        self.files.iter().map(|path| read(path)).collect()
    }

    fn digest(content: &Vec<Reading>) -> blake3::Hash {
        let mut hasher = blake3::Hasher::new();
        for reading in content {
            let (mark, text) = match reading {
                Ok(secret) => (b"k", secret),
                Err(reason) => (b"e", reason),
            };
            hasher.update(mark);
            hasher.update(&text.len().to_le_bytes());
            hasher.update(text.as_bytes());
        }
        hasher.finalize()
    }

    /// All of them or none: with half of the files, sessions of the other half would end.
    fn apply(&mut self, content: Vec<Reading>, _: bool) -> bool {
        match self.put_in_force(content) {
            Ok(()) => {
                info!(files = Self::NAME, "the session keys were read again");
                true
            }
            Err(error) => {
                warn!(files = Self::NAME, %error, "the session keys are not usable; those in force stay");
                false
            }
        }
    }
}

fn read(path: &Path) -> Reading {
    let length = fs::metadata(path).map_err(|error| error.to_string())?.len();
    if length > MAX_LEN {
        return Err(format!("{length} bytes are more than a key has"));
    }
    let text = fs::read_to_string(path).map_err(|error| match error.kind() {
        io::ErrorKind::InvalidData => MalformedSecret::NotOneWord.to_string(),
        _ => error.to_string(),
    })?;
    let word = secret::word(&text, text.len()).map_err(|error| error.to_string())?;
    match word.len() < MIN_LEN {
        true => Err(format!("it is shorter than {MIN_LEN} characters")),
        false => Ok(word.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "0123456789abcdef0123456789abcdef0123456789ab";

    #[test]
    fn a_file_holds_a_key_or_says_why_not() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key");
        for (text, expected) in [
            (KEY, None),
            ("short", Some("shorter than 32 characters")),
            ("", Some("it is empty")),
            ("two words that are long enough to be a key by their length", Some("not one word")),
            (&"x".repeat(5_000), Some("more than a key has")),
        ] {
            fs::write(&path, text).unwrap();
            let opened = SessionKeys::open(std::slice::from_ref(&path), &Entropy::System)
                .map_err(|error| error.to_string());
            match (opened, expected) {
                (Ok(_), None) => {}
                (Err(error), Some(said)) => assert!(error.contains(said) && !error.contains(KEY), "{error}"),
                (opened, _) => panic!("{text}: {:?}", opened.err()),
            }
        }
        let missing = SessionKeys::open(&[directory.path().join("none")], &Entropy::System).unwrap_err();
        assert!(missing.to_string().contains("none` cannot be used"), "{missing}");
    }

    #[test]
    fn without_files_each_process_has_its_own_key() {
        let [one, two] = [(); 2].map(|()| SessionKeys::open(&[], &Entropy::System).unwrap());
        let sealed = one.seal.seal("p", b"x".to_vec()).unwrap();
        assert!(one.seal.open("p", &sealed).is_some() && two.seal.open("p", &sealed).is_none());
    }

    #[test]
    fn a_faulty_file_leaves_the_keys_in_force() {
        let directory = tempfile::tempdir().unwrap();
        let [first, second] = ["first", "second"].map(|name| directory.path().join(name));
        fs::write(&first, KEY).unwrap();
        fs::write(&second, KEY.replace('0', "x")).unwrap();
        let mut files =
            KeyFiles { files: vec![first.clone(), second], seal: Arc::new(Seal::new(Vec::new())) };
        assert!(files.apply(files.read(), false));
        let sealed = files.seal.seal("p", b"x".to_vec()).unwrap();
        fs::write(&first, "half").unwrap();
        assert!(!files.apply(files.read(), false));
        assert!(files.seal.open("p", &sealed).is_some());
    }
}
