//! Every metric, once: its name, kind, unit, help and labels. `docs/telemetry.md` has the same list.

use std::fmt::Write as _;

/// The label that says of which organization a row is.
pub const ORGANIZATION: &str = "organization";

/// What a metric is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A sum that only grows.
    Counter,
    /// A value.
    Gauge,
    /// Durations by length.
    Histogram,
}

impl Kind {
    /// Its name in Prometheus.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// What is known about a metric.
#[derive(Clone, Copy, Debug)]
pub struct Spec {
    /// The metric.
    pub metric: Metric,
    /// Its name in OpenTelemetry.
    pub name: &'static str,
    /// Its name in Prometheus; empty: it is only pushed.
    pub prometheus: &'static str,
    /// What it is.
    pub kind: Kind,
    /// Its unit as OpenTelemetry has it; empty: none, or part of the name.
    pub unit: &'static str,
    /// Its labels.
    pub labels: &'static [&'static str],
    /// What it says.
    pub help: &'static str,
}

macro_rules! metrics {
    ($($metric:ident: $kind:ident $name:literal $unit:literal => $prometheus:literal [$($label:literal),*] $help:literal;)+) => {
        /// A metric.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[expect(missing_docs, reason = "each has its help in the list")]
        pub enum Metric {
            $($metric,)+
        }

        /// All metrics.
        pub const METRICS: &[Spec] = &[$(Spec {
            metric: Metric::$metric,
            name: $name,
            prometheus: $prometheus,
            kind: Kind::$kind,
            unit: $unit,
            labels: &[$($label),*],
            help: $help,
        },)+];
    };
}

