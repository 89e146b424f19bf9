//! Files as Groq and spreadsheets write them, and the causes of differences.

use super::*;

fn usage(text: &str) -> Bill {
    Bill::read(text.as_bytes(), Format::Usage).unwrap()
}

fn refused(text: impl AsRef<[u8]>, format: Format) -> String {
    Bill::read(text.as_ref(), format).unwrap_err().to_string()
}

/// The days, models and costs of a bill.
fn costs(bill: &Bill) -> Vec<(Option<u32>, &str, i128)> {
    bill.groups.iter().map(|(key, billed)| (key.day, key.model.as_str(), billed.cost_nanos)).collect()
}

/// As Groq's console answers, with ids that are made up.
const CONSOLE: &str = r#"{"object":"list","data":[
  {"organization_id":"org_1","organization_name":"Acme","n_context_tokens_total":759,"n_non_cached_context_tokens_total":700,
   "n_generated_tokens_total":6021,"project_id":"project_1","api_key_id":"key_1","api_key_name":"open","model":"whisper-large-v3",
   "timestamp":1795392000,"user_id":"","num_requests":151,"num_seconds":1474,"num_seconds_billed":1837,"service_tier":"on_demand",
   "cost":0.0566408333332721},
  {"n_context_tokens_total":144,"n_non_cached_context_tokens_total":144,"n_generated_tokens_total":2,"project_id":"project_1",
   "api_key_id":"key_2","model":"llama-3.1-8b-instant","timestamp":1795392000,"num_requests":2,"cost":1.14e-05},
  {"n_context_tokens_total":100,"n_non_cached_context_tokens_total":null,"n_generated_tokens_total":1,"project_id":"project_1",
   "api_key_id":"key_1","model":"llama-3.1-8b-instant","timestamp":1795392000,"num_requests":1,"cost":1e-9}]}"#;

#[test]
fn the_rows_of_the_console_are_added_up_by_day_model_and_project() {
    let bill = usage(CONSOLE);
    let day = Some(20_261_123);
    assert_eq!(costs(&bill), [(day, "llama-3.1-8b-instant", 11_401), (day, "whisper-large-v3", 56_640_833)]);
    let audio = bill.groups.last_key_value().unwrap();
    assert_eq!(audio.0.project_id, "project_1");
    let expected = Billed {
        cost_nanos: 56_640_833,
        requests: Some(151),
        input_tokens: Some(759),
        cached_tokens: Some(59),
        output_tokens: Some(6_021),
        audio_ms: Some(1_474_000),
    };
    assert_eq!(*audio.1, expected);
    // Of one row it is not known how much was cached, so of the sum it is not.
    let chat = bill.groups.first_key_value().unwrap().1;
    assert_eq!((chat.requests, chat.input_tokens, chat.cached_tokens), (Some(3), Some(244), None));
    // The list alone, and a spreadsheet made of it, say the same.
    let list = CONSOLE.split_once(":[").unwrap().1.trim_end_matches('}');
    assert_eq!(usage(&format!("[{list}")).groups, bill.groups);
    let csv = "timestamp,model,project_id,num_requests,n_context_tokens_total,n_non_cached_context_tokens_total,n_generated_tokens_total,num_seconds,cost\n\
               1795392000,whisper-large-v3,project_1,151,759,700,6021,1474,0.0566408333332721\n\
               1795392000,llama-3.1-8b-instant,project_1,2,144,144,2,,1.14e-05\n\
               1795392000,llama-3.1-8b-instant,project_1,1,100,,1,,1e-9\n";
    assert_eq!(usage(csv).groups, bill.groups);
}

