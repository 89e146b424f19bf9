//! A report as the spool keeps it: a version, and postcard.

use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{
    super::{
        Failure,
        report::{Report, Spooled},
        ticket,
    },
    facts::Facts,
};
use crate::domain::{
    rbac::TeamScope,
    request::{Outcome, Usage},
};

/// The format of a record. Postcard writes neither the names nor the number of fields, so a record has exactly those of its version: a field
/// more, also in what is within it ([`Facts`], [`Usage`], a ticket's own version apart), is another version, with a type of its own for each
/// that is still read. What a later release wrote waits for one that knows it.
const VERSION: u8 = 1;

/// What a report is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Subject {
    /// A reservation of the store.
    Stored,
    /// A request by its `request_id`.
    Unreserved,
    /// A reservation that was made in an outage.
    Degraded,
}

/// A report that is kept.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct SpoolRecord {
    pub(super) subject: Subject,
    /// Whether the store was asked to book it before it was kept.
    pub(super) is_tried: bool,
    pub(super) usage: Option<Usage>,
    pub(super) outcome: Outcome,
    pub(super) upstream_delay_ms: u64,
    /// The teams of which it may be, where that is not known yet; `None`: of any.
    pub(super) teams: Option<Vec<Arc<str>>>,
    /// `None`: only the store knows them.
    pub(super) facts: Option<Facts>,
}

/// What people are shown of a record, as JSON.
#[derive(Serialize)]
struct Words<'a> {
    subject: Subject,
    usage: &'a Option<Usage>,
    outcome: Outcome,
    team: Arc<str>,
    key: Arc<str>,
    model: Arc<str>,
    user: Arc<str>,
}

impl SpoolRecord {
    pub(super) fn new(
        subject: Subject,
        report: &Report,
        teams: Option<Vec<Arc<str>>>,
        facts: Option<Facts>,
    ) -> Self {
        let Report { usage, outcome, upstream_delay_ms, .. } = report;
        Self {
            subject,
            is_tried: false,
            usage: usage.clone(),
            outcome: *outcome,
            upstream_delay_ms: *upstream_delay_ms,
            teams,
            facts,
        }
    }

    /// The bytes for the spool.
    pub(super) fn to_bytes(&self) -> Result<Bytes, Failure> {
        ticket::encode(VERSION, self)
    }

    /// Whether this release knows the version of a record.
    pub(super) fn is_known(bytes: &[u8]) -> bool {
        bytes.first().is_none_or(|version| *version <= VERSION)
    }

    /// The inverse of [`SpoolRecord::to_bytes`].
    pub(super) fn of(bytes: &[u8]) -> Result<Self, Failure> {
        ticket::decode(VERSION, bytes)
    }

    /// The one team that it may be of, if it is one.
    pub(super) fn only_team(&self) -> Option<Arc<str>> {
        match self.teams.as_deref() {
            Some([team]) => Some(Arc::clone(team)),
            _ => None,
        }
    }

    /// The teams that it may be of.
    pub(super) fn scope(&self) -> TeamScope {
        match &self.teams {
            Some(teams) => TeamScope::Teams(Arc::new(teams.iter().cloned().collect())),
            None => TeamScope::All,
        }
    }

    /// The report.
    pub(super) fn report(&self) -> Report {
        let report = Report::new(self.usage.clone(), self.outcome, self.upstream_delay_ms);
        let spooled = Spooled {
            decided_at: self.facts.as_ref().map(|facts| facts.decided_at),
            tools: self.facts.iter().flat_map(|facts| facts.tools.iter().cloned()).collect(),
        };
        report.delivered(spooled)
    }

    /// What people are shown of it.
    pub(super) fn in_words(&self) -> String {
        let ticket = self.facts.as_ref().and_then(|facts| facts.ticket().ok());
        let ticket = ticket.as_ref();
        let words = Words {
            subject: self.subject,
            usage: &self.usage,
            outcome: self.outcome,
            team: ticket
                .map(|ticket| Arc::clone(&ticket.team))
                .or_else(|| self.only_team())
                .unwrap_or_default(),
            key: ticket.map(|ticket| Arc::clone(&ticket.key)).unwrap_or_default(),
            model: ticket.map(|ticket| Arc::clone(&ticket.model)).unwrap_or_default(),
            user: ticket.map(|ticket| Arc::clone(&ticket.user)).unwrap_or_default(),
        };
        serde_json::to_string(&words).unwrap_or_default()
    }
}
