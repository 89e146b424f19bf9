//! Reports of usage while the store does not answer: kept on the disk of this replica, acknowledged, and booked once it does.
//!
//! A report is kept only where booking it failed for want of an answer, or is known to: the decisions or the reports of this core found that out a moment
//! ago. One that the store is too busy for is refused as ever, since the store has to catch up. Whether a booking that was not answered had
//! effect is not known; booking it again is a repeat. What is kept has all that its booking needs where this replica knows it, so that
//! it costs what its caller was told, whatever becomes of the policy and of the reservation.

mod deliver;
mod facts;
mod recalls;
mod record;
#[cfg(test)]
mod tests;
mod worker;

use std::sync::Arc;

use tracing::warn;

pub(super) use self::recalls::Recalls;
pub use self::worker::SpoolDelivery;
use self::{
    facts::Facts,
    record::{SpoolRecord, Subject},
};
use super::{
    Authorizer, Booked, Bounds, Failure, ReservationName, charge::Charge, report::Report, settle::is_of,
    ticket, unreserved,
};
use crate::{
    domain::{
        caller::ResolvedCaller,
        decision::Violation,
        money::NanoUsd,
        plan,
        rbac::TeamScope,
        request::{Operation, Outcome, Unreserved, Usage},
        snapshot::Snapshot,
    },
    spool::{About, Entry, Kept, NotKept, Spool},
    store::{Breaker, Record, ReservationId, Store, StoreError},
    telemetry::{KeyValue, trace},
};

/// In the digest of a report by the name of its reservation: no key is called so.
const ANY_KEY: &str = "\u{1}";

/// A report that was acknowledged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Recorded {
    /// It is in the books.
    Booked(Booked),
    /// It is on the disk of this replica until the store answers.
    Spooled(SpooledReport),
}

/// A report that is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpooledReport {
    /// The reservation that it is of, or under which it will be booked.
    pub reservation: ReservationId,
    /// What it costs; `None`: only the store knows the terms of its reservation.
    pub cost: Option<NanoUsd>,
    /// Whether it was kept before.
    pub already_recorded: bool,
}

/// Whether the store gave no answer. It did where it is too busy, or holds what this release does not know.
const fn is_outage(failure: &Failure) -> bool {
    matches!(failure, Failure::Store(StoreError::Unavailable))
}

impl<S: Store + Clone> Authorizer<S> {
    /// Records the usage of the reservation of a team in `scope` that a caller names: in the books or, while the store does not answer,
    /// in the spool.
    ///
    /// # Errors
    /// As [`Authorizer::settle_named`]; or the spool is full.
    pub async fn record_named(
        &self,
        name: &ReservationName,
        usage: Option<Usage>,
        outcome: Outcome,
        upstream_delay_ms: u64,
        scope: &TeamScope,
    ) -> Result<Recorded, Failure> {
        let Some(spool) = &self.shared.spool else {
            let settled = self.settle_named(name, usage, outcome, upstream_delay_ms, scope).await;
            return settled.map(Recorded::Booked);
        };
        let is_asked = !self.is_store_out();
        if is_asked {
            match self.settle_named(name, usage.clone(), outcome, upstream_delay_ms, scope).await {
                Err(failure) if is_outage(&failure) => {}
                settled => return settled.map(Recorded::Booked),
            }
        }
        let report = Report::new(usage, outcome, upstream_delay_ms);
        Box::pin(self.spool_named((spool, is_asked), name, &report, scope)).await
    }

