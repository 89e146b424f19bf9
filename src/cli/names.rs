//! The contract's enum values by their short names, on the command line and on the screen.

use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};

use crate::rpc::proto;

/// An enum of the contract. The short form of a value is its name without the prefix, in lower case.
pub(super) trait WireEnum: Copy + Send + Sync + TryFrom<i32> + 'static {
    /// What the full name of every value begins with.
    const PREFIX: &'static str;

    /// The full name, such as `SERVICE_TIER_ON_DEMAND`.
    fn full_name(self) -> &'static str;

    /// The value of a full name.
    fn from_full_name(name: &str) -> Option<Self>;

    /// What it means, for `--help`.
    fn meaning(self) -> Option<&'static str>;
}

macro_rules! wire_enum {
    ($name:ident, $prefix:literal $(, $value:ident: $meaning:literal)* $(,)?) => {
        impl WireEnum for proto::$name {
            const PREFIX: &'static str = $prefix;

            fn full_name(self) -> &'static str {
                self.as_str_name()
            }

            fn from_full_name(name: &str) -> Option<Self> {
                Self::from_str_name(name)
            }

            fn meaning(self) -> Option<&'static str> {
                match self {
                    $(Self::$value => Some($meaning),)*
                    #[allow(unreachable_patterns, reason = "not every enum has a meaning for each value")]
                    _ => None,
                }
            }
        }
    };
}

wire_enum!(Operation, "OPERATION_");
wire_enum!(Decision, "DECISION_");
wire_enum!(Reason, "REASON_");
wire_enum!(UpstreamKeyState, "UPSTREAM_KEY_STATE_");
wire_enum!(KeyState, "KEY_STATE_");
wire_enum!(Period, "PERIOD_");
wire_enum!(AlertState, "ALERT_STATE_");
wire_enum!(DeliveryState, "DELIVERY_STATE_");
wire_enum!(ReceiverKind, "RECEIVER_KIND_");
wire_enum!(StoreKind, "STORE_KIND_");
wire_enum!(StoreCallOutcome, "STORE_CALL_OUTCOME_");
wire_enum!(
    AlertKind,
    "ALERT_KIND_",
    BudgetThreshold: "A threshold of a budget was crossed",
    BudgetExhausted: "A budget denied a request for the first time in its period",
    BudgetForecast: "A budget will not last for its period",
    UpstreamCooldown: "Groq refused a model with 429",
    UpstreamKeyRefused: "Groq refused one of the organization's own keys",
    Pause: "Something is paused",
    StoreOutage: "The store does not answer",
    UnsettledHigh: "Many reservations of a team are without a report",
    UsageDrift: "What was booked differs from what Groq billed",
    PolicyRejected: "A new version of the policy was not taken",
    SpoolBacklog: "Reports of usage wait to be booked",
    UnreservedRefused: "Usage without a reservation was refused",
    LayoutMismatch: "Replicas of an earlier release do not know the store's layout",
    Test: "A test of a receiver",
);
wire_enum!(
    Severity,
    "SEVERITY_",
    Info: "Good to know",
    Warning: "To look at today",
    Critical: "To look at now",
);
wire_enum!(
    OnShortfall,
    "ON_SHORTFALL_",
    Deny: "The request is denied",
    Clamp: "As many output tokens are granted as the budget can pay for",
    Warn: "The request is allowed, with a warning",
);
wire_enum!(
    LimitView,
    "LIMIT_VIEW_",
    None: "None",
    Tightest: "Of each quantity the one with the least left",
    All: "All that apply",
);
wire_enum!(
    LimitMode,
    "LIMIT_MODE_",
    Enforce: "It refuses",
    Shadow: "It counts and reports what it would refuse",
);
wire_enum!(
    ServiceTier,
    "SERVICE_TIER_",
    OnDemand: "List price",
    Flex: "List price",
    Auto: "Groq picks on demand or flex",
    Performance: "Priced by contract",
);
wire_enum!(
    Outcome,
    "OUTCOME_",
    Completed: "Answered in full: its usage is charged",
    Aborted: "The stream was cut: what was seen is charged, or else what the policy says",
    Failed: "Groq answered with an error: usage is charged where there is any",
    RateLimited: "Groq answered 429: nothing is charged",
    NotSent: "It never reached Groq: nothing is charged or counted",
);

/// More numbers than the values of any enum here have.
const NUMBERS: i32 = 64;

/// Every value but the unspecified one.
fn values<E: WireEnum>() -> impl Iterator<Item = E> {
    (1..NUMBERS).filter_map(|number| E::try_from(number).ok())
}

/// The short form, such as `on_demand`.
pub(super) fn short<E: WireEnum>(value: E) -> String {
    value.full_name().trim_start_matches(E::PREFIX).to_ascii_lowercase()
}

/// The value of a short name, with `_` or `-` between its words.
pub(super) fn named<E: WireEnum>(name: &str) -> Option<E> {
    E::from_full_name(&format!("{}{}", E::PREFIX, name.replace('-', "_").to_ascii_uppercase()))
}

/// Reads a value by its short name, with `_` or `-` between its words.
pub(super) fn parser<E: WireEnum>() -> impl TypedValueParser<Value = E> {
    let possible = values::<E>().map(|value| {
        let (name, meaning) = (short(value), value.meaning());
        let with_hyphens = name.replace('_', "-");
        let possible = PossibleValue::new(name).alias(with_hyphens);
        meaning.map_or(possible.clone(), |meaning| possible.help(meaning))
    });
    PossibleValuesParser::new(possible)
        .try_map(|name| named(&name).ok_or_else(|| format!("there is no `{name}`")))
}

#[cfg(test)]
mod tests {
    use clap::{Arg, Command};

    use super::*;
    use crate::domain::request::{Operation, ServiceTier};

    #[test]
    fn the_short_names_are_those_of_the_domain() {
        assert!(values::<proto::Operation>().map(short).eq(Operation::ALL.map(Operation::name)));
        assert!(values::<proto::ServiceTier>().map(short).eq(ServiceTier::ALL.map(ServiceTier::name)));
    }

    #[test]
    fn values_are_read_with_underscores_and_with_hyphens() {
        let command =
            || Command::new("test").arg(Arg::new("outcome").value_parser(parser::<proto::Outcome>()));
        for text in ["rate_limited", "rate-limited"] {
            let matches = command().try_get_matches_from(["test", text]).unwrap();
            assert_eq!(matches.get_one("outcome"), Some(&proto::Outcome::RateLimited));
        }
        for text in ["unspecified", "RATE_LIMITED", "rate", ""] {
            assert!(command().try_get_matches_from(["test", text]).is_err(), "{text}");
        }
    }
}
