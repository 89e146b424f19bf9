//! What differs between the books and Groq's bill, as a report of some days says it, and what that means for the alerts of earlier ones.

use std::{collections::BTreeSet, fmt, sync::Arc};

use serde::{Deserialize, Serialize};

/// The most drifts of one report: each opens an alert.
pub const MAX_DRIFTS: usize = 1_000;
/// The most bytes of a project's name, which may be one of Groq's that the policy does not have.
pub const MAX_PROJECT_BYTES: usize = 128;
/// The most bytes of a likely cause. It stands six times in an entry of the outbox, which has a bound.
pub const MAX_CAUSE_BYTES: usize = 400;

/// Some days.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Days {
    /// The first, as `20261123`.
    pub start: u32,
    /// The one after the last.
    pub end: u32,
}

impl Days {
    /// Whether `other` has no day that this does not have.
    #[must_use]
    pub const fn hold(self, other: Self) -> bool {
        self.start <= other.start && other.end <= self.end
    }
}

/// `2026-11-01/2026-12-01`, as ISO 8601 writes an interval; the second is the day after the last.
impl fmt::Display for Days {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", day(self.start), day(self.end))
    }
}

/// A day as `2026-11-23`.
#[must_use]
pub fn day(day: u32) -> String {
    format!("{:04}-{:02}-{:02}", day / 10_000, day / 100 % 100, day % 100)
}

/// A difference between what was booked and what Groq billed, in one project and model. Kept as JSON, to which fields are added.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drift {
    /// Over which days.
    #[serde(flatten)]
    pub days: Days,
    /// The project; empty: projects were not compared.
    pub project: Arc<str>,
    /// The model; empty: it was billed without one.
    pub model: Arc<str>,
    /// What was booked, in nano-dollars.
    pub booked: u64,
    /// What was billed, in nano-dollars.
    pub billed: u64,
    /// The likely cause; empty: it is not known.
    pub cause: Arc<str>,
}

/// What tells one drift from another: its amounts and its cause may change while it lasts.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct DriftKey<'d> {
    days: Days,
    project: &'d str,
    model: &'d str,
}

impl Drift {
    /// What tells it from others.
    #[must_use]
    pub fn key(&self) -> DriftKey<'_> {
        DriftKey { days: self.days, project: &self.project, model: &self.model }
    }

    /// [`Self::key`] as one text, which no other has. Names may have any character, so the first one says how long it is.
    #[must_use]
    pub fn subject(&self) -> String {
        let Self { days, project, model, .. } = self;
        format!("{days}/{}/{project}/{model}", project.len())
    }
}

/// All that was found to drift over some days.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DriftReport {
    /// The days that were compared.
    pub days: Days,
    /// What drifts; no two have one key.
    pub drifts: Vec<Drift>,
}

/// An alert of drift that is not resolved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenDrift<A> {
    /// The alert.
    pub alert: A,
    /// The days of the report that opened it.
    pub report: Days,
    /// Of what it is.
    pub drift: Drift,
}

