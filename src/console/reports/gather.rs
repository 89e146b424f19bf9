//! What a report is made of, asked for at the same time.

use std::{collections::HashMap, iter};

use jiff::civil::Date;
use tonic::{Code, Response, Status};

use super::{
    asked::{Asked, Wrong},
    period::Period,
};
use crate::{
    console::view::View,
    report_text::{Interval, day_text, nanos, value},
    rpc::proto::{
        DenialRow, GetSpendRequest, Granularity, QueryDenialsRequest, QueryUsageRequest, QueryUsageResponse,
        Spend, UsageAmounts, UsageFilter, UsageRow,
    },
};

/// Rows of the report on one page.
const ROWS: i32 = 50;
/// The most rows of one answer.
const PAGE: i32 = 1_000;
/// The most pages of one list that a report reads.
const MAX_PAGES: usize = 20;
/// Up to so many teams, the budgets of all are asked for at once.
const FEW_TEAMS: usize = 100;
/// Up to so many days, spend is drawn by day; beyond, by month.
const MAX_DAYS: i64 = 62;

/// What the page shows.
pub(super) struct Gathered {
    pub(super) by: Vec<String>,
    /// One page of rows, with the sum of all.
    pub(super) usage: QueryUsageResponse,
    /// What it is compared with; `None`: it is not kept any more.
    pub(super) before: Option<Before>,
    /// What each team cost now and before, the most expensive first.
    pub(super) teams: Vec<(String, i128, i128)>,
    /// What each day or month cost, by model.
    pub(super) columns: Vec<UsageRow>,
    /// Whether those are days.
    pub(super) by_day: bool,
    /// Refused requests by reason and team; `None`: they are not kept by what is asked for.
    pub(super) denials: Option<Vec<DenialRow>>,
    /// What teams spent of their budgets in the month of the last day that has begun; the organization's has an empty name.
    pub(super) budgets: HashMap<String, Spend>,
}

/// What rows cost, by their values.
type Costs = HashMap<Vec<String>, i128>;

/// What cost how much in the period before.
pub(super) struct Before {
    pub(super) total: UsageAmounts,
    rows: Costs,
    /// Whether all rows could be read.
    whole: bool,
}

impl Before {
    /// What the row with these values cost; `None`: it is not known.
    pub(super) fn of(&self, values: &[String]) -> Option<i128> {
        self.rows.get(values).copied().or(self.whole.then_some(0))
    }
}

impl Gathered {
    /// Whether rows are teams, which have budgets and denials.
    pub(super) fn is_by_team(&self) -> bool {
        self.by == ["team"]
    }
}

/// Why a report cannot be shown.
pub(super) enum Refused {
    /// What is asked for cannot be.
    Wrong(Wrong),
    /// A service refused or did not answer.
    Status(Status),
}

impl From<Wrong> for Refused {
    fn from(wrong: Wrong) -> Self {
        Self::Wrong(wrong)
    }
}

impl From<Status> for Refused {
    fn from(status: Status) -> Self {
        match status.code() {
            Code::InvalidArgument => Self::Wrong(Wrong::new("by", status.message())),
            // Usage of days that long ago is not kept.
            Code::FailedPrecondition => Self::Wrong(Wrong::new("from", status.message())),
            _ => Self::Status(status),
        }
    }
}

/// Asks for all of it.
pub(super) async fn gather(view: &View, asked: &Asked, period: &Period) -> Result<Gathered, Refused> {
    let request = asked.request(period.interval)?;
    let by = request.group_by.clone();
    let page_token = asked.text("after").to_owned();
    let page = QueryUsageRequest { page_size: ROWS, page_token, ..request.clone() };
    let usage = view.api().reports().query_usage(page).await?.into_inner();
    let by_day = period.days() <= MAX_DAYS;
    let granularity = if by_day { Granularity::Day } else { Granularity::Month };
    let by_team = QueryUsageRequest { group_by: vec!["team".to_owned()], ..request.clone() };
    let of_columns = QueryUsageRequest {
        granularity: granularity.into(),
        group_by: vec!["model".to_owned()],
        order_by: String::new(),
        ..request.clone()
    };
    let is_by_team = by == ["team"];
    // The page that is shown is the first of these then, and its answer has the others as well.
    let known = (is_by_team && asked.text("after").is_empty()).then(|| usage.clone());
    let (rows_before, teams, teams_before, columns, denials, budgets) = tokio::try_join!(
        rows_before(view, &request, &usage, period.before()),
        all(view, by_team.clone(), known),
        async { kept(all(view, about(by_team, period.before()), None).await) },
        all(view, of_columns, None),
        denials(view, asked, &request),
        budgets(view, &usage.rows, period.month().filter(|_| is_by_team)),
    )?;
    let of_before = teams_before.as_ref().map(|teams| teams.rows.as_slice()).unwrap_or_default();
    let teams = moved(&teams.rows, of_before);
    // Every grouping has the same sum.
    let total = teams_before.map(|teams| teams.total);
    let before = rows_before.zip(total).map(|((rows, whole), total)| Before { total, rows, whole });
    Ok(Gathered { by, usage, before, teams, columns: columns.rows, by_day, denials, budgets })
}

