//! What a team may do while the store does not answer, and the counters of one process that then stand in for it.

use std::sync::Arc;

use super::{
    MAX_AMOUNT, Timestamp,
    counter::{Counter, CounterKind, Hold},
    decision::{Measure, Reason, Retry, Violation},
    explain,
    limit::{LimitScope, Quantity},
    text::{dollars, group},
    window::SLOTS,
};

/// How long degraded decisions go on after the last good reading of keys and pauses, unless the policy says otherwise: longer than
/// a failover or a restart takes, and short enough that a revoked key does not work for an evening.
pub const DEFAULT_MAX_OUTAGE_MS: u64 = 15 * MINUTE_MS;

const MINUTE_MS: u64 = 60_000;
/// How allowances account for amounts: as every rate of a minute does.
const KIND: CounterKind = CounterKind::Window { slot_ms: MINUTE_MS / SLOTS };

/// What happens to the requests of a team while the store does not answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum OnStoreOutage {
    /// Nothing is decided.
    #[default]
    Deny,
    /// What needs no counter to be refused is refused, everything else is allowed.
    Allow,
    /// The same, as far as each replica's own counters permit.
    Allowance(OutageAllowance),
}

/// What each replica may admit from its own counters, in any minute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutageAllowance {
    /// The place of the allowance in the policy.
    pub id: Arc<str>,
    /// Requests.
    pub requests: Option<u64>,
    /// Input tokens as estimated, and output tokens as granted.
    pub tokens: Option<u64>,
    /// The worst case in nano-dollars.
    pub nano_usd: Option<u64>,
}

/// What the policy says about outages for one team.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutageRules {
    /// What happens to its requests.
    pub on_outage: OnStoreOutage,
    /// How long after the last good reading of keys and pauses, in milliseconds.
    pub max_outage_ms: u64,
}

impl Default for OutageRules {
    fn default() -> Self {
        Self { on_outage: OnStoreOutage::Deny, max_outage_ms: DEFAULT_MAX_OUTAGE_MS }
    }
}

impl OutageRules {
    /// Whether anything is decided without the store.
    #[must_use]
    pub fn degrades(&self) -> bool {
        self.on_outage != OnStoreOutage::Deny
    }
}

/// What one request asks of an allowance.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AllowanceRequest {
    /// Its estimated input and its granted output.
    pub tokens: u64,
    /// Its worst case in nano-dollars.
    pub nano_usd: u64,
}

/// What one process has admitted for a team from its allowance. The windows are those of every rate, so in *any* minute at most the
/// bound is admitted, and a refusal is early by at most a second.
#[derive(Debug, Default)]
pub struct AllowanceUse {
    requests: Counter,
    tokens: Counter,
    nano_usd: Counter,
}

impl AllowanceUse {
    /// Takes `request` from `allowance`, or nothing. `now` must not go backwards. With `only_looks` nothing is taken.
    ///
    /// # Errors
    /// Every part of the allowance that refuses.
    pub fn take(
        &mut self,
        allowance: &OutageAllowance,
        request: AllowanceRequest,
        now: Timestamp,
        only_looks: bool,
    ) -> Result<(), Vec<Violation>> {
        let parts = [
            (&mut self.requests, allowance.requests, 1, Quantity::Requests),
            (&mut self.tokens, allowance.tokens, request.tokens, Quantity::Tokens),
            (&mut self.nano_usd, allowance.nano_usd, request.nano_usd, Quantity::NanoUsd),
        ];
        let hold = |limit: Option<u64>, amount: u64| Hold {
            counter: (),
            kind: KIND,
            limit: limit.unwrap_or(MAX_AMOUNT),
            kept: 0,
            expiring: amount,
        };
        let mut refusing = Vec::new();
        let mut fitting = Vec::with_capacity(parts.len());
        for (counter, limit, amount, quantity) in parts {
            let hold = hold(limit, amount);
            match counter.check(now, &hold) {
                Ok(_) => fitting.push((counter, hold)),
                Err(shortage) => {
                    let retry_ms = shortage.frees_at.map_or(MINUTE_MS, |at| at.since(now).max(1));
                    refusing.push(exhausted(
                        allowance,
                        quantity,
                        (hold.limit, shortage.used, amount),
                        retry_ms,
                    ));
                }
            }
        }
        if !refusing.is_empty() {
            return Err(refusing);
        }
        if !only_looks {
            fitting.into_iter().for_each(|(counter, hold)| counter.take(now, &hold));
        }
        Ok(())
    }
}

