//! Plays usage that was added up by hour or day, as if its requests had been spread evenly: approximate, where no decisions are recorded.

use std::{cmp::Reverse, collections::BinaryHeap, path::Path, sync::Arc};

use super::{By, Replay, ReplayError, Replayed};
use crate::{
    authorizer::{LoggedDecision, LoggedSettlement},
    domain::{
        Timestamp,
        batch::Batch,
        key::VirtualKey,
        policy::Policy,
        request::{
            AuthorizeRequest, Billing, Caller, Operation, Outcome, ServiceTier, Size, Unreserved, Usage,
        },
    },
    store::{UsageAmounts, UsageKey},
};

/// A row of usage, and the time over which its requests are spread.
#[derive(Clone, Debug)]
pub struct Spread {
    /// Its dimensions.
    pub key: UsageKey,
    /// Its sums.
    pub amounts: UsageAmounts,
    /// When the time begins.
    pub start: Timestamp,
    /// When it ends.
    pub end: Timestamp,
}

/// A replay of usage, piece by piece.
pub struct HourlyReplay(Replay);

impl HourlyReplay {
    /// Plays to `policy` and the created keys, from `start` on, on an empty store in `directory`; refusals are counted by team and limit.
    ///
    /// # Errors
    /// The store cannot be opened.
    pub fn open(
        policy: Policy,
        created: &[Arc<VirtualKey>],
        start: Timestamp,
        directory: &Path,
    ) -> Result<Self, ReplayError> {
        let result = Replayed::new(vec![By::Team, By::Limit], 0);
        Ok(Self(Replay::open(policy, created, result, (start, directory))?))
    }

    /// Plays the requests of `rows`, which begin no earlier than those of the call before, in the order of their time. Before each,
    /// `continues` says whether to go ahead. Returns whether all were played.
    ///
    /// # Errors
    /// The engine failed.
    pub async fn play(
        &mut self,
        rows: &[Spread],
        mut continues: impl FnMut(Timestamp) -> bool,
    ) -> Result<bool, ReplayError> {
        let mut next: BinaryHeap<_> = rows
            .iter()
            .enumerate()
            .filter_map(|(row, spread)| Some(Reverse((spread.time_of(0)?, row, 0))))
            .collect();
        while let Some(Reverse((time, row, number))) = next.pop() {
            if !continues(time) {
                return Ok(false);
            }
            let Some(spread) = rows.get(row) else { continue };
            let (decision, settlement) = spread.request(time, number);
            self.0.clock.set(time);
            self.0.decide(decision).await?;
            self.0.settle(settlement).await?;
            next.extend(spread.time_of(number + 1).map(|time| Reverse((time, row, number + 1))));
        }
        Ok(true)
    }

    /// What was found.
    #[must_use]
    pub fn finish(self) -> Replayed {
        self.0.result.finished()
    }
}

impl Spread {
    /// When the request with this number comes, in the middle of its part of the time; `None`: there are not as many.
    fn time_of(&self, number: u64) -> Option<Timestamp> {
        let count = self.amounts.requests;
        let span = u128::from(self.end.since(self.start));
        let middle = (2 * u128::from(number) + 1) * span / (2 * u128::from(count).max(1));
        (number < count).then(|| self.start.plus(u64::try_from(middle).unwrap_or(u64::MAX)))
    }

    /// The part of `total` that the request with this number has: all parts add up to it.
    fn part(&self, total: u64, number: u64) -> u64 {
        let count = u128::from(self.amounts.requests.max(1));
        let upto = |number: u64| u128::from(total) * u128::from(number) / count;
        u64::try_from(upto(number + 1) - upto(number)).unwrap_or(u64::MAX)
    }

