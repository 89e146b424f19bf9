//! The policy in force: read from a file, and read again whenever the file changes.
//!
//! A new policy takes effect entirely or not at all: if it does not load, nothing changes, the failure is logged, and the
//! status shows it.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread,
    time::Duration,
};

use arc_swap::ArcSwap;
use thiserror::Error;
use tokio::sync::{
    mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
    watch,
};

use super::{
    EXAMPLE_POLICY,
    attempt::{Became, PolicyAttempt},
    difference,
    findings::{Finding, PolicyReport, Severity},
    load::{now, parse_policy_for, read_file, unreadable},
    watch::{Watched, Watching, Writer},
};
use crate::domain::{Timestamp, policy::Policy};

/// How often the file is read without a change event. This bounds the delay where the system sends no events (network
/// disks).
const POLL: Duration = Duration::from_secs(10);
/// What is in force, and what was rejected since.
#[derive(Clone, Debug)]
pub struct PolicyStatus {
    /// The revision in force.
    pub revision: Arc<str>,
    /// When it was loaded.
    pub loaded_at: Timestamp,
    /// Its warnings.
    pub warnings: Vec<Finding>,
    /// The newer policy that did not load, until one loads.
    pub rejected: Option<Rejection>,
}

/// A policy that did not load.
#[derive(Clone, Debug)]
pub struct Rejection {
    /// When the attempt was made.
    pub at: Timestamp,
    /// Why not.
    pub findings: Vec<Finding>,
}

/// The outcome of an attempt to reload the policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reload {
    /// The file is unchanged since the last attempt.
    Unchanged,
    /// A process is writing the file; the file is loaded automatically once that is done.
    BeingWritten,
    /// The content of the file is now in force.
    Loaded,
    /// The file does not load: see [`PolicySource::status`].
    Rejected,
}

/// Why there is no initial policy.
#[derive(Debug, Error)]
pub enum PolicySourceError {
    /// It does not load.
    #[error("the policy does not load\n{0}")]
    Rejected(Box<PolicyReport>),
    /// The thread that watches it cannot be started.
    #[error("the policy cannot be watched: {0}")]
    Watch(#[from] std::io::Error),
}

#[derive(Debug)]
struct Last {
    /// The hash of the text that was read last.
    seen: blake3::Hash,
    /// The text in force, to compare the next one with.
    accepted: String,
}

/// The policy in force, and the watcher of its file, which stops when this is dropped.
#[derive(Debug)]
pub struct PolicySource {
    shared: Arc<Shared>,
    /// Wakes the watching thread to check the file, or `stopped`. One pending message is as good as many, so sending never
    /// waits for a full channel.
    wake: mpsc::SyncSender<()>,
    /// `None`: the built-in example.
    writer: Option<Arc<Writer>>,
}

#[derive(Debug)]
struct Shared {
    /// `None`: the built-in example.
    path: Option<PathBuf>,
    current: Arc<ArcSwap<Policy>>,
    status: watch::Sender<Arc<PolicyStatus>>,
    /// All attempts in order, for the one receiver. Unbounded, since attempts are as rare as changes of a file, and each is
    /// bounded in size.
    attempts: UnboundedSender<PolicyAttempt>,
    untaken: Mutex<Option<UnboundedReceiver<PolicyAttempt>>>,
    /// The last text that was read. Locked during a whole attempt, so attempts are sequential and the last text read is the
    /// one in force. The hot path never locks it.
    last: Mutex<Last>,
    stopped: AtomicBool,
}

impl PolicySource {
    /// Loads the policy in `path` and watches the file from now on.
    ///
    /// # Errors
    /// The policy has errors, or no thread can be started.
    pub fn open(path: &Path) -> Result<Self, PolicySourceError> {
        Self::open_polling(path, POLL)
    }

    /// The built-in example, which never changes.
    ///
    /// # Errors
    /// The example has errors, which the tests exclude.
    pub fn example() -> Result<Self, PolicySourceError> {
        let report = parse_policy_for(EXAMPLE_POLICY, "the built-in example", now(), None);
        let (wake, _) = mpsc::sync_channel(1);
        Ok(Self {
            shared: Arc::new(Shared::start(None, report, EXAMPLE_POLICY.to_owned())?),
            wake,
            writer: None,
        })
    }

