//! The policy compiler. It turns a request and a policy into the holds that decide it, or into the reasons why it is
//! refused before any counter is checked.

mod limits;
mod note;
mod reason;
mod shadow;
mod template;
mod unreserved;
mod windows;

use std::{ops::Range, sync::Arc};

pub use self::{
    limits::{counter_of, line_of},
    note::TermsNote,
    reason::reason_of,
    template::Templates,
};
use super::{
    Timestamp,
    batch::{Batch, MAX_TTL_MS, Work},
    calendar::Days,
    caller::ResolvedCaller,
    counter::{CounterKind, Hold},
    decision::{Violation, Violations},
    eligibility::{not_priced, output_cap, paused, permissions, price, spelling},
    holds::{Amount, Holds},
    limit::{Limit, OnShortfall, Quantity},
    money::NanoUsd,
    policy::OnUnsettled,
    price::{PriceError, Rates, catalogue::Model},
    request::{AuthorizeRequest, Billing, ServiceTier, Size},
    snapshot::Snapshot,
    tools::{self, ReservedTools},
    window::SLOTS,
};

pub use unreserved::{Outgoing, compile_outgoing, compile_unreserved, is_shared_window};
pub use windows::{Counted, check_windows, windows};

/// How long a reservation lives before `on_unsettled` applies: longer than Groq lets a request run.
pub const RESERVATION_TTL_MS: u64 = 10 * 60 * 1000;
/// How long after its expiry a reservation can still be settled: a gateway that was down overnight catches up.
pub const LATE_MS: u64 = 24 * 3600 * 1000;
/// How long the store keeps a reservation that is never settled.
pub const UNSETTLED_MS: u64 = RESERVATION_TTL_MS + LATE_MS;
/// The same for the longest batch.
pub const UNSETTLED_BATCH_MS: u64 = MAX_TTL_MS + LATE_MS;
/// The slots of the amounts that expire with a reservation. All share one length, since reservations share counters.
const RESERVATION_SLOT_MS: u64 = RESERVATION_TTL_MS / SLOTS;
/// How every budget accounts for amounts.
pub const BUDGET_KIND: CounterKind = CounterKind::Budget { slot_ms: RESERVATION_SLOT_MS };

/// One line of a plan: what the request needs from one limit.
#[derive(Clone, Debug)]
pub struct Line {
    /// The limit.
    pub limit: Arc<Limit>,
    /// Whether the limit can refuse; a `warn` budget and a limit in shadow cannot.
    pub enforced: bool,
    /// When the limit's calendar period ends.
    pub period_end: Option<Timestamp>,
}

/// A request compiled against a policy: its holds and the limits behind them.
#[derive(Clone, Debug)]
pub struct Plan<'p> {
    /// The caller.
    pub caller: ResolvedCaller<'p>,
    /// The model.
    pub model: &'p Model,
    /// The price that applies.
    pub rates: Rates,
    /// What it does.
    pub work: Work,
    /// The tools it enables.
    pub tools: ReservedTools,
    /// The Groq project whose key the request uses, and whose cooldowns apply.
    pub project: &'p Arc<str>,
    /// Groq's service tier.
    pub service_tier: ServiceTier,
    /// The size it was compiled for.
    pub size: Size,
    /// The part of the input that rates do not count in advance.
    pub unseen_input_tokens: u64,
    /// The output tokens granted.
    pub max_output_tokens: u64,
    /// Whether they must be granted in full or not at all.
    pub fixed_output: bool,
    /// The worst case.
    pub cost: NanoUsd,
    /// The hold on each counter.
    pub holds: Holds,
    /// The limit behind each hold, in the same order.
    pub lines: Arc<[Line]>,
    /// The month it is booked under, as `202611`.
    pub month: u32,
    /// The day it is booked under, as `20261123`.
    pub day: u32,
    /// The time range in which its periods and prices stay the same.
    pub valid: Range<Timestamp>,
    /// Warnings for the caller.
    pub warnings: Vec<String>,
    /// Lists and caps in shadow that would refuse.
    pub shadow: Vec<Violation>,
}

/// The classes of a plan's holds: what each request takes alike, what it takes by its price, and by its size. That is in tokens or in
/// audio, never in both: see [`Plan::counts`].
const ONE: u16 = 0;
const COST: u16 = 1;
const SIZE: u16 = 2;

