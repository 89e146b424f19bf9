//! Recorded decisions and settlements, in the order of their time.

use std::io::{self, BufRead};

use thiserror::Error;

use crate::{
    authorizer::{LineError, Logged, LoggedDecision, LoggedSettlement, read_line},
    domain::Timestamp,
};

/// The most lines of one replay: all of them are in memory, at about half a kilobyte each.
const MAX_LINES: usize = 20_000_000;

/// The lines of a decision log.
#[derive(Default)]
pub struct Recorded {
    entries: Vec<Entry>,
    skipped: u64,
}

/// A line that is played.
pub(super) struct Entry {
    /// Its number in the file, from 1.
    pub(super) line: usize,
    pub(super) time: Timestamp,
    pub(super) event: Event,
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
        line: usize,
        /// What is wrong.
        error: LineError,
    },
    /// It has no decision.
    #[error("has no decision in it; `decision_log_allowed = \"100%\"` and `decision_log_denials` record all")]
    Empty,
    /// It is too long.
    #[error("has more than {MAX_LINES} lines; replay a part of it")]
    TooLong,
}

impl Recorded {
    /// Reads JSON lines, of one replica or of several behind each other.
    ///
    /// # Errors
    /// The first line that cannot be read.
    pub fn read(input: impl BufRead) -> Result<Self, ReadError> {
        let mut read = Self::default();
        for (index, text) in input.lines().enumerate() {
            let (line, text) = (index + 1, text?);
            if line > MAX_LINES {
                return Err(ReadError::TooLong);
            }
            if text.trim().is_empty() {
                continue;
            }
            let (time, event) = match read_line(&text).map_err(|error| ReadError::Line { line, error })? {
                Logged::Decided(decision) => (decision.time, Event::Decided(decision)),
                Logged::Settled(settlement) => (settlement.time, Event::Settled(settlement)),
                Logged::Other => {
                    read.skipped += 1;
                    continue;
                }
            };
            read.entries.push(Entry { line, time, event });
        }
        if !read.entries.iter().any(|entry| matches!(entry.event, Event::Decided(_))) {
            return Err(ReadError::Empty);
        }
        // Stable: lines of one replica keep their order within a millisecond.
        read.entries.sort_by_key(|entry| entry.time);
        Ok(read)
    }

    /// The lines by time, and how many were about something else.
    pub(super) fn into_parts(self) -> (Vec<Entry>, u64) {
        (self.entries, self.skipped)
    }
}
