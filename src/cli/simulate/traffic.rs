//! Synthetic requests, drawn from a policy and a seed.

use std::sync::Arc;

use super::rng::Rng;
use crate::{
    cli::{names, text},
    domain::{
        Timestamp,
        policy::Policy,
        request::{Billing, Operation, ServiceTier, Size, Usage},
    },
    rpc::proto::{self, authorize_request::Caller},
};

/// The users of each team.
const USERS: u64 = 8;
/// Times are multiples of this, so that arrivals and ends meet.
const TICK_MS: u64 = 250;
/// How often, on average, one team asks when it is neither in a burst nor at rest.
const TEAM_GAP_MS: u64 = 1_200;
/// The largest input, in tokens.
const MAX_INPUT: u64 = 20_000;
/// The largest output if neither policy nor model bounds it, in tokens.
const MAX_OUTPUT: u64 = 4_096;

/// One request and its future course.
#[derive(Clone, Debug)]
pub(super) struct Job {
    /// The team.
    pub(super) team: Arc<str>,
    /// What it is.
    pub(super) operation: Operation,
    /// Its estimate.
    pub(super) size: Size,
    /// What is sent.
    pub(super) request: proto::AuthorizeRequest,
    /// How long Groq takes.
    pub(super) lasts_ms: u64,
    /// How it ends.
    pub(super) ending: Ending,
    /// The call to `Authorize` that is repeated, if any.
    pub(super) repeat: Repeat,
    /// Whether the report is sent twice.
    pub(super) record_twice: bool,
    /// The share of the estimated input that is used, in percent; past 100, the estimate was wrong.
    input_percent: u64,
    /// The share of the input that is cached, in percent.
    cached_percent: u64,
    /// The share of the granted output that is used, in percent.
    output_percent: u64,
}

/// How a request ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    Completed,
    Aborted,
    AbortedUnseen,
    Failed,
    RateLimited,
    NotSent,
    /// It was sent without a decision, and is reported afterwards.
    Unasked,
}

/// When a call to `Authorize` is repeated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Repeat {
    Never,
    AtOnce,
    Afterwards,
    WhenSettled,
}

/// A team and what it may ask for.
struct Asker {
    team: Arc<str>,
    uses: Vec<(Arc<str>, Operation)>,
    /// The most output granted for each of them.
    output: u64,
}

/// An endless stream of requests.
pub(super) struct Traffic {
    rng: Rng,
    askers: Vec<Asker>,
    /// Tells runs apart on a service that keeps running.
    run: u32,
    count: u64,
}

impl Traffic {
    /// Traffic of all teams of `policy`, on the models that they may use and that have a price at `now`; `None` if there are
    /// none.
    pub(super) fn new(policy: &Policy, now: Timestamp, seed: u64, run: u32) -> Option<Self> {
        let mut askers: Vec<Asker> = policy
            .teams
            .values()
            .map(|team| {
                let models = policy
                    .catalogue
                    .models()
                    .filter(|model| team.models.iter().any(|p| p.matches(&model.name)));
                let uses =
                    models.filter_map(|model| Some((model, model.rates(ServiceTier::OnDemand, now)?.0)));
                let size = Size { input_tokens: 1, audio_ms: 1, characters: 1, ..Size::default() };
                let uses = uses.flat_map(|(model, rates)| {
                    let priced = move |operation: &&Operation| match operation.billing() {
                        Billing::InputTokens => rates.output.is_none() && rates.input.is_some(),
                        _ => rates.worst_case(**operation, &size, 1).is_ok(),
                    };
                    team.operations
                        .iter()
                        .filter(priced)
                        .map(|operation| (Arc::clone(&model.name), *operation))
                });
                let output = team.max_output_tokens.unwrap_or(MAX_OUTPUT).min(4 * MAX_OUTPUT);
                Asker { team: Arc::clone(&team.name), uses: uses.collect(), output }
            })
            .filter(|asker| !asker.uses.is_empty())
            .collect();
        // The order of a map does not depend on the seed.
        askers.sort_unstable_by(|a, b| a.team.cmp(&b.team));
        askers.iter_mut().for_each(|asker| {
            asker.uses.sort_unstable_by(|a, b| (&a.0, a.1.name()).cmp(&(&b.0, b.1.name())))
        });
        (!askers.is_empty()).then_some(Self { rng: Rng::new(seed), askers, run, count: 0 })
    }

    /// The next requests, at most `most`, which come at once, and the time until the ones after them.
    pub(super) fn burst(&mut self, most: u64) -> (Vec<Job>, u64) {
        let count = self.rng.magnitude(1, most);
        let jobs = (0..count).filter_map(|_| self.job()).collect();
        let teams = u64::try_from(self.askers.len()).unwrap_or(1);
        // Now and then traffic is ten times as dense as limits may like, or no one is there.
        let gap = match self.rng.between(0, 9) {
            0..=2 => TEAM_GAP_MS / 10,
            9 => TEAM_GAP_MS * 5,
            _ => TEAM_GAP_MS,
        };
        (jobs, (count * gap / teams).div_ceil(TICK_MS) * TICK_MS)
    }

