//! Writes a log on its own thread, so that a slow or stalled reader or disk delays no decision.

use std::{
    io::{self, Write},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc::{self, Receiver, SyncSender, TrySendError},
    },
    thread,
    time::{Duration, Instant},
};

use tracing::warn;
use tracing_subscriber::fmt::MakeWriter;

use crate::domain::text::{Notation, written_out};

/// Lines that may wait to be written: some seconds of a busy service, and some megabytes at most.
const LINES: usize = 1024;
/// The least time between two lines on lost ones.
const SAY_EVERY: Duration = Duration::from_secs(5);
/// How long an ending process waits for its last lines to be read.
const FAREWELL: Duration = Duration::from_secs(1);

enum Message {
    Line(Vec<u8>),
    /// Answered when everything before it is written.
    Flush(SyncSender<()>),
}

/// Writes lines without waiting: a line without room is lost, and counted.
#[derive(Clone, Debug)]
pub struct LineWriter {
    lines: SyncSender<Message>,
    lines_as: LinesAs,
    /// Lines lost since the thread last reported them. An independent count; it orders nothing else.
    lost: Arc<AtomicU64>,
}

/// The format of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinesAs {
    /// Text, perhaps in colours.
    Text {
        /// Whether the escape sequences are our own.
        colours: bool,
    },
    /// JSON.
    Json,
}

/// When dropped, waits briefly for everything logged to be written.
#[derive(Debug)]
pub struct LineGuard(SyncSender<Message>);

/// Starts the thread that writes to `out`; `log` names it in the lines about lost lines.
///
/// # Errors
/// If the system provides no thread.
pub fn start<W: Write + Send + 'static>(
    log: &'static str,
    out: W,
    lines_as: LinesAs,
) -> io::Result<(LineWriter, LineGuard)> {
    let (lines, waiting) = mpsc::sync_channel(LINES);
    let lost = Arc::new(AtomicU64::new(0));
    let writer = LineWriter { lines: lines.clone(), lines_as, lost: Arc::clone(&lost) };
    thread::Builder::new().name(log.to_owned()).spawn(move || write(log, out, &waiting, &lost))?;
    Ok((writer, LineGuard(lines)))
}

fn write<W: Write>(log: &str, mut out: W, waiting: &Receiver<Message>, lost: &AtomicU64) {
    let mut said: Option<Instant> = None;
    for message in waiting {
        let mut is_due = said.is_none_or(|said| said.elapsed() >= SAY_EVERY);
        match message {
            // If no one reads the log any more, there is no one to tell.
            Message::Line(line) => drop(out.write_all(&line)),
            Message::Flush(done) => {
                let _ = out.flush();
                let _ = done.try_send(());
                is_due = true;
            }
        }
        // Only now is there room to report it.
        let lines = if is_due { lost.swap(0, Ordering::Relaxed) } else { 0 };
        if lines > 0 {
            said = Some(Instant::now());
            warn!(log, lines, "lines of a log were lost, as it was read or written too slowly");
        }
    }
}

impl LinesAs {
    fn one_line(self, line: &[u8]) -> Vec<u8> {
        let Ok(text) = std::str::from_utf8(line) else { return line.to_vec() };
        let (text, end) = text.strip_suffix('\n').map_or((text, ""), |text| (text, "\n"));
        let mut text = match self {
            Self::Text { colours } => written_out(text, Notation::Text, |c| colours && c == '\u{1b}'),
            Self::Json => written_out(text, Notation::Json, |_| false),
        }
        .into_owned();
        text.push_str(end);
        text.into_bytes()
    }
}

impl Write for LineWriter {
    /// Takes a whole line, which is how `tracing` writes. It stays one line whatever text from others is in it: ensured here,
    /// for every field and every message.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if self.lines.try_send(Message::Line(self.lines_as.one_line(line))).is_err() {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for LineWriter {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}

impl Drop for LineGuard {
    fn drop(&mut self) {
        let started = Instant::now();
        let (done, written) = mpsc::sync_channel(1);
        let mut last = Message::Flush(done);
        // A full channel soon has room again, unless no one reads.
        while let Err(TrySendError::Full(message)) = self.0.try_send(last) {
            if started.elapsed() >= FAREWELL {
                return;
            }
            last = message;
            thread::sleep(Duration::from_millis(1));
        }
        let _ = written.recv_timeout(FAREWELL.saturating_sub(started.elapsed()));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    /// Writes nothing until it is permitted to.
    struct Blocked(Receiver<()>, Arc<Mutex<Vec<u8>>>);

    impl Write for Blocked {
        fn write(&mut self, line: &[u8]) -> io::Result<usize> {
            let _ = self.0.recv();
            self.1.lock().unwrap().extend_from_slice(line);
            Ok(line.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_log_that_nobody_reads_holds_nobody_up() {
        let (permit, permits) = mpsc::channel();
        let written = Arc::new(Mutex::new(Vec::new()));
        let (mut writer, guard) =
            start("log", Blocked(permits, Arc::clone(&written)), LinesAs::Json).unwrap();
        for _ in 0..2 * LINES {
            writer.write_all(b"line\n").unwrap();
        }
        assert!(writer.lost.load(Ordering::Relaxed) >= LINES as u64 - 1);
        drop(permit);
        drop(guard);
        let lines = written.lock().unwrap().len() / b"line\n".len();
        assert!((LINES..=LINES + 1).contains(&lines), "{lines}");
    }

    #[test]
    fn what_others_wrote_ends_no_line_and_turns_none() {
        let hostile = "\u{202e}\u{2028}2026-11-28 INFO all is well\n\u{1b}[2J\u{85}";
        for lines_as in [LinesAs::Json, LinesAs::Text { colours: false }] {
            let written = Arc::new(Mutex::new(Vec::new()));
            let (permit, permits) = mpsc::channel();
            let (writer, guard) = start("log", Blocked(permits, Arc::clone(&written)), lines_as).unwrap();
            let log = tracing_subscriber::fmt().with_writer(writer).with_ansi(false);
            let tell = || tracing::warn!(debug = ?hostile, shown = %hostile, "it is {hostile}");
            match lines_as {
                LinesAs::Json => tracing::subscriber::with_default(log.json().finish(), tell),
                LinesAs::Text { .. } => tracing::subscriber::with_default(log.finish(), tell),
            }
            drop(permit);
            drop(guard);
            let written = String::from_utf8(written.lock().unwrap().clone()).unwrap();
            let line = written.strip_suffix('\n').unwrap();
            assert!(!line.contains(crate::domain::text::disturbs), "{line:?}");
            if lines_as == LinesAs::Json {
                let line: serde_json::Value = serde_json::from_str(line).unwrap();
                let message = line["fields"]["message"].as_str().unwrap();
                assert!(message.contains('\u{202e}') && message.contains('\u{2028}'), "{message:?}");
            }
        }
    }
}
