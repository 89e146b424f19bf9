//! What refused requests, as rows of denials have it.

use std::sync::Arc;

use super::OTHER_VALUE;
use crate::domain::decision::Reason;

/// What refused the requests of a row of denials: the first of their violations.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DenialCause {
    /// Why. `None`: only a later release knows it.
    pub reason: Option<Reason>,
    /// The limit's place in the policy; empty if no limit is involved.
    pub limit_id: Arc<str>,
}

impl DenialCause {
    /// As a row's value: the reason's short name, a bar, and the limit.
    #[must_use]
    pub fn text(&self) -> String {
        let Self { reason, limit_id } = self;
        format!("{}|{limit_id}", reason.map_or("", Reason::name))
    }

    /// The inverse of [`Self::text`].
    #[must_use]
    pub fn of_text(text: &str) -> Self {
        let (reason, limit_id) = text.split_once('|').unwrap_or((text, ""));
        Self { reason: Reason::of_name(reason), limit_id: limit_id.into() }
    }

    /// Any limit, for the same reason.
    #[must_use]
    pub fn other(self) -> Self {
        Self { limit_id: OTHER_VALUE.into(), ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        domain::request::Operation,
        store::{Series, UsageKey, UsageSet},
    };

    #[test]
    fn a_cause_is_read_as_it_was_written_and_has_one_other() {
        for limit_id in ["", "teams.bot.budget.monthly_usd", "a|b", OTHER_VALUE] {
            let cause = DenialCause { reason: Some(Reason::Paused), limit_id: limit_id.into() };
            assert_eq!(DenialCause::of_text(&cause.text()), cause);
        }
        assert_eq!(DenialCause::of_text("of_later|x"), DenialCause { reason: None, limit_id: "x".into() });
        let set = UsageSet { series: Series::Denials, period: 20_261_123, team: "t".into() };
        let day = UsageKey::of_day(0, "".into(), 20_261_123, "m".into(), "k".into());
        let row = UsageKey { set, value: "paused|x".into(), operation: Some(Operation::Speech), ..day };
        let other = row.other().unwrap();
        assert_eq!((&*other.model, &*other.key, &*other.value), ("(other)", "(other)", "paused|(other)"));
        assert_eq!((other.operation, other.other()), (None, None));
    }
}
