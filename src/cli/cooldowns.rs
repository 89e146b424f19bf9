//! `tollgate cooldowns`: what of Groq is left alone after its 429.

use std::io::Write as _;

use clap::{Args, Subcommand};

use super::{
    client::{self, Connection, LimitArgs, Line},
    names,
    screen::{Exit, Failure, Screen},
    table::{Style, Table},
    text,
};
use crate::rpc::proto::{
    self, LiftCooldownRequest, ListCooldownsRequest, ListCooldownsResponse,
    upstream_service_client::UpstreamServiceClient,
};

/// Shows what of Groq is left alone after its 429, until when and on whose report; and lifts it.
#[derive(Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "A cooldown is of a Groq project, a model and a service tier. It ends by itself, when a later request completes, or by hand.

Exit codes: 0 shown, 2 failed."
)]
pub(super) struct Cooldowns {
    #[command(flatten)]
    list: List,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    List(List),
    Lift(Lift),
}

/// Shows the cooldowns in force.
#[derive(Args)]
#[command(after_help = "Exit codes: 0 shown, 2 failed.")]
struct List {
    #[command(flatten)]
    limit: LimitArgs,
    #[command(flatten)]
    connection: Connection,
}

/// Lifts the cooldown of a model: requests for it pass at once, on every replica.
#[derive(Args)]
#[command(after_help = "Exit codes: 0 lifted, 2 failed, also where there is none.

Examples:
  tollgate cooldowns lift openai/gpt-oss-20b --reason \"Groq raised our limit\"
  tollgate cooldowns lift openai/gpt-oss-20b --project lab --service-tier flex --reason \"a wrong report\"")]
struct Lift {
    /// The model
    model: String,
    /// The Groq project
    #[arg(long, value_name = "NAME", default_value = "default")]
    project: String,
    /// Only of this service tier
    #[arg(long, value_name = "TIER", value_parser = names::parser::<proto::ServiceTier>())]
    service_tier: Option<proto::ServiceTier>,
    /// Why, to 256 bytes: for the audit log
    #[arg(long, value_name = "TEXT")]
    reason: String,
    #[command(flatten)]
    connection: Connection,
}

impl Cooldowns {
    pub(super) fn run(self, screen: &mut Screen) -> Result<Exit, Failure> {
        match self.command {
            None => self.list.run(screen),
            Some(Command::List(list)) => list.run(screen),
            Some(Command::Lift(lift)) => lift.run(screen),
        }
    }
}

impl List {
    fn run(self, screen: &mut Screen) -> Result<Exit, Failure> {
        let cooldowns = client::block_on(async {
            let mut client: UpstreamServiceClient<Line> =
                UpstreamServiceClient::new(self.connection.channel().await?);
            let page = async |page_size, page_token| {
                let request = ListCooldownsRequest { page_size, page_token };
                let page = client.list_cooldowns(request).await?.into_inner();
                Ok((page.cooldowns, page.next_page_token))
            };
            self.limit.collect(page).await
        })?;
        if self.connection.json {
            screen.message(&ListCooldownsResponse { cooldowns, ..Default::default() })?;
            return Ok(Exit::Done);
        }
        if cooldowns.is_empty() {
            writeln!(screen, "nothing is in cooldown")?;
            return Ok(Exit::Done);
        }
        let mut table =
            Table::new(["PROJECT", "MODEL", "SERVICE TIER", "SINCE", "UNTIL", "REPORTED BY", "GROQ ASKED"]);
        for cooldown in &cooldowns {
            table.row(Style::Yellow, row(cooldown));
        }
        let colour = screen.colour;
        table.write(screen, "", colour)?;
        Ok(Exit::Done)
    }
}

impl Lift {
    fn run(self, screen: &mut Screen) -> Result<Exit, Failure> {
        let Self { model, project, service_tier, reason, connection } = self;
        let service_tier = service_tier.map_or(0, i32::from);
        let request = LiftCooldownRequest { project, model, service_tier, reason };
        let lifted = client::block_on(async {
            let mut client: UpstreamServiceClient<Line> =
                UpstreamServiceClient::new(connection.channel().await?);
            let answer = client.lift_cooldown(request).await;
            Ok(answer.map_err(|status| client::explain(&status))?.into_inner())
        })?;
        if connection.json {
            screen.message(&lifted)?;
            return Ok(Exit::Done);
        }
        for cooldown in &lifted.ended_cooldowns {
            let [project, model, tier, _, until, ..] = row(cooldown);
            writeln!(
                screen,
                "{model} is asked for again in {project}, service tier {tier}; it would have been at {until}"
            )?;
        }
        Ok(Exit::Done)
    }
}

fn row(cooldown: &proto::Cooldown) -> [String; 7] {
    let instant = |at: &Option<_>| at.as_ref().map_or_else(|| "-".to_owned(), text::instant);
    [
        text::shown(&cooldown.project),
        text::shown(&cooldown.model),
        names::short(cooldown.service_tier()),
        instant(&cooldown.start_time),
        instant(&cooldown.end_time),
        text::shown(&cooldown.reporter_team),
        cooldown.requested_delay.as_ref().map_or_else(|| "-".to_owned(), text::delay),
    ]
}
