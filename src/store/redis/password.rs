//! The password for the server: a fixed one, or that in a file, which may change while the service runs.

use std::{
    fmt,
    fs::File,
    io::{self, Read as _},
    path::{Path, PathBuf},
    sync::Arc,
};

use thiserror::Error;

use super::reread::{Files, Reread};
use crate::domain::secret::{self, MalformedSecret};

/// The largest file with a password: another one is not read to its end, nor sent to a server.
const MAX_BYTES: u64 = 64 << 10;

/// The password for a Redis server. Clones of one that is in a file share what they know of the file.
#[derive(Clone)]
pub struct Password(Source);

#[derive(Clone)]
enum Source {
    Fixed(Arc<String>),
    File(Arc<Reread<PasswordFile>>),
}

struct PasswordFile {
    path: PathBuf,
}

/// Passwords that are the same now and after any change.
impl PartialEq for Password {
    fn eq(&self, other: &Self) -> bool {
        match (&self.0, &other.0) {
            (Source::Fixed(one), Source::Fixed(other)) => one == other,
            (Source::File(one), Source::File(other)) => Arc::ptr_eq(one, other),
            (Source::Fixed(_), Source::File(_)) | (Source::File(_), Source::Fixed(_)) => false,
        }
    }
}

impl Eq for Password {}

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
        Self(Source::Fixed(Arc::new(password.to_owned())))
    }

    /// The password in the file at `path`, which is read again for each new connection. `last_read` was read there just now, and is
    /// used while the file holds no password. It need not be the one that last worked: the server's password is changed first.
    #[must_use]
    pub fn file(path: PathBuf, last_read: &str) -> Self {
        Self(Source::File(Arc::new(Reread::new(PasswordFile { path }, last_read.to_owned()))))
    }

    /// The password for a connection that is made now.
    pub(super) async fn current(&self) -> Arc<String> {
        match &self.0 {
            Source::Fixed(password) => Arc::clone(password),
            Source::File(file) => file.current().await,
        }
    }
}

impl Files for PasswordFile {
    type Content = String;
    type Error = Unusable;

    fn read(&self) -> Result<String, Unusable> {
        read(&self.path)
    }

    fn say_new(&self) {
        tracing::info!(file = %self.path.display(), "read a new password for redis");
    }

    fn say_unusable(&self, reason: &dyn fmt::Display) {
        tracing::error!(
            file = %self.path.display(),
            error = %reason,
            "the file with the password for redis is unusable; using the last password it held"
        );
    }
}

fn read(path: &Path) -> Result<String, Unusable> {
    let mut text = String::new();
    let length = File::open(path)?.take(MAX_BYTES + 1).read_to_string(&mut text)?;
    if u64::try_from(length).unwrap_or(u64::MAX) > MAX_BYTES {
        return Err(io::Error::from(io::ErrorKind::FileTooLarge).into());
    }
    Ok(secret::password(&text)?.to_owned())
}

#[cfg(test)]
mod tests {
    use std::fs;

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
            (&[b'x'; (64 << 10) + 1], "second"),
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
        file.read_now().await.to_string()
    }

    #[tokio::test]
    async fn the_start_and_a_file_that_does_not_answer_use_what_was_read_last() {
        let directory = tempfile::tempdir().unwrap();
        let fifo = directory.path().join("password");
        assert!(std::process::Command::new("mkfifo").arg(&fifo).status().unwrap().success());
        let password = Password::file(fifo.clone(), "first");
        assert_eq!(**password.current().await, *"first", "a start reads the file once");
        // Nothing writes into it.
        assert_eq!([read_now(&password).await, read_now(&password).await], ["first", "first"]);
        // What comes late is learnt all the same.
        fs::write(&fifo, "second").unwrap();
        let Source::File(file) = &password.0 else { panic!("no file") };
        while file.is_reading() {
            tokio::task::yield_now().await;
        }
        assert_eq!(*file.last_read(), "second");
    }

    #[tokio::test]
    async fn a_file_that_holds_no_password_at_first_gives_the_one_it_held_before() {
        let password = Password::file("/nowhere/password".into(), "first");
        assert_eq!(**password.current().await, *"first");
        assert_eq!(**Password::fixed("only").current().await, *"only");
    }
}
