use serde_json::{Value, json};

use super::*;
use crate::{
    alerts::{
        body,
        delivery::{Delivery, Event},
    },
    domain::{
        actor::Actor,
        drift::{Days, MAX_CAUSE_BYTES, MAX_PROJECT_BYTES},
        name::MAX_MODEL_BYTES,
        occasion::{MAX_TEXT, first_line},
    },
    policy_file::parse_policy,
    store::MAX_OUTBOX_PAYLOAD,
};

const AT: Timestamp = Timestamp(1_795_514_400_123);

fn snapshot() -> Snapshot {
    let text = "[organization]\nid = \"acme\"\n[teams.bot]\nmodels = [\"*\"]\nmax_output_tokens = 9\n\
                budget = { monthly_usd = \"200.00\" }\n";
    let report = parse_policy(text, "policy.toml");
    Snapshot::pending(std::sync::Arc::new(report.policy.expect("a sound policy")))
}

/// An alert that opened at [`AT`], and is over 90 seconds later if `is_over`.
fn alert(occasion: &Occasion, is_over: bool) -> Value {
    let notice = Notice::new(AT, occasion.clone());
    let notice = if is_over { notice.over(AT.plus(90_000)) } else { notice };
    let id = AlertId::of(occasion, AT);
    let composed = of_notice(&snapshot(), &id, &notice).unwrap();
    // Receivers get what the outbox keeps, and all of it is read again.
    let value = serde_json::to_value(&composed.alert).unwrap();
    assert_eq!(serde_json::from_value::<Alert>(value.clone()).unwrap(), composed.alert);
    let labels = |alert: &Alert| {
        let message = body::alertmanager(alert, composed.end);
        let mut labels = serde_json::from_slice::<Value>(&message.body).unwrap()[0]["labels"].clone();
        assert_eq!(labels.as_object_mut().unwrap().remove("id"), Some(json!(id.as_str())));
        labels
    };
    let open = of_notice(&snapshot(), &id, &Notice { resolved: None, ..notice }).unwrap();
    assert_eq!(labels(&composed.alert), labels(&open.alert), "Alertmanager must know it again");
    value
}

/// Holds the two alerts of something that lasts to what they say, beside what all have.
fn lasts(occasion: &Occasion, severity: &str, opened: Value, resolved: Value) {
    let id = AlertId::of(occasion, AT);
    let kind = format!("ALERT_KIND_{}", occasion.kind().name().to_ascii_uppercase());
    let common = json!({
        "id": id.as_str(), "kind": kind, "severity": severity, "organization": "acme",
        "createTime": "2026-11-24T10:00:00.123Z",
    });
    for (is_over, own) in [(false, opened), (true, resolved)] {
        let mut expected = common.clone();
        let map = expected.as_object_mut().unwrap();
        let state = if is_over { "ALERT_STATE_RESOLVED" } else { "ALERT_STATE_OPEN" };
        map.insert("state".to_owned(), state.into());
        if is_over {
            map.insert("resolveTime".to_owned(), "2026-11-24T10:01:30.123Z".into());
        }
        map.extend(own.as_object().unwrap().clone());
        assert_eq!(alert(occasion, is_over), expected);
    }
}

#[test]
fn what_groq_refuses_is_said_in_the_contracts_messages() {
    let cooldown = Occasion::UpstreamCooldown {
        project: "main".into(),
        model: "m/a".into(),
        service_tier: "on_demand".into(),
        begun: Timestamp(3),
        start: AT,
        end: AT.plus(60_500),
        requested_ms: 120_500,
        reporter: "bot".into(),
    };
    let of_cooldown = |end: &str| {
        json!({
            "project": "main", "model": "m/a", "serviceTier": "SERVICE_TIER_ON_DEMAND", "reporterTeam": "bot",
            "startTime": "2026-11-24T10:00:00.123Z", "endTime": end, "requestedDelay": "120.500s",
        })
    };
    let opened = "Groq limits requests for m/a (on_demand) of project main: none is sent until \
                  2026-11-24T10:01:00Z, or until one succeeds";
    let resolved = "Groq is sent requests for m/a (on_demand) of project main again";
    lasts(
        &cooldown,
        "SEVERITY_WARNING",
        json!({ "summary": opened, "cooldown": of_cooldown("2026-11-24T10:01:00.623Z") }),
        json!({ "summary": resolved, "cooldown": of_cooldown("2026-11-24T10:01:30.123Z") }),
    );
    let key = Occasion::UpstreamKeyRefused {
        key: "main/1f2e3d4c".into(),
        project: "main".into(),
        place: "/run/key".into(),
        since: Timestamp(0),
        is_last: true,
    };
    let own = json!({
        "name": "main/1f2e3d4c", "project": "main", "place": "/run/key", "refuseTime": "2026-11-24T10:00:00.123Z",
    });
    let mut refused = own.clone();
    refused["state"] = "UPSTREAM_KEY_STATE_REFUSED".into();
    let opened = "Groq refuses the key main/1f2e3d4c, and its project has no other";
    let resolved = "The Groq key main/1f2e3d4c works again, or was replaced";
    lasts(
        &key,
        "SEVERITY_CRITICAL",
        json!({ "summary": opened, "upstreamKey": refused }),
        json!({ "summary": resolved, "upstreamKey": own }),
    );
}

