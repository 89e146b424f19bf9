//! Reading the log, from its end.

use std::{
    fs::File,
    io::{self, Read as _, Seek as _, SeekFrom, Write as _},
    os::unix::fs::FileExt as _,
};

use jiff::Timestamp;
use thiserror::Error;

use super::Event;

/// The most events of one page.
pub const MAX_PAGE: usize = 1_000;
/// What is read at a time.
const CHUNK: usize = 64 << 10;
/// The most that is read for one page: a filter that holds for little gets pages of few events, not a slow answer.
const MAX_READ: usize = 16 << 20;
/// The longest line that is read. Events are far shorter: a longer one is no audit log.
const MAX_LINE: usize = 1 << 20;
/// The most that the lines of one page hold, so that an answer stays below gRPC's 4 MiB.
const MAX_ANSWER: usize = 1 << 20;

/// Which events.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Query {
    /// How many at the most.
    pub page_size: usize,
    /// [`Page::next`] of the page before; `None`: the newest.
    pub before: Option<u64>,
    /// Only this action; empty: all.
    pub action: String,
    /// Only subjects that begin so.
    pub subject_prefix: String,
    /// Only events of this time and later ones.
    pub since: Option<Timestamp>,
}

/// Some events.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Page {
    /// The newest first.
    pub events: Vec<Event>,
    /// Where the next page begins; `None`: this was the last.
    pub next: Option<u64>,
}

/// Why there is no page.
#[derive(Debug, Error)]
pub enum PageError {
    /// Nothing is recorded, or not in a file.
    #[error("this replica keeps no audit log in a file: see its setting `audit_file`")]
    NoFile,
    /// No event begins or ends there.
    #[error("no page of this log begins there; the file may have been replaced")]
    NoSuchPage,
    /// The file cannot be read.
    #[error("the audit log cannot be read: {0}")]
    Unreadable(#[from] io::Error),
}

/// Ends a line that a crash cut short, so that the next one is a line of its own.
pub(super) fn end_line(file: &mut File) -> io::Result<()> {
    let size = file.seek(SeekFrom::End(0))?;
    let mut last = [b'\n'];
    if size > 0 {
        file.seek(SeekFrom::End(-1))?;
        file.read_exact(&mut last)?;
    }
    if last == *b"\n" { Ok(()) } else { file.write_all(b"\n") }
}

/// The page of `file` that `query` asks for.
pub(super) fn read(file: &File, query: &Query) -> Result<Page, PageError> {
    let size = file.metadata()?.len();
    let end = query.before.unwrap_or(size);
    if end > size || !is_start_of_line(file, end)? && query.before.is_some() {
        return Err(PageError::NoSuchPage);
    }
    let mut lines = Backwards { file, start: end, tail: Vec::new() };
    let (mut events, mut answered, mut at) = (Vec::new(), 0, end);
    while let Some(line) = lines.next()? {
        let here = at - line.len() as u64;
        if let Ok(event) = serde_json::from_slice::<Event>(&line) {
            if query.is_passed(&event) {
                return Ok(Page { events, next: None });
            }
            if query.takes(&event) {
                if answered + line.len() > MAX_ANSWER && !events.is_empty() {
                    return Ok(Page { events, next: Some(at) });
                }
                answered += line.len();
                events.push(event);
            }
        }
        at = here;
        if at > 0 && (events.len() >= query.page_size.clamp(1, MAX_PAGE) || end - at > MAX_READ as u64) {
            return Ok(Page { events, next: Some(at) });
        }
    }
    Ok(Page { events, next: None })
}

impl Query {
    fn takes(&self, event: &Event) -> bool {
        (self.action.is_empty() || self.action == event.action)
            && event.subject.starts_with(&self.subject_prefix)
            && self.since.is_none_or(|since| event.time >= since)
    }

    /// Whether all that stands before `event` is too old as well. Clocks go back; the times in ids do not.
    fn is_passed(&self, event: &Event) -> bool {
        let since = self.since.and_then(|since| u64::try_from(since.as_millisecond()).ok());
        since.zip(event.id_ms()).is_some_and(|(since, newest)| newest < since)
    }
}

fn is_start_of_line(file: &File, at: u64) -> io::Result<bool> {
    let Some(before) = at.checked_sub(1) else { return Ok(true) };
    let mut byte = [0];
    file.read_exact_at(&mut byte, before)?;
    Ok(byte == *b"\n")
}

/// The lines of a file, the last one first, each with its end.
struct Backwards<'a> {
    file: &'a File,
    /// Where `tail` begins in the file.
    start: u64,
    /// What was read and not yet handed out.
    tail: Vec<u8>,
}

impl Backwards<'_> {
    fn next(&mut self) -> io::Result<Option<Vec<u8>>> {
        loop {
            let body = self.tail.strip_suffix(b"\n").unwrap_or(&self.tail);
            if let Some(end) = body.iter().rposition(|byte| *byte == b'\n') {
                return Ok(Some(self.tail.split_off(end + 1)));
            }
            if self.tail.len() > MAX_LINE {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "a line of over 1 MiB is no event"));
            }
            if self.start == 0 {
                return Ok((!self.tail.is_empty()).then(|| std::mem::take(&mut self.tail)));
            }
            let from = self.start.saturating_sub(CHUNK as u64);
            let mut chunk = vec![0; usize::try_from(self.start - from).unwrap_or(CHUNK)];
            self.file.read_exact_at(&mut chunk, from)?;
            chunk.append(&mut self.tail);
            (self.tail, self.start) = (chunk, from);
        }
    }
}
