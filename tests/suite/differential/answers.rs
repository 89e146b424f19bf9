//! One operation on one store, and what it answers.

use std::{fmt::Debug, sync::Arc};

use bytes::Bytes;
use tollgate::{
    domain::{
        Timestamp,
        counter::{CounterKey, CounterKind, Hold},
        key::SecretId,
    },
    store::{
        Cooldown, CooldownChange, Extra, OTHER_VALUE, Record, RegistryRecord, RegistryWritten, ReservationId,
        Reserve, Reserved, Revision, SecretUse, SecretUses, Series, Settle, SettleOutcome, Store, StoreError,
        USE_SLOT_MS, USE_SLOTS_KEPT, UsageAddition, UsageAmounts, UsageKey, UsageSet,
    },
};

use super::operations::{Ask, COUNTERS, Operation, TEAMS, counter, gate};
use crate::harness::START;

/// What a store answered.
#[derive(Debug, PartialEq)]
pub(super) enum Answer {
    Reserved(Result<Reserved, StoreError>),
    Settled(Option<Record>, Result<SettleOutcome, StoreError>),
    Found(Result<Option<Record>, StoreError>),
    Counters(Result<Vec<tollgate::domain::counter::CounterState>, StoreError>),
    Cooldowns(Result<Vec<(CounterKey, Cooldown)>, StoreError>),
    Usage(Result<Vec<(UsageKey, UsageAmounts)>, StoreError>),
    Spenders(Result<Vec<Arc<str>>, StoreError>),
    Written(Result<RegistryWritten, StoreError>),
    Registry(Result<Vec<RegistryRecord>, StoreError>),
    Used(Result<(), StoreError>),
    Uses(Result<Vec<SecretUses>, StoreError>),
    Moved,
}

/// The note of settlements that leave their id free.
const FREE: &[u8] = b"free";

pub(super) async fn apply<S: Store>(store: &S, operation: &Operation, now: Timestamp) -> Answer {
    match operation.clone() {
        Operation::Reserve(ask) => Answer::Reserved(store.reserve(reserve(ask, now)).await),
        Operation::Settle { id, actual, extras, thresholds, lines, close, keep_ms } => {
            let id = ReservationId(id.to_be_bytes());
            let record = store.find(id).await.unwrap();
            // Where nothing is known, what was known once is as good as anything.
            let known = record.clone().unwrap_or_else(nothing);
            let holds = known.holds.len();
            let extra = |(budget, amount)| {
                let (counter, kind) = counter(2 * budget + 1);
                Extra { counter, kind, amount }
            };
            let mut extras: Vec<Extra> = extras.into_iter().map(extra).collect();
            extras.retain(|extra| known.holds.iter().all(|hold| *hold.counter != extra.counter));
            let all = known.holds.iter().map(|hold| hold.kind).chain(extras.iter().map(|extra| extra.kind));
            let budgets = all.enumerate().filter(|(_, kind)| matches!(kind, CounterKind::Budget { .. }));
            let thresholds = budgets.map(|(index, _)| (index, thresholds.clone())).collect();
            let lines = lines
                .into_iter()
                .map(|(series, team, month, amount)| line(series, team, month, amount))
                .collect();
            let settle = Settle {
                id,
                record: known,
                actual: actual.into_iter().chain([1; 5]).take(holds).collect(),
                extras,
                thresholds,
                lines,
                max_rows: 2,
                cooldown: close.map(|(index, ms)| (gate(index), ms.map_or(CooldownChange::Lift, open))),
                keep_ms,
                note: Bytes::from_static(if keep_ms % 2 == 0 { FREE } else { b"settled" }),
            };
            Answer::Settled(record, store.settle(settle).await)
        }
        Operation::Find(id) => Answer::Found(store.find(ReservationId(id.to_be_bytes())).await),
        Operation::Counters => Answer::Counters(store.counters((0..COUNTERS).map(counter).collect()).await),
        Operation::Cooldowns => Answer::Cooldowns(store.cooldowns().await),
        Operation::Lift(index) => Answer::Cooldowns(store.lift_cooldowns(vec![gate(index)]).await),
        Operation::Usage { series, team, month } => {
            Answer::Usage(store.usage(set(series, team, month)).await)
        }
        Operation::Spenders(month) => Answer::Spenders(store.spenders(month).await),
        Operation::Add { source, number, lines } => {
            let of = |(series, team, month, amount)| line(series, team, month, amount);
            let lines = lines.into_iter().map(of).collect();
            let addition = UsageAddition { source: [source; 16], number, lines, max_rows: 2 };
            Answer::Used(store.add_usage(addition).await)
        }
        Operation::Denied(month) => Answer::Spenders(store.denied(month).await),
        Operation::Write(name, expected, value) => {
            let value = vec![value; value.into()].into();
            Answer::Written(store.registry_write(format!("record {name}").into(), expected, value).await)
        }
        Operation::Registry => {
            let changes = store.registry_since(Revision::default()).await;
            Answer::Registry(changes.map(|changes| changes.records))
        }
        Operation::Use(secret, slot, requests) => {
            let last_used = Timestamp(u64::from(slot) * USE_SLOT_MS + 1);
            let added = SecretUse { secret: SecretId(secret), slot, requests, last_used };
            Answer::Used(store.add_uses(vec![added]).await)
        }
        Operation::Uses => {
            let uses = store.uses((0..3).map(SecretId).collect()).await;
            Answer::Uses(uses.map(|uses| uses.into_iter().map(recent).collect()))
        }
        Operation::Clock(_) => Answer::Moved,
    }
}