    /// Records usage that has no reservation: in the books or, while the store does not answer, in the spool. What one report costs is
    /// bound there, too; the bound of the day, which only the store counts, is not.
    ///
    /// # Errors
    /// As [`Authorizer::settle_unreserved`]; or the spool is full.
    pub async fn record_unreserved(
        &self,
        asker: (&Snapshot, &Result<ResolvedCaller<'_>, Violation>),
        subject: &Unreserved,
        (usage, outcome): (Option<Usage>, Outcome),
        upstream_delay_ms: u64,
        bounds: Bounds,
    ) -> Result<Recorded, Failure> {
        let settle =
            |usage| self.settle_unreserved(asker, subject, usage, outcome, upstream_delay_ms, bounds);
        let Some(spool) = &self.shared.spool else {
            return settle(usage).await.map(Recorded::Booked);
        };
        let is_asked = !self.is_store_out();
        if is_asked {
            match settle(usage.clone()).await {
                Err(failure) if is_outage(&failure) => {}
                settled => return settled.map(Recorded::Booked),
            }
        }
        let report = Report::new(usage, outcome, upstream_delay_ms).by_request_id();
        Box::pin(self.spool_unreserved((spool, is_asked), asker, subject, &report, bounds)).await
    }

    /// Whether a call to the store would only wait for its deadline. If not, this is the report that finds out.
    fn is_store_out(&self) -> bool {
        self.store.is_down()
            || self.store.breaker().is_some_and(Breaker::is_refusing)
            || self.store.report_breaker().is_some_and(|breaker| breaker.holds_back(false))
    }

    /// The reservation as a store of this replica remembers it. Its connection may be another core's than that of its report.
    fn recall_anywhere(&self, id: ReservationId) -> Option<Record> {
        self.store.recall(id).or_else(|| self.shared.recalls.find(id))
    }

    async fn spool_named(
        &self,
        to: (&Spool, bool),
        name: &ReservationName,
        report: &Report,
        scope: &TeamScope,
    ) -> Result<Recorded, Failure> {
        let snapshot = self.snapshot();
        let tools = &snapshot.policy.tools;
        let (subject, facts) = match name {
            ReservationName::Stored(id) => {
                let facts = match self.recall_anywhere(*id) {
                    Some(record) if !is_of(scope, &record)? => return Err(Failure::OtherTeam),
                    Some(record) => Some(Facts::of_record(&record, report.usage.as_ref(), tools)?),
                    None => None,
                };
                (Subject::Stored, facts)
            }
            ReservationName::Degraded(name) => {
                let key = self.shared.live.registry.hash_key().ok_or(StoreError::Unavailable)?;
                let opened = self.open_degraded(&snapshot, (name, key), report, scope)?;
                (Subject::Degraded, Some(Facts::of_degraded(&opened, report.usage.as_ref(), tools)?))
            }
        };
        // Where the team is known, it was looked at.
        let teams = match scope {
            TeamScope::Teams(teams) if facts.is_none() => Some(teams.iter().cloned().collect()),
            TeamScope::Teams(_) | TeamScope::All => None,
        };
        // What a report by the `request_id` would have as well; where the terms are not known, only what was used.
        let digest = match &facts {
            Some(facts) => {
                let ticket = facts.ticket()?;
                digest_of(report, ANY_KEY, &ticket.model, ticket.operation)
            }
            None => report.digest(),
        };
        let record = SpoolRecord::new(subject, report, teams, facts);
        self.spool((to, &snapshot), name.id(), (report, &[digest]), record).await
    }

    async fn spool_unreserved(
        &self,
        to: (&Spool, bool),
        (snapshot, caller): (&Snapshot, &Result<ResolvedCaller<'_>, Violation>),
        subject: &Unreserved,
        report: &Report,
        bounds: Bounds,
    ) -> Result<Recorded, Failure> {
        let unbookable = |violation| unreserved::unbookable(violation, &subject.caller);
        let (policy, caller, now) =
            (&*snapshot.policy, caller.clone().map_err(unbookable)?, self.store.now());
        let today = self.today(policy, now);
        let mut plan =
            plan::compile_unreserved(snapshot, caller, subject, now, &today).map_err(unbookable)?;
        let id = ticket::derived_id(&plan.caller.team.name, &subject.request_id);
        if bounds == Bounds::Apply {
            plan.count_unreserved(&today);
        }
        let usage = report.usage.as_ref();
        let facts = match self.recall_anywhere(id) {
            // Its id was lost: the request has the terms of its reservation.
            Some(record) if unreserved::is_about(&record, &plan)? => {
                Facts::of_record(&record, usage, &policy.tools)?
            }
            _ => {
                let labels = policy.reports.of_request(&plan.caller, &subject.labels);
                let note = ticket::whole(snapshot, &plan, (&subject.user, &labels), 0)?;
                let facts =
                    Facts::new((now, now.plus(plan.ttl_ms())), &plan.holds, note, (usage, &policy.tools))?;
                let cost = cost_of(&facts, report, snapshot)?;
                // Whether there is a reservation, which has its own bounds, only the store knows.
                if bounds == Bounds::Apply && cost > plan.caller.team.unreserved.max_cost {
                    return Err(StoreError::Unavailable.into());
                }
                facts
            }
        };
        let record = SpoolRecord::new(Subject::Unreserved, report, None, Some(facts));
        let key = plan.caller.key.map(|key| &*key.name).unwrap_or_default();
        let of_key = |key| digest_of(report, key, &plan.model.name, plan.work.operation());
        // It may be there by the name of its reservation, of any key.
        let digests = [of_key(key), of_key(ANY_KEY), report.digest()];
        self.spool((to, snapshot), id, (report, &digests), record).await
    }

    /// Keeps a report, once. Its first digest tells a repeat of it from another under the same id; one that has another of them is the same.
    async fn spool(
        &self,
        ((spool, is_asked), snapshot): ((&Spool, bool), &Snapshot),
        id: ReservationId,
        (report, digests): (&Report, &[u64]),
        record: SpoolRecord,
    ) -> Result<Recorded, Failure> {
        let digest = digests.first().copied().unwrap_or_default();
        let cost = record.facts.as_ref().map(|facts| cost_of(facts, report, snapshot)).transpose()?;
        let team = match &record.facts {
            Some(facts) => Arc::clone(&facts.ticket()?.team),
            // Of one that may report for one team only, it is known.
            None => record.only_team().unwrap_or_default(),
        };
        let at = self.store.now();
        let about = About {
            team: Arc::clone(&team),
            cost_nanos: cost.map(NanoUsd::nanos),
            at,
            digest,
            tried_at: is_asked.then_some(at),
        };
        let record = SpoolRecord { is_tried: is_asked, ..record }.to_bytes()?;
        let kept = spool.keep(Entry { id, about, record }).await.map_err(|error| match error {
            NotKept::Full => Failure::SpoolFull,
            NotKept::Unavailable => StoreError::Unavailable.into(),
        })?;
        let spooled = match kept {
            Kept::New => {
                if spool.records() == 1 {
                    warn!("the store does not answer: reports of usage are kept in the spool until it does");
                }
                self.shared.live.tallies.spooled(&snapshot.policy, &team, report.outcome);
                SpooledReport { reservation: id, cost, already_recorded: false }
            }
            // The same report may have been kept by the name of its reservation, until the store had forgotten that.
            Kept::Already(about) if report.must_repeat() && !digests.contains(&about.digest) => {
                return Err(Failure::RequestIdReused);
            }
            // Of another team's report under this id nothing is told, and this one is not kept in its place.
            Kept::Already(about) if is_of_another(&about.team, &team) => {
                return Err(StoreError::Unavailable.into());
            }
            Kept::Already(about) => {
                let cost = about.cost_nanos.and_then(NanoUsd::new);
                SpooledReport { reservation: id, cost, already_recorded: true }
            }
        };
        trace::annotate(|| {
            vec![
                KeyValue::new("tollgate.organization", snapshot.policy.organization.id.to_string()),
                KeyValue::new("tollgate.reservation_id", id.to_string()),
                KeyValue::new("tollgate.spooled", true),
            ]
        });
        Ok(Recorded::Spooled(spooled))
    }
}

/// What tells a repeat from the report of another request with the same `request_id`: the store compares what a report says of its request, too.
fn digest_of(report: &Report, key: &str, model: &str, operation: Operation) -> u64 {
    let request = postcard::to_stdvec(&(key, model, operation)).unwrap_or_default();
    let mut hasher = blake3::Hasher::new();
    hasher.update(&report.digest().to_le_bytes()).update(&request);
    let mut first_eight = [0; 8];
    hasher.finalize_xof().fill(&mut first_eight);
    u64::from_le_bytes(first_eight)
}

/// Whether two teams, of which either may not be known, are not one.
fn is_of_another(one: &str, other: &str) -> bool {
    !one.is_empty() && !other.is_empty() && one != other
}

/// What a report costs by the facts that it is kept with.
fn cost_of(facts: &Facts, report: &Report, snapshot: &Snapshot) -> Result<NanoUsd, Failure> {
    let ticket = facts.priced()?;
    let tools = &snapshot.policy.tools;
    Ok(Charge::of(&ticket, report.usage.as_ref(), report.outcome, tools, facts.decided_at)?.cost)
}
