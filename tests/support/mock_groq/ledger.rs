//! What Groq would bill: a price table and an arithmetic of the mock's own, so that the service's can be held against them.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use serde::Serialize;

use super::lock;

const MILLION: u128 = 1_000_000;
const MS_PER_HOUR: u128 = 3_600_000;

/// Groq bills a transcription as if it were at least this long.
const MIN_AUDIO_MS: u64 = 10_000;

/// What a model costs, in nano-dollars.
#[derive(Debug)]
pub(crate) struct Price {
    pub(crate) model: &'static str,
    rate: Rate,
}

#[derive(Clone, Copy, Debug)]
enum Rate {
    /// Per million.
    Tokens { input: u128, cached: u128, output: u128 },
    /// Per hour.
    Audio(u128),
    /// Per million.
    Characters(u128),
}

pub(crate) const PRICES: &[Price] = &[
    Price {
        model: "openai/gpt-oss-120b",
        rate: Rate::Tokens { input: 150_000_000, cached: 75_000_000, output: 600_000_000 },
    },
    Price {
        model: "openai/gpt-oss-20b",
        rate: Rate::Tokens { input: 75_000_000, cached: 37_500_000, output: 300_000_000 },
    },
    Price { model: "whisper-large-v3-turbo", rate: Rate::Audio(40_000_000) },
    Price { model: "canopylabs/orpheus-v1-english", rate: Rate::Characters(22_000_000_000) },
    // Groq sells no embeddings; the endpoint is there, and so is a model to ask it for.
    Price { model: "nomic-embed-text-v1_5", rate: Rate::Tokens { input: 0, cached: 0, output: 0 } },
];

pub(crate) fn price_of(model: &str) -> Option<&'static Price> {
    PRICES.iter().find(|price| price.model == model)
}

/// The tokens of one request. The cached ones are among the input, the reasoning among the output.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tokens {
    pub(crate) input: u64,
    pub(crate) cached: u64,
    pub(crate) output: u64,
    pub(crate) reasoning: u64,
}

impl Price {
    /// The tokens' cost, rounded up once. A model that is not sold by the token costs nothing here.
    fn of_tokens(&self, tokens: Tokens) -> u64 {
        let Rate::Tokens { input, cached, output } = self.rate else { return 0 };
        let sum = u128::from(tokens.input - tokens.cached) * input
            + u128::from(tokens.cached) * cached
            + u128::from(tokens.output) * output;
        nanos(sum.div_ceil(MILLION))
    }

    fn of_audio(&self, ms: u64) -> u64 {
        let Rate::Audio(per_hour) = self.rate else { return 0 };
        nanos((u128::from(ms.max(MIN_AUDIO_MS)) * per_hour).div_ceil(MS_PER_HOUR))
    }

    fn of_characters(&self, characters: u64) -> u64 {
        let Rate::Characters(per_million) = self.rate else { return 0 };
        nanos((u128::from(characters) * per_million).div_ceil(MILLION))
    }
}

fn nanos(amount: u128) -> u64 {
    u64::try_from(amount).expect("no request of a test costs 18 billion dollars")
}

/// The sums of everything that ended.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Ledger {
    /// Nano-dollars.
    pub(crate) nanos: u64,
    /// All that arrived, refused ones and those under way included.
    pub(crate) requests: u64,
    /// Those that were billed and whose answer did not reach its end: cut by the mock, or left by the client.
    pub(crate) aborted: u64,
    /// Error answers by status.
    pub(crate) errors: BTreeMap<u16, u64>,
    pub(crate) models: BTreeMap<&'static str, ModelLedger>,
}

/// The sums of one model's billed requests.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct ModelLedger {
    pub(crate) nanos: u64,
    pub(crate) requests: u64,
    pub(crate) input: u64,
    pub(crate) cached: u64,
    pub(crate) output: u64,
    pub(crate) reasoning: u64,
}

