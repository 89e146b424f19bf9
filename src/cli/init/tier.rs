//! What Groq allows an organization, by its plan: the limits that a new policy begins with.
//!
//! The figures are those of console.groq.com/docs/rate-limits: the table of the Free plan as it was read in October 2026, and that of
//! the Developer plan as it was read in August 2026; its requests and tokens per minute are those of console.groq.com/docs/models, too.

use clap::ValueEnum;

/// Where the figures are from, for the comment over them.
const FREE: &str = "console.groq.com/docs/rate-limits, the Free plan, October 2026";
const DEVELOPER: &str = "console.groq.com/docs/rate-limits and docs/models, the Developer plan, August 2026";

/// A plan of Groq.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Tier {
    /// Groq's Free plan
    Free,
    /// Groq's Developer plan, paid by use
    Developer,
    /// A contract with limits of its own, which are left to you
    Enterprise,
}

/// What a plan allows with one model.
pub(super) struct ModelLimits {
    pub(super) model: &'static str,
    /// The keys of the policy, and their values.
    pub(super) rates: &'static [(&'static str, u64)],
}

const fn model(model: &'static str, rates: &'static [(&'static str, u64)]) -> ModelLimits {
    ModelLimits { model, rates }
}

const FREE_CHAT: &[(&str, u64)] = &[
    ("requests_per_minute", 30),
    ("requests_per_day", 1_000),
    ("tokens_per_minute", 8_000),
    ("tokens_per_day", 200_000),
];
const FREE_AUDIO: &[(&str, u64)] = &[
    ("requests_per_minute", 20),
    ("requests_per_day", 2_000),
    ("audio_seconds_per_hour", 7_200),
    ("audio_seconds_per_day", 28_800),
];
const CHAT: &[(&str, u64)] =
    &[("requests_per_minute", 1_000), ("requests_per_day", 500_000), ("tokens_per_minute", 250_000)];
const AUDIO: &[(&str, u64)] = &[
    ("requests_per_minute", 300),
    ("requests_per_day", 200_000),
    ("audio_seconds_per_hour", 200_000),
    ("audio_seconds_per_day", 4_000_000),
];
const AUDIO_TURBO: &[(&str, u64)] = &[
    ("requests_per_minute", 400),
    ("requests_per_day", 200_000),
    ("audio_seconds_per_hour", 400_000),
    ("audio_seconds_per_day", 4_000_000),
];

static FREE_LIMITS: [ModelLimits; 4] = [
    model("openai/gpt-oss-120b", FREE_CHAT),
    model("openai/gpt-oss-20b", FREE_CHAT),
    model("whisper-large-v3", FREE_AUDIO),
    model("whisper-large-v3-turbo", FREE_AUDIO),
];
static DEVELOPER_LIMITS: [ModelLimits; 4] = [
    model("openai/gpt-oss-120b", CHAT),
    model("openai/gpt-oss-20b", CHAT),
    model("whisper-large-v3", AUDIO),
    model("whisper-large-v3-turbo", AUDIO_TURBO),
];

impl Tier {
    /// What it allows; nothing where that is a matter of the contract.
    pub(super) fn limits(self) -> &'static [ModelLimits] {
        match self {
            Self::Free => &FREE_LIMITS,
            Self::Developer => &DEVELOPER_LIMITS,
            Self::Enterprise => &[],
        }
    }

    /// Where its figures are from.
    pub(super) const fn source(self) -> &'static str {
        match self {
            Self::Free => FREE,
            Self::Developer => DEVELOPER,
            Self::Enterprise => "your contract",
        }
    }

    /// The most output tokens of one request. With 2,048, a few requests of the Free plan fit into its tokens of a minute.
    pub(super) const fn max_output_tokens(self) -> u64 {
        match self {
            Self::Free => 2_048,
            Self::Developer | Self::Enterprise => 8_192,
        }
    }

    /// Its name, as a flag has it.
    pub(super) fn name(self) -> String {
        self.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
    }
}