const fn class_of(quantity: Quantity) -> u16 {
    match quantity {
        Quantity::Requests | Quantity::RequestsInFlight | Quantity::UnsettledRequests => ONE,
        Quantity::Tokens | Quantity::AudioMilliseconds => SIZE,
        Quantity::NanoUsd => COST,
    }
}

/// Compiles `request` of `caller`, who was found in `snapshot`; on success every hold is for the worst case.
///
/// # Errors
/// All reasons to refuse that need no counter, together, and those of them that are in shadow.
pub fn compile<'p>(
    snapshot: &'p Snapshot,
    caller: ResolvedCaller<'p>,
    request: &AuthorizeRequest,
    now: Timestamp,
    today: &Days,
) -> Result<Plan<'p>, Violations> {
    caller.check(now)?;
    let policy = &*snapshot.policy;
    let refusing = paused(&snapshot.pauses, &caller, Some(&request.model)).collect();
    let mut violations = Violations { refusing, shadow: Vec::new() };
    permissions(&caller, &policy.catalogue, request, &mut violations);
    let mut warnings = Vec::new();
    let model = policy.catalogue.model(&request.model);
    let granted = output_cap(model, &caller, request, &mut violations, &mut warnings);
    let work = request.work();
    let tools = tools::reserve(policy, caller.team, &request.tools, work, now, &mut violations);
    let priced = price(model, &request.model, request.service_tier, work, now);
    let (model, rates, prices_until) = match priced {
        Ok(priced) if violations.refusing.is_empty() => priced,
        Ok(_) => return Err(violations),
        Err(mut violation) => {
            violation.message.push_str(&spelling(&policy.catalogue, &request.model));
            violations.refusing.push(violation);
            return Err(violations);
        }
    };
    let until = caller.ends_at().unwrap_or(prices_until).min(prices_until).min(policy.tools.until(now));
    let upstream = (policy.projects.name_of(&caller.team.name), request.service_tier);
    let mut plan = Plan::empty(caller, model, rates, work, upstream, today, until);
    plan.tools = tools;
    plan.size = request.size;
    plan.unseen_input_tokens = request.unseen_input_tokens;
    plan.fixed_output = request.fixed_output;
    plan.warnings = warnings;
    plan.gather(policy, &request.user, today);
    plan.grant(granted).map_err(|error| not_priced(&request.model, &error))?;
    plan.too_large(&mut violations);
    if !violations.refusing.is_empty() {
        return Err(violations);
    }
    plan.shadow = violations.shadow;
    Ok(plan)
}