impl Ledger {
    fn add(&mut self, model: &'static str, nanos: u64, tokens: Tokens) {
        self.nanos += nanos;
        let sums = self.models.entry(model).or_default();
        sums.nanos += nanos;
        sums.requests += 1;
        sums.input += tokens.input;
        sums.cached += tokens.cached;
        sums.output += tokens.output;
        sums.reasoning += tokens.reasoning;
    }
}

/// One request's bill. It is settled when the answer is complete; dropped before, it is a client's abort or a cut, and costs
/// the counted input and the tokens that were sent.
#[derive(Debug)]
pub(crate) struct Bill {
    ledger: Arc<Mutex<Ledger>>,
    price: &'static Price,
    counted_input: u64,
    sent: u64,
    open: bool,
}

impl Bill {
    pub(crate) const fn open(ledger: Arc<Mutex<Ledger>>, price: &'static Price, counted_input: u64) -> Self {
        Self { ledger, price, counted_input, sent: 0, open: true }
    }

    /// `tokens` more went out.
    pub(crate) const fn send(&mut self, tokens: u64) {
        self.sent += tokens;
    }

    pub(crate) fn settle_tokens(&mut self, tokens: Tokens) {
        self.settle(self.price.of_tokens(tokens), tokens);
    }

    pub(crate) fn settle_audio(&mut self, ms: u64) {
        self.settle(self.price.of_audio(ms), Tokens::default());
    }

    pub(crate) fn settle_characters(&mut self, characters: u64) {
        self.settle(self.price.of_characters(characters), Tokens::default());
    }

    /// It will cost nothing, whatever happens.
    pub(crate) const fn waive(&mut self) {
        self.open = false;
    }

    fn settle(&mut self, nanos: u64, tokens: Tokens) {
        if std::mem::take(&mut self.open) {
            lock(&self.ledger).add(self.price.model, nanos, tokens);
        }
    }
}

impl Drop for Bill {
    fn drop(&mut self) {
        if !self.open {
            return;
        }
        lock(&self.ledger).aborted += 1;
        self.settle_tokens(Tokens { input: self.counted_input, output: self.sent, ..Default::default() });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn price(model: &str) -> &'static Price {
        price_of(model).unwrap()
    }

    #[test]
    fn tokens_cost_their_rates_rounded_up_once() {
        let tokens = Tokens { input: 100, cached: 7, output: 40, reasoning: 10 };
        // 93 × 150 + 7 × 75 + 40 × 600
        assert_eq!(price("openai/gpt-oss-120b").of_tokens(tokens), 38_475);
        // 93 × 75 + 7 × 37.5 + 40 × 300 = 19,237.5
        assert_eq!(price("openai/gpt-oss-20b").of_tokens(tokens), 19_238);
    }

    #[test]
    fn audio_costs_ten_seconds_at_least() {
        let turbo = price("whisper-large-v3-turbo");
        // 10 s of an hour at $0.04: 111,111.1… nano-dollars
        assert_eq!(turbo.of_audio(1), 111_112);
        assert_eq!(turbo.of_audio(10_000), 111_112);
        assert_eq!(turbo.of_audio(3_600_000), 40_000_000);
    }

    #[test]
    fn characters_cost_their_rate() {
        assert_eq!(price("canopylabs/orpheus-v1-english").of_characters(3), 66_000);
    }

    #[test]
    fn a_bill_that_is_dropped_costs_what_went_both_ways() {
        let ledger = Arc::new(Mutex::new(Ledger::default()));
        let mut bill = Bill::open(ledger.clone(), price("openai/gpt-oss-120b"), 50);
        bill.send(2);
        drop(bill);
        let mut waived = Bill::open(ledger.clone(), price("openai/gpt-oss-120b"), 50);
        waived.waive();
        drop(waived);
        let ledger = lock(&ledger).clone();
        assert_eq!((ledger.nanos, ledger.aborted), (50 * 150 + 2 * 600, 1));
        assert_eq!(ledger.models["openai/gpt-oss-120b"].output, 2);
    }
}