#[test]
fn spreadsheets_of_all_kinds_are_read() {
    let day = Some(20_261_123);
    let expected = [(day, "a,b", -500_000_000), (day, "m", 1_234_500_000_000)];
    for text in [
        "Date,Model,Cost\n2026-11-23,m,1234.50\n2026-11-23,\"a,b\",-0.5\n",
        "\u{feff}Date,Model,Cost\r\n2026-11-23,m,\"$1,234.50\"\r\n\r\n2026-11-23,\"a,b\",($0.50)\r\n",
        "date;model;cost (USD)\n2026-11-23;m;1234.50\n2026-11-23;a,b;-0.5\n;;\n",
        "date\tmodel\tcost\n2026-11-23T23:59:59Z\tm\t1234.5\n2026-11-23\ta,b\t-5e-1",
        "Currency,Model,Cost,Date\nUSD,m,1234.50,2026-11-23\n,\"a,b\",-.5,2026-11-23\n",
    ] {
        assert_eq!(costs(&usage(text)), expected, "{text}");
    }
    let credits = usage("Date,Model,Cost\n2026-11-23,m,-2\n2026-11-24,m,5\n2026-11-24,m,5\n");
    assert_eq!(
        (credits.credits, credits.credit_nanos, credits.repeated_rows, credits.rows),
        (1, -2_000_000_000, 1, 3)
    );
    assert_eq!(credits.months().into_iter().collect::<Vec<_>>(), [202_611]);
    // Cells that read the same behind each other are other cells.
    let shifted = usage("Date,Model,Cost,Requests\n2026-11-23,m,1,23\n2026-11-23,m,12,3\n");
    assert_eq!((shifted.rows, shifted.repeated_rows), (2, 0));
}

#[test]
fn the_largest_amounts_and_counts_are_compared() {
    let most = "99999999999999999.999999999,18e18,18e18,9e18";
    let row = |model: &str| format!("2026-11-01,{model},{most}\n2026-11-02,{model},{most}\n");
    let rows = format!("date,model,cost,input_tokens,output_tokens,requests\n{}{}", row("m"), row("n"));
    let row = |model: &str| BookedRow { project: String::new(), ..booked(20_261_101, model, 1, 1, 1) };
    let books = Books { unsettled: 1, ..books(vec![row("m"), row("n")]) };
    let result = reconcile((&usage(&rows), Format::Usage), &books, 202_611, 0);
    assert_eq!(result.total.drift(), 4 * 99_999_999_999_999_999_999_999_999 - 2);
    assert_eq!(result.findings.iter().map(|of| of.cause).collect::<Vec<_>>(), [Cause::WentRound; 2]);
    assert!(result.total.permille().is_some_and(|of| of > 0));
    assert!(row_is_refused("1e29") && row_is_refused("(1e20)"), "larger than any sum of a file may be");
}

fn row_is_refused(cost: &str) -> bool {
    refused(format!("date,model,cost\n2026-11-01,m,{cost}\n"), Format::Usage)
        .contains("not an amount of dollars")
}

#[test]
fn what_cannot_be_read_is_named_with_its_line_and_column() {
    let row = |row: &str| {
        refused(format!("Date,Model,Cost,num_requests\n2026-11-23,m,1,1\n{row}\n"), Format::Usage)
    };
    assert_eq!(
        row("23/11/2026,m,1,1"),
        "line 3, column `Date`: `23/11/2026` is not a day such as 2026-11-23, or seconds since 1970"
    );
    assert_eq!(
        row("2026-11-23,m,\"1.234,5\",1"),
        "line 3, column `Cost`: `1.234,5` is not an amount of dollars"
    );
    assert_eq!(row("2026-11-23,m,,1"), "line 3, column `Cost`: `` is not an amount of dollars");
    assert_eq!(row("2026-11-23,m,1,-1"), "line 3, column `num_requests`: `-1` is not a count");
    assert_eq!(row("2026-11-23,m,1"), "line 3: has 3 cells; the header has 4");
    let long = "9".repeat(10_000);
    assert!(row(&format!("2026-11-23,m,{long},1")).len() < 200);
    assert!(row(&format!("2026-11-23,{long},1,1")).contains("at most 512 bytes"));
    let currency = refused("Date,Model,Cost,Currency\n2026-11-23,m,1,EUR\n", Format::Usage);
    assert_eq!(currency, "line 2, column `Currency`: `EUR` is not USD, in which Groq bills");
    let json = |row: &str| {
        refused(format!("[{{\"date\":\"2026-11-23\",\"model\":\"m\",\"cost\":1}},{row}]"), Format::Usage)
    };
    assert!(json("3").starts_with("row 2: is no object"), "{}", json("3"));
    assert!(json("{\"model\":\"m\",\"cost\":1}").starts_with("row 2: has no column for the day"));
    assert_eq!(
        json("{\"date\":\"2026-11-23\",\"model\":\"m\",\"cost\":{}}"),
        "row 2, column `cost`: `{}` is not an amount of dollars"
    );
    assert!(json("{").starts_with("is no list of rows"));
    let cached = "[{\"date\":\"2026-11-23\",\"model\":\"m\",\"cost\":1,\"n_context_tokens_total\":1,\"n_non_cached_context_tokens_total\":2}]";
    assert!(refused(cached, Format::Usage).contains("`2` is not at most the input tokens"));
    for (bytes, kind) in [
        (&b"%PDF-1.7"[..], "a PDF"),
        (b"PK\x03\x04", "a spreadsheet"),
        (b"\xff\xfed\0", "UTF-16"),
        (b"Date,Model,Cost\n2026-11-23,\xe9,1\n", "not in UTF-8"),
    ] {
        assert!(refused(bytes, Format::Usage).contains(kind), "{kind}");
    }
    for empty in ["Date,Model,Cost\n", "[]", "{\"data\":[]}"] {
        assert_eq!(refused(empty, Format::Usage), "has no row with an amount");
    }
    assert!(refused("", Format::Usage).contains("no column for the model"));
    assert!(refused("{\"error\":1}", Format::Usage).contains("missing field `data`"));
}

