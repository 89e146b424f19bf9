//! What became of a changed policy file.

use std::sync::Arc;

use super::{difference::Differences, findings::Finding};

/// An attempt to load a changed policy, for the audit log.
#[derive(Clone, Debug)]
pub struct PolicyAttempt {
    /// The revision in force before.
    pub before: Arc<str>,
    /// Whether somebody asked for it; the file was seen to change otherwise.
    pub is_asked: bool,
    /// What became of it.
    pub became: Became,
}

/// What became of a changed policy.
#[derive(Clone, Debug)]
pub enum Became {
    /// It is in force.
    Loaded {
        /// Its revision.
        revision: Arc<str>,
        /// What it changed.
        differences: Differences,
    },
    /// It does not load.
    Rejected(Vec<Finding>),
}
