//! Settlements: a call of their script.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use redis::Cmd;

use super::{
    Bounds, Inner, bytes,
    keyspace::{Keyspace, TIME_FIELD, counter_field, gate_field, spend_field},
    load::Urgency,
    queue::{self, Group, Member, Queue},
    record, script,
    wire::{Numbers, Reader, numbers, size},
};
use crate::{
    domain::counter::{CounterKey, CounterKind},
    runtime::clock::Monotonic,
    store::{
        CooldownChange, Settle, SettleOutcome, SpendAmounts, SpendKey, StoreError, retention::RECORD_KEPT_MS,
    },
};

numbers! {
    /// The numbers of `settle.lua` that are not of a counter, a line or a threshold, after those of [`Bounds`].
    pub(super) struct Head { keep, n, cooldown_change, close_ms, lines, held, watched }
}

/// The settlements of a store, several of which may be one call.
#[derive(Clone)]
struct Settlements(Arc<Inner>);

impl Group for Settlements {
    type Call = Arc<Settle>;
    type Answer = SettleOutcome;

    fn queue(&self) -> &Queue<Arc<Settle>, SettleOutcome> {
        &self.0.settlements
    }

    fn deadline(&self) -> Duration {
        self.0.connection.deadline()
    }

    fn holds(settle: &Arc<Settle>) -> usize {
        settle.actual.len() + settle.extras.len()
    }

    async fn alone(&self, member: &Member<Arc<Settle>>) -> Result<SettleOutcome, StoreError> {
        self.0.settle_alone(&member.call).await
    }

    async fn together(&self, members: &[Member<Arc<Settle>>]) -> Vec<Result<SettleOutcome, StoreError>> {
        self.0.settle_batch(members).await
    }

    fn missed(&self) -> StoreError {
        self.0.connection.missed_waiting(script::SETTLE.name)
    }
}

impl Inner {
    pub(super) async fn settle(self: &Arc<Self>, settle: Settle) -> Result<SettleOutcome, StoreError> {
        if settle.actual.len() != settle.record.holds.len() {
            tracing::error!("as many amounts as holds are needed to settle");
            return Err(StoreError::Corrupt);
        }
        self.know_time().await?;
        let flight = self.connection.enter(Urgency::Relief)?;
        let outcome = match settle.cooldown {
            // Rare, and the script for several does not do it.
            Some((_, CooldownChange::Open { .. })) => self.settle_alone(&settle).await,
            _ => queue::join(&Settlements(Arc::clone(self)), Member::new(Arc::new(settle))).await,
        };
        flight.ended_with(&outcome, self.connection.deadline());
        outcome
    }

    async fn settle_alone(&self, settle: &Settle) -> Result<SettleOutcome, StoreError> {
        let sent = self.time.reading();
        let bounds = self.time.for_effect(sent, self.connection.deadline_ms());
        let cmd = Call::new(settle).command(&self.keyspace, &bounds);
        let answer = bytes(self.connection.send(&script::SETTLE, &cmd).await?)?;
        self.read_settled(&answer, (sent, &bounds))
    }

    /// Reads the answer of `settle.lua` to a call that was sent with these bounds.
    pub(super) fn read_settled(
        &self,
        answer: &[u8],
        sent: (Monotonic, &Bounds),
    ) -> Result<SettleOutcome, StoreError> {
        let mut reader = Reader::new(answer);
        let outcome = reader.number()?;
        let now = self.read_time(&mut reader, sent)?;
        let settlement = || record::decode_settlement(reader.rest()).map(|first| first.by_the_wall(now));
        match outcome {
            0 => settlement().map(SettleOutcome::Settled),
            1 => settlement().map(SettleOutcome::AlreadySettled),
            2 => Ok(SettleOutcome::NotFound),
            3 => Err(StoreError::Overflow),
            _ => Err(StoreError::Corrupt),
        }
    }
}

/// A settlement in the order in which the script gets it.
pub(super) struct Call<'s> {
    pub(super) settle: &'s Settle,
    /// The holds' counters, then the extras'.
    pub(super) counters: Vec<&'s CounterKey>,
    pub(super) lines: BTreeMap<&'s SpendKey, [u64; 8]>,
    /// The counters with thresholds: their index, and the thresholds.
    pub(super) watched: Vec<(usize, &'s CounterKey, &'s [u64])>,
}

impl<'s> Call<'s> {
    pub(super) fn new(settle: &'s Settle) -> Self {
        let holds = settle.record.holds.counters();
        let counters: Vec<_> = holds.chain(settle.extras.iter().map(|extra| &extra.counter)).collect();
        let thresholds = settle.thresholds.iter();
        let watched =
            thresholds.filter_map(|(index, amounts)| Some((*index, *counters.get(*index)?, &**amounts)));
        Self { settle, lines: merged(&settle.lines), watched: watched.collect(), counters }
    }

