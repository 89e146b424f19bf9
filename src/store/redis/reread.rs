//! Files that are read again for each new connection. While they are unusable, what they held last is used.

use std::{
    fmt,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use tokio::{sync::oneshot, time::timeout};

/// How long a connection waits for the files: they may be on a volume that is slow to answer. Longer reading goes on beside.
const READ_TIMEOUT: Duration = Duration::from_millis(250);
/// How long what was read with the settings serves new connections: those that the start makes.
const STARTING: Duration = Duration::from_secs(1);

/// What is made of files.
pub(super) trait Files: Send + Sync + 'static {
    /// What they hold.
    type Content: Send + Sync + PartialEq;

    /// Why they cannot be used. Reveals nothing of their content.
    type Error: fmt::Display + Send;

    /// Reads the files.
    fn read(&self) -> Result<Self::Content, Self::Error>;

    /// Logs that they hold something new.
    fn say_new(&self);

    /// Logs that they cannot be used, and why.
    fn say_unusable(&self, reason: &dyn fmt::Display);
}

/// Files and what they held last.
pub(super) struct Reread<F: Files> {
    files: F,
    /// When the settings read it.
    started: Instant,
    /// Whether the files are being read: one thread at a time may hang on them.
    is_reading: AtomicBool,
    /// Locked for an assignment at a time.
    known: Mutex<Known<F::Content>>,
}

struct Known<C> {
    /// The content at the last reading that found one.
    last_read: Arc<C>,
    /// Whether the last reading found none; logged when that changes.
    is_failing: bool,
}

impl<F: Files> Reread<F> {
    /// `last_read` was read there just now. It need not be what last worked: the server's side is changed first.
    pub(super) fn new(files: F, last_read: F::Content) -> Self {
        let known = Known { last_read: Arc::new(last_read), is_failing: false };
        Self { files, started: Instant::now(), is_reading: AtomicBool::new(false), known: Mutex::new(known) }
    }

    /// The content for a connection that is made now.
    pub(super) async fn current(self: &Arc<Self>) -> Arc<F::Content> {
        if self.started.elapsed() >= STARTING {
            self.read().await;
        }
        self.last_read()
    }

    /// What was read last.
    pub(super) fn last_read(&self) -> Arc<F::Content> {
        Arc::clone(&self.known.lock().unwrap_or_else(PoisonError::into_inner).last_read)
    }

    /// Reads the files on a thread of its own, which nothing waits for at the end, and learns what is in them.
    async fn read(self: &Arc<Self>) {
        if self.is_reading.swap(true, Ordering::AcqRel) {
            return;
        }
        let (told, done) = oneshot::channel();
        let this = Arc::clone(self);
        let reader = thread::Builder::new().name("redis files".to_owned()).spawn(move || {
            this.learn(this.files.read());
            this.is_reading.store(false, Ordering::Release);
            // No one listens if it took too long.
            let _ = told.send(());
        });
        match reader {
            Ok(_) if timeout(READ_TIMEOUT, done).await.is_ok() => {}
            Ok(_) => self.fail(&format_args!("they were not read within {} ms", READ_TIMEOUT.as_millis())),
            Err(error) => {
                self.is_reading.store(false, Ordering::Release);
                self.fail(&error);
            }
        }
    }

    fn learn(&self, read: Result<F::Content, F::Error>) {
        match read {
            Ok(content) => {
                let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
                known.is_failing = false;
                if content != *known.last_read {
                    known.last_read = Arc::new(content);
                    drop(known);
                    self.files.say_new();
                }
            }
            Err(error) => self.fail(&error),
        }
    }

    fn fail(&self, reason: &dyn fmt::Display) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if !std::mem::replace(&mut known.is_failing, true) {
            drop(known);
            self.files.say_unusable(reason);
        }
    }

    /// As a connection that is made some time after the start would.
    #[cfg(test)]
    pub(super) async fn read_now(self: &Arc<Self>) -> Arc<F::Content> {
        self.read().await;
        self.last_read()
    }

    #[cfg(test)]
    pub(super) fn is_reading(&self) -> bool {
        self.is_reading.load(Ordering::Acquire)
    }
}