/// The rows of an answer, as far as [`MAX_PAGES`] have them.
struct All {
    rows: Vec<UsageRow>,
    /// Of all rows, whether they are here or not.
    total: UsageAmounts,
    /// Whether all are here.
    whole: bool,
}

/// Every row. `first` is the first page, where it is known.
async fn all(
    view: &View,
    request: QueryUsageRequest,
    first: Option<QueryUsageResponse>,
) -> Result<All, Status> {
    let mut request = QueryUsageRequest { page_size: PAGE, ..request };
    let (mut found, mut next) =
        (All { rows: Vec::new(), total: UsageAmounts::default(), whole: false }, first);
    for _ in 0..MAX_PAGES {
        let page = match next.take() {
            Some(page) => page,
            None => view.api().reports().query_usage(request.clone()).await?.into_inner(),
        };
        found.rows.extend(page.rows);
        found.total = page.total.unwrap_or_default();
        found.whole = page.next_page_token.is_empty();
        if found.whole {
            break;
        }
        request.page_token = page.next_page_token;
    }
    Ok(found)
}

/// The same request about other days.
fn about(request: QueryUsageRequest, days: Interval) -> QueryUsageRequest {
    QueryUsageRequest { start_date: day_text(days.first), end_date: day_text(days.end), ..request }
}

/// `None` in place of days that are not kept any more.
fn kept<T>(answer: Result<T, Status>) -> Result<Option<T>, Status> {
    match answer {
        Err(status) if status.code() == Code::FailedPrecondition => Ok(None),
        answer => answer.map(Some),
    }
}

/// What each of the rows that are shown cost on `days`, and whether those are all of them; `None`: it is not kept any more.
async fn rows_before(
    view: &View,
    request: &QueryUsageRequest,
    usage: &QueryUsageResponse,
    days: Interval,
) -> Result<Option<(Costs, bool)>, Status> {
    let filter = Some(narrowed(request, &usage.rows));
    let shown = about(QueryUsageRequest { filter, order_by: String::new(), ..request.clone() }, days);
    let Some(All { rows, whole, .. }) = kept(all(view, shown, None).await)? else { return Ok(None) };
    let of_row = |row: UsageRow| {
        let dimensions = row.dimensions.unwrap_or_default();
        let values = request.group_by.iter().map(|path| value(&dimensions, path)).collect();
        (values, row.amounts.map_or(0, |amounts| nanos(amounts.cost.as_ref())))
    };
    Ok(Some((rows.into_iter().map(of_row).collect(), whole)))
}

/// The filter of `request`, and of what rows are by only the values that are shown.
fn narrowed(request: &QueryUsageRequest, rows: &[UsageRow]) -> UsageFilter {
    let mut filter = request.filter.clone().unwrap_or_default();
    let dimensions = || rows.iter().filter_map(|row| row.dimensions.as_ref());
    for path in &request.group_by {
        let list = match path.as_str() {
            "team" => &mut filter.teams,
            "key" => &mut filter.keys,
            "user" => &mut filter.users,
            "model" => &mut filter.models,
            "project" => &mut filter.projects,
            // Of the others there are few values, or one filter has one of them.
            _ => continue,
        };
        *list = dimensions().map(|of| value(of, path)).collect();
        list.sort_unstable();
        list.dedup();
    }
    filter
}

/// Each team with its cost now and before, the most expensive first.
fn moved(now: &[UsageRow], before: &[UsageRow]) -> Vec<(String, i128, i128)> {
    let mut teams: HashMap<&str, (i128, i128)> = HashMap::new();
    let costs = |row| {
        let row: &UsageRow = row;
        Some((row.dimensions.as_ref()?.team.as_str(), nanos(row.amounts.as_ref()?.cost.as_ref())))
    };
    for (team, cost) in now.iter().filter_map(costs) {
        teams.entry(team).or_default().0 += cost;
    }
    for (team, cost) in before.iter().filter_map(costs) {
        teams.entry(team).or_default().1 += cost;
    }
    let mut teams: Vec<_> =
        teams.into_iter().map(|(team, (now, before))| (team.to_owned(), now, before)).collect();
    teams.sort_by(|(a, now_a, _), (b, now_b, _)| now_b.cmp(now_a).then_with(|| a.cmp(b)));
    teams
}

