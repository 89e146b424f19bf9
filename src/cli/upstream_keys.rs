//! `tollgate upstream-keys`: the organization's own Groq keys, never shown themselves.

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
    ListUpstreamKeysRequest, ListUpstreamKeysResponse, UpstreamKey, UpstreamKeyState,
    upstream_service_client::UpstreamServiceClient,
};

/// Shows the Groq keys of each project: which one is used, since when it is there, and which one Groq refuses.
#[derive(Args)]
#[command(args_conflicts_with_subcommands = true, after_help = ENDS)]
pub(super) struct UpstreamKeys {
    #[command(flatten)]
    list: List,
    #[command(subcommand)]
    command: Option<Command>,
}

/// What the end of both helps says.
const ENDS: &str = "What is shown is over all replicas seen within the last minute, each since it started; --json has each of them. A key is named by its
project and a digest.

Exit codes: 0 shown, 1 Groq refuses a key, 2 failed.";

#[derive(Subcommand)]
enum Command {
    List(List),
}

/// Shows the Groq keys of each project.
#[derive(Args)]
#[command(after_help = ENDS)]
struct List {
    #[command(flatten)]
    limit: LimitArgs,
    #[command(flatten)]
    connection: Connection,
}

impl UpstreamKeys {
    pub(super) fn run(self, screen: &mut Screen) -> Result<Exit, Failure> {
        match self.command {
            None => self.list.run(screen),
            Some(Command::List(list)) => list.run(screen),
        }
    }
}

impl List {
    fn run(self, screen: &mut Screen) -> Result<Exit, Failure> {
        let upstream_keys = client::block_on(async {
            let mut client: UpstreamServiceClient<Line> =
                UpstreamServiceClient::new(self.connection.channel().await?);
            let page = async |_, _| {
                let page = client.list_upstream_keys(ListUpstreamKeysRequest {}).await?.into_inner();
                Ok((page.upstream_keys, String::new()))
            };
            self.limit.collect(page).await
        })?;
        let refused = upstream_keys.iter().any(|key| key.state() == UpstreamKeyState::Refused);
        if self.connection.json {
            screen.message(&ListUpstreamKeysResponse { upstream_keys })?;
        } else if upstream_keys.is_empty() {
            writeln!(screen, "there is no Groq key; `[projects.NAME]` of the policy says where keys are")?;
        } else {
            let mut table = Table::new(["KEY", "STATE", "SINCE", "LAST USE", ">REQUESTS", "PLACE"]);
            for key in &upstream_keys {
                table.row(style(key.state()), row(key));
            }
            let colour = screen.colour;
            table.write(screen, "", colour)?;
        }
        Ok(if refused { Exit::Denied } else { Exit::Done })
    }
}

const fn style(state: UpstreamKeyState) -> Style {
    match state {
        UpstreamKeyState::Used => Style::Green,
        UpstreamKeyState::Refused => Style::Red,
        UpstreamKeyState::Standby | UpstreamKeyState::Unspecified => Style::Plain,
    }
}

fn row(key: &UpstreamKey) -> [String; 6] {
    let instant = |at: &Option<_>| at.as_ref().map_or_else(|| "-".to_owned(), text::instant);
    let requests = text::group(key.request_count.unsigned_abs().into());
    [
        key.name.clone(),
        names::short(key.state()),
        instant(&key.create_time),
        instant(&key.last_use_time),
        requests,
        key.place.clone(),
    ]
}
