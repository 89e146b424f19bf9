//! The log in a file, on the standard output, or both.

use std::{
    fs::{File, TryLockError},
    io::{self, Read as _, Seek as _, SeekFrom, Stdout, Write},
    path::Path,
    sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError},
    time::Duration,
};

use tracing::error;

use super::{event::Event, sink::Order};
use crate::runtime::lines::{self, Patient};

/// Its name in lines about its file.
const LOG: &str = "audit";
/// How long to wait before trying again to make durable what was written.
const RETRY: Duration = Duration::from_secs(1);
/// The end of a file that is looked at before it is written to.
const LOOK: u64 = 1 << 20;

/// Writes lines, each with one write.
pub(super) struct FileWriter<W> {
    out: Patient<W>,
    /// Makes what was written durable.
    sync: fn(&mut W) -> io::Result<()>,
    is_durable: bool,
}

impl<W: Write> FileWriter<W> {
    pub(super) const fn new(out: W, sync: fn(&mut W) -> io::Result<()>) -> Self {
        Self { out: Patient::new(out, LOG), sync, is_durable: true }
    }

    /// Runs until no sender is left.
    pub(super) fn run(&mut self, orders: &Receiver<Order>) {
        while let Some(order) = self.next(orders) {
            match order {
                Order::Write(line) => self.write(&line.text),
                Order::Flush(done) => {
                    self.make_durable();
                    let _ = done.send(self.is_durable);
                }
            }
        }
        self.make_durable();
    }

    /// The next order. If none is there yet, what was written is made durable first: many events share one wait.
    fn next(&mut self, orders: &Receiver<Order>) -> Option<Order> {
        loop {
            match orders.try_recv() {
                Ok(order) => return Some(order),
                Err(TryRecvError::Disconnected) => return None,
                Err(TryRecvError::Empty) => self.make_durable(),
            }
            if self.is_durable {
                return orders.recv().ok();
            }
            match orders.recv_timeout(RETRY) {
                Ok(order) => return Some(order),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return None,
            }
        }
    }

    fn write(&mut self, text: &str) {
        // It fails never, but waits until it is written.
        drop(self.out.write_all(format!("{text}\n").as_bytes()));
        self.is_durable = false;
    }

    fn make_durable(&mut self) {
        if self.is_durable {
            return;
        }
        match (self.sync)(&mut self.out.out) {
            Ok(()) => self.is_durable = true,
            Err(error) => {
                error!(%error, "the audit log is written, but not known to be durable; trying again");
            }
        }
    }
}

/// Opens the file at `path`: locked, and at the end of a line.
pub(super) fn open(path: &Path) -> io::Result<File> {
    let mut file = lines::open(path, LOG)?;
    // Two writers would mix their lines. The lock is on the file and not on its name, so it does not stop anyone from moving the
    // file away to begin another.
    file.try_lock().map_err(|error| match error {
        TryLockError::WouldBlock => io::Error::new(
            io::ErrorKind::ResourceBusy,
            "another process writes it, and each replica needs a file of its own",
        ),
        TryLockError::Error(error) => error,
    })?;
    check(&file)?;
    lines::end_line(&mut file)?;
    Ok(file)
}

/// Refuses a long file that is not an audit log: better that the operator names another one than that this one is written to.
fn check(file: &File) -> io::Result<()> {
    let size = file.metadata()?.len();
    let Some(from) = size.checked_sub(LOOK).filter(|from| *from > 0) else { return Ok(()) };
    let mut end = Vec::new();
    let mut reader = file;
    reader.seek(SeekFrom::Start(from))?;
    reader.take(LOOK).read_to_end(&mut end)?;
    if end.split(|byte| *byte == b'\n').any(|line| serde_json::from_slice::<Event>(line).is_ok()) {
        return Ok(());
    }
    Err(io::Error::new(
        io::ErrorKind::InvalidData,
        "a file whose last MiB is without an event is no audit log",
    ))
}

/// A file, the standard output, or both.
#[derive(Debug)]
pub(super) struct Outputs<F = File, O = Stdout> {
    file: Option<F>,
    out: Option<O>,
    /// Whether the file has the line that the output has not: a line that is written again after an error goes to the output alone.
    is_in_file: bool,
}

impl<F: Write, O: Write> Outputs<F, O> {
    pub(super) const fn new(file: Option<F>, out: Option<O>) -> Self {
        Self { file, out, is_in_file: false }
    }
}

impl Outputs {
    /// Makes durable what was written.
    ///
    /// # Errors
    /// Whichever fails first.
    pub(super) fn sync(&mut self) -> io::Result<()> {
        if let Some(file) = &self.file {
            file.sync_data()?;
        }
        self.flush()
    }
}

/// Takes a line whole or not at all.
impl<F: Write, O: Write> Write for Outputs<F, O> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if let Some(file) = self.file.as_mut().filter(|_| !self.is_in_file) {
            file.write_all(line)?;
            self.is_in_file = true;
        }
        if let Some(out) = &mut self.out {
            out.write_all(line)?;
        }
        self.is_in_file = false;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.as_mut().map_or(Ok(()), Write::flush)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Fails as often as this, then takes everything.
    struct Failing(u32, Vec<u8>);

    impl Write for Failing {
        fn write(&mut self, line: &[u8]) -> io::Result<usize> {
            if self.0 > 0 {
                self.0 -= 1;
                return Err(io::Error::other("not now"));
            }
            self.1.write(line)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn each_place_gets_each_line_once_whichever_fails() {
        for (file_fails, out_fails) in [(0, 0), (1, 0), (0, 1), (2, 2)] {
            let mut outputs =
                Outputs::new(Some(Failing(file_fails, Vec::new())), Some(Failing(out_fails, Vec::new())));
            for line in ["a\n", "b\n"] {
                while outputs.write_all(line.as_bytes()).is_err() {}
            }
            let (file, out) = (outputs.file.unwrap(), outputs.out.unwrap());
            assert_eq!((&*file.1, &*out.1), (&b"a\nb\n"[..], &b"a\nb\n"[..]), "{file_fails} {out_fails}");
        }
    }
}
