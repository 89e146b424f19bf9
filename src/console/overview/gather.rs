//! What the overview is made of, asked for at the same time.

use std::{collections::HashMap, iter};

use jiff::{ToSpan as _, Zoned, civil::Date};
use tonic::Status;

use crate::{
    console::{alerts, team::Then, text::money::nanos, view::View},
    domain::rbac::Permission,
    rpc::proto::{
        Alert, AlertKind, AlertState, Budget, Cooldown, DenialRow, GetSpendRequest, GetSpendResponse,
        GetStatusRequest, Granularity, ListAlertsRequest, ListBudgetsRequest, ListCooldownsRequest,
        ListPausesRequest, ListReplicasRequest, ListUpstreamKeysRequest, Pause, Period, QueryDenialsRequest,
        QueryUsageRequest, QueryUsageResponse, Replica, UpstreamKey, UsageAmounts, UsageRow,
    },
};

/// The most rows of one answer.
const PAGE: i32 = 1_000;
/// The most pages of one list that a page of the console reads: more would be more than people look at.
const MAX_PAGES: usize = 50;
/// The most alerts that are looked at.
const MAX_ALERTS: usize = 100;

/// The kinds of alerts that tell of what the page does not show by itself.
pub(super) const TOLD: [AlertKind; 5] = [
    AlertKind::UnsettledHigh,
    AlertKind::UsageDrift,
    AlertKind::UnreservedRefused,
    AlertKind::SpoolBacklog,
    AlertKind::LayoutMismatch,
];

/// What the page shows. Of what its reader may not see, there is nothing.
pub(super) struct Gathered {
    /// The first day of the month.
    pub(super) first: Date,
    /// The day after the last of it.
    pub(super) end: Date,
    /// Whether it is the present month.
    pub(super) present: bool,
    /// The month's budgets: the organization's first, under an empty name.
    pub(super) budgets: Vec<Budgeted>,
    /// What each day cost, by model.
    pub(super) days: Vec<UsageRow>,
    /// What the month cost, by team.
    pub(super) by_team: HashMap<String, UsageAmounts>,
    /// What today cost, by team.
    pub(super) today: HashMap<String, UsageAmounts>,
    /// Requests that were refused today, by team.
    pub(super) refused: HashMap<String, i64>,
    /// Reservations of the organization that are not settled.
    pub(super) unsettled: Option<i64>,
    pub(super) now: Now,
}

/// A budget of the month.
pub(super) struct Budgeted {
    /// The team; empty: the organization.
    pub(super) team: String,
    pub(super) limit: i128,
    pub(super) spent: i128,
    pub(super) reserved: i128,
    /// What will have been spent at the end of the month, if nothing holds it back.
    pub(super) projected: Option<i128>,
    /// When it is used up, within the month.
    pub(super) ends: Option<Zoned>,
    /// What becomes of requests that it cannot pay for; `None`: the month is over.
    pub(super) then: Option<Then>,
}

impl Budgeted {
    /// Whether it refuses requests.
    pub(super) fn refuses(&self) -> bool {
        self.then.is_some_and(Then::refuses)
    }
}

/// What became of one question.
#[derive(Default)]
pub(super) enum Part<T> {
    /// It was not asked, as the reader may not know.
    #[default]
    Unasked,
    /// It was not answered.
    Failed,
    Read(T),
}

impl<T> Part<T> {
    /// The answer, if there is one.
    pub(super) const fn read(&self) -> Option<&T> {
        match self {
            Self::Read(answer) => Some(answer),
            Self::Unasked | Self::Failed => None,
        }
    }

    pub(super) const fn has_failed(&self) -> bool {
        matches!(self, Self::Failed)
    }

    fn map<U>(self, of: impl FnOnce(T) -> U) -> Part<U> {
        match self {
            Self::Read(answer) => Part::Read(of(answer)),
            Self::Unasked => Part::Unasked,
            Self::Failed => Part::Failed,
        }
    }
}

impl<T> Part<Vec<T>> {
    /// What was read.
    pub(super) fn rows(&self) -> &[T] {
        self.read().map(Vec::as_slice).unwrap_or_default()
    }
}

/// What holds at the moment.
#[derive(Default)]
pub(super) struct Now {
    /// Those of the kinds of [`TOLD`].
    pub(super) alerts: Part<Vec<Alert>>,
    pub(super) cooldowns: Part<Vec<Cooldown>>,
    pub(super) upstream_keys: Part<Vec<UpstreamKey>>,
    pub(super) pauses: Part<Vec<Pause>>,
    pub(super) replicas: Part<Vec<Replica>>,
    pub(super) status: Part<Option<crate::rpc::proto::Status>>,
}

