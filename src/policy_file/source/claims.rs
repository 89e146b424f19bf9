//! What may stand in the policy of one organization only, as it says of which organization a caller is.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use crate::{
    domain::policy::Policy,
    policy_file::findings::{Finding, PolicyReport, Severity},
};

/// The policies in force of all organizations of a deployment.
#[derive(Debug, Default)]
pub(super) struct Claims(Mutex<BTreeMap<PathBuf, Arc<Policy>>>);

impl Claims {
    /// Notes that the policy in `report`, of the file at `path`, is in force for its organization from now on, unless it is wrong or is not
    /// one for a deployment of several: then the report says why, and has no policy. Returns whether another policy is why.
    pub(super) fn admit(&self, path: &Path, mut report: PolicyReport) -> (PolicyReport, bool) {
        let Some(policy) = report.policy.take() else { return (report, false) };
        let policy = Arc::new(policy);
        // A panic would leave whole policies behind.
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let own = own_faults(path, &policy);
        let others = all.iter().filter(|(other, _)| *other != path);
        let contested: Vec<_> =
            others.flat_map(|(other, theirs)| contested(path, &policy, (other, theirs))).collect();
        let is_contested = !contested.is_empty();
        report.findings.extend(own.into_iter().chain(contested));
        if report.errors() == 0 {
            all.insert(path.to_owned(), Arc::clone(&policy));
            report.policy = Some(Arc::unwrap_or_clone(policy));
        }
        (report, is_contested)
    }
}

fn fault(path: &Path, key_path: &str, message: String, help: &str) -> Finding {
    Finding {
        severity: Severity::Error,
        file: path.display().to_string().into(),
        line: None,
        column: None,
        key_path: key_path.to_owned(),
        message,
        help: help.to_owned(),
    }
}

/// What the policy of one organization of several may not have.
fn own_faults(path: &Path, policy: &Policy) -> Vec<Finding> {
    let mut found = Vec::new();
    let id = &policy.organization.id;
    if path.file_stem().and_then(|name| name.to_str()) != Some(id) {
        let help = format!("call the file `{id}.toml`, or the organization as its file is called");
        found.push(fault(path, "organization.id", format!("`{id}` is not the name of the file"), &help));
    }
    let named = policy.projects.all().iter().filter(|project| !project.places.is_empty());
    for project in named.filter(|_| policy.projects.is_declared()) {
        let help = format!(
            "name them in the settings: `[groq_keys]` `\"{id}/{}\" = [{{ file = … }}]`",
            project.name
        );
        let message =
            "the policy of one organization of several may not name places of this machine".to_owned();
        found.push(fault(path, &format!("projects.{}.keys", project.name), message, &help));
    }
    found
}

/// What stands in another policy as well.
fn contested(path: &Path, policy: &Policy, (other, theirs): (&Path, &Policy)) -> Vec<Finding> {
    let (mut found, of) = (Vec::new(), &theirs.organization.id);
    if *of == policy.organization.id {
        let message = format!("`{of}` also has the policy in `{}`", other.display());
        found.push(fault(path, "organization.id", message, "keep one file for each organization"));
        return found;
    }
    let whose = "it says of which organization a caller is: give each organization its own";
    if let (Some(access), Some(their_access)) = (&policy.access, &theirs.access) {
        let tokens = access.tokens.values().filter(|token| their_access.tokens.contains_key(&token.sha256));
        found.extend(tokens.map(|token| {
            let message =
                format!("the token of `{}` also stands in the policy of `{of}`", token.principal.name);
            fault(path, "access", message, whose)
        }));
        let names = access.certificates.keys().filter(|name| their_access.certificates.contains_key(*name));
        found.extend(names.map(|name| {
            let message = format!("the certificate `{name}` also stands in the policy of `{of}`");
            fault(path, "access", message, whose)
        }));
    }
    found.extend(policy.keys.shared_with(&theirs.keys).map(|key| {
        let message = format!("its secret is also one of a key in the policy of `{of}`");
        fault(path, &key.place(), message, "make another secret: `tollgate keys generate`")
    }));
    found
}
