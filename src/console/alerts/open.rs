//! How many alerts are open, for the head of every page: read seldom, and for all readers of the same teams at once.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::{Instant, timeout};

use super::gather::LASTING;
use crate::{
    console::view::View,
    domain::rbac::{Permission, TeamScope},
    rpc::proto::{AlertState, ListAlertsRequest},
};

/// How often they are counted, as long as pages are asked for.
const EVERY: Duration = Duration::from_secs(10);
/// How long a page waits for the first count: it is of use without it.
const PATIENCE: Duration = Duration::from_millis(25);
/// The most that are counted.
const MOST: i32 = 100;
/// The most scopes of which counts are kept. Past them, the one that was counted first makes room.
const MAX_SCOPES: usize = 64;

/// How many are open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) struct OpenCount {
    count: usize,
    /// Whether there may be more.
    is_least: bool,
}

impl OpenCount {
    /// As the head of a page has it; `None`: there is nothing to say.
    pub(in super::super) fn text(self) -> Option<String> {
        let more = if self.is_least { "+" } else { "" };
        (self.count > 0).then(|| format!("{}{more}", self.count))
    }
}

/// The counts that are known.
#[derive(Debug, Default)]
pub(in super::super) struct OpenAlerts(Mutex<Vec<Known>>);

#[derive(Debug)]
struct Known {
    /// The teams that it is of.
    scope: TeamScope,
    /// `None`: it was not counted yet, or could not be.
    count: Option<OpenCount>,
    /// When it is to be counted again. That is put off before, so that one page counts, and another if that one fails.
    due: Instant,
}

impl OpenAlerts {
    /// How many are open of those that the reader of `view` may see; `None`: none may be seen, or it is not known yet.
    pub(in super::super) async fn count(&self, view: &View) -> Option<OpenCount> {
        let scope = view.scope(Permission::ReadAlerts)?;
        let (known, is_due) = self.look(&scope, Instant::now());
        if !is_due {
            return known;
        }
        let counting = tokio::spawn(view.clone().note_open_alerts(scope));
        match known {
            Some(_) => known,
            None => timeout(PATIENCE, counting).await.ok()?.ok()?,
        }
    }

    /// What is known of a scope, and whether the caller is to count.
    fn look(&self, scope: &TeamScope, now: Instant) -> (Option<OpenCount>, bool) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = all.iter_mut().find(|known| known.scope == *scope) {
            let is_due = now >= known.due;
            if is_due {
                known.due = now + EVERY;
            }
            return (known.count, is_due);
        }
        if all.len() >= MAX_SCOPES {
            all.remove(0);
        }
        all.push(Known { scope: scope.clone(), count: None, due: now + EVERY });
        (None, true)
    }

    /// Counts as the reader of `view`, whose scope this is.
    pub(in super::super) async fn read(&self, view: &View, scope: &TeamScope) -> Option<OpenCount> {
        let request = ListAlertsRequest {
            kinds: LASTING.map(i32::from).to_vec(),
            states: vec![AlertState::Open.into()],
            page_size: MOST,
            ..Default::default()
        };
        let answer = view.api().alerts().list_alerts(request).await.ok().map(tonic::Response::into_inner);
        let count = answer.map(|answer| OpenCount {
            count: answer.alerts.len(),
            is_least: !answer.next_page_token.is_empty(),
        });
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = all.iter_mut().find(|known| known.scope == *scope) {
            known.count = count;
        }
        count
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_page_counts_and_the_others_take_what_is_known() {
        let (open, now) = (OpenAlerts::default(), Instant::now());
        assert_eq!(open.look(&TeamScope::All, now), (None, true));
        assert_eq!(open.look(&TeamScope::All, now), (None, false));
        let few = TeamScope::Teams(Default::default());
        assert_eq!(open.look(&few, now), (None, true), "others see other alerts");
        assert_eq!(open.look(&TeamScope::All, now + EVERY), (None, true));
        for team in 0..=MAX_SCOPES {
            let scope = TeamScope::Teams(
                [format!("t{team}").into()].into_iter().collect::<std::collections::BTreeSet<_>>().into(),
            );
            assert_eq!(open.look(&scope, now), (None, true));
        }
        assert_eq!(open.look(&TeamScope::All, now), (None, true), "it has made room");
    }

    #[test]
    fn a_count_says_when_there_may_be_more() {
        let text = |count, is_least| OpenCount { count, is_least }.text();
        assert_eq!((text(0, false), text(0, true)), (None, None));
        assert_eq!((text(3, false).as_deref(), text(100, true).as_deref()), (Some("3"), Some("100+")));
    }
}
