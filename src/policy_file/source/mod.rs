//! The policy in force: read from a file, and read again whenever the file changes.
//!
//! A new policy takes effect entirely or not at all: if it does not load, nothing changes, the failure is logged, and the
//! status shows it.

mod directory;
mod neighbours;

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use arc_swap::ArcSwap;
use thiserror::Error;
use tokio::sync::{
    mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
    watch,
};

pub(super) use self::neighbours::Entry;
pub use self::{
    directory::{MAX_ORGANIZATIONS, PolicyDirectory, load_directory},
    neighbours::Neighbours,
};
use super::{
    EXAMPLE_POLICY,
    attempt::{LoadSource, PolicyAttempt, ReloadOutcome},
    findings::{Finding, PolicyReport, Severity},
    load::{self, Beside, now, parse_policy_for, read_file, unreadable},
};
use crate::domain::{Timestamp, policy::Policy};
use crate::watch::{FileSource, Pace, Reload, Watch};

/// What is in force, and what was rejected since.
#[derive(Clone, Debug)]
pub struct PolicyStatus {
    /// The revision in force.
    pub revision: Arc<str>,
    /// When it was loaded.
    pub loaded_at: Timestamp,
    /// Why it was read.
    pub source: LoadSource,
    /// Its warnings.
    pub warnings: Vec<Finding>,
    /// The newer policy that did not load, until one loads.
    pub rejected: Option<Rejection>,
    /// What it is served beside; `None`: it is the only one.
    pub neighbours: Option<Neighbours>,
}

impl PolicyStatus {
    /// `policy` is in force from now on, with `warnings`, as the process starts.
    #[must_use]
    pub fn new(policy: &Policy, warnings: Vec<Finding>) -> Self {
        let revision = Arc::clone(&policy.revision);
        Self {
            revision,
            loaded_at: now(),
            source: LoadSource::Start,
            warnings,
            rejected: None,
            neighbours: None,
        }
    }
}

/// A policy that did not load.
#[derive(Clone, Debug)]
pub struct Rejection {
    /// When the attempt was made.
    pub at: Timestamp,
    /// Why not.
    pub findings: Vec<Finding>,
}

/// Why there is no initial policy.
#[derive(Debug, Error)]
pub enum PolicySourceError {
    /// It does not load.
    #[error("the policy does not load\n{0}")]
    Rejected(Box<PolicyReport>),
    /// Policies of several organizations do not load, or not together.
    #[error("policies of the directory do not load\n{0}")]
    RejectedOf(String),
    /// The directory of policies cannot be used, and why.
    #[error("the policy directory `{0}` {1}")]
    Directory(String, String),
    /// The thread that watches it cannot be started.
    #[error("the policy cannot be watched: {0}")]
    Watch(#[from] std::io::Error),
}

/// The policy in force, and the watch over its file, which ends when this is dropped.
#[derive(Debug)]
pub struct PolicySource {
    /// `None`: the built-in example.
    path: Option<PathBuf>,
    shared: Arc<Shared>,
    /// `None`: as there.
    watch: Option<Watch<PolicyFile>>,
}

/// What the readers of the policy see.
#[derive(Debug)]
struct Shared {
    current: Arc<ArcSwap<Policy>>,
    status: watch::Sender<Arc<PolicyStatus>>,
    /// All attempts in order, for the one receiver. Unbounded, since attempts are as rare as changes of a file, and each is
    /// bounded in size.
    attempts: UnboundedSender<PolicyAttempt>,
    untaken: Mutex<Option<UnboundedReceiver<PolicyAttempt>>>,
}

/// The file, and where its content goes.
struct PolicyFile {
    path: PathBuf,
    shared: Arc<Shared>,
    /// The policies of other organizations, if there may be some.
    neighbours: Option<Neighbours>,
    /// What was rejected last for what stands in another organization's policy: it is good once that one has changed as well.
    contested: Option<Result<String, String>>,
}

impl PolicySource {
    /// Loads the policy in `path` and watches the file from now on.
    ///
    /// # Errors
    /// The policy has errors, or no thread can be started.
    pub fn open(path: &Path) -> Result<Self, PolicySourceError> {
        Self::open_with(path, Pace::DOCUMENT, None)
    }

