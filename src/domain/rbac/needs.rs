//! What each RPC and each page requires of its caller, and that as a table for the documentation.

use std::fmt::Write as _;

use super::{Binding, Permission, Role};

/// What an RPC or a page requires of its caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// Nothing: anyone may call it.
    Nothing,
    /// Authentication, with any role.
    Identity,
    /// A permission. If it is granted for some teams only, the handler checks the team as well.
    Permission(Permission),
}

/// Every RPC that is served, and what it requires. An RPC that is missing here is refused to everyone.
pub const RPCS: [(&str, Need); 42] = [
    ("/tollgate.v1.PolicyService/Authorize", Need::Permission(Permission::Decide)),
    ("/tollgate.v1.PolicyService/RecordUsage", Need::Permission(Permission::Record)),
    ("/tollgate.v1.PolicyService/GetSpend", Need::Permission(Permission::ReadSpend)),
    ("/tollgate.v1.ReportService/QueryUsage", Need::Permission(Permission::ReadSpend)),
    ("/tollgate.v1.ReportService/QueryDenials", Need::Permission(Permission::ReadSpend)),
    ("/tollgate.v1.ReportService/ListLimits", Need::Permission(Permission::ReadSpend)),
    ("/tollgate.v1.ReportService/StreamDecisions", Need::Permission(Permission::ReadDecisions)),
    ("/tollgate.v1.BudgetService/ListBudgets", Need::Permission(Permission::ReadSpend)),
    ("/tollgate.v1.KeyService/CreateKey", Need::Permission(Permission::ManageKeys)),
    ("/tollgate.v1.KeyService/GetKey", Need::Permission(Permission::ReadKeys)),
    ("/tollgate.v1.KeyService/ListKeys", Need::Permission(Permission::ReadKeys)),
    ("/tollgate.v1.KeyService/UpdateKey", Need::Permission(Permission::ManageKeys)),
    ("/tollgate.v1.KeyService/RotateKey", Need::Permission(Permission::RotateKeys)),
    ("/tollgate.v1.KeyService/RevokeKey", Need::Permission(Permission::RotateKeys)),
    ("/tollgate.v1.KeyService/RevokeKeySecret", Need::Permission(Permission::RotateKeys)),
    ("/tollgate.v1.PauseService/Pause", Need::Permission(Permission::Pause)),
    ("/tollgate.v1.PauseService/Resume", Need::Permission(Permission::Pause)),
    ("/tollgate.v1.PauseService/ListPauses", Need::Permission(Permission::ReadPauses)),
    ("/tollgate.v1.UpstreamService/ListUpstreamKeys", Need::Permission(Permission::ReadUpstream)),
    ("/tollgate.v1.AuditService/ListAuditEvents", Need::Permission(Permission::ReadAudit)),
    ("/tollgate.v1.UpstreamService/ListCooldowns", Need::Permission(Permission::ReadUpstream)),
    ("/tollgate.v1.UpstreamService/LiftCooldown", Need::Permission(Permission::LiftCooldowns)),
    ("/tollgate.v1.AlertService/ListAlerts", Need::Permission(Permission::ReadAlerts)),
    ("/tollgate.v1.AlertService/ListReceivers", Need::Permission(Permission::ReadAlerts)),
    ("/tollgate.v1.AlertService/TestReceiver", Need::Permission(Permission::TestReceivers)),
    ("/tollgate.v1.AlertService/ReportDrift", Need::Permission(Permission::ReportDrift)),
    ("/tollgate.v1.PolicyDocumentService/GetPolicy", Need::Permission(Permission::ReadPolicy)),
    ("/tollgate.v1.PolicyDocumentService/ListPolicyRevisions", Need::Permission(Permission::ReadPolicy)),
    ("/tollgate.v1.PolicyDocumentService/GetPolicyRevision", Need::Permission(Permission::ReadPolicy)),
    ("/tollgate.v1.PolicyDocumentService/DescribeTeam", Need::Permission(Permission::ReadTeamPolicy)),
    ("/tollgate.v1.PolicyDocumentService/CheckPolicy", Need::Permission(Permission::CheckPolicy)),
    ("/tollgate.v1.PolicyDocumentService/ReplayPolicy", Need::Permission(Permission::CheckPolicy)),
    ("/tollgate.v1.StatusService/GetStatus", Need::Permission(Permission::ReadStatus)),
    ("/tollgate.v1.StatusService/ListReplicas", Need::Permission(Permission::ReadStatus)),
    ("/tollgate.v1.OrganizationService/ListOrganizations", Need::Identity),
    ("/envoy.service.auth.v3.Authorization/Check", Need::Permission(Permission::Decide)),
    ("/envoy.service.ext_proc.v3.ExternalProcessor/Process", Need::Permission(Permission::Record)),
    ("/envoy.service.ratelimit.v3.RateLimitService/ShouldRateLimit", Need::Permission(Permission::Decide)),
    ("/grpc.health.v1.Health/Check", Need::Nothing),
    ("/grpc.health.v1.Health/Watch", Need::Nothing),
    ("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", Need::Identity),
    ("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", Need::Identity),
];

