//! The limits that policies and created keys can set: one table of their names, quantities, windows and units.

use super::{
    MAX_AMOUNT,
    limit::{Limit, Period, Quantity, Span, Window},
    money::NanoUsd,
};

/// A limit with a bound that a policy or a created key can set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "each is the limit of this name")]
pub enum LimitKind {
    MonthlyBudget,
    WeeklyBudget,
    DailyBudget,
    RequestsPerMinute,
    RequestsPerHour,
    RequestsPerDay,
    TokensPerMinute,
    TokensPerHour,
    TokensPerDay,
    AudioSecondsPerMinute,
    AudioSecondsPerHour,
    AudioSecondsPerDay,
    MaxInFlight,
}

/// What is known of a kind.
struct Row {
    path: &'static str,
    key: &'static str,
    quantity: Quantity,
    window: Window,
}

impl LimitKind {
    /// Dollars of calendar periods.
    pub const BUDGETS: [Self; 3] = [Self::MonthlyBudget, Self::WeeklyBudget, Self::DailyBudget];

    /// Rates and concurrency.
    pub const RATES: [Self; 10] = [
        Self::RequestsPerMinute,
        Self::RequestsPerHour,
        Self::RequestsPerDay,
        Self::TokensPerMinute,
        Self::TokensPerHour,
        Self::TokensPerDay,
        Self::AudioSecondsPerMinute,
        Self::AudioSecondsPerHour,
        Self::AudioSecondsPerDay,
        Self::MaxInFlight,
    ];

    const fn row(self) -> Row {
        const fn rate(path: &'static str, key: &'static str, quantity: Quantity, span: Span) -> Row {
            Row { path, key, quantity, window: Window::Sliding(span) }
        }
        const fn budget(path: &'static str, key: &'static str, period: Period) -> Row {
            Row { path, key, quantity: Quantity::NanoUsd, window: Window::Calendar(period) }
        }
        use Quantity::{AudioMilliseconds, Requests, RequestsInFlight, Tokens};
        use Span::{Day, Hour, Minute};
        match self {
            Self::MonthlyBudget => budget("limits.monthly_budget", "monthly_usd", Period::Month),
            Self::WeeklyBudget => budget("limits.weekly_budget", "weekly_usd", Period::Week),
            Self::DailyBudget => budget("limits.daily_budget", "daily_usd", Period::Day),
            Self::RequestsPerMinute => {
                rate("limits.requests_per_minute", "requests_per_minute", Requests, Minute)
            }
            Self::RequestsPerHour => rate("limits.requests_per_hour", "requests_per_hour", Requests, Hour),
            Self::RequestsPerDay => rate("limits.requests_per_day", "requests_per_day", Requests, Day),
            Self::TokensPerMinute => rate("limits.tokens_per_minute", "tokens_per_minute", Tokens, Minute),
            Self::TokensPerHour => rate("limits.tokens_per_hour", "tokens_per_hour", Tokens, Hour),
            Self::TokensPerDay => rate("limits.tokens_per_day", "tokens_per_day", Tokens, Day),
            Self::AudioSecondsPerMinute => {
                rate("limits.audio_seconds_per_minute", "audio_seconds_per_minute", AudioMilliseconds, Minute)
            }
            Self::AudioSecondsPerHour => {
                rate("limits.audio_seconds_per_hour", "audio_seconds_per_hour", AudioMilliseconds, Hour)
            }
            Self::AudioSecondsPerDay => {
                rate("limits.audio_seconds_per_day", "audio_seconds_per_day", AudioMilliseconds, Day)
            }
            Self::MaxInFlight => Row {
                path: "limits.max_in_flight",
                key: "max_in_flight",
                quantity: RequestsInFlight,
                window: Window::InFlight,
            },
        }
    }

    /// The kind of this limit; `None` for one that only counts or that no key can have.
    #[must_use]
    pub fn of(limit: &Limit) -> Option<Self> {
        let mut kinds = Self::BUDGETS.into_iter().chain(Self::RATES);
        kinds.find(|kind| (kind.quantity(), kind.window()) == (limit.quantity, limit.window))
    }

    /// Its field of the contract's `VirtualKey`, such as `limits.monthly_budget`.
    #[must_use]
    pub const fn path(self) -> &'static str {
        self.row().path
    }

    /// Its key in a table of the policy, such as `monthly_usd` of a `budget`.
    #[must_use]
    pub const fn key(self) -> &'static str {
        self.row().key
    }

    /// What it counts.
    #[must_use]
    pub const fn quantity(self) -> Quantity {
        self.row().quantity
    }

    /// Over which window.
    #[must_use]
    pub const fn window(self) -> Window {
        self.row().window
    }

    /// How many of the quantity's units one unit of its bound is: audio is bounded in seconds and counted in milliseconds.
    #[must_use]
    pub const fn unit(self) -> u64 {
        if matches!(self.quantity(), Quantity::AudioMilliseconds) { 1_000 } else { 1 }
    }

    /// The largest bound, in its own unit.
    #[must_use]
    pub const fn max(self) -> u64 {
        MAX_AMOUNT / self.unit()
    }

    /// A bound in the quantity's unit, as people write it.
    #[must_use]
    pub fn shown(self, bound: u64) -> String {
        match self.quantity() {
            Quantity::NanoUsd => format!("${}", NanoUsd::new(bound).unwrap_or(NanoUsd::MAX)),
            _ => (bound / self.unit()).to_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::limit::Subject;

    #[test]
    fn each_kind_is_found_by_what_it_counts() {
        let kinds = || LimitKind::BUDGETS.into_iter().chain(LimitKind::RATES);
        for kind in kinds() {
            let limit = Subject::team("t").limit("x".into(), kind.quantity(), kind.window());
            assert_eq!(LimitKind::of(&limit), Some(kind));
            assert_eq!(kinds().filter(|other| other.path() == kind.path()).count(), 1, "{kind:?}");
            assert_eq!(kinds().filter(|other| other.key() == kind.key()).count(), 1, "{kind:?}");
        }
        let batches = Subject::team("t").limit("x".into(), Quantity::RequestsInFlight, Window::OpenBatches);
        assert_eq!(LimitKind::of(&batches), None);
    }

    #[test]
    fn a_bound_is_shown_in_its_own_unit() {
        assert_eq!(LimitKind::AudioSecondsPerHour.shown(90_000), "90");
        assert_eq!(LimitKind::DailyBudget.shown(1_500_000_000), "$1.50");
        assert_eq!(LimitKind::MaxInFlight.shown(7), "7");
    }
}
