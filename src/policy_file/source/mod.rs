//! The policy in force: read from a file, and read again whenever the file changes.
//!
//! A new policy takes effect entirely or not at all: if it does not load, nothing changes, the failure is logged, and the
//! status shows it.

mod claims;
mod directory;

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

use self::claims::Claims;
pub use self::directory::{MAX_ORGANIZATIONS, PolicyDirectory, load_directory};
use super::{
    EXAMPLE_POLICY,
    attempt::{LoadSource, PolicyAttempt, ReloadOutcome},
    findings::{Finding, PolicyReport, Severity},
    load::{self, now, parse_policy_for, read_file, unreadable},
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
}

impl PolicyStatus {
    /// `policy` is in force from now on, with `warnings`, as the process starts.
    #[must_use]
    pub fn new(policy: &Policy, warnings: Vec<Finding>) -> Self {
        let revision = Arc::clone(&policy.revision);
        Self { revision, loaded_at: now(), source: LoadSource::Start, warnings, rejected: None }
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
    /// Those of all organizations, if there may be several.
    claims: Option<Arc<Claims>>,
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
        let report = parse_policy_for(EXAMPLE_POLICY, "the built-in example", now(), None);
        Ok(Self { path: None, shared: Arc::new(Shared::start(report)?), watch: None })
    }

    #[cfg(test)]
    fn open_at(path: &Path, pace: Pace) -> Result<Self, PolicySourceError> {
        Self::open_with(path, pace, None)
    }

    fn open_with(path: &Path, pace: Pace, claims: Option<Arc<Claims>>) -> Result<Self, PolicySourceError> {
        let (file, seen) = PolicyFile::open(path, claims)?;
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
    fn start(report: PolicyReport) -> Result<Self, PolicySourceError> {
        let Some(policy) = report.policy.clone() else {
            return Err(PolicySourceError::Rejected(Box::new(report)));
        };
        let status = accepted(&policy, report.findings);
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
    fn open(path: &Path, claims: Option<Arc<Claims>>) -> Result<(Self, blake3::Hash), PolicySourceError> {
        // The path stays valid if the working directory changes later.
        let path = std::path::absolute(path)?;
        let content = read_file(&path);
        let report = parse(&path, &content, None);
        let shared = Arc::new(Shared::start(admitted(claims.as_deref(), &path, report).0)?);
        let seen = Self::digest(&content);
        Ok((Self { path, shared, claims, contested: None }, seen))
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
        let Self { path, shared, claims, contested } = self;
        let running = shared.current.load_full();
        let (report, is_contested) = admitted(claims.as_deref(), path, parse(path, &content, Some(&running)));
        let before = Arc::clone(&running.revision);
        let record = |outcome| {
            // There may be no receiver.
            let _ = shared.attempts.send(PolicyAttempt { before: Arc::clone(&before), is_asked, outcome });
        };
        *contested = None;
        match report.policy {
            Some(policy) => {
                let source = if is_asked { LoadSource::Signal } else { LoadSource::FileChange };
                let status = PolicyStatus { source, ..accepted(&policy, report.findings) };
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
        let report = parse(&self.path, &content, Some(&running));
        match admitted(self.claims.as_deref(), &self.path, report) {
            (PolicyReport { policy: Some(_), .. }, _) => drop(self.apply(content, false)),
            // It was said already.
            _ => self.contested = Some(content),
        }
    }
}

/// What `report` is beside the policies of other organizations, and whether one of those is why it has no policy.
fn admitted(claims: Option<&Claims>, path: &Path, report: PolicyReport) -> (PolicyReport, bool) {
    match claims {
        Some(claims) => claims.admit(path, report),
        None => (report, false),
    }
}

fn accepted(policy: &Policy, findings: Vec<Finding>) -> PolicyStatus {
    tracing::info!(document_revision = %policy.revision, teams = policy.teams.len(), "policy loaded");
    findings.iter().for_each(log);
    PolicyStatus::new(policy, findings)
}

fn log(finding: &Finding) {
    let Finding { file, line, key_path, message, help, .. } = finding;
    match finding.severity {
        Severity::Error => {
            tracing::error!(%file, line, path = key_path, error = message, help, "policy error")
        }
        Severity::Warning => {
            tracing::warn!(%file, line, path = key_path, error = message, help, "policy warning")
        }
    }
}

/// What `content` of the file at `path` is as a replacement for the policy `running`.
fn parse(path: &Path, content: &Result<String, String>, running: Option<&Policy>) -> PolicyReport {
    let name = path.display().to_string();
    match content {
        Ok(text) => parse_policy_for(text, &name, now(), running),
        Err(reason) => unreadable(&name, reason.clone()),
    }
}

#[cfg(test)]
mod tests;