/// Asks for all of it, of the month that begins with `first`.
pub(super) async fn gather(view: &View, first: Date) -> Result<Gathered, Status> {
    let today = view.now().date();
    let end = first.saturating_add(1.month());
    let present = (first..end).contains(&today);
    let tomorrow = today.saturating_add(1.day());
    let may_read = view.may(Permission::ReadSpend);
    let (of_teams, days, unsettled, now) = tokio::try_join!(
        teams(view, first),
        usage(view, may_read, (first, end.min(tomorrow)), Granularity::Day, "model"),
        unsettled(view, present && view.may_for_all(Permission::ReadSpend)),
        async { Ok(now(view).await) },
    )?;
    Ok(Gathered { days, unsettled, now, ..of_teams })
}

/// Asks for what is shown of teams, and nothing else.
pub(super) async fn teams(view: &View, first: Date) -> Result<Gathered, Status> {
    let today = view.now().date();
    let end = first.saturating_add(1.month());
    let present = (first..end).contains(&today);
    let tomorrow = today.saturating_add(1.day());
    let may_read = view.may(Permission::ReadSpend);
    // What a budget of the month says of its team need not be added up.
    let is_told = present && has_budgets(view);
    let (budgets, by_team, today, refused) = tokio::try_join!(
        budgets(view, first, present && may_read, may_read),
        usage(view, may_read && !is_told, (first, end.min(tomorrow)), Granularity::Total, "team"),
        usage(view, may_read && present, (today, tomorrow), Granularity::Total, "team"),
        denials(view, may_read && present, (today, tomorrow)),
    )?;
    let by_name = |rows: Vec<UsageRow>| {
        let named = rows.into_iter().filter_map(|row| Some((row.dimensions?.team, row.amounts?)));
        named.collect::<HashMap<_, _>>()
    };
    let refused = refused.into_iter().filter_map(|row| Some((row.dimensions?.team, row.request_count)));
    Ok(Gathered {
        first,
        end,
        present,
        budgets,
        days: Vec::new(),
        by_team: by_name(by_team),
        today: by_name(today),
        refused: refused.collect(),
        unsettled: None,
        now: Now::default(),
    })
}

/// Whether the organization and all teams have a budget of the month, and the reader may see it.
fn has_budgets(view: &View) -> bool {
    let policy = &view.snapshot().policy;
    let mut limits =
        iter::once(&policy.organization.limits).chain(policy.teams.values().map(|team| &team.limits));
    view.may_for_all(Permission::ReadSpend) && limits.all(|limits| limits.month.bound.is_some())
}

/// The budgets of a month: of the present one with their forecasts, of an earlier one as they were kept.
async fn budgets(view: &View, first: Date, present: bool, may_read: bool) -> Result<Vec<Budgeted>, Status> {
    match (may_read, present) {
        (false, _) => Ok(Vec::new()),
        (true, true) => present_budgets(view).await,
        (true, false) => past_budgets(view, first.strftime("%Y-%m").to_string()).await,
    }
}

async fn present_budgets(view: &View) -> Result<Vec<Budgeted>, Status> {
    let mut request = ListBudgetsRequest { page_size: PAGE, ..Default::default() };
    let mut found = Vec::new();
    for _ in 0..MAX_PAGES {
        let page = view.api().budgets().list_budgets(request.clone()).await?.into_inner();
        // Those of keys come last, and there may be thousands.
        let is_over = page.budgets.last().is_some_and(|last| !last.key.is_empty());
        let monthly = page.budgets.into_iter().filter(|budget| {
            budget.period() == Period::Month && budget.key.is_empty() && budget.user.is_empty()
        });
        found.extend(monthly.map(|budget| budgeted(view, budget)));
        if is_over || page.next_page_token.is_empty() {
            break;
        }
        request.page_token = page.next_page_token;
    }
    Ok(found)
}

fn budgeted(view: &View, budget: Budget) -> Budgeted {
    let then = Then::of(&budget);
    let spend = budget.spend.unwrap_or_default();
    let forecast = spend.forecast.unwrap_or_default();
    let ends = forecast.exhaust_time.and_then(|at| crate::console::text::time::zoned(&at, view.now()));
    Budgeted {
        team: budget.team,
        limit: nanos(spend.budget.as_ref()),
        spent: nanos(spend.spent.as_ref()),
        reserved: nanos(spend.reserved.as_ref()),
        projected: forecast.projected.as_ref().map(|projected| nanos(Some(projected))),
        ends,
        then: Some(then),
    }
}

