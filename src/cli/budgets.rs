//! `tollgate budgets`: budgets as they stand.

use clap::{Args, Subcommand};

use super::{
    client::{Connection, LimitArgs},
    listing::{self, Shown},
    names::short,
    screen::{Exit, Failure, Screen},
    spend::used,
    table::Table,
    text,
};
use crate::rpc::proto::{
    Budget, LimitMode, ListBudgetsRequest, ListBudgetsResponse, Scope, Spend,
    budget_service_client::BudgetServiceClient,
};

/// Shows the budgets of the organization, teams and keys, and of a user: what is spent of each in its present period.
#[derive(Args)]
#[command(args_conflicts_with_subcommands = true, after_help = ENDS)]
pub(super) struct Budgets {
    #[command(flatten)]
    list: List,
    #[command(subcommand)]
    command: Option<Command>,
}

/// What the end of both helps says.
const ENDS: &str =
    "Keys that were revoked or have expired are left out, unless --key names them. A budget of a team or the organization lasts until the
time shown, in the organization's time zone, if spending continues at this pace, as docs/reports.md says.

Exit codes: 0 shown, 2 failed.

Examples:
  tollgate budgets list
  tollgate budgets list --team chatbot
  tollgate budgets list --user customer-17
  tollgate budgets list --json | jq '.budgets[] | {limitId, spent: .spend.spent}'";

#[derive(Subcommand)]
enum Command {
    List(List),
}

/// Shows budgets, and what is spent of each in its present period.
#[derive(Args)]
#[command(after_help = ENDS)]
struct List {
    /// Those only of this team, its keys and its users
    #[arg(long, value_name = "NAME", default_value = "", hide_default_value = true)]
    team: String,
    /// Those only of the virtual key of this name
    #[arg(long, value_name = "NAME", default_value = "", hide_default_value = true)]
    key: String,
    /// Those only of this user
    #[arg(long, value_name = "NAME", default_value = "", hide_default_value = true, conflicts_with = "key")]
    user: String,
    #[command(flatten)]
    limit: LimitArgs,
    #[command(flatten)]
    connection: Connection,
}

impl Budgets {
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
            is_empty: |answer: &ListBudgetsResponse| answer.budgets.is_empty(),
            none: "there are no such budgets",
            table: print,
        };
        listing::show(&self.connection, screen, &shown, async |line| {
            let mut client = BudgetServiceClient::new(line);
            let mut last = ListBudgetsResponse::default();
            let page = async |page_size, page_token| {
                let (team, key, user) = (self.team.clone(), self.key.clone(), self.user.clone());
                let request = ListBudgetsRequest { team, key, user, page_size, page_token };
                last = client.list_budgets(request).await?.into_inner();
                Ok((std::mem::take(&mut last.budgets), std::mem::take(&mut last.next_page_token)))
            };
            let budgets = self.limit.collect(page).await?;
            Ok(ListBudgetsResponse { budgets, ..last })
        })
    }
}

fn print(screen: &mut Screen, answer: &ListBudgetsResponse) -> std::io::Result<()> {
    let mut table = Table::new([
        "OF",
        "PERIOD",
        ">BUDGET",
        ">SPENT",
        ">RESERVED",
        ">REMAINING",
        "USED",
        ">PROJECTED",
        "LASTS UNTIL",
        "ON SHORTFALL",
    ]);
    for budget in &answer.budgets {
        let spend = budget.spend.clone().unwrap_or_default();
        let amounts = [&spend.budget, &spend.spent, &spend.reserved, &spend.remaining];
        let [bound, spent, reserved, remaining] = amounts.map(|amount| text::money(amount.as_ref()));
        let (style, used) = used(&spend);
        let projected = text::cents(spend.forecast.as_ref().and_then(|end| end.projected.as_ref()));
        let shortfall = match budget.mode() {
            LimitMode::Shadow => "shadow".to_owned(),
            LimitMode::Enforce | LimitMode::Unspecified => short(budget.on_shortfall()),
        };
        let (of, period) = (owner(budget), short(budget.period()));
        let lasts = lasts_until(&spend, &answer.time_zone);
        table.row(style, [of, period, bound, spent, reserved, remaining, used, projected, lasts, shortfall]);
    }
    let colour = screen.colour;
    table.write(screen, "", colour)
}

/// Whose budget it is.
fn owner(budget: &Budget) -> String {
    let Budget { team, key, user, .. } = budget;
    text::shown(&match budget.scope() {
        Scope::Organization => "organization".to_owned(),
        Scope::Key => format!("key {key} ({team})"),
        Scope::User => format!("user {user} ({team})"),
        _ => format!("team {team}"),
    })
}

/// When it is used up at this pace, in `zone`.
fn lasts_until(spend: &Spend, zone: &str) -> String {
    let is_used_up = text::nanos(spend.remaining.as_ref()) <= 0;
    match &spend.forecast {
        _ if is_used_up => "used up".to_owned(),
        None => "-".to_owned(),
        Some(end) => match &end.exhaust_time {
            Some(at) => text::minute(at, zone),
            None => "its period's end".to_owned(),
        },
    }
}
