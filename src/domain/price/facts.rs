//! The built-in catalogue: what was known about Groq's models and list prices on 2026-10-07, source by source.

use jiff::civil::{Date, date};

use super::{Rates, catalogue::Status};

/// The facts about one model.
pub(super) struct Fact {
    pub(super) name: &'static str,
    pub(super) rates: Option<Rates>,
    pub(super) context_window: u64,
    pub(super) max_output_tokens: Option<u64>,
    pub(super) status: Status,
    pub(super) source: &'static str,
    pub(super) uncertain: Option<&'static str>,
}

const fn fact(name: &'static str, status: Status, source: &'static str) -> Fact {
    Fact { name, rates: None, context_window: 0, max_output_tokens: None, status, source, uncertain: None }
}

impl Fact {
    const fn size(self, context_window: u64, max_output_tokens: u64) -> Self {
        Self { context_window, max_output_tokens: Some(max_output_tokens), ..self }
    }

    /// The longest output is unknown.
    const fn context(self, context_window: u64) -> Self {
        Self { context_window, ..self }
    }

    const fn rates(self, rates: Rates) -> Self {
        Self { rates: Some(rates), ..self }
    }

    const fn uncertain(self, what: &'static str) -> Self {
        Self { uncertain: Some(what), ..self }
    }
}

const fn retired(on: Date) -> Status {
    Status::Retired { on }
}

const LIST: &str = "Groq's models page, 2026-10-07";
const LIST_AND_API: &str = "Groq's models page, 2026-10-07; cached price from its models API, autumn 2026";
const LIST_AND_OLDER_LIMITS: &str = "Groq's models page, 2026-10-07; context and output bounds, summer 2026";
const LIST_AND_SPEECH_TO_TEXT: &str =
    "Groq's models page, 2026-10-07; at least 10 s a request by its speech-to-text page";
const LAST_PUBLIC_1: &str =
    "Groq's deprecations page, October 2026; public until 2026-08-16, last price $0.05 in, $0.08 out";
const LAST_PUBLIC_2: &str =
    "Groq's deprecations page, October 2026; public until 2026-08-16, last price $0.59 in, $0.79 out";
const COMPOUND: &str = "Groq's deprecations page, October 2026; it never had a price per token";
const ENTERPRISE_GOES_ON: &str = "enterprise contracts may go on after the shutdown";

/// In nano-USD per million tokens or characters, or per hour.
pub(super) const FACTS: &[Fact] = &[
    fact("openai/gpt-oss-120b", Status::Production, LIST_AND_API).size(131_072, 65_536).rates(Rates::tokens(
        150_000_000,
        Some(75_000_000),
        600_000_000,
    )),
    fact("openai/gpt-oss-20b", Status::Production, LIST_AND_API).size(131_072, 65_536).rates(Rates::tokens(
        75_000_000,
        Some(37_500_000),
        300_000_000,
    )),
    fact("openai/gpt-oss-safeguard-20b", Status::Preview, LIST)
        .size(131_072, 65_536)
        .rates(Rates::tokens(75_000_000, Some(37_500_000), 300_000_000))
        .uncertain(
            "the cached price is derived: the prompt-caching page lists the model at half price (2026-10-10)",
        ),
    fact("qwen/qwen3.8-27b", Status::Preview, LIST)
        .size(131_072, 16_384)
        .rates(Rates::tokens(800_000_000, None, 4_000_000_000))
        .uncertain(
            "no source shows a cached price, so cached input is charged in full; the models API says 131042 \
             tokens of context",
        ),
    fact("meta-llama/llama-prompt-guard-2-22m", Status::Preview, LIST_AND_OLDER_LIMITS)
        .size(512, 512)
        .rates(Rates::tokens(30_000_000, None, 30_000_000)),
    fact("meta-llama/llama-prompt-guard-2-86m", Status::Preview, LIST_AND_OLDER_LIMITS)
        .size(512, 512)
        .rates(Rates::tokens(40_000_000, None, 40_000_000)),
    fact("whisper-large-v3", Status::Production, LIST_AND_SPEECH_TO_TEXT)
        .context(448)
        .rates(Rates::audio(111_000_000)),
    fact("whisper-large-v3-turbo", Status::Production, LIST_AND_SPEECH_TO_TEXT)
        .context(448)
        .rates(Rates::audio(40_000_000)),
    fact("canopylabs/orpheus-v1-english", Status::Preview, LIST)
        .size(4_000, 50_000)
        .rates(Rates::characters(22_000_000_000)),
    fact("canopylabs/orpheus-arabic-saudi", Status::Preview, LIST)
        .size(4_000, 50_000)
        .rates(Rates::characters(40_000_000_000)),
    fact("llama-3.1-8b-instant", Status::EnterpriseOnly, LAST_PUBLIC_1).size(131_072, 131_072),
    fact("llama-3.3-70b-versatile", Status::EnterpriseOnly, LAST_PUBLIC_2).size(131_072, 32_768),
    fact("minimaxai/minimax-m2.7", Status::EnterpriseOnly, "Groq's models page, summer 2026")
        .size(196_608, 131_072),
    fact(
        "allam-2-7b",
        Status::Unlisted,
        "models.dev, 2026-07-27; absent from Groq's limits page, 2026-10-01",
    )
    .size(4_096, 4_096)
    .uncertain("seen on the free tier only, July to September 2026, without a price"),
    fact("groq/compound", retired(date(2026, 9, 21)), COMPOUND).size(131_072, 8_192),
    fact("groq/compound-mini", retired(date(2026, 9, 21)), COMPOUND).size(131_072, 8_192),
    fact("qwen/qwen3.6-27b", retired(date(2026, 9, 14)), "Groq's models page, summer 2026")
        .size(131_072, 16_384)
        .rates(Rates::tokens(600_000_000, None, 3_000_000_000))
        .uncertain(
            "the models API showed a cached price of $0.30 (models.dev, 2026-07-27), the prompt-caching page \
             none, so cached input is charged in full; enterprise contracts may go on after the shutdown",
        ),
    fact("qwen/qwen3-32b", retired(date(2026, 7, 17)), "models.dev, 2026-06-26")
        .size(131_072, 40_960)
        .rates(Rates::tokens(290_000_000, None, 590_000_000))
        .uncertain(ENTERPRISE_GOES_ON),
    fact("meta-llama/llama-4-scout-17b-16e-instruct", retired(date(2026, 7, 17)), "models.dev, 2026-06-10")
        .size(131_072, 8_192)
        .rates(Rates::tokens(110_000_000, None, 340_000_000))
        .uncertain(ENTERPRISE_GOES_ON),
    fact(
        "moonshotai/kimi-k2-instruct-0905",
        retired(date(2026, 4, 15)),
        "Portkey's models list; Groq's pricing page, late 2025; context from Groq's text, 256K",
    )
    .context(262_144)
    .rates(Rates::tokens(1_000_000_000, Some(500_000_000), 3_000_000_000)),
    fact(
        "meta-llama/llama-4-maverick-17b-128e-instruct",
        retired(date(2026, 3, 9)),
        "genai-prices, 2025-08-12",
    )
    .context(131_072)
    .rates(Rates::tokens(200_000_000, None, 600_000_000)),
    fact(
        "meta-llama/llama-guard-4-12b",
        retired(date(2026, 3, 5)),
        "genai-prices, 2025-08-12; output bound, models.dev, 2026-01-04",
    )
    .size(131_072, 1_024)
    .rates(Rates::tokens(200_000_000, None, 200_000_000)),
];