/// The refusal by one part of an allowance. It can pass as soon as the store answers, so it is never final.
fn exhausted(
    allowance: &OutageAllowance,
    quantity: Quantity,
    (limit, used, requested): (u64, u64, u64),
    retry_ms: u64,
) -> Violation {
    let (key, shown): (&str, fn(u64) -> String) = match quantity {
        Quantity::NanoUsd => ("usd_per_minute", |nanos| dollars(nanos.into())),
        Quantity::Tokens => ("tokens_per_minute", |tokens| format!("{} tokens", group(tokens.into()))),
        _ => ("requests_per_minute", |requests| format!("{} requests", group(requests.into()))),
    };
    let limit_id = format!("{}.{key}", allowance.id);
    let message = format!(
        "the store does not answer, and `{limit_id}` permits each replica {} in a minute until it does; {} are used and this request \
         asks for {}; try again after {}",
        shown(limit),
        shown(used),
        shown(requested),
        explain::duration(retry_ms),
    );
    Violation {
        reason: Reason::OutageAllowanceExhausted,
        scope: Some(LimitScope::Team),
        limit_id,
        project: String::new(),
        quantity: Measure::Of(quantity),
        limit,
        used,
        requested,
        retry: Retry::After(retry_ms),
        message,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowance(requests: Option<u64>, tokens: Option<u64>, nano_usd: Option<u64>) -> OutageAllowance {
        OutageAllowance { id: "teams.t.outage_allowance".into(), requests, tokens, nano_usd }
    }

    #[test]
    fn in_no_minute_is_more_admitted_than_allowed() {
        let allowance = allowance(Some(10), None, None);
        let (mut counts, mut admitted) = (AllowanceUse::default(), Vec::new());
        // Every 700 ms, which begins a minute at every place of a slot.
        for now in (0..600_000).step_by(700).map(Timestamp) {
            if counts.take(&allowance, AllowanceRequest::default(), now, false).is_ok() {
                admitted.push(now.0);
            }
        }
        assert!(admitted.len() >= 90, "{}", admitted.len());
        for start in &admitted {
            let within = admitted.iter().filter(|at| (*start..start + MINUTE_MS).contains(*at)).count();
            assert!(within <= 10, "{within} from {start}");
        }
    }

    #[test]
    fn all_parts_are_taken_or_none() {
        let allowance = allowance(Some(2), Some(100), Some(1_000));
        let mut counts = AllowanceUse::default();
        let mut take = |tokens, nano_usd, at| {
            counts.take(&allowance, AllowanceRequest { tokens, nano_usd }, Timestamp(at), false)
        };
        assert_eq!(take(60, 600, 0), Ok(()));
        let refusing = take(60, 600, 1).unwrap_err();
        let said: Vec<_> = refusing.iter().map(|v| (&*v.limit_id, v.limit, v.used, v.requested)).collect();
        let [tokens, dollars] =
            ["tokens_per_minute", "usd_per_minute"].map(|key| format!("teams.t.outage_allowance.{key}"));
        assert_eq!(said, [(&*tokens, 100, 60, 60), (&*dollars, 1_000, 600, 600)]);
        assert_eq!(take(40, 400, 2), Ok(()), "the refused request took nothing");
        let refusing = take(0, 0, 3).unwrap_err();
        assert_eq!(refusing.len(), 1);
        let Retry::After(ms) = refusing[0].retry else { panic!("it can pass") };
        assert!(take(0, 0, 3 + ms - 1).is_err() && take(0, 0, 3 + ms).is_ok(), "the delay is tight");
    }

    #[test]
    fn looking_takes_nothing_and_more_than_all_of_it_never_fits() {
        let allowance = allowance(None, Some(10), None);
        let mut counts = AllowanceUse::default();
        let ten = AllowanceRequest { tokens: 10, nano_usd: 0 };
        for _ in 0..3 {
            assert_eq!(counts.take(&allowance, ten, Timestamp(0), true), Ok(()));
        }
        let refusing =
            counts.take(&allowance, AllowanceRequest { tokens: 11, ..ten }, Timestamp(0), false).unwrap_err();
        assert_eq!(refusing[0].retry, Retry::After(MINUTE_MS), "the store may be back by then");
        assert!(refusing[0].message.contains("permits each replica 10 tokens in a minute"), "{refusing:?}");
    }
}
