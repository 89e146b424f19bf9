//! Budgets, to the nano-dollar: what the store surely had of each when it granted a request, by everything that it had done before.

use super::{End, Grant, LIFE_MS, Records, Rules};
use crate::sim::history::Booking;

impl Booking {
    /// Whether it was done before the store was asked for `grant`, and not forgotten by its answer.
    fn is_before(&self, grant: &Grant) -> bool {
        self.answered < grant.step && self.lost_at.is_none_or(|lost| lost > grant.answered)
    }

    /// Whether it was done in between, as a store that answers later than it decides does it.
    fn may_be_before(&self, grant: &Grant) -> bool {
        self.step <= grant.answered && self.lost_at.is_none_or(|lost| lost >= grant.step)
    }
}

impl Grant {
    /// The least that a budget had of it when the store decided about `later`.
    fn least_before(&self, later: &Self) -> u64 {
        if self.answered >= later.step || self.lost_at.is_some_and(|lost| lost <= later.answered) {
            return 0;
        }
        // What is not kept counts for the life of a reservation at least.
        let open = if later.made < self.asked + LIFE_MS { self.worst } else { self.kept };
        let before = self.settlements.iter().rev().find(|booking| booking.is_before(later));
        let surely = before.map_or(open, |booking| booking.cost);
        let maybe = self.settlements.iter().filter(|booking| booking.may_be_before(later));
        maybe.map(|booking| booking.cost).fold(surely, u64::min)
    }
}

/// What was granted of a budget that surely did not have it.
pub(super) fn over(records: &Records, rules: &Rules, team: Option<usize>) -> Vec<(String, u64)> {
    let own: Vec<&Grant> =
        records.grants.iter().filter(|grant| team.is_none_or(|team| grant.team == team)).collect();
    let mut found = Vec::new();
    let mut look = |most: u64, period: fn(&Grant) -> u32| {
        for grant in own.iter().filter(|grant| !grant.is_unbounded) {
            let before = own.iter().filter(|other| period(other) == period(grant));
            let sum = before.map(|other| other.least_before(grant)).sum::<u64>() + grant.worst;
            if sum > most {
                found.push((format!("{} budget of {}, {}", rules.team, period(grant), grant.id), sum));
            }
        }
    };
    look(rules.monthly_nanos, |grant| grant.month);
    if let Some(most) = rules.daily_nanos {
        look(most, |grant| grant.day);
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::ReservationId;

    fn grant(step: u64, worst: u64) -> Grant {
        Grant {
            id: ReservationId([0; 16]),
            team: 0,
            asked: step,
            made: step,
            step,
            answered: step + 1,
            lost_at: None,
            settlements: Vec::new(),
            worst,
            kept: 0,
            tokens: 0,
            month: 1,
            day: 1,
            is_unbounded: false,
            end: End::Open,
            was_reopened: false,
            was_delivered: false,
            replica: 0,
        }
    }

    #[test]
    fn a_nano_dollar_counts() {
        let rules = &crate::sim::rules::TIGHT.teams[1];
        let most = rules.monthly_nanos;
        let over = |grants: Vec<Grant>| over(&Records { grants, ..Records::default() }, rules, Some(0)).len();
        assert_eq!(over(vec![grant(1, most - 7), grant(3, 7)]), 0);
        assert_eq!(over(vec![grant(1, most - 7), grant(3, 8)]), 1);
        let settled = |answered, lost_at| {
            let booking = Booking { cost: 1, step: 3, answered, lost_at };
            Grant { settlements: vec![booking], ..grant(1, most) }
        };
        assert_eq!(over(vec![settled(3, None), grant(4, most - 1)]), 0);
        assert_eq!(over(vec![settled(3, None), grant(4, most)]), 1);
        assert_eq!(over(vec![settled(6, None), grant(4, most - 1)]), 0, "it may have been settled by then");
        assert_eq!(over(vec![settled(3, Some(4)), grant(5, most - 1)]), 1, "the store forgot that");
        let lost = Grant { lost_at: Some(3), ..grant(1, most) };
        assert_eq!(over(vec![lost, grant(4, most)]), 0);
    }
}
