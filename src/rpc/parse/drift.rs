//! Reports of drift.

use std::collections::BTreeSet;

use tonic::Status;

use super::super::{google_type::Money, proto, status::FieldErrors};
use crate::domain::{
    drift::{Days, Drift, DriftReport, MAX_CAUSE_BYTES, MAX_DRIFTS, MAX_PROJECT_BYTES},
    name::MAX_MODEL_BYTES,
};

/// A well-formed `ReportDriftRequest`.
pub(in crate::rpc) fn drift(request: proto::ReportDriftRequest) -> Result<DriftReport, Status> {
    let mut errors = FieldErrors::default();
    let (start, end) = errors.interval(&request.start_date, &request.end_date);
    let days = Days { start, end };
    if request.drifts.len() > MAX_DRIFTS {
        let given = request.drifts.len();
        errors.add("drifts", format!("{given} drifts; at most {MAX_DRIFTS} are permitted"));
    }
    // What it is compared with is known.
    let whole = errors.is_empty().then_some(days);
    let drifts: Vec<Drift> = request
        .drifts
        .into_iter()
        .take(MAX_DRIFTS)
        .enumerate()
        .map(|(index, drift)| errors.one_drift(index, drift, whole))
        .collect();
    let mut seen = BTreeSet::new();
    for (index, drift) in drifts.iter().enumerate() {
        if drift.days.start > 0 && !seen.insert(drift.key()) {
            errors.add(&format!("drifts[{index}]"), "an earlier one is of the same days, project and model");
        }
    }
    errors.or(DriftReport { days, drifts })
}

impl FieldErrors {
    fn one_drift(&mut self, index: usize, drift: proto::UsageDrift, whole: Option<Days>) -> Drift {
        let proto::UsageDrift { start_date, end_date, project, model, booked, billed, likely_cause } = drift;
        let field = |name: &str| format!("drifts[{index}].{name}");
        let (start, end) =
            (self.day(&field("start_date"), &start_date), self.day(&field("end_date"), &end_date));
        let days = Days { start, end };
        if start > 0 && end > 0 {
            if end <= start {
                self.add(&field("end_date"), "must be after `start_date`: it is the day after the last");
            } else if let Some(whole) = whole.filter(|whole| !whole.hold(days)) {
                let outer = if start < whole.start { "start_date" } else { "end_date" };
                self.add(&field(outer), format!("must be within the days of the report, {whole}"));
            }
        }
        Drift {
            days,
            project: self.text(&field("project"), project, 0, MAX_PROJECT_BYTES).into(),
            model: self.text(&field("model"), model, 0, MAX_MODEL_BYTES).into(),
            booked: self.amount_of(&field("booked"), booked),
            billed: self.amount_of(&field("billed"), billed),
            cause: self.text(&field("likely_cause"), likely_cause, 0, MAX_CAUSE_BYTES).into(),
        }
    }

    /// An amount in nano-dollars, which has to be given: a message that was left out is no amount of 0.
    fn amount_of(&mut self, field: &str, money: Option<Money>) -> u64 {
        let Some(money) = money else {
            self.add(field, "required: an amount of USD");
            return 0;
        };
        self.dollars(field, &money).map_or(0, |amount| amount.nanos())
    }
}

#[cfg(test)]
mod tests {
    use tonic_types::StatusExt as _;

    use super::*;

    type Fault = fn(&mut proto::UsageDrift);

    fn usd(units: i64, nanos: i32) -> Option<Money> {
        Some(Money { currency_code: "USD".to_owned(), units, nanos })
    }

    fn wire() -> proto::UsageDrift {
        proto::UsageDrift {
            start_date: "2026-11-01".to_owned(),
            end_date: "2026-12-01".to_owned(),
            project: "main".to_owned(),
            model: "m/a".to_owned(),
            booked: usd(1, 500_000_000),
            billed: usd(2, 0),
            likely_cause: "because".to_owned(),
        }
    }

    fn request(drifts: Vec<proto::UsageDrift>) -> proto::ReportDriftRequest {
        let (start_date, end_date) = ("2026-11-01".to_owned(), "2026-12-01".to_owned());
        proto::ReportDriftRequest { start_date, end_date, drifts }
    }

