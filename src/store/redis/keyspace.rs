//! The names of keys and of the fields in them. Every key of an organization has its hash tag, so all are in one slot.

use std::{borrow::Cow, sync::Arc};

use crate::{
    domain::{counter::CounterKey, key::SecretId},
    store::{UsageKey, UsageSet},
};

/// The field of the counters' hash that keeps the store's time; see `store_time.lua`.
pub(super) const TIME_FIELD: &str = "!time";
/// The hash of what all organizations of the server share, so without the hash tag that their keys have: no organization has a name
/// that leads here.
pub(super) const DEPLOYMENT: &str = "tollgate:meta";
/// The field in [`DEPLOYMENT`] of the key that secrets of virtual keys are hashed with: 32 bytes.
pub(super) const HASH_KEY_FIELD: &str = "hash_key";
/// Begins the field of a gate.
pub(super) const GATE_PREFIX: &str = "!gate/";

/// The names of an organization's keys.
#[derive(Debug)]
pub(super) struct Keyspace {
    prefix: String,
    pub(super) counters: String,
    pub(super) history: String,
    pub(super) cooldowns: String,
    pub(super) sweep: String,
    /// The records of reservations by their ids, and the terms that they refer to; see `records.lua`.
    pub(super) records: String,
    pub(super) terms: String,
    /// The index of the records that layout 4 had under keys of their own.
    pub(super) earlier: String,
    /// How many reservations were not reported, by what they have in common; see `sweep.lua`.
    pub(super) unreported: String,
    pub(super) registry: String,
    pub(super) revision: String,
    pub(super) audit: String,
    pub(super) replicas: String,
    /// Decisions that are watched; see `publish_decisions.lua`.
    decisions: String,
    pub(super) decisions_watched: String,
    /// The outbox; see `outbox.lua`.
    pub(super) crossings: String,
    pub(super) outbox: String,
    pub(super) outbox_order: String,
    pub(super) outbox_due: String,
    /// The policies that were in force, and their documents; see `record_policy.lua`.
    pub(super) policies: String,
    pub(super) policy_documents: String,
    /// The layout of all these; see `meta.lua`.
    pub(super) meta: String,
}

impl Keyspace {
    pub(super) fn new(organization: &str) -> Self {
        let prefix = format!("tollgate:{{{organization}}}");
        Self {
            counters: format!("{prefix}:counters"),
            history: format!("{prefix}:history"),
            cooldowns: format!("{prefix}:cooldowns"),
            sweep: format!("{prefix}:sweep"),
            records: format!("{prefix}:records"),
            terms: format!("{prefix}:terms"),
            earlier: format!("{prefix}:reservations"),
            unreported: format!("{prefix}:unreported"),
            registry: format!("{prefix}:registry"),
            revision: format!("{prefix}:registry:revision"),
            audit: format!("{prefix}:audit"),
            replicas: format!("{prefix}:replicas"),
            decisions: format!("{prefix}:decisions"),
            decisions_watched: format!("{prefix}:decisions:watched"),
            crossings: format!("{prefix}:outbox:crossings"),
            outbox: format!("{prefix}:outbox"),
            outbox_order: format!("{prefix}:outbox:order"),
            outbox_due: format!("{prefix}:outbox:due"),
            policies: format!("{prefix}:policies"),
            policy_documents: format!("{prefix}:policies:documents"),
            meta: format!("{prefix}:meta"),
            prefix,
        }
    }

    /// Appends the keys of `reserve.lua` and `reserve_batch.lua`.
    pub(super) fn push_reserve(&self, cmd: &mut redis::Cmd) {
        for key in [&self.counters, &self.history, &self.records, &self.terms, &self.earlier] {
            cmd.arg(key);
        }
    }

    /// Appends the keys of `publish_decisions.lua` and `read_decisions.lua`.
    pub(super) fn push_decisions(&self, cmd: &mut redis::Cmd) {
        cmd.arg(&self.decisions).arg(&self.decisions_watched).arg(&self.meta);
    }