fn booked(day: u32, model: &str, cost_nanos: i128, tokens: u64, requests: u64) -> BookedRow {
    let amounts =
        Booked { cost_nanos, requests, input_tokens: tokens, output_tokens: tokens, ..Booked::default() };
    BookedRow { day, model: model.to_owned(), project: "prod".to_owned(), amounts }
}

/// What is compared with `rows` of CSV: the day of November, the model, the cost, tokens in and out, requests.
fn compared(rows: &str, books: &Books) -> Reconciled {
    let rows = rows.split_whitespace().map(|row| format!("2026-11-{row}\n")).collect::<String>();
    let header = "date,model,cost,input_tokens,output_tokens,requests,project\n";
    reconcile((&usage(&format!("{header}{rows}")), Format::Usage), books, 202_611, 10_000_000)
}

fn books(rows: Vec<BookedRow>) -> Books {
    Books { rows, ..Books::default() }
}

fn causes(result: &Reconciled) -> Vec<(Cause, &str, u64, i128)> {
    result
        .findings
        .iter()
        .map(|of| (of.cause, of.model.as_str(), of.lines, of.drift_nanos / 1_000_000))
        .collect()
}

const CENT: i128 = 10_000_000;

#[test]
fn what_agrees_within_the_tolerance_is_no_drift() {
    let rows = vec![booked(20_261_101, "a/m", 100 * CENT, 7, 2), booked(20_261_102, "a/m", 100 * CENT, 7, 2)];
    let result = compared("01,m,1.005,7,7,2,PROD 02,a/m,0.995,7,7,2,prod", &books(rows.clone()));
    assert_eq!((result.has_drift, result.findings.len(), result.projects), (false, 0, Projects::Compared));
    assert_eq!((result.lines.len(), result.sums.len(), result.total.drift()), (2, 1, 0));
    // Each by less, all of it by more.
    let result = compared("01,m,1.006,7,7,2,prod 02,a/m,1.006,7,7,2,prod", &books(rows));
    assert_eq!((result.has_drift, result.total.drift()), (true, 12_000_000));
    assert_eq!(causes(&result), [(Cause::PriceChanged, "a/m", 2, 12)]);
}

#[test]
fn a_changed_price_is_told_by_the_tokens() {
    let rows = (1..=4).map(|day| booked(20_261_100 + day, "m", 100 * CENT, 50, 5)).collect();
    let bill = "01,m,1,50,50,5,prod 02,m,1,50,50,5,prod 03,m,1.25,50,50,5,prod 04,m,1.25,50,50,5,prod";
    let result = compared(bill, &books(rows));
    assert_eq!(causes(&result), [(Cause::PriceChanged, "m", 2, 500)]);
    let finding = &result.findings[0];
    assert_eq!((finding.first_day, finding.ratio), (Some(20_261_103), Some(12_500)));
    assert_eq!(result.total.permille(), Some(125));
    // Without tokens by a constant ratio.
    let rows: Vec<_> =
        (1..=4).map(|day| booked(20_261_100 + day, "m", CENT * i128::from(day * 30), 50, 5)).collect();
    let bill = "01,m,.15,,,,prod 02,m,.30,,,,prod 03,m,.45,,,,prod 04,m,.60,,,,prod";
    let result = compared(bill, &books(rows));
    assert_eq!(
        (causes(&result), result.findings[0].ratio),
        (vec![(Cause::PriceChanged, "m", 4, -1_500)], Some(5_000))
    );
}

