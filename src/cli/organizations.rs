//! `tollgate organizations`: the organizations that the caller is of.

use std::io::Write as _;

use clap::{Args, Subcommand};

use super::{
    client::{self, Connection, LimitArgs, Line},
    screen::{Exit, Failure, Screen},
    table::{Style, Table},
    text,
};
use crate::rpc::proto::{
    ListOrganizationsRequest, ListOrganizationsResponse, Organization,
    organization_service_client::OrganizationServiceClient,
};

/// Shows the organizations that the caller is of, and where their pages of the console are.
#[derive(Args)]
#[command(args_conflicts_with_subcommands = true, after_help = ENDS)]
pub(super) struct Organizations {
    #[command(flatten)]
    list: List,
    #[command(subcommand)]
    command: Option<Command>,
}

/// What the end of both helps says.
const ENDS: &str =
    "A service has the policy of one organization, or of several. Any caller that is known may ask.

Exit codes: 0 shown, 2 failed.";

#[derive(Subcommand)]
enum Command {
    List(List),
}

/// Shows the organizations that the caller is of.
#[derive(Args)]
#[command(after_help = ENDS)]
struct List {
    #[command(flatten)]
    limit: LimitArgs,
    #[command(flatten)]
    connection: Connection,
}

impl Organizations {
    pub(super) fn run(self, screen: &mut Screen) -> Result<Exit, Failure> {
        match self.command {
            None => self.list.run(screen),
            Some(Command::List(list)) => list.run(screen),
        }
    }
}

impl List {
    fn run(self, screen: &mut Screen) -> Result<Exit, Failure> {
        let organizations = client::block_on(async {
            let mut client: OrganizationServiceClient<Line> =
                OrganizationServiceClient::new(self.connection.channel().await?);
            let page = async |page_size, page_token| {
                let request = ListOrganizationsRequest { page_size, page_token };
                let page = client.list_organizations(request).await?.into_inner();
                Ok((page.organizations, page.next_page_token))
            };
            self.limit.collect(page).await
        })?;
        if self.connection.json {
            screen.message(&ListOrganizationsResponse { organizations, ..Default::default() })?;
        } else if organizations.is_empty() {
            writeln!(screen, "you are of no organization")?;
        } else {
            let mut table = Table::new(["ORGANIZATION", "CONSOLE"]);
            organizations.iter().for_each(|organization| table.row(Style::Plain, row(organization)));
            let colour = screen.colour;
            table.write(screen, "", colour)?;
        }
        Ok(Exit::Done)
    }
}

fn row(organization: &Organization) -> [String; 2] {
    let Organization { id, console_url } = organization;
    let place = if console_url.is_empty() { "-".to_owned() } else { text::shown(console_url) };
    [text::shown(id), place]
}