    pub(super) fn uses(&self, secret: SecretId) -> String {
        format!("{}:uses:{secret}", self.prefix)
    }

    /// The rows of a set.
    pub(super) fn usage(&self, set: &UsageSet) -> String {
        let UsageSet { series, period, team } = set;
        format!("{}:usage:{}:{period}:{team}", self.prefix, series.name())
    }

    /// The rows of days of a month as up to layout 5.
    pub(super) fn spend(&self, month: u32, team: &str) -> String {
        format!("{}:spend:{month}:{team}", self.prefix)
    }

    /// The hash of the thresholds reported for budgets whose period starts on this day.
    pub(super) fn reported(&self, period: u32) -> String {
        format!("{}:reported:{period}", self.prefix)
    }

    /// The set of the teams that have rows of denials in a month.
    pub(super) fn denied(&self, month: u32) -> String {
        format!("{}:denied:{month}", self.prefix)
    }

    /// The number of the last addition of a source.
    pub(super) fn added(&self, source: [u8; 16]) -> String {
        format!("{}:added:{:032x}", self.prefix, u128::from_be_bytes(source))
    }

    pub(super) fn spenders(&self, month: u32) -> String {
        format!("{}:spenders:{month}", self.prefix)
    }
}

/// The field of a counter: its key. A key with a leading `!` gets one more, so no counter has a gate's name.
pub(super) fn counter_field(key: &CounterKey) -> Cow<'_, str> {
    match (key.name().starts_with('!'), key.period()) {
        (true, _) => Cow::Owned(format!("!{key}")),
        (false, 0) => Cow::Borrowed(key.name()),
        (false, _) => Cow::Owned(key.to_string()),
    }
}

/// The field of a gate.
pub(super) fn gate_field(key: &CounterKey) -> String {
    format!("{GATE_PREFIX}{key}")
}

/// The gate with this field, which has no period.
pub(super) fn gate_of(field: &str) -> Option<CounterKey> {
    field.strip_prefix(GATE_PREFIX).map(CounterKey::new)
}

/// The field of a row: `day|hour|operation|tier|lengths of model, key and project|`, each with a bar after it, then these three and the value.
/// The lengths make it unambiguous whatever the names contain.
pub(super) fn usage_field(row: &UsageKey) -> String {
    let UsageKey { day, hour, model, key, project, value, .. } = row;
    let [operation, tier] = row.codes();
    let lengths = [model, key, project].map(|name| name.len());
    let [model_len, key_len, project_len] = lengths;
    format!(
        "{day}|{hour}|{operation}|{tier}|{model_len}|{key_len}|{project_len}|{model}{key}{project}{value}"
    )
}

/// The row of a field in the hash of `set`.
pub(super) fn usage_key(set: &UsageSet, field: &str) -> Option<UsageKey> {
    let mut rest = field;
    let mut number = || {
        let (digits, after) = rest.split_once('|')?;
        rest = after;
        digits.parse::<u32>().ok()
    };
    let (day, hour, operation, tier) = (number()?, number()?, number()?, number()?);
    let lengths = [number()?, number()?, number()?];
    let mut name = |length: u32| {
        let (name, after) = rest.split_at_checked(usize::try_from(length).ok()?)?;
        rest = after;
        Some(Arc::<str>::from(name))
    };
    let [model_len, key_len, project_len] = lengths;
    let (model, key, project) = (name(model_len)?, name(key_len)?, name(project_len)?);
    let code = |code: u32| u8::try_from(code).unwrap_or(u8::MAX);
    let (operation, service_tier) = UsageKey::of_codes([code(operation), code(tier)]);
    let (set, hour, value) = (set.clone(), u8::try_from(hour).ok()?, rest.into());
    Some(UsageKey { set, day, hour, model, key, operation, service_tier, project, value })
}

