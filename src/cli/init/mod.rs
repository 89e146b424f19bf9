//! `tollgate init`: a policy and settings for a new organization.

mod answers;
mod ask;
mod document;
mod tier;

use std::{
    fs::{self, OpenOptions},
    io::{self, IsTerminal as _, Write as _},
    path::{Path, PathBuf},
};

use clap::{Args, ValueEnum as _};

use self::{
    answers::{Answers, Team},
    ask::Terminal,
    tier::Tier,
};
use super::{
    screen::{Exit, Failure, Screen},
    table::Style,
};
use crate::{domain::name::is_name, policy_file::parse_policy};

const POLICY: &str = "policy.toml";
const SETTINGS: &str = "tollgate.toml";
const DATA: &str = "data";

/// Writes a policy and settings for a new organization, explained line by line.
///
/// Asks for what the flags leave out, if there is a terminal to ask on. Existing files are never changed.
#[derive(Args)]
#[command(after_help = "Exit codes: 0 written, 2 failed: nothing was written.

Examples:
  tollgate init
  tollgate init --organization acme --team chatbot=200 --team research=50.00 --directory acme")]
pub(super) struct Init {
    /// The organization's name, which is never changed later: counters are named after it
    #[arg(long, value_name = "NAME", value_parser = answers::organization)]
    organization: Option<String>,
    /// A team and its budget of a month in dollars; may be repeated
    #[arg(long = "team", value_name = "NAME=USD", value_parser = answers::team)]
    teams: Vec<Team>,
    /// The organization's plan at Groq, whose limits are written down [default: developer]
    #[arg(long, value_name = "TIER", value_enum)]
    tier: Option<Tier>,
    /// Where days and months begin, by IANA's name [default: the zone of this machine]
    #[arg(long, value_name = "ZONE", value_parser = answers::time_zone)]
    time_zone: Option<String>,
    /// Where to write; it is created if it is missing [default: the working directory]
    #[arg(long, value_name = "DIRECTORY")]
    directory: Option<PathBuf>,
}

/// The files, by their absolute paths.
struct Files {
    directory: PathBuf,
    policy: PathBuf,
    settings: PathBuf,
}

impl Init {
    pub(super) fn run(self, screen: &mut Screen) -> Result<Exit, Failure> {
        // Before anything is asked, as far as it is known.
        if let Some(directory) = &self.directory {
            Files::in_directory(directory)?.are_new()?;
        }
        let (directory, answers) = match io::stdin().is_terminal() {
            true => self.asked(Terminal::new(io::stdin().lock(), io::stderr()))?,
            false => self.given()?,
        };
        let files = Files::in_directory(&directory)?;
        files.are_new()?;
        let policy = document::policy(&answers);
        let settings =
            document::settings(&answers, &text_of(&files.policy)?, &text_of(&files.directory.join(DATA))?);
        // The program would have to be wrong, or its prices old: the files are not written then.
        let report = parse_policy(&policy, POLICY);
        if report.errors() > 0 {
            return Err(Failure::new(format!("the policy would not load; nothing was written:\n{report}")));
        }
        files.write(&policy, &settings)?;
        print(screen, &files, &answers)?;
        Ok(Exit::Done)
    }

    /// What the flags say, with defaults for what they need not say.
    fn given(self) -> Result<(PathBuf, Answers), Failure> {
        let missing = |flag: &str, example: &str| {
            Failure::new(format!(
                "{flag} is missing, and there is no terminal to ask on: give {flag} {example}"
            ))
        };
        let organization = self.organization.ok_or_else(|| missing("--organization", "NAME"))?;
        if self.teams.is_empty() {
            return Err(missing("--team", "NAME=USD"));
        }
        let teams = each_once(self.teams)?;
        let directory = self.directory.unwrap_or_else(|| PathBuf::from("."));
        let time_zone = self.time_zone.unwrap_or_else(answers::zone_of_this_machine);
        Ok((directory, answers_of(organization, teams, self.tier.unwrap_or(Tier::Developer), time_zone)?))
    }

    /// The same, with questions on `terminal` about what they leave out.
    fn asked(
        self,
        mut terminal: Terminal<impl io::BufRead, impl io::Write>,
    ) -> Result<(PathBuf, Answers), Failure> {
        let given = each_once(self.teams)?;
        let organization = match self.organization {
            Some(organization) => organization,
            None => terminal.ask("Organization, a name that never changes", None, answers::organization)?,
        };
        let mut teams = given;
        if teams.is_empty() {
            terminal.list("Team and its dollars of a month, NAME=USD", |text| {
                answers::team(text).and_then(|team| answers::add(&mut teams, team))
            })?;
        }
        let tier = match self.tier {
            Some(tier) => tier,
            None => {
                let question = "Plan at Groq: free, developer or enterprise";
                let read = |text: &str| {
                    Tier::from_str(text, true).map_err(|_| format!("`{text}` is none of these plans"))
                };
                terminal.ask(question, Some("developer"), read)?
            }
        };
        let time_zone = match self.time_zone {
            Some(zone) => zone,
            None => terminal.ask(
                "Time zone, in which days and months begin",
                Some(&answers::zone_of_this_machine()),
                answers::time_zone,
            )?,
        };
        let directory = match self.directory {
            Some(directory) => directory,
            None => terminal.ask("Directory for policy.toml and tollgate.toml", Some("."), |text| {
                let directory = PathBuf::from(text);
                let found = Files::in_directory(&directory).and_then(|files| files.are_new());
                found.map(|()| directory).map_err(|failure| failure.to_string())
            })?,
        };
        Ok((directory, answers_of(organization, teams, tier, time_zone)?))
    }
}

