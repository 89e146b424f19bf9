//! The Groq keys of an organization over all of its replicas.

use std::{cmp::Reverse, collections::HashMap, sync::Arc};

use super::{Replica, UpstreamKeyReport, UpstreamKeyState};
use crate::{domain::Timestamp, upstream::UpstreamKeys};

/// A Groq key as all replicas see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MergedUpstreamKey {
    /// The worst state of all, the earliest creation, the latest other times, and the sum of all requests.
    pub merged: UpstreamKeyReport,
    /// Each replica that has it, by name.
    pub replicas: Vec<UpstreamKeyReplica>,
}

/// A Groq key as one replica sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpstreamKeyReplica {
    /// The replica.
    pub replica: Arc<str>,
    /// What it says.
    pub report: UpstreamKeyReport,
}

/// The Groq keys of the `replicas` seen lately, as of `now`, and of this one, whose `own` are as they are at this moment: by project, the
/// newest first.
#[must_use]
pub fn merged_upstream_keys(
    (name, own): (&Arc<str>, &UpstreamKeys),
    replicas: &[Replica],
    now: Timestamp,
) -> Vec<MergedUpstreamKey> {
    let others = replicas.iter().filter(|replica| replica.name != *name && replica.is_seen_lately(now));
    let others = others.map(|replica| (&replica.name, replica.said.upstream_keys.clone()));
    let mut keys: Vec<MergedUpstreamKey> = Vec::new();
    let mut places: HashMap<String, usize> = HashMap::new();
    for (replica, reports) in std::iter::once((name, UpstreamKeyReport::all(own))).chain(others) {
        for report in reports {
            let seen = UpstreamKeyReplica { replica: Arc::clone(replica), report: report.clone() };
            match places.get(&report.name).and_then(|place| keys.get_mut(*place)) {
                Some(key) => {
                    merge(&mut key.merged, &report);
                    key.replicas.push(seen);
                }
                None => {
                    places.insert(report.name.clone(), keys.len());
                    keys.push(MergedUpstreamKey { merged: report, replicas: vec![seen] });
                }
            }
        }
    }
    for key in &mut keys {
        key.replicas.sort_by(|a, b| a.replica.cmp(&b.replica));
    }
    // A stable sort: keys of one age stay in the order of the replica that knows it.
    keys.sort_by(|MergedUpstreamKey { merged: a, .. }, MergedUpstreamKey { merged: b, .. }| {
        a.project.cmp(&b.project).then_with(|| Reverse(a.create).cmp(&Reverse(b.create)))
    });
    keys
}

fn merge(known: &mut UpstreamKeyReport, other: &UpstreamKeyReport) {
    if severity(other.state) > severity(known.state) {
        known.state = other.state;
    }
    known.create = match (known.create, other.create) {
        (Some(known), Some(other)) => Some(known.min(other)),
        (known, other) => known.or(other),
    };
    known.last_use = known.last_use.max(other.last_use);
    known.refuse = known.refuse.max(other.refuse);
    known.request_count = known.request_count.saturating_add(other.request_count);
}

/// How much a state asks for attention: a key that is refused anywhere is to be replaced, and one that is used anywhere must stay.
const fn severity(state: UpstreamKeyState) -> u8 {
    match state {
        UpstreamKeyState::Unspecified => 0,
        UpstreamKeyState::Standby => 1,
        UpstreamKeyState::Used => 2,
        UpstreamKeyState::Refused => 3,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replicas::Announcement;

    const NOW: Timestamp = Timestamp(1_000_000);

    fn report(project: &str, digest: &str, state: UpstreamKeyState, times: [u64; 3]) -> UpstreamKeyReport {
        let [create, last_use, refuse] = times.map(|ms| Some(Timestamp(ms)).filter(|at| at.0 > 0));
        UpstreamKeyReport {
            name: format!("{project}/{digest}"),
            project: project.to_owned(),
            place: "env:A".to_owned(),
            state,
            create,
            last_use,
            refuse,
            request_count: 10,
        }
    }

    fn replica(name: &str, seen_ago: u64, upstream_keys: Vec<UpstreamKeyReport>) -> Replica {
        let said = Announcement { upstream_keys, ..Announcement::default() };
        Replica { name: name.into(), last_seen: Timestamp(NOW.0 - seen_ago), said }
    }

    #[test]
    fn the_worst_state_the_latest_times_and_the_sum_count() {
        use UpstreamKeyState::{Refused, Standby, Unspecified, Used};
        let a = vec![report("main", "new", Used, [500, 900, 0]), report("main", "old", Standby, [100, 0, 0])];
        let b = vec![
            report("main", "new", Refused, [600, 700, 800]),
            report("main", "old", Used, [90, 950, 0]),
            report("lab", "x", Unspecified, [0, 0, 0]),
        ];
        let gone = vec![report("main", "new", Used, [1, 999, 999]), report("gone", "x", Used, [1, 1, 0])];
        let replicas = [
            replica("a", 1, a),
            replica("b", 59_999, b),
            replica("c", 60_000, gone.clone()),
            replica("me", 1, gone),
        ];
        let own = UpstreamKeys::default();
        let keys = merged_upstream_keys((&"me".into(), &own), &replicas, NOW);
        let told: Vec<_> = keys
            .iter()
            .map(|MergedUpstreamKey { merged: key, replicas }| {
                let times = [key.create, key.last_use, key.refuse].map(|at| at.map_or(0, |at| at.0));
                let names: Vec<&str> = replicas.iter().map(|of| &*of.replica).collect();
                (&*key.name, key.state, times, key.request_count, names.join(" "))
            })
            .collect();
        let expected = [
            ("lab/x", Unspecified, [0, 0, 0], 10, "b".to_owned()),
            ("main/new", Refused, [500, 900, 800], 20, "a b".to_owned()),
            ("main/old", Used, [90, 950, 0], 20, "a b".to_owned()),
        ];
        assert_eq!(told, expected);
    }

    #[test]
    fn the_keys_of_the_replica_that_answers_are_as_they_are_now() {
        let own = UpstreamKeys::fixed(&[("main", &["gsk_new", "gsk_old"])]).unwrap();
        let stale = replica("me", 1, UpstreamKeyReport::all(&own));
        own.pick("main").unwrap().used(NOW);
        let keys = merged_upstream_keys((&"me".into(), &own), &[stale], NOW);
        let counts: Vec<_> = keys.iter().map(|key| (key.merged.request_count, key.replicas.len())).collect();
        assert_eq!(counts, [(1, 1), (0, 1)]);
    }
}
