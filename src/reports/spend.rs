//! Spend: budgets as they stand, and the lines behind them by model, key and day.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use thiserror::Error;
use tokio::sync::Semaphore;

use super::days::PastDays;
use crate::{
    domain::{
        budget::BudgetState,
        counter::CounterKey,
        forecast::{DailySpend, Forecast, Outlook, Pace},
        limit::{Limit, Period},
        plan,
        policy::{Policy, team_month_counter},
        rbac::TeamScope,
    },
    live::Live,
    replicas::{self, Spooled},
    spool::Spool,
    store::{Ledger, Replicas, StoreError, Usage, UsageAmounts, UsageKey, each_line},
};

/// A page with more lines than this is larger than an answer may be: no further team is read for it.
const MAX_LINES: usize = 50_000;
/// How long after its beginning a month is kept in full: counters and lines are forgotten 400 days after theirs, by the date
/// in UTC, which may begin a day before the organization's.
pub(super) const MONTH_KEPT_MS: u64 = 399 * 86_400_000;

/// What to report.
#[derive(Clone, Debug, Default)]
pub struct SpendQuery {
    /// One team; empty: the organization and its teams.
    pub team: String,
    /// The month as `202611`; `None`: the current one.
    pub month: Option<u32>,
    /// The most teams.
    pub page_size: usize,
    /// Continue after this team; empty: from the start.
    pub after: String,
    /// Continue within the report of that team, or without one within the organization's.
    pub within: bool,
}

/// A part of the spend.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SpendLine {
    /// What was recorded in nano-USD.
    pub spent: u64,
    /// Requests recorded.
    pub requests: u64,
    /// Tokens recorded.
    pub tokens: u64,
}

impl SpendLine {
    fn add(&mut self, amounts: &UsageAmounts) {
        self.spent = self.spent.saturating_add(amounts.cost_nanos);
        self.requests = self.requests.saturating_add(amounts.requests);
        self.tokens = self.tokens.saturating_add(amounts.input_tokens).saturating_add(amounts.output_tokens);
    }
}

/// The spend of the organization or a team.
#[derive(Clone, Debug, Default)]
pub struct SpendReport {
    /// The team, or the organization's id.
    pub name: Arc<str>,
    /// The month's budget.
    pub budget: BudgetState,
    /// How the month ends at this pace; `None`: it is not the current one, or the days of the one before cannot be read.
    pub forecast: Option<Forecast>,
    /// Everything.
    pub total: SpendLine,
    /// By model.
    pub by_model: BTreeMap<Arc<str>, SpendLine>,
    /// By key.
    pub by_key: BTreeMap<Arc<str>, SpendLine>,
    /// By day, as `20261123`.
    pub by_day: BTreeMap<u32, SpendLine>,
    /// Reports that replicas keep until the store has taken them, and what they cost in nano-dollars. They are in nothing above.
    pub spooled: (u64, u64),
}

/// One page of reports.
#[derive(Clone, Debug)]
pub struct SpendPage {
    /// The month as `202611`.
    pub month: u32,
    /// The organization, on the first page, for callers that may see all of it.
    pub organization: Option<SpendReport>,
    /// The teams, in order.
    pub teams: Vec<SpendReport>,
    /// Continue after this team; `None`: the last page.
    pub next_after: Option<Arc<str>>,
    /// The policy in force.
    pub policy_revision: Arc<str>,
    /// The organization's time zone, by its IANA name.
    pub time_zone: String,
}

/// Why there is no report.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum SpendError {
    /// The store did not answer.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The team is in no policy and has spent nothing.
    #[error("the policy has no team `{0}`")]
    UnknownTeam(String),
    /// The month is too long ago.
    #[error("the spend of {year:04}-{month:02} is no longer kept; that of the current month and the 12 before it is", year = .0 / 100, month = .0 % 100)]
    HistoryNotKept(u32),
    /// A fault of the service; details are in its log.
    #[error("internal error")]
    Internal,
}

/// Reports spend, on one core.
#[derive(Clone, Debug)]
pub struct Spending<S> {
    store: S,
    live: Arc<Live>,
    past: PastDays,
    spool: Option<Spool>,
    /// One report at a time: a large one takes seconds of the core, piece by piece, and decisions come in between.
    turn: Arc<Semaphore>,
}

impl<S: Ledger + Usage + Replicas> Spending<S> {
    /// Reports what is in `store`, with the budgets in force in `live`. What `past` has of months that are over is not read again.
    #[must_use]
    pub fn new(store: S, live: Arc<Live>, past: PastDays) -> Self {
        Self { store, live, past, spool: None, turn: Arc::new(Semaphore::new(1)) }
    }

    /// The same with what this replica keeps in its spool.
    #[must_use]
    pub fn with_spool(self, spool: Option<Spool>) -> Self {
        Self { spool, ..self }
    }

