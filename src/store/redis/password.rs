//! The password for the server: a fixed one, or that in a file, which may change while the service runs.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use thiserror::Error;

use crate::domain::secret::{self, MalformedSecret};

/// The password for a Redis server. Clones of one that is in a file share what they know of the file.
#[derive(Clone)]
pub struct Password(Source);

#[derive(Clone)]
enum Source {
    Fixed(Arc<str>),
    File(Arc<PasswordFile>),
}

struct PasswordFile {
    path: PathBuf,
    /// Locked for an assignment at a time.
    known: Mutex<Known>,
}

struct Known {
    /// The password at the last reading that found one.
    last_good: Arc<str>,
    /// Whether the last reading found none; logged when that changes.
    is_failing: bool,
}

/// Why a file gives no password. Reveals nothing of its content.
#[derive(Debug, Error)]
enum Unusable {
    #[error(transparent)]
    Unreadable(#[from] io::Error),
    #[error(transparent)]
    Malformed(#[from] MalformedSecret),
}

impl Password {
    /// A password that never changes.
    #[must_use]
    pub fn fixed(password: &str) -> Self {
        Self(Source::Fixed(password.into()))
    }

    /// The password in the file at `path`, which is read again for each new connection. `last_good` was read there, and is used
    /// while the file holds no password.
    #[must_use]
    pub fn file(path: PathBuf, last_good: &str) -> Self {
        let known = Known { last_good: last_good.into(), is_failing: false };
        Self(Source::File(Arc::new(PasswordFile { path, known: Mutex::new(known) })))
    }

    /// The password for a connection that is made now.
    pub(super) async fn current(&self) -> Arc<str> {
        let file = match &self.0 {
            Source::Fixed(password) => return Arc::clone(password),
            Source::File(file) => file,
        };
        let path = file.path.clone();
        // The file may be on a volume that is slow to answer, and this thread serves decisions.
        let read = tokio::task::spawn_blocking(move || read(&path)).await;
        file.learn(read.unwrap_or_else(|error| Err(io::Error::other(error).into())))
    }
}

impl PasswordFile {
    fn learn(&self, read: Result<String, Unusable>) -> Arc<str> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        match read {
            Ok(password) => {
                if *password != *known.last_good {
                    tracing::info!(file = %self.path.display(), "read a new password for redis");
                    known.last_good = password.into();
                }
                known.is_failing = false;
            }
            Err(error) => {
                if !known.is_failing {
                    tracing::error!(
                        file = %self.path.display(),
                        %error,
                        "the file with the password for redis is unusable; using the last password it held"
                    );
                }
                known.is_failing = true;
            }
        }
        Arc::clone(&known.last_good)
    }
}

fn read(path: &Path) -> Result<String, Unusable> {
    Ok(secret::password(&fs::read_to_string(path)?)?.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_file_is_read_again_and_its_last_password_outlives_it() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let password = Password::file(file.path().to_owned(), "first");
        for (content, expected) in [
            (&b"second\n"[..], "second"),
            (b"", "second"),
            (b"\n", "second"),
            (b"\"quoted\"", "second"),
            (b"\xff\xfe", "second"),
            ("\u{feff} third \r\n".as_bytes(), " third "),
        ] {
            fs::write(file.path(), content).unwrap();
            assert_eq!(&*password.clone().current().await, expected, "{content:?}");
        }
        file.close().unwrap();
        assert_eq!(&*password.current().await, " third ");
    }

    #[tokio::test]
    async fn a_file_that_holds_no_password_at_first_gives_the_one_it_held_before() {
        let password = Password::file("/nowhere/password".into(), "first");
        assert_eq!(&*password.current().await, "first");
        assert_eq!(&*Password::fixed("only").current().await, "only");
    }
}
