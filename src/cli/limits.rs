//! `tollgate limits`: the limits of a caller as they stand.

use clap::{Args, Subcommand};

use super::{
    client::{Connection, LimitArgs},
    listing::{self, Shown},
    screen::{Exit, Failure, Screen},
    table::{Style, Table},
    text,
};
use crate::rpc::proto::{
    LimitStatus, ListLimitsRequest, ListLimitsResponse, report_service_client::ReportServiceClient,
};

/// Shows the limits that apply to a team, a key or a user: what is used and left of each, and when it is free again.
#[derive(Args)]
#[command(args_conflicts_with_subcommands = true, after_help = ENDS)]
pub(super) struct Limits {
    #[command(flatten)]
    list: List,
    #[command(subcommand)]
    command: Option<Command>,
}

/// What the end of both helps says.
const ENDS: &str =
    "Nothing is decided or counted. Of all models; limits in shadow and max_unsettled are not shown. Without --team and --key it shows the
limits of the organization and of all teams that you may see. RESET is the longest time until none of what is used counts any more.

Exit codes: 0 shown, 2 failed.

Examples:
  tollgate limits list --team chatbot
  tollgate limits list --team chatbot --user customer-17
  tollgate limits list --team chatbot --json | jq '.limits[] | select(.remaining == \"0\")'";

#[derive(Subcommand)]
enum Command {
    List(List),
}

/// Shows the limits that apply to a team, a key or a user.
#[derive(Args)]
#[command(after_help = ENDS)]
struct List {
    /// The team
    #[arg(long, value_name = "NAME", default_value = "", hide_default_value = true)]
    team: String,
    /// The virtual key; with --team if several teams have one of this name
    #[arg(long, value_name = "NAME", default_value = "", hide_default_value = true)]
    key: String,
    /// The user of the team
    #[arg(long, value_name = "NAME", default_value = "", hide_default_value = true)]
    user: String,
    #[command(flatten)]
    limit: LimitArgs,
    #[command(flatten)]
    connection: Connection,
}

impl Limits {
    pub(super) fn run(self, screen: &mut Screen) -> Result<Exit, Failure> {
        match self.command {
            None => self.list.run(screen),
            Some(Command::List(list)) => list.run(screen),
        }
    }
}

impl List {
    fn run(self, screen: &mut Screen) -> Result<Exit, Failure> {
        let shown = Shown {
            is_empty: |answer: &ListLimitsResponse| answer.limits.is_empty(),
            none: "there are no such limits",
            table: print,
        };
        listing::show(&self.connection, screen, &shown, async |line| {
            let mut client = ReportServiceClient::new(line);
            let mut last = ListLimitsResponse::default();
            let page = async |page_size, page_token| {
                let (team, key, user) = (self.team.clone(), self.key.clone(), self.user.clone());
                let request = ListLimitsRequest { team, key, user, page_size, page_token };
                last = client.list_limits(request).await?.into_inner();
                Ok((std::mem::take(&mut last.limits), std::mem::take(&mut last.next_page_token)))
            };
            let limits = self.limit.collect(page).await?;
            Ok(ListLimitsResponse { limits, ..last })
        })
    }
}

fn print(screen: &mut Screen, answer: &ListLimitsResponse) -> std::io::Result<()> {
    let mut table = Table::new(["LIMIT", ">BOUND", ">USED", ">LEFT", ">RESET"]);
    for limit in &answer.limits {
        table.row(style(limit), row(limit));
    }
    let colour = screen.colour;
    table.write(screen, "", colour)
}

/// Yellow from four fifths of the bound.
fn style(limit: &LimitStatus) -> Style {
    match limit.remaining {
        ..=0 => Style::Red,
        left if left <= limit.limit / 5 => Style::Yellow,
        _ => Style::Plain,
    }
}

fn row(limit: &LimitStatus) -> [String; 5] {
    let amount = |value| text::amount(limit.quantity(), value);
    let reset = limit.reset_delay.filter(|_| limit.used > 0);
    [
        limit.limit_id.clone(),
        amount(limit.limit),
        amount(limit.used),
        amount(limit.remaining),
        reset.as_ref().map_or_else(|| "-".to_owned(), text::whole_seconds),
    ]
}
