//! What operators are told of besides budgets that are spent: the facts, from which a message is made when it is sent.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{
    Timestamp,
    actor::Actor,
    alert::AlertKind,
    drift::{Days, Drift},
    pause::Target,
};

/// The most bytes of a text that comes from a file, as JSON writes it: several copies of it are in an entry of the outbox, which has a
/// bound.
pub const MAX_TEXT: usize = 1_024;

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
const fn is_zero(count: &u64) -> bool {
    *count == 0
}

/// What has happened, or lasts. Kept as JSON, to which fields are added.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Occasion {
    /// Requests for a project, model and service tier are not sent to Groq, which refused one.
    UpstreamCooldown {
        /// The Groq project.
        project: Arc<str>,
        /// The model.
        model: Arc<str>,
        /// The short name of the service tier.
        service_tier: Arc<str>,
        /// When it began, by the store's own time: the same for every replica.
        begun: Timestamp,
        /// When it began, by the wall clock.
        start: Timestamp,
        /// When it ends, as far as was known then.
        end: Timestamp,
        /// How long Groq asked to wait, in milliseconds, before any cap.
        requested_ms: u64,
        /// The team whose report decides when it ends.
        reporter: Arc<str>,
    },
    /// Groq refused a key of the organization.
    UpstreamKeyRefused {
        /// Identifies it without revealing it.
        key: Arc<str>,
        /// Its project.
        project: Arc<str>,
        /// Where it was found.
        place: Arc<str>,
        /// When it became available.
        since: Timestamp,
        /// Whether its project has no other that is not refused.
        is_last: bool,
    },
    /// Something is paused.
    Pause {
        /// What, as it is recorded.
        target: Arc<str>,
        /// Why.
        reason: Arc<str>,
        /// By whose order.
        by: Actor,
        /// Since when.
        since: Timestamp,
    },
    /// A changed policy did not load.
    PolicyRejected {
        /// The document.
        file: Arc<str>,
        /// Its first finding.
        finding: Arc<str>,
        /// The revision that stays in force.
        revision: Arc<str>,
    },
    /// The store did not answer.
    StoreOutage {
        /// Since when.
        start: Timestamp,
        /// The replica that tells of it.
        replica: Arc<str>,
        /// How many requests that replica has decided without it.
        #[serde(default, skip_serializing_if = "is_zero")]
        degraded: u64,
        /// How many reports of usage that replica has kept, to be booked afterwards.
        #[serde(default, skip_serializing_if = "is_zero")]
        spooled: u64,
    },
    /// Reports of usage that a replica has acknowledged are not in the books.
    SpoolBacklog {
        /// The name of its spool.
        spool: Arc<str>,
        /// The replica.
        replica: Arc<str>,
        /// How many wait.
        records: u64,
        /// When the oldest of them was acknowledged; 0: none waits.
        oldest: Timestamp,
        /// How many were refused for good.
        refused: u64,
        /// Why it acknowledges no more; empty: it does.
        lost: Arc<str>,
        /// What else is wrong with its disk; empty: nothing is known.
        #[serde(default, skip_serializing_if = "str::is_empty")]
        fault: Arc<str>,
    },
    /// Many reservations of a team have expired without a report.
    UnsettledHigh {
        /// The team.
        team: Arc<str>,
        /// How many expired without one.
        expired: u64,
        /// Of how many that were to be reported.
        total: u64,
    },
    /// Usage without a reservation was refused for its bound.
    UnreservedRefused {
        /// The team.
        team: Arc<str>,
        /// What the caller was told.
        message: Arc<str>,
        /// The end of the day.
        end: Timestamp,
    },
    /// A budget will be used up before its period ends.
    BudgetForecast {
        /// The budget's counter with its period, `NAME@FIRST_DAY`.
        counter: Arc<str>,
        /// When, at the rate of the spend so far.
        exhaust: Timestamp,
    },
    /// Replicas of an earlier release share the store, whose layout this release writes or will raise.
    LayoutMismatch {
        /// The latest layout that the replica knows that tells of it.
        layout: u32,
        /// The earliest that is the latest of one of the others.
        lowest: u32,
        /// One of those replicas.
        replica: Arc<str>,
        /// How many there are.
        count: u64,
    },
    /// What was booked differs from what Groq billed.
    UsageDrift {
        /// The days that were compared.
        report: Days,
        /// What was found.
        drift: Drift,
    },
}

impl Occasion {
    /// The kind of its alert.
    #[must_use]
    pub const fn kind(&self) -> AlertKind {
        match self {
            Self::UpstreamCooldown { .. } => AlertKind::UpstreamCooldown,
            Self::UpstreamKeyRefused { .. } => AlertKind::UpstreamKeyRefused,
            Self::Pause { .. } => AlertKind::Pause,
            Self::PolicyRejected { .. } => AlertKind::PolicyRejected,
            Self::StoreOutage { .. } => AlertKind::StoreOutage,
            Self::SpoolBacklog { .. } => AlertKind::SpoolBacklog,
            Self::UnsettledHigh { .. } => AlertKind::UnsettledHigh,
            Self::UnreservedRefused { .. } => AlertKind::UnreservedRefused,
            Self::BudgetForecast { .. } => AlertKind::BudgetForecast,
            Self::LayoutMismatch { .. } => AlertKind::LayoutMismatch,
            Self::UsageDrift { .. } => AlertKind::UsageDrift,
        }
    }

    /// What it is of, which tells it from others of its kind.
    #[must_use]
    pub fn subject(&self) -> String {
        match self {
            Self::UpstreamCooldown { project, model, service_tier, .. } => {
                format!("{project}/{service_tier}/{model}")
            }
            Self::UpstreamKeyRefused { key, .. } => key.to_string(),
            Self::Pause { target, .. } => target.to_string(),
            Self::UnsettledHigh { team, .. } | Self::UnreservedRefused { team, .. } => team.to_string(),
            Self::BudgetForecast { counter, .. } => counter.to_string(),
            Self::UsageDrift { drift, .. } => drift.subject(),
            Self::SpoolBacklog { spool, .. } => spool.to_string(),
            // An organization has one policy and one store.
            Self::PolicyRejected { .. } | Self::StoreOutage { .. } | Self::LayoutMismatch { .. } => {
                String::new()
            }
        }
    }

    /// What a pause is of.
    #[must_use]
    pub fn paused(&self) -> Option<Target> {
        match self {
            Self::Pause { target, .. } => target.parse().ok(),
            _ => None,
        }
    }
}

/// What [`MAX_TEXT`] leaves of the first line of a text. A control character becomes a space: receivers show it on screens.
#[must_use]
pub fn first_line(text: &str) -> Arc<str> {
    let (mut line, mut length) = (String::new(), 0);
    for character in text.lines().next().unwrap_or_default().chars() {
        let character = if character.is_control() { ' ' } else { character };
        length += if matches!(character, '"' | '\\') { 2 } else { character.len_utf8() };
        if length > MAX_TEXT {
            break;
        }
        line.push(character);
    }
    line.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_one_line_with_a_bound_in_json() {
        assert_eq!(&*first_line("a\u{1b}[31m\tb\nc"), "a [31m b");
        for text in ["\"", "\\", "\u{1}", "\u{7f}", "ä", "x"] {
            let line = first_line(&text.repeat(5_000));
            let json = serde_json::to_string(&line).unwrap().len() - 2;
            assert!((MAX_TEXT - 1..=MAX_TEXT).contains(&json), "{text:?}: {json}");
        }
    }
}