async fn denials(
    view: &View,
    asked: &Asked,
    request: &QueryUsageRequest,
) -> Result<Option<Vec<DenialRow>>, Status> {
    if asked.is_of_users_or_labels() {
        return Ok(None);
    }
    let mut request = QueryDenialsRequest {
        start_date: request.start_date.clone(),
        end_date: request.end_date.clone(),
        group_by: vec!["reason".to_owned(), "team".to_owned()],
        filter: request.filter.clone(),
        page_size: PAGE,
        ..Default::default()
    };
    let mut rows = Vec::new();
    for _ in 0..MAX_PAGES {
        let page = view.api().reports().query_denials(request.clone()).await?.into_inner();
        rows.extend(page.rows);
        if page.next_page_token.is_empty() {
            break;
        }
        request.page_token = page.next_page_token;
    }
    Ok(Some(rows))
}

/// The budgets of `month`, of the organization and of the teams that are shown.
async fn budgets(
    view: &View,
    shown: &[UsageRow],
    month: Option<Date>,
) -> Result<HashMap<String, Spend>, Status> {
    let mut budgets = HashMap::new();
    let Some(month) = month.map(|month| month.strftime("%Y-%m").to_string()) else { return Ok(budgets) };
    let of = |team: &str, page_size| GetSpendRequest {
        month: month.clone(),
        team: team.to_owned(),
        page_size,
        ..Default::default()
    };
    // Of many teams, only those that are shown are asked for, and of those the ones that there still are.
    let known = &view.snapshot().policy.teams;
    let is_few = known.len() <= FEW_TEAMS;
    let teams = shown.iter().filter_map(|row| Some(row.dimensions.as_ref()?.team.as_str()));
    let each = teams.filter(|team| !is_few && known.contains_key(*team)).map(|team| of(team, 1));
    for mut request in iter::once(of("", if is_few { PAGE } else { 1 })).chain(each) {
        loop {
            let page = kept(view.api().policy().get_spend(request.clone()).await)?;
            let Some(page) = page.map(Response::into_inner) else { return Ok(budgets) };
            let organization = page.organization.map(|report| (String::new(), report));
            let teams = page.teams.into_iter().map(|team| (team.name.clone(), team));
            let reports = organization.into_iter().chain(teams);
            budgets.extend(reports.filter_map(|(team, report)| Some((team, report.spend?))));
            if !is_few || page.next_page_token.is_empty() {
                break;
            }
            request.page_token = page.next_page_token;
        }
    }
    Ok(budgets)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rpc::{google_type::Money, proto::UsageDimensions};

    fn row(team: &str, units: i64) -> UsageRow {
        let dimensions = Some(UsageDimensions { team: team.to_owned(), ..Default::default() });
        let cost = Some(Money { units, ..Default::default() });
        UsageRow {
            dimensions,
            amounts: Some(UsageAmounts { cost, ..Default::default() }),
            ..Default::default()
        }
    }

    #[test]
    fn teams_are_compared_with_before() {
        let dollars = |units: i128| units * 1_000_000_000;
        let teams = moved(&[row("a", 1), row("b", 2)], &[row("b", 3), row("c", 4)]);
        let expected = [("b", 2, 3), ("a", 1, 0), ("c", 0, 4)];
        assert_eq!(
            teams,
            expected.map(|(team, now, before)| (team.to_owned(), dollars(now), dollars(before)))
        );
    }

    #[test]
    fn only_the_rows_that_are_shown_are_looked_up_before() {
        let group_by = vec!["team".to_owned(), "operation".to_owned()];
        let filter = Some(UsageFilter { models: vec!["m".to_owned()], ..Default::default() });
        let request = QueryUsageRequest { group_by, filter, ..Default::default() };
        let filter = narrowed(&request, &[row("b", 1), row("a", 1), row("b", 2)]);
        assert_eq!(
            (&*filter.teams, &*filter.models),
            (&["a".to_owned(), "b".to_owned()][..], &["m".to_owned()][..])
        );
        let before = |whole| Before { total: UsageAmounts::default(), rows: HashMap::new(), whole };
        assert_eq!((before(true).of(&[]), before(false).of(&[])), (Some(0), None));
    }
}
