//! The policies of worlds, and the same in plain numbers for the verdict, which reads no policy.

use std::sync::{Arc, LazyLock};

use crate::{
    domain::{Timestamp, policy::Policy},
    policy_file::parse_policy_at,
};

pub(super) const MODEL: &str = "m/text";
/// One with a price that makes any amount in nano-dollars possible: those of the other are whole thousands.
pub(super) const ODD_MODEL: &str = "m/odd";
/// Billionths of a dollar for one token of input, of either model.
pub(super) const INPUT_NANOS: u64 = 1_000;
/// The same for one of output.
const OUTPUT_NANOS: u64 = 2_000;
pub(super) const ODD_OUTPUT_NANOS: u64 = 2_001;
/// A thousandth of a dollar, in billionths.
const MILLI: u64 = 1_000_000;
/// The team whose callers present a key that was created.
pub(super) const KEYED: usize = 2;
/// The shares of each monthly budget that are reported, in percent.
pub(super) const ALERTS: [u64; 2] = [30, 60];
pub(super) const TEAMS: [&str; 3] = ["one", "two", "three"];

/// What becomes of a reservation that is never reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unsettled {
    Reserved,
    Input,
    Nothing,
}

/// What is decided while the store does not answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outage {
    Deny,
    /// For so many milliseconds after the last good reading of keys and pauses.
    Allow {
        most_ms: u64,
    },
    /// The same, and in any minute no more on one replica.
    Allowance {
        most_ms: u64,
        requests: u64,
        tokens: u64,
        nanos: u64,
    },
}

/// The limits of the organization or a team.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rules {
    pub(super) team: &'static str,
    pub(super) monthly_nanos: u64,
    pub(super) daily_nanos: Option<u64>,
    pub(super) requests_per_minute: Option<u64>,
    pub(super) tokens_per_minute: Option<u64>,
    pub(super) user_requests_per_minute: Option<u64>,
    pub(super) max_in_flight: Option<u64>,
    pub(super) unsettled: Unsettled,
    pub(super) outage: Outage,
}

/// A policy in plain numbers.
#[derive(Debug)]
pub(super) struct Book {
    pub(super) organization: Rules,
    pub(super) teams: [Rules; 3],
}

const ORGANIZATION: Rules = Rules {
    team: "",
    monthly_nanos: 150 * MILLI,
    daily_nanos: None,
    requests_per_minute: Some(24),
    tokens_per_minute: None,
    user_requests_per_minute: None,
    max_in_flight: None,
    unsettled: Unsettled::Reserved,
    outage: Outage::Deny,
};
const ONE: Rules = Rules {
    team: TEAMS[0],
    monthly_nanos: 90 * MILLI,
    daily_nanos: Some(40 * MILLI),
    requests_per_minute: Some(8),
    tokens_per_minute: Some(12_000),
    user_requests_per_minute: Some(3),
    max_in_flight: Some(3),
    unsettled: Unsettled::Reserved,
    outage: Outage::Deny,
};
const TWO: Rules = Rules {
    team: TEAMS[1],
    monthly_nanos: 30 * MILLI,
    requests_per_minute: Some(10),
    unsettled: Unsettled::Nothing,
    ..ORGANIZATION
};
const THREE: Rules = Rules {
    team: TEAMS[2],
    monthly_nanos: 50 * MILLI,
    requests_per_minute: None,
    tokens_per_minute: Some(20_000),
    max_in_flight: Some(2),
    unsettled: Unsettled::Input,
    ..ORGANIZATION
};

/// Wide budgets, and nothing is decided without the store.
pub(super) static WIDE: Book = Book { organization: ORGANIZATION, teams: [ONE, TWO, THREE] };
/// Budgets that come to an end within a world, and rules for outages.
pub(super) static TIGHT: Book = Book {
    organization: Rules { monthly_nanos: 24 * MILLI, ..ORGANIZATION },
    teams: [
        Rules {
            monthly_nanos: 14 * MILLI,
            daily_nanos: Some(8 * MILLI),
            outage: Outage::Allowance { most_ms: 4_000, requests: 2, tokens: 4_000, nanos: 5 * MILLI },
            ..ONE
        },
        Rules { monthly_nanos: 6 * MILLI, outage: Outage::Allow { most_ms: 3_000 }, ..TWO },
        Rules { monthly_nanos: 10 * MILLI, ..THREE },
    ],
};

