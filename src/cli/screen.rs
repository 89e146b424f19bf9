//! Where results go, and how a command ends.

use std::{
    io::{self, BufWriter, ErrorKind, IsTerminal as _, Stdout, Write},
    process::ExitCode,
};

use clap::ValueEnum;
use prost::{Message, Name};
use serde_json::Value;
use thiserror::Error;

use crate::{
    domain::text::{Notation, written_out},
    rpc::{JsonError, to_json},
};

/// How a command that did not fail ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Exit {
    /// Done; for a decision: allowed.
    Done = 0,
    /// Denied; for a check: unsound.
    Denied = 1,
    /// What was asked for is wrong: a policy with errors, an invariant that does not hold.
    Failed = 2,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// Why a command could not do its work: one sentence for people, with a remedy.
#[derive(Debug, Error)]
pub(super) enum Failure {
    #[error("cannot write the result: {0}")]
    Output(#[from] io::Error),
    #[error(transparent)]
    Json(#[from] JsonError),
    #[error("{0}")]
    Explained(String),
}

impl Failure {
    /// Every failure ends with this code.
    pub(super) const EXIT: Exit = Exit::Failed;

    pub(super) fn new(message: impl Into<String>) -> Self {
        Self::Explained(message.into())
    }
}

/// Standard output. A reader that stops early (`| head`) is no error: the rest is discarded, and the exit code still tells
/// the decision.
pub(super) struct Screen {
    out: BufWriter<Stdout>,
    /// Whether its reader has gone.
    is_closed: bool,
    /// Whether to use colours.
    pub(super) colour: bool,
}

impl Screen {
    pub(super) fn stdout(color: Color) -> Self {
        let stdout = io::stdout();
        Self { colour: color.is_for(&stdout), out: BufWriter::new(stdout), is_closed: false }
    }

    /// Prints an answer of the service as JSON.
    pub(super) fn message<M: Message + Name>(&mut self, message: &M) -> Result<(), Failure> {
        Ok(self.json(&to_json(message)?)?)
    }

    /// Prints a message of the service as JSON in one line.
    pub(super) fn message_line<M: Message + Name>(&mut self, message: &M) -> Result<(), Failure> {
        let text = to_json(message)?.to_string();
        Ok(writeln!(self, "{}", written_out(&text, Notation::Json, |_| false))?)
    }

    /// Whether its reader has gone, so that nothing more has to be printed.
    pub(super) const fn is_closed(&self) -> bool {
        self.is_closed
    }

    pub(super) fn json(&mut self, value: &Value) -> io::Result<()> {
        let text = format!("{value:#}");
        writeln!(self, "{}", written_out(&text, Notation::Json, |c| c == '\n'))
    }
}

/// When to use colours.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum Color {
    // Of NO_COLOR see no-color.org.
    #[default]
    Auto,
    Always,
    Never,
}

impl Color {
    /// Whether to use them on `stream`.
    pub(super) fn is_for(self, stream: &impl io::IsTerminal) -> bool {
        match self {
            Self::Auto => {
                stream.is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
            }
            Self::Always => true,
            Self::Never => false,
        }
    }
}

/// Whether standard error is a terminal.
pub(super) fn progress_is_seen() -> bool {
    io::stderr().is_terminal()
}

impl Write for Screen {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // Names and reasons are text written by others. Everything printed is text; a partial character is passed on as it
        // is.
        let text = std::str::from_utf8(bytes).map(|text| {
            written_out(text, Notation::Text, |c| c == '\n' || c == '\t' || self.colour && c == '\u{1b}')
        });
        let written = match &text {
            Ok(text) => self.out.write_all(text.as_bytes()),
            Err(_) => self.out.write_all(bytes),
        };
        match written {
            Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(error),
            written => {
                self.is_closed |= written.is_err();
                Ok(bytes.len())
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self.out.flush() {
            Err(error) if error.kind() == ErrorKind::BrokenPipe => {
                self.is_closed = true;
                Ok(())
            }
            other => other,
        }
    }
}
