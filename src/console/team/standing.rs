//! A budget of the team as it stands, or as it ended in a month that is over.

use jiff::{Zoned, civil::Date};
use tonic::Status;

use super::gather::{PAGE, Question};
use crate::{
    console::text::{
        money::nanos,
        time::{self, zoned},
    },
    rpc::proto::{Budget, GetSpendRequest, LimitMode, ListBudgetsRequest, OnShortfall, Period},
};

/// A budget with what is spent of it. Amounts are in billionths of a dollar.
pub(super) struct Standing {
    pub(super) period: Period,
    pub(super) start: Zoned,
    pub(super) end: Zoned,
    pub(super) limit: i128,
    pub(super) spent: i128,
    pub(super) reserved: i128,
    /// What will have been spent at its end, if nothing holds it back.
    pub(super) projected: Option<i128>,
    /// When it is used up, within the period.
    pub(super) ends: Option<Zoned>,
    /// What happens then; `None`: the period is over.
    pub(super) then: Option<Then>,
    pub(super) thresholds: Vec<Mark>,
}

/// A point of a budget at which an alert is raised.
pub(super) struct Mark {
    /// As the policy writes it.
    pub(super) text: String,
    pub(super) amount: i128,
    /// When it was crossed; `None`: it was not, or that is not known.
    pub(super) crossed: Option<Zoned>,
}

/// What becomes of requests that a budget cannot pay for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::console) enum Then {
    Denied,
    /// Answers are cut before, as less and less is left.
    Shortened,
    Warned,
    /// In shadow mode.
    Counted,
}

impl Then {
    /// What becomes of requests under `budget`.
    pub(in crate::console) fn of(budget: &Budget) -> Self {
        match (budget.mode(), budget.on_shortfall()) {
            (LimitMode::Shadow, _) => Self::Counted,
            (_, OnShortfall::Warn) => Self::Warned,
            (_, OnShortfall::Clamp) => Self::Shortened,
            _ => Self::Denied,
        }
    }

    /// Whether requests are refused.
    pub(in crate::console) const fn refuses(self) -> bool {
        matches!(self, Self::Denied | Self::Shortened)
    }
}

impl Standing {
    pub(super) fn is_of_day(&self) -> bool {
        self.period == Period::Day
    }

    /// What is left for new requests; below zero past the budget.
    pub(super) const fn left(&self) -> i128 {
        self.limit - self.spent - self.reserved
    }

    /// Whether it refuses requests.
    pub(super) fn refuses(&self) -> bool {
        self.then.is_some_and(Then::refuses)
    }

    /// Its period: `November`, `This week`, `Today`.
    pub(super) fn name(&self) -> String {
        match self.period {
            Period::Day => "Today".to_owned(),
            Period::Week => "This week".to_owned(),
            Period::Month | Period::Unspecified => self.start.strftime("%B").to_string(),
        }
    }

    /// The same within a sentence: `in November`, `this week`, `today`.
    pub(super) fn within(&self) -> String {
        match self.period {
            Period::Day => "today".to_owned(),
            Period::Week => "this week".to_owned(),
            Period::Month | Period::Unspecified => format!("in {}", self.name()),
        }
    }

    /// Where its next period begins: `1 Dec`, `Mon 30 Nov`, `midnight`.
    pub(super) fn next(&self, today: Date) -> String {
        match self.period {
            Period::Day => "midnight".to_owned(),
            Period::Week => time::day(self.end.date(), today),
            Period::Month | Period::Unspecified => time::short_day(self.end.date()),
        }
    }

    /// The length of the period in seconds.
    pub(super) fn length(&self) -> i128 {
        i128::from(self.end.timestamp().as_second() - self.start.timestamp().as_second()).max(1)
    }

    /// How many of these are over at `at`.
    pub(super) fn elapsed(&self, at: &Zoned) -> i128 {
        let seconds = at.timestamp().as_second() - self.start.timestamp().as_second();
        i128::from(seconds).clamp(0, self.length())
    }

    /// What an even period has spent at `at`.
    pub(super) fn pace(&self, at: &Zoned) -> i128 {
        self.limit * self.elapsed(at) / self.length()
    }
}

/// The team's budgets: of the present month as they stand, of an earlier one as it was kept.
pub(super) async fn budgets(question: Question<'_>) -> Result<Vec<Standing>, Status> {
    if !question.is_present() {
        return Ok(past(question).await?.into_iter().collect());
    }
    let mut request =
        ListBudgetsRequest { team: question.team.to_owned(), page_size: PAGE, ..Default::default() };
    let mut found = Vec::new();
    // The team's own come before those of its keys.
    loop {
        let page = question.view.api().budgets().list_budgets(request.clone()).await?.into_inner();
        let before = found.len();
        let own = |budget: &Budget| budget.key.is_empty() && budget.user.is_empty();
        let is_over = page.budgets.last().is_none_or(|last| !own(last)) || page.next_page_token.is_empty();
        found.extend(page.budgets.into_iter().filter(own).filter_map(|budget| present(question, budget)));
        if is_over || found.len() == before {
            return Ok(found);
        }
        request.page_token = page.next_page_token;
    }
}

fn present(question: Question<'_>, budget: Budget) -> Option<Standing> {
    let now = question.view.now();
    let period = budget.period();
    let then = Then::of(&budget);
    let spend = budget.spend.unwrap_or_default();
    let forecast = spend.forecast.unwrap_or_default();
    let thresholds = budget.thresholds.into_iter();
    Some(Standing {
        period,
        start: zoned(budget.start_time.as_ref()?, now)?,
        end: zoned(budget.end_time.as_ref()?, now)?,
        limit: nanos(spend.budget.as_ref()),
        spent: nanos(spend.spent.as_ref()),
        reserved: nanos(spend.reserved.as_ref()),
        projected: forecast.projected.map(|projected| nanos(Some(&projected))),
        ends: forecast.exhaust_time.and_then(|at| zoned(&at, now)),
        then: Some(then),
        thresholds: thresholds
            .map(|threshold| Mark {
                crossed: threshold.cross_time.and_then(|at| zoned(&at, now)),
                amount: nanos(threshold.amount.as_ref()),
                text: threshold.threshold,
            })
            .collect(),
    })
}

async fn past(question: Question<'_>) -> Result<Option<Standing>, Status> {
    let month = question.first.strftime("%Y-%m").to_string();
    let request =
        GetSpendRequest { team: question.team.to_owned(), month, page_size: 1, ..Default::default() };
    let answer = question.view.api().policy().get_spend(request).await?.into_inner();
    let spend = answer.teams.into_iter().find_map(|report| report.spend);
    Ok(spend.and_then(|spend| {
        Some(Standing {
            period: Period::Month,
            start: question.begin(question.first),
            end: question.begin(question.end),
            limit: nanos(Some(&spend.budget?)),
            spent: nanos(spend.spent.as_ref()),
            reserved: nanos(spend.reserved.as_ref()),
            projected: None,
            ends: None,
            then: None,
            thresholds: Vec::new(),
        })
    }))
}
