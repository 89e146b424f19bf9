//! The differences.

use std::collections::BTreeMap;

use super::{
    bill::{Bill, Billed},
    books::{Booked, Books, DaysOf},
    cause::{self, Cause, Finding},
    columns::Format,
    matching::{ModelNames, ProjectNames},
};

/// Of which day, model and project a difference is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key {
    pub(super) day: Option<u32>,
    pub(super) model: String,
    pub(super) project: String,
}

/// What was booked and what was billed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Difference {
    /// The day, as `20261123`; `None`: all of the month.
    pub day: Option<u32>,
    /// The model, as the books name it, or the bill if they have none.
    pub model: String,
    /// The project, likewise; empty where projects are not compared.
    pub project: String,
    /// What was booked.
    pub booked: Booked,
    /// What was billed; `None`: the bill has no such row.
    pub billed: Option<Billed>,
    /// Why they are likely to differ; `None` where they agree within the tolerance.
    pub cause: Option<Cause>,
}

impl Difference {
    /// How much more was billed than booked, in nano-USD.
    #[must_use]
    pub fn drift(&self) -> i128 {
        self.billed.as_ref().map_or(0, |billed| billed.cost_nanos).saturating_sub(self.booked.cost_nanos)
    }

    /// The drift in thousandths of what was booked; `None`: nothing was.
    #[must_use]
    pub fn permille(&self) -> Option<i128> {
        let booked = self.booked.cost_nanos;
        (booked != 0).then(|| self.drift().saturating_mul(1_000) / booked)
    }

    fn add(&mut self, other: &Self) {
        self.booked.add(&other.booked);
        match (&mut self.billed, &other.billed) {
            (Some(sum), Some(more)) => sum.add(more),
            (sum, more) => *sum = sum.take().or_else(|| more.clone()),
        }
    }
}

/// How projects were compared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Projects {
    /// By their names.
    Compared,
    /// The bill has none.
    #[default]
    NotBilled,
    /// The bill has some, none of which is one of the policy's.
    Unknown,
}

/// The outcome.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reconciled {
    /// By day, model and project: each that was booked or billed. One day without a number, if the bill has no days.
    pub lines: Vec<Difference>,
    /// By model and project, over all days.
    pub sums: Vec<Difference>,
    /// All of it.
    pub total: Difference,
    /// Likely causes, with the largest drift first.
    pub findings: Vec<Finding>,
    /// How projects were compared.
    pub projects: Projects,
    /// Whose days the books have.
    pub days: DaysOf,
    /// Whether the bill has days.
    pub has_days: bool,
    /// What the bill has of other months, in nano-USD, which is not compared.
    pub other_months_nanos: i128,
    /// Whether a line, the sum of a model and project, or all of it differs by more than the tolerance.
    pub has_drift: bool,
}

/// Compares a bill with the books of `month` (as `202611`). Differences of at most `tolerance` nano-USD are none.
#[must_use]
pub fn reconcile((bill, format): (&Bill, Format), books: &Books, month: u32, tolerance: u64) -> Reconciled {
    let has_days = bill.groups.keys().any(|key| key.day.is_some());
    let has_projects = bill.groups.keys().any(|key| !(key.project.is_empty() && key.project_id.is_empty()));
    let names = ProjectNames::of(bill, books);
    let projects = match &names {
        Some(_) => Projects::Compared,
        None if has_projects => Projects::Unknown,
        None => Projects::NotBilled,
    };
    let mut lines = BTreeMap::<Key, Difference>::new();
    for row in &books.rows {
        let project = if names.is_some() { row.project.clone() } else { String::new() };
        let key = Key { day: has_days.then_some(row.day), model: row.model.clone(), project };
        lines.entry(key).or_default().booked.add(&row.amounts);
    }
    let models = ModelNames::of(books, format);
    let mut other_months_nanos = 0_i128;
    let mut found = BTreeMap::<&str, String>::new();
    for (of, billed) in &bill.groups {
        if of.day.is_some_and(|day| day / 100 != month) {
            other_months_nanos = other_months_nanos.saturating_add(billed.cost_nanos);
            continue;
        }
        let project =
            names.as_ref().map_or_else(String::new, |names| names.find(&of.project, &of.project_id));
        let model = found.entry(&of.model).or_insert_with(|| models.find(&of.model)).clone();
        let line = lines.entry(Key { day: of.day, model, project }).or_default();
        line.add(&Difference { billed: Some(billed.clone()), ..Difference::default() });
    }
    let lines: Vec<Difference> = lines
        .into_iter()
        .map(|(Key { day, model, project }, line)| Difference { day, model, project, ..line })
        .collect();
    let mut result = Reconciled {
        lines,
        projects,
        days: books.days,
        has_days,
        other_months_nanos,
        ..Reconciled::default()
    };
    result.add_up();
    let is_drift = |of: &Difference| of.drift().unsigned_abs() > u128::from(tolerance);
    let parts = result.lines.iter().chain(&result.sums).chain([&result.total]);
    result.has_drift = parts.into_iter().any(is_drift);
    cause::explain(&mut result, books, tolerance);
    result
}

impl Reconciled {
    fn add_up(&mut self) {
        let mut sums = BTreeMap::<(String, String), Difference>::new();
        for line in &self.lines {
            sums.entry((line.model.clone(), line.project.clone())).or_default().add(line);
            self.total.add(line);
        }
        let named = |((model, project), sum)| Difference { model, project, ..sum };
        self.sums = sums.into_iter().map(named).collect();
    }
}
