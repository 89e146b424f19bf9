//! What is counted of teams and models, for metrics. The counts hang on the objects that a decision has at hand anyway, so that
//! counting looks nothing up.
//!
//! Protocol: all counts are independent numbers that only grow and order nothing. A place for them is made when the first of its
//! kind occurs, under the lock of [`Tallies`]; from then on it is found without one.

mod samples;
mod team;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
};

pub use samples::{INTERVAL_MS, LEAST_EXPIRED, Sample, Samples, UnsettledShare};
pub use team::{ModelTally, TeamTally, UsageTally};

use super::{
    policy::{Policy, Team},
    price::catalogue::{Catalogue, Model},
    request::{Operation, Outcome, Usage},
};

/// The name under which teams and models past the bounds are counted together.
pub const OTHER: &str = "other";
/// The label where there is nothing to name.
pub const NONE: &str = "none";
/// The models that are counted by name in one process: several times as many as the price list has. 0 is for the others.
pub const MAX_MODELS: usize = 256;
/// The teams that are counted by name unless the settings say otherwise.
pub const DEFAULT_MAX_TEAMS: usize = 500;

/// Where a team's counts are, once there are some. A policy that is loaded later finds those of a team that stays.
#[derive(Clone, Debug, Default)]
pub struct TallyOfTeam(OnceLock<Arc<TeamTally>>);

/// The number of a model among those that are counted by name.
#[derive(Clone, Debug, Default)]
pub struct PlaceOfModel(OnceLock<usize>);

/// The counts of a process.
#[derive(Debug)]
pub struct Tallies {
    max_teams: usize,
    known: Mutex<Known>,
    other: Arc<TeamTally>,
    unknown: Arc<TeamTally>,
    /// Which reservations expire without a report.
    pub samples: Samples,
}

#[derive(Debug, Default)]
struct Known {
    teams: HashMap<Arc<str>, Arc<TeamTally>>,
    /// Their numbers are one more than their places here.
    models: Vec<Arc<str>>,
    rate_limits: HashMap<(Arc<str>, usize), u64>,
}

impl Default for Tallies {
    fn default() -> Self {
        Self::new(DEFAULT_MAX_TEAMS)
    }
}

impl Tallies {
    /// Counts `max_teams` teams by name, the first that ask, and all others together.
    #[must_use]
    pub fn new(max_teams: usize) -> Self {
        let [other, unknown] = [OTHER, NONE].map(|name| Arc::new(TeamTally::new(name.into())));
        Self { max_teams, known: Mutex::default(), other, unknown, samples: Samples::default() }
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        // Nothing panics while it is held.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The counts of a team.
    pub fn team<'t>(&self, team: &'t Team) -> &'t Arc<TeamTally> {
        team.tally.0.get_or_init(|| {
            let mut known = self.lock();
            let has_room = known.teams.len() < self.max_teams;
            match known.teams.get(&team.name) {
                Some(tally) => Arc::clone(tally),
                // Nothing tells them apart in a metric.
                None if *team.name == *OTHER => Arc::clone(&self.other),
                None if *team.name == *NONE => Arc::clone(&self.unknown),
                // It stays among the others for good: counts that moved to a name of its own would be missing there.
                None if !has_room => Arc::clone(&self.other),
                None => {
                    let tally = Arc::new(TeamTally::new(Arc::clone(&team.name)));
                    known.teams.insert(Arc::clone(&team.name), Arc::clone(&tally));
                    tally
                }
            }
        })
    }

    /// The number of a model of the price list; 0 for any other, as callers may name what they like.
    pub fn model(&self, model: Option<&Model>) -> usize {
        let Some(model) = model else { return 0 };
        *model.place.0.get_or_init(|| {
            let mut known = self.lock();
            if let Some(at) = known.models.iter().position(|name| *name == model.name) {
                return at + 1;
            }
            if known.models.len() + 1 >= MAX_MODELS {
                return 0;
            }
            known.models.push(Arc::clone(&model.name));
            known.models.len()
        })
    }

    /// The counts of callers that belong to no team.
    #[must_use]
    pub const fn unknown(&self) -> &Arc<TeamTally> {
        &self.unknown
    }

    /// Counts a report that was booked, by the policy in force. What is reported for a team that has left it is not counted.
    pub fn booked(&self, policy: &Policy, booking: &Booking<'_>) {
        let Some(team) = policy.teams.get(booking.team) else { return };
        let tally = self.team(team);
        tally.settled(booking.outcome, booking.result);
        if let Some((usage, cost)) = booking.used {
            let model = self.model(policy.catalogue.model(booking.model));
            tally.model(model).used(booking.operation, booking.project, usage, cost);
            tally.tools(usage);
        }
    }

    /// Counts a report that is kept until the store answers. Of one whose team only the store knows it is not known whose it is.
    pub fn spooled(&self, policy: &Policy, team: &str, outcome: Outcome) {
        let tally = policy.teams.get(team).map_or(&self.unknown, |team| self.team(team));
        tally.settled(outcome, SettlementResult::Spooled);
    }

    /// Counts a 429 of Groq. They are rare enough for a lock.
    pub fn rate_limited(&self, catalogue: &Catalogue, project: &Arc<str>, model: &str) {
        let model = self.model(catalogue.model(model));
        *self.lock().rate_limits.entry((Arc::clone(project), model)).or_default() += 1;
    }

    /// Forgets teams that `policy` does not have.
    pub fn keep(&self, policy: &Policy) {
        self.lock().teams.retain(|name, _| policy.teams.contains_key(name));
    }

    /// All teams that were counted, those past the bound as one.
    #[must_use]
    pub fn teams(&self) -> Vec<Arc<TeamTally>> {
        let mut teams: Vec<_> = self.lock().teams.values().cloned().collect();
        teams.extend([&self.other, &self.unknown].map(Arc::clone));
        teams
    }

    /// Whether values of `team` that are not counted here are shown, too: they are of the teams that are counted by name.
    #[must_use]
    pub fn shows(&self, policy: &Policy, team: &str) -> bool {
        policy.teams.len() <= self.max_teams || self.lock().teams.contains_key(team)
    }

    /// The names of models, by their numbers.
    #[must_use]
    pub fn models(&self) -> Vec<Arc<str>> {
        std::iter::once(OTHER.into()).chain(self.lock().models.iter().cloned()).collect()
    }

    /// Groq's 429s by project and the number of the model.
    #[must_use]
    pub fn rate_limits(&self) -> Vec<((Arc<str>, usize), u64)> {
        self.lock().rate_limits.iter().map(|(key, count)| (key.clone(), *count)).collect()
    }
}

