//! Everything that is wrong or suspicious in a document, each finding with its place and a fix.

use std::{cell::RefCell, fmt, sync::Arc, time::Instant};

use super::{document::Positions, place::Place};
use crate::domain::policy::Policy;

/// Whether a finding prevents the policy from loading.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// The policy does not load.
    Error,
    /// The policy loads but probably does not do what was meant.
    Warning,
}

/// One thing that is wrong or suspicious.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Whether it prevents loading.
    pub severity: Severity,
    /// The document's name, as given.
    pub file: Arc<str>,
    /// The line from 1; `None` if unknown (JSON).
    pub line: Option<usize>,
    /// The column from 1, in characters.
    pub column: Option<usize>,
    /// The key, such as `teams.chatbot.requests_per_minute`; empty for the document itself.
    pub key_path: String,
    /// What is wrong: lower-case, the user's input in backticks.
    pub message: String,
    /// How to fix it; empty if the message says so.
    pub help: String,
    /// The file with the policy of another organization that is why. It is for those who read the files of this machine: an answer to a
    /// caller, of whichever organization, never has it.
    pub other_file: Option<Arc<str>>,
}

/// `policy.toml:12:1: error: teams.chatbot: …`, and the help on a line of its own; without the file of another organization.
impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.file)?;
        if let (Some(line), Some(column)) = (self.line, self.column) {
            write!(f, ":{line}:{column}")?;
        }
        let severity = if self.severity == Severity::Error { "error" } else { "warning" };
        write!(f, ": {severity}: ")?;
        if !self.key_path.is_empty() {
            write!(f, "{}: ", self.key_path)?;
        }
        f.write_str(&self.message)?;
        if self.help.is_empty() { Ok(()) } else { write!(f, "\n    help: {}", self.help) }
    }
}

/// A policy, if it is valid, and all findings about its document.
#[derive(Clone, Debug)]
pub struct PolicyReport {
    /// The policy; `None` if any finding is an error.
    pub policy: Option<Policy>,
    /// In the order of the document.
    pub findings: Vec<Finding>,
}

impl PolicyReport {
    /// How many findings are errors.
    #[must_use]
    pub fn errors(&self) -> usize {
        self.findings.iter().filter(|finding| finding.severity == Severity::Error).count()
    }

    /// How many findings are warnings.
    #[must_use]
    pub fn warnings(&self) -> usize {
        self.findings.len() - self.errors()
    }
}

/// One finding per line, with the file of another organization that is why, then their number; for a sound policy its revision. For this
/// machine only.
impl fmt::Display for PolicyReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for finding in &self.findings {
            writeln!(f, "{finding}")?;
            if let Some(other) = &finding.other_file {
                writeln!(f, "    other file: {other}")?;
            }
        }
        let count = |n: usize, noun: &str| format!("{n} {noun}{}", if n == 1 { "" } else { "s" });
        let (errors, warnings) = (count(self.errors(), "error"), count(self.warnings(), "warning"));
        match &self.policy {
            None => write!(f, "{errors}, {warnings}"),
            Some(policy) => {
                let (teams, keys) =
                    (count(policy.teams.len(), "team"), count(policy.keys.ordered().len(), "key"));
                write!(f, "policy {}: {teams}, {keys}; {errors}, {warnings}", policy.revision)
            }
        }
    }
}

/// Collects findings while a document is read. Shared, so nested readers can all add to it.
pub(super) struct Findings {
    file: Arc<str>,
    positions: Positions,
    found: RefCell<Vec<Finding>>,
    patience: Patience,
}

/// How long a document is worth checking.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Patience {
    /// Until when; `None`: as long as it takes.
    pub(super) until: Option<Instant>,
    /// Until there are so many findings; `None`: all are of interest.
    pub(super) most: Option<usize>,
}

impl Patience {
    /// Whether the time is over.
    pub(super) fn is_late(&self) -> bool {
        self.until.is_some_and(|until| Instant::now() >= until)
    }
}

impl Findings {
    /// No findings yet for the document `file`.
    pub(super) fn new(file: &str, positions: Positions, patience: Patience) -> Self {
        Self { file: Arc::from(file), positions, found: RefCell::default(), patience }
    }

    /// Whether to stop checking, as the rest is not worth its time. Asked before each table, and each item whose check takes the longer the
    /// larger the document is.
    pub(super) fn are_enough(&self) -> bool {
        self.are_most() || self.patience.is_late()
    }

    /// The items as long as they are worth checking.
    pub(super) fn while_few<I: IntoIterator>(&self, items: I) -> impl Iterator<Item = I::Item> {
        items.into_iter().take_while(|_| !self.are_enough())
    }

    fn are_most(&self) -> bool {
        self.patience.most.is_some_and(|most| self.found.borrow().len() >= most)
    }

    /// Adds an error, which prevents loading.
    pub(super) fn error(&self, place: &Place, message: impl Into<String>, help: impl Into<String>) {
        self.note(Severity::Error, place, (message.into(), help.into()), None);
    }

    /// Adds an error whose reason is the policy of another organization, in the file `other`.
    pub(super) fn contested(&self, place: &Place, message: &str, help: &str, other: &Arc<str>) {
        self.note(Severity::Error, place, (message.to_owned(), help.to_owned()), Some(Arc::clone(other)));
    }

    /// Whether the policy does not load.
    pub(super) fn has_errors(&self) -> bool {
        self.found.borrow().iter().any(|finding| finding.severity == Severity::Error)
    }

    /// Adds a warning.
    pub(super) fn warning(&self, place: &Place, message: impl Into<String>, help: impl Into<String>) {
        self.note(Severity::Warning, place, (message.into(), help.into()), None);
    }

    fn note(
        &self,
        severity: Severity,
        place: &Place,
        (message, help): (String, String),
        other_file: Option<Arc<str>>,
    ) {
        if self.are_most() {
            return;
        }
        let position = self.positions.find(place);
        self.found.borrow_mut().push(Finding {
            severity,
            file: Arc::clone(&self.file),
            line: position.map(|p| p.line),
            column: position.map(|p| p.column),
            key_path: place.as_str().to_owned(),
            message,
            help,
            other_file,
        });
    }

    /// All findings, in document order.
    pub(super) fn into_sorted(self) -> Vec<Finding> {
        let mut found = self.found.into_inner();
        found.sort_by_key(|finding| (finding.line, finding.column));
        found
    }
}
