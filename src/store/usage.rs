//! Rows of usage: dimensions, and amounts that add up.
//!
//! A settlement adds to a few rows, in its own atomic step: to one of its day and one of its hour, with all that is known of the request;
//! to one of the organization's day; and to one of its user and of each label that reports know. So every sum over the rows of a
//! series is exact, and none is made from another: hours end without being added up, as their days have them.
//!
//! Rows of users and labels are bounded, as any text may be a user: see [`Series`].
//!
//! Requests that were refused have no settlement. They are counted in rows of their own, which [`Usage::add_usage`] adds to every few
//! seconds.

use std::{future::Future, sync::Arc};

use super::{Backend, DenialCause, StoreError, UsageAmounts};
use crate::domain::request::{Operation, ServiceTier};

/// The rows that settlements added up. Reading them holds up no call of a [`super::Ledger`].
pub trait Usage: Backend {
    /// The teams with rows of days in `month` (as `202611`), in order, without the organization's own.
    fn spenders(&self, month: u32) -> impl Future<Output = Result<Vec<Arc<str>>, StoreError>> + Send;

    /// The rows of `set`, in order.
    fn usage(
        &self,
        set: UsageSet,
    ) -> impl Future<Output = Result<Vec<(UsageKey, UsageAmounts)>, StoreError>> + Send;

    /// The rows of several sets, in order: of the first ones of `sets`, as many as were read together. Those of one at least, if one is
    /// asked for; of all, if they are at most [`SETS_AT_ONCE`] with [`ROWS_AT_ONCE`] rows in total.
    fn usage_of(
        &self,
        sets: &[UsageSet],
    ) -> impl Future<Output = Result<Vec<Vec<(UsageKey, UsageAmounts)>>, StoreError>> + Send;

    /// The teams with rows of denials in `month` (as `202611`), in order, without those of callers that belong to no team.
    fn denied(&self, month: u32) -> impl Future<Output = Result<Vec<Arc<str>>, StoreError>> + Send;

    /// Adds to rows, all of them or none, and once however often it is called with the same source and number. Durable before it
    /// answers.
    ///
    /// # Errors
    /// After [`StoreError::Unavailable`] it may have added them or not: calling it again is safe.
    fn add_usage(&self, addition: UsageAddition) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// The rows of the days of `team` (empty: the organization) in `month`, in order.
    fn spend(
        &self,
        month: u32,
        team: Arc<str>,
    ) -> impl Future<Output = Result<Vec<(UsageKey, UsageAmounts)>, StoreError>> + Send {
        self.usage(UsageSet { series: Series::Days, period: month, team })
    }
}

/// Sets that are read together: as one round trip is what each of them would take.
pub const SETS_AT_ONCE: usize = 64;
/// Rows of several sets that are held at once, some ten megabytes. One set may have more.
pub const ROWS_AT_ONCE: usize = 50_000;

/// Rows that are taken before other tasks of the core get their turn: about 0.1 ms.
const ROWS_PER_TURN: usize = 512;

/// Calls `each` with every row, and lets decisions on the same core come in between: a team's month can have 100,000 rows.
pub async fn each_line(
    rows: Vec<(UsageKey, UsageAmounts)>,
    mut each: impl FnMut(UsageKey, &UsageAmounts) + Send,
) {
    for (count, (key, amounts)) in rows.into_iter().enumerate() {
        each(key, &amounts);
        if count % ROWS_PER_TURN == ROWS_PER_TURN - 1 {
            tokio::task::yield_now().await;
        }
    }
}

/// The most rows of a [`UsageAddition`]: a fraction of a millisecond of a server's time, and of the embedded store's lock.
pub const MAX_ADDED_ROWS: usize = 128;

/// Rows to add to without a settlement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UsageAddition {
    /// What adds: a random number of its own, kept for a day after its last addition.
    pub source: [u8; 16],
    /// Its additions come one after the other, with growing numbers from 1. One whose number is not above the last is not made again.
    pub number: u64,
    /// The rows, at most [`MAX_ADDED_ROWS`].
    pub lines: Vec<(UsageKey, UsageAmounts)>,
    /// As of [`super::Settle::max_rows`].
    pub max_rows: u64,
}

/// The value that stands for all that a set of users, of a label or of denials has no room for.
pub const OTHER_VALUE: &str = "(other)";

/// What rows are of, and how long they are kept.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Series {
    /// Days, by all that is known but users and labels. A set is a month of a team, or of the organization. Kept 400 days.
    Days,
    /// Hours, by the same. A set is a day of a team. Kept [`HOURS_KEPT_DAYS`].
    Hours,
    /// Days, by user as well. A set is a day of a team, and takes rows of new users up to [`super::Settle::max_rows`]; later ones go
    /// to [`OTHER_VALUE`]. Kept 400 days.
    Users,
    /// The same by the value of a label.
    Label(Arc<str>),
    /// Days of requests that were refused, by what is known and by what refused them (see [`DenialCause`]). A set is a day of a team,
    /// or of the callers that belong to none; of a row, only the requests count. Kept 400 days, and bounded as users are.
    Denials,
    /// Hours of the same. A set is a day of a team. Kept [`HOURS_KEPT_DAYS`].
    DenialHours,
}

/// How many days a set of hours is kept after its day: 35 to report of, and a day on each side for the zones of organizations.
pub const HOURS_KEPT_DAYS: u64 = 37;

impl Series {
    /// As stores name it: `d`, `h`, `u`, `n`, `nh`, or `l/` and the label.
    #[must_use]
    pub fn name(&self) -> String {
        match self {
            Self::Days => "d".to_owned(),
            Self::Hours => "h".to_owned(),
            Self::Users => "u".to_owned(),
            Self::Label(name) => format!("l/{name}"),
            Self::Denials => "n".to_owned(),
            Self::DenialHours => "nh".to_owned(),
        }
    }

