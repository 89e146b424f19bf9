//! `tollgate policy`: what policy the service has in force.

use std::io::{self, Write as _};

use clap::{Args, Subcommand};
use tonic::{Response, Status};

use super::{
    client::{self, Connection, Line},
    revisions::{Diff, History},
    screen::{Exit, Failure, Screen},
    table::Style,
    text,
};
use crate::rpc::proto::{
    DescribeTeamRequest, DescribeTeamResponse, GetPolicyRequest, PolicySnapshot,
    policy_document_service_client::PolicyDocumentServiceClient,
};

/// Shows the policy in force and those before it, without their secrets; says in words what it permits a team.
#[derive(Subcommand)]
pub(super) enum Policy {
    Show(Show),
    History(History),
    Diff(Diff),
    Describe(Describe),
}

/// Shows the policy document in force.
#[derive(Args)]
#[command(
    after_help = "Of digests only the first 8 digits are shown, so that the output is no policy to serve.

Exit codes: 0 shown, 2 failed."
)]
pub(super) struct Show {
    #[command(flatten)]
    connection: Connection,
}

/// Says in words what the policy in force permits a team.
#[derive(Args)]
#[command(after_help = "Exit codes: 0 shown, 2 failed, also where there is no such team.

Examples:
  tollgate policy describe chatbot
  tollgate policy describe chatbot --json | jq .limits")]
pub(super) struct Describe {
    /// The team
    team: String,
    #[command(flatten)]
    connection: Connection,
}

impl Policy {
    pub(super) fn run(self, screen: &mut Screen) -> Result<Exit, Failure> {
        match self {
            Self::Show(show) => show.run(screen),
            Self::History(history) => history.run(screen),
            Self::Diff(diff) => diff.run(screen),
            Self::Describe(describe) => describe.run(screen),
        }
    }
}

/// Asks about policy documents.
pub(super) type PolicyClient = PolicyDocumentServiceClient<Line>;

/// What the service answers.
pub(super) fn answer<T>(answer: Result<Response<T>, Status>) -> Result<T, Failure> {
    answer.map(Response::into_inner).map_err(|status| client::explain(&status))
}

impl Show {
    fn run(self, screen: &mut Screen) -> Result<Exit, Failure> {
        let response = client::block_on(async {
            let mut client = PolicyClient::new(self.connection.channel().await?);
            answer(client.get_policy(GetPolicyRequest {}).await)
        })?;
        match self.connection.json {
            true => screen.message(&response)?,
            false => print_policy(screen, &response.policy.unwrap_or_default())?,
        }
        Ok(Exit::Done)
    }
}

fn print_policy(screen: &mut Screen, policy: &PolicySnapshot) -> io::Result<()> {
    let count = |number: i32, noun: &str| format!("{number} {noun}{}", if number == 1 { "" } else { "s" });
    let (teams, keys) = (count(policy.team_count, "team"), count(policy.key_count, "key"));
    let pauses = count(policy.pause_count, "pause");
    let loaded = policy.load_time.as_ref().map_or_else(|| "-".to_owned(), text::instant);
    heading(
        screen,
        &format!("policy {}, loaded {loaded}: {teams}, {keys}, {pauses}", policy.policy_revision),
    )?;
    writeln!(screen, "\n{}", policy.document.trim_end())?;
    match policy.truncated {
        true => heading(screen, "the document is longer; only its beginning is shown"),
        false => Ok(()),
    }
}

fn heading(screen: &mut Screen, text: &str) -> io::Result<()> {
    let text = Style::Bold.paint(text, screen.colour);
    writeln!(screen, "{text}")
}

impl Describe {
    fn run(self, screen: &mut Screen) -> Result<Exit, Failure> {
        let Self { team, connection } = self;
        let response = client::block_on(async {
            let mut client = PolicyClient::new(connection.channel().await?);
            answer(client.describe_team(DescribeTeamRequest { team: team.clone() }).await)
        })?;
        match connection.json {
            true => screen.message(&response)?,
            false => print_team(screen, &team, &response)?,
        }
        Ok(Exit::Done)
    }
}

fn print_team(screen: &mut Screen, team: &str, described: &DescribeTeamResponse) -> io::Result<()> {
    heading(screen, &format!("team {}, policy {}", text::plain(team), described.policy_revision))?;
    described.sentences.iter().try_for_each(|sentence| writeln!(screen, "  {}", text::plain(sentence)))?;
    let models = if described.models.is_empty() { "none".to_owned() } else { described.models.join(", ") };
    writeln!(screen, "  Models with a price: {}.", text::plain(&models))
}
