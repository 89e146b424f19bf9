//! What became of each report.

use std::collections::BTreeSet;

use super::{Broken, End, History, Invariant, broken};
use crate::{
    authorizer::again_id,
    domain::request::Outcome,
    sim::history::{Asked, Records, Sent},
    store::ReservationId,
};

/// Each request that was reported is charged once, at its price, and nothing else is. `aside`: the ids of reports that spools have kept for
/// people to look at.
pub(in crate::sim) fn of_reports(history: &History, aside: &BTreeSet<String>) -> Vec<Broken> {
    let records = history.lock();
    let mut found: Vec<_> =
        records.surprises.iter().map(|what| broken(Invariant::Surprise, what.clone())).collect();
    let mut known = BTreeSet::new();
    for asked in &records.asked {
        let Some((told, report)) = asked.id().zip(asked.report.as_ref()) else { continue };
        let ids = ids(history, (asked, told), report);
        found.extend(of_report(history, &records, (asked, told, report), &ids));
        known.extend(ids);
    }
    found.extend(of_aside(&records, history, aside));
    let others = records.grants.iter().filter(|grant| grant.cost() > 0 && !known.contains(&grant.id.0));
    found.extend(
        others.map(|grant| broken(Invariant::Twice, format!("{} is booked, of no report", grant.id))),
    );
    found
}

/// Kept aside is only what a failover forgot, as a spool does not know the terms of each reservation; and of that, what the spool had
/// acknowledged and the store never booked.
fn of_aside(records: &Records, history: &History, aside: &BTreeSet<String>) -> Vec<Broken> {
    let mut unexplained = aside.clone();
    let mut found = Vec::new();
    for asked in &records.asked {
        let Some((told, report)) = asked.id().zip(asked.report.as_ref()) else { continue };
        let of_it = || records.grants.iter().filter(|grant| grant.id == told);
        if !of_it().any(|grant| grant.end == End::Lost) {
            continue;
        }
        let is_aside = unexplained.remove(&told.to_string());
        let ids = ids(history, (asked, told), report);
        let is_booked = records.grants.iter().any(|grant| grant.is_settled() && ids.contains(&grant.id.0));
        // What was booked and then forgotten was delivered, and is in no spool any more.
        let was_booked = of_it().any(|grant| !grant.settlements.is_empty());
        let costs = asked.cost(history.book).unwrap_or_default() > 0;
        if report.lacks_terms() && costs && !is_booked && !was_booked && !is_aside {
            found.push(broken(Invariant::Lost, format!("{told} is neither booked nor kept aside")));
        }
    }
    let unexplained = unexplained.into_iter();
    found.extend(unexplained.map(|id| broken(Invariant::Lost, format!("{id} is kept aside"))));
    found
}

/// The ids under which a report may be booked: as it was acknowledged, as it was told, and again where the store has that no longer.
fn ids(history: &History, (asked, told): (&Asked, ReservationId), report: &Sent) -> BTreeSet<[u8; 16]> {
    let again = again_id(history.book.teams[asked.team].team, told);
    report.acknowledged.iter().map(|acknowledged| acknowledged.id.0).chain([told.0, again.0]).collect()
}

fn of_report(
    history: &History,
    records: &Records,
    (asked, told, report): (&Asked, ReservationId, &Sent),
    ids: &BTreeSet<[u8; 16]>,
) -> Vec<Broken> {
    let mut found = Vec::new();
    let grants: Vec<_> = records.grants.iter().filter(|grant| ids.contains(&grant.id.0)).collect();
    let settled: Vec<_> = grants.iter().filter(|grant| grant.is_settled()).collect();
    if settled.len() > 1 {
        found.push(broken(Invariant::Twice, format!("{told} is booked {} times", settled.len())));
    }
    // What is acknowledged after a failover, it cannot have forgotten.
    let was_forgotten = grants.iter().any(|grant| grant.end == End::Lost || grant.was_reopened);
    let forgot = records.forgotten.last().map_or(0, |(_, step)| *step);
    let has_to_be = |sent: u64| !was_forgotten || sent > forgot;
    let cost = asked.cost(history.book).unwrap_or_default();
    let may_be_aside = report.lacks_terms() && was_forgotten;
    // What was unknown of a request without its reservation is charged nothing.
    let is_certain =
        report.usage.is_some() || grants.iter().all(|grant| !grant.is_unbounded || grant.end == End::Lost);
    if settled.is_empty()
        && cost > 0
        && is_certain
        && !may_be_aside
        && report.acknowledged.iter().any(|one| has_to_be(one.sent))
    {
        found.push(broken(Invariant::Lost, format!("{told} was acknowledged and is not booked")));
    }
    for wrong in settled.iter().filter(|grant| is_certain && grant.cost() != cost) {
        let (has, outcome) = (wrong.cost(), report.outcome);
        found.push(broken(Invariant::Books, format!("{told} ({outcome:?}) cost {has} and not {cost}")));
    }
    for one in report.acknowledged.iter().filter(|_| is_certain) {
        if one.cost.is_some_and(|said| said != cost) {
            let said = one.cost.unwrap_or_default();
            found
                .push(broken(Invariant::Books, format!("{} was said to cost {said} and not {cost}", one.id)));
        }
    }
    if report.outcome == Outcome::NotSent && !settled.is_empty() {
        found.push(broken(Invariant::Twice, format!("{told} was never sent, and is booked")));
    }
    found
}
