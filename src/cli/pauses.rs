//! `tollgate pauses`, and its short forms `tollgate pause` and `tollgate resume`.

use std::io::Write as _;

use clap::{Args, Subcommand, ValueEnum};

use super::{
    client::{self, Connection, LimitArgs, Line},
    screen::{Exit, Failure, Screen},
    table::{Style, Table},
    text,
};
use crate::rpc::proto::{
    self, ListPausesRequest, ListPausesResponse, PauseRequest, ResumeRequest,
    pause_service_client::PauseServiceClient, pause_target::Target,
};

/// Denies what a team, a key, a model or the whole organization asks for, until it is resumed.
#[derive(Args)]
#[command(
    after_help = "In force on every replica within a second. What was allowed before goes on and is booked.

Exit codes: 0 paused, 2 failed.

Examples:
  tollgate pause team chatbot --reason \"runaway loop, see INC-7\"
  tollgate pause key chatbot-prod-web --reason \"leaked?\"
  tollgate pause model 'openai/*' --reason \"bad answers\"
  tollgate pause organization --reason \"Groq is down\""
)]
pub(super) struct Pause {
    #[command(flatten)]
    order: PauseFlags,
}

/// Ends a pause.
#[derive(Args)]
#[command(after_help = "In force on every replica within a second.

Exit codes: 0 resumed, or was not paused; 2 failed.

Examples:
  tollgate resume team chatbot --reason \"fixed\"
  tollgate resume organization --reason \"Groq is back\"")]
pub(super) struct Resume {
    #[command(flatten)]
    order: PauseFlags,
}

/// Shows what is paused, since when, by which actor and why; pauses, and ends pauses.
#[derive(Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "`tollgate pause` and `tollgate resume` are short for `pauses create` and `pauses end`.

Exit codes: 0 done, 2 failed."
)]
pub(super) struct Pauses {
    #[command(flatten)]
    list: List,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    List(List),
    Create(Pause),
    End(Resume),
}

/// Shows the pauses in force.
#[derive(Args)]
#[command(after_help = "Exit codes: 0 shown, 2 failed.

Examples:
  tollgate pauses list
  tollgate pauses list --team chatbot
  tollgate pauses list --json | jq '.pauses[] | {target, reason}'")]
struct List {
    /// Those only that cover requests of this team: of the organization, the team, its keys and models
    #[arg(long, value_name = "NAME", default_value = "", hide_default_value = true)]
    team: String,
    #[command(flatten)]
    limit: LimitArgs,
    #[command(flatten)]
    connection: Connection,
}

/// What to pause or resume, and why.
#[derive(Args)]
struct PauseFlags {
    /// What it is
    #[arg(value_enum)]
    kind: Kind,
    /// Its name; of models also the beginning with `*` at the end
    #[arg(required_if_eq_any([("kind", "team"), ("kind", "key"), ("kind", "model")]))]
    name: Option<String>,
    /// Why, to 256 bytes: for the audit log, and for those who are denied
    #[arg(long, value_name = "TEXT")]
    reason: String,
    #[command(flatten)]
    connection: Connection,
}

#[derive(Clone, Copy, ValueEnum)]
enum Kind {
    Organization,
    Team,
    Key,
    Model,
}

impl PauseFlags {
    fn target(&self) -> Result<Target, Failure> {
        let name = self.name.clone();
        Ok(match self.kind {
            Kind::Organization if name.is_some() => {
                return Err(Failure::new("`organization` takes no name: there is one"));
            }
            Kind::Organization => Target::Organization(proto::WholeOrganization {}),
            Kind::Team => Target::Team(name.unwrap_or_default()),
            Kind::Key => Target::Key(name.unwrap_or_default()),
            Kind::Model => Target::Model(name.unwrap_or_default()),
        })
    }
}

