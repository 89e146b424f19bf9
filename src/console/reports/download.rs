//! A report as a file: what `tollgate report` prints, page by page as it is read.

use std::io;

use axum::{
    Extension,
    body::Body,
    extract::RawQuery,
    http::header::{CONTENT_DISPOSITION, CONTENT_TYPE},
    response::{IntoResponse as _, Response},
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::asked::{Asked, Wrong};
use crate::{
    console::{fault::Fault, view::View},
    domain::text::{Notation, written_out},
    report_text::{Interval, csv as comma, day_text, focus as focus_rows},
    rpc::{
        JsonError,
        proto::{Granularity, QueryUsageRequest, QueryUsageResponse, UsageRow},
        to_json,
    },
};

/// The rows asked for at a time.
const PAGE: i32 = 1_000;
/// Pages that wait for a reader: the next is made while one is sent.
const AHEAD: usize = 1;

/// What a file is written in.
enum Form {
    Csv,
    Json,
    /// With the months that the days are in.
    Focus(Vec<UsageRow>),
}

/// Comma-separated values.
pub(in super::super) async fn csv(
    Extension(view): Extension<View>,
    RawQuery(query): RawQuery,
) -> Result<Response, Fault> {
    let (request, interval) = asked_for(&view, query.as_deref())?;
    send(&view, interval, request, Form::Csv).await
}

/// The answer of `QueryUsage`, with all rows.
pub(in super::super) async fn json(
    Extension(view): Extension<View>,
    RawQuery(query): RawQuery,
) -> Result<Response, Fault> {
    let (request, interval) = asked_for(&view, query.as_deref())?;
    send(&view, interval, request, Form::Json).await
}

/// FOCUS 1.2, which has days and dimensions of its own.
pub(in super::super) async fn focus(
    Extension(view): Extension<View>,
    RawQuery(query): RawQuery,
) -> Result<Response, Fault> {
    let (request, interval) = asked_for(&view, query.as_deref())?;
    let request = QueryUsageRequest {
        granularity: Granularity::Day.into(),
        group_by: focus_rows::DIMENSIONS.map(str::to_owned).to_vec(),
        order_by: String::new(),
        ..request
    };
    let months = focus_rows::months(&view.snapshot().policy.calendar, interval);
    send(&view, interval, request, Form::Focus(months)).await
}

fn asked_for(view: &View, query: Option<&str>) -> Result<(QueryUsageRequest, Interval), Fault> {
    let asked = Asked::read(query);
    let read = asked.interval(view.now().date());
    let read = read.and_then(|interval| asked.request(interval).map(|request| (request, interval)));
    let fault = |Wrong { field, message }: Wrong| Fault::wrong_in_address(field, &message);
    let (request, interval) = read.map_err(fault)?;
    Ok((QueryUsageRequest { page_size: PAGE, ..request }, interval))
}

impl Form {
    const fn name(&self) -> (&'static str, &'static str) {
        match self {
            Self::Csv => ("csv", "text/csv; charset=utf-8"),
            Self::Json => ("json", "application/json"),
            Self::Focus(_) => ("focus.csv", "text/csv; charset=utf-8"),
        }
    }

    /// What stands before the rows.
    fn head(&self, by: &[String], first: &QueryUsageResponse) -> Result<String, JsonError> {
        Ok(match self {
            Self::Csv => plain(&comma::head(by)),
            Self::Focus(_) => plain(&focus_rows::head()),
            Self::Json => {
                let (rows, next_page_token) = (Vec::new(), String::new());
                let mut answer = to_json(&QueryUsageResponse { rows, next_page_token, ..first.clone() })?;
                if let Some(fields) = answer.as_object_mut() {
                    fields.remove("rows");
                }
                let answer = answer.to_string();
                // What follows belongs to the same object.
                format!("{},\"rows\":[\n", answer.strip_suffix('}').unwrap_or(&answer))
            }
        })
    }

    /// The rows of a page; of JSON with what parts them from those before.
    fn rows(&self, by: &[String], rows: &[UsageRow], is_first: bool) -> Result<String, JsonError> {
        Ok(match self {
            Self::Csv => plain(&rows.iter().map(|row| comma::row(by, row)).collect::<String>()),
            Self::Focus(months) => {
                plain(&rows.iter().map(|row| focus_rows::lines(row, months)).collect::<String>())
            }
            Self::Json => {
                let rows: Result<Vec<_>, _> = rows.iter().map(|row| Ok(to_json(row)?.to_string())).collect();
                let rows = rows?.join(",\n");
                let rows = written_out(&rows, Notation::Json, |c| c == '\n');
                if is_first || rows.is_empty() { rows.into_owned() } else { format!(",\n{rows}") }
            }
        })
    }

    const fn foot(&self) -> &'static str {
        match self {
            Self::Json => "\n]}\n",
            Self::Csv | Self::Focus(_) => "",
        }
    }
}

/// As the command line prints it: what users and labels are called moves no cursor.
fn plain(text: &str) -> String {
    written_out(text, Notation::Text, |c| c == '\n' || c == '\t').into_owned()
}

/// Answers with a file. What is wrong with the query is told in place of it; what fails later cuts it off, so that part of a report
/// does not pass for all of it.
async fn send(
    view: &View,
    interval: Interval,
    mut request: QueryUsageRequest,
    form: Form,
) -> Result<Response, Fault> {
    let mut client = view.api().reports();
    let first = client.query_usage(request.clone()).await?.into_inner();
    let unwritten = |error: JsonError| Fault::from(Status::internal(error.to_string()));
    let mut text = form.head(&request.group_by, &first).map_err(unwritten)?;
    text += &form.rows(&request.group_by, &first.rows, true).map_err(unwritten)?;
    let (extension, media_type) = form.name();
    let name = format!(
        "tollgate-{}-{}-{}.{extension}",
        view.snapshot().policy.organization.id,
        day_text(interval.first),
        day_text(interval.last())
    );
    let (sender, receiver) = mpsc::channel::<io::Result<String>>(AHEAD);
    tokio::spawn(async move {
        let mut next = first.next_page_token;
        loop {
            // The reader has gone.
            if sender.send(Ok(std::mem::take(&mut text))).await.is_err() {
                return;
            }
            if next.is_empty() {
                let _ = sender.send(Ok(form.foot().to_owned())).await;
                return;
            }
            request.page_token = std::mem::take(&mut next);
            let page = client.query_usage(request.clone()).await.map_err(io::Error::other);
            let made = page.and_then(|page| {
                let page = page.into_inner();
                next = page.next_page_token;
                form.rows(&request.group_by, &page.rows, false).map_err(io::Error::other)
            });
            match made {
                Ok(rows) => text = rows,
                Err(error) => {
                    let _ = sender.send(Err(error)).await;
                    return;
                }
            }
        }
    });
    let headers = [
        (CONTENT_TYPE, media_type.to_owned()),
        (CONTENT_DISPOSITION, format!("attachment; filename=\"{name}\"")),
    ];
    Ok((headers, Body::from_stream(ReceiverStream::new(receiver))).into_response())
}
