//! The client's own books of a run: what was allowed, what was acknowledged, and anything that should not have happened.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
};

use super::{
    play::{Held, Played},
    traffic::{Ending, Job},
    window::Admission,
};
use crate::{
    cli::text,
    domain::{
        limit::{Limit, LimitMode, LimitScope, Quantity, Span, Window},
        policy::Policy,
        request::{Billing, Operation},
    },
    rpc::proto::{self, Decision},
};

/// The most faults that are recorded; one is bad enough.
const MAX_FAULTS: usize = 10;

/// What was acknowledged to one team.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Books {
    /// The sum of costs, in nano-USD.
    pub(super) spent: i128,
    /// Requests that count.
    pub(super) requests: i64,
    /// What was spent past the reserved worst case, or without a reservation: a budget may be exceeded by this much.
    pub(super) past_reserve: i128,
}

/// A counter as the client knows it: the limit and, for limits of users, the user.
pub(super) type CounterName = (Arc<str>, String);

/// The books.
pub(super) struct Ledger {
    policy: Arc<Policy>,
    /// By team.
    pub(super) books: BTreeMap<Arc<str>, Books>,
    /// Admissions by counter, of sliding windows.
    pub(super) admissions: HashMap<CounterName, Vec<Admission>>,
    /// Requests certainly in flight, by counter.
    in_flight: HashMap<CounterName, u64>,
    /// The highest number there ever was.
    pub(super) most_in_flight: HashMap<CounterName, u64>,
    reservations: HashSet<String>,
    /// Requests made.
    pub(super) requests: u64,
    /// Requests allowed.
    pub(super) allowed: u64,
    /// Denials by reason.
    pub(super) denied: BTreeMap<&'static str, u64>,
    /// Calls that were repeats.
    pub(super) repeats: u64,
    /// Repeats whose answer differed from that of the first call.
    pub(super) faults: Vec<String>,
    /// Moments at which more requests were in flight than permitted.
    pub(super) crowds: Vec<String>,
}

impl Ledger {
    pub(super) fn new(policy: Arc<Policy>) -> Self {
        Self {
            policy,
            books: BTreeMap::new(),
            admissions: HashMap::new(),
            in_flight: HashMap::new(),
            most_in_flight: HashMap::new(),
            reservations: HashSet::new(),
            requests: 0,
            allowed: 0,
            denied: BTreeMap::new(),
            repeats: 0,
            faults: Vec::new(),
            crowds: Vec::new(),
        }
    }

    /// Everything acknowledged, over all teams.
    pub(super) fn total(&self) -> Books {
        self.books.values().fold(Books::default(), |sum, books| Books {
            spent: sum.spent + books.spent,
            requests: sum.requests + books.requests,
            past_reserve: sum.past_reserve + books.past_reserve,
        })
    }

    /// A request is about to be reported: it is no longer certainly in flight.
    pub(super) fn leaves(&mut self, held: &Held) {
        for (counter, _) in self.counters(&held.job, Window::InFlight) {
            if let Some(count) = self.in_flight.get_mut(&counter) {
                *count = count.saturating_sub(1);
            }
        }
    }

    /// Books the outcome of an event; returns the request that is now in flight, if one is.
    pub(super) fn enter(&mut self, played: Played) -> Option<Held> {
        match played {
            Played::Decided(job, answers, admitted) => self.decided(*job, &answers, admitted),
            Played::Recorded(held, answers) => {
                self.recorded(&held, &answers);
                None
            }
            Played::Unasked(job, answers) => {
                self.requests += 1;
                match answers {
                    None => *self.denied.entry("not priced (never authorized)").or_default() += 1,
                    Some(answers) => {
                        self.allowed += 1;
                        let cost = self.acknowledged(&job, &answers);
                        let books = self.books.entry(Arc::clone(&job.team)).or_default();
                        books.requests += 1;
                        books.past_reserve += cost;
                    }
                }
                None
            }
        }
    }

    fn decided(
        &mut self,
        job: Job,
        answers: &[proto::AuthorizeResponse],
        admitted: (u64, u64),
    ) -> Option<Held> {
        self.requests += 1;
        self.repeats += more_than_one(answers.len());
        let mut allowed = answers.iter().filter(|answer| answer.decision() == Decision::Allowed);
        let Some(first) = allowed.next() else {
            for violation in answers.first().map(|answer| answer.violations.as_slice()).unwrap_or_default() {
                *self
                    .denied
                    .entry(violation.reason().as_str_name().trim_start_matches("REASON_"))
                    .or_default() += 1;
            }
            return None;
        };
        self.allowed += 1;
        for other in allowed {
            if (&other.reservation_id, other.max_output_tokens)
                != (&first.reservation_id, first.max_output_tokens)
            {
                self.fault(format!("`{}` was authorized twice", job.request.request_id));
            }
        }
        if !self.reservations.insert(first.reservation_id.clone()) {
            self.fault(format!("reservation {} was given to two requests", first.reservation_id));
        }
        for (counter, bound) in self.counters(&job, Window::InFlight) {
            let count = self.in_flight.entry(counter.clone()).or_default();
            *count += 1;
            let count = *count;
            let most = self.most_in_flight.entry(counter.clone()).or_default();
            *most = count.max(*most);
            if count > bound && self.crowds.len() < MAX_FAULTS {
                self.crowds
                    .push(format!("{count} requests were in flight where `{}` permits {bound}", counter.0));
            }
        }
        Some(Held {
            reservation: first.reservation_id.clone(),
            granted: u64::try_from(first.max_output_tokens).unwrap_or(0),
            reserved_cost: text::nanos(first.reserved_cost.as_ref()),
            admitted,
            job,
        })
    }

