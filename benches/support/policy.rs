//! Policies that allow every request of the load.

use std::fmt::Write as _;

use super::{
    chat::MODEL,
    teams::{secret, sha256, team_name, waiting_team},
};

/// The variable that gives a server of the bench its Groq key; there is no Groq.
pub(crate) const GROQ_KEY: &str = "BENCH_GROQ_KEY";

/// The service token of the load.
pub(crate) const TOKEN: &str = "tgs_of_the_bench_0123456789abcdef";
/// The organization's id.
const ORGANIZATION: &str = "bench";
/// More of anything than any run uses.
const ENOUGH: u64 = 1_000_000_000_000;

/// With keys, more teams would exceed the 32 MiB permitted for a policy.
const MOST_WITH_KEYS: usize = 1_000;

/// The size of a policy.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Shape {
    pub(crate) teams: usize,
    /// Limits on a decision, budgets included: 2, 8 or 32.
    pub(crate) limits: usize,
    /// Whether callers have to identify themselves, with [`TOKEN`].
    pub(crate) guarded: bool,
    /// Further teams, limited to one request an hour.
    pub(crate) waiting: usize,
}

impl Shape {
    /// The shape that most measurements use.
    pub(crate) const USUAL: Self = Self { teams: 10, limits: 8, guarded: false, waiting: 0 };

    /// The policy in the format that people write.
    pub(crate) fn to_toml(self) -> String {
        let limits = match self.limits {
            2 => &TWO,
            8 => &EIGHT,
            32 => &THIRTY_TWO,
            other => panic!("no policy of {other} limits"),
        };
        let budget = limits.budgets.map_or(String::new(), |name| format!(", {name} = \"9000000.00\""));
        let budget = format!("budget = {{ monthly_usd = \"9000000.00\"{budget} }}\n");
        let mut text = format!(
            "[projects.main]\nkeys = [{{ env = \"{GROQ_KEY}\" }}]\n[envoy]\nrequest_phase = true\n\
             [organization]\nid = \"{ORGANIZATION}\"\n{budget}"
        );
        for (pattern, names) in [(MODEL, limits.of_model), ("openai/*", limits.of_family)] {
            table(&mut text, &format!("organization.limits.\"{pattern}\""), names);
        }
        if self.guarded {
            let digest = sha256(TOKEN);
            writeln!(text, "[access.tokens.bench]\nsha256 = \"{digest}\"\nroles = [\"gateway\"]").unwrap();
        }
        for index in 0..self.teams {
            let team = team_name(index);
            // Most requests of a run are never reported.
            let bounds = "max_output_tokens = 2048\nmax_unsettled = 10_000_000\n";
            write!(text, "[teams.{team}]\nmodels = [\"{MODEL}\"]\n{bounds}{budget}").unwrap();
            lines(&mut text, limits.of_team);
            table(&mut text, &format!("teams.{team}.limits.\"{MODEL}\""), limits.of_team_and_model);
            if self.teams <= MOST_WITH_KEYS {
                writeln!(text, "[teams.{team}.keys.key-{team}]\nsha256 = \"{}\"", sha256(&secret(&team)))
                    .unwrap();
            }
        }
        for index in 0..self.waiting {
            let team = waiting_team(index);
            writeln!(text, "[teams.{team}]\nmodels = [\"{MODEL}\"]\nrequests_per_hour = 1").unwrap();
        }
        text
    }
}

/// The names of limits, by their position. The month of organization and team always has a budget.
struct Limits {
    /// A further budget of organization and team.
    budgets: Option<&'static str>,
    of_model: &'static [&'static str],
    of_family: &'static [&'static str],
    of_team: &'static [&'static str],
    of_team_and_model: &'static [&'static str],
}

const TWO: Limits =
    Limits { budgets: None, of_model: &[], of_family: &[], of_team: &[], of_team_and_model: &[] };

const EIGHT: Limits = Limits {
    budgets: None,
    of_model: &["requests_per_minute", "tokens_per_minute"],
    of_family: &[],
    of_team: &["requests_per_minute", "tokens_per_minute", "max_in_flight"],
    of_team_and_model: &["requests_per_minute"],
};

const RATES: &[&str] = &[
    "requests_per_minute",
    "requests_per_hour",
    "requests_per_day",
    "tokens_per_minute",
    "tokens_per_hour",
    "tokens_per_day",
    "max_in_flight",
];

const THIRTY_TWO: Limits = Limits {
    budgets: Some("daily_usd"),
    of_model: RATES,
    of_family: RATES,
    of_team: RATES,
    of_team_and_model: RATES,
};

fn table(text: &mut String, name: &str, limits: &[&str]) {
    if !limits.is_empty() {
        writeln!(text, "[{name}]").unwrap();
        lines(text, limits);
    }
}

fn lines(text: &mut String, limits: &[&str]) {
    for limit in limits {
        writeln!(text, "{limit} = {ENOUGH}").unwrap();
    }
}