    /// The built-in example, which never changes.
    ///
    /// # Errors
    /// The example has errors, which the tests exclude.
    pub fn example() -> Result<Self, PolicySourceError> {
        let report = parse_policy_for(EXAMPLE_POLICY, "the built-in example", now(), Beside::default());
        Ok(Self { path: None, shared: Arc::new(Shared::start(report, None)?), watch: None })
    }

    #[cfg(test)]
    fn open_at(path: &Path, pace: Pace) -> Result<Self, PolicySourceError> {
        Self::open_with(path, pace, None)
    }

    fn open_with(path: &Path, pace: Pace, neighbours: Option<Neighbours>) -> Result<Self, PolicySourceError> {
        let (file, seen) = PolicyFile::open(path, neighbours)?;
        let (path, shared) = (Some(path.to_owned()), Arc::clone(&file.shared));
        Ok(Self { path, shared, watch: Some(Watch::start("policy", file, seen, pace)?) })
    }

    /// The file, as it was named; `None`: the built-in example.
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        self.path.as_deref()
    }

    /// The policy in force. The pointer never changes, so callers can keep it.
    #[must_use]
    pub fn policy(&self) -> Arc<ArcSwap<Policy>> {
        Arc::clone(&self.shared.current)
    }

    /// What is in force, and what was rejected since.
    #[must_use]
    pub fn status(&self) -> Arc<PolicyStatus> {
        Arc::clone(&self.shared.status.borrow())
    }

    /// The status, and a notification of every change to it.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<Arc<PolicyStatus>> {
        self.shared.status.subscribe()
    }

    /// A receiver of all attempts from the first on, for the first caller only.
    #[must_use]
    pub fn attempts(&self) -> Option<UnboundedReceiver<PolicyAttempt>> {
        self.shared.untaken.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Reads the file now, unless it is being written. (Changes are also picked up automatically.) Blocks for as long as
    /// the disk takes.
    pub fn reload(&self) -> Reload {
        self.watch.as_ref().map_or(Reload::Unchanged, Watch::reload)
    }
}

impl Shared {
    fn start(report: PolicyReport, neighbours: Option<Neighbours>) -> Result<Self, PolicySourceError> {
        let Some(policy) = report.policy.clone() else {
            return Err(PolicySourceError::Rejected(Box::new(report)));
        };
        let status = PolicyStatus { neighbours, ..accepted(&policy, report.findings) };
        let (attempts, untaken) = unbounded_channel();
        Ok(Self {
            current: Arc::new(ArcSwap::from_pointee(policy)),
            status: watch::Sender::new(Arc::new(status)),
            attempts,
            untaken: Mutex::new(Some(untaken)),
        })
    }
}

impl PolicyFile {
    /// Loads the policy in `path`; also returns the digest of its text.
    fn open(path: &Path, neighbours: Option<Neighbours>) -> Result<(Self, blake3::Hash), PolicySourceError> {
        // The path stays valid if the working directory changes later.
        let path = std::path::absolute(path)?;
        let content = read_file(&path);
        let beside = Beside { running: None, others: neighbours.as_ref().map(Entry::Take) };
        let report = parse(&path, &content, beside);
        let shared = Arc::new(Shared::start(report, neighbours.clone())?);
        let seen = Self::digest(&content);
        Ok((Self { path, shared, neighbours, contested: None }, seen))
    }

    /// What `content` is as the successor of `running`.
    fn successor(&self, content: &Result<String, String>, running: &Policy) -> PolicyReport {
        let others = self.neighbours.as_ref().map(Entry::Take);
        parse(&self.path, content, Beside { running: Some(running), others })
    }
}

