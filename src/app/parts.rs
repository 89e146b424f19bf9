//! What a service is made of.

use std::sync::Arc;

use tokio::sync::watch;
use tracing::Span;

use crate::{
    alerts::Receivers,
    audit::Audit,
    authorizer::DecisionLog,
    domain::{policy::Policy, tally::DEFAULT_MAX_TEAMS},
    policy_file::PolicyStatus,
    runtime::Runtime,
    server::Connections,
    settings::Settings,
    spool::Spool,
    store::{Calls, Unreported, redis::Hazards},
    telemetry::{Meters, trace::Tracing},
    upstream::UpstreamKeys,
};

/// What a service is made of, its store aside.
#[derive(Debug)]
pub struct Parts {
    /// The policy document that it starts with.
    pub policy: Arc<Policy>,
    /// The keys that are sent to Groq in place of clients' credentials.
    pub upstream: Arc<UpstreamKeys>,
    /// Where changes and refusals are recorded.
    pub audit: Audit,
    /// The connections of the process, with their bounds.
    pub connections: Connections,
    /// Where calls to its stores are counted.
    pub calls: Arc<Calls>,
    /// Where those count reservations that ended without a report.
    pub unreported: Unreported,
    /// What became of the policy's file, for the status.
    pub policy_status: watch::Receiver<Arc<PolicyStatus>>,
    /// What makes Redis unsafe, for the status.
    pub hazards: Hazards,
    /// Which decisions are logged.
    pub decisions: DecisionLog,
    /// Without `[access]` in the policy, whether callers from other machines may ask as well.
    pub is_open: bool,
    /// The clock that decisions, keys and tokens follow, and the source of ids and secrets.
    pub runtime: Runtime,
    /// Where metrics are read from; by default there are none.
    pub meters: Meters,
    /// Which of them are told apart.
    pub shown: Shown,
    /// Where traces go; by default there are none.
    pub tracing: Tracing,
    /// Where alerts go.
    pub receivers: Arc<Receivers>,
    /// What keeps reports of usage while the store does not answer; `None`: nothing does.
    pub spool: Option<Spool>,
    /// Where people find the console, without a slash at the end; `None`: nowhere, or not known.
    pub console: Option<Arc<str>>,
    /// The span for work of the organization; by default there is none.
    pub span: Span,
}

/// What metrics tell apart.
#[derive(Clone, Copy, Debug)]
pub struct Shown {
    /// Whether budgets of keys are shown.
    pub by_key: bool,
    /// The most teams that are shown by name.
    pub max_teams: usize,
}

impl Default for Shown {
    fn default() -> Self {
        Self { by_key: false, max_teams: DEFAULT_MAX_TEAMS }
    }
}

impl Parts {
    /// A service on this machine alone that records nothing, with the bounds of the default settings.
    #[must_use]
    pub fn new(policy: Arc<Policy>) -> Self {
        let status = PolicyStatus::new(&policy, Vec::new());
        Self {
            policy,
            policy_status: watch::channel(Arc::new(status)).1,
            hazards: Hazards::default(),
            upstream: Arc::default(),
            audit: Audit::default(),
            connections: Connections::default(),
            calls: Arc::default(),
            unreported: Unreported::default(),
            decisions: DecisionLog::default(),
            is_open: false,
            runtime: Runtime::default(),
            meters: Meters::default(),
            shown: Shown::default(),
            tracing: Tracing::default(),
            receivers: Arc::default(),
            spool: None,
            console: None,
            span: Span::none(),
        }
    }

    /// The service of `settings`.
    #[must_use]
    pub fn of_settings(
        settings: &Settings,
        policy: Arc<Policy>,
        upstream: Arc<UpstreamKeys>,
        audit: Audit,
    ) -> Self {
        Self {
            upstream,
            audit,
            connections: Connections::new(settings.connection_limits()),
            decisions: DecisionLog::new(settings.decision_log_denials, settings.decision_log_allowed),
            is_open: settings.allow_unauthenticated_listen,
            shown: Shown { by_key: settings.metrics_by_key, max_teams: settings.metrics_max_teams },
            receivers: Arc::new(Receivers::new(settings.receivers.clone())),
            console: settings.console_place().map(Into::into),
            ..Self::new(policy)
        }
    }
}
