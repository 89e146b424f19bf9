//! How long stores keep what they hold, written once: the scripts of the Redis store get these numbers when they are loaded.

use super::{
    AUDIT_REMOVED, Crossing, DECISIONS_KEPT, DECISIONS_KEPT_MS, DECISIONS_WATCHED_MS, HOURS_KEPT_DAYS,
    MAX_POLICIES, MAX_POLICY_REPLICAS, OUTBOX_REMOVED, Series, USE_SLOTS_KEPT,
    outbox::OUTBOX_MOVED,
    replicas::{REPLICAS_LOOKED_AT, REPLICAS_STORED},
};

const DAY_S: u64 = 86_400;
/// A day in milliseconds.
pub(super) const DAY_MS: u64 = DAY_S * 1000;

/// The counter of a day or a week, after its first day: until past the end of the week and a late report.
pub(super) const PERIOD_KEPT_DAYS: u64 = 40;
/// The counter of a period that begins on the first of a month, which may be a month: 13 months, for comparison with last year.
pub(super) const MONTH_KEPT_DAYS: u64 = 400;

/// All records of reservations in Redis after the last sweep, and a list of cooldowns after its last entry. The sweep removes
/// records long before, by the store's time. This expiry runs by the server's clock, which may be set; it frees memory when no
/// process is left.
const RECORD_KEPT_MS: u64 = 400 * DAY_MS;
/// Rows of usage in Redis but those of hours, after the last new one of their set: a year and a month.
const SPEND_KEPT_S: u64 = 400 * DAY_S;
/// The thresholds reported for the budgets of a period in Redis, after the last report: the longest period and the latest
/// settlement in it, and as much again.
const REPORTED_KEPT_S: u64 = 62 * DAY_S;
/// The uses of a secret, after the last of them (in Redis: after its last new slot): a year and a month.
pub(super) const USES_KEPT_S: u64 = 400 * DAY_S;
/// The last writes of the registry of which Redis keeps the record's name. A reader that is further behind reads all records.
const REGISTRY_WRITES_KEPT: u64 = 256;
/// A replica, after it was last seen: long enough to see which ones were there before an incident or an upgrade.
pub(super) const REPLICA_KEPT_MS: u64 = 3_600 * 1000;

/// How long Redis keeps the rows of a set after the last new one, in seconds.
pub(super) const fn usage_kept_s(series: &Series) -> u64 {
    match series {
        Series::Hours | Series::DenialHours => HOURS_KEPT_DAYS * DAY_S,
        Series::Days | Series::Users | Series::Label(_) | Series::Denials => SPEND_KEPT_S,
    }
}

/// The number of a source's last addition to rows, after it: far longer than any addition is tried again.
const ADDED_KEPT_S: u64 = DAY_S;

/// The numbers that scripts use, by the names under which they do.
pub(super) const FOR_SCRIPTS: [(&str, u64); 22] = [
    ("DAY_MS", DAY_MS),
    ("PERIOD_KEPT_DAYS", PERIOD_KEPT_DAYS),
    ("MONTH_KEPT_DAYS", MONTH_KEPT_DAYS),
    ("RECORD_KEPT_MS", RECORD_KEPT_MS),
    ("SPEND_KEPT_S", SPEND_KEPT_S),
    ("ADDED_KEPT_S", ADDED_KEPT_S),
    ("REPORTED_KEPT_S", REPORTED_KEPT_S),
    ("USES_KEPT_S", USES_KEPT_S),
    ("USE_SLOTS_KEPT", USE_SLOTS_KEPT as u64),
    ("REGISTRY_WRITES_KEPT", REGISTRY_WRITES_KEPT),
    ("AUDIT_REMOVED", AUDIT_REMOVED as u64),
    ("OUTBOX_REMOVED", OUTBOX_REMOVED as u64),
    ("OUTBOX_MOVED", OUTBOX_MOVED as u64),
    ("CROSSING_VERSION", Crossing::VERSION as u64),
    ("REPLICA_KEPT_MS", REPLICA_KEPT_MS),
    ("REPLICAS_LOOKED_AT", REPLICAS_LOOKED_AT),
    ("REPLICAS_STORED", REPLICAS_STORED),
    ("DECISIONS_KEPT_MS", DECISIONS_KEPT_MS),
    ("DECISIONS_KEPT", DECISIONS_KEPT as u64),
    ("DECISIONS_WATCHED_MS", DECISIONS_WATCHED_MS),
    ("POLICIES_KEPT", MAX_POLICIES as u64),
    ("POLICY_NAMES_KEPT", MAX_POLICY_REPLICAS as u64),
];
