//! Who spends: by model, key, user, and each label that reports know.

use maud::{Markup, html};
use tonic::Status;

use super::{
    Query,
    gather::{PAGE, Question, of_team},
};
use crate::{
    console::{
        parts::share_bar,
        text::{
            money::{self, nanos},
            number,
        },
    },
    domain::rbac::Permission,
    rpc::proto::{QueryUsageRequest, UsageAmounts, UsageDimensions, UsageRow},
};

/// How many rows a breakdown has until it is opened.
const SHOWN: usize = 5;
/// How many rows are read of one that is not opened: past them it says that there are more, and not how many.
const COUNTED: i32 = 100;
/// How many rows of an opened one are on a page.
const OPENED: usize = 50;
/// The most pages of usage that are read for an opened one: 10,000 rows.
const MAX_PAGES: usize = 10;

/// What usage is broken down by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum By {
    Model,
    Key,
    User,
    Label(String),
}

/// The spend of the month by one of them, the highest first.
pub(super) struct Breakdown {
    by: By,
    rows: Vec<Part>,
    total: UsageAmounts,
    /// Whether there are rows that were not read.
    is_cut: bool,
}

struct Part {
    name: String,
    cost: i128,
    requests: i64,
}

impl By {
    /// Every breakdown that there is of the organization's usage.
    fn all(question: Question<'_>) -> Vec<Self> {
        let labels = question.view.snapshot().policy.reports.labels.iter();
        let labels = labels.map(|label| Self::Label(label.to_string()));
        [Self::Model, Self::Key, Self::User].into_iter().chain(labels).collect()
    }

    /// As addresses and `group_by` name it.
    pub(super) fn path(&self) -> String {
        match self {
            Self::Model => "model".to_owned(),
            Self::Key => "key".to_owned(),
            Self::User => "user".to_owned(),
            Self::Label(label) => format!("labels.{label}"),
        }
    }

    /// What one row is.
    fn noun(&self) -> &str {
        match self {
            Self::Model => "model",
            Self::Key => "key",
            Self::User => "user",
            Self::Label(label) => label,
        }
    }

    /// The head of the column; a label keeps its name.
    fn title(&self) -> &str {
        match self {
            Self::Model => "Model",
            Self::Key => "Key",
            Self::User => "User",
            Self::Label(label) => label,
        }
    }

    fn value(&self, dimensions: UsageDimensions) -> String {
        match self {
            Self::Model => dimensions.model,
            Self::Key => dimensions.key,
            Self::User => dimensions.user,
            Self::Label(label) => dimensions.labels.get(label).cloned().unwrap_or_default(),
        }
    }

    /// How usage without a value comes to be.
    fn without(&self) -> String {
        match self {
            Self::Label(label) => format!("without the label {label}"),
            other => format!("without a {}", other.noun()),
        }
    }

    /// What the section says where nothing was spent.
    fn empty(&self) -> Markup {
        html! {
            p.empty {
                strong { "Nothing was spent." }
                @match self {
                    Self::Model => { " Spend appears here as soon as a gateway reports what a request used." }
                    Self::Key => { " Requests that bring a virtual key are counted by its name." }
                    Self::User => { " Requests that name their " code { "user" } " are counted by it." }
                    Self::Label(label) => {
                        " Requests, keys and teams with the label " code { (label) } " are counted by its values."
                    }
                }
            }
        }
    }
}

/// Whether `path` names a breakdown of the organization's usage.
pub(super) fn is_known(question: Question<'_>, path: &str) -> bool {
    By::all(question).iter().any(|by| by.path() == path)
}

/// Every breakdown, asked for at the same time. That of `opened` is read as far as it is shown.
pub(super) async fn all(question: Question<'_>, opened: &str) -> Result<Vec<Breakdown>, Status> {
    let labels = async {
        let mut found = Vec::new();
        // One after another: answers are made one at a time, and only so many calls may wait for theirs.
        for label in &question.view.snapshot().policy.reports.labels {
            found.push(one(question, By::Label(label.to_string()), opened).await?);
        }
        Ok::<_, Status>(found)
    };
    let (model, key, user, labels) = tokio::try_join!(
        one(question, By::Model, opened),
        one(question, By::Key, opened),
        one(question, By::User, opened),
        labels,
    )?;
    Ok([model, key, user].into_iter().chain(labels).collect())
}

