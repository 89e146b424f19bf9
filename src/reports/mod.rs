//! What was spent and used, for those who look at it: reads on a connection or thread of their own, in pages, never on the path of
//! a decision.

mod budgets;
mod counters;
mod days;
mod foresight;
mod limits;
mod sets;
mod spend;
mod usage;

pub use budgets::{BudgetOwner, BudgetPage, BudgetPlace, BudgetQuery, BudgetReport, Budgets};
pub use counters::ListError;
pub use days::{PastDays, PresentBudget, RecentDays};
pub use foresight::foresee;
pub use limits::{LimitPage, LimitPlace, LimitQuery, LimitReports};
pub use spend::{SpendError, SpendLine, SpendPage, SpendQuery, SpendReport, Spending};
pub use usage::{
    Dimension, Granularity, Order, PastRow, PastUsage, Subject, UsageError, UsageFilter, UsageGroup,
    UsagePage, UsagePlace, UsageQuery, UsageReports, UsageRow,
};