    fn open_polling(path: &Path, poll: Duration) -> Result<Self, PolicySourceError> {
        // The path stays valid if the working directory changes later.
        let path = std::path::absolute(path)?;
        let (report, text) = read(&path, None);
        let shared = Arc::new(Shared::start(Some(path.clone()), report, text)?);
        let (wake, woken) = mpsc::sync_channel(1);
        let watching = Watching::new(path, Arc::downgrade(&shared), woken, wake.clone(), poll);
        let writer = Some(watching.writer());
        thread::Builder::new().name("policy".to_owned()).spawn(move || watching.run())?;
        Ok(Self { shared, wake, writer })
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
        if self.writer.as_ref().is_some_and(|writer| writer.is_writing()) {
            return Reload::BeingWritten;
        }
        self.shared.attempt(true)
    }
}

impl Drop for PolicySource {
    fn drop(&mut self) {
        self.shared.stopped.store(true, Ordering::Release);
        let _ = self.wake.try_send(());
    }
}

impl Shared {
    fn start(path: Option<PathBuf>, report: PolicyReport, text: String) -> Result<Self, PolicySourceError> {
        let Some(policy) = report.policy.clone() else {
            return Err(PolicySourceError::Rejected(Box::new(report)));
        };
        let status = accepted(&policy, report.findings);
        let (attempts, untaken) = unbounded_channel();
        Ok(Self {
            path,
            current: Arc::new(ArcSwap::from_pointee(policy)),
            status: watch::Sender::new(Arc::new(status)),
            attempts,
            untaken: Mutex::new(Some(untaken)),
            last: Mutex::new(Last { seen: hash(&text), accepted: text }),
            stopped: AtomicBool::new(false),
        })
    }

    fn attempt(&self, is_asked: bool) -> Reload {
        let Some(path) = &self.path else { return Reload::Unchanged };
        // A panic while the lock is held leaves only a text behind.
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let running = self.current.load_full();
        let (report, text) = read(path, Some((&running, last.seen)));
        let seen = hash(&text);
        if seen == last.seen {
            return Reload::Unchanged;
        }
        last.seen = seen;
        let before = Arc::clone(&running.revision);
        let tell = |became| {
            // No one has to be listening.
            let _ = self.attempts.send(PolicyAttempt { before: Arc::clone(&before), is_asked, became });
        };
        match report.policy {
            Some(policy) => {
                let status = accepted(&policy, report.findings);
                let revision = Arc::clone(&policy.revision);
                self.current.store(Arc::new(policy));
                self.status.send_replace(Arc::new(status));
                // First put it in force: it may revoke permissions, and comparing large documents takes time.
                let differences = difference::between(&last.accepted, &text, path);
                tell(Became::Loaded { revision, differences });
                last.accepted = text;
                Reload::Loaded
            }
            None => {
                tracing::error!(path = %path.display(), revision = %before, "the new policy does not load; the old one stays");
                report.findings.iter().for_each(log);
                tell(Became::Rejected(report.findings.clone()));
                let rejected = Some(Rejection { at: now(), findings: report.findings });
                self.status.send_modify(|status| {
                    *status = Arc::new(PolicyStatus { rejected, ..(**status).clone() })
                });
                Reload::Rejected
            }
        }
    }
}

impl Watched for Shared {
    fn unseen(&self) -> Option<blake3::Hash> {
        let text = read_file(self.path.as_ref()?).unwrap_or_else(|reason| reason);
        let seen = hash(&text);
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        (seen != last.seen).then_some(seen)
    }

    fn take_up(&self) {
        self.attempt(false);
    }

    fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Acquire)
    }
}

fn accepted(policy: &Policy, findings: Vec<Finding>) -> PolicyStatus {
    tracing::info!(revision = %policy.revision, teams = policy.teams.len(), "policy loaded");
    findings.iter().for_each(log);
    PolicyStatus {
        revision: Arc::clone(&policy.revision),
        loaded_at: now(),
        warnings: findings,
        rejected: None,
    }
}

fn log(finding: &Finding) {
    let Finding { file, line, key_path, message, help, .. } = finding;
    match finding.severity {
        Severity::Error => {
            tracing::error!(%file, line, key = key_path, problem = message, help, "policy error")
        }
        Severity::Warning => {
            tracing::warn!(%file, line, key = key_path, problem = message, help, "policy warning")
        }
    }
}

fn hash(text: &str) -> blake3::Hash {
    blake3::hash(text.as_bytes())
}

/// Reads the file, and parses it unless it is unchanged. `running` is the policy in force and the hash of the last text.
/// Also returns the text or, if there is none, the reason.
fn read(path: &Path, running: Option<(&Policy, blake3::Hash)>) -> (PolicyReport, String) {
    let name = path.display().to_string();
    match read_file(path) {
        Err(reason) => (unreadable(&name, reason.clone()), reason),
        Ok(text) => {
            if running.is_some_and(|(_, last)| last == hash(&text)) {
                return (PolicyReport { policy: None, findings: Vec::new() }, text);
            }
            (parse_policy_for(&text, &name, now(), running.map(|(policy, _)| policy)), text)
        }
    }
}

#[cfg(test)]
mod tests;
