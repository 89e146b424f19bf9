//! Usage that was never authorized.

use super::{Line, Plan, limits::want};
use crate::domain::{
    MAX_AMOUNT, Timestamp,
    batch::Work,
    calendar::Days,
    caller::ResolvedCaller,
    counter::Hold,
    decision::{Reason, Violation},
    eligibility::{price, refusal, spelling},
    holds::Term,
    limit::{LimitScope, Quantity, Window},
    money::NanoUsd,
    price::Rates,
    request::{ServiceTier, Unreserved},
    snapshot::Snapshot,
};

/// Compiles the booking of usage by `caller` that was never authorized: all counters that it belongs to, without bounds. The
/// money is spent: a key that has expired since still identifies the spender.
///
/// # Errors
/// The violation, if the usage has no price.
pub fn compile_unreserved<'p>(
    snapshot: &'p Snapshot,
    caller: ResolvedCaller<'p>,
    subject: &Unreserved,
    now: Timestamp,
    today: &Days,
) -> Result<Plan<'p>, Violation> {
    let policy = &*snapshot.policy;
    let model = policy.catalogue.model(&subject.model);
    let work = Work::new(subject.operation, subject.batch);
    let priced = price(model, &subject.model, subject.service_tier, work, now);
    let (model, rates, until) = priced.map_err(|mut violation| {
        violation.message.push_str(&spelling(&policy.catalogue, &subject.model));
        violation
    })?;
    let upstream = (policy.projects.name_of(&caller.team.name), subject.service_tier);
    let mut plan = Plan::empty(caller, model, rates, work, upstream, today, until);
    plan.gather(policy, &subject.user, today);
    plan.unbound();
    Ok(plan)
}

/// A request that was admitted without counters, and is booked now.
#[derive(Clone, Debug)]
pub struct Outgoing<'a> {
    /// The model.
    pub model: &'a str,
    /// What it did.
    pub work: Work,
    /// Groq's service tier.
    pub service_tier: ServiceTier,
    /// The price of its day.
    pub rates: Rates,
    /// The end user; empty: none.
    pub user: &'a str,
}

/// Compiles the booking of a request by `caller` that was admitted without counters `age_ms` ago, on the day `today`: all counters that it
/// belongs to, without bounds. Windows that have passed since then do not count it.
///
/// # Errors
/// The violation, if the model is unknown by now.
pub fn compile_outgoing<'p>(
    snapshot: &'p Snapshot,
    caller: ResolvedCaller<'p>,
    outgoing: &Outgoing<'_>,
    age_ms: u64,
    today: &Days,
) -> Result<Plan<'p>, Violation> {
    let policy = &*snapshot.policy;
    let unknown = || {
        let message = format!("the model `{}` is no longer among those that have a price", outgoing.model);
        refusal(Reason::ModelNotPriced, "", message)
    };
    let model = policy.catalogue.model(outgoing.model).ok_or_else(unknown)?;
    let upstream = (policy.projects.name_of(&caller.team.name), outgoing.service_tier);
    let until = today.day.end;
    let mut plan = Plan::empty(caller, model, outgoing.rates, outgoing.work, upstream, today, until);
    plan.gather(policy, outgoing.user, today);
    plan.unbound();
    plan.keep_lines(|line| match line.limit.window {
        Window::Sliding(span) => age_ms < span.length_ms(),
        _ => true,
    });
    Ok(plan)
}

/// Whether it is a sliding window that all teams share.
#[must_use]
pub fn is_shared_window(line: &Line) -> bool {
    let scope = line.limit.scope;
    matches!(line.limit.window, Window::Sliding(_))
        && matches!(scope, LimitScope::Organization | LimitScope::OrganizationModel)
}

impl Plan<'_> {
    /// Takes the bounds away: what is booked was used. A request counts as one, and amounts follow with the settlement.
    fn unbound(&mut self) {
        let unbounded = self.holds.iter().zip(&*self.lines).map(|(hold, line)| {
            let expiring = u64::from(line.limit.quantity == Quantity::Requests);
            Hold { limit: MAX_AMOUNT, expiring, ..hold.to_owned() }
        });
        self.holds = unbounded.collect();
    }

    fn keep_lines(&mut self, keeps: impl Fn(&Line) -> bool) {
        let kept = self.holds.iter().zip(&*self.lines).filter(|(_, line)| keeps(line));
        self.holds = kept.map(|(hold, _)| hold.to_owned()).collect();
        self.lines = self.lines.iter().filter(|line| keeps(line)).cloned().collect();
    }

    /// Leaves out the sliding windows of the organization, which all teams share. They track what Groq counts now, and a
    /// report does not say when its request was made: with reports alone, one team could block all others.
    fn leave_shared_windows(&mut self) {
        self.keep_lines(|line| !is_shared_window(line));
    }

    /// Limits it to what the team may report: the team's own windows count it, and so does, last, the bound on what the
    /// team may report without a reservation in a day.
    pub fn count_unreserved(&mut self, today: &Days) {
        self.leave_shared_windows();
        let team = self.caller.team;
        let (Term { counter, kind, limit, .. }, line) = want(&team.unreserved.daily, None, today);
        self.lines = self.lines.iter().cloned().chain([line]).collect();
        let daily = Hold { counter, kind, limit, kept: 0, expiring: 0 };
        self.holds = self.holds.iter().map(Hold::to_owned).chain([daily]).collect();
    }

    /// Sets its cost, after [`Plan::count_unreserved`].
    pub fn cost_unreserved(&mut self, cost: NanoUsd) {
        let mut holds: Vec<_> = self.holds.iter().map(Hold::to_owned).collect();
        if let Some(daily) = holds.last_mut() {
            daily.kept = cost.nanos();
        }
        self.holds = holds.into();
    }
}