/// Asks the service.
fn ask<T>(
    connection: &Connection,
    call: impl AsyncFnOnce(&mut PauseServiceClient<Line>) -> Result<tonic::Response<T>, tonic::Status>,
) -> Result<T, Failure> {
    client::block_on(async {
        let mut client = PauseServiceClient::new(connection.channel().await?);
        let answer = call(&mut client).await;
        Ok(answer.map_err(|status| client::explain(&status))?.into_inner())
    })
}

impl Pause {
    pub(super) fn run(self, screen: &mut Screen) -> Result<Exit, Failure> {
        let target = self.order.target()?;
        let PauseFlags { reason, connection, .. } = self.order;
        let what = described(&target);
        let request = PauseRequest { target: Some(proto::PauseTarget { target: Some(target) }), reason };
        let answer = ask(&connection, async |client| client.pause(request).await)?;
        if connection.json {
            screen.message(&answer)?;
            return Ok(Exit::Done);
        }
        match answer.replaced_pause {
            None => writeln!(screen, "{what} is paused")?,
            Some(before) => {
                writeln!(
                    screen,
                    "{what} was paused already; the reason before: {}",
                    text::plain(&before.reason)
                )?;
            }
        }
        Ok(Exit::Done)
    }
}

impl Resume {
    pub(super) fn run(self, screen: &mut Screen) -> Result<Exit, Failure> {
        let target = self.order.target()?;
        let PauseFlags { reason, connection, .. } = self.order;
        let what = described(&target);
        let request = ResumeRequest { target: Some(proto::PauseTarget { target: Some(target) }), reason };
        let answer = ask(&connection, async |client| client.resume(request).await)?;
        if connection.json {
            screen.message(&answer)?;
            return Ok(Exit::Done);
        }
        match answer.ended_pause {
            Some(pause) => writeln!(screen, "{what} goes on; it was paused: {}", text::plain(&pause.reason))?,
            None => writeln!(screen, "{what} was not paused")?,
        }
        Ok(Exit::Done)
    }
}

impl Pauses {
    pub(super) fn run(self, screen: &mut Screen) -> Result<Exit, Failure> {
        match self.command {
            None => self.list.run(screen),
            Some(Command::List(list)) => list.run(screen),
            Some(Command::Create(pause)) => pause.run(screen),
            Some(Command::End(resume)) => resume.run(screen),
        }
    }
}

impl List {
    fn run(self, screen: &mut Screen) -> Result<Exit, Failure> {
        let pauses = client::block_on(async {
            let mut client: PauseServiceClient<Line> =
                PauseServiceClient::new(self.connection.channel().await?);
            let page = async |page_size, page_token| {
                let request = ListPausesRequest { team: self.team.clone(), page_size, page_token };
                let page = client.list_pauses(request).await?.into_inner();
                Ok((page.pauses, page.next_page_token))
            };
            self.limit.collect(page).await
        })?;
        if self.connection.json {
            screen.message(&ListPausesResponse { pauses, ..Default::default() })?;
            return Ok(Exit::Done);
        }
        if pauses.is_empty() {
            writeln!(screen, "nothing is paused")?;
            return Ok(Exit::Done);
        }
        let mut table = Table::new(["PAUSED", "SINCE", "BY", "REASON"]);
        for pause in &pauses {
            table.row(Style::Red, row(pause));
        }
        let colour = screen.colour;
        table.write(screen, "", colour)?;
        Ok(Exit::Done)
    }
}

fn row(pause: &proto::Pause) -> [String; 4] {
    let target = pause.target.as_ref().and_then(|target| target.target.as_ref());
    let actor = pause.actor.clone().unwrap_or_default();
    [
        target.map_or_else(|| "-".to_owned(), described),
        pause.create_time.as_ref().map_or_else(|| "-".to_owned(), text::instant),
        text::actor(&actor),
        text::shown(&pause.reason),
    ]
}

fn described(target: &Target) -> String {
    match target {
        Target::Organization(_) => "organization".to_owned(),
        Target::Team(name) => format!("team {name}"),
        Target::Key(name) => format!("key {name}"),
        Target::Model(name) => format!("model {name}"),
    }
}
