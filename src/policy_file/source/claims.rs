//! What may stand in the policy of one organization only, as it says of which organization a caller is.

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};

use crate::{
    domain::policy::Policy,
    policy_file::findings::{Finding, PolicyReport, Severity},
};

/// The policies in force of all organizations of a deployment.
#[derive(Debug, Default)]
pub(super) struct Claims(Mutex<BTreeMap<Arc<str>, Arc<Policy>>>);

impl Claims {
    /// Notes that the policy in `report`, of the file at `path`, is in force for its organization from now on, unless it is wrong or is not
    /// one for a deployment of several: then the report says why, and has no policy.
    pub(super) fn admit(&self, path: &Path, mut report: PolicyReport) -> PolicyReport {
        let Some(policy) = report.policy.take() else { return report };
        let policy = Arc::new(policy);
        // A panic would leave whole policies behind.
        let mut others = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let faults = faults(path, &policy, others.values().filter(|other| !is_same(other, &policy)));
        if faults.is_empty() {
            others.insert(Arc::clone(&policy.organization.id), Arc::clone(&policy));
            report.policy = Some(Arc::unwrap_or_clone(policy));
        } else {
            report.findings.extend(faults);
        }
        report
    }
}

fn is_same(one: &Policy, other: &Policy) -> bool {
    one.organization.id == other.organization.id
}

fn faults<'p>(path: &Path, policy: &Policy, others: impl Iterator<Item = &'p Arc<Policy>>) -> Vec<Finding> {
    let file: Arc<str> = path.display().to_string().into();
    let fault = |key_path: &str, message: String, help: &str| Finding {
        severity: Severity::Error,
        file: Arc::clone(&file),
        line: None,
        column: None,
        key_path: key_path.to_owned(),
        message,
        help: help.to_owned(),
    };
    let mut found = Vec::new();
    let id = &policy.organization.id;
    if path.file_stem().and_then(|name| name.to_str()) != Some(id) {
        let help = format!("call the file `{id}.toml`, or the organization as its file is called");
        found.push(fault("organization.id", format!("`{id}` is not the name of the file"), &help));
    }
    for project in policy
        .projects
        .all()
        .iter()
        .filter(|project| policy.projects.is_declared() && !project.places.is_empty())
    {
        let help = format!(
            "name them in the settings: `[groq_keys]` `\"{id}/{}\" = [{{ file = … }}]`",
            project.name
        );
        let message =
            "the policy of one organization of several may not name places of this machine".to_owned();
        found.push(fault(&format!("projects.{}.keys", project.name), message, &help));
    }
    for other in others {
        let of = &other.organization.id;
        let whose = "it says of which organization a caller is: give each organization its own";
        if let (Some(access), Some(theirs)) = (&policy.access, &other.access) {
            let tokens = access.tokens.values().filter(|token| theirs.tokens.contains_key(&token.sha256));
            found.extend(tokens.map(|token| {
                let message =
                    format!("the token of `{}` also stands in the policy of `{of}`", token.principal.name);
                fault("access", message, whose)
            }));
            let names = access.certificates.keys().filter(|name| theirs.certificates.contains_key(*name));
            found.extend(names.map(|name| {
                fault(
                    "access",
                    format!("the certificate `{name}` also stands in the policy of `{of}`"),
                    whose,
                )
            }));
        }
        found.extend(policy.keys.shared_with(&other.keys).map(|key| {
            let message = format!("its secret is also one of a key in the policy of `{of}`");
            fault(&key.place(), message, "make another secret: `tollgate keys generate`")
        }));
    }
    found
}
