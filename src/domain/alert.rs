//! What operators are told of, how urgent it is, and where it goes.

use std::sync::Arc;

/// What has happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AlertKind {
    /// A threshold of a budget was crossed.
    BudgetThreshold,
    /// A budget has denied a request for the first time in its period.
    BudgetExhausted,
    /// A budget will be used up before its period ends, at the rate of its spend so far.
    BudgetForecast,
    /// A 429 of Groq closed a project, model and service tier for a while.
    UpstreamCooldown,
    /// Groq refused a key of the organization.
    UpstreamKeyRefused,
    /// Something was paused.
    Pause,
    /// The store did not answer.
    StoreOutage,
    /// Many reservations of a team have expired without a report.
    UnsettledHigh,
    /// What was booked differs from what Groq billed.
    UsageDrift,
    /// A changed policy did not load.
    PolicyRejected,
    /// Reports of usage wait to be booked.
    SpoolBacklog,
    /// Usage without a reservation was refused for its bound.
    UnreservedRefused,
    /// Replicas of an earlier release do not know the layout that a later one writes.
    LayoutMismatch,
    /// A message that shows that a receiver gets them.
    Test,
}

impl AlertKind {
    /// Every kind.
    pub const ALL: [Self; 14] = [
        Self::BudgetThreshold,
        Self::BudgetExhausted,
        Self::BudgetForecast,
        Self::UpstreamCooldown,
        Self::UpstreamKeyRefused,
        Self::Pause,
        Self::StoreOutage,
        Self::UnsettledHigh,
        Self::UsageDrift,
        Self::PolicyRejected,
        Self::SpoolBacklog,
        Self::UnreservedRefused,
        Self::LayoutMismatch,
        Self::Test,
    ];

    /// The short form of the contract's name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::BudgetThreshold => "budget_threshold",
            Self::BudgetExhausted => "budget_exhausted",
            Self::BudgetForecast => "budget_forecast",
            Self::UpstreamCooldown => "upstream_cooldown",
            Self::UpstreamKeyRefused => "upstream_key_refused",
            Self::Pause => "pause",
            Self::StoreOutage => "store_outage",
            Self::UnsettledHigh => "unsettled_high",
            Self::UsageDrift => "usage_drift",
            Self::PolicyRejected => "policy_rejected",
            Self::SpoolBacklog => "spool_backlog",
            Self::UnreservedRefused => "unreserved_refused",
            Self::LayoutMismatch => "layout_mismatch",
            Self::Test => "test",
        }
    }

    /// How urgent it is. A threshold of a budget is critical from all of the budget on.
    #[must_use]
    pub const fn severity(self) -> Severity {
        match self {
            Self::BudgetExhausted | Self::UpstreamKeyRefused | Self::StoreOutage | Self::SpoolBacklog => {
                Severity::Critical
            }
            Self::BudgetThreshold
            | Self::BudgetForecast
            | Self::UpstreamCooldown
            | Self::UnsettledHigh
            | Self::UsageDrift
            | Self::PolicyRejected
            | Self::UnreservedRefused
            | Self::LayoutMismatch => Severity::Warning,
            Self::Pause | Self::Test => Severity::Info,
        }
    }

    /// Whether it lasts until it is seen to be over. The others are moments, or end by the clock.
    #[must_use]
    pub const fn has_duration(self) -> bool {
        match self {
            Self::UpstreamCooldown
            | Self::UpstreamKeyRefused
            | Self::Pause
            | Self::StoreOutage
            | Self::UnsettledHigh
            | Self::UsageDrift
            | Self::PolicyRejected
            | Self::SpoolBacklog
            | Self::LayoutMismatch => true,
            Self::BudgetThreshold
            | Self::BudgetExhausted
            | Self::BudgetForecast
            | Self::UnreservedRefused
            | Self::Test => false,
        }
    }

    /// The kind with this short form.
    #[must_use]
    pub fn of_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }
}

/// How urgent an alert is, in ascending order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// Good to know.
    Info,
    /// To look at today.
    Warning,
    /// To look at now.
    Critical,
}

impl Severity {
    /// Every severity with the short form of the contract's name.
    pub const NAMES: [(&str, Self); 3] =
        [("info", Self::Info), ("warning", Self::Warning), ("critical", Self::Critical)];

    /// The short form of the contract's name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Critical => "critical",
        }
    }

    /// The severity with this short form.
    #[must_use]
    pub fn of_name(name: &str) -> Option<Self> {
        Self::NAMES.into_iter().find(|(known, _)| *known == name).map(|(_, severity)| severity)
    }
}

/// A route of the policy: which alerts go to a receiver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AlertRoute {
    /// The name of the receiver, which the settings describe.
    pub receiver: Arc<str>,
    /// The kinds; `None`: all.
    pub kinds: Option<Vec<AlertKind>>,
    /// The teams; `None`: all, and what is of the whole organization.
    pub teams: Option<Vec<Arc<str>>>,
    /// The least severity.
    pub min_severity: Severity,
}

impl AlertRoute {
    /// Whether an alert goes this way. `team`: whose it is; empty: the whole organization's.
    #[must_use]
    pub fn takes(&self, kind: AlertKind, severity: Severity, team: &str) -> bool {
        self.kinds.as_ref().is_none_or(|kinds| kinds.contains(&kind))
            && self.teams.as_ref().is_none_or(|teams| teams.iter().any(|own| **own == *team))
            && severity >= self.min_severity
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_route_takes_its_kinds_and_teams_from_its_severity_on() {
        let (all, team) = (AlertKind::ALL, Some(vec!["a".into()]));
        let route =
            |kinds, teams, min_severity| AlertRoute { receiver: "r".into(), kinds, teams, min_severity };
        let every = route(None, None, Severity::Info);
        assert!(all.iter().all(|kind| every.takes(*kind, Severity::Info, "") && every.takes(*kind, Severity::Info, "a")));
        let own = route(None, team, Severity::Warning);
        let takes = |severity, team| own.takes(AlertKind::BudgetThreshold, severity, team);
        assert!(takes(Severity::Warning, "a") && takes(Severity::Critical, "a"));
        assert!(
            !takes(Severity::Info, "a") && !takes(Severity::Critical, "b") && !takes(Severity::Critical, "")
        );
        let test = route(Some(vec![AlertKind::Test]), None, Severity::Info);
        assert!(!test.takes(AlertKind::BudgetThreshold, Severity::Critical, "a"));
    }

    #[test]
    fn kinds_and_severities_are_found_by_their_names() {
        for kind in AlertKind::ALL {
            assert_eq!(AlertKind::of_name(kind.name()), Some(kind));
        }
        for (name, severity) in Severity::NAMES {
            assert_eq!((severity.name(), Severity::of_name(name)), (name, Some(severity)));
        }
        assert_eq!((AlertKind::of_name("x"), Severity::of_name("x")), (None, None));
    }
}
