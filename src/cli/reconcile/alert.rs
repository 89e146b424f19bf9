//! What drifts, reported to the server, which tells operators of it.

use std::{
    collections::BTreeSet,
    io::{self, Write as _},
};

use serde_json::{Value, json};

use super::{Outcome, print, reason::reason};
use crate::{
    cli::{
        client::{self, Line},
        screen::{Failure, Screen},
        text,
    },
    domain::{
        MAX_AMOUNT,
        drift::{MAX_CAUSE_BYTES, MAX_DRIFTS, MAX_PROJECT_BYTES},
        name::MAX_MODEL_BYTES,
    },
    reconcile::Drifting,
    rpc::{
        google_type::Money,
        proto::{
            ReportDriftRequest, ReportDriftResponse, UsageDrift, alert_service_client::AlertServiceClient,
        },
    },
};

const NANOS: u64 = 1_000_000_000;

/// What the server did.
pub(super) struct Reported {
    opened: i32,
    resolved: i32,
    /// Drifts that had an alert.
    known: usize,
}

/// What is to be reported: all that drifts, over the whole month, so that the alert of a drift is the same one each time.
pub(super) fn request(outcome: &Outcome) -> Result<ReportDriftRequest, Failure> {
    let Outcome { month, tolerance, books, reconciled, .. } = outcome;
    let drifting = reconciled.drifting(*tolerance);
    if drifting.len() > MAX_DRIFTS {
        return Err(Failure::new(format!(
            "{} models and projects drift, and a report has at most {MAX_DRIFTS}; --tolerance leaves the small ones out",
            text::group(drifting.len() as u128)
        )));
    }
    let next = if month % 100 == 12 { month + 89 } else { month + 1 };
    let [start_date, end_date] = [*month, next].map(|month| print::day(month * 100 + 1));
    let mut seen = BTreeSet::new();
    let drift = |Drifting { sum, finding }: Drifting<'_>| {
        let cause = finding.map(|finding| reason(finding, books)).unwrap_or_default();
        UsageDrift {
            start_date: start_date.clone(),
            end_date: end_date.clone(),
            project: fitting(&sum.project, MAX_PROJECT_BYTES),
            model: fitting(&sum.model, MAX_MODEL_BYTES),
            booked: Some(dollars(sum.booked.cost_nanos)),
            billed: Some(dollars(sum.billed.as_ref().map_or(0, |billed| billed.cost_nanos))),
            likely_cause: fitting(&cause, MAX_CAUSE_BYTES),
        }
    };
    let mut drifts: Vec<_> = drifting.into_iter().map(drift).collect();
    // Lines of an invoice that begin alike for hundreds of letters are one: that of the largest drift, which comes first.
    drifts.retain(|drift| seen.insert((drift.project.clone(), drift.model.clone())));
    Ok(ReportDriftRequest { start_date, end_date, drifts })
}

/// Reports it.
pub(super) async fn report(channel: Line, request: ReportDriftRequest) -> Result<Reported, Failure> {
    let drifts = request.drifts.len();
    let answer = AlertServiceClient::new(channel).report_drift(request).await;
    let answer = answer.map_err(|status| client::explain(&status))?.into_inner();
    let ReportDriftResponse { opened_count: opened, resolved_count: resolved } = answer;
    let known = drifts.saturating_sub(usize::try_from(opened).unwrap_or(0));
    Ok(Reported { opened, resolved, known })
}

pub(super) fn print(screen: &mut Screen, Reported { opened, resolved, known }: &Reported) -> io::Result<()> {
    writeln!(screen, "\nAlerts of drift: {opened} opened, {resolved} resolved, {known} open before")
}

pub(super) fn to_json(Reported { opened, resolved, known }: &Reported) -> Value {
    json!({ "opened_count": opened, "resolved_count": resolved, "open_before_count": known })
}

/// Without what a report may not have, and cut to what it may.
fn fitting(name: &str, most: usize) -> String {
    let mut name = text::plain(name);
    name.truncate(name.floor_char_boundary(most));
    name
}

/// What is less than nothing, as credits make it, counts as nothing.
fn dollars(nanos: i128) -> Money {
    let nanos = u64::try_from(nanos.max(0)).unwrap_or(u64::MAX).min(MAX_AMOUNT);
    let part = |part: u64| i64::try_from(part).unwrap_or(0);
    Money {
        currency_code: "USD".to_owned(),
        units: part(nanos / NANOS),
        nanos: i32::try_from(nanos % NANOS).unwrap_or(0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reconcile::{Bill, Books, Format, Reconciled, reconcile};

    fn outcome(file: &str, month: u32) -> Outcome {
        let bill = Bill::read(file.as_bytes(), Format::Invoice).unwrap();
        let books = Books::default();
        let reconciled: Reconciled = reconcile((&bill, Format::Invoice), &books, month, 0);
        Outcome { month, tolerance: 0, bill, books, reconciled }
    }

    #[test]
    fn what_is_reported_is_within_the_bounds_of_a_report() {
        let long = "ä".repeat(200);
        let file =
            format!("description,amount\n{long}x,1.5\n{long}y,7\nCredit,-3\nHuge,99999999999\nTab\there,2\n");
        let request = request(&outcome(&file, 202_612)).unwrap();
        assert_eq!((&*request.start_date, &*request.end_date), ("2026-12-01", "2027-01-01"));
        let told: Vec<_> = request
            .drifts
            .iter()
            .map(|drift| {
                assert_eq!((&drift.start_date, &drift.end_date), (&request.start_date, &request.end_date));
                assert!(drift.likely_cause.starts_with("a line of no model"), "{}", drift.likely_cause);
                let billed = drift.billed.as_ref().unwrap();
                (&*drift.model, billed.units, billed.nanos)
            })
            .collect();
        let cut = "ä".repeat(128);
        let expected = [("Huge", 9_007_199, 254_740_991), (&*cut, 7, 0), ("Credit", 0, 0), ("Tabhere", 2, 0)];
        assert_eq!(told, expected);
    }

    #[test]
    fn more_than_a_report_may_have_is_refused() {
        let mut file = "description,amount\n".to_owned();
        (0..=MAX_DRIFTS).for_each(|number| file += &format!("line {number},1\n"));
        let failure = request(&outcome(&file, 202_611)).unwrap_err().to_string();
        assert!(failure.starts_with("1,001 models and projects drift"), "{failure}");
    }
}
