//! Where a change can give files different content.

use std::{
    ffi::{OsStr, OsString},
    fs,
    path::{Path, PathBuf, absolute},
};

/// Symbolic links from a file's name to the file; Linux itself does not follow more.
const MAX_LINKS: usize = 40;

/// All places where a change can give some paths different content: the files, each symbolic link on the way to one, and
/// each directory on the way that is itself a link (Kubernetes swaps such a link, `..data`).
#[derive(Debug, Default)]
pub(super) struct Places {
    /// The directories that contain one of these. A file itself is never watched: editors and deployments replace it, and
    /// the watch would stay with the old one.
    pub(super) directories: Vec<PathBuf>,
    /// The names of all of these.
    names: Vec<OsString>,
    /// The directories of which every file counts.
    whole: Vec<PathBuf>,
}

/// What an event at a path can mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Meaning {
    /// Nothing: another file in the directory, such as a log that is written all the time.
    Nothing,
    /// Other files, if it is a change of names: a hidden file in a directory of files, such as `..data`.
    Names,
    /// Other content.
    Content,
}

impl Places {
    pub(super) fn of(paths: &[PathBuf]) -> Self {
        let mut places = Self::default();
        for path in paths {
            // The path stays valid if the working directory changes later.
            places.follow(&absolute(path).unwrap_or_else(|_| path.clone()));
        }
        places.names.extend(
            places.directories.iter().filter_map(|directory| directory.file_name()).map(OsStr::to_owned),
        );
        places.directories.sort();
        places.directories.dedup();
        places
    }

    fn follow(&mut self, path: &Path) {
        let mut at = path.to_owned();
        for _ in 0..MAX_LINKS {
            for link in at.ancestors().skip(1).filter(|ancestor| ancestor.is_symlink()) {
                self.add(link);
            }
            self.add(&at);
            let Some(directory) = at.parent().map(Path::to_owned) else { break };
            let Ok(target) = fs::read_link(&at) else { break };
            at = directory.join(target);
        }
        if path.is_dir() {
            self.directories.push(path.to_owned());
            self.whole.push(path.to_owned());
        }
    }

    fn add(&mut self, at: &Path) {
        self.directories.extend(at.parent().map(Path::to_owned));
        self.names.extend(at.file_name().map(OsStr::to_owned));
    }

    /// What an event at `path` can mean. Before the first paths are known: other content.
    pub(super) fn meaning(&self, path: &Path) -> Meaning {
        let Some(name) = path.file_name() else { return Meaning::Content };
        // Names, not whole paths: the system reports a directory that is watched by two paths under one of them.
        if self.names.is_empty() || self.names.iter().any(|known| known == name) {
            return Meaning::Content;
        }
        let is_hidden = name.as_encoded_bytes().starts_with(b".");
        match path.parent().is_some_and(|directory| self.whole.iter().any(|whole| whole == directory)) {
            true if is_hidden => Meaning::Names,
            true => Meaning::Content,
            false => Meaning::Nothing,
        }
    }
}