    /// The inverse of [`Series::name`].
    #[must_use]
    pub fn of_name(name: &str) -> Option<Self> {
        match name {
            "d" => Some(Self::Days),
            "h" => Some(Self::Hours),
            "u" => Some(Self::Users),
            "n" => Some(Self::Denials),
            "nh" => Some(Self::DenialHours),
            label => label.strip_prefix("l/").map(|label| Self::Label(label.into())),
        }
    }

    /// Whether its sets take only so many rows.
    #[must_use]
    pub const fn is_bounded(&self) -> bool {
        match self {
            Self::Days | Self::Hours => false,
            Self::Users | Self::Label(_) | Self::Denials | Self::DenialHours => true,
        }
    }

    /// Whether it is of requests that were refused.
    #[must_use]
    pub const fn is_of_denials(&self) -> bool {
        matches!(self, Self::Denials | Self::DenialHours)
    }

    /// How many rows a set takes of which a day takes `max_rows`.
    #[must_use]
    pub const fn room(&self, max_rows: u64) -> u64 {
        match self {
            Self::DenialHours => max_rows.saturating_mul(24),
            _ => max_rows,
        }
    }

    /// Whether a set is a month, and not a day.
    #[must_use]
    pub const fn is_monthly(&self) -> bool {
        matches!(self, Self::Days)
    }
}

/// Rows that are read together.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct UsageSet {
    /// What they are of.
    pub series: Series,
    /// The month, as `202611`, of [`Series::Days`]; else the day, as `20261123`.
    pub period: u32,
    /// The team; empty for the organization's own rows, which only [`Series::Days`] has.
    pub team: Arc<str>,
}

/// The dimensions of a row.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct UsageKey {
    /// The set it is in.
    pub set: UsageSet,
    /// The day, as `20261123`.
    pub day: u32,
    /// Of [`Series::Hours`]: the hours since the day began, to 24, as one day of a year has 25 in many zones. Else 0.
    pub hour: u8,
    /// The model.
    pub model: Arc<str>,
    /// The virtual key; empty for none. The organization's rows have none.
    pub key: Arc<str>,
    /// What the request did. The organization's rows, and those from before it was recorded, have none.
    pub operation: Option<Operation>,
    /// Groq's service tier; as for `operation`.
    pub service_tier: Option<ServiceTier>,
    /// The Groq project; empty as for `operation`.
    pub project: Arc<str>,
    /// The user, the label's value, or the text of a [`DenialCause`]. Else empty.
    pub value: Arc<str>,
}

impl UsageKey {
    /// A row of a day with a model and a key, as all were before rows had more dimensions.
    #[must_use]
    pub fn of_day(month: u32, team: Arc<str>, day: u32, model: Arc<str>, key: Arc<str>) -> Self {
        let empty: Arc<str> = Arc::default();
        Self {
            set: UsageSet { series: Series::Days, period: month, team },
            day,
            hour: 0,
            model,
            key,
            operation: None,
            service_tier: None,
            project: Arc::clone(&empty),
            value: empty,
        }
    }

    /// The row that takes the amounts of this one where its set has no more room; `None`: there is always room.
    #[must_use]
    pub fn other(&self) -> Option<Self> {
        if self.set.series.is_of_denials() {
            let other = DenialCause::of_text(&self.value).other().text();
            let row = Self {
                model: OTHER_VALUE.into(),
                key: OTHER_VALUE.into(),
                value: other.into(),
                ..self.clone()
            };
            let row = Self { operation: None, service_tier: None, project: Arc::default(), ..row };
            return (row != *self).then_some(row);
        }
        let is_bounded = self.set.series.is_bounded() && *self.value != *OTHER_VALUE;
        is_bounded.then(|| Self { value: OTHER_VALUE.into(), ..self.clone() })
    }

    /// Operation and tier as numbers: 0 for none, else one more than the place among all. Stores write these.
    #[must_use]
    pub fn codes(&self) -> [u8; 2] {
        let operation = self.operation.map_or(0, |operation| operation as u8 + 1);
        [operation, self.service_tier.map_or(0, |tier| tier as u8 + 1)]
    }

    /// The inverse of [`UsageKey::codes`]. What a later release may have written reads as none.
    #[must_use]
    pub fn of_codes([operation, tier]: [u8; 2]) -> (Option<Operation>, Option<ServiceTier>) {
        let at = |code: u8| usize::from(code).checked_sub(1);
        let operation = at(operation).and_then(|at| Operation::ALL.get(at).copied());
        (operation, at(tier).and_then(|at| ServiceTier::ALL.get(at).copied()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_codes_are_read_as_they_were_written() {
        let others = [Series::Label("cost_center".into()), Series::Denials, Series::DenialHours];
        for series in [Series::Days, Series::Hours, Series::Users].into_iter().chain(others) {
            assert_eq!(Series::of_name(&series.name()), Some(series));
        }
        assert_eq!(Series::of_name("x"), None);
        for operation in Operation::ALL.map(Some).into_iter().chain([None]) {
            for tier in ServiceTier::ALL.map(Some).into_iter().chain([None]) {
                let day = UsageKey::of_day(0, "".into(), 0, "".into(), "".into());
                let key = UsageKey { operation, service_tier: tier, ..day };
                assert_eq!(UsageKey::of_codes(key.codes()), (operation, tier));
            }
        }
        assert_eq!(UsageKey::of_codes([200, 200]), (None, None));
    }
}
