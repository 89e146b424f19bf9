//! The cost of requests, against Groq's own example and against big rational numbers.

use num_bigint::BigUint;
use proptest::prelude::*;

use super::*;
use crate::domain::{MAX_AMOUNT, batch::Batch, request::ToolUsage};

const GPT_OSS_120B: Rates = Rates::tokens(150_000_000, Some(75_000_000), 600_000_000);
const WHISPER: Rates = Rates::audio(111_000_000);

fn usage(input: u64, cached: u64, output: u64) -> Usage {
    Usage {
        input_tokens: input,
        cached_input_tokens: cached,
        output_tokens: output,
        reasoning_tokens: output / 2,
        ..Usage::default()
    }
}

fn tool(tool: &str, calls: u64, run_ms: u64) -> ToolUsage {
    ToolUsage { tool: tool.to_owned(), calls, run_ms }
}

fn nanos(cost: Result<NanoUsd, PriceError>) -> u64 {
    cost.unwrap().nanos()
}

#[test]
fn reproduces_groqs_example() {
    let cost = GPT_OSS_120B.cost(Operation::Chat, &usage(4_641, 4_608, 1_817)).unwrap();
    assert_eq!((cost.nanos(), cost.to_string().as_str()), (1_440_750, "0.00144075"));
}

#[test]
fn a_batch_costs_half_and_knows_no_cache() {
    let cost = |cached| nanos(GPT_OSS_120B.cost(Operation::Batch, &usage(4_641, cached, 1_817)));
    // (4641 · 0.15 + 1817 · 0.60) / 2 dollars per million.
    assert_eq!((cost(0), cost(4_608)), (893_175, 893_175));
}

#[test]
fn cached_input_without_a_price_of_its_own_is_input() {
    let rates = Rates { cached_input: None, ..GPT_OSS_120B };
    assert_eq!(nanos(rates.cost(Operation::Chat, &usage(10, 10, 0))), 1_500);
    assert_eq!(nanos(rates.cost(Operation::Chat, &usage(10, 0, 0))), 1_500);
    // There cannot be more cached tokens than input tokens; all of the input then counts as cached.
    assert_eq!(nanos(GPT_OSS_120B.cost(Operation::Chat, &usage(10, 11, 0))), 750);
}

#[test]
fn embeddings_are_charged_for_their_input() {
    let rates = Rates { output: None, cached_input: None, ..GPT_OSS_120B };
    assert_eq!(nanos(rates.cost(Operation::Embeddings, &usage(1_000, 500, 7))), 150_000);
}

#[test]
fn the_worst_case_of_a_batch_of_audio_is_one_long_line_and_many_short_ones() {
    let lines = |line_operation, request_count| {
        Work::Lines(Batch { line_operation, request_count, ..Batch::default() })
    };
    for (audio_s, count, billed_s) in [(1_009, 100, 1_999), (5, 1, 10), (5, 3, 30), (11, 2, 21), (0, 2, 20)] {
        let size = Size { audio_ms: audio_s * 1_000, ..Size::default() };
        let used = Usage { audio_ms: billed_s * 1_000, ..Usage::default() };
        let work = lines(Operation::Transcription, count);
        assert_eq!(WHISPER.worst_case(work, &size, 0), WHISPER.cost(work, &used), "{audio_s} s in {count}");
    }
}

#[test]
fn audio_is_charged_for_ten_seconds_at_least() {
    for (audio_ms, expected) in [
        (0, 308_334),
        (1, 308_334),
        (10_000, 308_334), // 308,333.3
        (10_001, 308_365), // 308,364.2
        (3_600_000, 111_000_000),
    ] {
        let used = Usage { audio_ms, ..Usage::default() };
        let size = Size { audio_ms, ..Size::default() };
        for operation in [Operation::Transcription, Operation::Translation] {
            assert_eq!(nanos(WHISPER.cost(operation, &used)), expected);
            assert_eq!(nanos(WHISPER.worst_case(operation, &size, 0)), expected);
            assert_eq!(nanos(WHISPER.input_only(operation, &size)), expected);
        }
    }
}

#[test]
fn speech_is_charged_by_the_character() {
    let used = Usage { characters: 200, ..Usage::default() };
    assert_eq!(nanos(Rates::characters(22_000_000_000).cost(Operation::Speech, &used)), 4_400_000);
}

