//! The policy in force: read from a file, and again whenever the file changes.
//!
//! A new policy takes effect whole or not at all: what does not load changes nothing, is logged, and shows in the status.

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

/// How often the file is read without being told of a change: the bound where the system tells of none (network disks).
const POLL: Duration = Duration::from_secs(10);
/// What is in force, and what was refused since.
#[derive(Clone, Debug)]
pub struct PolicyStatus {
    /// The revision in force.
    pub revision: Arc<str>,
    /// When it was loaded.
    pub loaded_at: Timestamp,
    /// What is suspicious about it.
    pub warnings: Vec<Finding>,
    /// The newer policy that did not load, until one does.
    pub rejected: Option<Rejection>,
}

/// A policy that did not load.
#[derive(Clone, Debug)]
pub struct Rejection {
    /// When it was tried.
    pub at: Timestamp,
    /// Why not.
    pub findings: Vec<Finding>,
}

/// What became of an attempt to load the policy again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reload {
    /// The file is as it was at the last attempt.
    Unchanged,
    /// Some process is writing the file; it is taken up by itself when that is over.
    BeingWritten,
    /// What the file says is in force now.
    Loaded,
    /// The file does not load: see [`PolicySource::status`].
    Rejected,
}

/// Why there is no policy to start with.
#[derive(Debug, Error)]
pub enum PolicySourceError {
    /// It does not load.
    #[error("the policy does not load\n{0}")]
    Rejected(Box<PolicyReport>),
    /// There is no thread to watch it.
    #[error("the policy cannot be watched: {0}")]
    Watch(#[from] std::io::Error),
}

#[derive(Debug)]
struct Last {
    /// The hash of the text that was read last.
    seen: blake3::Hash,
    /// The text in force, to tell what the next one changes.
    accepted: String,
}

/// The policy in force, and the watch over its file, which ends when this is dropped.
#[derive(Debug)]
pub struct PolicySource {
    shared: Arc<Shared>,
    /// Tells the watching thread to look: at the file, or at `stopped`. One pending word is as good as many, so a full
    /// channel is not waited for.
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
    /// Each attempt in its order, for the one who took the other end. Unbounded, as attempts are as rare as changes of a file,
    /// and each is bounded.
    attempts: UnboundedSender<PolicyAttempt>,
    untaken: Mutex<Option<UnboundedReceiver<PolicyAttempt>>>,
    /// What was read last. Held during a whole attempt, so that attempts come one after the other and the
    /// last one read is the one in force. Nothing on the hot path takes it.
    last: Mutex<Last>,
    stopped: AtomicBool,
}

impl PolicySource {
    /// Loads the policy in `path` and watches it from now on.
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
        // Later changes of the working directory do not move the file.
        let path = std::path::absolute(path)?;
        let (report, text) = read(&path, None);
        let shared = Arc::new(Shared::start(Some(path.clone()), report, text)?);
        let (wake, woken) = mpsc::sync_channel(1);
        let watching = Watching::new(path, Arc::downgrade(&shared), woken, wake.clone(), poll);
        let writer = Some(watching.writer());
        thread::Builder::new().name("policy".to_owned()).spawn(move || watching.run())?;
        Ok(Self { shared, wake, writer })
    }

    /// The policy in force; the same pointer for ever, so it can be kept.
    #[must_use]
    pub fn policy(&self) -> Arc<ArcSwap<Policy>> {
        Arc::clone(&self.shared.current)
    }

    /// What is in force, and what was refused since.
    #[must_use]
    pub fn status(&self) -> Arc<PolicyStatus> {
        Arc::clone(&self.shared.status.borrow())
    }

    /// The status, and word of every change of it.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<Arc<PolicyStatus>> {
        self.shared.status.subscribe()
    }

    /// Word of every attempt from the first on, for the first who asks.
    #[must_use]
    pub fn attempts(&self) -> Option<UnboundedReceiver<PolicyAttempt>> {
        self.shared.untaken.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Reads the file now (it is also read by itself when it changes), unless it is being written. Blocks for as long as the disk
    /// takes.
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
        // A panic while the lock was held leaves nothing but a text behind.
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
            // Where nobody listens there is nobody to tell.
            let _ = self.attempts.send(PolicyAttempt { before: Arc::clone(&before), is_asked, became });
        };
        match report.policy {
            Some(policy) => {
                let status = accepted(&policy, report.findings);
                let revision = Arc::clone(&policy.revision);
                self.current.store(Arc::new(policy));
                self.status.send_replace(Arc::new(status));
                // In force first: it may take rights away, and comparing large documents takes its time.
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

/// Reads the file; parses it unless it is as it was. `running` is the policy in force and the hash of the last text. Answers
/// the text as well, or, where there is none, why not.
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
#[path = "source_tests.rs"]
mod tests;
