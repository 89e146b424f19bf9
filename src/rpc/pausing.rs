//! Pauses as `PauseService` reads, records and shows them.

use std::sync::Arc;

use serde_json::{Value, json};
use tonic::Status;

use super::{
    answer, audited,
    proto::{self, WholeOrganization, pause_target::Target as Wire},
    status::FieldErrors,
};
use crate::{
    audit::{Change, action},
    control::{PauseChange, PauseError},
    domain::{
        actor::Actor,
        name::is_name,
        pause::{MAX_REASON, Pause, Target},
        policy::ModelPattern,
    },
};

/// A well-formed `PauseRequest` or `ResumeRequest`: who does what to what, and why.
pub(super) struct PauseCommand {
    pub(super) actor: Actor,
    action: &'static str,
    pub(super) target: Target,
    pub(super) reason: String,
}

impl PauseCommand {
    pub(super) fn read(
        action: &'static str,
        actor: Actor,
        target: Option<proto::PauseTarget>,
        reason: String,
    ) -> Result<Self, Status> {
        let mut errors = FieldErrors::default();
        let target = read(target.and_then(|target| target.target), &mut errors);
        let reason = errors.text("reason", reason, 1, MAX_REASON);
        if !reason.is_empty() && reason.trim().is_empty() {
            errors.add("reason", "required: must not be blank");
        }
        match target {
            Some(target) if errors.is_empty() => Ok(Self { actor, action, target, reason }),
            _ => Err(errors.into_status()),
        }
    }

    /// What is recorded about it, unless it was refused. A repeat is recorded as well: the outcome of the call that it
    /// repeats may be unknown.
    pub(super) fn event(&self, done: &Result<PauseChange, PauseError>) -> Option<Change> {
        let (before, outcome) = match done {
            Ok(change) => {
                let outcome = if change.changes_nothing() { "unchanged" } else { "done" };
                (change.before.as_deref().map_or(Value::Null, audited::pause), outcome)
            }
            Err(PauseError::Unwritten(_)) => (Value::Null, "unknown"),
            Err(_) => return None,
        };
        Some(Change {
            actor: self.actor.clone(),
            action: self.action,
            subject: self.target.to_string(),
            before,
            after: json!({ "paused": self.action == action::PAUSE_CREATE, "reason": self.reason }),
            outcome,
        })
    }

    /// A pause of its target as the contract shows it.
    pub(super) fn shown(&self, pause: Option<Arc<Pause>>) -> Option<proto::Pause> {
        pause.map(|pause| shown(&self.target, &pause))
    }
}

fn read(target: Option<Wire>, errors: &mut FieldErrors) -> Option<Target> {
    let mut named = |field: &str, name: String| {
        if !is_name(&name) {
            errors.add(field, "not a name: 1 to 64 lower-case letters, digits, `_`, `.` and `-`");
        }
        is_name(&name).then(|| Arc::from(name))
    };
    match target {
        Some(Wire::Organization(WholeOrganization {})) => Some(Target::Organization),
        Some(Wire::Team(name)) => named("target.team", name).map(Target::Team),
        Some(Wire::Key(name)) => named("target.key", name).map(Target::Key),
        Some(Wire::Model(pattern)) => {
            let read = pattern.parse::<ModelPattern>();
            read.map(Target::Model).map_err(|error| errors.add("target.model", error.to_string())).ok()
        }
        None => {
            errors.add("target", "required: one of `organization`, `team`, `key` and `model`");
            None
        }
    }
}

/// A pause as the contract shows it.
pub(super) fn shown(target: &Target, pause: &Pause) -> proto::Pause {
    let named = match target {
        Target::Organization => Wire::Organization(WholeOrganization {}),
        Target::Team(name) => Wire::Team(name.to_string()),
        Target::Key(name) => Wire::Key(name.to_string()),
        Target::Model(pattern) => Wire::Model(pattern.to_string()),
    };
    proto::Pause {
        target: Some(proto::PauseTarget { target: Some(named) }),
        reason: pause.reason.to_string(),
        actor: Some(answer::actor(&pause.by)),
        create_time: Some(answer::timestamp(pause.since)),
    }
}