    fn command(&self, keyspace: &Keyspace, bounds: &Bounds) -> Cmd {
        let cooldowns = usize::from(self.settle.cooldown.is_some());
        let mut cmd = script::SETTLE.call(4 + 2 * self.lines.len() + self.watched.len() + cooldowns);
        self.push_keys(&mut cmd, keyspace);
        let numbers = self.numbers(bounds);
        cmd.arg(numbers.bytes()).arg(numbers.format()).arg(RECORD_KEPT_MS).arg(self.settle.note.as_ref());
        self.push_fields(&mut cmd);
        cmd
    }

    fn push_keys(&self, cmd: &mut Cmd, keyspace: &Keyspace) {
        cmd.arg(&keyspace.counters).arg(&keyspace.history).arg(keyspace.reservation(self.settle.id));
        for line in self.lines.keys() {
            cmd.arg(keyspace.spend(line.month, &line.team)).arg(keyspace.spenders(line.month));
        }
        for (_, counter, _) in &self.watched {
            cmd.arg(keyspace.reported(counter.period()));
        }
        cmd.arg(&keyspace.reservations);
        if self.settle.cooldown.is_some() {
            cmd.arg(&keyspace.cooldowns);
        }
    }

    /// The kinds of the counters.
    pub(super) fn kinds(&self) -> impl Iterator<Item = CounterKind> {
        let (holds, extras) = (&self.settle.record.holds, &self.settle.extras);
        holds.iter().map(|hold| hold.kind).chain(extras.iter().map(|extra| extra.kind))
    }

    pub(super) fn numbers(&self, bounds: &Bounds) -> Numbers {
        let (settle, holds) = (self.settle, &self.settle.record.holds);
        let mut numbers = Numbers::with_capacity(10 + 4 * self.counters.len() + 8 * self.lines.len());
        bounds.push(&mut numbers);
        let (cooldown_change, close_ms) = match &settle.cooldown {
            None => (0, 0),
            Some((_, CooldownChange::Open { length_ms, .. })) => (1, *length_ms),
            Some((_, CooldownChange::Lift)) => (2, 0),
        };
        Head {
            keep: settle.keep_ms,
            n: size(self.counters.len()),
            cooldown_change,
            close_ms,
            lines: size(self.lines.len()),
            held: size(holds.len()),
            watched: size(self.watched.len()),
        }
        .push(&mut numbers);
        for (hold, actual) in holds.iter().zip(&settle.actual) {
            numbers.push_slot(hold.kind);
            numbers.extend(&[hold.kept, hold.expiring, *actual]);
        }
        for extra in &settle.extras {
            numbers.push_slot(extra.kind);
            numbers.extend(&[0, 0, extra.amount]);
        }
        for amounts in self.lines.values() {
            numbers.extend(amounts);
        }
        for (index, _, amounts) in &self.watched {
            numbers.extend(&[size(*index), size(amounts.len())]);
            numbers.extend(amounts);
        }
        numbers
    }

    fn push_fields(&self, cmd: &mut Cmd) {
        for counter in &self.counters {
            cmd.arg(&*counter_field(counter));
        }
        if let Some((gate, _)) = &self.settle.cooldown {
            cmd.arg(gate_field(gate));
        }
        cmd.arg(TIME_FIELD);
        for line in self.lines.keys() {
            cmd.arg(spend_field(line));
        }
        for line in self.lines.keys() {
            cmd.arg(&*line.team);
        }
        if self.settle.cooldown.is_some() {
            cmd.arg(self.particulars());
        }
    }

    /// The last argument: what is kept of a report that closes the gate.
    pub(super) fn particulars(&self) -> Vec<u8> {
        let Some((_, CooldownChange::Open { requested_ms, reporter, .. })) = &self.settle.cooldown else {
            return Vec::new();
        };
        let mut particulars = Numbers::with_capacity(1);
        particulars.push(*requested_ms);
        particulars.push_bytes(reporter.as_bytes());
        particulars.bytes().to_vec()
    }
}

/// The lines, each key once: a script reads all of them before it writes any.
fn merged(lines: &[(SpendKey, SpendAmounts)]) -> BTreeMap<&SpendKey, [u64; 8]> {
    let mut merged = BTreeMap::new();
    for (key, amounts) in lines {
        let sums: &mut [u64; 8] = merged.entry(key).or_default();
        for (sum, amount) in sums.iter_mut().zip(amounts.to_numbers()) {
            *sum = sum.saturating_add(amount);
        }
    }
    merged
}