impl DriftReport {
    /// Which of its drifts have no alert yet, and which of the `open` alerts it resolves. A report says nothing of what was found in a
    /// comparison of other days.
    #[must_use]
    pub fn changes<'a, A>(&'a self, open: &'a [OpenDrift<A>]) -> (Vec<&'a Drift>, Vec<&'a OpenDrift<A>>) {
        let known: BTreeSet<_> = open.iter().map(|open| open.drift.key()).collect();
        let found: BTreeSet<_> = self.drifts.iter().map(Drift::key).collect();
        let opened = self.drifts.iter().filter(|drift| !known.contains(&drift.key()));
        let is_over = |open: &&OpenDrift<A>| open.report == self.days && !found.contains(&open.drift.key());
        (opened.collect(), open.iter().filter(is_over).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOVEMBER: Days = Days { start: 20_261_101, end: 20_261_201 };
    const DECEMBER: Days = Days { start: 20_261_201, end: 20_270_101 };
    const A_DAY: Days = Days { start: 20_261_123, end: 20_261_124 };

    fn drift(days: Days, project: &str, model: &str) -> Drift {
        Drift { days, project: project.into(), model: model.into(), booked: 1, billed: 2, cause: "x".into() }
    }

    fn open(alert: u8, report: Days, drift: Drift) -> OpenDrift<u8> {
        OpenDrift { alert, report, drift }
    }

    fn changes(report: &DriftReport, open: &[OpenDrift<u8>]) -> (Vec<String>, Vec<u8>) {
        let (opened, resolved) = report.changes(open);
        let opened = opened.into_iter().map(Drift::subject).collect();
        (opened, resolved.into_iter().map(|open| open.alert).collect())
    }

    #[test]
    fn a_report_opens_what_is_new_and_resolves_what_is_gone() {
        let report = |drifts: &[Drift]| DriftReport { days: NOVEMBER, drifts: drifts.to_vec() };
        let [a, b] = ["a", "b"].map(|model| drift(NOVEMBER, "p", model));
        assert_eq!(changes(&report(&[]), &[]), (vec![], vec![]));
        let first = report(&[a.clone(), b.clone()]);
        assert_eq!(
            changes(&first, &[]),
            (
                vec!["2026-11-01/2026-12-01/1/p/a".to_owned(), "2026-11-01/2026-12-01/1/p/b".to_owned()],
                vec![]
            )
        );
        let both = [open(1, NOVEMBER, a.clone()), open(2, NOVEMBER, b.clone())];
        assert_eq!(changes(&first, &both), (vec![], vec![]), "the same report changes nothing");
        // Another amount and another cause are the same drift.
        let more = Drift { billed: 9, cause: "y".into(), ..a.clone() };
        assert_eq!(changes(&report(&[more]), &both), (vec![], vec![2]));
        assert_eq!(changes(&report(&[]), &both), (vec![], vec![1, 2]));
        // One that was opened twice, by two replicas at once around midnight, is resolved twice.
        assert_eq!(changes(&report(&[]), &[both[0].clone(), open(3, NOVEMBER, a)]), (vec![], vec![1, 3]));
    }

    #[test]
    fn a_report_of_other_days_resolves_nothing() {
        let a = drift(NOVEMBER, "p", "a");
        let of = |days| DriftReport { days, drifts: Vec::new() };
        let known = [open(1, NOVEMBER, a.clone()), open(2, NOVEMBER, drift(A_DAY, "p", "a"))];
        assert_eq!(changes(&of(DECEMBER), &known), (vec![], vec![]));
        assert_eq!(
            changes(&of(A_DAY), &known),
            (vec![], vec![]),
            "the days of the drift are not those of the report"
        );
        assert_eq!(changes(&of(NOVEMBER), &known), (vec![], vec![1, 2]));
        // The same drift, found over more days: it has an alert.
        let days = Days { end: DECEMBER.end, ..NOVEMBER };
        assert_eq!(changes(&DriftReport { days, drifts: vec![a] }, &known), (vec![], vec![]));
    }

    #[test]
    fn drifts_are_told_apart_by_their_days_project_and_model() {
        let subjects = [
            drift(NOVEMBER, "p", "m"),
            drift(A_DAY, "p", "m"),
            drift(NOVEMBER, "", "m"),
            drift(NOVEMBER, "p", ""),
            drift(NOVEMBER, "p/m", "m"),
            drift(NOVEMBER, "p", "m/m"),
        ]
        .map(|drift| drift.subject());
        assert_eq!(subjects.iter().collect::<BTreeSet<_>>().len(), subjects.len(), "{subjects:?}");
        assert_eq!(A_DAY.to_string(), "2026-11-23/2026-11-24");
        for (outer, inner, hold) in [
            (NOVEMBER, A_DAY, true),
            (NOVEMBER, NOVEMBER, true),
            (A_DAY, NOVEMBER, false),
            (DECEMBER, A_DAY, false),
        ] {
            assert_eq!(outer.hold(inner), hold, "{outer} {inner}");
        }
    }
}