fn drift(project: &str, model: &str, end: u32, cause: &str) -> Occasion {
    let days = Days { start: 20_261_101, end };
    let (project, model, cause) = (project.into(), model.into(), cause.into());
    let drift = Drift { days, project, model, booked: 40_000_000_000, billed: 50_500_000_000, cause };
    Occasion::UsageDrift { report: Days { start: 20_261_101, end: 20_261_201 }, drift }
}

#[test]
fn drift_is_said_in_the_contracts_message() {
    let usd = |units: &str, nanos: u32| match nanos {
        0 => json!({ "currencyCode": "USD", "units": units }),
        nanos => json!({ "currencyCode": "USD", "units": units, "nanos": nanos }),
    };
    let own = json!({
        "startDate": "2026-11-01", "endDate": "2026-12-01", "project": "main", "model": "m/a",
        "booked": usd("40", 0), "billed": usd("50", 500_000_000), "likelyCause": "another price",
    });
    let opened = "Groq billed $50.50 for m/a in the project main from 2026-11-01 to 2026-11-30, and $40.00 was booked: another price";
    let resolved = "What was booked and what Groq billed for m/a in the project main from 2026-11-01 to 2026-11-30 agree again";
    lasts(
        &drift("main", "m/a", 20_261_201, "another price"),
        "SEVERITY_WARNING",
        json!({ "summary": opened, "drift": own }),
        json!({ "summary": resolved, "drift": own }),
    );
    let bare = alert(&drift("", "", 20_261_102, ""), false);
    assert_eq!(
        bare["summary"],
        "Groq billed $50.50 for what has no model on 2026-11-01, and $40.00 was booked"
    );
    let fields: Vec<_> = bare["drift"].as_object().unwrap().keys().collect();
    assert_eq!(fields, ["billed", "booked", "endDate", "startDate"]);
    // Of two months, which Alertmanager would take for one alert.
    let labels = |end| {
        let notice = Notice::new(AT, drift("main", "m/a", end, ""));
        let id = AlertId::of(&notice.occasion, AT);
        let message = body::alertmanager(&of_notice(&snapshot(), &id, &notice).unwrap().alert, None);
        let mut labels = serde_json::from_slice::<Value>(&message.body).unwrap()[0]["labels"].clone();
        assert_eq!(labels.as_object_mut().unwrap().remove("id"), Some(json!(id.as_str())));
        labels
    };
    let expected = json!({
        "alertname": "TollgateUsageDrift", "severity": "warning", "organization": "acme", "kind": "usage_drift",
        "project": "main", "model": "m/a", "start_date": "2026-11-01", "end_date": "2026-12-01",
    });
    assert_eq!(labels(20_261_201), expected);
    assert_ne!(labels(20_270_101), expected);
}