    fn job(&mut self) -> Option<Job> {
        let rng = &mut self.rng;
        let asker = rng.pick(&self.askers)?;
        let (model, operation) = rng.pick(&asker.uses)?.clone();
        // A few ask for what they may not use.
        let model = if rng.chance(2) { Arc::from("nobody/has-this-model") } else { model };
        let output = if rng.chance(3) { asker.output * 2 } else { rng.magnitude(16, asker.output) };
        let billing = operation.billing();
        let tokens = !matches!(billing, Billing::Audio | Billing::Characters);
        let size = Size {
            input_tokens: if tokens { rng.magnitude(20, MAX_INPUT) } else { 0 },
            max_output_tokens: if billing == Billing::Tokens { output } else { 0 },
            audio_ms: if billing == Billing::Audio { rng.magnitude(500, 600_000) } else { 0 },
            characters: if billing == Billing::Characters { rng.magnitude(10, 4_000) } else { 0 },
        };
        let ending = match rng.between(0, 99) {
            0..=79 => Ending::Completed,
            80..=86 => Ending::Aborted,
            87..=89 => Ending::AbortedUnseen,
            90..=94 => Ending::Failed,
            95..=96 => Ending::RateLimited,
            97..=98 => Ending::NotSent,
            _ => Ending::Unasked,
        };
        let repeat = match rng.between(0, 99) {
            0..=4 => Repeat::AtOnce,
            5..=9 => Repeat::Afterwards,
            10..=12 => Repeat::WhenSettled,
            _ => Repeat::Never,
        };
        let user = format!("user-{}", rng.between(1, USERS));
        self.count += 1;
        Some(Job {
            team: Arc::clone(&asker.team),
            operation,
            size,
            request: proto::AuthorizeRequest {
                caller: Some(Caller::Team(asker.team.to_string())),
                user: if rng.chance(70) { user } else { String::new() },
                request_id: format!("simulate-{:08x}-{}", self.run, self.count),
                model: model.to_string(),
                operation: names::named::<proto::Operation>(operation.name()).map_or(0, i32::from),
                input_tokens: wire(size.input_tokens),
                max_output_tokens: wire(size.max_output_tokens),
                audio_duration: (size.audio_ms > 0).then(|| text::to_wire(ms(size.audio_ms))).flatten(),
                character_count: wire(size.characters),
                ..Default::default()
            },
            lasts_ms: rng.magnitude(TICK_MS, 30_000).div_ceil(TICK_MS) * TICK_MS,
            ending,
            repeat,
            record_twice: rng.chance(10),
            input_percent: if rng.chance(5) { rng.between(101, 120) } else { rng.between(80, 100) },
            cached_percent: if rng.chance(40) { rng.between(1, 99) } else { 0 },
            output_percent: rng.between(5, 100),
        })
    }
}

const fn ms(ms: u64) -> std::time::Duration {
    std::time::Duration::from_millis(ms)
}

fn wire(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

impl Job {
    /// What the request used, given the output it was granted; `None` if the usage was not seen.
    pub(super) fn usage(&self, granted: u64) -> Option<Usage> {
        if matches!(
            self.ending,
            Ending::AbortedUnseen | Ending::Failed | Ending::RateLimited | Ending::NotSent
        ) {
            return None;
        }
        let input = self.size.input_tokens * self.input_percent / 100;
        let output = granted * self.output_percent / 100;
        let cut = if self.ending == Ending::Aborted { 2 } else { 1 };
        Some(Usage {
            input_tokens: input,
            cached_input_tokens: input * self.cached_percent / 100,
            output_tokens: output / cut,
            reasoning_tokens: output / cut / 3,
            audio_ms: self.size.audio_ms,
            characters: self.size.characters,
            tools: Vec::new(),
            request_count: 0,
        })
    }

    /// The report of what the request used.
    pub(super) fn report(&self, reservation_id: &str, granted: u64) -> proto::RecordUsageRequest {
        let outcome = match self.ending {
            Ending::Completed | Ending::Unasked => proto::Outcome::Completed,
            Ending::Aborted | Ending::AbortedUnseen => proto::Outcome::Aborted,
            Ending::Failed => proto::Outcome::Failed,
            Ending::RateLimited => proto::Outcome::RateLimited,
            Ending::NotSent => proto::Outcome::NotSent,
        };
        let report = proto::RecordUsageRequest {
            reservation_id: reservation_id.to_owned(),
            usage: self.usage(granted).map(|usage| proto::Usage {
                input_tokens: wire(usage.input_tokens),
                cached_input_tokens: wire(usage.cached_input_tokens),
                output_tokens: wire(usage.output_tokens),
                reasoning_tokens: wire(usage.reasoning_tokens),
                audio_duration: (usage.audio_ms > 0).then(|| text::to_wire(ms(usage.audio_ms))).flatten(),
                character_count: wire(usage.characters),
                tool_calls: Vec::new(),
                request_count: 0,
            }),
            outcome: outcome.into(),
            upstream_retry_delay: (self.ending == Ending::RateLimited)
                .then(|| text::to_wire(ms(2_000)))
                .flatten(),
            ..Default::default()
        };
        if self.ending != Ending::Unasked {
            return report;
        }
        proto::RecordUsageRequest {
            caller: Some(proto::record_usage_request::Caller::Team(self.team.to_string())),
            user: self.request.user.clone(),
            request_id: self.request.request_id.clone(),
            model: self.request.model.clone(),
            operation: self.request.operation,
            ..report
        }
    }
}
