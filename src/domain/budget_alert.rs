//! The points of a budget at which an alert is raised, as people write them.

use std::{fmt, str::FromStr, sync::Arc};

use serde::{Deserialize, Serialize};

use super::{
    counter::MAX_REPORTED,
    limit::{Limit, Period, Threshold, Window},
    money::NanoUsd,
};

/// The largest share of a budget at which an alert makes sense: ten times the intended spend.
const MAX_PERCENT: u64 = 1_000;

/// The most alerts of one budget: half of what a store remembers as reported, so an edited list still fits.
pub const MAX_BUDGET_ALERTS: usize = MAX_REPORTED / 2;

/// A share of each period's budget, such as `80%`, or an amount of the month's, such as `$400`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct BudgetAlert {
    text: Arc<str>,
    point: Point,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Point {
    Percent(u64),
    Dollars(NanoUsd),
}

/// The text is neither a share nor an amount.
#[derive(Clone, Copy, Debug, thiserror::Error, PartialEq, Eq)]
#[error(
    "neither a percentage nor dollars; write a share from \"1%\" to \"1000%\", or an amount such as \"$400\""
)]
pub struct NotABudgetAlert;

impl BudgetAlert {
    /// The text that was read.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The amount, if it is one and no share.
    #[must_use]
    pub const fn dollars(&self) -> Option<NanoUsd> {
        match self.point {
            Point::Dollars(amount) => Some(amount),
            Point::Percent(_) => None,
        }
    }

    /// The threshold on `limit`, if there is one: a budget of zero is never crossed, only refused, and an amount is of the
    /// month.
    #[must_use]
    pub fn threshold(&self, limit: &Limit) -> Option<Threshold> {
        let bound = u128::from(limit.bound.filter(|bound| *bound > 0)?);
        let (amount, percent) = match self.point {
            Point::Percent(percent) => {
                let nanos = u64::try_from((bound * u128::from(percent)).div_ceil(100)).ok()?;
                (NanoUsd::new(nanos)?, percent)
            }
            Point::Dollars(amount) if limit.window == Window::Calendar(Period::Month) => {
                let percent = u128::from(amount.nanos()) * 100 / bound;
                (amount, u64::try_from(percent).unwrap_or(u64::MAX))
            }
            Point::Dollars(_) => return None,
        };
        Some(Threshold { text: Arc::clone(&self.text), amount, percent })
    }
}

impl FromStr for BudgetAlert {
    type Err = NotABudgetAlert;

    fn from_str(text: &str) -> Result<Self, NotABudgetAlert> {
        let point = match text.strip_prefix('$') {
            Some(dollars) => {
                dollars.parse().ok().filter(|amount| *amount > NanoUsd::ZERO).map(Point::Dollars)
            }
            None => text.strip_suffix('%').and_then(|digits| {
                let percent =
                    digits.bytes().all(|b| b.is_ascii_digit()).then(|| digits.parse().ok()).flatten()?;
                (1..=MAX_PERCENT).contains(&percent).then_some(Point::Percent(percent))
            }),
        };
        point.map(|point| Self { text: text.into(), point }).ok_or(NotABudgetAlert)
    }
}

impl TryFrom<String> for BudgetAlert {
    type Error = NotABudgetAlert;

    fn try_from(text: String) -> Result<Self, NotABudgetAlert> {
        text.parse()
    }
}

impl From<BudgetAlert> for String {
    fn from(alert: BudgetAlert) -> Self {
        alert.text.as_ref().into()
    }
}

impl fmt::Display for BudgetAlert {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Puts the thresholds of `alerts` on each of these budgets, in ascending order of amount.
pub fn put_thresholds(alerts: &[BudgetAlert], budgets: &mut [Limit]) {
    for limit in budgets {
        let thresholds: Vec<Threshold> = alerts.iter().filter_map(|alert| alert.threshold(limit)).collect();
        limit.alerts = thresholds;
        limit.alerts.sort_by_key(|threshold| threshold.amount);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_shares_and_amounts_are_alerts() {
        for text in ["1%", "80%", "1000%", "$400", "$0.5"] {
            let alert: BudgetAlert = text.parse().unwrap();
            assert_eq!((alert.text(), alert.dollars().is_some()), (text, text.starts_with('$')));
            let json = serde_json::to_string(&alert).unwrap();
            assert_eq!(json, format!("\"{text}\""));
            assert_eq!(serde_json::from_str::<BudgetAlert>(&json).unwrap(), alert);
        }
        for text in ["", "80", "0%", "1001%", "+80%", "%", "$0", "$-4", "$", "80%%", "99999999999999999999%"]
        {
            assert_eq!(text.parse::<BudgetAlert>(), Err(NotABudgetAlert), "{text}");
            assert!(serde_json::from_str::<BudgetAlert>(&format!("\"{text}\"")).is_err());
        }
    }
}
