//! What the page of a team is made of, asked for at the same time. What the reader may not see of the team is not asked for.

use jiff::{ToSpan as _, Zoned, civil::Date};
use tonic::Status;

use super::{
    breakdown::{self, Breakdown},
    standing::{self, Standing},
};
use crate::{
    console::{alerts, text::money::nanos, view::View},
    domain::rbac::Permission,
    rpc::proto::{
        AlertKind, AlertState, DenialRow, DescribeTeamRequest, DescribeTeamResponse, GetSpendRequest,
        Granularity, KeyState, LimitStatus, ListAlertsRequest, ListKeysRequest, ListLimitsRequest,
        ListPausesRequest, Pause, QueryDenialsRequest, QueryUsageRequest, UsageFilter, UsageRow, VirtualKey,
        alert::Detail,
    },
};

/// The most rows of one answer.
pub(super) const PAGE: i32 = 1_000;
/// The most pages of one list that are read: more would be more than people look at.
const MAX_PAGES: usize = 10;
/// The most alerts of pauses that are looked at.
const MAX_ALERTS: usize = 1_000;
/// The keys that are shown; the page of keys has them all.
const KEYS: i32 = 10;

/// What is asked for: a team in a month, by a reader.
#[derive(Clone, Copy)]
pub(super) struct Question<'v> {
    pub(super) view: &'v View,
    pub(super) team: &'v str,
    /// The first day of the month.
    pub(super) first: Date,
    /// The day after the last of it.
    pub(super) end: Date,
}

/// What the page shows.
pub(super) struct Gathered {
    /// What the reader sees with the permission to read spend.
    pub(super) spend: Option<Spend>,
    /// `None`: the reader may not see keys.
    pub(super) keys: Option<Keys>,
    /// What the policy says of the team; `None`: the reader may not see it.
    pub(super) words: Option<DescribeTeamResponse>,
    /// What covers requests of the team, as far as the reader may see it.
    pub(super) pauses: Vec<Pause>,
}

/// What a team spent, and what it was refused.
pub(super) struct Spend {
    /// Its budgets: the month's first, then the week's and the day's.
    pub(super) budgets: Vec<Standing>,
    /// What each day cost: of the month, and of the week that it is.
    pub(super) days: Vec<UsageRow>,
    /// What each hour of today cost, if there is a budget of the day.
    pub(super) hours: Vec<UsageRow>,
    pub(super) breakdowns: Vec<Breakdown>,
    /// Requests that were refused, by day and reason.
    pub(super) refused: Vec<DenialRow>,
    /// The limits as they stand; none for a month that is over.
    pub(super) limits: Vec<LimitStatus>,
    /// Reports that replicas have acknowledged and not booked yet, and what they cost; none on the page of a month that is over.
    pub(super) spooled: (i64, i128),
}

/// Keys that can be used.
pub(super) struct Keys {
    /// The first of them, by name.
    pub(super) shown: Vec<VirtualKey>,
    pub(super) has_more: bool,
}

impl Question<'_> {
    pub(super) fn today(&self) -> Date {
        self.view.now().date()
    }

    /// Whether the month is the present one.
    pub(super) fn is_present(&self) -> bool {
        (self.first..self.end).contains(&self.today())
    }

    /// The days of the month that have begun: the first, and the one after the last.
    pub(super) fn days(&self) -> (Date, Date) {
        (self.first, self.end.min(self.today().saturating_add(1.day())))
    }

    /// Where a day begins, in the organization's zone.
    pub(super) fn begin(&self, date: Date) -> Zoned {
        date.to_zoned(self.view.zone().clone()).unwrap_or_else(|_| self.view.now().clone())
    }

    fn may(&self, permission: Permission) -> bool {
        self.view.may_for(permission, self.team)
    }
}

/// Asks for all of it. `opened` is the breakdown that is shown in full.
pub(super) async fn gather(question: Question<'_>, opened: &str) -> Result<Gathered, Status> {
    let (spend, keys, words, pauses) =
        tokio::try_join!(spend(question, opened), keys(question), words(question), async {
            Ok(pauses(question).await)
        },)?;
    Ok(Gathered { spend, keys, words, pauses })
}

async fn spend(question: Question<'_>, opened: &str) -> Result<Option<Spend>, Status> {
    if !question.may(Permission::ReadSpend) {
        return Ok(None);
    }
    let (budgets, breakdowns, refused, limits, spooled) = tokio::try_join!(
        standing::budgets(question),
        breakdown::all(question, opened),
        refused(question),
        limits(question),
        spooled(question),
    )?;
    let (first, end) = question.days();
    // The week may have begun in the month before.
    let monday = budgets.iter().map(|budget| budget.start.date()).min().unwrap_or(first);
    let has_day = budgets.iter().any(Standing::is_of_day);
    let (today, tomorrow) = (question.today(), question.today().saturating_add(1.day()));
    let (days, hours) =
        tokio::try_join!(usage(question, (first.min(monday), end), Granularity::Day), async {
            match has_day {
                true => usage(question, (today, tomorrow), Granularity::Hour).await,
                false => Ok(Vec::new()),
            }
        },)?;
    Ok(Some(Spend { budgets, days, hours, breakdowns, refused, limits, spooled }))
}