#[test]
fn a_cost_is_rounded_up_once() {
    // Three terms of a third of a nano-USD make one nano-USD.
    let rates = Rates::tokens(333_333, Some(333_333), 333_334);
    assert_eq!(nanos(rates.cost(Operation::Chat, &usage(2, 1, 1))), 1);
    assert_eq!(nanos(rates.cost(Operation::Chat, &usage(2, 1, 2))), 2);
    assert_eq!(nanos(rates.cost(Operation::Chat, &usage(0, 0, 0))), 0);
}

#[test]
fn tools_are_added_before_rounding() {
    let mut used = usage(0, 0, 0);
    used.tools = vec![
        tool("browser_search.browser.search", 2, 99),
        tool("browser_search.browser.open", 3, 0),
        tool("code_interpreter.python", 1, 60_000),
        tool("compound.web_search.basic", 1, 0),
        tool("compound.web_search.advanced", 1, 0),
        tool("compound.visit_website", 1, 0),
        tool("compound.browser_automation", 1, 3_600_000),
    ];
    let expected = 10_000_000 + 3_000_000 + 3_000_000 + 5_000_000 + 8_000_000 + 1_000_000 + 80_000_000;
    assert_eq!(nanos(GPT_OSS_120B.cost(Operation::Chat, &used)), expected);
    // 80 million nano-USD per hour for 9 ms is exactly 200; one more token of 0.5 rounds up, two do not.
    used.tools = vec![tool("compound.browser_automation", 0, 9)];
    used.input_tokens = 2;
    assert_eq!(nanos(Rates::tokens(500_000, None, 0).cost(Operation::Chat, &used)), 201);
}

#[test]
fn what_has_no_price_is_refused_by_name() {
    for (rates, operation, message) in [
        (WHISPER, Operation::Chat, "no price per million input tokens, which `chat_completion` is billed by"),
        (
            Rates { output: None, ..GPT_OSS_120B },
            Operation::Batch,
            "no price per million output tokens, which `chat_completion` is billed by",
        ),
        (
            GPT_OSS_120B,
            Operation::Transcription,
            "no price per hour of audio, which `transcription` is billed by",
        ),
        (GPT_OSS_120B, Operation::Speech, "no price per million characters, which `speech` is billed by"),
    ] {
        let (used, size) = (Usage::default(), Size::default());
        assert_eq!(rates.cost(operation, &used).unwrap_err().to_string(), message);
        assert_eq!(rates.worst_case(operation, &size, 0).unwrap_err().to_string(), message);
        assert_eq!(rates.affordable_output(operation, &size, NanoUsd::MAX), None);
    }
    let used = Usage { tools: vec![tool("browser", 0, 0)], ..Usage::default() };
    let error = GPT_OSS_120B.cost(Operation::Chat, &used).unwrap_err();
    assert_eq!(error, PriceError::UnknownTool("browser".to_owned()));
    assert!(error.to_string().starts_with(
        "tool `browser` has no price; those that have are `browser_search.browser.search`, \
         `browser_search.browser.open`, "
    ));
}

#[test]
fn too_much_is_refused_and_never_wraps() {
    let most = usage(u64::MAX, 0, u64::MAX);
    let dearest = Rates::tokens(MAX_AMOUNT, Some(MAX_AMOUNT), MAX_AMOUNT);
    assert_eq!(dearest.cost(Operation::Chat, &most), Err(PriceError::Overflow));
    assert_eq!(
        PriceError::Overflow.to_string(),
        "the cost is more than the largest amount, 9007199.254740991 dollars"
    );
    // Exactly the largest amount, and one part more.
    let largest = usage(1_000_000, 0, 0);
    let mut one_more = largest.clone();
    one_more.tools = vec![tool("code_interpreter.python", 0, 1)];
    assert_eq!(dearest.cost(Operation::Chat, &largest), Ok(NanoUsd::MAX));
    assert_eq!(dearest.cost(Operation::Chat, &one_more), Err(PriceError::Overflow));
    // Products that do not fit a `u128`.
    let used = Usage { tools: vec![tool("browser_search.browser.search", u64::MAX, 0); 4], ..most };
    assert_eq!(dearest.cost(Operation::Chat, &used), Err(PriceError::Overflow));
}