async fn past_budgets(view: &View, month: String) -> Result<Vec<Budgeted>, Status> {
    let mut request = GetSpendRequest { month, page_size: 200, ..Default::default() };
    let mut found = Vec::new();
    for _ in 0..MAX_PAGES {
        let GetSpendResponse { organization, teams, next_page_token, .. } =
            view.api().policy().get_spend(request.clone()).await?.into_inner();
        let organization = organization.map(|report| (String::new(), report));
        let reports = organization.into_iter().chain(teams.into_iter().map(|team| (team.name.clone(), team)));
        found.extend(reports.filter_map(|(team, report)| {
            let spend = report.spend?;
            Some(Budgeted {
                team,
                limit: nanos(Some(&spend.budget?)),
                spent: nanos(spend.spent.as_ref()),
                reserved: nanos(spend.reserved.as_ref()),
                projected: None,
                ends: None,
                then: None,
            })
        }));
        if next_page_token.is_empty() {
            break;
        }
        request.page_token = next_page_token;
    }
    Ok(found)
}

/// What days cost, in an order that puts the most expensive first.
async fn usage(
    view: &View,
    may: bool,
    (start, end): (Date, Date),
    granularity: Granularity,
    by: &str,
) -> Result<Vec<UsageRow>, Status> {
    let mut request = QueryUsageRequest {
        start_date: start.to_string(),
        end_date: end.to_string(),
        granularity: granularity.into(),
        group_by: vec![by.to_owned()],
        page_size: PAGE,
        ..Default::default()
    };
    let mut found = Vec::new();
    for _ in 0..if may { MAX_PAGES } else { 0 } {
        let QueryUsageResponse { rows, next_page_token, .. } =
            view.api().reports().query_usage(request.clone()).await?.into_inner();
        found.extend(rows);
        if next_page_token.is_empty() {
            break;
        }
        request.page_token = next_page_token;
    }
    Ok(found)
}

async fn denials(view: &View, may: bool, (start, end): (Date, Date)) -> Result<Vec<DenialRow>, Status> {
    let mut request = QueryDenialsRequest {
        start_date: start.to_string(),
        end_date: end.to_string(),
        group_by: vec!["team".to_owned()],
        page_size: PAGE,
        ..Default::default()
    };
    let mut found = Vec::new();
    for _ in 0..if may { MAX_PAGES } else { 0 } {
        let page = view.api().reports().query_denials(request.clone()).await?.into_inner();
        found.extend(page.rows);
        if page.next_page_token.is_empty() {
            break;
        }
        request.page_token = page.next_page_token;
    }
    Ok(found)
}

async fn unsettled(view: &View, may: bool) -> Result<Option<i64>, Status> {
    if !may {
        return Ok(None);
    }
    let request = GetSpendRequest { page_size: 1, ..Default::default() };
    let report = view.api().policy().get_spend(request).await?.into_inner();
    Ok(report.organization.map(|organization| organization.unsettled_requests))
}

/// What holds at the moment, as far as the reader may see it and it can be read: the page is of use without it.
async fn now(view: &View) -> Now {
    let may = |permission| view.may(permission);
    let (mut upstream, mut pauses, mut status) =
        (view.api().upstream(), view.api().pauses(), view.api().status());
    let (mut cooling, mut replicas) = (upstream.clone(), status.clone());
    let (alerts, cooldowns, upstream_keys, pauses, status, replicas) = tokio::join!(
        if_may(may(Permission::ReadAlerts), open(view)),
        if_may(may(Permission::ReadUpstream), cooling.list_cooldowns(ListCooldownsRequest::default())),
        if_may(may(Permission::ReadUpstream), upstream.list_upstream_keys(ListUpstreamKeysRequest {})),
        if_may(may(Permission::ReadPauses), pauses.list_pauses(ListPausesRequest::default())),
        if_may(may(Permission::ReadStatus), status.get_status(GetStatusRequest {})),
        if_may(may(Permission::ReadStatus), replicas.list_replicas(ListReplicasRequest::default())),
    );
    Now {
        alerts,
        cooldowns: cooldowns.map(|found| found.into_inner().cooldowns),
        upstream_keys: upstream_keys.map(|found| found.into_inner().upstream_keys),
        pauses: pauses.map(|found| found.into_inner().pauses),
        replicas: replicas.map(|found| found.into_inner().replicas),
        status: status.map(|found| found.into_inner().status),
    }
}

/// The open alerts of what the page does not show by itself.
async fn open(view: &View) -> Result<Vec<Alert>, Status> {
    let request = ListAlertsRequest {
        kinds: TOLD.map(i32::from).to_vec(),
        states: vec![AlertState::Open.into()],
        ..Default::default()
    };
    let (found, next) = alerts::list(view, request, MAX_ALERTS).await?;
    // Without any, as many answers as are waited for do not show that there is none.
    match found.is_empty() && !next.is_empty() {
        true => Err(Status::deadline_exceeded("open alerts are further back than is looked")),
        false => Ok(found),
    }
}

async fn if_may<T>(may: bool, call: impl Future<Output = Result<T, Status>>) -> Part<T> {
    match may {
        true => call.await.map_or(Part::Failed, Part::Read),
        false => Part::Unasked,
    }
}