/// What waits to be booked.
async fn spooled(question: Question<'_>) -> Result<(i64, i128), Status> {
    if !question.is_present() {
        return Ok((0, 0));
    }
    let request = GetSpendRequest { team: question.team.to_owned(), page_size: 1, ..Default::default() };
    let answer = question.view.api().policy().get_spend(request).await?.into_inner();
    let first = answer.teams.first();
    Ok(first.map(|team| (team.spooled_requests, nanos(team.spooled_cost.as_ref()))).unwrap_or_default())
}

/// What each period of an interval cost.
async fn usage(
    question: Question<'_>,
    (start, end): (Date, Date),
    granularity: Granularity,
) -> Result<Vec<UsageRow>, Status> {
    let request = QueryUsageRequest {
        start_date: start.to_string(),
        end_date: end.to_string(),
        granularity: granularity.into(),
        filter: Some(of_team(question.team)),
        page_size: PAGE,
        ..Default::default()
    };
    // A month has fewer days than a page has rows.
    Ok(question.view.api().reports().query_usage(request).await?.into_inner().rows)
}

/// Usage of one team.
pub(super) fn of_team(team: &str) -> UsageFilter {
    UsageFilter { teams: vec![team.to_owned()], ..Default::default() }
}

async fn refused(question: Question<'_>) -> Result<Vec<DenialRow>, Status> {
    let (start, end) = question.days();
    let mut request = QueryDenialsRequest {
        start_date: start.to_string(),
        end_date: end.to_string(),
        granularity: Granularity::Day.into(),
        group_by: vec!["reason".to_owned()],
        filter: Some(of_team(question.team)),
        page_size: PAGE,
        ..Default::default()
    };
    let mut found = Vec::new();
    for _ in 0..MAX_PAGES {
        let page = question.view.api().reports().query_denials(request.clone()).await?.into_inner();
        found.extend(page.rows);
        if page.next_page_token.is_empty() {
            break;
        }
        request.page_token = page.next_page_token;
    }
    Ok(found)
}

async fn limits(question: Question<'_>) -> Result<Vec<LimitStatus>, Status> {
    let mut request =
        ListLimitsRequest { team: question.team.to_owned(), page_size: PAGE, ..Default::default() };
    let mut found = Vec::new();
    for _ in 0..if question.is_present() { MAX_PAGES } else { 0 } {
        let page = question.view.api().reports().list_limits(request.clone()).await?.into_inner();
        found.extend(page.limits);
        if page.next_page_token.is_empty() {
            break;
        }
        request.page_token = page.next_page_token;
    }
    Ok(found)
}

async fn keys(question: Question<'_>) -> Result<Option<Keys>, Status> {
    if !question.may(Permission::ReadKeys) {
        return Ok(None);
    }
    let request = ListKeysRequest {
        team: question.team.to_owned(),
        states: vec![KeyState::Active.into()],
        page_size: KEYS,
        ..Default::default()
    };
    let page = question.view.api().keys().list_keys(request).await?.into_inner();
    Ok(Some(Keys { shown: page.keys, has_more: !page.next_page_token.is_empty() }))
}

async fn words(question: Question<'_>) -> Result<Option<DescribeTeamResponse>, Status> {
    if !question.may(Permission::ReadTeamPolicy) {
        return Ok(None);
    }
    let request = DescribeTeamRequest { team: question.team.to_owned() };
    let answer = question.view.api().policy_document().describe_team(request).await?;
    Ok(Some(answer.into_inner()))
}

/// The pauses that cover requests of the team. The page is of use without them, so it comes if they cannot be read.
async fn pauses(question: Question<'_>) -> Vec<Pause> {
    let Question { view, team, .. } = question;
    if view.may(Permission::ReadPauses) {
        let request = ListPausesRequest { team: team.to_owned(), page_size: PAGE, ..Default::default() };
        let answer = view.api().pauses().list_pauses(request).await;
        return answer.map(|answer| answer.into_inner().pauses).unwrap_or_default();
    }
    if !question.may(Permission::ReadAlerts) {
        return Vec::new();
    }
    // Readers of some teams may not list pauses, and are told of those of their teams by alerts.
    let request = ListAlertsRequest {
        teams: vec![team.to_owned()],
        kinds: vec![AlertKind::Pause.into()],
        states: vec![AlertState::Open.into()],
        ..Default::default()
    };
    let (alerts, _) = alerts::list(view, request, MAX_ALERTS).await.unwrap_or_default();
    let pauses = alerts.into_iter().filter_map(|alert| match alert.detail {
        Some(Detail::Pause(pause)) => Some(pause),
        _ => None,
    });
    pauses.collect()
}