/// The page that says whether decisions can be made.
const READINESS: &str = "/readyz";
/// The same with each check.
pub const VERBOSE_READINESS: &str = "/readyz?verbose";

/// The pages of the operators' listener, and what each requires. Orchestrators probe without a credential, as with health
/// over gRPC.
pub const PAGES: [(&str, Need); 5] = [
    ("/livez", Need::Nothing),
    (READINESS, Need::Nothing),
    (VERBOSE_READINESS, Need::Permission(Permission::ReadStatus)),
    ("/status", Need::Permission(Permission::ReadStatus)),
    ("/metrics", Need::Permission(Permission::ReadMetrics)),
];

/// The name in [`PAGES`] of the page at `path` with `query`, and what it requires; `None` if there is no such page.
#[must_use]
pub fn page_of(path: &str, query: Option<&str>) -> Option<(&'static str, Need)> {
    let is_verbose = |pair: &str| pair.split('=').next() == Some("verbose");
    let name = match query {
        Some(query) if path == READINESS && query.split('&').any(is_verbose) => VERBOSE_READINESS,
        _ => path,
    };
    PAGES.into_iter().find(|(known, _)| *known == name)
}

/// Whether `name` is one of [`PAGES`].
#[must_use]
pub fn is_page(name: &str) -> bool {
    PAGES.iter().any(|(known, _)| *known == name)
}

/// The place in [`RPCS`] of the RPC at `path`.
#[must_use]
pub fn rpc_number(path: &str) -> Option<usize> {
    RPCS.iter().position(|(known, _)| *known == path)
}

/// What the RPC at `path` requires; `None` if there is no such RPC.
#[must_use]
pub fn need_of(path: &str) -> Option<Need> {
    RPCS.iter().find(|(known, _)| *known == path).map(|(_, need)| *need)
}

/// [`RPCS`] and [`PAGES`] as the table of the documentation.
#[must_use]
pub fn table() -> String {
    let mut table = "| RPC or page | permission |".to_owned();
    // Writing to a string cannot fail.
    for role in Role::ALL {
        let _ = write!(table, " {role} |");
    }
    table.push_str("\n| --- | --- |");
    table.push_str(&" --- |".repeat(Role::ALL.len()));
    let rpcs = RPCS.map(|(path, need)| (path.trim_start_matches('/').to_owned(), need));
    let pages = PAGES.map(|(path, need)| (format!("GET {path}"), need));
    for (name, need) in rpcs.into_iter().chain(pages) {
        let permission = match need {
            Need::Nothing => "none, open to all".to_owned(),
            Need::Identity => "none, open to all who are known".to_owned(),
            Need::Permission(permission) => format!("`{permission}`"),
        };
        let _ = write!(table, "\n| `{name}` | {permission} |");
        for role in Role::ALL {
            let cell = match (need, role.binding()) {
                (Need::Permission(permission), _) if !role.has(permission) => "–",
                (Need::Permission(_), Binding::Possible) => "of all or its teams",
                (Need::Permission(_), Binding::Required) => "of its teams",
                _ => "yes",
            };
            let _ = write!(table, " {cell} |");
        }
    }
    table
}
