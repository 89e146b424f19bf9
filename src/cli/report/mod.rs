//! `tollgate report`: what was used, by whatever it is asked by.

mod denials;
mod period;
mod print;

use clap::{Args, ValueEnum};
use tonic::Status;

use self::period::Period;
use super::{
    client::{self, Connection, Line},
    screen::{Exit, Failure, Screen},
    spend,
};
use crate::{
    domain::calendar::{Calendar, parse_time_zone},
    report_text::{Interval, day_text, focus},
    rpc::proto::{
        self, ListBudgetsRequest, QueryUsageRequest, QueryUsageResponse, UsageFilter,
        budget_service_client::BudgetServiceClient, policy_service_client::PolicyServiceClient,
        report_service_client::ReportServiceClient,
    },
};

/// The rows asked for at a time.
const PAGE: i32 = 1_000;

/// Shows what was used, exactly: by team or whatever else, in a week, a month or any days.
#[derive(Args)]
#[command(
    after_help = "Without --by it is by team, with each team's most expensive model and its budget of the current month. Today is that of this machine;
days, weeks from Monday and months are those of the organization's time zone. --focus writes FOCUS 1.2, one row for each day, team, key,
model, project and kind of charge. --denials is by team, reason and limit, if --by does not say otherwise.

Exit codes: 0 shown, 2 failed.

Examples:
  tollgate report --week
  tollgate report --month 2026-11 --by team,model --compare
  tollgate report --from 2026-11-01 --to 2026-11-15 --by labels.cost_center --csv
  tollgate report --month 2026-11 --focus > focus.csv
  tollgate report --week --denials --by team,reason,limit_id"
)]
pub(super) struct Report {
    #[command(flatten)]
    connection: Connection,
    #[command(flatten)]
    period: Period,
    /// What rows are by: team, key, user, model, operation, service_tier, project, labels.NAME; at most 4. With --denials no user and no
    /// label, but reason and limit_id
    #[arg(long, value_name = "DIMENSIONS", value_delimiter = ',')]
    by: Vec<String>,
    /// One row for each
    #[arg(long, value_enum, default_value_t)]
    granularity: Granularity,
    /// Only these teams
    #[arg(long, value_name = "NAME")]
    team: Vec<String>,
    /// Only these virtual keys
    #[arg(long, value_name = "NAME")]
    key: Vec<String>,
    /// Only these models
    #[arg(long, value_name = "NAME")]
    model: Vec<String>,
    /// Only these users
    #[arg(long, value_name = "NAME")]
    user: Vec<String>,
    /// Only what has this label
    #[arg(long, value_name = "NAME=VALUE", value_parser = parse_label)]
    label: Option<(String, String)>,
    /// An amount to order by, such as "amounts.request_count desc" [default: the most expensive first]
    #[arg(long, value_name = "AMOUNT", default_value = "amounts.cost desc", hide_default_value = true)]
    order: String,
    /// Show the change since the period before, of as many days
    #[arg(long, conflicts_with_all = ["granularity", "focus", "csv"])]
    compare: bool,
    /// Show how many requests were refused, and by what: each once, by its first reason. The last seconds may be missing
    #[arg(long, conflicts_with_all = ["compare", "focus", "user", "label", "order"])]
    denials: bool,
    /// Print comma-separated values
    #[arg(long, conflicts_with_all = ["json", "markdown", "focus"])]
    csv: bool,
    /// Print a table in Markdown
    #[arg(long, conflicts_with_all = ["json", "focus"])]
    markdown: bool,
    /// Print FOCUS 1.2 as comma-separated values
    #[arg(long, conflicts_with_all = ["json", "by", "granularity"])]
    focus: bool,
}

/// How long a row is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Granularity {
    /// All of the interval
    #[default]
    Total,
    Hour,
    Day,
    Week,
    Month,
}

impl Granularity {
    const fn wire(self) -> proto::Granularity {
        match self {
            Self::Total => proto::Granularity::Total,
            Self::Hour => proto::Granularity::Hour,
            Self::Day => proto::Granularity::Day,
            Self::Week => proto::Granularity::Week,
            Self::Month => proto::Granularity::Month,
        }
    }
}

fn parse_label(text: &str) -> Result<(String, String), String> {
    let pair = text.split_once('=').filter(|(name, _)| !name.is_empty());
    let (name, value) = pair.ok_or_else(|| format!("`{text}` is not NAME=VALUE, such as cost_center=7"))?;
    Ok((name.to_owned(), value.to_owned()))
}

/// What was answered, and what it is compared with.
struct Answer {
    usage: QueryUsageResponse,
    before: Option<QueryUsageResponse>,
    /// By team: the most expensive model, and the budgets.
    teams: Option<(QueryUsageResponse, proto::GetSpendResponse)>,
    /// For FOCUS: the months.
    months: Vec<proto::UsageRow>,
}