    /// The request with this number, and what it used.
    fn request(&self, time: Timestamp, number: u64) -> (LoggedDecision, LoggedSettlement) {
        let Self { key, amounts, .. } = self;
        let part = |total| self.part(total, number);
        let (input_tokens, output_tokens) = (part(amounts.input_tokens), part(amounts.output_tokens));
        let usage = Usage {
            input_tokens,
            // Rounded apart from the other.
            cached_input_tokens: part(amounts.cached_input_tokens).min(input_tokens),
            output_tokens,
            reasoning_tokens: part(amounts.reasoning_tokens).min(output_tokens),
            audio_ms: part(amounts.audio_ms),
            characters: part(amounts.characters),
            tools: Vec::new(),
            request_count: 0,
        };
        // Rows from before operations were recorded have none.
        let operation = key.operation.unwrap_or(Operation::Chat);
        let service_tier = key.service_tier.unwrap_or(ServiceTier::OnDemand);
        let is_batch = operation == Operation::Batch;
        let batch = is_batch.then(Batch::default);
        // None given would reserve the most that the model can write.
        let asks = operation.billing() == Billing::Tokens;
        let size = Size {
            input_tokens,
            max_output_tokens: if asks { output_tokens.max(1) } else { output_tokens },
            audio_ms: usage.audio_ms,
            characters: usage.characters,
        };
        let team = key.set.team.to_string();
        let (model, cost_nanos, id) = (key.model.to_string(), part(amounts.cost_nanos), "usage".to_owned());
        let decision = LoggedDecision {
            time,
            key: key.key.to_string(),
            reasons: Vec::new(),
            is_extra: false,
            reservation_id: Some(id.clone()),
            reserved_nanos: cost_nanos,
            request: Some(AuthorizeRequest {
                caller: Caller::Team(team.clone()),
                user: String::new(),
                request_id: String::new(),
                model: model.clone(),
                operation,
                service_tier,
                batch,
                tools: Vec::new(),
                size,
                unseen_input_tokens: 0,
                fixed_output: false,
                max_wait_ms: 0,
                dry_run: false,
                labels: Default::default(),
            }),
        };
        let subject = Unreserved {
            caller: Caller::Team(team),
            user: String::new(),
            request_id: id.clone(),
            model,
            operation,
            batch,
            service_tier,
            labels: Default::default(),
        };
        let settlement = LoggedSettlement {
            time,
            key: key.key.to_string(),
            reservation_id: id,
            subject,
            outcome: Outcome::Completed,
            is_unreserved: false,
            is_release: false,
            is_repeat: false,
            cost_nanos,
            usage: Some(usage),
        };
        (decision, settlement)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spread(requests: u64) -> Spread {
        let key = UsageKey::of_day(202_611, "bot".into(), 20_261_123, "m".into(), "".into());
        let amounts = UsageAmounts {
            requests,
            input_tokens: 10,
            cached_input_tokens: 9,
            output_tokens: 5,
            cost_nanos: 1_000,
            ..UsageAmounts::default()
        };
        Spread { key, amounts, start: Timestamp(3_600_000), end: Timestamp(7_200_000) }
    }

    #[test]
    fn requests_are_spread_evenly_and_add_up() {
        let hour = spread(4);
        let times: Vec<_> = (0..5).map(|number| hour.time_of(number).map(|time| time.0 / 60_000)).collect();
        assert_eq!(times, [Some(67), Some(82), Some(97), Some(112), None]);
        for count in [1, 3, 4, 7, 1_000] {
            let hour = spread(count);
            let mut sums = (0, 0, 0);
            for number in 0..count {
                let (_, settlement) = hour.request(hour.time_of(number).unwrap(), number);
                let usage = settlement.usage.unwrap();
                assert!(usage.cached_input_tokens <= usage.input_tokens);
                sums.0 += usage.input_tokens;
                sums.1 += usage.output_tokens;
                sums.2 += settlement.cost_nanos;
            }
            assert_eq!(sums, (10, 5, 1_000), "{count}");
        }
        assert_eq!(spread(0).time_of(0), None);
    }
}
