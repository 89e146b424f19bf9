//! The organization's Groq projects: which teams' requests use which keys.

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    path::PathBuf,
    sync::Arc,
};

/// The project of a policy that declares none, and the placeholder for the project of a team that has none.
const DEFAULT: &str = "default";
/// The environment variable of its key.
const GROQ_API_KEY: &str = "GROQ_API_KEY";

/// Where a Groq key is stored.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum KeyPlace {
    /// In an environment variable of the service.
    Environment(String),
    /// In a file that contains nothing else.
    File(PathBuf),
    /// In the files of a directory, each of which contains one key: a mounted secret.
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

/// The most places of one project: two live keys, and room for moving them.
pub const MAX_PLACES: usize = 8;

/// Where Groq keys are by the settings of the service, instead of by its policy: those who write a policy may not be those who may name
/// files of the machine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GroqKeys {
    places: BTreeMap<(String, String), Vec<KeyPlace>>,
    /// Whether those that policies name do not count.
    alone: bool,
}

impl GroqKeys {
    /// The same, where those that policies name do not count: of several organizations, none is to send another's key.
    #[must_use]
    pub fn alone(self) -> Self {
        Self { alone: true, ..self }
    }

    /// A project whose places are those of any organization.
    #[must_use]
    pub fn of_any(&self) -> Option<&str> {
        self.places.keys().find(|(of, _)| of.is_empty()).map(|(_, project)| &**project)
    }

    /// Sets the places of a project. `organization`: empty, those of a project of this name in any.
    pub fn insert(&mut self, organization: &str, project: &str, places: Vec<KeyPlace>) {
        self.places.insert((organization.to_owned(), project.to_owned()), places);
    }

    /// The places of a project of an organization; `None`: those that its policy names.
    #[must_use]
    pub fn of(&self, organization: &str, project: &str) -> Option<&[KeyPlace]> {
        let of = |organization: &str| self.places.get(&(organization.to_owned(), project.to_owned()));
        let of_any = || if self.alone { None } else { of("") };
        of(organization).or_else(of_any).map(Vec::as_slice)
    }

    /// The places of a project, wherever they are named.
    #[must_use]
    pub fn places<'p>(&'p self, organization: &str, project: &'p Project) -> &'p [KeyPlace] {
        let of_policy = if self.alone { &[] } else { &*project.places };
        self.of(organization, &project.name).unwrap_or(of_policy)
    }

    /// The projects with places here that the organization does not have.
    pub fn unknown<'p>(
        &'p self,
        organization: &'p str,
        projects: &'p Projects,
    ) -> impl Iterator<Item = &'p str> {
        let of_any = !self.alone;
        let own = self.places.keys().filter(move |(of, _)| of_any && of.is_empty() || *of == *organization);
        own.map(|(_, project)| project.as_str())
            .filter(|project| !projects.all().iter().any(|known| *known.name == **project))
    }
}

/// A Groq project.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Project {
    /// Its name in the policy.
    pub name: Arc<str>,
    /// Where its keys are stored; none: the settings say so.
    pub places: Vec<KeyPlace>,
}

/// The projects of a policy.
#[derive(Clone, Debug)]
pub struct Projects {
    all: Vec<Arc<Project>>,
    by_team: HashMap<Arc<str>, Arc<Project>>,
    /// The project of all other teams.
    rest: Option<Arc<Project>>,
    /// The name for teams that have no project.
    none: Arc<str>,
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
            none: DEFAULT.into(),
            is_declared: false,
        }
    }
}

impl Projects {
    /// These projects, each with its teams; a project without teams serves all others.
    #[must_use]
    pub fn new(declared: Vec<(Project, Option<Vec<Arc<str>>>)>) -> Self {
        let mut projects = Self {
            all: Vec::new(),
            by_team: HashMap::new(),
            rest: None,
            none: DEFAULT.into(),
            is_declared: true,
        };
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

    /// The name of the project whose cooldowns a team shares: `default` if the policy declares no projects, or none for
    /// this team.
    #[must_use]
    pub fn name_of(&self, team: &str) -> &Arc<str> {
        self.of(team).map_or(&self.none, |project| &project.name)
    }

    /// The names of all of them, and `default`.
    pub fn names(&self) -> impl Iterator<Item = &Arc<str>> {
        let declared = self.all.iter().map(|project| &project.name);
        declared.chain([&self.none].into_iter().filter(|_| self.is_declared))
    }

    /// Whether the policy declares any projects.
    #[must_use]
    pub const fn is_declared(&self) -> bool {
        self.is_declared
    }
}
