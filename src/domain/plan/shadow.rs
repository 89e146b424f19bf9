//! What limits in shadow would refuse.

use super::{Line, Plan};
use crate::domain::{
    counter::Hold,
    decision::Violation,
    explain,
    limit::{LimitMode, OnShortfall},
};

impl Line {
    /// Whether the limit would refuse if it was not in shadow.
    #[must_use]
    pub fn is_in_shadow(&self) -> bool {
        !self.enforced
            && self.limit.mode == LimitMode::Shadow
            && self.limit.bound.is_some()
            && self.limit.on_shortfall != OnShortfall::Warn
    }
}

impl Plan<'_> {
    /// What would refuse the request if it was not in shadow, lists and caps first, given what each limit has used. A budget that
    /// would only clamp refuses nothing.
    #[must_use]
    pub fn shadow_violations(&self, used: &[u64]) -> Vec<Violation> {
        let amount = |index: usize| self.holds.get(index).as_ref().map_or(0, Hold::amount);
        let exceeded: Vec<usize> = self.exceeded(used, amount).collect();
        if exceeded.is_empty() {
            return self.shadow.clone();
        }
        if let Some(output) = self.affordable_output(exceeded.iter().copied(), used) {
            // With less output, other limits may not refuse either.
            let mut shorter = self.clone();
            if shorter.clamp(output).is_ok() {
                return shorter.shadow_violations(used);
            }
        }
        let of_limits = self.exceeded(used, |index| self.least_amount(index)).filter_map(|index| {
            let (line, used) = (self.lines.get(index)?, used.get(index)?);
            Some(explain::shadow_violation(line, *used, self.least_amount(index)))
        });
        self.shadow.iter().cloned().chain(of_limits).collect()
    }

    /// The limits in shadow that have no room for `amount`, by index.
    fn exceeded(&self, used: &[u64], amount: impl Fn(usize) -> u64) -> impl Iterator<Item = usize> {
        let lines = self.lines.iter().zip(used).enumerate();
        lines.filter_map(move |(index, (line, used))| {
            let bound = line.limit.bound.filter(|_| line.is_in_shadow())?;
            (used.saturating_add(amount(index)) > bound).then_some(index)
        })
    }
}
