//! The sinks of the log, each with a thread that writes to it.

use std::{
    fmt, io,
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{self, Receiver, Sender},
    },
    thread,
    time::Duration,
};

use tokio::{
    runtime::Builder,
    sync::mpsc::{UnboundedSender, unbounded_channel},
    task::JoinSet,
};
use tracing::{Instrument as _, Span, error};

use super::{
    file::{self, FileWriter, Outputs},
    line::Line,
    store::StoreWriter,
};
use crate::store::AuditLog;

/// How long a process waits for its sinks when it ends.
pub(super) const FAREWELL: Duration = Duration::from_secs(5);

/// What a sink gets.
pub(super) enum Order {
    Write(Arc<Line>),
    /// Answered once everything before it was written: whether it is durable.
    Flush(Sender<bool>),
}

/// Where a sink's thread gets its orders from. Clones lead to the same thread. Unbounded, as `Audit` bounds what comes.
#[derive(Clone)]
pub(super) enum Orders {
    ToThread(Sender<Order>),
    ToTask(UnboundedSender<Order>),
}

impl Orders {
    pub(super) fn send(&self, order: Order) {
        // A thread ends after its last sender, so it still runs; if it does not, an error was logged.
        match self {
            Self::ToThread(orders) => drop(orders.send(order)),
            Self::ToTask(orders) => drop(orders.send(order)),
        }
    }
}

/// A place that the log goes to. The logs of several organizations may go to clones of one.
#[derive(Clone)]
pub struct Sink {
    pub(super) lines: Orders,
    pub(super) closing: Arc<Closing>,
}

impl fmt::Debug for Sink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sink").finish_non_exhaustive()
    }
}

/// Dropping it waits for a sink's thread to write the rest and to close what it writes to, which may then be opened again. The
/// channel carries nothing: the thread drops its end. The lock is never taken; it makes the holder shareable between threads.
#[derive(Debug)]
pub(super) struct Closing(Mutex<Receiver<()>>);

impl Drop for Closing {
    fn drop(&mut self) {
        let closed = self.0.get_mut().unwrap_or_else(PoisonError::into_inner);
        // A sink that accepts nothing must not keep the process from ending.
        let _ = closed.recv_timeout(FAREWELL);
    }
}

/// What of this process alone the log goes to; the default is nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Targets {
    /// A file that no other process writes.
    pub file: Option<PathBuf>,
    /// Whether it goes to the standard output, where something else collects it.
    pub stdout: bool,
}

impl Sink {
    /// Opens `targets` and starts the thread that writes to them; `None` if there are none.
    ///
    /// # Errors
    /// The file cannot be opened, another process writes it ([`io::ErrorKind::ResourceBusy`]), or the system cannot start a
    /// thread.
    pub fn open(targets: &Targets) -> io::Result<Option<Self>> {
        if *targets == Targets::default() {
            return Ok(None);
        }
        let file = targets.file.as_deref().map(file::open).transpose()?;
        let outputs = Outputs::new(file, targets.stdout.then(io::stdout));
        Self::write_to(FileWriter::new(outputs, Outputs::sync)).map(Some)
    }

    /// Writes to the store that `make_store` makes, and keeps events there for `kept`. `make_store` is called on the runtime that
    /// will use the store.
    ///
    /// # Errors
    /// The system cannot start a thread.
    pub fn store<S: AuditLog, E: fmt::Display>(
        make_store: impl FnOnce() -> Result<S, E> + Send + 'static,
        kept: Duration,
    ) -> io::Result<Self> {
        let mut sinks =
            Self::stores(vec![Span::current()], move || make_store().map(|store| vec![store]), kept)?;
        sinks.pop().ok_or_else(|| io::Error::other("there is no store"))
    }

    /// The same for several stores, one for each sink and in their order, all on one runtime. What is written to one does not wait for
    /// another, and is written in its own of `spans`.
    ///
    /// # Errors
    /// The system cannot start a thread.
    pub fn stores<S: AuditLog, E: fmt::Display>(
        spans: Vec<Span>,
        make_stores: impl FnOnce() -> Result<Vec<S>, E> + Send + 'static,
        kept: Duration,
    ) -> io::Result<Vec<Self>> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let (mut sinks, mut ends) = (Vec::with_capacity(spans.len()), Vec::with_capacity(spans.len()));
        for span in spans {
            let (orders, coming) = unbounded_channel();
            let (closing, closed) = mpsc::channel::<()>();
            let closing_of = Arc::new(Closing(Mutex::new(closed)));
            sinks.push(Self { lines: Orders::ToTask(orders), closing: closing_of });
            ends.push((coming, closing, span));
        }
        thread::Builder::new().name("audit-store".to_owned()).spawn(move || {
            runtime.block_on(async move {
                let stores = match make_stores() {
                    Ok(stores) => stores,
                    Err(error) => {
                        error!(%error, "the audit log cannot use the store and is not written to it");
                        return;
                    }
                };
                let mut writing = JoinSet::new();
                for (store, (mut coming, closing, span)) in stores.into_iter().zip(ends) {
                    let written = async move {
                        StoreWriter::new(store, kept).run(&mut coming).await;
                        drop(closing);
                    };
                    writing.spawn(written.instrument(span));
                }
                // Whatever becomes of one, the others write.
                while writing.join_next().await.is_some() {}
            });
        })?;
        Ok(sinks)
    }

    /// Starts the thread of `writer`.
    pub(super) fn write_to<W: io::Write + Send + 'static>(mut writer: FileWriter<W>) -> io::Result<Self> {
        let (orders, coming) = mpsc::channel();
        let (closing, closed) = mpsc::channel::<()>();
        thread::Builder::new().name("audit-file".to_owned()).spawn(move || {
            writer.run(&coming);
            drop(writer);
            drop(closing);
        })?;
        Ok(Self { lines: Orders::ToThread(orders), closing: Arc::new(Closing(Mutex::new(closed))) })
    }
}