/// The row of a field, `day|length of the model|model|key`, in a hash of days as up to layout 5.
pub(super) fn spend_line(month: u32, team: &Arc<str>, field: &str) -> Option<UsageKey> {
    let (day, rest) = field.split_once('|')?;
    let (length, rest) = rest.split_once('|')?;
    let (model, rest) = rest.split_at_checked(length.parse().ok()?)?;
    let (day, key) = (day.parse().ok()?, rest.strip_prefix('|')?.into());
    Some(UsageKey::of_day(month, Arc::clone(team), day, model.into(), key))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{Series, redis::locator::slot_of};

    #[test]
    fn a_row_is_read_as_it_was_written() {
        for (model, key, value) in
            [("openai/gpt-oss-20b", "", ""), ("a|b", "c|d", "|"), ("", "|", "1|2"), ("ü|", "x", "é")]
        {
            let set = UsageSet { series: Series::Users, period: 20_261_123, team: "t".into() };
            let day = UsageKey::of_day(0, "".into(), 20_261_123, model.into(), key.into());
            let codes = UsageKey::of_codes([7, 4]);
            let project = "p|".into();
            let row = UsageKey {
                set: set.clone(),
                hour: 24,
                operation: codes.0,
                service_tier: codes.1,
                project,
                value: value.into(),
                ..day
            };
            assert_eq!(usage_key(&set, &usage_field(&row)), Some(row));
        }
    }

    #[test]
    fn a_row_of_layout_5_is_read() {
        let row = UsageKey::of_day(202_611, "t".into(), 20_261_123, "a|b".into(), "c|d".into());
        assert_eq!(spend_line(202_611, &"t".into(), "20261123|3|a|b|c|d"), Some(row));
    }

    /// A script may touch all keys of an organization, and only those: in a cluster they have to be in one slot.
    #[test]
    fn every_key_of_an_organization_is_in_its_slot() {
        for organization in ["acme", "a", "x.y-z", "0"] {
            let keys = Keyspace::new(organization);
            let set = UsageSet { series: Series::Users, period: 20_261_123, team: "t{other}".into() };
            let mut cmd = redis::Cmd::new();
            keys.push_reserve(&mut cmd);
            keys.push_decisions(&mut cmd);
            let pushed = cmd.args_iter().map(|arg| match arg {
                redis::Arg::Simple(key) => String::from_utf8(key.to_vec()).unwrap(),
                _ => panic!("no key"),
            });
            let Keyspace {
                prefix,
                counters,
                history,
                cooldowns,
                sweep,
                records,
                terms,
                earlier,
                unreported,
                registry,
                revision,
                audit,
                replicas,
                decisions,
                decisions_watched,
                crossings,
                outbox,
                outbox_order,
                outbox_due,
                policies,
                policy_documents,
                meta,
            } = &keys;
            let fields = [
                prefix,
                counters,
                history,
                cooldowns,
                sweep,
                records,
                terms,
                earlier,
                unreported,
                registry,
                revision,
                audit,
                replicas,
                decisions,
                decisions_watched,
                crossings,
                outbox,
                outbox_order,
                outbox_due,
                policies,
                policy_documents,
                meta,
            ];
            let made = [
                keys.uses(SecretId(7)),
                keys.usage(&set),
                keys.spend(202_611, "t{other}"),
                keys.reported(20_261_101),
                keys.denied(202_611),
                keys.added([7; 16]),
                keys.spenders(202_611),
                format!("{outbox_due}:queue"),
                format!("{prefix}:reservation:id"),
            ];
            let all: Vec<String> = fields.into_iter().cloned().chain(made).chain(pushed).collect();
            assert!(all.len() > 30);
            for key in all {
                assert_eq!(slot_of(&key), slot_of(organization), "{key}");
            }
        }
    }

    #[test]
    fn no_counter_has_the_field_of_a_gate() {
        assert_eq!(gate_field(&CounterKey::new("x")), "!gate/x");
        assert_eq!(gate_of("!gate/x"), Some(CounterKey::new("x")));
        assert_eq!(counter_field(&CounterKey::new("!gate/x")), "!!gate/x");
        assert_eq!(counter_field(&CounterKey::new("team/a").in_period(20_261_101)), "team/a@20261101");
    }
}
