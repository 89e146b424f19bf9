//! Alerts of drift, as reports open and resolve them, once for all stores.

use tollgate::{
    alerts::{DriftOutcome, report_drift},
    domain::drift::{Days, Drift, DriftReport},
    store::{AlertId, Notice, OUTBOX_KEPT, OutboxEntry, Store},
};

use super::{behaviours, join_all};
use crate::harness::{Fixture, START};

behaviours! {
    a_report_opens_each_drift_once_and_resolves_what_is_gone
    a_routed_alert_and_one_that_is_over_are_known_as_such
    reports_of_other_days_are_apart
    what_drifts_again_is_another_alert
    two_reports_at_once_open_one_alert
    an_alert_is_known_for_as_long_as_it_is_kept
    many_alerts_among_many_entries_are_found
}

const DAY: u64 = 86_400_000;
const NOVEMBER: Days = Days { start: 20_261_101, end: 20_261_201 };
const OCTOBER: Days = Days { start: 20_261_001, end: 20_261_101 };

fn report(days: Days, models: &[&str]) -> DriftReport {
    let drift = |model: &&str| Drift {
        days,
        project: "main".into(),
        model: (*model).into(),
        booked: 1,
        billed: 2,
        cause: "why".into(),
    };
    DriftReport { days, drifts: models.iter().map(drift).collect() }
}

async fn told<S: Store>(f: &Fixture<S>, days: Days, models: &[&str]) -> DriftOutcome {
    report_drift(&f.store, &report(days, models), f.store.now()).await.unwrap()
}

/// How many alerts a report opened and resolved.
async fn counts<S: Store>(f: &Fixture<S>, days: Days, models: &[&str]) -> (usize, usize) {
    let DriftOutcome { opened, resolved } = told(f, days, models).await;
    (opened.len(), resolved.len())
}

/// The notices of the outbox without a queue, the last one first.
async fn notices<S: Store>(f: &Fixture<S>) -> Vec<(AlertId, Notice)> {
    let entries = f.store.outbox_page(None, 64).await.unwrap();
    let notice = |entry: OutboxEntry| Some((AlertId::of_entry(&entry.id)?, Notice::read(&entry.payload)?));
    entries.into_iter().filter_map(notice).collect()
}

async fn a_report_opens_each_drift_once_and_resolves_what_is_gone<S: Store>(f: &Fixture<S>) {
    assert_eq!(counts(f, NOVEMBER, &[]).await, (0, 0));
    let DriftOutcome { opened, .. } = told(f, NOVEMBER, &["a", "b"]).await;
    assert_eq!(opened.len(), 2);
    f.at(5_000);
    assert_eq!(counts(f, NOVEMBER, &["b", "a"]).await, (0, 0), "the same report");
    assert_eq!(notices(f).await.len(), 2);
    f.at(DAY);
    let DriftOutcome { opened: new, resolved } = told(f, NOVEMBER, &["b", "c"]).await;
    assert_eq!((new.len(), &resolved), (1, &vec![opened[0].clone()]));
    // Both entries of one alert say when it opened, and one when it was over.
    let of_it: Vec<_> = notices(f).await.into_iter().filter(|(id, _)| *id == opened[0]).collect();
    let times: Vec<_> = of_it.iter().map(|(_, notice)| (notice.at, notice.resolved)).collect();
    assert_eq!(times, [(START, Some(START.plus(DAY))), (START, None)]);
    assert_eq!(counts(f, NOVEMBER, &[]).await, (0, 2));
    assert_eq!(counts(f, NOVEMBER, &[]).await, (0, 0));
}

/// As the router leaves it: the alert with what is watched, and without once it is over.
async fn a_routed_alert_and_one_that_is_over_are_known_as_such<S: Store>(f: &Fixture<S>) {
    told(f, NOVEMBER, &["a", "b"]).await;
    let claimed = f.store.outbox_claim("".into(), 8, 60_000).await.unwrap().entries;
    assert_eq!(claimed.len(), 2);
    for (claimed, is_over) in claimed.into_iter().zip([false, true]) {
        let notice: serde_json::Value = serde_json::from_slice(&claimed.entry.payload[1..]).unwrap();
        let alert = serde_json::json!({
            "id": "x", "kind": "ALERT_KIND_USAGE_DRIFT", "severity": "SEVERITY_WARNING", "state": "ALERT_STATE_OPEN",
            "createTime": "2026-11-23T10:00:00Z", "summary": "s", "organization": "acme",
        });
        let mut event = serde_json::json!({ "alert": alert, "watched": notice });
        if is_over {
            event.as_object_mut().unwrap().remove("watched");
        }
        let payload = [&[2], event.to_string().as_bytes()].concat().into();
        let entry = OutboxEntry { payload, ..claimed.entry.clone() };
        let claimed = tollgate::store::ClaimedEntry { entry, ..claimed };
        assert!(f.store.outbox_update(claimed, Some(9)).await.unwrap());
    }
    assert_eq!(counts(f, NOVEMBER, &[]).await, (0, 1));
}

