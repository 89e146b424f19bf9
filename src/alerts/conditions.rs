//! What lasts, as one replica sees it: paused, closed, refused or rejected at this moment, or over.

use std::sync::Arc;

use super::Facts;
use crate::{
    domain::{
        Timestamp,
        occasion::{Occasion, first_line},
        snapshot::Snapshot,
        tally::{INTERVAL_MS, LEAST_EXPIRED, Samples, UnsettledShare},
    },
    live::Live,
    replicas::{self, Replica, UpstreamKeyState},
    runtime::replica_name,
    store::{AlertId, LAYOUT, Notice, Store, StoreError, cooldown_notice},
    upstream::{KeyUse, LiveKey},
};

/// A replica that was started again has forgotten what Groq refused, and another may not have said it yet: for so long after it was told,
/// a key is not taken for one that works because none says otherwise.
const UNSURE_MS: u64 = 60_000;

/// Reservations that are looked up at once.
const LOOKED_UP: usize = 64;

/// Something that lasts at a moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Condition {
    pub(super) notice: Notice,
    /// The alert of it, where every replica knows the same beginning. Else it is the one that lasts already, or a new one.
    pub(super) id: Option<AlertId>,
}

impl Condition {
    pub(super) const fn local(notice: Notice) -> Self {
        Self { notice, id: None }
    }
}

/// What is paused. A record that cannot be read does not say since when.
pub(super) fn paused(snapshot: &Snapshot) -> Vec<Condition> {
    let condition = snapshot.pauses.iter().map(|(target, pause)| {
        let occasion = Occasion::Pause {
            target: target.to_string().into(),
            reason: Arc::clone(&pause.reason),
            by: pause.by.clone(),
            since: pause.since,
        };
        let id = AlertId::of(&occasion, pause.since);
        Condition { id: Some(id), notice: Notice::new(pause.since, occasion) }
    });
    condition.collect()
}

/// What Groq limits.
///
/// # Errors
/// The store does not answer.
pub(super) async fn closed<S: Store>(store: &S) -> Result<Vec<Condition>, StoreError> {
    let closed = store.cooldowns().await?;
    let told = closed.iter().filter_map(|(gate, cooldown)| cooldown_notice(gate, cooldown));
    Ok(told.map(|(id, notice)| Condition { id: Some(id), notice }).collect())
}

/// The keys that Groq refuses to this replica.
pub(super) fn refused(facts: &Facts) -> Vec<Condition> {
    let keys = facts.upstream.all();
    let refused = keys.iter().filter_map(|(key, state)| {
        let at = key.refused_at().filter(|_| *state == KeyUse::Refused)?;
        let is_other = |(other, state): &(Arc<LiveKey>, KeyUse)| {
            other.project == key.project && *state != KeyUse::Refused
        };
        let occasion = Occasion::UpstreamKeyRefused {
            key: Arc::clone(&key.id),
            project: Arc::clone(&key.project),
            place: first_line(&key.place),
            since: key.since,
            is_last: !keys.iter().any(is_other),
        };
        Some(Condition::local(Notice::new(at, occasion)))
    });
    refused.collect()
}

/// The changed policy that did not load here.
pub(super) fn rejected(facts: &Facts) -> Vec<Condition> {
    let status = Arc::clone(&facts.policy.borrow());
    let rejected = status.rejected.as_ref().map(|rejection| {
        let first = rejection.findings.first();
        let occasion = Occasion::PolicyRejected {
            file: first.map_or_else(|| "".into(), |finding| Arc::clone(&finding.file)),
            finding: first.map_or_else(|| "".into(), |finding| first_line(&finding.to_string())),
            revision: Arc::clone(&status.revision),
        };
        Condition::local(Notice::new(rejection.at, occasion))
    });
    rejected.into_iter().collect()
}

/// The replicas of an earlier release that share the store.
///
/// # Errors
/// The store does not answer.
pub(super) async fn mismatched<S: Store>(store: &S, now: Timestamp) -> Result<Vec<Condition>, StoreError> {
    let replicas = replicas::list(store).await?;
    let mut behind = behind(&replicas, LAYOUT, now).peekable();
    let Some(first) = behind.peek().copied() else { return Ok(Vec::new()) };
    let (lowest, count) =
        behind.fold((LAYOUT, 0), |(lowest, count), replica| (lowest.min(replica.said.layout), count + 1));
    let replica = Arc::clone(&first.name);
    let occasion = Occasion::LayoutMismatch { layout: LAYOUT, lowest, replica, count };
    Ok(vec![Condition::local(Notice::new(now, occasion))])
}

/// Those that were seen lately and do not know `layout`. One whose announcement cannot be read is not among them.
fn behind(replicas: &[Replica], layout: u32, now: Timestamp) -> impl Iterator<Item = &Replica> {
    let knows_less = move |replica: &&Replica| (1..layout).contains(&replica.said.layout);
    replicas.iter().filter(move |replica| replica.is_seen_lately(now)).filter(knows_less)
}

/// Reports of usage that this replica keeps for too long.
pub(super) fn backlog(facts: &Facts, now: Timestamp) -> Vec<Condition> {
    let Some(spool) = &facts.spool else { return Vec::new() };
    let state = spool.state();
    if !state.is_backlog(now) {
        return Vec::new();
    }
    let occasion = Occasion::SpoolBacklog {
        spool: Arc::clone(spool.name()),
        replica: replica_name().into(),
        records: state.records,
        oldest: state.oldest.unwrap_or(Timestamp(0)),
        refused: state.refused,
        lost: state.lost.unwrap_or_default().into(),
        fault: if state.lost.is_none() { state.fault().into() } else { "".into() },
    };
    vec![Condition::local(Notice::new(now, occasion))]
}

