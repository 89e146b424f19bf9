//! Budgets as they stand.

use super::{counter::CounterState, limit::Limit};

/// The state of a budget.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BudgetState {
    /// The bound in nano-USD.
    pub budget: Option<u64>,
    /// What was recorded.
    pub spent: u64,
    /// What is reserved and not settled.
    pub reserved: u64,
    /// Reservations that are not settled.
    pub unsettled: u64,
}

impl BudgetState {
    /// The state that a budget's counter tells, with the bound of `limit`, where there is one.
    #[must_use]
    pub fn of(limit: Option<&Limit>, state: CounterState) -> Self {
        Self {
            budget: limit.and_then(|limit| limit.bound),
            spent: state.settled,
            reserved: state.used.saturating_sub(state.settled),
            unsettled: state.open,
        }
    }
}