async fn one(question: Question<'_>, by: By, opened: &str) -> Result<Breakdown, Status> {
    let is_open = by.path() == opened;
    let (pages, page_size) = if is_open { (MAX_PAGES, PAGE) } else { (1, COUNTED) };
    let (start, end) = question.days();
    let mut request = QueryUsageRequest {
        start_date: start.to_string(),
        end_date: end.to_string(),
        group_by: vec![by.path()],
        filter: Some(of_team(question.team)),
        order_by: "amounts.cost desc".to_owned(),
        page_size,
        ..Default::default()
    };
    let mut breakdown = Breakdown { by, rows: Vec::new(), total: UsageAmounts::default(), is_cut: false };
    for _ in 0..pages {
        let page = question.view.api().reports().query_usage(request.clone()).await?.into_inner();
        let rows = page.rows.into_iter().filter_map(|row| part(&breakdown.by, row));
        breakdown.rows.extend(rows);
        breakdown.total = page.total.unwrap_or_default();
        breakdown.is_cut = !page.next_page_token.is_empty();
        if !breakdown.is_cut {
            break;
        }
        request.page_token = page.next_page_token;
    }
    Ok(breakdown)
}

fn part(by: &By, row: UsageRow) -> Option<Part> {
    let amounts = row.amounts?;
    let name = by.value(row.dimensions?);
    Some(Part { name, cost: nanos(amounts.cost.as_ref()), requests: amounts.request_count })
}

impl Breakdown {
    pub(super) fn shown(&self, question: Question<'_>, asked: &Query) -> Markup {
        let path = self.by.path();
        let is_open = asked.by == path;
        let id = format!("by-{}", path.replace('.', "-"));
        let pages = if is_open { self.rows.len().div_ceil(OPENED).max(1) } else { 1 };
        let page = asked.page.clamp(1, pages);
        let (skip, size) = if is_open { ((page - 1) * OPENED, OPENED) } else { (0, SHOWN) };
        let rows = self.rows.iter().skip(skip).take(size);
        let other = |by: &str, page: usize| format!("{}#{id}", asked.address(question, by, page));
        let all = number::count(i64::try_from(self.rows.len()).unwrap_or(0));
        html! {
            section.opened[is_open] {
                div.section-head {
                    h2 id=(id) { "By " (self.by.noun()) }
                    @if self.rows.len() > SHOWN {
                        p.end {
                            @if is_open { a href=(other("", 1)) { "Only the first " (SHOWN) } }
                            @else { a href=(other(&path, 1)) { @if self.is_cut { "More" } @else { "All " (all) } } }
                        }
                    }
                }
                @if self.rows.is_empty() { (self.by.empty()) } @else {
                    div.table role="region" aria-label={ "Spend by " (self.by.noun()) } tabindex="0" {
                        table.stick {
                            (self.head())
                            tbody {
                                @for part in rows { (self.row(question, part)) }
                                @if page == pages { (self.others(skip + size)) }
                            }
                        }
                    }
                }
                @if pages > 1 {
                    p.pager {
                        span { (all) ", page " (page) " of " (pages) }
                        span.end {
                            @if page > 1 { a rel="prev" href=(other(&path, page - 1)) { "Before" } }
                            @if page < pages { a rel="next" href=(other(&path, page + 1)) { "After" } }
                        }
                    }
                }
            }
        }
    }

    fn head(&self) -> Markup {
        html! {
            thead { tr {
                th scope="col" { (self.by.title()) }
                th.num scope="col" { "Spent" }
                th.num scope="col" { "Share" }
                th.num scope="col" { "Requests" }
                th.col-bar scope="col" { span.visually-hidden { "Share as a bar" } }
            } }
        }
    }

    fn row(&self, question: Question<'_>, part: &Part) -> Markup {
        let is_key = self.by == By::Key && question.view.may_for(Permission::ReadKeys, question.team);
        html! {
            tr {
                th scope="row" {
                    @if part.name.is_empty() { span.quiet { (self.by.without()) } }
                    @else if is_key { a href=(super::keys::address(question, &part.name)) { (part.name) } }
                    @else { (part.name) }
                }
                (self.amounts(part.cost, part.requests))
            }
        }
    }

    fn amounts(&self, cost: i128, requests: i64) -> Markup {
        let whole = nanos(self.total.cost.as_ref());
        html! {
            td.num { (money::sum(cost)) }
            td.num { (number::share(cost, whole).unwrap_or_else(|| "–".to_owned())) }
            (number::cell(requests))
            td.col-bar { (share_bar(cost, whole)) }
        }
    }

    /// The rows from `shown` on, as one.
    fn others(&self, shown: usize) -> Markup {
        let rest = self.rows.len().saturating_sub(shown);
        if rest == 0 && !self.is_cut {
            return html! {};
        }
        let before = self.rows.iter().take(shown);
        let (cost, requests) =
            before.fold((0, 0), |(cost, requests), part| (cost + part.cost, requests + part.requests));
        let words = match self.is_cut {
            true => "all others".to_owned(),
            false if rest == 1 => "1 other".to_owned(),
            false => format!("{} others", number::count(i64::try_from(rest).unwrap_or(0))),
        };
        html! {
            tr {
                th scope="row" { span.quiet { (words) } }
                (self.amounts(nanos(self.total.cost.as_ref()) - cost, self.total.request_count - requests))
            }
        }
    }
}
