//! `tollgate reconcile`: a running server's books against files as Groq's console and spreadsheets write them.

use std::{
    io::Write as _,
    process::{Command, Output, Stdio},
};

use serde_json::{Value, json};
use tollgate::{
    domain::Timestamp,
    rpc::proto::{Outcome, RecordUsageRequest},
};

use crate::harness::{START, Server, StoreKind, chat, used};

/// 2026-12-01T00:00:00Z.
const DECEMBER: Timestamp = Timestamp(1_796_083_200_000);

/// The zone is five and a half hours ahead of UTC.
fn policy(zone: &str) -> String {
    format!(
        "[organization]\nid = \"acme\"\ntime_zone = \"{zone}\"\n\
         [teams.bot]\nmodels = [\"m/*\"]\nmax_output_tokens = 1000\nbudget = {{ monthly_usd = \"100\" }}\n\
         [projects.prod]\nkeys = [{{ env = \"GROQ_PROD\" }}]\n\
         [[prices]]\nmodel = \"m/a\"\ninput_usd_per_million_tokens = \"1000\"\noutput_usd_per_million_tokens = \"1000\"\n\
         [[prices]]\nmodel = \"m/b\"\ninput_usd_per_million_tokens = \"2000\"\noutput_usd_per_million_tokens = \"2000\"\n"
    )
}

/// `tollgate reconcile -` of `server` with `file`: its exit code, and what it says.
async fn reconcile(server: &Server, file: &str, arguments: &[&str]) -> (i32, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tollgate"));
    command
        .args(["reconcile", "-", "--color=never", "--address", &server.address().to_string()])
        .args(arguments);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let file = file.to_owned();
    let run = move || {
        let mut child = command.spawn().unwrap();
        child.stdin.take().unwrap().write_all(file.as_bytes()).unwrap();
        child.wait_with_output().unwrap()
    };
    let Output { status, stdout, stderr } = tokio::task::spawn_blocking(run).await.unwrap();
    let said = [stdout, stderr].map(|text| String::from_utf8(text).unwrap()).concat();
    (status.code().unwrap(), said)
}

async fn reconciled(server: &Server, file: &str, arguments: &[&str]) -> (i32, Value) {
    let (code, said) = reconcile(server, file, &[&["--json"], arguments].concat()).await;
    (code, serde_json::from_str(&said).unwrap_or_else(|error| panic!("{error}: {said}")))
}

/// Two days of UTC: 100 and 20 tokens, and 3 that are of the next day in Kolkata; then 40 on the next day.
async fn start(store: StoreKind, zone: &str) -> Server {
    let server = Server::start(store, &policy(zone), START).await;
    let mut client = server.client().await;
    for (hours, model, tokens) in [(0, "m/a", 100), (1, "m/b", 20), (10, "m/a", 3), (24, "m/a", 40)] {
        server.clock.set(START.plus(hours * 3_600_000));
        let id = client.authorize(chat("bot", model, tokens, 0)).await.unwrap().into_inner().reservation_id;
        client.record_usage(used(&id, tokens, 0)).await.unwrap();
    }
    server
}

/// What Groq bills for that, in days of UTC; seconds since 1970.
const BILL: &str = "timestamp,model,project_id,num_requests,n_context_tokens_total,n_generated_tokens_total,cost\n\
    1795392000,m/a,project_1,2,103,0,0.103\n\
    1795392000,m/b,project_1,1,20,0,0.04\n\
    1795478400,m/a,project_1,1,40,0,0.04\n";

fn causes(result: &Value) -> Vec<(&str, &str, i64)> {
    let findings = result["findings"].as_array().unwrap().iter();
    let of = |finding: &'_ Value| -> (&str, &str, i64) {
        let text = |name: &str| finding[name].as_str().unwrap().to_owned().leak() as &str;
        (text("cause"), text("model"), finding["drift_nano_usd"].as_i64().unwrap() / 1_000_000)
    };
    findings.map(of).collect()
}

