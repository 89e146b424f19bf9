//! The kinds of calls to a store, as operators see them.

/// A kind of call to a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "each is the method of this name")]
pub enum StoreCall {
    Reserve,
    Find,
    Settle,
    Counters,
    Cooldowns,
    LiftCooldowns,
    Spenders,
    Spend,
    Denied,
    AddUsage,
    RegistrySince,
    RegistryWrite,
    /// [`super::Registry::hash_key`].
    HashKey,
    AddUses,
    Uses,
    AuditAppend,
    AuditPage,
    AnnounceReplica,
    Replicas,
    OutboxAppend,
    OutboxClaim,
    OutboxUpdate,
    OutboxPage,
    PublishDecisions,
    ReadDecisions,
    RecordPolicy,
    Policies,
    PolicyDocument,
}

impl StoreCall {
    /// All of them, in the order of their places in [`super::Calls`].
    pub const ALL: [Self; 28] = [
        Self::Reserve,
        Self::Find,
        Self::Settle,
        Self::Counters,
        Self::Cooldowns,
        Self::LiftCooldowns,
        Self::Spenders,
        Self::Spend,
        Self::Denied,
        Self::AddUsage,
        Self::RegistrySince,
        Self::RegistryWrite,
        Self::HashKey,
        Self::AddUses,
        Self::Uses,
        Self::AuditAppend,
        Self::AuditPage,
        Self::AnnounceReplica,
        Self::Replicas,
        Self::OutboxAppend,
        Self::OutboxClaim,
        Self::OutboxUpdate,
        Self::OutboxPage,
        Self::PublishDecisions,
        Self::ReadDecisions,
        Self::RecordPolicy,
        Self::Policies,
        Self::PolicyDocument,
    ];

    /// Its name, as operators see it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Reserve => "reserve",
            Self::Find => "find",
            Self::Settle => "settle",
            Self::Counters => "counters",
            Self::Cooldowns => "cooldowns",
            Self::LiftCooldowns => "lift_cooldowns",
            Self::Spenders => "spenders",
            Self::Spend => "spend",
            Self::Denied => "denied",
            Self::AddUsage => "add_usage",
            Self::RegistrySince => "registry_since",
            Self::RegistryWrite => "registry_write",
            Self::HashKey => "hash_key",
            Self::AddUses => "add_uses",
            Self::Uses => "uses",
            Self::AuditAppend => "audit_append",
            Self::AuditPage => "audit_page",
            Self::AnnounceReplica => "announce_replica",
            Self::Replicas => "replicas",
            Self::OutboxAppend => "outbox_append",
            Self::OutboxClaim => "outbox_claim",
            Self::OutboxUpdate => "outbox_update",
            Self::OutboxPage => "outbox_page",
            Self::PublishDecisions => "publish_decisions",
            Self::ReadDecisions => "read_decisions",
            Self::RecordPolicy => "record_policy",
            Self::Policies => "policies",
            Self::PolicyDocument => "policy_document",
        }
    }
}

/// How a call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub enum CallOutcome {
    Succeeded,
    Failed,
}

impl CallOutcome {
    /// Both of them, in the order of their places in [`super::Calls`].
    pub const ALL: [Self; 2] = [Self::Succeeded, Self::Failed];

    /// Its name, as operators see it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
        }
    }
}
