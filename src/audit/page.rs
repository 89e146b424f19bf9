//! Reads the log from its end.

use std::{
    fmt,
    fs::File,
    io::{self, Read as _, Seek as _, SeekFrom, Write as _},
    os::unix::fs::FileExt as _,
};

use jiff::Timestamp;
use thiserror::Error;

use super::{Event, event::is_id};

/// The most events of one page.
pub const MAX_PAGE: usize = 1_000;
/// Bytes read at a time.
const CHUNK: usize = 64 << 10;
/// The most bytes read for one page: a filter that matches little gets pages with few events, not a slow answer. A file with so
/// much and no event is not an audit log.
const MAX_READ: usize = 16 << 20;
/// The longest line to read. Events are far shorter: a file with a longer line is not an audit log.
const MAX_LINE: usize = 1 << 20;
/// The most bytes of lines on one page, which keeps an answer below gRPC's 4 MiB.
const MAX_ANSWER: usize = 1 << 20;

/// Which events to return.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Query {
    /// The most events to return.
    pub page_size: usize,
    /// [`Page::next`] of the previous page; `None`: the newest.
    pub before: Option<Place>,
    /// Only this action; empty: all.
    pub action: String,
    /// Only subjects with this prefix.
    pub subject_prefix: String,
    /// Only events at this time or later.
    pub since: Option<Timestamp>,
}

/// One page of events.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Page {
    /// Newest first.
    pub events: Vec<Event>,
    /// Where the next page begins; `None`: this was the last page.
    pub next: Option<Place>,
}

/// Where an event stands in the file, and its id: after the file was cut, another event may stand there. As text, both with a
/// colon between them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The bytes before it.
    at: u64,
    /// Its id.
    id: String,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.at, self.id)
    }
}

impl Place {
    /// The place that `text` names; `None` if it names none.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (at, id) = text.split_once(':').filter(|(_, id)| is_id(id))?;
        Some(Self { at: at.parse().ok()?, id: id.to_owned() })
    }

    /// Its position in `file`, if its event is still there.
    fn find_in(&self, file: &File) -> Result<u64, PageError> {
        if self.at > file.metadata()?.len() {
            return Err(PageError::NoSuchPage);
        }
        let expected = format!("\n{}", Event::beginning(&self.id));
        // No line precedes the first one.
        let (from, expected) = match self.at.checked_sub(1) {
            Some(before) => (before, expected.as_str()),
            None => (0, expected.trim_start()),
        };
        let mut found = vec![0; expected.len()];
        file.read_exact_at(&mut found, from)?;
        if found == expected.as_bytes() { Ok(self.at) } else { Err(PageError::NoSuchPage) }
    }
}

/// Why there is no page.
#[derive(Debug, Error)]
pub enum PageError {
    /// Nothing is recorded, or not in a file.
    #[error("this replica keeps no audit log in a file: see its settings `audit_sinks` and `audit_file`")]
    NoFile,
    /// Another event stands there, or none; or the file was cut during the read.
    #[error("no page of this log begins there; the file may have been replaced")]
    NoSuchPage,
    /// The file cannot be read.
    #[error("the audit log cannot be read: {0}")]
    Unreadable(#[source] io::Error),
}

impl From<io::Error> for PageError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            // It was there a moment ago and no longer is.
            io::ErrorKind::UnexpectedEof => Self::NoSuchPage,
            _ => Self::Unreadable(error),
        }
    }
}

/// Ends a line that a crash cut short, so that the next one stands on its own line.
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
    let end = match &query.before {
        Some(place) => place.find_in(file)?,
        None => file.metadata()?.len(),
    };
    let mut lines = Backwards { file, start: end, tail: Vec::new() };
    let (mut events, mut answered, mut at) = (Vec::new(), 0, end);
    // Of the oldest event so far. Other lines have no id to find them by.
    let mut place = None;
    while let Some(line) = lines.next()? {
        at -= line.len() as u64;
        if let Ok(event) = serde_json::from_slice::<Event>(&line) {
            if query.is_passed(&event) {
                return Ok(Page { events, next: None });
            }
            let here = Place { at, id: event.id.clone() };
            if query.takes(&event) {
                if answered + line.len() > MAX_ANSWER && !events.is_empty() {
                    return Ok(Page { events, next: place });
                }
                answered += line.len();
                events.push(event);
            }
            place = Some(here);
        }
        if at > 0 && (events.len() >= query.page_size.clamp(1, MAX_PAGE) || end - at > MAX_READ as u64) {
            let place = place.ok_or_else(|| no_log("16 MiB without an event are no audit log"))?;
            return Ok(Page { events, next: Some(place) });
        }
    }
    Ok(Page { events, next: None })
}

fn no_log(reason: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason)
}

impl Query {
    fn takes(&self, event: &Event) -> bool {
        (self.action.is_empty() || self.action == event.action)
            && event.subject.starts_with(&self.subject_prefix)
            && self.since.is_none_or(|since| event.time >= since)
    }

    /// Whether everything before `event` is too old as well. Clocks go back; the times in ids do not.
    fn is_passed(&self, event: &Event) -> bool {
        let since = self.since.and_then(|since| u64::try_from(since.as_millisecond()).ok());
        since.zip(event.id_ms()).is_some_and(|(since, newest)| newest < since)
    }
}

/// The lines of a file, the last one first, each with its newline.
struct Backwards<'a> {
    file: &'a File,
    /// Where `tail` begins in the file.
    start: u64,
    /// Bytes read and not yet returned.
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
                return Err(no_log("a line of over 1 MiB is no event"));
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