impl Report {
    pub(super) fn run(self, screen: &mut Screen) -> Result<Exit, Failure> {
        let days = self.period.days()?;
        if self.denials {
            return self.run_denials(days, screen);
        }
        let mut by = self.by.clone();
        let is_by_team = by.is_empty() && self.granularity == Granularity::Total && !self.focus;
        if by.is_empty() {
            by = if self.focus {
                focus::DIMENSIONS.map(str::to_owned).to_vec()
            } else {
                vec!["team".to_owned()]
            };
        }
        let granularity = if self.focus { Granularity::Day } else { self.granularity };
        let request = QueryUsageRequest {
            start_date: day_text(days.first),
            end_date: day_text(days.end),
            granularity: granularity.wire().into(),
            group_by: by.clone(),
            filter: Some(self.filter()),
            order_by: if granularity == Granularity::Total { self.order.clone() } else { String::new() },
            page_size: PAGE,
            page_token: String::new(),
        };
        let answer = client::block_on(self.ask(&request, days, is_by_team))?;
        if self.connection.json {
            screen.message(&answer.usage)?;
        } else if self.focus {
            print::focus(screen, &answer.usage.rows, &answer.months)?;
        } else if self.csv {
            print::csv(screen, &by, &answer.usage.rows)?;
        } else {
            let style = if self.markdown { print::Form::Markdown } else { print::Form::Screen };
            let title = format!("Usage from {} to {}", day_text(days.first), day_text(days.last()));
            print::table(screen, (&title, style), (&by, granularity != Granularity::Total), &answer)?;
        }
        Ok(Exit::Done)
    }

    /// Asks for what is shown.
    async fn ask(
        &self,
        request: &QueryUsageRequest,
        days: Interval,
        is_by_team: bool,
    ) -> Result<Answer, Failure> {
        let is_table = !(self.connection.json || self.csv || self.focus);
        let channel = self.connection.channel().await?;
        let mut client = ReportServiceClient::new(channel.clone());
        let usage = fetch(&mut client, request.clone()).await?;
        let before = match self.compare {
            true => {
                let before = days.before();
                let (start_date, end_date) = (day_text(before.first), day_text(before.end));
                let request = QueryUsageRequest { start_date, end_date, ..request.clone() };
                Some(fetch(&mut client, request).await?)
            }
            false => None,
        };
        let teams = match is_table && is_by_team {
            true => {
                let group_by = vec!["team".to_owned(), "model".to_owned()];
                let models = fetch(&mut client, QueryUsageRequest { group_by, ..request.clone() }).await?;
                let mut policy = PolicyServiceClient::new(channel.clone());
                Some((models, spend::fetch(&mut policy, String::new(), String::new()).await?))
            }
            false => None,
        };
        let months = match self.focus {
            true => focus::months(&calendar(channel).await?, days),
            false => Vec::new(),
        };
        Ok(Answer { usage, before, teams, months })
    }

    fn filter(&self) -> UsageFilter {
        UsageFilter {
            teams: self.team.clone(),
            keys: self.key.clone(),
            users: self.user.clone(),
            models: self.model.clone(),
            labels: self.label.clone().into_iter().collect(),
            ..UsageFilter::default()
        }
    }
}

/// The organization's calendar. Its budgets say its time zone, and one of them is enough.
async fn calendar(channel: Line) -> Result<Calendar, Failure> {
    let request = ListBudgetsRequest { page_size: 1, ..ListBudgetsRequest::default() };
    let answer = BudgetServiceClient::new(channel).list_budgets(request).await;
    let zone = answer.map_err(|status| client::explain(&status))?.into_inner().time_zone;
    parse_time_zone(&zone).map(Calendar::new).map_err(|error| Failure::new(error.to_string()))
}

/// Every page as one.
async fn fetch(
    client: &mut ReportServiceClient<Line>,
    request: QueryUsageRequest,
) -> Result<QueryUsageResponse, Failure> {
    fetch_usage(client, request).await.map_err(|status| client::explain(&status))
}

/// Every page as one; an error as the service answers it.
pub(super) async fn fetch_usage(
    client: &mut ReportServiceClient<Line>,
    mut request: QueryUsageRequest,
) -> Result<QueryUsageResponse, Status> {
    let mut whole: Option<QueryUsageResponse> = None;
    loop {
        let mut page = client.query_usage(request.clone()).await?.into_inner();
        request.page_token = std::mem::take(&mut page.next_page_token);
        match &mut whole {
            None => whole = Some(page),
            Some(whole) => whole.rows.extend(page.rows),
        }
        if request.page_token.is_empty() {
            return Ok(whole.unwrap_or_default());
        }
    }
}
