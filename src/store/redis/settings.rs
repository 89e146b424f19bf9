//! Where the store is, and how it is used.

use std::{fmt, sync::Arc, time::Duration};

use thiserror::Error;
use tracing::Span;

use super::{
    LayoutGate, RedisAccess, RedisUrl, ReplaySettings,
    dialer::Dialer,
    keeper::{Purpose, Target},
    keyspace::{DEPLOYMENT, Keyspace},
    locator::Locator,
    together::Together,
};
use crate::store::Unreported;

/// What a store connects to.
pub(super) struct Targets {
    /// The server of the organization's data.
    pub(super) calls: Target,
    /// The same, for reports.
    pub(super) reports: Target,
    /// That of what all organizations share: in a cluster, it may be another.
    pub(super) deployment: Target,
}

/// Where the store is and how it is used.
#[derive(Clone)]
pub struct RedisSettings {
    /// Where Redis is.
    pub url: RedisUrl,
    /// How it is logged into and trusted.
    pub access: RedisAccess,
    /// The organization; part of every key, and the hash tag that keeps them together in a cluster.
    pub organization: String,
    /// The longest that any call takes. Suggested: 250 ms.
    pub deadline: Duration,
    /// Keeps the process off a server whose layout this release does not know. Stores made of clones of these settings share it.
    pub layout: LayoutGate,
    /// Where reservations are counted that ended without a report and that these stores booked.
    pub unreported: Unreported,
    /// What is kept of that which was acknowledged, to book it again after a failover that forgot it.
    pub replay: ReplaySettings,
}

/// Without the url, as it may contain a password.
impl fmt::Debug for RedisSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisSettings")
            .field("organization", &self.organization)
            .field("deadline", &self.deadline)
            .finish_non_exhaustive()
    }
}

/// Why settings cannot be used. None repeats the url, as it may contain a password.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum SettingsError {
    /// A hash tag ends at the first `}` and must not be empty.
    #[error("the organization `{0}` is empty or holds a brace, so it cannot be part of a key")]
    Organization(String),
    /// No call can be answered in zero time.
    #[error("the deadline of store calls is zero")]
    Deadline,
}

impl RedisSettings {
    /// What a store connects to, over the links of those that are made with it.
    pub(super) fn targets(&self, keyspace: &Keyspace, links: &Together) -> Result<Targets, SettingsError> {
        if self.organization.is_empty() || self.organization.contains(['{', '}']) {
            return Err(SettingsError::Organization(self.organization.clone()));
        }
        if self.deadline.is_zero() {
            return Err(SettingsError::Deadline);
        }
        let dialer = Dialer::new(&self.url, self.access.clone());
        let locator = |key| Arc::new(Locator::new(&self.url.place, dialer.over(&links.questions), key));
        let target = |links, locator: &Arc<Locator>, purpose| Target {
            dialer: dialer.over(links),
            locator: Arc::clone(locator),
            purpose,
            layout: self.layout.clone(),
            span: Span::current(),
        };
        let (meta, counters) = (keyspace.meta.clone(), keyspace.counters.clone());
        let (own, of_all) = (locator(&keyspace.meta), locator(DEPLOYMENT));
        let organization = Purpose::Organization { meta, counters };
        Ok(Targets {
            calls: target(&links.calls, &own, organization.clone()),
            reports: target(&links.reports, &own, organization),
            deployment: target(&links.deployment, &of_all, Purpose::Deployment(DEPLOYMENT)),
        })
    }
}
