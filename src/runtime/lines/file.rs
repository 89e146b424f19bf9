//! Files that lines are appended to.

use std::{
    fs::{self, File, OpenOptions, Permissions},
    io::{self, Seek as _, SeekFrom, Write},
    os::unix::fs::{FileExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::Path,
    thread,
    time::Duration,
};

use tracing::{error, warn};

/// How long to wait before trying a failing disk again.
const RETRY: Duration = Duration::from_secs(1);

/// Writes each line whole, however long its output fails: each failure is logged and followed by another attempt.
#[derive(Debug)]
pub struct Patient<W> {
    /// Where lines go.
    pub out: W,
    log: &'static str,
}

impl<W> Patient<W> {
    /// Writes to `out`; `log` names it in the lines about failures.
    pub const fn new(out: W, log: &'static str) -> Self {
        Self { out, log }
    }
}

impl<W: Write> Write for Patient<W> {
    /// Takes a whole line, with its end.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let mut again = Vec::new();
        // After a partial write the rest of the line is lost, and the next attempt starts a line of its own: readers skip the
        // broken one.
        while let Err(error) = self.out.write_all(if again.is_empty() { line } else { &again }) {
            error!(log = self.log, %error, "a log cannot be written; trying again");
            if again.is_empty() {
                again = [b"\n", line].concat();
            }
            thread::sleep(RETRY);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// Opens the file at `path` to append to, closed to other users; `log` names it in the log. What another process cuts off, as
/// `copytruncate` does, is no harm: each write goes to the end of what is left.
///
/// # Errors
/// If it cannot be opened.
pub fn open(path: &Path, log: &'static str) -> io::Result<File> {
    let file = OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(path)?;
    close_to_others(&file, path, log);
    Ok(file)
}

/// Takes all access from other users, as logs name callers. Group access stays, as it may be meant for collecting the log.
fn close_to_others(file: &File, path: &Path, log: &'static str) {
    // A device does not belong to the log.
    let Some(metadata) = file.metadata().ok().filter(fs::Metadata::is_file) else { return };
    let mode = metadata.permissions().mode();
    if mode & 0o007 == 0 {
        return;
    }
    let closed = file.set_permissions(Permissions::from_mode(mode & 0o770)).is_ok();
    warn!(log, file = %path.display(), closed, "the file of a log was open to all users of this machine");
}

/// Ends a line that a crash cut short, so that the next one stands on its own line.
///
/// # Errors
/// If the file cannot be read or written.
pub fn end_line(file: &mut File) -> io::Result<()> {
    if !file.metadata()?.is_file() {
        return Ok(());
    }
    let size = file.seek(SeekFrom::End(0))?;
    let mut last = [b'\n'];
    if let Some(at) = size.checked_sub(1) {
        file.read_exact_at(&mut last, at)?;
    }
    if last == *b"\n" { Ok(()) } else { file.write_all(b"\n") }
}