/// Looks up reservations that have expired, and returns the teams of which many have no report.
pub(super) async fn unsettled<S: Store>(store: &S, samples: &Samples, now: Timestamp) -> Vec<Condition> {
    let mut due = samples.due(now, LOOKED_UP).into_iter();
    while let Some(sample) = due.next() {
        let Ok(id) = sample.reservation.parse() else { continue };
        match store.find(id).await {
            // One that was settled is remembered for minutes only, one that was not for a day.
            Ok(found) => {
                let is_unreported = found.is_some_and(|record| record.settlement.is_none());
                samples.found(&sample.team, now, is_unreported);
            }
            Err(_) => {
                samples.put_back(std::iter::once(sample).chain(due).collect());
                break;
            }
        }
    }
    let high = samples.shares(now).into_iter().filter(|share| share.is_high);
    let condition = |UnsettledShare { team, expired, total, .. }| {
        Condition::local(Notice::new(now, Occasion::UnsettledHigh { team, expired, total }))
    };
    high.map(condition).collect()
}

/// Whether what `notice` tells of is over, as far as this replica can know: none may be left of those that saw it begin.
///
/// # Errors
/// The store does not answer.
pub(super) async fn is_over<S: Store>(
    store: &S,
    (live, facts): (&Live, &Facts),
    notice: &Notice,
    now: Timestamp,
) -> Result<bool, StoreError> {
    Ok(match &notice.occasion {
        Occasion::Pause { target, since, .. } => {
            let snapshot = live.snapshot();
            let mut pauses = snapshot.pauses.iter();
            let lasts = pauses.any(|(own, pause)| own.to_string() == **target && pause.since == *since);
            live.freshness().is_fresh() && !snapshot.is_pending && !lasts
        }
        Occasion::UpstreamCooldown { .. } => {
            let own = |condition: &Condition| is_same_cooldown(&condition.notice.occasion, &notice.occasion);
            !closed(store).await?.iter().any(own)
        }
        Occasion::UpstreamKeyRefused { key, .. } => {
            let is_refused = |condition: &Condition| condition.notice.occasion.subject() == **key;
            if now.since(notice.at) < UNSURE_MS || refused(facts).iter().any(is_refused) {
                return Ok(false);
            }
            let replicas = replicas::list(store).await?;
            let seen = replicas.iter().filter(|replica| replica.is_seen_lately(now));
            let mut keys = seen.flat_map(|replica| &replica.said.upstream_keys);
            !keys.any(|report| report.name == **key && report.state == UpstreamKeyState::Refused)
        }
        Occasion::PolicyRejected { .. } => {
            let status = Arc::clone(&facts.policy.borrow());
            status.rejected.is_none() && status.loaded_at > notice.at
        }
        Occasion::LayoutMismatch { layout, .. } => {
            behind(&replicas::list(store).await?, *layout, now).next().is_none()
        }
        // The replica that has the spool now says so: that of before may have been started again under another name. One that is gone with
        // what it kept says nothing.
        Occasion::SpoolBacklog { spool: name, .. } => match &facts.spool {
            Some(spool) if spool.name() == name => backlog(facts, now).is_empty(),
            _ => {
                let replicas = replicas::list(store).await?;
                let said = replicas.iter().filter_map(|replica| {
                    let said = replica.said.spool.as_ref().filter(|said| *said.name == **name)?;
                    Some((replica.last_seen, said))
                });
                let last = said.max_by_key(|(seen, _)| *seen);
                last.is_some_and(|(_, said)| !said.is_backlog)
            }
        },
        // It is recorded when it is over.
        Occasion::StoreOutage { .. } => true,
        Occasion::UnsettledHigh { team, .. } => {
            let shares = live.tallies.samples.shares(now);
            let own = shares.iter().find(|share| share.team == *team);
            // One that has looked up few can tell only that it has become old.
            let is_old = now.since(notice.at) > 2 * INTERVAL_MS;
            own.map_or(is_old, |share| !share.is_high && (is_old || share.total >= LEAST_EXPIRED))
        }
        // A report says so.
        Occasion::UsageDrift { .. } => false,
        // They have no duration.
        Occasion::UnreservedRefused { .. } | Occasion::BudgetForecast { .. } => true,
    })
}

fn is_same_cooldown(one: &Occasion, other: &Occasion) -> bool {
    match (one, other) {
        (Occasion::UpstreamCooldown { begun: a, .. }, Occasion::UpstreamCooldown { begun: b, .. }) => {
            a == b && one.subject() == other.subject()
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replicas::Announcement;

    #[test]
    fn a_replica_is_behind_while_it_announces_an_earlier_layout() {
        let replica = |name: &str, layout, last_seen| Replica {
            name: name.into(),
            last_seen: Timestamp(last_seen),
            said: Announcement { layout, ..Announcement::default() },
        };
        let replicas = [
            replica("earlier", 8, 100_000),
            replica("gone", 8, 40_000),
            replica("of-this-release", 9, 100_000),
            replica("later", 10, 100_000),
            replica("unreadable", 0, 100_000),
        ];
        let names: Vec<_> = behind(&replicas, 9, Timestamp(100_000)).map(|replica| &*replica.name).collect();
        assert_eq!(names, ["earlier"]);
    }
}
