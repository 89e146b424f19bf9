//! What `serve` itself records in the audit log: where the log is, and the outcome of policy changes.

use std::{fmt, path::Path, sync::Arc};

use serde_json::{Value, json};
use tracing::Span;

use crate::{
    audit::{Audit, Change, Origin, Sink, Targets, action},
    domain::actor::Actor,
    policy_file::{PolicyAttempt, ReloadOutcome},
    runtime::replica_name,
    settings::{AuditSink, Settings},
    store::{AuditLog, Calls, Observed},
};

/// The part of a failed policy load that is recorded: the first findings, and the beginning of each.
const MAX_FINDINGS: usize = 16;
const MAX_FINDING: usize = 256;

/// Opens what the logs of all organizations go to that `settings` ask for beside the store. The service's store is open already, so its
/// directory exists.
///
/// # Errors
/// The file, and why it cannot be opened.
pub(super) fn open_shared(settings: &Settings) -> Result<Option<Sink>, (String, std::io::Error)> {
    let wanted = settings.audit_sinks();
    let file = settings.audit_path().filter(|_| wanted.contains(&AuditSink::File));
    let name = file.as_ref().map_or_else(|| "stdout".to_owned(), |path| path.display().to_string());
    let targets = Targets { file, stdout: wanted.contains(&AuditSink::Stdout) };
    Sink::open(&targets).map_err(|error| (name, error))
}

/// Opens what the log of each organization goes to in its store, where the settings say so; their calls are counted in `calls`, which are in
/// the order of the stores. Without, there is none for any.
///
/// # Errors
/// What cannot be opened, and why.
pub(super) fn open_stores<S: AuditLog, E: fmt::Display>(
    settings: &Settings,
    make_stores: impl FnOnce() -> Result<Vec<S>, E> + Send + 'static,
    of: Vec<(Arc<Calls>, Span)>,
) -> Result<Vec<Sink>, (String, std::io::Error)> {
    if !settings.audit_sinks().contains(&AuditSink::Store) {
        return Ok(Vec::new());
    }
    let (calls, spans): (Vec<_>, Vec<_>) = of.into_iter().unzip();
    let observed = move || {
        let stores = make_stores()?.into_iter().zip(calls);
        Ok::<_, E>(stores.map(|(store, calls)| Observed::new(store, &calls)).collect())
    };
    Sink::stores(spans, observed, settings.audit_retention).map_err(of_store)
}

/// Opens the log of `organization` into `sinks`.
///
/// # Errors
/// What cannot be opened, and why.
pub(super) fn open(organization: &Arc<str>, sinks: Vec<Sink>) -> Result<Audit, (String, std::io::Error)> {
    let origin = Origin { organization: Arc::clone(organization), replica: replica_name().into() };
    Audit::start(origin, sinks).map_err(of_store)
}

fn of_store(error: std::io::Error) -> (String, std::io::Error) {
    ("of the store".to_owned(), error)
}

/// Records the outcome of a policy change.
pub(super) fn record(audit: &Audit, file: Option<&Path>, attempt: PolicyAttempt) {
    let PolicyAttempt { before, is_asked, outcome } = attempt;
    let (action, after, outcome) = match outcome {
        ReloadOutcome::Loaded { revision, differences } => {
            let keys = differences
                .changes
                .into_iter()
                .map(|change| json!({ "path": change.path, "before": change.before, "after": change.after }));
            let left_out = differences.left_out;
            let after =
                json!({ "revision": &*revision, "changes": keys.collect::<Value>(), "left_out": left_out });
            (action::POLICY_RELOAD, after, "done")
        }
        ReloadOutcome::Rejected(findings) => {
            let told = findings.iter().take(MAX_FINDINGS).map(|finding| {
                let mut text = finding.to_string();
                text.truncate(text.floor_char_boundary(MAX_FINDING));
                text
            });
            let left_out = findings.len().saturating_sub(MAX_FINDINGS);
            let after = json!({ "findings": told.collect::<Value>(), "left_out": left_out });
            (action::POLICY_REJECTED, after, "rejected")
        }
    };
    audit.changed(Change {
        actor: Actor::system(if is_asked { "SIGHUP" } else { "changed file" }),
        action,
        subject: file.map(|path| path.display().to_string()).unwrap_or_default(),
        before: json!({ "revision": &*before }),
        after,
        outcome,
    });
}