/// With what is added to it while it is on its way.
#[test]
fn the_longest_texts_fit_into_a_delivery() {
    for text in ["\"", "\\", "\u{1}", "x", "ä"] {
        let text = first_line(&text.repeat(5_000));
        let rejected = Occasion::PolicyRejected {
            file: text.clone(),
            finding: text.clone(),
            revision: "5e9f".repeat(16).into(),
        };
        let refused = Occasion::UpstreamKeyRefused {
            key: "main/1f2e3d4c".into(),
            project: "p".repeat(64).into(),
            place: text.clone(),
            since: AT,
            is_last: true,
        };
        let of = |most: usize| {
            text.repeat(5_000)
                .chars()
                .scan(0, |length, c| {
                    *length += c.len_utf8();
                    (*length <= most && !c.is_control()).then_some(c)
                })
                .collect::<String>()
        };
        let drift = drift(&of(MAX_PROJECT_BYTES), &of(MAX_MODEL_BYTES), 20_261_201, &of(MAX_CAUSE_BYTES));
        for occasion in [rejected, refused, drift] {
            let notice = Notice::new(AT, occasion.clone());
            let alert = of_notice(&snapshot(), &AlertId::of(&occasion, AT), &notice).unwrap().alert;
            let event = Event { alert, end: None, watched: Some(notice) };
            let length = Delivery::of(event, AT).payload().len();
            assert!(length + 2 * MAX_TEXT <= MAX_OUTBOX_PAYLOAD, "{length}: {occasion:?}");
        }
    }
}

#[test]
fn what_operators_did_names_whose_it_is() {
    let by = Actor { address: "10.0.0.1".parse().ok(), ..Actor::system("ada") };
    let pause = |target: &str| Occasion::Pause {
        target: target.into(),
        reason: "INC-7".into(),
        by: by.clone(),
        since: AT,
    };
    let detail = |target: Value| {
        json!({
            "target": target, "reason": "INC-7", "actor": { "kind": "ACTOR_KIND_SYSTEM", "name": "ada" },
            "createTime": "2026-11-24T10:00:00.123Z",
        })
    };
    lasts(
        &pause("team/bot"),
        "SEVERITY_INFO",
        json!({ "summary": "The team `bot` is paused by ada: INC-7", "team": "bot", "pause": detail(json!({ "team": "bot" })) }),
        json!({ "summary": "The team `bot` is resumed", "team": "bot", "pause": detail(json!({ "team": "bot" })) }),
    );
    let all = detail(json!({ "organization": {} }));
    lasts(
        &pause("organization"),
        "SEVERITY_INFO",
        json!({ "summary": "The organization is paused by ada: INC-7", "pause": all }),
        json!({ "summary": "The organization is resumed", "pause": all }),
    );
    let policy = Occasion::PolicyRejected {
        file: "policy.toml".into(),
        finding: "policy.toml:3:1: error: teams.x: wrong".into(),
        revision: "5e9f".into(),
    };
    let facts = json!({ "file": "policy.toml", "finding": "policy.toml:3:1: error: teams.x: wrong", "document_revision": "5e9f" });
    let opened = "A changed policy does not load, and the one before stays in force: policy.toml:3:1: error: teams.x: wrong";
    lasts(
        &policy,
        "SEVERITY_WARNING",
        json!({ "summary": opened, "facts": facts }),
        json!({ "summary": "A policy has loaded after one that did not", "facts": facts }),
    );
}

#[test]
fn replicas_of_an_earlier_release_are_named() {
    let mismatch =
        |count| Occasion::LayoutMismatch { layout: 9, lowest: 8, replica: "gate-1:1".into(), count };
    for (count, who) in [(1, "gate-1:1"), (3, "gate-1:1 and 2 other replicas")] {
        let facts = json!({ "replica": "gate-1:1", "replica_count": count.to_string(), "known_layout": "8", "layout": "9" });
        let opened = format!(
            "{who}: an earlier release, which knows layouts up to 8 and leaves a store of layout 9 alone"
        );
        lasts(
            &mismatch(count),
            "SEVERITY_WARNING",
            json!({ "summary": opened, "facts": facts }),
            json!({ "summary": "All replicas know layout 9 of the store", "facts": facts }),
        );
    }
}

