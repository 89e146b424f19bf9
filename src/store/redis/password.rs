//! The password for the server: a fixed one, or that in a file, which may change while the service runs.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use thiserror::Error;
use tokio::{sync::oneshot, time::timeout};

use crate::domain::secret::{self, MalformedSecret};

/// How long a connection waits for the file: it may be on a volume that is slow to answer. Longer reading goes on beside.
const READ_TIMEOUT: Duration = Duration::from_millis(250);
/// How long the password that was read with the settings serves new connections: those that the start makes.
const STARTING: Duration = Duration::from_secs(1);

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
    /// When the settings read it.
    started: Instant,
    /// Whether the file is being read: one thread at a time may hang on it.
    is_reading: AtomicBool,
    /// Locked for an assignment at a time.
    known: Mutex<Known>,
}

struct Known {
    /// The password at the last reading that found one.
    last_read: Arc<str>,
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
    #[error("it was not read within {} ms", READ_TIMEOUT.as_millis())]
    Slow,
}

impl Password {
    /// A password that never changes.
    #[must_use]
    pub fn fixed(password: &str) -> Self {
        Self(Source::Fixed(password.into()))
    }

    /// The password in the file at `path`, which is read again for each new connection. `last_read` was read there just now, and is
    /// used while the file holds no password. It need not be the one that last worked: the server's password is changed first.
    #[must_use]
    pub fn file(path: PathBuf, last_read: &str) -> Self {
        let known = Known { last_read: last_read.into(), is_failing: false };
        Self(Source::File(Arc::new(PasswordFile {
            path,
            started: Instant::now(),
            is_reading: AtomicBool::new(false),
            known: Mutex::new(known),
        })))
    }

    /// The password for a connection that is made now.
    pub(super) async fn current(&self) -> Arc<str> {
        let file = match &self.0 {
            Source::Fixed(password) => return Arc::clone(password),
            Source::File(file) => file,
        };
        if file.started.elapsed() >= STARTING {
            file.read().await;
        }
        file.last_read()
    }
}

impl PasswordFile {
    fn last_read(&self) -> Arc<str> {
        Arc::clone(&self.known.lock().unwrap_or_else(PoisonError::into_inner).last_read)
    }

    /// Reads the file on a thread of its own, which nothing waits for at the end, and learns what is in it.
    async fn read(self: &Arc<Self>) {
        if self.is_reading.swap(true, Ordering::AcqRel) {
            return;
        }
        let (told, done) = oneshot::channel();
        let file = Arc::clone(self);
        let reader = thread::Builder::new().name("password".to_owned()).spawn(move || {
            file.learn(read(&file.path));
            file.is_reading.store(false, Ordering::Release);
            // No one listens if it took too long.
            let _ = told.send(());
        });
        match reader {
            Ok(_) if timeout(READ_TIMEOUT, done).await.is_ok() => {}
            Ok(_) => self.learn(Err(Unusable::Slow)),
            Err(error) => {
                self.is_reading.store(false, Ordering::Release);
                self.learn(Err(error.into()));
            }
        }
    }

    fn learn(&self, read: Result<String, Unusable>) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        match read {
            Ok(password) => {
                if *password != *known.last_read {
                    tracing::info!(file = %self.path.display(), "read a new password for redis");
                    known.last_read = password.into();
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
            assert_eq!(read_now(&password).await, expected, "{content:?}");
        }
        file.close().unwrap();
        assert_eq!(read_now(&password).await, " third ");
    }

    /// As a connection that is made some time after the start would.
    async fn read_now(password: &Password) -> String {
        let Source::File(file) = &password.0 else { panic!("no file") };
        file.read().await;
        file.last_read().to_string()
    }

    #[tokio::test]
    async fn the_start_and_a_file_that_does_not_answer_use_what_was_read_last() {
        let directory = tempfile::tempdir().unwrap();
        let fifo = directory.path().join("password");
        assert!(std::process::Command::new("mkfifo").arg(&fifo).status().unwrap().success());
        let password = Password::file(fifo.clone(), "first");
        assert_eq!(&*password.current().await, "first", "a start reads the file once");
        // Nothing writes into it.
        assert_eq!([read_now(&password).await, read_now(&password).await], ["first", "first"]);
        // What comes late is learnt all the same.
        fs::write(&fifo, "second").unwrap();
        let Source::File(file) = &password.0 else { panic!("no file") };
        while file.is_reading.load(Ordering::Acquire) {
            tokio::task::yield_now().await;
        }
        assert_eq!(&*file.last_read(), "second");
    }

    #[tokio::test]
    async fn a_file_that_holds_no_password_at_first_gives_the_one_it_held_before() {
        let password = Password::file("/nowhere/password".into(), "first");
        assert_eq!(&*password.current().await, "first");
        assert_eq!(&*Password::fixed("only").current().await, "only");
    }
}