impl Book {
    pub(super) fn is_tight(&self) -> bool {
        std::ptr::eq(self, &raw const TIGHT)
    }
}

const TEXT: &str = r#"
[organization]
id = "acme"
budget = { monthly_usd = "0.150", alerts = ["30%", "60%"] }
requests_per_minute = 24

[teams.one]
models = ["m/*"]
max_output_tokens = 1000
budget = { monthly_usd = "0.090", daily_usd = "0.040", alerts = ["30%", "60%"] }
requests_per_minute = 8
tokens_per_minute = 12_000
max_in_flight = 3
on_unsettled = "charge_reserved"
per_user.requests_per_minute = 3

# Answers get shorter as its money comes to an end.
[teams.two]
models = ["m/*"]
max_output_tokens = 1000
budget = { monthly_usd = "0.030", on_shortfall = "clamp", min_output_tokens = 16, alerts = ["30%", "60%"] }
requests_per_minute = 10
on_unsettled = "release"

[teams.three]
models = ["m/*"]
max_output_tokens = 1000
budget = { monthly_usd = "0.050", alerts = ["30%", "60%"] }
tokens_per_minute = 20_000
max_in_flight = 2
on_unsettled = "charge_input"

[[alerts]]
receiver = "ops"

[[prices]]
model = "m/text"
input_usd_per_million_tokens = "1"
output_usd_per_million_tokens = "2"

[[prices]]
model = "m/odd"
input_usd_per_million_tokens = "1"
output_usd_per_million_tokens = "2.001"
"#;

/// What differs in the other policy, line by line.
const TIGHTER: [(&str, &str); 6] = [
    (r#"monthly_usd = "0.150""#, r#"monthly_usd = "0.024""#),
    (r#"monthly_usd = "0.090", daily_usd = "0.040""#, r#"monthly_usd = "0.014", daily_usd = "0.008""#),
    (r#"monthly_usd = "0.030""#, r#"monthly_usd = "0.006""#),
    (r#"monthly_usd = "0.050""#, r#"monthly_usd = "0.010""#),
    (
        "[teams.one]",
        "[teams.one]\non_store_outage = \"allowance\"\nmax_outage = \"4s\"\noutage_allowance = { ALLOWANCE }",
    ),
    ("[teams.two]", "[teams.two]\non_store_outage = \"allow\"\nmax_outage = \"3s\""),
];
const ALLOWANCE: &str = r#"requests_per_minute = 2, tokens_per_minute = 4_000, usd_per_minute = "0.005""#;
/// What no world comes to.
const NO_ALLOWANCE: &str = r#"requests_per_minute = 1_000_000"#;

fn read(text: &str) -> Arc<Policy> {
    let report = parse_policy_at(text, "simulated.toml", Timestamp(super::START_MS));
    let text = report.to_string();
    Arc::new(report.policy.unwrap_or_else(|| panic!("{text}")))
}

fn tighter(allowance: &str) -> Arc<Policy> {
    let text = TIGHTER.iter().fold(TEXT.to_owned(), |text, (from, to)| {
        assert!(text.contains(from), "{from}");
        text.replace(from, to)
    });
    read(&text.replace("ALLOWANCE", allowance))
}

/// The policy, read once. `counts`: whether what is admitted in an outage counts.
pub(super) fn policy(book: &Book, counts: bool) -> Arc<Policy> {
    static USUAL: LazyLock<Arc<Policy>> = LazyLock::new(|| read(TEXT));
    static COUNTED: LazyLock<Arc<Policy>> = LazyLock::new(|| tighter(ALLOWANCE));
    static UNCOUNTED: LazyLock<Arc<Policy>> = LazyLock::new(|| tighter(NO_ALLOWANCE));
    Arc::clone(match (book.is_tight(), counts) {
        (false, _) => &USUAL,
        (true, true) => &COUNTED,
        (true, false) => &UNCOUNTED,
    })
}

/// What so many tokens cost.
pub(super) const fn cost(is_odd: bool, input: u64, output: u64) -> u64 {
    input * INPUT_NANOS + output * if is_odd { ODD_OUTPUT_NANOS } else { OUTPUT_NANOS }
}