metrics! {
Decisions: Counter "tollgate.decisions" "" => "tollgate_decisions_total" ["organization", "team", "model", "operation", "decision", "reason"]
    "Decisions, dry runs and repeated answers included; reason is the first of several, and none for allowed";
Violations: Counter "tollgate.violations" "" => "tollgate_violations_total" ["organization", "team", "scope", "reason"]
    "What refused requests, all reasons of each";
ShadowViolations: Counter "tollgate.shadow_violations" "" => "tollgate_shadow_violations_total" ["organization", "team", "scope", "reason"]
    "What would have refused requests if it was not in shadow, all reasons of each";
DecisionDuration: Histogram "tollgate.decision.duration" "s" => "tollgate_decision_duration_seconds" ["decision"]
    "How long a decision took, the store included; requests with max_wait are in tollgate_wait_duration_seconds instead";
WaitDuration: Histogram "tollgate.wait.duration" "s" => "tollgate_wait_duration_seconds" ["decision"]
    "How long requests with max_wait took until their decision";
Settlements: Counter "tollgate.settlements" "" => "tollgate_settlements_total" ["organization", "team", "outcome", "result"]
    "Reports of usage, by how the request ended and how it was booked; one that was spooled is counted again when it is booked";
Tokens: Counter "tollgate.tokens" "" => "tollgate_tokens_total" ["organization", "team", "model", "kind"]
    "Tokens booked; kind is input (not cached), cached_input or output, which add up";
ReasoningTokens: Counter "tollgate.reasoning_tokens" "" => "tollgate_reasoning_tokens_total" ["organization", "team", "model"]
    "Reasoning tokens booked, which are output tokens, too";
Cost: Counter "tollgate.cost.usd" "" => "tollgate_cost_usd_total" ["organization", "team", "model", "project"]
    "Dollars booked; floating, so for graphs and not for books";
Audio: Counter "tollgate.audio" "s" => "tollgate_audio_seconds_total" ["organization", "team", "model"]
    "Audio booked";
Characters: Counter "tollgate.characters" "" => "tollgate_characters_total" ["organization", "team", "model"]
    "Characters of text to speech booked";
ToolCalls: Counter "tollgate.tool_calls" "" => "tollgate_tool_calls_total" ["organization", "team", "tool"]
    "Calls of Groq's built-in tools booked";
BudgetLimit: Gauge "tollgate.budget.limit.usd" "" => "tollgate_budget_limit_usd" ["organization", "scope", "team", "key", "period"]
    "A budget of the current period";
BudgetSpent: Gauge "tollgate.budget.spent.usd" "" => "tollgate_budget_spent_usd" ["organization", "scope", "team", "key", "period"]
    "What of a budget is spent, as this replica last read it";
BudgetReserved: Gauge "tollgate.budget.reserved.usd" "" => "tollgate_budget_reserved_usd" ["organization", "scope", "team", "key", "period"]
    "What of a budget is reserved for requests that are not settled, as this replica last read it";
BudgetRemaining: Gauge "tollgate.budget.remaining.usd" "" => "tollgate_budget_remaining_usd" ["organization", "scope", "team", "key", "period"]
    "What is left of a budget, negative if more is spent, as this replica last read it";
BudgetExhaust: Gauge "tollgate.budget.exhaust_timestamp" "s" => "tollgate_budget_exhaust_timestamp_seconds" ["organization", "scope", "team", "key", "period"]
    "When a budget of a team, a key or the organization is used up at this pace, or was; no row if it lasts to the end of its period";
LimitUsed: Gauge "tollgate.limit.used_ratio" "" => "tollgate_limit_used_ratio" ["organization", "scope", "team", "quantity", "window"]
    "The used share of a limit, the largest of those with these labels, as this replica last read it";
InFlight: Gauge "tollgate.requests.in_flight" "" => "tollgate_requests_in_flight" ["organization", "team"]
    "Reservations that are neither settled nor expired, over all replicas, as this one last read it";
Waiting: Gauge "tollgate.requests.waiting" "" => "tollgate_requests_waiting" ["organization", "team"]
    "Requests that wait here for room, by max_wait";
Unsettled: Gauge "tollgate.reservations.unsettled" "" => "tollgate_reservations_unsettled" ["organization", "team"]
    "Reservations without a report that can still be reported, over all replicas, as this one last read it";
Expired: Counter "tollgate.reservations.expired" "" => "tollgate_reservations_expired_total" ["organization", "team"]
    "Reservations that ended without a report, counted 24 hours after they expired by the replica that removes them";
Degraded: Counter "tollgate.degraded.decisions" "" => "tollgate_degraded_decisions_total" ["organization", "team"]
    "Decisions that were made without the store, by the team's on_store_outage";
StoreCallDuration: Histogram "tollgate.store.call.duration" "s" => "tollgate_store_call_duration_seconds" ["operation", "outcome"]
    "How long calls to the store took; outcome is succeeded or failed";
StoreQueueDepth: Gauge "tollgate.store.queue_depth" "" => "tollgate_store_queue_depth" []
    "Calls that wait for their turn at the store";
StoreUp: Gauge "tollgate.store.up" "" => "tollgate_store_up" []
    "Whether the store answered when it was last asked: 1 or 0";
StoreBreakerOpen: Gauge "tollgate.store.breaker_open" "" => "tollgate_store_breaker_open" []
    "1 while decisions of this replica do not wait for the store, as it does not answer or is slow; 0 again 10 seconds after the last one asked";
SnapshotInfo: Gauge "tollgate.snapshot.info" "" => "tollgate_snapshot_info" ["document", "registry"]
    "1; what is in force: the policy document's revision and the number of the last change of keys and pauses";
SnapshotRead: Gauge "tollgate.snapshot.read_timestamp" "s" => "tollgate_snapshot_read_timestamp_seconds" []
    "When the registry of keys and pauses was last read";
PolicyReloads: Counter "tollgate.policy.reloads" "" => "tollgate_policy_reloads_total" ["result"]
    "Changes of the policy's file since the start; result is loaded or rejected";
PolicyLoaded: Gauge "tollgate.policy.last_load_timestamp" "s" => "tollgate_policy_last_load_timestamp_seconds" []
    "When the policy in force was loaded";
PolicyTeams: Gauge "tollgate.policy.teams" "" => "tollgate_policy_teams" []
    "Teams of the policy in force";
Keys: Gauge "tollgate.keys" "" => "tollgate_keys" []
    "Virtual keys that can be used, declared and created";
UpstreamKeyUp: Gauge "tollgate.upstream_key.up" "" => "tollgate_upstream_key_up" ["organization", "project", "name"]
    "1, or 0 if Groq refused the key to this replica";
Cooldowns: Gauge "tollgate.cooldowns" "" => "tollgate_cooldowns" ["organization", "project", "model"]
    "Cooldowns in force after Groq's 429, one for each service tier, as this replica last read it";
UpstreamRateLimits: Counter "tollgate.upstream_rate_limits" "" => "tollgate_upstream_rate_limits_total" ["organization", "project", "model"]
    "Reports of Groq's 429";
Alerts: Gauge "tollgate.alerts" "" => "tollgate_alerts" ["kind", "state"]
    "Alerts over all replicas, as this one last read the newest 4,096 entries of the outbox";
AlertDeliveries: Counter "tollgate.alert_deliveries" "" => "tollgate_alert_deliveries_total" ["receiver", "result"]
    "Attempts of this replica to deliver alerts; result is sent, failing (it is tried again) or expired (it was given up)";
AccessRefusals: Counter "tollgate.access_refusals" "" => "tollgate_access_refusals_total" ["rpc", "reason"]
    "Calls and pages refused to their callers";
Sessions: Gauge "tollgate.sessions" "" => "tollgate_sessions" []
    "Sessions of the console that made a request to this replica within console_session_timeout, at most 10,000; browsers keep them, so one that asks two replicas is counted by both";
Connections: Gauge "tollgate.connections" "" => "tollgate_connections" ["listener"]
    "Open connections; listener is grpc or admin";
ConnectionsClosed: Counter "tollgate.connections.closed" "" => "tollgate_connections_closed_total" ["listener", "cause"]
    "Connections that were closed or refused by this side";
JournalBytes: Gauge "tollgate.embedded.journal" "By" => "tollgate_embedded_journal_bytes" []
    "Journal of the embedded store that waits for the disk";
CommitDuration: Histogram "tollgate.embedded.commit.duration" "s" => "tollgate_embedded_commit_duration_seconds" []
    "How long a transaction of the embedded store took, its sync included";
SyncDuration: Histogram "tollgate.embedded.sync.duration" "s" => "tollgate_embedded_sync_duration_seconds" []
    "How long the embedded store's disk took to make a transaction durable";
SpoolRecords: Gauge "tollgate.spool.records" "" => "tollgate_spool_records" []
    "Reports of usage that this replica keeps until the store has taken them";
SpoolBytes: Gauge "tollgate.spool" "By" => "tollgate_spool_bytes" []
    "What the spool takes of the disk";
SpoolOldest: Gauge "tollgate.spool.oldest_timestamp" "s" => "tollgate_spool_oldest_timestamp_seconds" []
    "When the oldest of the reports in the spool was acknowledged; no row if none waits";
BuildInfo: Gauge "tollgate.build.info" "" => "tollgate_build_info" ["version", "commit", "layout"]
    "1; the release, its commit, and the layout of its store";
ProcessCpu: Counter "process.cpu" "s" => "process_cpu_seconds_total" []
    "User and system CPU time";
ProcessStart: Gauge "process.start_time" "s" => "process_start_time_seconds" []
    "When the process started";
ProcessResident: Gauge "process.resident_memory" "By" => "process_resident_memory_bytes" []
    "Resident memory";
ProcessVirtual: Gauge "process.virtual_memory" "By" => "process_virtual_memory_bytes" []
    "Virtual memory";
ProcessOpenFiles: Gauge "process.open_fds" "" => "process_open_fds" []
    "Open files";
ProcessMaxFiles: Gauge "process.max_fds" "" => "process_max_fds" []
    "The limit of open files";
ProcessThreads: Gauge "process.threads" "" => "process_threads" []
    "Threads";
RpcDuration: Histogram "rpc.server.call.duration" "s" => "rpc_server_call_duration_seconds" ["rpc_system_name", "rpc_method", "rpc_response_status_code"]
    "How long calls took, from their request to the end of their answer";
GenAiInput: Counter "gen_ai.client.inference.usage.input_tokens" "{token}" => "" ["gen_ai.provider.name", "gen_ai.operation.name", "gen_ai.request.model", "gen_ai.token.modality", "tollgate.organization", "tollgate.team"]
    "Input tokens booked, the cached ones included";
GenAiCachedInput: Counter "gen_ai.client.inference.usage.cache_read.input_tokens" "{token}" => "" ["gen_ai.provider.name", "gen_ai.operation.name", "gen_ai.request.model", "gen_ai.token.modality", "tollgate.organization", "tollgate.team"]
    "Cached input tokens booked, which are input tokens, too";
GenAiOutput: Counter "gen_ai.client.inference.usage.output_tokens" "{token}" => "" ["gen_ai.provider.name", "gen_ai.operation.name", "gen_ai.request.model", "gen_ai.token.modality", "tollgate.organization", "tollgate.team"]
    "Output tokens booked, the reasoning tokens included";
GenAiReasoning: Counter "gen_ai.client.inference.usage.reasoning.output_tokens" "{token}" => "" ["gen_ai.provider.name", "gen_ai.operation.name", "gen_ai.request.model", "gen_ai.token.modality", "tollgate.organization", "tollgate.team"]
    "Reasoning tokens booked, which are output tokens, too";
}

