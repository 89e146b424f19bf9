//! Recorded decisions and settlements, in the order of their time.

use std::io::{self, BufRead, Read as _, Seek};

use thiserror::Error;

use crate::{
    authorizer::{LineError, Logged, LoggedDecision, LoggedSettlement, read_line},
    domain::Timestamp,
};

/// The most lines of one replay. The place of each is in memory, in 24 bytes: half a gigabyte for all of them.
const MAX_LINES: u32 = 20_000_000;
/// The longest line. One with the longest names, all labels and all tools has a tenth of it.
const MAX_LINE_BYTES: u64 = 1 << 20;

/// The lines of a decision log, in a file that is read again while they are played.
pub struct Recorded<R> {
    lines: Lines<R>,
    places: Vec<Place>,
    skipped: u64,
}

/// Where a line that is played stands.
#[derive(Clone, Copy)]
pub(super) struct Place {
    pub(super) time: Timestamp,
    /// Of its first byte.
    offset: u64,
    /// Its number in the file, from 1.
    pub(super) line: u32,
}

pub(super) enum Event {
    Decided(Box<LoggedDecision>),
    Settled(Box<LoggedSettlement>),
}

/// Why a decision log cannot be read.
#[derive(Debug, Error)]
pub enum ReadError {
    /// The file.
    #[error("cannot be read: {0}")]
    File(#[from] io::Error),
    /// A line.
    #[error("line {line}: {error}")]
    Line {
        /// Its number, from 1.
        line: u32,
        /// What is wrong.
        error: LineError,
    },
    /// A line that is no text, or too long.
    #[error("line {line}: is {what}")]
    NoText {
        /// Its number, from 1.
        line: u32,
        /// What it is instead.
        what: &'static str,
    },
    /// It has no decision.
    #[error("has no decision in it; `decision_log_allowed = \"100%\"` and `decision_log_denials` record all")]
    Empty,
    /// It is too long.
    #[error("has more than {MAX_LINES} lines; replay a part of it")]
    TooLong,
    /// It was written to between the two times that it is read.
    #[error("line {0}: is another one than before: replay a copy that does not change")]
    Changed(u32),
}

/// A file, and where it is read.
pub(super) struct Lines<R> {
    input: R,
    at: u64,
    text: Vec<u8>,
}

impl<R: BufRead + Seek> Lines<R> {
    /// The next line; `None`: there is none.
    fn next(&mut self, line: u32) -> Result<Option<&str>, ReadError> {
        self.text.clear();
        let mut input = self.input.by_ref().take(MAX_LINE_BYTES + 1);
        let count = input.read_until(b'\n', &mut self.text)? as u64;
        self.at += count;
        if count > MAX_LINE_BYTES {
            return Err(ReadError::NoText { line, what: "longer than 1 MiB" });
        }
        let text = std::str::from_utf8(&self.text);
        let text = text.map_err(|_| ReadError::NoText { line, what: "not in UTF-8" })?;
        Ok((count > 0).then(|| text.trim()))
    }

