//! `tollgate spend`: what was spent, of what budget.

use std::io::{self, Write as _};

use clap::{Args, ValueEnum};

use super::{
    client::{self, Client, Connection},
    screen::{Exit, Failure, Screen},
    table::{Style, Table},
    text,
};
use crate::rpc::proto;

/// The teams asked for at a time.
const PAGE: i32 = 200;
/// The width of a bar.
const BAR: u64 = 20;

/// Shows budgets, what was spent of them, what is reserved and what remains.
#[derive(Args)]
#[command(
    after_help = "Reserved is what requests in flight may cost at most, and requests that were never reported. A budget lasts until the time
shown, in the organization's time zone, if spending continues at this pace, as docs/reports.md says.

Exit codes: 0 shown, 2 failed.

Examples:
  tollgate spend
  tollgate spend --team chatbot --by model
  tollgate spend --month 2026-10 --json | jq '.teams[] | {name, spent: .spend.spent}'"
)]
pub(super) struct Spend {
    #[command(flatten)]
    connection: Connection,
    /// One team only
    #[arg(long, value_name = "NAME", default_value = "", hide_default_value = true)]
    team: String,
    /// The month, such as 2026-11 [default: the current one, in the organization's time zone]
    #[arg(long, value_name = "MONTH", default_value = "", hide_default_value = true)]
    month: String,
    /// Split it up as well
    #[arg(long, value_enum)]
    by: Option<By>,
}

/// How to split spend up.
#[derive(Clone, Copy, ValueEnum)]
enum By {
    Model,
    Key,
    Day,
}

impl Spend {
    pub(super) fn run(self, screen: &mut Screen) -> Result<Exit, Failure> {
        let (team, month) = (self.team, self.month);
        let report = client::block_on(async {
            let mut client = self.connection.open().await?;
            fetch(&mut client, team, month).await
        })?;
        match self.connection.json {
            true => screen.message(&report)?,
            false => {
                print(screen, &report)?;
                if let Some(by) = self.by {
                    print_split(screen, &report, by)?;
                }
            }
        }
        Ok(Exit::Done)
    }
}

/// Every page of the report as one.
pub(super) async fn fetch(
    client: &mut Client,
    team: String,
    month: String,
) -> Result<proto::GetSpendResponse, Failure> {
    let mut request = proto::GetSpendRequest { team, month, page_size: PAGE, page_token: String::new() };
    let mut whole: Option<proto::GetSpendResponse> = None;
    loop {
        let page =
            client.get_spend(request.clone()).await.map_err(|status| client::explain(&status))?.into_inner();
        request.page_token.clone_from(&page.next_page_token);
        match &mut whole {
            None => whole = Some(page),
            Some(whole) => join(whole, page),
        }
        if request.page_token.is_empty() {
            let mut whole = whole.unwrap_or_default();
            whole.next_page_token.clear();
            return Ok(whole);
        }
    }
}

/// Adds the next page. A report with too many lines for one page continues on it under the same name.
fn join(whole: &mut proto::GetSpendResponse, page: proto::GetSpendResponse) {
    let add = |report: &mut proto::SpendReport, rest: proto::SpendReport| {
        report.by_model.extend(rest.by_model);
        report.by_key.extend(rest.by_key);
        report.by_day.extend(rest.by_day);
    };
    match (&mut whole.organization, page.organization) {
        (Some(report), Some(rest)) => add(report, rest),
        (report, rest) => *report = report.take().or(rest),
    }
    for rest in page.teams {
        match whole.teams.last_mut().filter(|report| report.name == rest.name) {
            Some(report) => add(report, rest),
            None => whole.teams.push(rest),
        }
    }
}