#[test]
fn what_the_service_sees_is_said_in_numbers() {
    let facts = json!({ "replica": "gate-1:1" });
    lasts(
        &Occasion::StoreOutage { start: AT, replica: "gate-1:1".into(), degraded: 0, spooled: 0 },
        "SEVERITY_CRITICAL",
        json!({
            "summary": "The store has not answered since 2026-11-24T10:00:00Z", "facts": facts,
            "store": { "startTime": "2026-11-24T10:00:00.123Z" },
        }),
        json!({
            "summary": "The store answers again; it had not for 90s from 2026-11-24T10:00:00Z on", "facts": facts,
            "store": { "startTime": "2026-11-24T10:00:00.123Z", "endTime": "2026-11-24T10:01:30.123Z" },
        }),
    );
    lasts(
        &Occasion::StoreOutage { start: AT, replica: "gate-1:1".into(), degraded: 1_200, spooled: 0 },
        "SEVERITY_CRITICAL",
        json!({
            "summary": "The store has not answered since 2026-11-24T10:00:00Z; 1,200 requests were decided without it", "facts": facts,
            "store": { "startTime": "2026-11-24T10:00:00.123Z", "degradedCount": "1200" },
        }),
        json!({
            "summary": "The store answers again; it had not for 90s from 2026-11-24T10:00:00Z on; 1,200 requests were decided without it",
            "facts": facts,
            "store": {
                "startTime": "2026-11-24T10:00:00.123Z", "endTime": "2026-11-24T10:01:30.123Z", "degradedCount": "1200",
            },
        }),
    );
    let outage = Occasion::StoreOutage { start: AT, replica: "gate-1:1".into(), degraded: 0, spooled: 7 };
    let told = alert(&outage, false);
    let summary =
        "The store has not answered since 2026-11-24T10:00:00Z; 7 reports of usage were kept, to be booked";
    assert_eq!((&told["summary"], &told["store"]["spooledCount"]), (&summary.into(), &"7".into()));
    let backlog = |records, refused, lost: &str| Occasion::SpoolBacklog {
        spool: "1f2e3d4c".into(),
        replica: "gate-1:1".into(),
        records,
        oldest: if records > 0 { AT } else { Timestamp(0) },
        refused,
        lost: lost.into(),
        fault: "".into(),
    };
    let facts = json!({
        "spool": "1f2e3d4c", "replica": "gate-1:1", "record_count": "1200", "oldest_time": "2026-11-24T10:00:00.123Z",
        "refused_count": "0",
    });
    lasts(
        &backlog(1_200, 0, ""),
        "SEVERITY_CRITICAL",
        json!({
            "summary": "At gate-1:1: 1,200 reports of usage wait to be booked, the oldest since 2026-11-24T10:00:00Z", "facts": facts,
        }),
        json!({ "summary": "All reports of usage that gate-1:1 had kept are booked", "facts": facts }),
    );
    let told = alert(&backlog(0, 2, "its directory was moved"), false);
    let summary =
        "At gate-1:1: 2 were refused and are kept aside; no more are acknowledged: its directory was moved";
    assert_eq!((&told["summary"], &told["facts"]["oldest_time"]), (&summary.into(), &Value::Null));
    let Occasion::SpoolBacklog { spool, replica, records, oldest, refused, lost, .. } = backlog(0, 0, "")
    else {
        unreachable!()
    };
    let fault = "its disk fails: disk I/O error".into();
    let told =
        alert(&Occasion::SpoolBacklog { spool, replica, records, oldest, refused, lost, fault }, false);
    let summary = "At gate-1:1: its disk fails: disk I/O error";
    assert_eq!(
        (&told["summary"], &told["facts"]["error"]),
        (&summary.into(), &"its disk fails: disk I/O error".into())
    );
    let own = json!({ "expired_count": "12", "request_count": "40" });
    let opened = "12 of 40 reservations of bot expired without a report of their usage";
    lasts(
        &Occasion::UnsettledHigh { team: "bot".into(), expired: 12, total: 40 },
        "SEVERITY_WARNING",
        json!({ "summary": opened, "team": "bot", "facts": own }),
        json!({ "summary": "Usage of bot is reported again", "team": "bot", "facts": own }),
    );
    let refused = alert(
        &Occasion::UnreservedRefused { team: "bot".into(), message: "too much".into(), end: AT.plus(1) },
        false,
    );
    let said = (&refused["team"], &refused["summary"], &refused["severity"]);
    let summary = "Usage without a reservation is refused for bot: too much";
    assert_eq!(said, (&"bot".into(), &summary.into(), &"SEVERITY_WARNING".into()));
    let counter = "team/bot|usd|month@20261101".into();
    let forecast = alert(&Occasion::BudgetForecast { counter, exhaust: AT.plus(86_400_000) }, false);
    let summary = "bot will have used up its monthly budget of $200.00 by 2026-11-25T10:00:00Z, at the rate of its spend so far";
    assert_eq!((&forecast["team"], &forecast["summary"]), (&"bot".into(), &summary.into()));
    assert_eq!(forecast["forecast"], json!({ "exhaustTime": "2026-11-25T10:00:00.123Z" }));
    assert_eq!(forecast["limitId"], "teams.bot.budget.monthly_usd");
}