#[test]
fn output_that_costs_nothing_is_affordable_without_end() {
    let size = Size { input_tokens: 10, audio_ms: 10_000, ..Size::default() };
    let budget = |nanos| NanoUsd::new(nanos).unwrap();
    assert_eq!(WHISPER.affordable_output(Operation::Transcription, &size, budget(308_334)), Some(u64::MAX));
    assert_eq!(WHISPER.affordable_output(Operation::Transcription, &size, budget(308_333)), None);
    let free = Rates::tokens(150_000_000, None, 0);
    assert_eq!(free.affordable_output(Operation::Chat, &size, budget(1_500)), Some(u64::MAX));
    assert_eq!(free.affordable_output(Operation::Chat, &size, budget(1_499)), None);
    assert_eq!(GPT_OSS_120B.affordable_output(Operation::Chat, &size, budget(1_500)), Some(0));
}

#[test]
fn the_worst_case_takes_the_dearer_of_cache_and_input() {
    let rates = Rates::tokens(1_000_000, Some(3_000_000), 0);
    let size = Size { input_tokens: 10, ..Size::default() };
    assert_eq!(nanos(rates.worst_case(Operation::Chat, &size, 0)), 30);
    assert_eq!(nanos(rates.worst_case(Operation::Batch, &size, 0)), 5);
}

/// A non-negative rational number, not reduced.
struct Rational(BigUint, BigUint);

impl Rational {
    fn plus(self, numerator: u128, denominator: u64) -> Self {
        let denominator = BigUint::from(denominator);
        Self(self.0 * &denominator + &self.1 * BigUint::from(numerator), self.1 * denominator)
    }

    /// The nano-USD to pay, or `None` above the largest amount.
    fn ceiling(self) -> Option<u64> {
        let whole = &self.0 / &self.1;
        let rest = self.0 - &whole * &self.1;
        let nanos = whole + BigUint::from(u8::from(rest != BigUint::ZERO));
        u64::try_from(nanos).ok().filter(|nanos| *nanos <= 9_007_199_254_740_991)
    }
}

/// What Groq's billing page says, term by term.
fn oracle(rates: &Rates, operation: Operation, used: &Usage) -> Option<u64> {
    let times = |count: u64, rate: Option<NanoUsd>| u128::from(count) * u128::from(rate.unwrap().nanos());
    let million = 1_000_000;
    let mut sum = Rational(BigUint::ZERO, BigUint::from(1_u8));
    match operation {
        Operation::Chat | Operation::Responses => {
            sum = sum
                .plus(times(used.input_tokens - used.cached_input_tokens, rates.input), million)
                .plus(times(used.cached_input_tokens, rates.cached_input.or(rates.input)), million)
                .plus(times(used.output_tokens, rates.output), million);
        }
        Operation::Batch => {
            sum = sum
                .plus(times(used.input_tokens, rates.input), 2 * million)
                .plus(times(used.output_tokens, rates.output), 2 * million);
        }
        Operation::Embeddings => sum = sum.plus(times(used.input_tokens, rates.input), million),
        Operation::Transcription | Operation::Translation => {
            let billed = if used.audio_ms < 10_000 { 10_000 } else { used.audio_ms };
            sum = sum.plus(times(billed, rates.audio_per_hour), 60 * 60 * 1_000);
        }
        Operation::Speech => sum = sum.plus(times(used.characters, rates.per_million_characters), million),
    }
    for tool in &used.tools {
        let (count, dollars_in_thousandths, denominator) = match tool.tool.as_str() {
            "browser_search.browser.search" => (tool.calls, 5, 1),
            "browser_search.browser.open" => (tool.calls, 1, 1),
            "code_interpreter.python" => (tool.run_ms, 180, 3_600_000),
            "compound.web_search.advanced" => (tool.calls, 8, 1),
            "compound.browser_automation" => (tool.run_ms, 80, 3_600_000),
            other => panic!("{other}"),
        };
        sum = sum.plus(u128::from(count) * dollars_in_thousandths * 1_000_000, denominator);
    }
    sum.ceiling()
}

/// Mostly realistic values, sometimes extreme ones.
fn counts() -> impl Strategy<Value = u64> {
    prop_oneof![4 => 0..200_000_u64, 2 => 0..100_000_000_u64, 1 => any::<u64>(), 1 => Just(u64::MAX), 1 => Just(0)]
}

fn rate() -> impl Strategy<Value = NanoUsd> {
    prop_oneof![4 => 0..5_000_000_000_u64, 2 => 0..3_000_000_u64, 1 => 0..=MAX_AMOUNT, 1 => Just(MAX_AMOUNT)]
        .prop_map(|nanos| NanoUsd::new(nanos).unwrap())
}