/// A report as it was booked.
#[derive(Clone, Copy, Debug)]
pub struct Booking<'a> {
    /// The team of the request.
    pub team: &'a str,
    /// The model.
    pub model: &'a str,
    /// What the request did.
    pub operation: Operation,
    /// The Groq project.
    pub project: &'a Arc<str>,
    /// How the request ended.
    pub outcome: Outcome,
    /// How it was booked.
    pub result: SettlementResult,
    /// The usage and the nano-dollars that were booked; `None`: nothing more was.
    pub used: Option<(&'a Usage, u64)>,
}

/// How a report was booked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SettlementResult {
    /// As the first about a reservation in time.
    Settled,
    /// Nothing more was booked.
    Repeated,
    /// Without a reservation.
    Unreserved,
    /// After the reservation had expired.
    Late,
    /// Not yet: it is kept on this machine's disk until the store answers, and counted once more when it is booked.
    Spooled,
}

impl SettlementResult {
    /// All of them, in the order of their places in a [`TeamTally`].
    pub const ALL: [Self; 5] = [Self::Settled, Self::Repeated, Self::Unreserved, Self::Late, Self::Spooled];

    /// Its name in metrics and in the decision log.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Settled => "settled",
            Self::Repeated => "repeated",
            Self::Unreserved => "unreserved",
            Self::Late => "late",
            Self::Spooled => "spooled",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn models_are_counted_by_name_up_to_the_bound() {
        let (tallies, catalogue) = (Tallies::default(), Catalogue::builtin());
        let model = catalogue.model("openai/gpt-oss-20b");
        assert_eq!((tallies.model(None), tallies.model(model), tallies.model(model)), (0, 1, 1));
        // Another price list finds it by its name.
        assert_eq!(tallies.model(Catalogue::builtin().model("openai/gpt-oss-20b")), 1);
        assert_eq!(tallies.models(), [OTHER.into(), Arc::from("openai/gpt-oss-20b")]);
        let mut many = Catalogue::builtin();
        for number in 0..MAX_MODELS {
            let rates = model.unwrap().prices[0].rates;
            many.add_override(&format!("m{number}"), None, None, rates, "test");
        }
        for model in many.models() {
            assert!(tallies.model(Some(model)) < MAX_MODELS);
        }
        assert_eq!(tallies.models().len(), MAX_MODELS);
    }

    #[test]
    fn a_429_is_counted_by_project_and_model() {
        let tallies = Tallies::default();
        for _ in 0..2 {
            tallies.rate_limited(&Catalogue::builtin(), &"main".into(), "unheard-of");
        }
        assert_eq!(tallies.rate_limits(), [(("main".into(), 0), 2)]);
    }
}
