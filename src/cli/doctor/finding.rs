//! What a look at one thing found.

use serde_json::{Value, json};

/// How much a finding matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Severity {
    /// As it should be.
    Good,
    Warning,
    Error,
}

impl Severity {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Good => "ok",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }
}

/// One thing that is as it should be, or what to do about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Finding {
    pub(super) severity: Severity,
    /// What it is about, such as `store`.
    pub(super) subject: &'static str,
    pub(super) message: String,
    /// What to do; empty where there is nothing to do.
    pub(super) help: String,
}

impl Finding {
    pub(super) fn to_json(&self) -> Value {
        json!({
            "severity": self.severity.name(),
            "subject": self.subject,
            "message": self.message,
            "help": self.help,
        })
    }
}

/// The findings on one subject, as they are made.
pub(super) struct Findings {
    subject: &'static str,
    found: Vec<Finding>,
}

impl Findings {
    pub(super) const fn on(subject: &'static str) -> Self {
        Self { subject, found: Vec::new() }
    }

    fn add(&mut self, severity: Severity, message: String, help: &str) {
        self.found.push(Finding { severity, subject: self.subject, message, help: help.to_owned() });
    }

    pub(super) fn good(&mut self, message: impl Into<String>) {
        self.add(Severity::Good, message.into(), "");
    }

    pub(super) fn warning(&mut self, message: impl Into<String>, help: impl AsRef<str>) {
        self.add(Severity::Warning, message.into(), help.as_ref());
    }

    pub(super) fn error(&mut self, message: impl Into<String>, help: impl AsRef<str>) {
        self.add(Severity::Error, message.into(), help.as_ref());
    }

    /// Whether nothing is wrong so far.
    pub(super) fn are_good(&self) -> bool {
        self.found.iter().all(|finding| finding.severity == Severity::Good)
    }

    pub(super) fn into_vec(self) -> Vec<Finding> {
        self.found
    }
}