    /// The fields that are named.
    fn refused(request: proto::ReportDriftRequest) -> Vec<String> {
        let status = drift(request).unwrap_err();
        status.get_details_bad_request().unwrap().field_violations.into_iter().map(|v| v.field).collect()
    }

    #[test]
    fn a_report_is_read() {
        let days = Days { start: 20_261_101, end: 20_261_201 };
        let expected = Drift {
            days,
            project: "main".into(),
            model: "m/a".into(),
            booked: 1_500_000_000,
            billed: 2_000_000_000,
            cause: "because".into(),
        };
        let bare = proto::UsageDrift {
            project: String::new(),
            model: String::new(),
            likely_cause: String::new(),
            booked: usd(0, 0),
            billed: usd(9_007_199, 254_740_991),
            ..wire()
        };
        let read = drift(request(vec![wire(), bare])).unwrap();
        assert_eq!((read.days, &read.drifts[0]), (days, &expected));
        assert_eq!((&*read.drifts[1].model, read.drifts[1].billed), ("", 9_007_199_254_740_991));
        assert_eq!(drift(request(Vec::new())).unwrap().drifts, []);
        let of = |number: usize| proto::UsageDrift { model: format!("m-{number}"), ..wire() };
        assert_eq!(drift(request((0..MAX_DRIFTS).map(of).collect())).unwrap().drifts.len(), 1_000);
        assert_eq!(refused(request((0..=MAX_DRIFTS).map(of).collect())), ["drifts"]);
    }

    #[test]
    fn each_malformed_field_is_named() {
        let interval = |start: &str, end: &str| proto::ReportDriftRequest {
            start_date: start.to_owned(),
            end_date: end.to_owned(),
            drifts: Vec::new(),
        };
        for (start, end, fields) in [
            ("", "", &["start_date", "end_date"][..]),
            ("2026-11", "20261201", &["start_date", "end_date"]),
            ("2026-11-31", "2026-12-01", &["start_date"]),
            ("2026-12-01", "2026-11-01", &["end_date"]),
            ("2026-11-01", "2026-11-01", &["end_date"]),
            ("2026-11-01", "2027-12-07", &["end_date"]),
        ] {
            assert_eq!(refused(interval(start, end)), fields, "{start} {end}");
        }
        assert!(drift(interval("2026-11-01", "2027-12-06")).is_ok(), "400 days");
        let day = |day: &str| day.to_owned();
        let changed: [(&str, Fault); 14] = [
            ("start_date", |drift| drift.start_date = String::new()),
            ("start_date", |drift| drift.start_date = "2026-10-31".to_owned()),
            ("end_date", |drift| drift.end_date = "2026-12-02".to_owned()),
            ("end_date", |drift| drift.end_date.clone_from(&drift.start_date)),
            ("end_date", |drift| drift.end_date = "tomorrow".to_owned()),
            ("project", |drift| drift.project = "p".repeat(129)),
            ("model", |drift| drift.model = "m".repeat(257)),
            ("model", |drift| drift.model = "m\n".to_owned()),
            ("booked", |drift| drift.booked = None),
            ("booked", |drift| drift.booked = usd(-1, 0)),
            ("billed", |drift| drift.billed = usd(0, -1)),
            ("billed", |drift| drift.billed = usd(9_007_199, 254_740_992)),
            ("billed", |drift| drift.billed.as_mut().unwrap().currency_code = "EUR".to_owned()),
            ("likely_cause", |drift| drift.likely_cause = "x".repeat(401)),
        ];
        for (field, change) in changed {
            let other =
                proto::UsageDrift { start_date: day("2026-11-23"), end_date: day("2026-11-24"), ..wire() };
            let mut wrong = wire();
            change(&mut wrong);
            assert_eq!(refused(request(vec![other, wrong])), [format!("drifts[1].{field}")]);
        }
        assert_eq!(
            refused(request(vec![wire(), proto::UsageDrift { booked: usd(9, 0), ..wire() }])),
            ["drifts[1]"]
        );
    }
}
