//! What the server booked in a month of UTC.

use tonic::Code;

use crate::{
    cli::{
        client::{self, Line},
        report::fetch_usage,
        screen::Failure,
        spend, text,
    },
    domain::calendar::{day_before, next_day},
    reconcile::{Booked, BookedRow, Books, DaysOf, day_of},
    rpc::proto::{
        self, QueryUsageRequest, UsageRow, policy_service_client::PolicyServiceClient,
        report_service_client::ReportServiceClient,
    },
};

/// The rows asked for at a time.
const PAGE: i32 = 1_000;
/// A day of UTC in seconds.
const DAY: i64 = 86_400;

/// What was booked in `month` (as `202611`) of UTC. Reports have days of the organization's time zone: where that is another, hours
/// tell the day in UTC, as long as they are kept.
pub(super) async fn fetch(channel: Line, month: u32) -> Result<Books, Failure> {
    let mut reports = ReportServiceClient::new(channel.clone());
    let next = if month % 100 == 12 { month + 89 } else { month + 1 };
    let days = (month * 100 + 1, next * 100 + 1);
    let by_day =
        fetch_usage(&mut reports, request(days, proto::Granularity::Day)).await.map_err(explained)?.rows;
    let is_of_utc = |row: &UsageRow| row.start_time.is_some_and(|start| start.seconds.rem_euclid(DAY) == 0);
    let mut books = Books::default();
    // Where nothing was booked in the zone's month, its days do not tell the zone, and hours beside it may be of UTC's.
    if !by_day.is_empty() && by_day.iter().all(is_of_utc) {
        books.rows = by_day.iter().filter_map(booked).collect();
    } else {
        // A month of UTC begins within a day of the zone's, and so it ends.
        let around = (day_before(days.0).unwrap_or(days.0), next_day(days.1).unwrap_or(days.1));
        match fetch_usage(&mut reports, request(around, proto::Granularity::Hour)).await {
            Ok(hours) => {
                let of_month = |row: &BookedRow| row.day / 100 == month;
                books.rows = hours.rows.iter().filter_map(booked).filter(of_month).collect();
            }
            Err(status) if status.code() == Code::FailedPrecondition => {
                books.rows = by_day.iter().filter_map(|row| in_zone(row, month)).collect();
                books.days = if by_day.is_empty() { DaysOf::Utc } else { DaysOf::Zone };
            }
            Err(status) => return Err(client::explain(&status)),
        }
    }
    let mut policy = PolicyServiceClient::new(channel);
    let text = format!("{:04}-{:02}", month / 100, month % 100);
    let spend = spend::fetch(&mut policy, String::new(), text).await?;
    for team in &spend.teams {
        books.unsettled = books.unsettled.saturating_add(u64::try_from(team.unsettled_requests).unwrap_or(0));
        let reserved = team.spend.as_ref().and_then(|spend| spend.reserved.as_ref());
        books.reserved_nanos = books.reserved_nanos.saturating_add(text::nanos(reserved));
    }
    Ok(books)
}

#[expect(clippy::needless_pass_by_value, reason = "the form of map_err")]
fn explained(status: tonic::Status) -> Failure {
    client::explain(&status)
}

fn request((start, end): (u32, u32), granularity: proto::Granularity) -> QueryUsageRequest {
    let text = |day: u32| format!("{:04}-{:02}-{:02}", day / 10_000, day / 100 % 100, day % 100);
    QueryUsageRequest {
        start_date: text(start),
        end_date: text(end),
        granularity: granularity.into(),
        group_by: vec!["model".to_owned(), "project".to_owned()],
        page_size: PAGE,
        ..QueryUsageRequest::default()
    }
}

/// A row by the day of UTC in which it begins.
fn booked(row: &UsageRow) -> Option<BookedRow> {
    let day = day_of(row.start_time.as_ref()?.seconds)?;
    let (of, amounts) = (row.dimensions.as_ref()?, row.amounts.as_ref()?);
    let count = |count: i64| u64::try_from(count).unwrap_or(0);
    let audio = amounts.audio_duration.unwrap_or_default();
    let amounts = Booked {
        cost_nanos: text::nanos(amounts.cost.as_ref()),
        requests: count(amounts.request_count),
        input_tokens: count(amounts.input_tokens),
        cached_tokens: count(amounts.cached_input_tokens),
        output_tokens: count(amounts.output_tokens),
        audio_ms: count(audio.seconds.saturating_mul(1_000)) + count(i64::from(audio.nanos / 1_000_000)),
        unsettled: count(amounts.unsettled_count),
        aborted: count(amounts.aborted_count),
    };
    Some(BookedRow { day, model: of.model.clone(), project: of.project.clone(), amounts })
}

/// A row by the day of the zone, which is that of UTC at its noon: zones are at most 14 hours from it.
fn in_zone(row: &UsageRow, month: u32) -> Option<BookedRow> {
    let (start, end) = (row.start_time.as_ref()?.seconds, row.end_time.as_ref()?.seconds);
    let day = day_of(start.midpoint(end))?;
    let first = month * 100 + 1;
    // Past the edge only in zones more than half a day from UTC.
    let day = if day / 100 == month {
        day
    } else if day < first {
        first
    } else {
        day_before(day)?
    };
    Some(BookedRow { day, ..booked(row)? })
}
