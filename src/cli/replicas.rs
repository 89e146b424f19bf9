//! `tollgate replicas`: the processes that share a store.

use std::io::Write as _;

use clap::{Args, Subcommand};

use super::{
    client::{self, Connection, LimitArgs, Line},
    screen::{Exit, Failure, Screen},
    table::{Style, Table},
    text,
};
use crate::rpc::proto::{
    ListReplicasRequest, ListReplicasResponse, Replica, status_service_client::StatusServiceClient,
};

/// Shows the processes that share the store: their releases, whether they are ready, and what policy they decide by.
#[derive(Args)]
#[command(args_conflicts_with_subcommands = true, after_help = ENDS)]
pub(super) struct Replicas {
    #[command(flatten)]
    list: List,
    #[command(subcommand)]
    command: Option<Command>,
}

/// What the end of both helps says.
const ENDS: &str =
    "Each replica announces itself every 5 seconds. It is listed for an hour after it was last seen, and as not ready once that is 15 seconds
ago. What it has spooled are reports of usage that it keeps until the store has taken them.

Exit codes: 0 shown, 2 failed.";

#[derive(Subcommand)]
enum Command {
    List(List),
}

/// Shows the processes that share the store.
#[derive(Args)]
#[command(after_help = ENDS)]
struct List {
    #[command(flatten)]
    limit: LimitArgs,
    #[command(flatten)]
    connection: Connection,
}

impl Replicas {
    pub(super) fn run(self, screen: &mut Screen) -> Result<Exit, Failure> {
        match self.command {
            None => self.list.run(screen),
            Some(Command::List(list)) => list.run(screen),
        }
    }
}

impl List {
    fn run(self, screen: &mut Screen) -> Result<Exit, Failure> {
        let replicas = client::block_on(async {
            let mut client: StatusServiceClient<Line> =
                StatusServiceClient::new(self.connection.channel().await?);
            let page = async |page_size, page_token| {
                let request = ListReplicasRequest { page_size, page_token };
                let page = client.list_replicas(request).await?.into_inner();
                Ok((page.replicas, page.next_page_token))
            };
            self.limit.collect(page).await
        })?;
        if self.connection.json {
            screen.message(&ListReplicasResponse { replicas, ..Default::default() })?;
        } else if replicas.is_empty() {
            writeln!(screen, "no replica has announced itself within the last hour")?;
        } else {
            let mut table = Table::new([
                "NAME",
                "VERSION",
                "READY",
                ">SPOOLED",
                "POLICY REVISION",
                "STARTED",
                "LAST SEEN",
            ]);
            for replica in &replicas {
                table.row(if replica.ready { Style::Green } else { Style::Yellow }, row(replica));
            }
            let colour = screen.colour;
            table.write(screen, "", colour)?;
        }
        Ok(Exit::Done)
    }
}

fn row(replica: &Replica) -> [String; 7] {
    let instant = |at: &Option<_>| at.as_ref().map_or_else(|| "-".to_owned(), text::instant);
    [
        text::shown(&replica.name),
        text::shown(&replica.version),
        if replica.ready { "yes" } else { "no" }.to_owned(),
        text::group(replica.spooled_requests.unsigned_abs().into()),
        text::shown(&replica.policy_revision),
        instant(&replica.start_time),
        instant(&replica.last_seen_time),
    ]
}