/// The table of budgets.
pub(super) fn print(screen: &mut Screen, report: &proto::GetSpendResponse) -> io::Result<()> {
    let colour = screen.colour;
    writeln!(screen, "{}", Style::Bold.paint(&format!("Spend of {}", report.month), colour))?;
    let mut table = Table::new([
        "TEAM",
        ">BUDGET",
        ">SPENT",
        ">RESERVED",
        ">REMAINING",
        ">REQUESTS",
        ">UNSETTLED",
        "USED",
        ">PROJECTED",
        "LASTS UNTIL",
    ]);
    let organization = report.organization.iter().map(|o| (format!("{} (all)", o.name), o));
    for (name, line) in organization.chain(report.teams.iter().map(|team| (team.name.clone(), team))) {
        let spend = line.spend.clone().unwrap_or_default();
        let amounts = [&spend.budget, &spend.spent, &spend.reserved, &spend.remaining];
        let [budget, spent, reserved, remaining] = amounts.map(|amount| text::money(amount.as_ref()));
        let count = |value: i64| text::amount(proto::Quantity::Requests, value);
        let (style, bar) = used(&spend);
        let projected = text::cents(spend.forecast.as_ref().and_then(|forecast| forecast.projected.as_ref()));
        table.row(
            style,
            [
                name,
                budget,
                spent,
                reserved,
                remaining,
                count(line.requests),
                count(line.unsettled_requests),
                bar,
                projected,
                lasts_until(&spend, &report.time_zone),
            ],
        );
    }
    table.write(screen, "", colour)?;
    let spooled = match &report.organization {
        Some(organization) => vec![organization],
        None => report.teams.iter().collect(),
    };
    for line in spooled.into_iter().filter(|line| line.spooled_requests > 0) {
        let count = text::group(line.spooled_requests.unsigned_abs().into());
        let cost = text::money(line.spooled_cost.as_ref());
        let text = format!(
            "{count} reports ({cost}) of {} are in none of these: replicas keep them until the store has taken them",
            line.name
        );
        writeln!(screen, "{}", Style::Yellow.paint(&text, colour))?;
    }
    Ok(())
}

/// When a budget is used up at this pace, in `zone`.
pub(super) fn lasts_until(spend: &proto::Spend, zone: &str) -> String {
    let (Some(_), Some(forecast)) = (&spend.budget, &spend.forecast) else { return "-".to_owned() };
    match &forecast.exhaust_time {
        _ if text::nanos(spend.remaining.as_ref()) <= 0 => "used up".to_owned(),
        Some(at) => text::minute(at, zone),
        None => "the month's end".to_owned(),
    }
}

/// The share of a budget that is spent (`█`) and reserved (`▒`), in percent rounded down.
pub(super) fn used(spend: &proto::Spend) -> (Style, String) {
    let nanos = |money: &Option<_>| u64::try_from(text::nanos(money.as_ref())).unwrap_or(0);
    let (budget, spent, reserved) = (nanos(&spend.budget), nanos(&spend.spent), nanos(&spend.reserved));
    if spend.budget.is_none() {
        return (Style::Plain, "no budget".to_owned());
    }
    let taken = spent.saturating_add(reserved);
    let share = |amount: u64, of: u64| u128::from(amount) * u128::from(of) / u128::from(budget.max(1));
    let cells = |amount| usize::try_from(share(amount, BAR).min(BAR.into())).unwrap_or(0);
    let (solid, shaded, width) = (cells(spent), cells(taken).saturating_sub(cells(spent)), cells(u64::MAX));
    let free = width.saturating_sub(solid + shaded);
    let percent = share(taken, 100);
    let style = match percent {
        0..80 => Style::Plain,
        80..100 => Style::Yellow,
        _ => Style::Red,
    };
    (style, format!("{}{}{} {percent}%", "█".repeat(solid), "▒".repeat(shaded), "·".repeat(free)))
}

fn print_split(screen: &mut Screen, report: &proto::GetSpendResponse, by: By) -> io::Result<()> {
    let heading = match by {
        By::Model => "MODEL",
        By::Key => "KEY",
        By::Day => "DAY",
    };
    let mut table = Table::new(["TEAM", heading, ">SPENT", ">REQUESTS", ">TOKENS"]);
    for part in report.organization.iter().chain(&report.teams) {
        let lines = match by {
            By::Model => &part.by_model,
            By::Key => &part.by_key,
            By::Day => &part.by_day,
        };
        for line in lines {
            let count = |value: i64| text::amount(proto::Quantity::Requests, value);
            let spent = text::money(line.spent.as_ref());
            let cells =
                [part.name.clone(), line.name.clone(), spent, count(line.requests), count(line.tokens)];
            table.row(Style::Plain, cells);
        }
    }
    writeln!(screen)?;
    let colour = screen.colour;
    table.write(screen, "", colour)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rpc::google_type::Money;

    #[test]
    fn bars_show_what_is_spent_and_reserved() {
        let usd = |units| Some(Money { currency_code: "USD".to_owned(), units, nanos: 0 });
        let of = |budget, spent, reserved| {
            used(&proto::Spend {
                budget: usd(budget),
                spent: usd(spent),
                reserved: usd(reserved),
                ..proto::Spend::default()
            })
        };
        assert_eq!(of(100, 50, 25), (Style::Plain, "██████████▒▒▒▒▒····· 75%".to_owned()));
        assert_eq!(of(100, 0, 0), (Style::Plain, "···················· 0%".to_owned()));
        assert_eq!(of(100, 150, 0), (Style::Red, "████████████████████ 150%".to_owned()));
        assert_eq!(used(&proto::Spend::default()).1, "no budget");
    }
}
