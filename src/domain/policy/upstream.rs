//! The Groq projects of the organization: whose requests go out with which keys.

use std::{collections::HashMap, fmt, path::PathBuf, sync::Arc};

/// The project of a policy that declares none.
const DEFAULT: &str = "default";
/// The environment variable of its key.
const GROQ_API_KEY: &str = "GROQ_API_KEY";

/// Where a Groq key is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum KeyPlace {
    /// In an environment variable of the service.
    Environment(String),
    /// In a file that holds nothing else.
    File(PathBuf),
    /// In the files of a directory, each of which holds one: a mounted secret.
    Directory(PathBuf),
}

/// For people.
impl fmt::Display for KeyPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Environment(name) => write!(f, "environment variable {name}"),
            Self::File(path) | Self::Directory(path) => write!(f, "{}", path.display()),
        }
    }
}

/// A Groq project.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Project {
    /// Its name in the policy.
    pub name: Arc<str>,
    /// Where its keys are.
    pub places: Vec<KeyPlace>,
}

/// The projects of a policy.
#[derive(Clone, Debug)]
pub struct Projects {
    all: Vec<Arc<Project>>,
    by_team: HashMap<Arc<str>, Arc<Project>>,
    /// The project of all other teams.
    rest: Option<Arc<Project>>,
    is_declared: bool,
}

/// One project, whose key is in the environment.
impl Default for Projects {
    fn default() -> Self {
        let places = vec![KeyPlace::Environment(GROQ_API_KEY.to_owned())];
        let project = Arc::new(Project { name: DEFAULT.into(), places });
        Self {
            all: vec![Arc::clone(&project)],
            by_team: HashMap::new(),
            rest: Some(project),
            is_declared: false,
        }
    }
}

impl Projects {
    /// These projects, each with its teams; without teams it is that of all others.
    #[must_use]
    pub fn new(declared: Vec<(Project, Option<Vec<Arc<str>>>)>) -> Self {
        let mut projects = Self { all: Vec::new(), by_team: HashMap::new(), rest: None, is_declared: true };
        for (project, teams) in declared {
            let project = Arc::new(project);
            projects.all.push(Arc::clone(&project));
            match teams {
                None => projects.rest = Some(project),
                Some(teams) => {
                    projects.by_team.extend(teams.into_iter().map(|team| (team, Arc::clone(&project))));
                }
            }
        }
        projects
    }

    /// All of them.
    #[must_use]
    pub fn all(&self) -> &[Arc<Project>] {
        &self.all
    }

    /// The project of a team.
    #[must_use]
    pub fn of(&self, team: &str) -> Option<&Arc<Project>> {
        self.by_team.get(team).or(self.rest.as_ref())
    }

    /// Whether the policy declares them, rather than none.
    #[must_use]
    pub const fn is_declared(&self) -> bool {
        self.is_declared
    }
}
