//! Which models and projects drift over the month, to be told.

use std::collections::BTreeSet;

use super::{
    cause::Finding,
    compare::{Difference, Reconciled},
};

/// A model and project that drifts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drifting<'r> {
    /// What was booked and billed of it, over all days.
    pub sum: &'r Difference,
    /// The likely cause of most of it.
    pub finding: Option<&'r Finding>,
}

impl Reconciled {
    /// The models and projects of which a day, or all days together, differ by more than `tolerance` nano-USD, the largest drift first.
    /// Where only all of it together does, those that are shown with a cause. None, exactly if nothing drifts.
    #[must_use]
    pub fn drifting(&self, tolerance: u64) -> Vec<Drifting<'_>> {
        let is_beyond = |of: &&Difference| of.drift().unsigned_abs() > u128::from(tolerance);
        let parts = || self.lines.iter().chain(&self.sums);
        let mut named: BTreeSet<_> = parts().filter(is_beyond).map(name).collect();
        if named.is_empty() && is_beyond(&&self.total) {
            named = self.lines.iter().filter(|line| line.cause.is_some()).map(name).collect();
        }
        let drifting = |sum| Drifting {
            sum,
            finding: self.findings.iter().find(|finding| (&*finding.model, &*finding.project) == name(sum)),
        };
        let mut drifting: Vec<_> =
            self.sums.iter().filter(|sum| named.contains(&name(sum))).map(drifting).collect();
        drifting.sort_by_key(|drifting| std::cmp::Reverse(drifting.sum.drift().unsigned_abs()));
        drifting
    }
}

fn name(of: &Difference) -> (&str, &str) {
    (&of.model, &of.project)
}

#[cfg(test)]
mod tests {
    use crate::reconcile::{Bill, Booked, BookedRow, Books, Cause, Format, Reconciled, reconcile};

    const MONTH: u32 = 202_611;
    /// Of nano-dollars.
    const TOLERANCE: u64 = 10;

    /// Lines of a day of November, a model, and what was booked and billed.
    fn compared(lines: &[(u32, &str, i64, i64)]) -> Reconciled {
        let row = |(day, model, booked, _): &(u32, &str, i64, i64)| BookedRow {
            day: MONTH * 100 + day,
            model: (*model).to_owned(),
            project: "p".to_owned(),
            amounts: Booked { cost_nanos: (*booked).into(), ..Booked::default() },
        };
        let books = Books { rows: lines.iter().map(row).collect(), ..Books::default() };
        let mut file = "date,model,project,cost\n".to_owned();
        for (day, model, _, billed) in lines {
            file += &format!("2026-11-{day:02},{model},p,{billed}e-9\n");
        }
        let bill = Bill::read(file.as_bytes(), Format::Usage).unwrap();
        reconcile((&bill, Format::Usage), &books, MONTH, TOLERANCE)
    }

    /// The model, the drift and the likely cause of each.
    fn told(result: &Reconciled) -> Vec<(&str, i128, Option<Cause>)> {
        let drifting = result.drifting(TOLERANCE);
        assert_eq!(result.has_drift, !drifting.is_empty(), "the exit code and the alerts agree");
        let told = drifting.iter().map(|drifting| {
            assert_eq!((&*drifting.sum.project, drifting.sum.day), ("p", None));
            (&*drifting.sum.model, drifting.sum.drift(), drifting.finding.map(|finding| finding.cause))
        });
        told.collect()
    }

    #[test]
    fn what_differs_by_more_than_the_tolerance_is_told_over_all_days() {
        // To the tolerance it agrees, on each day and over all of them.
        assert_eq!(told(&compared(&[(1, "a", 100, 110), (2, "a", 100, 100), (1, "b", 100, 90)])), []);
        // A day; and one by less than it, which is shown with a cause as the sum differs, and is not told.
        let result = compared(&[(1, "a", 100, 121), (2, "b", 100, 104), (3, "c", 100, 400)]);
        let unknown = Some(Cause::Unknown);
        assert_eq!(told(&result), [("c", 300, unknown), ("a", 21, unknown)]);
        assert!(result.lines.iter().any(|line| line.model == "b" && line.cause.is_some()));
        // Days that agree, and their sum does not.
        assert_eq!(told(&compared(&[(1, "a", 100, 106), (2, "a", 100, 106)])), [("a", 12, unknown)]);
        // Days that do not agree, and their sum does.
        let shifted = compared(&[(1, "a", 100, 150), (2, "a", 100, 50)]);
        assert_eq!(told(&shifted), [("a", 0, Some(Cause::DaysShifted))]);
    }

    #[test]
    fn where_only_all_of_it_drifts_those_with_a_cause_are_told() {
        let result = compared(&[(1, "a", 100, 107), (1, "b", 100, 107), (1, "c", 100, 100)]);
        let unknown = Some(Cause::Unknown);
        assert_eq!(told(&result), [("a", 7, unknown), ("b", 7, unknown)]);
    }
}
