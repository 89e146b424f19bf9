//! Enums of the contract and of the domain, each converted in one place, both ways where both are needed.

use super::proto;
use crate::alerts::{DeliveryState, ReceiverKind};
use crate::domain::{
    actor::ActorKind,
    decision::{Measure, Reason},
    key::KeyState,
    limit::{LimitMode, LimitScope, OnShortfall, Period, Quantity},
    request::{Operation, Outcome, ServiceTier},
};

/// Declares the conversion of a domain's enum to the contract's.
macro_rules! to_wire {
    ($to:ident: $domain:ident = proto::$wire:ident { $($ours:ident = $theirs:ident,)* }) => {
        #[cfg(test)]
        impl tests::Pairs for proto::$wire {
            type Ours = $domain;
            const PAIRS: &'static [($domain, Self)] = &[$(($domain::$ours, proto::$wire::$theirs),)*];
        }

        pub(super) const fn $to(value: $domain) -> proto::$wire {
            match value {
                $($domain::$ours => proto::$wire::$theirs,)*
            }
        }
    };
}

/// Declares the conversion of the contract's enum to a domain's, which has no value for `UNSPECIFIED`.
macro_rules! from_wire {
    ($from:ident: $domain:ident = proto::$wire:ident { $($ours:ident = $theirs:ident,)* }) => {
        /// `None`: unspecified.
        pub(super) const fn $from(value: proto::$wire) -> Option<$domain> {
            match value {
                $(proto::$wire::$theirs => Some($domain::$ours),)*
                proto::$wire::Unspecified => None,
            }
        }
    };
}

/// Declares both.
macro_rules! both_ways {
    ($to:ident, $from:ident: $domain:ident = proto::$wire:ident { $($ours:ident = $theirs:ident,)* }) => {
        to_wire!($to: $domain = proto::$wire { $($ours = $theirs,)* });
        from_wire!($from: $domain = proto::$wire { $($ours = $theirs,)* });
    };
}

to_wire!(actor_kind: ActorKind = proto::ActorKind {
    System = System,
    ServiceToken = ServiceToken,
    Certificate = Certificate,
    Oidc = Oidc,
    Anyone = Anyone,
});

both_ways!(operation, operation_of: Operation = proto::Operation {
    Chat = ChatCompletion,
    Responses = Response,
    Transcription = Transcription,
    Translation = Translation,
    Speech = Speech,
    Embeddings = Embedding,
    Batch = Batch,
});

both_ways!(service_tier, service_tier_of: ServiceTier = proto::ServiceTier {
    OnDemand = OnDemand,
    Flex = Flex,
    Auto = Auto,
    Performance = Performance,
});

from_wire!(outcome_of: Outcome = proto::Outcome {
    Completed = Completed,
    Aborted = Aborted,
    Failed = Failed,
    RateLimited = RateLimited,
    NotSent = NotSent,
});

both_ways!(key_state, key_state_of: KeyState = proto::KeyState {
    Active = Active,
    Expired = Expired,
    Revoked = Revoked,
});

both_ways!(on_shortfall, on_shortfall_of: OnShortfall = proto::OnShortfall {
    Deny = Deny,
    Clamp = Clamp,
    Warn = Warn,
});

both_ways!(limit_mode, limit_mode_of: LimitMode = proto::LimitMode {
    Enforce = Enforce,
    Shadow = Shadow,
});

to_wire!(period: Period = proto::Period {
    Day = Day,
    Week = Week,
    Month = Month,
});

to_wire!(delivery_state: DeliveryState = proto::DeliveryState {
    Pending = Pending,
    Sent = Sent,
    Failing = Failing,
    Expired = Expired,
});

to_wire!(receiver_kind: ReceiverKind = proto::ReceiverKind {
    Webhook = Webhook,
    Slack = Slack,
    Alertmanager = Alertmanager,
});

to_wire!(scope: LimitScope = proto::Scope {
    Organization = Organization,
    OrganizationModel = OrganizationModel,
    Team = Team,
    TeamModel = TeamModel,
    Key = Key,
    User = User,
});

to_wire!(quantity: Quantity = proto::Quantity {
    Requests = Requests,
    Tokens = Tokens,
    AudioMilliseconds = AudioMilliseconds,
    NanoUsd = NanoUsd,
    RequestsInFlight = RequestsInFlight,
    UnsettledRequests = UnsettledRequests,
});