async fn reports_of_other_days_are_apart<S: Store>(f: &Fixture<S>) {
    assert_eq!(counts(f, OCTOBER, &["a"]).await, (1, 0));
    assert_eq!(counts(f, NOVEMBER, &["a"]).await, (1, 0));
    assert_eq!(counts(f, NOVEMBER, &[]).await, (0, 1));
    assert_eq!(counts(f, OCTOBER, &["a"]).await, (0, 0));
    assert_eq!(counts(f, OCTOBER, &[]).await, (0, 1));
}

async fn what_drifts_again_is_another_alert<S: Store>(f: &Fixture<S>) {
    let mut ids = Vec::new();
    for minute in 0..70 {
        f.at(minute * 60_000);
        let DriftOutcome { opened, .. } = told(f, NOVEMBER, &["a"]).await;
        assert_eq!(counts(f, NOVEMBER, &[]).await, (0, opened.len()));
        ids.extend(opened);
    }
    assert_eq!(ids.len(), 64, "past that it is not told again on this day");
    f.at(DAY);
    ids.extend(told(f, NOVEMBER, &["a"]).await.opened);
    assert_eq!(ids.iter().collect::<std::collections::HashSet<_>>().len(), 65);
}

async fn two_reports_at_once_open_one_alert<S: Store>(f: &Fixture<S>) {
    let outcomes = join_all((0..8).map(|_| told(f, NOVEMBER, &["a"]))).await;
    let mut ids: Vec<_> = outcomes.into_iter().flat_map(|outcome| outcome.opened).collect();
    ids.dedup();
    assert_eq!((ids.len(), notices(f).await.len()), (1, 1));
}

async fn an_alert_is_known_for_as_long_as_it_is_kept<S: Store>(f: &Fixture<S>) {
    let DriftOutcome { opened, .. } = told(f, NOVEMBER, &["a"]).await;
    f.at(89 * DAY);
    assert_eq!(counts(f, NOVEMBER, &["a"]).await, (0, 0));
    // It opened in the course of its day, and is kept by the beginning of that.
    f.at(92 * DAY);
    f.store.outbox_append(Vec::new(), OUTBOX_KEPT).await.unwrap();
    let again = told(f, NOVEMBER, &["a"]).await;
    assert_eq!((again.opened.len(), again.resolved.len()), (1, 0));
    assert_ne!(again.opened, opened);
}

/// Of other days, of other alerts and their deliveries.
async fn many_alerts_among_many_entries_are_found<S: Store>(f: &Fixture<S>) {
    let models: Vec<String> = (0..150).map(|number| format!("model-{number}")).collect();
    let models: Vec<&str> = models.iter().map(String::as_str).collect();
    for day in [0, 1, 5] {
        f.at(day * DAY);
        let own = &models[..usize::try_from(day).unwrap() * 20 + 50];
        let opened = told(f, NOVEMBER, own).await.opened;
        assert_eq!(
            opened.len(),
            if day == 0 {
                50
            } else if day == 1 {
                20
            } else {
                80
            }
        );
        let delivery = |id: &AlertId| OutboxEntry {
            id: format!("{}_open/ops", id.as_str()).parse().unwrap(),
            payload: "\u{3}{}".into(),
        };
        let other = |number: usize| OutboxEntry {
            id: format!("{:012x}{number:016x}_open", START.plus(day * DAY).0).parse().unwrap(),
            payload: "\u{2}{}".into(),
        };
        let entries: Vec<_> = opened.iter().map(delivery).chain((0..100).map(other)).collect();
        for entries in entries.chunks(64) {
            f.store.outbox_append(entries.to_vec(), OUTBOX_KEPT).await.unwrap();
        }
    }
    assert_eq!(counts(f, NOVEMBER, &models).await, (0, 0));
    f.at(6 * DAY);
    assert_eq!(counts(f, NOVEMBER, &models[1..]).await, (0, 1));
    assert_eq!(counts(f, NOVEMBER, &[]).await, (0, 149));
    assert_eq!(counts(f, NOVEMBER, &[]).await, (0, 0));
}
