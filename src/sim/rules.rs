//! The policy of every world, and the same in plain numbers for the verdict, which reads no policy.

use std::sync::{Arc, LazyLock};

use crate::{
    domain::{Timestamp, policy::Policy},
    policy_file::parse_policy_at,
};

/// Prices, in billionths of a dollar for one token.
pub(super) const INPUT_NANOS: u64 = 1_000;
pub(super) const OUTPUT_NANOS: u64 = 2_000;
pub(super) const MODEL: &str = "m/text";
/// A thousandth of a dollar, in billionths.
const MILLI: u64 = 1_000_000;
/// The organization's.
pub(super) const ORGANIZATION: Rules = Rules {
    team: "",
    monthly_nanos: 150 * MILLI,
    daily_nanos: None,
    requests_per_minute: Some(24),
    tokens_per_minute: None,
    user_requests_per_minute: None,
    max_in_flight: None,
    unsettled: Unsettled::Reserved,
};
/// The team whose callers present a key that was created.
pub(super) const KEYED: usize = 2;
/// The shares of each monthly budget that are reported, in percent.
pub(super) const ALERTS: [u64; 2] = [30, 60];

/// What becomes of a reservation that is never reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unsettled {
    Reserved,
    Input,
    Nothing,
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
}

pub(super) const TEAMS: [Rules; 3] = [
    Rules {
        team: "one",
        monthly_nanos: 90 * MILLI,
        daily_nanos: Some(40 * MILLI),
        requests_per_minute: Some(8),
        tokens_per_minute: Some(12_000),
        user_requests_per_minute: Some(3),
        max_in_flight: Some(3),
        unsettled: Unsettled::Reserved,
    },
    Rules {
        team: "two",
        monthly_nanos: 30 * MILLI,
        daily_nanos: None,
        requests_per_minute: Some(10),
        tokens_per_minute: None,
        user_requests_per_minute: None,
        max_in_flight: None,
        unsettled: Unsettled::Nothing,
    },
    Rules {
        team: "three",
        monthly_nanos: 50 * MILLI,
        daily_nanos: None,
        requests_per_minute: None,
        tokens_per_minute: Some(20_000),
        user_requests_per_minute: None,
        max_in_flight: Some(2),
        unsettled: Unsettled::Input,
    },
];

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
"#;

/// The policy, read once.
pub(super) fn policy() -> Arc<Policy> {
    static POLICY: LazyLock<Arc<Policy>> = LazyLock::new(|| {
        let report = parse_policy_at(TEXT, "simulated.toml", Timestamp(super::START_MS));
        let text = report.to_string();
        Arc::new(report.policy.unwrap_or_else(|| panic!("{text}")))
    });
    Arc::clone(&POLICY)
}

/// What so many tokens cost.
pub(super) const fn cost(input: u64, output: u64) -> u64 {
    input * INPUT_NANOS + output * OUTPUT_NANOS
}