impl Spec {
    /// Whether its rows say of which organization they are, even where there is one.
    #[must_use]
    pub fn names_organization(&self) -> bool {
        self.labels.iter().any(|label| label.rsplit('.').next() == Some(ORGANIZATION))
    }

    /// Whether Prometheus' page has it. The page has names that are stable; those of conventions in development are pushed only.
    #[must_use]
    pub const fn is_on_page(&self) -> bool {
        !self.prometheus.is_empty()
    }
}

impl Metric {
    /// What is known about it.
    #[must_use]
    pub fn spec(self) -> &'static Spec {
        static NONE: Spec = Spec {
            metric: Metric::BuildInfo,
            name: "",
            prometheus: "",
            kind: Kind::Gauge,
            unit: "",
            labels: &[],
            help: "",
        };
        // The list has a row for each, in their order.
        METRICS.get(self as usize).unwrap_or(&NONE)
    }

    /// Whether it is of the process, however many organizations it serves.
    #[must_use]
    pub const fn is_of_process(self) -> bool {
        matches!(self, Self::BuildInfo | Self::Connections | Self::ConnectionsClosed | Self::Sessions)
    }
}

/// The list as the table of the documentation.
#[must_use]
pub fn table() -> String {
    let mut table = "| metric | kind, labels | what it says |\n| --- | --- | --- |\n".to_owned();
    for spec in METRICS {
        let labels: String = spec.labels.iter().map(|label| format!(", `{label}`")).collect();
        // Writing to a string cannot fail.
        let name = if spec.is_on_page() { spec.prometheus } else { spec.name };
        let _ = writeln!(table, "| `{name}` | {}{labels} | {} |", spec.kind.name(), spec.help);
    }
    table
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_metric_has_its_row() {
        for (place, spec) in METRICS.iter().enumerate() {
            assert_eq!(spec.metric as usize, place);
            assert_eq!(spec.metric.spec().name, spec.name);
            assert!(!spec.help.ends_with('.') && !spec.help.is_empty(), "{}", spec.name);
            if !spec.is_on_page() {
                continue;
            }
            assert_eq!(spec.prometheus.ends_with("_total"), spec.kind == Kind::Counter, "{}", spec.name);
            assert_eq!(spec.prometheus.ends_with("_duration_seconds"), spec.kind == Kind::Histogram);
        }
        let names: HashSet<_> = METRICS.iter().map(|spec| spec.name).collect();
        assert_eq!(names.len(), METRICS.len());
        let names: HashSet<_> = METRICS.iter().map(|spec| spec.prometheus).collect();
        assert_eq!(names.len(), METRICS.iter().filter(|spec| spec.is_on_page()).count() + 1);
    }
}
