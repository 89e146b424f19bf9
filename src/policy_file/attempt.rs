//! The outcome of loading a changed policy file.

use std::sync::Arc;

use super::{difference::Differences, findings::Finding};

/// An attempt to load a changed policy, for the audit log.
#[derive(Clone, Debug)]
pub struct PolicyAttempt {
    /// The revision in force before.
    pub before: Arc<str>,
    /// Whether the reload was requested; otherwise the watcher noticed the change.
    pub is_asked: bool,
    /// The outcome.
    pub outcome: ReloadOutcome,
}

/// The outcome of loading a changed policy.
#[derive(Clone, Debug)]
pub enum ReloadOutcome {
    /// It is in force.
    Loaded {
        /// Its revision.
        revision: Arc<str>,
        /// What it changed.
        differences: Differences,
    },
    /// It did not load.
    Rejected(Vec<Finding>),
}

/// Why a policy was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoadSource {
    /// The process started.
    Start,
    /// The watcher noticed that the file had changed.
    FileChange,
    /// A signal asked for it.
    Signal,
}

impl LoadSource {
    /// Its name in the contract.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::FileChange => "file change",
            Self::Signal => "signal",
        }
    }
}