#[test]
fn requests_that_we_do_not_have_went_round_us_or_were_never_reported() {
    let rows = vec![booked(20_261_101, "m", 100 * CENT, 50, 5)];
    let bill = "01,m,1.40,70,70,7,prod 01,other,3,9,9,1,prod";
    let result = compared(bill, &books(rows.clone()));
    assert_eq!(causes(&result), [(Cause::WentRound, "other", 1, 3_000), (Cause::WentRound, "m", 1, 400)]);
    // Two reservations were never settled, and more was held for them.
    let unsettled = Books { unsettled: 2, reserved_nanos: 50 * CENT, ..books(rows.clone()) };
    let result = compared(bill, &unsettled);
    assert_eq!(causes(&result), [(Cause::WentRound, "other", 1, 3_000), (Cause::NeverReported, "m", 1, 400)]);
    for too_few in
        [Books { unsettled: 1, ..unsettled.clone() }, Books { reserved_nanos: 30 * CENT, ..unsettled }]
    {
        assert!(compared(bill, &too_few).findings.iter().all(|of| of.cause == Cause::WentRound));
    }
    // A project that the books do not have.
    let result = compared("01,m,1,50,50,5,prod 01,m,1,50,50,5,lab", &books(rows));
    assert_eq!(
        (causes(&result), result.findings[0].project.as_str()),
        (vec![(Cause::WentRound, "m", 1, 1_000)], "lab")
    );
}

#[test]
fn what_we_booked_too_much_is_told_by_its_outcomes() {
    let row = |unsettled, aborted| {
        let mut row = booked(20_261_101, "m", 100 * CENT, 50, 5);
        (row.amounts.unsettled, row.amounts.aborted) = (unsettled, aborted);
        books(vec![row])
    };
    let result = compared("01,m,.60,30,30,5,prod", &row(2, 0));
    assert_eq!(causes(&result), [(Cause::ChargedUnsettled, "m", 1, -400)]);
    // None of the requests, as there was none: reservations that ended without a report have cost nothing.
    let mut unreported = row(3, 0);
    let idle = Booked { unsettled: 3, ..Booked::default() };
    unreported.rows.push(BookedRow { day: 20_261_102, amounts: idle, ..unreported.rows[0].clone() });
    unreported.rows[0].amounts = Booked { unsettled: 0, ..unreported.rows[0].amounts.clone() };
    let result = compared("02,m,.60,30,30,3,prod 01,m,1,50,50,5,prod", &unreported);
    assert_eq!(causes(&result), [(Cause::NeverReported, "m", 1, 600)]);
    let result = compared("02,m,.60,30,30,4,prod 01,m,1,50,50,5,prod", &unreported);
    assert_eq!(causes(&result), [(Cause::WentRound, "m", 1, 600)]);
    let result = compared("02,m,-.60,0,0,0,prod 01,m,1,50,50,5,prod", &unreported);
    assert!(result.findings.iter().all(|of| of.cause != Cause::ChargedUnsettled), "{:?}", result.findings);
    let result = compared("01,m,.60,30,30,5,prod", &row(0, 2));
    assert_eq!(causes(&result), [(Cause::OtherUsage, "m", 1, -400)]);
    let result = compared("01,m,.60,30,30,3,prod", &row(0, 0));
    assert_eq!(causes(&result), [(Cause::NotBilled, "m", 1, -400)]);
    let mut cached = row(0, 0);
    cached.rows[0].amounts.cached_tokens = 40;
    let bill = usage("date,model,cost,input_tokens,cached_tokens,output_tokens\n2026-11-01,m,1.2,50,10,50\n");
    let result = reconcile((&bill, Format::Usage), &cached, 202_611, 0);
    assert_eq!(causes(&result), [(Cause::CachedTokens, "m", 1, 200)]);
    assert_eq!(result.projects, Projects::NotBilled);
}