    /// The event at `place`.
    pub(super) fn read(&mut self, place: Place) -> Result<Event, ReadError> {
        let Place { time, offset, line } = place;
        // Mostly the line that comes next, which is in the buffer.
        let distance = i128::from(offset) - i128::from(self.at);
        self.input.seek_relative(i64::try_from(distance).map_err(|_| ReadError::Changed(line))?)?;
        self.at = offset;
        let text = self.next(line)?.ok_or(ReadError::Changed(line))?;
        match event(text, line)? {
            Some((of, event)) if of == time => Ok(event),
            _ => Err(ReadError::Changed(line)),
        }
    }
}

/// The event of a line and its time; `None`: it is about something else.
fn event(text: &str, line: u32) -> Result<Option<(Timestamp, Event)>, ReadError> {
    Ok(match read_line(text).map_err(|error| ReadError::Line { line, error })? {
        Logged::Decided(decision) => Some((decision.time, Event::Decided(decision))),
        Logged::Settled(settlement) => Some((settlement.time, Event::Settled(settlement))),
        Logged::Other => None,
    })
}

impl<R: BufRead + Seek> Recorded<R> {
    /// Reads JSON lines, of one replica or of several behind each other, from where `input` stands to its end.
    ///
    /// # Errors
    /// The first line that cannot be read.
    pub fn read(input: R) -> Result<Self, ReadError> {
        let lines = Lines { input, at: 0, text: Vec::new() };
        let mut read = Self { lines, places: Vec::new(), skipped: 0 };
        let mut has_decision = false;
        for line in 1.. {
            let offset = read.lines.at;
            let Some(text) = read.lines.next(line)? else { break };
            if line > MAX_LINES {
                return Err(ReadError::TooLong);
            }
            if text.is_empty() {
                continue;
            }
            match event(text, line)? {
                Some((time, event)) => {
                    has_decision |= matches!(event, Event::Decided(_));
                    read.places.push(Place { time, offset, line });
                }
                None => read.skipped += 1,
            }
        }
        if !has_decision {
            return Err(ReadError::Empty);
        }
        // Lines of one replica keep their order within a millisecond.
        read.places.sort_unstable_by_key(|place| (place.time, place.line));
        Ok(read)
    }

    /// The file, the places of its lines by time, and how many were about something else.
    pub(super) fn into_parts(self) -> (Lines<R>, Vec<Place>, u64) {
        (self.lines, self.places, self.skipped)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    /// A settlement or a decision of the given second.
    fn line(second: u32, is_decision: bool) -> String {
        let head = format!(
            "\"v\":1,\"id\":\"1\",\"time\":\"2026-11-24T10:00:{second:02}Z\",\"organization\":\"acme\",\"team\":\"bot\",\
             \"model\":\"m\",\"operation\":\"chat_completion\",\"policy_revision\":\"a/0\""
        );
        match is_decision {
            true => {
                format!("{{\"event\":\"decision\",{head},\"decision\":\"allowed\",\"degraded\":false}}\n")
            }
            false => format!(
                "{{\"event\":\"settlement\",{head},\"reservation_id\":\"01\",\"outcome\":\"completed\",\"result\":\"settled\",\
                 \"cost_nano_usd\":1}}\n"
            ),
        }
    }

    #[test]
    fn lines_are_read_again_in_the_order_of_their_time() {
        let other = "{\"timestamp\":\"2026-11-24T10:00:00Z\",\"level\":\"INFO\",\"target\":\"tollgate\"}";
        let text = [&line(3, true), "\r\n", &line(1, false), other, "\n", line(2, true).trim_end()].concat();
        let (mut lines, places, skipped) = Recorded::read(Cursor::new(&text)).unwrap().into_parts();
        assert_eq!((skipped, size_of::<Place>()), (1, 24));
        let read: Vec<_> = places
            .iter()
            .map(|place| (place.line, matches!(lines.read(*place).unwrap(), Event::Decided(_))))
            .collect();
        assert_eq!(read, [(3, false), (5, true), (1, true)]);
    }

    #[test]
    fn a_line_that_is_no_text_or_too_long_or_changed_is_named() {
        let refused = |text: &[u8]| Recorded::read(Cursor::new(text)).err().unwrap().to_string();
        let sound = line(1, true);
        assert_eq!(refused(&[sound.as_bytes(), b"\xff\n"].concat()), "line 2: is not in UTF-8");
        let long = vec![b' '; 1 << 20];
        assert_eq!(refused(&[sound.as_bytes(), &long, b"{}"].concat()), "line 2: is longer than 1 MiB");
        let (mut lines, places, _) = Recorded::read(Cursor::new(sound.into_bytes())).unwrap().into_parts();
        for other in [line(2, true), line(1, true).replace("INFO", ""), String::new()] {
            lines.input = Cursor::new(other.clone().into_bytes());
            lines.at = 0;
            let is_same = other == line(1, true);
            assert_eq!(lines.read(places[0]).is_ok(), is_same, "{other}");
        }
    }
}
