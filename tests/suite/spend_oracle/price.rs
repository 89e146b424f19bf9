//! Costs by the arithmetic of big numbers.

use num_bigint::BigUint;
use tollgate::rpc::proto::Operation;

/// Prices that divide nothing evenly, in nano-USD.
const INPUT: u64 = 123_456_789;
const CACHED: u64 = 61_728_391;
const OUTPUT: u64 = 987_654_321;
const AUDIO_PER_HOUR: u64 = 111_111_113;
const CHARACTERS: u64 = 22_000_001;
/// The shortest audio that is billed.
const LEAST_AUDIO_MS: u64 = 10_000;

/// The exact cost in nano-USD, rounded up once.
pub(super) fn price(operation: Operation, input: u64, cached: u64, output: u64) -> BigUint {
    let big = BigUint::from;
    let million = big(1_000_000_u64);
    let (sum, per) = match operation {
        Operation::Batch => (big(input) * INPUT + big(output) * OUTPUT, million * 2_u32),
        // Nothing of an embedding comes from the cache of a prompt, and nothing comes out as tokens.
        Operation::Embedding => (big(input) * INPUT, million),
        Operation::Transcription | Operation::Translation => {
            (big(input.max(LEAST_AUDIO_MS)) * AUDIO_PER_HOUR, big(3_600_000))
        }
        Operation::Speech => (big(input) * CHARACTERS, million),
        _ => (big(input - cached) * INPUT + big(cached) * CACHED + big(output) * OUTPUT, million),
    };
    (sum + &per - 1_u32) / per
}

#[test]
fn the_oracle_reproduces_groq_s_arithmetic() {
    // One token of each: 0.123… + 0.061… + 0.987… nano-dollars times a thousand, rounded up.
    assert_eq!(price(Operation::ChatCompletion, 2, 1, 1), BigUint::from(1_173_u32));
    assert_eq!(price(Operation::Batch, 2, 1, 1), BigUint::from(618_u32));
    assert_eq!(price(Operation::Transcription, 1, 0, 0), BigUint::from(308_642_u32));
}