fn reserve(ask: Ask, now: Timestamp) -> Reserve {
    let hold = |(index, limit, kept, expiring)| {
        let (counter, kind) = counter(index);
        Hold { counter, kind, limit, kept, expiring }
    };
    Reserve {
        id: ReservationId(ask.id.to_be_bytes()),
        may_repeat: ask.may_repeat,
        fingerprint: ask.fingerprint,
        holds: ask.holds.into_iter().map(hold).collect(),
        gates: ask.gates.into_iter().map(gate).collect(),
        valid: Timestamp(now.0.saturating_sub(ask.valid.0))..now.plus(ask.valid.1),
        ttl_ms: ask.ttl_ms,
        late_ms: ask.late_ms,
        note: ask.note.into(),
        // What half of the settlements leave.
        replaces: Bytes::from_static(FREE),
        dry_run: ask.dry_run,
    }
}

/// Without what a store may have forgotten or not.
fn recent(mut uses: SecretUses) -> SecretUses {
    let newest = uses.slots.last().map_or(0, |(slot, _)| *slot);
    uses.slots.retain(|(slot, _)| slot + USE_SLOTS_KEPT >= newest);
    uses
}

fn nothing() -> Record {
    let (counter, kind) = counter(0);
    Record {
        fingerprint: 0,
        reserved_at: START,
        expires_at: START,
        holds: [Hold { counter, kind, limit: 1, kept: 0, expiring: 1 }].into(),
        note: Bytes::new(),
        settlement: None,
    }
}

fn open(length_ms: u64) -> CooldownChange {
    CooldownChange::Open { length_ms, requested_ms: length_ms / 2, reporter: TEAMS[1].into() }
}

fn set(series: usize, team: usize, month: u32) -> UsageSet {
    let day = month * 100 + 1;
    let (series, period) = match series {
        0 => (Series::Days, month),
        1 => (Series::Hours, day),
        2 => (Series::Users, day),
        4 => (Series::Denials, day),
        5 => (Series::DenialHours, day),
        _ => (Series::Label("l".into()), day),
    };
    UsageSet { series, period, team: TEAMS[team].into() }
}

fn line(series: usize, team: usize, month: u32, amount: u64) -> (UsageKey, UsageAmounts) {
    let day = UsageKey::of_day(month, "".into(), month * 100 + 1, "m m".into(), "".into());
    let set = set(series, team, month);
    let [hour, value] = match series {
        1 => [amount % 25, 0],
        2..=4 => [0, amount % 4],
        5 => [amount % 25, amount % 4],
        _ => [0, 0],
    };
    let hour = u8::try_from(hour).unwrap();
    // Now and then the value that stands for those without room.
    let value: Arc<str> = match (series, value) {
        (0 | 1, _) => "".into(),
        (2 | 3, 3) => OTHER_VALUE.into(),
        (_, value) => format!("v{value}").into(),
    };
    let key = UsageKey { set, hour, value, project: "p|".into(), ..day };
    let tool_cost_nanos = amount / 3;
    let amounts = UsageAmounts {
        cost_nanos: amount,
        requests: 1,
        characters: amount / 2,
        tool_cost_nanos,
        ..Default::default()
    };
    (key, amounts)
}
