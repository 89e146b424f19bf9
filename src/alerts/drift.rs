//! Alerts of drift, which a report opens and a later one resolves. No replica sees drift by itself: what was reported is in the outbox alone.

use std::collections::HashSet;

use super::{delivery::notice_of, watch};
use crate::{
    domain::{
        Timestamp,
        drift::{DriftReport, OpenDrift},
        occasion::Occasion,
    },
    store::{
        AlertId, MAX_A_DAY, MAX_OUTBOX_APPEND, Notice, OUTBOX_KEPT, Outbox, OutboxEntry, StoreError,
        outbox_at,
    },
};

/// A day of UTC.
const DAY_MS: u64 = 86_400_000;
/// In which millisecond of their day the ids of all alerts of drift are, so that they stand together and can be looked through. Those of
/// other alerts begin with the first of a day or an hour, or with any by chance.
const PLACE_MS: u64 = 1;

/// What a report has changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DriftOutcome {
    /// The alerts that it opened.
    pub opened: Vec<AlertId>,
    /// Those that it resolved.
    pub resolved: Vec<AlertId>,
}

/// Opens and resolves what `report` says, over all replicas: what is known is read from the store, and two that report the same at once
/// make the same ids. Reads each day on which an alert of drift was opened, of those that are kept.
///
/// # Errors
/// The store does not answer. Some of it may have been done; the same report does the rest.
pub async fn report_drift<S: Outbox>(
    store: &S,
    report: &DriftReport,
    now: Timestamp,
) -> Result<DriftOutcome, StoreError> {
    let known = Known::read(store, now).await?;
    let (opened, resolved) = report.changes(&known.open);
    let opened = opened.into_iter().filter_map(|drift| {
        let occasion = Occasion::UsageDrift { report: report.days, drift: drift.clone() };
        Some((known.new_id(&occasion, now)?, Notice::new(now, occasion)))
    });
    let resolved = resolved.into_iter().map(|OpenDrift { alert: (id, at), report, drift }| {
        let occasion = Occasion::UsageDrift { report: *report, drift: drift.clone() };
        (id.clone(), Notice::new(*at, occasion).over(now.max(*at)))
    });
    let (opened, resolved): (Vec<_>, Vec<_>) = (opened.collect(), resolved.collect());
    for notices in [&opened, &resolved] {
        for notices in notices.chunks(MAX_OUTBOX_APPEND) {
            let entries = notices.iter().filter_map(|(id, notice)| notice.entry(id)).collect();
            store.outbox_append(entries, OUTBOX_KEPT).await?;
            notices.iter().for_each(|(id, notice)| watch::log(id, notice));
        }
    }
    let ids = |notices: Vec<(AlertId, Notice)>| notices.into_iter().map(|(id, _)| id).collect();
    Ok(DriftOutcome { opened: ids(opened), resolved: ids(resolved) })
}

/// What the outbox has of drift.
#[derive(Default)]
struct Known {
    /// What is not over, each with its alert and when it opened.
    open: Vec<OpenDrift<(AlertId, Timestamp)>>,
    /// The ids of all, over or not.
    ids: HashSet<AlertId>,
    /// Those that are over.
    over: HashSet<AlertId>,
}

impl Known {
    async fn read<S: Outbox>(store: &S, now: Timestamp) -> Result<Self, StoreError> {
        let mut known = Self::default();
        // The clock of another replica may be ahead, past midnight.
        let (mut day, oldest) = (now.0 / DAY_MS + 1, now.0.saturating_sub(OUTBOX_KEPT.ms) / DAY_MS);
        loop {
            let before = outbox_at(store, place(day), |entry| known.take(entry)).await?;
            // The last day whose place is not after what is there.
            let next = before.and_then(|at| Some(at.0.checked_sub(PLACE_MS)? / DAY_MS));
            day = match next {
                Some(next) if next >= oldest && day > oldest => next.min(day - 1),
                _ => return Ok(known),
            };
        }
    }

    /// Takes an entry. They come last one first, so what says that it is over comes before what says that it began.
    fn take(&mut self, entry: &OutboxEntry) {
        let Some(id) = AlertId::of_entry(&entry.id).filter(|_| entry.id.queue().is_empty()) else { return };
        self.ids.insert(id.clone());
        if id.resolved().as_ref() == Some(&entry.id) {
            self.over.insert(id);
        } else if !self.over.contains(&id)
            && let Some(notice) = notice_of(&entry.payload)
            && let Occasion::UsageDrift { report, drift } = notice.occasion
        {
            self.open.push(OpenDrift { alert: (id, notice.at), report, drift });
        }
    }

    /// The id of what begins now; `None`: it did so as often today as is told apart.
    fn new_id(&self, occasion: &Occasion, now: Timestamp) -> Option<AlertId> {
        let at = place(now.0 / DAY_MS);
        let mut ids = (0..MAX_A_DAY).map(|number| AlertId::numbered(occasion, at, number));
        ids.find(|id| !self.ids.contains(id))
    }
}

const fn place(day: u64) -> Timestamp {
    Timestamp(day * DAY_MS + PLACE_MS)
}