fn each_once(given: Vec<Team>) -> Result<Vec<Team>, Failure> {
    let mut teams = Vec::new();
    for team in given {
        answers::add(&mut teams, team).map_err(|fault| Failure::new(format!("--team: {fault}")))?;
    }
    Ok(teams)
}

fn answers_of(
    organization: String,
    teams: Vec<Team>,
    tier: Tier,
    time_zone: String,
) -> Result<Answers, Failure> {
    let monthly =
        answers::sum(&teams).ok_or_else(|| Failure::new("the budgets come to more than can be counted"))?;
    Ok(Answers { organization, teams, tier, time_zone, monthly })
}

fn text_of(path: &Path) -> Result<String, Failure> {
    document::text_of(path)
        .ok_or_else(|| Failure::new(format!("`{}` is not UTF-8, so no settings can name it", path.display())))
}

impl Files {
    fn in_directory(directory: &Path) -> Result<Self, Failure> {
        let directory = std::path::absolute(directory)
            .map_err(|error| Failure::new(format!("`{}` is no directory: {error}", directory.display())))?;
        // Absolute, but as it was written otherwise: a link to it may be meant.
        let directory: PathBuf = directory.components().collect();
        Ok(Self { policy: directory.join(POLICY), settings: directory.join(SETTINGS), directory })
    }

    /// Refuses a directory that has one of the files, or a link of its name.
    fn are_new(&self) -> Result<(), Failure> {
        for path in [&self.policy, &self.settings] {
            match path.symlink_metadata() {
                Ok(_) => return Err(exists(path)),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => {
                    return Err(Failure::new(format!("cannot look at `{}`: {error}", path.display())));
                }
            }
        }
        Ok(())
    }

    /// Writes both files, or none.
    fn write(&self, policy: &str, settings: &str) -> Result<(), Failure> {
        let directory = &self.directory;
        fs::create_dir_all(directory)
            .map_err(|error| Failure::new(format!("cannot create `{}`: {error}", directory.display())))?;
        write_new(&self.policy, policy)?;
        write_new(&self.settings, settings).inspect_err(|_| {
            // It was made a moment ago; alone it would be in the way of the next attempt.
            let _ = fs::remove_file(&self.policy);
        })
    }
}

fn exists(path: &Path) -> Failure {
    Failure::new(format!(
        "`{}` exists, and is not overwritten: move it away, or choose another place with --directory",
        path.display()
    ))
}

/// Writes a file that is not there yet, even as a link.
fn write_new(path: &Path, text: &str) -> Result<(), Failure> {
    let failed = |error: io::Error| match error.kind() {
        io::ErrorKind::AlreadyExists => exists(path),
        _ => Failure::new(format!("cannot write `{}`: {error}", path.display())),
    };
    let mut file = OpenOptions::new().write(true).create_new(true).open(path).map_err(failed)?;
    let written = file.write_all(text.as_bytes()).and_then(|()| file.sync_all());
    written.map_err(|error| {
        let _ = fs::remove_file(path);
        failed(error)
    })
}

fn print(screen: &mut Screen, files: &Files, answers: &Answers) -> io::Result<()> {
    let Answers { organization, teams, tier, time_zone, monthly } = answers;
    let colour = screen.colour;
    let heading = |text: &str| Style::Bold.paint(text, colour);
    let teams_are = if teams.len() == 1 { "team" } else { "teams" };
    let summary = format!(
        "{} {teams_are}, ${monthly} a month in all, limits of the tier {}, days of {time_zone}",
        teams.len(),
        tier.name()
    );
    writeln!(screen, "{}", heading(&format!("organization {organization}")))?;
    writeln!(screen, "  {summary}")?;
    writeln!(screen, "  {}", files.policy.display())?;
    writeln!(screen, "  {}\n", files.settings.display())?;
    let team = teams.first().map(|team| team.name.as_str()).unwrap_or_default();
    let [policy, settings] = [&files.policy, &files.settings].map(|path| quoted(&path.to_string_lossy()));
    writeln!(screen, "{}", heading("next"))?;
    writeln!(screen, "  tollgate check --strict {policy}")?;
    writeln!(screen, "  tollgate doctor --config {settings}")?;
    writeln!(screen, "  tollgate serve --config {settings}\n")?;
    writeln!(screen, "{}", heading("and beside it, a key for a workload, a decision, and what was spent"))?;
    // Longer names of teams leave no room for the rest of a key's.
    let key = format!("{team}-prod-web");
    if is_name(&key) {
        writeln!(screen, "  tollgate keys create {key} --team {team}")?;
    }
    writeln!(
        screen,
        "  tollgate authorize --team {team} --model openai/gpt-oss-20b --input-tokens 1000 --max-output-tokens 500"
    )?;
    writeln!(screen, "  tollgate spend")
}

/// A path as one word of a shell.
fn quoted(path: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "/._-+,@%:".contains(c);
    match path.chars().all(is_plain) {
        true => path.to_owned(),
        false => format!("'{}'", path.replace('\'', r"'\''")),
    }
}