to_wire!(reason: Reason = proto::Reason {
    UnknownTeam = UnknownTeam,
    InvalidKey = InvalidKey,
    KeyRevoked = KeyRevoked,
    KeyExpired = KeyExpired,
    ModelNotAllowed = ModelNotAllowed,
    ModelNotPriced = ModelNotPriced,
    OperationNotAllowed = OperationNotAllowed,
    MaxOutputTokensExceeded = MaxOutputTokensExceeded,
    RequestRateExceeded = RequestRateExceeded,
    TokenRateExceeded = TokenRateExceeded,
    AudioRateExceeded = AudioRateExceeded,
    TooManyInFlight = TooManyInFlight,
    TeamBudgetExhausted = TeamBudgetExhausted,
    KeyBudgetExhausted = KeyBudgetExhausted,
    OrganizationBudgetExhausted = OrganizationBudgetExhausted,
    Paused = Paused,
    UpstreamRateLimited = UpstreamRateLimited,
    StoreUnavailable = StoreUnavailable,
    ToolNotAllowed = ToolNotAllowed,
    ToolNotPriced = ToolNotPriced,
    BatchTooLarge = BatchTooLarge,
    TooManyUnsettled = TooManyUnsettled,
    OutageAllowanceExhausted = OutageAllowanceExhausted,
});

pub(super) const fn measure(measure: Measure) -> proto::Quantity {
    match measure {
        Measure::None => proto::Quantity::Unspecified,
        Measure::OutputTokens => proto::Quantity::OutputTokens,
        Measure::Of(of) => quantity(of),
    }
}

/// The decision of this short name; unspecified: only a later release knows it.
pub(super) fn decision_of(name: &str) -> proto::Decision {
    proto::Decision::from_str_name(&full("DECISION_", name)).unwrap_or_default()
}

/// The name of a value of an enum with this `prefix`, of its short form.
pub(super) fn full(prefix: &str, short: &str) -> String {
    format!("{prefix}{}", short.to_ascii_uppercase())
}

/// The short form of a name: without the enum's `prefix`, in lower case.
pub(super) fn short(prefix: &str, full: &str) -> String {
    full.strip_prefix(prefix).unwrap_or(full).to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::alert::{AlertKind, Severity};

    /// What is converted to an enum of the contract, value by value.
    pub(super) trait Pairs: Sized + 'static {
        type Ours;
        const PAIRS: &'static [(Self::Ours, Self)];
    }

    #[test]
    fn each_name_is_the_short_form_of_the_contracts() {
        for (ours, theirs) in proto::Operation::PAIRS {
            assert_eq!(ours.name(), short("OPERATION_", theirs.as_str_name()));
        }
        for (ours, theirs) in proto::ServiceTier::PAIRS {
            assert_eq!(ours.name(), short("SERVICE_TIER_", theirs.as_str_name()));
        }
        for (ours, theirs) in proto::Reason::PAIRS {
            assert_eq!(ours.name(), short("REASON_", theirs.as_str_name()));
        }
        for (ours, theirs) in proto::Scope::PAIRS {
            assert_eq!(ours.name(), short("SCOPE_", theirs.as_str_name()));
        }
        for (ours, theirs) in proto::DeliveryState::PAIRS {
            assert_eq!(ours.name(), short("DELIVERY_STATE_", theirs.as_str_name()));
        }
        // Alerts are kept and sent by these names.
        for kind in AlertKind::ALL {
            let name = format!("ALERT_KIND_{}", kind.name().to_uppercase());
            assert!(proto::AlertKind::from_str_name(&name).is_some(), "{name}");
        }
        for (name, ours) in Severity::NAMES {
            let theirs = proto::Severity::from_str_name(&format!("SEVERITY_{}", name.to_uppercase()));
            assert_eq!(theirs.map(|theirs| theirs as usize), Some(ours as usize + 1), "the order is one");
        }
        for (ours, theirs) in proto::Quantity::PAIRS {
            assert_eq!(ours.name(), short("QUANTITY_", theirs.as_str_name()));
        }
        for theirs in (1..).map_while(|value| proto::Outcome::try_from(value).ok()) {
            let name = short("OUTCOME_", theirs.as_str_name());
            assert_eq!(outcome_of(theirs).map(Outcome::name), Some(&*name));
        }
        for (name, ours) in OnShortfall::NAMES {
            let theirs = on_shortfall(ours);
            assert_eq!(name, short("ON_SHORTFALL_", theirs.as_str_name()));
            assert_eq!(on_shortfall_of(theirs), Some(ours));
        }
        for (name, ours) in LimitMode::NAMES {
            let theirs = limit_mode(ours);
            assert_eq!(name, short("LIMIT_MODE_", theirs.as_str_name()));
            assert_eq!(limit_mode_of(theirs), Some(ours));
        }
        let output_tokens = measure(Measure::OutputTokens).as_str_name();
        assert_eq!(Measure::OutputTokens.name(), Some(&*short("QUANTITY_", output_tokens)));
        assert_eq!(Measure::Of(Quantity::Tokens).name(), Some("tokens"));
        assert_eq!(Measure::None.name(), None);
    }

    #[test]
    fn what_goes_both_ways_comes_back() {
        for number in 1..=7 {
            let wire = proto::Operation::try_from(number).unwrap();
            assert_eq!(operation_of(wire).map(operation), Some(wire));
        }
        for number in 1..=4 {
            let wire = proto::ServiceTier::try_from(number).unwrap();
            assert_eq!(service_tier_of(wire).map(service_tier), Some(wire));
        }
        assert_eq!(operation_of(proto::Operation::Unspecified), None);
    }
}