impl FileSource for PolicyFile {
    const NAME: &'static str = "the policy files";

    /// The text or, if there is none, the reason.
    type Content = Result<String, String>;

    fn paths(&self) -> Vec<PathBuf> {
        vec![self.path.clone()]
    }

    fn read(&self) -> Self::Content {
        read_file(&self.path)
    }

    fn digest(content: &Self::Content) -> blake3::Hash {
        let (Ok(text) | Err(text)) = content;
        blake3::hash(text.as_bytes())
    }

    fn apply(&mut self, content: Self::Content, is_asked: bool) -> bool {
        let running = self.shared.current.load_full();
        let report = self.successor(&content, &running);
        let Self { path, shared, contested, .. } = self;
        let before = Arc::clone(&running.revision);
        let record = |outcome| {
            // There may be no receiver.
            let _ = shared.attempts.send(PolicyAttempt { before: Arc::clone(&before), is_asked, outcome });
        };
        *contested = None;
        match report.policy {
            Some(policy) => {
                let source = if is_asked { LoadSource::Signal } else { LoadSource::FileChange };
                let neighbours = self.neighbours.clone();
                let status = PolicyStatus { source, neighbours, ..accepted(&policy, report.findings) };
                let (revision, document) = (Arc::clone(&policy.revision), Arc::clone(&policy.document));
                shared.current.store(Arc::new(policy));
                shared.status.send_replace(Arc::new(status));
                // First put it in force: it may revoke permissions, and comparing large documents takes time.
                let differences =
                    load::document_differences(&running.document, &document).unwrap_or_default();
                record(ReloadOutcome::Loaded { revision, differences });
                true
            }
            None => {
                let is_contested = report.findings.iter().any(|finding| finding.other_file.is_some());
                *contested = is_contested.then_some(content);
                tracing::error!(file = %path.display(), document_revision = %before, "the new policy does not load; the old one stays");
                report.findings.iter().for_each(log);
                record(ReloadOutcome::Rejected(report.findings.clone()));
                let rejected = Some(Rejection { at: now(), findings: report.findings });
                shared.status.send_modify(|status| {
                    *status = Arc::new(PolicyStatus { rejected, ..(**status).clone() })
                });
                false
            }
        }
    }

    fn after_read(&mut self) {
        let Some(content) = self.contested.take() else { return };
        // What came since is looked at as a change.
        if Self::digest(&self.read()) != Self::digest(&content) {
            return;
        }
        let running = self.shared.current.load_full();
        match self.successor(&content, &running).policy {
            Some(_) => drop(self.apply(content, false)),
            // It was said already.
            None => self.contested = Some(content),
        }
    }
}

fn accepted(policy: &Policy, findings: Vec<Finding>) -> PolicyStatus {
    let (organization, teams) = (&*policy.organization.id, policy.teams.len());
    tracing::info!(organization, document_revision = %policy.revision, teams, "policy loaded");
    findings.iter().for_each(log);
    PolicyStatus::new(policy, findings)
}

fn log(finding: &Finding) {
    let Finding { file, line, key_path, message, help, other_file, .. } = finding;
    let other_file = other_file.as_deref();
    match finding.severity {
        Severity::Error => {
            tracing::error!(%file, line, path = key_path, error = message, help, other_file, "policy error")
        }
        Severity::Warning => {
            tracing::warn!(%file, line, path = key_path, error = message, help, other_file, "policy warning")
        }
    }
}

/// What `content` of the file at `path` is, as it goes with what is `beside` it.
fn parse(path: &Path, content: &Result<String, String>, beside: Beside<'_>) -> PolicyReport {
    let name = path.display().to_string();
    match content {
        Ok(text) => parse_policy_for(text, &name, now(), beside),
        Err(reason) => unreadable(&name, reason.clone()),
    }
}

#[cfg(test)]
mod tests;
