//! The policies of other organizations that one is served beside, and what may stand in one of them only, as it says of which organization
//! a caller is.

use std::{
    collections::BTreeMap,
    fmt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use crate::{
    domain::policy::Policy,
    policy_file::{findings::Findings, place::Place},
};

/// Whose a caller is has one answer.
const OF_ONE: &str = "it says of which organization a caller is: give each organization its own";

/// The policies in force of all organizations of a deployment, by their files.
#[derive(Debug, Default)]
pub(super) struct Deployment(Mutex<Policies>);

type Policies = BTreeMap<PathBuf, Arc<Policy>>;

/// The policies of other organizations, as the one in the file at `path` sees them.
#[derive(Clone)]
pub struct Neighbours {
    path: Arc<Path>,
    deployment: Arc<Deployment>,
}

/// Without what the others have: the text may end up where one organization reads it.
impl fmt::Debug for Neighbours {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Neighbours").field("path", &self.path).finish_non_exhaustive()
    }
}

/// For what a policy is judged beside others.
#[derive(Clone, Copy, Debug)]
pub(in crate::policy_file) enum Entry<'a> {
    /// To be in force from then on: what it has is then its own.
    Take(&'a Neighbours),
    /// To know what would be wrong.
    Look(&'a Neighbours),
}

impl Entry<'_> {
    /// Adds to `findings` what `policy` may not have as one of several.
    pub(in crate::policy_file) fn judge(self, policy: &Policy, findings: &Findings) {
        let (Self::Take(neighbours) | Self::Look(neighbours)) = self;
        if !own_faults(&neighbours.path, policy, findings) {
            // It is no policy of this file: what another organization has is not to be found out by its name.
            return;
        }
        match self {
            Self::Take(_) => {
                let mut all = neighbours.lock();
                judge_beside(policy, neighbours.others(&all), findings);
                if !findings.has_errors() {
                    all.insert(neighbours.path.to_path_buf(), Arc::new(policy.clone()));
                }
            }
            Self::Look(_) => {
                // Without the lock: other organizations' policies are taken up while it takes its time.
                let others: Vec<_> = neighbours
                    .others(&neighbours.lock())
                    .map(|(file, theirs)| (file.clone(), Arc::clone(theirs)))
                    .collect();
                judge_beside(policy, others.iter().map(|(file, theirs)| (file, theirs)), findings);
            }
        }
    }
}

fn judge_beside<'a>(
    policy: &Policy,
    others: impl Iterator<Item = (&'a PathBuf, &'a Arc<Policy>)>,
    findings: &Findings,
) {
    for (file, theirs) in others {
        contested(policy, theirs, &file.display().to_string().into(), findings);
    }
}

impl Neighbours {
    /// As the policy in the file at `path` of `deployment` sees them.
    pub(super) fn new(path: &Path, deployment: &Arc<Deployment>) -> Self {
        Self { path: path.into(), deployment: Arc::clone(deployment) }
    }

    fn lock(&self) -> MutexGuard<'_, Policies> {
        // A panic would leave whole policies behind.
        self.deployment.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn others<'a>(&self, all: &'a Policies) -> impl Iterator<Item = (&'a PathBuf, &'a Arc<Policy>)> {
        all.iter().filter(|(file, _)| **file != *self.path)
    }
}

/// Says what the policy of one organization of several may not have. Whether it is of the organization that its file is called as.
fn own_faults(path: &Path, policy: &Policy, findings: &Findings) -> bool {
    let id = &policy.organization.id;
    let is_named = path.file_stem().and_then(|name| name.to_str()) == Some(id);
    if !is_named {
        let help = format!("call the file `{id}.toml`, or the organization as its file is called");
        let place = Place::ROOT.key("organization").key("id");
        findings.error(&place, format!("`{id}` is not the name of the file"), help);
    }
    let named = policy.projects.all().iter().filter(|project| !project.places.is_empty());
    for project in findings.while_few(named.filter(|_| policy.projects.is_declared())) {
        let help = format!(
            "name them in the settings: `[groq_keys]` `\"{id}/{}\" = [{{ file = … }}]`",
            project.name
        );
        let message = "the policy of one organization of several may not name places of this machine";
        findings.error(&Place::ROOT.key("projects").key(&project.name).key("keys"), message, help);
    }
    is_named
}

/// What stands in the policy `theirs`, of the file `other`, as well. The author of one policy is not told what is in another, nor whose it is.
fn contested(policy: &Policy, theirs: &Policy, other: &Arc<str>, findings: &Findings) {
    if theirs.organization.id == policy.organization.id {
        let (place, help) =
            (Place::ROOT.key("organization").key("id"), "keep one file for each organization");
        findings.contested(&place, "another file has a policy of this organization as well", help, other);
        return;
    }
    if let (Some(access), Some(their_access)) = (&policy.access, &theirs.access) {
        let place = Place::ROOT.key("access");
        let tokens = access.tokens.values().filter(|token| their_access.tokens.contains_key(&token.sha256));
        let mut names: Vec<_> = tokens.map(|token| &token.principal.name).collect();
        names.sort_unstable();
        for name in findings.while_few(names) {
            let message = "the same token also stands in the policy of another organization";
            findings.contested(&place.key("tokens").key(name), message, OF_ONE, other);
        }
        let names = access.certificates.keys().filter(|name| their_access.certificates.contains_key(*name));
        let mut names: Vec<_> = names.collect();
        names.sort_unstable();
        for name in findings.while_few(names) {
            let message = "the same certificate also stands in the policy of another organization";
            findings.contested(&place.key("certificates").key(name), message, OF_ONE, other);
        }
    }
    for key in findings.while_few(policy.keys.shared_with(&theirs.keys)) {
        let place = Place::ROOT.key("teams").key(&key.team).key("keys").key(&key.name);
        let message = "its secret is also one of a key in the policy of another organization";
        findings.contested(&place, message, "make another secret: `tollgate keys generate`", other);
    }
}