impl<'p> Plan<'p> {
    fn empty(
        caller: ResolvedCaller<'p>,
        model: &'p Model,
        rates: Rates,
        work: Work,
        (project, service_tier): (&'p Arc<str>, ServiceTier),
        today: &Days,
        prices_until: Timestamp,
    ) -> Self {
        Self {
            caller,
            model,
            rates,
            work,
            tools: ReservedTools::default(),
            project,
            service_tier,
            size: Size::default(),
            unseen_input_tokens: 0,
            max_output_tokens: 0,
            fixed_output: false,
            cost: NanoUsd::ZERO,
            holds: Holds::default(),
            lines: Arc::from([]),
            month: today.month_number(),
            day: today.day_number(),
            valid: today.day.start..today.day.end.min(prices_until),
            warnings: Vec::new(),
            shadow: Vec::new(),
        }
    }

    /// The team's caps on one batch that this batch exceeds.
    fn too_large(&self, violations: &mut Violations) {
        let team = &self.caller.team;
        let Some(batch) = self.work.batch() else { return };
        let passed = team.batch.passed(&team.name, batch, &self.size, self.max_output_tokens, self.cost);
        passed.for_each(|violation| violations.add(team.mode, violation));
    }

    /// Sets the granted output, and with it the cost and the amount of every hold.
    ///
    /// # Errors
    /// The worst case cannot be priced.
    pub fn grant(&mut self, max_output_tokens: u64) -> Result<(), PriceError> {
        self.max_output_tokens = max_output_tokens;
        self.cost = self.worst_case(max_output_tokens)?;
        let cost = self.cost.nanos();
        let kept_cost = match self.caller.team.on_unsettled {
            // A batch is settled long after live requests are; releasing it early would be wrong more often than not.
            _ if self.work.batch().is_some() => cost,
            OnUnsettled::ChargeReserved => cost,
            OnUnsettled::ChargeInput => self.rates.input_only(self.work, &self.size)?.nanos().min(cost),
            OnUnsettled::Release => 0,
        };
        let seen = self.size.input_tokens.saturating_sub(self.unseen_input_tokens);
        self.holds.set(ONE, Amount { kept: 0, expiring: 1 });
        let size = match self.work.billing() {
            Billing::Audio => self.size.audio_ms,
            _ => seen.saturating_add(max_output_tokens),
        };
        self.holds.set(SIZE, Amount { kept: 0, expiring: size });
        self.holds.set(COST, Amount { kept: kept_cost, expiring: cost - kept_cost });
        Ok(())
    }

    fn worst_case(&self, output: u64) -> Result<NanoUsd, PriceError> {
        self.rates.worst_case_with(self.work, &self.size, output, self.tools.cost)
    }

    /// Grants fewer output tokens than requested, because a budget can pay for no more.
    ///
    /// # Errors
    /// As [`Plan::grant`].
    pub fn clamp(&mut self, max_output_tokens: u64) -> Result<(), PriceError> {
        let wanted = self.max_output_tokens;
        self.warnings
            .push(format!("max_output_tokens clamped from {wanted} to {max_output_tokens} by a budget"));
        self.grant(max_output_tokens)
    }

    /// The reservation's time to live in milliseconds.
    #[must_use]
    pub fn ttl_ms(&self) -> u64 {
        self.work.batch().map_or(RESERVATION_TTL_MS, Batch::ttl_ms)
    }

    /// The output that all clamping budgets among the refusing holds can pay for, given what each has used. `None` if none
    /// of them clamps, or if one cannot pay for the minimum. With less output, the other limits may allow the request as
    /// well.
    #[must_use]
    pub fn affordable_output(&self, refusing: impl Iterator<Item = usize>, used: &[u64]) -> Option<u64> {
        let mut affordable = self.max_output_tokens;
        for index in refusing {
            let (line, hold) = (self.lines.get(index)?, self.holds.get(index)?);
            if !self.clamps(line) {
                continue;
            }
            // Not the hold's, which has none in shadow.
            let bound = line.limit.bound.unwrap_or(hold.limit);
            let remaining = NanoUsd::new(bound.saturating_sub(*used.get(index)?))?;
            let output =
                self.rates.affordable_output_with(self.work, &self.size, remaining, self.tools.cost)?;
            if output < line.limit.min_output_tokens {
                return None;
            }
            affordable = affordable.min(output);
        }
        (affordable < self.max_output_tokens).then_some(affordable)
    }

    /// The smallest amount that would satisfy the hold at `index`: its own amount or, if its budget clamps, the cost of the
    /// fewest output tokens worth granting.
    #[must_use]
    pub fn least_amount(&self, index: usize) -> u64 {
        let (Some(line), Some(hold)) = (self.lines.get(index), self.holds.get(index)) else { return 0 };
        if !self.clamps(line) {
            return hold.amount();
        }
        let least = self.max_output_tokens.min(line.limit.min_output_tokens);
        self.worst_case(least).map_or(hold.amount(), NanoUsd::nanos)
    }

    /// The plan that requests only [`Self::least_amount`] from the clamping budgets among the refusing holds. Waiting for
    /// this plan is waiting for the request as the budgets would clamp it. `None` if the budgets would not free up any
    /// sooner, because nothing that they hold expires before their period ends.
    #[must_use]
    pub fn at_least(&self, refusing: impl Iterator<Item = usize>) -> Option<Self> {
        let mut holds: Vec<_> = self.holds.iter().map(Hold::to_owned).collect();
        for index in refusing {
            let least = self.least_amount(index);
            let hold = holds.get_mut(index).filter(|hold| hold.expiring > 0);
            let clamps = self.lines.get(index).is_some_and(|line| self.clamps(line));
            if let Some(hold) = hold.filter(|_| clamps) {
                hold.kept = hold.kept.min(least);
                hold.expiring = least - hold.kept;
            }
        }
        let holds = Holds::from(holds);
        let differs = !holds.iter().eq(self.holds.iter());
        differs.then(|| Self { holds: holds.noted(self.holds.terms().note().clone()), ..self.clone() })
    }

    /// Whether the limit grants less output instead of refusing.
    fn clamps(&self, line: &Line) -> bool {
        line.limit.on_shortfall == OnShortfall::Clamp && !self.fixed_output
    }

    /// The fewest output tokens worth granting under all clamping budgets that apply.
    #[must_use]
    pub fn least_output(&self) -> u64 {
        let clamping = self.lines.iter().filter(|line| line.enforced && self.clamps(line));
        clamping.map(|line| line.limit.min_output_tokens).max().unwrap_or(0)
    }
}
