//! What `serve` itself records in the audit log: where the log is, and the outcome of policy changes.

use std::path::Path;

use serde_json::{Value, json};
use tracing::warn;

use crate::{
    audit::{Audit, Change, Target, action},
    domain::actor::Actor,
    policy_file::{PolicyAttempt, ReloadOutcome},
    settings::{Settings, StoreUrl},
};

/// The file in the directory of the embedded store.
const FILE: &str = "audit.jsonl";
/// The part of a failed policy load that is recorded: the first findings, and the beginning of each.
const MAX_FINDINGS: usize = 16;
const MAX_FINDING: usize = 256;

/// Opens the log that `settings` ask for. The store is open already, so its directory exists.
///
/// # Errors
/// The file, and why it cannot be opened.
pub(super) fn open(settings: &Settings) -> Result<Audit, (String, std::io::Error)> {
    let target = match (settings.audit_file.as_deref(), &settings.store) {
        (Some(file), _) if file == Path::new("off") => return Ok(Audit::default()),
        (Some(file), _) if file == Path::new("stdout") => Target::Stdout,
        (Some(file), _) => Target::File(file.to_owned()),
        (None, StoreUrl::Embedded { dir }) => Target::File(dir.join(FILE)),
        (None, StoreUrl::Redis { .. }) => {
            warn!("there is no audit log: with Redis it needs a file of this replica, named by `audit_file`");
            return Ok(Audit::default());
        }
    };
    let name = match &target {
        Target::File(path) => path.display().to_string(),
        Target::Stdout => "stdout".to_owned(),
    };
    Audit::open(&target).map_err(|error| (name, error))
}

/// Records the outcome of a policy change.
pub(super) fn record(audit: &Audit, settings: &Settings, attempt: PolicyAttempt) {
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
        subject: settings.policy.as_ref().map(|path| path.display().to_string()).unwrap_or_default(),
        before: json!({ "revision": &*before }),
        after,
        outcome,
    });
}
