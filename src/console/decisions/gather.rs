//! The decisions that are kept, read from their stream.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use tokio::time::{Instant, timeout_at};
use tonic::Status;

use super::{BEFORE_ALL, filter::Filter};
use crate::{
    console::view::View,
    rpc::proto::{Decision, DecisionEvent},
};

/// How long is read at most.
const BOUND: Duration = Duration::from_millis(300);
/// How long nothing comes after all that is kept has come.
const QUIET: Duration = Duration::from_millis(50);
/// The most decisions that are held at once: as many as the store keeps.
const MOST: usize = 1_000;

/// The decisions that are kept, the oldest first.
pub(super) async fn kept(view: &View, filter: &Filter) -> Result<Vec<DecisionEvent>, Status> {
    let request = filter.request(BEFORE_ALL.to_owned());
    let mut stream = view.api().reports().stream_decisions(request).await?.into_inner();
    let ends = Instant::now() + BOUND;
    let mut kept = VecDeque::new();
    loop {
        let until = ends.min(Instant::now() + QUIET);
        match timeout_at(until, stream.message()).await {
            Ok(Ok(Some(message))) => {
                kept.extend(message.events.into_iter().filter(|event| filter.takes(event)));
            }
            Ok(Err(status)) => return Err(status),
            Ok(Ok(None)) | Err(_) => break,
        }
        kept.drain(..kept.len().saturating_sub(MOST));
    }
    Ok(kept.into())
}

/// How many decisions each of the last 60 seconds had, and how many of them are denials, without the seconds that had none.
pub(super) fn minute(kept: &[DecisionEvent], now: i64) -> Vec<(i64, usize, usize)> {
    let mut seconds: BTreeMap<i64, (usize, usize)> = BTreeMap::new();
    for event in kept {
        let at = event.time.as_ref().map_or(0, |time| time.seconds);
        if at > now - 60 {
            let (all, denied) = seconds.entry(at).or_default();
            *all += 1;
            *denied += usize::from(event.decision() == Decision::Denied);
        }
    }
    seconds.into_iter().map(|(second, (all, denied))| (second, all, denied)).collect()
}
