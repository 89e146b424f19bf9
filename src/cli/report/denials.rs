//! Requests that were refused, as a table and in other forms.

use std::io::{self, Write as _};

use super::{Granularity, PAGE, Report, client, print};
use crate::{
    cli::{
        client::Line,
        screen::{Exit, Failure, Screen},
        text,
    },
    report_text::{Interval, csv, day_text, value},
    rpc::proto::{
        DenialRow, QueryDenialsRequest, QueryDenialsResponse, report_service_client::ReportServiceClient,
    },
};

/// What rows are by unless the caller says.
const DIMENSIONS: [&str; 3] = ["team", "reason", "limit_id"];

impl Report {
    pub(super) fn run_denials(self, days: Interval, screen: &mut Screen) -> Result<Exit, Failure> {
        let by = match self.by.as_slice() {
            [] => DIMENSIONS.map(str::to_owned).to_vec(),
            by => by.to_vec(),
        };
        let has_periods = self.granularity != Granularity::Total;
        let request = QueryDenialsRequest {
            start_date: day_text(days.first),
            end_date: day_text(days.end),
            granularity: self.granularity.wire().into(),
            group_by: by.clone(),
            filter: Some(self.filter()),
            order_by: if has_periods { String::new() } else { "request_count desc".to_owned() },
            page_size: PAGE,
            page_token: String::new(),
        };
        let answer = client::block_on(async {
            let mut client = ReportServiceClient::new(self.connection.channel().await?);
            fetch(&mut client, request).await
        })?;
        if self.connection.json {
            screen.message(&answer)?;
        } else if self.csv {
            write_csv(screen, &by, &answer.rows)?;
        } else {
            let form = if self.markdown { print::Form::Markdown } else { print::Form::Screen };
            let (first, last) = (day_text(days.first), day_text(days.last()));
            let title = format!("Refused requests from {first} to {last}");
            table(screen, (&title, form), (&by, has_periods), &answer)?;
        }
        Ok(Exit::Done)
    }
}

/// Every page as one.
async fn fetch(
    client: &mut ReportServiceClient<Line>,
    mut request: QueryDenialsRequest,
) -> Result<QueryDenialsResponse, Failure> {
    let mut whole: Option<QueryDenialsResponse> = None;
    loop {
        let page = client.query_denials(request.clone()).await.map_err(|status| client::explain(&status))?;
        let mut page = page.into_inner();
        request.page_token = std::mem::take(&mut page.next_page_token);
        match &mut whole {
            None => whole = Some(page),
            Some(whole) => whole.rows.extend(page.rows),
        }
        if request.page_token.is_empty() {
            return Ok(whole.unwrap_or_default());
        }
    }
}

/// Dimensions, then how many requests were refused, and how much of all they are.
fn table(
    screen: &mut Screen,
    form: (&str, print::Form),
    (by, has_periods): (&[String], bool),
    answer: &QueryDenialsResponse,
) -> io::Result<()> {
    let mut headings: Vec<String> = Vec::new();
    if has_periods {
        headings.push("FROM".to_owned());
    }
    headings.extend(by.iter().map(|path| path.to_uppercase()));
    headings.extend([">REFUSED", "SHARE"].map(str::to_owned));
    let all = answer.total_request_count;
    let count = |count: i64| text::group(count.unsigned_abs().into());
    let row = |row: &DenialRow| {
        let dimensions = row.dimensions.clone().unwrap_or_default();
        let from = row.start_time.as_ref().map_or_else(String::new, text::instant);
        let mut cells: Vec<String> = has_periods.then_some(from).into_iter().collect();
        let values = by.iter().map(|path| value(&dimensions, path));
        cells.extend(values.map(|value| print::named(&value)));
        cells.extend([count(row.request_count), print::bar(row.request_count.into(), all.into())]);
        cells
    };
    let mut rows: Vec<Vec<String>> = answer.rows.iter().map(row).collect();
    let mut sum = vec![String::new(); by.len() + usize::from(has_periods)];
    if let Some(first) = sum.first_mut() {
        "all".clone_into(first);
    }
    sum.extend([count(all), String::new()]);
    rows.push(sum);
    print::write(screen, form, &headings, rows)
}

/// The header is the version: columns are only added at the end.
fn write_csv(screen: &mut Screen, by: &[String], rows: &[DenialRow]) -> io::Result<()> {
    let headings = ["start_time", "end_time"].into_iter().chain(by.iter().map(String::as_str));
    writeln!(screen, "{}", headings.chain(["request_count"]).collect::<Vec<_>>().join(","))?;
    for row in rows {
        let dimensions = row.dimensions.clone().unwrap_or_default();
        let times = [&row.start_time, &row.end_time];
        let times = times.into_iter().map(|time| time.as_ref().map_or_else(String::new, text::instant));
        let values = by.iter().map(|path| csv::cell(&value(&dimensions, path)));
        let cells = times.chain(values).chain([row.request_count.to_string()]);
        writeln!(screen, "{}", cells.collect::<Vec<_>>().join(","))?;
    }
    Ok(())
}
