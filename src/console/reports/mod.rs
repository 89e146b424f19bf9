//! Reports: what a week, a month or any days cost, what moved since, and the same as files.

mod asked;
mod denials;
mod download;
mod form;
mod gather;
mod page;
mod period;
mod rows;
mod spend;

use axum::{
    Extension,
    extract::RawQuery,
    http::StatusCode,
    response::{IntoResponse as _, Response},
};

pub(super) use self::download::{csv, focus, json};
use self::{
    asked::Asked,
    gather::{Refused, gather},
    period::Period,
};
use super::{fault::Fault, frame::Tab, view::View};

/// The page.
pub(super) async fn show(
    Extension(view): Extension<View>,
    RawQuery(query): RawQuery,
) -> Result<Response, Fault> {
    let asked = Asked::read(query.as_deref());
    let today = view.now().date();
    let made = match asked.interval(today) {
        Ok(interval) => {
            let period = Period::new(interval, today);
            let _turn = view.turn().await;
            gather(&view, &asked, &period).await.map(|gathered| (period, gathered))
        }
        Err(wrong) => Err(wrong.into()),
    };
    match made {
        Ok((period, gathered)) => {
            let title = period.title();
            let body = page::body(&view, &asked, &period, &gathered);
            Ok(view.page(Tab::Reports, &title, body).into_response())
        }
        Err(Refused::Wrong(wrong)) => {
            let body = page::wrong(&view, &asked, &wrong);
            Ok((StatusCode::BAD_REQUEST, view.page(Tab::Reports, "Reports", body)).into_response())
        }
        Err(Refused::Status(status)) => Err(status.into()),
    }
}