fn priced() -> impl Strategy<Value = Rates> {
    (rate(), prop::option::of(rate()), rate(), rate(), rate()).prop_map(
        |(input, cached_input, output, audio, characters)| Rates {
            input: Some(input),
            cached_input,
            output: Some(output),
            audio_per_hour: Some(audio),
            per_million_characters: Some(characters),
        },
    )
}

fn tools() -> impl Strategy<Value = Vec<ToolUsage>> {
    let names = [
        "browser_search.browser.search",
        "browser_search.browser.open",
        "code_interpreter.python",
        "compound.web_search.advanced",
        "compound.browser_automation",
    ];
    let one = (prop::sample::select(names.to_vec()), counts(), counts());
    prop::collection::vec(one.prop_map(|(name, calls, run_ms)| tool(name, calls, run_ms)), 0..4)
}

fn operations() -> impl Strategy<Value = Operation> {
    prop::sample::select(Operation::ALL.to_vec())
}

prop_compose! {
    fn used()(input in counts(), share in counts(), output in counts(), audio_ms in counts(), characters in counts(),
        tools in tools()) -> Usage {
        let cached = if input == u64::MAX { share } else { share % (input + 1) };
        Usage { audio_ms, characters, tools, ..usage(input, cached, output) }
    }
}

prop_compose! {
    fn sizes()(input_tokens in counts(), audio_ms in counts(), characters in counts()) -> Size {
        Size { input_tokens, max_output_tokens: 0, audio_ms, characters }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn costs_are_those_of_exact_arithmetic(rates in priced(), operation in operations(), used in used()) {
        let cost = rates.cost(operation, &used);
        prop_assert_eq!(cost.ok().map(NanoUsd::nanos), oracle(&rates, operation, &used));
    }

    #[test]
    fn nothing_costs_more_than_the_worst_case(rates in priced(), operation in operations(), mut used in used()) {
        used.tools.clear();
        let size = Size {
            input_tokens: used.input_tokens,
            max_output_tokens: 0,
            audio_ms: used.audio_ms,
            characters: used.characters,
        };
        if let Ok(worst) = rates.worst_case(operation, &size, used.output_tokens) {
            prop_assert!(rates.cost(operation, &used).unwrap() <= worst);
            prop_assert!(rates.input_only(operation, &size).unwrap() <= worst);
        }
    }

    #[test]
    fn affordable_output_is_the_most_there_is(
        rates in priced(), operation in operations(), size in sizes(), budget in rate(),
    ) {
        let fits = |output| rates.worst_case(operation, &size, output).is_ok_and(|cost| cost <= budget);
        match rates.affordable_output(operation, &size, budget) {
            None => prop_assert!(!fits(0)),
            Some(u64::MAX) => prop_assert!(fits(u64::MAX)),
            Some(most) => {
                prop_assert!(fits(most));
                prop_assert!(!fits(most + 1));
            }
        }
    }
}

/// Each kind is off by less than a nano-dollar, and together they are the cost.
#[test]
fn the_parts_of_a_cost_add_up_to_it() {
    let rates = Rates::tokens(123_456_789, Some(61_728_391), 987_654_321);
    for input_tokens in [0, 1, 2, 3, 1_001, 999_983] {
        for (cached_input_tokens, output_tokens) in [(0, 0), (1, 1), (2, 7), (999_983, 999_979)] {
            let usage = Usage { input_tokens, cached_input_tokens, output_tokens, ..Usage::default() };
            let work = Work::from(Operation::Chat);
            let parts = rates.cost_parts(work, &usage, |_| None).unwrap();
            assert_eq!(parts.total(), Some(rates.cost(work, &usage).unwrap()));
            let cached = cached_input_tokens.min(input_tokens);
            let exact = [
                (parts.input, input_tokens - cached, 123_456_789_u64),
                (parts.cached_input, cached, 61_728_391),
            ];
            for (part, count, rate) in exact.into_iter().chain([(parts.output, output_tokens, 987_654_321)]) {
                let (part, exact) = (u128::from(part) * 1_000_000, u128::from(count) * u128::from(rate));
                assert!(part.abs_diff(exact) < 1_000_000, "{parts:?}");
            }
        }
    }
}
