//! What all replicas keep of reports that the store has not taken.

use std::collections::{BTreeMap, HashMap};

use super::{Replica, SpoolReport};
use crate::{
    domain::Timestamp,
    spool::Spool,
    store::{self, StoreError},
};

/// Reports and what they cost in nano-dollars, as far as it is known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Spooled {
    /// Of all teams, those included of which only the store knows the team.
    pub all: (u64, u64),
    /// By team.
    pub teams: BTreeMap<String, (u64, u64)>,
}

/// What is kept by the replicas of the last hour, as they said last, and by this one, whose `own` is as it is now.
///
/// # Errors
/// The store does not answer.
pub async fn spooled<S: store::Replicas>(
    store: &S,
    own: Option<&Spool>,
    now: Timestamp,
) -> Result<Spooled, StoreError> {
    let own = own.map(|spool| SpoolReport::new(spool, now));
    Ok(sum(own, super::list(store).await?))
}

fn sum(own: Option<SpoolReport>, replicas: Vec<Replica>) -> Spooled {
    // A spool is counted once: as the process said that has it now, though the one before it is listed as well.
    let mut last: HashMap<String, (Timestamp, SpoolReport)> = HashMap::new();
    for Replica { last_seen, said, .. } in replicas {
        let Some(spool) = said.spool else { continue };
        match last.get(&spool.name) {
            Some((seen, _)) if *seen >= last_seen => {}
            _ => drop(last.insert(spool.name.clone(), (last_seen, spool))),
        }
    }
    if let Some(own) = own {
        last.insert(own.name.clone(), (Timestamp(0), own));
    }
    let mut spooled = Spooled::default();
    for (_, spool) in last.into_values() {
        add(&mut spooled.all, (spool.records, spool.cost_nano_usd));
        for (team, sums) in spool.teams {
            add(spooled.teams.entry(team).or_default(), sums);
        }
    }
    spooled
}

const fn add((records, cost): &mut (u64, u64), (more, costing): (u64, u64)) {
    *records = records.saturating_add(more);
    *cost = cost.saturating_add(costing);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replicas::Announcement;

    #[test]
    fn each_spool_counts_once_as_its_last_process_said() {
        let report = |name: &str, records, cost| SpoolReport {
            name: name.to_owned(),
            records,
            cost_nano_usd: cost,
            is_backlog: false,
            teams: [("a".to_owned(), (records, cost))].into(),
        };
        let replica = |name: &str, seen, spool| Replica {
            name: name.into(),
            last_seen: Timestamp(seen),
            said: Announcement { spool, ..Announcement::default() },
        };
        let replicas = vec![
            replica("gate-1:1", 10, Some(report("s1", 5, 50))),
            replica("gate-1:2", 20, Some(report("s1", 3, 30))),
            replica("gate-2:1", 15, Some(report("s2", 1, 10))),
            replica("gate-3:1", 15, None),
            replica("me", 19, Some(report("own", 100, 100))),
        ];
        let spooled = sum(Some(report("own", 2, 20)), replicas);
        assert_eq!(spooled.all, (6, 60));
        assert_eq!(spooled.teams, [("a".to_owned(), (6, 60))].into());
    }
}
