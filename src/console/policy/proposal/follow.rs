//! How far the replay of a proposal is, for the script of the page that waits for it: lines of JSON, the last of which has the page.

use std::convert::Infallible;

use axum::{
    body::{Body, Bytes},
    http::{
        HeaderMap,
        header::{ACCEPT, CONTENT_TYPE},
    },
    response::{IntoResponse as _, Response},
};
use serde_json::{Value, json};
use tokio::{
    pin, select,
    sync::{OwnedSemaphorePermit, mpsc, watch},
};
use tokio_stream::wrappers::ReceiverStream;

use super::{considered, page, typed::Typed, written};
use crate::console::view::View;

/// What the script asks for, and gets.
const LINES: &str = "application/x-ndjson";
/// The lines that wait for their reader. Past them it is told of less, and of the end all the same.
const WAITING: usize = 4;

/// Whether the sender of a form follows how far its answer is.
pub(super) fn is_asked(headers: &HeaderMap) -> bool {
    headers.get(ACCEPT).and_then(|accept| accept.to_str().ok()).is_some_and(|accept| accept.contains(LINES))
}

/// The answer to a proposal, while it is made. It ends when its reader leaves.
pub(super) fn answer(view: View, typed: Typed, place: OwnedSemaphorePermit) -> Response {
    let (lines, read) = mpsc::channel(WAITING);
    tokio::spawn(async move {
        let _place = place;
        select! {
            () = lines.closed() => {}
            () = tell(view, typed, &lines) => {}
        }
    });
    ([(CONTENT_TYPE, LINES)], Body::from_stream(ReceiverStream::new(read))).into_response()
}

async fn tell(view: View, typed: Typed, lines: &mpsc::Sender<Result<Bytes, Infallible>>) {
    let percent = watch::Sender::new(0);
    let mut played = percent.subscribe();
    let considered = considered(&view, typed, &percent);
    pin!(considered);
    let answered = loop {
        select! {
            answered = &mut considered => break answered,
            Ok(()) = played.changed() => {
                let line = line(&json!({ "percent": *played.borrow_and_update() }));
                // What has no room is not told.
                let _ = lines.try_send(Ok(line));
            }
        }
    };
    let page = written(view.clone(), move |view| page::answered(view, &answered)).await;
    let last = page.map_or_else(|_| json!({ "failed": true }), |page| json!({ "page": page.into_string() }));
    // Its reader may have left.
    let _ = lines.send(Ok(line(&last))).await;
}

fn line(of: &Value) -> Bytes {
    format!("{of}\n").into()
}