async fn books_are_compared_by_the_days_of_utc(store: StoreKind) {
    for zone in ["UTC", "Asia/Kolkata", "America/New_York"] {
        let server = start(store, zone).await;
        let (code, result) = reconciled(&server, BILL, &[]).await;
        assert_eq!((code, &result["has_drift"]), (0, &json!(false)), "{zone}: {result}");
        let total = &result["total"];
        assert_eq!(total["booked"]["cost_nano_usd"], 183_000_000, "{zone}");
        assert_eq!((&result["month"], &result["days"]), (&json!("2026-11"), &json!("utc")));
        let dates: Vec<_> =
            result["lines"].as_array().unwrap().iter().map(|line| line["date"].as_str()).collect();
        assert_eq!(dates, [Some("2026-11-23"), Some("2026-11-23"), Some("2026-11-24")]);
        assert!(server.stop().await);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn books_of_the_embedded_store_are_compared_by_the_days_of_utc() {
    books_are_compared_by_the_days_of_utc(StoreKind::Embedded).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn books_in_redis_are_compared_by_the_days_of_utc() {
    if StoreKind::Redis.is_available() {
        books_are_compared_by_the_days_of_utc(StoreKind::Redis).await;
    }
}

/// The first hours of UTC's month are of the zone's month before.
#[tokio::test(flavor = "multi_thread")]
async fn hours_of_the_month_count_where_the_zone_has_no_day_of_it() {
    let server = Server::start(StoreKind::Embedded, &policy("America/New_York"), START).await;
    server.clock.set(DECEMBER.plus(3_600_000));
    let mut client = server.client().await;
    let id = client.authorize(chat("bot", "m/a", 100, 0)).await.unwrap().into_inner().reservation_id;
    client.record_usage(used(&id, 100, 0)).await.unwrap();
    let bill = "date,model,cost,num_requests\n2026-12-01,m/a,0.1,1\n";
    let (code, result) = reconciled(&server, bill, &[]).await;
    assert_eq!((code, &result["days"]), (0, &json!("utc")), "{result}");
    assert!(server.stop().await);
}

/// Two months later hours are gone, and the days of the zone remain.
#[tokio::test(flavor = "multi_thread")]
async fn where_hours_are_no_longer_kept_days_are_those_of_the_zone() {
    let server = start(StoreKind::Embedded, "Asia/Kolkata").await;
    server.clock.set(START.plus(60 * 86_400_000));
    let (code, result) = reconciled(&server, BILL, &["--tolerance", "0.002"]).await;
    assert_eq!((code, &result["days"]), (1, &json!("time_zone")), "{result}");
    assert_eq!(result["total"]["drift_nano_usd"], 0);
    assert_eq!(causes(&result), [("days_shifted", "m/a", 0)]);
    let (_, said) = reconcile(&server, BILL, &["--tolerance", "0.002"]).await;
    assert!(said.contains("Note: booked days are those of the organization's time zone"), "{said}");
    assert!(server.stop().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn drift_is_told_with_its_likely_cause() {
    let server = start(StoreKind::Embedded, "UTC").await;
    // A price that rose by half, a request that went round us, a model that we do not know.
    let bill = BILL.replace("1,20,0,0.04", "1,20,0,0.06").replace("1,40,0,0.04", "2,90,0,0.09")
        + "1795478400,m/c,project_1,7,9,9,1.5\n";
    let (code, result) = reconciled(&server, &bill, &[]).await;
    assert_eq!(code, 1);
    assert_eq!(
        causes(&result),
        [("went_round", "m/c", 1_500), ("went_round", "m/a", 50), ("price_changed", "m/b", 20)],
        "{result}"
    );
    let (_, said) = reconcile(&server, &bill, &[]).await;
    for line in [
        "DAY         MODEL  BOOKED  BILLED   DRIFT    SHARE   LIKELY CAUSE",
        "2026-11-23  m/b     $0.04   $0.06  +$0.02   50.0%  price",
        "1 of 4 days, models and projects agree within $0.01",
        "as many tokens, billed at 150.0% of what we book since 2026-11-23",
        "Groq billed 1 requests that we do not have",
        "Note: no project of the file is one of the policy's",
    ] {
        let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(words(&said).contains(&words(line)), "{line}:\n{said}");
    }
    let (code, _) = reconcile(&server, &bill, &["--tolerance", "2"]).await;
    assert_eq!(code, 0);
    // A reservation that is never settled may be the request that Groq bills.
    let mut client = server.client().await;
    client.authorize(chat("bot", "m/a", 60, 0)).await.unwrap();
    let (_, result) = reconciled(&server, &bill, &[]).await;
    assert_eq!(causes(&result)[1], ("never_reported", "m/a", 50), "{result}");
    assert_eq!(
        (&result["unsettled_requests"], &result["reserved_nano_usd"]),
        (&json!(1), &json!(1_060_000_000))
    );
    // One that is reported without its usage is charged its worst case.
    let id = client.authorize(chat("bot", "m/b", 100, 0)).await.unwrap().into_inner().reservation_id;
    let aborted = RecordUsageRequest {
        reservation_id: id,
        outcome: Outcome::Aborted.into(),
        ..RecordUsageRequest::default()
    };
    client.record_usage(aborted).await.unwrap();
    let bill = BILL.to_owned() + "1795478400,m/b,project_1,1,5,0,0.01\n";
    let (code, result) = reconciled(&server, &bill, &[]).await;
    assert_eq!((code, causes(&result)), (1, vec![("charged_unsettled", "m/b", -2_190)]), "{result}");
    assert!(server.stop().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn projects_are_compared_where_the_policy_names_them_as_groq_does() {
    let server = start(StoreKind::Embedded, "UTC").await;
    let named = BILL.replace("project_1", "Prod");
    let (code, result) = reconciled(&server, &named, &[]).await;
    assert_eq!((code, &result["projects"]), (0, &json!("compared")), "{result}");
    let other = named.clone() + "1795478400,m/a,lab,1,40,0,0.04\n";
    let (code, result) = reconciled(&server, &other, &[]).await;
    assert_eq!((code, causes(&result)), (1, vec![("went_round", "m/a", 40)]));
    assert_eq!(result["findings"][0]["project"], "lab");
    assert!(server.stop().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn lines_of_an_invoice_are_compared_over_the_month() {
    let server = start(StoreKind::Embedded, "UTC").await;
    let invoice = "Description,Amount\nm/a input tokens,$0.143\nm/b input tokens,$0.04\nTotal,$0.183\n";
    let arguments = ["--format", "groq-invoice", "--month", "2026-11"];
    let (code, result) = reconciled(&server, invoice, &arguments).await;
    assert_eq!((code, &result["file"]["sum_line_count"]), (0, &json!(1)), "{result}");
    let (code, said) = reconcile(&server, &invoice.replace("0.04", "0.05"), &arguments).await;
    assert_eq!(code, 0, "{said}");
    let (code, said) = reconcile(&server, &invoice.replace("0.04", "0.06"), &arguments).await;
    assert_eq!(code, 1, "{said}");
    assert!(server.stop().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_compared_is_refused() {
    let server = start(StoreKind::Embedded, "UTC").await;
    let two = BILL.to_owned() + "1798070400,m/a,project_1,1,40,0,0.04\n";
    for (file, arguments, expected) in [
        ("model,cost\nm,1\n", &[][..], "-: has no column for the day"),
        (
            "Description,Amount\nm,1\n",
            &["--format=groq-invoice"],
            "-: has no days: say its month with --month",
        ),
        (&two, &[], "-: has days of 2026-11, 2026-12: say with --month which of them"),
        (BILL, &["--month=2026-10"], "-: has no day of 2026-10: its days are of 2026-11"),
        (BILL, &["--month=2026-13"], "`2026-13` is not a month"),
        (BILL, &["--tolerance=-1"], "is not an amount of dollars"),
        (
            &BILL.replace("0.103", "a lot"),
            &[],
            "-: line 2, column `cost`: `a lot` is not an amount of dollars",
        ),
        ("date,model,cost\n2020-11-01,m,1\n", &[], "is no longer kept"),
    ] {
        let (code, said) = reconcile(&server, file, arguments).await;
        assert_eq!(code, 2, "{said}");
        assert!(said.contains(expected), "{expected}: {said}");
    }
    let (code, result) = reconciled(&server, &two, &["--month=2026-11"]).await;
    assert_eq!((code, &result["file"]["other_months_nano_usd"]), (0, &json!(40_000_000)));
    assert!(server.stop().await);
}