#[test]
fn days_that_begin_elsewhere_cancel_out_and_days_outside_of_the_file_are_told() {
    let rows: Vec<_> = (1..=4).map(|day| booked(20_261_100 + day, "m", 100 * CENT, 50, 5)).collect();
    let bill = "01,m,.70,35,35,4,prod 02,m,1.30,65,65,6,prod 03,m,.80,40,40,4,prod 04,m,1.20,60,60,6,prod";
    let result = compared(bill, &books(rows.clone()));
    assert_eq!((causes(&result), result.has_drift), (vec![(Cause::DaysShifted, "m", 4, 0)], true));
    let result = compared("02,m,1,50,50,5,prod 03,m,1,50,50,5,prod", &books(rows));
    assert_eq!(causes(&result), [(Cause::NotInFile, "m", 2, -2_000)]);
}

#[test]
fn lines_of_an_invoice_are_compared_by_model_over_the_month() {
    let text = "Description,Quantity,Unit price,Amount\n\
                openai/gpt-oss-20b - input tokens,1000000,0.000000075,$0.75\n\
                openai/gpt-oss-20b - output tokens,1,,$0.25\n\
                Sales tax,,,0.08\nSubtotal,,,1.08\nTotal,,,$1.08\n";
    let bill = Bill::read(text.as_bytes(), Format::Invoice).unwrap();
    assert_eq!((bill.rows, bill.sum_lines), (3, 2));
    let rows = vec![
        booked(20_261_101, "openai/gpt-oss-20b", 60 * CENT, 50, 5),
        booked(20_261_130, "openai/gpt-oss-20b", 40 * CENT, 50, 5),
    ];
    let result = reconcile((&bill, Format::Invoice), &books(rows), 202_611, 10_000_000);
    assert_eq!((result.has_days, result.total.drift()), (false, 8 * CENT));
    assert_eq!(causes(&result), [(Cause::OtherCharge, "Sales tax", 1, 80)]);
    // The dates of its lines are no days of usage.
    let dated = "Date,Description,Amount\nNov 30,openai/gpt-oss-20b,1\n";
    let dated = Bill::read(dated.as_bytes(), Format::Invoice).unwrap();
    assert_eq!(costs(&dated), [(None, "openai/gpt-oss-20b", 100 * CENT)]);
    let more = text.replace("$0.75", "$1.75");
    let bill = Bill::read(more.as_bytes(), Format::Invoice).unwrap();
    let rows = vec![booked(20_261_101, "openai/gpt-oss-20b", 100 * CENT, 50, 5)];
    let result = reconcile((&bill, Format::Invoice), &books(rows), 202_611, 10_000_000);
    assert_eq!(causes(&result)[0], (Cause::Unknown, "openai/gpt-oss-20b", 1, 1_000));
}

#[test]
fn other_months_and_projects_without_a_match_are_told() {
    let rows = vec![booked(20_261_101, "m", 100 * CENT, 50, 5)];
    let result = compared("01,m,1,50,50,5,project_01abc 01,m,0,0,0,0,project_02", &books(rows.clone()));
    assert_eq!((result.projects, result.has_drift), (Projects::Unknown, false));
    let bill = usage("date,model,cost\n2026-10-31,m,2\n2026-11-01,m,1\n2026-12-01,m,3\n");
    let result = reconcile((&bill, Format::Usage), &books(rows), 202_611, 0);
    assert_eq!((result.other_months_nanos, result.has_drift), (500 * CENT, false));
    assert_eq!(bill.months().len(), 3);
}

/// Whatever a file has in it, reading ends with an answer or an error.
mod random {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            drop(Bill::read(bytes.as_slice(), Format::Usage));
            drop(Bill::read(bytes.as_slice(), Format::Invoice));
        }

        #[test]
        fn any_cells_are_read_or_refused(
            cells in proptest::collection::vec("[-+$0-9.,eE()\"\\r\\n a-zé]{0,12}", 9),
            has_json in any::<bool>(),
        ) {
            let json = serde_json::json!([{"date": cells[0], "model": cells[1], "cost": cells[2]}]).to_string();
            let csv = format!("date,model,cost\n{}", cells.chunks(3).map(|row| row.join(",")).collect::<Vec<_>>().join("\n"));
            if let Ok(bill) = Bill::read(if has_json { json.as_bytes() } else { csv.as_bytes() }, Format::Usage) {
                let result = reconcile((&bill, Format::Usage), &Books::default(), 202_611, 0);
                prop_assert_eq!(result.total.drift(), result.lines.iter().map(Difference::drift).sum::<i128>());
            }
        }
    }
}