    fn recorded(&mut self, held: &Held, answers: &[proto::RecordUsageResponse]) {
        let job = &held.job;
        let cost = self.acknowledged(job, answers);
        let books = self.books.entry(Arc::clone(&job.team)).or_default();
        books.requests += i64::from(job.ending != Ending::NotSent);
        books.past_reserve += (cost - held.reserved_cost).max(0);
        if job.ending == Ending::NotSent {
            return;
        }
        let (from, to) = held.admitted;
        for window in [Window::Sliding(Span::Minute), Window::Sliding(Span::Hour), Window::Sliding(Span::Day)]
        {
            for (limit, user) in self.limits(job, window) {
                let amount = certain(held, limit.quantity);
                let log = self.admissions.entry((Arc::clone(&limit.id), user)).or_default();
                log.push(Admission { from, to, amount });
            }
        }
    }

    /// Books the cost once, and checks repeats against it.
    fn acknowledged(&mut self, job: &Job, answers: &[proto::RecordUsageResponse]) -> i128 {
        self.repeats += more_than_one(answers.len());
        let Some((first, others)) = answers.split_first() else { return 0 };
        let cost = text::nanos(first.cost.as_ref());
        for other in others {
            if !other.already_recorded || other.cost != first.cost {
                self.fault(format!("a repeated report of `{}` was booked again", job.request.request_id));
            }
        }
        self.books.entry(Arc::clone(&job.team)).or_default().spent += cost;
        cost
    }

    fn fault(&mut self, fault: String) {
        if self.faults.len() < MAX_FAULTS {
            self.faults.push(fault);
        }
    }

    fn counters(&self, job: &Job, window: Window) -> Vec<(CounterName, u64)> {
        let limits = self.limits(job, window).into_iter();
        limits.filter_map(|(limit, user)| Some(((Arc::clone(&limit.id), user), limit.bound?))).collect()
    }

    /// The bounded limits over `window` that count the request, each with its user.
    fn limits(&self, job: &Job, window: Window) -> Vec<(Arc<Limit>, String)> {
        let Some(team) = self.policy.teams.get(&job.team) else { return Vec::new() };
        let organization = &self.policy.organization;
        let by_model = organization.model_limits.iter().chain(&team.model_limits);
        let by_model = by_model
            .filter(|(pattern, _)| pattern.matches(&job.request.model))
            .flat_map(|(_, limits)| limits);
        let of_users = team.user_limits.iter().filter(|_| !job.request.user.is_empty());
        let all = organization.limits.iter().chain(&team.limits).chain(by_model).chain(of_users);
        let counted =
            all.filter(|l| l.window == window && l.bound.is_some() && counts(l.quantity, job.operation));
        let counted = counted.filter(|l| l.mode == LimitMode::Enforce);
        let user =
            |l: &Limit| if l.scope == LimitScope::User { job.request.user.clone() } else { String::new() };
        counted.map(|l| (l.clone(), user(l))).collect()
    }
}

fn more_than_one(answers: usize) -> u64 {
    u64::try_from(answers.saturating_sub(1)).unwrap_or(0)
}

/// Whether a limit on this quantity counts anything for an operation, as the contract says.
const fn counts(quantity: Quantity, operation: Operation) -> bool {
    if matches!(operation, Operation::Batch) {
        return matches!(quantity, Quantity::NanoUsd);
    }
    let billing = operation.billing();
    match quantity {
        Quantity::Requests | Quantity::NanoUsd | Quantity::RequestsInFlight => true,
        Quantity::Tokens => !matches!(billing, Billing::Audio | Billing::Characters),
        Quantity::AudioMilliseconds => matches!(billing, Billing::Audio),
        Quantity::UnsettledRequests => true,
    }
}

/// What an admission certainly took from a window: the smaller of what was reserved and what was used, since use past the
/// reserve is put where it was reported, and what is left over is released.
fn certain(held: &Held, quantity: Quantity) -> u64 {
    let (size, usage) = (&held.job.size, held.job.usage(held.granted));
    match (quantity, usage) {
        (Quantity::Requests, _) => 1,
        (Quantity::Tokens, Some(usage)) => {
            let used = usage.input_tokens - usage.cached_input_tokens + usage.output_tokens;
            used.min(size.input_tokens + held.granted)
        }
        (Quantity::AudioMilliseconds, Some(usage)) => usage.audio_ms.min(size.audio_ms),
        _ => 0,
    }
}