    /// Reports the spend of the teams in `scope`; of the organization only if that is all teams.
    ///
    /// # Errors
    /// For an unknown team, or if the store does not answer.
    pub async fn page(&self, query: &SpendQuery, scope: &TeamScope) -> Result<SpendPage, SpendError> {
        let _turn = self.turn.acquire().await.map_err(|_| SpendError::Internal)?;
        let snapshot = self.live.snapshot();
        let policy = &*snapshot.policy;
        let now = self.store.read_clock().await?;
        let month = query.month.unwrap_or_else(|| policy.calendar.today(now).month_number());
        // Parts of an older month may remain, which would look like all of it.
        let begun = policy.calendar.month_periods(month).map_err(|_| SpendError::Internal)?.start;
        if now.since(begun) >= MONTH_KEPT_MS {
            return Err(SpendError::HistoryNotKept(month));
        }
        let mut names: BTreeSet<Arc<str>> = self.store.spenders(month).await?.into_iter().collect();
        names.extend(policy.teams.keys().cloned());
        names.retain(|name| scope.holds(name));
        let outlook = Outlook::new(&policy.calendar, now);
        let outlook = Some(outlook).filter(|outlook| outlook.today().month_number() == month);
        let time_zone = policy.calendar.zone_name().unwrap_or_default().to_owned();
        // Without what others have said there is still the report.
        let spooled = replicas::spooled(&self.store, self.spool.as_ref(), now).await.unwrap_or_default();
        let of_month = OfMonth { policy, month, outlook, spooled };
        if !query.team.is_empty() {
            let name = names
                .get(query.team.as_str())
                .ok_or_else(|| SpendError::UnknownTeam(query.team.clone()))?
                .clone();
            let teams = vec![self.team_report(&of_month, name).await?];
            return Ok(SpendPage {
                month,
                organization: None,
                teams,
                next_after: None,
                policy_revision: Arc::clone(&snapshot.revision),
                time_zone,
            });
        }
        let is_left = |name: &Arc<str>| **name > *query.after || query.within && **name == *query.after;
        let mut rest = names.into_iter().filter(is_left).peekable();
        let organization = match query.after.is_empty() && *scope == TeamScope::All {
            true => Some(self.organization_report(&of_month).await?),
            false => None,
        };
        let (mut teams, mut lines) = (Vec::new(), 0);
        while teams.len() < query.page_size.max(1)
            && lines < MAX_LINES
            && let Some(name) = rest.next()
        {
            let report = self.team_report(&of_month, name).await?;
            lines += report.by_model.len() + report.by_key.len() + report.by_day.len();
            teams.push(report);
        }
        let next_after = teams.last().filter(|_| rest.peek().is_some()).map(|report| report.name.clone());
        Ok(SpendPage {
            month,
            organization,
            teams,
            next_after,
            policy_revision: Arc::clone(&snapshot.revision),
            time_zone,
        })
    }

    async fn organization_report(&self, of_month: &OfMonth<'_>) -> Result<SpendReport, SpendError> {
        let organization = &of_month.policy.organization;
        let limit = &organization.limits.month;
        let report = self.report(of_month, (&limit.counter, Some(limit)), Arc::from("")).await?;
        Ok(SpendReport { name: organization.id.clone(), spooled: of_month.spooled.all, ..report })
    }

    async fn team_report(&self, of_month: &OfMonth<'_>, name: Arc<str>) -> Result<SpendReport, SpendError> {
        let limit = of_month.policy.teams.get(&name).map(|team| &*team.limits.month);
        let spooled = of_month.spooled.teams.get(&*name).copied().unwrap_or_default();
        let report = self.report(of_month, (&team_month_counter(&name), limit), name).await?;
        Ok(SpendReport { spooled, ..report })
    }

    async fn report(
        &self,
        of_month: &OfMonth<'_>,
        (counter, limit): (&CounterKey, Option<&Limit>),
        team: Arc<str>,
    ) -> Result<SpendReport, SpendError> {
        let counter = counter.in_period(of_month.month * 100 + 1);
        let states = self.store.counters(vec![(counter, plan::BUDGET_KIND)]).await?;
        let lines = self.store.spend(of_month.month, team.clone()).await?;
        let mut report = SpendReport {
            name: team,
            budget: BudgetState::of(limit, states.first().copied().unwrap_or_default()),
            ..SpendReport::default()
        };
        each_line(lines, |key, amounts| report.add(&key, amounts)).await;
        if let Some(outlook) = &of_month.outlook {
            // Without the days of the month before there is still the report.
            report.forecast = self.forecast(outlook, &report).await.ok();
        }
        Ok(report)
    }

    /// How the month of `report` ends. Its own days were just read; those of the month before are read once an hour.
    async fn forecast(&self, outlook: &Outlook, report: &SpendReport) -> Result<Forecast, StoreError> {
        let mut days: DailySpend = report.by_day.iter().map(|(day, line)| (*day, line.spent)).collect();
        if let Some(before) = outlook.month_before() {
            let before = self.past.of(&self.store, before, &report.name).await?;
            days.extend(before.all.iter().map(|(day, spent)| (*day, *spent)));
        }
        let pace = Pace::of(outlook, &days, report.budget.budget);
        Ok(Forecast::of(outlook, &pace, &report.budget, Period::Month))
    }
}

/// What every report of a page has in common.
struct OfMonth<'p> {
    policy: &'p Policy,
    /// As `202611`.
    month: u32,
    /// `None`: it is not the current month.
    outlook: Option<Outlook>,
    spooled: Spooled,
}

impl SpendReport {
    fn add(&mut self, key: &UsageKey, amounts: &UsageAmounts) {
        // A row of reservations that were never reported has spent nothing.
        if amounts.requests == 0 && amounts.cost_nanos == 0 {
            return;
        }
        self.total.add(amounts);
        self.by_model.entry(key.model.clone()).or_default().add(amounts);
        self.by_day.entry(key.day).or_default().add(amounts);
        if !key.key.is_empty() {
            self.by_key.entry(key.key.clone()).or_default().add(amounts);
        }
    }
}
