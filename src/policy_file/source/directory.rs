//! A directory of policies: one file for each organization.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{Entry, Neighbours, PolicySource, PolicySourceError, neighbours::Deployment, parse};
use crate::{
    domain::policy::Policy,
    policy_file::{
        findings::PolicyReport,
        load::{Beside, read_file},
    },
    watch::{FileSource, Pace, Watch},
};

/// The most organizations of one process: each has stores, registries and alerts of its own.
pub const MAX_ORGANIZATIONS: usize = 100;
/// What the names of policies end in.
const SUFFIXES: [&str; 2] = ["toml", "json"];

/// The policies of a directory, each followed like a policy of its own, until this is dropped.
#[derive(Debug)]
pub struct PolicyDirectory {
    sources: Vec<Arc<PolicySource>>,
    _watch: Watch<Listing>,
}

impl PolicyDirectory {
    /// Loads every policy in `path`, and follows each file from now on. Files that are added or removed later are told of in the log: they
    /// take effect with a restart.
    ///
    /// # Errors
    /// The directory cannot be read, has no policy that loads or too many, or no thread can be started. Of policies of which one does not load,
    /// the others are served.
    pub fn open(path: &Path) -> Result<Self, PolicySourceError> {
        let files = usable(path)?;
        let deployment = Arc::<Deployment>::default();
        let (mut sources, mut reports) = (Vec::new(), Vec::new());
        for file in &files {
            let neighbours = Neighbours::new(&std::path::absolute(file)?, &deployment);
            match PolicySource::open_with(file, Pace::DOCUMENT, Some(neighbours)) {
                Ok(source) => sources.push(Arc::new(source)),
                Err(PolicySourceError::Rejected(report)) => reports.push(report.to_string()),
                Err(error) => return Err(error),
            }
        }
        if sources.is_empty() {
            return Err(PolicySourceError::RejectedOf(reports.join("\n")));
        }
        // The author of one policy is not to keep all others from being served, when a process starts again.
        for report in reports {
            tracing::error!(
                error = report,
                "a policy does not load: its organization is not served until it does and the service starts again"
            );
        }
        // They stay valid if the working directory changes later.
        let known = files.iter().map(std::path::absolute).collect::<Result<_, _>>()?;
        let listing = Listing { path: std::path::absolute(path)?, known };
        let seen = Listing::digest(&listing.read());
        Ok(Self { sources, _watch: Watch::start("policies", listing, seen, Pace::DOCUMENT)? })
    }

    /// Leaves out those that `is_served` is not true of.
    pub fn retain(&mut self, is_served: impl Fn(&Policy) -> bool) {
        self.sources.retain(|source| is_served(&source.policy().load()));
    }

    /// The policies, in the order of their files' names.
    #[must_use]
    pub fn sources(&self) -> &[Arc<PolicySource>] {
        &self.sources
    }
}

/// The policies in the directory at `path`, as they would be served together: each file with a report, in the order of their names.
///
/// # Errors
/// The directory cannot be read, or has no policy or too many.
pub fn load_directory(path: &Path) -> Result<Vec<(PathBuf, PolicyReport)>, PolicySourceError> {
    let deployment = Arc::<Deployment>::default();
    let load = |file: PathBuf| {
        let neighbours = Neighbours::new(&file, &deployment);
        let beside = Beside { running: None, others: Some(Entry::Take(&neighbours)) };
        let report = parse(&file, &read_file(&file), beside);
        (file, report)
    };
    Ok(usable(path)?.into_iter().map(load).collect())
}

/// The files of the directory at `path` that are policies, as many as can be served.
fn usable(path: &Path) -> Result<Vec<PathBuf>, PolicySourceError> {
    let unusable = |reason: String| PolicySourceError::Directory(path.display().to_string(), reason);
    let files = policies(path).map_err(|error| unusable(format!("cannot be read: {error}")))?;
    match files.len() {
        0 => Err(unusable("has no policy: one file for each organization, ORGANIZATION.toml".to_owned())),
        1..=MAX_ORGANIZATIONS => Ok(files),
        count => Err(unusable(format!("has {count} policies, which are more than {MAX_ORGANIZATIONS}"))),
    }
}

/// The files of `directory` that are policies, by name. Kubernetes keeps what it mounts in hidden directories.
fn policies(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        let is_policy =
            path.extension().and_then(|suffix| suffix.to_str()).is_some_and(|s| SUFFIXES.contains(&s));
        let is_hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        // A link that leads nowhere is a policy that cannot be read: its organization is not to be passed over without a word.
        let is_file = || fs::metadata(&path).map_or(true, |found| found.is_file());
        if is_policy && !is_hidden && is_file() {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// Which files there are.
struct Listing {
    path: PathBuf,
    /// Those that are served.
    known: Vec<PathBuf>,
}

impl FileSource for Listing {
    const NAME: &'static str = "the policy directory";

    type Content = Option<Vec<PathBuf>>;

    fn paths(&self) -> Vec<PathBuf> {
        vec![self.path.clone()]
    }

    fn read(&self) -> Self::Content {
        policies(&self.path).ok()
    }

    fn digest(content: &Self::Content) -> blake3::Hash {
        let mut hasher = blake3::Hasher::new();
        for path in content.iter().flatten() {
            hasher.update(path.as_os_str().as_encoded_bytes()).update(&[0]);
        }
        hasher.finalize()
    }

    fn apply(&mut self, content: Self::Content, _: bool) -> bool {
        let Some(files) = content else {
            tracing::error!(file = %self.path.display(), "the policy directory cannot be read; its policies stay in force");
            return false;
        };
        for added in files.iter().filter(|file| !self.known.contains(file)) {
            tracing::warn!(file = %added.display(), "a policy was added: its organization is served after a restart");
        }
        for removed in self.known.iter().filter(|file| !files.contains(file)) {
            tracing::warn!(file = %removed.display(), "a policy was removed: its organization is served until a restart");
        }
        true
    }
}
